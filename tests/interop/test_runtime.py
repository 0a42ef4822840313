"""Compact files in the runtime to embed: the bytes that libquench's own session gives."""

import os
import pathlib
import subprocess

import numpy as np
import onnx
import pytest
from conftest import ROOT
from networks import network, quantize, quench_outputs
from synthetic import many_operators, samples

TOOL = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build")) / "tests" / "rt_dump"


def runtime_outputs(model, x, folder):
    folder.mkdir()
    x.astype(np.float32).tofile(folder / "in.raw")
    command = [str(c) for c in (TOOL, model, folder / "in.raw", folder / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    files = sorted(folder.glob("out.*"), key=lambda f: int(f.suffix[1:]))
    return [np.fromfile(f, np.float32) for f in files]


@pytest.mark.parametrize("packed", [[], ["--packed", "native"]], ids=["plain", "packed"])
@pytest.mark.parametrize("name", ["synthetic", "mobilenet", "squeezenet", "resnet20", "kws", "rfb"])
def test_same_outputs_as_the_toolkit(quench, name, packed, tmp_path):
    if name == "synthetic":
        onnx.save(many_operators(), tmp_path / "m.onnx")
        path, calibration, x = tmp_path / "m.onnx", samples(8), samples(3, seed=12)
    else:
        net = network(name)
        path, calibration, x = net.path, net.inputs(4), net.inputs(4)[2:]
    quantize(quench, path, calibration, tmp_path / "q.onnx")
    result = quench("convert", tmp_path / "q.onnx", "-o", tmp_path / "q.qnm", *packed)
    assert result.returncode == 0, result.stderr
    ours = runtime_outputs(tmp_path / "q.qnm", np.asarray(x), tmp_path / "rt")
    theirs = quench_outputs(tmp_path / "q.onnx", x, tmp_path / "run")
    assert len(ours) == len(theirs) > 0
    for o, t in zip(ours, theirs):
        assert np.array_equal(o, np.asarray(t).ravel())
