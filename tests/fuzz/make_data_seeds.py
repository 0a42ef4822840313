"""Seeds of the targets for pictures and for data files. usage: make_data_seeds.py FOLDER

Pictures are those of tests/data/files; a first byte says what the target does with the rest.
"""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
RANGES = {"x": [-1, 1], "h": [-2, 2], "y": [-2, 2]}
RECIPES = [
    {"recipe": 1},
    {"recipe": 1, "target": "onnxruntime", "ranges": RANGES},
    {"recipe": 1, "target": "tensorrt", "features": "kl", "weights": "mse", "granularity": "tensor", "ranges": RANGES,
     "scheme": "static", "weight_levels": "uniform", "weight_bits": 6, "weight_clamp": 31, "feature_clamp": 0,
     "activations": "s8sym", "calibrate_with": "float", "bias_correction": "on", "equalize": "off", "x86": "avx2",
     "batch": 2, "overrides": [{"name": "conv", "key": "weight-bits", "value": "4"},
                               {"name": "op:Conv", "key": "skip", "value": "1"},
                               {"name": "/con.*/", "key": "weights", "value": "max_abs"}],
     "biases": {"conv": [0.5, 0, -1]}, "equalization": {"conv": [1, 0, -1]}, "batch_norm": {},
     "integers": {"conv": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1"},
     "scales": {"conv": [0.1, 0.2, 0.3]}, "preprocessing": {}, "samples": [], "layers": [], "notes": ["n"]},
    {"recipe": 1, "scheme": "int4", "weight_block": 16}, {"recipe": 1, "scheme": "dynamic"},
    {"recipe": 2}, {"recipe": 1, "unknown": 3}, {"recipe": 1, "ranges": {"x": [1e400, "a"]}}, [], "text",
]  # fmt: skip


def data():
    for name in ("rows", "fortran", "rows_big_endian", "rows_i16"):
        yield 0, (ROOT / f"data/files/{name}.npy").read_bytes()
    for dtype in ("<f2", "<f4", ">f8", "|u1", "|b1", "<i8", "<u4"):
        header = repr({"descr": dtype, "fortran_order": False, "shape": (2, 3)}).encode() + b"\n"
        body = np.arange(6).astype(dtype).tobytes()
        yield 0, b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + body
        yield 0, b"\x93NUMPY\2\0" + len(header).to_bytes(4, "little") + header + body
    for size in (0, 6, 12, 24, 48, 49):
        yield 1, bytes(size)
    yield 2, b"a.png\nb c.png\r\n\n# no comment\nrow 3\n17\nlast"
    yield 2, b"\xef\xbb\xbfa.png\nnul\0here\n"
    yield 2, b"x" * 4100
    yield 3, b"file,label\na.png,3\n\"b, \"\"c\"\".png\",-1,more\r\n7,99999999999999999999\n"
    yield 3, b"0,1\n1,0\n\"open,2"
    for recipe in RECIPES:
        yield 4, json.dumps(recipe).encode()
    yield 4, b"[" * 3000
    yield 4, b'{"recipe": 1, "recipe": 1}'


def images():
    for path in sorted((ROOT / "data/files").iterdir()):
        if path.suffix != ".npy":
            for kind in (0, 1, 2, 0x80) if path.suffix == ".jpg" else (0, 1, 2):
                yield kind, path.read_bytes()


def main(folder):
    for name, source in (("data", data), ("image", images)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, (kind, body) in enumerate(source()):
            (folder / name / f"{i}").write_bytes(bytes([kind]) + body)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_data_seeds.py FOLDER")
    main(pathlib.Path(sys.argv[1]))
