"""EMA of quantized.out in exact mode against the real tool: every scale must come out the same, in
its recorded runs and in runs beside it."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import pytest
from PIL import Image
from test_ema_train import network

BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", "build"))
RGB = {"format": "RGB", "feature_quantize_method": "EMA", "weight_quantize_method": "MAX_ABS",
       "winogradOpt": False}  # fmt: skip
FACES = RGB | {"mean": [127] * 3, "normal": [0.0078125] * 3, "width": 320, "height": 240}


@pytest.fixture(scope="module")
def mnn(shared):
    """(reference folder, reader of .mnn files)"""
    reference = shared / "reference" / "mnn"
    if not reference.is_dir():
        pytest.skip("recorded runs of MNN's quantizer are not here")
    sys.path.insert(0, str(shared / "tools" / "mnn"))
    import mnnread

    return reference, lambda path: mnnread.R(pathlib.Path(path).read_bytes()).root()


def quantize(model, out, config, *options, good=True):
    path = out.with_suffix(".config.json")
    path.write_text(json.dumps(config))
    done = subprocess.run([BUILD / "quantized.out", model, out, path, *options],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert (done.returncode == 0) == good, done.stdout + done.stderr
    return done


def oracle(model, out, config):
    pytest.importorskip("MNN", reason="the MNN wheel is not installed")
    path = out.with_suffix(".config.json")
    path.write_text(json.dumps(config))
    code = f"import _tools; _tools.mnnquant({['mnnquant', str(model), str(out), str(path)]!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert out.is_file(), done.stdout + done.stderr


def convolutions(net):
    """In the order of the file: records of input and output, weights, bias."""
    records = {}
    for describe in net.get("extraTensorDescribe", []):
        info = describe.get("quantInfo")
        if info:
            records[describe["index"]] = (info["scale"], int(info.get("zero", 0)))
    found = []
    for op in net["oplists"]:
        main = op.get("main", {})
        if main.get("_t") == "Convolution2D":
            ends = [int(op[k][0]) for k in ("inputIndexes", "outputIndexes")]
            packed = main["quanParameter"]
            found.append({"records": [records[e] for e in ends], "bias": main["bias"],
                          "alpha": packed["alpha"], "weights": packed["buffer"].tobytes(),
                          "relu": bool(main["common"].get("relu")),
                          "symmetric": main["symmetricQuan"],
                          "winograd": main["symmetricQuan"].get("winogradAttr")})  # fmt: skip
    return found


def matched(ours, theirs):
    """Pairs of the same convolution: the real tool's order of operators is another one."""
    by_weights = {c["weights"]: c for c in theirs}
    assert len(by_weights) == len(theirs) == len(ours)
    return [(c, by_weights[c["weights"]]) for c in ours]


def ratios(pairs):
    return np.array([a["records"][k][0] / b["records"][k][0] for a, b in pairs for k in (0, 1)])


def check_same(pairs):
    np.testing.assert_allclose(ratios(pairs), 1, rtol=1e-6)
    for a, b in pairs:
        assert [r[1] for r in a["records"]] == [r[1] for r in b["records"]]
        np.testing.assert_array_equal(a["alpha"], b["alpha"])
        np.testing.assert_allclose(a["bias"], b["bias"], rtol=1e-6, atol=1e-6)
        for key in ("nbits", "zeroPoint", "outputZeroPoint"):
            assert a["symmetric"].get(key, 0) == b["symmetric"].get(key, 0)


@pytest.mark.parametrize("case,model", [
    ("resnet8-ema-nowino", "resnet8"), ("rfb320-ema-nowino", "RFB-320"),
    ("rfb320nchw-ema-nowino", "RFB-320-nchw"),
])  # fmt: skip
def test_recorded_runs(mnn, shared, tmp_path, case, model):
    reference, read = mnn
    config = json.loads((reference / case / "config.json").read_text())
    folder = shared / pathlib.Path(config["path"])
    names = reference / case / "pictures.txt"
    chosen = names.read_text().split() if names.is_file() else [p.name for p in folder.iterdir()]
    (tmp_path / "pictures").mkdir()
    for name in chosen:
        (tmp_path / "pictures" / name).symlink_to(folder / name)
    config["path"] = str(tmp_path / "pictures")
    quantize(reference / "models" / f"{model}.mnn", tmp_path / "q.mnn", config, "--exact-mnn")
    theirs = convolutions(read(reference / case / "quant.mnn"))
    check_same(matched(convolutions(read(tmp_path / "q.mnn")), theirs))


