#!/usr/bin/env python3
"""Write trained parameters as ONNX: NCHW, opset 13, BatchNormalization kept.

Before writing, spread() makes the network as awkward to quantize as networks
met in practice are. It changes no output: see its comment.
"""

import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZE = 48
EPS = 1e-5
# (input channels, expanded channels, output channels, stride)
BLOCKS = [
    (16, 48, 24, 2),
    (24, 96, 24, 1),
    (24, 96, 40, 2),
    (40, 160, 40, 1),
    (40, 160, 64, 2),
    (64, 256, 64, 1),
]
SEED = 11
# Channel ranges, in powers of two: the spread of all, and how weak the few
# weakest channels of each block are.
SPREAD_BITS, WEAK_BITS, WEAK_SHARE = 2, 4, 0.02


# ---- spread -------------------------------------------------------------------

def scale_output(tensors, name, factors):
    """Multiply what a convolution's BatchNorm puts out, channel by channel."""
    tensors[f"{name}.gamma"] = tensors[f"{name}.gamma"] * factors
    tensors[f"{name}.beta"] = tensors[f"{name}.beta"] * factors


def range_factors(rng, count):
    """Powers of two for the channels before and behind a depthwise layer."""
    low = rng.integers(-SPREAD_BITS, 1, count)
    # What is small going in comes out large, so that the filters take the sum
    # of both spreads but each activation tensor only its own.
    before, after = 2.0 ** low, 2.0 ** (-SPREAD_BITS - low)
    weak = rng.choice(count, max(1, round(count * WEAK_SHARE)), replace=False)
    before[weak] = 2.0 ** -WEAK_BITS
    return before.astype(np.float32), after.astype(np.float32)


def spread(tensors):
    """Spread the channel ranges inside each block; the function stays the same.

    Relu(s * x) = s * Relu(x) for s > 0, so a factor given to a channel is taken
    back by the weights that read it. All factors are powers of two, which makes
    even the float rounding the same. Folding the BatchNorms then gives
    depthwise filters of very different sizes, as folding gives in ImageNet
    MobileNets, and one scale for a whole tensor cannot hold them.
    """
    rng = np.random.default_rng(SEED)
    tensors = dict(tensors)
    for i, (_, mid, _, _) in enumerate(BLOCKS):
        before, after = range_factors(rng, mid)
        scale_output(tensors, f"b{i}.expand", before)
        # The BatchNorm behind keeps its statistics: its input is unchanged.
        tensors[f"b{i}.dw.w"] = tensors[f"b{i}.dw.w"] / before
        scale_output(tensors, f"b{i}.dw", after)
        tensors[f"b{i}.project.w"] = tensors[f"b{i}.project.w"] / after[:, None]
    return tensors


# ---- ONNX ---------------------------------------------------------------------

class Graph:
    """Collects nodes and initializers; every call returns its output's name."""

    def __init__(self):
        self.nodes, self.initializers = [], []

    def constant(self, name, value):
        value = np.ascontiguousarray(value, dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind, name, inputs, **attributes):
        out = f"{name}.out"
        self.nodes.append(helper.make_node(kind, inputs, [out], name, **attributes))
        return out

    def conv_bn(self, tensors, name, x, stride=1, depthwise=False):
        w = tensors[f"{name}.w"].transpose(3, 2, 0, 1)
        size = w.shape[2]
        pad = size // 2
        y = self.node("Conv", name, [x, self.constant(f"{name}.weight", w)],
                      kernel_shape=[size, size], strides=[stride, stride],
                      pads=[pad] * 4, dilations=[1, 1],
                      group=w.shape[0] if depthwise else 1)
        parts = [self.constant(f"{name}.bn.{part}", tensors[f"{name}.{part}"])
                 for part in ("gamma", "beta", "mean", "var")]
        return self.node("BatchNormalization", f"{name}.bn", [y] + parts,
                         epsilon=EPS, momentum=0.9)

    def relu6(self, name, x):
        return self.node("Clip", name, [x, "relu6.min", "relu6.max"])


def build(tensors):
    graph = Graph()
    graph.constant("relu6.min", 0.0)
    graph.constant("relu6.max", 6.0)
    x = graph.relu6("stem.clip", graph.conv_bn(tensors, "stem", "input", 2))
    for i, (cin, _, cout, stride) in enumerate(BLOCKS):
        y = graph.conv_bn(tensors, f"b{i}.expand", x)
        y = graph.node("Relu", f"b{i}.expand.relu", [y])
        y = graph.conv_bn(tensors, f"b{i}.dw", y, stride, depthwise=True)
        y = graph.node("Relu", f"b{i}.dw.relu", [y])
        y = graph.conv_bn(tensors, f"b{i}.project", y)
        keep = stride == 1 and cin == cout
        x = graph.node("Add", f"b{i}.add", [x, y]) if keep else y
    x = graph.relu6("head.clip", graph.conv_bn(tensors, "head", x))
    x = graph.node("GlobalAveragePool", "pool", [x])
    x = graph.node("Flatten", "flatten", [x], axis=1)
    x = graph.node("Gemm", "fc", [x, graph.constant("fc.weight", tensors["fc.w"].T),
                                  graph.constant("fc.bias", tensors["fc.b"])],
                   alpha=1.0, beta=1.0, transB=1)
    graph.nodes.append(helper.make_node("Softmax", [x], ["prob"], "softmax", axis=-1))
    return graph


def write(tensors, path):
    graph = build(tensors)
    classes = tensors["fc.b"].shape[0]
    proto = helper.make_graph(
        graph.nodes, "quench_demo",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["N", classes])],
        graph.initializers)
    model = helper.make_model(proto, producer_name="quench",
                              opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 7
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def export(weights, path):
    tensors = dict(np.load(weights))
    write(spread(tensors), path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path,
                        default=pathlib.Path("assets/model/quench_demo.onnx"))
    args = parser.parse_args()
    export(args.weights, args.out)


if __name__ == "__main__":
    main()
