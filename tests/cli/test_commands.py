"""The command line from outside: outputs, JSON, exit codes, and what a failure leaves behind."""

import json
import os
import pathlib
import signal
import subprocess
import time

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from conftest import make_model, small_classifier
from onnx import helper

PREPROCESSING = ["--mean", "127.5", "--normal", "0.0078431372"]


def files_of(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_one_error_line(result, code, *words):
    assert result.returncode == code, result.stderr
    lines = [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words:
        assert word in lines[0], lines[0]


def quantize(quench, ws, *extra, out="q.onnx"):
    return quench("quantize", ws / "m.onnx", "-o", ws / out, "--images", ws / "pictures",
                  *PREPROCESSING, *extra)  # fmt: skip


def test_quantize_writes_a_model_that_onnxruntime_runs_in_integers(quench, workspace):
    result = quantize(quench, workspace)
    assert result.returncode == 0, result.stderr
    assert "4 of 4 convolutions and gemms" in result.stdout
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(workspace / "optimized.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    session = ort.InferenceSession(workspace / "q.onnx", options, ["CPUExecutionProvider"])
    kinds = [n.op_type for n in onnx.load(workspace / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 3 and "Conv" not in kinds
    assert kinds.count("QGemm") == 1
    x = np.load(workspace / "x.npy")
    exact = ort.InferenceSession(workspace / "m.onnx").run(None, {"x": x})[0]
    got = session.run(None, {"x": x})[0]
    assert got.shape == exact.shape
    assert np.abs(got - exact).max() < 0.1


def test_quantize_json_has_the_documented_fields(quench, workspace):
    result = quantize(quench, workspace, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["int8_bytes"] == (workspace / "q.onnx").stat().st_size
    assert report["float_bytes"] == (workspace / "m.onnx").stat().st_size
    assert report["macs_int8_share"] == 1.0
    assert report["seconds"] > 0 and report["peak_bytes"] > 0
    for node in report["nodes"]:
        assert set(node) == {"name", "op", "macs", "int8", "reason", "saturates", "weight_bits",
                             "weight_error"}
    assert [n["name"] for n in report["nodes"] if n["op"] == "Conv"] == ["conv1", "conv2", "conv3"]


def test_eval_counts_what_onnxruntime_counts(quench, workspace):
    assert quantize(quench, workspace).returncode == 0
    labels = workspace / "pictures" / "labels.csv"
    result = quench("eval", workspace / "m.onnx", workspace / "q.onnx", "--labels", labels,
                    "--json", *PREPROCESSING)  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["models"]
    assert [r["n"] for r in rows] == [12, 12]
    for row in rows:
        assert set(row) == {"file", "n", "top1", "top5", "ci95", "changed", "agreement", "bytes", "ms"}
        assert 0 <= row["ci95"][0] <= row["top1"] <= row["ci95"][1] <= 1
    assert rows[0]["changed"] == 0 and rows[0]["agreement"] == 1.0
    assert rows[1]["agreement"] == pytest.approx(1 - rows[1]["changed"] / 12)


def test_compare_names_tensors_worst_first(quench, workspace):
    assert quantize(quench, workspace).returncode == 0
    result = quench("compare", workspace / "m.onnx", workspace / "q.onnx", "--images",
                    workspace / "pictures", "--json", *PREPROCESSING)  # fmt: skip
    assert result.returncode == 0, result.stderr
    rows = json.loads(result.stdout)["tensors"]
    assert {"prob", "a1"} <= {r["name"] for r in rows}
    order = [r["sqnr_db"] for r in rows if r["sqnr_db"] is not None]
    assert order == sorted(order) and order[0] > 10
    for row in rows:
        assert set(row) == {"name", "node", "cosine", "sqnr_db", "max_abs", "overflow", "alone"}


def test_run_prints_the_answers_of_onnxruntime(quench, workspace):
    result = quench("run", workspace / "m.onnx", workspace / "x.npy", "--json", "--top", "4")
    assert result.returncode == 0, result.stderr
    runs = json.loads(result.stdout)["runs"]
    x = np.load(workspace / "x.npy")
    expected = ort.InferenceSession(workspace / "m.onnx").run(None, {"x": x})[0]
    assert len(runs) == len(x)
    for row, values in zip(runs, expected):
        top = row["outputs"][0]["top"]
        assert [t["index"] for t in top] == list(np.argsort(-values, kind="stable"))
        assert [t["value"] for t in top] == pytest.approx(sorted(values, reverse=True), abs=1e-5)


def test_run_reads_pictures_and_names_classes(quench, workspace):
    (workspace / "names.txt").write_text("zero\none\ntwo\nthree\n")
    result = quench("run", workspace / "m.onnx", workspace / "pictures" / "p03.png",
                    "--labels-text", workspace / "names.txt", *PREPROCESSING)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in ("zero", "one", "two", "three", "16x16"))


def test_inspect_shows_inputs_nodes_and_outputs(quench, workspace):
    result = quench("inspect", workspace / "m.onnx", "--json")
    assert result.returncode == 0, result.stderr
    described = json.loads(result.stdout)
    assert [i["name"] for i in described["inputs"]] == ["x"]
    assert [o["name"] for o in described["outputs"]] == ["prob"]
    assert len(described["nodes"]) == 12
    assert quench("inspect", workspace / "m.onnx").stdout.count("\n") > 10


def test_bench_reports_milliseconds(quench, workspace):
    result = quench("bench", workspace / "m.onnx", "--json", "--rounds", "3", "--layers")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert 0 < report["min_ms"] <= report["median_ms"] <= report["p95_ms"]
    assert report["layers"]
    assert report["limit_gmacs"] > 0 and report["limit_instruction"]
    assert abs(sum(layer["share"] for layer in report["layers"]) - 1) < 1e-6
    assert 0 < report["overhead_ms"] < report["min_ms"]
    assert abs(report["overhead"] - report["overhead_ms"] / report["min_ms"]) < 1e-6
    assert all(layer["overhead_ms"] >= 0 for layer in report["layers"])
    assert 0 < report["live_bytes"] <= report["activation_bytes"] <= 1.1 * report["live_bytes"] + 4096


def test_quiet_leaves_results_alone(quench, workspace):
    """Lines of results, no headings and no sums."""
    model, values = workspace / "m.onnx", workspace / "x.npy"
    results = {}
    for name, args in {"run": ["run", model, values, "--top", "1"], "bench": ["bench", model, "--rounds", "3"],
                       "layers": ["bench", model, "--rounds", "3", "--layers"], "inspect": ["inspect", model]}.items():  # fmt: skip
        said = [quench(*args, *more) for more in ([], ["-q"])]
        assert all(s.returncode == 0 for s in said), said
        results[name] = [s.stdout.splitlines() for s in said]
        assert said[1].stdout.endswith("\n")
    loud, quiet = results["run"]
    assert len(quiet) == len(loud) - 2 == 2 * len(np.load(values)) and loud[0].startswith("input ")
    loud, quiet = results["bench"]
    assert len(loud) == 2 and len(quiet) == 1 and "median" in quiet[0]
    loud, quiet = results["layers"]
    assert len(loud) - len(quiet) == 4 and quiet[0].split()[0] == "conv1" and loud[0].startswith("node ")
    loud, quiet = results["inspect"]
    assert quiet == loud[:-1] and "multiply-accumulates" in loud[-1]


@pytest.mark.parametrize("rounds", [1, 2, 3, 20])
def test_times_of_bench_are_in_order(quench, workspace, rounds):
    result = json.loads(quench("bench", workspace / "m.onnx", "--rounds", str(rounds), "--json").stdout)
    assert result["min_ms"] <= result["median_ms"] <= result["p95_ms"]


def test_bench_compares_models_in_one_run(quench, workspace):
    assert quantize(quench, workspace).returncode == 0
    result = quench("bench", workspace / "m.onnx", workspace / "q.onnx", "--json", "--rounds", "3",
                    "--layers", "--threads", "1")  # fmt: skip
    assert result.returncode == 0, result.stderr
    models = json.loads(result.stdout)["models"]
    assert [pathlib.Path(m["file"]).name for m in models] == ["m.onnx", "q.onnx"]
    assert models[0]["times_faster"] == 1
    assert abs(models[1]["times_faster"] - models[0]["min_ms"] / models[1]["min_ms"]) < 1e-6
    shares = {layer["kernel"]: layer["of_limit"] for layer in models[1]["layers"]}
    assert any(share > 0 for kernel, share in shares.items() if "q8_igemm" in kernel)
    assert all(share == 0 for kernel, share in shares.items() if "q8_" not in kernel)
    text = quench("bench", workspace / "m.onnx", workspace / "q.onnx", "--layers").stdout
    assert "times faster than m.onnx" in text and "of limit" in text
    assert text.count("overhead beyond kernels: ") == 2


def test_a_recipe_replays_to_identical_bytes(quench, workspace):
    assert quantize(quench, workspace, "--save-recipe", workspace / "r.json").returncode == 0
    again = quench("quantize", workspace / "m.onnx", "-o", workspace / "again.onnx", "--recipe",
                   workspace / "r.json")  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert (workspace / "again.onnx").read_bytes() == (workspace / "q.onnx").read_bytes()
    recipe = json.loads((workspace / "r.json").read_text())
    recipe["surprise"] = 1
    (workspace / "r.json").write_text(json.dumps(recipe))
    bad = quench("quantize", workspace / "m.onnx", "-o", workspace / "again.onnx", "--recipe",
                 workspace / "r.json")  # fmt: skip
    assert_one_error_line(bad, 1, "surprise")


LOW_BITS = {
    "admm-2": ["--weights", "admm", "--weight-bits", "2"],
    "admm-5": ["--weights", "admm", "--weight-bits", "5"],
    "admm-tensor": ["--weights", "admm", "--weight-bits", "4", "--granularity", "tensor"],
    "admm-pow2": ["--weights", "admm", "--weight-levels", "pow2"],
    "gptq-ternary": ["--weight-levels", "ternary"],
    "gptq-pow2": ["--weight-levels", "pow2", "--weight-bits", "3"],
    "mse-6": ["--weights", "mse", "--weight-bits", "6"],
    "max_abs-clamp": ["--weights", "max_abs", "--weight-clamp", "11"],
    "one-node": ["--set", "conv3:weight-bits=3", "--set", "op:Gemm:weight-levels=pow2",
                 "--set", "conv1:weight-clamp=50"],
    "features": ["--activations", "s8sym", "--feature-clamp", "63", "--set", "conv3:feature-clamp=31"],
}  # fmt: skip


def weight_integers(path):
    """Name of the node that reads them -> int8 constants, of a file in the qdq form."""
    model = onnx.load(path)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    made_by = {n.output[0]: n for n in model.graph.node}
    weights = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weights[node.name] = constants[made_by[node.input[1]].input[0]]
    return weights


def allowed(name, node):
    """Integers that the weights of a node may be."""
    powers = [0, 1, 2, 4, 8, 16, 32, 64]
    if name == "one-node":
        return {"conv3": range(4), "fc": powers, "conv1": range(51)}.get(node, range(128))
    return {"admm-2": range(2), "admm-5": range(16), "admm-tensor": range(8), "admm-pow2": powers,
            "gptq-ternary": range(2), "gptq-pow2": [0, 1, 2, 4], "mse-6": range(32),
            "max_abs-clamp": range(12), "features": range(128)}[name]  # fmt: skip


@pytest.mark.parametrize("name", LOW_BITS)
def test_weights_keep_to_their_levels_and_replay(quench, workspace, name):
    result = quantize(quench, workspace, *LOW_BITS[name], "--save-recipe", workspace / "r.json", "--json")
    assert result.returncode == 0, result.stderr
    bits = {n["name"]: n["weight_bits"] for n in json.loads(result.stdout)["nodes"]}
    weights = weight_integers(workspace / "q.onnx")
    assert len(weights) == 4
    for node, integers in weights.items():
        assert integers.dtype == np.int8
        levels = set(np.unique(np.abs(integers.astype(int))))
        assert levels <= set(allowed(name, node)), node
        assert max(levels) > max(allowed(name, node)) / (8 if "pow2" in name else 3), node
        digits = name.split("-")[-1]
        if digits.isdigit():
            assert bits[node] == int(digits)
    if name == "one-node":
        assert (bits["conv3"], bits["fc"], bits["conv2"]) == (3, 4, 8)
    if name == "gptq-ternary":
        assert set(bits.values()) == {0, 2}
    again = quench("quantize", workspace / "m.onnx", "-o", workspace / "again.onnx", "--recipe", workspace / "r.json")
    assert again.returncode == 0, again.stderr
    assert (workspace / "again.onnx").read_bytes() == (workspace / "q.onnx").read_bytes()
    x = np.load(workspace / "x.npy")
    got = ort.InferenceSession(workspace / "q.onnx").run(None, {"x": x})[0]
    assert np.isfinite(got).all()


def test_seven_bits_asked_for_are_not_called_narrowed(quench, workspace):
    result = quantize(quench, workspace, "--weight-bits", "7")
    assert result.returncode == 0 and "narrowed" not in result.stdout


@pytest.mark.parametrize(("options", "word"), [
    (["--weight-levels", "pow2", "--weight-bits", "5"], "do not fit in int8"),
    (["--weight-levels", "ternary", "--weight-bits", "3"], "ternary weights have 2 bits"),
    (["--feature-clamp", "63"], "s8sym"),
    (["--set", "conv1:weight-bits=4.5"], "expected 2 to 8"),
    (["--set", "conv1:weight-levels=prime"], "pow2"),
    (["--set", "conv1:weight-clamp=0"], "expected 1 to 127"),
    (["--set", "conv1:feature-clamp=63"], "s8sym"),
    (["--weight-bits", "6", "--set", "conv1:weight-levels=ternary", "--set", "conv1:weight-bits=6"], "conv1"),
])  # fmt: skip
def test_levels_that_do_not_go_together_are_refused(quench, workspace, options, word):
    assert_one_error_line(quantize(quench, workspace, *options), 1, word)
    assert not (workspace / "q.onnx").exists()


def test_a_feature_clamp_sets_the_scale(quench, workspace):
    scales = {}
    for clamp in (127, 63):
        quantize(quench, workspace, "--activations", "s8sym", "--feature-clamp", clamp, "--features", "minmax",
                 "--equalize", "off", "--weights", "max_abs", "--bias-correction", "off")  # fmt: skip
        model = onnx.load(workspace / "q.onnx")
        constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        node = next(n for n in model.graph.node if n.op_type == "QuantizeLinear")
        scales[clamp] = float(constants[node.input[1]])
    assert abs(scales[63] / scales[127] - 127 / 63) < 1e-5


@pytest.mark.parametrize("key", ["scales", "integers", "weight_bits", "weight_levels"])
def test_a_damaged_recipe_of_few_bits_is_refused(quench, workspace, key):
    options = ["--weights", "admm", "--weight-bits", "4"]
    assert quantize(quench, workspace, *options, "--save-recipe", workspace / "r.json").returncode == 0
    recipe = json.loads((workspace / "r.json").read_text())
    assert recipe["weight_bits"] == 4 and recipe["weight_levels"] == "uniform"
    assert recipe["scales"] and recipe["integers"]
    if key == "scales":
        node = next(iter(recipe["scales"]))
        recipe["scales"][node][0] = 0.0
    elif key == "integers":
        recipe["weight_bits"] = 3  # the integers need 4
    else:
        recipe[key] = {"weight_bits": 9.5, "weight_levels": "odd"}[key]
    (workspace / "r.json").write_text(json.dumps(recipe))
    bad = quench("quantize", workspace / "m.onnx", "-o", workspace / "again.onnx", "--recipe", workspace / "r.json")
    assert_one_error_line(bad, 1, {"weight_levels": "odd", "scales": "scales["}.get(key, key))
    assert not (workspace / "again.onnx").exists()


@pytest.mark.parametrize("features", ["minmax", "ema", "percentile", "kl", "mse"])
def test_bytes_do_not_depend_on_threads_or_locale(quench, workspace, features):
    outputs = set()
    for threads in (1, 2, 7):
        env = dict(os.environ, LC_ALL="de_DE.UTF-8" if threads == 2 else "C")
        result = quench("quantize", workspace / "m.onnx", "-o", workspace / "q.onnx", "--images",
                        workspace / "pictures", "--features", features, "--threads", threads,
                        *PREPROCESSING, env=env)  # fmt: skip
        assert result.returncode == 0, result.stderr
        outputs.add((workspace / "q.onnx").read_bytes())
    assert len(outputs) == 1


def test_dry_run_writes_nothing(quench, workspace):
    before = files_of(workspace)
    result = quench("quantize", workspace / "m.onnx", "--dry-run", "--images",
                    workspace / "pictures", *PREPROCESSING)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert files_of(workspace) == before


def test_skipped_nodes_stay_float_and_strict_refuses_them(quench, workspace):
    result = quantize(quench, workspace, "--skip", "conv2", "--skip", "op:Gemm", "--json")
    nodes = {n["name"]: n for n in json.loads(result.stdout)["nodes"]}
    assert not nodes["conv2"]["int8"] and not nodes["fc"]["int8"] and nodes["conv1"]["int8"]
    before = files_of(workspace)
    assert_one_error_line(quantize(quench, workspace, "--skip", "conv2", "--strict"), 1, "conv2")
    assert_one_error_line(quantize(quench, workspace, "--skip", "no_such"), 1, "no_such")
    assert files_of(workspace) == before


@pytest.mark.parametrize(("option", "word"), [
    (["--skip", "conv4"], '"conv4" names no node or tensor: did you mean "conv1"?'),
    (["--skip", "op:conv"], 'did you mean "op:Conv"?'),
    (["--skip", "/conv9/"], '"/conv9/" names no node or tensor\n'),
    (["--skip", "something else"], "names no node or tensor\n"),
    (["--set", "logit:range=0:1"], 'did you mean "logits"?'),
    (["--input-shape", "y:1,3,16,16"], 'no input is named "y"'),
])  # fmt: skip
def test_a_name_nearly_right_is_found(quench, workspace, option, word):
    result = quantize(quench, workspace, *option)
    assert_one_error_line(result, 1)
    assert word in result.stderr


def test_set_float_leaves_a_node_in_float(quench, workspace):
    result = quantize(quench, workspace, "--set", "conv2:float=1", "--json")
    nodes = {n["name"]: n for n in json.loads(result.stdout)["nodes"]}
    assert not nodes["conv2"]["int8"] and nodes["conv1"]["int8"]
    assert_one_error_line(quantize(quench, workspace, "--set", "conv2:float=maybe"), 1, "maybe")


def test_the_summary_says_what_became_of_the_model(quench, workspace):
    text = quantize(quench, workspace, "--skip", "conv2").stdout
    assert "3 of 4 convolutions and gemms" in text and "times larger" in text
    rows = [line.split(maxsplit=2) for line in text.splitlines()]
    assert ["Conv", "conv2", "left in float by option"] in rows


def test_eval_columns_line_up_and_equal_names_are_told_apart(quench, workspace):
    (workspace / "a_rather_long_folder").mkdir()
    twin = workspace / "a_rather_long_folder" / "m.onnx"
    twin.write_bytes((workspace / "m.onnx").read_bytes())
    result = quench("eval", "m.onnx", twin, "--labels", "pictures/labels.csv", *PREPROCESSING, cwd=workspace)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len({len(line) for line in lines[1:]}) == 1, result.stdout
    assert lines[3].startswith(str(twin)[-60:])


USAGE_ERRORS = [
    (["quantise"], "quantise"),
    (["quantize", "m.onnx", "--no-such"], "--no-such"),
    (["quantize", "m.onnx", "-o", "q.onnx"], "samples"),
    (["quantize", "m.onnx", "--images", "pictures"], "-o"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--features", "magic"], "magic"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--weights", "magic"], "magic"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--target", "toaster"], "toaster"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--mean", "1,2"], "2 numbers"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--mean", "x"], "--mean"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--mean", "nan"], "--mean"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--count", "-3"], "--count"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--count", "0"], "--count"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--seed", "1"], "--count"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--data", "x.npy"], "only one"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--crop", "0"], "--crop"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--set", "conv1"], "--set"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--weight-bits", "9"], "--weight-bits"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--weight-bits", "1"], "2 or more"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--weight-levels", "prime"], "prime"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--weight-clamp", "200"], "--weight-clamp"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--feature-clamp", "0"], "--feature-clamp"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images"], "--images"),
    (["quantize", "a.onnx", "b.onnx", "-o", "q.onnx", "--images", "pictures"], "one model"),
    (["eval", "m.onnx"], "--labels"),
    (["compare", "m.onnx", "--images", "pictures"], "float and a quantized"),
    (["inspect"], "model"),
    (["convert", "m.onnx"], "-o"),
    (["convert", "-o", "c.onnx"], "one model"),
    (["quantize", "m.onnx", "--feature", "kl"], "did you mean --features?"),
    (["quantise"], 'unknown command "quantise": did you mean "quantize"?'),
    (["help", "evil"], 'did you mean "eval"?'),
    (["frobnicate"], "quench --help"),
    (["quantize", "m.onnx", "--fetaures=kl"], "unknown option --fetaures=kl: did you mean --features?"),
    (["quantize", "m.onnx", "--features", "mimax"], 'did you mean "minmax"?'),
    (["quantize", "m.onnx", "--weights", "gpqt"], 'did you mean "gptq"?'),
    (["quantize", "m.onnx", "--target", "onnx-runtime"], 'did you mean "onnxruntime"?'),
    (["quantize", "m.onnx", "--granularity", "chanel"], 'did you mean "channel"?'),
    (["quantize", "m.onnx", "--set", "conv1:feature=kl"], 'did you mean "features"?'),
    (["quantize", "m.onnx", "--set", "conv1:weights=gpt"], 'did you mean "gptq"?'),
    (["run", "m.onnx", "--filter", "bicubik"], 'did you mean "bicubic"?'),
    (["run", "m.onnx", "--color", "sometimes"], "auto|always|never"),
    (["quantize", "m.onnx", "--xyz"], "quench quantize --help"),
    (["quantize", "m.onnx", "--layers"], "--layers is not an option of quantize"),
    (["quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--set", "conv1:bits=7"], "bits"),
    (["run", "m.onnx"], "input"),
    (["bench", "m.onnx", "--rounds", "0"], "--rounds"),
]


