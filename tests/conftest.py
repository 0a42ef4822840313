"""What the Python tests share: where things are, and small models and pictures made on the spot."""

import os
import pathlib
import subprocess

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def quench():
    """Runs the command line tool; returns the finished process."""
    binary = os.environ.get("QUENCH_BIN", str(ROOT / "build" / "quench"))
    if not os.access(binary, os.X_OK):
        pytest.fail(f"{binary} is not there: build it or set QUENCH_BIN")

    def run(*args, **kwargs):
        command = [binary, *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, **kwargs)

    run.binary = os.path.abspath(binary)
    return run


@pytest.fixture(scope="session")
def shared():
    """Folder of real models and pictures; tests that need it are skipped without it."""
    folder = pathlib.Path(os.environ.get("QUENCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip("real models and pictures (QUENCH_SHARED) are not here")
    return folder


def tensor(name, array):
    return numpy_helper.from_array(np.ascontiguousarray(array), name)


def make_model(nodes, inputs, outputs, initializers, opset=13, **kwargs):
    """Model from nodes, {name: shape} dicts and {name: array}."""
    info = lambda items: [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in items.items()
    ]
    graph = helper.make_graph(
        nodes, "g", info(inputs), info(outputs), [tensor(n, a) for n, a in initializers.items()]
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **kwargs
    )
    onnx.checker.check_model(model)
    return model


def small_classifier(seed=1, classes=4, opset=13):
    """conv-bn-relu, depthwise, pool, residual add, gemm, softmax over [N,3,16,16]."""
    rng = np.random.default_rng(seed)
    w = lambda *s: (rng.standard_normal(s) * np.sqrt(2.0 / np.prod(s[1:]))).astype(np.float32)
    c = 8
    init = {
        "w1": w(c, 3, 3, 3), "b1": w(c, 1)[:, 0],
        "bn_g": rng.uniform(0.5, 2, c).astype(np.float32), "bn_b": w(c, 1)[:, 0],
        "bn_m": w(c, 1)[:, 0], "bn_v": rng.uniform(0.2, 2, c).astype(np.float32),
        "w2": w(c, 1, 3, 3), "w3": w(c, c, 1, 1), "b3": w(c, 1)[:, 0],
        "wf": 0.3 * w(classes, c), "bf": w(classes, 1)[:, 0],
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "bn_g", "bn_b", "bn_m", "bn_v"], ["n1"], "bn1"),
        helper.make_node("Relu", ["n1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=c),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], "conv3"),
        helper.make_node("Add", ["c3", "p1"], ["a1"], "add1"),
        helper.make_node("GlobalAveragePool", ["a1"], ["g1"], "gap"),
        helper.make_node("Flatten", ["g1"], ["f1"], "flat"),
        helper.make_node("Gemm", ["f1", "wf", "bf"], ["logits"], "fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["prob"], "softmax", axis=1),
    ]
    return make_model(nodes, {"x": ["N", 3, 16, 16]}, {"prob": ["N", classes]}, init, opset)


@pytest.fixture
def workspace(tmp_path):
    """A model, a folder of pictures with labels, and tensors."""
    onnx.save(small_classifier(), tmp_path / "m.onnx")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(7)
    lines = ["file,class_index"]
    for i in range(12):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"p{i:02}.png")
        lines.append(f"p{i:02}.png,{i % 4}")
    (pictures / "labels.csv").write_text("\n".join(lines) + "\n")
    np.save(tmp_path / "x.npy", rng.uniform(-1, 1, (6, 3, 16, 16)).astype(np.float32))
    return tmp_path
