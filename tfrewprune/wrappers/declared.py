# SPDX-License-Identifier: Apache-2.0
"""The kernels of Keras' own layers; importing this module makes them known."""

from __future__ import annotations

import dataclasses

import keras

from tfrewprune.structures import KernelLayout
from tfrewprune.wrappers.kernels import KernelSpec, declare, register_prunable

layers = keras.layers


def _einsum(layer: keras.layers.EinsumDense) -> list[KernelSpec]:
    """EinsumDense kernels whose contracted axes all come first are matrices."""
    inputs, rest = layer.equation.replace("...", "0").split(",")
    kernel, output = rest.split("->")
    contracted = [axis in inputs and axis not in output for axis in kernel]
    count = sum(contracted)
    if not count or count == len(kernel) or not all(contracted[:count]):
        return []
    return [KernelSpec(layout=KernelLayout("dense", count))]


def _gates(names: str) -> list[KernelSpec]:
    """Input and recurrent matrix of every gate, named as `recurrent_kernel/z`.

    Args:
        names: A letter for each gate, in the order in which the cell keeps them.
    """
    return [
        KernelSpec(
            attribute,
            KernelLayout("gate", parts=len(names), part=part),
            prefix=attribute.removesuffix("_kernel"),
            name=f"{attribute}/{gate}",
        )
        for attribute in ("kernel", "recurrent_kernel")
        for part, gate in enumerate(names)
    ]


def _heads(layer: keras.Layer) -> list[KernelSpec]:
    """What each head owns of the projections of an attention layer."""
    # In grouped-query attention a head of keys and values, and the queries it serves.
    grouped = isinstance(layer, layers.GroupQueryAttention)
    count = layer.num_key_value_heads if grouped else layer.num_heads
    found = [
        KernelSpec(
            layout=KernelLayout("heads", axis, count),
            name="heads",
            inside=name,
            unit="heads",
        )
        for name, axis in (
            ("_query_dense", 1),
            ("_key_dense", 1),
            ("_value_dense", 1),
            ("_gate_dense", 1),
            ("_output_dense", 0),
        )
        if getattr(layer, name, None) is not None
    ]
    return [dataclasses.replace(found[0], rest=tuple(found[1:]))] if found else []


for _class in (layers.Dense, layers.Conv1D, layers.Conv2D):
    register_prunable(_class, KernelSpec())
register_prunable(layers.Conv3D, KernelSpec(packed=False))
for _class in (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose):
    register_prunable(
        _class, KernelSpec(layout=KernelLayout("conv_transpose"), packed=False)
    )
for _class in (layers.SeparableConv1D, layers.SeparableConv2D):
    register_prunable(_class, KernelSpec("pointwise_kernel", prefix="pointwise"))
register_prunable(layers.Embedding, KernelSpec("embeddings", packed=False))
register_prunable(layers.GRUCell, *_gates("zrh"))
register_prunable(layers.LSTMCell, *_gates("ifco"))
register_prunable(
    layers.SimpleRNNCell,
    KernelSpec(),
    KernelSpec("recurrent_kernel", prefix="recurrent"),
)
declare(layers.EinsumDense, _einsum)
declare(layers.MultiHeadAttention, _heads)
declare(layers.GroupQueryAttention, _heads)
