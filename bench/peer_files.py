"""A quantized ONNX classifier in the files of runtimes that do not read ONNX: ncnn and TFLite.

Only what the classic networks of make_models.py consist of is written, and only for timing: TFLite
knows SAME padding alone, so windows of even strides lie one pixel elsewhere, and ncnn has symmetric
activations, so its zero points are dropped. Sizes, types and the number of products are the same.
"""

import struct
from dataclasses import dataclass, field

import flatbuffers
import numpy as np
import onnx
from onnx import numpy_helper


@dataclass
class Value:
    """A quantized tensor: NCHW shape, scale and zero point of unsigned bytes."""

    shape: tuple
    scale: float
    zero: int


@dataclass
class Layer:
    op: str
    inputs: list
    output: str
    attributes: dict = field(default_factory=dict)
    weight: np.ndarray = None  # int8, [out, in / group, kh, kw]
    weight_scale: np.ndarray = None
    bias: np.ndarray = None  # int32, scale = input's * weight's
    relu: bool = False


class Network:
    """The layers between a QDQ file's Quantize and Dequantize nodes."""

    def __init__(self, path):
        model = onnx.load(str(path))
        for tensor in model.graph.input:
            for d in tensor.type.tensor_type.shape.dim:
                if not d.HasField("dim_value"):
                    d.dim_value = 1
        del model.graph.value_info[:]
        model = onnx.shape_inference.infer_shapes(model)
        graph = model.graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        infos = [*graph.input, *graph.value_info, *graph.output]
        self.shapes = {
            v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in infos
        }
        self.same = {}  # a name of the file -> the quantized tensor it stands for
        self.weights = {}
        self.values = {}
        self.layers = []
        self.input, self.output = graph.input[0].name, None
        for node in graph.node:
            self._take(node)
        self.output = self.layers[-1].output

    def _take(self, node):
        first = node.input[0]
        if node.op_type == "DequantizeLinear":
            if first in self.constants:
                scale = np.atleast_1d(self.constants[node.input[1]])
                self.weights[node.output[0]] = self.constants[first], scale
            else:
                self.same[node.output[0]] = self.same.get(first, first)
            return
        if node.op_type == "QuantizeLinear":
            scale = float(self.constants[node.input[1]])
            zero = int(self.constants[node.input[2]])
            name = self.same.get(first, first)
            self.same[node.output[0]] = name
            self.values[name] = Value(self.shapes[first], scale, zero)
            made = [layer for layer in self.layers if layer.output == name]
            if made and made[0].op in ("Conv", "Gemm", "Add"):
                made[0].relu = zero == 0
            return
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        layer = Layer(node.op_type, [], node.output[0], attributes)
        for name in node.input:
            if name in self.weights:
                data, scale = self.weights[name]
                if layer.weight is None:
                    layer.weight, layer.weight_scale = data, scale
                else:
                    layer.bias = data
            elif name not in self.constants:
                layer.inputs.append(self.same.get(name, name))
        if layer.op == "Gemm" and not attributes.get("transB", 0):
            layer.weight = np.ascontiguousarray(layer.weight.T)
        self.layers.append(layer)

    def value(self, name):
        """A tensor that is not quantized has no scale."""
        return self.values.get(name) or Value(self.shapes[name], None, None)

    def feeds_only_convolutions(self, name):
        users = [layer.op for layer in self.layers if name in layer.inputs]
        return bool(users) and all(op == "Conv" for op in users)


# --- TFLite ---------------------------------------------------------------------------------------
INT32, INT8, FLOAT32 = 2, 9, 0
OPERATORS = {  # builtin code, type of its options, version
    "Add": (0, 11, 2), "AveragePool": (1, 5, 2), "Concat": (2, 10, 2), "Conv": (3, 1, 3),
    "Depthwise": (4, 2, 3), "Dequantize": (6, 26, 2), "Gemm": (9, 8, 4), "MaxPool": (17, 5, 2),
    "Reshape": (22, 17, 1), "Softmax": (25, 9, 2), "Mean": (40, 27, 2), "Quantize": (114, 89, 1),
}  # fmt: skip


