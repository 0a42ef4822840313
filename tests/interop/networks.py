"""Real networks with real inputs for the interop tests, and how they are run on both sides."""

import json
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import common  # noqa: E402

BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))
AS_AVX2 = ROOT / "bench" / "as_avx2"


def resized(folder, size, channels, mean, normal):
    """size: (width, height), aspect not kept."""

    def load(count):
        from PIL import Image

        paths = sorted(p for p in (common.SHARED / "images" / folder).iterdir()
                       if p.suffix == ".jpg")  # fmt: skip
        chosen = [paths[i * len(paths) // count] for i in range(count)]
        crops = [np.asarray(Image.open(p).convert("RGB").resize(size, Image.BILINEAR))
                 for p in chosen]  # fmt: skip
        return common.normalise(np.stack(crops), channels, mean, normal)

    return load


def imagenet(family):
    f = common.FAMILIES[family]

    def load(count):
        folder = common.SHARED / "images" / "imagenet-500"
        rows = common.read_labels(folder)
        chosen = [rows[i * len(rows) // count][0] for i in range(count)]
        crops = [common.crop_picture(folder / name, f.resize, f.crop) for name in chosen]
        return common.normalise(np.stack(crops), f.channels, f.mean, f.normal)

    return load


def cifar10(count):
    raw = np.fromfile(common.SHARED / "images" / "cifar10" / "test-2000.bin", np.uint8)
    pixels = raw.reshape(-1, 3073)[:count, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return common.normalise(pixels, "RGB", common.TORCH_MEAN, common.TORCH_NORMAL)


def keywords(count):
    path = common.SHARED / "data" / "kws" / "features.f32"
    return np.fromfile(path, "<f4").reshape(-1, 1, 49, 10)[:count]


FACES = resized("faces", (320, 240), "RGB", (127.0,) * 3, (0.0078125,) * 3)


@dataclass(frozen=True)
class Network:
    file: str  # below SHARED/models
    inputs: object  # count -> float32 samples
    small: bool = False  # quick enough for the scalar kernels

    @property
    def path(self):
        return common.SHARED / "models" / self.file


NETWORKS = {
    "mobilenet": Network(common.FAMILIES["mobilenet"].model, imagenet("mobilenet")),
    "squeezenet": Network(common.FAMILIES["squeezenet"].model, imagenet("squeezenet")),
    "menet": Network(common.FAMILIES["menet"].model, imagenet("menet")),
    "resnet20": Network("resnet20-cifar10/resnet20_cifar10.onnx", cifar10, small=True),
    "kws": Network("mlperf-kws/kws_dscnn.onnx", keywords, small=True),
    "rfb": Network("ultraface-rfb-320/RFB-320.onnx", FACES),
    "rfb-raw": Network("ultraface-rfb-320/RFB-320_raw.onnx", FACES),
    "rfb-raw-folded": Network("ultraface-rfb-320/RFB-320_raw_folded.onnx", FACES),
    "fastestdet": Network(
        "fastestdet/FastestDet.onnx",
        resized("coco/val-64", (352, 352), "BGR", (0.0,) * 3, (1 / 255,) * 3),
    ),
}  # fmt: skip


def network(name):
    """The network, or a skipped test where the material is absent."""
    if not NETWORKS[name].path.is_file():
        pytest.skip(f"{NETWORKS[name].file} is not here (QUENCH_SHARED)")
    return NETWORKS[name]


def quench_outputs(model, inputs, folder, *options):
    """Every output of quench over all samples. inputs: {name: array} or the only input's array."""
    folder.mkdir(parents=True, exist_ok=True)
    single = not isinstance(inputs, dict)
    files = []
    for i, (name, array) in enumerate({"": inputs}.items() if single else inputs.items()):
        np.save(folder / f"in{i}.npy", array)
        files.append(str(folder / f"in{i}.npy") if single else f"{name}={folder / f'in{i}.npy'}")
    command = [BUILD / "tests" / "run_dump", *options, model, ",".join(files), folder / "out"]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    count = len(inputs if single else next(iter(inputs.values())))
    outputs = []
    for i, line in enumerate(result.stdout.splitlines()):
        dims = [int(d) for d in line.split(",")] if line else []
        values = np.fromfile(folder / f"out.{i}", np.float32)
        # One run per sample: results lie one after the other along the first axis.
        outputs.append(values.reshape([count * dims[0], *dims[1:]] if dims else [count]))
    return outputs


def session(model, level=ort.GraphOptimizationLevel.ORT_ENABLE_ALL, optimized=None):
    """As on ARM where activations are int8: on x86 onnxruntime would turn some of them into uint8
    (not those with several consumers) and leave the nodes between in float."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    options.graph_optimization_level = level
    if optimized:
        options.optimized_model_filepath = str(optimized)
    source = model if isinstance(model, bytes) else str(model)
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def ort_outputs(model, inputs, names=None):
    """Every output of onnxruntime over all samples, one sample per run."""
    s = model if isinstance(model, ort.InferenceSession) else session(model)
    if not isinstance(inputs, dict):
        inputs = {s.get_inputs()[0].name: inputs}
    count = len(next(iter(inputs.values())))
    rows = [s.run(names, {k: v[i : i + 1] for k, v in inputs.items()}) for i in range(count)]
    return [np.concatenate([np.atleast_1d(v) for v in values]) for values in zip(*rows)]


def quantize(quench, model, samples, out, *options):
    """Quantizes with tensors as samples; returns the report."""
    np.save(out.with_suffix(".npy"), samples)
    result = quench("quantize", model, "-o", out, "--data", out.with_suffix(".npy"), "--json",
                    *options)  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def claimed_int8(report):
    """Names of convolutions and gemms the report calls int8, and of the others."""
    nodes = [n for n in report["nodes"] if n["op"] in WEIGHTED]
    return [n["name"] for n in nodes if n["int8"]], [n["name"] for n in nodes if not n["int8"]]


def optimized_nodes(model, folder):
    """Nodes of the graph as onnxruntime runs it."""
    path = folder / "optimized.onnx"
    session(model, ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED, path)
    return list(onnx.load(path).graph.node)
