"""The main figures of quantized.out's default mode and of exported networks, in MNN's own runtime."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mnn_runtime

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("QUENCH_SHARED", ROOT.parent / "shared"))
BUILD = Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))
QUENCH = os.environ.get("QUENCH_BIN", str(BUILD / "quench"))
REFERENCE = SHARED / "reference" / "mnn"

pytestmark = [
    pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the shared reference outputs"),
    pytest.mark.skipif(not mnn_runtime.available(), reason="needs the MNN wheel"),
    pytest.mark.skipif(
        shutil.which(QUENCH) is None and not Path(QUENCH).exists(), reason="needs the command"
    ),
]

# MNN's quantizer on the same case: largest error of the scores over the six faces
LARGEST_SCORE_ERROR = 0.37


def bench(name, *arguments):
    """Rows of a table that a script of bench prints; a process of its own, for MNN prints too."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / name), *map(str, arguments)],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "QUENCH_SHARED": str(SHARED), "QUENCH_BIN": str(QUENCH)},
    )  # fmt: skip
    rows = [
        [cell.strip() for cell in line.strip("|\n ").split("|")]
        for line in done.stdout.splitlines()
        if line.startswith("|")
    ]
    return rows[2:], done


CASES = [
    "resnet8-admm-admm", "resnet8-ema", "resnet8-ema-nowino", "resnet8-kl-bits4-wclamp",
    "resnet8-kl-maxabs", "rfb320-ema-nowino", "rfb320-kl-admm", "rfb320-kl-clamp120",
    "rfb320-kl-maxabs", "rfb320-kl-skip", "rfb320nchw-ema-nowino", "rfb320nchw-kl-bits6-wclamp",
    "rfb320nchw-kl-maxabs",
]  # fmt: skip


def test_default_mode_is_nearer_to_float():
    rows, done = bench("mnn_default.py", "--build", BUILD, *CASES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row[0] for row in rows} == set(CASES)
    for case, output, ours, theirs, *_ in rows:
        assert float(ours) >= float(theirs), (case, output)
    for case, output, *figures in rows:
        error = float(figures[4])
        if output == "scores" and case in ("rfb320-kl-maxabs", "rfb320-kl-admm"):
            assert error <= LARGEST_SCORE_ERROR / 2, (case, error)
        if case == "resnet8-kl-maxabs":
            assert figures[6] == "100 %"
        ran, of = figures[8].split("/")
        assert int(ran) == int(of) - (3 if case == "rfb320-kl-skip" else 0), case


@pytest.mark.parametrize(
    "model, options, lost, agree",
    [
        # lost: points of top-1 on as many pictures as the test takes, so a picture or two of slack
        ("resnet8", ["--limit", 500], 1.0, 96),
        ("vww96", ["--limit", 150], 1.5, 96),
        ("vww96", ["--tool"], 1.0, 98),
        # 0.8 on average over calibration pictures left out in turn, with a deviation of 0.4
        ("mobilenet-v1-0.25", ["--tool"], 2.0, 88),
        ("squeezenet-v1.1", ["--limit", 100, "--tool"], 2.0, 90),
        ("squeezenet-v1.1", ["--limit", 100, "--onnx"], 2.0, 94),
        ("menet", ["--limit", 100, "--onnx"], 4.0, 80),
        ("resnet20", ["--limit", 500, "--onnx"], 1.0, 96),
    ],
    ids=lambda v: "-".join(map(str, v)) if isinstance(v, list) else str(v),
)
def test_top1(model, options, lost, agree):
    rows, done = bench("mnn_eval.py", "--models", model, *options)
    assert done.returncode == 0 and len(rows) == 1, done.stdout + done.stderr
    _, pictures, exact, int8, same, ran, _ = rows[0]
    assert float(int8) >= float(exact) - lost
    assert float(same) >= agree
    ran, of = ran.split(" of ")
    assert ran == of
