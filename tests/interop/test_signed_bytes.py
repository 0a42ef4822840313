"""Signed activations run as unsigned ones of the same values: kernels read those as they lie. Inputs
and outputs of a model stay what they are."""

import json

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs
from onnx import TensorProto, helper, numpy_helper


def integers_in_and_out(path):
    """int8 [1, 6, 7, 5] -> DQ -> Conv, Add and Concat of constants, Transpose -> Q -> int8; a second
    output that is the input moved, a third that is read on."""
    rng = np.random.default_rng(4)
    constants = []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def scaled(name, scale, zero):
        return [constant(name + "_s", np.float32(scale)), constant(name + "_z", np.int8(zero))]

    sx, sc, sy, sk = scaled("x", 0.02, 11), scaled("c", 0.07, -30), scaled("y", 0.09, 5), scaled("k", 0.03, 9)
    node = helper.make_node
    w = constant("w", rng.integers(-127, 128, (6, 1, 3, 3)).astype(np.int8))
    k = constant("k", rng.integers(-128, 128, (1, 6, 1, 1)).astype(np.int8))
    more = constant("more", rng.integers(-128, 128, (1, 2, 7, 5)).astype(np.int8))
    nodes = [
        node("DequantizeLinear", ["x", *sx], ["xf"]),
        node("DequantizeLinear", [w, constant("w_s", np.float32(0.01))], ["wf"]),
        node("Conv", ["xf", "wf"], ["cf"], group=6, pads=[1, 1, 1, 1]),
        node("QuantizeLinear", ["cf", *sc], ["c"]),
        node("DequantizeLinear", ["c", *sc], ["cd"]),
        node("DequantizeLinear", [k, *sk], ["kf"]),
        node("Add", ["cd", "kf"], ["af"]),
        node("QuantizeLinear", ["af", *sy], ["a"]),
        node("DequantizeLinear", ["a", *sy], ["ad"]),
        node("DequantizeLinear", [more, *sy], ["mf"]),
        node("Concat", ["ad", "mf"], ["jf"], axis=1),
        node("QuantizeLinear", ["jf", *sy], ["j"]),
        node("DequantizeLinear", ["j", *sy], ["jd"]),
        node("Transpose", ["jd"], ["tf"], perm=[0, 2, 3, 1]),
        node("QuantizeLinear", ["tf", *sy], ["y"]),
        node("Reshape", ["xf", constant("shape", np.array([1, -1], np.int64))], ["rf"]),
        node("QuantizeLinear", ["rf", *sx], ["moved"]),
    ]
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.INT8, shape)
    outputs = [info("y", [1, 7, 5, 8]), info("moved", [1, 210]), info("c", [1, 6, 7, 5])]
    graph = helper.make_graph(nodes, "g", [info("x", [1, 6, 7, 5])], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def test_inputs_and_outputs_stay_signed(quench, tmp_path):
    path, compact = tmp_path / "m.onnx", tmp_path / "m.qnm"
    integers_in_and_out(path)
    x = np.random.default_rng(8).integers(-128, 128, (3, 6, 7, 5)).astype(np.int8)
    theirs = ort_outputs(path, x)
    assert quench("convert", path, "-o", compact).returncode == 0
    for i, model in enumerate((path, compact)):
        found = json.loads(quench("inspect", model, "--json").stdout)
        assert {v["dtype"] for v in found["inputs"] + found["outputs"]} == {"int8"}
        ours = quench_outputs(model, x, tmp_path / f"run{i}")
        assert len(ours) == len(theirs) == 3
        scales = [(0.09, 5), (0.02, 11), (0.07, -30)]
        for got, expected, (scale, zero) in zip(ours, theirs, scales, strict=True):
            real = (expected.astype(np.float32) - zero) * np.float32(scale)
            steps = np.rint((got.reshape(real.shape) - real) / scale)
            assert np.abs(steps).max() <= 1 and (steps != 0).mean() <= 0.01


def test_what_is_between_is_unsigned(quench, tmp_path):
    """No kernel has to flip its input first, and the values are those of the signed graph."""
    path, compact = tmp_path / "m.onnx", tmp_path / "m.qnm"
    integers_in_and_out(path)
    assert quench("convert", path, "-o", compact).returncode == 0
    assert quench("convert", compact, "-o", tmp_path / "back.onnx").returncode == 0
    onnx.checker.check_model(str(tmp_path / "back.onnx"))
    found = json.loads(quench("inspect", compact, "--json").stdout)
    outer = {v["name"] for v in found["inputs"] + found["outputs"]}
    made = {name for n in found["nodes"] for name in n["outputs"]} - outer
    signed = [t["name"] for t in found["tensors"] if t["name"] in made and t["dtype"] == "int8"]
    assert made and signed == []
    x = np.random.default_rng(9).integers(-128, 128, (4, 6, 7, 5)).astype(np.int8)
    ours = quench_outputs(path, x, tmp_path / "run")
    signed = quench_outputs(path, x, tmp_path / "signed", "--as-read")
    assert all(np.array_equal(a, b) for a, b in zip(ours, signed, strict=True))


@pytest.mark.parametrize("op", [("MaxPool", {"kernel_shape": [2, 2]}), ("GlobalMaxPool", {})])
@pytest.mark.parametrize("kind", ["channels", "int16"])
def test_pools_of_other_integers_stay_float(quench, op, kind, tmp_path):
    """Kernels of pools read bytes of one scale: the pool of anything else stays between its D and Q."""
    scales, zeros = np.float32([0.02, 0.03, 0.04]), np.int8([1, -2, 3])
    if kind == "int16":
        scales, zeros = np.float32(0.001), np.int16(-70)
    constants = [numpy_helper.from_array(np.asarray(v), n) for n, v in (("s", scales), ("z", zeros))]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node(op[0], ["d"], ["p"], **op[1]),
        helper.make_node("QuantizeLinear", ["p", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [info("x", [1, 3, 6, 5])], [info("y", None)], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(5).standard_normal((2, 3, 6, 5)).astype(np.float32)
    (theirs,) = ort_outputs(tmp_path / "m.onnx", x)
    for kind in ("float", "gemmlowp"):
        (ours,) = quench_outputs(tmp_path / "m.onnx", x, tmp_path / "run", "--requantize", kind)
        assert np.array_equal(ours, theirs)
