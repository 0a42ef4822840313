"""Operators between DequantizeLinear and QuantizeLinear run on bytes, without going through float,
and give what onnxruntime makes of the same file: all values within one step, 99.9 % the same where
they do not lie in the middle between two steps."""

import json

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs, session
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import GraphOptimizationLevel

ORT_DISABLE_ALL = GraphOptimizationLevel.ORT_DISABLE_ALL
ORT_ENABLE_ALL = GraphOptimizationLevel.ORT_ENABLE_ALL
F, I8, U8 = np.float32, np.int8, np.uint8
SHAPE, BLOCK = (1, 8, 10, 12), (1, 8, 5, 6, 7)
RNG = np.random.default_rng(3)


class Weights:
    """A constant behind a DequantizeLinear."""

    def __init__(self, integers, scale, zero=0, axis=None):
        self.integers, self.axis = integers, axis
        self.scale = np.asarray(scale, F)
        self.zero = np.full(self.scale.shape, zero, integers.dtype)


def weights(*shape, scale=0.01, axis=None):
    if axis is not None:
        scale = RNG.uniform(0.005, 0.02, shape[axis])
    return Weights(RNG.integers(-127, 128, shape).astype(I8), scale, 0, axis)


def ints(*values):
    return np.array(values, np.int64)


class Case:
    def __init__(self, op, attributes=(), *inputs, shape=SHAPE, out=(0.02, 0), outputs=1, opset=20,
                 pairs=1, exact=False, ties=0.001):
        self.op, self.attributes, self.inputs, self.shape = op, dict(attributes), inputs, shape
        self.out, self.outputs, self.opset = out, outputs, opset
        self.pairs = pairs  # inputs that are quantized while running
        self.ties = ties  # share of results that may lie between two steps
        self.exact = exact  # onnxruntime's optimizer would change what is computed

    def save(self, path, signed):
        kind, shift = (I8, -128) if signed else (U8, 0)
        nodes, constants = [], []

        def constant(name, value):
            constants.append(numpy_helper.from_array(np.asarray(value), name))
            return name

        def pair(value, name, scale, zero):
            s, z = constant(name + "_s", F(scale)), constant(name + "_z", kind(zero + shift))
            nodes.append(helper.make_node("QuantizeLinear", [value, s, z], [name + "_q"]))
            nodes.append(helper.make_node("DequantizeLinear", [name + "_q", s, z], [name]))
            return name

        names = [pair("x", "a", 0.02, 120)]
        for i, value in enumerate(self.inputs):
            name = f"c{i}"
            if value is None:
                name = ""
            elif isinstance(value, Weights):
                parts = [constant(name + "_q", value.integers), constant(name + "_s", value.scale)]
                parts.append(constant(name + "_z", value.zero))
                axis = {} if value.axis is None else {"axis": value.axis}
                nodes.append(helper.make_node("DequantizeLinear", parts, [name], **axis))
            else:
                constant(name, value)
            names.append(name)
        results = [f"f{i}" for i in range(self.outputs)]
        nodes.append(helper.make_node(self.op, names, results, name="node", **self.attributes))
        scale, zero = self.out
        for i, name in enumerate(results):
            pair(name, f"y{i}", scale, zero)
        graph = helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None)
             for i in range(self.outputs)], constants,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 9
        onnx.save(onnx.shape_inference.infer_shapes(model), path)


def resize(mode, coordinates, *inputs, out=(0.02, 120), **more):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, **more}
    return Case("Resize", attributes, None, *inputs, out=out, ties=0.001 if mode == "nearest" else 0.02)


def transposed(shape, axis=1, bias=False, **attributes):
    w = weights(*shape, axis=axis)
    inputs = [w]
    if bias:
        integers = RNG.integers(-3000, 3000, shape[1]).astype(np.int32)
        inputs.append(Weights(integers, (F(0.02) * w.scale).astype(F), 0, 0))
    return Case("ConvTranspose", attributes, *inputs, out=(0.15, 120))


def gemm(*inputs, **attributes):
    return Case("Gemm", attributes, *inputs, shape=(1, 32), out=(0.031, 120))


