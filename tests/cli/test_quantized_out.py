"""The drop-in quantized.out from outside: configurations good and bad, pictures of every kind, log,
outputs, and what a failure leaves behind."""

import json
import os
import pathlib
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

BUILD = pathlib.Path(
    os.environ.get("QUENCH_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build")
)


@pytest.fixture(scope="module")
def tool():
    binary = BUILD / "quantized.out"
    if not os.access(binary, os.X_OK):
        pytest.fail(f"{binary} is not there: build it or set QUENCH_BUILD")

    def run(*args, **kwargs):
        command = [str(binary), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600, **kwargs)

    return run


def small_model(path, channels=3, layout="NCHW"):
    maker = BUILD / "tests" / "small_mnn"
    if not os.access(maker, os.X_OK):
        pytest.fail(f"{maker} is not there: build it or set QUENCH_BUILD")
    subprocess.run([maker, path, str(channels), layout], check=True)


@pytest.fixture
def work(tmp_path):
    """A model, six pictures, and old outputs that a failure must leave as they are."""
    small_model(tmp_path / "m.mnn")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(3)
    for i in range(6):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"p{i}.png")
    (tmp_path / "q.mnn").write_text("old model")
    (tmp_path / "q.mnn.json").write_text("old scales")
    return tmp_path


BASE = {
    "format": "RGB",
    "mean": [127.5, 127.5, 127.5],
    "normal": [0.00784, 0.00784, 0.00784],
    "width": 32,
    "height": 24,
    "feature_quantize_method": "KL",
    "weight_quantize_method": "MAX_ABS",
}


def write_config(work, text=None, **changes):
    """BASE with changes; a key set to None is left out."""
    path = work / "config.json"
    if text is None:
        config = dict(BASE, path=str(work / "pictures"), **{})
        config.update(changes)
        text = json.dumps({k: v for k, v in config.items() if v is not None}, indent=1)
    path.write_text(text)
    return path


def run(tool, work, *extra, model="m.mnn", out="q.mnn", text=None, **changes):
    return tool(work / model, work / out, write_config(work, text, **changes), *extra)


def errors_of(result):
    return [line for line in result.stderr.splitlines() if not line.startswith("warning: ")]


def assert_refused(result, work, *words):
    assert result.returncode == 1, result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith("error: "), result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert (work / "q.mnn").read_text() == "old model"
    assert (work / "q.mnn.json").read_text() == "old scales"
    assert not [p for p in work.iterdir() if ".tmp" in p.name]


def assert_done(result, work, warnings=()):
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(warnings), result.stderr
    for line, words in zip(lines, warnings):
        assert line.startswith("warning: ") and words in line, line
    assert (work / "q.mnn").stat().st_size > 1000
    json.loads((work / "q.mnn.json").read_text())


# --- usage and log ----------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [[], ["a.mnn"], ["a.mnn", "b.mnn"], ["a.mnn", "b.mnn", "--exact-mnn"]])
def test_fewer_than_three_files_print_the_usage_line(tool, args):
    result = tool(*args)
    assert result.returncode == 2
    assert result.stdout.endswith("Usage: ./quantized.out src.mnn dst.mnn preTreatConfig.json\n")
    assert result.stderr == ""


def log_lines(result):
    """Line numbers and texts, without the times."""
    lines = [re.fullmatch(r"\[\d\d:\d\d:\d\d\] @ (\d+): (.*)", line) for line in result.stdout.split("\n")]
    return [(int(m[1]), m[2]) for m in lines if m]


