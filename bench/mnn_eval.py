#!/usr/bin/env python3
"""Float and int8 .mnn files in MNN's own runtime, on labelled pictures.

usage: mnn_eval.py [--shared DIR] [--quench BIN] [--models NAME,NAME] [--limit N]
                   [--onnx | --tool] [--theirs FILE] [-- OPTIONS]

For every model: quench quantizes it on calibration pictures, then both files answer the evaluation
pictures in MNN: top-1 of classifiers, the largest and mean error of a detector's outputs, and which
share of the convolutions ran in int8. --onnx takes the networks that exist as ONNX files from those:
quench exports the float file and the int8 file. --tool runs quantized.out with KL and MAX_ABS in the
place of quench quantize; OPTIONS go to the one that runs. --theirs FILE evaluates that file in the place of
quench's (one model). Needs the MNN wheel, numpy and Pillow.
"""

import argparse
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

IMAGENET = {"resize": 256, "crop": 224}
TASKS = {
    "resnet8": {
        "model": "reference/mnn/models/resnet8.mnn", "layout": "nhwc", "size": (32, 32),
        "calibrate": "images/cifar10/train-1000", "evaluate": "images/cifar10/test-2000.bin",
    },
    "resnet20": {
        "model": "models/resnet20-cifar10/resnet20_cifar10.mnn", "size": (32, 32),
        "mean": (123.675, 116.28, 103.53), "normal": (0.0171247538, 0.0175070028, 0.0174291939),
        "calibrate": "images/cifar10/train-1000", "evaluate": "images/cifar10/test-2000.bin",
    },
    "vww96": {
        "model": "models/mlperf-vww96/vww_96_float.mnn", "layout": "nhwc", "size": (96, 96),
        "normal": (0.00392156863,), "calibrate": "images/vww-500", "evaluate": "images/vww-500",
        "apart": True,
    },
    "mobilenet-v1-0.25": {
        "model": "models/mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.mnn", **IMAGENET,
        "mean": (127.5,), "normal": (0.00784313725,),
        "calibrate": "images/imagenet-500", "evaluate": "images/imagenet-500", "apart": True,
    },
    "squeezenet-v1.1": {
        "model": "models/squeezenet-v1.1/squeezenet_v1.1.mnn", "resize": 256, "crop": 227,
        "channels": "BGR", "mean": (104, 117, 123), "normal": (1,),
        "calibrate": "images/imagenet-500", "evaluate": "images/imagenet-500", "apart": True,
    },
    "menet": {
        "model": "models/menet-108-8x1-g3/menet_108_8x1_g3.mnn", **IMAGENET,
        "mean": (123.675, 116.28, 103.53), "normal": (0.0171247538, 0.0175070028, 0.0174291939),
        "calibrate": "images/imagenet-500", "evaluate": "images/imagenet-500", "apart": True,
    },
    "fastestdet": {
        "model": "models/fastestdet/FastestDet.mnn", "size": (352, 352), "channels": "BGR",
        "normal": (0.00392156863,), "calibrate": "images/coco/train-48", "evaluate": "images/coco/val-64",
    },
    "rfb320": {
        "model": "models/ultraface-rfb-320/RFB-320.mnn", "size": (320, 240),
        "mean": (127,), "normal": (0.0078125,), "calibrate": "images/faces", "count": 24,
        "evaluate": "images/faces",
    },
}  # fmt: skip


def picture(path, task):
    image = Image.open(path).convert("RGB") if not isinstance(path, Image.Image) else path
    if "size" in task:
        image = image.resize(task["size"], Image.BILINEAR)
    else:
        scale = task["resize"] / min(image.size)
        image = image.resize([max(task["resize"], round(s * scale)) for s in image.size], Image.BILINEAR)
        c = task["crop"]
        left, top = (image.width - c) // 2, (image.height - c) // 2
        image = image.crop((left, top, left + c, top + c))
    x = np.asarray(image, np.float32)
    if task.get("channels") == "BGR":
        x = x[..., ::-1]
    x = (x - np.float32(task.get("mean", (0,)))) * np.float32(task.get("normal", (1,)))
    return x[None] if task.get("layout") == "nhwc" else x.transpose(2, 0, 1)[None]


