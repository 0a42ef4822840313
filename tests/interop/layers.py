"""Cuts a quantized model into its layers, each a model from quantized tensors to a quantized tensor,
so that both runtimes can be given the same bytes."""

import collections
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import onnx
from networks import AS_AVX2, BUILD, ROOT, session
from onnx import TensorProto, helper, numpy_helper

INTEGERS = {TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8}
PASS = {"MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split",
        "Gather", "Expand", "Tile", "DepthToSpace", "ReduceMax", "ReduceMin", "Resize"}  # fmt: skip


@dataclass
class Layer:
    name: str  # of the weighted or last operator
    op: str
    path: object
    inputs: dict  # name in the layer's model -> samples
    scale: float
    zero: int
    dtype: object


class Cutter:
    def __init__(self, path):
        self.model = onnx.load(path)
        graph = self.model.graph
        self.producer = {o: n for n in graph.node for o in n.output}
        self.order = {id(n): i for i, n in enumerate(graph.node)}
        self.constants = {t.name: t for t in graph.initializer}
        self.float_inputs = {i.name for i in graph.input if i.name not in self.constants}
        self.quantized = {}  # tensor -> (scale, zero)
        for node in graph.node:
            self._note_quantized(node)

    def _note_quantized(self, node):
        if node.op_type == "QuantizeLinear":
            which = node.input[1:3]
        elif node.op_type == "QGemm" and len(node.input) > 7:
            which = node.input[7:9]
        elif node.op_type == "QLinearConcat":
            which = node.input[:2]
        elif node.op_type in ("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul"):
            which = node.input[6:8]
        elif node.op_type.startswith("QLinear"):
            which = node.input[3:5]
        elif node.op_type in PASS and node.input[0] in self.quantized:
            for output in node.output:
                self.quantized[output] = self.quantized[node.input[0]]
            return
        else:
            return
        scale, zero = (numpy_helper.to_array(self.constants[name]) for name in which)
        self.quantized[node.output[0]] = (np.float32(scale), zero)

    def values(self, x):
        """{tensor: [samples, ...]} of every quantized tensor and float input."""
        exposed = onnx.ModelProto()
        exposed.CopyFrom(self.model)
        names = list(self.quantized)
        present = {o.name for o in exposed.graph.output}
        for name in names:
            kind = helper.np_dtype_to_tensor_dtype(self.quantized[name][1].dtype)
            if name not in present:
                exposed.graph.output.append(helper.make_tensor_value_info(name, kind, None))
        s = session(exposed.SerializeToString())
        (first,) = self.float_inputs
        rows = [s.run(names, {first: x[i : i + 1]}) for i in range(len(x))]
        found = {name: np.stack(column) for name, column in zip(names, zip(*rows))}
        found[first] = x[:, None]
        return found

    def cut(self, output):
        """Nodes between `output` and the quantized tensors before it, and those tensors."""
        nodes, starts, todo = {}, [], [self.producer[output]]
        while todo:
            node = todo.pop()
            if id(node) in nodes:
                continue
            nodes[id(node)] = node
            for name in node.input:
                if name in self.quantized or name in self.float_inputs:
                    starts += [name] if name not in starts else []
                elif name in self.producer:
                    todo.append(self.producer[name])
        return sorted(nodes.values(), key=lambda n: self.order[id(n)]), starts

    def layers(self, x, folder):
        values = self.values(x)
        for i, output in enumerate(self.quantized):
            nodes, starts = self.cut(output)
            if not starts:
                continue  # a constant
            if len(nodes) == 1 and nodes[0].op_type in PASS:
                continue  # alone on bytes without a scale: the layer after it shows its values
            yield self._layer(nodes, starts, output, values, folder / f"layer{i}.onnx")

    def _layer(self, nodes, starts, output, values, path):
        renamed = {name: f"in{i}" for i, name in enumerate(starts)}
        copies = []
        for node in nodes:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [renamed.get(name, name) for name in node.input]
            copies.append(copy)
        info = [
            helper.make_tensor_value_info(
                renamed[n], helper.np_dtype_to_tensor_dtype(values[n].dtype), values[n].shape[1:]
            )
            for n in starts
        ]
        scale, zero = self.quantized[output]
        kind = helper.np_dtype_to_tensor_dtype(zero.dtype)
        result = helper.make_tensor_value_info(output, kind, values[output].shape[1:])
        used = {name for n in copies for name in n.input}
        constants = [t for name, t in self.constants.items() if name in used]
        graph = helper.make_graph(copies, "layer", info, [result], constants)
        model = helper.make_model(graph, opset_imports=self.model.opset_import,
                                  ir_version=self.model.ir_version)  # fmt: skip
        onnx.save(model, path)
        kinds = [n for n in nodes if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
        last = kinds[0] if kinds else nodes[-1]
        inputs = {renamed[n]: values[n] for n in starts}
        return Layer(last.name or output, last.op_type, path, inputs, scale, int(zero), zero.dtype)


def ort_integers(layers, masked=False):
    """First output of every layer, by onnxruntime, optionally on a CPU without VNNI."""
    lines = []
    for layer in layers:
        inputs, output = layer.path.with_suffix(".in.npz"), layer.path.with_suffix(".out.npz")
        np.savez(inputs, **layer.inputs)
        lines.append(f"{layer.path}\t{inputs}\t{output}\n")
    command = [AS_AVX2] if masked else []
    command += [sys.executable, ROOT / "tests" / "interop" / "ort_worker.py"]
    result = subprocess.run(list(map(str, command)), input="".join(lines), capture_output=True,
                            text=True, timeout=600)  # fmt: skip
    assert result.returncode == 0, result.stderr
    for layer in layers:
        with np.load(layer.path.with_suffix(".out.npz")) as f:
            yield f["y"]


def quench_values(layer, *options):
    """The layer's output in real values."""
    # Samples lie along the first axis of a file where that axis is the batch of one.
    stacked = all(array.ndim > 1 and array.shape[1] == 1 for array in layer.inputs.values())
    count = len(next(iter(layer.inputs.values())))
    parts = [slice(0, count)] if stacked else [slice(i, i + 1) for i in range(count)]
    values = [run_dump(layer, part, *options) for part in parts]
    return np.concatenate(values)


def quench_integers(layer, *options):
    """The layer's output in integers, from the real values quench gives."""
    values = quench_values(layer, *options)
    return np.rint(values / layer.scale).astype(np.int32) + layer.zero


def run_dump(layer, part, *options):
    files = []
    for name, array in layer.inputs.items():
        path = layer.path.with_suffix(f".{name}.npy")
        np.save(path, array[part].reshape(-1, *array.shape[2:]))
        files.append(f"{name}={path}")
    prefix = layer.path.with_suffix(".ours")
    command = [BUILD / "tests" / "run_dump", *options, layer.path, ",".join(files), prefix]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, f"{layer.op} {layer.name}: {result.stderr}"
    return np.fromfile(f"{prefix}.0", np.float32)


Agreement = collections.namedtuple("Agreement", "layer equal within_one worst")


def agreement(layer, theirs, ours):
    steps = np.abs(theirs.ravel().astype(np.int32) - ours.ravel().astype(np.int32))
    return Agreement(layer, float((steps == 0).mean()), float((steps <= 1).mean()), int(steps.max()))
