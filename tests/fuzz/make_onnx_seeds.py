"""Seeds of the ONNX target: the small models of ONNX's own node tests, and models made here of what those
do not have. usage: make_onnx_seeds.py FOLDER

Afterwards only what adds coverage is kept: fuzz_onnx -merge=1 tests/fuzz/corpus/onnx FOLDER
"""

import pathlib
import sys
import warnings

import numpy as np
from onnx import TensorProto, helper, numpy_helper

MOST_BYTES = 1500


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name, values, dtype=np.float32):
    return numpy_helper.from_array(np.asarray(values, dtype), name)


def model(nodes, inputs, outputs, weights=(), opset=21, ir=8, functions=(), domains=(), **graph):
    imports = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, 1) for d in domains]
    g = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights), **graph)
    return helper.make_model(g, opset_imports=imports, ir_version=ir, functions=list(functions))


def node(op, inputs, outputs, name="n", **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), name, **attributes)


X, Y = value("x", [1, 2, 4, 4]), value("y", None)
NARROW = {
    "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16, "f64": TensorProto.DOUBLE,
    "u8": TensorProto.UINT8, "i8": TensorProto.INT8, "u16": TensorProto.UINT16, "i16": TensorProto.INT16,
    "i32": TensorProto.INT32, "i64": TensorProto.INT64, "u32": TensorProto.UINT32,
    "u64": TensorProto.UINT64, "bool": TensorProto.BOOL, "i4": TensorProto.INT4, "u4": TensorProto.UINT4,
    "f8": TensorProto.FLOAT8E4M3FN, "f8b": TensorProto.FLOAT8E5M2, "f8c": TensorProto.FLOAT8E4M3FNUZ,
    "f4": TensorProto.FLOAT4E2M1, "i2": getattr(TensorProto, "INT2", TensorProto.INT4),
}  # fmt: skip


def typed():
    """Every element type in its own field and as raw bytes, cast to float."""
    for name, kind in NARROW.items():
        for raw in (False, True):
            values = np.array([0, 1, 1, 0], np.float32)
            if raw:
                c = helper.make_tensor("c", kind, [4], values)
                try:
                    c = numpy_helper.from_array(numpy_helper.to_array(c), "c")
                except Exception:
                    continue
            else:
                c = helper.make_tensor("c", kind, [4], values)
            yield f"typed_{name}_{raw}", model(
                [node("Cast", "c", "f", to=1), node("Add", "x f", "y")], [X], [Y], [c]
            )  # fmt: skip
    strings = helper.make_tensor("c", TensorProto.STRING, [2], [b"one", b"two"])
    yield "strings", model([node("Identity", "c", "y")], [X], [Y], [strings])
    values = helper.make_tensor("v", TensorProto.FLOAT, [2], [1.5, -2])
    for dims, indices in (([2], [1, 3]), ([2, 1], [[1], [3]]), ([2, 2], [[0, 1], [1, 1]])):
        at = numpy_helper.from_array(np.asarray(indices, np.int64).reshape(dims), "i")
        shape = [4] if len(dims) == 1 or dims[1] == 1 else [2, 2]
        sparse = helper.make_sparse_tensor(values, at, shape)
        yield f"sparse{len(shape)}{len(dims)}", model(
            [node("Constant", "", "c", sparse_value=sparse), node("Identity", "c", "y")], [X], [Y]
        )  # fmt: skip
        m = model([node("Identity", "v", "y")], [X], [Y], sparse_initializer=[sparse])
        yield f"sparse_initializer{len(shape)}{len(dims)}", m


def external():
    """The target's folder has w.bin of 64 bytes, and nothing else."""
    full = {"location": "w.bin", "offset": "0", "length": "16"}
    changes = [
        {}, {"offset": "4096"}, {"offset": "-1"}, {"offset": "x"}, {"offset": "48"}, {"offset": "56"},
        {"offset": "18446744073709551615"}, {"length": "-1"}, {"length": "4"}, {"length": "9223372036854775807"},
        {"length": "99999999999999999999"}, {"location": "../w.bin"}, {"location": "/w.bin"}, {"location": ""},
        {"location": "."}, {"location": "a/w.bin"}, {"location": "a//w.bin"}, {"location": "w.bin/.."},
        {"location": "a\\w.bin"}, {"location": "c:w.bin"}, {"location": "none"}, {"location": "w.bin\0"},
        {"location": "%2e%2e/w.bin"}, {"checksum": "00"}, {"unknown": "key"},
    ]  # fmt: skip
    for i, change in enumerate(changes):
        weights = []
        for name in "cd":
            t = tensor(name, [1, 2, 3, 4])
            t.ClearField("raw_data")
            t.data_location = TensorProto.EXTERNAL
            for key, text in {**full, **change}.items():
                entry = t.external_data.add()
                entry.key, entry.value = key, text
            weights.append(t)
        yield f"external_{i}", model([node("Add", "x c", "a"), node("Add", "a d", "y")], [X], [Y], weights)
    weights[0].ClearField("external_data")
    yield "external_nothing", model([node("Add", "x c", "y")], [X], [Y], weights[:1])


