# SPDX-License-Identifier: Apache-2.0
"""The mask constraint: exact zeros, config round trip, damaged masks."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from tfrewprune.structures import Block, Channel, Filter, KernelLayout
from tfrewprune.wrappers import MaskConstraint
from tfrewprune.wrappers.constraint import decode_mask, encode_mask


@pytest.mark.backend
def test_removed_weights_are_positive_zero_even_from_nan():
    mask = np.array([[True, False], [False, True]])
    weights = np.array([[-3.0, -4.0], [np.nan, 5.0]], np.float32)
    found = ops.convert_to_numpy(MaskConstraint(mask)(weights))
    np.testing.assert_array_equal(found, [[-3.0, 0.0], [0.0, 5.0]])
    assert not np.signbit(found[0, 1])


@pytest.mark.backend
def test_group_mask_covers_its_weights():
    constraint = MaskConstraint(Block(2, 1), KernelLayout("conv_transpose"))
    weights = np.ones((2, 2, 5, 3), np.float32)  # height, width, outputs, channels
    np.testing.assert_array_equal(ops.convert_to_numpy(constraint(weights)), weights)
    groups = np.zeros((12, 3), bool)
    groups[4, 2] = True  # position 1, channel 1, outputs 4..5 (only 4 exists)
    constraint.set_mask(groups)
    found = ops.convert_to_numpy(constraint(weights))
    assert found.sum() == 1 and found[0, 1, 4, 1] == 1
    np.testing.assert_array_equal(constraint.weight_mask(weights.shape), found == 1)
    constraint.set_mask(None)
    assert constraint.weight_mask(weights.shape).all()


@pytest.mark.backend
def test_dtype_is_kept():
    mask = np.array([[True, False]])
    half = ops.cast(ops.ones((1, 2)), "float16")
    found = MaskConstraint(mask)(half)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"


@pytest.mark.backend
def test_an_existing_constraint_comes_first():
    constraint = MaskConstraint(Filter(), existing=keras.constraints.NonNeg())
    constraint.set_mask(np.array([True, True, False]))
    weights = np.array([[-1.0, 2.0, 3.0]], np.float32)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(constraint(weights)), [[0.0, 2.0, 0.0]]
    )


def test_config_carries_the_mask():
    constraint = MaskConstraint(Channel(), existing="non_neg")
    constraint.set_mask(np.array([True, False, True]))
    stored = keras.saving.serialize_keras_object(constraint)
    restored = keras.saving.deserialize_keras_object(stored)
    assert restored.get_config() == constraint.get_config()
    np.testing.assert_array_equal(restored.groups, [True, False, True])
    assert isinstance(restored.existing, keras.constraints.NonNeg)


#: Drawn by a seed: bit by bit takes hypothesis too long.
MASKS = st.builds(
    lambda shape, seed, kept: np.random.default_rng(seed).random(shape) < kept,
    hnp.array_shapes(max_dims=3, max_side=17),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)


@given(MASKS)
def test_encoded_masks_round_trip(mask):
    np.testing.assert_array_equal(decode_mask(encode_mask(mask)), mask)


GOOD = encode_mask(np.ones((3, 9), bool))


@pytest.mark.parametrize(
    "damage",
    [
        {"shape": [3, 20]},
        {"shape": [3, -9]},
        {"shape": None},
        {"bits": GOOD["bits"][:-4]},
        {"bits": "!"},
        {"bits": ""},
    ],
)
def test_damaged_masks_are_refused(damage):
    with pytest.raises(ValueError, match="The stored mask is damaged"):
        decode_mask({**GOOD, **damage})


@given(st.integers(0, len(GOOD["bits"]) - 1), st.characters(codec="ascii"))
def test_a_changed_character_is_never_a_crash(position, character):
    text = GOOD["bits"][:position] + character + GOOD["bits"][position + 1 :]
    try:
        assert decode_mask({**GOOD, "bits": text}).shape == (3, 9)
    except ValueError as error:
        assert "damaged" in str(error)


def test_mask_of_another_shape_is_refused():
    constraint = MaskConstraint(Filter())
    constraint.set_mask(np.ones(4, bool))
    with pytest.raises(ValueError, match=r"mask has groups \(4,\).*into groups \(5,\)"):
        constraint(np.ones((3, 5), np.float32))
    with pytest.raises(ValueError, match="must be boolean.*dtype=float64"):
        MaskConstraint(np.ones((2, 2)))
