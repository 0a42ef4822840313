"""--json: one object whose keys and types are those of docs/json.md."""

import json
import math
import os
import re
import signal
import subprocess

import pytest
from conftest import ROOT
from test_commands import PREPROCESSING, assert_one_error_line, quantize


def schema(command):
    """{path: (type, always there)} from the table of the page."""
    section = (ROOT / "docs" / "json.md").read_text().split(f"\n## {command}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\(?)`([^`]+)`\)? \| ([^|]+?) \|", section, re.M)
    return {path: (kind, not absent) for absent, path, kind in rows}


def values(value, path=""):
    if isinstance(value, dict):
        assert value or path
        for key, child in value.items():
            yield from values(child, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for child in value:
            yield from values(child, path + "[]")
    else:
        yield path, value


def fits(value, kind):
    if kind.endswith("?"):
        return value is None or fits(value, kind[:-1])
    if kind == "whole or text":
        return fits(value, "whole") or fits(value, "text")
    integer = isinstance(value, int) and not isinstance(value, bool)
    return {"text": isinstance(value, str), "flag": isinstance(value, bool), "whole": integer and value >= 0,
            "integer": integer, "number": integer or isinstance(value, float) and math.isfinite(value)}[kind]  # fmt: skip


def refuse(word):
    raise AssertionError(f"{word} is not JSON")


def only_object(text):
    assert text.endswith("}\n")
    return json.loads(text, parse_constant=refuse)


def check(command, found, ignore=()):
    rows = schema(command)
    seen = set()
    for path, value in values(found):
        if value is None and path + "[]" in rows:  # a list that is not known
            path += "[]"
            assert rows[path][0].endswith("?")
        assert path in rows, f"docs/json.md: {command}: {path} is missing"
        assert fits(value, rows[path][0]), f"{command}: {path}: {value!r} is not {rows[path][0]}"
        seen.add(path)
    for path, (_, always) in rows.items():
        assert path in seen or not always or path in ignore, f"{command}: no {path}"
    return seen


@pytest.fixture
def quantized(quench, workspace):
    assert quantize(quench, workspace).returncode == 0
    data = ["--images", "pictures", *PREPROCESSING]
    assert quench("quantize", "m.onnx", "--save-stats", "s.stats", *data, cwd=workspace).returncode == 0
    return workspace


def commands(folder):
    data = ["--images", "pictures", *PREPROCESSING]
    return {
        "quantize": ["m.onnx", "-o", "j.onnx", *data],
        "eval": ["m.onnx", "q.onnx", "--labels", "pictures/labels.csv", *PREPROCESSING],
        "compare": ["m.onnx", "q.onnx", *data],
        "run": ["m.onnx", "x.npy", "--rounds", "1"],
        "inspect": ["q.onnx"],
        "bench": ["m.onnx", "q.onnx", "--rounds", "2", "--layers"],
        "convert": ["m.onnx", "-o", "c.qnm"],
        "merge-stats": ["s.stats", "-o", "all.stats"],
    }


def all_commands(quench):
    return re.findall(r"^  (\S+) +\S", quench("--help").stdout.split("For example")[0], re.M)


def test_every_command_prints_what_the_page_says(quench, quantized):
    listed = commands(quantized)
    assert set(all_commands(quench)) == set(listed), "a command without its table in docs/json.md"
    for command, args in listed.items():
        for extra in ([], ["-v"], ["-q"]):
            result = quench(command, *args, "--json", *extra, cwd=quantized)
            assert result.returncode == 0, result.stderr
            found = only_object(result.stdout)
            if command == "bench":
                assert set(found) == {"models"}
                for model in found["models"]:
                    seen = check(command, model)
                    assert {p for p in schema(command) if p.startswith(("layers", "limit"))} <= seen
            else:
                check(command, found, ("notes[]", "nodes[].reason"))
            assert extra == ["-v"] or "error" not in result.stderr


def test_what_may_be_null_and_absent(quench, quantized):
    found = only_object(quench("quantize", "m.onnx", "--dry-run", "--images", "pictures", "--json", cwd=quantized).stdout)
    check("quantize", found, ("notes[]",))
    assert found["file"] is None and found["int8_bytes"] == 0
    same = only_object(quench("compare", "m.onnx", "m.onnx", "--images", "pictures", "--json", cwd=quantized).stdout)
    if same["tensors"]:
        check("compare", same)
    one = only_object(quench("bench", "m.onnx", "--rounds", "1", "--json", cwd=quantized).stdout)
    assert not {"times_faster", "layers"} & set(one)
    check("bench", one)


def test_numbers_that_are_none(quench, workspace):
    """NaN and infinity come out as null."""
    import numpy as np
    import onnx
    from conftest import make_model
    from onnx import helper

    nodes = [helper.make_node("Log", ["x"], ["y"], "log")]
    onnx.save(make_model(nodes, {"x": [1, 4]}, {"y": [1, 4]}, {}), workspace / "log.onnx")
    np.save(workspace / "v.npy", np.array([[0, -1, 1, np.e]], np.float32))
    result = quench("run", "log.onnx", "v.npy", "--json", cwd=workspace)
    assert result.returncode == 0, result.stderr
    found = only_object(result.stdout)
    check("run", found)
    assert [t["value"] for t in found["runs"][0]["outputs"][0]["top"]][-1] is None


def test_a_failure_prints_no_object(quench, quantized):
    for command, args in commands(quantized).items():
        result = quench(command, *["no.onnx" if a in ("m.onnx", "q.onnx", "s.stats") else a for a in args], "--json", cwd=quantized)
        assert_one_error_line(result, 1, "no.onnx")
        assert result.stdout == ""
        result = quench(command, "--json", "--no-such-option", cwd=quantized)
        assert_one_error_line(result, 2, "--no-such-option")
        assert result.stdout == ""


# --- standard streams of every command ---------------------------------------------------------


def run_with(quench, args, folder, **kwargs):
    return subprocess.run([quench.binary, *args], cwd=folder, stderr=subprocess.PIPE, text=True, timeout=60, **kwargs)


@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["text", "json"])
def test_a_full_or_closed_output_is_an_error(quench, quantized, json_option):
    cases = [[command, *args, *json_option] for command, args in commands(quantized).items()]
    cases += [[command, "--help"] for command in commands(quantized)] + [["--help"], ["--version"], ["help", "eval"]]
    for case in cases:
        with open("/dev/full", "w") as full:
            result = run_with(quench, case, quantized, stdout=full)
        assert result.returncode == 1, case
        assert result.stderr.splitlines()[-1] == "error: cannot write to standard output", case
        # closed: no file that the command opens may become its standard output
        before = {p: p.read_bytes() for p in quantized.iterdir() if p.suffix in (".onnx", ".npy")}
        result = run_with(quench, case, quantized, preexec_fn=lambda: os.close(1))
        assert result.returncode == 1, case
        assert result.stderr.splitlines()[-1] == "error: cannot write to standard output", case
        after = {p: p.read_bytes() for p in quantized.iterdir() if p.suffix in (".onnx", ".npy")}
        assert {p: b for p, b in after.items() if p.name != "j.onnx"} == {p: b for p, b in before.items() if p.name != "j.onnx"}


