# SPDX-License-Identifier: Apache-2.0
"""Finds the sums that packed convolutions take over.

A residual network adds the output of a convolution to an older tensor, the residual.
Standing alone, that ADD reads and writes everything once more, which next to a pruned
convolution is no longer little; the packed operator adds the residual while its output
is still in a near cache.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from tfrewprune.converter.detect import ACTIVATIONS, model_numbers_operators
from tfrewprune.converter.flatbuffer import (
    Model,
    count_readers,
    tensor_shape,
    tensor_signature,
)
from tfrewprune.converter.layer import Layer
from tfrewprune.converter.options import ConvOptions

_FLOAT32 = schema.TensorType.FLOAT32


@dataclass(frozen=True)
class Sum:
    """An ADD that a convolution takes over.

    Attributes:
        operator: Index of the ADD in its subgraph.
        residual: Tensor that is added to the convolution.
        output: Tensor that holds the sum.
        activation: Fused activation of the ADD.
    """

    operator: int
    residual: int
    output: int
    activation: int


def find_sums(model: Model, layers: Iterable[Layer]) -> dict[tuple[int, int], Sum]:
    """Returns the sums that some of the given layers can take over.

    A convolution takes an ADD over if nobody else reads its output, nothing is fused
    into it, both operands have the shape of the sum, and the other operand is there
    before the convolution runs. Of two convolutions that are added it is the later one.

    Args:
        model: The model.
        layers: The layers that will be packed.

    Returns:
        The sum of each layer that takes one over, by (subgraph, operator).
    """
    found: dict[tuple[int, int], Sum] = {}
    if model_numbers_operators(model):
        return found
    here: dict[int, dict[int, Layer]] = {}
    for layer in layers:
        if isinstance(layer.options, ConvOptions) and layer.options.activation == 0:
            here.setdefault(layer.subgraph, {})[layer.operator] = layer
    for index, convolutions in here.items():
        finder = _Finder(model, index)
        for number, operator in enumerate(model.subgraphs[index].operators):
            if model.builtin_code(operator) != schema.BuiltinOperator.ADD:
                continue
            taken = finder.take(number, operator, convolutions)
            if taken is not None:
                convolution, total = taken
                found[index, convolution] = total
    return found


class _Finder:
    def __init__(self, model: Model, index: int):
        subgraph = model.subgraphs[index]
        self.tensors = subgraph.tensors
        self.writers: dict[int, int] = {}
        self.readers = count_readers(subgraph)
        for number, operator in enumerate(subgraph.operators):
            self.writers.update((int(i), number) for i in operator.outputs)
        # Tensors of unknown sizes have equal ones only if all follow one input.
        unknown = (min(self.signature(i), default=1) < 0 for i in subgraph.inputs)
        self.may_be_unknown = sum(unknown) <= 1

    def signature(self, tensor: int) -> tuple[int, ...]:
        return tensor_signature(self.tensors[tensor])

    def take(
        self, number: int, operator: schema.OperatorT, convolutions: dict[int, Layer]
    ) -> tuple[int, Sum] | None:
        """Returns the convolution that takes an ADD over, and the sum."""
        options = operator.builtinOptions
        if not isinstance(options, schema.AddOptionsT):
            return None
        if len(operator.inputs) != 2 or len(operator.outputs) != 1:
            return None
        operands = [int(i) for i in operator.inputs]
        output = int(operator.outputs[0])
        if (
            options.fusedActivationFunction not in ACTIVATIONS
            or min(operands) < 0
            or operands[0] == operands[1]
            or not all(self.same(operand, output) for operand in operands)
        ):
            return None
        places = {operand: self.writers.get(operand, -1) for operand in operands}
        own, residual = sorted(operands, key=lambda operand: -places[operand])
        if (
            places[own] not in convolutions
            or self.readers[own] != 1
            or self.tensors[residual].isVariable
        ):
            return None
        activation = int(options.fusedActivationFunction)
        return places[own], Sum(number, residual, output, activation)

    def same(self, operand: int, output: int) -> bool:
        one, other = self.tensors[operand], self.tensors[output]
        known = min(self.signature(operand), default=1) >= 0
        return (
            one.type == other.type == _FLOAT32
            and tensor_shape(one) == tensor_shape(other)
            and self.signature(operand) == self.signature(output)
            and (known or self.may_be_unknown)
        )
