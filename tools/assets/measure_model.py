#!/usr/bin/env python3
"""Measure the demo model: float, and int8 by onnxruntime's own quantizer.

Prints the table of assets/README.md. onnxruntime's static quantizer serves as
an outside yardstick of how hard the model is.
"""

import argparse
import contextlib
import csv
import importlib
import io
import pathlib
import tempfile

import numpy as np
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static)
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

# The package exports a function of this module's name, which hides the module.
ort_quantize = importlib.import_module("onnxruntime.quantization.quantize")

MEAN, NORMAL = 127.5, 0.00784313725
METHODS = {"MinMax": CalibrationMethod.MinMax,
           "Entropy": CalibrationMethod.Entropy,
           "Percentile": CalibrationMethod.Percentile}
# onnxruntime's own 128 bins for 128 levels leave its entropy search a single
# candidate, the full range: MinMax under another name. More bins make it search.
# (weights per channel, 7 bit weights, activation method, percentile or bins)
SETTINGS = [
    (False, False, "MinMax", None),
    (False, False, "Entropy", 512),
    (False, False, "Percentile", 99.99),
    (True, False, "MinMax", None),
    (True, True, "MinMax", None),
    (True, False, "Entropy", 512),
    (True, True, "Entropy", 512),
    (True, False, "Entropy", 2048),
    (True, True, "Entropy", 2048),
    (True, False, "Percentile", 99.99),
    (True, True, "Percentile", 99.99),
    (True, True, "Percentile", 99.9),
]


def load(folder):
    """(float pictures [n,3,48,48], labels)."""
    with open(folder / "labels.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    pixels = [np.asarray(Image.open(folder / row["file"]).convert("RGB")) for row in rows]
    x = (np.stack(pixels).astype(np.float32) - MEAN) * NORMAL
    x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32)
    return x, np.array([int(row["class_index"]) for row in rows])


class Reader(CalibrationDataReader):
    def __init__(self, x):
        self.rows = iter({"input": x[i:i + 1]} for i in range(len(x)))

    def get_next(self):
        return next(self.rows, None)


def probabilities(path, x):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    return session.run(None, {"input": x})[0]


@contextlib.contextmanager
def entropy_bins(bins):
    """quantize_static has no option for the bins; set them on the way."""
    create = ort_quantize.create_calibrator

    def patched(*args, **kwargs):
        options = kwargs.get("extra_options") or {}
        kwargs["extra_options"] = {**options, "num_bins": bins}
        return create(*args, **kwargs)

    ort_quantize.create_calibrator = patched
    try:
        yield
    finally:
        ort_quantize.create_calibrator = create


def quantize(source, target, calib, setting):
    per_channel, reduce_range, method, detail = setting
    bins = entropy_bins(detail) if method == "Entropy" else contextlib.nullcontext()
    extra = {"CalibPercentile": detail} if method == "Percentile" else {}
    # The calibrators print their progress between the rows of the table.
    with contextlib.redirect_stdout(io.StringIO()), bins:
        quantize_static(str(source), str(target), Reader(calib),
                        quant_format=QuantFormat.QDQ, per_channel=per_channel,
                        reduce_range=reduce_range, activation_type=QuantType.QUInt8,
                        weight_type=QuantType.QInt8, calibrate_method=METHODS[method],
                        extra_options=extra)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=pathlib.Path, default=pathlib.Path("assets"))
    parser.add_argument("--model", type=pathlib.Path)
    args = parser.parse_args()
    model = args.model or args.assets / "model" / "quench_demo.onnx"
    calib, _ = load(args.assets / "calib")
    test, labels = load(args.assets / "test")
    float_top = probabilities(model, test).argmax(1)
    base = (float_top == labels).mean() * 100
    print("| weights | activations | top-1 % | change | same as float % |")
    print("|---|---|---|---|---|")
    print(f"| float | float | {base:.2f} | | |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folded = pathlib.Path(scratch) / "folded.onnx"
        quant_pre_process(str(model), str(folded), skip_symbolic_shape=True)
        for setting in SETTINGS:
            target = pathlib.Path(scratch) / "int8.onnx"
            quantize(folded, target, calib, setting)
            top = probabilities(target, test).argmax(1)
            score = (top == labels).mean() * 100
            same = (top == float_top).mean() * 100
            per = "per channel" if setting[0] else "per tensor"
            bits = "7 bit" if setting[1] else "8 bit"
            how = setting[2] + (f" {setting[3]}" if setting[3] else "")
            how += " bins" if setting[2] == "Entropy" else ""
            print(f"| {per}, {bits} | {how} | {score:.2f} | {score - base:+.2f} "
                  f"| {same:.2f} |", flush=True)


if __name__ == "__main__":
    main()
