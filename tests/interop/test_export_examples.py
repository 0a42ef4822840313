"""The export examples: what they write is quantized, and runs in onnxruntime in integers."""

import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from networks import ROOT, claimed_int8, ort_outputs, quantize, quench_outputs

EXAMPLES = {
    "export_pytorch.py": ("torch",),
    "export_tensorflow.py": ("tensorflow", "tf2onnx"),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_exported_networks_are_quantized(quench, example, tmp_path):
    for module in EXAMPLES[example]:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    path, out = tmp_path / "m.onnx", tmp_path / "q.onnx"
    command = [sys.executable, ROOT / "examples" / example, path]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    x = np.random.default_rng(2).uniform(-1, 1, (16, 3, 32, 32)).astype(np.float32)
    exact = ort_outputs(path, x)[0]
    ours = quench_outputs(path, x, tmp_path / "float")[0]
    assert exact.shape == ours.shape == (16, 10)
    assert np.abs(exact - ours).max() <= 1e-4 * np.abs(exact).max()
    int8, kept = claimed_int8(quantize(quench, path, x, out))
    assert len(int8) == 4 and not kept
    error = np.abs(ort_outputs(out, x)[0] - exact)
    assert error.max() <= 0.1 * np.abs(exact).max()
