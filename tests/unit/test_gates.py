# SPDX-License-Identifier: Apache-2.0
"""Gates of recurrent cells: every structure on each matrix of each gate by itself."""

import keras
import numpy as np
import pytest
from keras import ops

from tfrewprune.methods import ADMM, GradualMagnitude, Reweighted
from tfrewprune.pipeline import compress, hard_prune, sparsity_summary
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import (
    Balanced,
    Block,
    BlockRowColumn,
    Column,
    Filter,
    KernelLayout,
    KernelShape,
    NofM,
    Unstructured,
)
from tfrewprune.wrappers import (
    KernelSpec,
    apply_masks,
    attach,
    hooked_kernels,
    register_prunable,
    resolve,
    strip,
    wrap,
)
from tfrewprune.wrappers.resources import layer_cost
from tfrewprune.wrappers.targets import all_kernels

layers = keras.layers
UNITS, INPUTS = 20, 7
CELLS = {
    "GRU": (lambda **k: layers.GRU(UNITS, name="rnn", **k), "zrh"),
    "GRU before": (
        lambda **k: layers.GRU(UNITS, reset_after=False, name="rnn", **k),
        "zrh",
    ),
    "LSTM": (lambda **k: layers.LSTM(UNITS, name="rnn", **k), "ifco"),
}
every_cell = pytest.mark.parametrize("cell", CELLS)


def one_layer(make) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((5, INPUTS)), make(), layers.Dense(3)])


def gates(cell: str, model: keras.Model) -> dict[str, np.ndarray]:
    """(inputs, units) of every gate by its name, cut out by hand."""
    letters, found = CELLS[cell][1], {}
    for attribute in ("kernel", "recurrent_kernel"):
        weights = ops.convert_to_numpy(getattr(model.layers[0].cell, attribute))
        for letter, gate in zip(
            letters, np.split(weights, len(letters), axis=1), strict=True
        ):
            found[f"{attribute}/{letter}"] = gate
    return found


def data(targets=(3,)):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 5, INPUTS)).astype(np.float32)
    return x, rng.standard_normal((32, *targets)).astype(np.float32)


@every_cell
@pytest.mark.parametrize(
    "structure",
    [
        Block(8, 1),
        Block(8, 1, cluster=True),
        BlockRowColumn(8, 4),
        Balanced(Block(4, 2)),
        Filter(),
        Column(),
        NofM(2, 4),
        Unstructured(),
    ],
    ids=str,
)
def test_every_gate_is_pruned_as_if_it_were_a_layer_of_its_own(cell, structure):
    model = one_layer(CELLS[cell][0])
    before = gates(cell, model)
    recipe = Recipe(Rule("rnn", structure=structure, rate=4))
    rows = {row.layer: row for row in hard_prune(model, recipe)}
    for name, gate in gates(cell, model).items():
        dense = keras.Sequential([keras.Input((len(gate),)), layers.Dense(UNITS)])
        dense.layers[0].set_weights([before[name], np.zeros(UNITS)])
        (row,) = hard_prune(
            dense, Recipe(Rule(dense.layers[0].name, structure=structure, rate=4))
        )
        expected = ops.convert_to_numpy(dense.layers[0].kernel)
        np.testing.assert_array_equal(gate, expected)
        assert rows[f"rnn/{name}"].kept == row.kept == np.count_nonzero(gate)
        assert rows[f"rnn/{name}"].shape == gate.shape


def test_matrices_may_differ_in_rate_structure_and_strength():
    model = one_layer(CELLS["GRU"][0])
    recipe = Recipe(
        [
            Rule("rnn", weights="*/z", skip=True),
            Rule("rnn", weights="recurrent_kernel", structure=Block(4, 1), rate=10),
            Rule(kind="GRU", weights="kernel/h", structure=Filter(), strength=0.5),
            Rule(kind="RNN", structure=Unstructured(), rate=2),
        ],
        rate=4,
    )
    found = {t.label: t for t in resolve(model, recipe)}
    attach(model, recipe)
    strengths = {t.label: t.penalty.strength for t in hooked_kernels(model)}
    rows = {row.layer: row for row in hard_prune(model, recipe)}
    assert found["rnn/kernel/z"].reason == found["rnn/recurrent_kernel/z"].reason
    assert "left dense by rule" in found["rnn/kernel/z"].reason
    assert rows["rnn/recurrent_kernel/r"].kept == UNITS * UNITS / 10
    assert rows["rnn/recurrent_kernel/r"].structure == Block(4, 1)
    assert rows["rnn/kernel/r"].kept == INPUTS * UNITS / 2
    assert rows["rnn/kernel/h"].structure == Filter()
    assert strengths["rnn/kernel/h"] == 0.5 != strengths["rnn/kernel/r"]
    assert (gates("GRU", model)["kernel/z"] != 0).all()


