"""Writes a float model of a few huge layers whose weights lie in a file beside it.

    big_model.py OUT.onnx [GIB] [WIDTH]

Layers are Gemm and Relu of WIDTH x WIDTH (4096 unless given); as many as GIB (2.5) holds. A column
of random weights is repeated with factors, so that the file is made in seconds.
"""

import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper


def make(path, gib=2.5, width=4096):
    path = pathlib.Path(path)
    per_layer = width * width * 4
    layers = max(2, round(gib * 2**30 / per_layer))
    rng = np.random.default_rng(1)
    base = rng.standard_normal(width * 64, dtype=np.float32) * np.float32((2.0 / width) ** 0.5)
    nodes, initializers, at = [], [], 0
    with open(path.with_name(path.name + ".data"), "wb") as data:
        for i in range(layers):
            name = f"w{i}"
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[width, width])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", path.name + ".data"),
                ("offset", str(at)),
                ("length", str(per_layer)),
            ):
                tensor.external_data.add(key=key, value=value)
            initializers.append(tensor)
            for block in range(width // 64):
                data.write(np.roll(base, 977 * (block + 1) * (i + 1)).tobytes())
            at += per_layer
            bias = (rng.standard_normal(width, dtype=np.float32) * np.float32(0.1)).tobytes()
            initializers.append(
                TensorProto(
                    name=f"b{i}", data_type=TensorProto.FLOAT, dims=[width], raw_data=bias
                )
            )
            source = "x" if i == 0 else f"r{i - 1}"
            last = i == layers - 1
            nodes.append(
                helper.make_node(
                    "Gemm", [source, name, f"b{i}"], ["y" if last else f"g{i}"], name=f"gemm{i}"
                )
            )
            if not last:
                nodes.append(helper.make_node("Relu", [f"g{i}"], [f"r{i}"], name=f"relu{i}"))
    graph = helper.make_graph(
        nodes,
        "big",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", width])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return at


if __name__ == "__main__":
    total = make(
        sys.argv[1],
        float(sys.argv[2]) if len(sys.argv) > 2 else 2.5,
        int(sys.argv[3]) if len(sys.argv) > 3 else 4096,
    )
    print(f"{total} bytes of weights")
