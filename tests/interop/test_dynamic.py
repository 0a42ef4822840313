"""Scales made at run time and weights in blocks, against onnxruntime: files of ours and of its own tools."""

import collections
import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import optimized_nodes, ort_outputs, quench_outputs, session
from onnx import TensorProto, helper, numpy_helper

PLAIN = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
DYNAMIC = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat"}


def save(path, nodes, constants, inputs, outputs, opset=17, microsoft=False):
    def values(shapes):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs),
                              [numpy_helper.from_array(v, k) for k, v in constants.items()])  # fmt: skip
    domains = [helper.make_opsetid("", opset)] + [helper.make_opsetid("com.microsoft", 1)] * microsoft
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=9), path)
    return path


def transformer(path, steps=12, width=64):
    """A block with one head: [1, steps, width] -> [1, 10]. Names for some nodes, none for others."""
    rng = np.random.default_rng(1)

    def weights(*shape):
        return (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)

    sizes = {"wq": (width, width), "wk": (width, width), "wv": (width, width), "w1": (width, 4 * width),
             "w2": (4 * width, width), "wy": (10, width)}  # fmt: skip
    c = {name: weights(*size) for name, size in sizes.items()}
    c |= {"bq": weights(width), "b1": weights(4 * width), "b2": weights(width), "by": weights(10)}
    c |= {"gain": np.ones(width, np.float32), "shift": np.zeros(width, np.float32), "axes": np.array([1])}
    rows = [
        ("LayerNormalization", "x gain shift", "n"), ("MatMul", "n wq", "q0"), ("Add", "q0 bq", "q"),
        ("MatMul", "n wk", "k"), ("MatMul", "n wv", "v"), ("Transpose", "k", "kt", [0, 2, 1]),
        ("MatMul", "q kt", "s"), ("Softmax", "s", "p"), ("MatMul", "p v", "a"), ("Add", "a x", "r"),
        ("MatMul", "r w1", "h0"), ("Add", "h0 b1", "h1"), ("Relu", "h1", "h2"), ("MatMul", "h2 w2", "h3"),
        ("Add", "h3 b2", "h4"), ("ReduceMean", "h4 axes", "m"), ("Gemm", "m wy by", "y"),
    ]  # fmt: skip
    nodes = []
    for op, inputs, output, *perm in rows:
        more = {"perm": perm[0]} if perm else {"transB": 1} if op == "Gemm" else {}
        more |= {"keepdims": 0} if op == "ReduceMean" else {}
        nodes.append(helper.make_node(op, inputs.split(), [output], f"node_{output}", **more))
    return save(path, nodes, c, {"x": [1, steps, width]}, {"y": [1, 10]}, 18), (steps, width)


def perceptron(path):
    """[1, 96] -> [1, 10] by Gemms of either order, with Relu."""
    rng = np.random.default_rng(2)
    c, nodes, x = {}, [], "x"
    for i, (k, n, turned) in enumerate([(96, 130, True), (130, 70, False), (70, 10, True)]):
        w = (rng.standard_normal((k, n)) / np.sqrt(k)).astype(np.float32)
        c[f"w{i}"], c[f"b{i}"] = np.ascontiguousarray(w.T) if turned else w, rng.standard_normal(n).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [f"g{i}"], f"fc{i}", transB=int(turned)))
        x = f"g{i}"
        if i < 2:
            nodes.append(helper.make_node("Relu", [x], [f"r{i}"], f"relu{i}"))
            x = f"r{i}"
    return save(path, nodes, c, {"x": [1, 96]}, {"g2": [1, 10]}), (96,)


MODELS = {"transformer": (transformer, 6), "perceptron": (perceptron, 3)}


def samples(shape, count=6):
    return np.random.default_rng(9).standard_normal((count, *shape)).astype(np.float32)


