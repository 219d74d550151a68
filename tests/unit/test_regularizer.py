# SPDX-License-Identifier: Apache-2.0
"""Keras regularizers: value, gradient, state, round trips, on every backend."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.methods import GroupLasso, Method, Reweighted
from tfrewprune.structures import (
    Block,
    Channel,
    Column,
    Filter,
    KernelLayout,
    Unstructured,
)
from tfrewprune.wrappers import (
    GroupLassoRegularizer,
    MethodRegularizer,
    ReweightedRegularizer,
)

STRUCTURES = [
    Unstructured(),
    Filter(),
    Channel(),
    Column(),
    pytest.param(Block(16, 1), marks=pytest.mark.backend),
    pytest.param(Block(3, 5), marks=pytest.mark.backend),
]


def value_and_gradient(function, weights: np.ndarray):
    """d function / d weights on the backend in use."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(weights)
        with tf.GradientTape() as tape:
            value = function(variable)
        return float(value), tape.gradient(value, variable).numpy()
    if backend == "jax":
        import jax

        value, gradient = jax.jit(jax.value_and_grad(function))(weights)
        return float(value), np.asarray(gradient)
    import torch

    tensor = torch.tensor(weights, requires_grad=True)
    value = function(tensor)
    value.backward()
    return float(value), tensor.grad.numpy()


def random_weights(shape=(3, 3, 4, 21), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
@pytest.mark.parametrize("method", [Reweighted(0.1), GroupLasso()], ids=str)
def test_value_and_gradient_against_numpy(structure, method):
    weights = random_weights()
    regularizer = MethodRegularizer(structure, method, strength=0.5)
    regularizer.refresh(weights)
    value, gradient = value_and_gradient(regularizer, weights)
    kernel = weights.reshape(9, 4, 21)
    shape = KernelLayout().kernel_shape(weights.shape)
    state = method.state(kernel, structure, shape)
    expected = 0.5 * method.penalty(kernel, structure, shape, state)
    assert value == pytest.approx(expected, rel=1e-5)
    # Central differences in float64 of the numpy half, at a few weights.
    generator = np.random.default_rng(1)
    for index in generator.integers(0, kernel.shape, (8, 3)):
        step = np.zeros(kernel.shape)
        step[tuple(index)] = 1e-3
        ends = [
            method.penalty(kernel + s, structure, shape, state) for s in (step, -step)
        ]
        slope = 0.5 * (ends[0] - ends[1]) / 2e-3
        found = gradient.reshape(kernel.shape)[tuple(index)]
        assert found == pytest.approx(slope, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_gradient_is_finite_at_zero_groups(structure):
    weights = np.zeros((3, 3, 4, 21), np.float32)
    for refreshed in (False, True):
        regularizer = ReweightedRegularizer(structure, strength=1.0)
        if refreshed:
            regularizer.refresh(weights)
        value, gradient = value_and_gradient(regularizer, weights)
        assert np.isfinite(value)
        np.testing.assert_array_equal(gradient, 0)


@pytest.mark.backend
def test_alpha_carries_no_gradient():
    """Unbound, alpha follows the weights but is a constant to the gradient."""
    weights = random_weights((8, 32))
    bound = ReweightedRegularizer(Block(16, 1), 1.0, 0.1)
    bound.refresh(weights)
    free = ReweightedRegularizer(Block(16, 1), 1.0, 0.1)
    for left, right in zip(
        value_and_gradient(bound, weights),
        value_and_gradient(free, weights),
        strict=True,
    ):
        np.testing.assert_allclose(left, right, rtol=1e-5)


@pytest.mark.backend
def test_alpha_stays_until_refreshed():
    weights = random_weights((8, 32))
    regularizer = ReweightedRegularizer(Block(16, 1), 1.0, 0.1)
    regularizer.refresh(weights)
    before = float(regularizer(weights))
    # With alpha fixed the penalty is linear in the weights, ...
    assert float(regularizer(2 * weights)) == pytest.approx(2 * before, rel=1e-5)
    # ... after a refresh it saturates at the number of weights.
    regularizer.refresh(1e6 * weights)
    assert float(regularizer(1e6 * weights)) == pytest.approx(weights.size, rel=1e-3)


@pytest.mark.backend
def test_half_precision_weights_are_regularized_in_float32():
    weights = random_weights((8, 32))
    regularizer = ReweightedRegularizer(Block(16, 1), 1.0)
    half = ops.cast(ops.convert_to_tensor(weights), "bfloat16")
    value = regularizer(half)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    assert float(value) == pytest.approx(float(regularizer(weights)), rel=1e-2)


@pytest.mark.backend
def test_an_existing_regularizer_is_kept():
    weights = random_weights((4, 16))
    both = GroupLassoRegularizer(Filter(), 1.0, existing=keras.regularizers.L2(0.5))
    alone = GroupLassoRegularizer(Filter(), 1.0)
    extra = 0.5 * np.square(weights).sum()
    assert float(both(weights)) == pytest.approx(float(alone(weights)) + extra, 1e-5)
    assert float(both.penalty(weights)) == pytest.approx(float(alone(weights)))


@pytest.mark.parametrize(
    "regularizer",
    [
        ReweightedRegularizer(Block(4, 2), 0.1, 0.2, KernelLayout("conv_transpose")),
        GroupLassoRegularizer(Channel(), 0.3, existing="l2"),
        MethodRegularizer("Filter", "reweighted", 2.0, KernelLayout("dense", 2)),
    ],
    ids=lambda r: type(r).__name__,
)
def test_config_round_trip(regularizer):
    stored = keras.saving.serialize_keras_object(regularizer)
    restored = keras.saving.deserialize_keras_object(stored)
    assert type(restored) is type(regularizer)
    assert restored.get_config() == regularizer.get_config()


def test_one_regularizer_cannot_serve_two_layers():
    shared = ReweightedRegularizer(Filter())
    shared.refresh(np.ones((4, 8), np.float32))
    with pytest.raises(
        ValueError, match=r"bound to shape \(4, 8\). Received.*\(4, 9\)"
    ):
        shared.refresh(np.ones((4, 9), np.float32))
    with pytest.raises(ValueError, match="Use one regularizer object per layer"):
        shared(np.ones((4, 9), np.float32))


def test_bad_arguments():
    with pytest.raises(ValueError, match="`strength` must be at least 0"):
        ReweightedRegularizer(strength=-1)
    with pytest.raises(ValueError, match="Unknown structure"):
        ReweightedRegularizer("Row")


@pytest.mark.backend
def test_a_new_method_needs_no_change_elsewhere():
    """The quadratic penalty of ADMM, written against the interface only."""

    @dataclasses.dataclass(frozen=True)
    class Pull(Method):
        def state(self, kernel, structure, shape, xp=np, previous=None, keep=None):
            return {"target": structure.project(np.asarray(kernel), 6)}

        def penalty(self, kernel, structure, shape, state, xp=np):
            return 0.5 * xp.sum(xp.square(kernel - state["target"]))

    try:
        weights = random_weights((6, 8))
        regularizer = MethodRegularizer(Filter(), Pull(), 2.0)
        regularizer.refresh(weights)
        _, gradient = value_and_gradient(regularizer, weights)
        best = np.argmax(np.square(weights).sum(0))
        expected = 2.0 * weights
        expected[:, best] = 0
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)
    finally:
        Method._members.pop("pull")
