"""--partial: what quench cannot run, and what depends on it, stays as it was; the rest is quantized.
onnxruntime says that the whole still computes the same."""

import os
import pathlib
import re
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

QUENCH = os.environ.get("QUENCH_BIN", "quench")
OPSETS = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
OWN = helper.make_opsetid("own", 1)
node = helper.make_node


def random(seed, *shape, scale=0.3):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def body():
    """v -> v + bias + z, both of the graph around: an inner tensor, and a constant that a product reads too."""
    return helper.make_graph(
        [node("Add", ["v", "bias"], ["a"]), node("Add", ["a", "z"], ["v_out"]), node("Identity", ["c"], ["c_out"])],
        "body", [helper.make_tensor_value_info("i", TensorProto.INT64, []),
                 helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                 helper.make_tensor_value_info("v", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("c_out", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v_out", TensorProto.FLOAT, [1, 8])])  # fmt: skip


def convolution():
    return [node("Conv", ["x", "k1"], ["c1"], "first", pads=[1] * 4), node("Relu", ["c1"], ["r1"]),
            node("Conv", ["r1", "k2"], ["c2"], "second", pads=[1] * 4), node("Relu", ["c2"], ["r2"])]  # fmt: skip


def tail_loop():
    """Two convolutions, a product, a Loop that reads an inner tensor and a bias that the product reads too."""
    return (convolution()
            + [node("GlobalAveragePool", ["r2"], ["p"]), node("Flatten", ["p"], ["pooled"]),
               node("Gemm", ["pooled", "fc", "bias"], ["z"], "dense"),
               node("Constant", [], ["trips"], value=numpy_helper.from_array(np.array(3, np.int64))),
               node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
               node("Loop", ["trips", "yes", "z"], ["looped"], "loop", body=body()),
               node("Relu", ["looped"], ["y"], "last")], ["first", "second", "dense"], ["loop", "last"])  # fmt: skip


def middle_custom():
    """com.microsoft.FastGelu between convolutions: the second half stays float, another branch does not depend."""
    return (convolution()
            + [node("FastGelu", ["r1"], ["inv"], "gelu", domain="com.microsoft"),
               node("Conv", ["inv", "k2"], ["ci"], "behind", pads=[1] * 4),
               node("Add", ["ci", "r2"], ["sum"], "both"), node("GlobalAveragePool", ["sum"], ["g"]),
               node("Flatten", ["g"], ["y"], "flat")], ["first", "second"], ["gelu", "behind", "both", "flat"])  # fmt: skip


def tail_strings():
    """A label for the best class: strings, which quench has not."""
    return (convolution()
            + [node("GlobalAveragePool", ["r2"], ["p"]), node("Flatten", ["p"], ["pooled"]),
               node("Gemm", ["pooled", "fc", "bias"], ["z"], "dense"),
               node("ArgMax", ["z"], ["best"], axis=1, keepdims=0),
               node("Gather", ["words", "best"], ["y"], "word")], ["first", "second", "dense"], ["word"])  # fmt: skip


def tail_sequence():
    return (convolution()
            + [node("SplitToSequence", ["r2"], ["parts"], "split", axis=1, keepdims=1),
               node("ConcatFromSequence", ["parts"], ["y"], "join", axis=2)], ["first", "second"], ["split", "join"])  # fmt: skip


def gelu(name="Block", domain="own"):
    """A product that quench runs and FastGelu, which it does not, as a function."""
    return helper.make_function(
        domain, name, ["a", "k"], ["b"],
        [node("Conv", ["a", "k"], ["q"], pads=[1] * 4),
         node("FastGelu", ["q"], ["w"], domain="com.microsoft"), node("Relu", ["w"], ["b"])], OPSETS)  # fmt: skip


def calls():
    """A function that cannot be run stays a call, one that can is written out, also inside another."""
    plain = helper.make_function("own", "Plain", ["a", "k"], ["b"],
                                 [node("Conv", ["a", "k"], ["c"], "inner", pads=[1] * 4), node("Relu", ["c"], ["b"])],
                                 OPSETS)  # fmt: skip
    outer = helper.make_function("own", "Outer", ["a", "k"], ["b"],
                                 [node("Plain", ["a", "k"], ["c"], domain="own"),
                                  node("Block", ["c", "k"], ["b"], domain="own")], [*OPSETS, OWN])  # fmt: skip
    return (convolution()
            + [node("Plain", ["r2", "k2"], ["s"], "plain", domain="own"),
               node("Block", ["s", "k2"], ["t"], "block", domain="own"),
               node("Outer", ["s", "k2"], ["u"], "outer", domain="own"),
               node("Add", ["t", "u"], ["sum"], "both"), node("Flatten", ["sum"], ["y"], "flat")],
            ["first", "second", "s.1/inner"], ["block", "outer", "both", "flat"], [gelu(), plain, outer])  # fmt: skip


def branch():
    """The branch that is taken has FastGelu inside: the If stays."""
    taken = helper.make_graph([node("Relu", ["r2"], ["a"]), node("FastGelu", ["a"], ["b"], domain="com.microsoft")],
                              "taken", [], [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])  # fmt: skip
    other = helper.make_graph([node("Neg", ["r2"], ["c"])], "other", [],
                              [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])  # fmt: skip
    return (convolution()
            + [node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
               node("If", ["yes"], ["i"], "if", then_branch=taken, else_branch=other),
               node("Flatten", ["i"], ["y"], "flat")], ["first", "second"], ["if", "flat"])  # fmt: skip


def constants(**values):
    return [node("Constant", [], [name], value=numpy_helper.from_array(np.array(value, np.float32 if isinstance(
        np.ravel(value)[0].item(), float) else np.int64))) for name, value in values.items()]  # fmt: skip


def tail_boxes():
    """Detectors end so: how many boxes are left depends on the data, and what picks them is set aside."""
    return (convolution()
            + constants(split=[1, 64, 4], flat=[64, 4], one=[1], two=[2], zero=[0], column=2, most=[6], iou=[0.5],
                        least=[0.05])
            + [node("Reshape", ["r2", "split"], ["boxes"]), node("Reshape", ["r2", "flat"], ["rows"]),
               node("Transpose", ["boxes"], ["turned"], perm=[0, 2, 1]),
               node("Slice", ["turned", "zero", "one", "one"], ["scores"]),
               node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["picked"], "nms"),
               node("Gather", ["picked", "column"], ["which"], "pick", axis=1),
               node("Gather", ["rows", "which"], ["best"], "gather", axis=0),
               node("ReduceMean", ["best"], ["y"], "mean", axes=[0], keepdims=1)],
            ["first", "second"], ["pick", "gather", "mean"])  # fmt: skip


def tail_computed():
    """A bound and a count that the data decide."""
    return (convolution()
            + constants(one=[1], ten=10, five=5)
            + [node("ReduceMax", ["r2"], ["top"], keepdims=0), node("Clip", ["r2", "", "top"], ["same"], "clip"),
               node("Flatten", ["same"], ["f"], "flat"),
               node("Cast", ["top"], ["whole"], to=TensorProto.INT64), node("Min", ["whole", "ten"], ["few"]),
               node("Max", ["few", "five"], ["some"]), node("Reshape", ["some", "one"], ["k"]),
               node("TopK", ["f", "k"], ["values", "at"], "best"),
               node("ReduceMean", ["values"], ["y"], "mean", axes=[1])],
            ["first", "second"], ["clip", "flat", "best", "mean"])  # fmt: skip


def tail_scale():
    """Integers of the model's own, whose scale the data decide on the way back."""
    return (convolution()
            + constants(step=0.01, most=255.0)
            + [node("QuantizeLinear", ["r2", "step"], ["q"], "quantize"),
               node("ReduceMax", ["r2"], ["top"], keepdims=0), node("Div", ["top", "most"], ["scale"]),
               node("DequantizeLinear", ["q", "scale"], ["d"], "dequantize"), node("Flatten", ["d"], ["y"], "flat")],
            ["first", "second"], ["dequantize", "flat"])  # fmt: skip


CASES = {f.__name__: f for f in (tail_loop, middle_custom, tail_strings, tail_sequence, calls, branch, tail_boxes,
                                 tail_computed, tail_scale)}  # fmt: skip


def make(path, nodes, output=TensorProto.FLOAT, opsets=OPSETS, functions=()):
    weights = {"k1": random(1, 4, 1, 3, 3), "k2": random(2, 4, 4, 3, 3), "fc": random(3, 4, 8), "bias": random(4, 8)}
    words = helper.make_tensor("words", TensorProto.STRING, [8], [f"w{i}".encode() for i in range(8)])
    inner = [b for n in nodes for a in n.attribute for b in a.g.node]
    used = {name for n in [*nodes, *inner] for name in n.input}
    opsets = [*opsets, OWN] if functions else opsets
    initializers = [numpy_helper.from_array(v, k) for k, v in weights.items() if k in used]
    initializers += [words] if "words" in used else []
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
                              [helper.make_tensor_value_info("y", output, None)], initializers)  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=list(opsets), ir_version=8, functions=list(functions)), path)


