"""Requantization by integers: gemmlowp's multiplier and shift, rounded twice or once, and shifts,
against a model in Python's own integers; carried by .onnx and .qnm files."""

import json
import math

import numpy as np
import onnx
import pytest
from networks import quench_outputs
from onnx import helper, numpy_helper

INT32 = (-(2**31), 2**31 - 1)
KINDS = ("gemmlowp", "gemmlowp-single", "shift")


def saturate(v):
    return min(max(v, INT32[0]), INT32[1])


def half_away(x, n):
    return int(math.copysign(1, x)) * ((abs(x) + (1 << n >> 1)) >> n)


def half_up(x, n):
    return (x + (1 << n >> 1)) >> n


def multiply(x, real, kind):
    """One int32 times a real number, as tensorflow's quantize_multiplier and kernels do it."""
    mantissa, exponent = math.frexp(real)
    if kind == "shift":
        assert mantissa == 0.5
        exponent -= 1
        return half_up(saturate(x << max(exponent, 0)), max(-exponent, 0))
    q = math.floor(mantissa * 2**31 + 0.5)
    if q == 2**31:
        q, exponent = q // 2, exponent + 1
    if kind == "gemmlowp-single":
        return saturate(half_up(x * q, 31 - exponent))
    high = half_up(saturate(x << max(exponent, 0)) * q, 31)
    return half_away(high, max(-exponent, 0))


def requantize(sums, reals, kind, zero, lo=0, hi=255):
    flat = [
        min(max(multiply(int(v), float(r), kind) + zero, lo), hi)
        for v, r in zip(sums.ravel(), np.broadcast_to(reals, sums.shape).ravel())
    ]
    return np.array(flat).reshape(sums.shape)


def model_of(kind, domain, constants, order, shapes, y_shape, **attributes):
    node = helper.make_node(kind, order, ["y"], "node", domain=domain, **attributes)
    u8 = onnx.TensorProto.UINT8
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(n, u8, s) for n, s in shapes.items()],
        [helper.make_tensor_value_info("y", u8, y_shape)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    helper.set_model_props(model, {"author": "somebody"})
    return model


def scales(rng, kind, n):
    if kind == "shift":
        return np.float32(2.0) ** rng.integers(-8, -5, n).astype(np.float32)
    return rng.uniform(0.002, 0.02, n).astype(np.float32)


def activation(kind):
    return np.float32(2**-5) if kind == "shift" else np.float32(0.0371)


def conv(rng, kind):
    w = rng.integers(-127, 128, (6, 4, 3, 3)).astype(np.int8)
    sw, bias = scales(rng, kind, 6), rng.integers(-3000, 3000, 6).astype(np.int32)
    xs, ys, xz, yz = activation(kind), np.float32(0.25), 119, 130
    constants = {
        "xs": xs, "xz": np.uint8(xz), "w": w, "ws": sw, "wz": np.zeros(6, np.int8),
        "ys": ys, "yz": np.uint8(yz), "b": bias,
    }  # fmt: skip
    model = model_of("QLinearConv", "", constants, ["x", *constants], {"x": (1, 4, 9, 9)},
                     (1, 6, 7, 7))  # fmt: skip
    x = rng.integers(0, 256, (1, 4, 9, 9))
    v = np.lib.stride_tricks.sliding_window_view(x - xz, (3, 3), (2, 3))[0]
    sums = np.einsum("cyxij,ocij->oyx", v, w.astype(np.int64)) + bias[:, None, None]
    reals = float(xs) * sw.astype(float) / float(ys)
    return model, [x], requantize(sums, reals[:, None, None], kind, yz)[None]


def matmul(rng, kind):
    w, sw = rng.integers(-127, 128, (70, 33)).astype(np.int8), scales(rng, kind, 1)[0]
    xs, ys, xz, yz = activation(kind), np.float32(0.5), 7, 100
    constants = {
        "xs": xs, "xz": np.uint8(xz), "w": w, "ws": sw, "wz": np.int8(0), "ys": ys,
        "yz": np.uint8(yz),
    }  # fmt: skip
    model = model_of("QLinearMatMul", "", constants, ["x", *constants], {"x": (1, 5, 70)},
                     (1, 5, 33))  # fmt: skip
    x = rng.integers(0, 256, (1, 5, 70))
    sums = (x - xz) @ w.astype(np.int64)
    return model, [x], requantize(sums, float(xs) * float(sw) / float(ys), kind, yz)


def depthwise(rng, kind):
    w = rng.integers(-127, 128, (5, 1, 3, 3)).astype(np.int8)
    sw, xs, ys, xz, yz = scales(rng, kind, 5), activation(kind), np.float32(0.125), 128, 90
    constants = {
        "xs": xs, "xz": np.uint8(xz), "w": w, "ws": sw, "wz": np.zeros(5, np.int8), "ys": ys,
        "yz": np.uint8(yz),
    }  # fmt: skip
    model = model_of("QLinearConv", "", constants, ["x", *constants], {"x": (1, 5, 8, 8)},
                     (1, 5, 6, 6), group=5)  # fmt: skip
    x = rng.integers(0, 256, (1, 5, 8, 8))
    v = np.lib.stride_tricks.sliding_window_view(x - xz, (3, 3), (2, 3))[0]
    sums = np.einsum("cyxij,cij->cyx", v, w[:, 0].astype(np.int64))
    reals = float(xs) * sw.astype(float) / float(ys)
    return model, [x], requantize(sums, reals[:, None, None], kind, yz)[None]


def pair(rng, kind, name):
    if kind == "shift":
        sa, sb, sy = np.float32(0.0625), np.float32(0.25), np.float32(0.25)
    else:
        sa, sb, sy = np.float32(0.043), np.float32(0.11), np.float32(0.127)
    za, zb, zy = 12, 200, 101
    constants = {
        "as": sa, "az": np.uint8(za), "bs": sb, "bz": np.uint8(zb), "ys": sy, "yz": np.uint8(zy),
    }  # fmt: skip
    order = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    shape = (1, 3, 300)
    model = model_of(name, "com.microsoft", constants, order, {"a": shape, "b": shape}, shape)
    a, b = rng.integers(0, 256, shape), rng.integers(0, 256, shape)
    return model, a, b, (float(sa), za), (float(sb), zb), (float(sy), zy)


def add(rng, kind):
    model, a, b, (sa, za), (sb, zb), (sy, zy) = pair(rng, kind, "QLinearAdd")
    twice = 2 * max(sa, sb)

    def term(q, s):
        return np.vectorize(lambda v: multiply(int(v) << 20, s / twice, kind))(q)

    sums = term(a - za, sa) + term(b - zb, sb)
    return model, [a, b], requantize(sums, twice / (2**20 * sy), kind, zy)


def mul(rng, kind):
    model, a, b, (sa, za), (sb, zb), (sy, zy) = pair(rng, kind, "QLinearMul")
    return model, [a, b], requantize((a - za) * (b - zb), sa * sb / sy, kind, zy)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [conv, matmul, depthwise, add, mul])
