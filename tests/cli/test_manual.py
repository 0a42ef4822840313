"""The manual page and the completions of the shells against the program's own help."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build")).resolve()
MANUAL = BUILD / "manual"


@pytest.fixture(scope="module")
def options(quench):
    """{command: {option: (letter, argument)}} as --help lists them."""
    listed = {}
    commands = re.findall(r"^  (\S+) +\S", quench("--help").stdout.split("For example")[0], re.M)
    assert "quantize" in commands and "convert" in commands
    for command in commands:
        text = quench(command, "--help").stdout.split("\n--target (default")[0]
        rows = re.findall(r"^  (?:-(\w), )?--([a-z0-9-]+)(?: (\S+))?", text, re.M)
        listed[command] = {name: (letter, argument) for letter, name, argument in rows}
        assert {"json", "help", "quiet"} <= set(listed[command])
    return listed


def read(name):
    return (MANUAL / name).read_text()


def plain(page):
    """Text of a manual page without its font changes."""
    return page.replace("\\-", "-").replace("\\e", "\\").replace("\\&", "").replace("\\fB", "").replace(
        "\\fI", "").replace("\\fR", "")  # fmt: skip


def test_the_page_has_every_command_and_option(quench, options):
    page = plain(read("quench.1"))
    heads = re.findall(r"^\.TP\n(.*)$", page, re.M)
    for command, listed in options.items():
        assert any(head.startswith(f"quench {command} ") for head in heads), command
        for name, (letter, argument) in listed.items():
            wanted = f"-{letter}, --{name}" if letter else f"--{name}"
            assert wanted + (f" {argument}" if argument else "") in heads, name
    names = {name for listed in options.values() for name in listed}
    assert {re.search(r"--([a-z0-9-]+)", head)[1] for head in heads if re.match(r"(-\w, )?--", head)} == names
    text = " ".join(quench("quantize", "--help").stdout.split())
    for title in ("TARGETS", "FEATURE METHODS", "WEIGHT METHODS"):
        section = page.split(f".SH {title}\n")[1].split(".SH ")[0]
        methods = re.findall(r"^\.TP\n(\S+)\n((?:[^.].*\n)+)", section, re.M)
        assert len(methods) >= 2
        for name, summary in methods:
            assert f"{name} {' '.join(summary.split())}" in text


@pytest.mark.parametrize("name", ["quench.1", "quantized.out.1"])
def test_pages_are_sound(name):
    for tool in (["mandoc", "-T", "lint"], ["groff", "-man", "-ww", "-z"], ["man", "--warnings", "-l"]):
        if shutil.which(tool[0]):
            result = subprocess.run([*tool, MANUAL / name], capture_output=True, text=True,
                                    env=dict(os.environ, MANPAGER="cat", MANWIDTH="80"))  # fmt: skip
            assert result.returncode == 0 and result.stderr == "", result.stderr
            if tool[0] == "mandoc":
                assert result.stdout == ""
            return
    pytest.skip("neither mandoc nor groff nor man is here")


def bash_complete(words, tmp_path):
    """What bash offers for the last of words, by the function it would call."""
    script = """
        source "$1"; shift
        [ "$(complete -p quench)" = 'complete -F _quench quench' ] || exit 3
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        _quench
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    result = subprocess.run(["bash", "-c", script, "bash", MANUAL / "quench", *words], cwd=tmp_path,
                            capture_output=True, text=True)  # fmt: skip
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


