# SPDX-License-Identifier: Apache-2.0
"""Structure and rate of each layer: by rule, by loss and cost. Nothing is trained."""

import keras
import numpy as np
import pytest

from tfrewprune.mapping import map_by_loss, map_by_rule
from tfrewprune.pipeline import hard_prune
from tfrewprune.recipe import Infeasible, Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Unstructured
from tfrewprune.wrappers.resolving import resolve
from tfrewprune.wrappers.targets import expected_gain

layers = keras.layers
FINE, COARSE = Unstructured(), Block(16, 1)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 32)),
            layers.Conv2D(64, 3, padding="same", name="wide"),
            layers.Conv2D(64, 3, strides=4, name="late"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(256, name="dense"),
            layers.Dense(10, name="head"),
        ]
    )


RULES = [Rule("wide"), Rule("late"), Rule("dense")]


def test_the_finest_structure_that_is_fast_enough_is_taken(model):
    structures = (FINE, Block(4, 1), Block(16, 1))
    for tolerance in (0.0, 0.25, 100.0):
        recipe = map_by_rule(model, Recipe(RULES, rate=8), structures, tolerance)
        assert recipe.rate == 8
        for target in resolve(model, recipe):
            if target.reason is not None:
                continue
            gains = {s: expected_gain(target, s, 8) for s in structures}
            near = [
                s
                for s in structures
                if gains[s] * (1 + tolerance) >= max(gains.values())
            ]
            assert target.rule.structure == near[0]
    assert {rule.structure for rule in recipe.rules} == {FINE}


def test_mapped_recipes_prune_the_same_layers(model):
    recipe = map_by_rule(model, Recipe("*", rate=4, skip_first=False))
    before = [t.path for t in resolve(model, Recipe("*", rate=4, skip_first=False))]
    assert set(rule.match for rule in recipe.rules) < set(before)
    assert "head" not in {rule.match for rule in recipe.rules}


def test_a_strength_of_its_own_stays_with_a_rule(model):
    rules = [Rule("wide", rate=8, strength=1e-3), Rule("dense", strength=1e-4)]
    recipe = Recipe(rules, rate=4)
    for mapped in (map_by_rule(model, recipe), map_by_loss(model, recipe)):
        strengths = {rule.match: rule.strength for rule in mapped.rules}
        assert strengths == {"wide": 1e-3, "dense": 1e-4}


def test_a_layer_that_stays_dense_needs_no_strength(model):
    losses = {"wide": {FINE: {4: 0.1}}, "late": {FINE: {2: 9.0}}}
    recipe = Recipe([Rule("wide"), Rule("late", strength=1e-3)], rate=1.3)
    mapped = map_by_loss(model, recipe, (FINE,), losses=losses)
    assert {rule.match: rule.skip for rule in mapped.rules} == {
        "wide": False,
        "late": True,
    }


def kept_costs(model, recipe):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    rows = hard_prune(clone, recipe)
    return {row.layer: row for row in rows if row.reason is None}


def test_a_rate_is_spent_where_it_loses_least(model):
    losses = {
        "wide": {FINE: {2: 0.0, 4: 0.01, 8: 0.02}, COARSE: {2: 0.5, 8: 0.9}},
        "late": {FINE: {2: 0.1, 4: 0.8, 8: 0.9}, COARSE: {2: 0.05, 4: 0.7}},
        "dense": {FINE: {8: 0.3}, COARSE: {8: 0.3}},
    }
    recipe = map_by_loss(model, Recipe(RULES, rate=3), (FINE, COARSE), losses=losses)
    chosen = {
        rule.match: (rule.structure, rule.rate, rule.skip) for rule in recipe.rules
    }
    assert chosen["wide"] == (FINE, 8, False)
    assert chosen["late"] == (COARSE, 2, False)
    rows = kept_costs(model, recipe)
    sizes = {"wide": 9 * 32 * 64, "late": 9 * 64 * 64, "dense": 64 * 256}
    kept = sum(rows[n].kept if n in rows else sizes[n] for n in sizes)
    assert kept <= sum(sizes.values()) / 3 * 1.01


def test_several_constraints_decide_structure_and_rate(model):
    asked = {"latency_ms": "50%", "bytes": "60%"}
    recipe = map_by_loss(model, Recipe(RULES, constraints=asked))
    assert recipe.constraints is None and recipe.rate is None
    assert all(rule.skip or rule.rate for rule in recipe.rules)
    # At one structure, the rates of the coarser one lose more.
    from tfrewprune.wrappers.budget import Budget

    targets = resolve(model, recipe)
    budget = Budget.of(targets, recipe.replace(constraints=asked, rate=None))
    for limit in budget.limits:
        assert limit.fixed <= limit.limit * (1 + 1e-6), limit.name


def test_impossible_constraints_are_told(model):
    with pytest.raises(Infeasible, match="latency_ms"):
        map_by_loss(model, Recipe(RULES, constraints={"latency_ms": 1e-4}))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"structures": ()}, "`structures` must be a list of structures"),
        ({"losses": {"wide": {}}}, "`losses` has no entry for layer 'late'"),
    ],
)
def test_what_is_missing_is_told(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        map_by_loss(model, Recipe(RULES, rate=4), **arguments)


def test_without_losses_the_energy_decides(model):
    """A layer of few large weights bears more."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    kernel = keras.ops.convert_to_numpy(clone.get_layer("wide").kernel).copy()
    kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.9)] *= 1e-3
    clone.get_layer("wide").kernel.assign(kernel)
    recipe = map_by_loss(clone, Recipe(RULES, rate=2), (FINE,))
    rates = {rule.match: rule.rate or 1 for rule in recipe.rules}
    assert rates["wide"] >= 4 > rates["late"]
