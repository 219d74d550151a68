# SPDX-License-Identifier: Apache-2.0
"""Single layers cut out of a model, with what decodes their weights."""

from dense_models import half_model

from tfrewprune.benchmark.profile import time_layers
from tfrewprune.converter import convert, unpack


def test_layers_of_a_float16_model_are_timed_dense_and_packed():
    """Cut out without DEQUANTIZE, weights would be an input and nothing would agree."""
    dense = half_model()
    packed = convert(dense, minimum_gain=0, verify=False)
    shapes = [(16, 3, 3, 4), (16, 1, 1, 16), (16, 16), (16, 16)]
    for model, packed_in_model in (
        (dense, False),
        (packed, True),
        (unpack(packed), False),
    ):
        times = list(time_layers(model, min_seconds=0.005))
        assert [time.shape for time in times] == shapes
        assert [time.packed_in_model for time in times] == [packed_in_model] * 4
