"""Bytes of DynamicQuantizeLinear that are moved before a product or DequantizeLinear reads them, with
onnxruntime's results; convert gives the same in every form."""

import json

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs, session
from onnx import helper
from test_dynamic import PLAIN, error, samples, save

N = helper.make_node
RNG = np.random.default_rng(8)
MATRIX = {"w": RNG.integers(-127, 128, (8, 5)).astype(np.int8), "ws": RNG.random(5).astype(np.float32) + 0.1}
QUANTIZE = N("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "quantizer")


def i(*values):
    return np.array(values, np.int64)


def product(x):
    return [N("MatMulInteger", [x, "w", "z"], ["p"], "product"), N("Cast", ["p"], ["f"], "cast", to=1),
            N("Mul", ["s", "ws"], ["sw"], "scales"), N("Mul", ["f", "sw"], ["y"], "scaled")]  # fmt: skip


def back(x, *parameters, **attributes):
    return [N("DequantizeLinear", [x, *(parameters or "sz")], ["y"], "back", **attributes)]


# Shape of x, constants, nodes behind the quantizer, and nodes that run where they are counted.
CASES = {
    "transpose": ((1, 8, 6), {}, [N("Transpose", ["q"], ["t"], perm=[0, 2, 1]), *product("t")], 3),
    "reshape": ((1, 4, 4), {"d": i(2, 8)}, [N("Reshape", ["q", "d"], ["t"]), *product("t")], 2),
    "several": ((1, 8, 1, 6), {"d": i(2), "e": i(0)},
                [N("Squeeze", ["q", "d"], ["a"]), N("Transpose", ["a"], ["b"], perm=[0, 2, 1]),
                 N("Unsqueeze", ["b", "e"], ["t"]), *product("t")], 3),
    "slice": ((1, 4, 12), {"a": i(2), "b": i(10), "c": i(2)},
              [N("Slice", ["q", "a", "b", "c"], ["t"]), *product("t")], None),
    "read twice": ((1, 8, 8), {"other": np.float32(0.5)},
                   [N("Transpose", ["q"], ["t"], perm=[0, 2, 1]), *product("t")[:-1],
                    N("Mul", ["f", "sw"], ["v"]), N("Cast", ["t"], ["u"], to=1),
                    N("ReduceMax", ["u"], ["m"]), N("Add", ["v", "m"], ["y"])], None),
    "back": ((1, 4, 8), {}, back("q"), None),
    "transpose, back": ((1, 4, 8), {}, [N("Transpose", ["q"], ["t"], perm=[0, 2, 1]), *back("t")], None),
    "split, back": ((1, 4, 8), {}, [N("Split", ["q"], ["a", "b"], axis=2, num_outputs=2),
                                    N("Concat", ["b", "a"], ["t"], axis=1), *back("t")], None),
    "pool, back": ((1, 4, 8, 8), {}, [N("MaxPool", ["q"], ["t"], kernel_shape=[2, 2]), *back("t")], None),
    "without zero": ((1, 4, 8), {}, back("q", "s"), None),
    "constant zero": ((1, 4, 8), {"n": np.uint8(0)}, back("q", "s", "n"), None),
    "sums": ((1, 4, 8), {"w": MATRIX["w"]}, [N("MatMulInteger", ["q", "w", "z"], ["p"]), *back("p", "s")], None),
    "channels": ((1, 4, 8), {"a": np.arange(1, 5, dtype=np.float32), "n": i(4)},
                 [N("Mul", ["s", "a"], ["ss"]), N("Expand", ["z", "n"], ["zz"]), *back("q", "ss", "zz")], None),
    "last axis": ((1, 4, 8), {"a": np.arange(1, 9, dtype=np.float32)},
                  [N("Mul", ["s", "a"], ["ss"]), *back("q", "ss", axis=-1)], None),
}  # fmt: skip


def network(path, name):
    shape, constants, nodes, _ = CASES[name]
    constants = dict(constants) | (MATRIX if any(n.name == "scales" for n in nodes) else {})
    rank = len(onnx.shape_inference.infer_shapes(onnx.load(
        save(path, [QUANTIZE, *nodes], constants, {"x": shape}, {"y": None}, 18)
    )).graph.output[0].type.tensor_type.shape.dim)  # fmt: skip
    return save(path, [QUANTIZE, *nodes], constants, {"x": shape}, {"y": [None] * rank}, 18)


@pytest.mark.parametrize("name", CASES)
def test_bytes_are_moved(quench, name, tmp_path):
    shape, _, _, count = CASES[name]
    path, x = network(tmp_path / "m.onnx", name), samples(shape[1:])
    theirs = ort_outputs(path, x)[0]
    steps = quench("bench", path, "--layers", "--json", "--threads", "1", "--rounds", "1")
    assert steps.returncode == 0, steps.stderr
    layers = [layer["node"] for layer in json.loads(steps.stdout)["layers"]]
    assert count is None or len(layers) == count, layers
    for form in ("m.onnx", "c.onnx", "c.qnm"):
        if form != "m.onnx":
            assert quench("convert", path, "-o", tmp_path / form).returncode == 0
        ours = quench_outputs(tmp_path / form, x, tmp_path / "run")[0]
        assert error(ours.ravel(), theirs.ravel()) < 1e-6
    assert error(ort_outputs(session(tmp_path / "c.onnx", PLAIN), x)[0].ravel(), theirs.ravel()) < 1e-6


def test_floats_behind_are_quantized(quench, tmp_path):
    """A convolution of such floats becomes one of bytes like any other."""
    c = {"w": RNG.standard_normal((6, 4, 3, 3)).astype(np.float32)}
    nodes = [QUANTIZE, N("DequantizeLinear", ["q", "s", "z"], ["f"]), N("Conv", ["f", "w"], ["y"], "conv")]
    path = save(tmp_path / "m.onnx", nodes, c, {"x": [1, 4, 9, 9]}, {"y": [1, 6, 7, 7]}, 18)
    x = samples((4, 9, 9), 16)
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "q.onnx"
    assert quench("quantize", path, "-o", out, "--data", tmp_path / "x.npy").returncode == 0
    ours, theirs = quench_outputs(out, x, tmp_path / "run")[0], ort_outputs(session(out, PLAIN), x)[0]
    assert error(ours, theirs) < 0.01
    assert error(ours, ort_outputs(path, x)[0]) < 0.05


@pytest.mark.parametrize(
    "nodes, constants, reason",
    [
        (back("q", "ss"), {"a": np.ones(3, np.float32)}, "3 scales do not fit axis 1"),
        (back("q", "ss", axis=7), {"a": np.ones(4, np.float32)}, "4 scales do not fit axis 7"),
        (back("q", "ss", "z"), {"a": np.ones(4, np.float32)}, 'zero point "z" does not fit'),
        (back("q", "ss", "b"), {"a": np.ones(1, np.float32), "b": np.int8(0)}, 'zero point "b" does not fit'),
        (back("x", "ss"), {"a": np.ones(1, np.float32)}, '"x" is no plain integer'),
        (back("q", "ss"), {"a": np.ones((1, 1, 1, 1), np.float32)}, "known"),
    ],
)
def test_what_does_not_fit_is_named(quench, nodes, constants, reason, tmp_path):
    nodes = [QUANTIZE, N("Mul", ["s", "a"], ["ss"]), *nodes]
    path = save(tmp_path / "m.onnx", nodes, constants, {"x": [1, 4, 8]}, {"y": [1, 4, 8]}, 18)
    result = quench("inspect", path)
    assert result.returncode != 0
    assert reason in result.stderr and '"back"' in result.stderr and "m.onnx" in result.stderr
