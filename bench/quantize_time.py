#!/usr/bin/env python3
"""Time and memory of quantizing MobileNetV1 1.0: quench (KL) against onnxruntime's tool.

    quantize_time.py --out DIR [--quench build/quench] [--repeats 3]

100 JPEGs of 500 x 375, decoding included, two CPUs; each run is a process of its own, the engines
take turns. Then the peak memory again with 500 pictures: it should not grow with their number.
onnxruntime's histogram methods keep every tensor of every picture, some 4 GiB for 100 of them, so
its entropy method is not run with 500.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

import common
import make_models

MODEL = "mobilenet_v1"
PICTURE_SIZE = (500, 375)
COUNTS = (100, 500)
PREPROCESSING = ["--mean", "127.5", "--normal", "0.00784313725", "--resize", "256"]
PREPROCESSING += ["--crop", "224", "--channels", "RGB"]


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, type=Path, help="model, pictures and results")
    p.add_argument("--quench", default=os.environ.get("QUENCH", "build/quench"))
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--rival-only", action="store_true", help="without quench")
    return p.parse_args()


def source_pictures(count):
    """Photographs where there are any; elsewhere blurred noise, which costs a decoder as much."""
    folder = common.SHARED / "images" / "imagenet-500"
    files = [folder / name for name, _ in common.read_labels(folder)] if folder.exists() else []
    for i in range(count):
        if files:
            with Image.open(files[i % len(files)]) as image:
                yield image.convert("RGB").resize(PICTURE_SIZE, Image.BILINEAR)
        else:
            coarse = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
            yield Image.fromarray(coarse).resize(PICTURE_SIZE, Image.BICUBIC)


def make_pictures(out, count):
    folder = out / f"jpeg-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.jpg"))) != count:
        for i, image in enumerate(source_pictures(count)):
            image.save(folder / f"{i:04}.jpg", quality=90)
    return folder


def make_model(out):
    path = out / f"{MODEL}.onnx"
    if not path.exists():
        onnx.save(make_models.make_model(MODEL), path)
    return path


def quench_command(args, model, folder, weights):
    command = [args.quench, "quantize", str(model), "-o", str(args.out / "quench.onnx")]
    command += ["--images", str(folder), *PREPROCESSING]
    return [*command, "--features", "kl", "--weights", weights, "--threads", str(args.threads)]


def rival_command(args, model, folder, method):
    program = [sys.executable, str(common.BENCH / "ort_quantize.py")]
    command = [*program, str(model), str(args.out / f"ort-{method}.onnx")]
    return [*command, "--images", str(folder), "--method", method, "--per-channel", *PREPROCESSING]


def engines(args):
    """name -> command for a folder of pictures."""

    def rival(method):
        return lambda model, folder: rival_command(args, model, folder, method)

    def quench(weights):
        return lambda model, folder: quench_command(args, model, folder, weights)

    # max_abs is what the rival does to weights; gptq is our default and does more
    ours = {"quench kl": quench("gptq"), "quench kl max_abs": quench("max_abs")}
    theirs = {f"onnxruntime {m}": rival(m) for m in ("minmax", "entropy")}
    return theirs if args.rival_only else {**ours, **theirs}


def run(args, command):
    result = args.out / "measured.json"
    measured = [sys.executable, "-I", "-S", str(common.BENCH / "run_measured.py"), str(result)]
    done = subprocess.run([*measured, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        sys.stderr.buffer.write(done.stderr)
        raise SystemExit(f"error: {' '.join(command)}: exit {done.returncode}")
    return json.loads(result.read_text())


def timed_runs(args, model, folder):
    runs = {name: [] for name in engines(args)}
    order = list(engines(args).items())
    for _ in range(args.repeats):
        for name, command in order:
            runs[name].append(run(args, command(model, folder)))
        order.reverse()
    return runs


def memory_runs(args, model, folder):
    return {
        name: run(args, command(model, folder))
        for name, command in engines(args).items()
        if "entropy" not in name
    }


def ratio(ours, theirs):
    return f"{ours / theirs:.3f}" if ours else ""


def report(args, runs, more):
    seconds = {n: statistics.median(r["seconds"] for r in rs) for n, rs in runs.items()}
    cpu = {n: statistics.median(r["cpu_seconds"] for r in rs) for n, rs in runs.items()}
    peak = {n: max(r["peak_rss_kib"] for r in rs) / 1024 for n, rs in runs.items()}
    few, many = COUNTS
    head = ["tool", "seconds", "CPU seconds", f"MiB, {few} pictures", f"MiB, {many} pictures"]
    head += ["growth", "quench / this, time", "quench / this, memory"]
    ours = "quench kl"
    rows = []
    for name in runs:
        later = more[name]["peak_rss_kib"] / 1024 if name in more else None
        rows.append([
            name, f"{seconds[name]:.2f}", f"{cpu[name]:.2f}", f"{peak[name]:.0f}",
            f"{later:.0f}" if later else "", f"{later / peak[name]:.2f}" if later else "",
            ratio(seconds.get(ours), seconds[name]), ratio(peak.get(ours), peak[name]),
        ])  # fmt: skip
    print(f"{MODEL}, {args.repeats} runs each, median time, largest memory\n")
    print(common.markdown_table(head, rows))


def pin(threads):
    """The rival's tool has no option for threads; it takes the CPUs it may use."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def main():
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    common.warn_when_busy()
    model = make_model(args.out)
    folders = [make_pictures(args.out, count) for count in COUNTS]
    pin(args.threads)
    runs = timed_runs(args, model, folders[0])
    more = memory_runs(args, model, folders[1])
    (args.out / "quantize_time.json").write_text(json.dumps({"timed": runs, "many": more}) + "\n")
    report(args, runs, more)


if __name__ == "__main__":
    main()
