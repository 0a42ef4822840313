"""Models quantized by onnxruntime's own tool, read and run by quench."""

import json

import numpy as np
import onnx
import pytest
from conftest import make_model, small_classifier
from networks import network, ort_outputs, quantize, quench_outputs
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):
    def __init__(self, name, x):
        self.feeds = iter([{name: x[i : i + 1]} for i in range(len(x))])

    def get_next(self):
        return next(self.feeds, None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """name -> (preprocessed model, input name, calibration samples, samples)"""
    made = {}

    def prepare(name):
        if name in made:
            return made[name]
        folder = tmp_path_factory.mktemp(name)
        path = folder / "m.onnx"
        if name == "small":
            onnx.save(small_classifier(), path)
            x = np.random.default_rng(5).uniform(-1, 1, (40, 3, 16, 16)).astype(np.float32)
        else:
            net = network(name)
            path, x = net.path, net.inputs(24)
        quant_pre_process(str(path), str(folder / "pre.onnx"))
        graph = onnx.load(folder / "pre.onnx").graph
        constants = {t.name for t in graph.initializer}
        input_name = next(i.name for i in graph.input if i.name not in constants)
        made[name] = folder / "pre.onnx", input_name, x[:8], x[8:]
        return made[name]

    return prepare


KINDS = {
    "qdq": {"quant_format": QuantFormat.QDQ},
    "qdq-channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "qdq-channel-s8": {
        "quant_format": QuantFormat.QDQ,
        "per_channel": True,
        "activation_type": QuantType.QInt8,
    },
    "qdq-u8": {"quant_format": QuantFormat.QDQ, "weight_type": QuantType.QUInt8},
    "qoperator": {"quant_format": QuantFormat.QOperator},
    "qoperator-channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
}


def kernels(quench, path):
    result = quench("bench", path, "--layers", "--json", "--threads", "1", "--rounds", "1")
    assert result.returncode == 0, result.stderr
    return {layer["kernel"] for layer in json.loads(result.stdout)["layers"]}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["small", "mobilenet", "resnet20", "kws"])
def test_outputs_are_those_of_onnxruntime(quench, prepared, name, kind, tmp_path):
    path, input_name, calibration, x = prepared(name)
    out = tmp_path / "q.onnx"
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **KINDS[kind]}
    quantize_static(str(path), str(out), Samples(input_name, calibration), **options)
    theirs, ours = ort_outputs(out, x)[0], quench_outputs(out, x, tmp_path / "run")[0]
    assert not kernels(quench, out) & {"qconv", "qconv_depthwise", "qgemm"}  # the simulation
    assert ours.shape == theirs.shape
    # Some settings leave a float island where a sum near a tie falls to the other side.
    error = np.abs(ours - theirs)
    assert error.max() <= 0.02 * np.abs(theirs).max()
    assert error.mean() <= 0.001 * np.abs(theirs).max()
    # Equal bytes at the end make ties of the best answer: either of the two is right then.
    best = np.take_along_axis(theirs, ours.argmax(1)[:, None], 1)[:, 0]
    assert (best >= theirs.max(1) - 1e-5 * np.abs(theirs).max()).mean() >= 0.99


@pytest.mark.parametrize("name", ["small", "mobilenet"])
def test_activations_are_bounds_of_symmetric_integers(quench, prepared, name, tmp_path):
    """Zero is in the middle of these: the Relu or Clip between Conv and QuantizeLinear does
    something, and must not leave the convolution in float."""
    path, _, calibration, x = prepared(name)
    out = tmp_path / "q.onnx"
    quantize(quench, path, calibration, out, "--activations", "s8sym")
    kinds = [n.op_type for n in onnx.load(out).graph.node]
    assert "Relu" in kinds or "Clip" in kinds
    result = quench("bench", out, "--layers", "--json", "--rounds", "1", "--threads", "1")
    kernels = [layer["kernel"] for layer in json.loads(result.stdout)["layers"]]
    assert not [k for k in kernels if "f32_" in k or k in ("Relu", "Clip")], kernels
    theirs, ours = ort_outputs(out, x)[0], quench_outputs(out, x, tmp_path / "run")[0]
    # Sums of theirs, in float here, fall to the other side of ties.
    assert np.abs(ours - theirs).max() <= 0.1 * np.abs(theirs).max()
    assert np.abs(ours - theirs).mean() <= 0.001 * np.abs(theirs).max()
    copy = tmp_path / "copy.onnx"
    assert quench("convert", out, "-o", copy).returncode == 0
    assert np.array_equal(quench_outputs(copy, x, tmp_path / "copied")[0], ours)


