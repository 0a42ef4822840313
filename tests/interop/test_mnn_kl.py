"""MNN's KL search against an implementation of its own: the same values, hence the same histogram,
must give the same threshold."""

import os
import pathlib
import subprocess

import numpy as np
import pytest

TOOL = pathlib.Path(os.environ.get("QUENCH_BUILD", "build")) / "tests" / "mnn_kl"
BINS, TARGETS = 2048, 128
F = np.float32


def total(values):
    """Sum in float32, one after the other."""
    return np.add.accumulate(values, dtype=F)[-1] if len(values) else F(0)


def histogram(values):
    largest = F(np.abs(values).max())
    a = np.abs(values)
    a = a[a > F(1e-6)]
    bins = np.minimum((a * (F(BINS) / largest)).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    h = np.where(counts > 1, counts.astype(F), F(1e-7) + counts.astype(F)).astype(F)
    return (h / total(h)).astype(F)


def expanded(h, i):
    """Q: the first i bins merged into 128 groups and spread again."""
    w = F(i) / F(TARGETS)
    q = np.zeros(i, F)
    for j in range(TARGETS):
        start = F(j) * w
        end = F(start + w)
        left, right = int(np.ceil(start)), int(np.floor(end))
        parts = []
        if left > start and left > 0:
            parts.append((left - 1, F(F(left) - start)))
        if end > right and right < i:
            parts.append((right, F(end - F(right))))
        parts += [(k, F(1)) for k in range(left, min(right, i))]
        mass, count = F(0), F(0)
        for k, share in parts:
            mass = F(mass + F(share * h[k]))
            count = F(count + (share if h[k] != 0 else F(0)))
        if count > 0:
            each = F(mass / count)
            for k, share in parts:
                if h[k] != 0:
                    q[k] = F(q[k] + F(each * share))
    return q


def divergence(p, q):
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (p * np.log((p / q).astype(F).astype(np.float64)).astype(F)).astype(F)
    terms = np.where(p == 0, F(0), np.where(q == 0, F(1), terms))
    return total(terms)


def threshold(h, candidates):
    tails = {}
    tail = total(h[TARGETS:])
    for i in range(TARGETS, BINS):
        tails[i] = tail
        tail = F(tail - h[i])
    best, best_d = TARGETS, F(10000)
    scores = {}
    for i in candidates:
        p = h[:i].copy()
        p[i - 1] = F(p[i - 1] + tails[i])
        d = divergence(p, expanded(h, i))
        scores[i] = d
        if d < best_d:
            best, best_d = i, d
    return best, scores


def make_values(kind, rng):
    n = 40000
    if kind == "normal":
        return rng.standard_normal(n)
    if kind == "relu":
        return np.maximum(rng.standard_normal(n), 0)
    if kind == "heavy":
        return rng.standard_t(2.2, n)
    if kind == "outlier":
        return np.concatenate([rng.standard_normal(n), [55.0]])
    if kind == "relu6":
        return np.clip(rng.standard_normal(n) * 4, 0, 6)
    if kind == "softmax":
        e = np.exp(rng.standard_normal((n // 2, 2)) * 3)
        return e / e.sum(1, keepdims=True)
    if kind == "tail":
        return below_zero()
    return rng.exponential(1, n) ** 3


def below_zero():
    """Where the least divergence of true sums lies past what is left of the float32 tail."""
    profile = [169072, 103202, 82852, 76618, 60890, 52928, 42491, 23327, 6578, 4391, 3007, 2371, 1604, 1190, 846, 589,
               415, 326, 250, 120, 84, 72, 40, 30, 18, 17, 10, 5, 8, 0.1, 1, 2]  # fmt: skip
    rng, k = np.random.default_rng(269), np.arange(BINS)
    mean = np.exp(np.interp(k, np.arange(32) * 64 + 32, np.log(np.array(profile) / 64)))
    counts = rng.poisson(mean * rng.lognormal(0, 0.3, BINS))
    counts[-1] = 1
    values = np.repeat((k + 0.5) / BINS, counts)
    values[-1] = 1
    return values


@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "outlier", "relu6", "softmax", "cubed", "tail"])
def test_threshold(kind, tmp_path):
    if not TOOL.exists():
        pytest.skip("the test tools are not built")
    values = make_values(kind, np.random.default_rng(len(kind))).astype("<f4").ravel()
    path = tmp_path / "values"
    values.tofile(path)
    out = subprocess.run([TOOL, path, "100"], capture_output=True, text=True, check=True).stdout
    largest, found = map(float, out.split())
    assert largest == pytest.approx(np.abs(values).max(), rel=1e-7)
    assert found == pytest.approx(round(found), abs=1e-3)
    # All candidates take minutes in Python: every seventh, and all around what was found.
    t = round(found)
    near = set(range(max(TARGETS, t - 12), min(BINS, t + 13)))
    best, scores = threshold(histogram(values), sorted(near | set(range(TARGETS, BINS, 7))))
    assert best == t, (best, t, scores[best], scores[t])


def test_small_tensors_keep_their_maximum(tmp_path):
    if not TOOL.exists():
        pytest.skip("the test tools are not built")
    path = tmp_path / "values"
    np.random.default_rng(3).standard_t(2.2, 4000).astype("<f4").tofile(path)
    out = subprocess.run([TOOL, path, "99"], capture_output=True, text=True, check=True).stdout
    assert float(out.split()[1]) == pytest.approx(2047, abs=1e-3)
