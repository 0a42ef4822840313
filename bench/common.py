"""What the benches share: models and their preprocessing, pictures, onnxruntime runs, statistics.

Material (networks, pictures) is read from QUENCH_SHARED, by default ../shared beside the project.
"""

import csv
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
SHARED = Path(os.environ.get("QUENCH_SHARED", ROOT.parent / "shared"))
AS_AVX2 = BENCH / "as_avx2"

N_CALIBRATION = 100
BUSY_CPUS = 0.1  # other programs' load above which timings deserve a warning
TORCH_MEAN = (123.675, 116.28, 103.53)
TORCH_NORMAL = (0.0171247538, 0.0175070028, 0.0174291939)


@dataclass(frozen=True)
class Family:
    """A network and how its pictures become input: dst = (src - mean) * normal, NCHW."""

    model: str
    input_name: str
    crop: int
    channels: str
    mean: tuple
    normal: tuple
    resize: int = 256

    @property
    def float_path(self):
        return SHARED / "models" / self.model


FAMILIES = {
    "mobilenet": Family(
        "mobilenet-v1-0.25-224/mobilenet_v1_0.25_224.onnx",
        "input", 224, "RGB", (127.5,) * 3, (0.00784313725,) * 3,
    ),
    "squeezenet": Family(
        "squeezenet-v1.1/squeezenet_v1.1.onnx",
        "data", 227, "BGR", (104.0, 117.0, 123.0), (1.0,) * 3,
    ),
    "menet": Family(
        "menet-108-8x1-g3/menet_108_8x1_g3.onnx",
        "input", 224, "RGB", TORCH_MEAN, TORCH_NORMAL,
    ),
}  # fmt: skip


def read_labels(folder):
    """[(file, class index)] of a labelled folder, sorted by file name."""
    with open(folder / "labels.csv", newline="") as f:
        return sorted((row["file"], int(row["class_index"])) for row in csv.DictReader(f))


def resize_shorter(image, side):
    width, height = image.size
    scale = side / min(width, height)
    size = max(side, round(width * scale)), max(side, round(height * scale))
    return image.resize(size, Image.BILINEAR)