@pytest.mark.parametrize("args,word", USAGE_ERRORS, ids=lambda v: " ".join(v[-2:]) if isinstance(v, list) else None)
def test_a_wrong_command_line_exits_with_2(quench, workspace, args, word):
    before = files_of(workspace)
    assert_one_error_line(quench(*args, cwd=workspace), 2, word)
    assert files_of(workspace) == before


def test_bad_files_are_named_and_nothing_is_touched(quench, workspace):
    out = workspace / "q.onnx"
    out.write_bytes(b"precious")
    whole = (workspace / "m.onnx").read_bytes()
    (workspace / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (workspace / "junk.onnx").write_bytes(os.urandom(1000))
    (workspace / "zero.onnx").write_bytes(b"")
    (workspace / "empty").mkdir()
    (workspace / "bad").mkdir()
    (workspace / "bad" / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a picture")
    strange = make_model([helper.make_node("Relu", ["x"], ["y"], "r")], {"x": [1, 3]}, {"y": [1, 3]}, {})
    strange.graph.node[0].op_type = "Frobnicate"
    onnx.save(strange, workspace / "strange.onnx")
    before = files_of(workspace)
    images = ["--images", workspace / "pictures", *PREPROCESSING]
    cases = [
        (["no.onnx", "-o", out, *images], ["no.onnx"]),
        (["cut.onnx", "-o", out, *images], ["cut.onnx"]),
        (["junk.onnx", "-o", out, *images], ["junk.onnx"]),
        (["zero.onnx", "-o", out, *images], ["zero.onnx"]),
        (["strange.onnx", "-o", out, *images], ["strange.onnx", "Frobnicate", "r"]),
        (["m.onnx", "-o", out, "--images", workspace / "no-such"], ["no-such"]),
        (["m.onnx", "-o", out, "--images", workspace / "empty"], ["empty"]),
        (["m.onnx", "-o", out, "--images", workspace / "bad"], ["a.jpg"]),
        (["m.onnx", "-o", workspace / "no-dir" / "q.onnx", *images], ["no-dir"]),
        (["m.onnx", "-o", workspace / "empty", *images], ["empty"]),
        (["m.onnx", "-o", "m.onnx", *images], ["m.onnx"]),
    ]
    for args, words in cases:
        assert_one_error_line(quench("quantize", *args, cwd=workspace), 1, *words)
    assert files_of(workspace) == before


def test_skip_bad_names_what_it_left_out(quench, workspace):
    (workspace / "pictures" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    assert_one_error_line(quantize(quench, workspace), 1, "broken.jpg")
    result = quantize(quench, workspace, "--skip-bad")
    assert result.returncode == 0, result.stderr
    assert "broken.jpg" in result.stderr


def test_count_list_exclude_and_save_list_select_the_same_samples(quench, workspace):
    saved = workspace / "used.txt"
    assert quantize(quench, workspace, "--count", "5", "--save-list", saved).returncode == 0
    names = [pathlib.Path(line).name for line in saved.read_text().splitlines()]
    assert names == [f"p{i * 12 // 5:02}.png" for i in range(5)]
    listed = quench("quantize", workspace / "m.onnx", "-o", workspace / "l.onnx", "--list", saved,
                    *PREPROCESSING)  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert (workspace / "l.onnx").read_bytes() == (workspace / "q.onnx").read_bytes()
    labels = workspace / "pictures" / "labels.csv"
    result = quench("eval", workspace / "m.onnx", "--labels", labels, "--exclude", saved, "--json",
                    *PREPROCESSING)  # fmt: skip
    assert json.loads(result.stdout)["models"][0]["n"] == 7


def test_missing_preprocessing_warns_once(quench, workspace):
    result = quench("quantize", workspace / "m.onnx", "-o", workspace / "q.onnx", "--images",
                    workspace / "pictures")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("no preprocessing given") == 1


def test_an_old_opset_is_raised_and_said(quench, workspace):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c"], ["y"], "clip", min=0.0, max=6.0),
    ]
    w = np.random.default_rng(3).standard_normal((4, 3, 3, 3)).astype(np.float32)
    model = make_model(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 4, 16, 16]}, {"w": w}, opset=9)
    onnx.save(model, workspace / "m.onnx")
    result = quantize(quench, workspace)
    assert result.returncode == 0, result.stderr
    assert "opset 9 -> 13" in result.stdout
    written = onnx.load(workspace / "q.onnx")
    onnx.checker.check_model(written)
    assert written.opset_import[0].version == 13