@pytest.mark.backend
@every_cell
def test_the_penalty_is_the_sum_over_the_gates(cell):
    model = one_layer(CELLS[cell][0])
    structure = Block(8, 1)
    attach(model, Recipe(Rule("rnn", structure=structure), strength=0.1))
    expected = 0.0
    for gate in gates(cell, model).values():
        shape = KernelShape(1, *gate.shape)
        state = Reweighted().state(gate[None], structure, shape)
        expected += 0.1 * Reweighted().penalty(gate[None], structure, shape, state)
    total = sum(float(ops.convert_to_numpy(loss)) for loss in model.losses)
    assert total == pytest.approx(expected, rel=1e-4)


@pytest.mark.backend
def test_a_regularizer_and_a_constraint_of_the_users_own_stay():
    def make():
        return layers.GRU(
            UNITS,
            name="rnn",
            kernel_regularizer=keras.regularizers.L2(0.5),
            kernel_constraint=keras.constraints.MaxNorm(0.25),
        )

    model = one_layer(make)
    cell = model.layers[0].cell
    own = sum(float(ops.convert_to_numpy(loss)) for loss in model.losses)
    attach(model, Recipe(Rule("rnn", rate=2), strength=0.0))
    both = sum(float(ops.convert_to_numpy(loss)) for loss in model.losses)
    assert both == pytest.approx(own, rel=1e-5)
    weights = ops.convert_to_tensor(cell.kernel)
    bounded = ops.convert_to_numpy(cell.kernel.constraint(weights))
    assert np.linalg.norm(bounded, axis=0).max() <= 0.25 + 1e-5
    plain = strip(model)
    assert isinstance(plain.layers[0].cell.kernel.regularizer, keras.regularizers.L2)
    assert isinstance(plain.layers[0].cell.kernel.constraint, keras.constraints.MaxNorm)


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(Reweighted(), marks=pytest.mark.backend),
        ADMM(),
        pytest.param(GradualMagnitude(score="fisher"), marks=pytest.mark.backend),
    ],
    ids=lambda method: type(method).__name__,
)
def test_the_whole_way(method):
    model = one_layer(CELLS["LSTM"][0])
    model.compile("adam", "mse")
    recipe = Recipe(
        Rule("rnn", structure=Block(4, 1)),
        method=method,
        rate=4,
        reweighted_epochs=2,
        retrain_epochs=2,
    )
    result = compress(model, recipe, *data(), batch_size=8, verbose=0)
    kept = {name: np.count_nonzero(g) for name, g in gates("LSTM", model).items()}
    rows = {row.layer: row.kept for row in result.layers}
    assert {name: rows[f"rnn/{name}"] for name in kept} == kept
    assert result.pruned_rate == pytest.approx(4, rel=0.02)
    for name, gate in gates("LSTM", model).items():
        bands = np.add.reduceat(gate != 0, np.arange(0, UNITS, 4), axis=1)
        assert set(np.unique(bands)) <= {0, 4}, name


@pytest.mark.backend
def test_masks_outlive_saving_and_training_on(tmp_path):
    model = one_layer(CELLS["GRU"][0])
    recipe = Recipe(
        [Rule("rnn", weights="kernel", rate=2), Rule("rnn", rate=8)], strength=1e-4
    )
    hard_prune(model, recipe)
    model.compile("adam", "mse")
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    again.fit(*data(), epochs=2, verbose=0)
    for name, gate in gates("GRU", model).items():
        trained = gates("GRU", again)[name]
        np.testing.assert_array_equal(trained != 0, gate != 0)
        assert (trained != gate).any()


