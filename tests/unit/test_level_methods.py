# SPDX-License-Identifier: Apache-2.0
"""Methods that lead weights to levels, step by step in numpy."""

import numpy as np
import pytest

from tfrewprune.levels import Binary, EqualInterval, Ternary
from tfrewprune.methods import ADMM, Method, PartialFreeze, StraightThrough
from tfrewprune.quantization import Quantization
from tfrewprune.recipe import Recipe
from tfrewprune.structures import KernelShape, Unstructured

SHAPE = KernelShape(1, 12, 8)
STRUCTURE = Unstructured()


@pytest.fixture
def kernel():
    values = np.random.default_rng(0).standard_normal(tuple(SHAPE)).astype(np.float32)
    values[:, ::3] = 0
    return values


def state_of(method, kernel, previous=None):
    return method.state(kernel, STRUCTURE, SHAPE, previous=previous)


@pytest.mark.parametrize("levels", [EqualInterval(3), Ternary(), Binary()], ids=str)
def test_admm_pulls_the_weights_onto_levels(levels, kernel):
    """min ||W - W0||^2 / 2 s.t. W on levels: the growing pull makes it feasible."""
    method, start, strength = ADMM(1.3, levels), kernel.copy(), 1e-2
    state = state_of(method, kernel)
    np.testing.assert_array_equal(state["target"], levels.project(kernel))
    assert not state["dual"].any()
    distances = []
    for _ in range(40):
        target = state["target"] - state["dual"]
        kernel = (start + strength * target) / (1 + strength)  # the exact W step
        kernel[start == 0] = 0  # as the mask has it
        distances.append(np.abs(kernel - levels.project(kernel)).max())
        state = state_of(method, kernel, state)
        strength *= method.growth
        assert not state["target"][start == 0].any()
    assert distances[-1] < 0.02 * distances[0]
    np.testing.assert_allclose(kernel, state["target"], atol=0.02)


def test_straight_through_moves_latent_weights_by_the_whole_step(kernel):
    method = StraightThrough(Ternary())
    state = state_of(method, kernel)
    latent, steps = kernel.copy(), np.random.default_rng(1)
    shown = kernel
    for _ in range(5):
        step = steps.normal(0, 0.2, kernel.shape).astype(np.float32)
        moved = shown + step  # what an optimizer makes of what it is shown
        state |= method.follow(moved, state)
        shown = method.after_step(moved, STRUCTURE, SHAPE, state, step=1.0)
        latent = np.where(kernel == 0, 0, latent + step)
        np.testing.assert_allclose(state["latent"], latent, atol=1e-6)
        expected = Ternary().on_levels(latent, state["scale"])
        np.testing.assert_allclose(shown, expected, atol=1e-6)
    assert not shown[kernel == 0].any()
    after = state_of(method, shown, state)
    np.testing.assert_allclose(after["latent"], latent, atol=1e-6)
    np.testing.assert_array_equal(after["scale"], Ternary().scale(after["latent"]))


def test_a_weight_at_level_zero_comes_back(kernel):
    method = StraightThrough(Ternary())
    state = state_of(method, kernel)
    state |= method.follow(kernel, state)
    dead = (state["shown"] == 0) & (kernel != 0)
    assert dead.any()
    state |= method.follow(state["shown"] + np.float32(3), state)
    assert (state["shown"][dead] != 0).all()


def test_a_latent_weight_that_meets_zero_is_not_removed(kernel):
    method = StraightThrough(Binary())
    state = state_of(method, kernel)
    state |= method.follow(np.zeros_like(kernel), state)  # latent: kernel - kernel
    assert not state["latent"].any()
    live = kernel != 0
    assert (state["shown"][live] != 0).all() and not state["shown"][~live].any()
    state |= method.follow(state["shown"] - np.float32(1), state)
    assert (state["shown"][live] < 0).all() and not state["shown"][~live].any()


