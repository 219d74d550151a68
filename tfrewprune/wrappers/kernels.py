# SPDX-License-Identifier: Apache-2.0
"""Which weight of which layer is a GEMM matrix, and why the others are not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from tfrewprune.rows import NO_MATRIX
from tfrewprune.structures import KernelLayout, KernelShape
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.regularizer import MethodRegularizer
from tfrewprune.wrappers.state import (
    Hooks,
    PruningState,
    hooked_variables,
    hooks_of,
    replaced,
)


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """One prunable kernel of a layer class.

    Args:
        attribute: Name of the layer's attribute that holds the variable.
        layout: How the variable is read as a matrix.
        prefix: The layer's attributes `{prefix}_regularizer` and `{prefix}_constraint`
            go into its config; default: `attribute`.
        packed: Whether the converter has a packed operator for it; without one the
            zeros save neither bytes nor time.
        name: What rules (`Rule(weights=...)`) and reports call it; default `attribute`.
        inside: The layer's attribute that holds the layer with the variable; None where
            it is the layer itself.
        rest: Kernels of other variables whose groups are the same: they are removed
            together with this one's.
        unit: What structures cut it, see `Structure.unit`.
    """

    attribute: str = "kernel"
    layout: KernelLayout = KernelLayout()
    prefix: str | None = None
    packed: bool = True
    name: str | None = None
    inside: str | None = None
    rest: tuple[KernelSpec, ...] = ()
    unit: str = "matrix"

    @property
    def label(self) -> str:
        """`name`, or else the attribute."""
        return self.name or self.attribute

    @property
    def parts(self) -> tuple[KernelSpec, ...]:
        """This one and the `rest`: a spec for each variable."""
        return (self, *self.rest)

    def owner(self, layer: keras.Layer) -> keras.Layer | None:
        """The layer that holds the variable: `layer`, or the one inside it."""
        return layer if self.inside is None else getattr(layer, self.inside, None)

    def variable(self, layer: keras.Layer) -> keras.Variable | None:
        """The variable, or None if the layer has not got it."""
        owner = self.owner(layer)
        for name in (f"_{self.attribute}", self.attribute):
            found = getattr(owner, name, None)
            if isinstance(found, keras.Variable):
                return found
        return None

    def hooks(self, layer: keras.Layer) -> Hooks:
        """Penalty and mask in place."""
        return hooks_of(self.variable(layer), self.layout)

    def set_penalty(
        self, layer: keras.Layer, penalty: MethodRegularizer | None
    ) -> None:
        """Puts a penalty in the place of the one there is, or takes that off."""
        head = replaced(self.variable(layer).regularizer, self.layout, penalty)
        self.variable(layer).regularizer = head
        self._set_config(layer, "regularizer", head)

    def set_mask(self, layer: keras.Layer, mask: MaskConstraint | None) -> None:
        """Puts a mask in the place of the one there is, or takes that off."""
        head = replaced(self.variable(layer).constraint, self.layout, mask)
        self.variable(layer).constraint = head
        self._set_config(layer, "constraint", head)

    def _set_config(self, layer: keras.Layer, hook: str, value) -> None:
        name = f"{self.prefix or self.attribute}_{hook}"
        if hasattr(self.owner(layer), name):
            setattr(self.owner(layer), name, value)


KernelFinder = Callable[[keras.Layer], list[KernelSpec]]
_REGISTRY: dict[type, KernelFinder] = {}


def register_prunable(layer_class: type, *kernels: KernelSpec | str) -> None:
    """Declares which weights of a custom layer class may be pruned.

    Args:
        layer_class: A `keras.Layer` subclass; subclasses of it inherit the declaration.
        *kernels: `KernelSpec`s or attribute names; none means "never prune".

    Raises:
        TypeError: `layer_class` is no layer class.

    Example:

    >>> register_prunable(MyProjection, "projection_matrix")
    >>> register_prunable(MyCell, *(  # two gates side by side in one variable
    ...     KernelSpec("mixed", KernelLayout("gate", parts=2, part=part), name=name)
    ...     for part, name in enumerate(["mixed/update", "mixed/candidate"])))
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(f"Expected a keras.Layer subclass. Received: {layer_class!r}")
    specs = [KernelSpec(spec) if isinstance(spec, str) else spec for spec in kernels]
    if len(specs) > 1:  # each needs a name of its own
        specs = [dataclasses.replace(spec, name=spec.label) for spec in specs]
    declare(layer_class, lambda layer: specs)


