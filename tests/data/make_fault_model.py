"""Writes fault.onnx: every kind of layer the fault tests walk through, in a few kilobytes."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(20)


def weights(*shape):
    return (rng.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))).astype(np.float32)


C = 4
initializers = {
    "w1": weights(C, 3, 3, 3), "b1": weights(C, 1)[:, 0],
    "g": rng.uniform(0.5, 2, C).astype(np.float32), "b": weights(C, 1)[:, 0],
    "m": weights(C, 1)[:, 0], "v": rng.uniform(0.2, 2, C).astype(np.float32),
    "w2": weights(C, 1, 3, 3), "w3": weights(C, C, 1, 1), "b3": weights(C, 1)[:, 0],
    "lo": np.float32(0), "hi": np.float32(6),
    "wf": weights(5, 2 * C), "bf": weights(5, 1)[:, 0],
}  # fmt: skip
node = helper.make_node
nodes = [
    node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
    node("BatchNormalization", ["c1", "g", "b", "m", "v"], ["n1"], "bn1"),
    node("Relu", ["n1"], ["r1"], "relu1"),
    node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
    node("Conv", ["p1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=C),
    node("Clip", ["c2", "lo", "hi"], ["r2"], "clip2"),
    node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3"),
    node("Add", ["c3", "p1"], ["a1"], "add1"),
    node("Concat", ["a1", "r2"], ["k1"], "concat1", axis=1),
    node("GlobalAveragePool", ["k1"], ["g1"], "gap"),
    node("Flatten", ["g1"], ["f1"], "flat"),
    node("Gemm", ["f1", "wf", "bf"], ["logits"], "fc", transB=1),
    node("Softmax", ["logits"], ["prob"], "softmax", axis=1),
]
value = helper.make_tensor_value_info
graph = helper.make_graph(
    nodes, "fault", [value("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
    [value("prob", TensorProto.FLOAT, ["N", 5])],
    [numpy_helper.from_array(a, n) for n, a in initializers.items()],
)  # fmt: skip
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, pathlib.Path(__file__).with_name("fault.onnx"))
