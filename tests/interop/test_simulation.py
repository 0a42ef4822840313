"""The integers quench computes against those of onnxruntime's integer kernels, layer by layer."""

import numpy as np
import onnx
import pytest
from layers import Cutter, Layer, agreement, ort_integers, quench_integers
from networks import network, quantize
from onnx import helper, numpy_helper
from synthetic import many_operators, samples

MODELS = ["synthetic", "mobilenet", "squeezenet", "menet", "resnet20", "kws", "rfb", "fastestdet"]
SETTINGS = {
    "onnxruntime": [],
    "onnxruntime-qoperator": ["--format", "qoperator"],
    "arm": ["--target", "onnxruntime-arm"],
    "tensor": ["--granularity", "tensor"],
    "tensorrt": ["--target", "tensorrt"],
    "bits4": ["--weights", "admm", "--weight-bits", "4"],
    "bits2": ["--weight-bits", "2", "--format", "qoperator"],
    "pow2": ["--weights", "admm", "--weight-levels", "pow2"],
    "ternary": ["--weight-levels", "ternary", "--granularity", "tensor"],
    "clamp": ["--activations", "s8sym", "--feature-clamp", "63", "--weight-clamp", "40"],
}
RUNS = [(name, "onnxruntime") for name in MODELS] + [
    ("synthetic", "onnxruntime-qoperator"),
    ("synthetic", "arm"),
    ("synthetic", "tensor"),
    ("synthetic", "tensorrt"),
    ("menet", "onnxruntime-qoperator"),
    ("mobilenet", "arm"),
    ("menet", "arm"),
    ("resnet20", "arm"),
    ("fastestdet", "arm"),
    ("resnet20", "tensorrt"),
    ("synthetic", "bits4"),
    ("synthetic", "bits2"),
    ("synthetic", "ternary"),
    ("synthetic", "clamp"),
    ("mobilenet", "pow2"),
    ("resnet20", "bits4"),
]


def quantized_layers(quench, name, options, folder):
    if name == "synthetic":
        path, x = folder / "m.onnx", samples(16)
        onnx.save(many_operators(), path)
    else:
        net = network(name)
        path, x = net.path, net.inputs(4)
    quantize(quench, path, x, folder / "q.onnx", *options)
    return list(Cutter(folder / "q.onnx").layers(x[:: len(x) // 2][:2], folder))


def compare(layers, masked=False, options=()):
    theirs = ort_integers(layers, masked)
    return [agreement(l, t, quench_integers(l, *options)) for l, t in zip(layers, theirs)]


def check(results, record_property, exact=True):
    """Within a step on 99.9 % of a layer's values; exact where onnxruntime computes in integers."""
    total = sum(a.equal for a in results) / len(results)
    record_property("equal", total)
    print(f"{len(results)} layers, {100 * total:.4f} % of values equal on average")
    for a in results:
        if a.equal < 1:
            print(f"{a.layer.op} {a.layer.name}: equal {100 * a.equal:.4f} %, worst {a.worst}")
    far = [f"{a.layer.op} {a.layer.name} {a.within_one}" for a in results if a.within_one < 0.999]
    assert not far
    unequal = [f"{a.layer.op} {a.layer.name} {a.equal}" for a in results if a.equal < 1]
    assert not (exact and unequal)


@pytest.mark.parametrize(("name", "setting"), RUNS)
def test_each_layer_gives_the_integers_of_onnxruntime(
    quench, name, setting, tmp_path, record_property
):
    layers = quantized_layers(quench, name, SETTINGS[setting], tmp_path)
    # For tensorrt onnxruntime computes in float what we compute in integers.
    check(compare(layers), record_property, exact=setting != "tensorrt")


@pytest.mark.parametrize("name", ["synthetic", "mobilenet", "menet", "squeezenet"])
def test_saturation_is_simulated(quench, name, tmp_path, record_property):
    layers = quantized_layers(quench, name, ["--x86", "vnni"], tmp_path)
    results = compare(layers, masked=True, options=["--saturate16"])
    check(results, record_property)
    without = compare(layers, masked=True)
    assert any(a.worst > 1 for a in without), "nothing saturates: the test proves nothing"


BYTES = {np.uint8: (0, 256), np.int8: (-128, 128)}


def every_pair(dtype):
    lo, hi = BYTES[dtype]
    row = np.arange(lo, hi)
    return row.repeat(256).astype(dtype), np.tile(row, 256).astype(dtype)


@pytest.mark.parametrize("dtype", BYTES)
@pytest.mark.parametrize(("kind", "repeated"), [("Add", ""), ("Add", "a"), ("Add", "b"), ("Mul", "")])
def test_sums_and_products_of_all_bytes_are_equal(kind, dtype, repeated, tmp_path):
    """Scales in small ratios, so that many results lie between two integers."""
    rng = np.random.default_rng(9)
    a, b = every_pair(dtype)
    inputs = {"a": a, "b": b}
    if repeated == "b":
        inputs = {"a": b, "b": a}  # rows of one value are the repeated operand's
    inputs = {n: v.reshape(1, 256, 256) for n, v in inputs.items()}
    if repeated:
        inputs[repeated] = inputs[repeated][..., :1]
    layers = []
    for trial in range(8):
        y_scale = np.float32(rng.uniform(0.01, 0.1))
        ratios = rng.integers(1, 40, 2) / rng.integers(1, 24, 2)
        scales = (y_scale * ratios).astype(np.float32)
        if kind == "Mul":
            y_scale = np.float32(scales[0] * scales[1] * rng.integers(1, 200) / 2)
        zeros = [dtype(rng.integers(*BYTES[dtype])) for _ in range(3)]
        path = tmp_path / f"{trial}.onnx"
        save_binary(f"QLinear{kind}", scales, y_scale, zeros, inputs, path)
        samples = {n: v[None] for n, v in inputs.items()}
        layers.append(Layer(f"trial {trial}", kind, path, samples, y_scale, int(zeros[2]), dtype))
    unequal = [a for a in compare(layers) if a.equal < 1]
    assert not unequal, [(a.layer.name, a.equal) for a in unequal]


def save_binary(kind, scales, y_scale, zeros, inputs, path):
    constants = {"as": scales[0], "az": zeros[0], "bs": scales[1], "bz": zeros[1],
                 "ys": y_scale, "yz": zeros[2]}  # fmt: skip
    order = ["a", "as", "az", "b", "bs", "bz", "ys", "yz"]
    node = helper.make_node(kind, order, ["y"], "node", domain="com.microsoft")
    element = helper.np_dtype_to_tensor_dtype(inputs["a"].dtype)
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(n, element, v.shape) for n, v in inputs.items()],
        [helper.make_tensor_value_info("y", element, [1, 256, 256])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
