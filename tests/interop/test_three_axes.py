"""Quantized and integer convolutions and pools over three axes, and means over one, run on bytes,
with onnxruntime's results."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import ort_outputs, quench_outputs, session
from onnx import TensorProto, helper
from test_byte_functions import Builder
from test_byte_tables import layers_of

CASES = {
    "plain": ((1, 5, 6, 7, 8), (9, 5, 3, 3, 3), {}),
    "pads": ((1, 16, 4, 9, 6), (32, 16, 3, 3, 3), {"pads": [1, 0, 2, 1, 2, 0]}),
    "strides": ((1, 3, 8, 15, 11), (24, 3, 3, 5, 2), {"strides": [1, 2, 3], "pads": [1, 2, 0, 1, 2, 1]}),
    "dilations": ((1, 8, 7, 9, 9), (8, 8, 3, 2, 3), {"dilations": [2, 1, 3], "pads": [2, 0, 3] * 2}),
    "groups": ((1, 12, 5, 5, 5), (8, 3, 2, 3, 3), {"group": 4, "pads": [1] * 6}),
    "depthwise": ((1, 20, 5, 6, 7), (20, 1, 3, 3, 3), {"group": 20, "pads": [1] * 6}),
    "one tap": ((1, 33, 3, 4, 5), (17, 33, 1, 1, 1), {}),
    "four axes": ((1, 6, 4, 5, 4, 3), (10, 6, 3, 3, 2, 2), {"pads": [1, 1, 0, 0, 1, 1, 1, 1]}),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["s8", "u8", "u8-odd"])
@pytest.mark.parametrize("name", CASES)
def test_convolutions(quench, name, kind, tmp_path):
    dims, shape, attributes = CASES[name]
    rng = np.random.default_rng(11)
    b = Builder()
    x = b.pair("x", "a", 0.02, np.uint8(131) if kind != "s8" else np.int8(-9))
    zero = {"s8": np.int8(0), "u8": np.uint8(128), "u8-odd": np.uint8(97)}[kind]
    scale = rng.uniform(0.001, 0.003, shape[0] if kind != "u8-odd" else ()).astype(np.float32)
    low = -128 if kind == "s8" else 0
    q = b.constant("w_q", rng.integers(low, low + 256, shape).astype(zero.dtype))
    s, z = b.constant("w_s", scale), b.constant("w_z", np.full(scale.shape, zero))
    b.nodes.append(helper.make_node("DequantizeLinear", [q, s, z], ["w"], axis=0))
    biases = (rng.normal(size=shape[0]) * 4000).astype(np.int32)
    bias, bs = b.constant("b_q", biases), b.constant("b_s", np.float32(0.02) * scale)
    bz = b.constant("b_z", np.zeros(scale.shape, np.int32))
    b.nodes.append(helper.make_node("DequantizeLinear", [bias, bs, bz], ["b"], axis=0))
    b.nodes.append(helper.make_node("Conv", [x, "w", "b"], ["f"], name="conv", **attributes))
    step = 0.02 * 0.002 * 70 * 70 * np.sqrt(np.prod(shape[1:])) / 40
    b.pair("f", "y", step, np.uint8(120) if kind != "s8" else np.int8(3))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", dims)], [None] * len(dims))
    kernel = "q8_dwconv" if name == "depthwise" else "q8_igemm"
    assert kernel in dict(layers_of(quench, path))["conv"]
    x = rng.uniform(-2.6, 2.4, dims).astype(np.float32)
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    steps = np.rint((ours - theirs) / step)
    assert np.abs(steps).max() <= 1 and (steps != 0).mean() <= 0.001
    assert len(np.unique(ours)) > 50


INTEGER = {
    **CASES,
    "same": ((1, 5, 6, 7, 8), (9, 5, 4, 3, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 1, 3]}),
    "deep": ((1, 150, 3, 5, 4), (7, 150, 3, 3, 3), {"pads": [1] * 6}),
    "one axis": ((1, 7, 30), (12, 7, 4), {"pads": [2, 1], "strides": [2], "dilations": [3]}),
    "one axis, groups": ((1, 12, 30), (8, 3, 5), {"group": 4, "auto_pad": "SAME_UPPER"}),
}


def integer_convolution(path, case, x_zero, w, w_zero):
    dims, _, attributes = case
    b = Builder()
    kind = helper.np_dtype_to_tensor_dtype(x_zero.dtype)
    b.nodes.append(helper.make_node("Cast", ["x"], ["b"], to=kind))
    inputs = ["b", b.constant("w", w), b.constant("xz", x_zero), b.constant("wz", w_zero)]
    b.nodes.append(helper.make_node("ConvInteger", inputs, ["i"], name="conv", **attributes))
    b.nodes.append(helper.make_node("Cast", ["i"], ["y"], to=1))
    b.save(path, [("x", dims)], [None] * len(dims))


def sums_of(path, x):
    model = onnx.load(path)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("i", TensorProto.INT32, None))
    del model.graph.node[2:]
    onnx.save(model, path)
    return ort_outputs(path, x)[0].astype(np.int64)


@pytest.mark.parametrize("kinds", ["u8u8", "u8i8", "i8u8", "i8i8"])
@pytest.mark.parametrize("channels", [False, True])
@pytest.mark.parametrize("name", INTEGER)
def test_integer_convolutions(quench, name, channels, kinds, tmp_path):
    case, rng = INTEGER[name], np.random.default_rng(17)
    (left, least), (right, low) = ((np.uint8, 0) if k == "u8" else (np.int8, -128) for k in (kinds[:2], kinds[2:]))
    w = rng.integers(low, low + 256, case[1]).astype(right)
    x = rng.integers(least, least + 256, case[0]).astype(np.float32)
    zeros = rng.integers(low, low + 256, case[1][0] if channels else 1).astype(right)
    path, x_zero = tmp_path / "m.onnx", left(least + 77)
    integer_convolution(path, case, x_zero, w, zeros)
    ours = quench_outputs(path, x, tmp_path / "run")[0]
    if channels:  # of which onnxruntime has none
        integer_convolution(tmp_path / "a.onnx", case, x_zero, w, zeros[:1] * 0)
        integer_convolution(tmp_path / "b.onnx", case, x_zero, w * 0 + right(1), zeros[:1] * 0)
        theirs, ones = (sums_of(tmp_path / f"{m}.onnx", x) for m in "ab")
        theirs = (theirs - ones * zeros.reshape(-1, *[1] * (w.ndim - 2))).astype(np.float32)
    else:
        theirs = ort_outputs(path, x)[0]
    assert np.array_equal(ours, theirs)
    kernel = dict(layers_of(quench, path))["conv"]
    depthwise = name == "depthwise" and left == np.uint8
    assert ("q8_dwconv" if depthwise else "q8_igemm") in kernel
    packed = tmp_path / "m.qnm"
    assert quench("convert", path, "-o", packed).returncode == 0
    assert np.array_equal(quench_outputs(packed, x, tmp_path / "packed")[0], ours)


POOLS = {
    "plain": {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]},
    "pads": {"kernel_shape": [3, 2, 3], "strides": [2, 1, 3], "pads": [1, 0, 2, 1, 1, 0]},
    "dilations": {"kernel_shape": [2, 3, 2], "dilations": [3, 1, 2], "ceil_mode": 1, "strides": [1, 2, 2]},
}  # fmt: skip


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", POOLS)
def test_largest(quench, name, signed, tmp_path):
    rng = np.random.default_rng(12)
    dims, zero = (1, 21, 7, 8, 9), np.int8(-9) if signed else np.uint8(131)
    b = Builder()
    x = b.pair("x", "a", 0.02, zero)
    b.nodes.append(helper.make_node("MaxPool", [x], ["f"], name="pool", **POOLS[name]))
    b.pair("f", "y", 0.02, zero)
    path = tmp_path / "m.onnx"
    b.save(path, [("x", dims)], [None] * len(dims))
    assert "q8_maxpool" in dict(layers_of(quench, path))["pool"]
    x = rng.uniform(-2.6, 2.4, dims).astype(np.float32)
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    assert np.array_equal(theirs, ours)


MEANS = {
    **POOLS,
    "counted": {"kernel_shape": [3, 3, 2], "pads": [1, 1, 0, 2, 1, 1], "count_include_pad": 1,
                "strides": [2, 2, 1]},
    "rounded up": {"kernel_shape": [3, 3, 3], "pads": [0, 1, 1] * 2, "ceil_mode": 1,
                   "strides": [2, 3, 2]},
    "one axis": {"kernel_shape": [4], "pads": [1, 2], "strides": [3]},
    "one axis, counted": {"kernel_shape": [3], "pads": [1, 2], "count_include_pad": 1},
}  # fmt: skip


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("channels", [5, 40])
@pytest.mark.parametrize("name", MEANS)
def test_means(quench, name, channels, signed, tmp_path):
    rng = np.random.default_rng(13)
    zero = np.int8(-9) if signed else np.uint8(131)
    dims = (1, channels, 7, 8, 9)[: 2 + len(MEANS[name]["kernel_shape"])]
    b = Builder()
    x = b.pair("x", "a", 0.02, zero)
    b.nodes.append(helper.make_node("AveragePool", [x], ["f"], name="pool", **MEANS[name]))
    b.pair("f", "y", 0.0093, zero)
    path = tmp_path / "m.onnx"
    b.save(path, [("x", dims)], [None] * len(dims))
    assert "q8_avgpool" in dict(layers_of(quench, path))["pool"]
    x = rng.uniform(-2.6, 2.4, dims).astype(np.float32)
    # Node by node: onnxruntime's integer node for it knows no dilations.
    exact = session(path, ort.GraphOptimizationLevel.ORT_DISABLE_ALL)
    theirs, ours = ort_outputs(exact, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    steps = np.rint((ours - theirs) / 0.0093)
    assert ours.shape == theirs.shape
    assert np.abs(steps).max() <= 1 and (steps != 0).mean() <= 0.01