def check_winograd(pairs, wanted, tolerance=0.02):
    """The same convolutions, units and weights; ranges as near as sums of floats in another order."""
    assert sum(b["winograd"] is not None for _, b in pairs) == wanted
    assert np.abs(ratios(pairs) - 1).max() < tolerance
    for a, b in pairs:
        assert [r[1] for r in a["records"]] == [r[1] for r in b["records"]]
        assert (a["winograd"] is None) == (b["winograd"] is None)
        if a["winograd"] is None:
            continue
        np.testing.assert_array_equal(a["winograd"][:9], b["winograd"][:9])
        n = (a["winograd"][7] + 2) * (a["winograd"][8] + 2)
        (x, zx, u), (y, zy, v) = (np.split(c["winograd"][9:], [n, 2 * n]) for c in (a, b))
        np.testing.assert_allclose(x.view(np.float32), y.view(np.float32), rtol=tolerance)
        assert np.abs(zx - zy).max() <= 127 * tolerance
        np.testing.assert_allclose(u.view(np.float32), v.view(np.float32), rtol=1e-6)


def test_recorded_winograd(mnn, shared, tmp_path):
    reference, read = mnn
    case = reference / "rfb320-ema"
    config = json.loads((case / "config.json").read_text())
    config["path"] = str(shared / config["path"])
    done = quantize(reference / "models" / "RFB-320.mnn", tmp_path / "q.mnn", config, "--exact-mnn")
    assert done.stderr == ""
    ours, theirs = (convolutions(read(p)) for p in (tmp_path / "q.mnn", case / "quant.mnn"))
    check_winograd(matched(ours, theirs), 4)


def test_winograd_of_squeezenet(mnn, shared, tmp_path):
    source = shared / "models" / "squeezenet-v1.1" / "squeezenet_v1.1.mnn"
    config = RGB | {"mean": [123.675, 116.28, 103.53], "normal": [0.0171, 0.0175, 0.01743],
                    "width": 227, "height": 227, "path": str(shared / "images" / "faces-png") + "/",
                    "batch_size": 5, "winogradOpt": True}  # fmt: skip
    oracle(source, tmp_path / "real.mnn", config)
    quantize(source, tmp_path / "q.mnn", config, "--exact-mnn")
    ours, theirs = convolutions(mnn[1](tmp_path / "q.mnn")), convolutions(mnn[1](tmp_path / "real.mnn"))
    check_winograd(matched(ours, theirs), 8, 0.03)


def test_winograd_with_same_padding_reads_nothing_outside(mnn, shared, tmp_path):
    """The real tool makes such outputs smaller and adds tensors of two sizes."""
    source = mnn[0] / "models" / "resnet8.mnn"
    pictures = {"path": str(shared / "images" / "cifar10-png"), "width": 32, "height": 32}
    done = quantize(source, tmp_path / "q.mnn", RGB | pictures | {"winogradOpt": True}, "--exact-mnn=winograd")
    assert done.stderr.count("warning:") == 1 and "winogradOpt" in done.stderr
    quantize(source, tmp_path / "n.mnn", RGB | pictures, "--exact-mnn=winograd")
    ours, plain = convolutions(mnn[1](tmp_path / "q.mnn")), convolutions(mnn[1](tmp_path / "n.mnn"))
    assert np.abs(ratios(list(zip(ours, plain))) - 1).max() < 0.05
    assert sum(c["winograd"] is not None for c in ours) == 5
    assert not any(c["winograd"] is not None for c in plain)


def test_pictures_of_another_kind(mnn, shared, tmp_path):
    reference, read = mnn
    source = reference / "models" / "RFB-320.mnn"
    config = FACES | {"path": str(shared / "images" / "faces-png") + "/", "batch_size": 4}
    oracle(source, tmp_path / "real.mnn", config)
    quantize(source, tmp_path / "q.mnn", config, "--exact-mnn")
    ours, theirs = convolutions(read(tmp_path / "q.mnn")), convolutions(read(tmp_path / "real.mnn"))
    check_same(matched(ours, theirs))


def for_training(source, target):
    runtime = pytest.importorskip("mnn_runtime")
    good, log = runtime.convert("ONNX", source, target, "--forTraining")
    assert good, log


