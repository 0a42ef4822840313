#!/usr/bin/env python3
"""Write classic 224x224 networks with random weights, for benches that need no accuracy.

    make_models.py OUTDIR [--only resnet18 ...]

ONNX opset 13, symbolic batch "N", input `input` [N, 3, 224, 224]. Weights are He-scaled and seeded;
BatchNormalization nodes carry the statistics that their inputs really have on seeded pictures, so
that activations keep the ranges of a trained network and no kernel meets denormals or infinities.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
IR_VERSION = 7
SIZE = 224
CLASSES = 1000
BN_EPSILON = 1e-5


class Builder:
    """Appends nodes to a graph. Without statistics it builds a network that measures them."""

    def __init__(self, name, statistics=None):
        self.name = name
        self.statistics = statistics
        # Not hash(): that differs from process to process.
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes, self.constants, self.measured = [], [], []
        self.channels = {"input": 3}

    def constant(self, name, value):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op, inputs, channels, **attributes):
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        self.channels[name] = channels
        return name

    def conv(self, x, out, kernel, stride=1, groups=1, pad=None, bias=False):
        fan_in = self.channels[x] // groups * kernel * kernel
        shape = (out, self.channels[x] // groups, kernel, kernel)
        tag = f"conv_{len(self.nodes)}"
        weight = self.rng.normal(0, np.sqrt(2 / fan_in), shape)
        inputs = [x, self.constant(f"{tag}.weight", weight.astype(np.float32))]
        if bias:
            value = self.rng.normal(0, 0.1, out).astype(np.float32)
            inputs.append(self.constant(f"{tag}.bias", value))
        return self.node(
            "Conv", inputs, out,
            kernel_shape=[kernel, kernel], strides=[stride, stride], group=groups,
            pads=[kernel // 2 if pad is None else pad] * 4,
        )  # fmt: skip

    def norm(self, x, gain=1.0):
        """gain: how strong a trained network makes this branch; small where it ends in an Add."""
        count = self.channels[x]
        scale = (gain * self.rng.uniform(0.6, 1.4, count)).astype(np.float32)
        shift = self.rng.normal(0, 0.3 * gain, count).astype(np.float32)
        if self.statistics is None:
            return self._measuring_norm(x, scale, shift)
        mean, variance = self.statistics.pop(0)
        tag = f"bn_{len(self.nodes)}"
        parts = {"scale": scale, "bias": shift, "mean": mean, "var": variance}
        names = [self.constant(f"{tag}.{k}", v) for k, v in parts.items()]
        return self.node("BatchNormalization", [x, *names], count, epsilon=BN_EPSILON)

    def _measuring_norm(self, x, scale, shift):
        """The same function of a batch's own statistics, which become outputs."""
        count = self.channels[x]
        tag = f"measure_{len(self.nodes)}"
        column = (1, count, 1, 1)
        mean = self.node("ReduceMean", [x], count, axes=[0, 2, 3], keepdims=1)
        centred = self.node("Sub", [x, mean], count)
        square = self.node("Mul", [centred, centred], count)
        variance = self.node("ReduceMean", [square], count, axes=[0, 2, 3], keepdims=1)
        self.measured += [mean, variance]
        epsilon = self.constant(f"{tag}.epsilon", np.float32(BN_EPSILON))
        deviation = self.node("Sqrt", [self.node("Add", [variance, epsilon], count)], count)
        unit = self.node("Div", [centred, deviation], count)
        scaled = self.node(
            "Mul", [unit, self.constant(f"{tag}.scale", scale.reshape(column))], count
        )
        return self.node(
            "Add", [scaled, self.constant(f"{tag}.shift", shift.reshape(column))], count
        )

    def relu(self, x):
        return self.node("Relu", [x], self.channels[x])

    def relu6(self, x):
        tag = f"clip_{len(self.nodes)}"
        low = self.constant(f"{tag}.min", np.float32(0))
        high = self.constant(f"{tag}.max", np.float32(6))
        return self.node("Clip", [x, low, high], self.channels[x])

    def add(self, a, b):
        return self.node("Add", [a, b], self.channels[a])

    def max_pool(self, x, kernel, stride, pad=0, ceil=0):
        return self.node(
            "MaxPool", [x], self.channels[x],
            kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, ceil_mode=ceil,
        )  # fmt: skip

    def pool_flat(self, x):
        pooled = self.node("GlobalAveragePool", [x], self.channels[x])
        return self.node("Flatten", [pooled], self.channels[x], axis=1)

    def dense(self, x, out):
        fan_in = self.channels[x]
        weight = self.rng.normal(0, np.sqrt(2 / fan_in), (out, fan_in)).astype(np.float32)
        bias = self.rng.normal(0, 0.1, out).astype(np.float32)
        tag = f"dense_{len(self.nodes)}"
        names = [self.constant(f"{tag}.weight", weight), self.constant(f"{tag}.bias", bias)]
        return self.node("Gemm", [x, *names], out, transB=1)

    def model(self, last, output="prob"):
        """The network up to `last`, or while measuring, everything up to the last statistic."""
        measuring = self.statistics is None
        if not measuring:
            self.nodes.append(helper.make_node("Softmax", [last], [output], name=output, axis=1))
        x = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])
        y = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", CLASSES])
        outputs = [onnx.ValueInfoProto(name=n) for n in self.measured] if measuring else [y]
        graph = helper.make_graph(self.nodes, self.name, [x], outputs, self.constants)
        opset = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)
        model.producer_name = "quench bench"
        return model