def quantize(path, out, *args):
    return subprocess.run([QUENCH, "quantize", path, "-o", out, "--data", path.parent / "x.npy", *args],
                          capture_output=True, text=True)  # fmt: skip


def run(path, x):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("partial")
    np.save(folder / "x.npy", random(5, 32, 1, 8, 8, scale=1))
    return folder


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", ["qdq", "qoperator"])
def test_partial(samples, name, form):
    nodes, quantized, kept, *functions = CASES[name]()
    path, out = samples / f"{name}.onnx", samples / f"{name}.{form}.onnx"
    make(path, nodes, TensorProto.STRING if name == "tail_strings" else TensorProto.FLOAT, functions=sum(functions, []))
    refused = quantize(path, out)
    assert refused.returncode == 1 and not out.exists(), refused.stderr
    assert refused.stderr.endswith("(--partial leaves that part as it is)\n") and refused.stderr.count("\n") == 1
    done = quantize(path, out, "--partial", "--format", form)
    assert done.returncode == 0, done.stderr
    said = re.search(r"(\d+) nodes left as they are|node \S+ \(\w+\) left as it is", done.stdout)
    assert said and int(said[1] or 1) >= len(kept), done.stdout
    before, after = onnx.load(path), onnx.load(out)
    by_name = {n.name: n for n in after.graph.node}
    for n in before.graph.node:
        if n.name in kept:
            assert by_name[n.name] == n, n.name
    makers = {o: n for n in after.graph.node for o in n.output}
    for n in quantized:
        found = by_name.get(n) or next(k for k in after.graph.node if k.name.startswith(n))
        assert found.op_type.startswith("QLinear") or found.op_type == "QGemm" or \
            makers[found.input[0]].op_type == "DequantizeLinear", n  # fmt: skip
    assert [v.name for v in after.graph.output] == ["y"] and [v.name for v in after.graph.input] == ["x"]
    same, error, scale = 0, 0.0, 0.0
    for x in np.load(samples / "x.npy")[:8]:
        wanted, got = run(path, x[None]), run(out, x[None])
        if wanted.dtype == object:
            same += int(wanted[0] == got[0])
        else:
            error, scale = error + float(((wanted - got) ** 2).sum()), scale + float((wanted**2).sum())
    assert same >= 6 if name == "tail_strings" else error < 0.02 * scale, (same, error, scale)


