"""Decoding and resizing against Pillow, datasets against the same steps in NumPy."""

import os
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}


@pytest.fixture(scope="session")
def tools():
    """Folder of image_dump and dataset_dump, built beside the command line tool."""
    binary = pathlib.Path(os.environ.get("QUENCH_BIN", ROOT / "build" / "quench"))
    folder = binary.parent / "tests"
    if not (folder / "image_dump").exists():
        pytest.skip(f"{folder}/image_dump is not built (QN_TESTS=ON)")
    return folder


def image_dump(tools, *args):
    done = subprocess.run([tools / "image_dump", *map(str, args)], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    head, pixels = done.stdout.split(b"\n", 1)
    width, height, channels = map(int, head.split())
    return np.frombuffer(pixels, np.uint8).reshape(height, width, channels).astype(int)


def dataset_dump(tools, dims, **options):
    """All samples of a dataset, and the lines it printed."""
    args = [f"{key.replace('_', '-')}={value}" for key, value in options.items()]
    done = subprocess.run([tools / "dataset_dump", dims, *args], capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    shape = [int(d) for d in dims.split(",")][1:]
    return np.frombuffer(done.stdout, np.float32).reshape(-1, *shape), done.stderr.decode().split("\n")


def noise(width, height, seed, smooth=False):
    rng = np.random.default_rng(seed)
    if not smooth:
        return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    small = rng.integers(0, 256, (max(height // 8, 2), max(width // 8, 2), 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def check_decoded(tools, path, level=0):
    """Equal to what Pillow's convert gives, within `level`."""
    with Image.open(path) as image:
        for mode, channels in (("RGB", 3), ("L", 1)):
            wanted = np.asarray(image.convert("RGB").convert(mode)).astype(int)
            got = image_dump(tools, path, channels).reshape(wanted.shape)
            assert np.abs(got - wanted).max() <= level, f"{path.name} as {mode}"


JPEG = {
    "plain": {},
    "no_subsampling": {"subsampling": 0},
    "half_subsampling": {"subsampling": 1},
    "low_quality": {"quality": 20},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "restart": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 33), (101, 64)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("variant", JPEG)
def test_jpeg_equals_pillow(tools, tmp_path, size, mode, variant):
    path = tmp_path / "x.jpg"
    noise(*size, 1, smooth=True).convert(mode).save(path, **{"quality": 88, **JPEG[variant]})
    check_decoded(tools, path, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (40, 31)])
def test_png_equals_pillow(tools, tmp_path, mode, size):
    path = tmp_path / "x.png"
    image = noise(*size, 2)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(np.asarray(noise(*size, 3))[:, :, 0]))
    image = image.quantize(7) if mode == "P" else image.convert(mode)
    image.save(path)
    check_decoded(tools, path)


def test_png_with_16_bits_keeps_the_high_byte(tools, tmp_path):
    path = tmp_path / "x.png"
    values = np.random.default_rng(4).integers(0, 65536, (11, 13), dtype=np.uint16)
    Image.fromarray(values).save(path)
    assert (image_dump(tools, path, 1)[:, :, 0] == values >> 8).all()


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 30}, {"quality": 95}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_webp_equals_pillow(tools, tmp_path, options, mode):
    path = tmp_path / "x.webp"
    image = noise(50, 39, 5, smooth=True)
    if mode == "RGBA":
        image.putalpha(200)
    image.save(path, **options)
    check_decoded(tools, path, 1)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (9, 7), (33, 20)])
def test_bmp_equals_pillow(tools, tmp_path, mode, size):
    path = tmp_path / "x.bmp"
    image = noise(*size, 6)
    image = image.quantize(11) if mode == "P" else image.convert(mode)
    image.save(path)
    check_decoded(tools, path)


def test_bmp_of_16_and_4_bits_equals_pillow(tools, tmp_path):
    rng = np.random.default_rng(7)

    def write(name, bits, compression, extra, palette_size, rows):
        offset = 14 + 40 + len(extra)
        info = np.array([40, 9, 5], "<u4").tobytes() + np.array([1, bits], "<u2").tobytes()
        info += np.array([compression, len(rows), 2835, 2835, palette_size, 0], "<u4").tobytes()
        head = b"BM" + np.array([offset + len(rows), 0, offset], "<u4").tobytes()
        (tmp_path / name).write_bytes(head + info + extra + rows)
        return tmp_path / name

    rows16 = rng.integers(0, 256, 5 * 20, dtype=np.uint8).tobytes()
    check_decoded(tools, write("555.bmp", 16, 0, b"", 0, rows16), 1)
    masks = np.array([0xF800, 0x07E0, 0x001F], "<u4").tobytes()
    check_decoded(tools, write("565.bmp", 16, 3, masks, 0, rows16), 1)
    palette = rng.integers(0, 256, (16, 4), dtype=np.uint8)
    palette[:, 3] = 0
    rows4 = rng.integers(0, 256, 5 * 8, dtype=np.uint8).tobytes()
    check_decoded(tools, write("4.bmp", 4, 0, palette.tobytes(), 16, rows4))


@pytest.mark.parametrize("magic,maximum", [("P2", 255), ("P3", 255), ("P3", 100), ("P5", 255),
                                           ("P6", 255), ("P6", 100), ("P6", 65535), ("P6", 1000)])