def refused():
    """One mistake each, in what is read with care."""
    s, z = tensor("s", 0.05), tensor("z", 3, np.uint8)
    more = {
        "s2": tensor("s2", 0.1), "z8": tensor("z8", 0, np.int8), "sn": tensor("sn", [0.1, 0.2]),
        "s0": tensor("s0", 0), "tiny": tensor("tiny", 1e-30), "zn": tensor("zn", [1, 2, 3], np.uint8),
        "zn2": tensor("zn2", [0, 1], np.uint8), "sm": tensor("sm", [[0.1, 0.2]]), "e": tensor("e", []),
        "i": tensor("i", [0, 1], np.int64), "w": tensor("w", np.ones((2, 2, 1, 1)), np.int8),
        "f": tensor("f", np.linspace(-1, 1, 4).reshape(2, 2, 1, 1)), "v": tensor("v", [1, 2]),
        "b": tensor("b", [1, 2], np.int32), "bf": tensor("bf", [1, 2]), "lo": tensor("lo", 0),
        "hi": tensor("hi", 6), "nan": tensor("nan", np.nan), "t": tensor("t", True, bool),
        "m": tensor("m", np.ones((4, 3)), np.int8), "z2": tensor("z2", [0, 0], np.int8),
    }  # fmt: skip
    q, dq = (lambda a, b, **k: node("QuantizeLinear", a, b, **k)), (lambda a, b, **k: node("DequantizeLinear", a, b, **k))
    lists = [
        [q("x s", "a"), dq("a s", "y")], [q("x s z8", "a"), dq("a s z", "y")], [q("x s z", "a"), dq("a s2 z", "y")],
        [q("x s0 z", "a"), dq("a s0 z", "y")], [q("x sn zn", "a"), dq("a sn zn", "y")],
        [q("x sn zn2", "a", axis=1), dq("a sn zn2", "y", axis=1)], [q("x sn zn2", "a", axis=9), dq("a sn", "y")],
        [q("x sm zn2", "a"), dq("a sm zn2", "y")], [q("x e z", "a"), dq("a e z", "y")], [q("x x z", "a")],
        [q("x s x", "a")], [q("x s lo", "a")], [dq("x s", "y")], [dq("w s", "y")], [dq("w s z", "y")],
        [dq("w s", "a"), dq("w s2", "b0"), node("Add", "a b0", "y")], [q("f s z8", "a"), dq("a s z8", "y")],
        [q("f sn z2", "a", axis=0), dq("a sn z2", "d", axis=0), node("Conv", "x d", "y")],
        [q("f sn z2", "a", axis=3), dq("a sn z2", "y", axis=3)], [q("x s", "a", output_dtype=3), dq("a s", "y")],
        [q("x s z", "a"), node("Relu", "a", "y")], [q("x s z", "a"), node("QLinearConv", "a s z w s z8 s z", "y")],
        [q("x s z", "a"), node("QLinearConv", "a s z w s z8 s z bf", "c"), dq("c s z", "y")],
        [q("x tiny z", "a"), node("QLinearConv", "a tiny z w tiny z8 s z b", "c"), dq("c s z", "y")],
        [q("x s z", "a"), node("QLinearConv", "a s z w s z8 s z b", "c d"), dq("c s z", "y")],
        [node("QLinearConv", "x s z w s z8 s z b", "c"), dq("c s z", "y")],
        [q("x s z", "a"), node("QLinearConv", "a s z w", "c"), dq("c s z", "y")],
        [q("x s z", "a"), node("QLinearMatMul", "a s z m s z8 s2 z", "c"), dq("c s2 z", "y")],
        [q("x s z", "a"), node("QLinearMatMul", "a s2 z m s z8 s z", "c"), dq("c s z", "y")],
        [q("x s z", "a"), dq("a s z", "d"), dq("w s z8", "k"), node("Conv", "d k", "c"), node("Clip", "c lo hi", "l"),
         q("l s z", "o"), dq("o s z", "y")],
        [q("x s z", "a"), dq("a s z", "d"), dq("w s z8", "k"), node("Conv", "d k", "c"), node("Clip", "c nan hi", "l"),
         q("l s z", "o"), dq("o s z", "y")],
        [q("x s z", "a"), dq("a s z", "d"), dq("w s z8", "k"), node("Conv", "d k bf", "c"), q("c s z", "o"),
         dq("o s z", "p"), node("Add", "p p", "r"), q("r s z", "u"), dq("u s z", "y"), node("Abs", "o", "abs")],
        [q("x s z", "a"), dq("a s z", "d"), dq("a s z", "d2"), node("Add", "d d2", "c"), q("c s z", "y")],
        [node("BatchNormalization", "x v v v v", "y", spatial=0)],
        [node("BatchNormalization", "x v v v v", "y a b0 c d", spatial=1)],
        [node("TopK", "x", "y z9")], [node("Hardmax", "x", "y", axis=0)], [node("Softmax", "x", "y", axis=5)],
        [node("Split", "x", "y z9", split=[1])], [node("Clip", "x", "y", min="a")], [node("Pad", "x", "y", pads=[0])],
        [node("GroupNormalization", "x v v", "y", num_groups=2)], [node("Reshape", "x s", "y")],
        [node("Constant", "", "y")], [node("Constant", "", "y", value="s")], [node("Cast", "x", "y", to=99)],
        [node("Cast", "x", "y")], [node("If", "t", "y")], [node("If", "x", "y", then_branch="a")],
        [node("Relu", "", "y")], [node("Relu", "x", "")], [node("Relu", "x x", "y")], [node("", "x", "y")],
        [node("Wonder", "x", "y")], [node("Relu", "x", "y", domain="com.example")], [node("Relu", "y", "y")],
        [node("Relu", "x", "a"), node("Relu", "x", "a")], [node("Add", "x a", "b0"), node("Add", "b0 b0", "a")],
        [node("DynamicQuantizeLinear", "x", "a b0 c"), node("MatMulInteger", "a m c z8", "d"),
         node("Cast", "d", "k", to=1), node("Mul", "b0 s", "l"), node("Mul", "k l", "o"), dq("a b0 c", "u"),
         node("Add", "u o", "y")],
        [node("DynamicQuantizeLinear", "x", "a b0 c"), node("MatMulInteger", "a m c", "d"),
         node("MatMulInteger", "a m c", "d2"), node("Add", "d d2", "y")],
        [node("DynamicQuantizeLinear", "x", "a b0 c"), node("ConvInteger", "a w", "d"), node("Cast", "d", "y", to=1)],
        [node("ConvInteger", "x w", "y")], [node("MatMulInteger", "m m", "y")],
    ]  # fmt: skip
    for i, nodes in enumerate(lists):
        used = {name for n in nodes for name in n.input}
        weights = [t for name, t in {"s": s, "z": z, **more}.items() if name in used]
        for opset in (8, 13, 21):
            yield f"refused_{i}_{opset}", model(nodes, [X], [Y], weights, opset)
    for i, kind in enumerate((2, 3, 9)):
        made = model([dq("x s z", "y")], [value("x", [1, 4], kind)], [Y], [s, z])
        yield f"integers_in_{i}", made


