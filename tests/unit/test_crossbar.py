# SPDX-License-Identifier: Apache-2.0
"""What a model takes in crossbars, counted by hand."""

import keras
import numpy as np
import pytest

from tfrewprune.crossbar import Crossbar, crossbar_report
from tfrewprune.pipeline import quantize
from tfrewprune.quantization import Quantization
from tfrewprune.structures import BlockRowColumn

TILE = Crossbar(rows=2, columns=3, cell_bits=2)


def model_of(matrix):
    """A Dense layer with a GEMM matrix (outputs, columns)."""
    matrix = np.float32(matrix)
    layer = keras.layers.Dense(len(matrix), use_bias=False, name="dense")
    model = keras.Sequential([keras.Input((matrix.shape[1],)), layer])
    layer.kernel.assign(matrix.T)
    return model


MATRIX = [
    [1, 0, 3, 0, 0, 0, 5],
    [7, 0, 7, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0],
    [4, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 7, 0, 0],
]


def test_tiles_cells_and_writes():
    """Tiles of 2 x 3: 3 x 3 of them. Weights of 4 bits take 2 cells of 2 bits."""
    model = model_of(MATRIX)
    model.compile("sgd", "mse")
    result = quantize(
        model, Quantization(4, epochs=0, freeze_epochs=0), np.ones((1, 7)), verbose=0
    )
    report = crossbar_report(result, TILE)
    (row,) = report.layers
    assert (row.layer, row.bits, row.dense_tiles, row.dense_cells) == (
        *("dense", 4, 2 * 9, 2 * 35),
    )
    assert row.tiles == 2 * 4
    # 2 rows x 2 columns, 1 x 1 (the 5), 1 x 1 (the 4), 1 x 1 (the last 7).
    assert row.cells == 2 * (4 + 1 + 1 + 1)
    # In base 4: 1 = 01, 3 = 03, 5 = 11, 7 = 13, 4 = 10.
    assert row.writes == 1 + 1 + 2 + 2 + 2 + 1 + 2
    assert row.dense_writes == 70
    assert report.saved("tiles") == pytest.approx(1 - 8 / 18)
    found = report.to_dict()
    assert found["writes"] == {"dense": 70, "left": 11, "saved": 1 - 11 / 70}
    text = str(report)
    assert "8 of 18" in text and "14 of 70" in text and "84.3%" in text


def test_of_a_plain_model():
    report = crossbar_report(model_of(MATRIX), TILE, bits=8)
    assert report.total("writes") == 4 * np.count_nonzero(MATRIX)
    assert report.total("dense_tiles") == 4 * 9
    with pytest.raises(ValueError, match="'dense' does not lie on levels. Give"):
        crossbar_report(model_of(MATRIX), TILE)


def test_a_crossbar_says_its_structure():
    assert Crossbar().structure == BlockRowColumn(128, 64)
    assert [Crossbar().cells_of(bits) for bits in (1, 4, 5, 8)] == [1, 1, 2, 2]
    with pytest.raises(ValueError, match="of Crossbar must be.*cell_bits=0"):
        Crossbar(cell_bits=0)
