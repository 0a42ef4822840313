"""Operators that only MNN's own expressions make: channels-last tensors, TensorFlow's masks, packing."""

import subprocess
import sys

import numpy as np
import pytest

import mnn_runtime
from networks import quench_outputs

pytestmark = pytest.mark.skipif(not mnn_runtime.available(), reason="no MNN package")

# name: (layout of x, its shape, expression of x)
CASES = {
    "nhwc_convert": ("NHWC", (1, 5, 6, 8), "F.convert(F.convert(x, F.NC4HW4), F.NHWC)"),
    "nhwc_pool": ("NHWC", (1, 6, 6, 4), "F.convert(F.max_pool(F.convert(x, F.NC4HW4), [2, 2], [2, 2]), F.NHWC)"),
    "pool_same": ("NC4HW4", (1, 4, 7, 9), "F.avg_pool(x, [3, 3], [2, 2], F.Padding_Mode.SAME)"),
    "max_pool_same": ("NC4HW4", (1, 4, 7, 9), "F.max_pool(x, [2, 3], [2, 2], F.Padding_Mode.SAME)"),
    "nhwc_binary": ("NHWC", (1, 5, 6, 8), "F.multiply(x, F.const(np.arange(8, dtype=np.float32), [8], F.NHWC))"),
    "strided_slice": ("NHWC", (4, 5, 6), "F.strided_slice(x, ints(1, 0, 2), ints(3, 5, 6), ints(1, 2, 1), 2, 2, 0, 0, 0)"),
    "strided_shrink": ("NHWC", (4, 5, 6), "F.strided_slice(x, ints(1, 0, 2), ints(2, 5, 6), ints(1, 1, 3), 0, 0, 0, 0, 1)"),
    "strided_new_axis": ("NHWC", (4, 5, 6), "F.strided_slice(x, ints(0, 1), ints(0, 3), ints(1, 1), 0, 0, 0, 1, 0)"),
    "strided_ellipsis": ("NHWC", (4, 5, 6), "F.strided_slice(x, ints(0, 1), ints(0, 4), ints(1, 1), 0, 0, 1, 0, 0)"),
    "crop": ("NC4HW4", (1, 4, 7, 9), "F.crop(x, F.const(np.zeros(1 * 4 * 3 * 5, np.float32), [1, 4, 3, 5], F.NCHW), 2, [1, 2])"),
    "stack": ("NHWC", (4, 5), "F.stack([x, F.abs(x)], 1)"),
    "unstack": ("NHWC", (3, 5), "F.add(F.unstack(x, 0)[0], F.unstack(x, 0)[2])"),
    "split": ("NHWC", (3, 6), "F.subtract(F.split(x, [2, 4], 1)[0], F.split(x, [2, 2, 2], 1)[1])"),
    "select": ("NHWC", (3, 6), "F.select(F.greater(x, F.const([0.0], [1], F.NHWC)), x, F.square(x))"),
    "comparisons": ("NHWC", (3, 6), "F.cast(F.greater_equal(x, F.const([0.5], [1], F.NHWC)), F.float)"),
    "tile": ("NHWC", (3, 6), "F.tile(x, ints(2, 3))"),
    "broadcast_to": ("NHWC", (3, 1), "F.broadcast_to(x, [2, 3, 4])"),
    "pad_reflect": ("NHWC", (3, 6), "F.pad(x, F.const([1, 1, 2, 0], [2, 2], F.NHWC, F.int), F.PadValue_Mode.REFLECT)"),
    "pad_symmetric": ("NHWC", (3, 6), "F.pad(x, F.const([1, 3, 2, 0], [2, 2], F.NHWC, F.int), F.PadValue_Mode.SYMMETRIC)"),
    "scatter_nd": ("NHWC", (2, 6), "F.scatter_nd(F.const([3, 1], [2, 1], F.NHWC, F.int), x, ints(4, 6))"),
    "gather_nd": ("NHWC", (3, 6), "F.gather_nd(x, F.const([2, 1, 0, 5], [2, 2], F.NHWC, F.int))"),
    "one_hot": ("NHWC", (3, 6), "F.one_hot(F.argmax(x, 1), 6, 2.0, -1.0, 0)"),
    "sin_cos": ("NHWC", (3, 6), "F.add(F.sin(x), F.cos(x))"),
    "reduce": ("NHWC", (3, 6, 2), "F.reduce_mean(x, [1], True)"),
    "arg_max": ("NHWC", (3, 6), "F.cast(F.argmax(x, 1), F.float)"),
    "rsqrt": ("NHWC", (3, 6), "F.rsqrt(F.add(F.square(x), F.const([1.0], [1], F.NHWC)))"),
    "floor_mod": ("NHWC", (3, 6), "F.floormod(x, F.const([0.7], [1], F.NHWC))"),
    "squared_difference": ("NHWC", (3, 6), "F.squared_difference(x, F.const([0.7], [1], F.NHWC))"),
    "prelu": ("NC4HW4", (1, 4, 3, 3), "F.prelu(x, [0.1, 0.2, 0.3, 0.4])"),
    "relu6": ("NC4HW4", (1, 4, 3, 3), "F.relu6(x, -0.5, 1.0)"),
    "zeros_like": ("NHWC", (3, 6), "F.add(F.zeros_like(x), F.abs(x))"),
    "space_to_depth": ("NHWC", (1, 4, 6, 2), "F.space_to_depth(x, 2)"),
    "depth_to_space": ("NHWC", (1, 2, 3, 8), "F.depth_to_space(x, 2)"),
    "shape_of_channels": ("NC4HW4", (1, 4, 3, 5), "F.multiply(x, F.cast(F.size(x), F.float))"),
    "gather": ("NHWC", (3, 6), "F.gather(x, ints(2, 0))"),
    "softmax_axis": ("NHWC", (3, 6, 2), "F.softmax(x, 1)"),
    "expand_dims": ("NHWC", (3, 6), "F.expand_dims(x, 1)"),
    "squeeze": ("NHWC", (3, 1, 6), "F.squeeze(x, [1])"),
    "transpose": ("NHWC", (3, 4, 6), "F.transpose(x, [2, 0, 1])"),
    "matmul_transposed": ("NHWC", (3, 4), "F.matmul(x, F.const(np.arange(20, dtype=np.float32), [5, 4], F.NHWC), False, True)"),
}  # fmt: skip