def error(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


def cosine(a, b):
    a, b = (v.ravel().astype(np.float64) for v in (a, b))
    return a @ b / np.sqrt((a @ a) * (b @ b))


def run_quantize(quench, path, out, *options):
    result = quench("quantize", path, "-o", out, "--json", *options)
    assert result.returncode == 0, result.stderr
    onnx.checker.check_model(str(out), full_check=True)
    return json.loads(result.stdout)


@pytest.mark.parametrize("options", [(), ("--granularity", "tensor"), ("--weights", "max_abs", "--x86", "vnni"),
                                     ("--target", "onnxruntime-arm", "--weight-bits", "6")])  # fmt: skip
@pytest.mark.parametrize("name", MODELS)
def test_dynamic_products_are_fused_and_equal(quench, name, options, tmp_path):
    make, count = MODELS[name]
    path, shape = make(tmp_path / "m.onnx")
    out, x = tmp_path / "q.onnx", samples(shape)
    report = run_quantize(quench, path, out, "--dynamic", *options)
    assert sum(n["int8"] for n in report["nodes"]) == count
    assert all(n["reason"] for n in report["nodes"] if not n["int8"])
    kinds = collections.Counter(n.op_type for n in optimized_nodes(out, tmp_path))
    assert sum(kinds[k] for k in DYNAMIC) == count, kinds
    assert not kinds["MatMulInteger"] and not kinds["Gemm"], kinds
    theirs, ours = ort_outputs(out, x)[0], quench_outputs(out, x, tmp_path / "run")[0]
    assert error(ours, theirs) < 1e-5
    assert error(ours, ort_outputs(session(out, PLAIN), x)[0]) < 1e-5
    exact = ort_outputs(path, x)[0]
    ratio = path.stat().st_size / out.stat().st_size
    print(f"{name} {options}: cosine {cosine(ours, exact):.6f}, {ratio:.2f} times smaller")
    assert cosine(ours, exact) > 0.99 and ratio > 2.5


def rows_product(x, w, bias):
    """The definition: each row's largest magnitude over 127, halves to even."""
    scale = (np.maximum(np.abs(x).max(-1, keepdims=True), np.float32(1e-30)) / np.float32(127)).astype(np.float32)
    return np.round(x / scale).astype(np.float32) * scale @ w + bias


@pytest.mark.parametrize("options", [(), ("--weight-bits", "6"), ("--granularity", "tensor", "--x86", "vnni")])
@pytest.mark.parametrize("name", MODELS)
def test_rows_have_scales_of_their_own(quench, name, options, tmp_path):
    make, count = MODELS[name]
    path, shape = make(tmp_path / "m.onnx")
    out, again, qnm = tmp_path / "q.onnx", tmp_path / "again.onnx", tmp_path / "q.qnm"
    x = samples(shape) * 10.0 ** np.arange(-3, 3).reshape(6, *[1] * len(shape)).astype(np.float32)
    report = run_quantize(quench, path, out, "--dynamic-rows", *options)
    assert sum(n["int8"] for n in report["nodes"]) == count
    theirs, ours = ort_outputs(out, x)[0], quench_outputs(out, x, tmp_path / "run")[0]
    assert error(ours, theirs) < 1e-5
    assert cosine(ours, ort_outputs(path, x)[0]) > 0.995
    for target in (again, qnm):
        result = quench("convert", out, "-o", target)
        assert result.returncode == 0, result.stderr
        assert (quench_outputs(target, x, tmp_path / target.name.replace(".", "_"))[0] == ours).all()
    assert sorted(n.op_type for n in onnx.load(again).graph.node) == sorted(n.op_type for n in onnx.load(out).graph.node)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_rows_beside_others_that_read_them(quench, opset, tmp_path):
    """Rows of very different sizes, one of them zeros; the integers and scales are outputs of the file too."""
    rng = np.random.default_rng(3)
    w, bias = rng.standard_normal((40, 24)).astype(np.float32) / 6, rng.standard_normal(24).astype(np.float32)
    path = save(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["p"], "product"),
                                      helper.make_node("Add", ["p", "b"], ["y"], "sum")],
                {"w": w, "b": bias}, {"x": [1, 5, 40]}, {"y": [1, 5, 24]}, opset)  # fmt: skip
    out, x = tmp_path / "q.onnx", rng.standard_normal((1, 5, 40)).astype(np.float32)
    x[0] *= np.float32([[1e-4], [1], [0], [3e3], [1e-36]])
    run_quantize(quench, path, out, "--dynamic-rows", "--weights", "max_abs", "--x86", "vnni")
    ours, theirs = quench_outputs(out, x, tmp_path / "run")[0], ort_outputs(out, x)[0]
    assert error(ours, theirs) < 1e-5
    rows = np.abs(ours - (x @ w + bias))[0].max(-1) / np.abs(x[0] @ w).max(-1).clip(1e-30)
    assert (rows[[0, 1, 3]] < 0.02).all() and (ours[0, [2, 4]] == bias).all(), rows
    model = onnx.load(out)
    scale = next(n.output[0] for n in model.graph.node if n.op_type == "Div")
    model.graph.output.append(helper.make_tensor_value_info(scale, TensorProto.FLOAT, [1, 5, 1]))
    onnx.save(model, out)
    ours, theirs = quench_outputs(out, x, tmp_path / "more"), ort_outputs(out, x)
    assert error(ours[0], theirs[0]) < 1e-5 and (ours[1] == theirs[1]).all()
    inspected = quench("inspect", out).stdout
    assert "MatMulInteger" not in inspected and "Div" in inspected and "Cast" not in inspected
    close = rows_product(x, w, bias)
    assert error(ours[0], close) < 0.02


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize(("kind", "least", "ratio"), [("int8", 0.999, 2.8), ("uint8", 0.999, 2.8),
                                                      ("int4", 0.95, 4.5), ("uint4", 0.95, 4.5)])  # fmt: skip
