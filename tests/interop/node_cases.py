"""ONNX's own backend node tests through quench: who passes, who is refused, who is wrong.

The cases are those of the PyPI package `onnx` (its backend/test/case/node). A case runs as it is; where
that is not supported, because an input that says axes, sizes or a shape must be constant, it runs again with
every input but the first as an initializer.
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
        arrays.append(np.frombuffer(data, dtype, count, at).reshape(dims))
        at += (count * dtype.itemsize + 7) // 8 * 8
    return arrays


def plain(values):
    """Only numpy arrays: sequences, optionals and strings have no raw form."""
    for value in values:
        if not isinstance(value, (np.ndarray, np.generic, int, float)):
            return False
        if np.asarray(value).dtype.kind in "OUSc" or np.asarray(value).dtype.itemsize < 1:
            return False
        code = helper.np_dtype_to_tensor_dtype(np.asarray(value).dtype)
        if code not in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 16):
            return False
    return True


def with_constants(model, inputs):
    """The same model with every input but the first as an initializer."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for info, value in list(zip(model.graph.input, inputs))[1:]:
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
        x, y = (v.astype(np.float64) if v.dtype.kind not in "iub" else v for v in (a, b))
        if not (np.array_equal(x, y) if x.dtype.kind in "iub" else np.allclose(x, y, rtol, atol, equal_nan=True)):
            return f"output {index}: {a.ravel()[:6]}, expected {b.ravel()[:6]}"
    return None


def judge(tool, folder, cases):
    folder = pathlib.Path(folder)

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
        for (inputs, expected), entry in zip(case.data_sets, lines):
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
                line(case, i, tag, *change(case.model, inputs)) for i, (inputs, _) in enumerate(case.data_sets)
            ]
        statuses = run_lines(tool, folder, [entry for entries in lines.values() for entry in entries])
        return {case.name: outcome(case, lines[case.name], statuses) for case in chosen}

    results, runnable = {}, []
    for case in cases:
        if all(plain(i) and plain(o) for i, o in case.data_sets) and case.data_sets:
            runnable.append(case)
        else:
            results[case.name] = (UNSUPPORTED, "a type that is not numbers of 8 bits or more")
    results.update(attempt(runnable, "a", lambda model, inputs: (model, inputs)))
    again = [c for c in runnable if results[c.name][0] in (UNSUPPORTED, REFUSED) and len(c.model.graph.input) > 1]
    for name, (kind, message) in attempt(
        again, "b", lambda model, inputs: (with_constants(model, inputs), inputs[:1])
    ).items():
        if kind in (PASSED, WRONG, CRASH):
            results[name] = (CONSTANT if kind == PASSED else kind, message)
        elif "constant" in results[name][1] or "depends on the data" in results[name][1]:
            results[name] = (kind, message)
    return [Result(c.name, operators(c), *results[c.name]) for c in cases]
