"""Operators of onnxruntime that are written out when a file is read, against onnxruntime: the file
itself, what convert makes of it, and a compact file."""

import json

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs, session
from onnx import helper
from test_dynamic import PLAIN, error, samples, save

F = np.float32


def node(op, inputs, outputs, **attributes):
    name = f"{op}_{outputs[0]}"
    return helper.make_node(op, inputs, outputs, name, domain="com.microsoft", **attributes)


def weights(*shape, kind=np.int8, seed=1):
    rng, info = np.random.default_rng(seed), np.iinfo(kind)
    return rng.integers(info.min, info.max + 1, shape).astype(kind)


def scales(*shape, seed=2):
    return np.random.default_rng(seed).uniform(0.001, 0.01, shape).astype(F)


def check(quench, path, x, tolerance, written=1e-5):
    theirs, folder = ort_outputs(path, x)[0], path.parent
    results = []
    for form in (path.name, "c.onnx", "c.qnm"):
        if form != path.name:
            result = quench("convert", path, "-o", folder / form)
            assert result.returncode == 0, result.stderr
        results.append(quench_outputs(folder / form, x, folder / "run")[0])
        assert results[-1].shape == theirs.shape
        if form != "c.onnx":
            assert error(results[-1], theirs) < tolerance
    assert np.array_equal(results[0], results[2])
    onnx.checker.check_model(str(folder / "c.onnx"))
    assert not any(n.domain for n in onnx.load(folder / "c.onnx").graph.node)
    assert error(ort_outputs(session(folder / "c.onnx", PLAIN), x)[0], theirs) < written
    return theirs


def layers_of(quench, path):
    result = quench("bench", path, "--layers", "--json", "--threads", "1", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["layers"]


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("zero", ["none", "one", "columns"])
@pytest.mark.parametrize("op", ["DynamicQuantizeMatMul", "MatMulIntegerToFloat"])
def test_products(quench, op, zero, bias, kind, tmp_path):
    """Two of them on one input: it is quantized once."""
    c = {"w": weights(16, 24, kind=kind), "v": weights(16, 24, kind=kind, seed=5)}
    c |= {"ws": scales(24) if zero == "columns" else F(0.01)}
    c |= {"wz": weights(*(24,) * (zero == "columns"), kind=kind, seed=3), "b": scales(24, seed=4)}
    z, b = "wz" if zero != "none" else "", "b" if bias else ""
    if op == "DynamicQuantizeMatMul":
        nodes = [node(op, ["x", w, "ws", z, b], [y]) for w, y in zip("wv", "mn")]
    else:
        nodes = [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "qz"])]
        nodes += [node(op, ["q", w, "s", "ws", "qz", z, b], [y]) for w, y in zip("wv", "mn")]
    nodes.append(helper.make_node("Sub", ["m", "n"], ["y"]))
    path = save(tmp_path / "m.onnx", nodes, c, {"x": [1, 4, 16]}, {"y": [1, 4, 24]}, microsoft=True)
    check(quench, path, samples((4, 16)), 1e-6)
    assert len(layers_of(quench, path)) == 4


@pytest.mark.parametrize("columns", [False, True])
def test_products_of_constant_scales(quench, columns, tmp_path):
    c = {"w": weights(16, 24), "ws": scales(*(24,) * columns), "wz": np.zeros((24,) * columns, np.int8)}
    c |= {"b": scales(24, seed=4), "s": F(0.02), "z": np.uint8(117)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("MatMulIntegerToFloat", ["q", "w", "s", "ws", "z", "wz", "b"], ["y"])]  # fmt: skip
    path = save(tmp_path / "m.onnx", nodes, c, {"x": [1, 4, 16]}, {"y": [1, 4, 24]}, microsoft=True)
    check(quench, path, samples((4, 16)), 1e-6)
    assert "q8_igemm" in layers_of(quench, path)[1]["kernel"]