def centre_crop(image, side):
    left = (image.width - side) // 2
    top = (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def crop_picture(path, resize, crop):
    with Image.open(path) as image:
        return np.asarray(centre_crop(resize_shorter(image.convert("RGB"), resize), crop))


def normalise(crops, channels, mean, normal):
    """RGB bytes [N, H, W, 3] -> float32 [N, 3, H, W] in the network's channel order."""
    if channels == "BGR":
        crops = crops[..., ::-1]
    x = (crops.astype(np.float32) - np.float32(mean)) * np.float32(normal)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


class Pictures:
    """The 500 labelled pictures, cropped once per size; bytes are kept, floats made per batch."""

    def __init__(self, family, cache):
        self.family = family
        self.folder = SHARED / "images" / "imagenet-500"
        rows = read_labels(self.folder)
        self.files = [name for name, _ in rows]
        self.labels = np.array([label for _, label in rows])
        self.crops = self._cached_crops(Path(cache))

    def _cached_crops(self, cache):
        size = f"{self.family.resize}-{self.family.crop}"
        path = cache / f"imagenet-500-{size}.npy"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            crops = [
                crop_picture(self.folder / f, self.family.resize, self.family.crop)
                for f in self.files
            ]
            part = path.with_suffix(".part.npy")  # never leave half a file under the real name
            np.save(part, np.stack(crops))
            part.replace(path)
        return np.load(path, mmap_mode="r")

    def __len__(self):
        return len(self.files)

    def batch(self, indices):
        f = self.family
        return normalise(self.crops[indices], f.channels, f.mean, f.normal)

    def calibration_indices(self):
        return calibration_indices(len(self))


def calibration_indices(total, count=N_CALIBRATION):
    """Spread evenly over the sorted names, as quench picks them: floor(i * total / count)."""
    count = min(count, total)
    return [i * total // count for i in range(count)]


def calibration_mask(total):
    mask = np.zeros(total, bool)
    mask[calibration_indices(total)] = True
    return mask


def open_session(path, threads=2):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def batch_limit(session, wanted):
    """A model with a fixed batch takes only that; a symbolic one takes what we like."""
    first = session.get_inputs()[0].shape[0]
    return first if isinstance(first, int) else wanted


def run_batches(session, total, make_batch, batch=10):
    """First output's rows over `total` samples; make_batch(indices) gives the input."""
    name = session.get_inputs()[0].name
    step = batch_limit(session, batch)
    starts = range(0, total, step)
    rows = [
        session.run(None, {name: make_batch(list(range(s, min(s + step, total))))})[0]
        for s in starts
    ]
    return np.concatenate(rows)


def top5(scores):
    """Indices of the five best, best first; ties go to the lower index, on every machine."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :5]


@dataclass
class Predictions:
    """Five best classes of every picture [N, 5], with the truth and which were calibrated on."""

    top5: np.ndarray
    labels: np.ndarray
    calibration: np.ndarray
    about: dict

    def save(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            path,
            top5=self.top5.astype(np.int16),
            labels=self.labels.astype(np.int16),
            calibration=self.calibration,
            about=json.dumps(self.about),
        )

    @staticmethod
    def load(path):
        with np.load(path) as f:
            return Predictions(
                f["top5"].astype(int),
                f["labels"].astype(int),
                f["calibration"],
                json.loads(str(f["about"])),
            )

    def subset(self, which):
        keep = {
            "all": np.ones(len(self.labels), bool),
            "calibration": self.calibration,
            "held-out": ~self.calibration,
        }[which]
        return Predictions(self.top5[keep], self.labels[keep], self.calibration[keep], self.about)

    def right(self, k=1):
        return (self.top5[:, :k] == self.labels[:, None]).any(axis=1)

    def accuracy(self, k=1):
        return 100 * float(self.right(k).mean())

    def agreement(self, other):
        return 100 * float((self.top5[:, 0] == other.top5[:, 0]).mean())


def predict(path, pictures, threads=2):
    scores = run_batches(open_session(path, threads), len(pictures), pictures.batch)
    mask = calibration_mask(len(pictures))
    about = {"model": Path(path).name, "onnxruntime": ort.__version__}
    return Predictions(top5(scores), pictures.labels, mask, about)


def binomial_two_sided(k, n):
    """P(at least as uneven as k of n) under a fair coin."""
    tail = sum(math.comb(n, i) for i in range(min(k, n - k) + 1))
    return min(1.0, 2 * tail / 2**n)


def mcnemar(a, b):
    """Exact paired test of two boolean vectors: (only a, only b, two-sided p)."""
    only_a = int((a & ~b).sum())
    only_b = int((b & ~a).sum())
    return only_a, only_b, binomial_two_sided(only_a, only_a + only_b)


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


def markdown_table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def busy_cpus(seconds=1.0):
    """How many CPUs the rest of the machine keeps busy, measured while we sleep."""

    def idle_and_total():
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return fields[3] + fields[4], sum(fields)

    idle, total = idle_and_total()
    time.sleep(seconds)
    idle_after, total_after = idle_and_total()
    return os.cpu_count() * (1 - (idle_after - idle) / max(1, total_after - total))


def warn_when_busy():
    busy = busy_cpus()
    if busy > BUSY_CPUS:
        print(
            f"warning: other programs keep {busy:.1f} of {os.cpu_count()} CPUs busy; timings with "
            "that many threads or more say little",
            file=sys.stderr,
        )


def reenter_masked(mask):
    """Start this very program again under the mask, unless it already runs there."""
    if mask == "none" or os.environ.get("QN_BENCH_MASKED") == mask:
        return
    env = {**os.environ, "QN_MASK_ISA": mask, "QN_BENCH_MASKED": mask}
    os.execve(AS_AVX2, [str(AS_AVX2), sys.executable, *sys.argv], env)
