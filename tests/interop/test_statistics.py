"""Statistics as files: parts and their merge, quantizing without samples, runs that were killed and
resumed. Everything is compared byte by byte with one run over all samples."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import time

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUENCH = os.environ.get("QUENCH_BIN", str(ROOT / "build" / "quench"))
SHARED = pathlib.Path(os.environ.get("QUENCH_SHARED", ROOT.parent / "shared"))
N_SAMPLES = 45


def run(*args, code=0, **kwargs):
    result = subprocess.run([QUENCH, *map(str, args)], capture_output=True, text=True, timeout=300, **kwargs)
    assert result.returncode == code, result.stderr
    return result


def save_net(path, scale=1.0):
    """Convolutions, a depthwise one, an addition and a Gemm."""
    rng = np.random.default_rng(5)
    weights = {}

    def weight(name, *shape):
        weights[name] = (rng.standard_normal(shape) * scale / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        return name

    def conv(i, name, out, cin, cout, groups=1):
        inputs = [i, weight(name + "_w", cout, cin // groups, 3, 3), weight(name + "_b", cout)]
        return helper.make_node("Conv", inputs, [out], name, pads=[1, 1, 1, 1], group=groups)

    nodes = [
        conv("x", "c0", "t0", 3, 8),
        helper.make_node("Relu", ["t0"], ["r0"], "relu0"),
        conv("r0", "c1", "t1", 8, 8, 8),
        helper.make_node("Relu", ["t1"], ["r1"], "relu1"),
        conv("r1", "c2", "t2", 8, 8),
        helper.make_node("Add", ["t2", "r0"], ["s"], "add"),
        helper.make_node("GlobalAveragePool", ["s"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", weight("fc_w", 10, 8), weight("fc_b", 10)], ["y"], "fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 20, 20])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    save_net(folder / "m.onnx")
    rng = np.random.default_rng(6)
    data = rng.standard_normal((N_SAMPLES, 3, 20, 20)).astype(np.float32)
    data[7] *= 5
    np.save(folder / "data.npy", data)
    return folder


def quantize(work, *args, code=0):
    return run("quantize", "m.onnx", "-q", *args, code=code, cwd=work)


def collect(work, n_parts, *options):
    for i in range(1, n_parts + 1):
        quantize(work, "--data", "data.npy", "--save-stats", f"part{i}.st", "--part", f"{i}/{n_parts}", *options)
    parts = [f"part{i}.st" for i in range(1, n_parts + 1)]
    random.Random(1).shuffle(parts)
    return parts


METHODS = [(f, "max_abs") for f in ("minmax", "ema", "percentile", "kl", "mse", "admm")]


@pytest.mark.parametrize("features,weights", [*METHODS, ("lp", "mse"), ("lp", "gptq")])
def test_seven_parts_are_one_run(work, features, weights):
    options = ["--features", features, "--weights", weights]
    quantize(work, "-o", "one.onnx", "--data", "data.npy", "--save-recipe", "one.json", *options)
    quantize(work, "--data", "data.npy", "--save-stats", "one.st", *options)
    run("merge-stats", *collect(work, 7, *options), "-o", "all.st", "-q", cwd=work)
    assert (work / "all.st").read_bytes() == (work / "one.st").read_bytes()
    quantize(work, "--stats", "all.st", "-o", "all.onnx", "--save-recipe", "all.json", *options)
    assert (work / "all.onnx").read_bytes() == (work / "one.onnx").read_bytes()
    assert (work / "all.json").read_bytes() == (work / "one.json").read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ["--equalize", "off"],
        ["--bias-correction", "off"],
        ["--calibrate-with", "quantized-weights"],
        ["--features", "ema", "--batch", "8"],
        ["--target", "tensorrt"],
        ["--weight-bits", "4", "--set", "r1:features=minmax", "--skip", "fc"],
        ["--first", "3"],
        ["--count", "2"],
        ["--threads", "1"],
    ],
    ids=" ".join,
)
def test_options(work, options):
    quantize(work, "-o", "one.onnx", "--data", "data.npy", *options)
    run("merge-stats", *collect(work, 2, *options), "-o", "all.st", "-q", cwd=work)
    rest = [] if options[0] in ("--first", "--count") else options
    quantize(work, "--stats", "all.st", "-o", "all.onnx", *rest)
    assert (work / "all.onnx").read_bytes() == (work / "one.onnx").read_bytes()


def test_methods_of_one_kind_share_statistics(work):
    quantize(work, "--data", "data.npy", "--save-stats", "lp.st")
    for features in ("kl", "percentile", "mse"):
        quantize(work, "-o", "one.onnx", "--data", "data.npy", "--features", features)
        quantize(work, "-o", "all.onnx", "--stats", "lp.st", "--features", features)
        assert (work / "all.onnx").read_bytes() == (work / "one.onnx").read_bytes()
    message = quantize(work, "-o", "all.onnx", "--stats", "lp.st", "--features", "minmax", code=1).stderr
    assert 'features "minmax" need other statistics of tensor' in message


def test_model_and_statistics_in_one_run(work):
    quantize(work, "-o", "one.onnx", "--data", "data.npy")
    quantize(work, "-o", "both.onnx", "--data", "data.npy", "--save-stats", "both.st")
    quantize(work, "-o", "again.onnx", "--stats", "both.st")
    assert (work / "both.onnx").read_bytes() == (work / "one.onnx").read_bytes()
    assert (work / "again.onnx").read_bytes() == (work / "one.onnx").read_bytes()


@pytest.mark.parametrize("features", ["kl-mnn", "ema-train"])
def test_methods_that_cannot(work, features):
    result = quantize(work, "--data", "data.npy", "--save-stats", "no.st", "--features", features, code=1)
    assert f'features "{features}" cannot be kept in a statistics file' in result.stderr
    assert not (work / "no.st").exists()
    quantize(work, "--data", "data.npy", "-o", "no.onnx", "--resume", "--features", features, code=1)


def test_refused(work):
    def stats(name, *options):
        quantize(work, "--data", "data.npy", "--save-stats", name, *options)

    def merge(a, b):
        return run("merge-stats", a, b, "-o", "merged.st", cwd=work, code=1).stderr

    stats("a.st", "--part", "1/2")
    stats("b.st", "--part", "2/2")
    stats("other.st", "--part", "2/2", "--features", "minmax")
    stats("fewer.st", "--part", "2/2", "--first", "40")
    stats("raw.st", "--part", "2/2", "--equalize", "off")
    assert "is in the other statistics already" in merge("a.st", "a.st")
    assert "options of quantization differ" in merge("a.st", "other.st")
    assert "the number of samples differs" in merge("a.st", "fewer.st")
    assert "one was made with --equalize off" in merge("a.st", "raw.st")
    assert not (work / "merged.st").exists()
    stderr = quantize(work, "--stats", "a.st", "-o", "no.onnx", code=1).stderr
    assert f"statistics of {N_SAMPLES // 2} of {N_SAMPLES} samples" in stderr
    run("merge-stats", "a.st", "b.st", "-o", "ab.st", cwd=work)
    for options in (["--equalize", "off"], ["--calibrate-with", "quantized-weights"]):
        assert "with other weights" in quantize(work, "--stats", "ab.st", "-o", "no.onnx", *options, code=1).stderr
    save_net(work / "other.onnx", 0.5)
    assert "of another model" in run("quantize", "other.onnx", "--stats", "ab.st", "-o", "n", code=1, cwd=work).stderr
    stderr = quantize(work, "--stats", "ab.st", "-o", "no.onnx", "--mean", "127.5", code=1).stderr
    assert "preprocessed otherwise" in stderr
    quantize(work, "--stats", "ab.st", "-o", "no.onnx", "--data", "data.npy", code=2)
    quantize(work, "--data", "data.npy", "--part", "1/2", "-o", "no.onnx", code=2)
    quantize(work, "--data", "data.npy", "--save-stats", "x.st", "--part", "3/2", code=2)
    assert "not a statistics file" in merge("a.st", "m.onnx")
    assert not (work / "no.onnx").exists()


def test_inspect(work):
    quantize(work, "--data", "data.npy", "--save-stats", "i.st")
    text = run("inspect", "i.st", cwd=work).stdout
    assert text.startswith(f"statistics of {N_SAMPLES} of {N_SAMPLES} samples")
    found = json.loads(run("inspect", "i.st", "--json", cwd=work).stdout)
    data = np.load(work / "data.npy")
    assert found["seen"] == N_SAMPLES and len(found["names"]) == N_SAMPLES
    (x,) = [r for r in found["ranges"] if r["tensor"] == "x"]
    assert np.float32(x["lowest"]) == data.min()
    assert np.float32(x["highest"]) == data.max()
    whole = (work / "i.st").read_bytes()
    (work / "i.st").write_bytes(whole[:-7])
    assert "cut off or damaged" in run("inspect", "i.st", cwd=work, code=1).stderr
    (work / "i.st").write_bytes(whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:])
    assert "cut off or damaged" in quantize(work, "--stats", "i.st", "-o", "no.onnx", code=1).stderr


def kill_and_resume(folder, args, out, n_kills, seed):
    """Starts args, kills them at random times until n_kills, then lets them end."""
    rng = random.Random(seed)
    command = [QUENCH, *args]
    started = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    whole = time.monotonic() - started
    out.unlink()
    kills = 0
    while kills < n_kills:
        process = subprocess.Popen(command, cwd=folder)
        try:
            assert process.wait(timeout=rng.uniform(0, 0.9 * whole)) == 0
            out.unlink()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            if out.exists():  # it was renamed to its name just before
                out.unlink()
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    return whole


def test_twenty_kills(work):
    model = SHARED / "models/resnet20-cifar10"
    pictures = SHARED / "images/cifar10-calib50"
    if not model.is_dir() or not pictures.is_dir():
        pytest.skip("no shared models and pictures")
    path = next(model.glob("*.onnx"))
    samples = ["--images", pictures, "--mean", "127.5", "--normal", "0.0078"]
    run("quantize", path, "-o", work / "calm.onnx", *samples)
    args = ["quantize", path, "-o", "killed.onnx", *samples, "-q", "--resume"]
    kill_and_resume(work, args, work / "killed.onnx", 20, 3)
    assert (work / "killed.onnx").read_bytes() == (work / "calm.onnx").read_bytes()
    assert not list(work.glob("*.stats")) and not list(work.glob("*.partial"))


def test_what_a_journal_keeps(work):
    """Whole samples up to where it was cut; only what is missing runs again."""
    quantize(work, "--data", "data.npy", "--save-stats", "calm.st", "--threads", "1")
    folder = work / "cut"
    folder.mkdir()
    for name in ("m.onnx", "data.npy"):
        shutil.copy(work / name, folder)
    shim = folder / "shim.c"
    shim.write_text(
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <signal.h>\n#include <unistd.h>\n"
        "#include <string.h>\n#include <stdio.h>\n"
        "ssize_t write(int fd, const void *b, size_t n) { static int k; char p[64], q[512];\n"
        "  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, \"write\");\n"
        "  snprintf(p, sizeof p, \"/proc/self/fd/%d\", fd); ssize_t l = readlink(p, q, 511); q[l < 0 ? 0 : l] = 0;\n"
        "  if (strstr(q, \".partial\") && strlen(strstr(q, \".partial\")) == 8 && ++k == 50) {\n"
        "    real(fd, b, n / 2); kill(getpid(), SIGKILL); }\n"
        "  return real(fd, b, n); }\n"
    )
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", shim, "-ldl"], check=True)
    args = [QUENCH, "quantize", "m.onnx", "--data", "data.npy", "--save-stats", "k.st", "-q", "--threads", "1"]
    killed = subprocess.run(args, cwd=folder, env=dict(os.environ, LD_PRELOAD=str(folder / "shim.so")))
    if killed.returncode == 0:
        pytest.skip("the preload library has no effect here")
    assert killed.returncode == -9
    partial = (folder / "k.st.partial").stat().st_size
    # 50 writes: 2 tables, 32 samples to equalize, 15 more and half a sixteenth
    subprocess.run([*args, "--resume"], cwd=folder, check=True)
    assert (folder / "k.st").read_bytes() == (work / "calm.st").read_bytes()
    assert not (folder / "k.st.partial").exists() and partial > 10000
    stderr = subprocess.run(args[:-3] + ["--equalize", "off", "--resume"], cwd=folder, capture_output=True, text=True)
    assert stderr.returncode == 1 and "cannot be resumed" in stderr.stderr


def test_resumed_with_other_samples(work):
    quantize(work, "--data", "data.npy", "--save-stats", "r.st")
    result = quantize(work, "--data", "data.npy", "--save-stats", "r.st", "--first", "20", "--resume", code=1)
    assert "cannot be resumed: the number of samples differs" in result.stderr
    result = quantize(work, "--data", "data.npy", "--save-stats", "r.st", "--first", "20")