def test_integers_are_those_of_the_model_in_python(quench, make, kind, tmp_path):
    for seed in range(3):
        model, inputs, wanted = make(np.random.default_rng(seed), kind)
        source = tmp_path / f"{seed}.onnx"
        onnx.save(model, source)
        named = {i.name: x.astype(np.uint8) for i, x in zip(model.graph.input, inputs)}
        for target in (tmp_path / f"{seed}-k.onnx", tmp_path / f"{seed}-k.qnm"):
            made = quench("convert", source, "-o", target, "--requantize", kind, "--json")
            assert made.returncode == 0, made.stderr
            got = run(target, model, named, tmp_path)
            assert np.array_equal(got, wanted), (target.suffix, np.abs(got - wanted).max())
        plain = run(source, model, named, tmp_path, "--requantize", kind)
        assert np.array_equal(plain, wanted)
        if kind != "shift":
            assert np.ptp(wanted) > 50


def run(path, model, named, folder, *options):
    """Integers of the output: files give real values."""
    inputs = named if len(named) > 1 else next(iter(named.values()))
    (got,) = quench_outputs(path, inputs, folder / "run", *options)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return np.rint(got / constants["ys"]).astype(int) + int(constants["yz"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [conv, matmul, depthwise])
def test_bench_takes_the_kind_of_the_file_and_runs_kernels(quench, make, kind, tmp_path):
    model, _, _ = make(np.random.default_rng(1), kind)
    onnx.save(model, tmp_path / "m.onnx")
    for name in ("k.onnx", "k.qnm"):
        made = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / name, "--requantize", kind)
        assert made.returncode == 0, made.stderr
        result = quench("bench", tmp_path / name, "--rounds", 1, "--layers", "--json")
        assert result.returncode == 0, result.stderr
        (layer,) = [x for x in json.loads(result.stdout)["layers"] if x["node"] == "node"]
        assert layer["kernel"].startswith("qn__q8_")


def test_onnx_says_it_in_its_metadata_and_other_properties_stay(quench, tmp_path):
    model, _, _ = matmul(np.random.default_rng(1), "gemmlowp")
    onnx.save(model, tmp_path / "m.onnx")
    target = tmp_path / "k.onnx"
    for kind in ("gemmlowp", "gemmlowp-single"):
        made = quench("convert", tmp_path / "m.onnx", "-o", target, "--requantize", kind)
        assert made.returncode == 0, made.stderr
        written = onnx.load(target)
        onnx.checker.check_model(written)
        properties = {p.key: p.value for p in written.metadata_props}
        assert properties == {"author": "somebody", "quench.requantize": kind}
    made = quench("convert", target, "-o", tmp_path / "f.onnx", "--requantize", "float")
    assert made.returncode == 0, made.stderr
    left = {p.key for p in onnx.load(tmp_path / "f.onnx").metadata_props}
    assert left == {"author"}


def test_unknown_kinds_are_refused_by_name(quench, tmp_path):
    model, _, _ = matmul(np.random.default_rng(1), "gemmlowp")
    helper.set_model_props(model, {"quench.requantize": "other"})
    onnx.save(model, tmp_path / "m.onnx")
    result = quench("inspect", tmp_path / "m.onnx")
    assert result.returncode != 0 and '"other" is no known kind' in result.stderr


def test_shifts_need_scales_that_are_powers_of_two(quench, tmp_path):
    model, (x,), _ = matmul(np.random.default_rng(1), "gemmlowp")
    onnx.save(model, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", x.astype(np.uint8))
    options = ["--data", tmp_path / "x.npy", "--requantize", "shift"]
    result = quench("run", tmp_path / "m.onnx", *options)
    assert result.returncode != 0
    assert "scales must be powers of two" in result.stderr and '"node"' in result.stderr


def test_mnn_files_cannot_say_it(quench, tmp_path):
    model, _, _ = matmul(np.random.default_rng(1), "gemmlowp")
    onnx.save(model, tmp_path / "m.onnx")
    options = ["--requantize", "gemmlowp"]
    result = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.mnn", *options)
    assert result.returncode != 0 and "cannot say" in result.stderr
    assert not (tmp_path / "m.mnn").exists()
