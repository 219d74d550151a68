# SPDX-License-Identifier: Apache-2.0
"""Constraints on the whole model: kept, several at once, refused when impossible."""

import keras
import numpy as np
import pytest

import tfrewprune as trp
from tfrewprune.methods import GradualMagnitude
from tfrewprune.payload.cost import LayerShape, default_cost_model
from tfrewprune.pipeline import compress, hard_prune, reweighted_train
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import Block, Unstructured
from tfrewprune.wrappers import hooked_kernels

layers = keras.layers
generator = np.random.default_rng(0)
X = generator.standard_normal((64, 16, 16, 8)).astype(np.float32)
Y = generator.integers(0, 4, 64)


def cnn():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((16, 16, 8)),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="stem"),
            layers.Conv2D(64, 3, strides=4, activation="relu", name="late"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="last"),
            layers.Flatten(),
            layers.Dense(128, activation="relu", name="dense"),
            layers.Dense(4, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    return model


MATRICES = {"late": 9 * 32 * 64, "last": 9 * 64 * 64, "dense": 16 * 64 * 128}
PIXELS = {"stem": 256, "late": 16, "last": 16, "dense": 1, "head": 1}
STEM, HEAD = 9 * 8 * 32, 128 * 4
BIASES = 32 + 64 + 64 + 128 + 4


SINGLE = Rule("*", structure=Unstructured())
BLOCKS = Recipe(
    Rule("*", structure=Block(16, 1)), rate=2, reweighted_epochs=0, retrain_epochs=0
)


def cut(constraints, **recipe):
    """Kept weights by layer."""
    model = cnn()
    recipe = {"rules": SINGLE, **recipe}
    rows = hard_prune(model, Recipe(constraints=constraints, **recipe))
    return {row.layer: row.kept for row in rows if row.reason is None}


def test_a_share_of_the_weights_counts_the_whole_model():
    whole = sum(MATRICES.values()) + STEM + HEAD + BIASES
    for asked in (0.25, "25%", round(0.25 * whole)):
        kept = cut({"weights": asked})
        total = sum(kept.values()) + STEM + HEAD + BIASES
        # Dense where dense is faster: the layer that is not pruned counts too.
        total += sum(n for name, n in MATRICES.items() if name not in kept)
        assert total == pytest.approx(0.25 * whole, abs=2)


def test_multiplications_are_counted_by_position():
    kept = cut({"macs": "60%"}, minimum_weights=0)
    sizes = {**MATRICES, "stem": STEM, "head": HEAD}
    dense = sum(sizes[name] * PIXELS[name] for name in sizes)
    macs = sum(kept.get(name, sizes[name]) * PIXELS[name] for name in sizes)
    assert macs == pytest.approx(0.6 * dense, rel=1e-3)
    # A weight of the dense layer costs a sixteenth of one before it.
    assert kept["dense"] / MATRICES["dense"] > kept["last"] / MATRICES["last"]


def test_the_scarce_of_two_constraints_decides_and_both_are_kept():
    alone, together = cut({"macs": "60%"}), cut({"macs": "60%", "weights": "95%"})
    assert together == pytest.approx(alone, rel=0.05)
    kept = cut({"macs": "60%", "weights": "20%"})
    sizes = {**MATRICES, "stem": STEM, "head": HEAD}
    macs = sum(kept.get(name, sizes[name]) * PIXELS[name] for name in sizes)
    assert macs <= 0.6 * sum(sizes[name] * PIXELS[name] for name in sizes)
    whole = sum(sizes.values()) + BIASES
    total = sum(kept.get(name, sizes[name]) for name in sizes) + BIASES
    assert total == pytest.approx(0.2 * whole, rel=1e-3)


def test_latency_is_that_of_the_cost_model():
    model = cnn()
    cost = default_cost_model()
    times = {
        "stem": LayerShape(32, 72, 256, 9),
        "late": LayerShape(64, 288, 16, 9),
        "last": LayerShape(64, 576, 16, 9),
        "dense": LayerShape(128, 1024, 1),
        "head": LayerShape(4, 128, 1),
    }
    dense = sum(cost.dense(shape) for shape in times.values()) / 1000
    result = compress(
        model,
        BLOCKS,
        constraints={"latency_ms": 0.8 * dense},
        verbose=0,
    )
    reached = result.costs["latency_ms"]
    assert reached["limit"] == pytest.approx(0.8 * dense)
    assert 0.9 * reached["limit"] < reached["reached"] <= reached["limit"]
    assert "latency_ms:" in result.headline
    left = cost.dense(times["stem"]) + cost.dense(times["head"])
    assert reached["reached"] > left / 1000


def test_measured_times_take_the_place_of_the_cost_model():
    times = {
        "late": {1: 8.0, 2: 4.0, 4: 2.0, 64: 0.5},
        "last": {1: 8.0, 2: 7.9, 4: 7.8, 64: 7.7},
    }
    recipe = Recipe(
        [Rule("late"), Rule("last")], constraints={"latency_ms": 12.5}, layer_ms=times
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    rows = hard_prune(cnn(), recipe)
    kept = {row.layer: row.rate for row in rows if row.reason is None}
    assert kept["late"] > 1.6  # pruning the other saves next to nothing


def test_bytes_are_those_of_the_file(tmp_path):
    asked = 150_000
    result = compress(
        cnn(),
        BLOCKS,
        constraints={"bytes": asked},
        verbose=0,
    )
    path = tmp_path / "model.tflite"
    trp.convert(result, path)
    assert result.costs["bytes"]["reached"] <= asked
    assert path.stat().st_size == pytest.approx(asked, rel=0.15)


def test_impossible_constraints_say_which_and_by_how_much():
    with pytest.raises(ValueError) as error:
        compress(
            cnn(),
            constraints={"weights": 0.01, "macs": "50%", "latency_ms": 1e-3},
            x=X,
            y=Y,
        )
    text = str(error.value)
    assert "weights: at least" in text and "latency_ms: at least" in text
    assert "more than the 0.001 asked for" in text and "macs" not in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"constraints": {}}, "must be a dict of some of"),
        ({"constraints": {"joules": 3}}, "Unknown constraint 'joules'"),
        ({"constraints": {"macs": "many"}}, "'macs' must be a positive number, or"),
        ({"constraints": {"macs": "140%"}}, "'macs' must be a positive number, or"),
        ({"constraints": {"bytes": -1}}, "'bytes' must be a positive number, or"),
        ({"constraints": {"macs": 0.5}, "rate": 4}, "not both. Received: rate=4, cons"),
        ({"constraints": {"macs": 0.5}, "layer_ms": {"a": {4: 1}}}, "rate 1 .dense."),
    ],
)
def test_other_constraints_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


