# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

import os

import numpy as np
import pytest

# Costs decide what is packed: those of one processor, whatever runs the tests.
os.environ.setdefault("TFREWPRUNE_TARGET", "x86-avx512-zen5")


@pytest.fixture
def rng() -> np.random.Generator:
    """Numbers that do not depend on which tests ran before."""
    return np.random.default_rng(5)
