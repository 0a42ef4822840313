#!/usr/bin/env python3
"""Matrix products with scales made at run time and with weights in blocks: quench and onnxruntime, one thread.

usage: QUENCH=build/quench bench/dynamic.py [ROWSxINNERxCOLUMNS ...]
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

SIZES = ["1x768x768", "16x768x768", "128x768x768", "128x768x3072", "128x3072x768"]
FORMS = {"float": None, "dynamic": ["--dynamic"], "int4": ["--weight-only", "int4"], "int8": ["--weight-only", "int8"]}
ROUNDS = 5
QUENCH = os.environ.get("QUENCH", "quench")


def product(path, m, k, n):
    """A MatMul and its bias."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((k, n)) / np.sqrt(k), "b": rng.standard_normal(n)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], "product"), helper.make_node("Add", ["p", "b"], ["y"], "add")]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [m, c]) for name, c in (("x", k), ("y", n))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:],
                              [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()])  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def ours(path, rounds):
    command = [QUENCH, "bench", path, "--threads", "1", "--rounds", str(rounds), "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["min_ms"]


class Theirs:
    def __init__(self, path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        x = self.session.get_inputs()[0]
        self.feed = {x.name: np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)}

    def __call__(self, rounds):
        best = np.inf
        for _ in range(rounds):
            start = time.perf_counter()
            self.session.run(None, self.feed)
            best = min(best, time.perf_counter() - start)
        return 1000 * best


def main(sizes):
    print("| size | form | bytes | quench ms | onnxruntime ms | quench against its float |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            m, k, n = map(int, size.split("x"))
            best, bytes_of, sessions = {}, {}, {}
            for form, options in FORMS.items():
                path = pathlib.Path(folder) / f"{form}.onnx"
                if options is None:
                    product(path, m, k, n)
                else:
                    source = path.with_name("float.onnx")
                    subprocess.run([QUENCH, "quantize", source, "-o", path, "-q", *options], check=True)
                bytes_of[form], sessions[form] = path.stat().st_size, Theirs(path)
            rounds = max(5, min(100, int(2e9 / (m * k * n))))
            for _ in range(ROUNDS):  # taking turns, so that a busy machine is busy for all
                for form, session in sessions.items():
                    a, b = ours(pathlib.Path(folder) / f"{form}.onnx", rounds), session(rounds)
                    old = best.get(form, (np.inf, np.inf))
                    best[form] = min(old[0], a), min(old[1], b)
            for form, (a, b) in best.items():
                print(f"| {size} | {form} | {bytes_of[form]} | {a:.4f} | {b:.4f} | {best['float'][0] / a:.2f} |")


if __name__ == "__main__":
    main(sys.argv[1:] or SIZES)