def control():
    branch = [
        helper.make_graph([node(op, "x", "b")], op, [], [value("b", None)], [tensor("unused", [1])])
        for op in ("Relu", "Neg")
    ]
    for kind, condition in (("const", tensor("c", True, bool)), ("other", tensor("c", [False], bool))):
        chosen = node("If", "c", "i", then_branch=branch[0], else_branch=branch[1])
        yield f"if_{kind}", model([chosen, node("Abs", "i", "y")], [X], [Y], [condition])
    late = [node("ReduceMax", "x", "m", keepdims=0), node("Cast", "m", "c", to=TensorProto.BOOL)]
    for name, given in (("value", tensor("t", True, bool)), ("value", tensor("t", [1, 2])), ("value_int", 1)):
        constant = node("Constant", "", "c", **{name: given})
        yield f"if_{name}_{given == 1}", model(
            [constant, node("If", "c", "y", then_branch=branch[0], else_branch=branch[1])], [X], [Y]
        )  # fmt: skip
    yield "if_late", model(late + [node("If", "c", "y", then_branch=branch[0], else_branch=branch[1])], [X], [Y])
    deep = branch[0]
    for i in range(6):
        inner = node("If", "c", "b", then_branch=deep, else_branch=branch[1])
        deep = helper.make_graph([inner], f"deep{i}", [], [value("b", None)])
    yield "if_deep", model(deep.node, [X], [value("b", None)], [tensor("c", True, bool)])
    body = helper.make_graph(
        [node("Identity", "k", "k1"), node("Relu", "v", "v1")], "body",
        [value("i", [], 7), value("k", [], 9), value("v", None)], [value("k1", [], 9), value("v1", None)],
    )  # fmt: skip
    yield "loop", model([node("Loop", "n c x", "y", body=body)], [X], [Y],
                        [tensor("n", 3, np.int64), tensor("c", True, bool)])  # fmt: skip
    scan = helper.make_graph([node("Relu", "v", "v1")], "body", [value("v", None)], [value("v1", None)])
    yield "scan", model([node("Scan", "x", "y", body=scan, num_scan_inputs=1)], [X], [Y])
    yield "sequence", model([node("SequenceConstruct", "x x", "s"), node("SequenceAt", "s i", "y")], [X], [Y],
                            [tensor("i", 1, np.int64)])  # fmt: skip


