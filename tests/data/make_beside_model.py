"""Writes beside.onnx: two products with weights large enough to be kept beside the model."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(9)
weights = {
    "w1": rng.normal(size=(17, 19)).astype(np.float32),
    "b1": rng.normal(size=19).astype(np.float32),
    "w2": rng.normal(size=(19, 23)).astype(np.float32),
}
graph = helper.make_graph(
    [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ],
    "beside",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 17])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 23])],
    [numpy_helper.from_array(v, k) for k, v in weights.items()],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
onnx.save(model, pathlib.Path(__file__).with_name("beside.onnx"))