@pytest.mark.backend
def test_penalty_weights_and_masks_of_a_weights_file(tmp_path):
    recipe = Recipe(Rule("rnn", structure=Block(4, 1), rate=4), strength=1e-4)
    first, second = (one_layer(CELLS["LSTM"][0]) for _ in range(2))
    attach(first, recipe)
    for number, target in enumerate(hooked_kernels(first)):
        alpha = target.penalty.state["alpha"]
        alpha.assign(np.full(alpha.shape, number, np.float32))
    first.save_weights(tmp_path / "penalty.weights.h5")
    attach(second, recipe)
    second.load_weights(tmp_path / "penalty.weights.h5")
    for number, target in enumerate(hooked_kernels(second)):
        alpha = ops.convert_to_numpy(target.penalty.state["alpha"])
        assert (alpha == number).all()
    hard_prune(first, recipe)
    first.save_weights(tmp_path / "mask.weights.h5")
    second.load_weights(tmp_path / "mask.weights.h5")
    for old, new in zip(hooked_kernels(first), hooked_kernels(second), strict=True):
        np.testing.assert_array_equal(new.mask.groups, old.mask.groups)
    revived = second.layers[0].cell.kernel
    revived.assign(np.ones(revived.shape, np.float32))
    apply_masks(second)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(revived) != 0,
        ops.convert_to_numpy(first.layers[0].cell.kernel) != 0,
    )


def nested() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((5, 6, 6, 2)),
            layers.ConvLSTM2D(4, 3, return_sequences=True, name="conv_lstm"),
            layers.TimeDistributed(layers.Conv2D(8, 3, name="conv"), name="frames"),
            layers.TimeDistributed(layers.Flatten()),
            layers.Bidirectional(
                layers.GRU(UNITS, return_sequences=True, name="gru"), name="both"
            ),
            layers.RNN(
                [layers.LSTMCell(UNITS, name="a"), layers.SimpleRNNCell(8, name="b")],
                name="stacked",
            ),
        ]
    )


def test_what_recurrent_layers_hold_is_found():
    found = {t.label: t.reason for t in resolve(nested(), Recipe(Rule(kind="RNN")))}
    pruned = {label for label, reason in found.items() if reason is None}
    expected = {
        f"both/{direction}_gru/{matrix}/{gate}"
        for direction in ("forward", "backward")
        for matrix in ("kernel", "recurrent_kernel")
        for gate in "zrh"
    }
    cells = [path for path in found if path.startswith("stacked/")]
    stacked = {path.removeprefix("stacked/") for path in cells}
    letters = {f"a/{m}/{g}" for m in ("kernel", "recurrent_kernel") for g in "ifco"}
    assert stacked == {*letters, "b/kernel", "b/recurrent_kernel"}
    assert pruned == expected | set(cells)
    assert "convolutional recurrent cell" in found["conv_lstm"]
    assert found["frames/conv"] == "no rule matches"


def test_gates_of_a_layer_of_the_users_own():
    class Mixing(layers.Layer):
        def build(self, shape):
            self.mixed = self.add_weight(shape=(shape[-1], 64), name="mixed")

        def call(self, x):
            update, candidate = ops.split(ops.matmul(x, self.mixed), 2, axis=-1)
            return ops.sigmoid(update) * candidate

    names = ["mixed/update", "mixed/candidate"]
    register_prunable(
        Mixing,
        *(
            KernelSpec("mixed", KernelLayout("gate", parts=2, part=part), name=name)
            for part, name in enumerate(names)
        ),
    )
    model = keras.Sequential([keras.Input((16,)), Mixing(name="mix"), layers.Dense(2)])
    recipe = Recipe([Rule("mix", weights="*/update", rate=8), Rule("mix", rate=2)])
    hard_prune(model, recipe)
    update, candidate = np.split(ops.convert_to_numpy(model.layers[0].mixed), 2, axis=1)
    assert np.count_nonzero(update) == 16 * 32 / 8
    assert np.count_nonzero(candidate) == 16 * 32 / 2


def test_a_pattern_leaves_small_gates_which_a_name_or_kind_means():
    model = one_layer(CELLS["GRU"][0])
    for rule in (Rule("rnn"), Rule(kind="GRU"), Rule(kind="RNN")):
        found = resolve(model, Recipe(rule, rate=4))
        assert sum(target.reason is None for target in found) == 6
    found = resolve(model, Recipe("r*", rate=4))
    reasons = {target.label: target.reason for target in found}
    assert reasons["rnn/kernel/z"] == "small: 140 weights < 256"
    assert reasons["rnn/recurrent_kernel/z"] is None
    with pytest.raises(ValueError, match="small: 400 weights < 500"):
        resolve(model, Recipe("r*", rate=4, minimum_weights=500))


