"""Networks that are not for pictures, made and lightly fitted here: keywords from an LSTM over features
and from a small transformer over token numbers. Quantized end to end, run in ONNX Runtime, compared with
float."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

STEPS, FEATURES, HIDDEN, CLASSES = 20, 12, 32, 6


def run_ort(path, feeds):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def model_of(nodes, inputs, outputs, constants, opset=17):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(v, n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def fit_readout(features, labels):
    """Least squares on one-hot classes: the trained layer of a network whose rest is random."""
    with_one = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    target = np.eye(CLASSES)[labels] * 2 - 1
    ridge = 1e-2 * len(features) * np.eye(with_one.shape[1])
    solved = np.linalg.solve(with_one.T @ with_one + ridge, with_one.T @ target)
    return solved[:-1].astype(np.float32), solved[-1].astype(np.float32)


def add_output(model, name):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return copy


def features_of(model, name, feeds):
    session = ort.InferenceSession(
        add_output(model, name).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([name], feeds)[0]


def lstm_model(readout=None):
    rng = np.random.default_rng(31)
    scaled = lambda *shape: (rng.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)  # noqa: E731
    constants = {
        "proj_w": scaled(FEATURES, 24),
        "proj_b": scaled(24),
        "w": scaled(1, 4 * HIDDEN, 24) * 1.5,
        "r": scaled(1, 4 * HIDDEN, HIDDEN),
        "lstm_b": scaled(1, 8 * HIDDEN) * 0.1,
        "axes": np.array([1], np.int64),
        "out_w": readout[0] if readout else np.zeros((HIDDEN, CLASSES), np.float32),
        "out_b": readout[1] if readout else np.zeros(CLASSES, np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "proj_w"], ["p"], name="project"),
        helper.make_node("Add", ["p", "proj_b"], ["pb"], name="project_bias"),
        helper.make_node("Relu", ["pb"], ["pr"], name="project_relu"),
        helper.make_node("Transpose", ["pr"], ["t"], name="time_first", perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["t", "w", "r", "lstm_b"], ["all", "last"], name="lstm", hidden_size=HIDDEN
        ),
        helper.make_node("Transpose", ["last"], ["lt"], name="batch_first", perm=[1, 0, 2]),
        helper.make_node("Squeeze", ["lt", "axes"], ["h"], name="squeeze"),
        helper.make_node("Gemm", ["h", "out_w", "out_b"], ["y"], name="classes"),
    ]
    return model_of(
        nodes,
        [("x", TensorProto.FLOAT, ["N", STEPS, FEATURES])],
        [("y", TensorProto.FLOAT, ["N", CLASSES])],
        constants,
    )


def spoken(count, seed):
    """Each class is a wave of its own in every feature, under noise."""
    rng = np.random.default_rng(seed)
    waves = np.random.default_rng(7).normal(size=(CLASSES, 3, FEATURES))
    t = np.arange(STEPS)[:, None] / STEPS
    labels = rng.integers(0, CLASSES, count)
    x = np.stack(
        [
            waves[c, 0] * np.sin(6 * t + waves[c, 1]) + waves[c, 2] * t + rng.normal(size=(STEPS, FEATURES)) * 0.7
            for c in labels
        ]
    )
    return x.astype(np.float32), labels


def accuracy(values, labels):
    return float((values.argmax(axis=1) == labels).mean())


def quantize(quench, tmp_path, model, *args):
    onnx.save(model, tmp_path / "float.onnx")
    done = quench("quantize", tmp_path / "float.onnx", "-o", tmp_path / "int8.onnx", "--json", *args)
    assert done.returncode == 0, done.stderr
    onnx.checker.check_model(onnx.load(tmp_path / "int8.onnx"))
    return json.loads(done.stdout)


def test_lstm(quench, tmp_path):
    x, labels = spoken(400, 1)
    readout = fit_readout(features_of(lstm_model(), "h", {"x": x}), labels)
    test, truth = spoken(400, 2)
    np.savez(tmp_path / "samples.npz", x=x[:64])
    quantize(quench, tmp_path, lstm_model(readout), "--data", tmp_path / "samples.npz")
    kinds = [n.op_type for n in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert "LSTM" in kinds and kinds.count("QuantizeLinear") >= 2
    real = accuracy(run_ort(tmp_path / "float.onnx", {"x": test}), truth)
    got = accuracy(run_ort(tmp_path / "int8.onnx", {"x": test}), truth)
    assert real > 0.9, real
    assert got >= real - 0.01, (real, got)
    # and our own executor says what ONNX Runtime says
    np.save(tmp_path / "x.npy", test)
    (tmp_path / "labels.csv").write_text("".join(f"row {i},{c}\n" for i, c in enumerate(truth)))
    done = quench("eval", tmp_path / "int8.onnx", "--data", tmp_path / "x.npy", "--labels", tmp_path / "labels.csv",
                  "--json")
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout)["models"][0]["top1"]
    assert abs(ours - got) < 0.006 or abs(ours / 100 - got) < 0.006, (ours, got)


VOCABULARY, LENGTH, WIDTH, HEADS, LAYERS = 200, 16, 32, 4, 2


def transformer(readout=None):
    """Embeddings, two layers of attention and feed-forward with LayerNormalization, mean, classes.
    Inputs: token numbers (int64) and a mask (int32, 1 where there is a token)."""
    rng = np.random.default_rng(41)
    scaled = lambda *shape: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)  # noqa: E731
    c = {
        "table": rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
        "places": (rng.normal(size=(LENGTH, WIDTH)) * 0.3).astype(np.float32),
        "one": np.array(1, np.float32),
        "low": np.array(-1e9, np.float32),
        "root": np.array((WIDTH // HEADS) ** 0.5, np.float32),
        "split": np.array([0, LENGTH, HEADS, WIDTH // HEADS], np.int64),
        "joined": np.array([0, LENGTH, WIDTH], np.int64),
        "mask_axes": np.array([1, 2], np.int64),
        "out_w": readout[0] if readout else np.zeros((WIDTH, CLASSES), np.float32),
        "out_b": readout[1] if readout else np.zeros(CLASSES, np.float32),
    }
    n = []

    def node(op, inputs, output, **attrs):
        n.append(helper.make_node(op, inputs, [output], name=output + "_node", **attrs))
        return output

    mask = node("Cast", ["mask"], "mask_f", to=TensorProto.FLOAT)
    away = node("Mul", [node("Sub", ["one", mask], "inverse"), "low"], "away")
    away = node("Unsqueeze", [away, "mask_axes"], "away4")
    x = node("Add", [node("Gather", ["table", "tokens"], "embedded"), "places"], "h0")
    for layer in range(LAYERS):
        p = f"l{layer}_"
        for m, shape in (("q", (WIDTH, WIDTH)), ("k", (WIDTH, WIDTH)), ("v", (WIDTH, WIDTH)), ("o", (WIDTH, WIDTH)),
                         ("up", (WIDTH, 4 * WIDTH)), ("down", (4 * WIDTH, WIDTH))):
            c[p + m + "_w"] = scaled(*shape)
            c[p + m + "_b"] = (rng.normal(size=shape[1]) * 0.05).astype(np.float32)
        for m in ("n1", "n2"):
            c[p + m + "_g"] = np.ones(WIDTH, np.float32)
            c[p + m + "_b"] = np.zeros(WIDTH, np.float32)

        def dense(name, source, p=p):
            return node("Add", [node("MatMul", [source, p + name + "_w"], p + name + "_mm"), p + name + "_b"], p + name)

        def heads(name, perm, p=p):
            return node("Transpose", [node("Reshape", [p + name, "split"], p + name + "_r")], p + name + "_t", perm=perm)

        for m in "qkv":
            dense(m, x)
        q, k, v = heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1]), heads("v", [0, 2, 1, 3])
        scores = node("Div", [node("MatMul", [q, k], p + "qk"), "root"], p + "scaled")
        seen = node("Softmax", [node("Add", [scores, away], p + "masked")], p + "seen", axis=-1)
        mixed = node("Transpose", [node("MatMul", [seen, v], p + "sv")], p + "back", perm=[0, 2, 1, 3])
        node("Reshape", [mixed, "joined"], p + "rows")
        x = node("Add", [x, dense("o", p + "rows")], p + "res1")
        x = node("LayerNormalization", [x, p + "n1_g", p + "n1_b"], p + "norm1")
        up = dense("up", x)
        gelu = node("Mul", [up, node("Sigmoid", [up], p + "gate")], p + "act")
        x = node("Add", [x, dense("down", gelu)], p + "res2")
        x = node("LayerNormalization", [x, p + "n2_g", p + "n2_b"], p + "norm2")
    pooled = node("ReduceMean", [x], "pooled", axes=[1], keepdims=0)
    node("Gemm", [pooled, "out_w", "out_b"], "y")
    return model_of(
        n,
        [("tokens", TensorProto.INT64, ["N", LENGTH]), ("mask", TensorProto.INT32, ["N", LENGTH])],
        [("y", TensorProto.FLOAT, ["N", CLASSES])],
        c,
    )


def sentences(count, seed):
    """A class prefers a part of the vocabulary of its own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    common = rng.integers(0, VOCABULARY, (count, LENGTH))
    own = labels[:, None] * 30 + rng.integers(0, 30, (count, LENGTH))
    tokens = np.where(rng.random((count, LENGTH)) < 0.85, own, common)
    mask = (np.arange(LENGTH)[None] < rng.integers(10, LENGTH + 1, count)[:, None]).astype(np.int32)
    return tokens.astype(np.int64), mask, labels


