"""Strange names and places: the right exit code, one error line, and the input stays as it was."""

import os
import subprocess

import numpy as np
import onnx
import pytest
from conftest import small_classifier

OLD = b"the old output"


@pytest.fixture
def work(tmp_path):
    onnx.save(small_classifier(), tmp_path / "m.onnx")
    rng = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", rng.uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32))
    return tmp_path


def run(quench, work, *args, **kwargs):
    """In the folder, with bytes for names where they are bytes."""
    return subprocess.run([quench.binary, *args], cwd=work, capture_output=True, timeout=60, **kwargs)


def quantize(quench, work, model, out, **kwargs):
    return run(quench, work, "quantize", model, "-o", out, "--data", "x.npy", "-q", **kwargs)


def fails(result):
    assert result.returncode == 1, (result.returncode, result.stderr)
    lines = [line for line in result.stderr.split(b"\n") if line.startswith(b"error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


NAMES = [b"./-", b"./--help", b"a\nb.onnx", b"\xff\xfe.onnx", b"a b.onnx", b"'; ls.onnx", b"%s%n.onnx", b"n" * 250 + b".onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_a_strange_name_is_a_name(quench, work, name):
    os.rename(work / "m.onnx", os.path.join(os.fsencode(work), name))
    before = open(os.path.join(os.fsencode(work), name), "rb").read()
    result = quantize(quench, work, name, b"q.onnx")
    assert result.returncode == 0, result.stderr
    plain = (work / "q.onnx").read_bytes()
    result = quantize(quench, work, name, b"q" + name.replace(b"/", b"")[:200] + b".onnx")
    assert result.returncode == 0, result.stderr
    assert (work / "q.onnx").read_bytes() == plain
    assert open(os.path.join(os.fsencode(work), name), "rb").read() == before
    assert not [n for n in os.listdir(work) if ".tmp" in n]


@pytest.mark.parametrize("name", [b"missing\nline.onnx", b"\xff\xfe\x1b[31m.onnx", b"n" * 300, b"d/" * 2048, b""])
def test_a_strange_name_that_is_not_there_is_one_line(quench, work, name):
    line = fails(run(quench, work, "inspect", name)) if name else None
    assert line is None or all(b >= 32 for b in line), line
    if not name:
        assert run(quench, work, "inspect", name).returncode in (1, 2)


def test_the_output_is_the_input(quench, work):
    before = (work / "m.onnx").read_bytes()
    result = quantize(quench, work, "m.onnx", "m.onnx")
    if result.returncode == 0:  # replaced at once, by a whole model
        assert (work / "m.onnx").read_bytes() != before
        onnx.checker.check_model(onnx.load(work / "m.onnx"))
    else:
        fails(result)
        assert (work / "m.onnx").read_bytes() == before


def test_the_output_is_a_folder(quench, work):
    (work / "q.onnx").mkdir()
    assert b"q.onnx" in fails(quantize(quench, work, "m.onnx", "q.onnx"))
    assert sorted(os.listdir(work)) == ["m.onnx", "q.onnx", "x.npy"]


def test_the_folder_of_the_output_is_not_there(quench, work):
    assert b"none" in fails(quantize(quench, work, "m.onnx", "none/q.onnx"))
    assert sorted(os.listdir(work)) == ["m.onnx", "x.npy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_the_folder_of_the_output_is_read_only(quench, work):
    (work / "locked").mkdir(mode=0o500)
    fails(quantize(quench, work, "m.onnx", "locked/q.onnx"))


def test_the_output_is_a_link(quench, work):
    """The link becomes the file, or the file behind it; nothing else changes."""
    (work / "target").write_bytes(OLD)
    (work / "q.onnx").symlink_to("target")
    assert quantize(quench, work, "m.onnx", "q.onnx").returncode == 0
    onnx.checker.check_model(onnx.load(work / "q.onnx"))


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no other device")
def test_the_output_is_on_another_device(quench, work):
    out = f"/dev/shm/quench_test_{os.getpid()}.onnx"
    try:
        assert quantize(quench, work, "m.onnx", out).returncode == 0
        onnx.checker.check_model(onnx.load(out))
    finally:
        if os.path.exists(out):
            os.unlink(out)