def test_the_strength_follows_constraints():
    model = cnn()
    recipe = Recipe(
        Rule("la*", structure=Unstructured()),
        constraints={"macs": "60%"},
        method="reweighted_proximal",
        reweighted_epochs=15,
    )
    x, y = np.repeat(X, 2, axis=0), np.repeat(Y, 2)
    logs = reweighted_train(model, recipe, x, y, batch_size=8, verbose=0).history
    assert len(logs["strength"]) == 15
    macs = STEM * 256 + HEAD + MATRICES["dense"]
    dense = macs + 16 * (MATRICES["late"] + MATRICES["last"])
    for target in hooked_kernels(model):
        if target.penalty is not None:
            macs += 16 * np.count_nonzero(target.kernel())
    assert macs / dense == pytest.approx(0.6, abs=0.08)


def test_masks_tighten_towards_constraints():
    model = cnn()
    recipe = Recipe(
        Rule("la*", structure=Unstructured()),
        constraints={"macs": "60%"},
        method=GradualMagnitude(every=1),
        reweighted_epochs=2,
    )
    seen = []

    class Macs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kept = [np.count_nonzero(t.kernel()) for t in hooked_kernels(self.model)]
            seen.append(16 * sum(kept))

    reweighted_train(model, recipe, X, Y, callbacks=[Macs()], verbose=0)
    dense = 16 * (MATRICES["late"] + MATRICES["last"])
    others = STEM * 256 + HEAD + MATRICES["dense"]
    room = 0.6 * (dense + others) - others
    assert seen[1] == pytest.approx(room, rel=1e-3)
    assert seen[0] == pytest.approx(np.sqrt(room * dense), rel=1e-3)


def test_every_call_of_a_shared_layer_counts_towards_a_limit():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 32))
    conv = keras.layers.Conv2D(32, 3, padding="same", name="conv")
    outputs = conv(conv(conv(inputs)))
    for constraints in ({"macs": 1_000_000}, {"latency_ms": 0.02}):
        model = keras.Model(inputs, outputs)
        conv.set_weights([np.random.normal(size=w.shape) for w in conv.weights])
        hard_prune(
            model, Recipe(constraints=constraints, method="Magnitude", skip_first=False)
        )
        layers = trp.inspect_model(trp.convert(model, verify=False))
        assert len(layers) == 3
        macs = sum(256 * layer.kept for layer in layers)
        ms = sum(layer.predicted_packed_us for layer in layers) / 1000
        reached = {"macs": macs, "latency_ms": ms}
        for name, limit in constraints.items():
            assert 0.8 * limit < reached[name] <= 1.02 * limit


def test_what_rules_of_their_own_rate_keep_is_named():
    rules = [Rule(["late", "last"], structure=Unstructured(), rate=2), Rule("dense")]
    own = (MATRICES["late"] + MATRICES["last"]) / 2
    others = f"{STEM + HEAD + BIASES:.4g} are layers left dense"
    with pytest.raises(ValueError, match=others) as refused:
        cut({"weights": 1000}, rules=rules)
    kept = f"{own:.4g} are what rules with a rate of their own keep (late, last)"
    assert kept in str(refused.value)