W16 = weights(32, 16)
PADS = ints(0, 0, 1, 2, 0, 0, 3, 0)
SAME, OTHER = (0.02, 120), (0.031, 77)
CASES = {
    "pad": Case("Pad", {}, PADS, out=SAME),
    "pad-value": Case("Pad", {}, PADS, F(0.5), out=SAME),
    "pad-quantized-value": Case("Pad", {}, PADS, Weights(np.array(3, U8), 0.02, 120), out=SAME),
    "pad-reflect": Case("Pad", {"mode": "reflect"}, PADS, out=SAME),
    "pad-rescaled": Case("Pad", {}, PADS, out=OTHER),
    "transpose-rescaled": Case("Transpose", {"perm": [0, 2, 3, 1]}, out=OTHER),
    "reshape-rescaled": Case("Reshape", {}, ints(1, 80, 12), out=OTHER),
    "slice-rescaled": Case("Slice", {}, ints(1), ints(7), ints(1), ints(2), out=OTHER),
    "split-rescaled": Case("Split", {"axis": 1}, ints(3, 5), outputs=2, out=OTHER),
    "gather-rescaled": Case("Gather", {"axis": 1}, ints(3, 0, 3), out=OTHER),
    "depth-to-space-rescaled": Case("DepthToSpace", {"blocksize": 2}, out=OTHER),
    "max-pool-rescaled": Case("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, out=OTHER),
    "nearest-rescaled": resize("nearest", "asymmetric", np.array([1, 1, 2, 2], F), out=OTHER,
                               nearest_mode="floor"),
    "global-max-pool": Case("GlobalMaxPool", {}, out=SAME),
    "global-max-pool-rescaled": Case("GlobalMaxPool", {}, out=OTHER),
    "identity-rescaled": Case("Identity", {}, out=OTHER, exact=True),
    "conv-transpose": transposed((8, 13, 2, 2), strides=[2, 2]),
    "conv-transpose-bias": transposed((8, 13, 3, 3), bias=True, strides=[2, 2], pads=[1, 1, 1, 1],
                                      output_padding=[1, 1]),
    "conv-transpose-deep": transposed((8, 13, 4, 5), bias=True, strides=[2, 3], pads=[1, 0, 2, 1]),
    "conv-transpose-dilated": transposed((8, 13, 3, 2), strides=[2, 1], dilations=[3, 2]),
    "conv-transpose-steps": transposed((8, 13, 2, 1), bias=True, strides=[3, 4]),
    "conv-transpose-groups": transposed((8, 3, 4, 4), group=2, strides=[2, 2]),
    "conv-transpose-depthwise": transposed((8, 1, 4, 4), group=8, strides=[2, 2], pads=[1] * 4),
    "conv-transpose-tensor": transposed((8, 13, 3, 3), axis=None, strides=[1, 1]),
    "conv-3d": Case("Conv", {"pads": [1, 0, 1, 0, 1, 1], "strides": [1, 2, 1]},
                    weights(13, 8, 3, 2, 3, axis=0), shape=BLOCK, out=(0.15, 120)),
    "conv-3d-groups": Case("Conv", {"group": 4, "dilations": [2, 1, 2]},
                           weights(12, 2, 2, 3, 2), Weights(RNG.integers(-3000, 3000, 12).astype(
                               np.int32), F(0.02) * F(0.01)), shape=BLOCK, out=(0.0507, 120)),
    "max-pool-3d": Case("MaxPool", {"kernel_shape": [2, 3, 1]}, shape=BLOCK, out=SAME),
    "average-pool-3d": Case("AveragePool", {"kernel_shape": [2, 3, 1]}, shape=BLOCK, out=SAME,
                            ties=0.1),
    "mean-pixels": Case("ReduceMean", {}, ints(2, 3), out=(0.005, 120)),
    "mean-pixels-flat": Case("ReduceMean", {"keepdims": 0}, ints(-1, -2), out=(0.005, 120)),
    "mean-channels": Case("ReduceMean", {"keepdims": 0}, ints(1), out=(0.0093, 120)),
    "mean-rows": Case("ReduceMean", {}, ints(3), out=(0.0093, 120)),
    "mean-apart": Case("ReduceMean", {}, ints(1, 3), out=(0.01, 120)),
    "mean-all": Case("ReduceMean", {}, out=(0.001, 120)),
    "mean-old": Case("ReduceMean", {"axes": [1, 2], "keepdims": 0}, out=(0.01, 120), opset=13),
    "sum-pixels": Case("ReduceSum", {}, ints(2, 3), out=(0.9, 120)),
    "sum-channels": Case("ReduceSum", {"keepdims": 0}, ints(1), out=(0.1, 120)),
    "sub": Case("Sub", {}, weights(8, 1, 1), out=(0.021, 120)),
    "gemm": gemm(weights(32, 16), alpha=0.7),
    "gemm-beta": gemm(weights(16, 32, axis=0), RNG.uniform(-2, 2, 16).astype(F), alpha=0.7,
                      beta=1.6, transB=1),
    "gemm-quantized-bias": gemm(W16, Weights(RNG.integers(-3000, 3000, 16).astype(np.int32),
                                             F(0.02) * W16.scale), alpha=0.7, beta=1.6),
    "gemm-one-bias": gemm(weights(32, 16), np.array([[0.7]], F), beta=0.6),
    "prelu": Case("PRelu", {}, RNG.uniform(-0.5, 1.5, (8, 1, 1)).astype(F), out=(0.023, 110)),
    "prelu-same-steps": Case("PRelu", {}, RNG.uniform(0, 0.5, (8, 1, 1)).astype(F), out=SAME),
    "prelu-quantized": Case("PRelu", {}, weights(8, 1, 1), out=(0.023, 110)),
    "prelu-one": Case("PRelu", {}, np.array([0.3], F), out=(0.023, 110)),
    "prelu-columns": Case("PRelu", {}, RNG.uniform(-0.5, 1.5, (12,)).astype(F), out=(0.023, 110)),
    "prelu-all": Case("PRelu", {}, RNG.uniform(-0.5, 1.5, (8, 10, 12)).astype(F),
                      out=(0.023, 110)),
    "linear": resize("linear", "half_pixel", np.array([1, 1, 2.5, 1.75], F)),
    "linear-rescaled": resize("linear", "half_pixel", np.array([1, 1, 2.5, 1.75], F), out=OTHER),
    "linear-corners": resize("linear", "align_corners", None, ints(1, 8, 21, 17)),
    "linear-smaller": resize("linear", "asymmetric", None, ints(1, 8, 7, 17), out=OTHER),
    "linear-one-axis": resize("linear", "half_pixel", np.array([1, 1, 1, 1.75], F), out=OTHER),
    "erf": Case("Erf", {}, out=(0.01, 110)),
    "sin": Case("Sin", {}, out=(0.01, 110)),
    "mish": Case("Mish", {}, out=(0.02, 20)),
    "floor": Case("Floor", {}, out=(0.02, 120)),
    "round": Case("Round", {}, out=(0.02, 120)),
    "softsign": Case("Softsign", {}, out=(0.01, 110)),
    "celu": Case("Celu", {"alpha": 0.7}, out=(0.02, 50)),
    "thresholded-relu": Case("ThresholdedRelu", {"alpha": 0.4}, out=(0.02, 3)),
}  # fmt: skip


def kernels_of(quench, path):
    result = quench("bench", path, "--layers", "--json", "--threads", "1", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    return [layer["kernel"] for layer in json.loads(result.stdout)["layers"]]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_operators_run_on_bytes(quench, name, signed, tmp_path):
    case, path = CASES[name], tmp_path / "m.onnx"
    if signed and name == "pad-quantized-value":
        case = Case("Pad", {}, PADS, Weights(np.array(-9, I8), 0.02, -8), out=SAME)
    case.save(path, signed)
    kernels = kernels_of(quench, path)
    assert sum("q8_quantize" in k for k in kernels) == case.pairs, kernels
    assert sum("q8_dequantize" in k for k in kernels) == case.outputs, kernels
    x = np.random.default_rng(1).uniform(-2.4, 2.7, case.shape).astype(F)
    level = ORT_DISABLE_ALL if case.exact else ORT_ENABLE_ALL
    theirs = ort_outputs(session(path, level), x)
    ours = quench_outputs(path, x, tmp_path / "run")
    assert len(theirs) == len(ours) == case.outputs
    for a, b in zip(ours, theirs, strict=True):
        steps = np.rint((a.reshape(b.shape) - b) / case.out[0])
        assert np.abs(steps).max() <= 1
        assert (steps != 0).mean() <= case.ties