def functions():
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("local", 1)]
    leaky = node("LeakyRelu", "a", "b", "leaky")
    alpha = leaky.attribute.add()
    alpha.name, alpha.ref_attr_name, alpha.type = "alpha", "slope", 1
    one = helper.make_function("local", "one", ["a"], ["b"], [leaky], imports, ["slope"])
    two = helper.make_function(
        "local", "two", ["a", "o"], ["c", "d"],
        [node("one", "a", "b", domain="local", slope=0.25), node("Abs", "b", "c"), node("Add", "b o", "d")], imports
    )  # fmt: skip
    default = helper.make_function(
        "local", "one", ["a"], ["b"], [leaky], imports, [], [helper.make_attribute("slope", 0.125)]
    )
    kw = dict(domains=["local"])
    yield "function", model([node("one", "x", "y", domain="local", slope=0.5)], [X], [Y], functions=[one], **kw)
    yield "function_default", model([node("one", "x", "y", domain="local")], [X], [Y], functions=[default], **kw)
    yield "function_nested", model(
        [node("two", "x x", "z y", domain="local")], [X], [Y], functions=[one, two], **kw
    )
    itself = helper.make_function("local", "one", ["a"], ["b"], [node("one", "a", "b", domain="local")], imports)
    yield "function_itself", model([node("one", "x", "y", domain="local")], [X], [Y], functions=[itself], **kw)
    through = helper.make_function("local", "one", ["a", "b"], ["b", "a"], [], imports)
    yield "function_through", model([node("one", "x", "z y", domain="local")], [X], [Y], functions=[through], **kw)
    missing = node("one", "x", "y z u", domain="local", other=1)
    yield "function_more", model([missing], [X], [Y], functions=[one], **kw)
    branch = helper.make_graph([node("one", "x", "b", domain="local", slope=0.5)], "t", [], [value("b", None)])
    yield "function_in_if", model(
        [node("If", "c", "y", then_branch=branch, else_branch=branch)], [X], [Y], [tensor("c", True, bool)],
        functions=[one], **kw
    )  # fmt: skip