def samples(shared, task, limit):
    """(input, class or None) of every evaluation picture."""
    folder = shared / task["evaluate"]
    if folder.suffix == ".bin":
        rows = np.fromfile(folder, np.uint8).reshape(-1, 3073)
        for row in rows[:limit]:
            pixels = row[1:].reshape(3, 32, 32).transpose(1, 2, 0)
            yield picture(Image.fromarray(pixels), task), int(row[0])
        return
    labels = {}
    if (folder / "labels.csv").exists():
        rows = list(csv.DictReader(open(folder / "labels.csv")))
        labels = {r["file"]: int(r["class_index"]) for r in rows if "class_index" in r}
    names = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if task.get("apart"):  # the calibration pictures are every tenth
        names = [n for i, n in enumerate(names) if i % 10]
    for name in names[:limit]:
        yield picture(folder / name, task), labels.get(name)


class Net:
    """One file in MNN, with the operators that ran in int8."""

    def __init__(self, path):
        import MNN

        self.mnn = MNN
        self.net = MNN.Interpreter(str(path))
        self.session = self.net.createSession({"numThread": 1})
        self.input = self.net.getSessionInput(self.session)
        self.ran = None

    def __call__(self, x):
        mnn = self.mnn
        shape = self.input.getShape()
        if tuple(shape) != x.shape:
            self.net.resizeTensor(self.input, x.shape)
            self.net.resizeSession(self.session)
        host = mnn.Tensor(x.shape, mnn.Halide_Type_Float, np.ascontiguousarray(x, np.float32), self.dims())
        self.input.copyFrom(host)
        if self.ran is None:
            self.ran = []
            keep = lambda _, info: (self.ran.append((info.getName(), info.getType())), True)[1]
            self.net.runSessionWithCallBackInfo(self.session, keep, lambda *_: True)
        else:
            self.net.runSession(self.session)
        return {k: self.fetch(t) for k, t in sorted(self.net.getSessionOutputAll(self.session).items())}

    def dims(self):
        caffe = self.mnn.Tensor_DimensionType_Caffe
        kind = self.input.getDimensionType()
        return caffe if kind == self.mnn.Tensor_DimensionType_Caffe_C4 else kind

    def fetch(self, tensor):
        mnn, shape = self.mnn, tensor.getShape()
        host = mnn.Tensor(shape, mnn.Halide_Type_Float, np.zeros(shape, np.float32), mnn.Tensor_DimensionType_Caffe)
        tensor.copyToHostTensor(host)
        return np.array(host.getData(), np.float32).reshape(shape)

    def convolutions(self):
        """(in int8, all)"""
        kinds = [t for _, t in self.ran if t.startswith(("Convolution", "ConvolutionDepthwise"))]
        return sum("INT8" in t for t in kinds), len(kinds)


def preprocessing(task):
    joined = lambda v: ",".join(str(x) for x in v)
    options = ["--mean", joined(task.get("mean", (0,))), "--normal", joined(task.get("normal", (1,)))]
    if task.get("channels"):
        options += ["--channels", task["channels"]]
    if "crop" in task:
        options += ["--resize", str(task["resize"]), "--crop", str(task["crop"])]
    return options


