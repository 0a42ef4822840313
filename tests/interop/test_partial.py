"""--partial: what quench cannot run, and what depends on it, stays as it was; the rest is quantized.
onnxruntime says that the whole still computes the same."""

import os
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

QUENCH = os.environ.get("QUENCH_BIN", "quench")
OPSETS = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
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


CASES = {f.__name__: f for f in (tail_loop, middle_custom, tail_strings, tail_sequence)}


def make(path, nodes, output=TensorProto.FLOAT, opsets=OPSETS):
    weights = {"k1": random(1, 4, 1, 3, 3), "k2": random(2, 4, 4, 3, 3), "fc": random(3, 4, 8), "bias": random(4, 8)}
    words = helper.make_tensor("words", TensorProto.STRING, [8], [f"w{i}".encode() for i in range(8)])
    inner = [b for n in nodes for a in n.attribute for b in a.g.node]
    used = {name for n in [*nodes, *inner] for name in n.input}
    initializers = [numpy_helper.from_array(v, k) for k, v in weights.items() if k in used]
    initializers += [words] if "words" in used else []
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
                              [helper.make_tensor_value_info("y", output, None)], initializers)  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=list(opsets), ir_version=8), path)


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
    nodes, quantized, kept = CASES[name]()
    path, out = samples / f"{name}.onnx", samples / f"{name}.{form}.onnx"
    make(path, nodes, output=TensorProto.STRING if name == "tail_strings" else TensorProto.FLOAT)
    refused = quantize(path, out)
    assert refused.returncode == 1 and not out.exists(), refused.stderr
    done = quantize(path, out, "--partial", "--format", form)
    assert done.returncode == 0, done.stderr
    assert "nodes left as they are" in done.stdout
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


def test_an_opset_that_would_change(samples):
    """A Relu that stays means what opset 9 says: the file cannot become one of opset 13."""
    nodes = convolution() + [node("FastGelu", ["r2"], ["i"], "gelu", domain="com.microsoft"),
                             node("Relu", ["i"], ["y"], "left")]  # fmt: skip
    make(samples / "old.onnx", nodes, opsets=[helper.make_opsetid("", 9), OPSETS[1]])
    done = quantize(samples / "old.onnx", samples / "old.out.onnx", "--partial")
    assert done.returncode == 1 and "opset 9 of the file becomes 13" in done.stderr
    assert not (samples / "old.out.onnx").exists()
