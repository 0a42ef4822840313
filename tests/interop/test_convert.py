"""quench convert: the extension names the format, and the model computes the same afterwards."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import small_classifier


def run_onnx(path, x):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.fixture
def model(tmp_path):
    onnx.save(small_classifier(), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


@pytest.fixture
def x():
    return np.random.default_rng(4).uniform(-1, 1, (1, 3, 16, 16)).astype(np.float32)


def convert(quench, source, target, *options):
    result = quench("convert", source, "-o", target, "--json", *options)
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["file"] == str(target) and made["bytes"] == target.stat().st_size
    assert made["source_bytes"] == source.stat().st_size


def test_there_and_back(quench, model, x, tmp_path):
    want = run_onnx(model, x)
    assert np.ptp(want) > 0.01
    convert(quench, model, tmp_path / "c.mnn")
    assert not (tmp_path / "c.mnn").read_bytes() == model.read_bytes()
    convert(quench, tmp_path / "c.mnn", tmp_path / "d.onnx")
    np.testing.assert_allclose(run_onnx(tmp_path / "d.onnx", x), want, atol=1e-5)
    convert(quench, tmp_path / "c.mnn", tmp_path / "e.mnn")
    assert (tmp_path / "e.mnn").read_bytes() == (tmp_path / "c.mnn").read_bytes()


@pytest.mark.parametrize("name", ["m.tflite", "copy", "onnx", ".mnn.old"])
def test_a_name_without_a_format_is_refused(quench, model, tmp_path, name):
    result = quench("convert", model, "-o", tmp_path / name)
    assert result.returncode == 2 and not (tmp_path / name).exists()
    words = f"error: convert: {tmp_path / name}: the name must end in .onnx, .mnn or .qnm\n"
    assert result.stderr.endswith(words)
    convert(quench, model, tmp_path / "M.MNN")


def test_mnn_runs_what_was_converted(quench, model, x, tmp_path):
    mnn = pytest.importorskip("MNN", reason="the MNN wheel is not installed")
    convert(quench, model, tmp_path / "c.mnn")
    net = mnn.Interpreter(str(tmp_path / "c.mnn"))
    session = net.createSession({"numThread": 1})
    tensor = net.getSessionInput(session)
    net.resizeTensor(tensor, x.shape)
    net.resizeSession(session)
    tensor.copyFrom(mnn.Tensor(x.shape, mnn.Halide_Type_Float, x, mnn.Tensor_DimensionType_Caffe))
    net.runSession(session)
    out = net.getSessionOutput(session)
    host = mnn.Tensor(out.getShape(), mnn.Halide_Type_Float,
                      np.zeros(out.getShape(), np.float32), mnn.Tensor_DimensionType_Caffe)  # fmt: skip
    out.copyToHostTensor(host)
    want = run_onnx(model, x)
    np.testing.assert_allclose(np.array(host.getNumpyData()).reshape(want.shape), want, atol=1e-4)


def test_a_model_is_not_replaced_by_its_conversion(quench, model):
    before = model.read_bytes()
    result = quench("convert", model, "-o", model)
    assert result.returncode == 1 and "the model itself" in result.stderr
    assert model.read_bytes() == before
