"""Float models through the executor against onnxruntime, on every instruction set."""

import os
import pathlib
import subprocess

import numpy as np
import onnxruntime as ort
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = [
    "fastestdet/FastestDet.onnx",
    "menet-108-8x1-g3/menet_108_8x1_g3.onnx",
    "mlperf-kws/kws_dscnn.onnx",
    "mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.onnx",
    "resnet20-cifar10/resnet20_cifar10.onnx",
    "squeezenet-v1.1/squeezenet_v1.1.onnx",
    "ultraface-rfb-320/RFB-320.onnx",
    "ultraface-rfb-320/RFB-320_raw.onnx",
    "ultraface-rfb-320/RFB-320_raw_folded.onnx",
]


@pytest.fixture(scope="session")
def float_run():
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    tool = binary.parent / "tests" / "float_run"
    if not tool.exists():
        pytest.skip(f"{tool} is not built (QN_TESTS=ON)")

    def run(model, threads, mask, paths):
        command = [tool, model, str(threads), mask, *paths]
        done = subprocess.run(command, capture_output=True, timeout=600)
        assert done.returncode == 0, done.stderr.decode()
        return np.frombuffer(done.stdout, np.float32)

    return run


@pytest.mark.parametrize("name", MODELS)
def test_outputs_equal_onnxruntime(shared, float_run, tmp_path, name):
    model = shared / "models" / name
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(7)
    feeds, paths = {}, []
    for item in session.get_inputs():
        shape = [d if isinstance(d, int) else 1 for d in item.shape]
        feeds[item.name] = rng.normal(size=shape).astype(np.float32)
        paths.append(tmp_path / f"{len(paths)}.bin")
        feeds[item.name].tofile(paths[-1])
    expected = np.concatenate([o.astype(np.float32).ravel() for o in session.run(None, feeds)])
    for mask, threads in [("scalar", 1), ("avx2", 1), ("", 1), ("", 3)]:
        got = float_run(model, threads, mask, paths)
        assert got.shape == expected.shape
        scale = np.abs(expected).max()
        assert np.abs(got - expected).max() <= 2e-4 * scale, (mask, threads)
    assert np.array_equal(got, float_run(model, 1, "", paths)), "threads change the result"