@pytest.mark.parametrize("scale, zero", [((24,), ()), ((), (24,)), ((1,), ()), ((24,), (1,)), ((1, 24), (1, 24))])
def test_one_scale_or_zero_point_of_all_columns(quench, scale, zero, tmp_path):
    """Both may be a number, a row, or one of each; a row may be a matrix."""
    c = {"w": weights(16, 24), "ws": scales(*scale), "wz": weights(*zero, seed=3), "s": F(0.02), "z": np.uint8(117)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("MatMulIntegerToFloat", ["q", "w", "s", "ws", "z", "wz"], ["y"])]  # fmt: skip
    path = save(tmp_path / "m.onnx", nodes, c, {"x": [1, 4, 16]}, {"y": [1, 4, 24]}, microsoft=True)
    check(quench, path, samples((4, 16)), 1e-6)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_where(quench, kind, tmp_path):
    shape, third = (1, 3, 5, 4), kind(np.iinfo(kind).min + 93)
    c = {"c": np.random.default_rng(3).integers(0, 2, shape[1:]).astype(bool), "o": weights(3, 1, 4, kind=kind)}
    c |= {"s": F(0.02), "z": third, "os": F(0.013), "oz": kind(0), "ys": F(0.03), "yz": kind(third + 9)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("QLinearWhere", ["c", "q", "s", "z", "o", "os", "oz", "ys", "yz"], ["r"]),
             helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"])]  # fmt: skip
    path = save(tmp_path / "m.onnx", nodes, c, {"x": shape}, {"y": shape}, microsoft=True)
    theirs = check(quench, path, samples(shape[1:]), 1e-6)
    assert len(np.unique(theirs)) > 20


def softmax(path, shape, **attributes):
    c = {"s": F(0.02), "z": np.uint8(117), "ys": F(1 / 256), "yz": np.uint8(0)}
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
             node("QLinearSoftmax", ["q", "s", "z", "ys", "yz"], ["r"], **attributes),
             helper.make_node("DequantizeLinear", ["r", "ys", "yz"], ["y"])]  # fmt: skip
    return save(path, nodes, c, {"x": shape}, {"y": shape}, microsoft=True)


@pytest.mark.parametrize(
    "shape, axis, opset",
    [((1, 5, 16), -1, 13), ((1, 5, 16), 1, 13), ((1, 5, 16), 2, 12), ((1, 16), 1, 11), ((1, 16, 1, 1), 1, 12)],
)
def test_softmax(quench, shape, axis, opset, tmp_path):
    """Of one axis, which its older meaning may be too."""
    path, x = softmax(tmp_path / "m.onnx", shape, axis=axis, opset=opset), samples(shape[1:])
    theirs = ort_outputs(path, x)[0]
    assert quench("convert", path, "-o", tmp_path / "c.onnx").returncode == 0
    for form in "mc":
        ours = quench_outputs(tmp_path / f"{form}.onnx", x, tmp_path / "run")[0]
        assert np.abs(ours - theirs).max() < 1.01 / 256
    assert np.abs(ort_outputs(tmp_path / "c.onnx", x)[0] - theirs).max() < 1.01 / 256


def test_softmax_of_several_axes_is_refused(quench, tmp_path):
    result = quench("inspect", softmax(tmp_path / "m.onnx", (1, 5, 16), axis=1, opset=12))
    assert result.returncode != 0 and "QLinearSoftmax" in result.stderr and "several axes" in result.stderr


LSTM = {
    "plain": {},
    "reverse": {"direction": "reverse", "kind": np.uint8},
    "both": {"direction": "bidirectional"},
    "rows": {"rows": True},
    "both, rows": {"direction": "bidirectional", "rows": True, "kind": np.uint8},
    "states": {"states": True, "peepholes": True},
    "attributes": {"clip": 0.6, "input_forget": 1, "activations": ["Sigmoid", "Tanh", "Relu"]},
}


def lstm(path, steps, width, hidden=12, direction="forward", kind=np.int8, rows=False, states=False,
         peepholes=False, **attributes):  # fmt: skip
    """[1, steps, width] -> [steps, 1, ...]: onnxruntime rounds the states of several sequences with one scale."""
    d = 2 if direction == "bidirectional" else 1
    every = (d, 4 * hidden) if rows else (d,)
    zeros = np.zeros if kind == np.int8 and rows else lambda n, k: np.full(n, np.iinfo(k).min + 120, k)
    c = {"w": weights(d, width, 4 * hidden, kind=kind), "r": weights(d, hidden, 4 * hidden, kind=kind, seed=3)}
    c |= {"ws": scales(*every), "rs": scales(*every, seed=5), "z": zeros(every, kind)}
    c |= {"b": np.random.default_rng(7).uniform(-0.5, 0.5, (d, 8 * hidden)).astype(F)}
    c |= {"h": samples((1, hidden), d) / 3, "s": samples((1, hidden), d) / 2, "p": samples((3 * hidden,), d) / 4}
    inputs = ["t", "w", "r", "b", "", *(["h", "s"] if states else ["", ""]), "p" if peepholes else ""]
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
             node("DynamicQuantizeLSTM", [*inputs, "ws", "z", "rs", "z"], ["o", "last"], hidden_size=hidden,
                  direction=direction, **attributes),
             helper.make_node("Add", ["o", "last"], ["y"])]  # fmt: skip
    return save(path, nodes, c, {"x": [1, steps, width]}, {"y": [steps, d, 1, hidden]}, microsoft=True)


