# SPDX-License-Identifier: Apache-2.0
"""Where `make test-native` has built and installed what these tests use."""

import os
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))  # model builders


@pytest.fixture(scope="session")
def native_build() -> Path:
    """The folder of the native build; `install` in it is its installation."""
    folder = os.environ.get("TFREWPRUNE_NATIVE_BUILD")
    if not folder:
        pytest.fail("TFREWPRUNE_NATIVE_BUILD is not set; run this by make test-native.")
    return Path(folder)
