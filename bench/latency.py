#!/usr/bin/env python3
"""Latency of quench against onnxruntime on the same files, side by side in one run.

    latency.py --quench build/quench model.onnx [more.onnx ...] [--threads 1 2] [--bursts 8]

For every model and thread count, short bursts of the two engines alternate on the same pinned
CPUs, each in a fresh process, so that a slow minute of the machine hits both alike. A burst is
`quench bench MODEL --threads N --rounds R --json`, which prints min_ms and median_ms, and the same
for onnxruntime (intra-op threads N, inter-op 1, spinning as by default). Below 1 quench is faster.

`--quench self` puts onnxruntime in both places: what then differs from 1 is noise.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort

import common

WARM_UP = 3
PAUSE_S = 0.05  # between bursts: the last one's threads are gone and the CPUs are idle
CPUS = sorted(os.sched_getaffinity(0))  # before any pinning


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("models", nargs="+", type=Path)
    p.add_argument("--quench", default=os.environ.get("QUENCH", "build/quench"))
    p.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    p.add_argument("--bursts", type=int, default=8)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--json", type=Path, help="also write every burst's figures here")
    p.add_argument("--onnxruntime-burst", action="store_true", help=argparse.SUPPRESS)
    return p.parse_args()


def random_input(description):
    shape = [d if isinstance(d, int) else 1 for d in description.shape]
    values = np.random.default_rng(0).normal(size=shape)
    kinds = {"tensor(float)": np.float32, "tensor(uint8)": np.uint8, "tensor(int8)": np.int8}
    return values.astype(kinds[description.type])


def onnxruntime_burst(model, threads, rounds):
    """What `quench bench --json` prints, for onnxruntime."""
    session = common.open_session(model, threads)
    feeds = {i.name: random_input(i) for i in session.get_inputs()}
    times = []
    for _ in range(WARM_UP + rounds):
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(1e3 * (time.perf_counter() - start))
    measured = times[WARM_UP:]
    return {"min_ms": min(measured), "median_ms": statistics.median(measured)}


def burst(engine, model, threads, rounds):
    before, after = engine
    options = ["--threads", str(threads), "--rounds", str(rounds)]
    command = [*before, str(model), *options, *after]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as e:
        raise SystemExit(f"error: {command[0]}: {e.strerror}") from e
    if done.returncode:
        raise SystemExit(f"error: {' '.join(command)}: {done.stderr.strip()}")
    result = json.loads(done.stdout)
    return {"min": result["min_ms"], "median": result["median_ms"]}


def pin(threads):
    """This process, and so all it starts from here on."""
    if threads > len(CPUS):
        raise SystemExit(f"error: {threads} threads asked, {len(CPUS)} CPUs available")
    os.sched_setaffinity(0, CPUS[:threads])


def measure(engines, model, threads, args):
    """Alternating bursts; who goes first alternates too."""
    pin(threads)
    result = {"model": model.stem, "threads": threads, **{name: [] for name in engines}}
    order = list(engines)
    for _ in range(args.bursts):
        for name in order:
            time.sleep(PAUSE_S)
            result[name].append(burst(engines[name], model, threads, args.rounds))
        order.reverse()
    return result


def summary(result):
    """Median of the bursts' medians, least of their least, and their ratios."""
    row = {"model": result["model"], "threads": result["threads"]}
    for engine in ("quench", "onnxruntime"):
        medians = [b["median"] for b in result[engine]]
        row[engine] = {
            "median": statistics.median(medians),
            "min": min(b["min"] for b in result[engine]),
            "spread": max(medians) / min(medians),
        }
    for what in ("median", "min"):
        row[f"ratio_{what}"] = row["quench"][what] / row["onnxruntime"][what]
    return row


def report(rows, args):
    head = ["model", "threads", "quench ms", "onnxruntime ms", "ratio of medians", "ratio of min"]
    head += ["spread of each"]
    lines = [
        [
            r["model"],
            r["threads"],
            f"{r['quench']['median']:.3f}",
            f"{r['onnxruntime']['median']:.3f}",
            f"{r['ratio_median']:.3f}",
            f"{r['ratio_min']:.3f}",
            f"{r['quench']['spread']:.2f}, {r['onnxruntime']['spread']:.2f}",
        ]
        for r in rows
    ]
    print(f"{cpu_name()}; onnxruntime {ort.__version__}; {args.bursts} bursts of {args.rounds}\n")
    print(common.markdown_table(head, lines) + "\n")
    for threads in args.threads:
        for what in ("median", "min"):
            ratios = [r[f"ratio_{what}"] for r in rows if r["threads"] == threads]
            mean = common.geometric_mean(ratios)
            print(f"geometric mean of the ratios of {what}, {threads} thread(s): {mean:.3f}")


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def main():
    args = parse_arguments()
    if args.onnxruntime_burst:
        print(json.dumps(onnxruntime_burst(args.models[0], args.threads[0], args.rounds)))
        return
    # What stands before the model and after the options on each engine's command line.
    rival = [sys.executable, __file__], ["--onnxruntime-burst"]
    ours = rival if args.quench == "self" else ([args.quench, "bench"], ["--json"])
    engines = {"quench": ours, "onnxruntime": rival}
    common.warn_when_busy()
    results = [measure(engines, m, t, args) for m in args.models for t in args.threads]
    common.warn_when_busy()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    report([summary(r) for r in results], args)


if __name__ == "__main__":
    main()
