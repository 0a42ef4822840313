"""Many small inputs in one file: each its length (4 bytes, lowest first) and its bytes, which replay.c reads.

usage: pack.py pack FOLDER FILE
       pack.py unpack FILE FOLDER
"""

import hashlib
import pathlib
import sys


def pack(folder, path):
    inputs = sorted({p.read_bytes() for p in pathlib.Path(folder).iterdir()}, key=lambda data: (len(data), data))
    pathlib.Path(path).write_bytes(b"".join(len(data).to_bytes(4, "little") + data for data in inputs))


def unpack(path, folder):
    data, at = pathlib.Path(path).read_bytes(), 0
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        one = data[at + 4 : at + 4 + size]
        (pathlib.Path(folder) / hashlib.sha1(one).hexdigest()).write_bytes(one)
        at += 4 + size


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
        sys.exit(__doc__.strip())
    {"pack": pack, "unpack": unpack}[sys.argv[1]](*sys.argv[2:])
