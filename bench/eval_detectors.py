#!/usr/bin/env python3
"""How far a quantized network is from its float original, in the terms of its task.

    eval_detectors.py ultraface  FLOAT QUANTIZED    face scores and boxes on 24 photographs
    eval_detectors.py fastestdet FLOAT QUANTIZED    cosine per group of outputs on 64 photographs
    eval_detectors.py cifar10    FLOAT QUANTIZED    top-1 on 2,000 pictures
    eval_detectors.py kws        FLOAT QUANTIZED    top-1 on keyword spectra

Each prints its figures with the bound asked of them, and exits 1 where one is missed. --json prints
one object instead; --mask avx2 runs both files on a CPU without VNNI.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import common

# UltraFace: https://github.com/Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB,
# vision/ssd/config/fd_config.py and vision/utils/box_utils.py
FACE_SIZE = (320, 240)
FACE_MIN_BOXES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
FACE_STRIDES = (8, 16, 32, 64)

FASTESTDET_GROUPS = {"objectness": slice(0, 1), "boxes": slice(1, 5), "classes": slice(5, 85)}
KWS_CALIBRATION = 150  # rows 0..149 are for calibration


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("task", choices=TASKS)
    p.add_argument("float", type=Path)
    p.add_argument("quantized", type=Path)
    p.add_argument("--mask", default="none", choices=("none", "avx512", "avx2", "sse4"))
    p.add_argument("--json", action="store_true")
    return p.parse_args()


class Figure:
    """A measured value, and the bound it must keep (none where it is only told)."""

    def __init__(self, name, value, at_least=None, at_most=None):
        self.name, self.value = name, float(value)
        self.at_least, self.at_most = at_least, at_most

    @property
    def passes(self):
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def asked(self):
        if self.at_least is not None:
            return f">= {self.at_least}"
        return "" if self.at_most is None else f"<= {self.at_most}"

    def row(self):
        verdict = ("yes" if self.passes else "NO") if self.asked else ""
        return [self.name, f"{self.value:.4f}", self.asked, verdict]


def load_resized(path, width, height):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.BILINEAR))


def folder_input(folder, width, height, channels, mean, normal):
    paths = sorted(p for p in folder.iterdir() if p.suffix == ".jpg")
    crops = np.stack([load_resized(p, width, height) for p in paths])
    return common.normalise(crops, channels, (mean,) * 3, (normal,) * 3)


def face_input():
    """The 24 photographs without box labels: the float network is the reference."""
    folder = common.SHARED / "images" / "faces"
    return folder_input(folder, *FACE_SIZE, "RGB", 127.0, 0.0078125)


def coco_input(part):
    """part: "train-48" to calibrate, "val-64" to measure."""
    folder = common.SHARED / "images" / "coco" / part
    return folder_input(folder, 352, 352, "BGR", 0.0, 0.00392156863)


def cifar_input(file):
    """(input, labels) from CIFAR-10's own layout: a label byte, then three planes of 32 x 32."""
    raw = np.fromfile(common.SHARED / "images" / "cifar10" / file, np.uint8)
    rows = raw.reshape(-1, 1 + 3 * 32 * 32)
    pixels = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    x = common.normalise(pixels, "RGB", common.TORCH_MEAN, common.TORCH_NORMAL)
    return x, rows[:, 0].astype(int)


def kws_input():
    folder = common.SHARED / "data" / "kws"
    x = np.fromfile(folder / "features.f32", "<f4").reshape(-1, 1, 49, 10)
    rows = (folder / "labels.csv").read_text().split()[1:]
    return x, np.array([int(row.split(",")[1]) for row in rows])


def run_all(path, x, batch=10):
    """Every output's rows over all samples, in the file's output order."""
    session = common.open_session(path)
    name = session.get_inputs()[0].name
    step = common.batch_limit(session, batch)
    parts = [session.run(None, {name: x[i : i + step]}) for i in range(0, len(x), step)]
    return [np.concatenate(rows) for rows in zip(*parts, strict=True)]


def face_priors():
    """[4420, 4]: centre x, centre y, width, height, all 0..1."""
    width, height = FACE_SIZE
    rows = []
    for stride, sizes in zip(FACE_STRIDES, FACE_MIN_BOXES, strict=True):
        # The last grids do not divide 240 rows; their cells are spread evenly all the same.
        columns, lines = math.ceil(width / stride), math.ceil(height / stride)
        rows += [
            ((i + 0.5) / columns, (j + 0.5) / lines, size / width, size / height)
            for j in range(lines)
            for i in range(columns)
            for size in sizes
        ]
    return np.clip(np.array(rows, np.float32), 0, 1)


