"""Lines and branches by folder of src, from gcov's data. usage: coverage_table.py BUILD [--lines FILE]

Branches as gcov counts them, calls that may not return left out. A line counts once however often its
file was compiled, as a branch does.
"""

import collections
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]


def read(build):
    """{file: ({line: count}, {(line, branch): count})}"""
    files = collections.defaultdict(lambda: (collections.Counter(), collections.Counter()))
    notes = sorted(p for p in build.rglob("*.gcno") if "quench_" in str(p))
    with tempfile.TemporaryDirectory() as folder:
        for at in range(0, len(notes), 64):
            some = [str(p.resolve()) for p in notes[at : at + 64]]
            subprocess.run(["gcov", "--json-format", "--branch-probabilities", "--hash-filenames", *some],
                           cwd=folder, check=True, capture_output=True)  # fmt: skip
        for path in pathlib.Path(folder).glob("*.gcov.json.gz"):
            document = json.loads(gzip.decompress(path.read_bytes()))
            where = pathlib.Path(document["current_working_directory"])
            for file in document["files"]:
                name = (where / file["file"]).resolve()
                if not name.is_relative_to(ROOT / "src"):
                    continue
                lines, branches = files[str(name.relative_to(ROOT))]
                for line in file["lines"]:
                    lines[line["line_number"]] += line["count"]
                    for i, branch in enumerate(line["branches"]):
                        if not branch["throw"]:
                            branches[line["line_number"], i] += branch["count"]
    return files


def percent(counts):
    return 100.0 * sum(c > 0 for c in counts) / len(counts) if counts else 100.0


def main(build, wanted=None):
    files = read(pathlib.Path(build))
    if not files:
        sys.exit(f"{build}: no data")
    if wanted:
        lines = files[wanted][0]
        print(" ".join(str(n) for n in sorted(lines) if not lines[n]))
        return
    folders = collections.defaultdict(lambda: ([], []))
    for name, (lines, branches) in files.items():
        parts = pathlib.Path(name).parts
        folder = "/".join(parts[: 3 if parts[1] in ("format", "kernel", "run") and len(parts) > 3 else 2])
        for key in (folder, "all"):
            folders[key][0].extend(lines.values())
            folders[key][1].extend(branches.values())
    print("| folder | lines | covered | branches | covered |\n| --- | --- | --- | --- | --- |")
    for name in sorted(folders, key=lambda n: (n == "all", n)):
        lines, branches = folders[name]
        print(f"| {name} | {len(lines)} | {percent(lines):.1f} % | {len(branches)} | {percent(branches):.1f} % |")
    print("\nfewest lines covered:")
    for name in sorted(files, key=lambda n: percent(files[n][0].values()))[:25]:
        lines, branches = files[name]
        missing = sum(c == 0 for c in lines.values())
        print(f"{percent(lines.values()):5.1f} %  {missing:4d} of {len(lines):4d} missing  {name}")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        main(sys.argv[1])
    elif len(sys.argv) == 4 and sys.argv[2] == "--lines":
        main(sys.argv[1], sys.argv[3])
    else:
        sys.exit(__doc__.strip())