def test_the_log_has_the_original_lines_in_order(tool, work):
    result = run(tool, work, skip_quant_op_names=["second"])
    assert_done(result, work)
    config = work / "config.json"
    assert log_lines(result) == [
        (1725, f">>> modelFile: {work / 'm.mnn'}"),
        (1726, f">>> preTreatConfig: {config}"),
        (1727, f">>> dstFile: {work / 'q.mnn'}"),
        (1755, "Calibrate the feature and quantize model..."),
        (512, "Use feature quantization method: KL"),
        (513, "Use weight quantization method: MAX_ABS"),
        (533, "feature_clamp_value: 127"),
        (534, "weight_clamp_value: 127"),
        (538, "winogradOpt only be available under EMA"),
        (549, "skip quant op name: second"),
        (137, "used dataset num: 6"),
        (1107, "fake quant weights done."),
        (1763, "Quantize model done!"),
    ]
    progress = [p for p in re.split(r"[\r\n]", result.stdout) if p.startswith("CollectFeature")]
    assert progress == [f"CollectFeatureDistribution: {p} %" for p in
                        ("16.67", "33.33", "50.00", "66.67", "83.33", "100.00")]  # fmt: skip


@pytest.mark.parametrize("option", ["--exact", "--exact_mnn", "--help", "-" * 2])
def test_an_unknown_option_is_refused(tool, work, option):
    result = run(tool, work, option)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == f'error: unknown option "{option}" (there is --exact-mnn[=LIST])\n'
    assert (work / "q.mnn").read_text() == "old model"


def test_an_output_in_place_of_an_input_is_refused(tool, work):
    model = (work / "m.mnn").read_bytes()
    assert_refused(run(tool, work, out="m.mnn"), work, "m.mnn: the output is the model itself")
    assert (work / "m.mnn").read_bytes() == model
    os.link(work / "m.mnn", work / "link.mnn")
    assert_refused(run(tool, work, out="link.mnn"), work, "the output is the model itself")
    (work / "m.mnn.weight").write_text("weights")
    assert_refused(run(tool, work, out="m.mnn.weight"), work, "the output is the model's file of weights")
    assert (work / "m.mnn.weight").read_text() == "weights"
    assert_refused(run(tool, work, out="config.json"), work, "the output is the configuration")
    assert_refused(run(tool, work, out="config"), work, "the output is the configuration")


def test_a_place_for_the_output_is_looked_for_before_anything_is_read(tool, work):
    words = "cannot write: there is no folder"
    assert_refused(run(tool, work, out="no/q.mnn", path="nowhere"), work, words)
    (work / "d.mnn.json").mkdir()
    assert_refused(run(tool, work, out="d.mnn"), work, "d.mnn.json: cannot write")
    assert not (work / "d.mnn").exists()


def test_a_quantized_model_is_warned_about(tool, work):
    assert_done(run(tool, work), work)
    (work / "q.mnn").rename(work / "int8.mnn")
    again = run(tool, work, model="int8.mnn")
    assert again.returncode == 0, again.stderr
    assert "int8.mnn: is quantized already" in again.stderr
    model = (work / "q.mnn").read_bytes()
    for feature in ("KL", "EMA"):  # integers stay what they are, whatever is asked for
        again = run(tool, work, "--exact-mnn", model="int8.mnn", feature_quantize_method=feature)
        assert again.returncode == 0 and "is quantized already" in again.stderr
        assert (work / "q.mnn").read_bytes() == model


def test_a_byte_order_mark_is_skipped(tool, work):
    text = json.dumps(dict(BASE, path=str(work / "pictures")))
    assert_done(run(tool, work, text="\ufeff" + text), work)


def test_blank_pictures_and_odd_input_types_are_warned_about(tool, work):
    assert_done(run(tool, work, normal=[0.01, 0, 0.01]), work, ['"normal" holds 0'])
    assert_done(run(tool, work, input_type="seq"), work, ['"input_type" is "seq"'])


def test_more_arguments_than_three_are_ignored(tool, work):
    assert_done(run(tool, work, "another", "one"), work)


def test_the_same_run_writes_the_same_bytes(tool, work):
    assert_done(run(tool, work), work)
    first = (work / "q.mnn").read_bytes(), (work / "q.mnn.json").read_bytes()
    assert_done(run(tool, work), work)
    assert first == ((work / "q.mnn").read_bytes(), (work / "q.mnn.json").read_bytes())