def declare(layer_class: type, finder: KernelFinder) -> None:
    """Declares the kernels of a layer class where they depend on the layer."""
    _REGISTRY[layer_class] = finder


def kernel_specs(
    layer: keras.Layer, unit: str | None = "matrix"
) -> list[KernelSpec] | None:
    """The kernels of a layer of a known class, trainable or not; None if unknown.

    Args:
        layer: A layer.
        unit: What structures shall cut, see `Structure.unit`; None for all units.
    """
    declared = _declared(layer)
    if declared is None:
        return None
    return [
        spec
        for spec in declared
        if unit in (None, spec.unit)
        and all(part.variable(layer) is not None for part in spec.parts)
    ]


def _declared(layer: keras.Layer) -> list[KernelSpec] | None:
    """What the layer's class declares, whether the layer has got it or not."""
    finder = next((_REGISTRY[c] for c in type(layer).__mro__ if c in _REGISTRY), None)
    return None if finder is None else finder(layer)


def find_kernels(
    layer: keras.Layer, unit: str = "matrix"
) -> tuple[list[KernelSpec], str | None]:
    """Kernels of a layer that may be pruned now, or the reason why it has none.

    Only the layer's own matrices count; sublayers are looked at by themselves. A layer
    without weights of its own gives an empty list and no reason, as does one that has
    not got the `unit`.
    """
    specs = kernel_specs(layer, unit)
    if unit != "matrix":
        frozen = [
            spec
            for spec in specs or ()
            if not all(part.variable(layer).trainable for part in spec.parts)
        ]
        return specs or [], "frozen" if frozen else None
    own = list(layer._trainable_variables) + list(layer._non_trainable_variables)
    if not layer.built and specs is not None:
        return [], "not built: call the model on data, or build it, first"
    if not own or isinstance(layer, keras.layers.Wrapper):
        return [], None
    reason = _layer_reason(layer)
    if reason is not None:
        return [], reason
    if specs is None:
        if all(len(variable.shape) < 2 for variable in own):
            return [], NO_MATRIX
        return [], (
            f"layer class {type(layer).__name__} is not known; "
            "see tfrewprune.register_prunable"
        )
    return specs, None if specs else _why_none(layer, own)


def _why_none(layer: keras.Layer, own: list[keras.Variable]) -> str:
    """Why a layer of a known class has no kernel: it may be a misspelt attribute."""
    matrices = [variable for variable in own if len(variable.shape) > 1]
    asked = [repr(spec.attribute) for spec in _declared(layer)]
    if not asked or not matrices:
        return NO_MATRIX
    names = _attributes(layer)
    found = [names.get(id(variable), variable.name) for variable in matrices]
    return (
        f"register_prunable names {', '.join(asked)}, which the layer has not got; it "
        f"has {', '.join(map(repr, found))}"
    )


def _attributes(layer: keras.Layer) -> dict[int, str]:
    """Names of a layer's attributes by the identity of their values."""
    return {id(value): name.lstrip("_") for name, value in vars(layer).items()}


