"""The benches' own arithmetic: a wrong bench is worse than none."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bench"))
import common  # noqa: E402
import eval_detectors  # noqa: E402
import eval_onnx  # noqa: E402
import latency  # noqa: E402
import make_models  # noqa: E402
import peers  # noqa: E402


def predictions(top1, labels, calibration=None):
    top5 = np.stack([np.array(top1) + 100 * k for k in range(5)], axis=1)
    mask = np.zeros(len(top1), bool) if calibration is None else np.array(calibration)
    return common.Predictions(top5, np.array(labels), mask, {})


def test_binomial_agrees_with_values_known_by_hand():
    assert common.binomial_two_sided(0, 0) == 1
    assert common.binomial_two_sided(5, 10) == 1
    assert common.binomial_two_sided(0, 5) == pytest.approx(2 / 32)
    assert common.binomial_two_sided(9, 10) == pytest.approx(2 * 11 / 1024)


def test_mcnemar_counts_only_where_the_two_differ():
    a = np.array([True] * 6 + [False] + [True] * 50)
    b = np.array([False] * 6 + [True] + [True] * 50)
    assert common.mcnemar(a, b) == (6, 1, pytest.approx(2 * 8 / 128))


def test_paired_looks_at_truth_and_at_the_float_network():
    ours = predictions([1, 2, 3], [1, 2, 9])
    theirs = predictions([1, 5, 4], [1, 2, 9])
    reference = predictions([1, 5, 3], [1, 2, 9])
    result = eval_onnx.paired(ours, theirs, reference)
    assert (result["top1"]["only_ours"], result["top1"]["only_theirs"]) == (1, 0)
    assert (result["agreement"]["only_ours"], result["agreement"]["only_theirs"]) == (1, 1)


def test_every_fifth_picture_is_calibrated_on():
    assert common.calibration_indices(500) == list(range(0, 500, 5))
    assert common.calibration_indices(7) == list(range(7))
    assert len(set(common.calibration_indices(303))) == 100


def test_predictions_come_back_from_a_file_and_divide(tmp_path):
    predictions([1, 2, 3, 4], [1, 2, 0, 104], [True, False, False, False]).save(tmp_path / "p.npz")
    p = common.Predictions.load(tmp_path / "p.npz")
    assert (p.accuracy(), p.accuracy(5)) == (50, 75)
    assert p.subset("calibration").accuracy() == 100
    assert len(p.subset("held-out").labels) == 3


def test_equal_scores_go_to_the_lower_class():
    assert common.top5(np.zeros((1, 9)))[0].tolist() == [0, 1, 2, 3, 4]


def test_normalise_swaps_channels_before_the_mean():
    crop = np.array([[[[10, 20, 30]]]], np.uint8)
    x = common.normalise(crop, "BGR", (1, 2, 3), (1, 1, 2))
    assert x.shape == (1, 3, 1, 1)
    assert x.ravel().tolist() == [29, 18, 14]


def test_face_priors_are_the_detectors():
    priors = eval_detectors.face_priors()
    assert priors.shape == (4420, 4)
    # From the file that decodes inside: the first cell, and one of the 10 x 8 grid.
    assert priors[0].tolist() == pytest.approx([0.0125, 1 / 60, 10 / 320, 10 / 240])
    assert priors[4200].tolist()[:2] == pytest.approx([0.05, 0.0625])


def test_zero_offsets_decode_to_the_priors():
    corners = eval_detectors.decode_faces(np.zeros((1, 4420, 4), np.float32))[0]
    size = corners[:, 2:] - corners[:, :2]
    assert np.allclose(size, eval_detectors.face_priors()[:, 2:], atol=1e-6)
    assert eval_detectors.are_corners(corners)


def test_intersection_over_union():
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1]], float)
    b = np.array([[1, 0, 3, 2], [0, 0, 1, 1], [2, 2, 3, 3]], float)
    assert eval_detectors.intersection_over_union(a, b).tolist() == pytest.approx([1 / 3, 1, 0])


def test_a_missed_bound_is_told():
    assert eval_detectors.Figure("x", 0.989, at_least=0.99).row() == ["x", "0.9890", ">= 0.99", "NO"]
    assert eval_detectors.Figure("x", 0.15, at_most=0.15).passes
    assert not eval_detectors.Figure("x", float("nan"), at_most=0.15).passes


def test_latency_ratio_is_quench_over_onnxruntime():
    bursts = {"quench": [1, 2, 3], "onnxruntime": [4, 4, 4]}
    result = {k: [{"min": v, "median": v} for v in vs] for k, vs in bursts.items()}
    row = latency.summary({"model": "m", "threads": 1, **result})
    assert (row["ratio_median"], row["ratio_min"]) == (0.5, 0.25)


def test_made_models_are_repeatable_and_take_any_batch():
    a, b = (make_models.make_model("squeezenet_v1.1") for _ in range(2))
    assert a.SerializeToString() == b.SerializeToString()
    session = common.ort.InferenceSession(a.SerializeToString())
    y = session.run(None, {"input": make_models.seeded_pictures(3)})[0]
    assert y.shape == (3, 1000)
    assert np.allclose(y.sum(axis=1), 1, atol=1e-5)


def test_engines_that_are_not_there_are_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["peers.py", "m.onnx", "--files", "f", "--engines", "litert"])
    with pytest.raises(SystemExit):
        peers.parse_arguments()
    assert "invalid choice: 'litert'" in capsys.readouterr().err
