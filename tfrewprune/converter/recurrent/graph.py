# SPDX-License-Identifier: Apache-2.0
"""Appends tensors and standard operators to a subgraph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import Model, operator_code

FLOAT32 = schema.TensorType.FLOAT32
INT32 = schema.TensorType.INT32
BOOL = schema.TensorType.BOOL
_TYPE_OF = {"f": FLOAT32, "i": INT32}


class Graph:
    """A subgraph that is being written.

    Attributes:
        model: The model it belongs to.
        subgraph: The subgraph; tensors go into it at once.
        operators: The operators written so far, which the caller puts into place.
    """

    def __init__(self, model: Model, subgraph: schema.SubGraphT, name: str):
        self.model = model
        self.subgraph = subgraph
        self.name = name
        self.operators: list[schema.OperatorT] = []

    @classmethod
    def new(cls, model: Model, name: str, layer: str) -> Graph:
        """Begins a subgraph; ``finish`` adds it to the model."""
        subgraph = schema.SubGraphT(name=name)
        subgraph.tensors, subgraph.operators = [], []
        return cls(model, subgraph, layer)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> int:
        """Adds the subgraph to the model and returns its index."""
        self.subgraph.inputs = np.array(inputs, np.int32)
        self.subgraph.outputs = np.array(outputs, np.int32)
        self.subgraph.operators = self.operators
        self.model.subgraphs.append(self.subgraph)
        return len(self.model.subgraphs) - 1

    def tensor(
        self, label: str, shape: Sequence[int], type: int = FLOAT32, buffer: int = 0
    ) -> int:
        """Adds a tensor; dimensions of -1 are unknown."""
        known = [1 if n < 0 else n for n in shape]
        signature = None if list(shape) == known else np.array(shape, np.int32)
        self.subgraph.tensors.append(
            schema.TensorT(
                shape=np.array(known, np.int32),
                shapeSignature=signature,
                type=type,
                buffer=buffer,
                name=f"{self.name}/{label}",
                hasRank=True,
            )
        )
        return len(self.subgraph.tensors) - 1

    def constant(self, label: str, value: Any) -> int:
        """Adds a small constant, int32 or float32."""
        value = np.asarray(value)
        value = value.astype("<i4" if value.dtype.kind == "i" else "<f4")
        data = np.frombuffer(value.tobytes(), np.uint8)
        self.model.tree.buffers.append(schema.BufferT(data=data))
        buffer = len(self.model.tree.buffers) - 1
        return self.tensor(label, value.shape, _TYPE_OF[value.dtype.kind], buffer)

    def op(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        version: int = 1,
    ) -> None:
        """Adds an operator that writes tensors that are there."""
        kind = 0
        if options is not None:
            kind = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
        self.operators.append(
            schema.OperatorT(
                opcodeIndex=operator_code(
                    self.model, getattr(schema.BuiltinOperator, name), version
                ),
                inputs=np.array(inputs, np.int32),
                outputs=np.array(outputs, np.int32),
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )

    def value(
        self,
        label: str,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: Any = None,
        type: int = FLOAT32,
        version: int = 1,
    ) -> int:
        """Adds an operator with one output and returns that."""
        output = self.tensor(label, shape, type)
        self.op(name, inputs, [output], options, version)
        return output

    # The few operators that loops are made of.

    def add(self, label: str, a: int, b: int, shape: Sequence[int], **kind: Any) -> int:
        return self.value(label, "ADD", [a, b], shape, schema.AddOptionsT(), **kind)

    def sub(self, label: str, a: int, b: int, shape: Sequence[int], **kind: Any) -> int:
        return self.value(label, "SUB", [a, b], shape, schema.SubOptionsT(), **kind)

    def mul(self, label: str, a: int, b: int, shape: Sequence[int]) -> int:
        return self.value(label, "MUL", [a, b], shape, schema.MulOptionsT())

    def fully_connected(
        self, label: str, x: int, w: int, bias: int, shape: Sequence[int]
    ) -> int:
        options = schema.FullyConnectedOptionsT(keepNumDims=len(shape) > 2)
        version = 6 if bias < 0 else 5 if len(shape) > 2 else 1
        inputs = [x, w, bias]
        return self.value(
            label, "FULLY_CONNECTED", inputs, shape, options, version=version
        )

    def split(self, label: str, x: int, parts: int, shape: Sequence[int]) -> list[int]:
        axis = self.constant(f"{label}_axis", len(shape) - 1)
        outputs = [self.tensor(f"{label}_{i}", shape) for i in range(parts)]
        options = schema.SplitOptionsT(numSplits=parts)
        self.op("SPLIT", [axis, x], outputs, options)
        return outputs

    def gather(
        self,
        label: str,
        x: int,
        index: int,
        shape: Sequence[int],
        type: int = FLOAT32,
        version: int = 1,
    ) -> int:
        """x[:, index]"""
        options = schema.GatherOptionsT(axis=1)
        return self.value(label, "GATHER", [x, index], shape, options, type, version)

    def lengths(self, label: str, x: int, rank: int, begin: int, end: int) -> int:
        """Dimensions ``[begin, end)`` of a tensor; a scalar for a single one."""
        shape = self.value(
            f"{label}_shape",
            "SHAPE",
            [x],
            [rank],
            schema.ShapeOptionsT(outType=INT32),
            INT32,
        )
        single = end == begin + 1
        edges = [self.constant(f"{label}_{n}", [n]) for n in (begin, end)]
        stride = self.constant(f"{label}_stride", [1])
        return self.value(
            label,
            "STRIDED_SLICE",
            [shape, *edges, stride],
            [] if single else [end - begin],
            schema.StridedSliceOptionsT(shrinkAxisMask=int(single)),
            INT32,
        )
