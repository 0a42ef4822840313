"""Models quantized by onnxruntime's own tool, read and run by quench."""

import json

import numpy as np
import onnx
import pytest
from conftest import small_classifier
from networks import network, ort_outputs, quench_outputs
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process


class Samples(CalibrationDataReader):
    def __init__(self, name, x):
        self.feeds = iter([{name: x[i : i + 1]} for i in range(len(x))])

    def get_next(self):
        return next(self.feeds, None)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """name -> (preprocessed model, input name, calibration samples, samples)"""
    made = {}

    def prepare(name):
        if name in made:
            return made[name]
        folder = tmp_path_factory.mktemp(name)
        path = folder / "m.onnx"
        if name == "small":
            onnx.save(small_classifier(), path)
            x = np.random.default_rng(5).uniform(-1, 1, (40, 3, 16, 16)).astype(np.float32)
        else:
            net = network(name)
            path, x = net.path, net.inputs(24)
        quant_pre_process(str(path), str(folder / "pre.onnx"))
        graph = onnx.load(folder / "pre.onnx").graph
        constants = {t.name for t in graph.initializer}
        input_name = next(i.name for i in graph.input if i.name not in constants)
        made[name] = folder / "pre.onnx", input_name, x[:8], x[8:]
        return made[name]

    return prepare


KINDS = {
    "qdq": {"quant_format": QuantFormat.QDQ},
    "qdq-channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "qdq-channel-s8": {
        "quant_format": QuantFormat.QDQ,
        "per_channel": True,
        "activation_type": QuantType.QInt8,
    },
    "qoperator": {"quant_format": QuantFormat.QOperator},
    "qoperator-channel": {"quant_format": QuantFormat.QOperator, "per_channel": True},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["small", "mobilenet", "resnet20", "kws"])
def test_outputs_are_those_of_onnxruntime(quench, prepared, name, kind, tmp_path):
    path, input_name, calibration, x = prepared(name)
    out = tmp_path / "q.onnx"
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **KINDS[kind]}
    quantize_static(str(path), str(out), Samples(input_name, calibration), **options)
    theirs, ours = ort_outputs(out, x)[0], quench_outputs(out, x, tmp_path / "run")[0]
    assert ours.shape == theirs.shape
    # Some settings leave a float island where a sum near a tie falls to the other side.
    error = np.abs(ours - theirs)
    assert error.max() <= 0.02 * np.abs(theirs).max()
    assert error.mean() <= 0.001 * np.abs(theirs).max()
    # Equal bytes at the end make ties of the best answer: either of the two is right then.
    best = np.take_along_axis(theirs, ours.argmax(1)[:, None], 1)[:, 0]
    assert (best >= theirs.max(1) - 1e-5 * np.abs(theirs).max()).mean() >= 0.99


@pytest.mark.parametrize("kind", ["qdq-channel", "qoperator"])
def test_eval_and_run_accept_them(quench, prepared, kind, tmp_path):
    path, input_name, calibration, x = prepared("small")
    out = tmp_path / "q.onnx"
    options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **KINDS[kind]}
    quantize_static(str(path), str(out), Samples(input_name, calibration), **options)
    theirs = ort_outputs(out, x)[0]
    np.save(tmp_path / "x.npy", x)
    labels = ["row,class_index"] + [f"{i},{c}" for i, c in enumerate(theirs.argmax(1))]
    (tmp_path / "labels.csv").write_text("\n".join(labels) + "\n")
    result = quench("eval", out, "--data", tmp_path / "x.npy", "--labels", tmp_path / "labels.csv",
                    "--json")  # fmt: skip
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(result.stdout)["models"]
    assert row["n"] == len(x) and row["top1"] == 1.0
    result = quench("run", out, tmp_path / "x.npy", "--json", "--top", "1")
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout)["runs"]
    assert [r["outputs"][0]["top"][0]["index"] for r in runs] == list(theirs.argmax(1))
