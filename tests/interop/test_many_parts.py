"""A Concat of more parts than a node may have when it runs: whole, and sliced off again."""

import subprocess

import numpy as np
import onnx
import pytest
from networks import ort_outputs, quench_outputs
from onnx import helper
from test_byte_functions import Builder


def joined(b, parts, axis, quantized):
    """A Concat of parts, made of parts of x in turn, of different scales."""
    names = []
    for i in range(parts):
        op = ("Relu", "Neg", "Abs")[i % 3]
        b.nodes.append(helper.make_node(op, [f"x{i % 2}"], [f"p{i}"]))
        scale = 0.02 + 0.001 * (i % 5)
        names.append(b.pair(f"p{i}", f"d{i}", scale, np.uint8(100)) if quantized else f"p{i}")
    b.nodes.append(helper.make_node("Concat", names, ["all"], axis=axis))
    return b.pair("all", "whole", 0.025, np.uint8(90)) if quantized else "all"


INPUTS = [("x0", (1, 3, 5)), ("x1", (1, 2, 5))]


@pytest.mark.parametrize(
    ("parts", "quantized"), [(65, False), (4100, False), (65, True), (200, True)]
)
def test_wide_concat(quench, parts, quantized, tmp_path):
    rng = np.random.default_rng(parts)
    b = Builder()
    all_parts = joined(b, parts, 1, quantized)
    b.nodes.append(helper.make_node("Identity", [all_parts], ["y"]))
    path = tmp_path / "m.onnx"
    b.save(path, INPUTS, [None] * 3)
    x = {name: rng.uniform(-2.5, 2.5, dims).astype(np.float32) for name, dims in INPUTS}
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    assert np.array_equal(theirs, ours)


@pytest.mark.parametrize("parts", [64, 150])
def test_parts_sliced_off_again(quench, parts, tmp_path):
    rng = np.random.default_rng(parts)
    b = Builder()
    whole = joined(b, parts, 1, False)
    axes, at, outputs = b.constant("axes", np.array([1], np.int64)), 0, []
    for i in range(parts):
        ends = [at, at + (3, 2)[i % 2]]
        limits = [b.constant(f"l{i}_{k}", np.array([v], np.int64)) for k, v in enumerate(ends)]
        b.nodes.append(helper.make_node("Slice", [whole, *limits, axes], [f"s{i}"]))
        outputs.append(f"s{i}")
        at = ends[1]
    value = [outputs[0], outputs[1]]
    for name in outputs[2:]:
        i = int(name[1:])
        b.nodes.append(helper.make_node("Add", [value[i % 2], name], [f"t{i}"]))
        value[i % 2] = f"t{i}"
    b.nodes.append(helper.make_node("Concat", value, ["y"], axis=1))
    path = tmp_path / "m.onnx"
    b.save(path, INPUTS, [None] * 3)
    x = {name: rng.uniform(-2.5, 2.5, dims).astype(np.float32) for name, dims in INPUTS}
    theirs, ours = ort_outputs(path, x)[0], quench_outputs(path, x, tmp_path / "run")[0]
    assert np.array_equal(theirs, ours)


def test_very_many_parts_are_written(quench, tmp_path):
    """Every Concat that is made of the wide one copies what the file says of it, but not its inputs."""
    b = Builder()
    b.nodes.append(helper.make_node("Concat", ["x"] * 400_000, ["y"], axis=1))
    path = tmp_path / "m.onnx"
    b.save(path, [("x", [1, 1])], [1, 400_000])
    np.save(tmp_path / "x.npy", np.ones((1, 1), np.float32))
    out = tmp_path / "q.onnx"
    command = [quench.binary, "quantize", path, "-o", out, "--data", tmp_path / "x.npy", "-q"]
    subprocess.run(command, check=True, timeout=60)
    nodes = onnx.load(out).graph.node
    assert {n.op_type for n in nodes} == {"Concat"} and len(nodes) > 400_000 // 64
