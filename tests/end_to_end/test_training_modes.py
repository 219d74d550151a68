# SPDX-License-Identifier: Apache-2.0
"""Penalty and mask under every way Keras trains: precision, jit, EMA, replicas, ..."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from tfrewprune.pipeline import hard_prune, masked_retrain, reweighted_train
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.wrappers import apply_masks, attach, hooked_kernels, wrap

RECIPE = Recipe(Rule("body", rate=8), strength=1e-3, refreshes=1)
X = np.random.default_rng(0).standard_normal((96, 12, 12, 3)).astype(np.float32)
Y = (X.mean((1, 2))).argmax(1)
FIT = {"epochs": 2, "batch_size": 32, "verbose": 0}


def model_for(optimizer=None, dtype=None, **compile_options) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(16, 3, activation="relu", dtype=dtype),
            layers.Conv2D(40, 3, name="body", dtype=dtype),  # ragged blocks
            layers.BatchNormalization(dtype=dtype),
            layers.GlobalAveragePooling2D(dtype=dtype),
            layers.Dense(3, dtype="float32"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(1e-2), loss, **compile_options)
    return model


def check_both_phases(model: keras.Model) -> None:
    """The penalty lowers the group norms; under the mask the zeros are exact."""
    (target,) = hooked_kernels(model)
    start = float(np.mean(target.structure.rms(target.kernel(), target.shape)))
    history = reweighted_train(model, RECIPE, X, Y, **FIT).history
    assert np.isfinite(history["loss"]).all() and history["penalty"][-1] > 0
    kernel = target.kernel()
    assert float(np.mean(target.structure.rms(kernel, target.shape))) < start
    hard_prune(model, RECIPE)
    kernel = target.kernel()
    mask = target.mask.weight_mask(target.variable.shape)
    history = masked_retrain(model, RECIPE, X, Y, **FIT).history
    after = target.kernel()
    weights = np.asarray(target.variable)
    assert (weights[~mask] == 0.0).all()
    assert (after != kernel).any(), "the surviving weights train on"
    assert np.count_nonzero(weights) == mask.sum()
    assert history["rate"][-1] == pytest.approx(8.0, rel=0.02)


@pytest.mark.parametrize(
    "policy, wrapped",
    [
        (None, True),
        pytest.param("mixed_bfloat16", False, marks=pytest.mark.backend),
        ("mixed_float16", True),
    ],
)
def test_precision_policies(policy, wrapped):
    optimizer = keras.optimizers.Adam(1e-2)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0)
    model = model_for(optimizer, policy)
    if wrapped:
        model = wrap(model, RECIPE)
    else:
        attach(model, RECIPE)
    (target,) = hooked_kernels(model)
    assert keras.backend.standardize_dtype(target.variable.dtype) == "float32"
    check_both_phases(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(1e-2, momentum=0.9, nesterov=True),
        pytest.param(
            lambda: keras.optimizers.AdamW(1e-2, weight_decay=0.1),
            marks=pytest.mark.backend,
        ),
        pytest.param(
            lambda: keras.optimizers.Adam(1e-2, gradient_accumulation_steps=3),
            marks=pytest.mark.backend,
        ),
        pytest.param(
            lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_momentum=0.5),
            marks=pytest.mark.backend,
        ),
        lambda: keras.optimizers.Adam(1e-2, use_ema=True, ema_overwrite_frequency=2),
    ],
    ids=["momentum", "weight decay", "accumulation", "average", "average often"],
)
def test_optimizers_cannot_revive_removed_weights(make):
    optimizer = make()
    if optimizer.use_ema and keras.backend.backend() == "jax":
        pytest.skip(
            "Keras on JAX cannot `fit` twice with use_ema: buffers donated twice"
        )
    model = model_for(optimizer)
    attach(model, RECIPE)
    check_both_phases(model)


def test_plain_fit_keeps_the_mask_after_reload(tmp_path):
    model = model_for()
    hard_prune(model, RECIPE)
    model.save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    model.fit(X, Y, **FIT)
    (target,) = hooked_kernels(model)
    mask = target.mask.weight_mask(target.variable.shape)
    assert np.count_nonzero(np.asarray(target.variable)) == mask.sum()


def test_gradient_accumulation_does_not_update_in_between():
    """The constraint runs in every step; between updates it must change nothing."""
    model = model_for(keras.optimizers.Adam(1e-2, gradient_accumulation_steps=4))
    hard_prune(model, RECIPE)
    (target,) = hooked_kernels(model)
    before = target.kernel()
    for _ in range(3):
        model.train_on_batch(X[:32], Y[:32])
    np.testing.assert_array_equal(target.kernel(), before)
    model.train_on_batch(X[:32], Y[:32])
    assert (target.kernel() != before).any()


def test_jit_compile_and_steps_per_execution():
    model = model_for(jit_compile=True, steps_per_execution=3)
    attach(model, RECIPE)
    check_both_phases(model)


def test_eager():
    model = model_for(run_eagerly=True)
    attach(model, RECIPE)
    check_both_phases(model)


def test_average_at_the_end_of_plain_fit_needs_apply_masks():
    """What the documentation of `apply_masks` says about `use_ema` is so."""
    model = model_for(keras.optimizers.Adam(1e-2, use_ema=True))
    hard_prune(model, RECIPE)
    model.fit(X, Y, **FIT)
    (target,) = hooked_kernels(model)
    mask = target.mask.weight_mask(target.variable.shape)
    assert (np.asarray(target.variable)[~mask] != 0.0).any()
    apply_masks(model)
    assert (np.asarray(target.variable)[~mask] == 0.0).all()


MIRRORED = """
    import numpy as np, tensorflow as tf
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        cpus[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    import keras
    from test_training_modes import RECIPE, check_both_phases, model_for
    from tfrewprune.wrappers import attach, wrap

    for wrapped in (False, True):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        with strategy.scope():
            model = model_for()
            if wrapped:
                model = wrap(model, RECIPE)
        if not wrapped:
            attach(model, RECIPE)
        assert strategy.num_replicas_in_sync == 2
        check_both_phases(model)
        print("done", wrapped)
"""


def test_mirrored_strategy_with_two_replicas():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute needs the TensorFlow backend")
    here = os.path.dirname(__file__)
    path = os.pathsep.join([here, *sys.path])
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MIRRORED)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.stdout.split("\n")[:2] == ["done False", "done True"], result.stderr
