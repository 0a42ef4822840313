"""eval and compare of a model whose batch, height and width are open: the samples say; -q leaves results alone."""

import json
import os
import subprocess

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper, numpy_helper

QUENCH = os.environ.get("QUENCH_BIN", "quench")


def quench(*args):
    done = subprocess.run([QUENCH, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("open"), np.random.default_rng(1)
    weights = {"w": rng.standard_normal((4, 1, 3, 3)), "fc": rng.standard_normal((4, 5))}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["r"]),
             helper.make_node("GlobalAveragePool", ["r"], ["p"]), helper.make_node("Flatten", ["p"], ["f"]),
             helper.make_node("MatMul", ["f", "fc"], ["y"])]  # fmt: skip
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, "h", "w"])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
                              [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "m.onnx")
    x = rng.standard_normal((20, 1, 12, 10)).astype(np.float32)
    np.save(folder / "x.npy", x)
    reference = onnx.reference.ReferenceEvaluator(str(folder / "m.onnx"))
    best = [int(reference.run(None, {"x": one[None]})[0].argmax()) for one in x]
    (folder / "labels.csv").write_text("".join(f"{i},{b if i % 4 else (b + 1) % 5}\n" for i, b in enumerate(best)))
    quench("quantize", folder / "m.onnx", "-o", folder / "q.onnx", "--data", folder / "x.npy", "-q")
    return folder


def test_eval(place):
    args = ["eval", place / "m.onnx", place / "q.onnx", "--data", place / "x.npy", "--labels", place / "labels.csv"]
    rows = json.loads(quench(*args, "--json"))["models"]
    assert [r["n"] for r in rows] == [20, 20]
    assert rows[0]["top1"] == 0.75  # every fourth label is wrong on purpose
    lines, quiet = quench(*args).splitlines(), quench(*args, "-q").splitlines()
    assert len(lines) == 4 and len(quiet) == 2
    assert [line.split()[0] for line in quiet] == ["m.onnx", "q.onnx"]


def test_compare(place):
    args = ["compare", place / "m.onnx", place / "q.onnx", "--data", place / "x.npy"]
    assert quench(*args, "-q").splitlines() == quench(*args).splitlines()[1:]