MAKE = """
import sys
import numpy as np
import MNN.expr as F

def ints(*values):
    return F.const(list(values), [len(values)], F.NHWC, F.int)

layout, shape, text, path = sys.argv[1:]
x = F.placeholder([int(d) for d in shape.split(",")], getattr(F, layout), F.float)
x.name = "x"
y = eval(text)
y.name = "y"
F.save([y], path)
"""


@pytest.mark.parametrize("name", CASES)
def test_expression(name, quench, tmp_path):
    layout, shape, text = CASES[name]
    path = tmp_path / "m.mnn"
    done = subprocess.run(
        [sys.executable, "-c", MAKE, layout, ",".join(map(str, shape)), text, str(path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0 and path.is_file(), done.stdout + done.stderr
    x = np.random.default_rng(9).normal(0, 1.5, shape).astype(np.float32)
    theirs = mnn_runtime.outputs(path, {"x": x}, tmp_path)
    assert theirs is not None
    ours = quench_outputs(path, {"x": x[None]}, tmp_path / "run")
    lines = quench("inspect", path).stdout.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("output ")]
    assert sorted(names) == sorted(theirs)
    for output, got in zip(names, ours):
        expected = theirs[output]
        assert got.size == expected.size
        error = np.abs(got.ravel() - expected.ravel()).max()
        assert error <= 1e-4 * np.abs(expected).max() + 1e-7