def test_names_metadata_and_newer_opsets_are_kept(quench, workspace):
    model = small_classifier(opset=17)
    model.producer_name = "somebody"
    helper.set_model_props(model, {"license": "theirs"})
    model.graph.doc_string = "kept"
    onnx.save(model, workspace / "m.onnx")
    assert quantize(quench, workspace).returncode == 0
    written = onnx.load(workspace / "q.onnx")
    assert written.opset_import[0].version == 17
    assert written.producer_name == "somebody" and written.graph.doc_string == "kept"
    assert {p.key: p.value for p in written.metadata_props} == {"license": "theirs"}
    assert [i.name for i in written.graph.input] == ["x"]
    assert [o.name for o in written.graph.output] == ["prob"]


def test_an_interrupt_leaves_the_old_output(quench, workspace):
    binary = os.environ.get("QUENCH_BIN", "build/quench")
    for i in range(300):
        (workspace / "pictures" / f"z{i}.png").write_bytes((workspace / "pictures/p00.png").read_bytes())
    out = workspace / "q.onnx"
    out.write_bytes(b"precious")
    before = {p.name for p in workspace.iterdir()}
    command = [binary, "quantize", workspace / "m.onnx", "-o", out, "--images",
               workspace / "pictures", "--input-shape", "x:1,3,16,16", "--threads", "1"]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=20)
    # it may have died before the handler was there, or have finished before the signal
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM, 0)
    if code != 0:
        assert out.read_bytes() == b"precious" or code == 128 + signal.SIGTERM
        assert {p.name for p in workspace.iterdir()} == before


