"""Functions of the model and If: written out while reading, with ONNX Runtime as the judge; hostile
nesting is refused."""

import os
import pathlib
import subprocess

import node_cases
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]


@pytest.fixture(scope="module")
def quench():
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    if not (binary.parent / "tests" / "node_cases").exists():
        pytest.skip(f"{binary.parent} has no tests/node_cases (QN_TESTS=ON)")
    return binary


def model_of(nodes, functions=(), initializers=(), shape=(2, 6)):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=9)


def referring(op_type, inputs, outputs, attribute, kind, refers, domain=""):
    node = helper.make_node(op_type, inputs, outputs, domain=domain)
    node.attribute.add(name=attribute, type=kind, ref_attr_name=refers)
    return node


def functions():
    """soft(x) = leaky(x; slope) + x, twice(x) = soft(soft(x)), and one that passes its input on."""
    default = helper.make_attribute("slope", 0.25)
    soft = helper.make_function(
        "local", "soft", ["a"], ["out"],
        [
            referring("LeakyRelu", ["a"], ["leaky"], "alpha", onnx.AttributeProto.FLOAT, "slope"),
            helper.make_node("Constant", [], ["half"], value=numpy_helper.from_array(np.float32([0.5]))),
            helper.make_node("Mul", ["leaky", "half"], ["scaled"]),
            helper.make_node("Add", ["scaled", "a"], ["out"]),
        ],
        OPSETS, attribute_protos=[default],
    )  # fmt: skip
    twice = helper.make_function(
        "local", "twice", ["a"], ["out"],
        [
            helper.make_node("soft", ["a"], ["leaky"], domain="local"),
            referring("soft", ["leaky"], ["out"], "slope", onnx.AttributeProto.FLOAT, "second", "local"),
        ],
        OPSETS, ["second"],
    )  # fmt: skip
    passing = helper.make_function("local", "passing", ["a", "b"], ["d", "c"],
                                   [helper.make_node("Identity", ["a"], ["d"]),
                                    helper.make_node("Relu", ["b"], ["c"])], OPSETS)  # fmt: skip
    return [soft, twice, passing]


def compare(quench, folder, model):
    x = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)
    expected = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    path, out, data = folder / "model.onnx", folder / "out", folder / "in"
    path.write_bytes(model.SerializeToString())
    node_cases.pack(data, x)
    tool = quench.parent / "tests" / "node_cases"
    status, message = node_cases.run_lines(tool, folder, [[path, out, data]])[str(path)]
    assert status == "OK", message
    assert node_cases.equal(node_cases.unpack(out), expected, 1e-5, 1e-6) is None
    # What is written again has no trace of where the nodes came from, and says the same.
    written = folder / "written.onnx"
    done = subprocess.run([quench, "convert", path, "-o", written], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = ort.InferenceSession(written.read_bytes()).run(None, {"x": x})
    np.testing.assert_allclose(again[0], expected[0], 1e-5, 1e-6)


def test_functions(quench, tmp_path):
    nodes = [
        helper.make_node("soft", ["x"], ["s"], name="first", domain="local"),
        helper.make_node("twice", ["s"], ["t"], domain="local", second=0.75),
        helper.make_node("soft", ["t"], ["u"], domain="local", slope=0.125),
        helper.make_node("passing", ["u", "s"], ["v", "w"], domain="local"),
        helper.make_node("Sub", ["v", "w"], ["y"]),
    ]
    compare(quench, tmp_path, model_of(nodes, functions()))


@pytest.mark.parametrize("condition", [True, False])
@pytest.mark.parametrize("as_node", [True, False])
def test_if(quench, tmp_path, condition, as_node):
    def branch(nodes, output, initializers=()):
        info = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
        return helper.make_graph(nodes, "branch", [], [info], initializers)

    two = numpy_helper.from_array(np.float32([2]), "k")
    inner = helper.make_node(
        "If", ["c"], ["deep"],
        then_branch=branch([helper.make_node("Mul", ["a", "k"], ["b"])], "b"),
        else_branch=branch([helper.make_node("Identity", ["k"], ["b"])], "b"),
    )  # fmt: skip
    then = branch([helper.make_node("Neg", ["x"], ["a"]), inner], "deep", [two])
    other = branch([helper.make_node("Exp", ["x"], ["a"])], "a")
    value = numpy_helper.from_array(np.array(condition), "c")
    nodes = [helper.make_node("Constant", [], ["c"], value=value)] if as_node else []
    nodes += [
        helper.make_node("If", ["c"], ["z"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["z", "x"], ["y"]),
    ]
    compare(quench, tmp_path, model_of(nodes, initializers=[] if as_node else [value]))


def inspect(quench, path):
    return subprocess.run([quench, "inspect", path], capture_output=True, text=True, timeout=20)


def test_a_condition_that_is_not_constant_is_named(quench, tmp_path):
    node = helper.make_node("Relu", ["x"], ["r"])
    info = helper.make_tensor_value_info("r", TensorProto.FLOAT, None)
    branch = helper.make_graph([node], "b", [], [info])
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch),
    ]
    path.write_bytes(model_of(nodes).SerializeToString())
    done = inspect(quench, path)
    assert done.returncode != 0 and "choice" in done.stderr and "condition" in done.stderr


@pytest.mark.parametrize("kind", ["itself", "wide", "long names"])
def test_hostile_functions_are_refused(quench, tmp_path, kind):
    def function(index, callees, prefix=""):
        nodes = [
            helper.make_node(f"f{callee}", ["a"], [f"{prefix}{i}" if i else "out"], domain="local")
            for i, callee in enumerate(callees)
        ]
        return helper.make_function("local", f"f{index}", ["a"], ["out"], nodes, OPSETS)

    if kind == "itself":
        made = [function(0, [1]), function(1, [0])]
    elif kind == "wide":  # 8^20 calls
        made = [function(i, [i + 1] * 8) for i in range(20)] + [function(20, [])]
    else:
        made = [function(i, [i + 1] * 8, "n" * 100000) for i in range(20)] + [function(20, [])]
    path = tmp_path / "model.onnx"
    path.write_bytes(
        model_of([helper.make_node("f0", ["x"], ["y"], domain="local")], made).SerializeToString()
    )
    done = inspect(quench, path)
    assert done.returncode > 0, done.stderr
    assert any(word in done.stderr for word in ("deeper", "more than", "bytes of names")), done.stderr
