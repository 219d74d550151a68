# SPDX-License-Identifier: Apache-2.0
"""What holds for all tests."""

import os

# Costs decide what is packed: those of one processor, whatever runs the tests.
os.environ.setdefault("TFREWPRUNE_TARGET", "x86-avx512-zen5")
