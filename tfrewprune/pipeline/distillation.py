# SPDX-License-Identifier: Apache-2.0
"""Distillation: the loss of a training also asks for the outputs of a teacher.

Source: Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531,
section 2.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import keras
from keras import ops

from tfrewprune.replacing import replaced_for_now
from tfrewprune.wrappers.cloning import plain_copy

#: What logits are divided by before both are compared.
TEMPERATURE = 2.0
_SMALL = 1e-7


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A model whose outputs are an aim of training, beside the labels.

    The loss of a training step becomes (1 - weight) * loss + weight * distance;
    penalties (`model.losses`) are added whole. The distance is the cross-entropy
    between the outputs less the teacher's own entropy where they are probabilities (a
    softmax or sigmoid at the end), or logits (a loss with `from_logits=True`; softened
    by a temperature of 2); else it is their mean squared difference. `val_loss` stays
    the loss of the task.

    Args:
        model: Takes the same inputs and gives outputs of the same shape; it is not
            trained.
        weight: Share of the distance, above 0 and at most 1.

    Raises:
        ValueError: No model, or an impossible weight.
    """

    model: keras.Model
    weight: float = 0.5

    def __post_init__(self):
        if not isinstance(self.model, keras.Model):
            raise ValueError(
                "A teacher must be a Keras model, or 'dense' for the model itself as "
                f"it is before pruning. Received: {type(self.model).__name__}"
            )
        number = isinstance(self.weight, int | float)
        if not number or not 0 < self.weight <= 1:
            raise ValueError(
                "Argument `weight` of Teacher must be above 0 and at most 1. "
                f"Received: weight={self.weight!r}"
            )

    @classmethod
    def get(cls, value: Teacher | keras.Model) -> Teacher:
        """A teacher from a teacher or a model."""
        return value if isinstance(value, cls) else cls(value)


def teacher_of(
    model: keras.Model, teacher: Teacher | keras.Model | str | None, caller: str
) -> Teacher | None:
    """The teacher that an argument stands for; `"dense"` is a copy of the model.

    Raises:
        ValueError: Its outputs are not like those of the model, or that cannot be
            copied.
    """
    if isinstance(teacher, str) and teacher == "dense":
        way_out = "Pass a copy that you made, in place of teacher='dense'."
        teacher = plain_copy(model, caller, way_out)
    if teacher is None:
        return None
    teacher = Teacher.get(teacher)
    _check_alike(model, teacher.model)
    return teacher


@contextlib.contextmanager
def taught_by(
    model: keras.Model, teacher: Teacher | keras.Model | None
) -> Iterator[None]:
    """While it lasts, training steps of `model` also follow the teacher.

    Args:
        model: A compiled model.
        teacher: None changes nothing.

    Raises:
        ValueError: The outputs of both differ in number or shape.
    """
    if teacher is None:
        yield
        return
    teacher = Teacher.get(teacher)
    _check_alike(model, teacher.model)
    kinds = _kinds(model)
    of_task = model.compute_loss

    def compute_loss(
        x=None, y=None, y_pred=None, sample_weight=None, training=True, **more
    ):
        loss = of_task(x, y, y_pred, sample_weight, training=training, **more)
        if not training:
            return loss
        wanted = keras.tree.flatten(teacher.model(x, training=False))
        given = keras.tree.flatten(y_pred)
        distance = sum(
            _distance(ops.stop_gradient(ops.cast(a, "float32")), b, kind)
            for a, b, kind in zip(wanted, given, kinds, strict=True)
        )
        # Penalties are none of the labels' share: they keep their strength.
        penalty = sum(ops.cast(ops.sum(part), loss.dtype) for part in model.losses)
        distance = ops.cast(distance, loss.dtype) - (loss - penalty)
        return loss + teacher.weight * distance

    try:
        with replaced_for_now() as replace:
            replace(model, "compute_loss", compute_loss)
            _trace_anew(model)
            yield
    finally:
        _trace_anew(model)


def _trace_anew(model: keras.Model) -> None:
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)


def _distance(wanted, given, kind: str):
    given = ops.cast(given, "float32")
    if kind == "logits":
        wanted = ops.softmax(wanted / TEMPERATURE)
        pulled = ops.log_softmax(given / TEMPERATURE) - ops.log(wanted + _SMALL)
        return -(TEMPERATURE**2) * ops.mean(ops.sum(wanted * pulled, axis=-1))
    if kind == "softmax":
        pulled = ops.log(given + _SMALL) - ops.log(wanted + _SMALL)
        return -ops.mean(ops.sum(wanted * pulled, axis=-1))
    if kind == "sigmoid":
        pulled = wanted * (ops.log(given + _SMALL) - ops.log(wanted + _SMALL))
        pulled += (1 - wanted) * (
            ops.log(1 - given + _SMALL) - ops.log(1 - wanted + _SMALL)
        )
        return -ops.mean(pulled)
    return ops.mean(ops.square(wanted - given))


def _kinds(model: keras.Model) -> list[str]:
    """What each output is: "softmax", "sigmoid", "logits" or "value"."""
    kinds = []
    losses = keras.tree.flatten(getattr(model, "loss", None))
    for number, tensor in enumerate(keras.tree.flatten(model.outputs)):
        layer = tensor._keras_history.operation
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", type(layer).__name__.lower())
        loss = losses[number] if number < len(losses) else losses[-1]
        if name in ("softmax", "sigmoid"):
            kinds.append(name)
        elif getattr(loss, "_fn_kwargs", {}).get("from_logits") and (
            int(tensor.shape[-1] or 1) > 1
        ):
            kinds.append("logits")
        else:
            kinds.append("value")
    return kinds


def _check_alike(model: keras.Model, teacher: keras.Model) -> None:
    def shapes(of: keras.Model) -> list[tuple]:
        return [tuple(t.shape) for t in keras.tree.flatten(of.outputs or [])]

    if not shapes(model) or shapes(model) != shapes(teacher):
        raise ValueError(
            "A teacher must be a functional model with outputs like those of the model "
            f"that is trained, {shapes(model)}. Received: {shapes(teacher)}"
        )
