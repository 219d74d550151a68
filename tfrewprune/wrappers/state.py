# SPDX-License-Identifier: Apache-2.0
"""Where the variables of penalty and mask live: a sublayer of the pruned layer."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from tfrewprune.caller import warn_caller
from tfrewprune.structures import KernelLayout, Structure
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.regularizer import MethodRegularizer
from tfrewprune.wrappers.steps import rebuild_steps

#: Where a `.keras` file holds the state of a layer whose config comes with the model's:
#: layers of Sequential and functional models, and what wrappers and RNNs hold.
_IN_CONFIG = re.compile(
    r"((layers|cells)/[^/]+/|(layer|cell|forward_layer|backward_layer)/)*pruning_state"
)

Hooks = tuple[MethodRegularizer | None, MaskConstraint | None]


def links(hook: Any) -> Iterator[MethodRegularizer | MaskConstraint]:
    """The penalties, or the masks, that stand one behind the other on a variable.

    Several kernels may share a variable, such as the gates of a recurrent cell. Each
    penalty and mask names the next one, and at last a regularizer or constraint that
    is not of this package, as its `existing`.
    """
    while isinstance(hook, MethodRegularizer | MaskConstraint):
        yield hook
        hook = hook.existing


def hooks_of(variable: keras.Variable, layout: KernelLayout) -> Hooks:
    """Penalty and mask of the kernel that a variable holds in a layout."""
    penalty, mask = (
        next(
            (link for link in links(hook) if link.layout.suffix == layout.suffix), None
        )
        for hook in (variable.regularizer, variable.constraint)
    )
    return penalty, mask


def replaced(hook: Any, layout: KernelLayout, new: Any) -> Any:
    """The first of a variable's `links` once the one of a layout is another.

    Args:
        hook: The variable's regularizer or constraint.
        layout: Of the kernel whose penalty or mask is replaced.
        new: What takes its place, in front of all others if there was none; None to
            take it off.
    """
    chain = [link for link in links(hook) if link.layout.suffix != layout.suffix]
    last = hook
    for link in links(hook):
        last = link.existing
    if new is not None:
        chain.insert(0, new)
    for link in reversed(chain):
        link.existing = last
        last = link
    return last


def hooked_variables(layer: keras.Layer) -> Iterator[tuple[keras.Variable, Hooks]]:
    """A layer's own variables that carry a penalty or a mask, with these.

    Once for each kernel that a variable holds.
    """
    for variable in (*layer._trainable_variables, *layer._non_trainable_variables):
        found = [*links(variable.regularizer), *links(variable.constraint)]
        for layout in {link.layout.suffix: link.layout for link in found}.values():
            yield variable, hooks_of(variable, layout)


class PruningState(keras.Layer):
    """Carries the variables of penalties and masks of one layer's kernels.

    A sublayer, because that is the one place where every model that holds the layer
    finds them: the trainer on JAX, which passes a step only what is tracked, and saved
    files (`.keras`, `.weights.h5`). They are state, not weights: `get_weights`,
    `set_weights` and `count_params` of layer and model are as without.

    Args:
        owner: The built layer whose kernels are pruned.

    Attributes:
        rebuilt: Whether the layer that loads `owner` from a file makes this anew.
    """

    def __init__(self, owner: keras.Layer):
        super().__init__(name=f"{owner.name}_pruning", trainable=False)
        self._owner = weakref.ref(owner)  # a layer held here would be a sublayer
        self.rebuilt = False
        self.built = True

    @property
    def weights(self) -> list[keras.Variable]:
        return []

    @property
    def variables(self) -> list[keras.Variable]:
        # Not the masks: Keras' trainer on JAX would not show them to a constraint.
        return [
            variable
            for _, (penalty, _) in self._hooked()
            if penalty is not None
            for variable in penalty.variables
        ]

    @property
    def metrics(self) -> list:
        """What Keras resets before every epoch of `fit` and every evaluation."""
        return [_Unmute(self)]

    def unmute(self) -> None:
        """Lets penalties act again that an interrupted validation left muted."""
        for _, (penalty, _) in self._hooked():
            if penalty is not None and penalty.muted:
                penalty.mute(False)

    def _hooked(self) -> Iterator[tuple[keras.Variable, Hooks]]:
        owner = self._owner()
        return iter(()) if owner is None else hooked_variables(owner)

    def save_own_variables(self, store):
        self._warn_of_loss(store)
        for variable, (penalty, mask) in self._hooked():
            kernel = _key(variable, penalty or mask)
            if penalty is not None:
                store[f"{kernel}_strength"] = np.array(penalty.strength)
                store[f"{kernel}_growths"] = np.array(penalty.growths)
                for name in penalty.state:
                    held = ops.convert_to_numpy(penalty.held(name))
                    store[f"{kernel}_{name}"] = held
            if mask is not None and mask.groups is not None:
                structure = json.dumps(mask.structure.get_config()).encode()
                store[f"{kernel}_mask"] = mask.groups.astype(np.uint8)
                store[f"{kernel}_structure"] = np.frombuffer(structure, np.uint8)

    def _warn_of_loss(self, store) -> None:
        """Tells of a `.keras` file from which `load_model` takes no mask."""
        path, owner = getattr(store, "_h5_entry_path", None), self._owner()
        if owner is None or self.rebuilt or path is None:
            return
        if getattr(store, "archive", None) is None:
            return  # a file of weights, for a model that is attached when it is loaded
        kept = {id(value) for value in vars(owner).values()}
        lost = [
            variable
            for variable, (_, mask) in self._hooked()
            if mask is not None and mask.groups is not None
            if id(variable.constraint) not in kept or not _IN_CONFIG.fullmatch(path)
        ]
        if lost:  # the same words for all layers: Python shows them once
            warn_caller(
                "The file holds masks that keras.models.load_model does not put on "
                "again: those of subclassed models, of attention layers, and of layers "
                "without a constraint of their own, such as `kernel_constraint`. "
                "Before the loaded model trains on call attach(model, recipe) and "
                "model.load_weights(file)."
            )

    def load_own_variables(self, store):
        """Takes penalty weights and masks from a file, for steps traced already too.

        A file without them (of the dense model, say) leaves the mask in place as it is
        and has the penalty weights follow the weights of the file. The strength is
        taken only where it follows from a rate: one that a recipe gives stays, and
        grows as often as that of the file has.
        """
        saved, changed = set(store.keys()), False
        for variable, (penalty, mask) in self._hooked():
            kernel = _key(variable, penalty or mask)
            if penalty is not None:
                penalty.refresh(variable.value)
                for name, value in penalty.state.items():
                    key = f"{kernel}_{name}"
                    if key in saved and store[key].shape == tuple(value.shape):
                        penalty.assign(name, store[key])
                if f"{kernel}_growths" in saved:
                    penalty.grow(int(np.asarray(store[f"{kernel}_growths"])))
                if penalty.controlled and f"{kernel}_strength" in saved:
                    strength = store[f"{kernel}_strength"]
                    penalty.strength = float(np.asarray(strength))
            if mask is None:
                continue
            if f"{kernel}_mask" in saved:
                groups = np.asarray(store[f"{kernel}_mask"]).astype(bool)
                structure = bytes(np.asarray(store[f"{kernel}_structure"]))
                mask.set_mask(groups, Structure.get(json.loads(structure)))
                changed = True
            elif revived := mask.revived(ops.convert_to_numpy(variable.value)):
                warn_caller(
                    f"{variable.path}: the loaded file holds no mask, and {revived} of "
                    "its weights lie outside the mask in place. The next training step "
                    "sets them to zero. To train all weights again, call strip(model) "
                    "before loading.",
                )
        if changed and keras.backend.backend() == "jax":
            rebuild_steps([self._owner()])


class _Unmute(keras.metrics.Metric):
    """Stands among a model's metrics, without a result, to be told of each new epoch.

    It is the one thing that a plain `fit`, without any callback of ours, calls. A whole
    metric, since steps of the user's own loop over `model.metrics`.
    """

    def __init__(self, state: PruningState):
        super().__init__(name="pruning")
        self._state = state

    def reset_state(self) -> None:
        self._state.unmute()

    def update_state(self, *args, **kwargs) -> None:
        """Nothing: predictions do not concern it."""

    def result(self) -> dict:
        return {}


def _key(variable: keras.Variable, hook: MethodRegularizer | MaskConstraint) -> str:
    """What entries of saved files begin with that belong to one kernel."""
    return variable.name + hook.layout.suffix


def give_state(layer: keras.Layer) -> None:
    """Binds penalties and masks of a layer to variables and has a sublayer hold them.

    Idempotent; call it again after a penalty or mask was put on.
    """
    for variable, (penalty, mask) in hooked_variables(layer):
        if penalty is not None:
            penalty.bind(variable.shape)
        if mask is not None:
            mask.bind(variable.shape)
    if getattr(layer, "pruning_state", None) is None:
        # A built layer takes no more state by itself; Keras' own LoRA does this too.
        locked, layer._tracker.locked = layer._tracker.locked, False
        layer.pruning_state = PruningState(layer)
        layer._tracker.locked = locked


def take_state(layer: keras.Layer) -> None:
    """Removes the sublayer again."""
    state = getattr(layer, "pruning_state", None)
    if state is not None:
        layer._tracker.untrack(state)
        del layer.pruning_state
