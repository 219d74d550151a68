# SPDX-License-Identifier: Apache-2.0
"""Phone data, pieces of it, phone error rates; no training."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfrewprune.experiments import phones

PAUSE = 2  # number of "pau" among the names below
NAMES = ["a", "b", "pau", "t"]


def plain_distance(said, reference):
    """Levenshtein's distance by its definition."""

    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (said[i - 1] != reference[j - 1]),
        )

    return distance(len(said), len(reference))


sequences = st.lists(st.integers(0, 3), max_size=9)


@given(sequences, sequences)
def test_the_edit_distance_is_that_of_the_definition(said, reference):
    found = phones.edit_distance(np.array(said, int), np.array(reference, int))
    assert found == plain_distance(tuple(said), tuple(reference))


@given(sequences)
def test_collapsed_sequences_have_each_run_once_and_no_silence(labels):
    expected, before = [], None
    for label in labels:
        if label != before and label != PAUSE:
            expected.append(label)
        before = label
    found = phones.collapse(np.array(labels, int), PAUSE)
    assert found.tolist() == expected


def scores_of(said):
    return np.eye(len(NAMES), dtype=np.float32)[said]


UNIFORM = np.full((4, 4), np.log(1 / 4))


def test_errors_count_changed_missing_and_added_phones_over_true_ones():
    true = np.repeat([2, 0, 1, 3, 2], 3)
    same = phones.errors([scores_of([2, 0, 1, 3, 2])], [true], PAUSE, UNIFORM)
    assert same["accuracy"] == 1.0
    assert same["phone_error_rate"] == same["decoded_error_rate"] == 0.0
    # "b" became "a" (and melts with the one before), "t" was split by a pause.
    found = phones.errors(
        [scores_of([2, 0, 0, 3, 2])] * 2, [true, true], PAUSE, UNIFORM
    )
    assert found["accuracy"] == pytest.approx(12 / 15)
    assert found["phone_error_rate"] == pytest.approx(1 / 3)
    added = phones.errors([scores_of([0, 2, 0, 1, 3])], [true], PAUSE, UNIFORM)
    assert added["phone_error_rate"] == pytest.approx(1 / 3)


def test_a_sentence_that_ends_inside_a_step_is_judged_frame_by_frame():
    true = np.array([0, 0, 0, 1])
    found = phones.errors([scores_of([0, 1])], [true], PAUSE, UNIFORM)
    assert (found["accuracy"], found["phone_error_rate"]) == (1.0, 0.0)


@given(st.integers(0, 10_000), st.integers(1, 4))
def test_the_decoded_sequence_is_the_likeliest_of_all(seed, steps):
    random = np.random.default_rng(seed)
    scores = random.normal(size=(steps, 3))
    grammar = np.log(random.dirichlet([1, 1, 1], 3))
    likely = np.log(np.exp(scores) / np.exp(scores).sum(1, keepdims=True))

    def worth(path):
        sound = sum(likely[step, phone] for step, phone in enumerate(path))
        order = sum(grammar[pair] for pair in itertools.pairwise(path))
        return sound + phones.GRAMMAR * order

    best = max(itertools.product(range(3), repeat=steps), key=worth)
    assert tuple(phones.decode(scores, grammar)) == best


def test_decoding_takes_out_a_phone_that_nobody_says():
    labels = [np.repeat([2, 0, 1, 2], 30)]
    grammar = phones.grammar_of(labels, 4)
    np.testing.assert_allclose(np.exp(grammar).sum(1), 1)
    scores = 3.0 * scores_of([2, 0, 0, 3, 0, 1, 2])  # one step of "t" inside of "a"
    assert phones.decode(scores, grammar).tolist() == [2, 0, 0, 0, 0, 1, 2]
    found = phones.errors([scores], [np.repeat([2, 0, 0, 0, 0, 1, 2], 3)], 2, grammar)
    assert found["phone_error_rate"] == 1.0 and found["decoded_error_rate"] == 0.0