@pytest.mark.parametrize("name", LSTM)
def test_lstm(quench, name, tmp_path):
    path = lstm(tmp_path / "m.onnx", 9, 20, **LSTM[name])
    x = samples((9, 20))
    check(quench, path, x, 1e-4, written=0.02)
    told = quench("convert", path, "-o", tmp_path / "c.onnx").stderr.splitlines()
    assert len(told) == 1 and told[0].startswith("warning: ") and '"DynamicQuantizeLSTM_o"' in told[0]
    kept, lost = (quench_outputs(tmp_path / f"{n}.onnx", x, tmp_path / "run")[0] for n in "mc")
    assert not np.array_equal(kept, lost)


def test_lstm_of_quantize_dynamic(quench, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(6)
    c = {"w": rng.normal(size=(1, 48, 20)), "r": rng.normal(size=(1, 48, 12)), "b": rng.normal(size=(1, 96))}
    nodes = [helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
             helper.make_node("LSTM", ["t", "w", "r", "b"], ["y"], hidden_size=12)]  # fmt: skip
    path = save(tmp_path / "f.onnx", nodes, {k: (v / 4).astype(F) for k, v in c.items()}, {"x": [1, 9, 20]},
                {"y": [9, 1, 1, 12]})  # fmt: skip
    quantization.quantize_dynamic(path, tmp_path / "m.onnx", op_types_to_quantize=["LSTM"])
    assert "DynamicQuantizeLSTM" in [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node]
    check(quench, tmp_path / "m.onnx", samples((9, 20)), 1e-4, written=0.02)


MATRIX = {"w": weights(16, 24), "ws": F(0.01)}
CUBES = {"w": weights(1, 16, 48), "r": weights(1, 12, 48), "ws": scales(1)}
REFUSED = {
    "no scale": (["x", "w"], MATRIX, "DynamicQuantizeMatMul", "an input or output is missing"),
    "no weights": (["x", "", "ws"], MATRIX, "DynamicQuantizeMatMul", "an input or output is missing"),
    "few inputs": (["x", "w", "ws"], MATRIX, "MatMulIntegerToFloat", "an input or output is missing"),
    "few of nine": (["x", "x", "ws", "", "x", "ws", "", ""], MATRIX, "QLinearWhere", "an input or output is missing"),
    "no r": (["x", "w"], CUBES, "DynamicQuantizeLSTM", "an input or output is missing"),
    "no lstm scales": (["x", "w", "r"], CUBES, "DynamicQuantizeLSTM", "input 1 is not constant bytes"),
    "computed": (["x", "x", "r", *[""] * 5, "ws", "", "ws"], CUBES, "DynamicQuantizeLSTM", "input 1 is not constant bytes"),
    "scales": (["x", "w", "r", *[""] * 5, "three", "", "ws"], CUBES | {"three": scales(3)}, "DynamicQuantizeLSTM",
               "input 1 of 48 rows has 3 scales"),
    "zeros": (["x", "w", "r", *[""] * 5, "ws", "", "ws", "three"], CUBES | {"three": weights(3)}, "DynamicQuantizeLSTM",
              "input 2 is not constant bytes"),
    "attention": (["x", "w", "ws", "ws", "ws"], MATRIX, "QAttention", "the operator is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_named(quench, name, tmp_path):
    inputs, constants, op, reason = REFUSED[name]
    path = save(tmp_path / "m.onnx", [node(op, inputs, ["y"])], constants, {"x": [5, 1, 16]}, {"y": None}, microsoft=True)
    result = quench("inspect", path)
    assert result.returncode != 0
    assert reason in result.stderr and op in result.stderr and "m.onnx" in result.stderr