def test_the_scale_file_lists_operators_and_tensors(tool, work):
    assert_done(run(tool, work, "--exact-mnn"), work)
    text = (work / "q.mnn.json").read_text()
    ops = json.loads(text)
    assert [op["name"] for op in ops] == ["data", "data_packed", "first", "second", "sum", "out"]
    assert "inputs" not in ops[0]
    assert text.startswith('[\n    {\n        "name": "data",\n        "outputs": [\n            {\n')
    first = ops[2]["outputs"][0]
    assert first["tensorIndex"] == 2 and first["scales"][0] > 0 and first["zeropoint"] == [0.0]
    assert ops[3]["inputs"] == ops[2]["outputs"]


# --- what is refused --------------------------------------------------------------------------------

BAD_KEYS = {
    "wrong type of format": ({"format": 3}, "format"),
    "wrong type of mean": ({"mean": 127}, "mean"),
    "wrong type in mean": ({"mean": ["a", 1, 2]}, "mean"),
    "mean longer than 4": ({"mean": [1, 2, 3, 4, 5]}, "mean"),
    "normal longer than 4": ({"normal": [1, 2, 3, 4, 5]}, "normal"),
    "wrong type of width": ({"width": "32"}, "width"),
    "fractional width": ({"width": 32.5}, "width"),
    "width 0": ({"width": 0}, "width"),
    "huge height": ({"height": 1 << 40}, "height"),
    "wrong type of path": ({"path": ["a"]}, "path"),
    "path missing": ({"path": None}, "path"),
    "path empty": ({"path": ""}, "path"),
    "crop above 1": ({"center_crop_h": 1.5}, "center_crop_h"),
    "crop 0": ({"center_crop_w": 0}, "center_crop_w"),
    "wrong type of used_image_num": ({"used_image_num": "all"}, "used_image_num"),
    "unknown feature method": ({"feature_quantize_method": "MSE"}, "KL, ADMM or EMA"),
    "method in small letters": ({"feature_quantize_method": "kl"}, "KL, ADMM or EMA"),
    "unknown weight method": ({"weight_quantize_method": "KL"}, "MAX_ABS or ADMM"),
    "quant_bits 0": ({"quant_bits": 0}, "quant_bits"),
    "quant_bits 9": ({"quant_bits": 9}, "quant_bits"),
    "feature clamp 0": ({"feature_clamp_value": 0}, "feature_clamp_value"),
    "feature clamp 200": ({"feature_clamp_value": 200}, "feature_clamp_value"),
    "weight clamp 0": ({"weight_clamp_value": 0.9}, "weight_clamp_value"),
    "weight clamp 200": ({"weight_clamp_value": 200}, "weight_clamp_value"),
    "weight clamp as text": ({"weight_clamp_value": "127"}, "weight_clamp_value"),
    "batch_size 0": ({"batch_size": 0}, "batch_size"),
    "winogradOpt as number": ({"winogradOpt": 1}, "winogradOpt"),
    "debug as text": ({"debug": "true"}, "debug"),
    "skips as text": ({"skip_quant_op_names": "first"}, "skip_quant_op_names"),
    "skips with a number": ({"skip_quant_op_names": [1]}, "skip_quant_op_names"),
    "inputs as text": ({"inputs": "data"}, "inputs"),
    "input without shape": ({"inputs": [{"name": "data"}]}, "inputs"),
    "input of another name": ({"inputs": [{"name": "x", "shape": [1, 3, 24, 32]}]}, "x"),
    "input of another rank": ({"inputs": [{"name": "data", "shape": [3, 24, 32]}]}, "data"),
    "input of size 0": ({"inputs": [{"name": "data", "shape": [1, 3, 0, 32]}]}, "inputs"),
    "format of other channels": ({"format": "GRAY"}, "GRAY"),
    "unknown exact choice": ({"exact_mnn": "kl,speed"}, "speed"),
    "exact_mnn as number": ({"exact_mnn": 1}, "exact_mnn"),
}


