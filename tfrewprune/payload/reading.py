# SPDX-License-Identifier: Apache-2.0
"""Reads payloads of whatever layout."""

from __future__ import annotations

import numpy as np

from tfrewprune.payload.container import LAYOUT_IRREGULAR, payload_layout
from tfrewprune.payload.cost import CostModel, LayerShape, default_cost_model
from tfrewprune.payload.format import decode
from tfrewprune.payload.grouping import scattered_bands
from tfrewprune.payload.irregular import decode_irregular


def unpack_matrix(payload: bytes | memoryview | np.ndarray) -> np.ndarray:
    """Returns the weight matrix of a payload, float32 ``[O, K]``.

    Floats that the payload stores come back bit for bit, int8 values times their scale,
    all other weights as +0.0.

    Raises:
        PayloadError: If the payload breaks a rule of the format.
    """
    if payload_layout(payload) == LAYOUT_IRREGULAR:
        return decode_irregular(payload).to_dense()
    return decode(payload).to_dense()


def predict_payload(
    payload: bytes | memoryview | np.ndarray,
    shape: LayerShape,
    cost_model: CostModel | None = None,
) -> float:
    """Returns the predicted microseconds of a layer that runs this payload.

    Args:
        payload: The whole payload.
        shape: Size of the layer.
        cost_model: Predicts times; None is the fitted one of this package.

    Raises:
        PayloadError: If the payload breaks a rule of the format.
    """
    model = cost_model or default_cost_model()
    if payload_layout(payload) == LAYOUT_IRREGULAR:
        matrix = decode_irregular(payload)
        return model.irregular(shape, matrix.weight_count, matrix.segment_count)
    bands = decode(payload)
    scattered = scattered_bands(bands.row_id, bands.rows)
    counts = (bands.band_rows, bands.band_count, bands.column_count)
    return model.packed(shape, *counts, scattered)