def pairs():
    """QuantizeLinear and DequantizeLinear as other tools write them."""
    s, z = tensor("s", 0.05), tensor("z", 3, np.uint8)
    kernel = [
        tensor("w", [[[[1]], [[-2]]], [[[3]], [[-4]]], [[[5]], [[-6]]]], np.int8), tensor("ws", [0.1, 0.2, 0.3]),
        tensor("wz", [0, 0, 0], np.int8), tensor("b", [100, -100, 5], np.int32),
        tensor("bs", [0.005, 0.01, 0.015]),
    ]  # fmt: skip
    q = lambda a, n: [node("QuantizeLinear", f"{a} s z", f"{n}_q"), node("DequantizeLinear", f"{n}_q s z", n)]  # noqa: E731
    conv = [
        node("DequantizeLinear", "w ws wz", "wd", axis=0), node("DequantizeLinear", "b bs", "bd", axis=0),
        node("Conv", "xd wd bd", "c"), node("Relu", "c", "r"),
    ]  # fmt: skip
    yield "qdq_conv", model(q("x", "xd") + conv + q("r", "y"), [X], [Y], [s, z] + kernel, 13)
    tails = {
        "clip": [node("Clip", "r lo hi", "t")], "max_pool": [node("MaxPool", "r", "t", kernel_shape=[2, 2])],
        "concat": [node("Concat", "r r", "t", axis=1)], "add": [node("Add", "r r", "t")],
        "transpose": [node("Transpose", "r", "t", perm=[0, 2, 3, 1])], "sigmoid": [node("Sigmoid", "r", "t")],
        "global": [node("GlobalAveragePool", "r", "t")], "reshape": [node("Reshape", "r shape", "t")],
    }  # fmt: skip
    extra = [tensor("lo", 0), tensor("hi", 6), tensor("shape", [1, -1], np.int64)]
    for name, tail in tails.items():
        both = q("x", "xd") + conv + q("r", "rd")
        for n in tail:
            n.input[:] = ["rd" if i == "r" else i for i in n.input]
        yield f"qdq_{name}", model(both + tail + q("t", "y"), [X], [Y], [s, z] + kernel + extra, 13)
    w = np.arange(-8, 8, dtype=np.int8).reshape(4, 4)
    four = helper.make_tensor("w4", TensorProto.INT4, [4, 4], w.reshape(-1))
    scales = tensor("w4s", np.full((2, 4), 0.5))
    dq = node("DequantizeLinear", "w4 w4s", "wd", axis=0, block_size=2)
    yield "blocks", model([dq, node("MatMul", "x wd", "y")], [X], [Y], [four, scales])
    packed = tensor("wp", np.arange(64).reshape(4, 1, 16) % 256, np.uint8)
    nbits = node("MatMulNBits", "x wp ws", "y", domain="com.microsoft", K=32, N=4, bits=4, block_size=32)
    yield "matmul_nbits", model([nbits], [value("x", [1, 32])], [Y], [packed, tensor("ws", [1, 1, 1, 1])],
                                domains=["com.microsoft"])  # fmt: skip
    integer = [
        node("DynamicQuantizeLinear", "x", "xq xs xz"), node("ConvInteger", "xq w xz", "ci"),
        node("Cast", "ci", "cf", to=1), node("Mul", "xs ws1", "m"), node("Mul", "cf m", "y"),
    ]  # fmt: skip
    yield "dynamic_conv", model(integer, [X], [Y], [kernel[0], tensor("ws1", 0.1)])
    integer[1] = node("MatMulInteger", "xq w xz wz", "ci")
    yield "dynamic_matmul", model(
        integer, [X], [Y], [tensor("w", w, np.int8), tensor("wz", 0, np.int8), tensor("ws1", 0.1)]
    )
    qop = [
        node("QuantizeLinear", "x s z", "xq"), node("QLinearConv", "xq s z w ws wz s z b", "cq"),
        node("QLinearAdd", "cq s z cq s z s z", "aq", domain="com.microsoft"),
        node("QLinearMul", "aq s z cq s z s z", "mq", domain="com.microsoft"),
        node("QLinearConcat", "s z aq s z mq s z", "kq", domain="com.microsoft", axis=1),
        node("QLinearLeakyRelu", "kq s z s z", "lq", domain="com.microsoft", alpha=0.1),
        node("QLinearSigmoid", "lq s z s z", "sq", domain="com.microsoft"),
        node("QLinearAveragePool", "sq s z s z", "pq", domain="com.microsoft", kernel_shape=[2, 2]),
        node("QLinearGlobalAveragePool", "pq s z s z", "gq", domain="com.microsoft", channels_last=0),
        node("QLinearSoftmax", "gq s z s z", "fq", domain="com.microsoft", axis=1, opset=13),
        node("DequantizeLinear", "fq s z", "y"),
    ]  # fmt: skip
    yield "qoperators", model(qop, [X], [Y], [s, z] + kernel, 13, domains=["com.microsoft"])
    gemm = [node("QGemm", "xq s z w ws wz b s z", "gq", domain="com.microsoft", transB=1)]
    weights = [tensor("w", w[:, :2], np.int8), tensor("ws", 0.1), tensor("wz", 0, np.int8),
               tensor("b", [1, 2, 3, 4], np.int32)]  # fmt: skip
    yield "qgemm", model(
        [node("QuantizeLinear", "x s z", "xq")] + gemm + [node("DequantizeLinear", "gq s z", "y")],
        [value("x", [1, 2])], [Y], [s, z] + weights, 13, domains=["com.microsoft"]
    )  # fmt: skip
    matmul = [node("QuantizeLinear", "x s z", "xq"), node("QLinearMatMul", "xq s z w s z8 s z", "gq"),
              node("DequantizeLinear", "gq s z", "y")]  # fmt: skip
    yield "qlinear_matmul", model(matmul, [X], [Y], [s, z, tensor("w", w, np.int8), tensor("z8", 0, np.int8)])


