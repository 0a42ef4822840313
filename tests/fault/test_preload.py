"""The command line while memory and disks run out under it, and while it is killed."""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import onnx
import pytest
from conftest import small_classifier
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
OLD = b"the old output"
TRIED = int(os.environ.get("QN_TEST_ROUNDS", "150"))  # values of N in each sweep
KILLS = int(os.environ.get("QN_TEST_KILLS", "50"))


def binary():
    return os.environ.get("QUENCH_BIN", str(HERE.parents[1] / "build" / "quench"))


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not os.uname().sysname == "Linux":
        pytest.skip("no C compiler to make the preload with")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    subprocess.run([compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-fno-builtin", "-shared", "-fPIC",
                    HERE / "shim.c", "-o", library, "-ldl"], check=True)  # fmt: skip
    return library


@pytest.fixture(scope="module")
def ws(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fault")
    onnx.save(small_classifier(), folder / "m.onnx")
    rng = np.random.default_rng(5)
    pictures = folder / "pictures"
    pictures.mkdir()
    for i, kind in enumerate(("png", "jpg", "webp", "bmp")):
        pixels = rng.integers(0, 256, (18, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"p{i}.{kind}")
    (pictures / "labels.csv").write_text("file,class_index\np0.png,1\np1.jpg,0\n")
    np.save(folder / "x.npy", rng.uniform(-1, 1, (4, 3, 16, 16)).astype(np.float32))
    assert run(["quantize", "m.onnx", "-o", "q.onnx", "--data", "x.npy"], folder).returncode == 0
    return folder


def run(args, cwd, env=None, **kwargs):
    return subprocess.run([binary(), *map(str, args)], cwd=cwd, env=dict(os.environ, **(env or {})),
                          capture_output=True, text=True, timeout=60, **kwargs)  # fmt: skip


COMMANDS = {
    "quantize-pictures": ["quantize", "m.onnx", "-o", "out.onnx", "--images", "pictures", "--json"],
    "quantize-tensors": ["quantize", "m.onnx", "-o", "out.onnx", "--data", "x.npy", "--weights", "gptq",
                         "--format", "qoperator", "--save-recipe", "recipe.json"],
    "eval": ["eval", "m.onnx", "q.onnx", "--labels", "pictures/labels.csv", "--json"],
    "compare": ["compare", "m.onnx", "q.onnx", "--data", "x.npy", "--json"],
    "run": ["run", "q.onnx", "x.npy", "--json"],
    "inspect": ["inspect", "q.onnx", "--json"],
}  # fmt: skip


def sanitized():
    return "asan" in subprocess.run(["ldd", binary()], capture_output=True, text=True).stdout


def counts(command, ws, shim, env):
    """Allocations and writes of an undisturbed run, and what it writes."""
    (ws / "out.onnx").write_bytes(OLD)
    result = run(command, ws, dict(env, LD_PRELOAD=str(shim), QN_FAULT_COUNT="count.txt"))
    assert result.returncode == 0, result.stderr
    mallocs, writes = map(int, (ws / "count.txt").read_text().split())
    return mallocs, writes, (ws / "out.onnx").read_bytes()


def judge(result, ws, expected, what):
    """Ended by itself with 0 or 1, said why on one line, old or new output, nothing left over."""
    assert result.returncode in (0, 1), f"{what}: exit {result.returncode}: {result.stderr}"
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == result.returncode, f"{what}: exit {result.returncode}: {result.stderr}"
    got = (ws / "out.onnx").read_bytes()
    assert got in (OLD, expected), f"{what}: the output is {len(got)} bytes of something else"
    if result.returncode == 0:
        assert got == expected, f"{what}: exit 0 and the old output"
    assert not list(ws.glob("*.tmp*")), what


@pytest.mark.parametrize("persistent", ["", "1"], ids=["once", "persistent"])
@pytest.mark.parametrize("libraries", ["", "1"], ids=["process", "libraries"])
@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_failing_allocation_is_reported(ws, shim, command, libraries, persistent):
    if sanitized():
        pytest.skip("the sanitizer has its own allocator")
    threads = ["--threads", "1"]
    env = {"QN_FAULT_LIBRARIES": libraries}
    mallocs, _, expected = counts(command + threads, ws, shim, env)
    assert mallocs > 3
    rounds = TRIED if command[0] == "quantize" else TRIED // 3
    failed = 0
    for n in np.unique(np.linspace(1, mallocs, rounds).astype(int)):
        (ws / "out.onnx").write_bytes(OLD)
        result = run(command + threads, ws,
                     dict(env, LD_PRELOAD=str(shim), QN_FAULT_MALLOC=str(n),
                          QN_FAULT_PERSISTENT=persistent))  # fmt: skip
        if command[0] != "quantize":
            (ws / "out.onnx").write_bytes(expected)
        judge(result, ws, expected, f"allocation {n} of {mallocs}")
        failed += result.returncode
    assert failed > 0


def test_a_full_disk_at_every_write(ws, shim):
    for name in ("quantize-pictures", "quantize-tensors"):
        command = COMMANDS[name]
        _, writes, expected = counts(command, ws, shim, {})
        assert writes >= 1
        for n in range(1, writes + 1):
            (ws / "out.onnx").write_bytes(OLD)
            result = run(command, ws, {"LD_PRELOAD": str(shim), "QN_FAULT_WRITE": str(n)})
            judge(result, ws, expected, f"write {n} of {writes}")
            assert result.returncode == 1 and "No space left on device" in result.stderr


def test_a_limit_on_file_size(ws):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    (ws / "out.onnx").write_bytes(OLD)
    result = run(COMMANDS["quantize-tensors"], ws, preexec_fn=limit)
    judge(result, ws, OLD, "RLIMIT_FSIZE")
    assert result.returncode == 1 and "out.onnx" in result.stderr and "File too large" in result.stderr


def test_full_devices(ws):
    result = run(["quantize", "m.onnx", "-o", "/dev/full", "--data", "x.npy"], ws)
    assert result.returncode == 1 and "/dev/full" in result.stderr
    for name, command in COMMANDS.items():
        with open("/dev/full", "w") as full:
            done = subprocess.run([binary(), *command], cwd=ws, stdout=full, stderr=subprocess.PIPE,
                                  text=True, timeout=60)  # fmt: skip
        assert done.returncode == 1, name
        assert "standard output" in done.stderr, name


def test_a_folder_that_cannot_be_written(ws):
    folder = ws / "readonly"
    folder.mkdir(exist_ok=True)
    (folder / "out.onnx").write_bytes(OLD)
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("this user may write everywhere")
        result = run(["quantize", "m.onnx", "-o", folder / "out.onnx", "--data", "x.npy"], ws)
        assert result.returncode == 1 and "out.onnx" in result.stderr
        assert (folder / "out.onnx").read_bytes() == OLD
    finally:
        folder.chmod(0o755)


def test_no_file_descriptor_left(ws):
    def limit():
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))

    result = run(["inspect", "m.onnx"], ws, preexec_fn=limit)
    # the loader itself needs a descriptor for the first shared library
    assert result.returncode in (1, 127)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_kill_leaves_the_old_or_the_new_file(ws, threads, tmp_path):
    """kill -9 at times spread over the run's length, more densely over its end, where it writes."""
    for name in ("m.onnx", "x.npy"):
        shutil.copy(ws / name, tmp_path)
    out = tmp_path / "out.onnx"
    command = [binary(), "quantize", "m.onnx", "-o", "out.onnx", "--data", "x.npy", "-q", "--threads", threads]
    started = time.monotonic()
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    length = time.monotonic() - started
    expected = out.read_bytes()
    rng = np.random.default_rng(int(threads))
    for _ in range(KILLS):
        out.write_bytes(OLD)
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
        time.sleep(length * rng.uniform(0, 1.1) ** 0.5)
        process.kill()
        code = process.wait(timeout=20)
        got = out.read_bytes()
        assert code in (0, -signal.SIGKILL)
        assert got == expected or (got == OLD and code != 0)
    # what the killed ones left is never read and never in the way
    out.write_bytes(OLD)
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    assert out.read_bytes() == expected
