"""MNN's own runtime and converter, as the tests use them: one thread, float32. Both run in processes
of their own: they print, and some models crash them."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np

HERE = os.path.abspath(__file__)


def available():
    return importlib.util.find_spec("MNN") is not None


def has_fma():
    """Whether this CPU has what the kernels need that made the recorded files."""
    info = Path("/proc/cpuinfo")
    if platform.machine() not in ("x86_64", "AMD64") or not info.exists():
        return False
    return {"avx2", "fma"} <= set(info.read_text().split())


def child(*arguments):
    return subprocess.run(
        [sys.executable, HERE, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


def convert(framework, source, target, *options):
    """Whether mnnconvert made the file, and what it said."""
    done = child("convert", "mnnconvert", "-f", framework, "--modelFile", source, "--MNNModel",
                 target, "--bizCode", "test", *options)  # fmt: skip
    return target.is_file() and target.stat().st_size > 0, done.stdout + done.stderr


def outputs(path, inputs, folder):
    """{name: array} of every output for {name: array}; None: the runtime cannot run the model."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "mnn_in.npz", **inputs)
    target = folder / "mnn_out.npz"
    done = child("run", path, folder / "mnn_in.npz", target)
    if done.returncode != 0 or "error" in done.stdout + done.stderr or not target.is_file():
        return None
    with np.load(target) as results:
        return dict(results)


def host(MNN, tensor, array=None):
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


def run(path, source, target):
    import MNN

    net = MNN.Interpreter(str(path))
    session = net.createSession({"backend": "CPU", "precision": "high", "numThread": 1})
    with np.load(source) as inputs:
        for name, array in inputs.items():
            tensor = net.getSessionInput(session, name)
            if list(tensor.getShape()) != list(array.shape):
                net.resizeTensor(tensor, tuple(array.shape))
                net.resizeSession(session)
                tensor = net.getSessionInput(session, name)
            tensor.copyFrom(host(MNN, tensor, array))
    net.runSession(session)
    results = {}
    for name, tensor in net.getSessionOutputAll(session).items():
        out = host(MNN, tensor)
        tensor.copyToHostTensor(out)
        results[name] = np.array(out.getData()).reshape(tensor.getShape())
    np.savez(target, **results)


def trace(path, source, target):
    """First outputs of all operators, by name, for the first sample of a raw file of inputs."""
    import MNN

    net = MNN.Interpreter(path)
    session = net.createSession({"backend": "CPU", "numThread": 1})
    tensor = net.getSessionInput(session)
    found = {}

    def after(tensors, op):
        shape = tensors[0].getShape()
        if tensors[0].getDataType() == MNN.Halide_Type_Float:
            out = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), MNN.Tensor_DimensionType_Caffe)
            tensors[0].copyToHostTensor(out)
            found[op.getName()] = np.array(out.getData(), np.float32).ravel()
        return True

    shape = tensor.getShape()
    sample = np.fromfile(source, "<f4")[: int(np.prod(shape))].reshape(shape)
    tensor.copyFrom(host(MNN, tensor, sample))
    net.runSessionWithCallBackInfo(session, lambda tensors, op: True, after)
    np.savez(target, **found)


if __name__ == "__main__":
    if sys.argv[1] == "trace":
        trace(*sys.argv[2:])
    elif sys.argv[1] == "convert":
        import _tools

        _tools.mnnconvert(sys.argv[2:])
    else:
        run(*sys.argv[2:])