def old():
    """What older opsets say otherwise, one node each."""
    c = [tensor("w", np.ones((2, 2, 1, 1))), tensor("v", [1, 2]), tensor("i", [0, 1], np.int64)]
    nodes = [
        (1, node("Add", "x v", "y", axis=1, broadcast=1)), (6, node("Mul", "x v", "y", axis=1, broadcast=1)),
        (1, node("BatchNormalization", "x v v v v", "y", is_test=1, spatial=1, consumed_inputs=[0, 0])),
        (7, node("BatchNormalization", "x v v v v", "y", momentum=0.5)),
        (9, node("BatchNormalization", "x v v v v", "y")), (15, node("BatchNormalization", "x v v v v", "y")),
        (1, node("Cast", "x", "y", to="FLOAT")), (6, node("Cast", "x", "y", to=1)),
        (6, node("Clip", "x", "y", min=0.0, max=6.0)), (1, node("Concat", "x x", "y")),
        (1, node("Dropout", "x", "y", is_test=1, ratio=0.5)), (7, node("Dropout", "x", "y", ratio=0.5)),
        (12, node("Dropout", "x", "y")), (1, node("Reshape", "x", "y", shape=[2, -1])),
        (5, node("Reshape", "x i", "y")), (1, node("Pad", "x", "y", paddings=[0] * 7 + [1])),
        (2, node("Pad", "x", "y", pads=[0] * 7 + [1], mode="edge")), (1, node("Softmax", "x", "y")),
        (11, node("Softmax", "x", "y", axis=2)), (11, node("LogSoftmax", "x", "y", axis=-1)),
        (11, node("Hardmax", "x", "y", axis=1)), (1, node("Squeeze", "x", "y", axes=[0])),
        (11, node("Unsqueeze", "x", "y", axes=[0, -1])), (1, node("Slice", "x", "y", starts=[0], ends=[1], axes=[1])),
        (9, node("Slice", "x", "y", starts=[1], ends=[2])), (1, node("Split", "x", "y z", axis=1)),
        (2, node("Split", "x", "y z", axis=2, split=[1, 3])), (13, node("Split", "x i", "y", axis=3)),
        (18, node("Split", "x", "y z", axis=1, num_outputs=2)), (1, node("Tile", "x t a", "y")),
        (7, node("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")),
        (1, node("Upsample", "x", "y", height_scale=2.0, width_scale=2.0, mode="bilinear")),
        (9, node("Upsample", "x sc", "y", mode="linear")), (10, node("Resize", "x sc", "y")),
        (11, node("Resize", "x roi sc", "y", mode="cubic")), (13, node("Resize", "x  sc", "y")),
        (1, node("Gemm", "f w2 v", "y", broadcast=1)), (7, node("Gemm", "f w2 v", "y", transB=1)),
        (1, node("PRelu", "x v", "y")), (7, node("PRelu", "x v", "y")), (1, node("TopK", "x", "y z", k=2, axis=1)),
        (10, node("TopK", "x k", "y z")), (1, node("Selu", "x", "y", alpha=1.5, gamma=1.0)),
        (1, node("LpPool", "x", "y", kernel_shape=[2, 2])), (2, node("LpPool", "x", "y", kernel_shape=[2, 2], p=3)),
        (1, node("GlobalLpPool", "x", "y", p=2.0)), (1, node("Gather", "x i", "y", axis=1)),
        (9, node("Scatter", "x x x", "y")), (12, node("ReduceSum", "x", "y", axes=[1])),
        (17, node("ReduceMax", "x", "y", axes=[-1], keepdims=0)), (1, node("ReduceMean", "x", "y")),
        (9, node("Constant", "", "y", value=tensor("c", [1]))), (12, node("Constant", "", "y", value_floats=[1.0])),
        (12, node("Constant", "", "y", value_ints=[1])), (12, node("Constant", "", "y", value_int=1)),
        (12, node("Constant", "", "y", value_string="s")), (6, node("Pow", "x v", "y", broadcast=1, axis=1)),
        (1, node("Elu", "x", "y", consumed_inputs=[0])), (17, node("GroupNormalization", "x v v", "y", num_groups=1)),
        (18, node("GroupNormalization", "x v v", "y", num_groups=1)), (6, node("Sum", "x x", "y")),
        (1, node("LeakyRelu", "x", "y", alpha=0.5)), (10, node("AveragePool", "x", "y", kernel_shape=[2, 2])),
        (1, node("MaxPool", "x", "y", kernel_shape=[2, 2], auto_pad="SAME_UPPER")),
        (11, node("Conv", "x w", "y", auto_pad="SAME_LOWER", strides=[2, 2])), (6, node("Conv", "x w", "y", auto_pad="VALID")),
        (20, node("Gelu", "x", "y", approximate="tanh")), (24, node("Swish", "x", "y", alpha=1.5)),
        (23, node("RMSNormalization", "x v", "y")), (17, node("LayerNormalization", "x l", "y")),
        (16, node("GridSample", "x g", "y", mode="bilinear")), (22, node("GridSample", "x g", "y", mode="cubic")),
        (8, node("Expand", "x i", "y")), (10, node("RoiAlign", "x roi2 i", "y")), (13, node("RoiAlign", "x roi2 i", "y")),
        (11, node("DepthToSpace", "x", "y", blocksize=1, mode="CRD")), (1, node("SpaceToDepth", "x", "y", blocksize=2)),
        (7, node("LSTM", "q lw lr", "y", hidden_size=1)), (3, node("GRU", "q gw gr", "y", hidden_size=1)),
        (1, node("RNN", "q rw rr", "y", hidden_size=1, direction="reverse")),
    ]  # fmt: skip
    c += [
        tensor("t", 2, np.int64), tensor("a", 1, np.int64), tensor("sc", [1, 1, 2, 2]), tensor("roi", []),
        tensor("f", np.ones((1, 2))), tensor("w2", np.ones((2, 2))), tensor("k", [1], np.int64),
        tensor("l", [1, 1, 1, 1]), tensor("g", np.zeros((1, 2, 2, 2))), tensor("roi2", np.ones((2, 4))),
        tensor("q", np.ones((2, 1, 2))), tensor("lw", np.ones((1, 4, 2))), tensor("lr", np.ones((1, 4, 1))),
        tensor("gw", np.ones((1, 3, 2))), tensor("gr", np.ones((1, 3, 1))), tensor("rw", np.ones((1, 1, 2))),
        tensor("rr", np.ones((1, 1, 1))),
    ]  # fmt: skip
    for i, (opset, n) in enumerate(nodes):
        weights = [t for t in c if t.name in n.input]
        for ir in (3, 10):
            inputs = [X] + ([value(t.name, list(t.dims), t.data_type) for t in weights] if ir == 3 else [])
            yield f"old_{i}_{n.op_type}_{opset}_{ir}", model([n], inputs, [Y], weights, opset, ir)


