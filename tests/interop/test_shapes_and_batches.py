"""Open dimensions: fixed by --input-shape, taken from the data, or bound by --batch."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from conftest import make_model  # noqa: E402
from onnx import helper  # noqa: E402

RNG = np.random.default_rng(12)


@pytest.fixture(scope="module")
def open_model(tmp_path_factory):
    """A convolution over pictures of any size, averaged: [N, 3, H, W] -> [N, 4]."""
    folder = tmp_path_factory.mktemp("open")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["y"], name="flat"),
    ]
    weights = {"w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)}
    model = make_model(nodes, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 4]}, weights)
    onnx.save(model, folder / "m.onnx")
    np.save(folder / "x.npy", RNG.normal(size=(12, 3, 10, 14)).astype(np.float32))
    return folder


def dims(path):
    shape = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    return [d.dim_param or d.dim_value for d in shape]


def test_from_the_data(quench, open_model, tmp_path):
    done = quench("quantize", open_model / "m.onnx", "-o", tmp_path / "q.onnx", "--data", open_model / "x.npy")
    assert done.returncode == 0, done.stderr
    assert dims(tmp_path / "q.onnx") == ["N", 3, "H", "W"]  # still open
    session = ort.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"])
    for shape in ((1, 3, 10, 14), (5, 3, 7, 9)):
        assert session.run(None, {"x": np.zeros(shape, np.float32)})[0].shape == (shape[0], 4)


def test_by_option(quench, open_model, tmp_path):
    x = np.load(open_model / "x.npy")
    x[:2].tofile(tmp_path / "x.raw")
    raw = ["--data", tmp_path / "x.raw", "--raw-type", "f32", "--raw-shape", "3,10,14"]
    shape = ["--input-shape", "x:1,3,10,14"]
    done = quench("run", open_model / "m.onnx", "--json", *raw, *shape)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 2
    done = quench("run", open_model / "m.onnx", "--json", *raw, "--input-shape", "x:1,3,10")
    assert done.returncode == 1 and "3 dimensions, the model has 4" in done.stderr
    done = quench("run", open_model / "m.onnx", "--json", *raw, "--input-shape", "z:1,3,10,14")
    assert done.returncode == 1 and 'no input is named "z"' in done.stderr
    done = quench("run", open_model / "m.onnx", "--json", *raw, "--input-shape", "x:1,4,10,14")
    assert done.returncode == 1 and "x" in done.stderr and len(done.stderr.splitlines()) == 1


def test_bench_needs_them(quench, open_model):
    done = quench("bench", open_model / "m.onnx", "--rounds", "1", "--json")
    assert done.returncode == 1 and "shape" in done.stderr
    done = quench("bench", open_model / "m.onnx", "--rounds", "1", "--json", "--input-shape", "x:2,3,8,8")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_of_bench_and_convert(quench, tmp_path, batch):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    weights = {"w": RNG.normal(size=(6, 4)).astype(np.float32)}
    onnx.save(make_model(nodes, {"x": ["N", 6]}, {"y": ["N", 4]}, weights), tmp_path / "m.onnx")
    done = quench("bench", tmp_path / "m.onnx", "--rounds", "1", "--json", "--batch", batch)
    assert done.returncode == 0, done.stderr
    done = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.qnm", "--batch", batch)
    assert done.returncode == 0, done.stderr
    done = quench("inspect", tmp_path / "m.qnm", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inputs"][0]["shape"] == [batch, 6]


def test_samples_of_different_sizes(quench, open_model, tmp_path):
    for i, shape in enumerate(((3, 10, 14), (3, 9, 14), (4, 9, 14))):
        np.save(tmp_path / f"{i}.npy", np.zeros(shape, np.float32))
    (tmp_path / "list.txt").write_text("0.npy\n1.npy\n")
    done = quench("run", open_model / "m.onnx", "--list", tmp_path / "list.txt")
    assert done.returncode == 0, done.stderr
    (tmp_path / "list.txt").write_text("0.npy\n1.npy\n2.npy\n")
    done = quench("run", open_model / "m.onnx", "--list", tmp_path / "list.txt")
    assert done.returncode == 1 and "2.npy" in done.stderr
    shape = ["--input-shape", "x:1,3,10,14"]
    done = quench("run", open_model / "m.onnx", "--list", tmp_path / "list.txt", *shape)
    assert done.returncode == 1 and "1.npy" in done.stderr
