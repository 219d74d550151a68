# SPDX-License-Identifier: Apache-2.0
"""Recipes: JSON round trip, precedence of rules, refusals."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrewprune.methods import GroupLasso, Magnitude, Reweighted
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Channel, Filter, NofM, Unstructured

RATES = st.none() | st.floats(1, 1e6)
STRUCTURES = st.sampled_from([Block(8, 2), Filter(), Channel(), Unstructured()])
RULES = st.builds(
    Rule,
    st.text(min_size=1, max_size=8),
    structure=STRUCTURES,
    rate=RATES,
    strength=st.none() | st.floats(0, 10),
) | st.builds(Rule, st.text(min_size=1, max_size=8), skip=st.just(True))
RECIPES = st.builds(
    Recipe,
    # The last rule prunes: a recipe that could remove nothing is refused.
    st.lists(RULES, max_size=4, unique_by=lambda rule: rule.match).map(
        lambda rules: [*rules, Rule("the rest", rate=2)]
    ),
    method=st.sampled_from([Reweighted(0.1), GroupLasso(), Magnitude()]),
    strength=st.floats(0, 1),
    rate=st.floats(1, 1e6),
    budget=st.sampled_from(["weights", "macs"]),
    reweighted_epochs=st.integers(0, 9),
    minimum_groups=st.integers(0, 9),
    skip_first=st.booleans(),
)


@given(RECIPES)
def test_json_round_trip(recipe):
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_config(json.loads(json.dumps(recipe.get_config()))) == recipe


def test_rules_may_be_given_short():
    expected = Recipe((Rule("conv*"), Rule("dense")))
    assert Recipe(["conv*", "dense"]) == expected
    assert Recipe("conv*").rules == (Rule("conv*"),)
    assert Recipe(Rule("conv*", rate=8)).rules[0].keep == 0.125
    assert Recipe(rate=8) == Recipe(Rule("*"), rate=8)
    assert Recipe({"conv*": 8, "dense": 16}) == Recipe(
        [Rule("conv*", rate=8), Rule("dense", rate=16)]
    )
    assert Recipe({"conv*": {"rate": 4, "structure": "Filter"}}).rules == (
        Rule("conv*", rate=4, structure="Filter"),
    )


def test_one_rule_for_several_layers():
    rule = Rule(["c1", "c2"], rate=4)
    assert rule.matches("c1", "block/c1") and rule.matches("c2", "c2")
    assert not rule.matches("c3", "c3")
    recipe = Recipe(rule)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Rule(["c1"]) == Rule("c1")


@pytest.mark.parametrize("match", ["encoder", "block", "encoder/block", "enc*"])
def test_the_name_of_what_holds_a_layer_means_the_layer(match):
    assert Rule(match).matches("dense", "encoder/block/dense")
    assert not Rule(match).matches("dense", "decoder/dense")
    assert not Rule(match).names("dense", "encoder/block/dense")


def test_first_matching_rule_counts():
    recipe = Recipe([Rule("stem/conv", rate=2), Rule("conv*", rate=8), Rule("*")])
    assert recipe.rule_for("conv", "stem/conv").rate == 2
    assert recipe.rule_for("conv", "body/conv").rate == 8
    assert recipe.rule_for("dense", "dense").match == "*"
    assert Recipe("conv*").rule_for("dense", "dense") is None


def test_recipes_are_frozen():
    recipe = Recipe("*")
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.strength = 1.0
    assert recipe.replace(strength=1.0).strength == 1.0


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Recipe([]), "needs at least one rule"),
        (lambda: Recipe([Rule("a"), Rule("a", rate=2)]), "has 2 rules for 'a'"),
        (lambda: Recipe([3]), "must be a `Rule`. Received: 3"),
        (lambda: Recipe(8), r"a rate is Recipe\(rate=8\). Received: rules=8"),
        (lambda: Recipe("*", method="adam"), "Unknown method 'adam'"),
        (lambda: Recipe("*", strength=-1), "`strength` must be a finite"),
        (lambda: Recipe("*", strength=float("nan")), "`strength` must be a finite"),
        (lambda: Recipe("*", rate=0.5), "`rate` is dense weights / kept weights"),
        (lambda: Recipe("*", budget="ms"), "Expected one of .* budget='ms'"),
        (lambda: Recipe("*", threshold=0), "`threshold` must be positive"),
        (lambda: Recipe("*", rate=4, threshold=0.1), "not both"),
        (lambda: Recipe("*", retrain_epochs=-1), "`retrain_epochs` must be an integer"),
        (lambda: Recipe("*", refreshes=2.5), "`refreshes` must be an integer"),
        (lambda: Recipe(Rule("*", skip=True)), "removes nothing: every rule skips"),
        (lambda: Recipe({"conv*": 1, "dense": 1}), "removes nothing"),
        (lambda: Recipe("*", strength=0), "penalty of strength 0 empties no group"),
        (
            lambda: Recipe([Rule("a", rate=2), "b"], method="Magnitude"),
            r"Rule 'b' has no rate: method Magnitude\(\) needs",
        ),
        (lambda: Recipe(Rule("a", structure=NofM(4, 4))), "removes nothing"),
        (lambda: Recipe([Rule(["a", "b"]), "b"]), "has 2 rules for 'b'"),
        (lambda: Rule([]), "`match` must be a layer name"),
        (lambda: Rule(["a", 3]), "`match` must be a layer name"),
        (lambda: Rule(""), "`match` must be a layer name"),
        (lambda: Rule("a", rate=float("nan")), "`rate` is dense weights"),
        (lambda: Rule("a", rate=float("inf")), "`rate` is dense weights"),
        (lambda: Rule("a", rate="8"), "`rate` is dense weights"),
        (lambda: Rule("a", structure="Blck"), "Unknown structure 'Blck'"),
        (lambda: Rule("a", rate=8, skip=True), "skip=True, so it can have neither"),
    ],
)
def test_impossible_recipes_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not valid JSON"),
        ("[]", "tfrewprune_recipe = 1. Received: None"),
        ('{"tfrewprune_recipe": 9}', "Received: 9"),
        ('{"tfrewprune_recipe": 1}', "has no `rules`"),
        (
            '{"tfrewprune_recipe": 1, "rules": [], "rte": 8}',
            "entries in a recipe: .'rte",
        ),
        ('{"tfrewprune_recipe": 1, "rules": [{"m": 1}]}', "entries in a rule: .'m'"),
        ('{"tfrewprune_recipe": 1, "rules": [3]}', "rule must be a JSON object"),
    ],
)
def test_damaged_json_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Recipe.from_json(text)
