#!/usr/bin/env python3
"""The default mode of quantized.out beside MNN's own quantizer, both files in MNN's runtime.

    mnn_default.py [--build build] [--all] [CASE...]

Every case of ../shared/reference/mnn (QUENCH_SHARED overrides) goes through
`quantized.out SRC DST CONFIG`. The float model, the file of MNN's quantizer and ours then answer
the evaluation pictures of the case (6 faces or 30 CIFAR pictures, the first by name) in the MNN
wheel, in one process. Printed per output: mean and lowest cosine to the float outputs, largest
error; for classifiers how many answers are those of the float model; and how many convolutions
ran in int8. --all also evaluates on all pictures of the folder.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import mnn_eval
import mnn_exact

EVALUATE = {"faces": 6, "cifar10-calib50": 30}
# the pictures behind folders of lossless copies
TWINS = {"faces-png": "faces", "cifar10-png": "cifar10-calib50"}


def cases():
    for folder in sorted(mnn_exact.REFERENCE.iterdir()):
        if (folder / "config.json").exists() and (folder / "quant.mnn").exists():
            yield folder, json.loads((folder / "config.json").read_text())


def pictures(config, nhwc, count=None):
    """Evaluation inputs: resized with Pillow, then the configuration's preprocessing."""
    name = Path(config["path"].rstrip("/")).name
    name = TWINS.get(name, name)
    folder = mnn_exact.SHARED / "images" / name
    files = sorted(p for p in folder.iterdir() if p.suffix in (".jpg", ".png"))
    for path in files[: count or EVALUATE[name]]:
        image = Image.open(path).convert("RGB")
        image = image.resize((config["width"], config["height"]), Image.BILINEAR)
        x = np.asarray(image, np.float32)
        if config.get("format", "BGR") == "BGR":
            x = x[..., ::-1]
        x = (x - np.float32(config["mean"])) * np.float32(config["normal"])
        yield x[None] if nhwc else x.transpose(2, 0, 1)[None]


def paired(outputs, names):
    """Outputs in the order of the float model's; some files have lost the names: then by size."""
    if set(outputs) == set(names):
        return [outputs[n] for n in names]
    by_size = {o.size: o for o in outputs.values()}
    return [by_size[s] for s in names.values()]


def errors(source, files, inputs):
    """Per file and output (mean cosine, lowest cosine, largest error), equal answers, int8 share."""
    nets = [mnn_eval.Net(f) for f in (source, *files)]
    rows = []
    for x in inputs:
        exact = nets[0](x)
        names = {n: o.size for n, o in exact.items()}
        want = [o.astype(np.float64).ravel() for o in exact.values()]
        rows.append([])
        for net in nets[1:]:
            got = [o.astype(np.float64).ravel() for o in paired(net(x), names)]
            rows[-1].append([
                (mnn_eval.cosine(a, b), np.abs(a - b).max(), a.argmax() == b.argmax())
                for a, b in zip(want, got)
            ])  # fmt: skip
    table = np.array(rows, np.float64)  # picture, file, output, figure
    result = []
    for i, net in enumerate(nets[1:]):
        outputs = {
            n: dict(cosine=table[:, i, k, 0].mean(), lowest=table[:, i, k, 0].min(),
                    largest=table[:, i, k, 1].max(), agree=table[:, i, k, 2].mean())
            for k, n in enumerate(names)
        }  # fmt: skip
        result.append(dict(outputs=outputs, int8=net.convolutions()))
    return result


def measure(folder, config, build, count=None):
    """(ours, MNN's) on the case's evaluation pictures."""
    source = mnn_exact.source_of(folder)
    with tempfile.TemporaryDirectory() as name:
        dst, seconds, _ = mnn_exact.run_case(folder, config, build, Path(name), ())
        inputs = pictures(config, "resnet8" in source.name, count)
        ours, theirs = errors(source, (dst, folder / "quant.mnn"), inputs)
    return ours, theirs, seconds


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", type=Path, default=mnn_exact.ROOT / "build")
    p.add_argument("--all", action="store_true", help="evaluate on all pictures of the folder")
    p.add_argument("case", nargs="*")
    args = p.parse_args()
    print("| case | output | mean cosine, ours | MNN's | lowest, ours | MNN's | largest error, ours | MNN's "
          "| same answer, ours | MNN's | int8, ours | MNN's | |")  # fmt: skip
    print("|" + " --- |" * 13)
    worse = 0
    for folder, config in cases():
        if args.case and folder.name not in args.case:
            continue
        ours, theirs, _ = measure(folder, config, args.build, 1000 if args.all else None)
        for name, a in ours["outputs"].items():
            b = theirs["outputs"][name]
            below = a["cosine"] < b["cosine"]
            worse += below
            same = lambda r: f"{100 * r['agree']:.0f} %" if len(ours["outputs"]) == 1 else ""
            print(f"| {folder.name} | {name} | {a['cosine']:.6f} | {b['cosine']:.6f} | {a['lowest']:.6f} "
                  f"| {b['lowest']:.6f} | {a['largest']:.4f} | {b['largest']:.4f} | {same(a)} | {same(b)} "
                  f"| {'/'.join(map(str, ours['int8']))} | {'/'.join(map(str, theirs['int8']))} "
                  f"| {'**below**' if below else ''} |", flush=True)  # fmt: skip
    print(f"\n{worse} outputs below MNN's cosine", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
