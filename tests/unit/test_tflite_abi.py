# SPDX-License-Identifier: Apache-2.0
"""Our declaration of TFLite's C structs against TFLite's own header.

No Python package carries that header. Give the folder that holds
`tensorflow/lite/core/c/common.h` in TFREWPRUNE_TFLITE_HEADERS; one source is the npm
package react-native-fast-tflite 1.4.0, in
`package/android/src/main/cpp/lib/tensorflow/headers`. The layout is also proven
without it: by the figures asserted in `tflite_abi.h`, and by every test of
`test_delegate.py`, which runs in the real interpreter.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "TFREWPRUNE_TFLITE_HEADERS"


def compile_check(compiler: str, source: Path) -> subprocess.CompletedProcess:
    headers = os.environ.get(VARIABLE)
    if not headers:
        pytest.skip(f"{VARIABLE} does not name a folder with TFLite's headers")
    path = shutil.which(compiler)
    if path is None:
        pytest.skip(f"the compiler {compiler} is not installed")
    command = [path, "-std=c++17", "-fsyntax-only", f"-I{ROOT / 'tflite_ops'}"]
    # TFLite's header is not free of warnings of its own.
    command += ["-isystem", headers, "-Wno-invalid-offsetof", str(source)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("compiler", ["c++", "aarch64-linux-gnu-g++"])
def test_layout_equals_the_official_header(compiler):
    check = ROOT / "tests" / "native" / "tflite_abi_check.cc"
    result = compile_check(compiler, check)
    assert result.returncode == 0, result.stderr


def test_the_check_notices_a_difference(tmp_path):
    source = (ROOT / "tests" / "native" / "tflite_abi_check.cc").read_text()
    changed = source.replace(
        "SAME(Tensor, TfLiteTensor, bytes);",
        "SAME_FIELD(Tensor, bytes, TfLiteTensor, name);",
    )
    assert changed != source
    (tmp_path / "changed.cc").write_text(changed)
    result = compile_check("c++", tmp_path / "changed.cc")
    assert result.returncode != 0
    assert "TfLiteTensor.name" in result.stderr
