"""Linear Resize of bytes gives onnxruntime's bytes: those of floats between DequantizeLinear and
QuantizeLinear rounded half to even, those of integers truncated."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import ort_outputs, quench_outputs, session
from onnx import TensorProto, helper
from test_byte_functions import Builder

CASES = {
    "doubled": ((1, 3, 15, 16), {"scales": [1, 1, 2, 2]}),
    "sizes": ((1, 20, 17, 19), {"sizes": [1, 20, 31, 8]}),
    "rows alone": ((1, 5, 17, 19), {"scales": [1, 1, 2.3, 1]}),
    "columns alone": ((1, 5, 17, 19), {"scales": [1, 1, 1, 0.7]}),
    "corners": ((1, 3, 17, 19), {"sizes": [1, 3, 31, 8], "mode": "align_corners"}),
    "corners doubled": ((1, 3, 15, 16), {"scales": [1, 1, 2, 2], "mode": "align_corners"}),
    "asymmetric": ((1, 33, 17, 19), {"scales": [1, 1, 1.6, 0.7], "mode": "asymmetric"}),
    "pytorch": ((1, 3, 17, 19), {"scales": [1, 1, 0.3, 3], "mode": "pytorch_half_pixel"}),
    "matrix": ((17, 19), {"scales": [1.7, 1.2]}),
}


def model(path, name, kind, byte):
    """kind: "plain" integers in and out, "integers" between QuantizeLinear and DequantizeLinear, or
    "floats" between DequantizeLinear and QuantizeLinear."""
    dims, sizes = CASES[name]
    b = Builder()
    coordinates = sizes.get("mode", "half_pixel")
    key = "scales" if "scales" in sizes else "sizes"
    values = b.constant("to", np.array(sizes[key], np.float32 if key == "scales" else np.int64))
    rest = ["", values] if key == "scales" else ["", "", values]
    resize = {"mode": "linear", "coordinate_transformation_mode": coordinates, "name": "resize"}
    s, z = b.constant("s", np.float32(0.0371)), b.constant("z", byte(97 if byte == np.uint8 else -9))

    def add(op, x, y):
        b.nodes.append(helper.make_node(op, [x, s, z], [y]))

    if kind == "plain":
        b.nodes.append(helper.make_node("Resize", ["x", *rest], ["y"], **resize))
    else:
        add("QuantizeLinear", "x", "q")
        if kind == "floats":
            add("DequantizeLinear", "q", "f")
        x, y = ("f", "g") if kind == "floats" else ("q", "r")
        b.nodes.append(helper.make_node("Resize", [x, *rest], [y], **resize))
        if kind == "floats":
            add("QuantizeLinear", "g", "r")
        add("DequantizeLinear", "r", "y")
    b.save(path, [("x", dims)], [None] * len(dims))
    if kind == "plain":
        m = onnx.load(path)
        integers = TensorProto.UINT8 if byte == np.uint8 else TensorProto.INT8
        for value in (m.graph.input[0], m.graph.output[0]):
            value.type.tensor_type.elem_type = integers
        onnx.save(m, path)
    rng = np.random.default_rng(len(name))
    if kind == "plain":
        info = np.iinfo(byte)
        return rng.integers(info.min, info.max + 1, dims).astype(byte)
    return rng.uniform(-5, 5, dims).astype(np.float32)


def expected(path, x):
    exact = session(path, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    return exact.run(None, {"x": x})[0].astype(np.float32)


@pytest.mark.parametrize("byte", [np.uint8, np.int8])
@pytest.mark.parametrize("kind", ["plain", "integers", "floats"])
@pytest.mark.parametrize("name", CASES)
def test_bytes(quench, name, kind, byte, tmp_path):
    path = tmp_path / "m.onnx"
    x = model(path, name, kind, byte)
    theirs = expected(path, x)
    for options in ([], ["--cpu", "scalar", "--threads", "3"]):
        sample = x if x.ndim == 4 else x[np.newaxis]
        ours = quench_outputs(path, sample, tmp_path / "run", *options)[0]
        assert np.array_equal(ours, theirs)
    assert len(np.unique(theirs)) > 50


@pytest.mark.parametrize("byte", [np.uint8, np.int8])
@pytest.mark.parametrize("kind", ["integers", "floats"])
def test_files_keep_which_it_is(quench, kind, byte, tmp_path):
    path = tmp_path / "m.onnx"
    x = model(path, "sizes", kind, byte)
    theirs = expected(path, x)
    for name in ("again.onnx", "again.qnm"):
        result = quench("convert", path, "-o", tmp_path / name)
        assert result.returncode == 0, result.stderr
        ours = quench_outputs(tmp_path / name, x, tmp_path / "run")[0]
        assert np.array_equal(ours, theirs)
    assert np.array_equal(ort_outputs(tmp_path / "again.onnx", x)[0], theirs)


@pytest.mark.parametrize("kind", ["integers", "floats"])
def test_mnn_cannot_say_that_sums_are_truncated(quench, kind, tmp_path):
    """The only loss that a file of signed bytes has on its way to MNN is told, by the node's name."""
    path, out = tmp_path / "m.onnx", tmp_path / "m.mnn"
    x = model(path, "doubled", kind, np.int8)
    result = quench("convert", path, "-o", out)
    assert result.returncode == 0
    told = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert len(told) == (kind == "integers")
    assert all('"resize"' in line and "truncates" in line for line in told)
    ours, theirs = (quench_outputs(p, x, tmp_path / p.suffix)[0] for p in (path, out))
    steps = np.abs(np.rint((ours - theirs) / 0.0371))
    assert steps.max() <= 1 and ((steps > 0).mean() > 0.2) == (kind == "integers")
