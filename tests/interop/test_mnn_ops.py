"""One small model per operator and option: converted by MNN's converter, read by quench, and
compared with MNN's runtime."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import mnn_runtime
from networks import quench_outputs

pytestmark = pytest.mark.skipif(not mnn_runtime.available(), reason="no MNN package")

RNG = np.random.default_rng(3)


def weights(*shape):
    return RNG.normal(0, 0.5, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def positive(*shape):
    return RNG.uniform(0.2, 2, shape).astype(np.float32)


# name: (operator, shape of x, {attributes}, {input: array} after x, opset)
CASES = {}


def case(name, op, shape, attributes=None, constants=None, opset=13, outputs=1, second=None,
         values=None):  # fmt: skip
    CASES[name] = (op, shape, attributes or {}, constants or [], opset, outputs, second, values)


IMAGE = (1, 6, 9, 10)
case("conv", "Conv", IMAGE, {"pads": [1, 1, 1, 1]}, [weights(5, 6, 3, 3), weights(5)])
case("conv_strided", "Conv", IMAGE, {"strides": [2, 3], "pads": [0, 1, 2, 1]}, [weights(5, 6, 3, 3)])
case("conv_dilated", "Conv", IMAGE, {"dilations": [2, 2]}, [weights(5, 6, 3, 3)])
case("conv_same", "Conv", IMAGE, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [weights(5, 6, 3, 3)])
case("conv_group", "Conv", IMAGE, {"group": 2}, [weights(4, 3, 3, 3), weights(4)])
case("conv_depthwise", "Conv", IMAGE, {"group": 6, "pads": [1] * 4}, [weights(6, 1, 3, 3), weights(6)])
case("conv_1x1", "Conv", IMAGE, {}, [weights(7, 6, 1, 1), weights(7)])
LINE = (1, 6, 20)
case("conv_line", "Conv", LINE, {"pads": [1, 1]}, [weights(5, 6, 3), weights(5)])
case("conv_line_1", "Conv", LINE, {}, [weights(5, 6, 1), weights(5)])
case("conv_line_1_depthwise", "Conv", LINE, {"group": 6}, [weights(6, 1, 1)])
case("deconv_line", "ConvTranspose", LINE, {"strides": [2]}, [weights(6, 4, 3), weights(4)])
case("max_pool_line", "MaxPool", LINE, {"kernel_shape": [3], "strides": [2]})
case("avg_pool_line", "AveragePool", LINE, {"kernel_shape": [2], "strides": [2]})
case("global_average_line", "GlobalAveragePool", LINE)
case("batch_norm_line", "BatchNormalization", LINE, {}, [weights(6), weights(6), weights(6), positive(6)])
case("instance_norm_line", "InstanceNormalization", LINE, {}, [weights(6), weights(6)])
case("prelu_line", "PRelu", LINE, {}, [weights(6, 1)])
case("deconv", "ConvTranspose", IMAGE, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, [weights(6, 4, 3, 3), weights(4)])  # fmt: skip
case("deconv_out", "ConvTranspose", IMAGE, {"strides": [2, 2], "output_padding": [1, 1]}, [weights(6, 4, 3, 3)])  # fmt: skip
case("deconv_depthwise", "ConvTranspose", IMAGE, {"group": 6, "strides": [2, 2]}, [weights(6, 1, 2, 2)])
case("deconv_group", "ConvTranspose", IMAGE, {"group": 2, "strides": [2, 2]}, [weights(6, 2, 3, 3)])
case("max_pool", "MaxPool", IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})
case("max_pool_ceil", "MaxPool", IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})
case("avg_pool", "AveragePool", IMAGE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]})
case("avg_pool_count", "AveragePool", IMAGE, {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [1] * 4, "count_include_pad": 1})  # fmt: skip
case("avg_pool_ceil", "AveragePool", IMAGE, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})
case("avg_pool_uneven", "AveragePool", IMAGE, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 0, 1, 1]})
case("global_average", "GlobalAveragePool", IMAGE)
case("global_max", "GlobalMaxPool", IMAGE)
case("gemm", "Gemm", (3, 8), {"transB": 1}, [weights(5, 8), weights(5)])
case("matmul", "MatMul", (3, 8), {}, [weights(8, 5)])
case("matmul_batch", "MatMul", (2, 3, 8), {}, [weights(2, 8, 5)])
case("batch_norm", "BatchNormalization", IMAGE, {}, [weights(6), weights(6), weights(6), positive(6)])
case("instance_norm", "InstanceNormalization", IMAGE, {}, [weights(6), weights(6)])
case("layer_norm", "LayerNormalization", (2, 5, 8), {"axis": -1}, [weights(8), weights(8)], opset=17)
case("lrn", "LRN", IMAGE, {"size": 5, "alpha": 0.01, "beta": 0.75, "bias": 1.5})
case("softmax", "Softmax", (2, 5, 8), {"axis": 1})
case("softmax_last", "Softmax", (2, 8), {"axis": -1})
for op in ("Relu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Elu", "Selu", "Softplus", "Exp",
           "Abs", "Neg", "Floor", "Ceil", "Erf", "Sign", "Round", "Sinh", "Cosh"):  # fmt: skip
    case(op.lower(), op, IMAGE, opset=14)
for op in ("Log", "Sqrt", "Reciprocal"):
    case(op.lower(), op, IMAGE, values="positive")
case("leaky_relu", "LeakyRelu", IMAGE, {"alpha": 0.2})
case("prelu", "PRelu", IMAGE, {}, [weights(6, 1, 1)])
case("prelu_one", "PRelu", IMAGE, {}, [weights(1)])
case("clip", "Clip", IMAGE, {}, [np.float32(-0.5), np.float32(0.7)])
case("relu6", "Clip", IMAGE, {}, [np.float32(0), np.float32(6)])
case("gelu", "Gelu", (2, 9), {}, opset=20)
for op in ("Add", "Sub", "Mul", "Div", "Min", "Max"):
    case(op.lower() + "_constant", op, IMAGE, {}, [positive(6, 1, 1)])
    case(op.lower(), op, IMAGE, second=IMAGE)
case("pow", "Pow", IMAGE, {}, [np.float32(2)], values="positive")
case("add_row", "Add", (4, 7), second=(7,))
case("sum", "Sum", IMAGE, second=IMAGE)
case("reshape", "Reshape", IMAGE, {}, [ints(0, 2, -1)])
case("reshape_flat", "Reshape", IMAGE, {}, [ints(1, -1)])
case("flatten", "Flatten", IMAGE, {"axis": 1})
case("flatten_2", "Flatten", IMAGE, {"axis": 2})
case("squeeze", "Squeeze", (1, 6, 1, 4), {}, [ints(0, 2)])
case("unsqueeze", "Unsqueeze", (6, 4), {}, [ints(0, 3)])
case("transpose", "Transpose", IMAGE, {"perm": [0, 2, 3, 1]})
case("transpose_3", "Transpose", (2, 3, 4), {"perm": [2, 0, 1]})
case("concat", "Concat", IMAGE, {"axis": 1}, second=IMAGE)
case("concat_width", "Concat", IMAGE, {"axis": -1}, second=IMAGE)
case("split", "Split", IMAGE, {"axis": 1}, [ints(2, 3, 1)], outputs=3)
case("split_equal", "Split", IMAGE, {"axis": 1}, outputs=2)
case("slice", "Slice", IMAGE, {}, [ints(1, 2), ints(5, 2**31 - 1), ints(1, 3), ints(2, 1)])
case("slice_back", "Slice", IMAGE, {}, [ints(-3), ints(-1), ints(2)])
case("gather", "Gather", IMAGE, {"axis": 1}, [ints(3, 0, 5)])
case("gather_one", "Gather", IMAGE, {"axis": 2}, [np.int64(4)])
case("pad", "Pad", IMAGE, {}, [ints(0, 1, 2, 3, 0, 1, 0, 2)])
case("pad_value", "Pad", IMAGE, {}, [ints(0, 0, 2, 3, 0, 0, 0, 2), np.float32(1.5)])
case("pad_reflect", "Pad", IMAGE, {"mode": "reflect"}, [ints(0, 0, 2, 3, 0, 0, 1, 2)])
case("tile", "Tile", (1, 2, 3, 4), {}, [ints(1, 2, 1, 3)])
case("expand", "Expand", (1, 6, 1), {}, [ints(2, 6, 4)])
case("depth_to_space", "DepthToSpace", (1, 8, 3, 4), {"blocksize": 2})
case("depth_to_space_crd", "DepthToSpace", (1, 8, 3, 4), {"blocksize": 2, "mode": "CRD"})
case("space_to_depth", "SpaceToDepth", (1, 2, 4, 6), {"blocksize": 2})
for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd"):
    case(op.lower(), op, IMAGE, {"axes": [2, 3], "keepdims": 1})
    case(op.lower() + "_drop", op, IMAGE, {"axes": [1], "keepdims": 0})
case("reduce_sum", "ReduceSum", IMAGE, {"keepdims": 0}, [ints(-1)])
case("reduce_l1", "ReduceL1", IMAGE, {"axes": [1]})
case("reduce_sumsquare", "ReduceSumSquare", IMAGE, {"axes": [1]})
case("arg_max", "ArgMax", IMAGE, {"axis": 1, "keepdims": 0})
case("arg_min", "ArgMin", IMAGE, {"axis": 2, "keepdims": 0})
case("dropout", "Dropout", IMAGE)
case("identity", "Identity", IMAGE)
RESIZE = [np.zeros(0, np.float32)]
for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
    for mode in ("nearest", "linear", "cubic"):
        case(f"resize_{mode}_{coordinates}", "Resize", IMAGE,
             {"mode": mode, "coordinate_transformation_mode": coordinates,
              **({"nearest_mode": "floor"} if mode == "nearest" else {})},
             [*RESIZE, np.array([1, 1, 2, 2.5], np.float32)])  # fmt: skip
case("resize_sizes", "Resize", IMAGE,
     {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
     [*RESIZE, np.zeros(0, np.float32), ints(1, 6, 5, 7)])  # fmt: skip
case("resize_round", "Resize", IMAGE,
     {"mode": "nearest", "coordinate_transformation_mode": "half_pixel",
      "nearest_mode": "round_prefer_floor"},
     [*RESIZE, np.array([1, 1, 2, 2], np.float32)])  # fmt: skip
for op in ("Sin", "Cos", "Tan", "Atan", "Asinh", "Softsign", "Celu", "ThresholdedRelu"):
    case(op.lower(), op, IMAGE)
for op in ("Asin", "Acos", "Atanh"):
    case(op.lower(), op, IMAGE, values="fractions")
case("acosh", "Acosh", IMAGE, values="above 1")
case("gather_nd", "GatherND", (4, 5, 3), {}, [ints([0, 1], [3, 4])])
case("gather_nd_slices", "GatherND", (4, 5, 3), {}, [ints([[0], [3]], [[2], [2]])])
case("gather_nd_batch", "GatherND", (2, 5, 3), {"batch_dims": 1}, [ints([1], [4])])
case("gather_elements", "GatherElements", (4, 5), {"axis": 1}, [ints([0, 1], [3, 4], [2, 2], [0, 0])])
case("gather_elements_0", "GatherElements", (4, 5), {}, [ints([0, 1, 2, 3, 1])])
case("scatter_nd", "ScatterND", (4, 5), {}, [ints([0], [2]), weights(2, 5)])
case("scatter_elements", "ScatterElements", (4, 5), {"axis": 1}, [ints([0, 1], [3, 4], [2, 1], [0, 3]), weights(4, 2)])  # fmt: skip
case("top_k", "TopK", (3, 8), {"axis": 1}, [ints(3)], outputs=2)
case("top_k_smallest", "TopK", (3, 8), {"largest": 0}, [ints(3)], outputs=2)
case("top_k_inside", "TopK", (3, 8, 2), {"axis": 1}, [ints(3)], outputs=2)
case("cum_sum", "CumSum", (3, 8), {}, [np.int64(1)], opset=14)
case("cum_sum_back", "CumSum", (3, 8), {"exclusive": 1, "reverse": 1}, [np.int64(0)], opset=14)
case("trilu", "Trilu", (5, 6), {"upper": 1}, opset=14)
case("trilu_lower", "Trilu", (5, 6), {"upper": 0}, [np.int64(1)], opset=14)
case("eye_like", "EyeLike", (4, 6), {"k": 1})
case("arg_min_keep", "ArgMin", IMAGE, {"axis": 1, "keepdims": 1})
case("reduce_l2", "ReduceL2", IMAGE, {"axes": [1]})
case("reduce_log_sum", "ReduceLogSum", IMAGE, {"axes": [1]}, values="positive")
case("reduce_log_sum_exp", "ReduceLogSumExp", IMAGE, {"axes": [1]})
case("lp_normalization", "LpNormalization", (3, 7), {"axis": 1})
case("mean_variance", "MeanVarianceNormalization", IMAGE)
case("slice_backwards", "Slice", (4, 6), {}, [ints(-1), ints(-10), ints(1), ints(-1)])
case("greater_or_equal", "GreaterOrEqual", (3, 7), {}, [np.float32(0.2)])


def chain(name, shape, constants, *nodes):
    """Nodes as (operator, inputs, attributes); each makes "n0", "n1"..., the last one out0."""
    case(name, [(op, inputs, a) for op, inputs, a in nodes], shape, {}, constants, opset=17)


INDEX = ("ArgMax", ["x"], {"axis": 1, "keepdims": 0})
chain("one_hot", (3, 8), [np.int64(8), weights(2)], INDEX, ("OneHot", ["n0", "c0", "c1"], {"axis": -1}))
chain("one_hot_first", (3, 8), [np.int64(8), weights(2)], INDEX, ("OneHot", ["n0", "c0", "c1"], {"axis": 0}))
chain("gather_elements_made", (3, 8), [], ("ArgMax", ["x"], {"axis": 1}),
      ("GatherElements", ["x", "n0"], {"axis": 1}))  # fmt: skip
chain("constant_of_shape", (3, 8), [], ("Shape", ["x"], {}), ("ConstantOfShape", ["n0"], {"value": helper.make_tensor("v", 1, [1], [2.5])}),
      ("Add", ["x", "n1"], {}))  # fmt: skip
chain("range", (3, 8), [np.int64(1), np.int64(0), np.int64(1)], ("Shape", ["x"], {}),
      ("Gather", ["n0", "c0"], {}), ("Range", ["c1", "n1", "c2"], {}), ("Cast", ["n2"], {"to": 1}),
      ("Add", ["x", "n3"], {}))  # fmt: skip
chain("truth", (3, 8), [np.float32(0), np.float32(-1)], ("Greater", ["x", "c0"], {}),
      ("LessOrEqual", ["x", "c1"], {}), ("And", ["n0", "n1"], {}), ("Or", ["n2", "n1"], {}),
      ("Where", ["n3", "x", "c1"], {}))  # fmt: skip


# MNN's cubic kernel rounds negative coordinates up: its first row and column are not interpolated.
CUT_TO_ZERO = ("resize_cubic_half_pixel", "resize_cubic_pytorch_half_pixel")


WHOLE = ("ArgMax", "ArgMin")
TRUE = ("GreaterOrEqual",)


def model_of(name):
    op, shape, attributes, constants, opset, outputs, second, _ = CASES[name]
    inputs = {"x": shape, **({"y": second} if second else {})}
    results = [f"out{i}" for i in range(outputs)]
    if isinstance(op, list):
        made = [*(f"n{i}" for i in range(len(op) - 1)), "out0"]
        nodes = [helper.make_node(kind, names, [made[i]], name=made[i], **a)
                 for i, (kind, names, a) in enumerate(op)]  # fmt: skip
    else:
        names = [*inputs, *(f"c{i}" for i in range(len(constants)))]
        nodes = [helper.make_node(op, [n if not (n[0] == "c" and np.size(constants[int(n[1:])]) == 0)
                                       else "" for n in names], results, name="it", **attributes)]  # fmt: skip
    first = (TensorProto.INT64 if op in WHOLE else TensorProto.BOOL if op in TRUE
             else TensorProto.FLOAT)  # fmt: skip
    kinds = [first, TensorProto.INT64] if op == "TopK" else [first] * outputs
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, k, None) for n, k in zip(results, kinds)],
        [numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants)
         if np.size(c)],
    )  # fmt: skip
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
    )
    return onnx.shape_inference.infer_shapes(model)


SPANS = {"positive": (0.2, 3), "fractions": (-0.9, 0.9), "above 1": (1.1, 4)}


@pytest.mark.parametrize("name", CASES)
def test_operator(name, quench, tmp_path):
    onnx.save(model_of(name), tmp_path / "m.onnx")
    path = tmp_path / "m.mnn"
    done, text = mnn_runtime.convert("ONNX", tmp_path / "m.onnx", path)
    if not done:
        pytest.skip(f"the converter refuses it: {text[-200:]}")
    _, shape, _, _, _, _, second, values = CASES[name]
    rng = np.random.default_rng(5)
    inputs = {
        n: (rng.uniform(*SPANS[values], s) if values else rng.normal(0, 1.5, s)).astype(np.float32)
        for n, s in {"x": shape, "y": second}.items()
        if s
    }
    theirs = mnn_runtime.outputs(path, inputs, tmp_path)
    if theirs is None:
        pytest.skip("MNN's runtime cannot run what its converter made")
    ours = quench_outputs(path, {n: a[None] for n, a in inputs.items()}, tmp_path / "run")
    lines = quench("inspect", path).stdout.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("output ")]
    assert sorted(names) == sorted(theirs)
    for output, got in zip(names, ours):
        expected = theirs[output].astype(np.float32)
        assert got.size == expected.size
        if name in CUT_TO_ZERO:
            got, expected = got[..., 1:, 1:], expected[..., 1:, 1:]
        assert np.abs(got.ravel() - expected.ravel()).max() <= 1e-4 * np.abs(expected).max() + 1e-7
