"""Opsets 1 to 6, which ONNX Runtime does not promise to run: what quench reads in them is written as opset 13
and compared with numbers worked out here. And every opset and IR version of the package."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(17)
X = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)
C = RNG.normal(size=3).astype(np.float32)
ROW = RNG.normal(size=5).astype(np.float32)
POSITIVE = np.abs(C) + 0.5


def node(op, inputs, **attrs):
    return helper.make_node(op, inputs, ["y"], name=op.lower(), **attrs)


def by_channel(v):
    return v[:, None, None]


def relu(x):
    return np.maximum(x, 0)


CASES = {
    "add along axis 1": (6, node("Add", ["x", "c"], broadcast=1, axis=1), lambda: X + by_channel(C)),
    "add along axis -3": (6, node("Add", ["x", "c"], broadcast=1, axis=-3), lambda: X + by_channel(C)),
    "mul at the end": (1, node("Mul", ["x", "row"], broadcast=1), lambda: X * ROW),
    "sub, last axis": (3, node("Sub", ["x", "row"], broadcast=1, axis=3, consumed_inputs=[0, 0]), lambda: X - ROW),
    "div without broadcast": (6, node("Div", ["x", "x"]), lambda: X / X),
    "relu": (1, node("Relu", ["x"], consumed_inputs=[0]), lambda: relu(X)),
    "prelu by channel": (6, node("PRelu", ["x", "c"]), lambda: np.where(X < 0, X * by_channel(C), X)),
    "reshape": (1, node("Reshape", ["x"], shape=[0, -1]), lambda: X.reshape(2, -1)),
    "concat": (1, node("Concat", ["x", "x"]), lambda: np.concatenate([X, X], 1)),
    "cast": (5, node("Cast", ["x"], to="FLOAT"), lambda: X),
    "pad": (1, node("Pad", ["x"], paddings=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5),
            lambda: np.pad(X, ((0, 0), (0, 0), (1, 0), (2, 1)), constant_values=0.5)),
    "batch norm": (6, node("BatchNormalization", ["x", "c", "c", "c", "p"], is_test=1, epsilon=1e-3),
                   lambda: (X - by_channel(C)) / np.sqrt(by_channel(POSITIVE) + 1e-3) * by_channel(C) + by_channel(C)),
    "dropout": (6, node("Dropout", ["x"], is_test=1, ratio=0.3), lambda: X),
    "upsample": (1, node("Upsample", ["x"], height_scale=2.0, width_scale=3.0, mode="nearest"),
                 lambda: X.repeat(2, 2).repeat(3, 3)),
    "clip": (1, node("Clip", ["x"], min=-0.5, max=0.25, consumed_inputs=[0]), lambda: X.clip(-0.5, 0.25)),
    "softmax": (1, node("Softmax", ["x"], axis=3), lambda: np.exp(X) / np.exp(X).sum(3, keepdims=True)),
}


def model_of(nodes, opset, ir, constants, inputs=None):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))]
        + [helper.make_tensor_value_info(k, TensorProto.FLOAT, v.shape) for k, v in constants.items() if ir < 4],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


@pytest.mark.parametrize("case", CASES)
def test_oldest_meaning(quench, tmp_path, case):
    opset, made, expected = CASES[case]
    constants = {k: v for k, v in {"c": C, "row": ROW, "p": POSITIVE}.items() if k in made.input}
    onnx.save(model_of([made], opset, 3, constants), tmp_path / "m.onnx")
    done = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "out.onnx")
    assert done.returncode == 0, done.stderr
    written = onnx.load(tmp_path / "out.onnx")
    assert written.opset_import[0].version == 13
    session = ort.InferenceSession(str(tmp_path / "out.onnx"), providers=["CPUExecutionProvider"])
    got = session.run(None, {"x": X})[0]
    np.testing.assert_allclose(got, expected(), rtol=1e-5, atol=1e-6)


REFUSED = {
    "training": (6, [node("Dropout", ["x"])], {}, "training mode"),
    "cast": (5, [node("Cast", ["x"], to="COMPLEX")], {}, 'casts to "COMPLEX"'),
    "axis": (6, [node("Add", ["x", "c"], broadcast=1, axis=4)], {"c": C}, "does not fit"),
    "tile": (5, [node("Tile", ["x", "n", "n"])], {"n": np.array(1, np.float32)}, "before opset 6"),
    "scales": (1, [node("Upsample", ["x"], mode="nearest")], {}, "no scales"),
    "computed": (6, [helper.make_node("ReduceMax", ["x"], ["m"], axes=[0, 2, 3], keepdims=0, name="max"),
                     node("Add", ["x", "m"], broadcast=1, axis=1)], {}, "which is computed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(quench, tmp_path, case):
    opset, nodes, constants, reason = REFUSED[case]
    onnx.save(model_of(nodes, opset, 3, constants), tmp_path / "m.onnx")
    done = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "out.onnx")
    assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert nodes[-1].name in done.stderr and len(done.stderr.splitlines()) == 1


NEWEST = min(28, onnx.defs.onnx_opset_version())


def network(opset, ir):
    """A network as an exporter of that time wrote it."""
    rng = np.random.default_rng(5)
    constants = {
        "w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "c": rng.normal(size=4).astype(np.float32),
        "f": (rng.normal(size=(80, 6)) * 0.2).astype(np.float32),
        "g": rng.normal(size=6).astype(np.float32),
    }
    old = {"broadcast": 1} if opset < 7 else {}
    consumed = {"consumed_inputs": [0]} if opset < 6 else {}
    make = helper.make_node
    nodes = [make("Conv", ["x", "w", "c"], ["h"], pads=[1, 1, 1, 1], kernel_shape=[3, 3], name="conv"),
             make("Relu", ["h"], ["r"], name="relu", **consumed)]
    if opset < 5:
        nodes.append(make("Reshape", ["r"], ["flat"], shape=[2, 80], name="reshape"))
    else:
        nodes.append(make("Flatten", ["r"], ["flat"], name="flatten"))
    nodes.append(make("Gemm", ["flat", "f", "g"], ["s"], name="gemm", **old))
    nodes.append(make("Softmax", ["s"], ["y"], axis=1, name="softmax"))
    return model_of(nodes, opset, ir, constants)


@pytest.fixture(scope="module")
def expected_softmax(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "m.onnx"
    onnx.save(network(13, 7), path)
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]


@pytest.mark.parametrize("opset", range(1, NEWEST + 1))
def test_every_opset_quantizes(quench, tmp_path, expected_softmax, opset):
    onnx.save(network(opset, 3 if opset < 9 else 8 if opset < 19 else 10), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", X)
    done = quench("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data", tmp_path / "x.npy", "--json")
    assert done.returncode == 0, done.stderr
    written = onnx.load(tmp_path / "q.onnx")
    assert written.opset_import[0].version == max(13, opset)
    if written.opset_import[0].version > 23:  # beyond this runtime: our own executor
        return
    session = ort.InferenceSession(str(tmp_path / "q.onnx"), providers=["CPUExecutionProvider"])
    assert np.abs(session.run(None, {"x": X})[0] - expected_softmax).max() < 0.1


@pytest.mark.parametrize("ir", range(3, onnx.IR_VERSION + 1))
def test_every_ir_version(quench, tmp_path, ir):
    onnx.save(network(9, ir), tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", X)
    done = quench("run", tmp_path / "m.onnx", tmp_path / "x.npy", "--rounds", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 1


@pytest.mark.parametrize("opset, ir", [(0, 3), (29, 10), (13, 2), (13, 15)])
def test_outside_the_range(quench, tmp_path, opset, ir):
    onnx.save(network(13, 8), tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    model.opset_import[0].version = opset
    model.ir_version = ir
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    done = quench("inspect", tmp_path / "m.onnx")
    assert done.returncode == 1 and "is outside" in done.stderr
