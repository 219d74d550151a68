# SPDX-License-Identifier: Apache-2.0
"""Penalty and mask on a model's own variables, without cloning it."""

from __future__ import annotations

from collections import defaultdict

import keras
import numpy as np
from keras import ops

from tfrewprune.methods import Method
from tfrewprune.recipe import Recipe
from tfrewprune.structures import Structure, Unstructured
from tfrewprune.wrappers.after_step import AfterStep
from tfrewprune.wrappers.constraint import MaskConstraint
from tfrewprune.wrappers.regularizer import MethodRegularizer, regularizer_for
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.selection import select_groups
from tfrewprune.wrappers.shown import unseen
from tfrewprune.wrappers.state import give_state, take_state
from tfrewprune.wrappers.steps import rebuild_steps, synchronize, variable_scope
from tfrewprune.wrappers.targets import Target, hooked_kernels


def attach(model: keras.Model, recipe: Recipe) -> list[Target]:
    """Puts the recipe's penalty, and a mask that keeps all, on a built model in place.

    Works on every kind of model and nesting, Sequential, functional and subclassed: the
    penalty becomes `variable.regularizer`, the mask `variable.constraint`, nothing else
    of the model changes, and its optimizer stays valid. Both read variables, so a step
    that is traced from now on, in `fit` or in a user's own `tf.function`, obeys a later
    `hard_prune`. Layer names, `.keras` files and `load_weights` are as before.

    A model that carries penalties already gets those of this recipe: kernels for which
    nothing changes keep their penalty weights, the others start anew, and kernels that
    the recipe leaves dense lose theirs. Masks in place stay.

    Keras refuses `enable_lora` on a layer with a constraint, and the mask is one: call
    `strip` first.

    Saved to `.keras`, penalty and mask come back with the layers' configs; `.keras` and
    `.weights.h5` files hold the penalty weights alpha and the mask for a model that is
    attached when they are loaded. Some configs do not hold penalty and mask: those of
    subclassed models, of attention layers for their projections, and of custom layers
    without attributes such as `kernel_constraint`. Such a model from a `.keras` file
    must be attached, and the file's weights loaded (`load_weights`), before it trains
    on; saving it under a mask warns of that.

    Args:
        model: A built `keras.Model`.
        recipe: What to penalize.

    Returns:
        One `Target` a kernel, with the reason for each one left dense.

    Raises:
        ValueError: The recipe names no layer, leaves nothing to prune, or has a method
            that cannot empty its structures.
    """
    targets = resolve(model, recipe)
    check_method(targets, recipe.method)
    chosen = {target.path_key: target for target in targets if target.reason is None}
    hooked = hooked_kernels(model)
    synchronize(o for target in [*hooked, *chosen.values()] for o in target.owners)
    keep = allowances(targets, recipe)
    changed = []
    for target in hooked:
        if target.path_key not in chosen and _set_penalty(target, None):
            changed += target.owners
    for target in chosen.values():
        if attach_recipe(model, target, recipe, keep.get(target.path_key)):
            changed += target.owners
    rebuild_steps(changed)
    return targets


def check_method(targets: list[Target], method: Method) -> None:
    """Refuses a method that cannot empty a kernel's structure.

    Args:
        targets: What `resolve` returned.
        method: How training shall empty them.

    Raises:
        ValueError: The method acts on each weight tensor by itself, and the structure
            removes parts of several together.
    """
    if method.in_loss or not method.penalized:
        return
    for target in targets:
        if target.reason is None and target.spec.rest:
            raise ValueError(
                f"Method {type(method).__name__} acts on one weight tensor after a "
                f"step; {target.structure} removes parts of several together in "
                f"{target.path!r}. Use a method with a penalty in the loss, such as "
                "Reweighted(), or GradualMagnitude()."
            )