def decode_faces(offsets):
    """SSD offsets against the priors -> corners; variances 0.1 and 0.2."""
    priors = face_priors()
    centre = priors[:, :2] + 0.1 * offsets[..., :2] * priors[:, 2:]
    half = priors[:, 2:] * np.exp(0.2 * offsets[..., 2:]) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def face_outputs(path, x):
    """(face scores [P, 4420], corners [P, 4420, 4]) of either kind of file."""
    outputs = run_all(path, x)
    scores = next(o for o in outputs if o.shape[-1] == 2)[..., 1]
    boxes = next(o for o in outputs if o.shape[-1] == 4)
    return scores, boxes if are_corners(boxes) else decode_faces(boxes)


def are_corners(boxes):
    """Corners run left to right and top to bottom; offsets have no such order."""
    return bool((boxes[..., 2:] > boxes[..., :2]).mean() > 0.99)


def intersection_over_union(a, b):
    overlap = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common_area = np.clip(overlap, 0, None).prod(-1)
    area = [np.clip(c[..., 2:] - c[..., :2], 0, None).prod(-1) for c in (a, b)]
    return common_area / np.maximum(area[0] + area[1] - common_area, 1e-12)


def ultraface(float_path, quantized_path):
    x = face_input()
    scores, boxes = face_outputs(float_path, x)
    q_scores, q_boxes = face_outputs(quantized_path, x)
    faces = scores > 0.5
    iou = intersection_over_union(boxes[faces], q_boxes[faces])
    missed = (q_scores[faces] <= 0.5).mean()
    return [
        Figure("largest score error", np.abs(scores - q_scores).max(), at_most=0.15),
        Figure("mean IoU, boxes with float score > 0.5", iou.mean(), at_least=0.9),
        Figure("lowest IoU of them", iou.min()),
        Figure("boxes with float score > 0.5", faces.sum()),
        Figure("share of them at or below 0.5 when quantized", missed),
    ]


def cosine(a, b):
    """Per sample, over everything else."""
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (a, b))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def fastestdet(float_path, quantized_path):
    x = coco_input("val-64")
    a, b = (run_all(p, x)[0] for p in (float_path, quantized_path))
    figures = []
    for name, part in FASTESTDET_GROUPS.items():
        each = cosine(a[:, part], b[:, part])
        together = cosine(a[None, :, part], b[None, :, part])[0]
        figures += [
            Figure(f"{name}: mean cosine per picture", each.mean(), at_least=0.99),
            Figure(f"{name}: cosine over all pictures", together, at_least=0.99),
            Figure(f"{name}: lowest picture", each.min()),
        ]
    return figures


def paired_top1(float_path, quantized_path, x, labels, counted):
    """Figures of two classifiers on the same samples; `counted` names subsets by slice."""
    a, b = (run_all(p, x, batch=50)[0].argmax(1) for p in (float_path, quantized_path))
    figures = []
    for name, part in counted.items():
        right = [p[part] == labels[part] for p in (a, b)]
        float_top1, top1 = (100 * r.mean() for r in right)
        figures += [
            Figure(f"{name}: float top-1 %", float_top1),
            Figure(f"{name}: quantized top-1 %", top1),
            # One point itself is still within one point, whatever the division leaves behind.
            Figure(f"{name}: points lost", round(float_top1 - top1, 6), at_most=1.0),
            Figure(f"{name}: exact paired p", common.mcnemar(*right)[2]),
            Figure(f"{name}: agreement to float %", 100 * (a[part] == b[part]).mean()),
        ]
    return figures


def cifar10(float_path, quantized_path):
    x, labels = cifar_input("test-2000.bin")
    return paired_top1(float_path, quantized_path, x, labels, {"test-2000": slice(None)})


def kws(float_path, quantized_path):
    x, labels = kws_input()
    counted = {"rows not calibrated on": slice(KWS_CALIBRATION, None), "all rows": slice(None)}
    return paired_top1(float_path, quantized_path, x, labels, counted)


TASKS = {"ultraface": ultraface, "fastestdet": fastestdet, "cifar10": cifar10, "kws": kws}


def main():
    args = parse_arguments()
    common.reenter_masked(args.mask)
    figures = TASKS[args.task](args.float, args.quantized)
    if args.json:
        values = {f.name: {"value": f.value, "asked": f.asked, "pass": f.passes} for f in figures}
        print(json.dumps({"task": args.task, "model": str(args.quantized), "figures": values}))
    else:
        head = ["figure", "value", "asked", "met"]
        print(common.markdown_table(head, [f.row() for f in figures]))
    sys.exit(0 if all(f.passes for f in figures) else 1)


if __name__ == "__main__":
    main()
