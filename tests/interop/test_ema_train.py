"""Training-mode ranges against the algorithm written again in numpy: batches in order, BatchNormalization
with the statistics of the batch, every measured tensor rounded before the next node reads it."""

import hashlib
import json

import numpy as np
import onnx
import pytest
from conftest import make_model
from onnx import helper, numpy_helper

SAMPLES, BATCH, MOVE = 11, 4, np.float32(0.01)
LEVELS = {"u8": (0, 255, False), "s8": (-128, 127, False), "s8sym": (-127, 127, True)}


def weights(rng, *shape):
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def network(seed, batch="N"):
    """Conv-BN-Relu, depthwise Conv-BN-Clip, Add, a Conv that only has BN, BN after a pool, Gemm."""
    rng = np.random.default_rng(seed)
    init = {"first.w": 2 * weights(rng, 8, 3, 3, 3), "first.b": weights(rng, 8, 1)[:, 0],
            "wise.w": 9 * weights(rng, 8, 1, 3, 3), "last.w": weights(rng, 12, 8, 1, 1),
            "fc.w": weights(rng, 5, 12), "fc.b": weights(rng, 5, 1)[:, 0],
            "zero": np.float32(0), "six": np.float32(6)}  # fmt: skip
    for name, channels in (("first", 8), ("wise", 8), ("last", 12)):
        init[f"{name}.gamma"] = rng.uniform(0.5, 2.5, channels).astype(np.float32)
        init[f"{name}.beta"] = rng.normal(0, 0.7, channels).astype(np.float32)
        init[f"{name}.mean"] = rng.normal(0, 0.3, channels).astype(np.float32)
        init[f"{name}.var"] = rng.uniform(0.3, 3, channels).astype(np.float32)

    def norm(x, name):
        names = [x] + [f"{name}.{p}" for p in ("gamma", "beta", "mean", "var")]
        return helper.make_node("BatchNormalization", names, [f"{name}_bn"], f"{name}_bn",
                                epsilon=1e-3)  # fmt: skip

    def node(kind, inputs, output, **attributes):
        return helper.make_node(kind, inputs, [output], output, **attributes)

    nodes = [
        node("Conv", ["x", "first.w", "first.b"], "first", pads=[1] * 4), norm("first", "first"),
        node("Relu", ["first_bn"], "a"),
        node("Conv", ["a", "wise.w"], "wise", group=8, pads=[1] * 4), norm("wise", "wise"),
        node("Clip", ["wise_bn", "zero", "six"], "b"),
        node("Add", ["a", "b"], "c"),
        node("Conv", ["c", "last.w"], "last"), norm("last", "last"),
        node("GlobalAveragePool", ["last_bn"], "e"), node("Flatten", ["e"], "f"),
        node("Gemm", ["f", "fc.w", "fc.b"], "y", transB=1),
    ]  # fmt: skip
    return make_model(nodes, {"x": [batch, 3, 12, 12]}, {"y": [batch, 5]}, init)


def samples(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0.2, 1, (SAMPLES, 3, 12, 12)) * rng.uniform(0.5, 2, (SAMPLES, 1, 1, 1))
    return x.astype(np.float32)


class Reference:
    """The procedure on the network above, in float64 between roundings."""

    def __init__(self, model, levels, measured):
        self.init = {t.name: numpy_helper.to_array(t).astype(np.float64)
                     for t in model.graph.initializer}  # fmt: skip
        self.levels, self.measured = levels, measured
        self.ranges, self.running = {}, {}
        for name in ("first", "wise", "last"):
            self.running[name] = [self.init[f"{name}.mean"], self.init[f"{name}.var"]]
        for name in ("first.w", "wise.w", "last.w", "fc.w"):
            w = self.init[name].astype(np.float32)
            axes = tuple(range(1, w.ndim))
            step = np.maximum(np.abs(w).max(axes, keepdims=True), np.float32(1e-6)) / 127
            ratio = w / step
            self.init[name] = np.trunc(ratio + np.copysign(0.5, ratio)) * step.astype(np.float64)

    def measure(self, name, x):
        if name not in self.measured:
            return x
        qmin, qmax, symmetric = self.levels
        lo, hi = min(0.0, float(x.min())), max(0.0, float(x.max()))
        if symmetric:
            hi = max(hi, -lo)
            lo = -hi
        step = (hi - lo) / (qmax - qmin)
        zero = 0 if symmetric else int(np.floor(qmin - lo / step + 0.5))
        if not symmetric:
            lo, hi = min(0, (qmin - zero) * step), max(0, (qmax - zero) * step)
        old = self.ranges.get(name, (lo, hi))
        self.ranges[name] = tuple(0.99 * o + 0.01 * n for o, n in zip(old, (lo, hi)))
        q = x / step + zero
        q = np.clip(np.trunc(q + np.copysign(0.5, q)), qmin, qmax)
        return (q - zero) * step

    def norm(self, name, x):
        mean = x.mean((0, 2, 3))
        var = x.var((0, 2, 3))
        for i, now in enumerate((mean, var)):
            self.running[name][i] = self.running[name][i] + 0.01 * (now - self.running[name][i])
        gamma, beta = (self.init[f"{name}.{p}"][:, None, None] for p in ("gamma", "beta"))
        y = (x - mean[:, None, None]) / np.sqrt(var[:, None, None] + 1e-3)
        return self.measure(f"{name}_bn", y * gamma + beta)

    def batch(self, x):
        x = self.measure("x", x.astype(np.float64))
        a = self.conv3(x, "aijkl,oijm,...->...", "first")
        a = self.measure("a", np.maximum(self.norm("first", a), 0))
        b = self.depthwise(a, self.init["wise.w"])
        b = self.measure("b", np.clip(self.norm("wise", b), 0, 6))
        c = self.measure("c", a + b)
        d = self.norm("last", np.einsum("nchw,oc->nohw", c, self.init["last.w"][:, :, 0, 0]))
        e = self.measure("e", d.mean((2, 3), keepdims=True))[:, :, 0, 0]
        self.measure("y", e @ self.init["fc.w"].T + self.init["fc.b"])

    @staticmethod
    def windows(x):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))

    def conv3(self, x, _, name):
        y = np.einsum("nchwij,ocij->nohw", self.windows(x), self.init[f"{name}.w"])
        return y + self.init[f"{name}.b"][:, None, None]

    def depthwise(self, x, w):
        return np.einsum("nchwij,cij->nchw", self.windows(x), w[:, 0])


