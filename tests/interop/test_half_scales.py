"""Files of other tools whose scales are float16 or bfloat16: read, run and written back."""

import numpy as np
import onnx
import pytest
from networks import quench_outputs
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

ort = pytest.importorskip("onnxruntime")
ml_dtypes = pytest.importorskip("ml_dtypes")

KINDS = {
    "float16": (TensorProto.FLOAT16, np.float16),
    "bfloat16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
INTEGERS = {"u8": np.uint8, "s8": np.int8, "s16": np.int16}


def constant(name, values, dtype):
    return numpy_helper.from_array(np.asarray(values).astype(dtype), name)


def model(nodes, initializers, opset=21, domain="", check=True):
    """x [2, 3, 40] -> ... -> y, both float32 so that every runtime can be fed the same."""
    graph = helper.make_graph(
        nodes,
        "half",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3, 40])],
        initializers,
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1)] if domain else []
    made = helper.make_model(graph, opset_imports=opsets, ir_version=10 if opset < 23 else 11)
    if check and not domain:
        onnx.checker.check_model(made, full_check=True)
    return made


def pair(kind, integers, per_axis, opset=21, domain=""):
    """Cast -> QuantizeLinear -> DequantizeLinear -> Relu -> Cast, of `kind` between the Casts."""
    code, dtype = KINDS[kind]
    small = np.dtype(integers).itemsize == 1
    scale = np.array([0.0131, 0.021, 0.0074] if small else [3.1e-4, 1.7e-4, 5e-4])
    zero = np.array([3, 100, 7] if integers == np.uint8 else [3, 0, -7])
    axis = {"axis": 1} if per_axis else {}
    if not per_axis:
        scale, zero = scale[0], zero[0]
    return model(
        [
            helper.make_node("Cast", ["x"], ["h"], to=code),
            helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"], domain=domain, **axis),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], domain=domain, **axis),
            helper.make_node("Relu", ["d"], ["r"]),
            helper.make_node("Cast", ["r"], ["y"], to=TensorProto.FLOAT),
        ],
        [constant("s", scale, dtype), constant("z", zero, integers)],
        opset,
        domain,
    )


def samples():
    return np.random.default_rng(7).normal(scale=1.5, size=(2, 3, 40)).astype(np.float32)


def run(path, x, folder):
    """The file's batch is fixed: it is one sample."""
    return quench_outputs(path, x[None], folder)[0].reshape(x.shape)


def written(quench, path, out):
    result = quench("convert", path, "-o", out)
    assert result.returncode == 0, result.stderr
    made = onnx.load(out)
    onnx.checker.check_model(made, full_check=True)
    return made


def scale_types(made):
    types = {t.name: t.data_type for t in made.graph.initializer}
    return {
        n.op_type: types[n.input[1]]
        for n in made.graph.node
        if n.op_type in ("QuantizeLinear", "DequantizeLinear")
    }


@pytest.mark.parametrize("per_axis", [False, True], ids=["tensor", "axis"])
@pytest.mark.parametrize("integers", INTEGERS)
@pytest.mark.parametrize("kind", KINDS)
def test_pairs_compute_as_onnx_says(quench, tmp_path, kind, integers, per_axis):
    source = pair(kind, INTEGERS[integers], per_axis)
    onnx.save(source, tmp_path / "m.onnx")
    x = samples()
    wanted = ReferenceEvaluator(source).run(None, {"x": x})[0]
    assert np.unique(wanted).size > 30
    np.testing.assert_array_equal(run(tmp_path / "m.onnx", x, tmp_path / "run"), wanted)
    made = written(quench, tmp_path / "m.onnx", tmp_path / "out.onnx")
    code = KINDS[kind][0]
    assert scale_types(made) == {"QuantizeLinear": code, "DequantizeLinear": code}
    np.testing.assert_array_equal(ReferenceEvaluator(made).run(None, {"x": x})[0], wanted)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x, tmp_path / "again"), wanted)


def test_onnxruntime_agrees(quench, tmp_path):
    """It divides in float32, where a byte may become the next one, and may leave out rounding."""
    source = pair("float16", np.uint8, False)
    onnx.save(source, tmp_path / "m.onnx")
    x = samples()
    wanted = ReferenceEvaluator(source).run(None, {"x": x})[0]
    written(quench, tmp_path / "m.onnx", tmp_path / "out.onnx")
    for name in ("m.onnx", "out.onnx"):
        session = ort.InferenceSession(str(tmp_path / name), providers=["CPUExecutionProvider"])
        theirs = session.run(None, {"x": x})[0]
        np.testing.assert_allclose(theirs, wanted, atol=0.0145)
        assert (np.abs(theirs - wanted) < 0.0015).mean() > 0.97


