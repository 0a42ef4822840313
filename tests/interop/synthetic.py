"""A small network with every operator that has an integer form, and some that have none."""

import numpy as np
from conftest import make_model
from onnx import helper


def many_operators(seed=3):
    """[N,3,16,16] -> [N,5] and [N,8,16,16]: convolutions of all kinds, pools, Concat, Resize..."""
    rng = np.random.default_rng(seed)
    init, nodes = {}, []

    def weights(*shape):
        # Heavy tails, so that 8-bit weights would saturate pairs of products.
        w = rng.standard_t(4, shape) / np.sqrt(np.prod(shape[1:]))
        return w.astype(np.float32)

    def op(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(name, value, dtype=np.int64):
        init[name] = np.array(value, dtype)
        return name

    def conv(x, output, cin, cout, kernel, bias=True, group=1, **attributes):
        init[f"{output}.w"] = weights(cout, cin // group, *kernel)
        inputs = [x, f"{output}.w"]
        if bias:
            init[f"{output}.b"] = 0.3 * weights(cout, 1)[:, 0]
            inputs.append(f"{output}.b")
        return op("Conv", inputs, output, group=group, **attributes)

    stem = op("Relu", [conv("x", "stem", 3, 8, (3, 3), pads=[1, 1, 1, 1])], "stem_relu")
    lo, hi = constant("zero", 0, np.float32), constant("six", 6, np.float32)
    wise = conv(stem, "depthwise", 8, 8, (3, 3), group=8, pads=[1, 1, 1, 1])
    wise = op("Clip", [wise, lo, hi], "relu6")
    double = conv(stem, "multiplier", 8, 16, (3, 3), group=8, pads=[1, 1, 1, 1])
    grouped = op("LeakyRelu", [conv(double, "grouped", 16, 8, (1, 1), group=2)], "leaky", alpha=0.1)
    dilated = conv(stem, "dilated", 8, 8, (3, 3), dilations=[2, 2], pads=[2, 2, 2, 2], bias=False)
    gate = op("Sigmoid", [conv(stem, "gate", 8, 8, (1, 1))], "sigmoid")
    product = op("Mul", [dilated, gate], "gated")
    squeezed = conv(op("GlobalAveragePool", [stem], "squeeze"), "excite", 8, 8, (1, 1))
    product = op("Mul", [product, op("Sigmoid", [squeezed], "excitation")], "excited")
    added = op("Add", [op("Add", [wise, grouped], "sum"), squeezed], "shifted")
    added = op("Relu", [added], "sum_relu")
    joined = op("Concat", [added, product], "joined", axis=1)
    constant("five", [0, 2, 8, 16, 16])
    constant("four", [0, 16, 16, 16])
    shuffled = op("Reshape", [joined, "five"], "r5")
    shuffled = op("Transpose", [shuffled], "t5", perm=[0, 2, 1, 3, 4])
    shuffled = op("Reshape", [shuffled, "four"], "r4")
    wide = conv(shuffled, "strided", 16, 24, (5, 3), strides=[2, 2], pads=[2, 1, 2, 1])
    wide = op("Relu", [wide], "strided_relu")
    pooled = op("MaxPool", [wide], "maxpool", kernel_shape=[2, 2], strides=[2, 2])
    average = op("AveragePool", [wide], "avgpool", kernel_shape=[3, 3], strides=[2, 2],
                 pads=[1, 1, 1, 1], count_include_pad=1)  # fmt: skip
    cin = 24
    init["up"] = np.array([1, 1, 4, 4], np.float32)
    both = op("Add", [pooled, average], "pools")
    large = op("Resize", [both, "", "up"], "resized", mode="nearest",
               coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
    op("Tanh", [conv(large, "side", cin, 8, (1, 1))], "map")
    flat = op("Flatten", [op("GlobalAveragePool", [both], "gap")], "flat")
    init["fc.w"], init["fc.b"] = weights(16, cin), 0.1 * weights(16, 1)[:, 0]
    hidden = op("Relu", [op("Gemm", [flat, "fc.w", "fc.b"], "fc", transB=1)], "fc_relu")
    init["head.w"] = weights(16, 5)
    op("Softmax", [op("MatMul", [hidden, "head.w"], "head")], "prob", axis=1)
    return make_model(
        nodes, {"x": ["N", 3, 16, 16]}, {"prob": ["N", 5], "map": ["N", 8, 16, 16]}, init
    )


def samples(count, seed=11):
    """Smooth enough to look like pictures, and reaching both ends of the range."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(-1.5, 1.5, (count, 3, 4, 4))
    x = coarse.repeat(4, 2).repeat(4, 3) + rng.normal(0, 0.3, (count, 3, 16, 16))
    return x.astype(np.float32)
