"""Real .mnn files: float outputs of quench against MNN's runtime, and every way the converter stores
weights."""

import json

import numpy as np
import pytest

import mnn_runtime
from networks import quench_outputs

MODELS = [
    "models/fastestdet/FastestDet.mnn",
    "models/menet-108-8x1-g3/menet_108_8x1_g3.mnn",
    "models/mlperf-kws/kws_dscnn.mnn",
    "models/mlperf-resnet8-cifar10/resnet8_float.mnn",
    "models/mlperf-vww96/vww_96_float.mnn",
    "models/mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.mnn",
    "models/resnet20-cifar10/resnet20_cifar10.mnn",
    "models/squeezenet-v1.1/squeezenet_v1.1.mnn",
    "models/ultraface-rfb-320/RFB-320.mnn",
    "reference/mnn/models/RFB-320.mnn",
    "reference/mnn/models/RFB-320-nchw.mnn",
    "reference/mnn/models/resnet8.mnn",
]
INTEGERS_OF_2019 = [
    "models/ultraface-rfb-320/RFB-320-quant-ADMM-32.mnn",
    "models/ultraface-rfb-320/RFB-320-quant-KL-5792.mnn",
    "reference/mnn/models/RFB-320-int8-2019.mnn",
]
needs_mnn = pytest.mark.skipif(not mnn_runtime.available(), reason="no MNN package")


def described(quench, path):
    """{input: shape} and the names of the outputs."""
    done = quench("inspect", path)
    assert done.returncode == 0, done.stderr
    shapes, names = {}, []
    for line in done.stdout.splitlines():
        words = line.split()
        if words and words[0] == "input":
            shapes[words[1]] = tuple(int(d) for d in words[3].strip("[]").split("x"))
        elif words and words[0] == "output":
            names.append(words[1])
    return shapes, names


def random_inputs(shapes, seed=1):
    rng = np.random.default_rng(seed)
    return {n: rng.normal(0, 1, s).astype(np.float32) for n, s in shapes.items()}


def same_outputs(quench, path, folder, tolerance=1e-4):
    shapes, names = described(quench, path)
    inputs = random_inputs(shapes)
    theirs = mnn_runtime.outputs(path, inputs, folder)
    assert theirs is not None
    assert sorted(theirs) == sorted(names)
    ours = quench_outputs(path, {n: a[None] for n, a in inputs.items()}, folder / "quench")
    for name, got in zip(names, ours):
        expected = theirs[name]
        assert got.size == expected.size
        assert np.abs(got.ravel() - expected.ravel()).max() <= tolerance * np.abs(expected).max()
    return names, ours


@needs_mnn
@pytest.mark.parametrize("file", MODELS)
def test_outputs_are_those_of_mnn(file, quench, shared, tmp_path):
    if not (shared / file).is_file():
        pytest.skip(f"{file} is not here")
    same_outputs(quench, shared / file, tmp_path)


def test_every_model_at_hand_is_compared(shared):
    here = {str(p.relative_to(shared)) for folder in ("models/*", "reference/mnn/models")
            for p in shared.glob(f"{folder}/*.mnn")}  # fmt: skip
    assert here <= {*MODELS, *INTEGERS_OF_2019}


REFERENCES = [
    ("RFB-320", "outputs_float_RFB-320", "face", (240, 320), 127.0, 1 / 128, False),
    ("RFB-320-nchw", "outputs_float_rfb-onnx", "face", (240, 320), 127.0, 1 / 128, False),
    ("resnet8", "outputs_float_resnet8", "cifar", (32, 32), 0.0, 1.0, True),
]


