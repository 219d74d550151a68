# SPDX-License-Identifier: Apache-2.0
"""A `.tflite` file and a recipe as layers to prune without training."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfrewprune.calibration.inputs import InputSpec
from tfrewprune.calibration.network import Site
from tfrewprune.constraints import LayerCost
from tfrewprune.converter.cases import entries
from tfrewprune.converter.channels import with_filters_moved
from tfrewprune.converter.conversion import read_content
from tfrewprune.converter.densify import FLOAT_TYPES, WEIGHT_TYPES
from tfrewprune.converter.detect import find_layers
from tfrewprune.converter.flatbuffer import (
    NUMPY_TYPES,
    Model,
    index_list,
    read_model,
    tensor_shape,
    tensor_signature,
    text,
)
from tfrewprune.converter.layer import Layer, weight_buffers
from tfrewprune.converter.plan import layer_shape
from tfrewprune.converter.sized import at_one_size
from tfrewprune.left_dense import (
    FIRST,
    LAST,
    check_rules,
    first_that,
    no_layer,
    why_dense,
)
from tfrewprune.oneshot.pruning import Job
from tfrewprune.oneshot.source import Source, nothing_to_prune
from tfrewprune.oneshot.tflite_network import TFLiteNetwork, why_not_measured
from tfrewprune.payload.gain import predicted_gain
from tfrewprune.recipe import Recipe
from tfrewprune.rows import LayerRow
from tfrewprune.rule import Rule
from tfrewprune.structures.likeness import in_bands, like_order

_FED = tuple(
    getattr(schema.TensorType, name)
    for name in ("FLOAT32", "INT32", "INT64", "INT8", "UINT8", "BOOL")
)


def read_source(model: Any) -> bytes:
    """The bytes of a `.tflite` model, given as bytes or as a path.

    Raises:
        ConversionError: It is neither.
        ValueError: No layer of it can be pruned, whatever the recipe.
        OSError: The file cannot be read.
    """
    content = read_content(model, may_export=False)
    model = read_model(content)
    layers = find_layers(model)
    reasons = why_not_measured(model, layers)
    if len(reasons) == len(layers):
        raise nothing_to_prune({layers[n].name: why for n, why in reasons.items()})
    return content


def specs_of(content: bytes) -> list[InputSpec]:
    """What a `.tflite` model takes, in the order of its inputs.

    Raises:
        ConversionError: The file is damaged.
        ValueError: An input of a type that cannot be fed.
    """
    model = read_model(content)
    graph = model.subgraphs[0]
    signatures = [s for s in model.tree.signatureDefs or () if s.subgraphIndex == 0]
    named = signatures[0].inputs if signatures else ()
    paths = {entry.tensorIndex: (text(entry.name),) for entry in named or ()}
    specs = []
    for index in index_list(graph.inputs):
        tensor = graph.tensors[index]
        name = text(tensor.name)
        if tensor.type not in _FED:
            raise ValueError(
                f"Input {name!r} of the .tflite model is of tensor type {tensor.type}; "
                f"expected one of {sorted(NUMPY_TYPES[code].name for code in _FED)}."
            )
        shape = tensor_signature(tensor)
        dtype = NUMPY_TYPES[tensor.type]
        specs.append(InputSpec(name, shape, dtype, paths.get(index, ())))
    return specs


class TFLiteSource(Source):
    """The bytes of a `.tflite` model; the caller's are left as they are.

    Args:
        content: The file.
        recipe: Which layers, structures and rates.
        data: Checked calibration inputs.

    Raises:
        ValueError: A rule matches no layer or asks for what only Keras models have,
            or nothing is left to prune.
    """

    def __init__(self, content: bytes, recipe: Recipe, data: list[np.ndarray]):
        _check_recipe(recipe)
        self.network = TFLiteNetwork(content, data)
        self._sized = _at_size_of(content, data)
        model, layers = self.network.model, self.network.layers
        self._constants = _constant_weights(model)
        sites = {site.key: site for site in self.network.sites}
        self._rules: dict[int, Rule] = {}
        self._reasons: dict[int, str] = {}
        outputs = _output_layers(model, layers)
        ends = _ends(layers, outputs, recipe)
        for number, layer in enumerate(layers):
            rule, reason = _decide(
                self._sized, layer, sites.get(number), recipe, ends.get(number)
            )
            reason = self.network.reasons.get(number, reason)
            if reason is not None:
                self._reasons[number] = reason
            else:
                self._rules[number] = rule
        check_rules(
            recipe, layers, _applies, lambda _: no_layer(layer.name for layer in layers)
        )
        if not self._rules:
            told = {layers[n].name: why for n, why in self._reasons.items()}
            raise nothing_to_prune(told)
        self.jobs, self.idle = [], _left_alone(model, layers, sites)
        for number, site in sites.items():
            structure = rate = None
            if number in self._rules:
                rule = self._rules[number]
                kernel, structure = self.network.kernel(site), rule.structure
                if number in outputs:
                    structure = structure.at_output()
                structure = structure.fitted(kernel)
                rate = recipe.settled(rule, site.shape).rate
            cost = self._cost(layers[number], site, structure)
            skipping = first_that(_applies, recipe, layers[number])
            if skipping is not None and skipping.skip:
                self.idle.append(cost)
                continue
            self.jobs.append(Job(site, cost, structure, rate, recipe.minimum_groups))
        costs = [*self.idle, *(job.cost for job in self.jobs)]
        self.other_weights = self._constants - sum(cost.weights for cost in costs)
        self.other_bytes = len(content) - sum(c.weights * c.item for c in costs)

    def arranged(self, recipe: Recipe, data: list[np.ndarray]) -> TFLiteSource:
        """The same with like filters side by side, as `arrange` does it."""
        chosen = {}
        for job in self.jobs:
            structure, shape = job.structure, job.site.shape
            if structure is not None and in_bands(structure, shape):
                operator = self.network.layers[job.site.key].operator
                chosen[operator] = self.network.kernel(job.site), structure

        def order(operators: list[int], count: int) -> np.ndarray:
            return like_order([chosen[n] for n in operators if n in chosen], count)

        moved = with_filters_moved(self.network.content(), order) if chosen else None
        if moved is None:
            return self
        source, few = TFLiteSource(moved, recipe, data), [array[:8] for array in data]
        # Sums in another order; anything beyond that would be an operator misread.
        pairs = zip(self.network.outputs(few), source.network.outputs(few), strict=True)
        same = all(np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs)
        return source if same else self

    def result(self) -> bytes:
        return self.network.content()

    def rows(self) -> list[LayerRow]:
        jobs = {job.site.key: job for job in self.jobs}
        rows = []
        for number, layer in enumerate(self.network.layers):
            if number not in self._rules:
                row = LayerRow(layer.name, layer.op, None, layer.weight_shape)
                reason = self._reasons[number]
                rows.append(dataclasses.replace(row, reason=reason))
                continue
            job = jobs[number]
            kernel = self.network.kernel(job.site)
            survivors = job.structure.surviving_groups(kernel)
            rows.append(
                LayerRow(
                    layer=layer.name,
                    kind=layer.op,
                    structure=job.structure,
                    shape=layer.weight_shape,
                    weights=job.weights,
                    kept=job.kept,
                    groups=survivors.size,
                    groups_kept=int(survivors.sum()),
                    note="; ".join(job.notes) or None,
                )
            )
        return rows

    def rate(self, rows: list[LayerRow]) -> float:
        removed = sum(row.weights - row.kept for row in rows if row.reason is None)
        return self._constants / max(1, self._constants - removed)

    def _cost(self, layer: Layer, site: Site, structure) -> LayerCost:
        stored = self.network.model.subgraphs[0].tensors[layer.source.tensor]
        alike = structure.rows_alike(site.shape) if structure is not None else 1
        runs = {layer_shape(self._sized, layer): 1}
        item = FLOAT_TYPES[stored.type].itemsize
        return LayerCost(runs, site.shape.weights, alike, item)


def _at_size_of(content: bytes, data: list[np.ndarray]) -> Model:
    """A model that stores the shapes it has on the data, one input at a time."""
    entry = entries(read_model(content))[0]
    if not entry.open_sizes:
        return read_model(content)
    shapes = [
        (*map(abs, shape[:1]), *array.shape[1:])
        for shape, array in zip(entry.shapes, data, strict=True)
    ]
    sized, found = at_one_size(content, shapes)
    if found is None:
        raise ValueError(
            "The sizes of layers are not known: LiteRT does not run the model on "
            f"inputs of shape {shapes}."
        )
    return read_model(sized)


def _label(layer: Layer) -> tuple[str, str]:
    """Name and path of a layer, as rules match them."""
    return layer.name.rsplit("/", 1)[-1], layer.name


def _applies(rule: Rule, layer: Layer) -> bool:
    return rule.matches(*_label(layer))


def _check_recipe(recipe: Recipe) -> None:
    """Refuses what means classes or units of layers: a file has matrices alone."""
    for rule in recipe.rules:
        if rule.kind is not None:
            raise ValueError(
                "A .tflite file does not know the classes of its layers: expected "
                f"rules by names or patterns. Received: Rule({rule})"
            )
        if not rule.skip and rule.structure.unit != "matrix":
            raise ValueError(
                f"A .tflite file does not know the {rule.structure.unit} of its "
                "layers: expected structures of weight matrices, such as Block(16, 1). "
                f"Received: {rule.structure} in Rule({rule})"
            )


def _decide(
    model: Model, layer: Layer, site: Site | None, recipe: Recipe, end: str | None
) -> tuple[Rule | None, str | None]:
    """The rule of a layer, and why it stays dense."""
    rule = first_that(_applies, recipe, layer)

    def gain_at(rate: float) -> float:
        alike = rule.structure.rows_alike(site.shape)
        return predicted_gain(layer_shape(model, layer), rate, alike)

    # Without a site the network has the reason.
    exact = site is None or (rule is not None and rule.names(*_label(layer)))
    weights = 0 if site is None else site.shape.weights
    return rule, why_dense(rule, recipe, weights, gain_at, exact=exact, end=end)


def _ends(layers: list[Layer], outputs: list[int], recipe: Recipe) -> dict[int, str]:
    """Layers that patterns leave alone: first convolution, classifiers at the end."""
    skipped = {}
    if recipe.skip_first:
        first = (n for n, layer in enumerate(layers) if layer.op == "CONV_2D")
        for number in list(first)[:1]:
            skipped[number] = FIRST
    if recipe.skip_last:
        for number in outputs:
            if layers[number].op == "FULLY_CONNECTED":
                skipped[number] = LAST
    return skipped


def _left_alone(
    model: Model, layers: list[Layer], sites: Mapping[int, Site]
) -> list[LayerCost]:
    """What the layers cost that are not measured: they run, changed or not.

    Weights that several of them share are one matrix, run for each.
    """
    found: dict[tuple[int, ...], LayerCost] = {}
    for number, layer in enumerate(layers):
        place = weight_buffers(model, layer)
        if number in sites or layer.packed or layer.options is None or not place:
            continue
        size = layer_shape(model, layer)
        cost = found.setdefault(place, LayerCost(Counter(), size.rows * size.columns))
        cost.runs[size] += 1
    return list(found.values())


def _output_layers(model: Model, layers: list[Layer]) -> list[int]:
    """The last layers with weights before each output, by their place in `layers`."""
    graph, found = model.subgraphs[0], []
    writers = {
        tensor: number
        for number, operator in enumerate(graph.operators)
        for tensor in index_list(operator.outputs)
    }
    operators = {
        layer.operator: number
        for number, layer in enumerate(layers)
        if layer.subgraph == 0
    }
    for tensor in index_list(graph.outputs):
        while (operator := writers.get(tensor)) is not None:
            if operator in operators:
                found.append(operators[operator])
                break
            inputs = index_list(graph.operators[operator].inputs)
            flowing = [i for i in inputs if i in writers]
            if len(flowing) != 1:
                break
            tensor = flowing[0]
    return found


def _constant_weights(model: Model) -> int:
    """Constants of the model of a type that weights have, each buffer once."""
    sizes: Counter[int] = Counter()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.type in WEIGHT_TYPES and model.data(tensor) is not None:
                count = int(np.prod(tensor_shape(tensor), dtype=np.int64))
                sizes[tensor.buffer] = max(sizes[tensor.buffer], count)
    return sum(sizes.values())
