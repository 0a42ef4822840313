"""Quantized .mnn files in MNN's own runtime: what runs in int8, what comes out, and that quench's
simulation of the file says the same."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

MNN = pytest.importorskip("MNN", reason="the MNN wheel is not here")
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))
sys.path.insert(0, str(ROOT / "bench"))
import mnn_eval  # noqa: E402

# smallest cosine to float: MNN's tool's on the same model (reference/mnn), or what quench had
# less a margin; and to the simulation
FLOORS = {
    "resnet8": (0.9716, 0.99), "vww96": (0.999, 0.999), "mobilenet-v1-0.25": (0.97, 0.99),
    "squeezenet-v1.1": (0.98, 0.99), "resnet20": (0.998, 0.998), "menet": (0.97, 0.99),
    "rfb320": (0.9907, 0.998), "fastestdet": (0.97, 0.97),
}  # fmt: skip


@pytest.fixture(scope="module", params=FLOORS)
def made(request, quench, shared, tmp_path_factory):
    """(name, task, float file, int8 file)"""
    task = mnn_eval.TASKS[request.param]
    source = shared / task["model"]
    if not source.exists():
        pytest.skip(f"{source} is not here")
    out = tmp_path_factory.mktemp("int8") / f"{request.param}.mnn"
    mnn_eval.quantize(quench.binary, shared, task, out, [])
    return request.param, task, source, out


def answers(path, xs):
    net = mnn_eval.Net(path)
    return net, [net(x) for x in xs]


def simulated(path, xs, folder):
    np.save(folder / "x.npy", np.concatenate(xs))
    done = subprocess.run(
        [BUILD / "tests" / "run_dump", path, folder / "x.npy", folder / "out"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [np.fromfile(p, np.float32) for p in sorted(folder.glob("out.*"))]


def test_mnn_runs_every_convolution_in_int8_and_agrees_with_float_and_simulation(made, shared, tmp_path):
    name, task, source, out = made
    xs = [x for x, _ in mnn_eval.samples(shared, task, 6)]
    _, expected = answers(source, xs)
    net, got = answers(out, xs)
    ran, convolutions = net.convolutions()
    assert ran == convolutions > 0, [r for r in net.ran if "INT8" not in r[1]]
    ours = simulated(out, xs, tmp_path)
    assert len(ours) == len(expected[0])
    to_float, to_simulation = FLOORS[name]
    for output in expected[0]:
        theirs = np.concatenate([g[output].ravel() for g in got])
        plain = np.concatenate([e[output].ravel() for e in expected])
        assert mnn_eval.cosine(theirs, plain) >= to_float, output
        best = max(mnn_eval.cosine(o, theirs) for o in ours if o.size == theirs.size)
        assert best >= to_simulation, output


def test_a_file_that_nothing_changed_in_keeps_its_bytes(made, tmp_path):
    _, _, source, out = made
    for path in (source, out):
        again = tmp_path / "again.mnn"
        done = subprocess.run([BUILD / "tests" / "onnx_roundtrip", path, again], capture_output=True)
        assert done.returncode == 0, done.stderr
        assert again.read_bytes() == pathlib.Path(path).read_bytes(), path


def test_the_same_bytes_come_out_again_and_from_the_recipe(quench, shared, tmp_path):
    task = mnn_eval.TASKS["resnet8"]
    if not (shared / task["model"]).exists():
        pytest.skip("resnet8.mnn is not here")
    first, second, third = (tmp_path / f"{n}.mnn" for n in "abc")
    mnn_eval.quantize(quench.binary, shared, task, first, ["--save-recipe", str(tmp_path / "r.json")])
    mnn_eval.quantize(quench.binary, shared, task, second, ["--threads", "1"])
    assert first.read_bytes() == second.read_bytes()
    done = quench("quantize", shared / task["model"], "-o", third, "--recipe", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert first.read_bytes() == third.read_bytes()


def test_the_largest_error_of_faces_is_half_of_what_mnns_tool_makes(quench, shared, tmp_path):
    task = mnn_eval.TASKS["rfb320"]
    reference = shared / "reference" / "mnn" / "rfb320-kl-maxabs" / "quant.mnn"
    if not reference.exists():
        pytest.skip("reference/mnn is not here")
    out = tmp_path / "rfb.mnn"
    mnn_eval.quantize(quench.binary, shared, task, out, [])
    ours = mnn_eval.evaluate(shared, task, shared / task["model"], out, None)["errors"]["scores"]
    theirs = mnn_eval.evaluate(shared, task, shared / task["model"], reference, None)["errors"]["scores"]
    assert ours[0] <= 0.5 * theirs[0] and ours[1] <= 0.5 * theirs[1], (ours, theirs)
    assert ours[0] <= 0.5 * 0.37


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6])
def test_few_bits_take_few_bits_in_the_file_and_run_as_simulated(bits, quench, shared, tmp_path):
    task = mnn_eval.TASKS["resnet8"]
    if not (shared / task["model"]).exists():
        pytest.skip("resnet8.mnn is not here")
    out = tmp_path / "bits.mnn"
    mnn_eval.quantize(quench.binary, shared, task, out, ["--weight-bits", str(bits)])
    assert out.stat().st_size < (shared / task["model"]).stat().st_size * (bits + 1.5) / 32
    xs = [x for x, _ in mnn_eval.samples(shared, task, 6)]
    net, got = answers(out, xs)
    assert net.convolutions()[0] == net.convolutions()[1]
    (ours,) = simulated(out, xs, tmp_path)
    assert mnn_eval.cosine(ours, np.concatenate([g["Identity"].ravel() for g in got])) > 0.98


def test_float_layers_stay_float_in_mnn(quench, shared, tmp_path):
    task = mnn_eval.TASKS["resnet8"]
    if not (shared / task["model"]).exists():
        pytest.skip("resnet8.mnn is not here")
    out = tmp_path / "part.mnn"
    mnn_eval.quantize(quench.binary, shared, task, out, ["--skip", "/model.conv2d_[78]/"])
    xs = [x for x, _ in mnn_eval.samples(shared, task, 4)]
    _, expected = answers(shared / task["model"], xs)
    net, got = answers(out, xs)
    ran, convolutions = net.convolutions()
    assert 0 < ran < convolutions
    a, b = (np.concatenate([o["Identity"].ravel() for o in side]) for side in (expected, got))
    assert mnn_eval.cosine(a, b) > 0.99


def test_activations_that_mnn_has_not_are_refused(quench, shared, tmp_path):
    task = mnn_eval.TASKS["resnet8"]
    if not (shared / task["model"]).exists():
        pytest.skip("resnet8.mnn is not here")
    done = quench(
        "quantize", shared / task["model"], "-o", tmp_path / "u8.mnn",
        "--images", shared / task["calibrate"], "--count", "4", "--activations", "u8",
    )  # fmt: skip
    assert done.returncode != 0 and "target mnn" in done.stderr
    assert not (tmp_path / "u8.mnn").exists()


def test_weights_of_a_side_file_come_inside(quench, shared, tmp_path):
    import mnn_runtime

    source = shared / "models" / "mlperf-kws" / "kws_dscnn.onnx"
    data = shared / "data" / "kws" / "features.f32"
    if not source.is_file() or not data.is_file():
        pytest.skip("the keyword network is not here")
    files = {}
    for name, options in (("inside", []), ("beside", ["--saveExternalData"])):
        path = tmp_path / f"{name}.mnn"
        done, text = mnn_runtime.convert("ONNX", source, path, *options)
        assert done, text
        files[name] = tmp_path / f"{name}.int8.mnn"
        result = quench(
            "quantize", path, "-o", files[name], "--data", data, "--raw-type", "f32",
            "--raw-shape", "1,49,10", "--count", "32", "--skip", "/[dp]w[12]/",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    assert (tmp_path / "beside.mnn.weight").exists()
    assert not (tmp_path / "beside.int8.mnn.weight").exists()
    xs = [np.random.default_rng(s).normal(0, 20, (1, 1, 49, 10)).astype(np.float32) for s in range(3)]
    (_, a), (_, b) = answers(files["inside"], xs), answers(files["beside"], xs)
    for x, y in zip(a, b):
        assert all(np.array_equal(x[k], y[k]) for k in x)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"exact_mnn": True},
        {"exact_mnn": True, "feature_quantize_method": "EMA", "winogradOpt": False},
    ],
    ids=["own", "exact", "exact-ema"],
)
@pytest.mark.parametrize("stored", [[], ["--weightQuantBits", "8"]], ids=["float", "packed"])
def test_quantized_out_takes_the_side_file_inside(shared, tmp_path, stored, settings):
    """Also what stays as it is, and biases, which lie there as well."""
    import mnn_runtime

    source = shared / "models" / "resnet20-cifar10" / "resnet20_cifar10.onnx"
    if not source.is_file():
        pytest.skip("resnet20_cifar10.onnx is not here")
    pictures = shared / "images" / "cifar10-png"
    answers = []
    for name, options in (("inside", []), ("beside", ["--saveExternalData"])):
        path, out = tmp_path / f"{name}.mnn", tmp_path / f"{name}.int8.mnn"
        done, text = mnn_runtime.convert("ONNX", source, path, *stored, *options)
        assert done, text
        config = {"format": "RGB", "mean": [127.5] * 3, "normal": [1 / 127.5] * 3, "width": 32,
                  "height": 32, "path": str(pictures), "used_image_num": 3, **settings}  # fmt: skip
        config["skip_quant_op_names"] = ["layer1_0_b_conv", "layer2_1_a_conv"]
        (tmp_path / "c.json").write_text(json.dumps(config))
        command = [BUILD / "quantized.out", path, out, tmp_path / "c.json"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
        x = np.random.default_rng(3).normal(0, 0.5, (1, 3, 32, 32)).astype(np.float32)
        answers.append(mnn_runtime.outputs(out, {"input": x}, tmp_path))
    assert (tmp_path / "beside.mnn.weight").exists()
    assert not (tmp_path / "beside.int8.mnn.weight").exists()
    assert all(np.array_equal(answers[0][k], answers[1][k]) for k in answers[0])


def test_convolutions_over_one_axis_run_as_simulated(quench, tmp_path):
    """The second one reads N, C, H: the converter leaves the width out."""
    import mnn_runtime
    import onnx
    from onnx import helper, numpy_helper
    from networks import quench_outputs

    rng = np.random.default_rng(5)
    values = {"a": (8, 4, 3), "b": (6, 8, 1), "c": (5, 6, 1)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.4, s).astype(np.float32), n) for n, s in values.items()]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], pads=[1, 1], name="first"),
        helper.make_node("Relu", ["p"], ["q"], name="relu"),
        helper.make_node("Conv", ["q", "b"], ["r"], name="second"),
        helper.make_node("MaxPool", ["r"], ["s"], kernel_shape=[2], strides=[2], name="pool"),
        helper.make_node("Conv", ["s", "c"], ["y"], name="third"),
    ]
    sides = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [1, 4, 12]), ("y", [1, 5, 6]))]
    graph = helper.make_graph(nodes, "line", sides[:1], sides[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
              tmp_path / "m.onnx")  # fmt: skip
    done, text = mnn_runtime.convert("ONNX", tmp_path / "m.onnx", tmp_path / "m.mnn")
    assert done, text
    samples = rng.normal(0, 1, (20, 1, 4, 12)).astype(np.float32)
    np.save(tmp_path / "x.npy", samples)
    made = quench("quantize", tmp_path / "m.mnn", "-o", tmp_path / "q.mnn", "--data", tmp_path / "x.npy")
    assert made.returncode == 0 and "3 of 3" in made.stdout, made.stdout + made.stderr
    x = samples[0]
    plain = mnn_runtime.outputs(tmp_path / "m.mnn", {"x": x}, tmp_path)["y"].ravel()
    theirs = mnn_runtime.outputs(tmp_path / "q.mnn", {"x": x}, tmp_path)["y"].ravel()
    (ours,) = quench_outputs(tmp_path / "q.mnn", {"x": x[None]}, tmp_path / "run")
    assert mnn_eval.cosine(theirs, plain) > 0.995
    assert mnn_eval.cosine(ours.ravel(), theirs) > 0.999


def test_convolutions_in_groups_stay_float(quench, tmp_path):
    """MNN's int8 kernels take no notice of groups: what comes out has nothing to do with the answer."""
    import mnn_runtime
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(6)
    values = {"a": (8, 3, 3, 3), "b": (8, 4, 3, 3), "c": (8, 1, 3, 3)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.3, s).astype(np.float32), n) for n, s in values.items()]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="first"),
        helper.make_node("Conv", ["p", "b"], ["q"], group=2, name="groups"),
        helper.make_node("Conv", ["q", "c"], ["y"], group=8, name="depthwise"),
    ]
    sides = [helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [1, 3, 12, 12]), ("y", [1, 8, 6, 6]))]
    graph = helper.make_graph(nodes, "groups", sides[:1], sides[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
              tmp_path / "m.onnx")  # fmt: skip
    done, text = mnn_runtime.convert("ONNX", tmp_path / "m.onnx", tmp_path / "m.mnn", "--groupConvNative")
    assert done, text
    (tmp_path / "pictures").mkdir()
    for i in range(8):
        pixels = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    config = {"format": "RGB", "mean": [127.5] * 3, "normal": [1 / 64] * 3, "path": str(tmp_path / "pictures"),
              "width": 12, "height": 12}  # fmt: skip
    (tmp_path / "c.json").write_text(json.dumps(config))
    x = rng.uniform(-2, 2, (1, 3, 12, 12)).astype(np.float32)
    plain = mnn_runtime.outputs(tmp_path / "m.mnn", {"x": x}, tmp_path)["y"].ravel()
    command = [BUILD / "quantized.out", tmp_path / "m.mnn", tmp_path / "q.mnn", tmp_path / "c.json"]
    own = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (own.returncode, own.stderr) == (0, "")
    assert mnn_eval.cosine(mnn_runtime.outputs(tmp_path / "q.mnn", {"x": x}, tmp_path)["y"].ravel(), plain) > 0.999
    net = mnn_eval.Net(tmp_path / "q.mnn")
    net(x)
    assert net.convolutions() == (2, 3)
    exact = subprocess.run([*command, "--exact-mnn"], capture_output=True, text=True, timeout=60)
    assert exact.returncode == 0 and '"q" is a convolution in groups' in exact.stderr
    assert len(exact.stderr.splitlines()) == 1
