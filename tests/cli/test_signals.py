"""SIGINT, SIGTERM and SIGHUP while an output is being written: exit 128 + n, the old output, no
temporary file. A preloaded fsync sends the signal, so that it always comes at that moment."""

import os
import pathlib
import shutil
import signal
import subprocess

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))
OLD = b"the old output"

SHIM = """
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
int fsync(int fd)
{
    (void)fd;
    kill(getpid(), atoi(getenv("QN_TEST_SIGNAL")));
    return 0;
}
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signals")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, folder / "shim.c"], check=True)
    return library


@pytest.fixture
def work(tmp_path):
    subprocess.run([BUILD / "tests" / "small_mnn", tmp_path / "m.mnn", "3"], check=True)
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(3)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(tmp_path / f"pictures/{i}.png")
    (tmp_path / "config.json").write_text(
        '{"format":"RGB","mean":[128],"normal":[0.01],"width":32,"height":24,"path":"pictures"}'
    )
    (tmp_path / "out.mnn").write_bytes(OLD)
    (tmp_path / "out.mnn.json").write_bytes(OLD)
    return tmp_path


COMMANDS = {
    "convert": ["quench", "convert", "m.mnn", "-o", "out.mnn"],
    "quantize": ["quench", "quantize", "m.mnn", "-o", "out.mnn", "--images", "pictures"],
    "quantized.out": ["quantized.out", "m.mnn", "out.mnn", "config.json"],
}


LISTS = {
    "eval": ["eval", "m.mnn", "--labels", "labels.csv", "--images", "pictures"],
    "compare": ["compare", "m.mnn", "m.mnn", "--images", "pictures"],
    "run": ["run", "m.mnn", "--images", "pictures"],
    "quantize": ["quantize", "m.mnn", "-o", "out.mnn", "--images", "pictures", "--save-recipe", "r.json"],
}


def take_signals():
    """In place of what the tests' own parent ignores (nohup)."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def run(work, shim, command, number, before_it=take_signals):
    before = {p.name for p in work.iterdir()}
    env = dict(os.environ, LD_PRELOAD=str(shim), QN_TEST_SIGNAL=str(int(number)))
    result = subprocess.run([BUILD / command[0], *command[1:]], cwd=work, env=env, timeout=60,
                            capture_output=True, text=True, preexec_fn=before_it)  # fmt: skip
    assert {p.name for p in work.iterdir()} == before
    return result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_signal_while_writing(work, shim, command, number):
    result = run(work, shim, command, number)
    assert result.returncode == 128 + number, result.stderr
    assert (work / "out.mnn").read_bytes() == OLD
    assert (work / "out.mnn.json").read_bytes() == OLD


@pytest.mark.parametrize("command", LISTS.values(), ids=LISTS)
def test_a_signal_while_a_list_is_written(work, shim, command):
    (work / "labels.csv").write_text("0.png,1\n1.png,0\n")
    (work / "used.txt").write_bytes(OLD)
    result = run(work, shim, ["quench", *command, "--save-list", "used.txt"], signal.SIGTERM)
    assert result.returncode == 128 + signal.SIGTERM, result.stderr
    assert (work / "used.txt").read_bytes() == (work / "out.mnn").read_bytes() == OLD


def test_a_full_output_of_the_drop_in(work):
    command = [BUILD / "quantized.out", "m.mnn", "out.mnn", "config.json"]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, cwd=work, stdout=full, stderr=subprocess.PIPE, text=True)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "error: cannot write to standard output"
    result = subprocess.run(command, cwd=work, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert result.returncode == 1
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(command, cwd=work, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, b"")


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_an_ignored_signal_stays_ignored(work, shim, command):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    result = run(work, shim, command, signal.SIGHUP, before_it=ignore)
    assert result.returncode == 0, result.stderr
    assert (work / "out.mnn").read_bytes() != OLD
