#!/usr/bin/env python3
"""Race quench against other runtimes on the same quantized networks.

    peers.py --files DIR int8.onnx [more.onnx ...] [--float FLOAT_DIR] [--threads 1 2]
             [--mask none|vnni|avx2] [--engines quench onnxruntime openvino MNN ncnn LiteRT]

Every file is one that `quench quantize` wrote. onnxruntime and OpenVINO read it as it is; for LiteRT and ncnn peer_files.py writes it anew; MNN has
other activation types, so the float network (--float) is quantized for it. DIR keeps the results.
Short bursts of all engines alternate on the same pinned CPUs, each in a process of its own, so that
a slow minute of the machine hits all alike. A ratio is the peer's median time over quench's: above 1
quench is faster. --float also runs the float network of the same name in FLOAT_DIR in onnxruntime
and OpenVINO, and says what int8 gains over the better of the two.

--mask hides instruction sets from all of them (bench/as_avx2): vnni hides AMX, avx2 all but AVX2.
Engines whose Python package is missing are named and left out.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import common
import latency

WARM_UP = 3
MODULES = {
    "onnxruntime": "onnxruntime", "openvino": "openvino", "MNN": "MNN", "ncnn": "ncnn",
    "LiteRT": "ai_edge_litert",
}  # fmt: skip
SUFFIXES = {"MNN": ".mnn", "ncnn": ".param", "LiteRT": ".tflite"}
FLOAT_ENGINES = ("onnxruntime", "openvino")


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("models", nargs="+", type=Path)
    p.add_argument("--files", type=Path, help="where files for other runtimes are kept")
    p.add_argument("--float", type=Path, help="folder of the float networks")
    p.add_argument("--quench", default=os.environ.get("QUENCH", "build/quench"))
    engines = ["quench", *MODULES]
    p.add_argument("--engines", nargs="+", choices=engines, default=engines)
    p.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    p.add_argument("--bursts", type=int, default=6)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--mask", choices=["none", "vnni", "avx2"], default="none")
    p.add_argument("--json", type=Path, help="also write every burst's figures here")
    p.add_argument("--burst", help=argparse.SUPPRESS)  # one engine, in a process of its own
    return p.parse_args()


# --- one engine's burst: returns a function that runs once ----------------------------------------
def onnxruntime_engine(path, threads):
    session = common.open_session(path, threads)
    feeds = {i.name: latency.random_input(i) for i in session.get_inputs()}
    return lambda: session.run(None, feeds)


def openvino_engine(path, threads):
    import openvino as ov

    core = ov.Core()
    model = core.read_model(str(path))
    # A symbolic batch is 1, as for the others.
    model.reshape(
        {
            p.any_name: [1 if d.is_dynamic else d.get_length() for d in p.partial_shape]
            for p in model.inputs
        }
    )
    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    options["INFERENCE_PRECISION_HINT"] = "f32"  # what is float stays float32
    compiled = core.compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    for tensor in compiled.inputs:
        values = np.random.default_rng(0).normal(size=tuple(tensor.shape)).astype(np.float32)
        request.set_tensor(tensor, ov.Tensor(values))
    return request.infer


def mnn_engine(path, threads):
    import MNN

    interpreter = MNN.Interpreter(str(path))
    session = interpreter.createSession({"backend": "CPU", "numThread": threads})
    tensor = interpreter.getSessionInput(session)
    shape = tensor.getShape()
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    host = MNN.Tensor(shape, MNN.Halide_Type_Float, values, MNN.Tensor_DimensionType_Caffe)
    output = interpreter.getSessionOutput(session)

    def run():
        tensor.copyFrom(host)
        interpreter.runSession(session)
        output.getNumpyData()

    return run


def ncnn_engine(path, threads):
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise SystemExit(f"error: {path}: ncnn does not load it")
    values = np.random.default_rng(0).normal(size=(3, 224, 224)).astype(np.float32)
    words = path.read_text().split("\n")[-2].split()
    last = [w for w in words if "=" not in w][-1]  # the last layer's blob

    def run():
        extractor = net.create_extractor()
        extractor.input("input", ncnn.Mat(values))
        extractor.extract(last)

    return run


def litert_engine(path, threads):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    values = np.random.default_rng(0).normal(size=entry["shape"]).astype(np.float32)

    def run():
        interpreter.set_tensor(entry["index"], values)
        interpreter.invoke()
        interpreter.get_tensor(output["index"])

    return run


ENGINES = {
    "onnxruntime": onnxruntime_engine, "openvino": openvino_engine, "MNN": mnn_engine,
    "ncnn": ncnn_engine, "LiteRT": litert_engine,
}  # fmt: skip


def burst(engine, path, threads, rounds):
    run = ENGINES[engine](path, threads)
    times = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    measured = times[WARM_UP:]
    print(json.dumps({"min_ms": min(measured), "median_ms": statistics.median(measured)}))


# --- the race -------------------------------------------------------------------------------------
def available(engines, args):
    found = []
    for engine in engines:
        if engine != "quench" and importlib.util.find_spec(MODULES[engine]) is None:
            print(f"warning: {engine} is not installed (pip install {MODULES[engine]})")
            continue
        if engine == "MNN" and args.float is None:
            print("warning: MNN is left out without --float")
            continue
        found.append(engine)
    return found


def file_for(engine, model, args):
    """The network in the engine's own format, made once."""
    if engine not in SUFFIXES:
        return model
    path = args.files / (model.stem + SUFFIXES[engine])
    if path.exists() and path.stat().st_mtime > model.stat().st_mtime:
        return path
    args.files.mkdir(parents=True, exist_ok=True)
    if engine == "MNN":
        data = args.files / "random.npy"
        np.save(data, np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32))
        command = [args.quench, "quantize", args.float / model.name, "-o", path, "--data", data]
        subprocess.run([*command, "--target", "mnn", "-q"], check=True)
        return path
    import peer_files

    network = peer_files.Network(model)
    if engine == "LiteRT":
        peer_files.write_tflite(network, path)
    else:
        peer_files.write_ncnn(network, path, path.with_suffix(".bin"))
    return path


