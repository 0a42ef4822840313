"""Print what onnxruntime computes where vpmaddubsw saturates and VNNI does not.

A 1x1 QLinearConv, u8 x s8, over 64 channels that are all 255, one output channel per weight below.
The scales are such that exact arithmetic gives 100 everywhere. A pair 255*w + 255*w that exceeds
32767 is cut there by vpmaddubsw, so the channel gives 100 * 32767 / (510 * w) instead.
"""

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

WEIGHTS = (127, 100, 65, 64)
CHANNELS = 64
EXACT = 100


def saturated(weight):
    return round(EXACT * min(510 * weight, 32767) / (510 * weight))


def model():
    weight = np.repeat(np.array(WEIGHTS, np.int8), CHANNELS).reshape(-1, CHANNELS, 1, 1)
    scale = EXACT / (255.0 * CHANNELS * np.array(WEIGHTS))
    constants = {
        "x_scale": np.float32(1),
        "x_zero": np.uint8(0),
        "weight": weight,
        "w_scale": scale.astype(np.float32),
        "w_zero": np.zeros(len(WEIGHTS), np.int8),
        "y_scale": np.float32(1),
        "y_zero": np.uint8(0),
    }
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"], kernel_shape=[1, 1])
    # 8 x 8 pixels: enough rows for the packed matrix kernels, not only their remainders.
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [1, CHANNELS, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, [1, len(WEIGHTS), 8, 8])
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph([node], "saturation", [x], [y], initializers)
    opset = [helper.make_opsetid("", 13)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def run():
    session = ort.InferenceSession(
        model().SerializeToString(), providers=["CPUExecutionProvider"]
    )
    y = session.run(None, {"x": np.full((1, CHANNELS, 8, 8), 255, np.uint8)})[0]
    if not (y == y[:, :, :1, :1]).all():
        raise SystemExit("error: equal pixels gave different results")
    return [int(v) for v in y[0, :, 0, 0]]


if __name__ == "__main__":
    onnx.checker.check_model(model())
    print(*run())
