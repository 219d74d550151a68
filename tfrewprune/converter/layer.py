# SPDX-License-Identifier: Apache-2.0
"""An operator with weights: where they are, and what it is to become."""

from __future__ import annotations

from dataclasses import dataclass

from tfrewprune.converter import options
from tfrewprune.converter.flatbuffer import Model
from tfrewprune.converter.reasons import SkipReason
from tfrewprune.converter.recurrent.recognise import Loop


@dataclass(frozen=True)
class WeightSource:
    """The constant behind a weight tensor.

    Attributes:
        tensor: Index of the constant tensor in its subgraph.
        decoders: Indices of the DENSIFY and DEQUANTIZE operators between the
            constant and the layer, in order.
    """

    tensor: int
    decoders: tuple[int, ...] = ()


@dataclass(frozen=True)
class Layer:
    """An operator with weights, packed, packable or not.

    Attributes:
        subgraph: Index of its subgraph.
        operator: Index of its operator in the subgraph.
        name: Name of the layer, from its output tensor.
        op: TFLite's operator name, or the name of the packed operator.
        weight: Index of the weight tensor, -1 when there is none.
        weight_shape: Shape of the weights, ``[O, kh, kw, I]`` or ``[O, K]``.
        source: Where the weights are; None when they are not constant.
        options: What the packed operator needs; None when it cannot be packed.
        skip: Why the layer cannot be packed; None when it can, or is packed.
        reason: The same as a sentence that tells what was found.
        residual: Tensor that a packed convolution adds to its output; None mostly.
        more_sources: Where more weights are, of an operator with several matrices.
        loop: The recurrent layer that a dense layer is a product of.
    """

    subgraph: int
    operator: int
    name: str
    op: str
    weight: int
    weight_shape: tuple[int, ...]
    source: WeightSource | None
    options: options.Options | None
    skip: SkipReason | None
    reason: str | None
    residual: int | None = None
    more_sources: tuple[WeightSource, ...] = ()
    loop: Loop | None = None

    @property
    def packed(self) -> bool:
        return self.op in options.OPERATORS

    @property
    def sources(self) -> list[WeightSource]:
        """Where all its weights are."""
        return [] if self.source is None else [self.source, *self.more_sources]

    @property
    def recurrent(self) -> bool:
        """Whether it is one matrix of a recurrent layer."""
        return self.loop is not None or self.op in options.RECURRENT


def weight_buffers(model: Model, layer: Layer) -> tuple[int, ...]:
    """Where the file has the weights of a layer; nowhere if they are not constant.

    Operators with the same buffers share their weights: calls of one layer, say.
    """
    indices = [source.tensor for source in layer.sources]
    if layer.packed or not indices:
        indices = [layer.weight] if layer.weight >= 0 else []
    tensors = [model.subgraphs[layer.subgraph].tensors[index] for index in indices]
    if any(model.data(tensor) is None for tensor in tensors):
        return ()
    return tuple(tensor.buffer for tensor in tensors)