def test_microsofts_operators_of_older_files(quench, tmp_path):
    source = pair("float16", np.uint8, False, opset=17, domain="com.microsoft")
    onnx.save(source, tmp_path / "m.onnx")
    x = samples()
    wanted = ReferenceEvaluator(pair("float16", np.uint8, False)).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(tmp_path / "m.onnx", x, tmp_path / "run"), wanted)
    made = written(quench, tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert {o.domain: o.version for o in made.opset_import}[""] >= 19
    np.testing.assert_array_equal(ReferenceEvaluator(made).run(None, {"x": x})[0], wanted)


def product(kind):
    """x -> Q -> DQ -> MatMul with int8 weights, a scale for each column, -> Q -> DQ."""
    code, dtype = KINDS[kind]
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Constant", [], ["s"], value=constant("", 0.021, dtype)),
        helper.make_node("Cast", ["x"], ["h"], to=code),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "ps", "z"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "ps", "z"], ["pd"]),
        helper.make_node("Cast", ["pd"], ["y"], to=TensorProto.FLOAT),
    ]
    weights = rng.integers(-127, 128, (40, 40)).astype(np.int8)
    initializers = [
        constant("z", 128, np.uint8),
        constant("w", weights, np.int8),
        constant("ws", rng.uniform(0.001, 0.003, 40), dtype),
        constant("ps", 0.06, dtype),
    ]
    return model(nodes, initializers)


def test_products_between_pairs_stay_products_of_halves(quench, tmp_path):
    source = product("float16")
    onnx.save(source, tmp_path / "m.onnx")
    x = samples()
    wanted = ReferenceEvaluator(source).run(None, {"x": x})[0]
    made = written(quench, tmp_path / "m.onnx", tmp_path / "out.onnx")
    assert "MatMul" in {n.op_type for n in made.graph.node}
    for name in ("m.onnx", "out.onnx"):
        ours = run(tmp_path / name, x, tmp_path / "run")
        np.testing.assert_allclose(ours, wanted, atol=0.0601)
        assert (ours == wanted).mean() > 0.95  # sums are rounded in another order
    result = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.qnm")
    assert result.returncode == 0, result.stderr
    again = run(tmp_path / "m.qnm", x, tmp_path / "run")
    np.testing.assert_array_equal(again, run(tmp_path / "m.onnx", x, tmp_path / "run"))


def test_quantizing_such_a_file_computes_in_float32(quench, tmp_path):
    onnx.save(product("float16"), tmp_path / "m.onnx")
    x = samples()
    np.save(tmp_path / "x.npy", x[None])
    data = tmp_path / "x.npy"
    result = quench("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data", data)
    assert result.returncode == 0, result.stderr
    made = onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(made, full_check=True)
    assert set(scale_types(made).values()) == {TensorProto.FLOAT}
    ours, before = (run(tmp_path / n, x, tmp_path / "run") for n in ("q.onnx", "m.onnx"))
    assert np.abs(ours - before).max() <= 0.1201


def newer(code, scale_type, quantize, dequantize, check=True):
    """Opset 23: the types of scale, division and result are the file's choice."""
    return model(
        [
            helper.make_node("Cast", ["x"], ["h"], to=code),
            helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"], **quantize),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], **dequantize),
            helper.make_node("Cast", ["d"], ["y"], to=TensorProto.FLOAT),
        ],
        [constant("s", 0.0131, scale_type), constant("z", 3, np.uint8)],
        23,
        check=check,
    )


HALF, FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
NEWER = {
    "half-to-float": (HALF, np.float16, {}, {"output_dtype": FLOAT}),
    "float-to-half": (FLOAT, np.float32, {}, {"output_dtype": HALF}),
    "divided-in-float": (HALF, np.float16, {"precision": FLOAT}, {}),
    "divided-in-half": (HALF, np.float16, {"precision": HALF}, {}),
}


@pytest.mark.parametrize("kind", NEWER)
def test_types_that_attributes_name(quench, tmp_path, kind):
    source = newer(*NEWER[kind])
    onnx.save(source, tmp_path / "m.onnx")
    x = samples()
    wanted = ReferenceEvaluator(source).run(None, {"x": x})[0]
    np.testing.assert_array_equal(run(tmp_path / "m.onnx", x, tmp_path / "run"), wanted)
    made = written(quench, tmp_path / "m.onnx", tmp_path / "out.onnx")
    np.testing.assert_array_equal(ReferenceEvaluator(made).run(None, {"x": x})[0], wanted)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x, tmp_path / "again"), wanted)


REFUSED = {
    "precision": (FLOAT, np.float32, {"precision": HALF}, {}),
    "input": (FLOAT, np.float16, {}, {}),
    "output": (HALF, np.float16, {}, {"output_dtype": TensorProto.DOUBLE}),
}
REASONS = {
    "precision": "divides in float16 by a scale of another type",
    "input": "divides float32 in another precision",
    "output": "has output_dtype 11",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_read_is_named(quench, tmp_path, kind):
    onnx.save(newer(*REFUSED[kind], check=False), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", samples()[None])
    result = quench("run", tmp_path / "m.onnx", tmp_path / "x.npy")
    assert result.returncode == 1
    assert REASONS[kind] in result.stderr
