# SPDX-License-Identifier: Apache-2.0
"""A subgraph seen from its tensors: what writes each, and what constants hold."""

from __future__ import annotations

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.flatbuffer import (
    NUMPY_TYPES,
    OPERATOR_NAMES,
    Model,
    index_list,
    tensor_shape,
    tensor_signature,
)

_FLOATS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16)
_READ = (*_FLOATS, schema.TensorType.INT32, schema.TensorType.INT64)
# Fewest and most inputs, and the options, of what recurrences are made of.
_FORMS: dict[str, tuple[int, int, type | None]] = {
    "ADD": (2, 2, schema.AddOptionsT),
    "SUB": (2, 2, schema.SubOptionsT),
    "MUL": (2, 2, schema.MulOptionsT),
    "FULLY_CONNECTED": (2, 3, schema.FullyConnectedOptionsT),
    "SPLIT": (2, 2, None),
    "SLICE": (3, 3, None),
    "STRIDED_SLICE": (4, 4, schema.StridedSliceOptionsT),
    "CONCATENATION": (1, 1 << 16, schema.ConcatenationOptionsT),
    "GATHER": (2, 2, schema.GatherOptionsT),
    "RESHAPE": (1, 2, None),
    "UNPACK": (1, 1, None),
    "SQUEEZE": (1, 1, None),
    "TRANSPOSE": (2, 2, None),
    "REVERSE_V2": (2, 2, None),
    "SHAPE": (1, 1, None),
    "LESS": (2, 2, None),
    "LOGICAL_AND": (2, 2, None),
    "LOGISTIC": (1, 1, None),
    "TANH": (1, 1, None),
    "RELU": (1, 1, None),
    "DEQUANTIZE": (1, 1, None),
}


class View:
    """One subgraph of a model; nothing is changed through it.

    Operators that have not got the inputs and options of their kind have no name.
    """

    def __init__(self, model: Model, subgraph: schema.SubGraphT):
        self.model, self.subgraph = model, subgraph
        self._writers: dict[int, schema.OperatorT] = {}
        for operator in subgraph.operators:
            for tensor in index_list(operator.outputs):
                self._writers[tensor] = operator

    def name(self, operator: schema.OperatorT) -> str:
        """TFLite's name of a built-in operator."""
        name = OPERATOR_NAMES.get(self.model.builtin_code(operator), "")
        if name in _FORMS:
            fewest, most, options = _FORMS[name]
            inputs = index_list(operator.inputs)
            bias_apart = inputs[:2] if name == "FULLY_CONNECTED" else inputs
            whole = fewest <= len(inputs) <= most and min(bias_apart) >= 0
            if not whole or not len(operator.outputs):
                return ""
            if options is not None and not isinstance(operator.builtinOptions, options):
                return ""
        return name

    @property
    def computes_only(self) -> bool:
        """Whether all it holds are operators that recurrences are made of."""
        return all(
            self.name(operator) in _FORMS for operator in self.subgraph.operators
        )

    def writer(self, tensor: int) -> schema.OperatorT | None:
        return self._writers.get(tensor)

    def written_by(self, tensor: int, name: str) -> schema.OperatorT | None:
        """The operator that writes a tensor, if it is one of that name."""
        operator = self._writers.get(tensor)
        found = operator is not None and self.name(operator) == name
        return operator if found else None

    def type(self, tensor: int) -> int:
        return self.subgraph.tensors[tensor].type

    def shape(self, tensor: int) -> tuple[int, ...]:
        """With -1 for unknown dimensions."""
        return tensor_signature(self.subgraph.tensors[tensor])

    def constant(self, tensor: int) -> np.ndarray | None:
        """What a constant holds: integers, or floats that DEQUANTIZE may widen."""
        if tensor < 0:
            return None
        widened = self.written_by(tensor, "DEQUANTIZE")
        if widened is not None:
            inner = int(widened.inputs[0])
            floats = self.type(inner) == schema.TensorType.FLOAT16
            fixed = floats and inner not in self._writers
            found = self.constant(inner) if fixed else None
            return None if found is None else found.astype(np.float32)
        stored = self.subgraph.tensors[tensor]
        given = tensor in index_list(self.subgraph.inputs)
        if tensor in self._writers or given or stored.isVariable:
            return None
        data = self.model.data(stored)
        shape = tensor_shape(stored)
        if data is None or stored.type not in _READ or stored.sparsity is not None:
            return None
        values = np.frombuffer(data.tobytes(), NUMPY_TYPES[stored.type])
        return values.reshape(shape) if values.size == np.prod(shape) else None

    def floats(self, tensor: int) -> np.ndarray | None:
        """A float32 constant, or what DEQUANTIZE makes of a float16 one."""
        if tensor < 0 or self.type(tensor) != schema.TensorType.FLOAT32:
            return None
        return self.constant(tensor)

    def integers(self, tensor: int) -> list[int] | None:
        """A constant of integers, in a flat list."""
        if tensor < 0 or self.type(tensor) in _FLOATS:
            return None
        found = self.constant(tensor)
        return None if found is None else [int(n) for n in found.reshape(-1)]


def is_read(view: View, tensor: int) -> bool:
    """Whether an operator reads a tensor, or the graph gives it out."""
    if tensor in index_list(view.subgraph.outputs):
        return True
    return any(tensor in index_list(op.inputs) for op in view.subgraph.operators)