@pytest.mark.parametrize(
    "rule, message",
    [
        (Rule("rnn", weights="bias"), "no weights of its layers.*kernel/z, kernel/r"),
        (Rule("rnn", kind="LSTM"), r"Rule 'rnn', kind='LSTM' matches no layer"),
        (Rule("dense", weights="kernel/z"), "They have: kernel"),
    ],
)
def test_rules_that_mean_nothing_are_told(rule, message):
    model = keras.Sequential(
        [
            keras.Input((5, INPUTS)),
            layers.GRU(UNITS, name="rnn"),
            layers.Dense(3, name="dense"),
        ]
    )
    with pytest.raises(ValueError, match=message):
        resolve(model, Recipe(rule))


def test_a_budget_of_multiplications_needs_the_length_of_a_sequence():
    model = one_layer(CELLS["GRU"][0])
    hard_prune(model, Recipe(Rule("rnn"), rate=4, budget="macs"))
    kept = sum(np.count_nonzero(gate) for gate in gates("GRU", model).values())
    assert kept == pytest.approx(3 * UNITS * (UNITS + INPUTS) / 4, rel=0.05)
    open_ended = keras.Sequential([keras.Input((None, INPUTS)), CELLS["GRU"][0]()])
    with pytest.raises(ValueError, match="length of a sequence, which is open"):
        hard_prune(open_ended, Recipe(Rule("rnn"), rate=4, budget="macs"))


def test_what_gates_heads_and_tables_cost():
    """Every step multiplies by every gate; a table is looked up."""
    ids = keras.Input((5,))
    x = layers.Embedding(50, INPUTS, name="table")(ids)
    y = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True), name="rnn")(x)
    y = layers.RNN([layers.GRUCell(4), layers.SimpleRNNCell(3)], name="cells")(y)
    z = layers.MultiHeadAttention(2, 6, name="heads", use_bias=False)(x, x)
    model = keras.Model(ids, [y, z])
    costs = {t.label: (t, layer_cost(t)) for t in all_kernels(model, ("matrix",))}
    for label, (target, cost) in costs.items():
        weights = target.shape.weights
        steps = 0 if label == "table" else 5
        assert cost.of("macs", weights) == steps * weights, label
        assert cost.of("latency_ms", weights) >= (steps > 0) * 1e-6, label
    (heads,) = [
        t for t in all_kernels(model, ("heads",)) if t.spec and t.reason is None
    ]
    assert layer_cost(heads).of("macs", 10) == 50


def test_constraints_of_every_kind_hold_for_gates():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((10, 64)), layers.LSTM(128, name="rnn")])
    (gate,) = [
        target
        for target in resolve(model, Recipe(Rule(kind="LSTM"), rate=4))
        if target.label == "rnn/recurrent_kernel/f"
    ]
    cost = layer_cost(gate)
    dense, few = (
        [cost.of(unit, kept) for unit in ("macs", "bytes", "latency_ms")]
        for kept in (128 * 128, 128 * 8)
    )
    assert dense[0] == 10 * 128 * 128 and few[0] == 10 * 128 * 8
    assert few[1] < dense[1] / 6 and few[2] < dense[2] / 2
    limits = {"macs": "60%", "bytes": "70%", "latency_ms": "70%"}
    recipe = Recipe(Rule(kind="LSTM"), constraints=limits)
    rows = [row for row in hard_prune(model, recipe) if row.reason is None]
    kept = sum(row.kept for row in rows)
    assert len(rows) == 8 and kept <= 0.61 * sum(row.weights for row in rows)


def test_wrap_attaches_what_lies_inside():
    model = one_layer(CELLS["GRU"][0])
    recipe = Recipe([Rule("rnn", rate=4), Rule(model.layers[1].name, rate=2)])
    wrapped = wrap(model, recipe)
    assert len(hooked_kernels(wrapped)) == 7
    rows = [row for row in hard_prune(wrapped, recipe) if row.reason is None]
    assert sum(row.kept for row in rows if row.layer.startswith("rnn")) == sum(
        row.kept for row in sparsity_summary(strip(wrapped)) if row.kind == "GRUCell"
    )