@pytest.mark.parametrize("model,outputs,picture,size,mean,normal,last", REFERENCES)
def test_stored_outputs(
    model, outputs, picture, size, mean, normal, last, quench, shared, tmp_path
):
    folder = shared / "reference" / "mnn"
    if not folder.is_dir():
        pytest.skip("reference outputs of MNN are not here")
    path = folder / "models" / f"{model}.mnn"
    _, names = described(quench, path)
    for k in range(2):
        pixels = np.fromfile(folder / "inputs" / f"{picture}_{k}.rgb", np.uint8)
        x = (pixels.reshape(*size, 3).astype(np.float32) - mean) * np.float32(normal)
        x = x[None] if last else x.transpose(2, 0, 1)[None]
        ours = quench_outputs(path, np.ascontiguousarray(x), tmp_path)
        for name, got in zip(names, ours):
            expected = np.fromfile(folder / outputs / f"{name}_{k}.f32", np.float32)
            # Winograd's transformed kernels cost MNN up to 4e-4 in single values.
            assert np.abs(got.ravel() - expected).max() <= 4e-4 * np.abs(expected).max()


@pytest.mark.parametrize("file", INTEGERS_OF_2019)
def test_integer_files_of_2019(file, quench, shared, tmp_path):
    """Today's runtime refuses them; they must be close to the float model they came from."""
    if not (shared / file).is_file():
        pytest.skip(f"{file} is not here")
    picture = shared / "reference" / "mnn" / "inputs" / "face_0.rgb"
    if not picture.is_file():
        pytest.skip("the reference picture is not here")
    pixels = np.fromfile(picture, np.uint8).reshape(240, 320, 3).astype(np.float32)
    x = np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])
    exact = quench_outputs(shared / MODELS[8], x, tmp_path / "float")
    integers = quench_outputs(shared / file, x, tmp_path / "integers")
    for a, b in zip(exact, integers):
        cosine = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
        assert 0.99 < cosine < 0.999999
    # In integers, with what its floats (not simplified, as it was read) give, in every kernel and
    # as a compact file.
    result = quench("bench", shared / file, "--layers", "--json", "--rounds", "1", "--threads", "1")
    kernels = [layer["kernel"] for layer in json.loads(result.stdout)["layers"]]
    assert not [k for k in kernels if "f32" in k or k in ("Round", "Clip")], kernels
    assert sum("q8_igemm" in k or "q8_dwconv" in k for k in kernels) >= 50
    plain = quench_outputs(shared / file, x, tmp_path / "plain", "--as-read")
    scalar = quench_outputs(shared / file, x, tmp_path / "scalar", "--cpu", "scalar")
    assert quench("convert", shared / file, "-o", tmp_path / "old.qnm").returncode == 0
    compact = quench_outputs(tmp_path / "old.qnm", x, tmp_path / "compact")
    for got in (plain, scalar, compact):
        assert all(np.array_equal(a, b) for a, b in zip(integers, got, strict=True))


QUANTIZED = ["rfb320-kl-maxabs", "rfb320-ema-nowino", "rfb320-admm-maxabs", "resnet8-kl-maxabs",
             "rfb320nchw-kl-maxabs", "resnet8-ema-nowino", "rfb320-kl-admm"]  # fmt: skip


@pytest.mark.parametrize("name", QUANTIZED)
def test_files_of_the_quantizer(name, quench, shared, tmp_path):
    """Their outputs in MNN's integers are stored; ours may keep activations in float."""
    folder = shared / "reference" / "mnn"
    if not (folder / name).is_dir():
        pytest.skip("reference files of MNN's quantizer are not here")
    path = folder / name / "quant.mnn"
    _, names = described(quench, path)
    small = name.startswith("resnet8")
    pixels = np.fromfile(folder / "inputs" / ("cifar_0.rgb" if small else "face_0.rgb"), np.uint8)
    x = pixels.reshape(1, 32 if small else 240, 32 if small else 320, 3).astype(np.float32)
    if not small:
        x = ((x - 127) / 128).transpose(0, 3, 1, 2)
    ours = quench_outputs(path, np.ascontiguousarray(x), tmp_path)
    for output, got in zip(names, ours):
        stored = np.fromfile(folder / name / "outputs" / f"{output}_0.f32", np.float32)
        got = got.ravel()
        assert got @ stored / np.linalg.norm(got) / np.linalg.norm(stored) > 0.94


