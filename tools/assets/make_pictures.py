#!/usr/bin/env python3
"""Draw the demo pictures: 48x48 colour JPEGs of 15 shapes and patterns.

Every picture has its own random stream, seeded by (split, number), so one
picture can be redrawn without drawing those before it, and the three splits
(train, calib, test) can never share one.
"""

import argparse
import csv
import io
import pathlib

import numpy as np
from PIL import Image

SIZE = 48
SEED = 20240611
JPEG_QUALITY = 85
SPLITS = {"train": 0, "calib": 1, "test": 2, "held": 3}
PER_CLASS = {"calib": 7, "test": 40}

# How hard a picture is to read: least distance of the two colours, most sensor
# noise, most things in the background. Training pictures are drawn harder than
# those they are judged by, which works like any other augmentation.
TRAIN_LEVEL = {"contrast": 62, "noise": 20, "clutter": 5}
LEVEL = {"contrast": 76, "noise": 15, "clutter": 4}

GRID_Y, GRID_X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64) + 0.5


# ---- shapes: signed distance on coordinates where the shape has radius ~1 ----

def box(u, v, half_u, half_v):
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v)


def polygon(u, v, corners, radius):
    angles = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    sides = [u * np.cos(a) + v * np.sin(a) for a in angles]
    return np.max(sides, axis=0) - radius * np.cos(np.pi / corners)


def disc(u, v, rng):
    return np.hypot(u, v) - 0.85


def ring(u, v, rng):
    return np.abs(np.hypot(u, v) - 0.72) - rng.uniform(0.10, 0.22)


def triangle(u, v, rng):
    return polygon(u, v, 3, 1.05)


def square(u, v, rng):
    return polygon(u, v, 4, 1.05)


def hexagon(u, v, rng):
    return polygon(u, v, 6, 0.95)


def star(u, v, rng):
    # Fold the plane into one half of one point, then cut by that point's edge.
    step = 2 * np.pi / 5
    angle = np.abs((np.arctan2(v, u) + step / 2) % step - step / 2)
    radius = np.hypot(u, v)
    inner = rng.uniform(0.38, 0.52)
    tip = np.array([1.05, 0.0])
    notch = inner * np.array([np.cos(step / 2), np.sin(step / 2)])
    normal = np.array([notch[1] - tip[1], tip[0] - notch[0]])
    normal /= np.hypot(*normal)
    x, y = radius * np.cos(angle), radius * np.sin(angle)
    return (x - tip[0]) * normal[0] + (y - tip[1]) * normal[1]


def cross(u, v, rng):
    arm = rng.uniform(0.20, 0.33)
    return np.minimum(box(u, v, 0.95, arm), box(u, v, arm, 0.95))


def crescent(u, v, rng):
    shift = rng.uniform(0.35, 0.55)
    return np.maximum(np.hypot(u, v) - 0.92,
                      0.78 - np.hypot(u - shift, v))


def heart(u, v, rng):
    side = 0.52
    lobes = np.minimum(np.hypot(u - side, v), np.hypot(u, v - side)) - side
    return np.minimum(box(u, v, side, side), lobes)


def arrow(u, v, rng):
    shaft = box(u + 0.35, v, 0.6, rng.uniform(0.14, 0.24))
    slope = np.sqrt(0.5)
    head = np.maximum((u + np.abs(v)) * slope - 0.95 * slope, 0.2 - u)
    return np.minimum(shaft, head)


def spiral(u, v, rng):
    pitch = rng.uniform(0.40, 0.55)
    radius = np.hypot(u, v)
    turn = np.arctan2(v, u) / (2 * np.pi)
    arm = np.abs((radius / pitch - turn) % 1.0 - 0.5) * pitch
    return np.maximum(arm - pitch * 0.22, radius - 1.0)


def in_window(pattern, u, v, rng):
    # A pattern's outline must tell nothing: draw it from the same few windows.
    window = [np.hypot(u, v) - 1.0, box(u, v, 0.9, 0.9), box(u, v, 1.3, 0.7),
              polygon(u, v, 3, 1.3)][rng.integers(4)]
    return np.maximum(pattern, window)


def wave(x, period):
    """Distance to the bands of a square wave along x."""
    return np.abs(x / period % 1.0 - 0.5) * period - period / 4


def stripes(u, v, rng):
    return in_window(wave(u, rng.uniform(0.28, 0.55)), u, v, rng)


def checker(u, v, rng):
    period = rng.uniform(0.45, 0.8)
    a, b = wave(u, period), wave(v, period)
    return in_window(np.where(a * b < 0, -np.minimum(np.abs(a), np.abs(b)),
                              np.minimum(np.abs(a), np.abs(b))), u, v, rng)


def dots(u, v, rng):
    period = rng.uniform(0.4, 0.65)
    x = (u / period % 1.0 - 0.5) * period
    y = (v / period % 1.0 - 0.5) * period
    return in_window(np.hypot(x, y) - period * 0.32, u, v, rng)


def waves(u, v, rng):
    bend = rng.uniform(0.10, 0.2) * np.sin(v * rng.uniform(5.0, 8.0))
    return in_window(wave(u + bend, rng.uniform(0.32, 0.6)), u, v, rng)


SHAPES = [disc, ring, triangle, square, hexagon, star, cross, crescent, heart,
          arrow, spiral, stripes, checker, dots, waves]
CLASSES = [shape.__name__ for shape in SHAPES]