def chains():
    """Functions that exporters write as several nodes."""
    c = [tensor("half", 0.5), tensor("one", 1), tensor("root", 1.4142135), tensor("two", 2), tensor("eps", 1e-5),
         tensor("v", [1, 2, 3, 4]), tensor("three", 3), tensor("six", 6), tensor("zero", 0)]  # fmt: skip
    gelu = [node("Div", "x root", "d"), node("Erf", "d", "e"), node("Add", "e one", "p"), node("Mul", "x p", "m"),
            node("Mul", "m half", "y")]  # fmt: skip
    norm = [node("ReduceMean", "x", "mu", axes=[-1]), node("Sub", "x mu", "d"), node("Pow", "d two", "s"),
            node("ReduceMean", "s", "var", axes=[-1]), node("Add", "var eps", "ve"), node("Sqrt", "ve", "r"),
            node("Div", "d r", "n"), node("Mul", "n v", "g"), node("Add", "g v", "y")]  # fmt: skip
    swish = [node("Sigmoid", "x", "s"), node("Mul", "x s", "y")]
    mish = [node("Softplus", "x", "p"), node("Tanh", "p", "t"), node("Mul", "x t", "y")]
    hard = [node("Add", "x three", "a"), node("Clip", "a zero six", "c"), node("Mul", "x c", "m"),
            node("Div", "m six", "y")]  # fmt: skip
    softsign = [node("Abs", "x", "a"), node("Add", "one a", "b"), node("Div", "x b", "y")]
    for name, nodes in (("gelu", gelu), ("norm", norm), ("swish", swish), ("mish", mish), ("hard", hard),
                        ("softsign", softsign)):  # fmt: skip
        used = {i for n in nodes for i in n.input}
        yield f"chain_{name}", model(nodes, [X], [Y], [t for t in c if t.name in used], 13)


def odd():
    """Fields that are rarely there."""
    m = model([node("Relu", "x", "y")], [X], [Y], value_info=[value("x", ["N", 2, None, 4])], doc_string="text")
    m.producer_name, m.producer_version, m.domain, m.model_version = "p", "1", "d", 3
    helper.set_model_props(m, {"key": "value"})
    m.graph.node[0].doc_string = "doc"
    annotation = m.graph.quantization_annotation.add()
    annotation.tensor_name = "y"
    yield "fields", m
    yield "symbolic", model([node("Relu", "x", "y")], [value("x", ["N", 3, "H", None])], [value("y", ["N", 3, "H", "W"])])
    yield "no_type", model([node("Relu", "x", "y")], [helper.make_empty_tensor_value_info("x")], [Y])
    yield "optional", model([node("Relu", "x", "y")], [helper.make_tensor_sequence_value_info("x", 1, [2])], [Y])
    yield "scalar", model([node("Relu", "x", "y")], [value("x", [])], [value("y", [])])
    yield "empty", model([node("Relu", "x", "y")], [value("x", [0, 3])], [value("y", [0, 3])])
    yield "passes_through", model([], [X], [value("x", None)])
    yield "constant_out", model([], [X], [value("c", None)], [tensor("c", [1, 2])])
    all_kinds = node("LSTM", "x", "y", f=1.0, i=2, s="s", t=tensor("t", [1]), floats=[1.0, 2.0], ints=[1, 2],
                     strings=["a", "b"], hidden_size=2)  # fmt: skip
    yield "attributes", model([all_kinds], [X], [Y])
    tensors = node("Relu", "x", "y")
    tensors.attribute.append(helper.make_attribute("tensors", [tensor("t", [1])]))
    tensors.attribute.append(helper.make_attribute("type", helper.make_tensor_type_proto(1, [2])))
    yield "attributes_more", model([tensors], [X], [Y])
    segment = tensor("c", [1, 2])
    segment.segment.begin, segment.segment.end = 0, 1
    yield "segment", model([node("Add", "x c", "y")], [X], [Y], [segment])


