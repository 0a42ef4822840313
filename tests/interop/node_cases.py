"""ONNX's own backend node tests through quench: who passes, who is refused, who is wrong.

The cases are those of the PyPI package `onnx` (its backend/test/case/node). A case runs as it is; where
that is not supported, because an input that says axes, sizes or a shape must be constant, it runs again with
every input but the first as an initializer, and at last with all of them.
"""

import collections
import pathlib
import subprocess
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PASSED, CONSTANT, UNSUPPORTED, REFUSED, WRONG, CRASH = (
    "passed", "constant", "unsupported", "refused", "WRONG", "CRASH",
)  # fmt: skip
SUB_BYTE = {21: 4, 22: 4, 23: 4, 25: 2, 26: 2}  # bits of ONNX's element types below a byte
# The operators quench executes in float, and the integer ones next to them: what a model may be made of.
LISTED = frozenset(
    """
    Conv ConvTranspose Gemm MatMul Einsum BatchNormalization InstanceNormalization LayerNormalization
    GroupNormalization RMSNormalization LRN LpNormalization MeanVarianceNormalization Relu LeakyRelu
    PRelu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Swish Tanh Elu Celu Selu Softplus Softsign
    Mish Gelu Erf Exp Log Sqrt Reciprocal Abs Neg Floor Ceil Round Sign Pow Mod Sin Cos Tan Asin Acos
    Atan Sinh Cosh Asinh Acosh Atanh Add Sub Mul Div Min Max Mean Sum Equal Greater Less GreaterOrEqual
    LessOrEqual And Or Xor Not Where IsNaN IsInf MaxPool AveragePool LpPool GlobalAveragePool
    GlobalMaxPool GlobalLpPool ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare ArgMax ArgMin CumSum TopK Softmax LogSoftmax Hardmax
    Concat Split Slice Gather GatherElements GatherND Scatter ScatterElements ScatterND Reshape Flatten
    Transpose Squeeze Unsqueeze Expand Tile Pad Resize Upsample GridSample RoiAlign DepthToSpace
    SpaceToDepth OneHot NonZero Cast CastLike Shape Size Constant ConstantOfShape Range EyeLike Trilu
    Identity Dropout NonMaxSuppression LSTM GRU RNN QuantizeLinear DequantizeLinear
    DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger If
    """.split()
)
Result = collections.namedtuple("Result", "name operators outcome message")


def collect():
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return sorted(collect_testcases(None), key=lambda case: case.name)


def operators(case):
    return sorted({n.op_type if not n.domain else f"{n.domain}:{n.op_type}" for n in case.model.graph.node})


def pack(path, array):
    """As tests/tools/node_cases.c reads it."""
    array = np.asarray(array)
    code = helper.np_dtype_to_tensor_dtype(array.dtype)
    data = np.ascontiguousarray(array).tobytes()
    bits = SUB_BYTE.get(code, 8)
    if bits < 8:  # a byte each in numpy, packed in a file: lowest bits first
        values = np.frombuffer(data, np.uint8) & (2**bits - 1)
        per = 8 // bits
        values = np.pad(values, (0, -values.size % per)).reshape(-1, per).astype(np.uint32)
        data = sum(values[:, i] << (bits * i) for i in range(per)).astype(np.uint8).tobytes()
    head = np.array([code, array.ndim, *array.shape], np.int64).tobytes()
    path.write_bytes(head + data + bytes(-len(data) % 8))


