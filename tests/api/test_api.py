"""The library as its users get it: installed, linked through pkg-config, packaged."""

import os
import pathlib
import shutil
import subprocess

import pytest
from conftest import ROOT

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("QUENCH_BUILD", ROOT / "build"))


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")


def run(*command, **kwargs):
    result = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, timeout=600, **kwargs
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder with what against_installed.sh installed and built."""
    need("cmake", "pkg-config", "cc")
    if not (BUILD / "cmake_install.cmake").is_file():
        pytest.skip(f"{BUILD} is not a build folder (QUENCH_BUILD)")
    out = tmp_path_factory.mktemp("installed")
    (out / "said").write_text(run(HERE / "against_installed.sh", BUILD, out / "out"))
    return out


def test_headers_examples_and_code_blocks_build(installed):
    said = (installed / "said").read_text()
    for name in ("base", "model", "dataset", "quantize"):
        assert f"c11 quench/{name}.h" in said
    assert "example quantize" in said
    assert "code base_1" in said and "code quantize_1" in said


def test_the_example_writes_the_bytes_of_the_command_line(installed, quench, workspace):
    pictures = workspace / "pictures"
    said = run(installed / "out" / "quantize", workspace / "m.onnx", workspace / "c.onnx", pictures)
    assert said.count("int8  Conv") == 3
    result = quench("quantize", workspace / "m.onnx", "-o", workspace / "cli.onnx", "--images",
                    pictures, "--mean", "127.5", "--normal", "0.00784313725")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert (workspace / "c.onnx").read_bytes() == (workspace / "cli.onnx").read_bytes()


def test_the_example_reports_errors(installed, workspace):
    program = installed / "out" / "quantize"
    command = [program, workspace / "none.onnx", workspace / "c.onnx", workspace / "pictures"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and "none.onnx" in result.stderr
    assert not (workspace / "c.onnx").exists()


def exported_symbols(library):
    out = run("nm", "-D", "--defined-only", library)
    return sorted(line.split()[-1] for line in out.splitlines())


def test_exported_symbols_are_those_of_the_list(installed):
    """After a change that is meant: tests/api/refresh_symbols BUILD."""
    need("nm")
    library = next((installed / "out" / "prefix").rglob("libquench.so"))
    symbols = exported_symbols(library)
    assert all(s.startswith("qn_") and not s.startswith("qn__") for s in symbols)
    assert symbols == (HERE / "symbols.txt").read_text().split()


def test_the_runtime_stands_alone(installed):
    """Its symbols are those of the list, and it needs libc and libm, dynamic or static."""
    need("nm", "readelf")
    library = next((installed / "out" / "prefix").rglob("libquench-rt.so"))
    assert exported_symbols(library) == (HERE / "symbols-rt.txt").read_text().split()
    toolkit = next((installed / "out" / "prefix").rglob("libquench.so"))
    assert set(exported_symbols(library)) <= set(exported_symbols(toolkit))
    dynamic = run("readelf", "-d", library)
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
    assert needed and all(n.split(".")[0] in ("libc", "libm") for n in needed), needed
    undefined = run("nm", "-D", "-u", library).split()
    assert not [s for s in undefined if s.startswith(("pthread", "pb_", "json", "qn"))]
    assert "example classify, static runtime" in (installed / "said").read_text()
    assert "example classify, whole library" in (installed / "said").read_text()


def test_debian_package(tmp_path):
    need("cpack", "dpkg-deb", "dpkg-shlibdeps")
    if not (BUILD / "CPackConfig.cmake").is_file():
        pytest.skip(f"{BUILD} is not a build folder (QUENCH_BUILD)")
    run("cpack", "-G", "DEB", "-B", tmp_path, cwd=BUILD)
    (package,) = tmp_path.glob("*.deb")
    listing = run("dpkg-deb", "--contents", package)
    files = {line.split()[5] for line in listing.splitlines()}
    for name in ("bin/quench", "include/quench/base.h", "include/quench/quantize.h"):
        assert f"./usr/{name}" in files
    assert any(f.endswith("/pkgconfig/quench.pc") for f in files)
    assert any("/libquench.so.0" in f for f in files)
    root = tmp_path / "root"
    run("dpkg-deb", "--extract", package, root)
    assert run(root / "usr/bin/quench", "--version").startswith("quench ")
    depends = run("dpkg-deb", "--field", package, "Depends")
    assert "libjansson" in depends and "libc6" in depends
    pc = next(root.rglob("quench.pc"))
    cflags = run("pkg-config", "--cflags", "quench", env={**os.environ, "PKG_CONFIG_PATH": str(pc.parent)})
    assert (pathlib.Path(cflags.split()[0].removeprefix("-I")) / "quench" / "base.h").is_file()
