"""Chains of operators that make bytes of bytes, each of one, run as one table: written out
activations of files that onnxruntime's quantizer makes, and whatever else works by element."""

import json

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from test_byte_functions import Builder

SCALE, STEP = 0.03, 0.021


def layers_of(quench, path):
    result = quench("bench", path, "--layers", "--json", "--threads", "1")
    assert result.returncode == 0, result.stderr
    return [(layer["node"], layer["kernel"]) for layer in json.loads(result.stdout)["layers"]]


def chain(b, x, *steps):
    """Steps are (operator, attributes, inputs after the value before); "x" is the first value."""
    value = x
    for i, (op, attributes, others) in enumerate(steps):
        inputs = [value]
        for k, other in enumerate(others):
            if isinstance(other, str):
                inputs.append({"x": x}.get(other, other))
            else:
                inputs.append(b.constant(f"c{i}_{k}", np.float32(other)))
        b.nodes.append(helper.make_node(op, inputs, [f"t{i}"], name=f"step{i}", **attributes))
        value = f"t{i}"
    return value


CHAINS = {
    "gelu": [("Div", {}, [np.sqrt(2)]), ("Erf", {}, []), ("Add", {}, [[1.0]]), ("Mul", {}, ["x"]),
             ("Mul", {}, [0.5])],
    "gelu-tanh": [("Pow", {}, [3.0]), ("Mul", {}, [0.044715]), ("Add", {}, ["x"]),
                  ("Mul", {}, [np.sqrt(2 / np.pi)]), ("Tanh", {}, []), ("Add", {}, [1.0]),
                  ("Mul", {}, ["x"]), ("Mul", {}, [[[0.5]]])],
    "hard-swish": [("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}, []), ("Mul", {}, ["x"])],
    "hard-swish-clip": [("Add", {}, [3.0]), ("Clip", {}, [0.0, 6.0]), ("Mul", {}, ["x"]),
                        ("Div", {}, [6.0])],
    "silu": [("Sigmoid", {}, []), ("Mul", {}, ["x"])],
    "mish": [("Softplus", {}, []), ("Tanh", {}, []), ("Mul", {}, ["x"])],
    "cube": [("Mul", {}, ["x"]), ("Mul", {}, ["x"])],
    "power": [("Pow", {}, [2.0])],
    "powers-base": [("Abs", {}, []), ("Sqrt", {}, []), ("Sub", {}, ["x"])],
    "minimum": [("Min", {}, [1.5, "x"]), ("Max", {}, [-1.0])],
    "slopes": [("PRelu", {}, [[[0.2]]]), ("Add", {}, ["x"])],
}  # fmt: skip


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_one_table(quench, name, signed, tmp_path):
    kind, zero = (np.int8, -30) if signed else (np.uint8, 100)
    b = Builder()
    b.pair(chain(b, b.pair("x", "a", SCALE, kind(zero)), *CHAINS[name]), "y", STEP, kind(zero - 20))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", ["n", 4, 64])], ["n", 4, 64])
    layers = layers_of(quench, path)
    assert [node for node, _ in layers][1:2] == [f"step{len(CHAINS[name]) - 1}"]
    assert len(layers) == 3 and "q8_table" in layers[1][1]
    every = (np.arange(256) + (-128 if signed else 0) - zero).astype(np.float32) * SCALE
    x = every.reshape(1, 4, 64).astype(np.float32)
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    steps = np.rint((ours - theirs) / STEP)
    assert np.abs(steps).max() <= 1 and (steps != 0).sum() <= 1
    compact = tmp_path / "m.qnm"
    result = quench("convert", path, "-o", compact)
    assert result.returncode == 0, result.stderr
    assert len(layers_of(quench, compact)) == len(layers)
    assert np.array_equal(quench_outputs(compact, x, tmp_path / "compact")[0], ours)
    back = tmp_path / "back.onnx"
    result = quench("convert", compact, "-o", back)
    assert result.returncode == 0, result.stderr
    onnx.checker.check_model(onnx.load(back))
    assert np.array_equal(ort_outputs(back, x)[0], ours)


def test_what_others_read_stays(quench, tmp_path):
    """The value between is read by a product too: two tables, not one, and the same bytes."""
    b = Builder()
    x = b.pair("x", "a", SCALE, np.uint8(100))
    b.nodes.append(helper.make_node("Sigmoid", [x], ["s"], name="sigmoid"))
    s = b.pair("s", "sq", 1 / 256, np.uint8(0))
    b.nodes.append(helper.make_node("Mul", [x, s], ["m"], name="mul"))
    m = b.pair("m", "mq", STEP, np.uint8(40))
    b.nodes.append(helper.make_node("MatMul", [m, s], ["f"], name="product"))
    b.pair("f", "y", 0.4, np.uint8(128))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", [1, 64, 64])], [1, 64, 64])
    kernels = dict(layers_of(quench, path))
    assert "q8_table" in kernels["sigmoid"] and "q8_mul" in kernels["mul"]
    x = np.random.default_rng(3).uniform(-3, 4, (2, 64, 64)).astype(np.float32)
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    assert np.abs(np.rint((ours - theirs) / 0.4)).max() <= 1


def gelu(n, x, to):
    """x / sqrt(2), Erf, + 1, * x, * 0.5"""
    return [
        helper.make_node("Div", [x, "sqrt2"], [f"{n}d"], name=f"{n}_div"),
        helper.make_node("Erf", [f"{n}d"], [f"{n}e"], name=f"{n}_erf"),
        helper.make_node("Add", [f"{n}e", "one"], [f"{n}f"], name=f"{n}_add"),
        helper.make_node("Mul", [x, f"{n}f"], [f"{n}m"], name=f"{n}_mul"),
        helper.make_node("Mul", [f"{n}m", "half"], [to], name=f"{n}_half"),
    ]


def silu(n, x, to):
    return [
        helper.make_node("Sigmoid", [x], [f"{n}s"], name=f"{n}_sigmoid"),
        helper.make_node("Mul", [x, f"{n}s"], [to], name=f"{n}_mul"),
    ]


def activated(rng, kind):
    """A network of two layers whose activations are written out, and its input's shape."""
    constant, nodes = Builder(), []

    def weights(name, *dims):
        return constant.constant(name, (rng.normal(size=dims) / np.sqrt(dims[-1])).astype("f4"))

    if kind == "gelu":
        for name, value in [("sqrt2", np.sqrt(2)), ("one", 1), ("half", 0.5)]:
            constant.constant(name, np.float32(value))
        nodes.append(helper.make_node("Gemm", ["x", weights("w0", 32, 48)], ["h0"], name="first"))
        nodes += gelu("act0", "h0", "a0")
        nodes.append(helper.make_node("Gemm", ["a0", weights("w1", 48, 32)], ["h1"], name="second"))
        nodes += gelu("act1", "h1", "a1")
        nodes.append(helper.make_node("Gemm", ["a1", weights("w2", 32, 10)], ["y"], name="last"))
        dims, out = ["n", 32], ["n", 10]
    else:
        pads = {"pads": [1, 1, 1, 1]}
        nodes.append(helper.make_node("Conv", ["x", weights("w0", 16, 3, 3, 3)], ["h0"], "c0", **pads))
        nodes += silu("act0", "h0", "a0")
        nodes.append(helper.make_node("Conv", ["a0", weights("w1", 16, 16, 3, 3)], ["h1"], "c1", **pads))
        nodes += silu("act1", "h1", "a1")
        nodes.append(helper.make_node("Conv", ["a1", weights("w2", 8, 16, 1, 1)], ["y"], "c2"))
        dims, out = ["n", 3, 16, 16], ["n", 8, 16, 16]
    constant.nodes = nodes
    return constant, dims, out


class Samples(CalibrationDataReader):
    def __init__(self, x):
        self.feeds = iter([{"x": x[i : i + 1]} for i in range(len(x))])

    def get_next(self):
        return next(self.feeds, None)


PRODUCTS = ["Conv", "Gemm", "MatMul"]


@pytest.mark.parametrize("types", [None, PRODUCTS], ids=["all", "products"])
@pytest.mark.parametrize("activations", [QuantType.QUInt8, QuantType.QInt8], ids=["u8", "s8"])
@pytest.mark.parametrize("kind", ["gelu", "silu"])
def test_activations_of_a_quantizer(quench, kind, activations, types, tmp_path):
    rng = np.random.default_rng(7)
    b, dims, out = activated(rng, kind)
    plain, path = tmp_path / "float.onnx", tmp_path / "q.onnx"
    b.save(plain, [("x", dims)], out)
    x = rng.normal(size=[24, *dims[1:]]).astype(np.float32)
    quantize_static(
        str(plain), str(path), Samples(x[:16]), quant_format=QuantFormat.QDQ,
        activation_type=activations, weight_type=QuantType.QInt8, op_types_to_quantize=types,
    )  # fmt: skip
    kernels = [kernel for node, kernel in layers_of(quench, path) if node.startswith("act")]
    assert len(kernels) == 2 and all("q8_table" in k for k in kernels), kernels
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    step = np.diff(np.unique(theirs)).min()
    steps = np.rint((ours - theirs) / step)
    assert np.abs(steps).max() <= (1 if types else 2) and (steps != 0).mean() <= 0.01
