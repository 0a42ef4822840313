"""Float outputs of real networks against onnxruntime, on every instruction set."""

import numpy as np
import pytest
from networks import NETWORKS, network, ort_outputs, quench_outputs


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_onnxruntime(name, tmp_path):
    net = network(name)
    x = net.inputs(20 if net.small else 3)
    expected = ort_outputs(net.path, x)
    for mask in ("scalar", "avx2", "avx512"):
        n = len(x) if mask != "scalar" else 4 if net.small else 1  # the slow one
        got = quench_outputs(net.path, x[:n], tmp_path, "--cpu", mask)
        for ours, theirs in zip(got, expected, strict=True):
            theirs = theirs[: len(theirs) * n // len(x)]
            assert ours.shape == theirs.shape, mask
            assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max(), mask


@pytest.mark.parametrize("name", NETWORKS)
def test_threads_do_not_show(name, tmp_path):
    net = network(name)
    x = net.inputs(1)
    one, three = (quench_outputs(net.path, x, tmp_path / n, "--threads", n) for n in "13")
    assert all(np.array_equal(a, b) for a, b in zip(one, three, strict=True))


def test_every_network_at_hand_is_compared(shared):
    files = {str(p.relative_to(shared / "models")) for p in shared.glob("models/*/*.onnx")}
    assert files == {n.file for n in NETWORKS.values()}