@pytest.fixture
def archive(tmp_path):
    """Twenty short sentences in the form of ``ru_phones.npz``."""
    random = np.random.default_rng(0)
    lengths = random.integers(40, 60, 20)
    codes = random.integers(0, 256, (lengths.sum(), 4), np.uint8)
    arrays = {
        "features_delta": np.diff(codes, axis=0, prepend=np.zeros((1, 4), np.uint8)),
        "labels": random.integers(0, 4, lengths.sum()).astype(np.uint8),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
        "is_test": np.arange(20) % 10 == 4,
        "phones": np.array(NAMES),
    }
    path = tmp_path / "ru_phones.npz"
    np.savez(path, **arrays)
    return path, codes, arrays


def test_each_sentence_is_in_one_part_and_the_scale_is_that_of_the_training_part(
    archive,
):
    path, codes, arrays = archive
    data = phones.ru_phones(path)
    assert (len(data.x_train), len(data.x_validation), len(data.x_test)) == (16, 2, 2)
    assert data.silence == PAUSE
    bounds = arrays["offsets"]
    numbers = [*(i for i in range(20) if i % 10 not in (4, 9)), 9, 19, 4, 14]
    chosen = [range(bounds[i], bounds[i + 1]) for i in numbers]
    training = codes[np.concatenate(chosen[:16])].astype(np.float64)
    mean, deviation = training.mean(0), training.std(0)
    frames = [*data.x_train, *data.x_validation, *data.x_test]
    labels = [*data.y_train, *data.y_validation, *data.y_test]
    for span, x, y in zip(chosen, frames, labels, strict=True):
        np.testing.assert_allclose(x, (codes[span] - mean) / deviation, atol=1e-4)
        np.testing.assert_array_equal(y, arrays["labels"][span])


def test_the_real_sentences_are_the_known_ones():
    try:
        data = phones.ru_phones()
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    parts = data.x_train, data.x_validation, data.x_test
    assert [len(part) for part in parts] == [447, 55, 56]
    assert sum(len(x) for part in parts for x in part) == 538_339
    assert len(data.phones) == 51 and data.phones[data.silence] == "pau"
    # Nothing is lost by saying one phone for three frames.
    for true in data.y_test:
        steps = true[phones.STACK // 2 :: phones.STACK]
        collapsed = [phones.collapse(y, data.silence).tolist() for y in (true, steps)]
        assert collapsed[0] == collapsed[1]


def test_steps_hold_every_frame_and_fill_up_with_the_last():
    frames = np.arange(10.0).reshape(5, 2)
    steps = phones.steps_of(frames)
    assert steps.shape == (2 + phones.DELAY, 3 * 2)
    flat = steps.reshape(-1, 2)
    np.testing.assert_array_equal(flat[:5], frames)
    assert (flat[5:] == frames[-1]).all()


def test_pieces_pair_each_step_with_the_phone_of_the_step_before(archive):
    data = phones.ru_phones(archive[0])
    # Frames that tell their place, so that the labels can be looked up.
    total = sum(map(len, data.x_train))
    places = np.arange(total, dtype=np.float32)[:, None]
    cuts = np.cumsum([len(x) for x in data.x_train])[:-1]
    data = phones.dataclasses.replace(data, x_train=np.split(places, cuts))
    labels = np.concatenate(data.y_train)
    batches = phones.segments(data, seed=1, batch_size=4, steps=7)
    assert len(batches) == total // (3 * 4 * 7)
    starts = set()
    for index in range(len(batches)):
        x, y = batches[index]
        assert x.shape == (4, 7, 3) and y.shape == (4, 7)
        middle = x[..., 1].astype(int)
        np.testing.assert_array_equal(y, labels[middle - 3 * phones.DELAY])
        np.testing.assert_array_equal(np.diff(x.reshape(4, -1), axis=1), 1)
        starts |= {int(place) % 3 for place in x[:, 0, 0]}
    assert starts == {0, 1, 2}