@pytest.mark.parametrize("kind", ["qdq-channel", "qoperator"])
def test_eval_and_run_accept_them(quench, prepared, kind, tmp_path):
    path, input_name, calibration, x = prepared("small")
    out = tmp_path / "q.onnx"
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **KINDS[kind]}
    quantize_static(str(path), str(out), Samples(input_name, calibration), **options)
    theirs = ort_outputs(out, x)[0]
    np.save(tmp_path / "x.npy", x)
    labels = ["row,class_index"] + [f"{i},{c}" for i, c in enumerate(theirs.argmax(1))]
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    result = quench("eval", out, "--data", tmp_path / "x.npy", "--labels", tmp_path / "labels.csv",
                    "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)["models"]
    assert row["n"] == len(x) and row["top1"] == 1.0
    result = quench("run", out, tmp_path / "x.npy", "--json", "--top", "1")
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout)["runs"]
    assert [r["outputs"][0]["top"][0]["index"] for r in runs] == list(theirs.argmax(1))


PADS = np.array([0, 0, 1, 2, 0, 0, 2, 1], np.int64)
ON_INTEGERS = {
    "pad": (["Pad", ["a", "pads"]], {}, {"pads": PADS}),
    "pad-value": (["Pad", ["a", "pads", "value"]], {}, {"pads": PADS, "value": np.float32(0.7)}),
    "pad-edge": (["Pad", ["a", "pads"]], {"mode": "edge"}, {"pads": PADS}),
    "pad-reflect": (["Pad", ["a", "pads"]], {"mode": "reflect"}, {"pads": PADS}),
    "resize": (["Resize", ["a", "", "scales"]], {"mode": "linear"},
               {"scales": np.array([1, 1, 2, 3], np.float32)}),
}  # fmt: skip