def pictures_of(folder):
    names = [p.name for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
    return sorted(names)


def quantize(quench, shared, task, out, extra, source=None):
    command = [quench, "quantize", source or shared / task["model"], "-o", out, "--target", "mnn"]
    folder = shared / task["calibrate"]
    if task.get("apart"):
        listing = pathlib.Path(out).with_suffix(".list")
        listing.write_text("".join(f"{folder / n}\n" for n in pictures_of(folder)[::10]))
        command += ["--list", listing]
    else:
        command += ["--images", folder, "--count", str(task.get("count", 48))]
    subprocess.run([*map(str, command), *preprocessing(task), *extra], check=True, stdout=subprocess.DEVNULL)


def run_tool(quench, shared, task, out, options):
    """quantized.out with KL on the same pictures: they are cropped in each direction, not squared."""
    folder, chosen = shared / task["calibrate"], pathlib.Path(out).parent / "pictures"
    names = pictures_of(folder)
    count = task.get("count", 48)
    names = names[::10] if task.get("apart") else [names[i * len(names) // count] for i in range(count)]
    chosen.mkdir()
    for name in names:
        (chosen / name).symlink_to((folder / name).resolve())
    width, height = task.get("size", [task.get("crop")] * 2)
    three = lambda v: list(v) * 3 if len(v) == 1 else list(v)
    config = {
        "format": task.get("channels", "RGB"), "mean": three(task.get("mean", (0,))),
        "normal": three(task.get("normal", (1,))), "width": width, "height": height, "path": str(chosen),
        "feature_quantize_method": "KL", "weight_quantize_method": "MAX_ABS",
    }  # fmt: skip
    if "crop" in task:
        config["center_crop_w"] = config["center_crop_h"] = task["crop"] / task["resize"]
    path = pathlib.Path(out).with_suffix(".json")
    path.write_text(json.dumps(config))
    command = [pathlib.Path(quench).with_name("quantized.out"), shared / task["model"], out, path, *options]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)


def cosine(a, b):
    return float(np.dot(a.ravel(), b.ravel()) / np.sqrt(np.dot(a.ravel(), a.ravel()) * np.dot(b.ravel(), b.ravel())))


def evaluate(shared, task, float_file, int8_file, limit):
    nets = Net(float_file), Net(int8_file)
    right, n, agree, errors = [0, 0], 0, 0, {}
    for x, label in samples(shared, task, limit):
        a, b = (net(x) for net in nets)
        n += 1
        if label is not None:
            answers = [int(np.argmax(next(iter(o.values())))) for o in (a, b)]
            right = [r + (w == label) for r, w in zip(right, answers)]
            agree += answers[0] == answers[1]
        for name in a:
            d = np.abs(a[name] - b[name])
            errors.setdefault(name, []).append((float(d.max()), float(d.mean()), cosine(a[name], b[name])))
    rows = {k: np.array(v) for k, v in errors.items()}
    return {
        "n": n, "top1": [100 * r / n for r in right] if agree else None, "agree": 100 * agree / n,
        "errors": {k: (v[:, 0].max(), v[:, 1].mean(), v[:, 2].mean()) for k, v in rows.items()},
        "int8": nets[1].convolutions(),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = pathlib.Path(__file__).resolve().parent.parent
    parser.add_argument("--shared", type=pathlib.Path, default=os.environ.get("QUENCH_SHARED", root.parent / "shared"))
    parser.add_argument("--quench", default=os.environ.get("QUENCH_BIN", root / "build" / "quench"))
    parser.add_argument("--models", default=",".join(TASKS))
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--onnx", action="store_true")
    parser.add_argument("--tool", action="store_true")
    parser.add_argument("--theirs", type=pathlib.Path)
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    args.shared = pathlib.Path(args.shared)
    print("| model | pictures | float top-1 | int8 top-1 | agree | int8 convolutions | largest, mean error, cosine |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in args.models.split(","):
        task = TASKS[name]
        source = float_file = args.shared / task["model"]
        if args.onnx:
            source = source.with_suffix(".onnx")
            if not source.exists():
                continue
        with tempfile.TemporaryDirectory() as folder:
            out = args.theirs or pathlib.Path(folder) / "int8.mnn"
            if args.onnx:
                float_file = pathlib.Path(folder) / "float.mnn"
                command = [args.quench, "convert", source, "-o", float_file]
                subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
            if not args.theirs:
                if args.tool:
                    run_tool(args.quench, args.shared, task, out, args.options)
                else:
                    quantize(args.quench, args.shared, task, out, args.options, source)
            r = evaluate(args.shared, task, float_file, out, args.limit)
        top = [f"{t:.2f}" for t in r["top1"]] if r["top1"] else ["", ""]
        errors = "; ".join(f"{k} {e[0]:.4f} {e[1]:.5f} {e[2]:.5f}" for k, e in r["errors"].items())
        agree = f"{r['agree']:.1f}" if r["top1"] else ""
        print(f"| {name} | {r['n']} | {top[0]} | {top[1]} | {agree} | {r['int8'][0]} of {r['int8'][1]} | {errors} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
