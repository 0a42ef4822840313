#!/usr/bin/env python3
"""Time and memory of quantized.out against MNN's own quantizer, with the same configuration.

    mnn_tool_time.py --out DIR [--quench-build build] [--repeats 3] [--admm] [--only WORD]

MNN's quantizer is the one in its Python wheel; it has one thread. Each run is a process of its own,
the tools take turns, pictures are decoded by each. On a machine that does other work, start it with
`chrt -f 1`. MobileNetV1 1.0 is made by make_models.py and
converted by MNN's converter.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import onnx
from PIL import Image

import common
import make_models

RIVAL = (
    "import sys, _tools; "
    "_tools.mnnquant(['mnnquant', *sys.argv[1:]])"
)
CONVERT = (
    "import sys, _tools; _tools.mnnconvert(['mnnconvert', '-f', 'ONNX', '--modelFile', "
    "sys.argv[1], '--MNNModel', sys.argv[2], '--bizCode', 'bench'])"
)
FACES = {"mean": [127] * 3, "normal": [0.0078125] * 3, "width": 320, "height": 240}
IMAGENET = {"mean": [127.5] * 3, "normal": [0.00784313725] * 3, "width": 224, "height": 224}


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--out", required=True, type=Path, help="models, pictures and results")
    p.add_argument("--quench-build", type=Path, default=common.ROOT / "build")
    p.add_argument("--repeats", type=int, default=3)
    p.add_argument("--admm", action="store_true", help="ADMM too: the rival takes minutes")
    p.add_argument("--only", default="", help="cases whose name has this word")
    return p.parse_args()


def mobilenet(out):
    path = out / "mobilenet_v1.mnn"
    if not path.exists():
        source = out / "mobilenet_v1.onnx"
        onnx.save(make_models.make_model("mobilenet_v1"), source)
        command = [sys.executable, "-c", CONVERT, str(source), str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def photographs(out, count):
    """JPEGs of 500 x 375 pixels."""
    folder = out / f"jpeg-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    source = common.SHARED / "images" / "imagenet-500"
    if len(list(folder.glob("*.jpg"))) != count:
        for i, (name, _) in enumerate(common.read_labels(source)[:count]):
            with Image.open(source / name) as image:
                image.convert("RGB").resize((500, 375), Image.BILINEAR).save(
                    folder / f"{i:04}.jpg", quality=90
                )
    return folder


def cases(args):
    """name -> model, configuration, repeats."""
    faces = {"format": "RGB", **FACES, "path": f"{common.SHARED}/images/faces/"}
    objects = {"format": "RGB", **IMAGENET, "path": f"{photographs(args.out, 100)}/"}
    methods = {"feature_quantize_method": "KL", "weight_quantize_method": "MAX_ABS"}
    face_model = common.SHARED / "reference" / "mnn" / "models" / "RFB-320.mnn"
    yield "RFB-320, KL, 24 pictures", face_model, {**faces, **methods, "used_image_num": 24}, args.repeats
    yield "MobileNetV1 1.0, KL, 100 pictures", mobilenet(args.out), {**objects, **methods}, args.repeats
    if args.admm:
        methods = {**methods, "feature_quantize_method": "ADMM"}
        yield "RFB-320, ADMM, 24 pictures", face_model, {**faces, **methods, "used_image_num": 24}, 1
        yield "RFB-320, ADMM, 12 pictures", face_model, {**faces, **methods, "used_image_num": 12}, 1


def tools(args):
    program = str(args.quench_build / "quantized.out")
    one, two = ["taskset", "-c", "0", program], ["taskset", "-c", "0,1", program]
    return {
        "quench, 1 thread": one,
        "quench, 2 threads": two,
        "quench, 1 thread --exact-mnn": [*one, "--exact-mnn"],
        "quench, 2 threads --exact-mnn": [*two, "--exact-mnn"],
        "MNN": [sys.executable, "-c", RIVAL],
    }


def run(args, command):
    result = args.out / "measured.json"
    measured = [sys.executable, "-I", "-S", str(common.BENCH / "run_measured.py"), str(result)]
    done = subprocess.run(
        [*measured, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    if done.returncode:
        sys.stderr.buffer.write(done.stderr)
        raise SystemExit(f"error: {' '.join(command)}: exit {done.returncode}")
    return json.loads(result.read_text())


def measure(args, model, configuration, repeats):
    config = args.out / "config.json"
    config.write_text(json.dumps(configuration))
    runs = {name: [] for name in tools(args)}
    for _ in range(repeats):
        for name, command in tools(args).items():
            files = [str(model), str(args.out / "out.mnn"), str(config)]
            runs[name].append(run(args, [*command, *files]))
    return runs


def main():
    args = parse_arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    print("| case | tool | seconds | CPU seconds | MiB | times faster than MNN | by CPU seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    results = {}
    for name, model, configuration, repeats in cases(args):
        if args.only not in name:
            continue
        runs = measure(args, model, configuration, repeats)
        median = lambda rs, key: statistics.median(r[key] for r in rs)
        rival = {key: median(runs["MNN"], key) for key in ("seconds", "cpu_seconds")}
        for tool, rs in runs.items():
            seconds, cpu = median(rs, "seconds"), median(rs, "cpu_seconds")
            peak = max(r["peak_rss_kib"] for r in rs) / 1024
            print(f"| {name} | {tool} | {seconds:.2f} | {cpu:.2f} | {peak:.0f} | "
                  f"{rival['seconds'] / seconds:.1f} | {rival['cpu_seconds'] / cpu:.1f} |",
                  flush=True)  # fmt: skip
            results[f"{name}, {tool}"] = rs
    (args.out / "mnn_tool_time.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
