"""Float values of exact mode against those of MNN's own runtime, to the last bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import mnn_exact  # noqa: E402
import mnn_runtime  # noqa: E402

BUILD = Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))


pytestmark = [
    pytest.mark.skipif(not mnn_runtime.available(), reason="the MNN wheel is not installed"),
    pytest.mark.skipif(not (mnn_exact.SHARED / "tools" / "mnn").is_dir(),
                       reason="readers of .mnn files (QUENCH_SHARED) are not here"),
    pytest.mark.skipif(not mnn_runtime.has_fma(), reason="this CPU has no AVX2 with FMA"),
]


@pytest.fixture(scope="module")
def tool():
    path = BUILD / "tests" / "mnn_values"
    if not path.exists() or not (BUILD / "quench").exists():
        pytest.skip("quench and the test tools are not built")
    return path.resolve()


# input, outputs, kernel, and what is not 1, 0
CONVOLUTIONS = {
    "3x3": dict(c=16, h=32, w=32, oc=16, k=3, pad=1),
    "3x3, three inputs": dict(c=3, h=32, w=32, oc=16, k=3, pad=1),
    "3x3, last group of 1": dict(c=9, h=10, w=10, oc=5, k=3, pad=1),
    "3x3, last group of 6": dict(c=21, h=18, w=20, oc=12, k=3, pad=1),
    "3x3, many inputs": dict(c=256, h=4, w=5, oc=12, k=3, pad=1),
    "3x3, no pads": dict(c=7, h=23, w=29, oc=10, k=3),
    "3x3, wide pads": dict(c=8, h=7, w=5, oc=8, k=3, pad=2),
    "3x3, one pixel": dict(c=8, h=1, w=1, oc=8, k=3, pad=1),
    "3x3, stride": dict(c=16, h=33, w=31, oc=24, k=3, pad=1, stride=2),
    "3x3, dilated": dict(c=16, h=30, w=40, oc=16, k=3, pad=2, dilation=2),
    "3x3, groups": dict(c=32, h=17, w=19, oc=16, k=3, pad=1, group=2),
    "1x1, groups": dict(c=32, h=17, w=19, oc=16, k=1, group=4),
    "5x5, groups, stride": dict(c=32, h=17, w=19, oc=16, k=5, pad=2, group=4, stride=2),
    "3x3, two pixels": dict(c=64, h=2, w=2, oc=64, k=3, pad=1),
    "2x2": dict(c=12, h=31, w=33, oc=20, k=2),
    "2x2, small": dict(c=12, h=6, w=6, oc=20, k=2),
    "2x2, 5 pixels": dict(c=40, h=6, w=6, oc=33, k=2),
    "2x2, 7 pixels": dict(c=40, h=8, w=8, oc=33, k=2),
    "4x4": dict(c=12, h=31, w=33, oc=20, k=4, pad=1),
    "4x4, small": dict(c=12, h=6, w=7, oc=20, k=4, pad=1),
    "5x5": dict(c=12, h=31, w=33, oc=20, k=5, pad=2),
    "5x5, small": dict(c=24, h=4, w=4, oc=30, k=5, pad=2),
    "5x5, two pixels": dict(c=24, h=2, w=2, oc=30, k=5, pad=2),
    "6x6": dict(c=12, h=20, w=21, oc=20, k=6, pad=2),
    "6x6, few tiles": dict(c=12, h=11, w=12, oc=20, k=6, pad=2),
    "7x7": dict(c=12, h=20, w=21, oc=20, k=7, pad=3),
    "8x8": dict(c=4, h=20, w=21, oc=4, k=8),
    "1x1": dict(c=40, h=9, w=11, oc=33, k=1),
    "1x1, stride": dict(c=40, h=9, w=11, oc=33, k=1, stride=2),
    "1x1, one pixel": dict(c=70, h=1, w=1, oc=10, k=1),
    "1x1, one pixel, blocks of inputs": dict(c=6600, h=1, w=1, oc=9, k=1),
    "1x1, blocks of inputs": dict(c=2049, h=7, w=7, oc=9, k=1),
    "1x1, halves": dict(c=512, h=24, w=24, oc=512, k=1),
    "1x1, halves with rests": dict(c=512, h=27, w=25, oc=524, k=1),
    "1x1, quarters": dict(c=1024, h=34, w=34, oc=1024, k=1),
}


OPERATORS = {
    "Sigmoid": ("Sigmoid", [1, 13, 7, 9], {}),
    "Sigmoid, vector": ("Sigmoid", [1, 1003], {}),
    "means": ("AveragePool", [1, 13, 17, 19], dict(kernel_shape=[3, 3], strides=[2, 2])),
    "means, pads": ("AveragePool", [1, 13, 17, 19], dict(kernel_shape=[3, 3], strides=[1, 2], pads=[1, 1, 1, 1])),
    "means, pads that count": ("AveragePool", [1, 13, 17, 19], dict(kernel_shape=[3, 5], pads=[1, 2, 1, 2],
                                                                     count_include_pad=1)),
    "means, rounded up": ("AveragePool", [1, 13, 12, 14], dict(kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    "mean of all": ("GlobalAveragePool", [1, 21, 7, 9], {}),
}  # fmt: skip


def save(path, node, x, initializers=()):
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
                              [numpy_helper.from_array(v.astype(np.float32), n) for n, v in initializers])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, path)


def convolution(path, c, h, w, oc, k, pad=0, stride=1, dilation=1, group=1):
    rng = np.random.default_rng(c * 1000 + oc)
    weights = rng.standard_normal((oc, c // group, k, k), np.float32) / np.sqrt(c * k * k)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[pad] * 4, strides=[stride] * 2,
                            dilations=[dilation] * 2, group=group, kernel_shape=[k, k])  # fmt: skip
    bias = rng.standard_normal(oc)
    x = rng.standard_normal((1, c, h, w)).astype(np.float32)
    save(path, node, x, [("w", weights), ("b", bias)])
    return x


def operators(model):
    mnnread, _ = mnn_exact.tools()
    ops = mnnread.R(model.read_bytes()).root()["oplists"]
    names = {number: name for name, number in mnnread.S["enums"]["OpType"][1]}
    return [dict(op, type=names[op.get("type", 0)]) for op in ops]


def ours(tool, model, folder):
    """{id: values} of the first sample; the configuration is in the folder."""
    target = folder / "ours"
    target.mkdir()
    subprocess.run([tool, model, "config.json", "ours"], cwd=folder, check=True, capture_output=True)
    return {int(p.name): np.fromfile(p, "<f4") for p in target.iterdir()}


def theirs(model, inputs, folder):
    inputs.astype("<f4").tofile(folder / "inputs")
    done = mnn_runtime.child("trace", model, folder / "inputs", folder / "trace.npz")
    assert done.returncode == 0, done.stderr
    with np.load(folder / "trace.npz") as values:
        return dict(values)


def check(tool, model, x, folder, wanted):
    """Operators that are `wanted` make the same values on both sides."""
    sample = folder / "samples" / "0"
    sample.mkdir(parents=True)
    (sample / "input.json").write_text(json.dumps({"inputs": [{"name": "x", "shape": list(x.shape)}]}))
    (sample / "x.txt").write_text("\n".join(f"{v:.9g}" for v in x.ravel()))
    config = {"input_type": "sequence", "path": "samples", "feature_quantize_method": "KL"}
    (folder / "config.json").write_text(json.dumps(config))
    made = {op["name"]: op["outputIndexes"][0] for op in operators(model) if wanted(op)}
    assert made
    a, b = ours(tool, model, folder), theirs(model, x, folder)
    for operator, tensor in made.items():
        assert a[tensor].shape == b[operator].shape
        assert np.abs(a[tensor] - b[operator]).max() == 0


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(tool, name, tmp_path):
    x = convolution(tmp_path / "m.onnx", **CONVOLUTIONS[name])
    model = tmp_path / "m.mnn"
    if "group" in CONVOLUTIONS[name]:  # (quench makes convolutions without groups of them)
        assert mnn_runtime.convert("ONNX", tmp_path / "m.onnx", model)[0]
    else:
        subprocess.run([BUILD / "quench", "convert", tmp_path / "m.onnx", "-o", model], check=True)
    check(tool, model, x, tmp_path, lambda op: "kernelX" in op.get("main", {}).get("common", {}))


@pytest.mark.parametrize("name", OPERATORS)
def test_operator(tool, name, tmp_path):
    kind, shape, attributes = OPERATORS[name]
    x = (np.random.default_rng(len(name)).standard_normal(shape) * 5).astype(np.float32)
    save(tmp_path / "m.onnx", helper.make_node(kind, ["x"], ["y"], name="node", **attributes), x)
    model = tmp_path / "m.mnn"
    subprocess.run([BUILD / "quench", "convert", tmp_path / "m.onnx", "-o", model], check=True)
    check(tool, model, x, tmp_path, lambda op: op["name"] == "node")


# Exponentials are the machine's own.
EXPONENTIALS = {"Softmax", "UnaryOp"}
CASES = ["resnet8-kl-png", "rfb320-kl-clamp100-bgr-png", "rfb320nchw-kl-maxabs"]


@pytest.mark.parametrize("case", CASES)
def test_recorded_networks(tool, case, tmp_path):
    """All tensors of a network on its first picture."""
    if not mnn_exact.REFERENCE.is_dir():
        pytest.skip("reference output of MNN's quantizer (QUENCH_SHARED) is not here")
    folder, config = next((f, c) for f, c in mnn_exact.cases() if f.name == case)
    model = mnn_exact.source_of(folder)
    mnn_exact.run_case(folder, config, BUILD, tmp_path)
    a = ours(tool, model, tmp_path)
    ops = operators(model)
    b = theirs(model, a[ops[0]["outputIndexes"][0]], tmp_path)
    compared, inexact = 0, set()
    for op in ops:
        if op["type"] in EXPONENTIALS or inexact & set(op.get("inputIndexes", ())):
            inexact.update(op["outputIndexes"])
        made = op["outputIndexes"][0]
        if op["name"] not in b or made not in a or a[made].size != b[op["name"]].size:
            continue
        x, y = a[made], b[op["name"]]
        exact = made not in inexact
        assert np.abs(x - y).max() <= (0 if exact else 1e-6 * np.abs(y).max()), op["name"]
        compared += exact
    assert compared > 16
