# SPDX-License-Identifier: Apache-2.0
"""Remembers in a packed file how its weights were stored before, for the way back.

Weights of a float16 model, or of one in TFLite's sparse encoding, reach their layer
through DEQUANTIZE and DENSIFY operators, which packing removes. The tensors they read
stay (tensor indices never move) without data, as do the int8 tensors of dynamic-range
layers with their scales; which they were, and how a sparse one was cut into levels, is
kept as JSON in the metadata of the file, which no runtime reads (``PAYLOAD.md``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from tfrewprune.converter.densify import SparseForm
from tfrewprune.converter.detect import DECODERS
from tfrewprune.converter.flatbuffer import Model
from tfrewprune.converter.metadata import (
    damaged,
    drop_metadata,
    read_metadata,
    write_metadata,
)

_NAME = "tfrewprune.sources"


@dataclass(frozen=True)
class Decoder:
    """A DENSIFY or DEQUANTIZE operator that packing removed.

    Attributes:
        code: Its `BuiltinOperator`.
        input: The tensor it read.
        form: How that tensor was encoded; None for a dense one.
    """

    code: int
    input: int
    form: SparseForm | None = None


@dataclass(frozen=True)
class Source:
    """Where the weights of packed layers came from.

    Attributes:
        subgraph: Index of the subgraph.
        tensor: The weight tensor, which holds the payload now.
        decoders: What stood between the constant and that tensor, in order.
        weights: The int8 weight tensor of a dynamic-range layer, which has no decoders
            and whose payload has a tensor of its own; None otherwise.
    """

    subgraph: int
    tensor: int
    decoders: tuple[Decoder, ...]
    weights: int | None = None

    @property
    def constant(self) -> int:
        """The tensor that held the weights."""
        return self.decoders[0].input if self.weights is None else self.weights


def remember(model: Model, sources: Iterable[Source]) -> None:
    """Adds sources to what the file remembers."""
    known = [*recall(model).values(), *sources]
    if known:
        write_metadata(model, _NAME, [asdict(source) for source in known])


def recall(model: Model) -> dict[tuple[int, int], Source]:
    """Returns what the file remembers, by (subgraph, tensor).

    Raises:
        ConversionError: If it is damaged.
    """
    try:
        found = [_parse(model, item) for item in read_metadata(model, _NAME) or ()]
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise damaged(_NAME, error) from error
    return {(source.subgraph, source.tensor): source for source in found}


def forget(model: Model) -> None:
    """Takes the metadata out of the file again."""
    drop_metadata(model, _NAME)


def _parse(model: Model, item: dict[str, Any]) -> Source:
    tensors = model.subgraphs[item["subgraph"]].tensors
    decoders = []
    for decoder in item["decoders"]:
        form = decoder["form"]
        if not 0 <= decoder["input"] < len(tensors):
            raise IndexError(f"no tensor {decoder['input']}")
        if decoder["code"] not in DECODERS:
            raise ValueError(f"operator {decoder['code']} decodes nothing")
        form = None if form is None else SparseForm.parse(form)
        decoders.append(Decoder(decoder["code"], decoder["input"], form))
    weights = item.get("weights")
    if (
        not 0 <= item["tensor"] < len(tensors)
        or bool(decoders) == (weights is not None)
        or not 0 <= (weights or 0) < len(tensors)
    ):
        raise ValueError(f"no source of tensor {item['tensor']}")
    return Source(item["subgraph"], item["tensor"], tuple(decoders), weights)
