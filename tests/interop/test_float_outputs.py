"""Float outputs of real networks against onnxruntime, on every instruction set."""

import numpy as np
import pytest
from networks import NETWORKS, network, ort_outputs, quench_outputs

RUNS = [
    (name, mask)
    for name, n in NETWORKS.items()
    for mask in ("scalar", "avx2", "avx512")
    if mask != "scalar" or n.small
]


@pytest.mark.parametrize(("name", "mask"), RUNS)
def test_outputs_are_those_of_onnxruntime(name, mask, tmp_path):
    net = network(name)
    x = net.inputs(20 if net.small else 3)
    expected = ort_outputs(net.path, x)
    got = quench_outputs(net.path, x, tmp_path, "--cpu", mask)
    assert [g.shape for g in got] == [e.shape for e in expected]
    for ours, theirs in zip(got, expected):
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def test_every_network_at_hand_is_compared(shared):
    files = {str(p.relative_to(shared / "models")) for p in shared.glob("models/*/*.onnx")}
    assert files == {n.file for n in NETWORKS.values()}
