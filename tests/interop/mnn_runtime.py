"""MNN's own runtime and converter, as the tests use them: one thread, float32, nothing fused away."""

import subprocess
import sys

import numpy as np
import pytest

MNN = pytest.importorskip("MNN", reason="the MNN package is not installed")


def convert(framework, source, target, *options):
    """mnnconvert in a process of its own: it prints, and some models make it end the process."""
    arguments = ["mnnconvert", "-f", framework, "--modelFile", str(source), "--MNNModel",
                 str(target), "--bizCode", "test", *options]  # fmt: skip
    code = f"import _tools; _tools.mnnconvert({arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300
    )
    return target.is_file() and target.stat().st_size > 0, done.stdout + done.stderr


def host(tensor, array=None):
    """A host tensor in the layout of the data: NCHW or NHWC as the model has it."""
    layout = tensor.getDimensionType()
    if layout == MNN.Tensor_DimensionType_Caffe_C4:
        layout = MNN.Tensor_DimensionType_Caffe
    kind = tensor.getDataType()
    dtype = {MNN.Halide_Type_Float: np.float32, MNN.Halide_Type_Int: np.int32,
             MNN.Halide_Type_Int64: np.int64, MNN.Halide_Type_Uint8: np.uint8}[kind]  # fmt: skip
    shape = tensor.getShape()
    data = np.zeros(shape, dtype) if array is None else np.ascontiguousarray(array, dtype)
    return MNN.Tensor(shape, kind, data, layout)


def outputs(path, inputs):
    """{name: array} for {name: array}; names of all outputs of the model."""
    net = MNN.Interpreter(str(path))
    session = net.createSession({"backend": "CPU", "precision": "high", "numThread": 1})
    for name, array in inputs.items():
        tensor = net.getSessionInput(session, name)
        if list(tensor.getShape()) != list(array.shape):
            net.resizeTensor(tensor, tuple(array.shape))
            net.resizeSession(session)
            tensor = net.getSessionInput(session, name)
        tensor.copyFrom(host(tensor, array))
    net.runSession(session)
    results = {}
    for name, tensor in net.getSessionOutputAll(session).items():
        out = host(tensor)
        tensor.copyToHostTensor(out)
        shape = tensor.getShape()
        results[name] = np.array(out.getData()).reshape(shape)
    return results


def input_shapes(path):
    net = MNN.Interpreter(str(path))
    session = net.createSession({"backend": "CPU", "numThread": 1})
    return {n: tuple(t.getShape()) for n, t in net.getSessionInputAll(session).items()}
