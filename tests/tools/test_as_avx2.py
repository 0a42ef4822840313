"""bench/as_avx2 shows onnxruntime the CPU it claims to show, and leaves programs alone otherwise."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
AS_AVX2 = HERE.parents[1] / "bench" / "as_avx2"

sys.path.insert(0, str(HERE))
import saturation_probe  # noqa: E402


def run(*command, level="avx2"):
    env = {**os.environ, "QN_MASK_ISA": level}
    return subprocess.run([AS_AVX2, *command], env=env, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def needs_a_way_to_mask():
    if run("true").returncode == 126:
        pytest.skip("neither CPUID faulting nor qemu-x86_64 on this machine")


def probe(level=None):
    command = [sys.executable, HERE / "saturation_probe.py"]
    done = (
        run(*command, level=level)
        if level
        else subprocess.run(command, capture_output=True, text=True)
    )
    assert done.returncode == 0, done.stderr
    return [int(v) for v in done.stdout.split()]


def cpu_flags():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()


def test_masked_onnxruntime_saturates():
    assert probe("avx2") == [51, 64, 99, 100]
    assert probe("avx2") == [saturation_probe.saturated(w) for w in saturation_probe.WEIGHTS]


def test_unmasked_onnxruntime_is_exact_with_vnni():
    if not cpu_flags() & {"avx512_vnni", "avx_vnni"}:
        pytest.skip("this CPU has no VNNI to begin with")
    assert probe() == [saturation_probe.EXACT] * len(saturation_probe.WEIGHTS)


def test_exit_status_and_arguments_pass_through():
    done = run("sh", "-c", 'printf "%s|" "$@"; exit 7', "sh", "a b", "")
    assert (done.returncode, done.stdout) == (7, "a b||")


def test_real_faults_still_kill():
    assert run("sh", "-c", "kill -SEGV $$").returncode == -signal.SIGSEGV


def test_a_program_keeps_its_own_fault_handler():
    done = run(sys.executable, "-X", "faulthandler", "-c", "import ctypes; ctypes.string_at(0)")
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr


def test_unknown_level_is_a_usage_error():
    assert run("true", level="mmx").returncode == 2
