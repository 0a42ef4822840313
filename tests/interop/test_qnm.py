"""Compact files: they answer as the models they were made of, bit for bit, in every command."""

import json
import struct
import zlib

import numpy as np
import onnx
import pytest
from conftest import make_model, small_classifier
from networks import NETWORKS, network, quantize, quench_outputs
from onnx import helper
from synthetic import many_operators, samples


def convert(quench, source, target, *options):
    result = quench("convert", source, "-o", target, "--json", *options)
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["bytes"] == target.stat().st_size
    return target


def same(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        assert x.shape == y.shape and x.tobytes() == y.tobytes()
        assert np.ptp(x) > 0


def check_same(quench, model, x, folder):
    plain = convert(quench, model, folder / "plain.qnm")
    packed = convert(quench, model, folder / "packed.qnm", "--packed", "native,scalar",
                     "--strip-names")  # fmt: skip
    assert packed.stat().st_size > plain.stat().st_size
    for threads in (1, 2):
        options = ["--threads", threads]
        wanted = quench_outputs(model, x, folder / "a", *options)
        same(wanted, quench_outputs(plain, x, folder / "b", *options))
        same(wanted, quench_outputs(packed, x, folder / "c", *options))
    scalar = ["--cpu", "scalar", "--threads", 1]
    same(quench_outputs(plain, x[:1], folder / "d", *scalar),
         quench_outputs(packed, x[:1], folder / "e", *scalar))  # fmt: skip


@pytest.mark.parametrize("form", ["qdq", "qoperator"])
@pytest.mark.parametrize("name", ["synthetic", *NETWORKS])
def test_quantized_models_answer_the_same(quench, name, form, tmp_path):
    if name == "synthetic":
        onnx.save(many_operators(), tmp_path / "m.onnx")
        path, x = tmp_path / "m.onnx", samples(4)
    else:
        net = network(name)
        path, x = net.path, net.inputs(4)
    out = tmp_path / "q.onnx"
    quantize(quench, path, x, out, "--format", form)
    check_same(quench, out, x, tmp_path)


@pytest.mark.parametrize("name", ["mobilenet", "resnet20"])
def test_mnn_models_answer_the_same(quench, name, tmp_path):
    net = network(name)
    x = net.inputs(3)
    quantize(quench, net.path, x, tmp_path / "q.mnn", "--target", "mnn")
    check_same(quench, tmp_path / "q.mnn", x, tmp_path)


@pytest.mark.parametrize("name", ["synthetic", "squeezenet", "kws"])
def test_float_models_answer_the_same(quench, name, tmp_path):
    if name == "synthetic":
        onnx.save(many_operators(), tmp_path / "m.onnx")
        path, x = tmp_path / "m.onnx", samples(3)
    else:
        net = network(name)
        path, x = net.path, net.inputs(3)
    made = convert(quench, path, tmp_path / "m.qnm")
    same(quench_outputs(path, x, tmp_path / "a"), quench_outputs(made, x, tmp_path / "b"))


@pytest.fixture
def quantized(quench, workspace):
    result = quench("quantize", workspace / "m.onnx", "-o", workspace / "q.onnx", "--data",
                    workspace / "x.npy")  # fmt: skip
    assert result.returncode == 0, result.stderr
    return workspace / "q.onnx"


def test_every_command_reads_it(quench, quantized, workspace):
    made = convert(quench, quantized, workspace / "q.qnm")
    data = ["--data", workspace / "x.npy"]
    for command in (
        ["run", made, workspace / "x.npy"],
        ["bench", made, "--rounds", "2"],
        ["inspect", made],
        ["inspect", "--json", made],
        ["compare", workspace / "m.onnx", made, *data],
        ["eval", made, "--labels", workspace / "pictures" / "labels.csv", "--images",
         workspace / "pictures", "--mean", "127.5", "--normal", "0.0078"],
    ):  # fmt: skip
        result = quench(*command)
        assert result.returncode == 0, (command, result.stderr)
        assert result.stdout
    again = convert(quench, made, workspace / "again.qnm")
    assert again.read_bytes() == made.read_bytes()
    # quantize writes it as well
    result = quench("quantize", workspace / "m.onnx", "-o", workspace / "direct.qnm", *data)
    assert result.returncode == 0, result.stderr
    x = np.load(workspace / "x.npy")
    same(quench_outputs(made, x, workspace / "a"),
         quench_outputs(workspace / "direct.qnm", x, workspace / "b"))  # fmt: skip


def test_the_bytes_do_not_depend_on_threads_or_kernels(quench, quantized, workspace):
    wanted = convert(quench, quantized, workspace / "a.qnm", "--packed", "avx2,vnni,neon")
    for i, options in enumerate((["--threads", "2"], ["--cpu-mask", "scalar"])):
        made = convert(quench, quantized, workspace / f"{i}.qnm", "--packed", "avx2,vnni,neon",
                       *options)  # fmt: skip
        assert made.read_bytes() == wanted.read_bytes()


def test_back_to_onnx(quench, quantized, workspace, tmp_path):
    x = np.load(workspace / "x.npy")
    made = convert(quench, quantized, workspace / "q.qnm")
    back = convert(quench, made, workspace / "back.onnx")
    onnx.checker.check_model(str(back), full_check=True)
    same(quench_outputs(quantized, x, tmp_path / "a"), quench_outputs(back, x, tmp_path / "b"))


def test_the_header_is_as_documented(quench, quantized, workspace):
    made = convert(quench, quantized, workspace / "q.qnm", "--packed", "avx2").read_bytes()
    assert made[:8] == b"\x89QNM\r\n\x1a\n"
    version, flags, size, checksum, sections = struct.unpack_from("<IIQII", made, 8)
    assert (version, flags, size, sections) == (1, 0, len(made), 3)
    assert checksum == zlib.crc32(made[:24] + bytes(4) + made[28:])
    end = 64 + 32 * sections
    for i in range(sections):
        kind, required, offset, length = struct.unpack_from("<IIQQ", made, 64 + 32 * i)
        assert kind == i + 1 and required == (i < 2)
        assert offset % 64 == 0 and end <= offset < end + 64
        end = offset + length
    assert end == len(made)


def test_damage_is_found_by_inspect(quench, quantized, workspace):
    made = convert(quench, quantized, workspace / "q.qnm")
    data = bytearray(made.read_bytes())
    data[-1] ^= 1
    made.write_bytes(data)
    result = quench("inspect", made)
    assert result.returncode == 1 and "checksum" in result.stderr and str(made) in result.stderr
    assert len(result.stderr.splitlines()) == 1
    made.write_bytes(data[:-1])
    result = quench("run", made, workspace / "x.npy")
    assert result.returncode == 1 and "its header says" in result.stderr


def test_shapes_are_fixed_when_it_is_written(quench, tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu")]
    onnx.save(make_model(nodes, {"x": ["N", 3, "H", "W"]}, {"y": ["N", 3, "H", "W"]}, {}),
              tmp_path / "m.onnx")  # fmt: skip
    result = quench("convert", tmp_path / "m.onnx", "-o", tmp_path / "m.qnm")
    assert result.returncode == 2 and '"x"' in result.stderr and "dimension 2" in result.stderr
    assert not (tmp_path / "m.qnm").exists()
    convert(quench, tmp_path / "m.onnx", tmp_path / "m.qnm", "--input-shape", "x:2,3,8,6")
    text = quench("inspect", tmp_path / "m.qnm").stdout
    assert "x float32 [2x3x8x6]" in text and "y float32 [2x3x8x6]" in text
    onnx.save(small_classifier(), tmp_path / "c.onnx")
    convert(quench, tmp_path / "c.onnx", tmp_path / "c.qnm", "--batch", "3")
    assert "[3x3x16x16]" in quench("inspect", tmp_path / "c.qnm").stdout


@pytest.mark.parametrize(
    "options", [["--packed", "avx2"], ["--strip-names"], ["--batch", "2"]], ids=str
)
def test_options_of_other_formats(quench, quantized, workspace, options):
    result = quench("convert", quantized, "-o", workspace / "c.onnx", *options)
    assert result.returncode == 2 and ".qnm" in result.stderr


def test_unknown_instruction_sets(quench, quantized, workspace):
    result = quench("convert", quantized, "-o", workspace / "c.qnm", "--packed", "avx2,mips")
    assert result.returncode == 2 and '"mips"' in result.stderr
    assert not (workspace / "c.qnm").exists()


def quantized_pair(name, scale, zero, dtype):
    """A pair of QuantizeLinear and DequantizeLinear behind tensor `name`, and its result."""
    constants = {f"{name}_s": np.float32(scale), f"{name}_z": dtype(zero)}
    nodes = [
        helper.make_node("QuantizeLinear", [name, f"{name}_s", f"{name}_z"], [f"{name}_q"]),
        helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [f"{name}_d"]),
    ]  # fmt: skip
    return nodes, constants, f"{name}_d"


def many_orders(folder):
    """What is packed in orders of its own: integers, weights off their centre, transposed ones,
    three axes, weights alone."""
    rng = np.random.default_rng(11)
    nodes, constants, at = [], {}, "x"

    def quantize_here(scale, zero=128):
        nonlocal at
        pair, values, at = quantized_pair(at, scale, zero, np.uint8)
        nodes.extend(pair)
        constants.update(values)

    def weights(name, dims, scale, zero, dtype):
        info = np.iinfo(dtype)
        constants[f"{name}_i"] = rng.integers(info.min, info.max + 1, dims).astype(dtype)
        constants.update({f"{name}_s": np.float32(scale), f"{name}_z": dtype(zero)})
        names = [f"{name}_{i}" for i in "isz"]
        nodes.append(helper.make_node("DequantizeLinear", names, [name]))

    def add(op, *inputs, **attributes):
        nonlocal at
        out = f"t{len(nodes)}"
        nodes.append(helper.make_node(op, [at, *inputs], [out], **attributes))
        at = out

    quantize_here(0.03)
    weights("w", (8, 3, 3, 3), 0.002, 30, np.uint8)
    add("Conv", "w", pads=[1, 1, 1, 1])
    quantize_here(0.02)
    weights("wt", (8, 4, 4, 3), 0.002, 0, np.int8)
    add("ConvTranspose", "wt", strides=[2, 2], pads=[1, 1, 1, 0])
    quantize_here(0.03)
    constants["five"] = np.array([-1, 1, 4, 16, 16], np.int64)
    add("Reshape", "five")
    weights("w5", (4, 1, 3, 2, 3), 0.004, 200, np.uint8)
    add("Conv", "w5", pads=[1, 0, 1, 1, 1, 1])
    quantize_here(0.05)
    constants["four"] = np.array([-1, 16, 16, 16], np.int64)
    add("Reshape", "four")
    constants["wf"] = rng.standard_normal((16, 5, 3, 3)).astype(np.float32) * 0.1
    add("ConvTranspose", "wf", strides=[3, 2], pads=[1, 1, 1, 1], group=1)
    constants["scale"] = np.float32(10)
    add("Mul", "scale")
    add("Abs")
    add("Cast", to=onnx.TensorProto.UINT8)
    constants["zero"] = np.uint8(9)
    constants["wi"] = rng.integers(0, 256, (6, 5, 3, 3)).astype(np.uint8)
    constants["zi"] = rng.integers(0, 256, 6).astype(np.uint8)
    add("ConvInteger", "wi", "zero", "zi", strides=[2, 3])
    constants["small"] = np.float32(1e-3)
    add("Cast", to=onnx.TensorProto.FLOAT)
    add("Mul", "small")
    add("GlobalAveragePool")
    constants["row"] = np.array([-1, 6], np.int64)
    add("Reshape", "row")
    constants["wide"] = rng.standard_normal((6, 512)).astype(np.float32)
    add("MatMul", "wide")
    weights("alone", (512, 512), 0.01, 7, np.int8)
    add("MatMul", "alone")
    add("Abs")
    add("Cast", to=onnx.TensorProto.UINT8)
    constants["wg"] = rng.integers(-128, 128, (512, 40)).astype(np.int8)
    add("MatMulInteger", "wg", "zero")
    nodes.append(helper.make_node("Cast", [at], ["y"], to=onnx.TensorProto.FLOAT))
    model = make_model(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 40]}, constants)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx", rng.standard_normal((3, 3, 8, 8)).astype(np.float32)


def test_what_is_packed_in_other_orders_answers_the_same(quench, tmp_path):
    path, x = many_orders(tmp_path)
    check_same(quench, path, x, tmp_path)
