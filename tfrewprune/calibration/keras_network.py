# SPDX-License-Identifier: Apache-2.0
"""A Keras model as a network whose layers are measured on what enters them.

Layers are observed by running the model eagerly and looking at what their `call` is
given: that works for Sequential, functional and subclassed models on every backend.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from tfrewprune.calibration.columns import Geometry
from tfrewprune.calibration.network import Network, Site
from tfrewprune.replacing import replaced_for_now
from tfrewprune.shrinking.constants import add, place_of
from tfrewprune.wrappers.graph import Call, calls_of, is_functional
from tfrewprune.wrappers.kernels import kernel_shape, walk_layers
from tfrewprune.wrappers.targets import Target

#: Inputs that run through the model at a time.
BATCH = 64

#: Variance of a channel that does not vary.
_TINY = 1e-12


class _Enough(BaseException):
    """Ends a forward pass whose rest nobody needs.

    No `Exception`, as Keras would make another of it with more text.
    """


class KerasNetwork(Network):
    """The kernels of a model that can be measured.

    Args:
        model: A built model; its weights are what `assign` and `restore` change.
        targets: Its kernels. `reasons` says why one of them is no site.
        data: A list of input arrays, one input of the model each, for a first look at
            the order of the layers.

    Attributes:
        reasons: Why a kernel cannot be measured, by `Target.path_key`.

    Raises:
        ValueError: Numbers that an `Embedding` has no row for.
    """

    def __init__(
        self, model: keras.Model, targets: list[Target], data: list[np.ndarray]
    ):
        self.model = model
        self.reasons: dict[tuple, str] = {}
        self._targets = {t.path_key: t for t in targets if t.spec is not None}
        self._normalizations = [
            layer
            for _, layer in walk_layers(model)
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        self._graphs = [
            (calls_of(part), part.outputs)
            for part in model._flatten_layers()
            if isinstance(part, keras.Model) and is_functional(part)
        ]
        self._check_tables(data)
        layers = {id(t.layer): t.layer for t in self._targets.values()}
        layers |= {id(layer): layer for layer in self._normalizations}
        self._calls = self._look(layers, [array[:1] for array in data])
        self._normalizations = [
            layers[key] for key in self._calls if layers[key] in self._normalizations
        ]
        order = {key: place for place, key in enumerate(self._calls)}
        self.sites = []
        for key, target in sorted(
            self._targets.items(), key=lambda item: order.get(item[0][0], math.inf)
        ):
            reason, geometry = _geometry(target)
            if reason is None and key[0] not in order:
                reason = "the model does not call it: it cannot be calibrated"
            if reason is not None:
                self.reasons[key] = reason
                continue
            shape = kernel_shape(target.spec, target.layer)
            centred = self._constant(target) is not None
            self.sites.append(Site(target.path, shape, geometry, centred, key))
        self._variables = self._changing()

    def batches(self, data: list[np.ndarray]) -> int:
        return -(-len(data[0]) // BATCH)

    def activations(self, site: Site, data: list[np.ndarray]) -> Iterator[np.ndarray]:
        target = self._targets[site.key]
        for seen in self._observe(target.layer, data):
            yield _last_axis(target, seen)

    def outputs(self, data: list[np.ndarray]) -> list[np.ndarray]:
        found: list[list[np.ndarray]] = []
        for batch in self._batches(data):
            results = keras.tree.flatten(self._run(batch))
            found.append([ops.convert_to_numpy(result) for result in results])
        columns = zip(*found, strict=True)
        return [np.concatenate(parts).astype(np.float32) for parts in columns]

    def spread(self, data: list[np.ndarray]) -> float | None:
        if not self._normalizations:
            return None
        layer = self._normalizations[0]
        stored = ops.convert_to_numpy(layer.moving_variance)
        seen = stored > _TINY
        if not seen.any() or (stored == 1).all():  # as it was made: never trained
            return None
        _, variance = self._moments(layer, data)
        return float(np.sqrt(np.median(variance[seen] / stored[seen])))

    def kernel(self, site: Site) -> np.ndarray:
        target = self._targets[site.key]
        return target.spec.layout.to_kernel(target.weights())

    def assign(self, site: Site, kernel: np.ndarray, shift: np.ndarray | None) -> None:
        target = self._targets[site.key]
        shape = tuple(target.variable.shape)
        target.variable.assign(target.spec.layout.from_kernel(kernel, shape))
        if shift is not None:
            add(self._constant(target), shift)

    def state(self) -> list[np.ndarray]:
        return [np.array(ops.convert_to_numpy(v.value)) for v in self._variables]

    def restore(self, state: list[np.ndarray]) -> None:
        for variable, value in zip(self._variables, state, strict=True):
            variable.assign(value)

    def adapt_normalizations(
        self, dense: list[np.ndarray], data: list[np.ndarray]
    ) -> int:
        """Batch normalizations follow what pruning made of their inputs.

        Moving mean and variance change as the moments of the inputs do between the
        dense and the present weights on the same data, so that a sample too small for
        the moments themselves does no harm. First come those that the
        model calls first: what follows sees their outputs.

        Args:
            dense: `state` of the dense model.
            data: Calibration inputs.

        Returns:
            Number of normalizations that changed.
        """
        changed = 0
        for layer in self._normalizations:
            now = self._moments(layer, data)
            here = self.state()
            self.restore(dense)
            before = self._moments(layer, data)
            self.restore(here)
            if np.allclose(now[1], before[1]) and np.allclose(now[0], before[0]):
                continue
            ratio = (now[1] + _TINY) / (before[1] + _TINY)
            # The dense moments, not the present ones, which refits may have shifted.
            start = dict(zip(map(id, self._variables), dense, strict=True))
            mean = start[id(layer.moving_mean)]
            variance = start[id(layer.moving_variance)]
            # Exact where a channel is but scaled and shifted.
            mean = now[0] + (mean - before[0]) * np.sqrt(ratio)
            variance = np.maximum((variance + layer.epsilon) * ratio - layer.epsilon, 0)
            layer.moving_mean.assign(mean.astype(np.float32))
            layer.moving_variance.assign(variance.astype(np.float32))
            changed += 1
        return changed

    def _moments(
        self, layer: keras.Layer, data: list[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        total, square, count = 0.0, 0.0, 0
        for seen in self._observe(layer, data):
            rows = np.moveaxis(seen, layer.axis, -1)
            rows = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
            total, count = total + rows.sum(axis=0), count + len(rows)
            square = square + np.square(rows).sum(axis=0)
        mean = total / count
        return mean, np.maximum(square / count - np.square(mean), 0)

    def _constant(self, target: Target) -> tuple[keras.Variable, int] | None:
        """What is added to a layer's outputs, and its sign: a bias or a moving mean."""
        place = place_of(target.layer, *self._graph_of(target.layer))
        outputs = kernel_shape(target.spec, target.layer).outputs
        fits = place is not None and math.prod(place[0].shape) == outputs
        return place if fits else None

    def _graph_of(
        self, layer: keras.Layer
    ) -> tuple[list[Call], list[keras.KerasTensor]]:
        """Calls and outputs of the one functional model that calls a layer."""
        holding = [
            graph
            for graph in self._graphs
            if any(call.operation is layer for call in graph[0])
        ]
        return holding[0] if len(holding) == 1 else ([], [])

    def _changing(self) -> list[keras.Variable]:
        variables: dict[int, keras.Variable] = {}
        for site in self.sites:
            target = self._targets[site.key]
            variables[id(target.variable)] = target.variable
            if site.centred:
                variable, _ = self._constant(target)
                variables[id(variable)] = variable
        for layer in self._normalizations:
            for variable in (layer.moving_mean, layer.moving_variance):
                variables[id(variable)] = variable
        return list(variables.values())

    def _batches(self, data: list[np.ndarray]) -> Iterator[list[np.ndarray]]:
        for start in range(0, len(data[0]), BATCH):
            yield [array[start : start + BATCH] for array in data]

    def _run(self, batch: list[np.ndarray]):
        structure = getattr(self.model, "input", None)
        if structure is not None:
            inputs = keras.tree.pack_sequence_as(structure, batch)
        else:  # a subclassed model, which does not say
            inputs = batch[0] if len(batch) == 1 else batch
        return self.model(inputs, training=False)

    def _check_tables(self, data: list[np.ndarray]) -> None:
        """Refuses what backends refuse late and in words of their own, or clip."""
        tables = [
            layer
            for _, layer in walk_layers(self.model)
            if isinstance(layer, keras.layers.Embedding)
        ]
        wrong = []

        def note(layer, numbers):
            numbers = ops.convert_to_numpy(numbers)
            least, most = numbers.min(), numbers.max()
            if least < 0 or most >= layer.input_dim:
                wrong.append(
                    f"layer {layer.name!r} looks up numbers from 0 to "
                    f"{layer.input_dim - 1}. Received: {least:g} to {most:g}"
                )
                raise _Enough

        for batch in self._batches(data) if tables else ():
            with _watched(tables, note), contextlib.suppress(_Enough):
                self._run(batch)
            if wrong:
                raise ValueError(f"Calibration data: {wrong[0]}")

    def _look(
        self, layers: dict[int, keras.Layer], one: list[np.ndarray]
    ) -> dict[int, int]:
        """How often the model calls each layer, in the order of the first calls."""
        calls: dict[int, int] = {}

        def note(layer, inputs):
            calls[id(layer)] = calls.get(id(layer), 0) + 1

        with _watched(layers.values(), note):
            self._run(one)
        return calls

    def _observe(
        self, layer: keras.Layer, data: list[np.ndarray]
    ) -> Iterator[np.ndarray]:
        """What a layer is called with, for every batch and every call of it."""
        expected = self._calls[id(layer)]
        for batch in self._batches(data):
            seen: list[np.ndarray] = []

            def note(_, inputs, seen=seen):
                seen.append(ops.convert_to_numpy(inputs).astype(np.float32))
                if len(seen) == expected:
                    raise _Enough

            with _watched([layer], note), contextlib.suppress(_Enough):
                self._run(batch)
            yield from seen