# --- how the converter stores weights -----------------------------------------------------------
STORED = {
    "plain": [],
    "external": ["--saveExternalData"],
    "half": ["--fp16"],
    "bits8": ["--weightQuantBits", "8"],
    "bits8_symmetric": ["--weightQuantBits", "8", "--weightQuantAsymmetric=false"],
    "bits4": ["--weightQuantBits", "4"],
    "bits4_blocks": ["--weightQuantBits", "4", "--weightQuantBlock", "32"],
    "bits2": ["--weightQuantBits", "2"],
    "bits8_external": ["--weightQuantBits", "8", "--saveExternalData"],
}


@needs_mnn
@pytest.mark.parametrize("name", STORED)
def test_stored_weights(name, quench, shared, tmp_path):
    source = shared / "models" / "mlperf-kws" / "kws_dscnn.onnx"
    if not source.is_file():
        pytest.skip("kws_dscnn.onnx is not here")
    path = tmp_path / "m.mnn"
    done, text = mnn_runtime.convert("ONNX", source, path, *STORED[name])
    assert done, text
    same_outputs(quench, path, tmp_path)


@needs_mnn
def test_side_file_must_be_there(quench, shared, tmp_path):
    source = shared / "models" / "mlperf-kws" / "kws_dscnn.onnx"
    if not source.is_file():
        pytest.skip("kws_dscnn.onnx is not here")
    path = tmp_path / "m.mnn"
    done, text = mnn_runtime.convert("ONNX", source, path, "--saveExternalData")
    side = tmp_path / "m.mnn.weight"
    assert done and side.is_file(), text
    whole = side.read_bytes()
    side.write_bytes(whole[: len(whole) // 2])
    cut = quench("inspect", path)
    assert cut.returncode != 0 and "external weights" in cut.stderr
    side.unlink()
    missing = quench("inspect", path)
    assert missing.returncode != 0 and "m.mnn.weight" in missing.stderr
    outside = tmp_path.parent / f"{tmp_path.name}.outside"
    outside.write_bytes(whole)
    side.symlink_to(outside)
    linked = quench("inspect", path)
    assert linked.returncode != 0 and "outside the model's folder" in linked.stderr


# --- channels last ------------------------------------------------------------------------------
TFLITE = [
    "models/mlperf-resnet8-cifar10/resnet8_float.tflite",
    "models/mlperf-resnet8-cifar10/resnet8_large_float.tflite",
    "models/mlperf-vww96/vww_96_float.tflite",
    "models/ultraface-rfb-320/RFB-320_raw.tflite",
]


@needs_mnn
@pytest.mark.parametrize("file", TFLITE)
def test_models_from_tflite(file, quench, shared, tmp_path):
    if not (shared / file).is_file():
        pytest.skip(f"{file} is not here")
    path = tmp_path / "m.mnn"
    done, text = mnn_runtime.convert("TFLITE", shared / file, path)
    assert done, text
    same_outputs(quench, path, tmp_path)


def test_pictures_for_channels_last(quench, shared, tmp_path):
    """[1,32,32,3]: pictures are given as height, width, channels."""
    path = shared / "models" / "mlperf-resnet8-cifar10" / "resnet8_float.mnn"
    folder = shared / "images" / "cifar10-calib50"
    if not path.is_file() or not folder.is_dir():
        pytest.skip("resnet8_float.mnn or its pictures are not here")
    from PIL import Image

    files = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))[:5]
    x = np.stack([np.asarray(Image.open(f).convert("RGB"), np.float32) for f in files])
    expected = quench_outputs(path, x, tmp_path)[0]
    done = quench("run", path, "--images", folder, "--first", "5")
    assert done.returncode == 0, done.stderr
    best = []
    for line in done.stdout.splitlines():
        words = line.split()
        if "best of" in line:
            best.append(None)
        elif best and best[-1] is None:
            best[-1] = int(words[0])
    assert best == [int(row.argmax()) for row in expected]
