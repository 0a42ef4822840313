"""How samples are given: several inputs, .npz, CSV rows, lists of arrays, arguments from files."""

import json
import struct
import zipfile

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
from conftest import make_model  # noqa: E402
from onnx import helper  # noqa: E402

RNG = np.random.default_rng(21)


@pytest.fixture(scope="module")
def two_inputs(tmp_path_factory):
    """y = [a, b] W: a [N,6], b [N,2,3]."""
    folder = tmp_path_factory.mktemp("two")
    nodes = [
        helper.make_node("Flatten", ["b"], ["flat"], name="flat"),
        helper.make_node("Concat", ["a", "flat"], ["both"], name="both", axis=1),
        helper.make_node("Gemm", ["both", "w"], ["y"], name="product"),
    ]
    weights = RNG.normal(size=(12, 5)).astype(np.float32)
    model = make_model(nodes, {"a": ["N", 6], "b": ["N", 2, 3]}, {"y": ["N", 5]}, {"w": weights})
    onnx.save(model, folder / "m.onnx")
    a = RNG.normal(size=(8, 6)).astype(np.float32)
    b = RNG.normal(size=(8, 2, 3)).astype(np.float32)
    np.save(folder / "a.npy", a)
    np.save(folder / "b.npy", b)
    np.save(folder / "b, 2.npy", b)
    np.savez(folder / "stored.npz", a=a, b=b)
    np.savez_compressed(folder / "deflated.npz", b=b, a=a)
    header = ",".join(f"f{i}" for i in range(6))
    np.savetxt(folder / "a.csv", a, delimiter=",", header=header, comments="", fmt="%.9g")
    np.savetxt(folder / "b.csv", b.reshape(8, 6), delimiter=";", fmt="%.9g")
    for i in range(8):
        np.save(folder / f"a{i}.npy", a[i])
        np.save(folder / f"b{i}.npy", b[i : i + 1])
        np.savez(folder / f"both{i}.npz", a=a[i], b=b[i])
    (folder / "positions.txt").write_text("".join(f"a{i}.npy, b{i}.npy\n" for i in range(8)))
    (folder / "names.txt").write_text("".join(f"b=b{i}.npy,a=a{i}.npy\n" for i in range(8)))
    return folder, np.concatenate([a, b.reshape(8, 6)], axis=1) @ weights


def outputs(quench, folder, *args):
    done = quench("run", folder / "m.onnx", "--rounds", "1", "--json", "--top", "5", *args)
    assert done.returncode == 0, done.stderr
    rows = []
    for run in json.loads(done.stdout)["runs"]:
        row = np.zeros(5)
        for entry in run["outputs"][0]["top"]:
            row[entry["index"]] = entry["value"]
        rows.append(row)
    return np.array(rows)