def unpack(path):
    data, at, arrays = path.read_bytes(), 0, []
    while at < len(data):
        code, rank = np.frombuffer(data, np.int64, 2, at)
        dims = np.frombuffer(data, np.int64, rank, at + 16)
        at += 16 + 8 * int(rank)
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(int(code)))
        count = int(np.prod(dims))
        bits = SUB_BYTE.get(int(code), 8 * dtype.itemsize)
        size = (count * bits + 7) // 8
        if bits < 8:
            packed = np.frombuffer(data, np.uint8, size, at)
            low = np.stack([(packed >> (bits * i)) & (2**bits - 1) for i in range(8 // bits)], -1).ravel()[:count]
            if np.dtype(dtype).name.startswith("int"):
                low = np.where(low >= 2 ** (bits - 1), low.astype(np.int8) - 2**bits, low).astype(np.int8)
                arrays.append(low.astype(dtype).reshape(dims))
            elif np.dtype(dtype).name.startswith("uint"):
                arrays.append(low.astype(dtype).reshape(dims))
            else:
                arrays.append(low.astype(np.uint8).view(dtype).reshape(dims))
        else:
            arrays.append(np.frombuffer(data, dtype, count, at).reshape(dims))
        at += (size + 7) // 8 * 8
    return arrays


def arrays(case):
    """The data sets as numpy arrays (the package keeps some as TensorProto)."""

    def array(value):
        return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value

    return [([array(v) for v in ins], [array(v) for v in outs]) for ins, outs in case.data_sets]


def plain(values):
    """Only numpy arrays: sequences, optionals and strings have no raw form."""
    for value in values:
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            return False
        if np.asarray(value).dtype.kind in "OUSc" or np.asarray(value).dtype.itemsize < 1:
            return False
    return True


def with_constants(model, inputs, kept=1):
    """The same model with every input but the first `kept` as an initializer."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for info, value in list(zip(model.graph.input, inputs))[kept:]:
        array = np.asarray(value)
        out.graph.initializer.append(numpy_helper.from_array(array, info.name))
        out.graph.input.remove(next(i for i in out.graph.input if i.name == info.name))
    return out


def run_lines(tool, folder, lines):
    """{model: (status, message)} of LIST lines; a crash is the status of the line it happened in."""
    results, rest = {}, list(lines)
    while rest:
        path = folder / "list.txt"
        path.write_text("".join("\t".join(map(str, line)) + "\n" for line in rest))
        done = subprocess.run([tool, path], capture_output=True, text=True, timeout=600, errors="replace")
        said = [line.split("\t", 2) for line in done.stdout.splitlines() if line.count("\t") >= 2]
        results.update({model: (status, message) for model, status, message in said})
        rest = rest[len(said) :]
        if rest and done.returncode != 0:
            results[str(rest[0][0])] = (CRASH, done.stderr[-1000:].strip() or f"exit {done.returncode}")
            rest = rest[1:]
    return results


def equal(got, expected, rtol, atol):
    if len(got) != len(expected):
        return f"{len(got)} outputs, {len(expected)} expected"
    for index, (a, b) in enumerate(zip(got, expected)):
        b = np.asarray(b)
        if a.dtype != b.dtype or a.shape != b.shape:
            return f"output {index}: {a.dtype}{a.shape}, expected {b.dtype}{b.shape}"
        # Two units in the last place of 16-bit floats, as the package's own runner has it for bfloat16.
        least = {"bfloat16": 2**-6, "float16": 2**-9}.get(np.dtype(b.dtype).name, 0)
        x, y = (v.astype(np.float64) if v.dtype.kind not in "iub" else v for v in (a, b))
        if not (np.array_equal(x, y) if x.dtype.kind in "iub" else np.allclose(x, y, max(rtol, least), atol, equal_nan=True)):
            return f"output {index}: {a.ravel()[:6]}, expected {b.ravel()[:6]}"
    return None


def judge(tool, folder, cases):
    folder = pathlib.Path(folder)
    sets = {case.name: arrays(case) for case in cases}

    def line(case, index, tag, model, inputs):
        stem = folder / f"{case.name}.{tag}{index}"
        model_path, out = f"{stem}.onnx", pathlib.Path(f"{stem}.out")
        pathlib.Path(model_path).write_bytes(model.SerializeToString())
        paths = []
        for i, value in enumerate(inputs):
            paths.append(pathlib.Path(f"{stem}.in{i}"))
            pack(paths[-1], value)
        return [model_path, out, *paths]

    def outcome(case, lines, statuses):
        for (inputs, expected), entry in zip(sets[case.name], lines):
            status, message = statuses[entry[0]]
            if status == CRASH:
                return CRASH, message
            if status != "OK":
                return UNSUPPORTED if status == "UNSUPPORTED" else REFUSED, f"{status}: {message}"
            difference = equal(unpack(entry[1]), expected, case.rtol, case.atol)
            if difference:
                return WRONG, difference
        return PASSED, ""

    def attempt(chosen, tag, change):
        lines = {}
        for case in chosen:
            lines[case.name] = [
                line(case, i, tag, *change(case.model, inputs)) for i, (inputs, _) in enumerate(sets[case.name])
            ]
        statuses = run_lines(tool, folder, [entry for entries in lines.values() for entry in entries])
        return {case.name: outcome(case, lines[case.name], statuses) for case in chosen}

    results, runnable = {}, []
    for case in cases:
        if sets[case.name] and all(plain(i) and plain(o) for i, o in sets[case.name]):
            runnable.append(case)
        else:
            results[case.name] = (UNSUPPORTED, "strings, sequences or optionals")
    results.update(attempt(runnable, "a", lambda model, inputs: (model, inputs)))
    for tag, kept in (("b", 1), ("c", 0)):
        again = [
            c
            for c in runnable
            if results[c.name][0] in (UNSUPPORTED, REFUSED) and len(c.model.graph.input) > kept
        ]
        for name, (kind, message) in attempt(
            again, tag, lambda model, inputs: (with_constants(model, inputs, kept), inputs[:kept])
        ).items():
            if kind in (PASSED, WRONG, CRASH):
                results[name] = (CONSTANT if kind == PASSED else kind, message)
            elif any(word in results[name][1] for word in ("constant", "depends on the data", "before running")):
                results[name] = (kind, message)
    return [Result(c.name, operators(c), *results[c.name]) for c in cases]