def test_nothing_printed_needs_no_output(quench, quantized):
    for case in (["quantize", "m.onnx", "-o", "j.onnx", "--images", "pictures", "-q"],
                 ["convert", "m.onnx", "-o", "c.qnm", "-q"]):  # fmt: skip
        result = quench(*case, cwd=quantized)
        assert (result.returncode, result.stdout) == (0, "")
        assert all(line.startswith("warning: ") for line in result.stderr.splitlines())
        assert run_with(quench, case, quantized, preexec_fn=lambda: os.close(1)).returncode == 0


def test_a_reader_that_leaves_is_no_error(quench, quantized):
    for command, args in commands(quantized).items():
        reading, writing = os.pipe()
        os.close(reading)
        result = run_with(quench, [command, *args], quantized, stdout=writing)
        os.close(writing)
        assert result.returncode == 128 + 13, (command, result.stderr)
        assert "error" not in result.stderr


def test_closed_standard_error_is_survived(quench, quantized):
    result = subprocess.run([quench.binary, "inspect", "no.onnx"], cwd=quantized, stdout=subprocess.PIPE,
                            preexec_fn=lambda: os.close(2))  # fmt: skip
    assert result.returncode == 1
    # the model opened first must not become standard error, which would be written into
    result = subprocess.run([quench.binary, "quantize", "m.onnx", "-o", "j.onnx", "--images", "pictures", "-v"],
                            cwd=quantized, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))  # fmt: skip
    assert result.returncode == 0
    assert quench("inspect", "j.onnx", cwd=quantized).returncode == 0


# --- messages -------------------------------------------------------------------------------------


