"""Seeds of the targets for pictures, data files and names of external data. usage: make_data_seeds.py FOLDER

Pictures are those of tests/data/files; a first byte says what the target does with the rest.
"""

import io
import json
import pathlib
import struct
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


def flatbuffer_table(pairs):
    """What onnxruntime's calibration.flatbuffers holds: one vector of tables with two strings each."""
    # the root's vtable at 4, the root at 12, its one field an offset to the vector behind it
    body = bytearray(struct.pack("<I4HiII", 12, 6, 8, 4, 0, 8, 4, len(pairs)))
    slots, vtable = len(body), len(body) + 4 * len(pairs)
    body += b"\0" * (4 * len(pairs)) + struct.pack("<4H", 8, 12, 4, 8)
    for i, pair in enumerate(pairs):
        table = len(body)
        struct.pack_into("<I", body, slots + 4 * i, table - slots - 4 * i)
        body += struct.pack("<iII", table - vtable, 0, 0)
        for k, text in enumerate(pair):
            struct.pack_into("<I", body, table + 4 + 4 * k, len(body) - table - 4 - 4 * k)
            body += struct.pack("<I", len(text)) + text + b"\0" * (4 - len(text) % 4)
    return bytes(body)


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
    for packed in (False, True):
        for arrays in ({"x": np.arange(6, dtype="<f4").reshape(2, 3)}, {"y": np.zeros((1, 4), "|u1")},
                       {"y": np.ones(3, "<f8"), "x": np.arange(4, dtype=">i2"), "z": np.zeros((0, 2), "<f2")}):  # fmt: skip
            file = io.BytesIO()
            (np.savez_compressed if packed else np.savez)(file, **arrays)
            yield from ((5, file.getvalue()), (6, file.getvalue()))
    yield 7, b"1,2,3\n4,5,6\n"
    yield 7, b"\xef\xbb\xbfa;b\r\n1.5;-2e3\r\n\r\n\"7\"; 8 \r\n"
    yield 7, b"a\tb\n1\tnan\n"
    yield 7, b"1\n1e999\n"
    yield 7, b"1,2\n3\n"
    yield 8, b'{"x": [0.5, -1, 2], "y": {"lowest": -1, "highest": 3}}'
    yield 8, b'{"CLS": "TensorsData", "data": {"x": {"lowest": {"data": [-1.0]}, "highest": [2]}}}'
    yield 8, b"x 0.5 1.25\ny 2 3\n"
    yield 8, b"TRT-8501-EntropyCalibration2\nx: 3c010a14\ny: 3f800000\n"
    yield 8, b"conv_param_0 36.3 12.5\nconv 17.5\n"
    yield 8, flatbuffer_table([(b"x", b"1.5"), (b"some name", b"2e-3")])
    yield 4, b"[" * 3000
    yield 4, b'{"recipe": 1, "recipe": 1}'


def images():
    for path in sorted((ROOT / "data/files").iterdir()):
        if path.suffix != ".npy":
            for kind in (0, 1, 2, 0x80) if path.suffix == ".jpg" else (0, 1, 2):
                yield kind, path.read_bytes()


def external():
    names = ["w.bin", "sub/w.bin", "./w.bin", "in", "out", "up/secret", "loop", "../secret", "/etc/passwd", "sub",
             "sub/../w.bin", "w.bin\0x", "", "out.onnx.data", "m.onnx"]  # fmt: skip
    ranges = [(0, 16), (48, 16), (8176, 16), (8180, 16), (-1, 16), (2**64 - 8, 16), (0, 2**64 - 1), ("0x10", 16)]
    for name in names:
        yield 4, f"\0location={name}\noffset=0\nlength=16".encode()
    for offset, length in ranges:
        yield 4, f"\0location=w.bin\noffset={offset}\nlength={length}".encode()
    yield 4, b"\0location=w.bin\nchecksum=00\nkey=\nlocation=sub/w.bin"
    yield 0, b"\1location=w.bin"  # 256 elements: written beside
    yield 0, b"\x08location=w.bin\noffset=0"
    yield 0, b"\0location=w.bin\nlength=0"


def main(folder):
    for name, source in (("data", data), ("external", external), ("image", images)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i, (kind, body) in enumerate(source()):
            (folder / name / f"{i}").write_bytes(bytes([kind]) + body)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make_data_seeds.py FOLDER")
    main(pathlib.Path(sys.argv[1]))
