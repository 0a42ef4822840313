#!/usr/bin/env python3
"""Top-1, top-5 and agreement to the float network of ONNX files, by onnxruntime.

    eval_onnx.py --family mobilenet --out DIR quantized.onnx [more.onnx ...]
    eval_onnx.py --family mobilenet --out DIR --mask avx2 --against DIR/rival.npz quantized.onnx

All 500 pictures are run; --pictures says which are counted (the 400 not calibrated on, by
default). The predictions of each file are kept in DIR as STEM.MASK.npz for later paired tests.
"""

import argparse
import json
from pathlib import Path

import common


def parse_arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("models", nargs="+", type=Path)
    p.add_argument("--family", required=True, choices=common.FAMILIES)
    p.add_argument("--out", required=True, type=Path, help="where predictions are kept")
    p.add_argument("--cache", type=Path, help="where prepared pictures are kept (default: OUT)")
    p.add_argument("--pictures", default="held-out", choices=("held-out", "calibration", "all"))
    p.add_argument("--mask", default="none", choices=("none", "avx512", "avx2", "sse4"))
    p.add_argument("--float", type=Path, help="the float network (default: the family's)")
    p.add_argument("--against", type=Path, help="predictions (.npz) for an exact paired test")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return p.parse_args()


def float_predictions(args, pictures):
    """The float network's own predictions, run once and kept; always under the same mask."""
    family = common.FAMILIES[args.family]
    path = args.float or family.float_path
    kept = args.out / f"{args.family}-{path.stem}.float.{args.mask}.npz"
    if not kept.exists():
        common.predict(path, pictures, args.threads).save(kept)
    return common.Predictions.load(kept)


def rival_predictions(args, pictures):
    if not args.against:
        return None
    rival = common.Predictions.load(args.against)
    if rival.labels.tolist() != pictures.labels.tolist():
        raise SystemExit(f"error: {args.against}: predictions of other pictures")
    return rival.subset(args.pictures)


def evaluate(model, args, pictures, reference, rival):
    predictions = common.predict(model, pictures, args.threads)
    predictions.about.update(mask=args.mask, family=args.family)
    predictions.save(args.out / f"{model.stem}.{args.mask}.npz")
    counted = predictions.subset(args.pictures)
    result = {
        "model": model.stem,
        "pictures": len(counted.labels),
        "top1": counted.accuracy(),
        "top5": counted.accuracy(5),
        "agreement": counted.agreement(reference),
    }
    if rival:
        result["paired"] = paired(counted, rival, reference)
    return result


def paired(ours, theirs, reference):
    """Exact tests on the same pictures: who is right, and who says what the float network says."""
    float_says = reference.top5[:, 0]
    same = [p.top5[:, 0] == float_says for p in (ours, theirs)]
    names = ("only_ours", "only_theirs", "p")
    return {
        "top1": dict(zip(names, common.mcnemar(ours.right(), theirs.right()), strict=True)),
        "agreement": dict(zip(names, common.mcnemar(*same), strict=True)),
    }


def print_results(results, reference, args):
    head = ["model", "pictures", "top-1 %", "top-5 %", "agreement %"]
    rows = [
        ["float", len(reference.labels), f"{reference.accuracy():.2f}",
         f"{reference.accuracy(5):.2f}", ""]
    ] + [
        [r["model"], r["pictures"], f"{r['top1']:.2f}", f"{r['top5']:.2f}", f"{r['agreement']:.2f}"]
        for r in results
    ]  # fmt: skip
    print(common.markdown_table(head, rows))
    for r in results:
        for what, t in r.get("paired", {}).items():
            print(
                f"{r['model']} against {args.against.stem}, {what}: right alone "
                f"{t['only_ours']} : {t['only_theirs']}, exact p = {t['p']:.3g}"
            )


def main():
    args = parse_arguments()
    common.reenter_masked(args.mask)
    pictures = common.Pictures(common.FAMILIES[args.family], args.cache or args.out)
    reference = float_predictions(args, pictures).subset(args.pictures)
    rival = rival_predictions(args, pictures)
    results = [evaluate(m, args, pictures, reference, rival) for m in args.models]
    if args.json:
        about = {"family": args.family, "mask": args.mask, "pictures": args.pictures}
        base = {"top1": reference.accuracy(), "top5": reference.accuracy(5)}
        print(json.dumps({**about, "float": base, "results": results}))
    else:
        print_results(results, reference, args)


if __name__ == "__main__":
    main()
