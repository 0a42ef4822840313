"""Which products onnxruntime's kernels add in a saturating int16 on x86 without VNNI, measured, and
that files written for any x86 machine do not depend on it."""

import itertools
import subprocess
import sys

import numpy as np
import onnx
import pytest
from layers import Layer, ort_integers, quench_integers
from networks import AS_AVX2, network, quantize
from onnx import helper
from synthetic import many_operators, samples

SCALE = 1000.0
WHOLE, SATURATED = round(2 * 127 * 255 / SCALE), round(32767 / SCALE)


@pytest.fixture(scope="module", autouse=True)
def masked_cpu():
    """Skips where the CPU cannot be made to hide VNNI."""
    probe = subprocess.run([AS_AVX2, "true"], capture_output=True, text=True)
    if probe.returncode != 0 or "qemu" in probe.stderr:
        pytest.skip(f"no CPU without VNNI here: {probe.stderr.strip()}")


def one_node(kind, weights, x_shape, y_shape, **attributes):
    """QLinearConv or QLinearMatMul with input scale 1 and zero 0, output in thousands."""
    constants = {
        "xs": np.float32(1), "xz": np.uint8(0), "w": weights, "ws": np.float32(1),
        "wz": np.int8(0), "ys": np.float32(SCALE), "yz": np.uint8(0),
    }  # fmt: skip
    node = helper.make_node(kind, ["x", *constants], ["y"], "node", **attributes)
    u8 = onnx.TensorProto.UINT8
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", u8, x_shape)],
        [helper.make_tensor_value_info("y", u8, y_shape)],
        [onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def both(model, x_shape, folder):
    """(onnxruntime without VNNI, quench simulating it) on an input of all 255."""
    path = folder / "m.onnx"
    onnx.save(model, path)
    x = np.full((1, *x_shape), 255, np.uint8)
    layer = Layer("node", "node", path, {"x": x}, SCALE, 0, np.uint8)
    (theirs,) = ort_integers([layer], masked=True)
    plain = next(ort_integers([layer]))
    ours = quench_integers(layer, "--saturate16").reshape(theirs.shape)
    exact = quench_integers(layer).reshape(theirs.shape)
    return theirs[0], ours[0], plain[0], exact[0]


@pytest.mark.parametrize(
    ("cin", "groups", "kernel"),
    [(4, 1, (3, 3)), (3, 1, (3, 3)), (5, 1, (1, 1)), (4, 2, (3, 1)), (3, 1, (2, 1, 3)),
     (2, 2, (2, 2, 1))],
)  # fmt: skip
def test_inputs_2i_and_2i_plus_1_in_channels_last_order_are_paired(cin, groups, kernel, tmp_path):
    k = cin * int(np.prod(kernel))
    pairs = list(itertools.combinations(range(k), 2))
    # One output channel for each pair of weights; order [kh][kw][cin], of three axes [kd] before.
    weights = np.zeros((len(pairs), k), np.int8)
    for row, pair in zip(weights, pairs):
        row[list(pair)] = 127
    weights = np.moveaxis(weights.reshape(-1, *kernel, cin), -1, 1)
    weights = np.ascontiguousarray(np.concatenate([weights] * groups))
    x_shape = (1, cin * groups, *[8] * len(kernel))
    y_shape = (1, len(weights), *[9 - n for n in kernel])
    model = one_node("QLinearConv", weights, x_shape, y_shape, group=groups,
                     kernel_shape=kernel)  # fmt: skip
    theirs, ours, *_ = both(model, x_shape, tmp_path)
    expected = [SATURATED if i % 2 == 0 and j == i + 1 else WHOLE for i, j in pairs] * groups
    for got in (theirs, ours):
        assert (got == np.array(expected).reshape(1, -1, *[1] * len(kernel))).all()


def test_matrix_products_pair_neighbouring_rows(tmp_path):
    pairs = list(itertools.combinations(range(9), 2))
    weights = np.zeros((9, len(pairs)), np.int8)
    for column, pair in enumerate(pairs):
        weights[list(pair), column] = 127
    for rows in (1, 6):
        model = one_node("QLinearMatMul", weights, (rows, 9), (rows, len(pairs)))
        theirs, ours, *_ = both(model, (rows, 9), tmp_path)
        expected = [SATURATED if i % 2 == 0 and j == i + 1 else WHOLE for i, j in pairs]
        assert (theirs == np.array(expected)).all()
        assert (ours == np.array(expected)).all()


@pytest.mark.parametrize("axes", [2, 3])
def test_depthwise_convolutions_never_saturate(axes, tmp_path):
    weights = np.zeros((16, 1, *[3] * axes), np.int8)
    weights[:, 0, *[1] * (axes - 1), :2] = 127
    x_shape, y_shape = (1, 16, *[8] * axes), (1, 16, *[6] * axes)
    model = one_node("QLinearConv", weights, x_shape, y_shape, group=16,
                     kernel_shape=[3] * axes)  # fmt: skip
    for got in both(model, x_shape, tmp_path):
        assert (got == WHOLE).all()


def float_outputs(model, x, folder, masked):
    """All of onnxruntime's outputs, with or without the mask, in a process of its own."""
    program = (
        "import sys, numpy as np, onnxruntime as ort\n"
        "s = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])\n"
        "x = np.load(sys.argv[2])\n"
        "rows = [s.run(None, {s.get_inputs()[0].name: x[i : i + 1]}) for i in range(len(x))]\n"
        "np.savez(sys.argv[3], *[np.concatenate(c) for c in zip(*rows)])\n"
    )
    np.save(folder / "x.npy", x)
    out = folder / f"out{masked}.npz"
    command = [sys.executable, "-c", program, model, folder / "x.npy", out]
    command = [AS_AVX2, *command] if masked else command
    subprocess.run(list(map(str, command)), check=True)
    with np.load(out) as f:
        return [f[name] for name in f.files]


@pytest.mark.parametrize("name", ["synthetic", "mobilenet", "menet"])
def test_default_files_give_the_same_bits_without_vnni(quench, name, tmp_path):
    if name == "synthetic":
        path, x = tmp_path / "m.onnx", samples(16)
        onnx.save(many_operators(), path)
    else:
        net = network(name)
        path, x = net.path, net.inputs(8)
    counts = {}
    for kind in ("any", "vnni"):
        out = tmp_path / f"{kind}.onnx"
        quantize(quench, path, x, out, "--x86", kind)
        last_bytes = before_float_tail(out, tmp_path / f"{kind}-bytes.onnx")
        a, b = (float_outputs(last_bytes, x, tmp_path, m) for m in (False, True))
        counts[kind] = sum(int((u != v).sum()) for u, v in zip(a, b))
    assert counts["any"] == 0
    assert counts["vnni"] > 0, "nothing saturates: the test proves nothing"


def before_float_tail(model, path):
    """The same file ending in its last quantized tensors: float code such as Softmax differs by
    instruction set."""
    m = onnx.load(model)
    producer = {o: n for n in m.graph.node for o in n.output}
    outputs = []
    for output in m.graph.output:
        node = producer[output.name]
        while node.op_type != "QuantizeLinear":
            node = producer[node.input[0]]
        outputs.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.UINT8, None))
    del m.graph.output[:]
    m.graph.output.extend(outputs)
    onnx.save(m, path)
    return path
