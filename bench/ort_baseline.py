#!/usr/bin/env python3
"""What onnxruntime's quantization tool reaches on three ImageNet networks, setting by setting.

    ort_baseline.py --out DIR [--families mobilenet squeezenet menet] [--masks avx2 none]

Calibrates on 100 of the 500 pictures, counts on the other 400. Every setting runs on a CPU without
VNNI, where the tool's int8 kernels saturate ("avx2"), and on this one as it is ("none"). Models,
ranges and predictions stay in DIR; what is there already is not made again. The best single
setting is chosen as a careful user would: on the calibration pictures alone, for all networks.
"""

import argparse
import hashlib
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantType

import common
from ort_quantize import METHODS, Reader, Setting, preprocess_model, quantize

SETTINGS = [Setting()] + [
    Setting(method, reduced, channel, QuantType.QUInt8)
    for method, reduced, channel in itertools.product(METHODS, (False, True), (True, False))
]
COUNTED = ("held-out", "calibration")


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, type=Path)
    p.add_argument("--families", nargs="+", default=list(common.FAMILIES), choices=common.FAMILIES)
    p.add_argument("--masks", nargs="+", default=["avx2", "none"])
    p.add_argument("--check-cache", action="store_true", help="requantize one model, no cache")
    return p.parse_args()


def model_path(out, family, setting):
    return out / "models" / f"{family}-{setting.name}.onnx"


def reader_for(family, pictures):
    def make(index):
        return pictures.batch([index])

    name = common.FAMILIES[family].input_name
    return Reader(name, pictures.calibration_indices(), make)


def make_models(out, family):
    pictures = common.Pictures(common.FAMILIES[family], out)
    preprocessed = out / "models" / f"{family}-preprocessed.onnx"
    preprocessed.parent.mkdir(parents=True, exist_ok=True)
    if not preprocessed.exists():
        preprocess_model(common.FAMILIES[family].float_path, preprocessed)
    for setting in SETTINGS:
        target = model_path(out, family, setting)
        if not target.exists():
            print(f"quantizing {target.stem}", file=sys.stderr, flush=True)
            ranges = out / "models" / f"{family}-{setting.method}.ranges.json"
            quantize(preprocessed, target, reader_for(family, pictures), setting, ranges)


def check_cache(out, family):
    """The shared ranges must not change what the tool writes."""
    pictures = common.Pictures(common.FAMILIES[family], out)
    preprocessed = out / "models" / f"{family}-preprocessed.onnx"
    for setting in (s for s in SETTINGS if not s.reduce_range and s.per_channel):
        fresh = out / "models" / "fresh.onnx"
        quantize(preprocessed, fresh, reader_for(family, pictures), setting)
        same = digest(fresh) == digest(model_path(out, family, setting))
        fresh.unlink()
        print(f"{family} {setting.name}: {'same' if same else 'DIFFERENT'} bytes without the cache")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_predictions(out, family, mask):
    """One process for all settings of a family: the mask is set at its start."""
    folder = out / "predictions"
    models = [model_path(out, family, s) for s in SETTINGS]
    todo = [m for m in models if not (folder / f"{m.stem}.{mask}.npz").exists()]
    if todo:
        print(f"running {family}, mask {mask}", file=sys.stderr, flush=True)
        command = [sys.executable, str(common.BENCH / "eval_onnx.py"), "--family", family]
        command += ["--out", str(folder), "--cache", str(out), "--mask", mask, "--json"]
        command += map(str, todo)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def float_file(out, family, mask):
    stem = common.FAMILIES[family].float_path.stem
    return out / "predictions" / f"{family}-{stem}.float.{mask}.npz"


def measure(out, family, setting, mask):
    stem = model_path(out, family, setting).stem
    quantized = common.Predictions.load(out / "predictions" / f"{stem}.{mask}.npz")
    reference = common.Predictions.load(float_file(out, family, mask))
    result = {}
    for which in COUNTED:
        q, f = quantized.subset(which), reference.subset(which)
        result[which] = {
            "top1": q.accuracy(),
            "top5": q.accuracy(5),
            "agreement": q.agreement(f),
        }
    return result


def collect(out, families, masks):
    return {
        mask: {s.name: {f: measure(out, f, s, mask) for f in families} for s in SETTINGS}
        for mask in masks
    }


def mean_over(families, which, what):
    return float(np.mean([families[f][which][what] for f in families]))


def best_setting(by_setting, what):
    """By the calibration pictures only; the other figure decides ties."""
    other = "agreement" if what == "top1" else "top1"

    def rank(name):
        families = by_setting[name]
        return (
            mean_over(families, "calibration", what),
            mean_over(families, "calibration", other),
        )

    return max(by_setting, key=rank)


def cell(figures):
    return f"{figures['top1']:.2f} / {figures['top5']:.2f} / {figures['agreement']:.2f}"


def table(by_setting, families, which):
    head = ["setting", *families, "mean top-1", "mean agreement"]
    rows = [
        [name, *(cell(results[f][which]) for f in families)]
        + [f"{mean_over(results, which, w):.2f}" for w in ("top1", "agreement")]
        for name, results in by_setting.items()
    ]
    return common.markdown_table(head, rows)


def float_line(out, families, mask, which):
    parts = []
    for family in families:
        p = common.Predictions.load(float_file(out, family, mask)).subset(which)
        parts.append(f"{family} {p.accuracy():.2f} / {p.accuracy(5):.2f}")
    return "float: " + ", ".join(parts)


def report(out, families, figures):
    for mask, by_setting in figures.items():
        for which in COUNTED:
            print(f"\n### mask {mask}, {which} pictures (top-1 / top-5 / agreement, %)\n")
            print(float_line(out, families, mask, which) + "\n")
            print(table(by_setting, families, which))
        for what in ("top1", "agreement"):
            name = best_setting(by_setting, what)
            print(f"\nmask {mask}: best single setting by calibration {what}: {name}")


def main():
    args = parse_arguments()
    for family in args.families:
        make_models(args.out, family)
        if args.check_cache:
            check_cache(args.out, family)
        for mask in args.masks:
            run_predictions(args.out, family, mask)
    figures = collect(args.out, args.families, args.masks)
    best = {
        mask: {what: best_setting(by, what) for what in ("top1", "agreement")}
        for mask, by in figures.items()
    }
    summary = {"figures": figures, "best": best}
    (args.out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    report(args.out, args.families, figures)


if __name__ == "__main__":
    main()
