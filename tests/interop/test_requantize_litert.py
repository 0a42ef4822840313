"""Requantization by integers against TensorFlow Lite's reference kernels (ai-edge-litert): the
int8 files of MLPerf Tiny, operator for operator rebuilt as ONNX with the same weights and scales,
must give the same bytes in every tensor. Convolutions and sums are rounded twice there, fully
connected layers once."""

import numpy as np
import onnx
import pytest
from networks import common, quench_outputs
from onnx import helper, numpy_helper

litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs ai-edge-litert")

FILES = {
    "resnet8": ("mlperf-resnet8-cifar10/resnet8_int8.tflite", 2),
    "vww": ("mlperf-vww96/vww_96_int8.tflite", 2),
    "keywords": ("mlperf-kws/kws_dscnn_int8.tflite", 4),
}
I8 = onnx.TensorProto.INT8


class Network:
    """What the interpreter knows of a file: tensors, operators and, after a run, all values."""

    def __init__(self, path):
        resolver = litert.OpResolverType.BUILTIN_REF
        self.interpreter = litert.Interpreter(
            str(path), experimental_op_resolver_type=resolver,
            experimental_preserve_all_tensors=True,
        )  # fmt: skip
        self.interpreter.allocate_tensors()
        self.tensors = {t["index"]: t for t in self.interpreter.get_tensor_details()}
        self.nodes = self.interpreter._get_ops_details()
        self.input = self.interpreter.get_input_details()[0]["index"]

    def run(self, x):
        self.interpreter.set_tensor(self.input, x)
        self.interpreter.invoke()

    def value(self, index):
        return self.interpreter.get_tensor(index)

    def shape(self, index):
        return [int(d) for d in self.tensors[index]["shape"]]

    def parameters(self, index):
        p = self.tensors[index]["quantization_parameters"]
        return p["scales"].astype(np.float32), p["zero_points"]


def channels_first(x):
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x


def same_padding(size, kernel, stride, out):
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Rebuilt:
    """The operators that have sums, as ONNX; what others make is an input."""

    def __init__(self, network):
        self.network, self.nodes, self.constants = network, [], []
        self.inputs, self.outputs, self.rounded_once = [], [], []
        for node in network.nodes:
            inputs = [int(i) for i in node["inputs"]]
            (y,) = [int(i) for i in node["outputs"]]
            make = {"CONV_2D": self.conv, "DEPTHWISE_CONV_2D": self.conv, "ADD": self.add,
                    "FULLY_CONNECTED": self.connected}.get(node["op_name"])  # fmt: skip
            if make is not None:
                make(inputs, y, node["op_name"])
                self.outputs.append(y)

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def scalar_parameters(self, index):
        (scale,), (zero,) = self.network.parameters(index)
        return [self.constant(f"s{index}_{len(self.constants)}", np.float32(scale)),
                self.constant(f"z{index}_{len(self.constants)}", np.int8(zero))]  # fmt: skip

    def activation(self, index, flat=False):
        name = f"t{index}"
        known = {*self.outputs}
        if index not in known and all(i[0] != index for i in self.inputs):
            self.inputs.append((index, flat))
        return name

    def weights(self, index, values, bias, y):
        scales, zeros = self.network.parameters(index)
        assert not zeros.any()
        return [self.constant(f"w{index}", values), self.constant(f"ws{index}", scales),
                self.constant(f"wz{index}", np.zeros(len(scales), np.int8)),
                *self.scalar_parameters(y),
                self.constant(f"b{index}", self.network.value(bias).astype(np.int32))]  # fmt: skip

    def conv(self, inputs, y, kind):
        x, w, bias = inputs
        values, (_, h, width, c) = self.network.value(w), self.network.shape(x)
        _, oh, ow, _ = self.network.shape(y)
        depthwise = kind == "DEPTHWISE_CONV_2D"
        values = values.transpose(3, 0, 1, 2) if depthwise else values.transpose(0, 3, 1, 2)
        kh, kw = values.shape[2:]
        strides = [round(h / oh), round(width / ow)]
        top, bottom = same_padding(h, kh, strides[0], oh)
        left, right = same_padding(width, kw, strides[1], ow)
        names = [self.activation(x), *self.scalar_parameters(x),
                 *self.weights(w, np.ascontiguousarray(values), bias, y)]  # fmt: skip
        self.nodes.append(helper.make_node(
            "QLinearConv", names, [f"t{y}"], f"n{y}", strides=strides,
            pads=[top, left, bottom, right], group=c if depthwise else 1,
        ))  # fmt: skip

    def connected(self, inputs, y, _):
        x, w, bias = inputs
        values = self.network.value(w)[:, :, None, None]
        names = [self.activation(x, True), *self.scalar_parameters(x),
                 *self.weights(w, values, bias, y)]  # fmt: skip
        self.nodes.append(helper.make_node("QLinearConv", names, [f"t{y}"], f"n{y}"))
        self.rounded_once.append(y)

    def add(self, inputs, y, _):
        names = []
        for x in inputs:
            names += [self.activation(x), *self.scalar_parameters(x)]
        names += self.scalar_parameters(y)
        self.nodes.append(
            helper.make_node("QLinearAdd", names, [f"t{y}"], f"n{y}", domain="com.microsoft")
        )

    def shaped(self, index, flat=False):
        x = self.network.value(index)
        return x.reshape(1, -1, 1, 1) if flat else channels_first(x)

    def model(self):
        inputs = [helper.make_tensor_value_info(f"t{i}", I8, self.shaped(i, flat).shape)
                  for i, flat in self.inputs]  # fmt: skip
        outputs = [helper.make_tensor_value_info(f"t{i}", I8, None) for i in self.outputs]
        graph = helper.make_graph(self.nodes, "g", inputs, outputs, self.constants)
        opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.mark.parametrize("mask", ["scalar", "avx2", ""])
