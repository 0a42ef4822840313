#!/usr/bin/env python3
"""What onnxruntime's quantization tool reaches on detectors and small classifiers.

    ort_baseline_tasks.py --out DIR [--settings minmax-u8s8-channel ...] [--mask avx2]

Quantizes each network of eval_detectors.py with the tool and prints the same figures, so that ours
can be put beside them.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import common
import eval_detectors as tasks
from ort_baseline import SETTINGS
from ort_quantize import Reader, preprocess_model, quantize

# (task, network, what it is calibrated on)
NETWORKS = (
    ("ultraface", "ultraface-rfb-320/RFB-320_raw.onnx", lambda: tasks.face_input()),
    ("ultraface", "ultraface-rfb-320/RFB-320.onnx", lambda: tasks.face_input()),
    ("fastestdet", "fastestdet/FastestDet.onnx", lambda: tasks.coco_input("train-48")),
    (
        "cifar10",
        "resnet20-cifar10/resnet20_cifar10.onnx",
        lambda: tasks.cifar_input("train-1000.bin")[0],
    ),
    (
        "kws",
        "mlperf-kws/kws_dscnn.onnx",
        lambda: tasks.kws_input()[0][: tasks.KWS_CALIBRATION],
    ),
)


def parse_arguments():
    names = [s.name for s in SETTINGS]
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, type=Path)
    p.add_argument("--settings", nargs="+", choices=names, default=["minmax-u8s8-channel"])
    p.add_argument("--mask", default="none", choices=("none", "avx512", "avx2", "sse4"))
    return p.parse_args()


def make_quantized(source, samples, setting, folder):
    target = folder / f"{source.stem}-{setting.name}.onnx"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        preprocessed = folder / f"{source.stem}-preprocessed.onnx"
        preprocess_model(source, preprocessed)
        name = common.open_session(source).get_inputs()[0].name
        quantize(preprocessed, target, Reader(name, samples(), lambda x: x[None]), setting)
    return target


def main():
    args = parse_arguments()
    chosen = [s for s in SETTINGS if s.name in args.settings]
    for task, model, samples in NETWORKS:
        source = common.SHARED / "models" / model
        for setting in chosen:
            quantized = make_quantized(source, samples, setting, args.out / "models")
            print(f"\n### {source.stem}, {setting.name}, mask {args.mask}\n", flush=True)
            program = [sys.executable, str(common.BENCH / "eval_detectors.py"), task]
            # Its exit status says whether bounds were met, which here is a result like any other.
            subprocess.run([*program, str(source), str(quantized), "--mask", args.mask])


if __name__ == "__main__":
    main()
