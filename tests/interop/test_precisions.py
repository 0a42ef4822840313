"""Models of float16, bfloat16 and double: computed and quantized in float32, Casts at the borders."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

import json  # noqa: E402

from conftest import small_classifier  # noqa: E402

KINDS = {
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, None),
    "double": (TensorProto.DOUBLE, np.float64),
}


def bfloat16_bits(array):
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def rounded(array, kind):
    if kind == "bfloat16":
        return (bfloat16_bits(array).astype(np.uint32) << 16).view(np.float32)
    return array.astype(KINDS[kind][1]).astype(np.float32)


def in_kind(model, kind):
    """The model with every float tensor of another type, and the float32 model of these weights."""
    code, dtype = KINDS[kind]
    other, plain = onnx.ModelProto(), onnx.ModelProto()
    other.CopyFrom(model)
    plain.CopyFrom(model)
    for i, t in enumerate(model.graph.initializer):
        if t.data_type != TensorProto.FLOAT:
            continue
        array = rounded(numpy_helper.to_array(t), kind)
        plain.graph.initializer[i].CopyFrom(numpy_helper.from_array(array, t.name))
        if kind == "bfloat16":
            made = TensorProto(name=t.name, data_type=code, dims=t.dims)
            made.raw_data = bfloat16_bits(array).tobytes()
        else:
            made = numpy_helper.from_array(array.astype(dtype), t.name)
        other.graph.initializer[i].CopyFrom(made)
    for info in [*other.graph.input, *other.graph.output, *other.graph.value_info]:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = code
    return other, plain


def run_ort(path, x):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(float)": np.float32}
    feed = session.get_inputs()[0]
    return session.run(None, {feed.name: x.astype(kinds[feed.type])})[0].astype(np.float32)


def run_bfloat16(path, x):
    """Python has no bfloat16 arrays: the runtime takes and gives float32 through Casts put around."""
    model = onnx.load(path)
    source, result = model.graph.input[0], model.graph.output[0]
    model.graph.node.insert(0, helper.make_node("Cast", ["as_float"], [source.name], to=TensorProto.BFLOAT16))
    model.graph.node.append(helper.make_node("Cast", [result.name], ["y_float"], to=TensorProto.FLOAT))
    source.name, result.name = "as_float", "y_float"
    for info in (source, result):
        info.type.tensor_type.elem_type = TensorProto.FLOAT
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"as_float": x})[0]


@pytest.mark.parametrize("kind", KINDS)
def test_quantizes_and_runs(quench, tmp_path, kind):
    other, plain = in_kind(small_classifier(), kind)
    onnx.save(other, tmp_path / "other.onnx")
    onnx.save(plain, tmp_path / "plain.onnx")
    x = rounded(np.random.default_rng(5).normal(size=(16, 3, 16, 16)).astype(np.float32), kind)
    np.save(tmp_path / "x.npy", x)
    for name in ("other", "plain"):
        done = quench("quantize", tmp_path / f"{name}.onnx", "-o", tmp_path / f"{name}.int8.onnx",
                      "--data", tmp_path / "x.npy", "--json")
        assert done.returncode == 0, done.stderr

    quantized = onnx.load(tmp_path / "other.int8.onnx")
    onnx.checker.check_model(quantized)
    code = KINDS[kind][0]
    # callers see the types they know; between the Casts there is float32 and int8 alone
    assert quantized.graph.input[0].type.tensor_type.elem_type == code
    assert quantized.graph.output[0].type.tensor_type.elem_type == code
    assert not any(t.data_type == code for t in quantized.graph.initializer)
    casts = [n for n in quantized.graph.node if n.op_type == "Cast"]
    assert len(casts) == 2
    run = run_bfloat16 if kind == "bfloat16" else run_ort
    got = np.concatenate([run(tmp_path / "other.int8.onnx", x[i : i + 1]) for i in range(4)])
    same = np.concatenate([run_ort(tmp_path / "plain.int8.onnx", x[i : i + 1]) for i in range(4)])
    real = np.concatenate([run_ort(tmp_path / "plain.onnx", x[i : i + 1]) for i in range(4)])
    # the integers of the float32 model, rounded to the output's type; what was folded in double may
    # move one of them a step
    np.testing.assert_allclose(got, same, atol={"bfloat16": 4e-3, "float16": 5e-4, "double": 1e-2}[kind])
    assert np.abs(got - real).max() < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_float_model_runs(quench, tmp_path, kind):
    other, plain = in_kind(small_classifier(), kind)
    onnx.save(other, tmp_path / "other.onnx")
    onnx.save(plain, tmp_path / "plain.onnx")
    x = rounded(np.random.default_rng(6).normal(size=(1, 3, 16, 16)).astype(np.float32), kind)
    np.save(tmp_path / "x.npy", x)
    done = quench("run", tmp_path / "other.onnx", tmp_path / "x.npy", "--json", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)["runs"][0]["outputs"][0]["top"]
    values = run_ort(tmp_path / "plain.onnx", x).ravel()
    for entry in best:
        assert entry["value"] == pytest.approx(values[entry["index"]], abs=4e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_written_unchanged(quench, tmp_path, kind):
    """Converting from ONNX to ONNX keeps the types: nothing is computed."""
    other, _ = in_kind(small_classifier(), kind)
    onnx.save(other, tmp_path / "a.onnx")
    done = quench("convert", tmp_path / "a.onnx", "-o", tmp_path / "b.onnx")
    assert done.returncode == 0, done.stderr
    types = lambda path: sorted((t.name, t.data_type) for t in onnx.load(path).graph.initializer)
    assert types(tmp_path / "a.onnx") == types(tmp_path / "b.onnx")


def test_other_formats(quench, tmp_path):
    other, _ = in_kind(small_classifier(), "float16")
    onnx.save(other, tmp_path / "a.onnx")
    for extension in ("mnn", "qnm"):
        done = quench("convert", tmp_path / "a.onnx", "-o", tmp_path / f"a.{extension}")
        assert done.returncode == 0, done.stderr


def test_table_of_halves_stays(quench, tmp_path):
    """A table that is only looked up keeps its halves: the quantized file must not grow by it."""
    rng = np.random.default_rng(8)
    table = rng.normal(size=(500, 16)).astype(np.float16)
    weights = rng.normal(size=(16, 8)).astype(np.float16)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["found"], name="look_up"),
            helper.make_node("MatMul", ["found", "w"], ["y"], name="product"),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, [1, 6, 8])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    ids = rng.integers(0, 500, (12, 6))
    np.save(tmp_path / "ids.npy", ids)
    done = quench("quantize", tmp_path / "a.onnx", "-o", tmp_path / "q.onnx", "--data", tmp_path / "ids.npy")
    assert done.returncode == 0, done.stderr
    kept = {t.name: t.data_type for t in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert kept["table"] == TensorProto.FLOAT16
    session = ort.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(None, {"ids": ids[:1]})[0].astype(np.float32)
    real = table[ids[:1]].astype(np.float32) @ weights.astype(np.float32)
    assert np.abs(got - real).max() < 0.15


def test_beyond_float32(quench, tmp_path):
    """Masks are made of the lowest double: it becomes the lowest float32, not an infinity."""
    graph = helper.make_graph(
        [
            helper.make_node("Where", ["c", "x", "low"], ["m"], name="mask"),
            helper.make_node("Softmax", ["m"], ["y"], name="softmax"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [1, 4])],
        [
            numpy_helper.from_array(np.array([[True, False, True, False]]), "c"),
            numpy_helper.from_array(np.array(np.finfo(np.float64).min), "low"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    np.save(tmp_path / "x.npy", np.array([[0.0, 1.0, 0.0, 1.0]]))
    done = quench("run", tmp_path / "a.onnx", tmp_path / "x.npy", "--json", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    top = json.loads(done.stdout)["runs"][0]["outputs"][0]["top"]
    assert sorted((e["index"], e["value"]) for e in top) == [(0, 0.5), (1, 0.0), (2, 0.5), (3, 0.0)]