def quantize(quench, folder, out, *options):
    result = quench("quantize", folder / "m.onnx", "-o", out, "--features", "ema-train", "--weights",
                    "max_abs", "--bias-correction", "off", *options)  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result


def write(folder, seed, batch="N"):
    model = network(seed, batch)
    onnx.save(model, folder / "m.onnx")
    np.save(folder / "x.npy", samples(seed))
    return model


@pytest.mark.parametrize("activations", sorted(LEVELS))
@pytest.mark.parametrize("batch", ["N", 1])
def test_same_as_numpy(quench, tmp_path, activations, batch):
    model = write(tmp_path, 5, batch)
    quantize(quench, tmp_path, tmp_path / "q.onnx", "--data", tmp_path / "x.npy", "--batch", BATCH,
             "--activations", activations, "--save-recipe", tmp_path / "r.json")  # fmt: skip
    recipe = json.loads((tmp_path / "r.json").read_text())
    assert {"x", "a", "b", "c", "last_bn", "y"} <= set(recipe["ranges"])
    reference = Reference(model, LEVELS[activations], set(recipe["ranges"]))
    x = samples(5)
    for start in range(0, SAMPLES - BATCH + 1, BATCH):
        reference.batch(x[start : start + BATCH])
    for name, (lo, hi) in recipe["ranges"].items():
        want_lo, want_hi = reference.ranges[name]
        if name in "ab":  # what the activation cuts off needs no integers
            want_lo = max(want_lo, 0)
        # one value rounded the other way moves a range by less than a step
        assert abs(lo - want_lo) + abs(hi - want_hi) < 2e-3 * (want_hi - want_lo), name
    for name, running in reference.running.items():
        got = recipe["batch_norm"][f"{name}_bn"]
        np.testing.assert_allclose(got, running, rtol=1e-3, atol=1e-3)


def folded(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def test_running_statistics_are_folded(quench, tmp_path):
    """The biases of the file are those of the moved statistics, not of the model's."""
    model = write(tmp_path, 6)
    quantize(quench, tmp_path, tmp_path / "q.onnx", "--data", tmp_path / "x.npy", "--batch", BATCH,
             "--save-recipe", tmp_path / "r.json", "--target", "tensorrt")  # fmt: skip
    init = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    mean, var = np.array(json.loads((tmp_path / "r.json").read_text())["batch_norm"]["last_bn"])
    bias = init["last.beta"] - mean * init["last.gamma"] / np.sqrt(var + 1e-3)
    moved = init["last.beta"] - init["last.mean"] * init["last.gamma"] / np.sqrt(
        init["last.var"] + 1e-3)  # fmt: skip
    assert np.abs(moved - bias).max() > 1e-3
    found = [v for v in folded(tmp_path / "q.onnx").values()
             if v.shape == (12,) and v.dtype == np.float32 and np.allclose(v, bias, atol=1e-5)]  # fmt: skip
    assert len(found) == 1


def test_threads_do_not_show_and_recipes_replay(quench, tmp_path):
    write(tmp_path, 7)
    digests = set()
    for threads in (1, 2, 5):
        out = tmp_path / f"q{threads}.onnx"
        quantize(quench, tmp_path, out, "--data", tmp_path / "x.npy", "--batch", BATCH, "--threads",
                 threads, "--save-recipe", tmp_path / "r.json")  # fmt: skip
        digests.add(hashlib.sha256(out.read_bytes()).hexdigest())
    quench("quantize", tmp_path / "m.onnx", "-o", tmp_path / "again.onnx", "--recipe",
           tmp_path / "r.json")  # fmt: skip
    digests.add(hashlib.sha256((tmp_path / "again.onnx").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_few_samples_are_one_batch(quench, tmp_path):
    write(tmp_path, 8)
    result = quantize(quench, tmp_path, tmp_path / "q.onnx", "--data", tmp_path / "x.npy",
                      "--batch", 64, "--save-recipe", tmp_path / "r.json")  # fmt: skip
    notes = json.loads((tmp_path / "r.json").read_text())["notes"]
    assert any("11 samples are less than a batch of 64" in n for n in notes), result.stdout


def test_what_cannot_be_together_is_refused(quench, tmp_path):
    write(tmp_path, 9)
    common = ("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data",
              tmp_path / "x.npy")  # fmt: skip
    result = quench(*common, "--features", "ema-train", "--equalize", "on")
    assert result.returncode != 0 and "equalize must be off" in result.stderr
    result = quench(*common, "--set", "a:features=ema-train")
    assert result.returncode != 0 and "of the whole run" in result.stderr
    assert not (tmp_path / "q.onnx").exists()
