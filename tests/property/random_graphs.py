"""Small random networks: what exporters write, in odd sizes and unusual combinations."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from conftest import tensor
from onnx import TensorProto, helper

LARGEST = 20000  # elements of a tensor
FAMILIES = []  # (weight, function): each adds an operator to a Builder, or gives up


def family(weight):
    def note(function):
        FAMILIES.append((weight, function))
        return function

    return note


@dataclass
class Network:
    seed: int
    model: onnx.ModelProto
    shape: tuple  # of the input, batch 1
    low: float
    high: float
    operators: list = field(default_factory=list)

    def samples(self, count, seed=1):
        """Coarse blobs and fine noise, like pictures and spectrograms; both ends are reached."""
        rng = np.random.default_rng([self.seed, seed])
        x = rng.uniform(0, 1, (count, *self.shape[1:]))
        if len(self.shape) == 4:
            coarse = rng.uniform(0, 1, (count, self.shape[1], 3, 3))
            rows = np.arange(self.shape[2]) * 3 // self.shape[2]
            columns = np.arange(self.shape[3]) * 3 // self.shape[3]
            x = 0.8 * coarse[:, :, rows][:, :, :, columns] + 0.2 * x
        return (self.low + (self.high - self.low) * x).astype(np.float32)


class GiveUp(Exception):
    """What was drawn does not fit the tensors at hand."""


class Builder:
    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.rng.choice([11, 13, 13, 15, 17, 18, 20, 21]))
        self.nodes, self.constants, self.shapes = [], {}, {}
        self.order = []  # float tensors with a batch, in the order they were made

    def chance(self, p):
        return self.rng.random() < p

    def choice(self, items):
        return items[int(self.rng.integers(len(items)))]

    def among(self, lo, hi):
        return int(self.rng.integers(lo, hi + 1))

    def pick(self, rank=None, where=lambda s: True):
        """A tensor, the youngest most often."""
        fits = [n for n in reversed(self.order)
                if (rank is None or len(self.shapes[n]) == rank) and where(self.shapes[n])]  # fmt: skip
        if not fits:
            raise GiveUp
        return fits[min(int(self.rng.geometric(0.6)) - 1, len(fits) - 1)]

    def constant(self, value, dtype=np.float32):
        name = f"k{len(self.constants)}"
        self.constants[name] = np.array(value, dtype)
        return name

    def weights(self, *shape, fan_in):
        w = self.rng.standard_normal(shape) if self.chance(0.6) else self.rng.standard_t(4, shape)
        w *= np.sqrt(2 / fan_in)
        if self.chance(0.3):  # channels of very different sizes
            w *= np.exp(self.rng.normal(0, 0.8, (shape[0],) + (1,) * (len(shape) - 1)))
        if self.chance(0.15):  # pruned channels
            w[self.rng.random(shape[0]) < 0.3] = 0
        return self.constant(w)

    def op(self, kind, inputs, outputs=1, **attributes):
        """Adds a node if onnx finds its outputs reasonable; returns its output or outputs."""
        names = [f"t{len(self.shapes) + i}" for i in range(outputs)]
        node = helper.make_node(kind, inputs, names, f"{kind.lower()}{len(self.nodes)}",
                                **attributes)  # fmt: skip
        shapes = self.infer(node)
        for name, shape in zip(names, shapes, strict=True):
            self.shapes[name] = shape
        self.nodes.append(node)
        self.order += names
        return names[0] if outputs == 1 else names

    def infer(self, node):
        used = [n for n in node.input if n]
        graph = helper.make_graph(
            [node], "one",
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, self.shapes[n])
             for n in used if n in self.shapes],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in node.output],
            [tensor(n, self.constants[n]) for n in used if n in self.constants],
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)])
        try:
            model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError:
            raise GiveUp from None
        shapes = []
        for output in model.graph.output:
            shape = tuple(d.dim_value for d in output.type.tensor_type.shape.dim)
            if len(shape) < 2 or shape[0] != 1 or 0 >= min(shape) or np.prod(shape) > LARGEST:
                raise GiveUp
            shapes.append(shape)
        return shapes


# --- operators -----------------------------------------------------------------------------------


def window(b, dilated=True):
    """Attributes of a window in two dimensions."""
    kernel = [b.choice([1, 1, 2, 3, 3, 3, 4, 5]) for _ in range(2)]
    if b.chance(0.6):
        kernel[1] = kernel[0]
    found = {"kernel_shape": kernel}
    if b.chance(0.4):
        found["strides"] = [b.among(1, 3), b.among(1, 3)] if b.chance(0.4) else [2, 2]
    if dilated and b.chance(0.2):
        found["dilations"] = [b.among(1, 3), b.among(1, 2)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, found.get("dilations", [1, 1]))]
    if b.chance(0.6):
        found["pads"] = [r // 2 for r in reach] * 2
    elif b.chance(0.5):
        found["pads"] = [b.among(0, r - 1) for r in reach * 2]
    elif b.chance(0.5) and "dilations" not in found:  # onnxruntime refuses both at once
        strides = found.get("strides", [1, 1])
        small = any(k < s for k, s in zip(kernel, strides))  # and pads below zero
        found["auto_pad"] = "VALID" if small else b.choice(["SAME_UPPER", "SAME_LOWER", "VALID"])
    return found


def check_window(shape, form):
    """Gives up where the window is larger than the padded input; onnx takes some of these."""
    if form.get("auto_pad", "").startswith("SAME"):
        return
    pads, dilations = form.get("pads", [0] * 4), form.get("dilations", [1, 1])
    for i, size in enumerate(shape[2:]):
        if (form["kernel_shape"][i] - 1) * dilations[i] + 1 > size + pads[i] + pads[i + 2]:
            raise GiveUp


@family(8)
def conv(b):
    x = b.pick(4)
    cin = b.shapes[x][1]
    group, cout = 1, b.choice([1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24])
    if b.chance(0.3):  # depthwise, sometimes with several outputs for each channel
        group, cout = cin, cin * b.choice([1, 1, 1, 2])
    elif b.chance(0.2):
        group = b.choice([g for g in range(1, cin + 1) if cin % g == 0])
        cout = group * b.among(1, 4)
    attributes = window(b)
    check_window(b.shapes[x], attributes)
    kernel = attributes["kernel_shape"]
    if b.chance(0.1):
        del attributes["kernel_shape"]  # the weights have it
    fan_in = cin // group * kernel[0] * kernel[1]
    inputs = [x, b.weights(cout, cin // group, *kernel, fan_in=fan_in)]
    if b.chance(0.8):
        inputs.append(b.constant(b.rng.normal(0, 0.3, cout)))
    y = b.op("Conv", inputs, group=group, **attributes)
    if b.chance(0.25):
        y = batch_norm(b, y)
    if b.chance(0.6):
        activation(b, y)


@family(0.5)
def conv_transpose(b):
    x = b.pick(4)
    cin, cout = b.shapes[x][1], b.among(1, 8)
    kernel = [b.among(1, 4), b.among(1, 4)]
    strides = [b.among(1, 2), b.among(1, 2)]
    inputs = [x, b.weights(cin, cout, *kernel, fan_in=cin * kernel[0] * kernel[1])]
    if b.chance(0.7):
        inputs.append(b.constant(b.rng.normal(0, 0.3, cout)))
    b.op("ConvTranspose", inputs, strides=strides, pads=[(k - 1) // 2 for k in kernel] * 2)


@family(1)
def batch_norm(b, x=None):
    x = x or b.pick(4)
    c = b.shapes[x][1]
    statistics = [b.rng.uniform(0.3, 2, c), b.rng.normal(0, 0.5, c), b.rng.normal(0, 0.5, c),
                  b.rng.uniform(0.2, 2, c)]  # fmt: skip
    return b.op("BatchNormalization", [x] + [b.constant(s) for s in statistics],
                epsilon=b.choice([1e-5, 1e-3]))  # fmt: skip


@family(2)
def gemm(b):
    x = b.pick(2)
    cin, cout = b.shapes[x][1], b.among(1, 24)
    attributes = {}
    w = (cin, cout)
    if b.chance(0.7):
        attributes["transB"], w = 1, (cout, cin)
    if b.chance(0.15):
        attributes["alpha"] = float(b.choice([0.5, 2.0, 0.7]))
    if b.chance(0.15):
        attributes["beta"] = float(b.choice([0.5, 2.0, 0.7]))
    inputs = [x, b.weights(*w, fan_in=cin)]
    if b.chance(0.8):
        shape = b.choice([(cout,), (cout,), (1, cout), (1,)])
        inputs.append(b.constant(b.rng.normal(0, 0.3, shape)))
    y = b.op("Gemm", inputs, **attributes)
    if b.chance(0.5):
        activation(b, y)


@family(1.5)
def matmul(b):
    x = b.pick()
    cin, cout = b.shapes[x][-1], b.among(1, 16)
    y = b.op("MatMul", [x, b.weights(cin, cout, fan_in=cin)])
    if b.chance(0.5):
        b.op("Add", [y, b.constant(b.rng.normal(0, 0.3, cout))])


@family(4)
def activation(b, x=None):
    x = x or b.pick()
    kind = b.choice(["Relu"] * 6 + ["Clip"] * 3 + ["LeakyRelu"] * 2 + ["Sigmoid"] * 2 + [
        "HardSwish", "HardSigmoid", "Tanh", "Elu", "PRelu", "Softplus", "Swish", "Hard", "Selu",
        "Abs", "Neg", "Erf", "Gelu"])  # fmt: skip
    if kind == "Clip":
        lo, hi = b.choice([(0, 6), (0, 6), (0, None), (-1, 1), (None, 2), (0.5, 3), (-3, -0.25)])
        bounds = ["" if v is None else b.constant(v) for v in (lo, hi)]
        return b.op("Clip", [x] + (bounds if bounds[1] else bounds[:1]))
    if kind == "LeakyRelu":
        return b.op(kind, [x], alpha=b.choice([0.01, 0.1, 0.3]))
    if kind in ("HardSigmoid", "Elu"):
        return b.op(kind, [x], **({"alpha": 0.3} if b.chance(0.4) else {}))
    if kind == "PRelu":
        c = b.shapes[x][1]
        rest = (1,) * (len(b.shapes[x]) - 2)
        return b.op(kind, [x, b.constant(b.rng.uniform(0, 0.5, b.choice([(c, *rest), (1,)])))])
    if kind == "Swish":
        return b.op("Mul", [x, b.op("Sigmoid", [x])])
    if kind == "Hard":  # x * relu6(x + 3) / 6 as exporters write it
        y = b.op("Clip", [b.op("Add", [x, b.constant(3)]), b.constant(0), b.constant(6)])
        return b.op(b.choice(["Div", "Mul"]), [b.op("Mul", [x, y]), b.constant(6)])
    if kind == "HardSwish" and b.opset < 14 or kind == "Gelu" and b.opset < 20:
        raise GiveUp
    return b.op(kind, [x])


@family(3)
def residual(b):
    """Two tensors of one shape, or a gate of one value for each channel or position."""
    x = b.pick()
    shape = b.shapes[x]
    others = [n for n in b.order if n != x and len(b.shapes[n]) == len(shape)
              and all(d in (1, e) for d, e in zip(b.shapes[n], shape))]  # fmt: skip
    if not others:
        if len(shape) != 4:
            raise GiveUp
        w = b.weights(shape[1], shape[1], 3, 3, fan_in=9 * shape[1])
        others = [b.op("Conv", [x, w], pads=[1, 1, 1, 1])]
    pair = [x, b.choice(others)]
    if b.chance(0.5):
        pair.reverse()
    y = b.op(b.choice(["Add"] * 4 + ["Mul"] * 2 + ["Sub", "Max", "Min"]), pair)
    if b.chance(0.5):
        activation(b, y)


@family(0.4)
def doubled(b):
    x = b.pick()
    b.op(b.choice(["Add", "Mul"]), [x, x])


@family(2)
def arithmetic(b):
    """With a constant: a scalar, a value for each channel or position, or all of them."""
    x = b.pick()
    shape = b.shapes[x]
    constant = b.choice([(), (1,), (shape[1],) + (1,) * (len(shape) - 2), shape[-1:], shape])
    kind = b.choice(["Add", "Add", "Mul", "Mul", "Sub", "Div"])
    if kind in ("Mul", "Div"):
        c = b.constant(b.rng.uniform(0.3, 2, constant) * b.choice([1, 1, -1]))
    else:
        c = b.constant(b.rng.normal(0, 0.7, constant))
    b.op(kind, [c, x] if kind in ("Add", "Mul", "Sub") and b.chance(0.3) else [x, c])


@family(3)
def pool(b):
    x = b.pick(4)
    kind = b.choice(["MaxPool", "AveragePool"])
    attributes = window(b, dilated=False)
    if "pads" in attributes:  # smaller than the window
        attributes["pads"] = [min(p, attributes["kernel_shape"][i % 2] - 1)
                              for i, p in enumerate(attributes["pads"])]  # fmt: skip
    check_window(b.shapes[x], attributes)
    if b.chance(0.2) and "auto_pad" not in attributes:
        attributes["ceil_mode"] = 1
    # Where both meet, onnxruntime's integer and float kernels differ in what they divide by.
    if kind == "AveragePool" and b.chance(0.4) and "ceil_mode" not in attributes:
        attributes["count_include_pad"] = 1
    b.op(kind, [x], **attributes)


@family(1.2)
def global_pool(b):
    x = b.pick(4)
    kind = b.choice(["GlobalAveragePool"] * 3 + ["GlobalMaxPool", "ReduceMean", "ReduceMax"])
    if kind.startswith("Global"):
        y = b.op(kind, [x])
    elif b.opset < 18:
        y = b.op(kind, [x], axes=b.choice([[2, 3], [-1, -2], [1], [3]]), keepdims=b.among(0, 1))
    else:
        y = b.op(kind, [x, b.constant(b.choice([[2, 3], [1]]), np.int64)], keepdims=b.among(0, 1))
    if len(b.shapes[y]) == 4 and b.chance(0.5):
        b.op("Flatten", [y])


@family(2)
def concat(b):
    x = b.pick()
    shape = b.shapes[x]
    axis = 1 if b.chance(0.8) else b.among(1, len(shape) - 1)
    fits = [n for n in b.order if len(b.shapes[n]) == len(shape)
            and b.shapes[n][:axis] + b.shapes[n][axis + 1 :] == shape[:axis] + shape[axis + 1 :]]  # fmt: skip
    parts = [x] + [b.choice(fits) for _ in range(b.among(1, 3))]
    b.op("Concat", parts, axis=axis if b.chance(0.7) else axis - len(shape))


@family(1.2)
def split(b):
    x = b.pick(where=lambda s: s[1] >= 2)
    c = b.shapes[x][1]
    n = min(b.among(2, 3), c)
    cuts = sorted(b.rng.choice(np.arange(1, c), n - 1, replace=False))
    sizes = [int(v) for v in np.diff([0, *cuts, c])]
    if b.opset < 13:
        b.op("Split", [x], outputs=n, axis=1, split=sizes)
    elif b.opset < 18 and c % n == 0 and b.chance(0.4):
        b.op("Split", [x], outputs=n, axis=1)
    else:
        b.op("Split", [x, b.constant(sizes, np.int64)], outputs=n, axis=1)


@family(1.2)
def reshape(b):
    x = b.pick()
    c, rest = b.shapes[x][1], b.shapes[x][2:]
    divisors = [g for g in range(2, c) if c % g == 0]
    if len(rest) == 2 and divisors and b.chance(0.5):  # channel shuffle
        g = b.choice(divisors)
        y = b.op("Reshape", [x, b.constant([0, g, c // g, *rest], np.int64)])
        y = b.op("Transpose", [y], perm=[0, 2, 1, 3, 4])
        return b.op("Reshape", [y, b.constant([0, c, *rest], np.int64)])
    total = int(np.prod(b.shapes[x][1:]))
    targets = [[0, -1], [0, 0, -1], [-1, total], [0, total, 1, 1]]
    targets += [[0, g, -1] for g in range(2, 9) if total % g == 0]
    return b.op("Reshape", [x, b.constant(b.choice(targets), np.int64)])


@family(1)
def move(b):
    x = b.pick()
    rank = len(b.shapes[x])
    kind = b.choice(["Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad"])
    if kind == "Flatten":
        return b.op(kind, [x])
    if kind == "Transpose":
        return b.op(kind, [x], perm=[0, *(1 + b.rng.permutation(rank - 1)).tolist()])
    if kind in ("Squeeze", "Unsqueeze"):
        ones = [i for i, d in enumerate(b.shapes[x]) if i > 0 and d == 1 and rank > 2]
        if kind == "Unsqueeze":
            ones = list(range(1, rank + 1)) if rank < 4 else []
        if not ones:
            raise GiveUp
        axes = [b.choice(ones)]
        if b.opset < 13:
            return b.op(kind, [x], axes=axes)
        return b.op(kind, [x, b.constant(axes, np.int64)])
    if kind == "Slice":
        axis = b.among(1, rank - 1)
        start = b.among(0, b.shapes[x][axis] - 1)
        end = b.choice([2**31 - 1, b.shapes[x][axis], max(start + 1, b.shapes[x][axis] - 1)])
        numbers = [[start], [end], [axis], [b.choice([1, 1, 2])]]
        return b.op(kind, [x] + [b.constant(v, np.int64) for v in numbers])
    if rank != 4:
        raise GiveUp
    pads = [0, 0, b.among(0, 2), b.among(0, 2)] * 2
    mode = b.choice(["constant", "constant", "reflect", "edge"])
    inputs = [x, b.constant(pads, np.int64)]
    if mode == "constant" and b.chance(0.5):
        inputs.append(b.constant(b.choice([0, 0, 0.5])))
    if mode == "reflect" and min(b.shapes[x][2:]) < 3:
        raise GiveUp
    return b.op("Pad", inputs, mode=mode)


@family(0.8)
def resize(b):
    x = b.pick(4)
    shape = b.shapes[x]
    if b.chance(0.2):
        if b.chance(0.5) and shape[2] % 2 == shape[3] % 2 == 0:
            return b.op("SpaceToDepth", [x], blocksize=2)
        if shape[1] % 4 == 0:
            return b.op("DepthToSpace", [x], blocksize=2, mode=b.choice(["DCR", "CRD"]))
        raise GiveUp
    form = {"mode": "nearest"}
    if b.chance(0.7):
        form |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    elif b.chance(0.4):
        form = {"mode": "linear", "coordinate_transformation_mode": b.choice(
            ["half_pixel", "align_corners", "asymmetric"])}  # fmt: skip
    if b.chance(0.6):
        by = b.choice([(2, 2), (3, 1), (2, 4), (1.5, 1.5)])
        if form.get("coordinate_transformation_mode") == "align_corners" and (
            by[0] * shape[2] % 1 or by[1] * shape[3] % 1
        ):
            raise GiveUp  # ONNX and ONNX Runtime disagree about corners of fractional lengths
        scales = b.constant([1, 1, *by])
        return b.op("Resize", [x, "" if b.opset >= 13 else b.constant([]), scales], **form)
    sizes = [1, shape[1], shape[2] * b.among(1, 3), shape[3] * b.among(1, 3)]
    empty = "" if b.opset >= 13 else b.constant([])
    return b.op("Resize", [x, empty, empty, b.constant(sizes, np.int64)], **form)


@family(0.7)
def softmax(b):
    x = b.pick()
    axis = b.choice([1, -1]) if b.opset >= 13 else len(b.shapes[x]) - 1
    if b.shapes[x][axis] == 1:  # always 1, which onnxruntime's integer kernel makes 0
        raise GiveUp
    b.op(b.choice(["Softmax", "Softmax", "Softmax", "LogSoftmax"]), [x], axis=axis)


@family(0.3)
def norm(b):
    x = b.pick()
    shape = b.shapes[x]
    if b.opset >= 17 and b.chance(0.5):
        c = [b.constant(b.rng.uniform(0.5, 1.5, shape[-1])), b.constant(b.rng.normal(0, 0.2, shape[-1]))]
        return b.op("LayerNormalization", [x, *c])
    if len(shape) != 4:
        raise GiveUp
    if b.chance(0.5):
        return b.op("LRN", [x], size=b.choice([3, 5]))
    c = [b.constant(b.rng.uniform(0.5, 1.5, shape[1])), b.constant(b.rng.normal(0, 0.2, shape[1]))]
    return b.op("InstanceNormalization", [x, *c])


# --- networks ------------------------------------------------------------------------------------


def random_network(seed):
    b = Builder(seed)
    rank = 4 if b.chance(0.9) else 2
    shape = (1, b.choice([1, 2, 3, 3, 3, 4, 8, 9]), b.among(3, 20), b.among(3, 20))
    if rank == 2:
        shape = (1, b.among(3, 60))
    b.shapes["x"] = shape
    b.order = ["x"]
    wanted = b.among(2, 12)
    weights = np.array([w for w, _ in FAMILIES])
    while len(b.nodes) < wanted:
        _, add = FAMILIES[int(b.rng.choice(len(FAMILIES), p=weights / weights.sum()))]
        try:
            add(b)
        except GiveUp:
            continue
    outputs = [b.order[-1]]
    made = [n for n in b.order if n not in ("x", outputs[0])]
    read = {n for node in b.nodes for n in node.input}
    loose = [n for n in made if n not in read]
    if made and b.chance(0.4):
        outputs.append(b.choice(loose or made))
    low, high = b.choice([(0, 1), (-1, 1), (-2.1, 2.6), (0, 6), (-128, 127)])
    if max(abs(low), high) > 10:  # pixels: the first layer's weights are small in such networks
        low, high = low / 64, high / 64
    return Network(seed, assemble(b, outputs), shape, low, high, [n.op_type for n in b.nodes])


def assemble(b, outputs):
    """The nodes that the outputs need, with a batch of 1 or of any size."""
    needed, nodes = set(outputs), []
    for node in reversed(b.nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.insert(0, node)
    batch = "N" if b.chance(0.6) else 1
    info = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, *b.shapes[n][1:]])
    graph = helper.make_graph(nodes, "random", [info("x")], [info(n) for n in outputs],
                              [tensor(n, v) for n, v in b.constants.items() if n in needed])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", b.opset)],
                              ir_version=8 if b.opset < 21 else 10)  # fmt: skip
    onnx.checker.check_model(model, full_check=True)
    return model