def hooked_specs(layer: keras.Layer) -> list[KernelSpec]:
    """The kernels of a layer that carry a penalty or a mask of this package.

    Whatever the layer is: frozen since, quantized since, or of a class that is not
    known and was given a regularizer by hand.
    """
    known = kernel_specs(layer, None) or ()
    specs = [spec for spec in known if any(spec.hooks(layer))]
    claimed = {(id(spec.variable(layer)), spec.layout.suffix) for spec in specs}
    names = _attributes(layer)
    for variable, found in hooked_variables(layer):
        hook = next(filter(None, found))
        slot = id(variable), hook.layout.suffix
        if slot in claimed or hook.layout.kind == "heads":
            continue  # heads belong to the attention layer around this one
        attribute = names.get(id(variable), variable.name)
        prefix = names.get(id(hook), attribute)
        prefix = prefix.removesuffix("_regularizer").removesuffix("_constraint")
        specs.append(KernelSpec(attribute, hook.layout, prefix, packed=False))
    return specs


def _layer_reason(layer: keras.Layer) -> str | None:
    if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D):
        return "depthwise: every output reads one channel, there is little to remove"
    if isinstance(layer, keras.src.layers.rnn.conv_lstm.ConvLSTMCell):
        return "convolutional recurrent cell: no operator runs its gates packed"
    if getattr(layer, "quantization_mode", None) is not None:
        return "quantized already"
    if getattr(layer, "lora_enabled", False):
        return "LoRA is enabled: its kernel is not trained"
    if isinstance(layer, keras.layers.BatchNormalization):
        return NO_MATRIX
    if not any(variable.trainable for variable in layer._trainable_variables):
        return "frozen" if layer._trainable_variables else "no trainable weights"
    if getattr(layer, "groups", 1) not in (1, None) and hasattr(layer, "kernel_size"):
        return "grouped convolution: several small matrices"
    return None


def walk_kinds(
    model: keras.Layer,
) -> Iterator[tuple[str, keras.Layer, tuple[str, ...]]]:
    """(path, layer, kinds) of every layer below `model`, once, in order of definition.

    The path joins layer names with "/", without the model's own name. A wrapper that
    has its inner layer's name, such as `Prunable`, adds nothing to the path, nor does
    the cell of a recurrent layer. Kinds are the names of the layer's classes and of the
    classes of all layers around it.
    """
    seen = {id(model)}

    def walk(parent: keras.Layer, prefix: str, around: tuple[str, ...]):
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen or isinstance(layer, PruningState):
                continue
            seen.add(id(layer))
            transparent = (
                isinstance(parent, keras.layers.Wrapper) and layer.name == parent.name
            ) or (isinstance(parent, keras.layers.RNN) and layer is parent.cell)
            path = prefix if transparent else f"{prefix}/{layer.name}".lstrip("/")
            classes = type(layer).__mro__
            below = classes[: classes.index(keras.Layer)]
            kinds = (*around, *(c.__name__ for c in below))
            yield path, layer, kinds
            yield from walk(layer, path, kinds)

    return walk(model, "", ())