def command(engine, path, threads, rounds, args):
    tail = ["--threads", str(threads), "--rounds", str(rounds)]
    if engine == "quench":
        return [args.quench, "bench", str(path), *tail, "--json"]
    return [sys.executable, __file__, str(path), *tail, "--burst", engine]


def run_burst(arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(map(str, arguments))}: {done.stderr.strip()[-500:]}")
    figures = json.loads(done.stdout[done.stdout.index("{") :])
    return {"min": figures["min_ms"], "median": figures["median_ms"]}


def contestants(model, engines, args):
    """name -> (engine, file)"""
    result = {engine: (engine, file_for(engine, model, args)) for engine in engines}
    if args.float is not None:
        for engine in FLOAT_ENGINES:
            if engine in engines:
                result[f"{engine} float"] = engine, args.float / model.name
    return result


def race(model, threads, engines, args):
    latency.pin(threads)
    entries = contestants(model, engines, args)
    results = {name: [] for name in entries}
    order = list(entries)
    for _ in range(args.bursts):
        for name in order:
            time.sleep(latency.PAUSE_S)
            engine, path = entries[name]
            results[name].append(run_burst(command(engine, path, threads, args.rounds, args)))
        order.reverse()
    return {
        "model": model.stem,
        "threads": threads,
        "bursts": results,
        "ms": {name: min(b["median"] for b in bursts) for name, bursts in results.items()},
    }


def report(rows, args):
    names = list(rows[0]["ms"])
    peers = [n for n in names if n != "quench" and not n.endswith(" float")]
    floats = [n for n in names if n.endswith(" float")]
    head = ["model", "threads", *names, "best peer", "ratio"] + (["float / int8"] if floats else [])
    lines, ratios, gains = [], {}, {}
    for row in rows:
        ms, threads = row["ms"], row["threads"]
        best = min(peers, key=ms.get)
        ratios.setdefault(threads, []).append(ms[best] / ms["quench"])
        line = [row["model"], threads, *(f"{ms[n]:.2f}" for n in names), best]
        line.append(f"{ratios[threads][-1]:.2f}")
        if floats:
            gains.setdefault(threads, []).append(min(ms[n] for n in floats) / ms["quench"])
            line.append(f"{gains[threads][-1]:.2f}")
        lines.append(line)
    print(f"{latency.cpu_name()}, mask {args.mask}; ms, best median of {args.bursts} bursts of "
          f"{args.rounds}\n")  # fmt: skip
    print(common.markdown_table(head, lines) + "\n")
    for threads, values in ratios.items():
        print(f"against the best peer, {threads} thread(s): geometric mean "
              f"{common.geometric_mean(values):.3f}, least {min(values):.3f}")  # fmt: skip
    for threads, values in gains.items():
        mean = common.geometric_mean(values)
        print(f"int8 against the best float, {threads} thread(s): geometric mean {mean:.3f}")


def main():
    args = parse_arguments()
    if args.burst:
        burst(args.burst, args.models[0], args.threads[0], args.rounds)
        return
    common.reenter_masked(args.mask)
    if args.files is None:
        raise SystemExit("error: --files DIR is needed")
    engines = available(args.engines, args)
    if "quench" not in engines or len(engines) < 2:
        raise SystemExit("error: quench and at least one peer are needed")
    common.warn_when_busy()
    rows = [race(m, t, engines, args) for m in args.models for t in args.threads]
    common.warn_when_busy()
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    report(rows, args)


if __name__ == "__main__":
    main()
