"""Small ONNX networks of one operator each, for exports to MNN."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (1, 6, 9, 8)


def values(*dims, seed=0, low=-2.0, high=2.0):
    random = np.random.default_rng(seed)
    return random.uniform(low, high, dims).astype(np.float32)


class Case:
    """Nodes over inputs "x", "y"...; constants by name; the last node's outputs are the model's."""

    def __init__(self, name, nodes, inputs, constants=(), opset=17, positive=False, ints=False):
        self.name, self.nodes, self.inputs = name, nodes, inputs
        self.constants, self.opset, self.positive = dict(constants), opset, positive
        self.ints = ints

    def feeds(self, seed=1):
        low = 0.1 if self.positive else -3.0
        return {
            name: values(*dims, seed=seed + i, low=low, high=3.0)
            for i, (name, dims) in enumerate(self.inputs.items())
        }

    def model(self):
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, dims)
                for n, dims in self.inputs.items()
            ],
            [
                helper.make_tensor_value_info(
                    n, TensorProto.INT64 if self.ints is True or n in (self.ints or ())
                    else TensorProto.FLOAT, None
                )
                for n in self.nodes[-1].output
            ],
            [numpy_helper.from_array(np.asarray(v), n) for n, v in self.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        model.ir_version = 8
        return onnx.shape_inference.infer_shapes(model)


def node(op, inputs, outputs=("out",), **attributes):
    return helper.make_node(op, list(inputs), list(outputs), name=op.lower() + "_node", **attributes)


def one(name, op, inputs=None, constants=(), order=None, opset=17, positive=False, ints=False,
        outputs=("out",), **attributes):  # fmt: skip
    inputs = inputs or {"x": IMAGE}
    names = order if order is not None else list(inputs) + list(dict(constants))
    return Case(name, [node(op, names, outputs, **attributes)], inputs, constants, opset, positive,
                ints)  # fmt: skip


def i64(*numbers):
    return np.array(numbers, np.int64)


def convolutions():
    def conv(name, shape, image=IMAGE, bias=True, **attributes):
        constants = {"w": values(*shape, seed=5)}
        if bias:
            constants["b"] = values(shape[0], seed=6)
        return one(name, "Conv", {"x": image}, constants, **attributes)

    def transposed(name, shape, image=IMAGE, group=1, **attributes):
        constants = {"w": values(*shape, seed=5), "b": values(shape[1] * group, seed=6)}
        return one(name, "ConvTranspose", {"x": image}, constants, group=group, **attributes)

    yield conv("conv", (5, 6, 3, 3))
    yield conv("conv_no_bias", (5, 6, 3, 3), bias=False)
    yield conv("conv_padded", (8, 6, 3, 3), pads=[1, 1, 1, 1])
    yield conv("conv_asymmetric_pads", (4, 6, 3, 3), pads=[0, 1, 2, 1], strides=[2, 2])
    yield conv("conv_dilated", (4, 6, 3, 3), pads=[2, 2, 2, 2], dilations=[2, 2])
    yield conv("conv_1x1_stride", (7, 6, 1, 1), strides=[2, 2])
    yield conv("conv_wide_kernel", (4, 6, 1, 5), pads=[0, 2, 0, 2])
    yield conv("conv_group", (6, 2, 3, 3), group=3, pads=[1, 1, 1, 1])
    yield conv("conv_depthwise", (6, 1, 3, 3), group=6, pads=[1, 1, 1, 1])
    yield conv("conv_depthwise_multiplier", (12, 1, 3, 3), group=6)
    yield conv("conv_batch", (5, 6, 3, 3), image=(2, 6, 9, 8))
    yield conv("conv_same_upper", (5, 6, 3, 3), auto_pad="SAME_UPPER", strides=[2, 2])
    yield conv("conv_1d", (5, 6, 3), image=(1, 6, 20), pads=[1, 1])
    yield conv("conv_1d_depthwise", (6, 1, 3), image=(1, 6, 20), group=6, strides=[2])
    yield transposed("deconv", (6, 5, 3, 3))
    yield transposed("deconv_stride", (6, 5, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    yield transposed("deconv_output_padding", (6, 5, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1],
                     output_padding=[1, 1])  # fmt: skip
    yield transposed("deconv_depthwise", (6, 1, 4, 4), group=6, strides=[2, 2], pads=[1, 1, 1, 1])
    yield transposed("deconv_group", (6, 2, 3, 3), group=2)

    def then(name, op, inputs=("c",), constants=(), outputs=("out",), opset=17, **attributes):
        nodes = [node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
                 node(op, inputs, outputs, **attributes)]  # fmt: skip
        constants = {"w": 0.2 * values(6, 6, 3, 3, seed=5), "b": values(6, seed=6),
                     **dict(constants)}  # fmt: skip
        return Case(name, nodes, {"x": IMAGE}, constants, opset)

    yield then("conv_relu", "Relu")
    limits = {"lo": np.float32(0), "hi": np.float32(6)}
    yield then("conv_relu6", "Clip", ("c", "lo", "hi"), limits)
    limits = {"lo": np.float32(-1), "hi": np.float32(2.5)}
    yield then("conv_clip", "Clip", ("c", "lo", "hi"), limits)
    yield then("conv_transpose_axes", "Transpose", perm=[0, 2, 3, 1])
    yield then("conv_flatten", "Flatten", axis=1)
    yield then("conv_reshape", "Reshape", ("c", "s"), {"s": i64(1, 3, -1)})
    yield then("conv_reduce", "ReduceMean", axes=[2, 3], keepdims=0)
    yield then("conv_softmax", "Softmax", axis=1)
    yield then("conv_add_channels", "Add", ("c", "v"), {"v": values(6, 1, 1)})
    yield then("conv_add_row", "Add", ("c", "v"), {"v": values(8)})
    yield then("conv_add_input", "Add", ("c", "x"))
    yield then("conv_concat_input", "Concat", ("c", "x"), axis=1)
    yield then("conv_concat_rows", "Concat", ("x", "c"), axis=2)
    for op in "HardSigmoid Softplus HardSwish Elu Selu LeakyRelu Exp GlobalMaxPool LRN".split():
        yield then("conv_" + op.lower(), op, **({"size": 3} if op == "LRN" else {}))
    yield then("conv_mul_scalar", "Mul", ("c", "v"), {"v": np.float32(0.7)})
    yield then("conv_sub_left", "Sub", ("v", "c"), {"v": values(1, 6, 1, 1)})
    yield then("conv_max_row", "Max", ("c", "v"), {"v": values(9, 8)})
    yield then("conv_prelu", "PRelu", ("c", "v"), {"v": values(6, 1, 1)})
    yield then("conv_prelu_full", "PRelu", ("c", "v"), {"v": values(6, 9, 8)})
    yield then("conv_pad", "Pad", ("c", "v"), {"v": i64(0, 1, 2, 0, 0, 2, 1, 3)})
    yield then("conv_pad_edge", "Pad", ("c", "v"), {"v": i64(0, 0, 2, 0, 0, 0, 1, 3)}, mode="edge")
    yield then("conv_gather", "Gather", ("c", "v"), {"v": i64(0, -1, 3)}, axis=1)
    yield then("conv_tile", "Tile", ("c", "v"), {"v": i64(1, 2, 1, 2)})
    yield then("conv_reshape_image", "Reshape", ("c", "v"), {"v": i64(1, 6, 12, 6)})
    yield then("conv_reduce_max", "ReduceMax", axes=[1], keepdims=0)
    yield then("conv_split", "Split", axis=1, outputs=["p", "q", "r"], num_outputs=3, opset=18)
    head = [node("Conv", ["x", "w"], ["c"]), node("Flatten", ["c"], ["f"]),
            node("Relu", ["f"], ["r"]), node("Gemm", ["r", "g"], ["h"]),
            node("Sigmoid", ["h"], ["s"]), node("Gemm", ["s", "k"], ["out"])]  # fmt: skip
    for i, n in enumerate(head):
        n.name = f"node{i}"
    yield Case("conv_two_products", head, {"x": (2, 3, 5, 6)},
               {"w": values(4, 3, 3, 3), "g": values(48, 10), "k": values(10, 3)})  # fmt: skip
    yield then("conv_slice", "Slice", ("c", "s", "e", "a"),
               {"s": i64(1), "e": i64(4), "a": i64(1)})  # fmt: skip


def products():
    yield one("gemm", "Gemm", {"x": (3, 7)}, {"w": values(7, 5), "b": values(5)})
    yield one("gemm_transposed", "Gemm", {"x": (3, 7)}, {"w": values(5, 7), "b": values(5)},
              transB=1)  # fmt: skip
    yield one("gemm_scaled", "Gemm", {"x": (7, 3)}, {"w": values(7, 5), "b": values(1, 5)},
              alpha=0.5, beta=2.0, transA=1)  # fmt: skip
    yield one("gemm_two", "Gemm", {"x": (3, 7), "y": (7, 4)})
    yield one("matmul_constant", "MatMul", {"x": (2, 3, 7)}, {"w": values(7, 5)})
    yield one("matmul_vector", "MatMul", {"x": (1, 7)}, {"w": values(7, 5)})
    yield one("matmul_two", "MatMul", {"x": (2, 3, 4, 5), "y": (2, 3, 5, 6)})
    yield one("matmul_broadcast", "MatMul", {"x": (2, 3, 4, 5), "y": (5, 6)})
    yield one("matmul_constant_left", "MatMul", {"y": (5, 6)}, {"w": values(4, 5)}, ["w", "y"])


def pools():
    for name, attributes in {
        "max": dict(op="MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
        "max_padded": dict(op="MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        "max_asymmetric": dict(op="MaxPool", kernel_shape=[3, 3], strides=[2, 2],
                               pads=[0, 0, 1, 1]),
        "max_ceil": dict(op="MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        "max_ceil_dropped": dict(op="MaxPool", kernel_shape=[2, 2], strides=[2, 2],
                                 pads=[1, 1, 1, 1], ceil_mode=1),
        "average_ceil_dropped": dict(op="AveragePool", kernel_shape=[2, 2], strides=[2, 2],
                                     pads=[1, 1, 1, 1], ceil_mode=1),
        "average": dict(op="AveragePool", kernel_shape=[3, 2], strides=[1, 2]),
        "average_exclude": dict(op="AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        "average_include": dict(op="AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                                count_include_pad=1),
        "average_ceil": dict(op="AveragePool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        "global_average": dict(op="GlobalAveragePool"),
        "global_max": dict(op="GlobalMaxPool"),
    }.items():  # fmt: skip
        op = attributes.pop("op")
        yield one("pool_" + name, op, **attributes)
    yield one("pool_max_1d", "MaxPool", {"x": (1, 6, 20)}, kernel_shape=[2], strides=[2])


def elementwise():
    for op in "Add Sub Mul Div Min Max".split():
        yield one("binary_" + op.lower(), op, {"x": IMAGE, "y": IMAGE}, positive=op == "Div")
    yield one("binary_pow", "Pow", {"x": IMAGE}, {"p": np.float32(1.5)}, positive=True)
    yield one("binary_square", "Pow", {"x": IMAGE}, {"p": np.float32(2)})
    yield one("binary_ranks", "Add", {"x": IMAGE, "y": (9, 1)})
    yield one("binary_constant_left", "Sub", {"x": IMAGE}, {"c": values(1, 6, 1, 1)}, ["c", "x"])
    yield one("binary_scalar", "Mul", {"x": (4, 5)}, {"c": np.float32(0.3)})
    yield one("max_three", "Max", {"x": (4, 5), "y": (4, 5), "z": (1, 5)})
    unary = "Relu Sigmoid Tanh Exp Abs Neg Floor Ceil Round Erf Softplus HardSwish Elu Selu Identity"
    for op in unary.split():
        yield one("unary_" + op.lower(), op)
    for op in "Log Sqrt Reciprocal".split():
        yield one("unary_" + op.lower(), op, positive=True)
    yield one("gelu", "Gelu", opset=20)
    yield one("leaky_relu", "LeakyRelu", alpha=0.2)
    yield one("elu_alpha", "Elu", alpha=0.6)
    yield one("hard_sigmoid", "HardSigmoid", alpha=0.25, beta=0.4)
    yield one("prelu", "PRelu", {"x": IMAGE}, {"s": values(6, 1, 1)})
    yield one("prelu_one", "PRelu", {"x": IMAGE}, {"s": values(1)})
    limits = {"lo": np.float32(-0.5), "hi": np.float32(1.5)}
    yield one("clip", "Clip", {"x": IMAGE}, limits)
    yield one("clip_low", "Clip", {"x": IMAGE}, {"lo": np.float32(-0.5)})
    yield one("clip_high", "Clip", {"x": IMAGE}, {"hi": np.float32(0.5)}, ["x", "", "hi"])
    compare = [node("Greater", ["x", "y"], ["g"]), node("Where", ["g", "x", "y"])]
    yield Case("where_greater", compare, {"x": IMAGE, "y": IMAGE})
    compare = [node("Greater", ["y", "c"], ["g"]), node("Where", ["g", "x", "z"])]
    yield Case("where_spread", compare, {"x": (4, 5), "y": (4, 1), "z": (5,)}, {"c": np.float32(0)})
    compare = [node("Greater", ["x", "c"], ["g"]), node("Where", ["g", "x", "y"])]
    yield Case("where_row", compare, {"x": (2, 4, 5), "y": (1, 5)}, {"c": np.float32(0)})
    compare = [node("Less", ["x", "c"], ["g"]), node("Cast", ["g"], to=TensorProto.FLOAT)]
    yield Case("cast_less", compare, {"x": (4, 5)}, {"c": np.float32(0.5)})


    for op in "Sin Cos Tan Atan Sinh Cosh Asinh Sign Softsign Celu ThresholdedRelu".split():
        yield one("unary_" + op.lower(), op)
    yield one("celu_alpha", "Celu", alpha=0.7)
    yield one("swish", "Swish", opset=24, alpha=1.5) if onnx.defs.onnx_opset_version() >= 24 else one(
        "softsign_3", "Softsign", {"x": (3, 4, 5)})  # fmt: skip
    for op in "Mish Shrink".split():
        yield one("unary_" + op.lower(), op, opset=18)
    large = [node("Mul", ["x", "c"], ["m"]), node("Mish", ["m"])]
    yield Case("mish_large", large, {"x": IMAGE}, {"c": np.float32(40)}, opset=18)
    yield one("shrink_bias", "Shrink", lambd=0.7, bias=0.4)
    yield one("mean_three", "Mean", {"x": (4, 5), "y": (4, 5), "z": (1, 5)})
    cast = lambda i, o, to=TensorProto.INT32: helper.make_node("Cast", [i], [o], name="cast_" + o, to=to)
    whole = [cast("x", "i"), cast("y", "j")]
    for op in "Less LessOrEqual Greater GreaterOrEqual Equal".split():
        for kind, shape in (("same", (4, 50)), ("row", (50,)), ("one", (1,))):
            rounded = [helper.make_node("Round", ["x"], ["rx"], "rx"), helper.make_node("Round", ["y"], ["ry"], "ry")]
            yield Case(f"compare_{op.lower()}_{kind}", [*rounded, node(op, ["rx", "ry"], ["g"]), cast("g", "out", TensorProto.FLOAT)],
                       {"x": (4, 50), "y": shape})  # fmt: skip
        yield Case(f"compare_{op.lower()}_integers", [*whole, node(op, ["i", "j"], ["g"]), cast("g", "out", TensorProto.FLOAT)],
                   {"x": (4, 50), "y": (4, 50)})  # fmt: skip
    for op in "BitwiseAnd BitwiseOr BitwiseXor".split():
        yield Case("bits_" + op.lower(), [*whole, node(op, ["i", "j"], ["k"]), node("CastLike", ["k", "x"])],
                   {"x": (4, 5), "y": (4, 5)}, opset=18)  # fmt: skip
    remainder = [*whole, node("Mul", ["i", "c"], ["m"]), node("Add", ["j", "d"], ["n"]), node("Mod", ["m", "n"], ["k"]),
                 cast("k", "out", TensorProto.FLOAT)]  # fmt: skip
    for sign in (1, -1):
        c_like = [helper.make_node("Mod", ["m", "n"], ["k"], "rest", fmod=1) if n.op_type == "Mod" else n for n in remainder]
        yield Case(f"fmod_{sign}", c_like, {"x": (4, 5), "y": (4, 5)}, {"c": np.int32(5), "d": np.int32(7 * sign)})
        yield Case(f"mod_{sign}", remainder, {"x": (4, 5), "y": (4, 5)},
                   {"c": np.int32(5), "d": np.int32(7 * sign)})  # fmt: skip
    for op in "Asin Acos Atanh".split():
        yield Case("unary_" + op.lower(), [node("Sin", ["x"], ["s"]), node("Mul", ["s", "c"], ["m"]),
                   node(op, ["m"])], {"x": IMAGE}, {"c": np.float32(0.9)})  # fmt: skip
    yield Case("unary_acosh", [node("Abs", ["x"], ["s"]), node("Add", ["s", "c"], ["m"]),
               node("Acosh", ["m"])], {"x": IMAGE}, {"c": np.float32(1.1)})  # fmt: skip
    truth = [node("GreaterOrEqual", ["x", "y"], ["a"]), node("LessOrEqual", ["x", "c"], ["b"]),
             node("And", ["a", "b"], ["d"]), node("Or", ["d", "b"], ["e"]), node("Not", ["e"], ["f"]),
             node("Xor", ["f", "a"], ["g"]), node("Where", ["g", "x", "y"])]  # fmt: skip
    yield Case("truth", truth, {"x": (4, 5), "y": (4, 5)}, {"c": np.float32(0.5)})
    yield one("sum_three", "Sum", {"x": (4, 5), "y": (4, 5), "z": (1, 5)})


def normalizations_of_parts():
    for p in (1, 2):
        yield one(f"lp_normalization_{p}", "LpNormalization", axis=1, p=p)
    yield one("mean_variance", "MeanVarianceNormalization")
    yield one("mean_variance_axes", "MeanVarianceNormalization", axes=[1, -1])
    affine = {"s": values(6, seed=4), "b": values(6, seed=5)}
    if onnx.defs.onnx_opset_version() >= 23:
        yield one("rms", "RMSNormalization", {"x": (2, 4, 8)}, {"s": values(8, seed=3)}, opset=23, axis=-1)
        yield one("rms_two", "RMSNormalization", {"x": (2, 4, 8)}, {"s": values(4, 8, seed=3)}, opset=23, axis=1)
        yield one("group_norm", "GroupNormalization", {"x": IMAGE}, affine, opset=21, num_groups=3, epsilon=1e-3)
        yield one("group_norm_line", "GroupNormalization", {"x": (1, 6, 10)}, affine, opset=21, num_groups=2)
    for k in (0, 2, -2, 9):
        for upper in (0, 1):
            yield one(f"trilu_{k}_{upper}", "Trilu", {"x": (2, 5, 7)}, {"k": np.int64(k)}, upper=upper)
    yield one("triu", "Trilu", {"x": (6, 4)})
    for padding in ("zeros", "border", "reflection"):
        for mode in ("bilinear", "nearest"):
            for corners in (0, 1) if (padding, mode) != ("reflection", "bilinear") else ():
                nodes = [node("Mul", ["g", "c"], ["m"]),
                         node("GridSample", ["x", "m"], mode=mode, padding_mode=padding, align_corners=corners)]
                yield Case(f"grid_{mode}_{padding}_{corners}", nodes, {"x": (1, 3, 6, 7), "g": (1, 4, 5, 2)},
                           {"c": np.float32(0.41)})  # fmt: skip


def picks():
    yield one("gather_nd", "GatherND", {"x": (4, 5, 3)}, {"i": np.array([[0, 1], [3, -1]])})
    yield one("gather_nd_rows", "GatherND", {"x": (4, 5, 3)}, {"i": np.array([[[2]], [[-4]]])})
    yield one("gather_elements", "GatherElements", {"x": (4, 5)},
              {"i": np.array([[0, 1], [3, 4], [-1, 2], [0, -5]])}, axis=1)  # fmt: skip
    yield one("scatter_nd", "ScatterND", {"x": (4, 5)},
              {"i": np.array([[0], [-2]]), "u": values(2, 5)})  # fmt: skip
    yield one("scatter_nd_points", "ScatterND", {"x": (4, 5)},
              {"i": np.array([[0, 1], [2, -1]]), "u": values(2)})  # fmt: skip
    yield one("scatter_elements", "ScatterElements", {"x": (4, 5)},
              {"i": np.array([[0, 1], [3, -1], [2, 1], [0, 3]]), "u": values(4, 2)}, axis=-1)  # fmt: skip
    for name, attributes in [("", {}), ("_smallest", {"largest": 0}), ("_inside", {"axis": 1})]:
        yield one("top_k" + name, "TopK", {"x": (3, 8, 2) if name == "_inside" else (3, 8)},
                  {"k": i64(2)}, outputs=["v", "i"], ints=["i"], **attributes)  # fmt: skip
    best = node("ArgMax", ["x"], ["m"], axis=1, keepdims=0)
    for axis in (-1, 0, 1):
        yield Case(f"one_hot_{axis % 3}", [best, node("OneHot", ["m", "d", "v"], axis=axis)], {"x": (3, 8)},
                   {"d": np.int64(8), "v": values(2)})  # fmt: skip
    made = [node("ArgMin", ["x"], ["m"], axis=1, keepdims=1),
            node("GatherElements", ["x", "m"], axis=1)]  # fmt: skip
    yield Case("gather_elements_made", made, {"x": (3, 8)})
    yield one("cum_sum", "CumSum", {"x": (3, 8)}, {"a": np.int64(-1)})
    yield one("cum_sum_back", "CumSum", {"x": (3, 8)}, {"a": np.int64(0)}, exclusive=1, reverse=1)
    yield one("eye_like", "EyeLike", {"x": (4, 6)}, k=-1)


def normalizations():
    c = 6
    norm = {"s": values(c, low=0.5), "b": values(c), "m": values(c), "v": values(c, low=0.2)}
    yield one("batch_norm", "BatchNormalization", {"x": IMAGE}, norm)
    two = {"s": values(c, low=0.5), "b": values(c)}
    yield one("instance_norm", "InstanceNormalization", {"x": IMAGE}, two, epsilon=0.1)
    yield one("layer_norm", "LayerNormalization", {"x": (2, 3, 8)},
              {"s": values(8, low=0.5), "b": values(8)}, axis=-1, epsilon=0.1)
    yield one("layer_norm_two_axes", "LayerNormalization", {"x": (2, 3, 8)},
              {"s": values(3, 8, low=0.5), "b": values(3, 8)}, axis=1)  # fmt: skip
    yield one("lrn", "LRN", size=3, alpha=0.01, beta=0.6, bias=1.2)
    yield one("softmax", "Softmax", {"x": (3, 7)})
    yield one("softmax_channels", "Softmax", axis=1)
    yield one("log_softmax", "LogSoftmax", {"x": (3, 7)}, axis=-1)


def movements():
    yield one("reshape", "Reshape", {"x": IMAGE}, {"s": i64(1, 6, -1)})
    yield one("reshape_zero", "Reshape", {"x": IMAGE}, {"s": i64(0, 2, 3, -1)})
    yield one("flatten", "Flatten", axis=1)
    yield one("flatten_two", "Flatten", axis=2)
    yield one("squeeze", "Squeeze", {"x": (1, 6, 1, 8)}, {"a": i64(2)})
    yield one("unsqueeze", "Unsqueeze", {"x": (6, 8)}, {"a": i64(0, 3)})
    yield one("transpose", "Transpose", perm=[0, 2, 3, 1])
    yield one("transpose_rank3", "Transpose", {"x": (2, 3, 4)}, perm=[2, 0, 1])
    yield one("concat", "Concat", {"x": IMAGE, "y": (1, 3, 9, 8)}, axis=1)
    yield one("concat_last", "Concat", {"x": (2, 3), "y": (2, 4)}, axis=-1)
    yield one("slice", "Slice", {"x": IMAGE},
              {"s": i64(1, -6), "e": i64(5, -1), "a": i64(1, 2)})  # fmt: skip
    yield one("slice_steps", "Slice", {"x": IMAGE},
              {"s": i64(0, 1), "e": i64(9, 1000), "a": i64(2, 3), "t": i64(2, 3)})  # fmt: skip
    yield one("slice_back", "Slice", {"x": (4, 6)},
              {"s": i64(5), "e": i64(0), "a": i64(1), "t": i64(-1)})  # fmt: skip
    yield one("slice_flip", "Slice", {"x": IMAGE},
              {"s": i64(-1, 7), "e": i64(-(2**63) + 1, 1), "a": i64(1, 3), "t": i64(-1, -3)})  # fmt: skip
    yield one("split", "Split", {"x": IMAGE}, {"s": i64(1, 2, 3)}, axis=1, outputs=["a", "b", "c"])
    yield one("split_even", "Split", {"x": IMAGE}, axis=3, outputs=["a", "b"], opset=13)
    yield one("gather", "Gather", {"x": IMAGE}, {"i": i64(0, 2, 5)}, axis=1)
    yield one("gather_scalar", "Gather", {"x": IMAGE}, {"i": np.int64(3)}, axis=2)
    yield one("pad", "Pad", {"x": IMAGE},
              {"p": i64(0, 1, 2, 0, 0, 0, 1, 3), "v": np.float32(0)})  # fmt: skip
    yield one("pad_value", "Pad", {"x": IMAGE},
              {"p": i64(0, 0, 2, 0, 0, 0, 1, 3), "v": np.float32(1.5)})  # fmt: skip
    yield one("pad_reflect", "Pad", {"x": IMAGE}, {"p": i64(0, 0, 2, 1, 0, 0, 1, 3)},
              mode="reflect")  # fmt: skip
    yield one("pad_edge", "Pad", {"x": IMAGE}, {"p": i64(0, 0, 2, 1, 0, 0, 1, 3)},
              mode="edge")  # fmt: skip
    yield one("expand", "Expand", {"x": (1, 6, 1, 8)}, {"s": i64(1, 6, 9, 8)})
    yield one("tile", "Tile", {"x": (1, 6, 3, 4)}, {"r": i64(1, 2, 3, 1)})
    yield one("depth_to_space", "DepthToSpace", {"x": (1, 8, 3, 4)}, blocksize=2)
    yield one("depth_to_space_crd", "DepthToSpace", {"x": (1, 8, 3, 4)}, blocksize=2, mode="CRD")
    yield one("space_to_depth", "SpaceToDepth", {"x": (1, 3, 4, 6)}, blocksize=2)


def resizes():
    for name, mode, rule, nearest in [
        ("nearest", "nearest", "asymmetric", "floor"),
        ("nearest_round", "nearest", "half_pixel", "round_prefer_floor"),
        ("linear", "linear", "half_pixel", None),
        ("linear_pytorch", "linear", "pytorch_half_pixel", None),
        ("linear_corners", "linear", "align_corners", None),
        ("linear_asymmetric", "linear", "asymmetric", None),
    ]:
        extra = {"nearest_mode": nearest} if nearest else {}
        yield one("resize_" + name, "Resize", {"x": IMAGE},
                  {"s": np.array([1, 1, 2, 2], np.float32)}, ["x", "", "s"], mode=mode,
                  coordinate_transformation_mode=rule, **extra)  # fmt: skip
    yield one("resize_sizes", "Resize", {"x": IMAGE}, {"s": i64(1, 6, 15, 11)},
              ["x", "", "", "s"], mode="linear",
              coordinate_transformation_mode="half_pixel")  # fmt: skip


def reductions():
    for op in "Mean Max Min Prod".split():
        yield one("reduce_" + op.lower(), "Reduce" + op, axes=[2, 3], keepdims=1)
    yield one("reduce_sum", "ReduceSum", {"x": IMAGE}, {"a": i64(1)}, keepdims=0)
    yield one("reduce_all", "ReduceMean", {"x": (3, 4)}, keepdims=0)
    for op in "L1 L2 SumSquare LogSumExp".split():
        yield one("reduce_" + op.lower(), "Reduce" + op, axes=[1], keepdims=0)
    yield one("reduce_logsum", "ReduceLogSum", axes=[1, 2], positive=True)
    yield one("arg_min", "ArgMin", {"x": (3, 7)}, axis=1, keepdims=0, ints=True)
    yield one("arg_min_channels", "ArgMin", axis=1, keepdims=1, ints=True)
    yield one("arg_max", "ArgMax", {"x": (3, 7)}, axis=1, keepdims=0, ints=True)
    yield one("arg_max_channels", "ArgMax", axis=1, keepdims=1, ints=True)


def cases():
    for group in (convolutions, products, pools, elementwise, normalizations, movements, resizes,
                  reductions, normalizations_of_parts, picks):  # fmt: skip
        yield from group()
