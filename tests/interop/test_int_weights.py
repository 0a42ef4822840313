"""Products whose weights stay integers: the bits of the same product with the dequantized matrix."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_runtime import runtime_outputs


def product(path, w, m):
    k, n = w.shape
    values = [helper.make_tensor_value_info(s, TensorProto.FLOAT, [m, c]) for s, c in (("x", k), ("y", n))]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(w, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def outputs(quench, path, x, folder):
    result = quench("convert", path, "-o", path.with_suffix(".qnm"))
    assert result.returncode == 0, result.stderr
    return runtime_outputs(path.with_suffix(".qnm"), x, folder)[0]


@pytest.mark.parametrize("kind", ["int4", "int8", "uint4", "uint8"])
@pytest.mark.parametrize("m", [1, 3, 9])
def test_same_bits_as_dequantized(quench, kind, m, tmp_path):
    rng = np.random.default_rng(3)
    product(tmp_path / "f.onnx", rng.standard_normal((700, 411)).astype(np.float32), m)
    options = ["-q", "--weight-only", kind, "--format", "qdq"]
    result = quench("quantize", tmp_path / "f.onnx", "-o", tmp_path / "q.onnx", *options)
    assert result.returncode == 0, result.stderr
    graph = onnx.load(tmp_path / "q.onnx").graph
    constants = {t.name: numpy_helper.to_array(t).astype(np.float32) for t in graph.initializer}
    (node,) = [n for n in graph.node if n.op_type == "DequantizeLinear"]
    (block,) = [a.i for a in node.attribute if a.name == "block_size"]
    q, scale = (constants[name] for name in node.input[:2])
    zero = constants[node.input[2]] if len(node.input) > 2 and node.input[2] else 0 * scale
    scale, zero = (np.repeat(v, block, 0)[: len(q)] for v in (scale, zero))
    product(tmp_path / "d.onnx", (q - zero) * scale, m)
    x = rng.standard_normal((1, m, 700)).astype(np.float32)
    ours = outputs(quench, tmp_path / "q.onnx", x, tmp_path / "a")
    assert np.array_equal(ours, outputs(quench, tmp_path / "d.onnx", x, tmp_path / "b"))
