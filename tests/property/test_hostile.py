"""Damaged models and hostile numbers through the whole command line.

QUENCH_BUILD_ASAN names a build with the sanitizers; without it the ordinary build is used, which
still shows crashes and hangs. QN_TEST_SEED and QN_TEST_ROUNDS make other and longer campaigns.
"""

import os
import pathlib
import subprocess

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import make_model, small_classifier
from onnx import helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEED = int(os.environ.get("QN_TEST_SEED", "1"))
ROUNDS = int(os.environ.get("QN_TEST_ROUNDS", "300"))


@pytest.fixture(scope="module")
def binary():
    build = os.environ.get("QUENCH_BUILD_ASAN") or os.environ.get("QUENCH_BUILD")
    path = pathlib.Path(build) / "quench" if build else os.environ.get("QUENCH_BIN", ROOT / "build" / "quench")
    if not os.access(path, os.X_OK):
        pytest.fail(f"{path} is not there")
    return path


def run(binary, *args):
    env = dict(os.environ, ASAN_OPTIONS="exitcode=99:allocator_may_return_null=1")
    result = subprocess.run([binary, *map(str, args), "--threads", "1"], capture_output=True,
                            text=True, errors="replace", timeout=5, env=env)  # fmt: skip
    assert "Sanitizer" not in result.stderr and "runtime error" not in result.stderr, result.stderr
    assert result.returncode in (0, 1), (result.returncode, result.stderr)
    if result.returncode == 1:
        errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, result.stderr
    return result


def check_scales(path):
    """Every scale that was written is a positive finite number."""
    for tensor in onnx.load(path).graph.initializer:
        if tensor.name.endswith("_scale"):
            scale = numpy_helper.to_array(tensor)
            assert np.isfinite(scale).all() and (scale > 0).all(), (tensor.name, scale)


def damaged(whole, rng):
    data = bytearray(whole)
    kind = rng.integers(0, 4)
    if kind == 0:
        return bytes(data[: rng.integers(0, len(data))])
    for _ in range(rng.integers(1, 5)):
        at = rng.integers(0, len(data))
        if kind == 1:
            data[at] ^= 1 << rng.integers(0, 8)
        elif kind == 2:
            data[at] = rng.choice([0, 0x7F, 0x80, 0xFF])
        else:
            del data[at : at + rng.integers(1, 9)]
            if not data:
                break
    return bytes(data)


def test_damaged_models_through_the_whole_pipeline(binary, tmp_path):
    rng = np.random.default_rng(SEED)
    whole = (ROOT / "tests" / "data" / "fault.onnx").read_bytes()
    np.save(tmp_path / "x.npy", rng.uniform(-1, 1, (2, 3, 6, 6)).astype(np.float32))
    accepted = 0
    for i in range(ROUNDS):
        model, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
        model.write_bytes(damaged(whole, rng))
        out.unlink(missing_ok=True)
        try:
            result = run(binary, "quantize", model, "-o", out, "--data", tmp_path / "x.npy", "-q")
            assert out.exists() == (result.returncode == 0)
            if result.returncode == 0:
                accepted += 1
                check_scales(out)
                run(binary, "compare", model, out, "--data", tmp_path / "x.npy")
        except Exception:
            print(f"QN_TEST_SEED={SEED} mutation {i}")
            raise
    assert 0 < accepted < ROUNDS


HOSTILE = {
    "nan": lambda w: w.__setitem__(3, np.nan),
    "inf": lambda w: w.__setitem__(3, -np.inf),
    "huge": lambda w: w.__setitem__(slice(None), 1e38),
    "denormal": lambda w: w.__setitem__(slice(None), 1e-42),
    "tiny": lambda w: w.__setitem__(slice(None), 1e-30),
    "zero": lambda w: w.__setitem__(slice(None), 0.0),
    "minus-zero": lambda w: w.__setitem__(slice(None), -0.0),
    "outlier": lambda w: w.__setitem__(3, 1e30),
}


@pytest.mark.parametrize("weights", ["max_abs", "mse", "gptq"])
@pytest.mark.parametrize("where", ["w1", "b1", "bn_v", "w2", "wf"])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_weights(binary, tmp_path, what, where, weights):
    model = small_classifier()
    for tensor in model.graph.initializer:
        if tensor.name == where:
            values = numpy_helper.to_array(tensor).copy()
            HOSTILE[what](values.reshape(-1))
            tensor.CopyFrom(numpy_helper.from_array(values, where))
    onnx.save(model, tmp_path / "m.onnx")
    rng = np.random.default_rng(3)
    np.save(tmp_path / "x.npy", rng.uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32))
    result = run(binary, "quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data",
                 tmp_path / "x.npy", "--weights", weights, "-q")  # fmt: skip
    if result.returncode == 0:
        assert what not in ("nan", "inf")
        check_scales(tmp_path / "q.onnx")