def walk_layers(model: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """(path, layer) of every layer below `model`, see `walk_kinds`."""
    return ((path, layer) for path, layer, _ in walk_kinds(model))


def output_layers(model: keras.Layer) -> list[keras.Layer]:
    """The last layers with a weight matrix before each output of a functional model.

    Operations without one (an activation, a reshape, a normalization) are passed by;
    empty for other models, which do not say what gives their outputs.
    """
    found = []
    for tensor in keras.tree.flatten(getattr(model, "outputs", None) or []):
        history = tensor._keras_history
        operation, index = history.operation, history.node_index
        while operation is not None:
            if isinstance(operation, keras.Model):
                found += output_layers(operation)
                break
            weights = getattr(operation, "weights", [])
            if any(len(weight.shape) > 1 for weight in weights):
                found.append(operation)
                break
            inputs = operation._inbound_nodes[index].input_tensors
            if len(inputs) != 1:
                break
            history = inputs[0]._keras_history
            operation, index = history.operation, history.node_index
    return found


def cells_of(layer: keras.layers.RNN) -> list[keras.Layer]:
    """The cells of a recurrent layer, from the lowest on."""
    cell = layer.cell
    stacked = isinstance(cell, keras.layers.StackedRNNCells)
    return list(cell.cells) if stacked else [cell]


def steps_of(shapes: Mapping[str, Any]) -> int | None:
    """Steps of the sequences that a recurrent layer gets; None where open.

    Args:
        shapes: Of its inputs, as `get_build_config` has them.
    """
    sequences = shapes.get("shapes_dict", {}).get("sequences_shape")
    shape = shapes.get("input_shape") or sequences
    return shape[1] if shape else None


#: Attributes of an attention layer: what multiplies as many positions as it has keys.
OF_KEYS = ("_key_dense", "_value_dense")


def attention_length(shapes: Mapping[str, Any], *, keys: bool) -> int | None:
    """Positions that a projection of an attention layer multiplies; None if open.

    Args:
        shapes: Of the attention layer's inputs, as `get_build_config` has them.
        keys: Whether the projection is that of keys or values.
    """
    name = "value_shape" if keys else "query_shape"
    shape = shapes.get("shapes_dict", {}).get(name)
    lengths = shape[1:-1] if shape else (None,)
    return None if None in lengths else math.prod(lengths)


def macs_per_weight(
    layer: keras.Layer, spec: KernelSpec, shapes: Mapping[str, Any]
) -> int:
    """How often each weight is multiplied in one call.

    Args:
        layer: The layer.
        spec: Its kernel.
        shapes: Of the call's inputs, as `get_build_config` has those of the first.

    Raises:
        ValueError: That shape, or the layer's output shape, is unknown or not fixed.
    """
    if spec.layout.kind == "heads":
        lengths = {
            attention_length(shapes, keys=part.inside in OF_KEYS)
            for part in spec.parts
            if part.inside is not None
        }
        if len(lengths) == 1 and None not in lengths:
            return lengths.pop()
    if spec.layout.kind in ("gate", "heads") or isinstance(
        layer, keras.layers.SimpleRNNCell
    ):
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}): how often a weight of "
            f"{spec.label!r} is multiplied depends on the length of a sequence, which "
            "the layer does not record. Use budget='weights', or a rate of its own."
        )
    shape = shapes.get("input_shape")
    if shape is None or any(not isinstance(extent, int | None) for extent in shape):
        raise ValueError(
            f"Layer {layer.name!r} does not record the shape it was built with, so its "
            "multiplications cannot be counted. Use budget='weights'."
        )
    if spec.layout.kind == "dense":
        # Its output shape may be unknown where the input is not: the axes that the
        # kernel does not contract are the positions.
        spatial = shape[1:]
        if None not in spatial:
            columns = kernel_shape(spec, layer).columns
            return max(1, math.prod(spatial) // columns)
    else:
        if spec.layout.kind != "conv_transpose":
            try:
                shape = layer.compute_output_shape(shape)
            except NotImplementedError as error:
                raise ValueError(
                    f"Layer {layer.name!r} ({type(layer).__name__}) has no "
                    "`compute_output_shape`, so its multiplications cannot be counted. "
                    "Write one, or use budget='weights'."
                ) from error
        channels_first = getattr(layer, "data_format", None) == "channels_first"
        spatial = shape[2:] if channels_first else shape[1:-1]
    if any(extent is None for extent in spatial):
        raise ValueError(
            f"Layer {layer.name!r} was built for inputs of shape {tuple(shape)}; a "
            "budget of MACs needs fixed spatial sizes. Build the model with an Input "
            "of fixed shape, or use budget='weights'."
        )
    return math.prod(spatial)


def kernel_shape(spec: KernelSpec, layer: keras.Layer) -> KernelShape:
    """Extent of a layer's kernel as a GEMM matrix."""
    return spec.layout.kernel_shape(spec.variable(layer).shape)
