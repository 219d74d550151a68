# SPDX-License-Identifier: Apache-2.0
"""Builds the native delegate with CMake; all metadata is in setup.cfg."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
LIBRARY = f"libtfrewprune_delegate{'.dylib' if sys.platform == 'darwin' else '.so'}"


class CMakeBuild(build_ext):
    """Compiles tflite_ops/ and puts the library beside tfrewprune/runtime."""

    def get_ext_filename(self, fullname: str) -> str:
        # The library is loaded by path, so it carries no Python ABI tag.
        *package, _ = fullname.split(".")
        return str(Path(*package, LIBRARY))

    def build_extension(self, ext: Extension) -> None:
        # CMake itself reads the variable; each toolchain has a folder of its own.
        toolchain = Path(os.environ.get("CMAKE_TOOLCHAIN_FILE", "native")).stem
        build = Path(self.build_temp).resolve() / toolchain
        configure = [
            "cmake",
            f"-S{ROOT / 'tflite_ops'}",
            f"-B{build}",
            "-DCMAKE_BUILD_TYPE=Release",
        ]
        if not (build / "CMakeCache.txt").exists() and shutil.which("ninja"):
            configure.append("-GNinja")
        subprocess.run(configure, check=True)
        subprocess.run(
            ["cmake", "--build", str(build), "--target", "tfrewprune_delegate"],
            check=True,
        )
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        # A new inode: a running process may have the old library mapped.
        target.unlink(missing_ok=True)
        shutil.copy2(build / LIBRARY, target)


class PlatformWheel(bdist_wheel):
    """Tags the wheel py3-none-<platform>: any Python 3, one machine type."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[Extension("tfrewprune.runtime.delegate", sources=[])],
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": PlatformWheel},
)
