"""Lay real .mnn files out anew: the same tables, and MNN computes the same from both."""

import os
import pathlib
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARED = pathlib.Path(os.environ.get("QUENCH_SHARED", ROOT / ".." / "shared"))
FILES = sorted([*SHARED.glob("models/*/*.mnn"), *SHARED.glob("reference/mnn/*/*.mnn")])
name_of = lambda path: f"{path.parent.name}/{path.name}"  # noqa: E731


def tool(*args):
    build = os.environ.get("QUENCH_BUILD")
    quench = os.environ.get("QUENCH_BIN")
    places = [pathlib.Path(build)] if build else []
    places += [pathlib.Path(quench).resolve().parent] if quench else []
    for place in [*places, ROOT / "build"]:
        if (place / "tests" / "fb_tool").exists():
            done = subprocess.run([place / "tests" / "fb_tool", *map(str, args)],
                                  capture_output=True, text=True)  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout
    pytest.skip("tests/fb_tool is not built (set QUENCH_BUILD)")


@pytest.mark.skipif(not FILES, reason="no .mnn files (QUENCH_SHARED)")
@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rebuilt_file_has_the_same_tables(path, tmp_path):
    tool("rebuild", path, tmp_path / "again.mnn")
    before, after = tool("dump", path), tool("dump", tmp_path / "again.mnn")
    assert before.count("\n") > 100
    assert before == after
    tool("rebuild", tmp_path / "again.mnn", tmp_path / "third.mnn")
    assert (tmp_path / "again.mnn").read_bytes() == (tmp_path / "third.mnn").read_bytes()


def outputs(mnn, path, seed):
    net = mnn.Interpreter(str(path))
    session = net.createSession({"numThread": 1})
    rng = np.random.default_rng(seed)
    for tensor in net.getSessionInputAll(session).values():
        shape = tensor.getShape()
        data = rng.uniform(-1, 1, shape).astype(np.float32)
        kind = tensor.getDimensionType()
        tensor.copyFrom(mnn.Tensor(shape, mnn.Halide_Type_Float, data, kind))
    net.runSession(session)
    result = {}
    for name, tensor in net.getSessionOutputAll(session).items():
        shape = tensor.getShape()
        host = mnn.Tensor(shape, mnn.Halide_Type_Float, np.zeros(shape, np.float32),
                          mnn.Tensor_DimensionType_Caffe)  # fmt: skip
        tensor.copyToHostTensor(host)
        result[name] = np.array(host.getNumpyData())
    return result


@pytest.mark.skipif(not FILES, reason="no .mnn files (QUENCH_SHARED)")
@pytest.mark.parametrize("path", [
    p for p in FILES
    if name_of(p) in ("mlperf-resnet8-cifar10/resnet8_float.mnn", "ultraface-rfb-320/RFB-320.mnn",
                      "fastestdet/FastestDet.mnn", "menet-108-8x1-g3/menet_108_8x1_g3.mnn",
                      "resnet8-kl-maxabs/quant.mnn", "rfb320-kl-png/quant.mnn")
], ids=name_of)  # fmt: skip
def test_mnn_computes_the_same_from_a_rebuilt_file(path, tmp_path):
    mnn = pytest.importorskip("MNN", reason="the MNN wheel is not installed")
    tool("rebuild", path, tmp_path / "again.mnn")
    want, got = outputs(mnn, path, 5), outputs(mnn, tmp_path / "again.mnn", 5)
    assert want and want.keys() == got.keys()
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)
    assert any(np.ptp(value) > 0 for value in want.values())