def test_nothing_is_left(samples):
    make(samples / "none.onnx", [node("FastGelu", ["x"], ["i"], domain="com.microsoft"), node("Relu", ["i"], ["y"])])
    done = quantize(samples / "none.onnx", samples / "none.out.onnx", "--partial")
    assert done.returncode == 1 and "no part is left" in done.stderr
    assert "--partial" not in quantize(samples / "none.onnx", samples / "none.out.onnx").stderr
    assert not (samples / "none.out.onnx").exists()


def test_nothing_needs_it(samples):
    """Without anything to set aside the file is the one without the option."""
    make(samples / "all.onnx", convolution() + [node("Flatten", ["r2"], ["y"])])
    files = [samples / "all.a.onnx", samples / "all.b.onnx"]
    for out, args in zip(files, ((), ("--partial",))):
        assert quantize(samples / "all.onnx", out, *args).returncode == 0
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("ending", ["mnn", "qnm"])
def test_other_formats(samples, ending):
    nodes, _, _ = tail_loop()
    make(samples / "f.onnx", nodes)
    done = quantize(samples / "f.onnx", samples / f"f.{ending}", "--partial")
    assert done.returncode == 1 and "set aside" in done.stderr
    assert not (samples / f"f.{ending}").exists()


@pytest.mark.parametrize("last, refused", [
    (node("Relu", ["i"], ["y"], "left"), None), (node("Softmax", ["i"], ["y"], "left", axis=3), "Softmax"),
    (node("Squeeze", ["i"], ["y"], "left", axes=[0]), "Squeeze"), ("loop", "Unsqueeze"), ("call", "Block")])  # fmt: skip