def test_verbose_shows_passes_and_phases(quench, quantized):
    result = quantize(quench, quantized, "-v")
    assert result.returncode == 0
    lines = result.stderr.splitlines()
    passes = re.findall(r"QN_PASS\(qn__pass_(\w+), \"(.*)\"\)", (ROOT / "src/pass/pass_list.def").read_text())
    shown = [line.split(" ")[0] for line in lines if " (" in line]
    assert shown[: len(passes) + 1] == ["resolve", *(name for name, _ in passes)]
    assert any(re.fullmatch(r"fold_affine \(.*\): 12 nodes -> 11: BatchNormalization -1", line) for line in lines)
    assert any(re.fullmatch(r"fuse_act \(.*\): 11 nodes -> 9: Relu -2", line) for line in lines)
    phases = [re.match(r"(\w+) +\d+\.\d{3} s$", line) for line in lines]
    names = [m[1] for m in phases if m]
    assert names == ["read", "simplify", "equalize", "calibrate", "quantize", "write"]
    assert quantize(quench, quantized, "-v", "-q").stderr == ""
    assert quantize(quench, quantized).stderr == ""


def colored(quench, folder, args, env):
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | env
    return "\033[" in quench("inspect", "no.onnx", *args, cwd=folder, env=env).stderr


def test_colour_is_for_terminals(quench, workspace):
    assert not colored(quench, workspace, [], {})
    assert colored(quench, workspace, ["--color", "always"], {})
    assert colored(quench, workspace, ["--color", "always"], {"NO_COLOR": "1"})
    assert not colored(quench, workspace, ["--color=never"], {})


def on_terminal(quench, folder, args, env, stop_at=None):
    """Standard error of a command when it is a terminal; SIGINT when stop_at is seen."""
    import pty

    leader, follower = pty.openpty()
    env = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"} | env
    process = subprocess.Popen(
        [quench.binary, *args], cwd=folder, stdout=subprocess.DEVNULL, stderr=follower, env=env,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
    )  # fmt: skip
    os.close(follower)
    text = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        text += piece
        if stop_at is not None and stop_at in text:
            process.send_signal(signal.SIGINT)
            stop_at = None
    os.close(leader)
    return process.wait(timeout=60), text.decode()


def test_colour_on_a_terminal(quench, workspace):
    args = ["inspect", "no.onnx"]
    assert "\033[1;31merror:\033[0m no.onnx" in on_terminal(quench, workspace, args, {})[1]
    assert "\033" not in on_terminal(quench, workspace, args, {"NO_COLOR": "1"})[1]
    assert "\033" in on_terminal(quench, workspace, args, {"NO_COLOR": ""})[1]
    assert "\033" not in on_terminal(quench, workspace, args, {"TERM": "dumb"})[1]
    assert "\033" not in on_terminal(quench, workspace, [*args, "--color", "never"], {})[1]
    plain = on_terminal(quench, workspace, ["inspect", "no.onnx", "--color", "never"], {})
    assert plain[0] == 1 and plain[1].startswith("error: no.onnx")


def test_progress_is_a_bar_on_a_terminal_only(quench, workspace):
    for i in range(6000):  # a second or so on a fast machine
        os.link(workspace / "pictures/p00.png", workspace / "pictures" / f"z{i}.png")
    args = ["quantize", "m.onnx", "-o", "j.onnx", "--images", "pictures", *PREPROCESSING, "--threads", "1",
            "--features", "kl"]  # fmt: skip
    code, text = on_terminal(quench, workspace, args, {})
    assert code == 0
    assert re.search(r"\rcalibrate \[#* *\] \d+/\d+ \d+ s left", text), text[:300]
    assert text.endswith("\r") and text.rsplit("\r", 2)[-2].strip() == ""  # it is cleared away
    assert on_terminal(quench, workspace, [*args, "-q"], {})[1] == ""
    assert "\r" not in on_terminal(quench, workspace, args, {"TERM": "dumb"})[1].replace("\r\n", "\n")
    (workspace / "many").mkdir()
    for i in range(30000):  # so many that a busy machine stops it in time
        os.link(workspace / "pictures/p01.png", workspace / "many" / f"z{i}.png")
    args[args.index("pictures")] = "many"
    code, text = on_terminal(quench, workspace, args, {}, stop_at=b"left")
    assert code == 128 + signal.SIGINT and text.endswith("\r\n"), text[-200:]
    assert not [p for p in workspace.iterdir() if p.name not in ("m.onnx", "x.npy", "pictures", "many", "j.onnx")]
