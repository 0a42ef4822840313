"""--ranges: calibration tables of onnxruntime (as its own code writes them), TensorRT and ncnn."""

import json
import os
import pathlib
import struct
import subprocess

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUENCH = os.environ.get("QUENCH_BIN", str(ROOT / "build" / "quench"))
RANGES = {"x": (-3.0, 2.5), "r": (0.0, 4.25), "y": (-1.5, 7.0)}
OPTIONS = ["--weights", "max_abs", "--bias-correction", "off"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    rng = np.random.default_rng(5)
    weights = {"w0": rng.standard_normal((4, 3, 3, 3)), "w1": rng.standard_normal((5, 4, 1, 1))}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["t"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["t"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w1"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, 6, 6])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "m.onnx")
    np.save(folder / "data.npy", rng.standard_normal((4, 3, 6, 6)).astype(np.float32))
    return folder


def quantize(work, *args, code=0):
    command = [QUENCH, "quantize", "m.onnx", *OPTIONS, *map(str, args)]
    result = subprocess.run(command, capture_output=True, text=True, cwd=work, timeout=60)
    assert result.returncode == code, result.stderr
    return result


def wanted(work, ranges):
    """The same ranges by --set."""
    sets = [x for k, (lo, hi) in ranges.items() for x in ("--set", f"{k}:range={lo:.9g}:{hi:.9g}")]
    quantize(work, "-o", "want.onnx", "--data", "data.npy", "--equalize", "off", *sets)
    return (work / "want.onnx").read_bytes()


def check(work, name, ranges):
    want = wanted(work, ranges)
    (work / "got.onnx").unlink(missing_ok=True)
    result = quantize(work, "--ranges", name, "-o", "got.onnx")
    assert (work / "got.onnx").read_bytes() == want
    return result


def symmetric(ranges):
    return {k: (-max(v), max(v)) for k, v in ranges.items()}


def test_onnxruntime_writes_them(work, tmp_path):
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    pytest.importorskip("flatbuffers")
    for shape in ((), (1,)):
        data = {
            k: calibrate.TensorData(lowest=np.full(shape, lo, np.float32), highest=np.full(shape, hi, np.float32))
            for k, (lo, hi) in RANGES.items()
        }
        try:
            utils.write_calibration_table(data, str(tmp_path))
        except (AttributeError, TypeError, ImportError) as reason:
            pytest.skip(f"this onnxruntime cannot write its table: {reason}")
        check(work, tmp_path / "calibration.json", RANGES)
        check(work, tmp_path / "calibration.cache", symmetric(RANGES))
        check(work, tmp_path / "calibration.flatbuffers", symmetric(RANGES))


@pytest.mark.parametrize("value", [[-3.0, 2.5], {"lowest": -3.0, "highest": [2.5]}])
def test_json(work, value):
    table = {k: list(v) for k, v in RANGES.items()} | {"x": value}
    (work / "t.json").write_text(json.dumps(table))
    check(work, "t.json", RANGES)
    (work / "t.json").write_text(json.dumps({"CLS": "TensorsData", "data": table}))
    check(work, "t.json", RANGES)


def test_tensorrt(work):
    lines = ["TRT-8601-EntropyCalibration2"]
    ranges = {}
    for name, (lo, hi) in RANGES.items():
        scale = np.float32(max(-lo, hi) / 127)
        lines.append(f"{name}: {struct.pack('>f', scale).hex()}")
        ranges[name] = (-float(scale) * 127, float(scale) * 127)
    (work / "trt.cache").write_text("\n".join(lines) + "\n")
    check(work, "trt.cache", ranges)


def test_ncnn(work):
    """Scales of layers' inputs; those of weights are not taken; the output is calibrated."""
    text = "first_param_0 10.5 9 8 7\nsecond_param_0 3 3 3 3 3\nfirst 42.25\nsecond 31.5\n"
    (work / "net.table").write_text(text)
    ranges = {"x": (-127 / 42.25, 127 / 42.25), "r": (-127 / 31.5, 127 / 31.5)}
    want = wanted(work, ranges)
    quantize(work, "--ranges", "net.table", "-o", "got.onnx", "--data", "data.npy")
    assert (work / "got.onnx").read_bytes() == want
    stderr = quantize(work, "--ranges", "net.table", "-o", "got.onnx", code=1).stderr
    assert 'no recipe or table with a range for tensor "y"' in stderr


def test_names(work):
    (work / "t.cache").write_text("x 3\nr 4.25\ny 7\nno such tensor 1.5\nnor this 2\n")
    ranges = {"x": (-3, 3), "r": (-4.25, 4.25), "y": (-7, 7)}
    result = check(work, "t.cache", ranges)
    assert 't.cache: 2 of 5 names are not in the model, "no such tensor" the first' in result.stderr
    assert "3 ranges from onnxruntime's calibration cache" in result.stdout
    (work / "none.cache").write_text("a 3\nb 4\n")
    assert 'none of the 2 names' in quantize(work, "--ranges", "none.cache", "-o", "n.onnx", code=1).stderr


def test_set_wins(work):
    (work / "t.cache").write_text("x 3\nr 4.25\ny 7\n")
    want = wanted(work, {"x": (-1, 1), "r": (-4.25, 4.25), "y": (-7, 7)})
    quantize(work, "--ranges", "t.cache", "--set", "x:range=-1:1", "-o", "got.onnx")
    assert (work / "got.onnx").read_bytes() == want


BAD = {
    "empty": b"",
    "no number": b"x 3\nr\n",
    "negative": b"x -3\n",
    "infinite": b"x inf\n",
    "hex": b"TRT-8601-MinMaxCalibration\nx: 3c01zz14\n",
    "trt header": b"TRT-8601-MinMaxCalibration\n",
    "nan scale": b"TRT-8601-MinMaxCalibration\nx: 7fc00000\n",
    "ncnn zero": b"first_param_0 1\nfirst 0\n",
    "json": b'{"x": [1, 2, 3]}',
    "json order": b'{"x": [2, 1]}',
    "json cut": b'{"x": [1, 2',
    "binary": bytes(range(256)),
    "zeros": bytes(64),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad(work, text):
    (work / "bad").write_bytes(text)
    stderr = quantize(work, "--ranges", "bad", "-o", "n.onnx", "--data", "data.npy", code=1).stderr
    lines = [x for x in stderr.splitlines() if not x.startswith("calibrate")]
    assert len(lines) == 1 and lines[0].startswith("error: bad:")
    assert not (work / "n.onnx").exists()


def test_damaged_flatbuffers(work, tmp_path):
    """Cut in many places, bytes changed: a table, or one line."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    utils = pytest.importorskip("onnxruntime.quantization.quant_utils")
    pytest.importorskip("flatbuffers")
    utils.write_calibration_table(
        {"x": calibrate.TensorData(lowest=np.float32(-1), highest=np.float32(2))}, str(tmp_path)
    )
    whole = (tmp_path / "calibration.flatbuffers").read_bytes()
    cases = [whole[:n] for n in range(1, len(whole), 9)]
    cases += [whole[:i] + bytes([whole[i] ^ 0xFF]) + whole[i + 1 :] for i in range(0, len(whole), 2)]
    for case in cases:
        (work / "bad").write_bytes(case)
        command = [QUENCH, "quantize", "m.onnx", *OPTIONS, "--ranges", "bad", "--dry-run", "-q", "--data", "data.npy"]
        result = subprocess.run(command, capture_output=True, cwd=work, timeout=60)
        assert result.returncode in (0, 1), result.stderr
        assert result.returncode == 0 or len(result.stderr.splitlines()) == 1


def test_excluded(work):
    (work / "t.cache").write_text("x 3\nr 4.25\ny 7\n")
    quantize(work, "--ranges", "t.cache", "-o", "n.onnx", "--save-recipe", "r.json")
    assert "exclude" in quantize(work, "--ranges", "t.cache", "--recipe", "r.json", "-o", "n.onnx", code=1).stderr
    assert "equalize" in quantize(work, "--ranges", "t.cache", "--equalize", "on", "-o", "n.onnx", code=1).stderr
