"""examples/classify.c over the runtime alone and over the whole library."""

import os
import pathlib
import subprocess

import numpy as np
import pytest
from conftest import ROOT
from networks import network, quantize
from PIL import Image

BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))


def classify(program, *args):
    if not (BUILD / program).is_file():
        pytest.skip(f"{program} is not built")
    command = [str(a) for a in (BUILD / program, *args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def said(result):
    """What it printed, less the time."""
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert sum(line.endswith(" ms") for line in lines) == 1
    return [line for line in lines if not line.endswith(" ms")]


@pytest.fixture(scope="module")
def material(quench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classify")
    net = network("mobilenet")
    quantize(quench, net.path, net.inputs(4), folder / "q.onnx")
    result = quench("convert", folder / "q.onnx", "-o", folder / "q.qnm")
    assert result.returncode == 0, result.stderr
    noise = np.random.default_rng(5).integers(0, 255, (7, 7, 3), np.uint8)
    picture = Image.fromarray(noise).resize((224, 224), Image.BILINEAR)
    picture.save(folder / "p.jpg", quality=95)
    Image.open(folder / "p.jpg").save(folder / "p.ppm")
    return folder


def test_both_ways_agree_on_a_ppm(material):
    args = [material / "q.qnm", material / "p.ppm", "127.5", "0.0078125"]
    alone = said(classify("example_classify", *args))
    assert alone == said(classify("example_classify_whole", *args))
    assert [line.split()[0] for line in alone] == ["input", "output"] + ["class"] * 5


def test_jpeg_with_the_whole_library_only(material):
    args = [material / "q.qnm", material / "p.jpg", "127.5", "0.0078125"]
    ppm = [material / "q.qnm", material / "p.ppm", "127.5", "0.0078125"]
    whole = said(classify("example_classify_whole", *args))
    assert whole[:3] == said(classify("example_classify", *ppm))[:3]
    alone = classify("example_classify", *args)
    assert alone.returncode == 1 and "p.jpg" in alone.stderr and alone.stdout.startswith("input")


def test_pictures_of_two_bytes_are_not_taken_for_one(material):
    deep = material / "deep.ppm"
    deep.write_bytes(b"P6\n8 8\n65535\n" + bytes(8 * 8 * 6))
    result = classify("example_classify", material / "q.qnm", deep)
    assert result.returncode == 1 and "deep.ppm" in result.stderr


@pytest.mark.parametrize("program", ["example_classify", "example_classify_whole"])
def test_what_it_cannot_do(material, program):
    assert "usage" in classify(program).stderr
    missing = classify(program, material / "q.qnm", material / "none.ppm")
    assert missing.returncode == 1 and "none.ppm" in missing.stderr
    broken = classify(program, material / "q.onnx", material / "p.ppm")
    assert broken.returncode == 1 and "q.onnx" in broken.stderr
