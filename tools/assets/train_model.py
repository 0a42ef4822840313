#!/usr/bin/env python3
"""Train the demo classifier and write it as ONNX with its BatchNorms kept.

The network is a small MobileNetV2: a strided stem, six blocks of expand /
depthwise / project, a 1x1 head, global pooling and one Gemm. Training is plain
jax on the CPU; the depthwise and stem convolutions are written as sums of
shifted pictures, which XLA turns into far faster CPU code than grouped
convolutions.
"""

import argparse
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

import export_model
import make_pictures
from export_model import BLOCKS, EPS

MEAN, NORMAL = 127.5, 0.00784313725
STEM, HEAD = 16, 144
CLASSES = len(make_pictures.CLASSES)
SEED = 7
BATCH = 128
PICTURES = 36000
# (epochs, highest learning rate); every round draws new pictures.
ROUNDS = [(16, 4e-3), (8, 2e-3)]


# ---- parameters ---------------------------------------------------------------

def conv_shapes():
    """Name -> (kernel size, inputs, outputs); inputs 1 marks depthwise."""
    shapes = {"stem": (3, 3, STEM)}
    for i, (cin, mid, cout, _) in enumerate(BLOCKS):
        shapes[f"b{i}.expand"] = (1, cin, mid)
        shapes[f"b{i}.dw"] = (3, 1, mid)
        shapes[f"b{i}.project"] = (1, mid, cout)
    shapes["head"] = (1, BLOCKS[-1][2], HEAD)
    return shapes


def init(rng):
    """Trainable parameters and the BatchNorm running statistics."""
    params, stats = {}, {}
    for name, (k, cin, cout) in conv_shapes().items():
        scale = np.sqrt(2.0 / (k * k * cin))
        params[f"{name}.w"] = rng.normal(0, scale, (k, k, cin, cout))
        params[f"{name}.gamma"] = np.ones(cout)
        params[f"{name}.beta"] = np.zeros(cout)
        stats[f"{name}.mean"] = np.zeros(cout)
        stats[f"{name}.var"] = np.ones(cout)
    params["fc.w"] = rng.normal(0, np.sqrt(1.0 / HEAD), (HEAD, CLASSES))
    params["fc.b"] = np.zeros(CLASSES)
    as_f32 = lambda tree: {k: jnp.asarray(v, jnp.float32) for k, v in tree.items()}
    return as_f32(params), as_f32(stats)


# ---- forward (NHWC) -----------------------------------------------------------

