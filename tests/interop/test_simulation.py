"""The integers quench computes against those of onnxruntime's integer kernels, layer by layer."""

import onnx
import pytest
from layers import Cutter, agreement, ort_integers, quench_integers
from networks import network, quantize
from synthetic import many_operators, samples

MODELS = ["synthetic", "mobilenet", "squeezenet", "menet", "resnet20", "kws", "rfb", "fastestdet"]
SETTINGS = {
    "onnxruntime": [],
    "onnxruntime-qoperator": ["--format", "qoperator"],
    "arm": ["--target", "onnxruntime-arm"],
    "tensor": ["--granularity", "tensor"],
    "tensorrt": ["--target", "tensorrt"],
}
RUNS = [(name, "onnxruntime") for name in MODELS] + [
    ("synthetic", "onnxruntime-qoperator"),
    ("synthetic", "arm"),
    ("synthetic", "tensor"),
    ("synthetic", "tensorrt"),
    ("menet", "onnxruntime-qoperator"),
    ("mobilenet", "arm"),
    ("fastestdet", "arm"),
    ("resnet20", "tensorrt"),
]


def quantized_layers(quench, name, options, folder):
    if name == "synthetic":
        path, x = folder / "m.onnx", samples(16)
        onnx.save(many_operators(), path)
    else:
        net = network(name)
        path, x = net.path, net.inputs(4)
    quantize(quench, path, x, folder / "q.onnx", *options)
    return list(Cutter(folder / "q.onnx").layers(x[:: len(x) // 2][:2], folder))


def compare(layers, masked=False, options=()):
    theirs = ort_integers(layers, masked)
    return [agreement(l, t, quench_integers(l, *options)) for l, t in zip(layers, theirs)]


def check(results, record_property, exact=True):
    """Within a step on 99.9 % of a layer's values; exact where onnxruntime computes in integers."""
    total = sum(a.equal for a in results) / len(results)
    record_property("equal", total)
    print(f"{len(results)} layers, {100 * total:.4f} % of values equal on average")
    for a in results:
        if a.equal < 1:
            print(f"{a.layer.op} {a.layer.name}: equal {100 * a.equal:.4f} %, worst {a.worst}")
    far = [f"{a.layer.op} {a.layer.name} {a.within_one}" for a in results if a.within_one < 0.999]
    assert not far
    unequal = [f"{a.layer.op} {a.layer.name} {a.equal}" for a in results if a.equal < 1]
    assert not (exact and unequal)


@pytest.mark.parametrize(("name", "setting"), RUNS)
def test_each_layer_gives_the_integers_of_onnxruntime(
    quench, name, setting, tmp_path, record_property
):
    layers = quantized_layers(quench, name, SETTINGS[setting], tmp_path)
    # For tensorrt onnxruntime computes in float what we compute in integers.
    check(compare(layers), record_property, exact=setting != "tensorrt")


@pytest.mark.parametrize("name", ["synthetic", "mobilenet", "menet", "squeezenet"])
def test_saturation_is_simulated(quench, name, tmp_path, record_property):
    layers = quantized_layers(quench, name, ["--x86", "vnni"], tmp_path)
    results = compare(layers, masked=True, options=["--saturate16"])
    check(results, record_property)
    without = compare(layers, masked=True)
    assert any(a.worst > 1 for a in without), "nothing saturates: the test proves nothing"
