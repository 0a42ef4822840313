"""Random networks through everything: float run, quantization, simulation, recipe, MNN and back.

QUENCH_SEEDS=N takes the first N networks, QUENCH_SEEDS=A-B those from A to B; the number in a
failed test's name is the network's seed.
"""

import functools
import os
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from random_graphs import random_network

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
from layers import Cutter, agreement, quench_integers, quench_values  # noqa: E402
from networks import ort_outputs, quantize, quench_outputs, session  # noqa: E402


def seeds():
    first, _, last = os.environ.get("QUENCH_SEEDS", "40").rpartition("-")
    return range(int(first or 0), int(last) + bool(first))


SEEDS = list(seeds())
PLAIN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
# One in three networks goes to each of these, the others take the defaults.
VARIANTS = [
    ["--format", "qoperator"],
    ["--target", "onnxruntime-arm"],
    ["--target", "onnxruntime-arm", "--format", "qoperator"],
    ["--granularity", "tensor", "--weights", "max_abs"],
    ["--weight-bits", "4", "--features", "minmax"],
    ["--features", "kl", "--equalize", "off"],
]


@functools.lru_cache(maxsize=4)
def network(seed):
    return random_network(seed)


def saved(seed, folder):
    net = network(seed)
    onnx.save(net.model, folder / "m.onnx")
    return net, folder / "m.onnx"


def assert_near(got, expected, tolerance):
    assert [g.shape for g in got] == [e.shape for e in expected]
    for ours, theirs in zip(got, expected):
        error = np.abs(ours - theirs).max()
        assert error <= tolerance * max(np.abs(theirs).max(), 1e-6), error


@pytest.mark.parametrize("seed", SEEDS)
def test_float_outputs_are_those_of_onnxruntime(seed, tmp_path):
    net, path = saved(seed, tmp_path)
    x = net.samples(3)
    assert_near(quench_outputs(path, x, tmp_path), ort_outputs(session(path, PLAIN), x), 1e-4)


def check_layers(path, x, folder):
    """Every quantized tensor, and every float output, from the same bytes before it."""
    cutter = Cutter(path)
    for output in cutter.model.graph.output:
        if output.name not in cutter.quantized:
            cutter.quantized[output.name] = (np.float32(1), np.float32(0))
    for layer in cutter.layers(x, folder):
        # onnxruntime's optimizer rounds the float weights of a ConvTranspose between pairs.
        exact = any(n.op_type == "ConvTranspose" for n in onnx.load(layer.path).graph.node)
        s = session(layer.path, PLAIN) if exact else session(layer.path)
        theirs = np.stack([s.run(None, {k: v[i] for k, v in layer.inputs.items()})[0]
                           for i in range(len(x))])  # fmt: skip
        what = f"{layer.op} {layer.name}"
        if layer.dtype == np.float32:
            ours = quench_values(layer)
            error = np.abs(ours.ravel() - theirs.ravel()).max()
            assert error <= 1e-4 * max(np.abs(theirs).max(), 1e-6), (what, error)
            continue
        found = agreement(layer, theirs, quench_integers(layer))
        assert found.within_one >= 0.999, (what, found.within_one, found.worst)


@pytest.mark.parametrize("seed", SEEDS)
def test_quantized_layers_are_those_of_onnxruntime(quench, seed, tmp_path):
    net, path = saved(seed, tmp_path)
    options = VARIANTS[seed // 3 % len(VARIANTS)] if seed % 3 == 0 else []
    out, recipe = tmp_path / "q.onnx", tmp_path / "r.json"
    samples = net.samples(4 + seed % 5, seed=2)
    quantize(quench, path, samples, out, "--save-recipe", recipe, *options)
    onnx.checker.check_model(str(out), full_check=True)
    check_layers(out, net.samples(2, seed=3), tmp_path)
    again = tmp_path / "again.onnx"
    form = ["--format", "qoperator"] if "qoperator" in options else []  # of the file, not the run
    result = quench("quantize", path, "-o", again, "--recipe", recipe, *form)
    assert result.returncode == 0, result.stderr
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_mnn_form_computes_the_same(quench, seed, tmp_path):
    net, path = saved(seed, tmp_path)
    result = quench("convert", path, "-o", tmp_path / "m.mnn")
    if "no MNN form" in result.stderr:
        pytest.skip(result.stderr.strip().rpartition(": ")[2])
    assert result.returncode == 0, result.stderr
    x = net.samples(2)
    expected = quench_outputs(path, x, tmp_path / "onnx")
    assert_near(quench_outputs(tmp_path / "m.mnn", x, tmp_path / "mnn"), expected, 1e-4)