@pytest.mark.parametrize("name", MODELS)
def test_weights_in_blocks_run_as_matmulnbits(quench, name, kind, least, ratio, form, tmp_path):
    make, count = MODELS[name]
    path, shape = make(tmp_path / "m.onnx")
    out, x = tmp_path / "q.onnx", samples(shape)
    run_quantize(quench, path, out, "--weight-only", kind, "--format", form, "--weight-block", "32")
    kinds = collections.Counter(n.op_type for n in optimized_nodes(out, tmp_path))
    # onnxruntime joins a MatMul of matrices with its Add before it looks for a DequantizeLinear.
    if form == "qoperator" or name == "transformer":
        assert kinds["MatMulNBits"] == count, kinds
    if form == "qoperator":
        run_quantize(quench, path, tmp_path / "default.onnx", "--weight-only", kind)
        assert (tmp_path / "default.onnx").read_bytes() == out.read_bytes()
    ours, exact = quench_outputs(out, x, tmp_path / "run")[0], ort_outputs(path, x)[0]
    # MatMulNBits also rounds activations to int8; DequantizeLinear left as it is does not.
    assert error(ours, ort_outputs(out, x)[0]) < 0.05
    if form == "qdq":
        assert error(ours, ort_outputs(session(out, PLAIN), x)[0]) < 1e-5
    smaller = path.stat().st_size / out.stat().st_size
    print(f"{name} {kind} {form}: cosine {cosine(ours, exact):.6f}, {smaller:.2f} times smaller")
    assert cosine(ours, exact) > least and smaller > ratio