def test_bash_completes_commands_options_values_and_files(options, tmp_path):
    (tmp_path / "model.onnx").write_text("")
    (tmp_path / "pictures").mkdir()
    assert set(options) | {"help", "--help", "--version"} == bash_complete(["quench", ""], tmp_path)
    assert bash_complete(["quench", "help", "qu"], tmp_path) == {"quantize"}
    for command, listed in options.items():
        wanted = {f"--{name}" for name in listed} | {f"-{letter}" for letter, _ in listed.values() if letter}
        assert bash_complete(["quench", command, "m", "-"], tmp_path) == wanted
    assert bash_complete(["quench", "quantize", "--feat"], tmp_path) == {"--features", "--feature-clamp"}
    assert bash_complete(["quench", "quantize", "--features", "m"], tmp_path) == {"minmax", "mse"}
    assert bash_complete(["quench", "quantize", "--features", "=", "m"], tmp_path) == {"minmax", "mse"}
    assert bash_complete(["quench", "quantize", "--equalize", "="], tmp_path) == {"on", "off"}
    assert bash_complete(["quench", "eval", "m"], tmp_path) == {"model.onnx"}
    assert bash_complete(["quench", "quantize", "-o", "m"], tmp_path) == {"model.onnx"}
    assert bash_complete(["quench", "quantize", "--images", ""], tmp_path) == {"pictures"}
    assert bash_complete(["quench", "quantize", "--count", ""], tmp_path) == set()
    assert bash_complete(["quench", "nonsense", "-"], tmp_path) == set()


def test_offered_values_are_those_the_program_takes(quench, options, tmp_path):
    """Each option is given a value it cannot know; what the error lists is what shells offer."""
    checked = 0
    for command, listed in options.items():
        for name, (_, argument) in listed.items():
            if not argument:
                continue
            error = quench(command, f"--{name}=(none)").stderr
            found = re.search(r"is not one of ([\w|-]+)", error) or re.search(r'unknown name "\(none\)" \(([^)]*)\)', error)
            offered = bash_complete(["quench", command, f"--{name}", ""], tmp_path)
            if found and f"--{name}:" in error:
                assert offered == set(re.split(r"[|, ]+", found[1])), name
                checked += 1
            elif offered and argument not in ("FILE", "CSV", "DIR"):
                assert name in ("raw-type", "packed", "cpu-mask", "weight-block"), name
    assert checked >= 12


def test_fish_has_every_option(options, tmp_path):
    text = read("quench.fish")
    for command, listed in options.items():
        rows = [line for line in text.splitlines() if f" {command}" in line.split(" -l ")[0]]
        found = set(re.findall(r" -l ([a-z0-9-]+)", "\n".join(rows)))
        assert found == set(listed), command
        for name, (letter, _) in listed.items():
            assert not letter or f" -l {name} -s {letter} " in text
    if shutil.which("fish"):
        for words, wanted in [("quench quantize --feat", "--features"), ("quench quantize --features mi", "minmax"),
                              ("quench con", "convert")]:  # fmt: skip
            script = f"source {MANUAL / 'quench.fish'}; complete -C '{words}'"
            env = dict(os.environ, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))
            result = subprocess.run(["fish", "-c", script], capture_output=True, text=True, env=env)
            assert result.returncode == 0, result.stderr
            assert wanted in result.stdout.split(), words


def test_zsh_has_every_option(options):
    text = read("_quench")
    assert text.startswith("#compdef quench\n")
    for command, listed in options.items():
        block = text.split(f"    {command})\n")[1].split(";;")[0]
        assert set(re.findall(r"^ +'?\*?(?:\(-\w --[a-z-]+\)'\{-\w,)?--([a-z0-9-]+)", block, re.M)) == set(listed)
    if shutil.which("zsh"):
        result = subprocess.run(["zsh", "-n", MANUAL / "_quench"], capture_output=True, text=True)
        assert result.returncode == 0 and result.stderr == ""


def test_they_are_installed(tmp_path):
    result = subprocess.run(["cmake", "--install", BUILD, "--prefix", tmp_path], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for path in ("share/man/man1/quench.1", "share/man/man1/quantized.out.1",
                 "share/bash-completion/completions/quench", "share/zsh/site-functions/_quench",
                 "share/fish/vendor_completions.d/quench.fish"):  # fmt: skip
        assert (tmp_path / path).stat().st_size > 500, path