@contextlib.contextmanager
def _watched(layers, note) -> Iterator[None]:
    """Tells `note(layer, inputs)` of every call while the context lasts."""

    def watch(layer):
        call = layer.call

        def watched(inputs, *arguments, **keywords):
            note(layer, inputs)
            return call(inputs, *arguments, **keywords)

        return watched

    with replaced_for_now() as replace:
        for layer in layers:
            replace(layer, "call", watch(layer))
        yield


def _geometry(target: Target) -> tuple[str | None, Geometry]:
    """How a layer walks over its input, or the reason why that is not known."""
    layer, layout = target.layer, target.spec.layout
    if layout.kind == "conv_transpose":
        return "transposed convolution: it is not calibrated", Geometry()
    if isinstance(layer, keras.layers.EinsumDense):
        inputs, rest = layer.equation.replace("...", "0").split(",")
        contracted = rest.split("->")[0][: layout.input_axes]
        if not inputs.endswith(contracted):
            return f"einsum {layer.equation}: it is not calibrated", Geometry()
        return None, Geometry()
    if not hasattr(layer, "kernel_size"):
        known = isinstance(layer, keras.layers.Dense)
        name = type(layer).__name__
        reason = None if known else f"layer class {name}: it is not calibrated"
        return reason, Geometry()
    if target.spec.attribute == "pointwise_kernel":
        if layer.padding == "causal":
            return "causal separable convolution: it is not calibrated", Geometry()
        return None, Geometry()  # it multiplies what the depthwise part gives
    return None, Geometry(
        tuple(layer.kernel_size),
        tuple(layer.strides),
        tuple(layer.dilation_rate),
        layer.padding,
    )


def _last_axis(target: Target, seen: np.ndarray) -> np.ndarray:
    """A layer's input with its channels as one last axis."""
    layer = target.layer
    first = getattr(layer, "data_format", None) == "channels_first"
    if target.spec.attribute == "pointwise_kernel":
        seen = ops.convert_to_numpy(
            ops.depthwise_conv(
                ops.convert_to_tensor(seen),
                layer.depthwise_kernel,
                strides=layer.strides,
                padding=layer.padding,
                dilation_rate=layer.dilation_rate,
                data_format=layer.data_format,
            )
        )
    if first:
        seen = np.moveaxis(seen, 1, -1)
    if target.spec.layout.kind == "dense":
        seen = seen.reshape(
            *seen.shape[: seen.ndim - target.spec.layout.input_axes], -1
        )
    return seen
