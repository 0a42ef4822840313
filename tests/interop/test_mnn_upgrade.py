"""Integer files of 2019: MNN's runtime has no EltwiseInt8 any more, what quench writes runs there."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image

import mnn_runtime
from networks import quench_outputs

pytestmark = pytest.mark.skipif(not mnn_runtime.available(), reason="no MNN package")

BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", "build"))
FACES = ("--mean", "127", "--normal", "0.0078125")


@pytest.fixture(scope="module")
def picture(shared):
    path = sorted((shared / "images" / "faces-png").glob("*.png"))[0]
    pixels = np.asarray(Image.open(path).convert("RGB").resize((320, 240)), np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])


@pytest.fixture(params=["KL-5792", "ADMM-32"])
def old(request, shared):
    path = shared / "models" / "ultraface-rfb-320" / f"RFB-320-quant-{request.param}.mnn"
    if not path.is_file():
        pytest.skip("no integer file of 2019")
    return path


def check(new, old, picture, folder):
    """MNN's outputs for the new file against quench's for the old one: some sixty layers of integers
    whose roundings may differ by a level."""
    theirs = mnn_runtime.outputs(new, {"input": picture}, folder)
    assert theirs is not None
    ours = dict(zip(("boxes", "scores"), quench_outputs(old, {"input": picture[None]}, folder / "run")))
    assert np.abs(theirs["scores"].ravel() - ours["scores"].ravel()).max() < 0.05
    for name, mine in ours.items():
        a, b = theirs[name].ravel().astype(float), mine.ravel().astype(float)
        assert a @ b / np.sqrt((a @ a) * (b @ b)) > 0.999


def test_convert(quench, old, picture, tmp_path):
    assert mnn_runtime.outputs(old, {"input": picture}, tmp_path) is None, "is there an EltwiseInt8 again?"
    for source, target in ((old, "a.mnn"), (tmp_path / "a.mnn", "b.mnn")):
        done = quench("convert", source, "-o", tmp_path / target)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.mnn").read_bytes() == (tmp_path / "b.mnn").read_bytes()
    check(tmp_path / "a.mnn", old, picture, tmp_path)
    same = quench_outputs(tmp_path / "a.mnn", {"input": picture[None]}, tmp_path / "new")
    for a, b in zip(same, quench_outputs(old, {"input": picture[None]}, tmp_path / "old")):
        np.testing.assert_array_equal(a, b)


def test_quantize_keeps_its_integers(quench, shared, old, picture, tmp_path):
    done = quench("quantize", old, "-o", tmp_path / "q.mnn", "--images", shared / "images" / "faces-png",
                  *FACES)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "quantized already:" in done.stdout and "0 of 52 convolutions" in done.stdout
    check(tmp_path / "q.mnn", old, picture, tmp_path)


def test_quantized_out_keeps_its_integers(shared, old, picture, tmp_path):
    config = {"format": "RGB", "mean": [127] * 3, "normal": [0.0078125] * 3, "width": 320, "height": 240,
              "path": str(shared / "images" / "faces-png"), "used_image_num": 3}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(config))
    command = [BUILD / "quantized.out", old, tmp_path / "q.mnn", tmp_path / "c.json"]
    for options in ((), ("--exact-mnn",)):  # exact: other tensors are rounded too
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert mnn_runtime.outputs(tmp_path / "q.mnn", {"input": picture}, tmp_path) is not None
        if not options:
            check(tmp_path / "q.mnn", old, picture, tmp_path)