def test_help_lists_every_option_of_the_command(quench):
    for command in ("quantize", "eval", "compare", "run", "inspect", "bench", "convert"):
        result = quench(command, "--help")
        assert result.returncode == 0 and "--json" in result.stdout
    text = quench("quantize", "--help").stdout
    for word in ("minmax", "percentile", "kl", "mse", "ema", "onnxruntime-arm", "tensorrt", "max_abs"):
        assert word in text


def test_a_closed_output_is_an_error(quench, workspace):
    with open("/dev/full", "w") as full:
        binary = os.environ.get("QUENCH_BIN", "build/quench")
        result = subprocess.run([binary, "inspect", workspace / "m.onnx"], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1


def test_a_node_alone_is_measured_against_what_it_really_read(quench, tmp_path):
    """Equalized channels that hardly leave zero: their exponents must not be guessed picture by picture."""
    rng = np.random.default_rng(5)
    c = 12
    sizes = np.geomspace(1, 1 / 20000, c).astype(np.float32)
    w1 = rng.standard_normal((c, 3, 3, 3)).astype(np.float32) * sizes[:, None, None, None]
    init = {"w1": w1, "b1": -0.6 * np.abs(rng.standard_normal(c)).astype(np.float32) * sizes,
            "w2": rng.standard_normal((c, 1, 3, 3)).astype(np.float32) / sizes[:, None, None, None],
            "w3": rng.standard_normal((6, c, 1, 1)).astype(np.float32)}  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=c),
        helper.make_node("Conv", ["c2", "w3"], ["y"], "conv3"),
    ]
    onnx.save(make_model(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 6, 16, 16]}, init), tmp_path / "m.onnx")
    x = rng.standard_normal((8, 3, 16, 16)).astype(np.float32) * np.geomspace(0.02, 1, 8).reshape(8, 1, 1, 1)
    np.save(tmp_path / "x.npy", x.astype(np.float32))
    data = ["--data", tmp_path / "x.npy"]
    result = quench("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", *data, "--save-recipe",
                    tmp_path / "r.json", "--weights", "max_abs")  # fmt: skip
    assert result.returncode == 0, result.stderr
    result = quench("compare", tmp_path / "m.onnx", tmp_path / "q.onnx", *data, "--json")
    assert result.returncode == 0, result.stderr
    exponents = json.loads((tmp_path / "r.json").read_text())["equalization"]
    rows = {r["node"]: r["alone"]["sqnr_db"] for r in json.loads(result.stdout)["tensors"]}
    model = onnx.load(tmp_path / "q.onnx")
    read = {n.name: n.input[0] for n in model.graph.node if n.op_type == "Conv"}
    for name in (read["conv2"], read["conv3"]):
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    w2 = init["w2"].reshape(c, 9)
    signal = noise = 0.0
    for sample in x.astype(np.float32):
        r1, c2 = session.run([read["conv2"], read["conv3"]], {"x": sample[None]})
        r1 = r1[0] * np.exp2(np.array(exponents["conv1"], np.float32)).reshape(c, 1, 1)
        c2 = c2[0] * np.exp2(np.array(exponents["conv2"], np.float32)).reshape(c, 1, 1)
        padded = np.pad(r1, ((0, 0), (1, 1), (1, 1)))
        exact = sum(w2[:, 3 * i + j].reshape(c, 1, 1) * padded[:, i : i + 16, j : j + 16]
                    for i in range(3) for j in range(3))  # fmt: skip
        signal += np.sum(exact.astype(float) ** 2)
        noise += np.sum((exact - c2).astype(float) ** 2)
    assert abs(rows["conv2"] - 10 * np.log10(signal / noise)) < 0.2