def mobilenet_v1(b):
    def separable(x, out, stride):
        x = b.relu6(b.norm(b.conv(x, b.channels[x], 3, stride, groups=b.channels[x])))
        return b.relu6(b.norm(b.conv(x, out, 1)))

    x = b.relu6(b.norm(b.conv("input", 32, 3, 2)))
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for out, stride in plan:
        x = separable(x, out, stride)
    return b.dense(b.pool_flat(x), CLASSES)


def mobilenet_v2(b):
    def bottleneck(x, out, stride, expand):
        entry, inner = x, b.channels[x] * expand
        if expand != 1:
            x = b.relu6(b.norm(b.conv(x, inner, 1)))
        x = b.relu6(b.norm(b.conv(x, inner, 3, stride, groups=inner)))
        joined = stride == 1 and b.channels[entry] == out
        x = b.norm(b.conv(x, out, 1), gain=0.4 if joined else 1.0)
        return b.add(entry, x) if joined else x

    x = b.relu6(b.norm(b.conv("input", 32, 3, 2)))
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)]
    plan += [(6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, out, count, stride in plan:
        for i in range(count):
            x = bottleneck(x, out, stride if i == 0 else 1, expand)
    x = b.relu6(b.norm(b.conv(x, 1280, 1)))
    return b.dense(b.pool_flat(x), CLASSES)


def resnet(b, block, counts):
    x = b.relu(b.norm(b.conv("input", 64, 7, 2)))
    x = b.max_pool(x, 3, 2, pad=1)
    for stage, count in enumerate(counts):
        for i in range(count):
            x = block(b, x, 64 << stage, 2 if stage and i == 0 else 1)
    return b.dense(b.pool_flat(x), CLASSES)


def shortcut(b, x, out, stride):
    if stride == 1 and b.channels[x] == out:
        return x
    return b.norm(b.conv(x, out, 1, stride))


def basic_block(b, x, width, stride):
    y = b.relu(b.norm(b.conv(x, width, 3, stride)))
    y = b.norm(b.conv(y, width, 3), gain=0.4)
    return b.relu(b.add(y, shortcut(b, x, width, stride)))


def bottleneck_block(b, x, width, stride):
    y = b.relu(b.norm(b.conv(x, width, 1)))
    y = b.relu(b.norm(b.conv(y, width, 3, stride)))
    y = b.norm(b.conv(y, 4 * width, 1), gain=0.4)
    return b.relu(b.add(y, shortcut(b, x, 4 * width, stride)))


def squeezenet(b):
    def fire(x, squeeze, expand):
        s = b.relu(b.conv(x, squeeze, 1, bias=True))
        branches = [b.relu(b.conv(s, expand, k, bias=True)) for k in (1, 3)]
        return b.node("Concat", branches, 2 * expand, axis=1)

    x = b.relu(b.conv("input", 64, 3, 2, pad=0, bias=True))
    plan = [None, (16, 64), (16, 64), None, (32, 128), (32, 128), None]
    plan += [(48, 192), (48, 192), (64, 256), (64, 256)]
    for step in plan:
        x = fire(x, *step) if step else b.max_pool(x, 3, 2, ceil=1)
    return b.pool_flat(b.relu(b.conv(x, CLASSES, 1, bias=True)))


MODELS = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet18": lambda b: resnet(b, basic_block, (2, 2, 2, 2)),
    "resnet50": lambda b: resnet(b, bottleneck_block, (3, 4, 6, 3)),
    "squeezenet_v1.1": squeezenet,
}


def seeded_pictures(count=8):
    """Blurred noise in -1..1: neighbouring pixels go together, as in photographs."""
    rng = np.random.default_rng(20)
    coarse = rng.uniform(-1, 1, (count, 3, 14, 14)).repeat(16, 2).repeat(16, 3)
    fine = rng.uniform(-1, 1, (count, 3, SIZE, SIZE))
    return (0.7 * coarse + 0.3 * fine).astype(np.float32)


def measure_statistics(make, name):
    builder = Builder(name)
    model = builder.model(make(builder))
    if not builder.measured:
        return []
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(builder.measured, {"input": seeded_pictures()})
    flat = [round_to_digits(v.reshape(-1)) for v in values]
    return list(zip(flat[::2], flat[1::2], strict=True))


def round_to_digits(values, digits=3):
    """Machines sum floats in different orders; after rounding almost all values are equal."""
    return np.array([float(f"{v:.{digits}g}") for v in values], np.float32)


def make_model(name):
    builder = Builder(name, measure_statistics(MODELS[name], name))
    model = builder.model(MODELS[name](builder))
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("outdir", type=Path)
    p.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    args = p.parse_args()
    args.outdir.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        path = args.outdir / f"{name}.onnx"
        onnx.save(make_model(name), path)
        print(path)


if __name__ == "__main__":
    main()
