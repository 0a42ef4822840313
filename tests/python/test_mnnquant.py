"""The Python package: mnnquant writes what quantized.out writes, and fails as it fails."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build")).resolve()
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "python"),
    "QUENCH_LIBRARY": str(BUILD / "libquench.so"),
}


def mnnquant(*args, **environment):
    command = [sys.executable, "-m", "quench.mnnquant", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, env={**ENVIRONMENT, **environment}
    )


def quantized_out(*args):
    command = [str(BUILD / "quantized.out"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture
def work(tmp_path):
    subprocess.run([BUILD / "tests" / "small_mnn", tmp_path / "m.mnn", "3"], check=True)
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(5)
    for i in range(4):
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{i}.png")
    config = {"format": "RGB", "width": 32, "height": 24, "path": str(tmp_path / "pictures")}
    config.update(mean=[127.5] * 3, normal=[0.00784] * 3, used_image_num=9)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def take_interrupts():
    """Not ignored, as a shell's jobs in the background ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def without_times(log):
    return re.sub(r"\[\d\d:\d\d:\d\d\]", "[]", log)


@pytest.mark.parametrize("options", [[], ["--exact-mnn"], ["--exact-mnn=symmetric"]])
def test_writes_what_the_command_writes(work, options):
    ours = mnnquant(work / "m.mnn", work / "a.mnn", work / "config.json", *options)
    theirs = quantized_out(work / "m.mnn", work / "b.mnn", work / "config.json", *options)
    assert (ours.returncode, theirs.returncode) == (0, 0), ours.stderr + theirs.stderr
    for suffix in (".mnn", ".mnn.json"):
        a, b = ((work / f"{name}{suffix}").read_bytes() for name in "ab")
        assert a == b
    assert without_times(ours.stdout).replace("a.mnn", "b.mnn") == without_times(theirs.stdout)
    assert ours.stderr == theirs.stderr and "9 were asked for" in ours.stderr


def test_failures_are_one_line(work):
    missing = mnnquant(work / "none.mnn", work / "a.mnn", work / "config.json")
    assert missing.returncode == 1
    assert re.fullmatch(r"error: [^\n]*none\.mnn[^\n]*\n", missing.stderr)
    assert not (work / "a.mnn").exists()


def test_an_interrupt_ends_it_at_once(work):
    """Not when the library returns, and not as a success."""
    for i in range(4, 400):
        (work / "pictures" / f"{i}.png").symlink_to(work / "pictures" / "0.png")
    config = json.loads((work / "config.json").read_text())
    config.update(width=640, height=480, used_image_num=0, feature_quantize_method="EMA")
    (work / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "quench.mnnquant", "m.mnn", "a.mnn", "config.json"]
    run = subprocess.Popen(
        command, cwd=work, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=take_interrupts)  # fmt: skip
    while "quantize with EMA" not in (text := run.stdout.readline()):
        assert text, "it ended by itself"
        if "quant bits" in text:
            break
    run.send_signal(signal.SIGINT)
    assert run.wait(20) == -signal.SIGINT
    assert "Traceback" not in run.stderr.read() and not (work / "a.mnn").exists()


def test_an_interrupt_of_a_program_is_raised(work):
    """Not lost in the callback that it comes upon, which Python only complains about."""
    for i in range(4, 100):
        (work / "pictures" / f"{i}.png").symlink_to(work / "pictures" / "0.png")
    config = json.loads((work / "config.json").read_text())
    config.update(width=640, height=480, used_image_num=0)
    (work / "config.json").write_text(json.dumps(config))
    code = f"""
import os, signal, threading
import quench
def say(text):
    if "fake quant" in text:  # in a moment, when the library is at work
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    quench.mnn_quantize({str(work / 'm.mnn')!r}, {str(work / 'a.mnn')!r}, {str(work / 'config.json')!r},
                        output=say)
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
else:
    raise AssertionError("no exception")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT,
        preexec_fn=take_interrupts)  # fmt: skip
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_the_structs_are_the_library_s():
    """One that grew in C only would be written behind its end here."""
    code = """
import ctypes
from quench import _library as own
for initialize, struct in (
    (own.library().qn_context_options_init, own.ContextOptions),
    (own.library().qn_mnn_options_init, own.MnnOptions),
):
    room = (ctypes.c_size_t * 512)()
    initialize(room)
    assert room[0] == ctypes.sizeof(struct), (struct, room[0], ctypes.sizeof(struct))
class Longer(own.MnnOptions):
    _fields_ = [("more", ctypes.c_void_p)]
own.MnnOptions = Longer
try:
    own.mnn_options()
except own.QuenchError as error:
    assert error.status == "UNSUPPORTED" and "another version" in str(error)
else:
    raise AssertionError("no error")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr


def test_usage(work):
    ours, theirs = mnnquant(work / "m.mnn", "b"), quantized_out(work / "m.mnn", "b")
    assert (ours.returncode, theirs.returncode) == (2, 2)
    assert without_times(ours.stdout) == without_times(theirs.stdout)
    assert ours.stderr == ""


def test_a_library_that_is_not_there_is_named(work):
    failed = mnnquant("a", "b", "c", QUENCH_LIBRARY=str(work / "libnone.so"))
    assert failed.returncode == 1
    assert re.fullmatch(r"error: [^\n]*libnone\.so[^\n]*\n", failed.stderr)


def test_callbacks_and_exceptions(work):
    code = f"""
import quench
said, warned = [], []
quench.mnn_quantize({str(work / 'm.mnn')!r}, {str(work / 'a.mnn')!r}, {str(work / 'config.json')!r},
                    output=said.append, warn=warned.append, threads=1)
assert "Quantize model done!" in "".join(said) and len(warned) == 1, (said, warned)
try:
    quench.mnn_quantize("none.mnn", "x.mnn", {str(work / 'config.json')!r})
except quench.QuenchError as failed:
    assert failed.status == "IO" and "none.mnn" in str(failed)
else:
    raise AssertionError("no error")
def refuse(text):
    raise KeyboardInterrupt
try:
    quench.mnn_quantize({str(work / 'm.mnn')!r}, {str(work / 'c.mnn')!r},
                        {str(work / 'config.json')!r}, output=refuse)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("no exception")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