def set_aside():
    """For the target that sets aside what cannot be run: behind a Conv, calls and branches of which a part cannot,
    and what the data decide."""
    front = [node("Conv", "x w", "c", "first"), node("Relu", "c", "r", "second")]
    weights = [tensor("w", np.ones((2, 2, 1, 1)) / 4)]
    gelu = node("FastGelu", "a", "b", domain="com.microsoft")
    strange = helper.make_function("own", "F", ["a"], ["b"], [gelu], [helper.make_opsetid("com.microsoft", 1)])
    plain = helper.make_function("own", "G", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 21)])
    outer = helper.make_function("own", "H", ["a"], ["b"], [node("G", "a", "t", domain="own"), node("F", "t", "b", domain="own")],
                                 [helper.make_opsetid("own", 1)])  # fmt: skip
    other = helper.make_function("own", "O", ["a"], ["b"], [node("Relu", "a", "b")], [helper.make_opsetid("", 20)])
    text = helper.make_function("own", "T", ["a"], ["b", "s"], [node("Constant", "", "s", value_string="s"),
                                node("Relu", "a", "b")], [helper.make_opsetid("", 21)])  # fmt: skip

    def behind(*nodes, extra=(), outputs=(Y,), **more):
        return model([*front, *nodes], [X], list(outputs), [*weights, *extra], **more)

    calls = [node(f, "r", "y", f, domain="own") for f in "FHO"]
    for call in calls:
        yield "call_" + call.name, behind(call, functions=[strange, plain, outer, other], domains=("own", "com.microsoft"))
    yield "call_text", behind(node("T", "r", "y z", "T", domain="own"), functions=[text], domains=("own",),
                              outputs=[Y, helper.make_tensor_value_info("z", TensorProto.STRING, None)])  # fmt: skip
    yield "call_between", behind(node("G", "r", "g", "G", domain="own"), node("H", "g", "h", "H", domain="own"),
                                 node("Add", "g h", "y"), functions=[strange, plain, outer],
                                 domains=("own", "com.microsoft"))  # fmt: skip
    taken = helper.make_graph([node("Relu", "r", "a"), gelu], "taken", [], [value("b", None)], [tensor("unread", [1])])
    left = helper.make_graph([node("Neg", "r", "d")], "left", [], [value("d", None)])
    for condition in (True, False):
        yield f"branch_{condition}", behind(node("If", "t", "y", "if", then_branch=taken, else_branch=left),
                                            extra=[tensor("t", condition, bool)], domains=("com.microsoft",))  # fmt: skip
    ints = [tensor(n, v, np.int64) for n, v in (("one", [1]), ("k", 2), ("flat", [-1]), ("at", 0))]
    yield "non_zero", behind(node("NonZero", "r", "i"), node("Transpose", "i", "j"), node("GatherND", "r j", "y"))
    yield "non_max", behind(node("Reshape", "r boxes", "b"), node("Reshape", "r scores", "s"),
                            node("NonMaxSuppression", "b s one", "i"), node("Gather", "i at", "y", axis=1),
                            extra=[*ints, tensor("boxes", [1, 8, 4], np.int64), tensor("scores", [1, 4, 8], np.int64)])  # fmt: skip
    yield "computed", behind(node("ReduceMax", "r", "m", keepdims=0), node("Clip", "r m", "b"), node("Flatten", "b", "f"),
                             node("Cast", "m", "i", to=TensorProto.INT64), node("Reshape", "i one", "n"),
                             node("TopK", "f n", "y z"), extra=ints)  # fmt: skip
    yield "fixed", behind(node("Shape", "r", "s"), node("Slice", "s at1 one", "b"), node("Concat", "b flat", "to", axis=0),
                          node("Reshape", "r to", "q"), node("F", "q", "y", domain="own"), functions=[strange],
                          domains=("own", "com.microsoft"), extra=[*ints, tensor("at1", [0], np.int64)])  # fmt: skip
    for last in (node("Relu", "u", "y"), node("Squeeze", "u", "y", axes=[0])):
        yield "old_" + last.op_type, behind(node("FastGelu", "r", "u", domain="com.microsoft"), last, opset=9,
                                            domains=("com.microsoft",))  # fmt: skip


def node_tests():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        for case in collect_testcases(None):
            yield case.name, case.model


def main(folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for source in (typed, external, refused, control, functions, pairs, old, chains, odd, set_aside, node_tests):
        for name, made in source():
            data = made.SerializeToString()
            if len(data) <= MOST_BYTES:
                (folder / name).write_bytes(data)
                count += 1
    print(f"{count} models")


if __name__ == "__main__":
    main(sys.argv[1])