@pytest.mark.parametrize("case", BAD_KEYS, ids=str)
def test_bad_values_of_keys_are_refused(tool, work, case):
    changes, word = BAD_KEYS[case]
    assert_refused(run(tool, work, **changes), work, word)


@pytest.mark.parametrize(
    "text, where",
    [
        ("", "line 1, column"),
        ('{\n "format": "RGB",\n "width": 32,,\n}', "line 3, column 14"),
        ('{"path": "x"', "line 1, column 12"),
        ('{"path": "x"} trailing', "line 1, column"),
        ('{"width": 1, "width": 2}', "line 1, column"),
        ("[1, 2]", "object"),
    ],
)
def test_broken_json_is_refused_with_its_place(tool, work, text, where):
    assert_refused(run(tool, work, text=text), work, "config.json", where)


def test_missing_files_are_refused(tool, work):
    assert_refused(run(tool, work, model="none.mnn"), work, "none.mnn")
    assert_refused(run(tool, work, path=str(work / "nowhere")), work, "nowhere")
    assert_refused(tool(work / "m.mnn", work / "q.mnn", work / "none.json"), work, "none.json")


def test_a_truncated_model_is_refused(tool, work):
    whole = (work / "m.mnn").read_bytes()
    for size in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        (work / "m.mnn").write_bytes(whole[:size])
        assert_refused(run(tool, work), work, "m.mnn")
    (work / "m.mnn").write_text("not a model at all, but long enough to be looked at")
    assert_refused(run(tool, work), work, "m.mnn")


def test_a_tensorflow_lite_model_is_named(tool, work):
    """A FlatBuffer as .mnn files are, which could be taken for a damaged one."""
    vtable = bytes([20, 0, 20, 0, 4, 0, 8, 0, 12, 0, 16, 0, 0, 0, 0, 0])
    (work / "m.mnn").write_bytes(bytes([28, 0, 0, 0]) + b"TFL3" + bytes(4) + vtable + bytes(64))
    assert_refused(run(tool, work), work, "m.mnn: a TensorFlow Lite model")


def test_an_empty_folder_is_refused(tool, work):
    (work / "empty").mkdir()
    (work / "empty" / ".hidden.png").write_bytes((work / "pictures" / "p0.png").read_bytes())
    assert_refused(run(tool, work, path=str(work / "empty")), work, "empty")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "folder"])