def check_norms(read, tmp_path, config, tolerance):
    """Converts with BatchNorm kept; scales and folded biases as the real tool's."""
    source = tmp_path / "float.mnn"
    before = read(source)
    assert any(op.get("main", {}).get("_t") == "BatchNorm" for op in before["oplists"])
    oracle(source, tmp_path / "real.mnn", config)
    done = quantize(source, tmp_path / "q.mnn", config | {"feature_quantize_method": "KL"},
                    "--exact-mnn")  # fmt: skip
    assert "this model has BatchNorm, use EMA quantize method instead" in done.stdout
    ours, theirs = convolutions(read(tmp_path / "q.mnn")), convolutions(read(tmp_path / "real.mnn"))
    assert len(ours) == len(theirs)
    assert not any(op.get("main", {}).get("_t") == "BatchNorm" for op in read(tmp_path / "q.mnn")["oplists"])
    pairs = list(zip(ours, theirs))
    off = np.abs(ratios(pairs) - 1)
    assert off.max() < tolerance, off
    for a, b in pairs:
        np.testing.assert_allclose(a["bias"], b["bias"], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(a["alpha"], b["alpha"], rtol=1e-3)
        assert a["relu"] == b["relu"]
    return source


def test_batch_norm_of_resnet20(quench, mnn, shared, tmp_path):
    for_training(shared / "models" / "resnet20-cifar10" / "resnet20_cifar10.onnx",
                 tmp_path / "float.mnn")  # fmt: skip
    pictures = shared / "images" / "cifar10-png"
    mean, normal = [123.675, 116.28, 103.53], [0.0171247538, 0.0175070028, 0.0174291939]
    check_norms(mnn[1], tmp_path, RGB | {"mean": mean, "normal": normal, "width": 32, "height": 32,
                "path": f"{pictures}/", "batch_size": 10}, 0.03)  # fmt: skip
    errors = []
    for name in ("q.mnn", "real.mnn"):
        done = quench("compare", tmp_path / "float.mnn", tmp_path / name, "--images", pictures, "--json",
                      "--mean", ",".join(map(str, mean)), "--normal", ",".join(map(str, normal)))  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows = {t["name"]: t for t in json.loads(done.stdout)["tensors"]}
        errors.append(rows["logits"]["sqnr_db"])
    assert abs(errors[0] - errors[1]) < 1, errors  # both lose as much: the range of the first batch


def test_batch_norm_of_depthwise_and_relu6(mnn, tmp_path):
    runtime = pytest.importorskip("mnn_runtime")
    onnx.save(network(11), tmp_path / "m.onnx")
    for_training(tmp_path / "m.onnx", tmp_path / "float.mnn")
    rng = np.random.default_rng(3)
    (tmp_path / "pictures").mkdir()
    for i in range(9):
        noise = rng.integers(0, 256, (12, 12, 3), np.uint8) // rng.integers(1, 4)
        Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "pictures" / f"{i}.png")
    check_norms(mnn[1], tmp_path, RGB | {"mean": [100] * 3, "normal": [0.02] * 3, "width": 12, "height": 12,
                "path": f"{tmp_path}/pictures/", "batch_size": 4}, 0.02)  # fmt: skip
    x = (rng.integers(0, 256, (1, 3, 12, 12)) - 100).astype(np.float32) * np.float32(0.02)
    ours, theirs = (np.concatenate([v.ravel() for v in runtime.outputs(tmp_path / n, {"x": x}, tmp_path).values()])
                    for n in ("q.mnn", "real.mnn"))  # fmt: skip
    assert np.abs(ours - theirs).max() < 0.05 * np.abs(theirs).max()


def test_choices(mnn, shared, tmp_path):
    reference, read = mnn
    source = reference / "models" / "resnet8.mnn"
    pictures = {"path": str(shared / "images" / "cifar10-png"), "width": 32, "height": 32}
    done = quantize(source, tmp_path / "b.mnn", RGB | pictures | {"batch_size": 99}, "--exact-mnn")
    assert "set batch size as 30\n" in done.stdout
    skip = next(op["name"] for op in read(source)["oplists"]
                if op.get("main", {}).get("_t") == "Convolution2D")  # fmt: skip
    quantize(source, tmp_path / "s.mnn", RGB | pictures | {"skip_quant_op_names": [skip]},
             "--exact-mnn")  # fmt: skip
    first = next(op for op in read(tmp_path / "s.mnn")["oplists"] if op.get("name") == skip)
    assert "quanParameter" not in first["main"] and "weight" in first["main"]


def test_threads_do_not_show(mnn, shared, tmp_path):
    reference, _ = mnn
    files = []
    for threads in ("1", "3"):
        config = tmp_path / "c.json"
        config.write_text(json.dumps(RGB | {"path": str(shared / "images" / "cifar10-png"), "width": 32,
                                            "height": 32, "batch_size": 7}))  # fmt: skip
        out = tmp_path / f"q{threads}.mnn"
        subprocess.run([BUILD / "quantized.out", reference / "models" / "resnet8.mnn", out, config,
                        "--exact-mnn"],
                       check=True, capture_output=True, env=os.environ | {"QN_THREADS": threads})  # fmt: skip
        files.append(out.read_bytes())
    assert files[0] == files[1]