SOURCES = {
    "pairs": lambda f: ["--data", f"a={f}/a.npy,b={f}/b.npy"],
    "repeated": lambda f: ["--data", f"b={f}/b.npy", "--data", f"a={f}/a.npy"],
    "repeated, a name with a comma": lambda f: ["--data", f"b={f}/b, 2.npy", "--data", f"a={f}/a.npy"],
    "npz": lambda f: ["--data", f"{f}/stored.npz"],
    "npz argument": lambda f: [f"{f}/stored.npz"],
    "npz deflated": lambda f: ["--data", f"{f}/deflated.npz"],
    "npz for one": lambda f: ["--data", f"a={f}/deflated.npz", "--data", f"b={f}/b.npy"],
    "csv": lambda f: ["--data", f"a={f}/a.csv", "--data", f"b={f}/b.csv"],
    "list by place": lambda f: ["--list", f"{f}/positions.txt"],
    "list by name": lambda f: ["--list", f"{f}/names.txt"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_same_samples(quench, two_inputs, source):
    folder, expected = two_inputs
    got = outputs(quench, folder, *SOURCES[source](folder))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", SOURCES)
def test_quantizes_alike(quench, two_inputs, tmp_path, source):
    folder, _ = two_inputs
    arguments = [a for a in SOURCES[source](folder)]
    if source == "npz argument":
        arguments.insert(0, "--data")
    for name, args in (("a", SOURCES["pairs"](folder)), ("b", arguments)):
        done = quench("quantize", folder / "m.onnx", "-o", tmp_path / f"{name}.onnx", *args)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_saved_list(quench, two_inputs, tmp_path):
    folder, expected = two_inputs
    args = ["--list", folder / "names.txt", "--count", "3", "--save-list", tmp_path / "three.txt"]
    first = outputs(quench, folder, *args)
    assert len((tmp_path / "three.txt").read_text().splitlines()) == 3
    np.testing.assert_array_equal(first, outputs(quench, folder, "--list", tmp_path / "three.txt"))


def test_arguments_from_a_file(quench, two_inputs, tmp_path):
    folder, expected = two_inputs
    (tmp_path / "args.txt").write_text(
        f"# what every run has\n--rounds\n1\n\n  --json  \r\n--data\n\"b={folder}/b, 2.npy\"\n"
        f"--data=a={folder}/a.npy\n--quiet"
    )
    done = quench("run", folder / "m.onnx", f"@{tmp_path}/args.txt")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 8


@pytest.mark.parametrize(
    "text, reason",
    [
        ('"--json\n', "line 1: quotes"),
        ('--json\n"a" b\n', "line 2: quotes"),
        ("a\0b\n", "NUL"),
        ("#" * (1 << 20) + "\n", "1 MiB"),
        ("@nested\n", "nested"),
    ],
)
def test_bad_argument_files(quench, tmp_path, text, reason):
    (tmp_path / "args.txt").write_text(text)
    done = quench("inspect", f"@{tmp_path}/args.txt")
    assert done.returncode != 0 and reason in done.stderr and done.stdout == ""
    done = quench("inspect", f"@{tmp_path}/absent")
    assert done.returncode == 2 and "absent" in done.stderr


BAD_CSV = {
    "1,2,3,4,5,6\n1,2,3,x,5,6\n": "line 2, column 4",
    "1,2,3,4,5,6\n1,2,3,4,5,nan\n": "line 2, column 6",
    "1,2,3,4,5,6\n\n1,2,inf,4,5,6\n": "line 3, column 3",
    "1,2,3,4,5,6\n1,2,3,4,5,1e300\n": "line 2, column 6",
    "1,2,3,4,5,6\n1,2,3,4,5\n": "line 2 has 5 columns",
    "1,2,3,4,5,6\n1,2,3,4,5,\n": "line 2, column 6",
    "a,b,c,d,e,f\n": "no samples",
    "a,b,c,d,e,f\ng,h,i,j,k,l\n": "line 2, column 1",
    "": "no samples",
    "1,2\n3,4\n": "does not fit",
    "," * 1000 + "\n" * 1000 + "1\n" * 1000: "columns",
}


@pytest.mark.parametrize("text", BAD_CSV)
def test_bad_csv(quench, two_inputs, tmp_path, text):
    folder, _ = two_inputs
    (tmp_path / "a.csv").write_text(text)
    done = quench("run", folder / "m.onnx", "--data", f"a={tmp_path}/a.csv", "--data", f"b={folder}/b.npy")
    assert done.returncode == 1 and BAD_CSV[text] in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def patched(source, target, changes):
    data = bytearray(source.read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    for offset, kind, value in changes:
        struct.pack_into(kind, data, directory + offset, value)
    target.write_bytes(data)


BAD_NPZ = {
    "declares 3 GiB": ([(24, "<I", 3 << 30)], "limit"),
    "declares more than deflate makes": ([(24, "<I", 1 << 30)], "cannot unpack"),
    "declares nothing": ([(24, "<I", 0)], "unpack"),
    "packed past the end": ([(20, "<I", 1 << 30)], "outside"),
    "header past the end": ([(42, "<I", 1 << 30)], "behind the directory"),
    "another checksum": ([(16, "<I", 1)], "damaged"),
    "encrypted": ([(8, "<H", 1)], "encrypted"),
    "bzip2": ([(10, "<H", 12)], "method 12"),
    "zip64": ([(24, "<I", 0xFFFFFFFF)], "ZIP64"),
}


@pytest.mark.parametrize("name", BAD_NPZ)
def test_bad_npz(quench, two_inputs, tmp_path, name):
    folder, _ = two_inputs
    changes, reason = BAD_NPZ[name]
    patched(folder / "deflated.npz", tmp_path / "bad.npz", changes)  # the last member is a
    done = quench("run", folder / "m.onnx", "--data", tmp_path / "bad.npz")
    assert done.returncode == 1 and reason in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_npz_without_the_input(quench, two_inputs, tmp_path):
    folder, _ = two_inputs
    np.savez(tmp_path / "x.npz", a=np.zeros((2, 6), np.float32), c=np.zeros(3))
    done = quench("run", folder / "m.onnx", "--data", tmp_path / "x.npz")
    assert done.returncode == 1 and 'no array for input "b"' in done.stderr
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as z:
        z.writestr("a.npy", "not an array")
    done = quench("run", folder / "m.onnx", "--data", tmp_path / "t.npz")
    assert done.returncode == 1 and "not a .npy array" in done.stderr


def test_bad_lists(quench, two_inputs, tmp_path):
    folder, _ = two_inputs
    cases = {
        f"{folder}/a0.npy\n": 'no file for input "b"',
        f"a={folder}/a0.npy,a={folder}/a1.npy\n": 'no file for input "b"',
        f"{folder}/a.npy,{folder}/b.npy\n": "a line of a list names one",
        f"{folder}/b0.npy,{folder}/none.npy\n": "none.npy",
        f"{folder}/a0.npy,{folder}/b0.npy\n{folder}/a.npy,{folder}/b0.npy\n": "8 samples",
    }
    for text, reason in cases.items():
        (tmp_path / "list.txt").write_text(text)
        done = quench("run", folder / "m.onnx", "--list", tmp_path / "list.txt")
        assert done.returncode == 1 and reason in done.stderr, (text, done.stderr)


def test_repeated_data_without_names(quench, two_inputs):
    folder, _ = two_inputs
    done = quench("run", folder / "m.onnx", "--data", folder / "a.npy", "--data", folder / "b.npy")
    assert done.returncode == 2 and "NAME=FILE" in done.stderr
