"""Older opsets, typed tensor data, external data and constants: quench reads the meaning ONNX Runtime
gives them, and writes it in current terms."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from test_onnx_roundtrip import check_same, op_counts, roundtrip  # noqa: E402

RNG = np.random.default_rng(3)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def save(path, nodes, opset, shape=(1, 3, 6, 8), constants=None, outputs=("y",), extra=()):
    initializers = [numpy_helper.from_array(v, k) for k, v in (constants or {}).items()]
    graph = helper.make_graph(
        nodes, "g", [value("x", shape)], [value(o, None) for o in outputs], initializers + list(extra)
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=4)
    try:  # gives the outputs their shapes
        model = onnx.shape_inference.infer_shapes(model)
    except Exception:  # a model that is wrong on purpose
        pass
    onnx.save(model, path)
    return path


def node(op, inputs, outputs=("y",), **attrs):
    return helper.make_node(op, list(inputs), list(outputs), name=op.lower(), **attrs)


i64 = lambda *v: np.array(v, np.int64)  # noqa: E731
f32 = lambda *v: np.array(v, np.float32)  # noqa: E731
CHANNELS = {k: np.abs(RNG.normal(size=3)).astype(np.float32) + 0.1 for k in ("g", "b", "m", "v")}

CASES = {
    "clip-6": (7, [node("Clip", ["x"], min=-0.3, max=0.5)], {}),
    "clip-6-one-sided": (10, [node("Clip", ["x"], min=0.0)], {}),
    "clip-11": (11, [node("Clip", ["x", "", "hi"])], {"hi": np.float32(0.25)}),
    "pad-2": (7, [node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 3, 0], value=1.5)], {}),
    "pad-2-reflect": (10, [node("Pad", ["x"], pads=[0, 0, 1, 2, 0, 0, 1, 0], mode="reflect")], {}),
    "slice-1": (7, [node("Slice", ["x"], starts=[1, 0], ends=[5, 99], axes=[2, 3])], {}),
    "slice-1-no-axes": (9, [node("Slice", ["x"], starts=[0, 1], ends=[1, -1])], {}),
    "split-2": (9, [node("Split", ["x"], ["y", "z"], axis=3, split=[3, 5])], {}),
    "split-2-equal": (9, [node("Split", ["x"], ["y", "z"], axis=2)], {}),
    "split-13-equal": (13, [node("Split", ["x"], ["y", "z"], axis=2)], {}),
    "squeeze": (9, [node("Squeeze", ["x"], axes=[0])], {}),
    "unsqueeze": (11, [node("Unsqueeze", ["x"], axes=[0, 3])], {}),
    "reduce-sum": (11, [node("ReduceSum", ["x"], axes=[1, 2], keepdims=0)], {}),
    "reduce-mean": (13, [node("ReduceMean", ["x"], axes=[2, 3])], {}),
    "reduce-max-all": (12, [node("ReduceMax", ["x"])], {}),
    "reduce-mean-18": (18, [node("ReduceMean", ["x", "a"])], {"a": i64(1)}),
    "softmax-default": (9, [node("Softmax", ["x"])], {}),
    "softmax-axis-2": (11, [node("Softmax", ["x"], axis=2)], {}),
    "softmax-last": (11, [node("Softmax", ["x"], axis=3)], {}),
    "log-softmax": (12, [node("LogSoftmax", ["x"], axis=2)], {}),
    "dropout": (10, [node("Dropout", ["x"], ratio=0.3)], {}),
    "batch-norm": (7, [node("BatchNormalization", ["x", "g", "b", "m", "v"])], CHANNELS),
    "upsample-7": (7, [node("Upsample", ["x"], scales=[1.0, 1.0, 2.0, 3.0])], {}),
    "upsample-9": (9, [node("Upsample", ["x", "s"], mode="linear")], {"s": f32(1, 1, 2, 2)}),
    "resize-10": (10, [node("Resize", ["x", "s"])], {"s": f32(1, 1, 2, 2)}),
    "resize-10-linear": (10, [node("Resize", ["x", "s"], mode="linear")], {"s": f32(1, 1, 0.5, 2)}),
    "resize-10-smaller": (10, [node("Resize", ["x", "s"])], {"s": f32(1, 1, 0.5, 0.75)}),
    "constants": (
        12,
        [
            helper.make_node("Constant", [], ["c"], value_float=2.0),
            helper.make_node("Constant", [], ["s"], value_ints=[3, 48]),
            node("Mul", ["x", "c"], ["t"]),
            node("Reshape", ["t", "s"]),
        ],
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_older_meaning(case, tmp_path):
    opset, nodes, constants = CASES[case]
    outputs = [o for n in nodes for o in n.output if o in ("y", "z")]
    source = save(tmp_path / "in.onnx", nodes, opset, constants=constants, outputs=outputs)
    target = tmp_path / "out.onnx"
    for mode in ("qdq", "bare"):
        roundtrip(source, target, mode)
        check_same(source, target, exact=False, atol=1e-6)
        written = onnx.load(target)
        wanted = max(opset, 13) if mode == "qdq" else 13  # without a document: the oldest that will do
        assert [i.version for i in written.opset_import if i.domain == ""] == [wanted]


TYPED = {
    "float": (TensorProto.FLOAT, [0.5, -2.0, 3.25]),
    "float16": (TensorProto.FLOAT16, [0.5, -2.0, 3.25]),
    "double": (TensorProto.DOUBLE, [0.5, -2.0, 3.25]),
    "int64": (TensorProto.INT64, [1, -2, 2**40]),
    "int32": (TensorProto.INT32, [1, -2, 70000]),
    "int8": (TensorProto.INT8, [1, -128, 127]),
    "uint8": (TensorProto.UINT8, [0, 200, 255]),
    "uint16": (TensorProto.UINT16, [0, 200, 65535]),
    "uint32": (TensorProto.UINT32, [0, 200, 2**32 - 1]),
    "uint64": (TensorProto.UINT64, [0, 200, 2**63]),
    "bool": (TensorProto.BOOL, [True, False, True]),
}


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize("kind", TYPED)
def test_tensor_data_keep_their_values(kind, raw, tmp_path):
    code, values = TYPED[kind]
    dtype = helper.tensor_dtype_to_np_dtype(code)
    array = np.array(values, dtype)
    data = array.tobytes() if raw else values
    tensor = helper.make_tensor("t", code, [3], data, raw=raw)
    nodes = [node("Identity", ["x"]), node("Identity", ["t"], ["z"])]
    graph = helper.make_graph(
        nodes, "g", [value("x", [2])], [value("y", [2]), value("z", [3], code)], [tensor]
    )
    source, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    imports = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=7), source)
    roundtrip(source, target, "bare")
    back = numpy_helper.to_array(onnx.load(target).graph.initializer[0])
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


def external(tmp_path, location, size=16 * 4, where=None, **entries):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[16])
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(text))
    if where:
        where.write_bytes(np.arange(size // 4, dtype=np.float32).tobytes())
    model = save(tmp_path / "m.onnx", [node("Add", ["x", "w"])], 13, (2, 16))
    proto = onnx.load(model)
    proto.graph.initializer.append(tensor)
    model.write_bytes(proto.SerializeToString())
    return model


def test_external_data_are_read_and_come_inside(tmp_path):
    model = external(tmp_path, "w.bin", 40 * 4, tmp_path / "w.bin", offset=32, length=64)
    roundtrip(model, tmp_path / "out.onnx")
    back = onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer[0]
    assert back.data_location == TensorProto.DEFAULT
    np.testing.assert_array_equal(numpy_helper.to_array(back), np.arange(8, 24, dtype=np.float32))


def test_external_data_stay_inside_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    outside = tmp_path / "secret.bin"
    outside.write_bytes(b"\0" * 64)
    (folder / "link.bin").symlink_to(outside)
    (folder / "sub").mkdir()
    for location in ("../secret.bin", str(outside), "", "link.bin", "sub", "sub/../../secret.bin"):
        model = external(folder, location)
        done = roundtrip(model, folder / "out.onnx", ok=False)
        assert done.returncode == 1 and "UNSAFE_PATH" in done.stderr, (location, done.stderr)


@pytest.mark.parametrize("entries", [{"offset": 100}, {"length": 60}, {"offset": "x"}, {"offset": -1}])
def test_external_data_past_the_end(entries, tmp_path):
    model = external(tmp_path, "w.bin", 16 * 4, tmp_path / "w.bin", **entries)
    done = roundtrip(model, tmp_path / "out.onnx", ok=False)
    assert done.returncode == 1 and "CORRUPT" in done.stderr and '"w"' in done.stderr


def test_control_flow_and_functions_are_named(tmp_path):
    body = helper.make_graph([helper.make_node("Identity", ["x"], ["o"])], "b", [], [value("o", None)])
    branch = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="choose", then_branch=body, else_branch=body),
    ]
    model = save(tmp_path / "if.onnx", branch, 13)
    done = roundtrip(model, tmp_path / "out.onnx", ok=False)
    assert "UNSUPPORTED" in done.stderr and '"choose" If' in done.stderr and "condition" in done.stderr

    model = save(tmp_path / "f.onnx", [helper.make_node("Twice", ["x"], ["y"], "t", domain="me")], 13)
    proto = onnx.load(model)
    proto.opset_import.add(domain="me", version=1)
    proto.functions.append(
        helper.make_function("me", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                             [helper.make_opsetid("", 12)])
    )  # fmt: skip
    onnx.save(proto, model)
    done = roundtrip(model, tmp_path / "out.onnx", ok=False)
    assert "UNSUPPORTED" in done.stderr and "Twice" in done.stderr and "function" in done.stderr


# --- quantized files made by hand -------------------------------------------------------------------
def quantize_params(name, scale, zero, dtype=np.uint8):
    return {f"{name}_s": np.float32(scale), f"{name}_z": dtype(zero)}


def pair(name):
    return [
        helper.make_node("QuantizeLinear", [name, "a_s", "a_z"], [name + "_q"]),
        helper.make_node("DequantizeLinear", [name + "_q", "a_s", "a_z"], [name + "_d"]),
    ]


def test_float_weights_behind_quantize_nodes(tmp_path):
    constants = {
        **quantize_params("a", 0.02, 128),
        "w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "w_s": np.abs(RNG.normal(size=4)).astype(np.float32) + 0.01,
        "w_z": np.zeros(4, np.int8),
    }
    nodes = pair("x") + [
        helper.make_node("QuantizeLinear", ["w", "w_s", "w_z"], ["wq"], axis=0),
        helper.make_node("DequantizeLinear", ["wq", "w_s", "w_z"], ["wd"], axis=0),
        helper.make_node("Conv", ["x_d", "wd"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "a_s", "a_z"], ["cq"]),
        helper.make_node("DequantizeLinear", ["cq", "a_s", "a_z"], ["y"]),
    ]
    source = save(tmp_path / "in.onnx", nodes, 13, constants=constants)
    roundtrip(source, tmp_path / "qdq.onnx")
    check_same(source, tmp_path / "qdq.onnx", exact=False, atol=0.021)
    roundtrip(source, tmp_path / "qop.onnx", "qoperator")
    assert op_counts(tmp_path / "qop.onnx")["QLinearConv"] == 1
    check_same(source, tmp_path / "qop.onnx", exact=False, atol=0.021)


def test_operators_outside_the_patterns_stay_between_nodes(tmp_path):
    constants = {**quantize_params("a", 0.02, 128)}
    nodes = pair("x") + [helper.make_node("HardSigmoid", ["x_d"], ["h"])] + pair("h")
    nodes += [helper.make_node("Tanh", ["h_d"], ["y"])]
    source = save(tmp_path / "in.onnx", nodes, 13, constants=constants)
    for mode in ("qdq", "qoperator", "dedicated", "bare"):
        roundtrip(source, tmp_path / "out.onnx", mode)
        check_same(source, tmp_path / "out.onnx", exact=False, atol=1e-6)
    assert op_counts(tmp_path / "out.onnx") == op_counts(source)


def test_a_relu_that_quantizing_does_not_imply_stays(tmp_path):
    constants = {**quantize_params("a", 0.02, 128)}
    constants["w"] = RNG.integers(-127, 127, (4, 3, 1, 1)).astype(np.int8)
    constants |= {"w_s": np.float32(0.01), "w_z": np.int8(0)}
    nodes = pair("x") + [
        helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["wd"]),
        helper.make_node("Conv", ["x_d", "wd"], ["c"]),
        helper.make_node("Relu", ["c"], ["r"], name="keep"),
        helper.make_node("QuantizeLinear", ["r", "a_s", "a_z"], ["rq"]),
        helper.make_node("DequantizeLinear", ["rq", "a_s", "a_z"], ["y"]),
    ]
    source = save(tmp_path / "in.onnx", nodes, 13, constants=constants)
    roundtrip(source, tmp_path / "out.onnx")
    assert op_counts(tmp_path / "out.onnx")["Relu"] == 1
    check_same(source, tmp_path / "out.onnx", exact=False, atol=1e-6)


@pytest.mark.parametrize("bits", [16, 4])
def test_wider_and_narrower_types_raise_the_opset(bits, tmp_path):
    kind = {16: TensorProto.INT16, 4: TensorProto.INT4}[bits]
    weights = helper.make_tensor("w", kind, [3, 4], list(range(-6, 6)))
    zero = helper.make_tensor("w_z", kind, [4], [0] * 4)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["wd"], axis=1),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    source = save(tmp_path / "in.onnx", nodes, 21, (2, 3), {"w_s": f32(1, 2, 3, 4)}, extra=[weights, zero])
    proto = onnx.load(source)
    proto.ir_version = 10
    onnx.save(proto, source)
    for mode in ("qdq", "bare"):
        roundtrip(source, tmp_path / "out.onnx", mode)
        written = onnx.load(tmp_path / "out.onnx")
        assert written.opset_import[0].version == 21 and written.ir_version == 10
        check_same(source, tmp_path / "out.onnx")
