# SPDX-License-Identifier: Apache-2.0
"""Tells whether a training step ever differentiates through a tensor."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops


def probe(tensor, note: Callable[[], None]):
    """The tensor itself; `note` is called when a gradient comes back through it.

    That is when the step is traced, or, where it runs eagerly, in every step.
    """
    if keras.backend.backend() == "jax":
        return _jax_probe(tensor, note)

    @ops.custom_gradient
    def identity(tensor):
        def gradient(*args, upstream=None):
            note()
            return args[0] if upstream is None else upstream

        return tensor, gradient

    return identity(tensor)


def _jax_probe(tensor, note: Callable[[], None]):
    # jax.custom_gradient traces the gradient in every differentiated function, whether
    # its result depends on the tensor or not.
    import jax

    @jax.custom_vjp
    def identity(tensor):
        return tensor

    def backward(_, upstream):
        note()
        return (upstream,)

    identity.defvjp(lambda tensor: (tensor, None), backward)
    return identity(tensor)
