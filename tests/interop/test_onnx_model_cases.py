"""The model tests of the PyPI package `onnx`: the "simple" ones, and the "light" ones, whose weights
and inputs are generated. Sequences, strings and gradients are refused by name."""

import os
import pathlib

import node_cases
import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(onnx.__file__).parent / "backend" / "test" / "data"
REFUSED = ("Sequence", "StringNormalizer", "Gradient")


@pytest.fixture(scope="module")
def tool():
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    path = binary.parent / "tests" / "node_cases"
    if not path.exists():
        pytest.skip(f"{path} is not built (QN_TESTS=ON)")
    return path


def load(path):
    tensor = TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def run(tool, folder, model, inputs):
    """(status, message, outputs) of the model, with inputs as constants where it needs them."""
    for kept in (len(inputs), 1, 0):
        stem = folder / f"model{kept}"
        path, out = stem.with_suffix(".onnx"), stem.with_suffix(".out")
        path.write_bytes(node_cases.with_constants(model, inputs, kept).SerializeToString())
        paths = [folder / f"input{i}" for i in range(kept)]
        for at, value in zip(paths, inputs):
            node_cases.pack(at, value)
        status, message = node_cases.run_lines(tool, folder, [[path, out, *paths]])[str(path)]
        if status == "OK":
            return status, message, node_cases.unpack(out)
    return status, message, None


@pytest.mark.parametrize("name", sorted(p.name for p in (DATA / "simple").iterdir() if p.is_dir()))
def test_simple(tool, tmp_path, name):
    folder = DATA / "simple" / name
    model = onnx.load(folder / "model.onnx")
    refused = any(word in n.op_type for n in model.graph.node for word in REFUSED)
    for data in sorted(folder.glob("test_data_set_*")):
        inputs = [] if refused else [load(data / f"input_{i}.pb") for i in range(len(model.graph.input))]
        status, message, outputs = run(tool, tmp_path, model, inputs)
        if refused:
            assert status == "UNSUPPORTED" and any(word in message for word in (*REFUSED, "graph input"))
            continue
        assert status == "OK", message
        expected = [load(data / f"output_{i}.pb") for i in range(len(model.graph.output))]
        assert node_cases.equal(outputs, expected, 1e-3, 1e-7) is None


@pytest.mark.parametrize("path", sorted((DATA / "light").glob("*.onnx")), ids=lambda p: p.stem)
def test_light(tool, tmp_path, path):
    model = onnx.load(path)
    constants = {i.name for i in model.graph.initializer}
    inputs = []
    for info in model.graph.input:
        if info.name in constants:
            continue
        shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
        # What the package's own runner feeds where it generates the data.
        inputs.append(dummy(shape))
    status, message, outputs = run(tool, tmp_path, model, inputs)
    assert status == "OK", message
    expected = load(path.with_name(f"{path.stem}_output_0.pb"))
    assert node_cases.equal(outputs, [expected], 1e-3, 1e-7) is None


def dummy(shape):
    count = int(np.prod(shape))
    return (np.arange(count).reshape(shape) / count).astype(np.float32)