def allowances(targets: list[Target], recipe: Recipe) -> dict[tuple, int]:
    """How many weights each kernel may keep, for methods that project onto it."""
    if not recipe.method.projects:
        return {}
    chosen = [target for target in targets if target.reason is None]
    kernels = {target.path_key: target.kernel() for target in chosen}
    masks = select_groups(targets, kernels, recipe, defaultdict(list))
    return {
        target.path_key: target.structure.kept(masks[target.path_key], target.shape)
        for target in chosen
    }


def attach_recipe(
    model: keras.Model, target: Target, recipe: Recipe, keep: int | None = None
) -> bool:
    """`attach_target` with what the recipe says."""
    return attach_target(
        *(model, target, recipe.method, recipe.strength_of(target.rule), keep),
        controlled=recipe.is_controlled(target.rule),
    )


def attach_target(
    model: keras.Model,
    target: Target,
    method: Method,
    strength: float,
    keep: int | None = None,
    controlled: bool = False,
) -> bool:
    """Puts a method's penalty on one kernel; returns whether steps must see it anew.

    A penalty of the same structure and method stays and merely takes the strength and
    the number of weights to keep.
    """
    structure, old = target.rule.structure, target.penalty
    bound = _has_masks(target)
    with variable_scope(model):
        if not method.penalized:
            changed = _set_penalty(target, None)
        elif old and (old.structure, old.method) == (structure, method):
            old.strength, old.keep = strength, keep
            changed = not old.bound
        else:
            penalty = regularizer_for(
                method, structure, strength, target.spec.layout, None
            )
            penalty.rest = [
                (part.variable(target.layer), part.layout) for part in target.spec.rest
            ]
            changed = _set_penalty(target, penalty)
            target.penalty.keep = keep
            target.penalty.refresh(target.variable.value)
        if target.penalty is not None:
            target.penalty.controlled = controlled
        _open_mask(target)
        _set_after_step(model, target)
    return changed or not bound


def detach_penalty(model: keras.Model) -> None:
    """Takes the penalties off again; masks stay.

    Steps that no rebuilding reaches, as in a user's own loop, see a penalty of 0.
    """
    targets = hooked_kernels(model)
    synchronize(owner for target in targets for owner in target.owners)
    rebuild_steps([o for t in targets if _set_penalty(t, None) for o in t.owners])


def detach_mask(model: keras.Model) -> None:
    """Takes the masks off again, after a last application; penalties stay."""
    apply_masks(model)
    released = []
    for target in hooked_kernels(model):
        for part in target.spec.parts:
            _, mask = part.hooks(target.layer)
            if mask is not None:
                part.set_mask(target.layer, None)
                mask.set_mask(None)
                released.append(part.owner(target.layer))
    rebuild_steps(released)


def release(model: keras.Model) -> None:
    """Takes penalties, masks and their state off: no object of this package stays."""
    layers = [owner for target in hooked_kernels(model) for owner in target.owners]
    detach_penalty(model)
    detach_mask(model)
    for layer in layers:
        take_state(layer)


def set_masks(
    model: keras.Model, targets: list[Target], masks: dict[tuple, np.ndarray]
) -> None:
    """Masks kernels and sets what is outside to zero, for every step from now on.

    What a mask of another structure has removed before stays removed.

    Args:
        model: The model.
        targets: Kernels with the structure of their groups.
        masks: Boolean group masks by `Target.path_key`.
    """
    synchronize(owner for target in targets for owner in target.owners)
    blind = [t for t in targets if not _has_masks(t)] + unseen(model, targets)
    with variable_scope(model):
        for target in targets:
            _open_mask(target)
            for _, mask in target.masks:
                mask.set_mask(*_with_zeros_of(mask, target, masks[target.path_key]))
    apply_masks(model)
    rebuild_steps([owner for target in blind for owner in target.owners])


def _with_zeros_of(
    mask: MaskConstraint, target: Target, groups: np.ndarray
) -> tuple[np.ndarray, Structure]:
    """New groups with what the mask in place removed, and what they are groups of."""
    old, new = mask.structure, target.structure
    several = len(target.masks) > 1
    if mask.groups is None or several or old.settles(new) or new.settles(old):
        return groups, new
    both = new.mask(groups, target.shape) & old.mask(mask.groups, target.shape)
    single = Unstructured()
    return single.surviving_groups(both), single


