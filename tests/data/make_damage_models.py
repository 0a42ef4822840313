"""Writes quantized.onnx and nested.onnx, which tests/property/test_onnx_damage.c cuts and changes.

usage: make_damage_models.py FOLDER
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), outputs, **attributes)


def quantized():
    """Pairs around Conv, pooling and a product with 4-bit weights in blocks."""
    nodes = [
        node("QuantizeLinear", "x s z", "xq"), node("DequantizeLinear", "xq s z", "xd"),
        node("DequantizeLinear", "w ws wz", "wd", axis=0), node("DequantizeLinear", "b bs", "bd", axis=0),
        node("Conv", "xd wd bd", "c"), node("Clip", "c lo hi", "r"), node("QuantizeLinear", "r s2 z", "rq"),
        node("DequantizeLinear", "rq s2 z", "rd"), node("MaxPool", "rd", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("QuantizeLinear", "p s2 z", "pq"), node("DequantizeLinear", "pq s2 z", "pd"),
        node("Flatten", "pd", "f"), node("DequantizeLinear", "m ms", "md", axis=0, block_size=4),
        node("MatMul", "f md", "y"),
    ]  # fmt: skip
    weights = [
        tensor("s", 0.05), tensor("s2", 0.025), tensor("z", 0, np.uint8),
        tensor("w", np.arange(-3, 3).reshape(3, 2, 1, 1), np.int8), tensor("ws", [0.1, 0.2, 0.3]),
        tensor("wz", [0, 0, 0], np.int8), tensor("b", [100, -100, 5], np.int32),
        tensor("bs", np.float32(0.05) * np.float32([0.1, 0.2, 0.3])), tensor("lo", 0), tensor("hi", 6),
        helper.make_tensor("m", TensorProto.INT4, [12, 2], np.arange(24) % 16 - 8), tensor("ms", np.full((3, 2), 0.5)),
    ]  # fmt: skip
    return nodes, value("x", [1, 2, 4, 4]), value("y", [1, 2]), weights, []


def nested():
    """A function in a function, a choice, old and new ways to write numbers."""
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    leaky = node("LeakyRelu", "a", "b")
    alpha = leaky.attribute.add()
    alpha.name, alpha.ref_attr_name, alpha.type = "alpha", "slope", 1
    one = helper.make_function("local", "One", ["a"], ["b"], [leaky], imports, ["slope"])
    inner = node("One", "a", "t", domain="local", slope=0.25)
    two = helper.make_function("local", "Two", ["a", "o"], ["d"], [inner, node("Add", "t o", "d")], imports)
    branches = [
        helper.make_graph([node(op, "k", name)], name, [], [value(name, [1, 2, 4])])
        for op, name in (("Abs", "yes"), ("Neg", "no"))
    ]
    nodes = [
        node("Two", "x h", "k", domain="local"), node("If", "q", "i", then_branch=branches[0], else_branch=branches[1]),
        node("Constant", "", "shape", value_ints=[2, -1]), node("Reshape", "i shape", "v"),
        node("Constant", "", "e", value=helper.make_tensor("t", TensorProto.FLOAT, [2, 1], [1.5, -2.0])),
        node("Mul", "v e", "l"), node("Softmax", "l", "y", axis=-1),
    ]  # fmt: skip
    half = helper.make_tensor("h16", TensorProto.FLOAT16, [4], [0.5, 1.0, -2.0, 4.0])
    nodes.insert(0, node("Cast", "h16", "h", to=1))
    return nodes, value("x", [1, 2, 4]), value("y", [2, 4]), [half, tensor("q", True, bool)], [one, two]


def main(folder):
    for name, made in (("quantized", quantized()), ("nested", nested())):
        nodes, x, y, weights, functions = made
        graph = helper.make_graph(nodes, name, [x], [y], weights, doc_string="text")
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions)
        helper.set_model_props(model, {"key": "value"})
        onnx.checker.check_model(model)
        (pathlib.Path(folder) / f"{name}.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
