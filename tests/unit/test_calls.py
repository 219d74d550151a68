# SPDX-License-Identifier: Apache-2.0
"""A layer that a model calls several times costs all of these calls."""

import keras
import pytest

from tfrewprune.payload.cost import default_cost_model
from tfrewprune.planning import plan
from tfrewprune.wrappers.resources import layer_cost
from tfrewprune.wrappers.targets import all_kernels, layer_runs

pytestmark = pytest.mark.backend
layers = keras.layers


def positions(model) -> dict[str, list[int]]:
    """By kernel the positions of each multiplication."""
    return {
        target.label: sorted(
            size.pixels
            for size, times in layer_runs(target).items()
            for _ in range(times)
        )
        for target in all_kernels(model)
        if target.spec is not None
    }


def test_a_head_on_several_levels_costs_each_at_its_size():
    levels = [keras.Input((n, n, 8)) for n in (16, 8, 4)]
    for order in (levels, levels[::-1]):
        head = layers.Conv2D(8, 3, padding="same", name="head")
        model = keras.Model(levels, [head(level) for level in order])
        assert positions(model) == {"head": [16, 64, 256]}
        (row,) = plan(model)
        assert row.pixels == 336
        (target,) = all_kernels(model)
        cost, dense = layer_cost(target), default_cost_model().dense
        assert cost.of("macs", 100) == 33_600
        assert cost.of("weights", 100) == 100
        times = [dense(size) for size in layer_runs(target)]
        assert row.dense_us == pytest.approx(sum(times))
        assert cost.of("latency_ms", 576) == pytest.approx(sum(times) / 1000)


def test_an_encoder_called_twice_costs_twice_what_its_inputs_take():
    def siamese(encoder, *sizes):
        inputs = [keras.Input((n, n, 4)) for n in sizes]
        return keras.Model(inputs, [encoder(given) for given in inputs])

    def encoder(size):
        stack = [
            *(keras.Input((size, size, 4)), layers.Conv2D(8, 3, name="conv")),
            *(layers.GlobalAveragePooling2D(), layers.Dense(6, name="dense")),
        ]
        return keras.Sequential(stack, name="enc")

    fixed = positions(siamese(encoder(8), 8, 8))
    assert fixed == {"enc/conv": [36, 36], "enc/dense": [1, 1]}
    # An encoder of open sizes runs at those that it is called with.
    open_sizes = positions(siamese(encoder(None), 8, 6))
    assert open_sizes == {"enc/conv": [16, 36], "enc/dense": [1, 1]}
    around = keras.Input((8, 8, 4))
    inner = siamese(encoder(8), 8, 8)
    assert (
        positions(keras.Model(around, [inner([around, around]) for _ in range(2)]))[
            f"{inner.name}/enc/conv"
        ]
        == [36] * 4
    )


def test_calls_outside_of_the_model_do_not_count():
    inputs = keras.Input((8, 8, 4))
    conv = layers.Conv2D(4, 3, padding="same", name="conv")
    keras.Model(inputs, conv(conv(inputs)))
    assert positions(keras.Model(inputs, conv(inputs))) == {"conv": [64]}


def test_calls_inside_of_layers():
    """A converted model multiplies all steps at once."""
    inputs = keras.Input((5, 8))
    dense = layers.Dense(8, name="dense")
    steps = layers.TimeDistributed(dense, name="steps")
    model = keras.Model(inputs, [steps(steps(inputs)), dense(inputs)])
    assert positions(model) == {"steps/dense": [5, 5, 5]}


def test_recurrent_and_attention_layers_count_each_sequence():
    short, long = keras.Input((3, 8)), keras.Input((5, 8))
    rnn = layers.Bidirectional(layers.SimpleRNN(4), name="rnn")
    heads = layers.MultiHeadAttention(2, 4, name="heads")
    outputs = [rnn(short), rnn(long), heads(short, value=long), heads(long, long)]
    found = positions(keras.Model([short, long], outputs))
    for way in ("forward", "backward"):
        (kernel, state) = (
            steps for label, steps in found.items() if label.startswith(f"rnn/{way}")
        )
        assert kernel == [3, 5] and state == [1] * 8
    assert found["heads/query"] == found["heads/attention_output"] == [3, 5]
    assert found["heads/key"] == found["heads/value"] == [5, 5]


def test_a_tied_embedding_multiplies_where_it_is_reversed():
    tokens = keras.Input((7,), dtype="int32")
    table = layers.ReversibleEmbedding(20, 8, name="table")
    tied = keras.Model(tokens, table(table(tokens), reverse=True))
    assert positions(tied) == {"table": [7]}
    assert positions(keras.Model(tokens, table(tokens))) == {"table": []}
