#!/usr/bin/env python3
"""Quantize with onnxruntime's own tool, the way its documentation recommends.

quant_pre_process (shape inference, constant folding, fusion), then quantize_static in QDQ form.
As a program it also decodes and prepares the pictures, so that its time and memory can be measured
as one process:

    ort_quantize.py MODEL OUT --images DIR --method minmax [--reduce-range] [--per-channel]
"""

import argparse
import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

import common

PER_CHANNEL_OPSET = 13  # DequantizeLinear has an axis from here on

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


@dataclass(frozen=True)
class Setting:
    """One choice of the tool's options; the default is what it does when given none."""

    method: str = "minmax"
    reduce_range: bool = False
    per_channel: bool = False
    activation: QuantType = QuantType.QInt8

    @property
    def name(self):
        types = "u8s8" if self.activation == QuantType.QUInt8 else "s8s8"
        parts = [self.method, types]
        parts += ["reduced"] if self.reduce_range else []
        parts += ["channel"] if self.per_channel else ["tensor"]
        return "-".join(parts)


class Reader(CalibrationDataReader):
    """Feeds one input at a time; `make` turns an item into a [1, ...] float array."""

    def __init__(self, input_name, items, make):
        self.input_name = input_name
        self.items = iter(items)
        self.make = make

    def get_next(self):
        item = next(self.items, None)
        return None if item is None else {self.input_name: self.make(item)}


@contextlib.contextmanager
def quiet():
    """The tool prints its progress on stdout and logs advice; neither belongs in our tables."""
    logging.getLogger().setLevel(logging.ERROR)
    ort.set_default_logger_severity(3)
    with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
        yield


def at_per_channel_opset(source):
    """The tool writes per-channel files that do not load when the opset is below 13.

    Initializers listed as inputs (IR 3 habit) would also keep its optimizer from folding them.
    """
    model = onnx.load(source)
    if next(o.version for o in model.opset_import if not o.domain) >= PER_CHANNEL_OPSET:
        return model
    constants = {i.name for i in model.graph.initializer}
    inputs = [i for i in model.graph.input if i.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET)


def preprocess_model(source, target):
    """The tool's recommended first step; kept by the caller, since all settings share it."""
    with quiet():
        quant_pre_process(at_per_channel_opset(source), str(target))


def quantize(preprocessed, target, reader, setting, cache=None):
    """cache: a file for the calibrated ranges, which only the method and the pictures decide."""
    with quiet():
        quantize_static(
            str(preprocessed),
            str(target),
            reader,
            quant_format=QuantFormat.QDQ,
            per_channel=setting.per_channel,
            reduce_range=setting.reduce_range,
            activation_type=setting.activation,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[setting.method],
            calibration_cache_path=cache,
        )


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("model", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--images", required=True, type=Path)
    p.add_argument("--method", default="minmax", choices=METHODS)
    p.add_argument("--reduce-range", action="store_true")
    p.add_argument("--per-channel", action="store_true")
    p.add_argument("--signed", action="store_true", help="s8 activations, the tool's default")
    p.add_argument("--mean", type=float, nargs="+", default=[127.5])
    p.add_argument("--normal", type=float, nargs="+", default=[0.00784313725])
    p.add_argument("--resize", type=int, default=256)
    p.add_argument("--crop", type=int, default=224)
    p.add_argument("--channels", default="RGB", choices=("RGB", "BGR"))
    return p.parse_args()


def folder_reader(args):
    def make(path):
        crop = common.crop_picture(path, args.resize, args.crop)[None]
        return common.normalise(crop, args.channels, args.mean, args.normal)

    pictures = sorted(p for p in args.images.iterdir() if p.suffix.lower() in (".jpg", ".jpeg"))
    session = ort.InferenceSession(str(args.model), providers=["CPUExecutionProvider"])
    return Reader(session.get_inputs()[0].name, pictures, make)


def main():
    args = parse_arguments()
    activation = QuantType.QInt8 if args.signed else QuantType.QUInt8
    setting = Setting(args.method, args.reduce_range, args.per_channel, activation)
    preprocessed = args.out.with_suffix(".pre.onnx")
    preprocess_model(args.model, preprocessed)
    quantize(preprocessed, args.out, folder_reader(args), setting)
    preprocessed.unlink()


if __name__ == "__main__":
    main()
