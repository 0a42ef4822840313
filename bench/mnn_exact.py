#!/usr/bin/env python3
"""Exact mode of quantized.out against files of MNN's own quantizer.

    mnn_exact.py [--build build] [--fixed-points] [CASE...]
    mnn_exact.py [--build build] --networks [NAME...]

Runs every KL and ADMM case of ../shared/reference/mnn (QUENCH_SHARED overrides) through
`quantized.out SRC DST CONFIG --exact-mnn` and prints per case: how many scales of DST.json agree to
0.1 % and to 2 % and how many KL thresholds lie within one bin; how many integers and scales of
weights are equal, and packed buffers byte for byte; and what else differs in the two trees once
scales are left out. --fixed-points also iterates feature ADMM over all values in double and says
which scale is nearer. --networks runs MNN's quantizer, from its wheel, on other networks too and
compares scales.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("QUENCH_SHARED", ROOT.parent / "shared"))
REFERENCE = SHARED / "reference" / "mnn"
BINS = 2048


def tools():
    """Readers of .mnn files that do not come from this project."""
    sys.path.insert(0, str(SHARED / "tools" / "mnn"))
    import idst
    import mnnread

    return mnnread, idst


def cases():
    """Cases of methods that exact mode restores."""
    for folder in sorted(REFERENCE.iterdir()):
        if not (folder / "config.json").exists() or not (folder / "quant.mnn").exists():
            continue
        config = json.loads((folder / "config.json").read_text())
        if config.get("feature_quantize_method", "KL") != "EMA":
            yield folder, config


def source_of(folder):
    name = re.search(r">>> modelFile: (\S+)", (folder / "tool.log").read_text()).group(1)
    # (the converted RFB-320 had another name when the reference was made)
    return REFERENCE / "models" / {"rfb-onnx.mnn": "RFB-320-nchw.mnn"}.get(name, Path(name).name)


def run_case(folder, config, build, out, options=("--exact-mnn",)):
    """Runs the command with just the case's pictures; returns (DST, seconds, config, stdout)."""
    images = Path(config["path"].rstrip("/"))
    listed = folder / "pictures.txt"
    if listed.exists():
        target = out / images
        target.mkdir(parents=True)
        for name in listed.read_text().split():
            (target / Path(name).name).symlink_to(SHARED / images / Path(name).name)
    else:
        (out / "images").symlink_to(SHARED / "images")
    (out / "config.json").write_text(json.dumps(config))
    command = [str((build / "quantized.out").resolve()), str(source_of(folder)), "quant.mnn"]
    begin = time.time()
    done = subprocess.run(
        [*command, "config.json", *options], cwd=out, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise RuntimeError(f"{folder.name}: {done.stderr.strip()}")
    return out / "quant.mnn", time.time() - begin, done.stdout


def json_scales(path):
    scales = {}
    for op in json.loads(Path(path).read_text()):
        for side in ("inputs", "outputs"):
            for t in op.get(side, []):
                scales[t["tensorIndex"]] = t["scales"][0]
    return scales


def largest_values(folder, build, out):
    tool = (build / "tests" / "mnn_values").resolve()
    text = subprocess.run(
        [tool, source_of(folder), "config.json"], cwd=out, capture_output=True, text=True, check=True
    ).stdout
    return {int(line.split()[0]): float(line.split()[1]) for line in text.splitlines()}


def convolutions(net):
    for index, op in enumerate(net["oplists"]):
        main = op.get("main", {})
        if main.get("_t") == "Convolution2D":
            yield index, main


def compare_weights(ours, theirs, idst):
    """Counts over all layers: weights, equal integers, scales, equal scales, packed buffers that
    are equal though nothing about the integers differs, layers with equal integers."""
    sums = dict(layers=0, weights=0, equal=0, scales=0, equal_scales=0, same=0, packed=0, floats=0)
    mine = dict(convolutions(ours))
    for index, main in convolutions(theirs):
        twin = mine[index]
        if "quanParameter" not in main:
            sums["floats"] += "weight" not in main or np.array_equal(main["weight"], twin.get("weight"))
            continue
        a, b = twin.get("quanParameter"), main["quanParameter"]
        sums["layers"] += 1
        p, q = idst.decode(a)[1], idst.decode(b)[1]
        sums["weights"] += q.size
        sums["equal"] += int((p == q).sum())
        sums["scales"] += len(b["alpha"])
        sums["equal_scales"] += int((a["alpha"] == b["alpha"]).sum())
        if np.array_equal(p, q):
            sums["same"] += 1
            sums["packed"] += np.array_equal(a["buffer"], b["buffer"])
    return sums


SCALES = {"scale", "scaleIn", "scaleOut", "tableInt8"}


def differences(a, b, schema, name="Net", path=""):
    """Paths at which two trees differ; scalars that are absent have their default."""
    fields = {f: (kind, default) for f, _, kind, default in schema["tables"][name]}
    for field in sorted((a.keys() | b.keys()) - {"_t"}):
        kind, default = fields.get(field, (None, None))
        x, y = a.get(field), b.get(field)
        here = f"{path}.{field}"
        if field in SCALES and x is not None and y is not None:
            continue
        if isinstance(x, dict) and isinstance(y, dict):
            if x["_t"] != y["_t"]:
                yield here
            else:
                yield from differences(x, y, schema, x["_t"], here)
        elif isinstance(x, list) and isinstance(y, list) and x and isinstance(x[0], dict):
            if len(x) != len(y):
                yield f"{here} ({len(x)} and {len(y)})"
            else:
                for i, (u, v) in enumerate(zip(x, y)):
                    yield from differences(u, v, schema, v["_t"], f"{here}[{i}]")
        elif isinstance(x, np.ndarray) or isinstance(y, np.ndarray):
            empty = np.zeros(0)
            if not np.array_equal(empty if x is None else x, empty if y is None else y):
                yield here
        elif x is None or y is None:
            given = y if x is None else x
            if isinstance(given, (int, float, bool)) and given == default_value(schema, kind, default):
                continue
            if given not in ([], ""):
                yield here
        elif x != y:
            yield here


def default_value(schema, kind, text):
    """A scalar's default; None where it is not a number."""
    if kind in schema["enums"]:
        values = dict(schema["enums"][kind][1])
        return values.get(text, 0 if text is None else None)
    if text is None or text in ("true", "false"):
        return float(text == "true")
    number = re.fullmatch(r"-?[0-9.]+f?", text)
    return float(text.rstrip("f")) if number else None


def fixed_point(values, levels):
    """300 alternations in double, over sorted magnitudes with running sums."""
    x = np.sort(np.abs(values).astype(np.float64))
    above = np.concatenate([np.cumsum(x[::-1])[::-1], [0]])
    a = x[-1] / (2.5 * levels)
    k = np.arange(levels)
    for _ in range(300):
        at = np.searchsorted(x, (k + 0.5) * a, side="left")
        a = above[at].sum() / ((2 * k + 1) * (len(x) - at)).sum()
    return a


def compare_fixed_points(folder, config, build, out, ours, theirs):
    """How often our scale is the nearer one, or exact; the largest relative distances of both."""
    tool = (build / "tests" / "mnn_values").resolve()
    nearer, worst = 0, [0.0, 0.0]
    ids = sorted(i for i in ours.keys() & theirs.keys() if ours[i] and theirs[i])
    for i in ids:
        raw = subprocess.run(
            [tool, source_of(folder), "config.json", str(i)], cwd=out, capture_output=True, check=True
        ).stdout
        if not raw:
            continue
        a = fixed_point(np.frombuffer(raw, "<f4"), int(config.get("feature_clamp_value", 127)))
        d = [abs(s / a - 1) for s in (ours[i], theirs[i])]
        nearer += d[0] <= max(d[1], 1e-6)  # (a scale is a float32)
        worst = [max(worst[0], d[0]), max(worst[1], d[1])]
    return len(ids), nearer, worst


def share(flags):
    flags = list(flags)
    return sum(flags) / len(flags) if flags else 1.0


def measure(folder, config, build, fixed_points=False):
    """All figures of a case, as a dict."""
    mnnread, idst = tools()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        dst, seconds, log = run_case(folder, config, build, out)
        ours = json_scales(f"{dst}.json")
        theirs = json_scales(folder / "quant.mnn.json")
        both = sorted(i for i in ours.keys() & theirs.keys() if theirs[i] > 0)
        distance = {i: abs(ours[i] / theirs[i] - 1) for i in both}
        result = dict(
            case=folder.name,
            seconds=seconds,
            log=log,
            scales=len(both),
            missing=sorted(i for i in theirs if theirs[i] > 0 and not ours.get(i)),
            extra=sorted(i for i in ours if ours[i] > 0 and not theirs.get(i)),
            within_01=share(d < 1e-3 for d in distance.values()),
            within_2=share(d < 2e-2 for d in distance.values()),
            worst=max(distance.values(), default=0.0),
            same_json=Path(f"{dst}.json").read_bytes() == (folder / "quant.mnn.json").read_bytes(),
        )
        if config.get("feature_quantize_method", "KL") == "KL":
            largest = largest_values(folder, build, out)
            clamp = int(config.get("feature_clamp_value", 127))
            bins = [
                abs(ours[i] - theirs[i]) * clamp * BINS / largest[i] for i in both if largest.get(i)
            ]
            result["within_bin"] = share(b < 1.1 for b in bins)
            result["bins"] = max(bins, default=0.0)
        elif fixed_points:
            result["fixed"] = compare_fixed_points(folder, config, build, out, ours, theirs)
        a, b = mnnread.load(dst), mnnread.load(folder / "quant.mnn")
        result["weights"] = compare_weights(a, b, idst)
        result["tree"] = list(differences(a, b, mnnread.S))
    return result


# model, folder of pictures, how many, width and height
NETWORKS = {
    "squeezenet": ("squeezenet-v1.1/squeezenet_v1.1.mnn", "imagenet-500", 6, 224),
    "mobilenet": ("mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.mnn", "imagenet-500", 6, 224),
    "menet": ("menet-108-8x1-g3/menet_108_8x1_g3.mnn", "imagenet-500", 6, 224),
    "vww": ("mlperf-vww96/vww_96_float.mnn", "vww-500", 6, 96),
    "resnet20": ("resnet20-cifar10/resnet20_cifar10.mnn", "cifar10-png", 10, 32),
}
RIVAL = "import sys, _tools; _tools.mnnquant(['mnnquant', *sys.argv[1:]])"


def compare_networks(names, build):
    for name in names or NETWORKS:
        file, images, count, side = NETWORKS[name]
        model = str(SHARED / "models" / file)
        config = dict(format="RGB", mean=[127.5] * 3, normal=[0.0078125] * 3, width=side, height=side, path="p/",
                      feature_quantize_method="KL", weight_quantize_method="MAX_ABS")  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            (out / "p").mkdir()
            pictures = [p for p in (SHARED / "images" / images).iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")]
            for picture in sorted(pictures)[:count]:
                (out / "p" / picture.name).symlink_to(picture)
            (out / "c.json").write_text(json.dumps(config))
            tool = [str((build / "quantized.out").resolve()), model, "a.mnn", "c.json", "--exact-mnn"]
            rival = [sys.executable, "-c", RIVAL, model, "b.mnn", "c.json"]
            for command in (tool, rival):
                subprocess.run(command, cwd=out, check=True, capture_output=True)
            ours, theirs = json_scales(out / "a.mnn.json"), json_scales(out / "b.mnn.json")
        off = {i: abs(ours.get(i, 0) / s - 1) for i, s in theirs.items() if s > 0}
        worst = max(off, key=off.get)
        print(f"{name}: {len(off)} scales, within 0.1 % {sum(d < 1e-3 for d in off.values())},"
              f" worst {off[worst]:.2e} (tensor {worst})")  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--build", type=Path, default=ROOT / "build")
    p.add_argument("--fixed-points", action="store_true")
    p.add_argument("--networks", action="store_true")
    p.add_argument("case", nargs="*")
    args = p.parse_args()
    if args.networks:
        compare_networks(args.case, args.build)
        return
    for folder, config in cases():
        if args.case and folder.name not in args.case:
            continue
        r = measure(folder, config, args.build, args.fixed_points)
        w = r["weights"]
        print(f"{r['case']}: {r['seconds']:.2f} s")
        print(
            f"  scales: {r['scales']}, within 0.1 % {r['within_01']:.1%}, 2 % {r['within_2']:.1%},"
            f" worst {r['worst']:.1e}; missing {r['missing']}, extra {r['extra']};"
            f" DST.json {'the same' if r['same_json'] else 'another'}"
        )
        if "within_bin" in r:
            print(f"  thresholds within one bin {r['within_bin']:.1%}, worst {r['bins']:.1f} bins")
        if "fixed" in r:
            n, nearer, worst = r["fixed"]
            print(
                f"  fixed point: nearer in {nearer} of {n}; furthest {worst[0]:.2e}"
                f" (the original {worst[1]:.2e})"
            )
        print(
            f"  weights: {w['layers']} layers, integers {w['equal']} of {w['weights']}, scales"
            f" {w['equal_scales']} of {w['scales']}, packed {w['packed']} of {w['same']},"
            f" float layers equal {w['floats']}"
        )
        print(f"  other differences: {r['tree'][:6] or 'none'}")


if __name__ == "__main__":
    main()