class TFLite:
    def __init__(self, network):
        self.net = network
        self.b = flatbuffers.Builder(1 << 20)
        self.buffers = [b""]
        self.tensors, self.index = [], {}
        self.codes, self.operators = [], []

    def table(self, fields):
        """fields: slot -> (kind, value); kinds: offset, and the builder's scalars."""
        self.b.StartObject(max(fields, default=-1) + 1)
        for slot, (kind, value) in fields.items():
            if kind == "offset":
                self.b.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                getattr(self.b, f"Prepend{kind}Slot")(slot, value, None)
        return self.b.EndObject()

    def offsets(self, items):
        self.b.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.b.PrependUOffsetTRelative(item)
        return self.b.EndVector()

    def numbers(self, values, dtype):
        return self.b.CreateNumpyVector(np.asarray(values, dtype))

    def tensor(self, name, shape, kind, scale=None, zero=None, data=None, axis=0):
        if data is not None:
            self.buffers.append(np.ascontiguousarray(data).tobytes())
        self.index[name] = len(self.tensors)
        buffer = len(self.buffers) - 1 if data is not None else 0
        self.tensors.append((name, shape, kind, scale, zero, buffer, axis))
        return self.index[name]

    def activation(self, name):
        if name in self.index:
            return self.index[name]
        v = self.net.value(name)
        shape = [v.shape[0], *v.shape[2:], v.shape[1]] if len(v.shape) == 4 else list(v.shape)
        if v.scale is None:
            return self.tensor(name, shape, FLOAT32)
        return self.tensor(name, shape, INT8, [v.scale], [v.zero - 128])

    def as_float(self, index):
        name, shape, kind, *_ = self.tensors[index]
        if kind == FLOAT32:
            return index
        copy = self.index.get(f"{name}/float")
        if copy is None:
            copy = self.tensor(f"{name}/float", shape, FLOAT32)
            self.operator("Dequantize", [index], [copy], {})
        return copy

    def operator(self, kind, inputs, outputs, options):
        code = OPERATORS[kind]
        if code not in self.codes:
            self.codes.append(code)
        self.operators.append((self.codes.index(code), code[1], inputs, outputs, options))

    def weights(self, layer, data, axis):
        w = self.tensor(
            f"{layer.output}/w", data.shape, INT8, layer.weight_scale,
            [0] * len(layer.weight_scale), data, axis,
        )  # fmt: skip
        source = self.net.value(layer.inputs[0])
        scales = np.float32(source.scale) * layer.weight_scale
        bias = self.tensor(
            f"{layer.output}/b", layer.bias.shape, INT32, scales, [0] * len(scales), layer.bias
        )
        return [w, bias]

    def layer(self, layer):
        net, attributes = self.net, layer.attributes
        inputs = [self.activation(name) for name in layer.inputs]
        if net.value(layer.output).scale is None:
            inputs = [self.as_float(i) for i in inputs]
        relu = 1 if layer.relu else 0
        if layer.op == "GlobalAveragePool":
            axes = self.tensor(f"{layer.output}/axes", [2], INT32, data=np.array([1, 2], np.int32))
            output = self.activation(layer.output)
            self.operator("Mean", [*inputs, axes], [output], {0: ("Bool", True)})
            return
        output = self.activation(layer.output)
        if layer.op == "Conv":
            groups, (sh, sw) = attributes.get("group", 1), attributes.get("strides", [1, 1])
            valid = 1 if not any(attributes.get("pads", [0])) and layer.weight.shape[2] > 1 else 0
            common = {0: ("Int8", valid), 1: ("Int32", sw), 2: ("Int32", sh)}
            if groups == 1:
                data = layer.weight.transpose(0, 2, 3, 1)
                options = {**common, 3: ("Int8", relu), 4: ("Int32", 1), 5: ("Int32", 1)}
                self.operator("Conv", inputs + self.weights(layer, data, 0), [output], options)
            else:
                data = layer.weight.transpose(1, 2, 3, 0)
                options = {**common, 3: ("Int32", 1), 4: ("Int8", relu), 5: ("Int32", 1)}
                options[6] = ("Int32", 1)
                inputs += self.weights(layer, data, 3)
                self.operator("Depthwise", inputs, [output], options)
        elif layer.op == "Gemm":
            inputs += self.weights(layer, layer.weight, 0)
            self.operator("Gemm", inputs, [output], {0: ("Int8", relu)})
        elif layer.op in ("MaxPool", "AveragePool"):
            (sh, sw), (kh, kw) = attributes["strides"], attributes["kernel_shape"]
            before, after = net.value(layer.inputs[0]).shape[2], net.value(layer.output).shape[2]
            same = 0 if after == -(-before // sh) else 1
            options = {0: ("Int8", same), 1: ("Int32", sw), 2: ("Int32", sh)}
            options |= {3: ("Int32", kw), 4: ("Int32", kh)}
            self.operator(layer.op, inputs, [output], options)
        elif layer.op == "Add":
            self.operator("Add", inputs, [output], {0: ("Int8", relu)})
        elif layer.op == "Concat":
            self.operator("Concat", inputs, [output], {0: ("Int32", 3)})
        elif layer.op in ("Flatten", "Reshape"):
            shape = np.array(net.value(layer.output).shape, np.int32)
            inputs.append(self.tensor(f"{layer.output}/shape", [len(shape)], INT32, data=shape))
            self.operator("Reshape", inputs, [output], {})
        elif layer.op == "Softmax":
            self.operator("Softmax", inputs, [output], {0: ("Float32", 1.0)})
        else:
            raise SystemExit(f"error: {layer.output}: {layer.op} is not written to TFLite")

    def bytes(self):
        net = self.net
        first = net.value(net.input)
        shape = [first.shape[0], *first.shape[2:], first.shape[1]]
        source = self.tensor("input/float", shape, FLOAT32)
        self.operator("Quantize", [source], [self.activation(net.input)], {})
        for layer in net.layers:
            self.layer(layer)
        return self._finish(source, self.as_float(self.index[net.output]))

    def _finish(self, source, sink):
        b = self.b
        buffers = []
        for data in self.buffers:
            fields = {0: ("offset", self.numbers(np.frombuffer(data, np.uint8), np.uint8))}
            buffers.append(self.table(fields if data else {}))
        tensors = []
        for name, shape, kind, scale, zero, buffer, axis in self.tensors:
            fields = {0: ("offset", self.numbers(shape, np.int32)), 1: ("Int8", kind)}
            fields |= {2: ("Uint32", buffer), 3: ("offset", b.CreateString(name))}
            if scale is not None:
                q = {2: ("offset", self.numbers(scale, np.float32))}
                q |= {3: ("offset", self.numbers(zero, np.int64)), 6: ("Int32", axis)}
                fields[4] = ("offset", self.table(q))
            tensors.append(self.table(fields))
        operators = []
        for code, kind, inputs, outputs, options in self.operators:
            fields = {0: ("Uint32", code), 3: ("Uint8", kind)}
            fields |= {1: ("offset", self.numbers(inputs, np.int32))}
            fields |= {2: ("offset", self.numbers(outputs, np.int32))}
            fields[4] = ("offset", self.table(options))
            operators.append(self.table(fields))
        codes = [
            self.table({0: ("Int8", code), 2: ("Int32", version), 3: ("Int32", code)})
            for code, _, version in self.codes
        ]
        graph = {0: ("offset", self.offsets(tensors)), 3: ("offset", self.offsets(operators))}
        graph |= {1: ("offset", self.numbers([source], np.int32))}
        graph |= {2: ("offset", self.numbers([sink], np.int32))}
        graphs = self.offsets([self.table(graph)])
        model = {0: ("Uint32", 3), 1: ("offset", self.offsets(codes)), 2: ("offset", graphs)}
        model[4] = ("offset", self.offsets(buffers))
        b.Finish(self.table(model), b"TFL3")
        return bytes(b.Output())


def write_tflite(network, path):
    path.write_bytes(TFLite(network).bytes())


# --- ncnn -----------------------------------------------------------------------------------------
NCNN_INT8_TAG = 0x000D4B38


def _largest(value):
    """Of a symmetric range that holds all that the unsigned bytes stood for."""
    return value.scale * max(255 - value.zero, value.zero)


def _ncnn_weights(net, layer, requantize):
    data = layer.weight.astype(np.int8).tobytes()
    source = net.value(layer.inputs[0])
    bias = layer.bias * np.float64(source.scale) * layer.weight_scale
    parts = [struct.pack("<I", NCNN_INT8_TAG), data, bytes(-len(data) % 4)]
    parts.append(bias.astype(np.float32).tobytes())
    parts.append((1 / layer.weight_scale).astype(np.float32).tobytes())
    parts.append(np.float32(127 / _largest(source)).tobytes())
    if requantize:
        parts.append(np.float32(127 / _largest(net.value(layer.output))).tobytes())
    return b"".join(parts)


def write_ncnn(network, param_path, bin_path):
    net, lines, data, blobs = network, [], [], set()
    uses, taken = {}, {}
    for layer in net.layers:
        for name in layer.inputs:
            uses[name] = uses.get(name, 0) + 1

    def emit(kind, name, inputs, outputs, parameters=()):
        text = " ".join(f"{k}={v}" for k, v in parameters)
        lines.append(f"{kind} {name} {len(inputs)} {len(outputs)} {' '.join(inputs + outputs)} {text}")
        blobs.update(outputs)
        for output in outputs:
            if uses.get(output, 0) > 1 and kind != "Split":
                copies = [f"{output}_split_{i}" for i in range(uses[output])]
                emit("Split", f"split_{output}", [output], copies)
                taken[output] = copies

    def read(name):
        return taken[name].pop(0) if name in taken else name

    first = net.value(net.input).shape
    emit("Input", "input", [], [net.input], [(0, first[3]), (1, first[2]), (2, first[1])])
    for layer in net.layers:
        inputs, attributes = [read(n) for n in layer.inputs], layer.attributes
        output = [layer.output]
        if layer.op in ("Conv", "Gemm"):
            fused = layer.op == "Conv" and net.feeds_only_convolutions(layer.output)
            parameters = [(0, layer.weight.shape[0])]
            term = (8, 101 if fused else 1), (9, 1 if layer.relu else 0)
            if layer.op == "Conv":
                kh, kw = layer.weight.shape[2:]
                (sh, sw), pads = attributes.get("strides", [1, 1]), attributes.get("pads", [0] * 4)
                parameters += [(1, kw), (11, kh), (3, sw), (13, sh), (4, pads[1]), (14, pads[0])]
                parameters += [(15, pads[3]), (16, pads[2]), (5, 1), (6, layer.weight.size)]
                groups = attributes.get("group", 1)
                kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
                parameters += [] if groups == 1 else [(7, groups)]
            else:
                kind = "InnerProduct"
                parameters += [(1, 1), (2, layer.weight.size)]
            emit(kind, layer.output, inputs, output, [*parameters, *term])
            data.append(_ncnn_weights(net, layer, fused))
        elif layer.op in ("MaxPool", "AveragePool"):
            (sh, sw), (kh, kw) = attributes["strides"], attributes["kernel_shape"]
            pads = attributes.get("pads", [0] * 4)
            parameters = [(0, int(layer.op != "MaxPool")), (1, kw), (11, kh), (2, sw), (12, sh)]
            parameters += [(3, pads[1]), (13, pads[0]), (14, pads[3]), (15, pads[2]), (5, 1)]
            emit("Pooling", layer.output, inputs, output, parameters)
        elif layer.op == "GlobalAveragePool":
            emit("Pooling", layer.output, inputs, output, [(0, 1), (4, 1)])
        elif layer.op == "Add":
            if not layer.relu:
                emit("BinaryOp", layer.output, inputs, output, [(0, 0)])
                continue
            uses[f"{layer.output}_sum"] = 1
            emit("BinaryOp", f"{layer.output}_sum", inputs, [f"{layer.output}_sum"], [(0, 0)])
            emit("ReLU", layer.output, [f"{layer.output}_sum"], output)
        elif layer.op == "Concat":
            emit("Concat", layer.output, inputs, output, [(0, 0)])
        elif layer.op in ("Flatten", "Reshape"):
            emit("Flatten", layer.output, inputs, output)
        elif layer.op == "Softmax":
            emit("Softmax", layer.output, inputs, output, [(0, 0), (1, 1)])
        else:
            raise SystemExit(f"error: {layer.output}: {layer.op} is not written to ncnn")
    param_path.write_text("\n".join(["7767517", f"{len(lines)} {len(blobs)}", *lines]) + "\n")
    bin_path.write_bytes(b"".join(data))
