"""Samples of different shapes: sequences and lists of arrays, for models whose sizes are open (all
commands) and for quantized.out, which resizes fixed ones as MNN's tool does."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
import mnn_runtime  # noqa: E402
from conftest import make_model  # noqa: E402
from onnx import helper  # noqa: E402

BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", "build"))
TALL, WIDE, SMALL = (1, 3, 20, 10), (1, 3, 12, 16), (1, 3, 9, 9)
MIX = [TALL, WIDE, TALL, SMALL, WIDE, WIDE, TALL, SMALL, SMALL]


def save_net(path, dims):
    rng = np.random.default_rng(3)
    w = lambda *s: (rng.normal(0, 1, s) / np.sqrt(np.prod(s[1:]))).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", strides=[2, 2], pads=[1] * 4),
        helper.make_node("Relu", ["c2"], ["r2"], "relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], "gap"),
        helper.make_node("Flatten", ["g"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc"),
    ]
    init = {"w1": w(8, 3, 3, 3), "b1": w(8, 1)[:, 0], "w2": w(16, 8, 3, 3), "b2": w(16, 1)[:, 0],
            "w3": w(16, 10), "b3": w(10, 1)[:, 0]}  # fmt: skip
    onnx.save(make_model(nodes, {"x": dims}, {"y": [1, 10]}, init), path)


def save_sequences(folder, shapes, first=0):
    """One folder for each sample; sample i has the same numbers whatever is beside it."""
    arrays = []
    for i, shape in enumerate(shapes, first):
        x = np.random.default_rng(i).normal(0, 1 + i / 10, shape).astype(np.float32)
        sample = folder / f"s{i:03d}"
        sample.mkdir(parents=True)
        (sample / "input.json").write_text(json.dumps({"inputs": [{"name": "x", "shape": list(shape)}]}))
        (sample / "x.txt").write_text("\n".join(repr(float(v)) for v in x.ravel()))
        arrays.append(x)
    return arrays


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    save_net(folder / "m.onnx", [1, 3, "h", "w"])
    save_net(folder / "fixed.onnx", list(WIDE))
    return folder, save_sequences(folder / "mix", MIX)


def good(quench, *args, **kwargs):
    done = quench(*args, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_statistics_are_those_of_all_shapes(quench, work, tmp_path):
    folder, arrays = work
    model = onnx.load(folder / "m.onnx")
    names = ["r1", "r2", "g", "y"]
    model.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names[:-1])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = {n: [] for n in ["x", *names]}
    for x in arrays:
        values["x"].append(x)
        for name, y in zip(names, session.run(names, {"x": x})):
            values[name].append(y)
    stats = ["--save-stats", tmp_path / "all", "--features", "minmax", "--equalize", "off"]
    good(quench, "quantize", folder / "m.onnx", "--sequences", folder / "mix", *stats)
    rows = json.loads(good(quench, "inspect", tmp_path / "all", "--json"))["ranges"]
    assert {r["tensor"] for r in rows} == set(values)
    for r in rows:
        all_values = np.concatenate([v.ravel() for v in values[r["tensor"]]])
        assert r["values"] == all_values.size
        assert r["lowest"] == pytest.approx(all_values.min(), rel=1e-5, abs=1e-6)
        assert r["highest"] == pytest.approx(all_values.max(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("features", ["lp", "kl", "kl-mnn", "mse", "percentile", "minmax", "ema", "admm"])
def test_bytes_do_not_depend_on_threads(quench, work, tmp_path, features):
    folder, _ = work
    for threads in ("1", "3"):
        good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / f"{threads}.onnx", "--sequences",
             folder / "mix", "--features", features, env=os.environ | {"QN_THREADS": threads})  # fmt: skip
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "3.onnx").read_bytes()


def test_statistics_files_merge(quench, work, tmp_path):
    folder, _ = work
    samples = ["--sequences", folder / "mix"]
    good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / "q.onnx", *samples)
    good(quench, "quantize", folder / "m.onnx", "--save-stats", tmp_path / "all", *samples)
    for i in (1, 2, 3):
        good(quench, "quantize", folder / "m.onnx", "--save-stats", tmp_path / f"{i}", "--part", f"{i}/3", *samples)
    good(quench, "merge-stats", tmp_path / "2", tmp_path / "3", tmp_path / "1", "-o", tmp_path / "merged")
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "all").read_bytes()
    good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / "s.onnx", "--stats", tmp_path / "merged")
    assert (tmp_path / "s.onnx").read_bytes() == (tmp_path / "q.onnx").read_bytes()
    damaged = bytearray((tmp_path / "merged").read_bytes())
    for at in range(0, len(damaged), 97):  # a wrong checksum, never a crash
        damaged[at] ^= 0x55
        (tmp_path / "damaged").write_bytes(damaged)
        damaged[at] ^= 0x55
        done = quench("quantize", folder / "m.onnx", "-o", tmp_path / "d.onnx", "--stats", tmp_path / "damaged")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1


def test_run_and_compare(quench, work, tmp_path):
    folder, arrays = work
    good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / "q.onnx", "--sequences", folder / "mix")
    session = ort.InferenceSession(str(folder / "m.onnx"), providers=["CPUExecutionProvider"])
    wanted = [session.run(None, {"x": x})[0].ravel() for x in arrays]
    runs = json.loads(good(quench, "run", folder / "m.onnx", "--sequences", folder / "mix", "--json"))["runs"]
    assert [r["input"] for r in runs] == [f"s{i:03d}" for i in range(len(MIX))]
    for row, y in zip(runs, wanted):
        for top in row["outputs"][0]["top"]:
            assert top["value"] == pytest.approx(y[top["index"]], abs=1e-4)
    rows = good(quench, "compare", folder / "m.onnx", tmp_path / "q.onnx", "--sequences", folder / "mix")
    assert all(float(re.search(r"\s(0\.\d+|1\.0+)\s", line)[1]) > 0.99 for line in rows.splitlines()[2:])


def test_lists_of_arrays(quench, work, tmp_path):
    folder, arrays = work
    for i, x in enumerate(arrays):
        np.save(tmp_path / f"{i}.npy", x)
    (tmp_path / "list.txt").write_text("".join(f"{i}.npy\n" for i in range(len(arrays))))
    for name, source in (("a", ["--list", tmp_path / "list.txt"]), ("b", ["--sequences", folder / "mix"])):
        good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / f"{name}.onnx", *source)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    session = ort.InferenceSession(str(folder / "m.onnx"), providers=["CPUExecutionProvider"])
    best = [int(session.run(None, {"x": x})[0].argmax()) for x in arrays]
    best[2] = (best[2] + 1) % 10
    (tmp_path / "labels.csv").write_text("".join(f"{i}.npy,{k}\n" for i, k in enumerate(best)))
    report = json.loads(good(quench, "eval", folder / "m.onnx", "--list", tmp_path / "list.txt", "--labels",
                             tmp_path / "labels.csv", "--json"))  # fmt: skip
    assert report["models"][0]["top1"] == pytest.approx(1 - 1 / len(best), abs=1e-4)


def test_what_does_not_fit_is_named(quench, work, tmp_path):
    folder, _ = work
    save_sequences(tmp_path / "bad", [TALL, WIDE])
    (tmp_path / "bad" / "s001" / "input.json").write_text('{"inputs": [{"name": "x", "shape": [1, 4, 12, 16]}]}')
    (tmp_path / "q.onnx").write_text("old")
    for model in ("m.onnx", "fixed.onnx"):
        done = quench("quantize", folder / model, "-o", tmp_path / "q.onnx", "--sequences", tmp_path / "bad")
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
        assert "does not fit" in done.stderr and '"x"' in done.stderr
    save_sequences(tmp_path / "mix", [WIDE, TALL])
    done = quench("quantize", folder / "fixed.onnx", "-o", tmp_path / "q.onnx", "--sequences", tmp_path / "mix")
    assert done.returncode == 1 and "s001" in done.stderr and len(done.stderr.splitlines()) == 1
    train = ["--features", "ema-train", "--batch", "2"]
    done = quench("quantize", folder / "m.onnx", "-o", tmp_path / "q.onnx", "--sequences", folder / "mix", *train)
    assert done.returncode == 1 and "different shapes" in done.stderr and "batch" in done.stderr
    assert (tmp_path / "q.onnx").read_text() == "old"
    good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / "t.onnx", "--sequences", folder / "mix",
         "--features", "ema-train", "--batch", "1")  # fmt: skip


def peak(stdout):
    number, unit = re.search(r"peak memory ([\d.]+) (\w+)", stdout).groups()
    return float(number) * {"KiB": 1, "MiB": 1024}[unit]


def test_memory_does_not_grow_with_the_shapes(quench, work, tmp_path):
    folder, _ = work
    save_sequences(tmp_path / "many", [(1, 3, 60 + i, 64) for i in range(40)])
    save_sequences(tmp_path / "one", [(1, 3, 99, 64)] * 40)
    peaks = {}
    for name in ("many", "one"):
        peaks[name] = peak(good(quench, "quantize", folder / "m.onnx", "-o", tmp_path / "q.onnx", "--sequences",
                                tmp_path / name, "--features", "minmax", "--bias-correction", "off",
                                env=os.environ | {"QN_THREADS": "2"}))  # fmt: skip
    assert peaks["many"] < 1.25 * peaks["one"]


# --- MNN's tool ------------------------------------------------------------------------------------


def tool(model, out, config, *options):
    done = subprocess.run([BUILD / "quantized.out", model, out, config, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(pathlib.Path(f"{out}.json").read_text()), done.stdout


def all_scales(entries):
    return {
        (entry["name"], side, at["tensorIndex"]): at["scales"][0]
        for entry in entries
        for side in ("inputs", "outputs")
        for at in entry.get(side, [])
    }


@pytest.fixture(scope="module")
def mnn_model(quench, work):
    folder, _ = work
    good(quench, "convert", folder / "fixed.onnx", "-o", folder / "m.mnn")
    return folder / "m.mnn"


def test_exact_scales_are_those_of_mnn(work, mnn_model, tmp_path):
    pytest.importorskip("MNN", reason="the MNN wheel is not installed")
    folder, _ = work
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"input_type": "sequence", "path": str(folder / "mix"),
                                  "feature_quantize_method": "KL"}))  # fmt: skip
    ours, _ = tool(mnn_model, tmp_path / "q.mnn", config, "--exact-mnn")
    arguments = ["mnnquant", str(mnn_model), str(tmp_path / "theirs.mnn"), str(config)]
    done = subprocess.run([sys.executable, "-c", f"import _tools; _tools.mnnquant({arguments!r})"],
                          capture_output=True, text=True, timeout=300)  # fmt: skip
    assert (tmp_path / "theirs.mnn.json").is_file(), done.stdout + done.stderr
    theirs = all_scales(json.loads((tmp_path / "theirs.mnn.json").read_text()))
    ours = all_scales(ours)
    assert set(ours) == set(theirs) and len(ours) > 12
    for key, scale in theirs.items():
        assert ours[key] == pytest.approx(scale, rel=1e-3), key


@pytest.mark.parametrize("method", ["KL", "ADMM", "EMA"])
@pytest.mark.parametrize("exact", [False, True])
def test_every_method_of_the_tool(work, mnn_model, tmp_path, method, exact):
    folder, arrays = work
    config = tmp_path / "c.json"
    config.write_text(json.dumps({"input_type": "sequence", "path": str(folder / "mix"), "exact_mnn": exact,
                                  "feature_quantize_method": method, "debug": True}))  # fmt: skip
    entries, log = tool(mnn_model, tmp_path / "q.mnn", config)
    assert "used dataset num: 9" in log
    assert any(scale > 0 for scale in all_scales(entries).values())
    pytest.importorskip("MNN", reason="the MNN wheel is not installed")
    x = {"x": arrays[1]}  # of the model's own size
    a, b = (next(iter(mnn_runtime.outputs(path, x, tmp_path).values())).ravel() for path in (mnn_model, tmp_path / "q.mnn"))
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.995