def test_a_corrupt_picture_is_refused_by_name(tool, work, damage):
    bad = work / "pictures" / "p3.png"
    whole = bad.read_bytes()
    bad.unlink()
    if damage == "folder":
        bad.mkdir()
    else:
        bad.write_bytes({"cut": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    assert_refused(run(tool, work), work, "p3.png")
    # what is not among the first N is never opened
    assert_done(run(tool, work, used_image_num=3), work)


def test_outputs_that_cannot_be_written_are_refused(tool, work):
    assert_refused(run(tool, work, out="nowhere/q.mnn"), work, "nowhere/q.mnn")
    (work / "folder").mkdir()
    assert_refused(run(tool, work, out="folder"), work, "folder")
    (work / "r.mnn.json").mkdir()
    assert_refused(run(tool, work, out="r.mnn"), work, "r.mnn.json")
    assert not (work / "r.mnn").exists()


# --- what is only warned about ----------------------------------------------------------------------


def test_warnings_are_one_line_and_not_an_error(tool, work):
    assert_done(run(tool, work, used_image_num=50), work, ["only 6 samples"])
    assert_done(run(tool, work, skip_quant_op_names=["none"]), work, ['"none"'])
    assert_done(run(tool, work, skip_quant_op_names=["two\nlines"]), work, ['"two?lines"'])
    assert_done(run(tool, work, colour="red"), work, ['"colour"'])
    assert_done(run(tool, work, format="rgb"), work, ["BGR"])


def test_keys_of_older_manuals_and_other_numbers_are_accepted(tool, work):
    assert_done(run(tool, work, model="m.mnn", **{"used_image_num": -1}), work)
    assert_done(run(tool, work, used_image_num=2, used_sample_num=4, feature_clamp_value=120.7), work)
    assert (137, "used dataset num: 4") in log_lines(run(tool, work, used_image_num=2, used_sample_num=4))
    text = json.dumps(dict(BASE, path=str(work / "pictures"), model="model.mnn"))
    assert_done(run(tool, work, text=text), work)


# --- pictures ---------------------------------------------------------------------------------------


def save_kinds(folder):
    rng = np.random.default_rng(9)
    rgb = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(rgb).convert("L").save(folder / "gray.png")
    Image.fromarray(rgb).convert("L").save(folder / "gray.jpg")
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray((rgb[..., 0].astype(np.uint16) * 257)).save(folder / "deep.png")
    Image.fromarray(rgb).convert("P").save(folder / "palette.png")
    Image.fromarray(np.dstack([rgb, rgb[..., :1]])).save(folder / "alpha.png")
    Image.fromarray(rgb).save(folder / "progressive.jpg", progressive=True)
    Image.fromarray(rgb).save(folder / "plain.bmp")
    Image.fromarray(rgb).save(folder / "plain.ppm")


@pytest.mark.parametrize("channels, formats", [(3, ["RGB", "BGR"]), (1, ["GRAY"]), (4, ["RGBA", "BGRA"])])
def test_every_kind_of_picture_and_every_format_is_silent(tool, work, channels, formats):
    small_model(work / "k.mnn", channels)
    (work / "kinds").mkdir()
    save_kinds(work / "kinds")
    for name in formats:
        result = run(tool, work, model="k.mnn", format=name, path=str(work / "kinds"))
        assert_done(result, work)
        assert (137, "used dataset num: 9") in log_lines(result)


def test_pictures_are_taken_in_order_of_name(tool, work):
    """Of names created in reverse, the first two by name are the sample."""
    few = work / "few"
    few.mkdir()
    for i in (0, 1):
        (few / f"p{i}.png").write_bytes((work / "pictures" / f"p{i}.png").read_bytes())
    assert_done(run(tool, work, path=str(few)), work)
    expected = (work / "q.mnn.json").read_bytes()
    mixed = work / "mixed"
    mixed.mkdir()
    for i in (5, 4, 1, 3, 0, 2):
        (mixed / f"p{i}.png").write_bytes((work / "pictures" / f"p{i}.png").read_bytes())
    assert_done(run(tool, work, path=str(mixed) + "/", used_image_num=2), work)
    assert (work / "q.mnn.json").read_bytes() == expected


def test_preprocessing_changes_what_is_measured(tool, work):
    seen = set()
    for changes in ({}, {"format": "BGR"}, {"mean": [0, 0, 0]}, {"center_crop_h": 0.5},
                    {"center_crop_w": 0.5}, {"exact_mnn": "resize"}, {"normal": [0.01]}):  # fmt: skip
        assert_done(run(tool, work, **changes), work)
        seen.add((work / "q.mnn.json").read_bytes())
    assert len(seen) == 7


def test_the_configured_size_reshapes_the_network(tool, work):
    assert_done(run(tool, work, width=48, height=40), work)
    inputs = [{"name": "data", "shape": [1, 3, 40, 48]}]
    expected = (work / "q.mnn.json").read_bytes()
    result = run(tool, work, width=48, height=40, inputs=inputs)
    assert_done(result, work)
    assert "input: data\n" in result.stdout
    assert (work / "q.mnn.json").read_bytes() == expected


@pytest.mark.parametrize("layout", ["NCHW", "NC4HW4", "two"])
@pytest.mark.parametrize("feature", ["KL", "ADMM", "EMA"])
@pytest.mark.parametrize("exact", [False, True])
def test_every_method_on_every_input_layout(tool, work, layout, feature, exact):
    small_model(work / "k.mnn", 3, layout)
    changes = {"feature_quantize_method": feature, "exact_mnn": exact, "batch_size": 2}
    assert_done(run(tool, work, model="k.mnn", **changes), work)


def test_sequences(tool, work):
    small_model(work / "k.mnn", 3, "two")
    folder = work / "sequences"
    rng = np.random.default_rng(5)
    shapes = {"data": [1, 3, 24, 32], "bias": [1, 8, 12, 16]}
    for i in range(3):
        sample = folder / f"s{i}"
        sample.mkdir(parents=True)
        entries = [{"name": n, "shape": s} for n, s in shapes.items()]
        (sample / "input.json").write_text(json.dumps({"inputs": entries}))
        for name, shape in shapes.items():
            np.savetxt(sample / f"{name}.txt", rng.normal(0, 1, int(np.prod(shape))))
    settings = {"model": "k.mnn", "input_type": "sequence", "path": str(folder)}
    result = run(tool, work, **settings)
    assert_done(result, work)
    assert (137, "used dataset num: 3") in log_lines(result)
    (work / "q.mnn").write_text("old model")
    (work / "q.mnn.json").write_text("old scales")
    (folder / "s1" / "input.json").write_text('{"inputs": [{"name": "data", "shape": [1, 3, 24, 32]}]}')
    assert_refused(run(tool, work, **settings), work, "bias")
    (folder / "s1" / "input.json").write_text((folder / "s0" / "input.json").read_text())
    (folder / "s1" / "bias.txt").write_text("1 2 x")
    assert_refused(run(tool, work, **settings), work, "bias.txt", "x")
    (folder / "s1" / "bias.txt").write_text("1 2 3")
    assert_refused(run(tool, work, **settings), work, "bias.txt", "3 numbers")


@pytest.mark.parametrize("exact", [False, True])
def test_the_log_of_admm_counts_samples_and_scales(tool, work, exact):
    result = run(tool, work, feature_quantize_method="ADMM", exact_mnn=exact)
    assert_done(result, work)
    lines = re.split(r"[\r\n]", result.stdout)
    samples = [p for p in lines if p.startswith("ProcessCalibrationFiles: ")]
    scales = [p for p in lines if p.startswith("ComputeADMM: ")]
    assert len(samples) == 6 and samples[-1] == "ProcessCalibrationFiles: 100.00 %"
    assert len(scales) > 2 and scales[-1] == "ComputeADMM: 100.00 %"
    assert lines.index(samples[-1]) < lines.index(scales[0])


def test_the_log_of_ema_names_its_batch(tool, work):
    result = run(tool, work, feature_quantize_method="EMA", winogradOpt=False)
    assert_done(result, work)
    tail = [line for line in log_lines(result) if line[0] in (1342, 1358, 1359, 541)]
    assert tail == [
        (541, "Close winogradOpt because set winogradOpt as false"),
        (1342, "batch_size not set, use model batch: 1"),
        (1358, "batch size: 1"),
        (1359, "quant bits: 8"),
    ]
    result = run(tool, work, feature_quantize_method="EMA", batch_size=100)
    assert_done(result, work)
    assert "_calibrationFileNum 6 < batch size 100, set batch size as 6\n" in result.stdout


@pytest.mark.parametrize("exact", [False, True])
def test_debug_prints_a_table_by_operator(tool, work, exact):
    result = run(tool, work, debug=True, exact_mnn=exact)
    assert_done(result, work)
    progress = [p for p in re.split(r"[\r\n]", result.stdout) if p.startswith("computeDistance")]
    assert progress == [f"computeDistance: {p} %" for p in
                        ("16.67", "33.33", "50.00", "66.67", "83.33", "100.00")]  # fmt: skip
    table = result.stdout.split("\nDebug info:\n\n")[1].splitlines()[:-1]
    rows = [re.fullmatch(r"(\S+) (in|out)put_tensor_0:  cos distance: (\d\.\d{6}), overflow ratio: (\d\.\d{6})", r)
            for r in table]  # fmt: skip
    assert all(rows), table
    names = [row[1] for row in rows]
    assert names == sorted(names) and {"first", "second"} & set(names)
    assert all(0.9 < float(row[3]) <= 1 and float(row[4]) < 0.1 for row in rows), table
