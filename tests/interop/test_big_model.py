"""Weights beside the model: offsets past 4 GiB, files past protobuf's 2 GiB, and, with QN_TEST_BIG=1 (8 GiB of
disk, some minutes), a model of 2.5 GiB quantized in half its size of anonymous memory."""

import os
import pathlib
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import anon_peak  # noqa: E402
import big_model  # noqa: E402


def test_offsets_past_4_gib(quench, tmp_path):
    """A sparse file of 5 GiB, of which the model uses the last 64 KiB."""
    at, width = 5 * 2**30 - 65536, 128
    weights = np.random.default_rng(2).normal(size=(width, width)).astype(np.float32)
    with open(tmp_path / "w.bin", "wb") as data:
        data.seek(at)
        data.write(weights.tobytes())
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[width, width])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.bin"), ("offset", at), ("length", weights.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    x = np.random.default_rng(3).normal(size=(16, width)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = quench("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data", tmp_path / "x.npy")
    assert done.returncode == 0, done.stderr
    session = ort.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(None, {"x": x[:1]})[0]
    assert np.abs(got - x[:1] @ weights).max() < 0.05 * np.abs(x[:1] @ weights).max()


def test_small_models_come_in_one_file(quench, tmp_path):
    big_model.make(tmp_path / "m.onnx", 2**-10, 128)
    done = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "out.onnx")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "out.onnx.data").exists()
    x = np.ones((1, 128), np.float32)
    run = lambda path: ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    np.testing.assert_array_equal(run(tmp_path / "m.onnx")[0], run(tmp_path / "out.onnx")[0])


big = pytest.mark.skipif(not os.environ.get("QN_TEST_BIG"), reason="QN_TEST_BIG=1 runs it: minutes, 8 GiB of disk")


@big
def test_2_5_gib(quench, tmp_path):
    model, out = tmp_path / "big.onnx", tmp_path / "int8.onnx"
    size = big_model.make(model, 2.5, 4096)
    x = np.random.default_rng(0).normal(size=(4, 4096)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done, peak = anon_peak.run(
        [quench.binary, "quantize", str(model), "-o", str(out), "--data", str(tmp_path / "x.npy"), "--quiet"]
    )
    assert done.returncode == 0
    print(f"{size} bytes of weights, {peak} bytes of anonymous memory: {peak / size:.2f}")
    assert peak <= 0.5 * size
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    got = session.run(None, {"x": x})[0]
    del session
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    real = session.run(None, {"x": x})[0]
    assert np.linalg.norm(got - real) < 0.06 * np.linalg.norm(real)


@big
def test_2_5_gib_written(quench, tmp_path):
    """More than a protobuf message holds: the weights come beside it, as they were."""
    model, out = tmp_path / "big.onnx", tmp_path / "out.onnx"
    big_model.make(model, 2.5, 4096)
    done, peak = anon_peak.run([quench.binary, "convert", str(model), "-o", str(out), "--quiet"])
    assert done.returncode == 0 and peak < 64 * 2**20
    assert out.stat().st_size < 2**20
    old = onnx.load(model, load_external_data=False).graph.initializer
    new = {t.name: t for t in onnx.load(out, load_external_data=False).graph.initializer}
    a = np.memmap(tmp_path / "big.onnx.data", np.uint8, "r")
    b = np.memmap(tmp_path / "out.onnx.data", np.uint8, "r")
    for t in old:
        if t.data_location != TensorProto.EXTERNAL:
            continue
        was = {e.key: e.value for e in t.external_data}
        now = {e.key: e.value for e in new[t.name].external_data}
        assert now["location"] == "out.onnx.data" and now["length"] == was["length"]
        n, i, j = int(was["length"]), int(was["offset"]), int(now["offset"])
        assert (a[i : i + n] == b[j : j + n]).all()
