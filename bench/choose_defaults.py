#!/usr/bin/env python3
"""How the choice of methods shows on calibration samples alone: what the defaults are chosen by.

    choose_defaults.py [--quench BINARY] [--features lp mse ...] [--weights gptq mse ...]

For every network and setting: SQNR in dB of the network's outputs against the float network's, by
quench's own simulation of the target, on the samples that were calibrated on. The last column is
the mean over the networks. Held-out samples are not touched.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import common

IMAGENET = ["--images", "images/imagenet-500", "--count", "100", "--resize", "256"]
CIFAR = ["--mean", "123.675,116.28,103.53", "--normal", "0.0171247538,0.0175070028,0.0174291939"]
# name: model, samples and preprocessing, outputs that are compared
NETWORKS = {
    "MobileNetV1-0.25": ("mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.onnx",
                         [*IMAGENET, "--crop", "224", "--mean", "127.5", "--normal", "0.00784313725"], ["logits"]),
    "SqueezeNet 1.1": ("squeezenet-v1.1/squeezenet_v1.1.onnx",
                       [*IMAGENET, "--crop", "227", "--channels", "BGR", "--mean", "104,117,123"], ["prob"]),
    "MENet": ("menet-108-8x1-g3/menet_108_8x1_g3.onnx", [*IMAGENET, "--crop", "224", *CIFAR], ["logits"]),
    "RFB-320": ("ultraface-rfb-320/RFB-320_raw.onnx",
                ["--images", "images/faces", "--mean", "127", "--normal", "0.0078125", "--resize", "320x240"],
                ["scores", "boxes"]),
    "FastestDet": ("fastestdet/FastestDet.onnx",
                   ["--images", "images/coco/train-48", "--channels", "BGR", "--normal", "0.00392156863",
                    "--resize", "352x352"], ["758"]),
    "ResNet-20": ("resnet20-cifar10/resnet20_cifar10.onnx",
                  ["--images", "images/cifar10/train-1000", "--count", "200", *CIFAR], ["logits"]),
    "KWS DS-CNN": ("mlperf-kws/kws_dscnn.onnx",
                   ["--data", "data/kws/features.f32", "--raw-type", "f32", "--raw-shape", "1,49,10",
                    "--first", "150"], ["prob"]),
}  # fmt: skip


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--quench", default="build/quench")
    p.add_argument("--features", nargs="+", default=["minmax", "percentile", "kl", "mse", "lp"])
    p.add_argument("--weights", nargs="+", default=["gptq"])
    p.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    p.add_argument("--extra", nargs="*", default=[], help="more options of quench quantize, without --")
    return p.parse_args()


def absolute(options):
    return [str(common.SHARED / o) if o.startswith(("images/", "data/")) else o for o in options]


def output_sqnr(args, network, features, weights, folder):
    model, options, outputs = NETWORKS[network]
    source = common.SHARED / "models" / model
    quantized = Path(folder) / "q.onnx"
    samples = absolute(options)
    extra = [f"--{o}" for o in args.extra]
    subprocess.run([args.quench, "quantize", source, "-o", quantized, *samples, "--features", features,
                    "--weights", weights, "-q", *extra], check=True)  # fmt: skip
    run = subprocess.run([args.quench, "compare", source, quantized, *samples, "--json"], check=True,
                         capture_output=True, text=True)  # fmt: skip
    rows = {r["name"]: r["sqnr_db"] for r in json.loads(run.stdout)["tensors"]}
    return sum(rows[o] for o in outputs) / len(outputs)


def main():
    args = parse_arguments()
    print("| features | weights |", " | ".join(args.networks), "| mean |")
    print("| --- | --- |", " --- |" * (len(args.networks) + 1))
    with tempfile.TemporaryDirectory() as folder:
        for weights in args.weights:
            for features in args.features:
                figures = [output_sqnr(args, n, features, weights, folder) for n in args.networks]
                cells = [f"{f:.2f}" for f in [*figures, sum(figures) / len(figures)]]
                print(f"| {features} | {weights} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
