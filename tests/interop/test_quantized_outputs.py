"""Quantized files in onnxruntime: they load, and what the report calls int8 runs in integers."""

import collections

import numpy as np
import onnx
import pytest
from networks import (
    claimed_int8,
    network,
    optimized_nodes,
    ort_outputs,
    quantize,
    quench_outputs,
)
from onnx import TensorProto, numpy_helper
from synthetic import many_operators, samples

# Integer operators that may take the place of a weighted one.
INTEGER = {"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"}
FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "ConvTranspose"}
MODELS = ["synthetic", "mobilenet", "squeezenet", "menet", "resnet20", "kws", "rfb", "rfb-raw",
          "fastestdet"]  # fmt: skip
TARGETS = [("onnxruntime", "qdq"), ("onnxruntime", "qoperator"), ("onnxruntime-arm", "qdq"),
           ("onnxruntime-arm", "qoperator")]  # fmt: skip


def model_and_samples(name, folder):
    """(path, calibration samples, samples to run)"""
    if name == "synthetic":
        onnx.save(many_operators(), folder / "m.onnx")
        return folder / "m.onnx", samples(16), samples(8, seed=12)
    net = network(name)
    x = net.inputs(8)
    return net.path, x[:6], x[4:]


@pytest.mark.parametrize(("target", "form"), TARGETS)
@pytest.mark.parametrize("name", MODELS)
def test_what_is_called_int8_runs_in_integers(quench, name, target, form, tmp_path):
    path, calibration, x = model_and_samples(name, tmp_path)
    out = tmp_path / "q.onnx"
    report = quantize(quench, path, calibration, out, "--target", target, "--format", form)
    onnx.checker.check_model(str(out), full_check=True)
    int8, kept = claimed_int8(report)
    kinds = collections.Counter(n.op_type for n in optimized_nodes(out, tmp_path))
    assert sum(kinds[k] for k in INTEGER) == len(int8) > 0, kinds
    assert sum(kinds[k] for k in FLOAT) == len(kept), kinds
    check_outputs(path, out, x, tmp_path, 0.9999)


def check_outputs(path, quantized, x, folder, least):
    """onnxruntime stays near the float network, and quench near onnxruntime."""
    exact = ort_outputs(path, x)
    theirs = ort_outputs(quantized, x)
    ours = quench_outputs(quantized, x, folder / "run")
    for e, t, o in zip(exact, theirs, ours):
        assert e.shape == t.shape == o.shape
        assert cosine(e, t) > 0.95
        assert cosine(o, t) > least


def cosine(a, b):
    a, b = (v.ravel().astype(np.float64) for v in (a, b))
    return a @ b / np.sqrt((a @ a) * (b @ b))


@pytest.mark.parametrize("name", MODELS)
def test_files_for_tensorrt_keep_its_rules(quench, name, tmp_path):
    path, calibration, x = model_and_samples(name, tmp_path)
    out = tmp_path / "q.onnx"
    report = quantize(quench, path, calibration, out, "--target", "tensorrt")
    assert claimed_int8(report)[0]
    onnx.checker.check_model(str(out), full_check=True)
    graph = onnx.load(out).graph
    constants = {t.name: t for t in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for node in pairs:
        zero = constants[node.input[2]]
        assert zero.data_type == TensorProto.INT8
        assert not numpy_helper.to_array(zero).any()
    produced = {o: n for n in graph.node for o in n.output}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and len(node.input) > 2:
            assert constants[node.input[2]].data_type == TensorProto.FLOAT, node.name
            assert node.input[2] not in produced
    # onnxruntime runs these files mostly in float (no Relu can leave a symmetric type), where a sum
    # near a rounding boundary falls to the other side; the step then spreads through the network.
    # test_simulation.py compares layer by layer.
    check_outputs(path, out, x, tmp_path, 0.95)