@pytest.mark.parametrize("options", [("--dynamic",), ("--weight-only", "uint4"), ("--weight-only", "int8")])
def test_recipes_and_copies_give_the_same(quench, options, tmp_path):
    path, shape = perceptron(tmp_path / "m.onnx")
    x = samples(shape)
    recipe, first = tmp_path / "r.json", tmp_path / "q.onnx"
    run_quantize(quench, path, first, *options, "--save-recipe", recipe)
    run_quantize(quench, path, tmp_path / "again.onnx", "--recipe", recipe)
    assert first.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    ours = quench_outputs(first, x, tmp_path / "a")[0]
    for form in ("qdq", "qoperator"):
        copy = tmp_path / f"{form}.onnx"
        assert quench("convert", first, "-o", copy, "--format", form).returncode == 0
        onnx.checker.check_model(str(copy), full_check=True)
        assert np.array_equal(ours, quench_outputs(copy, x, tmp_path / form)[0])
        assert error(ours, ort_outputs(session(copy, PLAIN), x)[0]) < (1e-5 if form == "qdq" else 0.05)
    if options == ("--dynamic",):
        assert (tmp_path / "qdq.onnx").read_bytes() == first.read_bytes()


def test_samples_serve_gptq(quench, tmp_path):
    path, shape = perceptron(tmp_path / "m.onnx")
    x = samples(shape, 64)
    np.save(tmp_path / "x.npy", x)
    errors = {}
    for method in ("max_abs", "gptq"):
        out = tmp_path / f"{method}.onnx"
        run_quantize(quench, path, out, "--dynamic", "--weights", method, "--weight-bits", "4",
                     "--data", tmp_path / "x.npy")  # fmt: skip
        errors[method] = np.square(quench_outputs(out, x, tmp_path / method)[0] - ort_outputs(path, x)[0]).sum()
    assert errors["gptq"] < errors["max_abs"]
    refused = quench("quantize", path, "-o", tmp_path / "z.onnx", "--dynamic", "--weights", "gptq")
    assert refused.returncode != 0 and "samples are needed" in refused.stderr


