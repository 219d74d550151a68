# SPDX-License-Identifier: Apache-2.0
"""A layer like another one, with weights of its own."""

from __future__ import annotations

from typing import Any

import keras


class NotCopied(Exception):
    """A layer with weights that its config does not make anew."""

    def __init__(self, layer: keras.Operation):
        kind = type(layer).__name__
        super().__init__(
            f"layer {layer.name!r} cannot be copied, as {kind}.get_config does not "
            "give all that its __init__ needs to make such a layer anew."
        )


def layer_like(
    layer: keras.Operation, config: dict[str, Any] | None = None
) -> keras.Operation:
    """A new layer of the same class; its weights are not copied.

    Args:
        layer: A layer, or an operator between layers as in `a + b`.
        config: What to make it of; None for the layer's own.

    Returns:
        The new layer. A layer without weights that its config does not make anew is
        returned itself: it may be part of several models.

    Raises:
        NotCopied: The same of a layer with weights.
    """
    if type(layer) is keras.layers.Lambda:
        # Of the very function: its config is for files, of which Keras trusts none,
        # and loses what the function knows of its module.
        return keras.layers.Lambda(
            layer.function,
            output_shape=layer._output_shape,
            mask=layer.mask,
            arguments=layer.arguments,
            **keras.layers.Layer.get_config(layer),
        )
    try:
        config = layer.get_config() if config is None else config
        return type(layer).from_config(config)
    except Exception as error:  # whatever a layer of the user's raises
        if getattr(layer, "weights", None):
            raise NotCopied(layer) from error
        return layer
