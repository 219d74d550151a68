# SPDX-License-Identifier: Apache-2.0
"""Which weight of which layer is a GEMM matrix, and why the others are not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import keras

from tfrewprune.rows import NO_MATRIX
from tfrewprune.structures import KernelLayout, KernelShape
from tfrewprune.wrappers.state import PruningState, hooked_variables


@dataclasses.dataclass(frozen=True)
class KernelSpec:
    """One prunable weight of a layer class.

    Args:
        attribute: Name of the layer's attribute that holds the variable.
        layout: How the variable is read as a matrix.
        prefix: The layer's attributes `{prefix}_regularizer` and `{prefix}_constraint`
            go into its config; default: `attribute`.
        packed: Whether the converter has a packed operator for it; without one the
            zeros save neither bytes nor time.
    """

    attribute: str = "kernel"
    layout: KernelLayout = KernelLayout()
    prefix: str | None = None
    packed: bool = True

    def variable(self, layer: keras.Layer) -> keras.Variable | None:
        """The variable, or None if the layer has not got it."""
        for name in (f"_{self.attribute}", self.attribute):
            found = getattr(layer, name, None)
            if isinstance(found, keras.Variable):
                return found
        return None

    def set_regularizer(self, layer: keras.Layer, regularizer) -> None:
        """Sets the regularizer on the variable and in the layer's config."""
        self.variable(layer).regularizer = regularizer
        self._set_config(layer, "regularizer", regularizer)

    def set_constraint(self, layer: keras.Layer, constraint) -> None:
        """Sets the constraint on the variable and in the layer's config."""
        self.variable(layer).constraint = constraint
        self._set_config(layer, "constraint", constraint)

    def _set_config(self, layer: keras.Layer, hook: str, value) -> None:
        name = f"{self.prefix or self.attribute}_{hook}"
        if hasattr(layer, name):
            setattr(layer, name, value)


KernelFinder = Callable[[keras.Layer], list[KernelSpec]]
_REGISTRY: dict[type, KernelFinder] = {}
_CONV = [KernelSpec()]
_CONV_3D = [KernelSpec(packed=False)]
_TRANSPOSE = [KernelSpec(layout=KernelLayout("conv_transpose"), packed=False)]
_POINTWISE = [KernelSpec("pointwise_kernel", prefix="pointwise")]


def register_prunable(layer_class: type, *kernels: KernelSpec | str) -> None:
    """Declares which weights of a custom layer class may be pruned.

    Args:
        layer_class: A `keras.Layer` subclass; subclasses of it inherit the declaration.
        *kernels: `KernelSpec`s or attribute names; none means "never prune".

    Raises:
        TypeError: `layer_class` is no layer class.

    Example:

    >>> register_prunable(MyProjection, "projection_matrix")
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.Layer)):
        raise TypeError(f"Expected a keras.Layer subclass. Received: {layer_class!r}")
    specs = [KernelSpec(spec) if isinstance(spec, str) else spec for spec in kernels]
    _REGISTRY[layer_class] = lambda layer: specs


def kernel_specs(layer: keras.Layer) -> list[KernelSpec] | None:
    """The kernels of a layer of a known class, trainable or not; None if unknown."""
    finder = next((_REGISTRY[c] for c in type(layer).__mro__ if c in _REGISTRY), None)
    if finder is None:
        return None
    return [spec for spec in finder(layer) if spec.variable(layer) is not None]


def find_kernels(layer: keras.Layer) -> tuple[list[KernelSpec], str | None]:
    """Kernels of a layer that may be pruned now, or the reason why it has none.

    Only the layer's own weights count; sublayers are looked at by themselves. A layer
    without weights of its own gives an empty list and no reason.
    """
    own = list(layer._trainable_variables) + list(layer._non_trainable_variables)
    specs = kernel_specs(layer)
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
            "see tfrewprune.wrappers.register_prunable"
        )
    return specs, None if specs else NO_MATRIX


def hooked_specs(layer: keras.Layer) -> list[KernelSpec]:
    """The kernels of a layer that carry a penalty or a mask of this package.

    Whatever the layer is: frozen since, quantized since, or of a class that is not
    known and was given a regularizer by hand.
    """
    hooked = {id(v): (v, found) for v, found in hooked_variables(layer)}
    specs = [s for s in kernel_specs(layer) or () if id(s.variable(layer)) in hooked]
    for spec in specs:
        del hooked[id(spec.variable(layer))]
    names = {id(value): name for name, value in vars(layer).items()}
    for variable, found in hooked.values():
        hook = next(filter(None, found))
        attribute = names.get(id(variable), variable.name).lstrip("_")
        prefix = names.get(id(hook), attribute)
        prefix = prefix.removesuffix("_regularizer").removesuffix("_constraint")
        specs.append(KernelSpec(attribute, hook.layout, prefix, packed=False))
    return specs


def _layer_reason(layer: keras.Layer) -> str | None:
    if isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D):
        return "depthwise: every output reads one channel, there is little to remove"
    if isinstance(layer, keras.layers.Embedding):
        return "embedding: a table that is looked up, not multiplied"
    if isinstance(
        layer,
        keras.layers.GRUCell | keras.layers.LSTMCell | keras.layers.SimpleRNNCell,
    ):
        return "recurrent cell: its matrix holds several gates"
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


def _einsum_kernels(layer: keras.layers.EinsumDense) -> list[KernelSpec]:
    """EinsumDense kernels whose contracted axes all come first are matrices."""
    inputs, rest = layer.equation.replace("...", "0").split(",")
    kernel, output = rest.split("->")
    contracted = [axis in inputs and axis not in output for axis in kernel]
    count = sum(contracted)
    if not count or count == len(kernel) or not all(contracted[:count]):
        return []
    return [KernelSpec(layout=KernelLayout("dense", count))]


for _class in (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
):
    _REGISTRY[_class] = lambda layer: _CONV
_REGISTRY[keras.layers.Conv3D] = lambda layer: _CONV_3D
for _class in (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
):
    _REGISTRY[_class] = lambda layer: _TRANSPOSE
for _class in (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D):
    _REGISTRY[_class] = lambda layer: _POINTWISE
_REGISTRY[keras.layers.EinsumDense] = _einsum_kernels


def walk_layers(model: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """(path, layer) of every layer below `model`, each once, in order of definition.

    The path joins layer names with "/", without the model's own name. A wrapper that
    has its inner layer's name, such as `Prunable`, adds nothing to the path.
    """
    seen = {id(model)}

    def walk(parent: keras.Layer, prefix: str):
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen or isinstance(layer, PruningState):
                continue
            seen.add(id(layer))
            transparent = (
                isinstance(parent, keras.layers.Wrapper) and layer.name == parent.name
            )
            path = prefix if transparent else f"{prefix}/{layer.name}".lstrip("/")
            yield path, layer
            yield from walk(layer, path)

    return walk(model, "")


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


def macs_per_weight(layer: keras.Layer, spec: KernelSpec) -> int:
    """How often each weight is multiplied for one input of the shape seen at build.

    Raises:
        ValueError: That shape, or the layer's output shape, is unknown or not fixed.
    """
    config = layer.get_build_config() or {}
    shape = config.get("input_shape")
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
