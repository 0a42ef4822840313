"""Operators with shapes and attributes that do not fit: refused with a reason, never run past."""

import os
import pathlib

import node_cases
import numpy as np
import pytest
from onnx import TensorProto, helper

ROOT = pathlib.Path(__file__).resolve().parents[2]
F, I64, I32 = np.float32, np.int64, np.int32
ZEROS = np.zeros


def boxes(n):
    return [ZEROS((1, n, 4), F), ZEROS((1, 1, n), F), np.array([3], I64)]


CASES = {
    "einsum letters": ("Einsum", [ZEROS((2, 3), F)], {"equation": "ijk->i"}),
    "einsum sizes": ("Einsum", [ZEROS((2, 3), F), ZEROS((4, 5), F)], {"equation": "ij,jk->ik"}),
    "einsum result": ("Einsum", [ZEROS((2, 3), F)], {"equation": "ij->iij"}),
    "einsum unknown letter": ("Einsum", [ZEROS((2, 3), F)], {"equation": "ij->z"}),
    "einsum operands": ("Einsum", [ZEROS((2,), F)] * 2, {"equation": "i->i"}),
    "einsum garbage": ("Einsum", [ZEROS((2, 3), F)], {"equation": "i.j..->" + "," * 400}),
    "einsum nothing": ("Einsum", [ZEROS((2, 3), F)], {}),
    "einsum too many axes": ("Einsum", [ZEROS((1,) * 8, F)] * 2, {"equation": "abcdefgh,ijklmnop->abcdefghijklmnop"}),
    "lstm weights": ("LSTM", [ZEROS((2, 1, 3), F), ZEROS((1, 8, 4), F), ZEROS((1, 8, 2), F)], {"hidden_size": 2}),
    "lstm directions": ("LSTM", [ZEROS((2, 1, 3), F), ZEROS((1, 8, 3), F), ZEROS((1, 8, 2), F)],
                        {"hidden_size": 2, "direction": "bidirectional"}),
    "lstm hidden": ("LSTM", [ZEROS((2, 1, 3), F), ZEROS((1, 8, 3), F), ZEROS((1, 8, 7), F)], {"hidden_size": 2}),
    "gru activations": ("GRU", [ZEROS((2, 1, 3), F), ZEROS((1, 6, 3), F), ZEROS((1, 6, 2), F)],
                        {"hidden_size": 2, "activations": ["Tanh"]}),
    "rnn activation": ("RNN", [ZEROS((2, 1, 3), F), ZEROS((1, 2, 3), F), ZEROS((1, 2, 2), F)],
                       {"hidden_size": 2, "activations": ["Nothing"]}),
    "grid axes": ("GridSample", [ZEROS((1, 1, 4, 4), F), ZEROS((1, 2, 2, 3), F)], {}),
    "grid batch": ("GridSample", [ZEROS((2, 1, 4, 4), F), ZEROS((1, 2, 2, 2), F)], {}),
    "grid mode": ("GridSample", [ZEROS((1, 1, 4, 4), F), ZEROS((1, 2, 2, 2), F)], {"mode": "wild"}),
    "regions": ("RoiAlign", [ZEROS((1, 1, 4, 4), F), ZEROS((2, 4), F), np.array([0, 5], I64)], {}),
    "region columns": ("RoiAlign", [ZEROS((1, 1, 4, 4), F), ZEROS((2, 5), F), ZEROS(2, I64)], {}),
    "region size": ("RoiAlign", [ZEROS((1, 1, 4, 4), F), np.full((1, 4), 1e30, F), ZEROS(1, I64)], {}),
    "region output": ("RoiAlign", [ZEROS((1, 1, 4, 4), F), ZEROS((2, 4), F), ZEROS(2, I64)], {"output_height": 0}),
    "boxes": ("NonMaxSuppression", [ZEROS((1, 3, 4), F), ZEROS((1, 1, 4), F), np.array([3], I64)], {}),
    "box corners": ("NonMaxSuppression", [ZEROS((1, 3, 5), F), ZEROS((1, 1, 3), F)], {}),
    "pool p": ("LpPool", [ZEROS((1, 1, 4), F)], {"kernel_shape": [2], "p": 0}),
    "pool window": ("LpPool", [ZEROS((1, 1, 4), F)], {"kernel_shape": [2**40]}),
    "pool kernels": ("MaxPool", [ZEROS((1, 1, 4, 4, 4), F)], {"kernel_shape": [2, 2]}),
    "pool pads": ("AveragePool", [ZEROS((1, 1, 4, 4, 4), F)], {"kernel_shape": [2] * 3, "pads": [-3] * 6}),
    "conv channels": ("Conv", [ZEROS((1, 2, 4, 4, 4), F), ZEROS((1, 3, 1, 1, 1), F)], {}),
    "conv group": ("Conv", [ZEROS((1, 2, 4, 4, 4), F), ZEROS((1, 2, 1, 1, 1), F)], {"group": 0}),
    "conv stride": ("Conv", [ZEROS((1, 2, 4, 4, 4), F), ZEROS((1, 2, 1, 1, 1), F)], {"strides": [0, 1, 1]}),
    "resize policy": ("Resize", [ZEROS((1, 1, 4, 4), F), None, None, np.array([1, 1, 2, 2], I64)],
                      {"keep_aspect_ratio_policy": "never"}),
    "resize sizes": ("Resize", [ZEROS((1, 1, 4, 4), F), None, None, np.array([1, 1, 2**40, 2], I64)],
                     {"keep_aspect_ratio_policy": "not_smaller"}),
    "resize region": ("Resize", [ZEROS((1, 1, 4, 4), F), np.full(7, 0.5, F), None, np.array([1, 1, 2, 2], I64)],
                      {"coordinate_transformation_mode": "tf_crop_and_resize"}),
    "pad values": ("Pad", [ZEROS((2, 3), F), ZEROS(4, I64), ZEROS(2, F)], {}),
    "pad no value": ("Pad", [ZEROS((2, 3), F), ZEROS(4, I64), ZEROS(0, F)], {}),
    "pow": ("Pow", [ZEROS((2, 3), I32), ZEROS((2, 4), F)], {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def tool():
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    path = binary.parent / "tests" / "node_cases"
    if not path.exists():
        pytest.skip(f"{path} is not built (QN_TESTS=ON)")
    return path


def build(op_type, inputs, attributes):
    names = [f"in{i}" if value is not None else "" for i, value in enumerate(inputs)]
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, inputs)
        if name
    ]
    node = helper.make_node(op_type, names, ["out"], **attributes)
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", infos, [out])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_refused_with_a_reason(tool, tmp_path, name, constant):
    op_type, inputs, attributes = CASES[name]
    given = [value for value in inputs if value is not None]
    kept = 1 if constant else len(given)
    model = node_cases.with_constants(build(op_type, inputs, attributes), given, kept)
    path, out = tmp_path / "model.onnx", tmp_path / "out"
    path.write_bytes(model.SerializeToString())
    paths = [tmp_path / f"in{i}" for i in range(kept)]
    for at, value in zip(paths, given):
        node_cases.pack(at, value)
    status, message = node_cases.run_lines(tool, tmp_path, [[path, out, *paths]])[str(path)]
    assert status in ("CORRUPT", "UNSUPPORTED", "LIMIT", "INVALID_ARGUMENT"), (status, message)
    assert len(message) > 20
