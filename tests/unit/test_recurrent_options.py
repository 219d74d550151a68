# SPDX-License-Identifier: Apache-2.0
"""Options of packed recurrent layers: what is written is read, damage is refused."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrewprune.converter import ConversionError, options
from tfrewprune.converter.options import RecurrentOptions, decode

KINDS = (RecurrentOptions.GRU, RecurrentOptions.LSTM, RecurrentOptions.RNN)


def small(most):
    return st.integers(0, most)


@given(
    st.sampled_from(KINDS), small(3), small(3), small(1), small(1), small(2), small(1)
)
def test_options_come_back(kind, inner, gate, reset, back, outputs, zero):
    reset = reset if kind == RecurrentOptions.GRU else 0
    gate = gate if kind != RecurrentOptions.RNN else 0
    made = RecurrentOptions(kind, inner, gate, reset, back, outputs, zero)
    assert decode(made.operator, made.encode()) == made
    assert RecurrentOptions.parse(made.words()) == made


@given(st.floats(0, 2.0**100, width=32), st.sampled_from([1, 3]))
def test_options_of_an_lstm_that_keeps_its_states_come_back(clip, inner):
    made = RecurrentOptions(RecurrentOptions.LSTM, inner, 2, 0, 0, 1, 0, clip, 1)
    assert decode(made.operator, made.encode()) == made
    assert made.results == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [(10, 0x7F800000), (10, -1), (11, 2), (4, 2), (5, 3), (7, 1), (8, 2), (9, 1)],
)
def test_what_an_lstm_that_keeps_its_states_cannot_be_is_refused(place, value):
    words = [GOOD[0], 1, RecurrentOptions.LSTM, 0, 3, 2, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert decode(options.LSTM, struct.pack("<16i", *words)).stateful
    words[place] = value
    with pytest.raises(ConversionError, match="options of a recurrent layer"):
        decode(options.LSTM, struct.pack("<16i", *words))


GOOD = (0x4F504654, 1, 2, 0, 3, 2, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 1), (1, 2), (2, 3), (3, 1), (4, 4), (5, -1), (6, 2), (7, 2), (8, 3), (9, 2)]
    + [(place, 1) for place in range(10, 16)],
)
def test_damaged_options_are_refused(place, value):
    assert decode(options.GRU, struct.pack("<16i", *GOOD)).reset_after
    words = list(GOOD)
    words[place] = value
    with pytest.raises(ConversionError, match="custom options of TfrewpruneGRU"):
        decode(options.GRU, struct.pack("<16i", *words))


def test_an_lstm_resets_nothing():
    words = list(GOOD)
    words[2] = RecurrentOptions.LSTM
    with pytest.raises(ConversionError, match="options of a recurrent layer"):
        decode(options.LSTM, struct.pack("<16i", *words))
