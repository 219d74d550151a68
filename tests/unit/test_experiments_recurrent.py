# SPDX-License-Identifier: Apache-2.0
"""The speech and digits experiments in little, from data to the table."""

import json

import keras
import numpy as np
import pytest

import tfrewprune
from tfrewprune.experiments import gates, keywords, phones, rows, speech
from tfrewprune.experiments.digits import Digits
from tfrewprune.experiments.runs import RunLog
from tfrewprune.experiments.speech import ROWS, Plan, Speech, network, recipe
from tfrewprune.experiments.speech_wide import SpeechWide

layers = keras.layers


def test_every_row_has_a_name_and_all_methods_the_same_epochs():
    assert len(set(Speech.methods)) == 2 + len(ROWS) == 34
    for row in ROWS:
        steps = recipe(row, Plan()).steps
        spent = [(step.reweighted_epochs, step.retrain_epochs) for step in steps]
        assert np.sum(spent, axis=0).tolist() == list(Plan().epochs[row.length])
        last = steps[-1]
        assert {last.rate, *(rule.rate for rule in last.rules)} - {None} == {row.rate}


@pytest.mark.parametrize("name", ["reweighted", "gradual", "admm"])
def test_the_rate_of_a_row_is_that_of_its_gate_matrices(name):
    keras.utils.set_random_seed(0)
    plan = Plan(units=32)
    model = network(plan, features=12, count=5)
    before = gates.count_weights(model, speech.LAYERS)
    assert before["weights"] == before["kept"] == 3 * 32 * (12 + 32 + 32 + 32)
    structure = "bsp" if name == "admm" else "block-16x1"
    row = rows.Row(structure, name, 10)
    for step in recipe(row, plan).steps:
        tfrewprune.hard_prune(model, step)
    after = gates.count_weights(model, speech.LAYERS)
    assert 10 <= after["rate"] < 11.5  # groups are few here: rounded down
    assert np.count_nonzero(model.get_layer("phone").kernel) == 32 * 5  # stays dense


def test_a_network_of_fixed_length_computes_the_same():
    keras.utils.set_random_seed(0)
    plan = Plan(units=16)
    model = network(plan, features=6, count=4)
    fixed = network(plan, features=6, count=4, steps=9, batch=1)
    fixed.set_weights(model.get_weights())
    x = np.random.default_rng(0).standard_normal((1, 9, 6)).astype("f4")
    np.testing.assert_allclose(fixed(x), model(x), atol=1e-6)


@pytest.mark.parametrize("count", [5, 30])
def test_scores_of_sentences_do_not_depend_on_those_beside_them(count):
    keras.utils.set_random_seed(0)
    model = network(Plan(units=8), features=6, count=4)
    random = np.random.default_rng(1)
    sentences = [random.standard_normal((n, 2)).astype("f4") for n in (count, 17)]
    together = phones.keras_scores(model, sentences)
    for sentence, found in zip(sentences, together, strict=True):
        (alone,) = phones.keras_scores(model, [sentence])
        assert len(found) == -(-len(sentence) // phones.STACK)
        np.testing.assert_allclose(found, alone, atol=1e-5)


@pytest.fixture
def sentences(tmp_path, monkeypatch):
    """Sentences in the form of ``ru_phones.npz`` whose phones are easy to tell."""
    random = np.random.default_rng(0)
    said = [np.repeat(random.integers(0, 4, 12), 5) for _ in range(20)]
    labels = np.concatenate(said)
    codes = (60 * labels[:, None] + random.integers(0, 30, (len(labels), 4))) % 256
    codes = codes.astype(np.uint8)
    np.savez(
        tmp_path / "ru_phones.npz",
        features_delta=np.diff(codes, axis=0, prepend=np.zeros((1, 4), np.uint8)),
        labels=labels.astype(np.uint8),
        offsets=np.cumsum([0, *map(len, said)]),
        is_test=np.arange(20) % 10 == 4,
        phones=np.array(["a", "b", "pau", "t"]),
    )
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def recordings(tmp_path, monkeypatch):
    """Tones in the form of ``fsdd.npz``, a pitch for each digit."""
    take, label = (part.ravel() for part in np.mgrid[:18, :10])
    times = np.arange(2400) / keywords.RATE
    sounds = [
        (8000 * np.sin(2 * np.pi * (250 + 250 * digit) * times)).astype(np.int16)
        for digit in label
    ]
    np.savez(
        tmp_path / "fsdd.npz",
        audio=np.concatenate(sounds),
        offsets=np.arange(len(sounds) + 1) * 2400,
        label=label,
        take=take,
    )
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path))
    return tmp_path


def run_twice(experiment, folder, methods, capsys):
    """Records of a quick run, by method and stage, and what it printed."""
    words = ["--quick", "--work", str(folder / "work"), "--methods", *methods]
    experiment.main(words)
    printed = capsys.readouterr().out
    records = RunLog(folder / "work" / "results.jsonl").records()
    experiment.main(words)  # finds all of it done
    assert len(RunLog(folder / "work" / "results.jsonl").records()) == len(records)
    found = {(run["method"], run["stage"]): run for run in records}
    assert len(found) == len(records) == len(experiment.stages) * len(methods)
    return found, printed


@pytest.mark.slow
def test_a_quick_run_of_speech_goes_from_sentences_to_the_table(sentences, capsys):
    name = "admm_bsp_10x"
    found, printed = run_twice(SpeechWide, sentences, ["dense", name], capsys)
    assert "RTMobile, TIMIT 28.91x" in printed and "decoded %" in printed
    trained, measured = found[name, "train"], found[name, "measure"]
    assert trained["rate"] == pytest.approx(10, rel=0.05)
    assert found["dense", "train"]["rate"] == pytest.approx(1, abs=0.01)
    for score in Speech.scored:  # streamed in LiteRT as whole sentences in Keras
        assert measured[f"litert_{score}"] == pytest.approx(
            measured[f"test_{score}"], abs=0.03
        )
    assert measured["packed_bytes"] < measured["dense_bytes"] / 2
    (timing,) = found[name, "time"]["latency"]
    assert timing["dense"]["median"] > 0 and timing["tensorflow_ratio"]["median"] > 0
    summary = json.loads((sentences / "work" / "results.json").read_text())
    assert {"dense", name} == set(summary["methods"])


@pytest.mark.slow
def test_a_quick_run_of_digits_goes_from_sound_to_the_table(recordings, capsys):
    name = "gradual_block-16x1_10x"
    found, printed = run_twice(Digits, recordings, ["dense", name], capsys)
    measured = found[name, "measure"]
    assert measured["litert_accuracy"] == measured["test_accuracy"]
    assert found[name, "train"]["rate"] == pytest.approx(10, rel=0.05)
    assert measured["real_time_factor"] > 20  # hundreds on an idle machine
    assert "faster than real time" in printed
