"""Sizes that Resize makes of scales, where the product of float32 and the exact one fall on different sides of a whole
number: ONNX says floor(size x scale) and not in which arithmetic, onnxruntime and OpenVINO use float32."""

import os
import pathlib

import node_cases
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench")).parent / "tests" / "node_cases"


def agrees(tmp_path, size, values, **attributes):
    """With onnxruntime: a square picture resized by values, one for each axis."""
    if not TOOL.exists():
        pytest.skip(f"{TOOL} is not built (QN_TESTS=ON)")
    inputs = ["x", "", "values"] if values.dtype == np.float32 else ["x", "", "", "values"]
    graph = helper.make_graph(
        [helper.make_node("Resize", inputs, ["y"], **attributes)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, "values")])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path, data, out = tmp_path / "m.onnx", tmp_path / "x", tmp_path / "y"
    onnx.save(model, path)
    x = np.random.default_rng(1).random((1, 1, size, size), np.float32)
    node_cases.pack(data, x)
    assert node_cases.run_lines(TOOL, tmp_path, [[path, out, data]])[str(path)] == ("OK", "")
    wanted = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    assert node_cases.equal(node_cases.unpack(out), wanted, 1e-5, 1e-6) is None


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("size, scale", [(10, 2.3), (3, 1.6666666), (7, 2.7142856), (100, 1.1), (35, 0.6), (25, 0.28)])
def test_sizes(tmp_path, mode, size, scale):
    agrees(tmp_path, size, np.array([1, 1, scale, scale], np.float32), mode=mode)


TIES = [
    (30, 9, "half_pixel", "round_prefer_ceil"), (26, 16, "asymmetric", "round_prefer_ceil"),
    (28, 2, "pytorch_half_pixel", "round_prefer_ceil"), (11, 26, "asymmetric", "round_prefer_floor"),
    (18, 21, "half_pixel", "round_prefer_floor"),
]  # fmt: skip


@pytest.mark.parametrize("size, to, coordinates, nearest", TIES)
def test_middles_that_float32_misses(tmp_path, size, to, coordinates, nearest):
    """14.5 comes out as 14.499999 and is the middle all the same."""
    agrees(tmp_path, size, np.array([1, 1, to, to], np.int64), mode="nearest", nearest_mode=nearest,
           coordinate_transformation_mode=coordinates)  # fmt: skip
