"""The documentation against the program: links, options, methods, defaults, commands."""

import importlib.machinery
import importlib.util
import json
import re
import shlex

import numpy as np
import pytest
from conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DOCS = ROOT / "docs"
COMMANDS = ("quantize", "eval", "compare", "run", "inspect", "bench", "convert", "merge-stats")


def read(page):
    return (DOCS / page).read_text()


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.S)


def anchors(page):
    titles = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        assert file == ROOT or ROOT in file.parents
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_paths_in_backticks_exist(page):
    """`src/...`, `tests/...` and their like; NAME, ISA and * stand for anything."""
    for path in re.findall(r"`((?:src|tests|tools|bench|cli|include|examples|docs)/[^`\s]*)`", page.read_text()):
        if path == "docs/results.md":
            continue
        pattern = re.sub(r"NAME|ISA", "*", path)
        assert any(ROOT.glob(pattern.rstrip("/"))) or "*" in path and "NAME" in path, f"{page.name}: {path}"


@pytest.fixture(scope="module")
def helps(quench):
    return {command: quench(command, "--help").stdout for command in COMMANDS}


# Pages of the internals name options of benches and tests, too.
OPTION_PAGES = [p for p in PAGES if p.parent != DOCS / "internals"]


@pytest.mark.parametrize("page", OPTION_PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_options_that_are_named_exist(page, helps):
    known = set(re.findall(r"--[a-z][a-z0-9-]+", "\n".join(helps.values()))) | {"--version", "--help", "--name", "--exact-mnn"}
    for code in re.findall(r"`([^`\n]*)`", page.read_text()):
        if code.startswith("--") or code.startswith("quench "):
            for option in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", code):
                assert option in known, f"{page.name}: {option}"


def test_option_tables_are_made_from_the_help(quench):
    path = ROOT / "tools" / "docs" / "options"
    loader = importlib.machinery.SourceFileLoader("options_tool", str(path))
    tool = importlib.util.module_from_spec(importlib.util.spec_from_loader("options_tool", loader))
    loader.exec_module(tool)
    text = read("options.md")
    assert tool.page(text, quench.binary) == text, "run tools/docs/options QUENCH"


def names_in_help(text, option):
    block = text.split(f"\n{option} (default:")[1].split("\n\n")[0]
    return re.findall(r"^  (\S+)", block, re.M)


def names_in_table(text, heading):
    section = re.split(r"^## ", text.split(f"\n## {heading}")[1], flags=re.M)[0]
    return re.findall(r"^\| `([^`]+)` \|", section, re.M)


@pytest.mark.parametrize(
    "option,heading",
    [("--target", "Targets"), ("--features", "3. Feature methods"), ("--weights", "4. Weight methods")],
)
def test_methods_are_those_of_the_program(helps, option, heading):
    assert names_in_table(read("methods.md"), heading) == names_in_help(helps["quantize"], option)


def test_rules_of_operators_are_those_of_the_table():
    infos = dict(re.findall(r'QN_OP\((\w+), "", "(\w+)"', (ROOT / "src/ir/ops.def").read_text()))
    rules = {}
    for op, rule in re.findall(r"^QN_OP_RULE\((\w+), (\w+),", (ROOT / "src/quant/op_rules.def").read_text(), re.M):
        rules.setdefault(rule, set()).add(infos[op])
    rows = dict(re.findall(r"^\| ([A-Z]+) \| (.*?) \|", read("methods.md"), re.M))
    assert set(rows) == set(rules)
    for rule, text in rows.items():
        assert set(re.findall(r"[A-Z]\w+", text)) == rules[rule], rule


def test_operators_of_onnx_are_those_of_the_table():
    known = set(re.findall(r'QN_OP\(\w+, "", "(\w+)"', (ROOT / "src/ir/ops.def").read_text()))
    listed = read("onnx.md").split("<!-- operators -->")[1].split("<!-- end -->")[0]
    assert set(re.findall(r"\w+", listed)) == known
    integer = set(re.findall(r'QN_QOP\(\w+, "[^"]*", "(\w+)"', (ROOT / "src/format/onnx/onnx_qops.def").read_text()))
    assert set(re.findall(r"\b(?:Q(?:Linear|Gemm)\w*|MatMul(?:NBits|IntegerToFloat)|DynamicQuantize(?:MatMul|LSTM))", read("onnx.md").split("## What is refused")[0])) == integer


def test_operator_table_counts_what_must_pass():
    rows = re.findall(r"^\| \S.*? \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", read("onnx-operators.md"), re.M)
    cases, passed, constant, rest = (sum(map(int, column)) for column in zip(*rows))
    must_pass = (ROOT / "tests" / "interop" / "node_cases_pass.txt").read_text().split()
    assert passed + constant == len(must_pass), "run tools/docs/operators BUILD"
    assert passed + constant + rest == cases


def test_operators_of_mnn_are_those_of_the_table():
    rows = re.findall(r"^QN_MNN_OP\((\w+),", (ROOT / "src/format/mnn/mnn_ops.def").read_text(), re.M)
    listed = read("mnn.md").split("<!-- operators -->")[1].split("<!-- end -->")[0]
    assert set(re.findall(r"\w+", listed)) == {*rows, "Input"}


def test_operators_exported_to_mnn_are_those_of_the_table():
    infos = dict(re.findall(r'QN_OP\((\w+), "", "(\w+)"', (ROOT / "src/ir/ops.def").read_text()))
    rows = re.findall(r"^QN_MNN_ROW\((\w+),", (ROOT / "src/format/mnn/mnn_export.def").read_text(), re.M)
    listed = read("mnn.md").split("<!-- exported -->")[1].split("<!-- end -->")[0]
    assert set(re.findall(r"\w+", listed)) == {infos[row] for row in rows if row in infos}  # not quench's own


def test_recipe_keys_and_defaults(quench, workspace, helps):
    recipe, written = workspace / "r.json", {}
    for features in ("lp", "ema-train"):  # no run has every key
        result = quench("quantize", workspace / "m.onnx", "--dry-run", "--images",
                        workspace / "pictures", "--mean", "127.5", "--save-recipe", recipe, "--weights",
                        "gptq", "--features", features, "-q")  # fmt: skip
        assert result.returncode == 0, result.stderr
        written = json.loads(recipe.read_text()) | written
    rows = re.findall(r"^\| (`[^|]*) \|", read("recipe.md"), re.M)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(written)
    text = helps["quantize"]
    for option in ("features", "target"):
        assert f"--{option} (default: {written[option]})" in text
    options = " ".join(text.split())
    for option, key in [("granularity", "granularity"), ("calibrate-with", "calibrate_with"),
                        ("bias-correction", "bias_correction"), ("equalize", "equalize"), ("x86", "x86")]:  # fmt: skip
        shown = re.search(rf"--{option} .*?\[(\S+)\]", options)
        assert shown and shown.group(1) == written[key], option


def shell_commands(pages):
    """Lines of ```sh blocks that begin with quench."""
    found = []
    for page in pages:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("quench "):
                    found.append(pytest.param(line, id=f"{page.name}: {line[:60]}"))
    return found


@pytest.mark.parametrize("line", shell_commands(PAGES))
def test_commands_in_the_docs_use_options_of_their_command(line, helps):
    words = shlex.split(line, comments=True)[1:]
    if words[0].startswith("-"):
        return
    assert words[0] in COMMANDS
    for word in words[1:]:
        if re.match(r"--?[a-z]", word):
            option = word.split("=")[0]
            assert re.search(rf"(?<![\w-]){option}(?![\w-])", helps[words[0]]), word


@pytest.mark.parametrize("line", shell_commands([DOCS / "options.md"]))
def test_commands_of_the_options_page_run(line, quench, workspace):
    """In the workspace, with the names that the examples use."""
    words = shlex.split(line, comments=True)[1:]
    (workspace / "cat.png").write_bytes((workspace / "pictures" / "p00.png").read_bytes())
    np.load(workspace / "x.npy").astype("<f4").tofile(workspace / "x.bin")
    if "--exclude" in words:
        (workspace / "used.txt").write_text("pictures/p00.png\n")
    if ("q.onnx" in words and words[0] != "quantize") or "--recipe" in words:
        made = quench("quantize", "m.onnx", "-o", "q.onnx", "--images", "pictures", "--mean", "127.5",
                      "--save-recipe", "r.json", cwd=workspace)  # fmt: skip
        assert made.returncode == 0, made.stderr
    # sizes of the examples are those of real pictures; the ones here are 24 x 20
    words = [{"256": "18", "224": "16"}.get(w, w) for w in words]
    result = quench(*words, cwd=workspace)
    assert result.returncode == 0, result.stderr