@pytest.mark.parametrize("activation", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("name", ON_INTEGERS)
def test_integer_operators_between_others(quench, name, activation, tmp_path):
    """The tool writes Pad and linear Resize on the integers of QLinearConv."""
    (op, inputs), attributes, constants = ON_INTEGERS[name]
    rng = np.random.default_rng(3)
    w = lambda *s: (rng.standard_normal(s) * 0.3).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "first"),
        helper.make_node(op, inputs, ["b"], "between", **attributes),
        helper.make_node("Conv", ["b", "w2"], ["y"], "last"),
    ]
    constants = {**constants, "w1": w(4, 3, 3, 3), "b1": w(4, 1)[:, 0] + 1, "w2": w(5, 4, 1, 1)}
    onnx.save(make_model(nodes, {"x": [1, 3, 9, 8]}, {"y": [1, 5, "h", "w"]}, constants), tmp_path / "m.onnx")
    x = rng.uniform(-1, 1, (20, 3, 9, 8)).astype(np.float32)
    out = tmp_path / "q.onnx"
    quantize_static(str(tmp_path / "m.onnx"), str(out), Samples("x", x[:8]), activation_type=activation,
                    quant_format=QuantFormat.QOperator, weight_type=QuantType.QInt8)  # fmt: skip
    quantized = onnx.load(out).graph
    assert [n.op_type for n in quantized.node][1:4] == ["QLinearConv", op, "QLinearConv"]
    (scale,) = [onnx.numpy_helper.to_array(t) for t in quantized.initializer if t.name == "y_scale"]
    theirs = ort_outputs(out, x)[0]
    copies = [out, tmp_path / "qdq.onnx", tmp_path / "qop.onnx", tmp_path / "q.qnm"]
    for to, *form in zip(copies[1:], ["--format"] * 2, ["qdq", "qoperator"]):
        assert quench("convert", out, "-o", to, *form).returncode == 0
    assert quench("convert", out, "-o", copies[3]).returncode == 0
    for i, copy in enumerate(copies):
        ours = quench_outputs(copy, x, tmp_path / f"run{i}")[0]
        steps = np.abs(np.rint((ours - theirs) / scale))
        # (onnxruntime cuts what it interpolates between bytes, and quench rounds it)
        assert steps.max() <= (0 if op == "Pad" else 3) and (steps > 1).mean() <= 0.03
    assert len({quench_outputs(c, x, tmp_path / "r")[0].tobytes() for c in copies}) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_padding_of_integers_without_a_value(quench, dtype, tmp_path):
    """It is the integer 0, whatever the zero point."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["a"]),
        helper.make_node("Pad", ["a", "pads"], ["b"]),
        helper.make_node("Pad", ["b", "pads"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "scale", "zero"], ["y"]),
    ]
    constants = {"scale": np.array(0.02, np.float32), "zero": np.array(57, dtype), "pads": PADS}
    onnx.save(make_model(nodes, {"x": [1, 2, 4, 3]}, {"y": [1, 2, "h", "w"]}, constants), tmp_path / "m.onnx")
    x = np.random.default_rng(6).uniform(-1, 1, (2, 2, 4, 3)).astype(np.float32)
    assert quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.qnm").returncode == 0
    for copy in ("m.onnx", "m.qnm"):
        ours = quench_outputs(tmp_path / copy, x, tmp_path / "run")[0]
        assert np.array_equal(ours, ort_outputs(tmp_path / "m.onnx", x)[0])


ROWS = {
    "dequantized": [(["DequantizeLinear", ["q", "s", "z"], ["r"]]), (["MatMul", ["r", "w"], ["y"]])],
    "reshaped": [
        (["Reshape", ["q", "shape"], ["p"]]), (["DequantizeLinear", ["p", "s", "z"], ["r"]]),
        (["MatMul", ["r", "w"], ["y"]]),
    ],
    "multiplied": [
        (["QLinearMatMul", ["q", "s", "z", "wq", "ws", "wz", "ys", "yz"], ["p"]]),
        (["DequantizeLinear", ["p", "ys", "yz"], ["y"]]),
    ],
    "zero point left out": [(["DequantizeLinear", ["q", "s"], ["r"]]), (["MatMul", ["r", "w"], ["y"]])],
    "rows and what is made of them": [
        (["Reshape", ["q", "shape"], ["p"]]), (["Transpose", ["p"], ["t"]]),
        (["DequantizeLinear", ["q", "s", "z"], ["r"]]), (["DequantizeLinear", ["p", "s", "z"], ["u"]]),
        (["Add", ["r", "u"], ["v"]]), (["DequantizeLinear", ["t", "s", "z"], ["a"]]), (["Transpose", ["a"], ["b"]]),
        (["Add", ["v", "b"], ["c"]]), (["MatMul", ["c", "w"], ["y"]]),
    ],
    "halves": [
        (["Split", ["q", "half"], ["l", "h"]]), (["DequantizeLinear", ["h", "s", "z"], ["r"]]),
        (["DequantizeLinear", ["l", "s", "z"], ["u"]]), (["Concat", ["r", "u"], ["v"]]), (["MatMul", ["v", "w"], ["y"]]),
    ],
    "both": [
        (["DequantizeLinear", ["q", "s", "z"], ["r"]]), (["MatMulInteger", ["q", "wq", "z", "wz"], ["i"]]),
        (["Cast", ["i"], ["f"]]), (["MatMul", ["r", "w"], ["m"]]), (["Add", ["m", "f"], ["y"]]),
    ],
}  # fmt: skip
ATTRIBUTES = {"Cast": {"to": 1}, "Split": {"axis": -1}, "Concat": {"axis": -1}}


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("name", ROWS)
def test_rows_of_a_table_of_integers(quench, name, dtype, tmp_path):
    """Embeddings: the scale stands where rows are read, behind the Gather."""
    rng = np.random.default_rng(8)
    integers = lambda *s: rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, s).astype(dtype)
    nodes = [helper.make_node("Gather", ["table", "index"], ["q"])]
    for op, inputs, outputs in ROWS[name]:
        nodes.append(helper.make_node(op, inputs, outputs, **ATTRIBUTES.get(op, {})))
    used = {i for n in nodes for i in n.input}
    constants = {
        "table": integers(50, 12), "s": np.float32(0.02), "z": dtype(9), "shape": np.array([1, 5, 12]),
        "half": np.array([5, 7]),
        "w": rng.standard_normal((12, 7)).astype(np.float32), "wq": rng.integers(-127, 128, (12, 7)).astype(np.int8),
        "ws": np.float32(0.01), "wz": np.int8(0), "ys": np.float32(0.05), "yz": dtype(40),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("index", onnx.TensorProto.INT64, [1, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 5, 7])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items() if k in used])  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    if name == "both":  # as integers and as real numbers at once
        result = quench("inspect", path)
        assert result.returncode == 1 and 'computes on the integers of "q"' in result.stderr
        return
    x = rng.integers(0, 50, (6, 5)).astype(np.float32)
    theirs = ort_outputs(path, x.astype(np.int64))[0]
    assert quench("convert", path, "-o", tmp_path / "m.qnm").returncode == 0
    for copy in (path, tmp_path / "m.qnm"):
        ours = quench_outputs(copy, x, tmp_path / "run")[0]
        assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(theirs).max()


def test_rows_of_a_table_of_int32(quench, tmp_path):
    """No QuantizeLinear makes int32: written as integers again."""
    nodes = [
        helper.make_node("Gather", ["table", "index"], ["q"]),
        helper.make_node("Transpose", ["q"], ["t"], perm=[2, 0, 1]),
        helper.make_node("DequantizeLinear", ["t", "s"], ["y"]),
    ]
    constants = {"table": np.arange(-300, 300, dtype=np.int32).reshape(50, 12), "s": np.float32(0.02)}
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("index", onnx.TensorProto.INT64, [1, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [12, 1, 5])],
        [onnx.numpy_helper.from_array(v, k) for k, v in constants.items()])  # fmt: skip
    path, again = tmp_path / "m.onnx", tmp_path / "again.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    assert quench("convert", path, "-o", again).returncode == 0
    x = np.array([[3, 49, 0, 7, 21]])
    theirs = ort_outputs(path, x)[0]
    assert np.array_equal(ort_outputs(again, x)[0], theirs)
    for copy in (path, again):
        assert np.array_equal(quench_outputs(copy, x.astype(np.float32), tmp_path / "run")[0], theirs)
