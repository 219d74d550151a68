# SPDX-License-Identifier: Apache-2.0
"""Packed weights keep the file's type, and a file does not grow by packing."""

import struct

import numpy as np
import pytest
from dense_models import (
    block_sparse,
    conv_model,
    fully_connected_model,
    half_model,
    run,
)

from tfrewprune.converter import ConversionError, SkipReason, convert, unpack
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.flatbuffer import read_model
from tfrewprune.inspection import inspect_model


def value_types(content: bytes) -> set[int]:
    """`value_type` of every payload in a file."""
    model = read_model(content)
    payloads = [
        bytes(model.data(model.subgraphs[layer.subgraph].tensors[layer.weight]))
        for layer in find_layers(model)
        if layer.packed
    ]
    return {struct.unpack_from("<I", payload, 12)[0] for payload in payloads}


def test_float16_weights_are_packed_as_float16() -> None:
    content = half_model()
    packed = convert(content, minimum_gain=0)
    assert value_types(packed) == {1}
    assert value_types(convert(unpack(packed), minimum_gain=0)) == {1}
    shape = read_model(content).subgraphs[0].tensors
    inputs = [
        np.random.default_rng(0).random(tuple(shape[i].shape), np.float32)
        for i in read_model(content).subgraphs[0].inputs
    ]
    for dense, ours in zip(
        run(content, *inputs), run(packed, *inputs, packed=True), strict=True
    ):
        np.testing.assert_allclose(ours, dense, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [16, 1], ids=["banded", "irregular"])
def test_float32_weights_are_rounded_on_request(rows) -> None:
    weights = block_sparse((64, 3, 3, 32), keep=0.1, rows=rows)
    bias = np.zeros(64, np.float32)
    content = conv_model(weights, (1, 14, 14, 32), bias)
    whole = convert(content, minimum_gain=0)
    half = convert(content, minimum_gain=0, weights="float16")
    assert value_types(whole) == {0} and value_types(half) == {1}
    assert len(half) < 0.8 * len(whole)
    assert 0 < half.report.difference < 1e-3
    image = np.random.default_rng(0).random((1, 14, 14, 32), np.float32)
    (dense,), (ours,) = run(content, image), run(half, image, packed=True)
    assert np.abs(dense - ours).max() < 1e-3 * np.abs(dense).max()


def test_weights_beyond_float16_are_refused() -> None:
    weights = block_sparse((64, 64)) * np.float32(1e6)
    with pytest.raises(ConversionError, match="is beyond float16; use weights="):
        convert(
            fully_connected_model(weights, (1, weights.shape[1])),
            minimum_gain=0,
            weights="float16",
        )
    with pytest.raises(ConversionError, match="'float16' or 'int8', received 'int4'"):
        convert(fully_connected_model(weights, (1, weights.shape[1])), weights="int4")


def test_a_layer_whose_payload_is_larger_than_its_weights_stays_dense() -> None:
    """Single zeros: indices cost more than half of the weights save."""
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((512, 512)).astype(np.float32)
    weights[generator.random(weights.shape) < 0.4] = 0
    content = fully_connected_model(weights, (1, weights.shape[1]))
    with pytest.warns(UserWarning, match="would need more bytes|faster"):
        packed = convert(content)
    assert bytes(packed) == content  # nothing is rewritten where nothing is packed
    (layer,) = inspect_model(content)
    assert layer.skip in (SkipReason.PAYLOAD_IS_LARGER, SkipReason.DENSE_IS_FASTER)
    assert convert(content, minimum_gain=0).report.packed
