"""Functions of one byte between DequantizeLinear and QuantizeLinear run as tables, with the results
that onnxruntime computes in float; products of two activations run in integers."""

import json

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs
from onnx import TensorProto, helper, numpy_helper

FUNCTIONS = {
    "Relu": {}, "LeakyRelu": {"alpha": 0.1}, "Sigmoid": {}, "Tanh": {}, "HardSigmoid": {},
    "HardSwish": {}, "Elu": {"alpha": 0.7}, "Selu": {}, "Gelu": {}, "Softplus": {}, "Exp": {},
    "Log": {}, "Sqrt": {}, "Abs": {}, "Neg": {}, "Clip": {},
}  # fmt: skip


class Builder:
    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def pair(self, value, name, scale, zero):
        s, z = self.constant(name + "_s", np.float32(scale)), self.constant(name + "_z", zero)
        self.nodes.append(helper.make_node("QuantizeLinear", [value, s, z], [name + "_q"]))
        self.nodes.append(helper.make_node("DequantizeLinear", [name + "_q", s, z], [name]))
        return name

    def save(self, path, inputs, dims):
        graph = helper.make_graph(
            self.nodes, "g",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in inputs],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, dims)], self.constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        onnx.save(model, path)


def kernel_of(quench, path, node):
    result = quench("bench", path, "--layers", "--json", "--threads", "1")
    assert result.returncode == 0, result.stderr
    layers = json.loads(result.stdout)["layers"]
    return {layer["node"]: layer["kernel"] for layer in layers}.get(node)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_a_byte(quench, name, signed, tmp_path):
    kind, zero = (np.int8, -30) if signed else (np.uint8, 100)
    scale = 0.03
    b = Builder()
    inputs = [b.pair("x", "a", scale, kind(zero))]
    if name == "Clip":
        inputs += [b.constant("lo", np.float32(-1.2)), b.constant("hi", np.float32(2.1))]
    b.nodes.append(helper.make_node(name, inputs, ["f"], name="function", **FUNCTIONS[name]))
    b.pair("f", "y", 0.021, kind(zero - 20))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", [1, 256])], [1, 256])
    assert "q8_table" in kernel_of(quench, path, "function")
    every = (np.arange(256) + (-128 if signed else 0) - zero).astype(np.float32) * scale
    x = every[None].astype(np.float32)
    theirs = ort_outputs(path, x)[0]
    ours = quench_outputs(path, x, tmp_path / "run")[0]
    steps = np.rint((ours - theirs) / 0.021)
    if name in ("Log", "Sqrt"):
        steps = steps[every[None] >= 0]  # bytes that stand for NaN are anything
    assert np.abs(steps).max() <= 1
    assert (steps != 0).sum() <= 1


@pytest.mark.parametrize("zero", [0, 128, 77, 255])
@pytest.mark.parametrize("signed", [False, True])
def test_products_of_activations(quench, signed, zero, tmp_path):
    kind, zero = (np.int8, zero - 128) if signed else (np.uint8, zero)
    b = Builder()
    left, right = b.pair("x", "a", 0.02, np.uint8(120)), b.pair("w", "c", 0.03, kind(zero))
    b.nodes.append(helper.make_node("MatMul", [left, right], ["f"], name="product"))
    b.pair("f", "y", 0.4, kind(zero // 2))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", [1, 4, 33, 70]), ("w", [1, 4, 70, 41])], [1, 4, 33, 41])
    assert "q8_igemm" in kernel_of(quench, path, "product")
    rng = np.random.default_rng(1)
    x = {
        "x": rng.uniform(-2.4, 2.7, (2, 4, 33, 70)).astype(np.float32),
        "w": (0.03 * (rng.integers(0, 256, (2, 4, 70, 41)) - (128 if signed else 0) - zero)).astype(
            np.float32
        ),
    }
    theirs = ort_outputs(path, x)[0]
    ours = quench_outputs(path, x, tmp_path / "run")[0]
    steps = np.rint((ours - theirs) / 0.4)
    assert np.abs(steps).max() <= 1
    assert (steps != 0).mean() <= 0.001


@pytest.mark.parametrize("scale", [1 / 256, 1 / 255, 1 / 700, 0.0173, 3e-4])
@pytest.mark.parametrize("signed", [False, True])
def test_softmax_of_any_scale(quench, signed, scale, tmp_path):
    """Calibrated scales are seldom 1/256, and much finer where no value comes near 1."""
    kind, zero = (np.int8, -128) if signed else (np.uint8, 3)
    b = Builder()
    b.nodes.append(helper.make_node("Softmax", [b.pair("x", "a", 0.021, kind(zero + 99))], ["f"], name="softmax"))
    b.pair("f", "y", scale, kind(zero))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", [1, 40, 31])], [1, 40, 31])
    assert kernel_of(quench, path, "softmax") == "Softmax"
    x = np.random.default_rng(4).normal(0, 1, (3, 40, 31)).astype(np.float32)
    q = np.clip(np.rint(x / np.float32(0.021)) + zero + 99, np.iinfo(kind).min, np.iinfo(kind).max)
    e = np.exp((q - zero - 99) * 0.021)
    wanted = np.minimum(np.rint(e / e.sum(-1, keepdims=True) / scale), 255 if signed else 252)
    ours = np.rint(quench_outputs(path, x, tmp_path / "run")[0] / np.float32(scale))
    assert np.abs(ours - wanted).max() <= 1
    assert (ours != wanted).mean() <= 0.002  # (ties of 23 bits)