def test_an_opset_that_would_change(samples, last, refused):
    """A Relu that stays means the same in opset 13, a Squeeze does not, nor one inside a loop; what a function's
    body means is the function's."""
    old, functions = [helper.make_opsetid("", 9), OPSETS[1]], []
    if last == "loop":
        inner = helper.make_graph(
            [node("Identity", ["c"], ["d"]), node("Unsqueeze", ["v"], ["u"], axes=[0]), node("Squeeze", ["u"], ["w"], axes=[0])],
            "body", [helper.make_tensor_value_info(n, t, s) for n, t, s in
                     (("n", TensorProto.INT64, []), ("c", TensorProto.BOOL, []), ("v", TensorProto.FLOAT, [1, 4, 8, 8]))],
            [helper.make_tensor_value_info("d", TensorProto.BOOL, []), helper.make_tensor_value_info("w", TensorProto.FLOAT, None)])  # fmt: skip
        last = node("Loop", ["trips", "", "i"], ["y"], "left", body=inner)
    elif last == "call":
        last, functions = node("Block", ["i", "k2"], ["y"], "left", domain="own"), [gelu()]
        functions[0].ClearField("opset_import")
        functions[0].opset_import.extend(old)
    nodes = [*convolution(), node("FastGelu", ["r2"], ["i"], "gelu", domain="com.microsoft"),
             node("Constant", [], ["trips"], value=numpy_helper.from_array(np.array(2))), last]  # fmt: skip
    path, out = samples / "old.onnx", samples / "old.out.onnx"
    out.unlink(missing_ok=True)
    make(path, nodes, opsets=old, functions=functions)
    done = quantize(path, out, "--partial")
    if refused:
        assert done.returncode == 1 and "opset 9 of the file becomes 13" in done.stderr, done.stderr
        assert f'"left" is left as it is, but {refused} may' in done.stderr and not out.exists()
        return
    assert done.returncode == 0, done.stderr
    x = np.load(samples / "x.npy")[0][None]
    assert np.abs(run(path, x) - run(out, x)).max() < 0.1


def test_every_change_of_an_operator_is_known():
    """An operator that lost an attribute or got another default or more inputs is in the list of onnx_aside.c."""
    source = (pathlib.Path(__file__).parents[2] / "src" / "format" / "onnx" / "onnx_aside.c").read_text()
    known = {(name, int(since)) for name, since in re.findall(r'\{"(\w+)", (\d+)\},', source)}
    history = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            history.setdefault(schema.name, []).append(schema)
    for name, schemas in history.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in zip(schemas, schemas[1:]):
            same = not new.deprecated and new.min_input <= old.min_input and \
                all(a in new.attributes and new.attributes[a].default_value == v.default_value
                    for a, v in old.attributes.items()) and \
                not any(v.required and a not in old.attributes for a, v in new.attributes.items())  # fmt: skip
            assert new.since_version < 10 or same or (name, new.since_version) in known, (name, new.since_version)
    assert known <= {(s.name, s.since_version) for schemas in history.values() for s in schemas}
