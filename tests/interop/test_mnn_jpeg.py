"""JPEG as MNN's decoder reads it, against MNN itself: every pixel."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BUILD = Path(os.environ.get("QUENCH_BUILD", Path(__file__).resolve().parents[2] / "build"))
cv = pytest.importorskip("MNN.cv", reason="the MNN wheel is not installed")


def read(path):
    """RGB of MNN's own reader."""
    return np.array(cv.imread(str(path)).read())[..., ::-1].astype(int)


def decode(path):
    tool = BUILD / "tests" / "image_dump"
    if not tool.exists():
        pytest.skip("the test tools are not built")
    out = subprocess.run([tool, path, "3m"], capture_output=True, check=True).stdout
    head, pixels = out.split(b"\n", 1)
    width, height, channels = map(int, head.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width, channels).astype(int)


@pytest.mark.parametrize("size", [(64, 48), (33, 17), (7, 5), (1, 1), (2, 9), (129, 3)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_pixels_are_mnns(tmp_path, size, subsampling, progressive):
    rng = np.random.default_rng(size[0] * 7 + subsampling)
    coarse = rng.integers(0, 256, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)
    picture = Image.fromarray(coarse).resize(size, Image.BICUBIC)
    path = tmp_path / "picture.jpg"
    picture.save(path, quality=80, subsampling=subsampling, progressive=progressive)
    assert np.array_equal(decode(path), read(path))


def test_gray_and_noise(tmp_path):
    noise = np.random.default_rng(5).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg", quality=30)
    Image.fromarray(noise).convert("L").save(tmp_path / "gray.jpg", quality=90)
    for name in ("noise.jpg", "gray.jpg"):
        assert np.array_equal(decode(tmp_path / name), read(tmp_path / name)), name