@pytest.mark.parametrize("name", FILES)
def test_every_tensor_is_that_of_the_reference_kernels(name, mask, tmp_path):
    path = common.SHARED / "models" / FILES[name][0]
    if not path.exists():
        pytest.skip(f"needs {path.name}")
    network = Network(path)
    rng = np.random.default_rng(len(name))
    shape = network.shape(network.input)
    options = ["--cpu", mask] if mask else []
    differs = 0
    for times in range(FILES[name][1]):
        # Smooth pictures and noise: sums of all sizes.
        x = rng.integers(-128, 128, shape) if times else np.indices(shape).sum(0) * 3 % 256 - 128
        network.run(x.astype(np.int8))
        rebuilt = Rebuilt(network)
        onnx.save(rebuilt.model(), tmp_path / "m.onnx")
        given = {f"t{i}": rebuilt.shaped(i, flat) for i, flat in rebuilt.inputs}
        inputs = given if len(given) > 1 else next(iter(given.values()))
        found = {
            kind: quench_outputs(
                tmp_path / "m.onnx", inputs, tmp_path / kind, "--requantize", kind, *options
            )
            for kind in ("gemmlowp", "gemmlowp-single")
        }
        assert len(found["gemmlowp"]) == len(rebuilt.outputs) > 8
        for i, index in enumerate(rebuilt.outputs):
            (scale,), (zero,) = network.parameters(index)
            wanted = channels_first(network.value(index)).astype(int)
            got = {k: (np.rint(v[i] / scale).astype(int) + zero).reshape(wanted.shape)
                   for k, v in found.items()}  # fmt: skip
            kind = "gemmlowp-single" if index in rebuilt.rounded_once else "gemmlowp"
            assert np.array_equal(got[kind], wanted), f"tensor {index}, {kind}"
            assert np.ptp(wanted) > 20
            differs += np.count_nonzero(got["gemmlowp"] != got["gemmlowp-single"])
    assert differs > 0  # the roundings are told apart
