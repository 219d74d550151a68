# SPDX-License-Identifier: Apache-2.0
"""A method that acts on the weights after every step of the optimizer."""

from __future__ import annotations

import weakref

import keras
from keras import ops

from tfrewprune.wrappers.moments import inner_optimizer, measure_of, trains
from tfrewprune.wrappers.regularizer import MethodRegularizer


class AfterStep:
    """Applies `Method.after_step` to one kernel, inside the compiled training step.

    A constraint calls it, which is what Keras runs after an update. Learning rate
    (schedules too) and second moment are those of the model's optimizer. Steps that
    only accumulate gradients (`gradient_accumulation_steps`) change nothing.

    On JAX, where Keras shows a constraint nothing but the optimizer's variables, the
    optimizer holds copies of the penalty's.

    Args:
        model: A compiled model; a step with another optimizer is refused.
        penalty: Method, structure, strength and state.
    """

    def __init__(self, model: keras.Model, penalty: MethodRegularizer):
        self._model = weakref.ref(model)  # which holds this, through its weights
        self.penalty = penalty

    def serves(self, model: keras.Model, penalty: MethodRegularizer) -> bool:
        """Whether it is made for this model and penalty."""
        return self._model() is model and self.penalty is penalty

    def connect(self) -> None:
        """Gives the optimizer the copies it needs; again after each `compile`."""
        model = self._model()
        optimizer = None if model is None else inner_optimizer(model)
        if keras.backend.backend() != "jax" or optimizer is None:
            return
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.penalty.copy_to(optimizer)

    def __call__(self, variable: keras.Variable, weights):
        """`weights`, the value of `variable` after the update, moved by the method."""
        penalty = self.penalty
        optimizer = self._optimizer(variable)
        penalty.feel()
        strength, state = penalty.values(optimizer)
        layout, shape = penalty.layout, penalty.layout.kernel_shape(variable.shape)
        measure = measure_of(optimizer, variable, weights)
        if len(getattr(measure, "shape", ())):  # one number a weight
            measure = layout.to_kernel(measure, ops)
        kernel = layout.to_kernel(ops.cast(weights, "float32"), ops)
        steps = optimizer.gradient_accumulation_steps
        updated = (optimizer._iterations + 1) % steps == 0 if steps else None
        for name, value in penalty.method.follow(kernel, state, ops).items():
            if steps:
                value = ops.where(updated, value, state[name])
            penalty.held(name).assign(value)
            state[name] = value
        moved = penalty.method.after_step(
            kernel,
            penalty.structure,
            shape,
            state,
            ops.cast(optimizer.learning_rate, "float32") * strength,
            measure,
            ops,
        )
        moved = ops.cast(moved, weights.dtype)
        moved = layout.from_kernel(moved, variable.shape, ops, weights)
        return ops.where(updated, moved, weights) if steps else moved

    def _optimizer(self, variable: keras.Variable) -> keras.optimizers.Optimizer:
        model = self._model()
        optimizer = None if model is None else inner_optimizer(model)
        if optimizer is None or not trains(optimizer, variable):
            raise ValueError(
                f"Method {type(self.penalty.method).__name__} acts after the steps of "
                f"the optimizer that the model is compiled with, but {variable.path} "
                "is trained by another one. Compile the model with the optimizer that "
                "trains it, then attach()."
            )
        return optimizer
