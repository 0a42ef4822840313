#!/usr/bin/env python3
"""Whole quantized networks in quench's integers against onnxruntime, on the same files.

    integer_parity.py --quench build/quench --dump build/tests/run_dump --out DIR [--threads N]

Quantizes the networks of eval_onnx.py and eval_detectors.py with the default command, runs each file
in onnxruntime and in quench on all pictures, and prints how many values of every output are equal
or within one step (the scale of the last quantized tensor before the output), and how many top
answers are. onnxruntime's integers are exact on a CPU with VNNI, and on others for these files.
"""

import argparse
import subprocess
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import common
import eval_detectors


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--quench", default="build/quench")
    p.add_argument("--dump", default="build/tests/run_dump")
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--only", nargs="+")
    return p.parse_args()


def picture_input(name, out):
    pictures = common.Pictures(common.FAMILIES[name], out)
    return np.concatenate([pictures.batch([i]) for i in range(len(pictures))])


def cases(out):
    """name -> (float file, input, classifies)"""
    models = common.SHARED / "models"
    for name, family in common.FAMILIES.items():
        yield name, family.float_path, picture_input(name, out), True
    single = {
        "ultraface": ("ultraface-rfb-320", eval_detectors.face_input, False),
        "fastestdet": ("fastestdet", lambda: eval_detectors.coco_input("val-64"), False),
        "cifar10": ("resnet20", lambda: eval_detectors.cifar_input("test-2000.bin")[0], True),
        "kws": ("mlperf-kws", lambda: eval_detectors.kws_input()[0], True),
    }
    for name, (folder, load, classifies) in single.items():
        found = sorted(p for p in models.glob(f"*{folder}*/*.onnx"))
        if found:
            yield name, found[0], load(), classifies


def step_of(model, output):
    """The scale of the last quantized tensor before an output."""
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    producers = {o: n for n in model.graph.node for o in n.output}
    while output in producers:
        node = producers[output]
        if node.op_type == "DequantizeLinear" and node.input[1] in constants:
            return float(np.max(constants[node.input[1]]))
        if node.op_type == "Softmax":
            return 1 / 256
        output = node.input[0]
    raise SystemExit(f"error: {output}: no scale before it")


def quench_outputs(args, path, data, shapes):
    prefix = args.out / "quench"
    command = [args.dump, "--threads", str(args.threads), path, data, prefix]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [
        np.fromfile(f"{prefix}.{i}", np.float32).reshape(shape) for i, shape in enumerate(shapes)
    ]


def main():
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, float_path, x, classifies in cases(args.out):
        if args.only and name not in args.only:
            continue
        data, quantized = args.out / "input.npy", args.out / f"{name}.onnx"
        np.save(data, x[:: max(1, len(x) // 100)][:100])
        subprocess.run(
            [args.quench, "quantize", float_path, "-o", quantized, "--data", data, "-q"], check=True
        )
        np.save(data, x)
        expected = eval_detectors.run_all(quantized, x, batch=1)
        got = quench_outputs(args, quantized, data, [e.shape for e in expected])
        model = onnx.load(str(quantized))
        for output, e, g in zip(model.graph.output, expected, got, strict=True):
            step = step_of(model, output.name)
            far = np.abs(e - g)
            same_top = ""
            if classifies:
                flat = [v.reshape(len(v), -1) for v in (e, g)]
                same = common.top5(flat[0])[:, 0] == common.top5(flat[1])[:, 0]
                same_top = f"{100 * same.mean():.2f} % of {len(same)}"
            within = 100 * float((far <= 1.001 * step).mean())
            equal = 100 * float((far <= 1e-5 * max(1.0, np.abs(e).max())).mean())
            rows.append([name, output.name, f"{equal:.3f} %", f"{within:.3f} %", same_top])
    head = ["network", "output", "equal", "within one step", "same top answer"]
    print(common.markdown_table(head, rows))


if __name__ == "__main__":
    main()
