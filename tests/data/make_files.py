"""Writes tests/data/files: one small picture or array per format and variant.

    python tests/data/make_files.py

Needs numpy and Pillow. The files are committed; running this again may change JPEG and WebP bytes
when Pillow's libraries change, which no test depends on.
"""

import pathlib

import numpy as np
from PIL import Image

FOLDER = pathlib.Path(__file__).parent / "files"


def picture(height, width, channels=3):
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * 23 + y * 7) % 256, (x * 5 + y * 31) % 256, (x * y * 3) % 256]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def main():
    FOLDER.mkdir(exist_ok=True)
    rgb = picture(9, 13)
    color = Image.fromarray(rgb)
    gray = color.convert("L")
    save = lambda image, name, **kwargs: image.save(FOLDER / name, **kwargs)

    save(color, "color.jpg", quality=90)
    save(color, "progressive.jpg", quality=90, progressive=True)
    save(gray, "gray.jpg", quality=90)
    save(color.convert("CMYK"), "cmyk.jpg", quality=90)
    save(color, "color.png")
    save(gray, "gray.png")
    save(gray.convert("1"), "bits1.png")
    save(color.quantize(16), "palette.png")
    save(color.convert("RGBA"), "alpha.png")
    save(Image.fromarray(rgb[:, :, 0].astype(np.uint16) * 256 + 77), "gray16.png")
    save(color, "lossy.webp", quality=80)
    save(color, "lossless.webp", lossless=True)
    save(color.convert("RGBA"), "alpha.webp", lossless=True)
    save(color, "color24.bmp")
    save(color.quantize(16), "palette8.bmp")
    save(gray.convert("1"), "bits1.bmp")
    save(color.convert("RGBA"), "color32.bmp")
    save(color, "raw.ppm")
    save(gray, "raw.pgm")
    save(gray.convert("1"), "raw.pbm")

    def plain(name, magic, array, maximum):
        height, width = array.shape[:2]
        head = f"{magic}\n# a comment\n{width} {height}\n" + (f"{maximum}\n" if maximum else "")
        (FOLDER / name).write_text(head + " ".join(map(str, array.ravel())))

    plain("plain.ppm", "P3", rgb, 255)
    plain("plain.pgm", "P2", rgb[:, :, 0], 255)
    plain("plain.pbm", "P1", rgb[:, :, 0] & 1, 0)
    (FOLDER / "raw16.ppm").write_bytes(
        b"P6 13 9 65535\n" + (rgb.astype(np.uint16) * 257).astype(">u2").tobytes()
    )

    rows = np.arange(24, dtype=np.float32).reshape(4, 2, 3) - 5
    np.save(FOLDER / "rows.npy", rows)
    np.save(FOLDER / "rows_big_endian.npy", rows.astype(">f8"))
    np.save(FOLDER / "rows_i16.npy", rows.astype(np.int16))
    np.save(FOLDER / "fortran.npy", np.asfortranarray(rows))


if __name__ == "__main__":
    main()
