#!/usr/bin/env python3
"""Single runs of model_bench and onnxruntime, alternating in two processes that stay alive.

    side_by_side.py MODEL_BENCH model.onnx... [--threads 1] [--rounds 40] [--cpu MASK]

Quicker than latency.py while tuning: prints the medians, the fastest and their ratios.
"""

import argparse
import statistics
import subprocess
import time

import numpy as np
import onnxruntime as ort


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("bench")
    p.add_argument("models", nargs="+")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=40)
    p.add_argument("--cpu", default="")
    args = p.parse_args()
    server = subprocess.Popen(
        [args.bench, "--serve", "--threads", str(args.threads), "--cpu", args.cpu, *args.models],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    product = fast_product = 1.0
    for index, path in enumerate(args.models):
        options = ort.SessionOptions()
        options.intra_op_num_threads = args.threads
        # A spinning pool would take the CPUs from the other runtime between its runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        item = session.get_inputs()[0]
        shape = [d if isinstance(d, int) else 1 for d in item.shape]
        feed = {item.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
        ours, theirs = [], []
        for _ in range(args.rounds):
            server.stdin.write(f"{index}\n")
            server.stdin.flush()
            ours.append(float(server.stdout.readline()))
            start = time.perf_counter()
            session.run(None, feed)
            theirs.append(1e3 * (time.perf_counter() - start))
        ours, theirs = ours[3:], theirs[3:]
        ratio = statistics.median(ours) / statistics.median(theirs)
        fast = min(ours) / min(theirs)
        product *= ratio
        fast_product *= fast
        print(f"{path.split('/')[-1]:24} median {statistics.median(ours):8.3f} "
              f"{statistics.median(theirs):8.3f} ms ratio {ratio:.3f}   "
              f"fastest {min(ours):8.3f} {min(theirs):8.3f} ratio {fast:.3f}", flush=True)
    n = len(args.models)
    print(f"geometric mean: medians {product ** (1 / n):.3f}, fastest {fast_product ** (1 / n):.3f}")
    server.stdin.close()


main()
