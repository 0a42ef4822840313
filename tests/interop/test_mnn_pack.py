"""Packed weights of .mnn files, byte by byte as MNN's own quantizer writes them."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOOL = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build")) / "tests" / "mnn_pack"


def pack(q, bits, linear, sparse):
    args = [TOOL, *map(str, q.shape), str(bits), linear, sparse]
    done = subprocess.run(args, input=q.tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    head, _, data = done.stdout.partition(b"\n")
    return int(head[:1]), head[1:] == b"1", data


@pytest.fixture(scope="module")
def readers(shared):
    folder = shared / "tools" / "mnn"
    if not folder.is_dir():
        pytest.skip("readers of .mnn files (tools/mnn) are not here")
    sys.path.insert(0, str(folder))
    import idst
    import mnnread

    yield mnnread, idst
    sys.path.remove(str(folder))


def quantized(mnnread, path):
    net = mnnread.load(str(path))
    for op in net["oplists"]:
        param = op.get("main") or {}
        if isinstance(param, dict) and "quanParameter" in param:
            yield op["name"], param["quanParameter"]


def test_every_layer_of_the_reference_files_packs_to_the_same_bytes(shared, readers):
    mnnread, idst = readers
    files = sorted((shared / "reference" / "mnn").glob("*/quant.mnn"))
    types = set()
    for path in files:
        for name, quan in quantized(mnnread, path):
            dims, q, _ = idst.decode(quan)
            theirs = quan["buffer"].astype(np.int8).tobytes()
            bits = quan["aMaxOrBits"]
            kind, wide, ours = pack(q.reshape(dims), bits, "linear", "sparse" if bits == 8 else "dense")
            assert (kind, wide) == (quan["type"], bool(quan.get("shapeInt32", False))), (path, name)
            assert ours == theirs, f"{path} {name}: {len(ours)} bytes, not {len(theirs)}"
            types.add((kind, bits))
    assert {(1, 8), (1, 4), (1, 5), (1, 6)} <= types, types


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("form", ["linear", "narrow"])
@pytest.mark.parametrize("zeros", [0.0, 0.6, 0.95, 0.999])
def test_an_independent_reader_gets_the_integers_back(bits, form, zeros, readers):
    _, idst = readers
    rng = np.random.default_rng(bits)
    half = 1 << (bits - 1)
    q = rng.integers(-half + 1, half, (7, 1003)).astype(np.int8)
    q[rng.random(q.shape) < zeros] = 0
    for sparse in ("dense", "sparse"):
        kind, wide, data = pack(q, bits, form, sparse)
        record = {"buffer": np.frombuffer(data, np.int8), "type": kind, "shapeInt32": wide}
        dims, back, info = idst.decode(record)
        assert dims == q.shape and np.array_equal(back, q)
        assert info["used"] == info["len"]
        linear_table = info["count"] == 1 << info["bits"] and kind == 1 and bits < 8
        assert linear_table == (form == "linear" and bits < 8 and kind == 1)
