#!/usr/bin/env python3
"""EMA of quantized.out in exact mode against MNN's own quantizer, run side by side.

    mnn_ema.py [--build build] [CASE...]

For every EMA case of ../shared/reference/mnn (QUENCH_SHARED overrides): seconds of both programs in
this run, the share of activation scales that agree to 1e-6 and to 2 %, of zero points, and of
convolutions whose packed weights are the same bytes; with winogradOpt also the scales of inputs and
weights in Winograd's form that agree to 2 % and 1e-6. Needs the MNN wheel.
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
        if config.get("feature_quantize_method") == "EMA":
            yield folder, config


def convolutions(net):
    """Packed weights -> scales and zero points of input and output, winogradAttr."""
    records, found = {}, {}
    for describe in net.get("extraTensorDescribe", []):
        if describe.get("quantInfo"):
            info = describe["quantInfo"]
            records[describe["index"]] = (info["scale"], info.get("zero", 0))
    for op in net["oplists"]:
        if op.get("main", {}).get("_t") == "Convolution2D":
            ends = [int(op[k][0]) for k in ("inputIndexes", "outputIndexes")]
            weights = op["main"]["quanParameter"]["buffer"].tobytes()
            attr = op["main"]["symmetricQuan"].get("winogradAttr")
            found[weights] = [records[e] for e in ends], attr
    return found


def transformed(ours, theirs):
    """Of two winogradAttr: errors of input scales, of weight scales; None: not comparable."""
    if ours is None or theirs is None or not np.array_equal(ours[:9], theirs[:9]):
        return None
    n = (theirs[5] + theirs[7] - 1) * (theirs[6] + theirs[8] - 1)
    a, b = (np.asarray(v[9:], np.int32).view(np.float32) for v in (ours, theirs))
    return abs(a[:n] / b[:n] - 1), abs(a[2 * n :] / b[2 * n :] - 1)


def winograd_text(pairs):
    both = [transformed(x, y) for x, y in pairs if x is not None or y is not None]
    good = [p for p in both if p is not None]
    if not both:
        return "-"
    if not good:
        return f"0 of {len(both)}"
    share = [np.mean(np.concatenate([p[i] for p in good]) < e) for i, e in ((0, 0.02), (1, 1e-6))]
    return f"{len(good)} of {len(both)}: {share[0]:.1%}, {share[1]:.1%}"


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
    same = [(x, y) for k in a if k in b for x, y in zip(a[k][0], b[k][0])]
    attrs = winograd_text([(a[k][1], b[k][1]) for k in a if k in b])
    off = np.array([abs(x[0] / y[0] - 1) for x, y in same])
    zeros = np.mean([x[1] == y[1] for x, y in same])
    print(f"| {folder.name} | {seconds:.2f} | {original:.2f} | {np.mean(off < 1e-6):.1%} | "
          f"{np.mean(off < 0.02):.1%} | {zeros:.1%} | {len(same) // 2} of {len(b)} | {attrs} |")  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", type=Path, default=Path("build"))
    p.add_argument("cases", nargs="*")
    args = p.parse_args()
    print("| case | s | MNN s | scales to 1e-6 | to 2 % | zero points | weights | Winograd |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for folder, config in cases(args.cases):
        measure(folder, config, args.build, tools()[0])


if __name__ == "__main__":
    main()