def taps(x, stride):
    """The nine shifted views of a 3x3 window with one pixel of padding."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [x[:, dy:dy + height:stride, dx:dx + width:stride]
            for dy in range(3) for dx in range(3)]


def conv(x, w, stride):
    if w.shape[0] == 1:
        return x @ w[0, 0]
    views = taps(x, stride)
    if w.shape[2] == 1:
        flat = w.reshape(9, -1)
        return sum(view * flat[i] for i, view in enumerate(views))
    return jnp.concatenate(views, -1) @ w.reshape(-1, w.shape[3])


def conv_bn(params, stats, fresh, name, x, stride, train):
    x = conv(x, params[f"{name}.w"], stride)
    if train:
        mean = x.mean((0, 1, 2))
        var = ((x - mean) ** 2).mean((0, 1, 2))
        fresh[f"{name}.mean"], fresh[f"{name}.var"] = mean, var
    else:
        mean, var = stats[f"{name}.mean"], stats[f"{name}.var"]
    gain = params[f"{name}.gamma"] / jnp.sqrt(var + EPS)
    return (x - mean) * gain + params[f"{name}.beta"]


def forward(params, stats, x, train):
    """(logits, batch statistics)."""
    fresh = {}
    relu = jax.nn.relu
    layer = lambda name, x, stride=1: conv_bn(params, stats, fresh, name, x,
                                              stride, train)
    x = jnp.clip(layer("stem", x, 2), 0, 6)
    for i, (cin, _, cout, stride) in enumerate(BLOCKS):
        y = relu(layer(f"b{i}.expand", x))
        y = relu(layer(f"b{i}.dw", y, stride))
        y = layer(f"b{i}.project", y)
        x = x + y if stride == 1 and cin == cout else y
    x = jnp.clip(layer("head", x), 0, 6).mean((1, 2))
    return x @ params["fc.w"] + params["fc.b"], fresh


# ---- training -----------------------------------------------------------------

def normalize(pixels):
    return (pixels.astype(jnp.float32) - MEAN) * NORMAL


def loss_of(params, stats, pixels, labels):
    logits, fresh = forward(params, stats, normalize(pixels), True)
    target = jax.nn.one_hot(labels, CLASSES) * 0.95 + 0.05 / CLASSES
    loss = -(target * jax.nn.log_softmax(logits)).sum(-1).mean()
    return loss, fresh


@jax.jit
def step(params, stats, moments, pixels, labels, rate, count):
    """One Adam step; running statistics follow the batch statistics."""
    (loss, fresh), grads = jax.value_and_grad(loss_of, has_aux=True)(
        params, stats, pixels, labels)
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, moments[0], grads)
    second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, moments[1], grads)
    fix1, fix2 = 1 - 0.9 ** count, 1 - 0.99 ** count
    params = jax.tree.map(
        lambda p, m, v: p - rate * (m / fix1) / (jnp.sqrt(v / fix2) + 1e-8),
        params, first, second)
    stats = jax.tree.map(lambda s, f: 0.99 * s + 0.01 * f, stats, fresh)
    return params, stats, (first, second), loss


def augment(rng, pixels):
    """No class changes under a mirror or a quarter turn."""
    pixels = np.rot90(pixels, rng.integers(4), (1, 2))
    if rng.random() < 0.5:
        pixels = pixels[:, :, ::-1]
    return np.ascontiguousarray(pixels)


def load(split, first, count):
    made = (make_pictures.make(split, i) for i in range(first, first + count))
    pixels, labels = zip(*((make_pictures.decode(d), l) for d, l in made))
    return np.stack(pixels), np.array(labels)


@jax.jit
def predict(params, stats, pixels):
    return forward(params, stats, normalize(pixels), False)[0].argmax(-1)


def train(rng, params, stats, epochs, top_rate, pictures, held):
    """One round: Adam under a cosine, started anew."""
    moments = (jax.tree.map(jnp.zeros_like, params),) * 2
    pixels, labels = pictures
    batches = len(pixels) // BATCH
    total, count, start = batches * epochs, 0, time.time()
    for epoch in range(epochs):
        order = rng.permutation(len(pixels))[:batches * BATCH]
        for pick in order.reshape(batches, BATCH):
            count += 1
            rate = top_rate * min(1.0, count / 200) \
                * 0.5 * (1 + np.cos(np.pi * count / total))
            params, stats, moments, loss = step(
                params, stats, moments, augment(rng, pixels[pick]),
                labels[pick], np.float32(rate), np.float32(count))
        score = (np.asarray(predict(params, stats, held[0])) == held[1]).mean()
        print(f"epoch {epoch} loss {float(loss):.3f} held-out {score:.4f} "
              f"{time.time() - start:.0f}s", flush=True)
    return params, stats


def save(path, params, stats):
    np.savez(path, **{k: np.asarray(v) for k, v in {**params, **stats}.items()})


def restore(path):
    tensors = {k: jnp.asarray(v) for k, v in np.load(path).items()}
    stats = {k: v for k, v in tensors.items() if k.endswith((".mean", ".var"))}
    return {k: v for k, v in tensors.items() if k not in stats}, stats


def run_rounds(folder):
    """Train round after round; a round whose weights exist is not repeated."""
    rng = np.random.default_rng(SEED)
    params, stats = init(rng)
    held = load("held", 0, 1500)
    for number, (epochs, rate) in enumerate(ROUNDS):
        path = folder / f"round{number}.npz"
        if not path.exists():
            rng = rng if number == 0 else np.random.default_rng([SEED, number])
            pictures = load("train", number * PICTURES, PICTURES)
            save(path, *train(rng, params, stats, epochs, rate, pictures, held))
        params, stats = restore(path)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=pathlib.Path, default=pathlib.Path("assets"))
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("out/train"),
                        help="folder for the weights of each round")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    weights = run_rounds(args.work)
    export_model.export(weights, args.assets / "model" / "quench_demo.onnx")


if __name__ == "__main__":
    main()
