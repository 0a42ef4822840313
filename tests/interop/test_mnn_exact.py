"""Exact mode of quantized.out against files that MNN's own quantizer made."""

import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench"))
import mnn_exact  # noqa: E402
import mnn_runtime  # noqa: E402

BUILD = Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))
KL = [
    "resnet8-kl-png",
    "rfb320-kl-png",
    "rfb320-kl-clamp100-bgr-png",
    "resnet8-kl-maxabs",
    "resnet8-kl-bits4-wclamp",
    "rfb320-kl-bits4-noclamp",
    "rfb320-kl-skip",
    "rfb320-kl-debug",
    "rfb320-kl-admm",
    "rfb320nchw-kl-maxabs",
    "rfb320nchw-kl-bits6-wclamp",
]


@pytest.fixture(scope="module")
def measured():
    """measured(case): figures of a case, made once."""
    if not mnn_exact.REFERENCE.is_dir():
        pytest.skip("reference output of MNN's quantizer (QUENCH_SHARED) is not here")
    if not (BUILD / "quantized.out").exists() or not (BUILD / "tests" / "mnn_values").exists():
        pytest.skip("quantized.out and the test tools are not built")
    found = {folder.name: (folder, config) for folder, config in mnn_exact.cases()}
    done = {}

    def measure(case, **options):
        if case not in found:
            pytest.skip(f"no reference case {case}")
        key = (case, *options)
        if key not in done:
            done[key] = mnn_exact.measure(*found[case], BUILD, **options)
        return done[key]

    return measure


@pytest.mark.parametrize("case", KL)
def test_kl_scales(measured, case):
    r = measured(case)
    assert r["missing"] == [] and r["extra"] == []
    if mnn_runtime.has_fma():
        assert r["within_bin"] == 1 and r["worst"] < 1e-6
        # (behind exponentials some are a bit off)
        assert r["same_json"] or case.startswith("rfb320nchw")
    assert r["within_2"] >= 0.95


@pytest.mark.parametrize("case", KL + ["resnet8-admm-admm"])
def test_weights_and_document(measured, case):
    r = measured(case)
    w = r["weights"]
    assert w["equal"] == w["weights"] and w["equal_scales"] == w["scales"]
    assert w["packed"] == w["same"] == w["layers"]
    assert r["tree"] == []


def test_feature_admm_is_nearer_to_the_fixed_point(measured):
    count, nearer, worst = measured("resnet8-admm-admm", fixed_points=True)["fixed"]
    assert count > 0 and nearer == count
    assert worst[0] < 1e-3 < worst[1]


def debug_rows(text):
    rows = re.findall(r"^(.*):  cos distance: (\S+), overflow ratio: (\S+)$", text, re.M)
    return {name: (float(c), float(o)) for name, c, o in rows}


def test_debug_table(measured):
    ours = debug_rows(measured("rfb320-kl-debug")["log"])
    theirs = debug_rows((mnn_exact.REFERENCE / "rfb320-kl-debug" / "tool.log").read_text())
    assert list(ours) == list(theirs)
    for name, (cosine, overflow) in theirs.items():
        assert ours[name][0] == pytest.approx(cosine, abs=2e-3), name
        # a value or two of the smallest tensors
        assert ours[name][1] == pytest.approx(overflow, abs=3e-3), name