def test_pnm_equals_pillow(tools, tmp_path, magic, maximum):
    channels = 3 if magic in ("P3", "P6") else 1
    values = np.random.default_rng(8).integers(0, maximum + 1, (6, 11, channels))
    head = f"{magic}\n# comment\n11 6\n{maximum}\n".encode()
    if magic in ("P2", "P3"):
        data = "\n".join(map(str, values.ravel())).encode()
    else:
        data = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    path = tmp_path / "x.ppm"
    path.write_bytes(head + data)
    check_decoded(tools, path, 1 if maximum != 255 else 0)


SIZES = [(224, 224), (256, 341), (31, 200), (200, 31), (1, 1), (500, 120), (97, 400), (640, 480)]


@pytest.mark.parametrize("source", [(171, 128), (128, 171), (300, 40), (3, 5), (224, 224)])
@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_equals_pillow(tools, tmp_path, source, name, channels):
    path = tmp_path / "x.png"
    image = noise(*source, 9)
    image.save(path)
    image = image.convert("L" if channels == 1 else "RGB")
    for size in SIZES:
        wanted = np.asarray(image.resize(size, FILTERS[name])).astype(int)
        got = image_dump(tools, path, channels, f"{size[0]}x{size[1]}", name)
        assert np.abs(got.reshape(wanted.shape) - wanted).max() <= 1, size


@pytest.mark.parametrize("source", [(60, 45), (7, 90), (1, 1)])
def test_plain_bilinear_has_two_taps_at_half_pixel_centres(tools, tmp_path, source):
    path = tmp_path / "x.png"
    image = noise(*source, 10)
    image.save(path)
    pixels = np.asarray(image).astype(np.float64)

    def taps(n_in, n_out):
        at = np.clip((np.arange(n_out) + 0.5) * n_in / n_out - 0.5, 0, n_in - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, n_in - 1), at - low

    for width, height in [(32, 32), (100, 20), (61, 46)]:
        x0, x1, fx = taps(source[0], width)
        y0, y1, fy = taps(source[1], height)
        rows = pixels[y0] * (1 - fy)[:, None, None] + pixels[y1] * fy[:, None, None]
        wanted = rows[:, x0] * (1 - fx)[None, :, None] + rows[:, x1] * fx[None, :, None]
        got = image_dump(tools, path, 3, f"{width}x{height}", "bilinear-plain")
        assert np.abs(got - wanted).max() <= 1


@pytest.mark.parametrize("channels", ["RGB", "BGR", "GRAY"])
def test_shorter_side_and_crop_as_documented(tools, tmp_path, channels):
    mean, normal = ([104.0, 117.0, 123.0], [0.5, 0.25, 2.0]) if channels != "GRAY" else ([9.0], [0.1])
    wanted = []
    for i, size in enumerate([(90, 61), (61, 90), (70, 70), (64, 200), (40, 50)]):
        image = noise(*size, i)
        image.save(tmp_path / f"{i}.png")
        image = image.convert("L") if channels == "GRAY" else image
        scale = 48 / min(size)
        size = tuple(int(np.floor(s * scale + 0.5)) for s in size)
        image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (size[0] - 40) // 2, (size[1] - 44) // 2
        pixels = np.asarray(image.crop((left, top, left + 40, top + 44)), np.float32)
        pixels = pixels.reshape(44, 40, -1)
        if channels == "BGR":
            pixels = pixels[:, :, ::-1]
        wanted.append((pixels - np.float32(mean)) * np.float32(normal))
    wanted = np.stack(wanted).transpose(0, 3, 1, 2)
    got, _ = dataset_dump(
        tools, f"1,{len(mean)},44,40", images=tmp_path, resize=48, crop="40x44", channels=channels,
        mean=",".join(map(str, mean)), normal=",".join(map(str, normal)),
    )
    assert np.array_equal(got, wanted)


def test_nhwc_and_letterbox(tools, tmp_path):
    image = noise(60, 20, 1)
    image.save(tmp_path / "a.png")
    got, _ = dataset_dump(tools, "1,32,32,3", images=tmp_path, letterbox="32x32")
    wanted = np.full((32, 32, 3), 114, np.float32)
    wanted[10:21] = np.asarray(image.resize((32, 11), Image.Resampling.BILINEAR))
    assert np.array_equal(got[0], wanted)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8", "u1", "i1", ">i2", "<u2", "<i4", ">i8", "?"])
def test_npy_of_every_type(tools, tmp_path, dtype):
    values = np.random.default_rng(3).integers(0, 100, (5, 4, 3)).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    got, lines = dataset_dump(tools, "1,4,3", data=tmp_path / "x.npy")
    assert np.array_equal(got, values.astype(np.float32))
    assert lines[0] == "row 0\t-1"


def test_real_pictures_equal_pillow(tools, shared):
    folder = shared / "images" / "imagenet-500"
    for path in sorted(folder.glob("*.JPEG"))[::25]:
        check_decoded(tools, path, 1)


def test_real_labels(tools, shared):
    got, lines = dataset_dump(
        tools, "1,3,8,8", labels=shared / "images" / "imagenet-500" / "labels.csv", count=10,
        resize="8x8",
    )
    assert len(got) == 10
    assert lines[0].startswith("n01440764_tench.JPEG\t0")