# ---- scene --------------------------------------------------------------------

def place(rng):
    """Rotated, slightly sheared coordinates, and pixels per unit."""
    radius = rng.uniform(10.0, 19.0)
    slack = max(0.0, SIZE / 2 - radius) + 2.0
    cx, cy = SIZE / 2 + rng.uniform(-slack, slack, 2) * 0.9
    angle, shear = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.10)
    stretch = np.exp(rng.normal(0, 0.08))
    x = (GRID_X - cx) / (radius * stretch)
    y = (GRID_Y - cy) / radius * stretch
    x = x + shear * y
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + y * sin, y * cos - x * sin, radius


def smooth_noise(rng, cells):
    coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    picture = Image.fromarray(coarse).resize((SIZE, SIZE), Image.BICUBIC)
    return np.asarray(picture, dtype=np.float64)


def gradient(rng, strength):
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (GRID_X * np.cos(angle) + GRID_Y * np.sin(angle)) / SIZE
    return (ramp - ramp.mean())[..., None] * rng.normal(0, strength, 3)


def blend(picture, colour, alpha):
    return picture + (colour - picture) * alpha[..., None]


def bar_mask(rng, width):
    angle = rng.uniform(0, np.pi)
    cx, cy = rng.uniform(0, SIZE, 2)
    along = (GRID_X - cx) * np.cos(angle) + (GRID_Y - cy) * np.sin(angle)
    across = (GRID_Y - cy) * np.cos(angle) - (GRID_X - cx) * np.sin(angle)
    return np.clip(0.5 - box(along, across, rng.uniform(4, 18), width), 0, 1)


def speck_mask(rng):
    cx, cy = rng.uniform(0, SIZE, 2)
    far = np.hypot(GRID_X - cx, GRID_Y - cy) - rng.uniform(1.0, 4.5)
    if rng.random() < 0.4:
        far = np.abs(far) - 0.8
    return np.clip(0.5 - far, 0, 1)


def add_clutter(rng, picture, most):
    for _ in range(rng.integers(0, most + 1)):
        mask = bar_mask(rng, rng.uniform(0.5, 1.8)) if rng.random() < 0.5 \
            else speck_mask(rng)
        picture = blend(picture, rng.uniform(20, 235, 3), mask)
    return picture


def two_colours(rng, least):
    """Colours apart enough to see, near enough to make the task not trivial."""
    while True:
        back, front = rng.uniform(25, 230, (2, 3))
        if np.linalg.norm(back - front) > least:
            return back, front


def expose(rng, picture, most_noise):
    """Brightness, contrast, sensor noise; now and then a glare.

    Glare and hard contrast are rare on purpose: they are what gives a float
    network the few far-out activations which a range estimator has to judge.
    """
    contrast = rng.uniform(0.65, 1.2)
    if rng.random() < 0.04:
        contrast = rng.uniform(1.8, 2.6)
    picture = (picture - 127.5) * contrast + 127.5 + rng.normal(0, 18)
    picture = picture + rng.normal(0, rng.uniform(3, most_noise), picture.shape)
    if rng.random() < 0.04:
        cx, cy = rng.uniform(0, SIZE, 2)
        spot = np.exp(-np.hypot(GRID_X - cx, GRID_Y - cy) ** 2
                      / (2 * rng.uniform(3, 8) ** 2))
        picture = picture + 400 * spot[..., None]
    return picture


def draw(label, rng, level):
    """One picture as uint8 [48,48,3]."""
    back, front = two_colours(rng, level["contrast"])
    picture = back + gradient(rng, 40) + np.zeros((SIZE, SIZE, 3))
    texture = smooth_noise(rng, rng.integers(4, 14))
    picture = picture + texture[..., None] * rng.normal(0, 9, 3)
    picture = add_clutter(rng, picture, level["clutter"])
    u, v, unit = place(rng)
    mask = np.clip(0.5 - SHAPES[label](u, v, rng) * unit, 0, 1)
    fill = front + gradient(rng, 30)
    picture = blend(picture, fill, mask * rng.uniform(0.75, 1.0))
    picture = add_clutter(rng, picture, 2)
    return np.clip(expose(rng, picture, level["noise"]), 0, 255).astype(np.uint8)


def encode(pixels):
    """Baseline JPEG, 4:4:4, so that all decoders agree on the colours."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY,
                                 subsampling=0, optimize=True)
    return out.getvalue()


def decode(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def make(split, number):
    """(JPEG bytes, label) of a picture; labels go round the classes."""
    label = number % len(CLASSES)
    rng = np.random.default_rng([SEED, SPLITS[split], number])
    level = TRAIN_LEVEL if split == "train" else LEVEL
    return encode(draw(label, rng, level)), label


def write_split(root, split):
    folder = root / split
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "labels.csv", "w", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["file", "class_index", "class_name"])
        for number in range(PER_CLASS[split] * len(CLASSES)):
            data, label = make(split, number)
            name = f"{split}_{number:04d}.jpg"
            (folder / name).write_bytes(data)
            rows.writerow([name, label, CLASSES[label]])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("assets"))
    root = parser.parse_args().out
    for split in PER_CLASS:
        write_split(root, split)
    (root / "model").mkdir(parents=True, exist_ok=True)
    (root / "model" / "classes.txt").write_text("\n".join(CLASSES) + "\n")


if __name__ == "__main__":
    main()
