# SPDX-License-Identifier: Apache-2.0
"""Packs a benchmark layer whatever the converter's cost model thinks of it."""

from tfrewprune.converter import convert
from tfrewprune.converter.flatbuffer import read_model


def pack_every_layer(model: bytes) -> tuple[bytes, int]:
    """Converts a model without asking whether packing pays.

    Args:
        model: A dense `.tflite` model.

    Returns:
        The packed model, and the bytes of all its payloads.

    Raises:
        ConversionError: If no layer could be packed.
    """
    packed = convert(model, minimum_gain=0, verify=False, require_packed=1)
    tree = read_model(packed)
    payloads = {
        subgraph.tensors[operator.inputs[1]].buffer
        for subgraph in tree.subgraphs
        for operator in subgraph.operators
        if tree.custom_code(operator) is not None
    }
    return packed, sum(len(tree.tree.buffers[index].data) for index in payloads)
