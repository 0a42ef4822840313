"""Memory that runs out on every way through what single operators are read, written, planned and quantized by."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "interop"))
import node_cases
import test_dynamic_moves
import test_microsoft_operators
from mnn_operators import cases

ROOT = pathlib.Path(__file__).resolve().parents[2]


def sweep(folder, lines):
    """Rows of tests/tools/fault_files.c: step, file, "ok" | "refused" | "WRONG", details. A build without
    unwind tables, as a release has none, tries a few allocations of each run only: the build with sanitizers
    (QUENCH_BUILD_ASAN), which has them, is taken where there is one."""
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    build = pathlib.Path(os.environ.get("QUENCH_BUILD_ASAN", binary.parent))
    tool = build / "tests" / "fault_files"
    if not tool.exists():
        pytest.skip(f"{tool} is not built (QN_TESTS=ON)")
    listed = folder / "list.txt"
    listed.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines))
    done = subprocess.run([tool, listed], capture_output=True, text=True, timeout=600, errors="replace")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-3000:]
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == len(lines)
    wrong = [row for row in rows if row[2] == "WRONG"]
    assert not wrong, wrong
    return rows


def tried(rows):
    return sum(int(row[3]) for row in rows if row[2] == "ok")


def test_conversions(tmp_path):
    lines = []
    for case in cases():
        source = tmp_path / f"{case.name}.onnx"
        onnx.save(case.model(), source)
        made = source.with_suffix(".mnn")
        lines += [("convert", source, made), ("convert", made, tmp_path / "back.onnx"),
                  ("convert", source, tmp_path / "same.onnx"), ("run", source, "-")]  # fmt: skip
    rows = sweep(tmp_path, lines)
    assert not [row for row in rows if row[2] == "refused"]
    assert tried(rows) > 500


def test_quantizing(tmp_path):
    lines = []
    for case in cases():
        if len(case.inputs) != 1 or not case.name.startswith(("conv", "deconv", "gemm", "matmul", "pool")):
            continue
        source = tmp_path / f"{case.name}.onnx"
        onnx.save(case.model(), source)
        (x,) = case.feeds().values()
        data = tmp_path / f"{case.name}.npy"
        np.save(data, np.stack([x, -x])[:, 0] if len(x) == 1 else np.stack([x, -x]))
        for target in "onnxruntime tensorrt mnn".split():
            lines.append((f"quantize:{target}", source, tmp_path / f"{target}.onnx", data))
        lines += [(scheme, source, tmp_path / f"{scheme}.onnx") for scheme in ("int8", "uint4", "dynamic")]
    rows = sweep(tmp_path, lines)
    assert sum(row[2] == "ok" for row in rows) > 150
    assert tried(rows) > 500


def test_reading_and_planning_every_operator(tmp_path):
    lines = []
    for case in node_cases.collect():
        sets = node_cases.arrays(case)
        if not sets or not all(node_cases.plain(v) for v in sets[0]):
            continue
        source = tmp_path / f"{case.name}.onnx"
        model = node_cases.with_constants(case.model, sets[0][0])
        source.write_bytes(model.SerializeToString())
        lines.append(("run", source, "-"))
    rows = sweep(tmp_path, lines)
    assert sum(row[2] == "ok" for row in rows) > 700
    assert tried(rows) > 500


def test_what_is_written_out(tmp_path):
    """Scales that are computed, and operators of onnxruntime."""
    sources = [test_dynamic_moves.network(tmp_path / f"{i}.onnx", name)
               for i, name in enumerate(test_dynamic_moves.CASES)]  # fmt: skip
    sources += [test_microsoft_operators.lstm(tmp_path / f"lstm{i}.onnx", 3, 5, **case)
                for i, case in enumerate(test_microsoft_operators.LSTM.values())]  # fmt: skip
    sources.append(test_microsoft_operators.softmax(tmp_path / "s.onnx", (1, 5, 16), axis=2, opset=12))
    lines = [line for s in sources for line in (("run", s, "-"), ("convert", s, tmp_path / "c.onnx"))]
    rows = sweep(tmp_path, lines)
    assert not [row for row in rows if row[2] == "refused"]
    assert tried(rows) > 50