@pytest.mark.parametrize("form", ["npz", "csv", "dynamic", "int8 weights"])
def test_transformer(quench, tmp_path, form):
    tokens, mask, labels = sentences(2000, 3)
    readout = fit_readout(features_of(transformer(), "pooled", {"tokens": tokens, "mask": mask}), labels)
    test_tokens, test_mask, truth = sentences(400, 4)
    model = transformer(readout)
    if form == "csv":
        np.savetxt(tmp_path / "tokens.csv", tokens[:64], fmt="%d", delimiter=",")
        np.savetxt(tmp_path / "mask.csv", mask[:64], fmt="%d", delimiter=",")
        args = ["--data", f"tokens={tmp_path}/tokens.csv", "--data", f"mask={tmp_path}/mask.csv"]
    elif form == "dynamic":
        args = ["--dynamic"]
    elif form == "int8 weights":
        args = ["--weight-only", "int8"]
    else:
        np.savez(tmp_path / "samples.npz", tokens=tokens[:64], mask=mask[:64])
        args = ["--data", tmp_path / "samples.npz"]
    quantize(quench, tmp_path, model, *args)
    feeds = {"tokens": test_tokens, "mask": test_mask}
    real_values = run_ort(tmp_path / "float.onnx", feeds)
    got_values = run_ort(tmp_path / "int8.onnx", feeds)
    real, got = accuracy(real_values, truth), accuracy(got_values, truth)
    assert real > 0.8, real
    assert got >= real - 0.02, (real, got)
    agreement = (real_values.argmax(1) == got_values.argmax(1)).mean()
    assert agreement > 0.95, agreement


def test_keywords(quench, shared, tmp_path):
    """The MLPerf keyword network on the test recordings' features, as shared with the models."""
    model = shared / "models" / "mlperf-kws"
    onnx_file = next(iter(sorted(model.glob("*.onnx"))), None)
    if onnx_file is None:
        pytest.skip("no keyword network as ONNX")
    info = onnx.load(onnx_file).graph.input[0].type.tensor_type.shape.dim
    shape = [d.dim_value for d in info]
    features = np.fromfile(shared / "data" / "kws" / "features.f32", np.float32)
    features = features.reshape(-1, int(np.prod(shape[1:])))
    np.savetxt(tmp_path / "rows.csv", features[:100], delimiter=",", fmt="%.9g")
    raw = ["--raw-type", "f32", "--raw-shape", ",".join(map(str, [1, *shape[1:]])), "--first", "100"]
    for name, args in (("csv", ["--data", tmp_path / "rows.csv"]),
                       ("raw", ["--data", shared / "data" / "kws" / "features.f32", *raw])):
        done = quench("quantize", onnx_file, "-o", tmp_path / f"{name}.onnx", *args)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "csv.onnx").read_bytes() == (tmp_path / "raw.onnx").read_bytes()
