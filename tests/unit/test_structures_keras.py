# SPDX-License-Identifier: Apache-2.0
"""Every structure in a Keras model: penalty, mask, hard pruning, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops
from test_regularizer import value_and_gradient

from tfrewprune.methods import Reweighted
from tfrewprune.pipeline import hard_prune
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import (
    Balanced,
    Block,
    BlockRowColumn,
    Kernel,
    KernelGroup,
    KernelLayout,
    KernelShape,
    NofM,
    Pattern,
    Punched,
    RowColumn,
    Structure,
)
from tfrewprune.wrappers import MaskConstraint, MethodRegularizer, attach

layers = keras.layers
WEIGHTS = np.random.default_rng(0).standard_normal((3, 3, 12, 40)).astype(np.float32)
KERNEL = KernelLayout().to_kernel(WEIGHTS)
SHAPE = KernelLayout().kernel_shape(WEIGHTS.shape)
STRUCTURES = [
    Kernel(),
    KernelGroup(16, 5),
    Punched(16, 5),
    RowColumn(),
    BlockRowColumn(16, 10),
    Pattern(),
    Pattern(4, rows=16),
    NofM(2, 4),
    Block(16, 1, cluster=True),
    Balanced(Block(8, 1)),
    Balanced(Pattern(4, rows=8)),
]
every_structure = pytest.mark.parametrize("structure", STRUCTURES, ids=str)


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 12)),
            layers.Conv2D(40, 3, name="conv"),
            layers.Conv2D(32, 1, name="pointwise"),
        ]
    )


def recipe_for(structure: Structure, rate: float | None = None, **settings) -> Recipe:
    rules = [Rule(n, structure=structure, rate=rate) for n in ("conv", "pointwise")]
    return Recipe(rules, **settings)


def most_at_once(structure: Structure, shape: KernelShape) -> int:
    """How many weights one group more may bring: in each block row, if balanced."""
    several = isinstance(structure, Balanced)
    size = int(structure.group_sizes(shape).max())
    return size * structure.group_grid(shape)[-1] if several else size


@pytest.mark.backend
@every_structure
def test_sums_and_spread_are_those_of_numpy(structure):
    structure = structure.fitted(KERNEL)
    rms = structure.rms(KERNEL, SHAPE)
    tensor = ops.convert_to_tensor(KERNEL)
    np.testing.assert_allclose(
        ops.convert_to_numpy(structure.rms(tensor, SHAPE, ops)), rms, rtol=1e-5
    )
    spread = structure.spread(ops.convert_to_tensor(rms), SHAPE, ops)
    np.testing.assert_allclose(
        ops.convert_to_numpy(spread), structure.spread(rms, SHAPE), rtol=1e-5
    )


@every_structure
def test_rms_is_differentiable_also_at_zero(structure):
    structure = structure.fitted(KERNEL)
    kernel = KERNEL.copy()
    kernel[:, :5] = 0.0
    _, gradient = value_and_gradient(
        lambda k: ops.sum(structure.rms(k, SHAPE, ops)), kernel
    )
    pull = 1 / structure.group_sizes(SHAPE) / structure.rms(kernel, SHAPE)
    expected = structure.spread(pull.astype(np.float32), SHAPE) * kernel
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.backend
@every_structure
def test_penalty_and_its_gradient(structure):
    structure = structure.fitted(KERNEL)
    weights = WEIGHTS.copy()
    weights[:, :, 3] = 0.0
    regularizer = MethodRegularizer(structure, Reweighted(), strength=0.5)
    regularizer.refresh(weights)
    value, gradient = value_and_gradient(regularizer, weights)
    kernel = KernelLayout().to_kernel(weights)
    state = Reweighted().state(kernel, structure, SHAPE)
    expected = 0.5 * Reweighted().penalty(kernel, structure, SHAPE, state)
    assert value == pytest.approx(expected, rel=1e-4)
    pull = 0.5 * state["alpha"] / structure.rms(kernel, SHAPE)
    expected = structure.spread(pull.astype(np.float32), SHAPE) * kernel
    np.testing.assert_allclose(
        KernelLayout().to_kernel(gradient), expected, rtol=1e-3, atol=1e-5
    )


@every_structure
def test_hard_prune_by_rate(structure):
    pruned = model()
    rows = hard_prune(pruned, recipe_for(structure, rate=4))
    for row, layer in zip(rows, pruned.layers, strict=True):
        weights = ops.convert_to_numpy(layer.kernel)
        fitted, shape = row.structure, KernelLayout().kernel_shape(weights.shape)
        last = layer is pruned.layers[-1]
        assert fitted.settles(structure.at_output() if last else structure)
        assert row.kept == np.count_nonzero(weights)
        fixed = fitted.fixed_rate(shape)
        if fixed is not None:
            assert row.rate == fixed
            assert "the structure alone decides its rate, 2" in row.note
            continue
        assert row.note is None
        step = most_at_once(fitted, shape)
        assert row.weights / 4 - step < row.kept <= row.weights / 4


def test_rows_and_columns_at_rate_4_leave_a_quarter():
    """Rows and columns, each cut to 1/4 of their groups, would leave far less."""
    rows = hard_prune(model(), recipe_for(BlockRowColumn(), rate=4))
    for row in rows:
        assert row.weights / 4 - 16 < row.kept <= row.weights / 4


@every_structure
def test_hard_prune_by_budget(structure):
    rows = hard_prune(model(), recipe_for(structure).replace(rate=4))
    weights, kept = sum(r.weights for r in rows), sum(r.kept for r in rows)
    if isinstance(structure, NofM):
        assert kept == weights / 2
        return
    shapes = [KernelLayout().kernel_shape(row.shape) for row in rows]
    step = sum(
        most_at_once(row.structure, shape)
        for row, shape in zip(rows, shapes, strict=True)
    )
    assert weights / 4 - step < kept <= weights / 4
    assert all(row.kept for row in rows)


@pytest.mark.filterwarnings("ignore:The weights have changed")
@every_structure
def test_hard_prune_by_threshold(structure):
    """What a penalty has emptied goes; what it has left stays."""
    pruned = model()
    attach(pruned, recipe_for(structure))
    kept = []
    for layer in pruned.layers:
        kernel = KernelLayout().to_kernel(ops.convert_to_numpy(layer.kernel))
        fitted = layer.kernel.regularizer.structure
        shape = KernelLayout().kernel_shape(layer.kernel.shape)
        mask = fitted.mask(fitted.choose(np.square(kernel), kernel.size / 4), shape)
        kernel = np.where(mask, kernel + 0.1 * np.sign(kernel), 1e-4 * kernel)
        layer.kernel.assign(kernel.reshape(layer.kernel.shape))
        kept.append(mask)
    rows = hard_prune(pruned, recipe_for(structure))
    for row, layer, mask in zip(rows, pruned.layers, kept, strict=True):
        weights = ops.convert_to_numpy(layer.kernel).reshape(mask.shape)
        np.testing.assert_array_equal(weights != 0, mask)
        assert row.kept == mask.sum()


@every_structure
def test_model_survives_saving_in_the_middle(structure, tmp_path):
    first = model()
    attach(first, recipe_for(structure))
    hard_prune(first, recipe_for(structure, rate=4))
    first.save(tmp_path / "model.keras")
    second = keras.models.load_model(tmp_path / "model.keras")
    for old, new in zip(first.layers, second.layers, strict=True):
        assert new.kernel.constraint.structure == old.kernel.constraint.structure
        shape = tuple(old.kernel.shape)
        np.testing.assert_array_equal(
            new.kernel.constraint.weight_mask(shape),
            old.kernel.constraint.weight_mask(shape),
        )
    hard_prune(second, recipe_for(structure, rate=4))
    for old, new in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(new.kernel), ops.convert_to_numpy(old.kernel)
        )


@every_structure
def test_mask_constraint_round_trip(structure):
    structure = structure.fitted(KERNEL)
    keep = structure.choose(np.square(KERNEL), KERNEL.size / 3)
    mask = MaskConstraint(structure)
    mask.set_mask(keep)
    again = MaskConstraint.from_config(mask.get_config())
    assert again.structure == structure
    expected = np.where(structure.mask(keep, SHAPE), KERNEL, 0).reshape(WEIGHTS.shape)
    for constraint in (mask, again):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(constraint(ops.convert_to_tensor(WEIGHTS))), expected
        )