def apply_masks(model: keras.Model) -> None:
    """Sets every masked weight to exactly 0.0 now.

    The optimizer does it after each update. Weights that are written by anything else
    (an exponential moving average at the end of training, `set_weights`) need this.
    """
    targets = hooked_kernels(model)
    synchronize(owner for target in targets for owner in target.owners)
    for target in targets:
        for variable, mask in target.masks:
            weights = ops.convert_to_numpy(variable.value)
            if mask.revived(weights):
                kept = mask.weight_mask(weights.shape)
                variable.assign(np.where(kept, weights, np.zeros_like(weights)))


def revived_weights(model: keras.Model) -> str | None:
    """What to tell the user if weights outside a mask are not zero; else None.

    It happens where a step was compiled before the mask was there and nothing could
    rebuild it: a step that the user jitted by hand on JAX, or a `tf.function` of the
    user's that was traced before `attach` or `hard_prune`.
    """
    counts = {target.label: target.revived() for target in hooked_kernels(model)}
    total = sum(counts.values())
    if not total:
        return None
    layers = ", ".join(path for path, count in counts.items() if count)
    return (
        f"{total} weights that the mask removed are not zero: the step that trained "
        f"them did not see the mask ({layers}). Trace or compile your own training "
        "step after hard_prune(), or call attach() before it is first traced; after "
        "set_weights() or an exponential moving average call apply_masks(model)."
    )


def adopt(model: keras.Model) -> None:
    """Gives penalties and masks that were made by hand or loaded their variables."""
    fresh = []
    with variable_scope(model):
        for target in hooked_kernels(model):
            found = [target.penalty, *(mask for _, mask in target.masks)]
            if _set_after_step(model, target):
                found.append(target.mask)
                fresh += target.owners
            found = [hook for hook in found if hook is not None]
            stated = all(getattr(o, "pruning_state", None) for o in target.owners)
            if stated and all(hook.bound for hook in found):
                continue
            for owner in target.owners:
                give_state(owner)
            if target.penalty is not None and not target.penalty.refreshes:
                target.penalty.refresh(target.variable.value)
            fresh += target.owners
    rebuild_steps(fresh)


def _set_penalty(target: Target, penalty: MethodRegularizer | None) -> bool:
    """Replaces the penalty of a kernel; returns whether anything changed."""
    old = target.penalty
    if penalty is None and old is None:
        return False
    if old is not None:
        old.mute()
    target.spec.set_penalty(target.layer, penalty)
    if target.mask is not None:
        target.mask.after_step = None
    return True


def _set_after_step(model: keras.Model, target: Target) -> bool:
    """Has the kernel's constraint do what the method does after a step.

    Returns whether steps must be traced anew.
    """
    penalty = target.penalty
    if penalty is None or penalty.method.in_loss:
        return False
    if target.mask is None:
        _open_mask(target)
    found = target.mask.after_step
    changed = found is None or not found.serves(model, penalty)
    if changed:
        target.mask.after_step = AfterStep(model, penalty)
    penalty.bind(target.variable.shape)
    target.mask.after_step.connect()
    return changed


def _has_masks(target: Target) -> bool:
    """Whether all tensors of the kernel have a mask that steps can read."""
    masks = [part.hooks(target.layer)[1] for part in target.spec.parts]
    return all(mask is not None and mask.bound for mask in masks)


def _open_mask(target: Target) -> None:
    """Makes sure that the kernel has a mask whose variable steps can read."""
    for part in target.spec.parts:
        _, mask = part.hooks(target.layer)
        if mask is None:
            mask = MaskConstraint(target.structure, part.layout)
            part.set_mask(target.layer, mask)
        elif mask.groups is None:
            mask.set_mask(None, target.structure)
        give_state(part.owner(target.layer))