SAMPLES = {
    "nan": lambda x: x.__setitem__(3, np.nan),
    "inf": lambda x: x.__setitem__(3, np.inf),
    "-inf": lambda x: x.__setitem__(3, -np.inf),
    "huge": lambda x: x.__setitem__(slice(None), 1e38),
    "huge of both signs": lambda x: (x.__setitem__(slice(None), 3e38), x.__setitem__(slice(0, None, 2), -3e38)),
    "denormal": lambda x: x.__setitem__(slice(None), 1e-42),
    "equal": lambda x: x.__setitem__(slice(None), 0.7),
    "zero": lambda x: x.__setitem__(slice(None), 0.0),
    "minus zero": lambda x: x.__setitem__(slice(None), -0.0),
    "outlier": lambda x: x.__setitem__(3, 1e30),
}
FEATURES = ["minmax", "ema", "percentile", "kl", "kl-mnn", "mse", "lp", "admm"]


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("what", SAMPLES)
def test_hostile_samples(binary, tmp_path, what, features):
    """Every observer: a model with sound scales, or an error that says what the samples have."""
    onnx.save(small_classifier(), tmp_path / "m.onnx")
    x = np.random.default_rng(3).uniform(-1, 1, (3, 3, 16, 16)).astype(np.float32)
    SAMPLES[what](x[1].reshape(-1))
    np.save(tmp_path / "x.npy", x)
    result = run(binary, "quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data",
                 tmp_path / "x.npy", "--features", features, "-q")  # fmt: skip
    assert (tmp_path / "q.onnx").exists() == (result.returncode == 0)
    if result.returncode == 0:
        assert what not in ("nan", "inf", "-inf")
        check_scales(tmp_path / "q.onnx")
    elif what in ("nan", "inf", "-inf"):
        assert "inf" in result.stderr or "nan" in result.stderr or "NaN" in result.stderr, result.stderr


DEGENERATE = {
    "one channel": dict(c=1, size=4, oc=1, k=3, pads=1),
    "one pixel": dict(c=3, size=1, oc=4, k=1, pads=0),
    "one pixel padded": dict(c=3, size=1, oc=4, k=3, pads=1),
    "kernel larger than input": dict(c=2, size=2, oc=3, k=5, pads=0),
    "kernel larger than input, padded": dict(c=2, size=2, oc=3, k=5, pads=2),
    "stride larger than input": dict(c=2, size=3, oc=3, k=1, pads=0, stride=7),
    "dilation": dict(c=2, size=7, oc=3, k=3, pads=0, dilation=3),
    "depthwise": dict(c=5, size=5, oc=5, k=3, pads=1, group=5),
}


@pytest.mark.parametrize("shape", DEGENERATE)
def test_degenerate_shapes(binary, tmp_path, shape):
    s = dict(dict(stride=1, dilation=1, group=1), **DEGENERATE[shape])
    extent = (s["k"] - 1) * s["dilation"] + 1
    room = s["size"] + 2 * s["pads"] - extent
    out = room // s["stride"] + 1 if room >= 0 else 1
    rng = np.random.default_rng(SEED)
    w = rng.uniform(-1, 1, (s["oc"], s["c"] // s["group"], s["k"], s["k"])).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[s["pads"]] * 4, group=s["group"],
                            strides=[s["stride"]] * 2, dilations=[s["dilation"]] * 2)  # fmt: skip
    nodes = [node, helper.make_node("Relu", ["c"], ["y"], "relu")]
    model = make_model(nodes, {"x": [1, s["c"], s["size"], s["size"]]},
                       {"y": [1, s["oc"], out, out]}, {"w": w})  # fmt: skip
    onnx.save(model, tmp_path / "m.onnx")
    x = rng.uniform(-1, 1, (3, s["c"], s["size"], s["size"])).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    result = run(binary, "quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data",
                 tmp_path / "x.npy", "-q")  # fmt: skip
    assert (result.returncode == 0) == (room >= 0), result.stderr
    if result.returncode != 0:
        return
    check_scales(tmp_path / "q.onnx")
    exact = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    quantized = ort.InferenceSession(tmp_path / "q.onnx", providers=["CPUExecutionProvider"])
    for row in x:
        want, got = (session.run(None, {"x": row[None]})[0] for session in (exact, quantized))
        assert np.abs(want - got).max() <= 0.03 * np.abs(w).sum() / s["oc"] + 1e-6
