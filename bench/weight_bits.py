#!/usr/bin/env python3
"""Weights of few bits: squared error of every layer and top-1, by weight method.

    weight_bits.py --quench build/quench [--bits 2 3 4 5 6] [--networks NAME...] [--skip-accuracy]

For each network and number of bits the weights' squared error over their squares is compared layer
by layer with max_abs's (the same float weights: equalized, BatchNorm folded), then top-1 is measured
by `quench eval`, on pictures that were not calibrated on. Exits with 1 when admm is not below max_abs in
every layer.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import SHARED

CIFAR = ["--mean", "123.675,116.28,103.53", "--normal", "0.0171247538,0.0175070028,0.0174291939"]
IMAGENET = ["--images", "images/imagenet-500", "--resize", "256", "--crop", "224", "--mean", "127.5",
            "--normal", "0.00784313725"]  # fmt: skip
METHODS = ("max_abs", "mse", "admm", "gptq")


def cifar_labels(folder):
    """The test pictures as numbers and their classes, as files of quench."""
    raw = np.fromfile(SHARED / "images/cifar10/test-2000.bin", np.uint8).reshape(-1, 3073)
    mean, normal = ([float(v) for v in text.split(",")] for text in (CIFAR[1], CIFAR[3]))
    pixels = raw[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32)
    shape = (1, 3, 1, 1)
    np.save(folder / "x.npy", (pixels - np.float32(mean).reshape(shape)) * np.float32(normal).reshape(shape))
    lines = [f"{i},{label}" for i, label in enumerate(raw[:, 0])]
    (folder / "labels.csv").write_text("row,class_index\n" + "\n".join(lines) + "\n")
    return ["--data", folder / "x.npy", "--labels", folder / "labels.csv"]


def imagenet_labels(folder):
    """The 400 pictures that `--count 100` leaves."""
    names = sorted(p.name for p in (SHARED / "images/imagenet-500").glob("*.JPEG"))
    used = {names[i * len(names) // 100] for i in range(100)}
    (folder / "used.txt").write_text("".join(f"{SHARED / 'images/imagenet-500' / n}\n" for n in sorted(used)))
    return [*located(IMAGENET), "--exclude", folder / "used.txt", "--labels", SHARED / "images/imagenet-500/labels.csv"]


def located(options):
    return [str(SHARED / o) if o.startswith("images/") else o for o in options]


NETWORKS = {
    "MobileNetV1-0.25": ("mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.onnx",
                         [*IMAGENET, "--count", "100"], imagenet_labels),
    "ResNet-20": ("resnet20-cifar10/resnet20_cifar10.onnx",
                  ["--images", "images/cifar10/train-1000", "--count", "200", *CIFAR], cifar_labels),
}  # fmt: skip


def run(quench, *arguments):
    result = subprocess.run([quench, *map(str, arguments)], capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))}\n{result.stderr}")
    return json.loads(result.stdout)


def weight_errors(report):
    return {n["name"]: n["weight_error"] for n in report["nodes"] if n["weight_bits"] > 0}


def print_layers(name, errors, bits):
    """Rows: layers; columns: bits; a cell: admm's squared error over max_abs's."""
    print(f"\n{name}: squared error of admm over max_abs's, by layer\n")
    print(f"| layer | {' | '.join(f'{b} bits' for b in bits)} |")
    print("| --- |" + " --- |" * len(bits))
    for layer in errors[bits[0], "max_abs"]:
        cells = [errors[b, "admm"][layer] / errors[b, "max_abs"][layer] for b in bits]
        print(f"| {layer} | {' | '.join(f'{c:.3f}' for c in cells)} |")


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--quench", default="build/quench")
    p.add_argument("--bits", nargs="+", type=int, default=[2, 3, 4, 5, 6])
    p.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    p.add_argument("--skip-accuracy", action="store_true")
    return p.parse_args()


def measure(args, name, folder):
    """Prints the tables of one network; returns the layers where admm is not below max_abs."""
    model, calibration, labels = NETWORKS[name]
    model = SHARED / "models" / model
    errors, rows = {}, {}
    samples = None if args.skip_accuracy else labels(folder)
    for bits in args.bits:
        files = []
        for method in METHODS:
            files.append(folder / f"{method}-{bits}.onnx")
            report = run(args.quench, "quantize", model, "-o", files[-1], *located(calibration),
                         "--weights", method, "--weight-bits", bits, "--json")  # fmt: skip
            errors[bits, method] = weight_errors(report)
        if samples is not None:
            found = run(args.quench, "eval", model, *files, *samples, "--json")["models"]
            rows[bits] = [100 * m["top1"] for m in found]
    print_layers(name, errors, args.bits)
    if rows:
        print(f"\n{name}: top-1 in %\n\n| bits | {' | '.join(METHODS)} |\n| --- |" + " --- |" * len(METHODS))
        for bits, row in rows.items():
            print(f"| {bits} | {' | '.join(f'{v:.2f}' for v in row[1:])} |")
        print(f"| float | {rows[args.bits[0]][0]:.2f} |" + " |" * (len(METHODS) - 1))
    return [(name, b, layer) for b in args.bits for layer, e in errors[b, "admm"].items()
            if not e < errors[b, "max_abs"][layer]]  # fmt: skip


def main():
    args = parse_arguments()
    worse = []
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            worse += measure(args, name, Path(folder))
    for name, bits, layer in worse:
        print(f"{name}, {bits} bits, {layer}: not below max_abs")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