@pytest.mark.parametrize("share, rounds", [(0.3, 4), (0.5, 5), (1, 1), (0.01, 3)])
def test_partial_freeze_is_monotone_and_takes_the_nearest_first(kernel, share, rounds):
    levels = EqualInterval(3)
    method = PartialFreeze(levels, share, rounds)
    live = kernel != 0
    state, before = state_of(method, kernel), live.astype(np.float32)
    for number in range(1, rounds + 1):
        free = state["free"]
        assert (free <= before).all() and not free[~live].any()
        newly = (before > 0) & (free == 0)
        distance = np.abs(kernel - levels.on_levels(kernel, state["scale"]))
        if number < rounds:
            assert newly.sum() == np.ceil(share * before.sum())
            assert distance[newly].max() <= distance[free > 0].min(initial=np.inf)
        else:
            assert not free.any()
        before = free
        kernel = np.random.default_rng(number).normal(0, 1, kernel.shape)
        kernel = kernel.astype(np.float32)
        held = method.after_step(kernel, STRUCTURE, SHAPE, state, step=1.0)
        np.testing.assert_array_equal(held[free == 0], state["frozen"][free == 0])
        np.testing.assert_array_equal(held[free > 0], kernel[free > 0])
        assert not held[~live].any()
        kernel = np.where(free > 0, kernel, held)
        fixed = state["frozen"]
        state = state_of(method, kernel, state)
        kept = (before == 0) & live
        np.testing.assert_array_equal(state["frozen"][kept], fixed[kept])
    np.testing.assert_array_equal(
        levels.on_levels(state["frozen"], state["scale"]), state["frozen"]
    )


@pytest.mark.parametrize(
    "method",
    [
        ADMM(1.2, Binary()),
        StraightThrough(EqualInterval(4, per="channel")),
        PartialFreeze(Ternary(), 0.3, 7),
    ],
    ids=lambda method: type(method).__name__,
)
def test_configs_come_back(method):
    assert Method.get(method.get_config()) == method
    assert not method.prunes
    with pytest.raises(ValueError, match="levels are for.*Quantization"):
        Recipe(rate=4, method=method)


def test_a_quantization_survives_json():
    quantization = Quantization(
        *("ternary", {"conv1": 8, "head": None}, "straight-through", True),
        *(3, 4, 0.5, 1.1, 7, 0.2, 3),
    )
    recipe = Recipe(rate=4, quantization=quantization)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Quantization.get(quantization.get_config()) == quantization
    assert Quantization.get(4) == Quantization(EqualInterval(4))
    assert Quantization.get({"levels": "EqualInterval", "bits": 3}).levels.bits == 3


def test_stages():
    def names(**options):
        return [stage.name for stage in Quantization(4, **options).stages]

    assert names() == ["levels", "freeze"]
    assert names(ends_last=True) == ["levels", "freeze", "levels 2", "freeze 2"]
    assert names(method="straight-through", ends_last=True) == ["levels", "levels 2"]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Quantization(0), "`bits` of EqualInterval"),
        (lambda: Quantization(None), "levels for no layer"),
        (lambda: Quantization(4, layers=["conv1"]), "must be a dict"),
        (lambda: Quantization(4, method="ste"), "'straight-through'.*'ste'"),
        (lambda: Quantization(4, epochs=-1), "`epochs` must be an integer.*-1"),
        (lambda: Quantization(4, rounds=0), "`rounds` must be an integer.*least 1"),
        (lambda: Quantization(4, share=0), "share above 0 and at most 1"),
        (lambda: Quantization(4, strength=0), "`strength` must be a finite number abo"),
        (lambda: Quantization(4, growth=0.5), "`growth` must be at least 1"),
        (
            lambda: Recipe(rate=2, quantization=4, then=Recipe(rate=4)),
            "the last step of a recipe has the `quantization`",
        ),
    ],
)
def test_impossible_quantizations_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
