#!/usr/bin/env python3
"""EMA of quantized.out in exact mode against MNN's own quantizer, run side by side.

    mnn_ema.py [--build build] [CASE...]

For every EMA case of ../shared/reference/mnn (QUENCH_SHARED overrides) without winogradOpt: seconds
of both programs in this run, the share of activation scales that agree to 1e-6 and to 2 %, of zero
points, and of convolutions whose packed weights are the same bytes. Needs the MNN wheel.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from mnn_exact import REFERENCE, run_case, source_of, tools


def cases(wanted):
    for folder in sorted(REFERENCE.iterdir()):
        if not (folder / "config.json").exists() or (wanted and folder.name not in wanted):
            continue
        config = json.loads((folder / "config.json").read_text())
        if config.get("feature_quantize_method") == "EMA" and config.get("winogradOpt") is False:
            yield folder, config


def convolutions(net):
    """Packed weights -> scales and zero points of input and output."""
    records, found = {}, {}
    for describe in net.get("extraTensorDescribe", []):
        if describe.get("quantInfo"):
            info = describe["quantInfo"]
            records[describe["index"]] = (info["scale"], info.get("zero", 0))
    for op in net["oplists"]:
        if op.get("main", {}).get("_t") == "Convolution2D":
            ends = [int(op[k][0]) for k in ("inputIndexes", "outputIndexes")]
            weights = op["main"]["quanParameter"]["buffer"].tobytes()
            found[weights] = [records[e] for e in ends]
    return found


def run_original(source, config, out):
    settings = out.with_suffix(".json")
    settings.write_text(json.dumps(config))
    arguments = ["mnnquant", str(source), str(out), str(settings)]
    start = time.monotonic()
    subprocess.run([sys.executable, "-c", f"import _tools; _tools.mnnquant({arguments!r})"], check=True,
                   capture_output=True, cwd=out.parent)  # fmt: skip
    return time.monotonic() - start


def measure(folder, config, build, mnnread):
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        ours, seconds, _ = run_case(folder, config, build, out)
        theirs = out / "original.mnn"
        original = run_original(source_of(folder), config, theirs)
        a, b = (convolutions(mnnread.R(p.read_bytes()).root()) for p in (ours, theirs))
    same = [(x, y) for k in a if k in b for x, y in zip(a[k], b[k])]
    off = np.array([abs(x[0] / y[0] - 1) for x, y in same])
    zeros = np.mean([x[1] == y[1] for x, y in same])
    print(f"| {folder.name} | {seconds:.2f} | {original:.2f} | {np.mean(off < 1e-6):.1%} | "
          f"{np.mean(off < 0.02):.1%} | {zeros:.1%} | {len(same) // 2} of {len(b)} |")  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", type=Path, default=Path("build"))
    p.add_argument("cases", nargs="*")
    args = p.parse_args()
    print("| case | s | MNN s | scales to 1e-6 | to 2 % | zero points | weights |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for folder, config in cases(args.cases):
        measure(folder, config, args.build, tools()[0])


if __name__ == "__main__":
    main()
