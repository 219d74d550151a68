# SPDX-License-Identifier: Apache-2.0
"""Structures that share columns over 16 outputs fill the bands of the runtime."""

import numpy as np
import pytest

from tfrewprune.payload import decode, pack_matrix, unpack_matrix
from tfrewprune.structures import (
    Balanced,
    Block,
    KernelGroup,
    Pattern,
    Punched,
    matrix_from_kernel,
)


@pytest.mark.parametrize("rate", [9 / 4, 6])
@pytest.mark.parametrize(
    "structure",
    [
        Block(16, 1, cluster=True),
        KernelGroup(16, 4),
        Punched(16, 4),
        Pattern(4, rows=16),
        Balanced(Pattern(4, rows=16)),
    ],
    ids=str,
)
def test_a_band_holds_survivors_only(structure, rate):
    kernel = np.random.default_rng(0).standard_normal((9, 12, 64)).astype(np.float32)
    pruned = structure.fitted(kernel).project(kernel, kernel.size / rate)
    payload = pack_matrix(matrix_from_kernel(pruned), band_rows=16)
    assert decode(payload).value.size == np.count_nonzero(pruned)
    np.testing.assert_array_equal(unpack_matrix(payload), matrix_from_kernel(pruned))
