"""Builds the C library with CMake and puts it inside the package."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent.parent


class BuildWithLibrary(build_py):
    def run(self):
        super().run()
        target = Path(self.build_lib) / "quench"
        with tempfile.TemporaryDirectory() as build:
            configure = ["cmake", "-S", str(ROOT), "-B", build, "-G", "Ninja", "-DQN_TESTS=OFF"]
            for command in (configure, ["cmake", "--build", build, "--target", "quench_shared"]):
                try:
                    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                except (OSError, subprocess.CalledProcessError) as failed:
                    sys.exit(f"error: the C library cannot be built: {failed}")
            suffix = ".dylib" if sys.platform == "darwin" else ".so"
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(build) / f"libquench{suffix}", target / f"libquench{suffix}")


class BinaryDistribution(Distribution):
    """The package holds machine code: its wheel is for one platform."""

    def has_ext_modules(self):
        return True


setup(cmdclass={"build_py": BuildWithLibrary}, distclass=BinaryDistribution)