@pytest.mark.parametrize("weights", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_files_of_quantize_dynamic(name, weights, per_channel, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    path, shape = MODELS[name][0](tmp_path / "m.onnx")
    out, x = tmp_path / "q.onnx", samples(shape)
    quantization.quantize_dynamic(path, out, per_channel=per_channel,
                                  weight_type=getattr(quantization.QuantType, weights))  # fmt: skip
    assert error(quench_outputs(out, x, tmp_path / "run")[0], ort_outputs(out, x)[0]) < 1e-5


def test_integers_that_others_read_too(tmp_path):
    """Two quantized tensors whose scale or integers leave the graph, next to products that collapse."""
    rng = np.random.default_rng(6)
    c = {"w": rng.integers(-127, 128, (8, 5)).astype(np.int8), "s": rng.random(5).astype(np.float32) + 0.1}
    nodes = []
    for i, x in enumerate("ab"):
        nodes += [
            helper.make_node("DynamicQuantizeLinear", [x], [f"q{i}", f"s{i}", f"z{i}"]),
            helper.make_node("MatMulInteger", [f"q{i}", "w", f"z{i}"], [f"m{i}"]),
            helper.make_node("Cast", [f"m{i}"], [f"f{i}"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["s", f"s{i}"], [f"t{i}"]),
            helper.make_node("Mul", [f"t{i}", f"f{i}"], [f"y{i}"]),
            helper.make_node("Cast", [f"q{i}"], [f"r{i}"], to=TensorProto.FLOAT),
        ]
    shapes = {"y0": [1, 5], "y1": [1, 5], "s0": [], "r1": [1, 8], "r0": [1, 8]}
    path = save(tmp_path / "m.onnx", nodes, c, {"a": [1, 8], "b": [1, 8]}, shapes)
    x = {"a": samples((8,)), "b": samples((8,))[::-1].copy()}
    ours = quench_outputs(path, x, tmp_path / "run")
    for mine, theirs in zip(ours, ort_outputs(path, x)):
        assert error(mine.ravel(), theirs.ravel()) < 1e-5


def test_convolutions_of_quantize_dynamic(tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(3)
    c = {"w": rng.standard_normal((16, 3, 3, 3)), "b": rng.standard_normal(16), "v": rng.standard_normal((16, 4, 1, 3))}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], group=4, dilations=[1, 2]),
    ]
    constants = {k: (v * 0.2).astype(np.float32) for k, v in c.items()}
    path = save(tmp_path / "m.onnx", nodes, constants, {"x": [1, 3, 15, 17]}, {"y": [1, 16, 8, 5]})
    quantization.quantize_dynamic(path, tmp_path / "q.onnx")
    kinds = [n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node]
    assert kinds.count("ConvInteger") == 2
    x = samples((3, 15, 17))
    ours = quench_outputs(tmp_path / "q.onnx", x, tmp_path / "run")[0]
    assert error(ours, ort_outputs(tmp_path / "q.onnx", x)[0]) < 1e-5


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_matmulnbits_with_scales_of_any_sign(quench, bits, zeros, tmp_path):
    """Symmetric writers make scales negative; the last block is short; one scale is 0."""
    rng = np.random.default_rng(4)
    k, n, block, blocks = 80, 24, 32, 3
    c = {"w_packed": rng.integers(0, 256, (n, blocks, block * bits // 8), dtype=np.uint8)}
    c["s"] = (rng.standard_normal(n * blocks) * 0.02).astype(np.float32)
    c["s"][5] = 0
    if zeros:
        c["z"] = rng.integers(0, 256, n * ((blocks * bits + 7) // 8), dtype=np.uint8)
    node = helper.make_node("MatMulNBits", ["x", "w_packed", "s", *["z"] * zeros], ["y"], domain="com.microsoft",
                            K=k, N=n, bits=bits, block_size=block)  # fmt: skip
    path = save(tmp_path / "m.onnx", [node], c, {"x": [1, 5, k]}, {"y": [1, 5, n]}, microsoft=True)
    x = samples((5, k))
    theirs = ort_outputs(path, x)[0]
    assert error(quench_outputs(path, x, tmp_path / "a")[0], theirs) < 1e-5
    for form in ("qdq", "qoperator"):
        copy = tmp_path / f"{form}.onnx"
        assert quench("convert", path, "-o", copy, "--format", form).returncode == 0
        assert error(quench_outputs(copy, x, tmp_path / form)[0], theirs) < 1e-5
    assert error(ort_outputs(session(tmp_path / "qdq.onnx", PLAIN), x)[0], theirs) < 1e-5


def test_what_cannot_be_read_is_named(quench, tmp_path):
    c = {"w": np.zeros((4, 1, 16), np.uint8), "s": np.ones(3, np.float32)}
    node = helper.make_node("MatMulNBits", ["x", "w", "s"], ["y"], "product", domain="com.microsoft",
                            K=32, N=4, bits=4, block_size=32)  # fmt: skip
    path = save(tmp_path / "m.onnx", [node], c, {"x": [1, 32]}, {"y": [1, 4]}, microsoft=True)
    result = quench("inspect", path)
    assert result.returncode != 0 and "product" in result.stderr and '"s"' in result.stderr
    node.attribute.extend([helper.make_attribute("bits", 3)])
    del node.attribute[2]
    path = save(tmp_path / "m.onnx", [node], c, {"x": [1, 32]}, {"y": [1, 4]}, microsoft=True)
    result = quench("inspect", path)
    assert result.returncode != 0 and "3 bits" in result.stderr


def test_mnn_has_no_such_files(quench, tmp_path):
    path, _ = transformer(tmp_path / "m.onnx")
    result = quench("quantize", path, "-o", tmp_path / "q.mnn", "--dynamic")
    assert result.returncode != 0 and "MNN" in result.stderr
    result = quench("quantize", path, "-o", tmp_path / "q.onnx", "--dynamic", "--target", "mnn")
    assert result.returncode != 0 and "onnxruntime" in result.stderr
