# SPDX-License-Identifier: Apache-2.0
"""Loaders, records, tables and command line of the experiments; no training."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tfrewprune.experiments import datasets, harmful, one_shot_vww, runs, tables
from tfrewprune.experiments.lenet5 import LeNet5
from tfrewprune.experiments.resnet8 import ResNet8

BLOCK_ROW = "gradual-fisher_block-16x1_58x"
QUARTER_ROW = "gradual-fisher_block-16x1_4x"


def write_mnist(path, train=5008, test=20):
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (train, 28, 28), np.uint8),
        "y_train": random.integers(0, 10, train).astype(np.uint8),
        "x_test": random.integers(0, 256, (test, 28, 28), np.uint8),
        "y_test": random.integers(0, 10, test).astype(np.uint8),
    }
    np.savez(path, **arrays)
    return arrays


def test_mnist_validation_part_is_the_last_5000_training_images(tmp_path):
    arrays = write_mnist(tmp_path / "mnist.npz")
    data = datasets.mnist(tmp_path / "mnist.npz")
    assert data.x_train.shape == (8, 28, 28, 1)
    assert data.x_validation.shape == (5000, 28, 28, 1)
    assert data.x_train.dtype == np.float32
    together = np.concatenate([data.x_train, data.x_validation])[..., 0]
    np.testing.assert_allclose(together * 255.0, arrays["x_train"], atol=1e-4)
    np.testing.assert_array_equal(
        np.concatenate([data.y_train, data.y_validation]), arrays["y_train"]
    )
    np.testing.assert_array_equal(data.y_test, arrays["y_test"])


def encode_cifar10(images):
    """The storage of ``cifar10.npz``, written independently of its loader."""
    red, green, blue = (images[..., channel].astype(int) for channel in range(3))
    planes = np.stack([red - green, green, blue - green], axis=1)
    for axis in (2, 3):
        planes = np.diff(planes, axis=axis, prepend=0)
    return (planes % 256).astype(np.uint8)


def test_cifar10_decodes_to_the_exact_pixels(tmp_path):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (5004, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, 5004).astype(np.uint8)
    np.savez(
        tmp_path / "cifar10.npz",
        r_train=encode_cifar10(images),
        y_train=labels,
        r_test=encode_cifar10(images[:3]),
        y_test=labels[:3],
    )
    data = datasets.cifar10(tmp_path / "cifar10.npz")
    np.testing.assert_array_equal(data.x_train, images[:4].astype(np.float32))
    np.testing.assert_array_equal(data.x_validation, images[4:].astype(np.float32))
    np.testing.assert_array_equal(data.x_test, images[:3].astype(np.float32))
    np.testing.assert_array_equal(data.y_validation, labels[4:])


def test_head_keeps_all_where_none_is_asked(tmp_path):
    write_mnist(tmp_path / "mnist.npz")
    part = datasets.mnist(tmp_path / "mnist.npz").head(4, None, 5)
    assert (len(part.x_train), len(part.y_train)) == (4, 4)
    assert (len(part.x_validation), len(part.y_validation)) == (5000, 5000)
    assert (len(part.x_test), len(part.y_test)) == (5, 5)


def test_data_folder_is_named_by_the_environment(tmp_path, monkeypatch):
    write_mnist(tmp_path / "mnist.npz")
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path))
    assert datasets.data_path("mnist.npz") == tmp_path / "mnist.npz"
    with pytest.raises(FileNotFoundError, match="'cifar10.npz' not found.*TFREWPRUNE"):
        datasets.cifar10()


def test_models_lie_beside_the_data_or_where_the_environment_says(
    tmp_path, monkeypatch
):
    (tmp_path / "data").mkdir()
    (tmp_path / "models" / "a").mkdir(parents=True)
    (tmp_path / "models" / "a" / "model.h5").write_bytes(b"")
    monkeypatch.delenv("TFREWPRUNE_MODELS", raising=False)
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path / "data"))
    expected = tmp_path / "models" / "a" / "model.h5"
    assert datasets.model_path("a/model.h5") == expected
    monkeypatch.setenv("TFREWPRUNE_MODELS", str(tmp_path / "models" / "a"))
    assert datasets.model_path("model.h5") == expected
    with pytest.raises(FileNotFoundError, match="'b.h5' not found.*TFREWPRUNE_MODELS"):
        datasets.model_path("b.h5")


def test_the_real_data_sets_are_the_known_ones(tmp_path):
    try:
        digits, photographs = datasets.mnist(), datasets.data_path("cifar10.npz")
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    assert len(digits.x_train) == 55_000 and len(digits.x_test) == 10_000
    assert np.bincount(digits.y_test).tolist() == [
        *(980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009)
    ]
    first = tmp_path / "first.npz"  # decoding all of them takes half a minute
    with np.load(photographs) as archive:
        np.savez(first, **{key: archive[key][:6000] for key in archive})
    images = datasets.cifar10(first)
    assert images.x_train[0, 0, 0].tolist() == [59, 62, 63]
    assert images.y_train[:5].tolist() == [6, 9, 9, 4, 1]
    means = images.x_train.mean((0, 1, 2), dtype=np.float64) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=2e-2)


def test_a_run_log_finds_the_newest_record_of_a_key(tmp_path):
    log = runs.RunLog(tmp_path / "deep" / "runs.jsonl")
    assert log.records() == [] and log.find(method="dense") is None
    log.append({"method": "dense", "seed": 0, "figure": 1})
    log.append({"method": "dense", "seed": 1, "figure": 2})
    log.append({"method": "dense", "seed": 0, "figure": 3})
    assert log.find(method="dense", seed=0)["figure"] == 3
    assert log.find(method="dense", seed=2) is None
    assert log.find(method="dense", missing=1) is None
    assert len(log.records()) == 3


def test_a_run_log_takes_appends_from_many_writers(tmp_path):
    path = tmp_path / "runs.jsonl"

    def write(writer):
        for number in range(50):
            runs.RunLog(path).append({"id": [writer, number], "text": "x" * 2000})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {tuple(record["id"]) for record in runs.RunLog(path).records()}
    assert found == {(writer, number) for writer in range(4) for number in range(50)}


def test_a_damaged_run_log_names_the_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"method": "dense"}\n{"method": \n')
    with pytest.raises(ValueError, match=r"runs\.jsonl, line 2: expected a JSON"):
        runs.RunLog(path).records()
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.RunLog(path).append({"figure": float("nan")})


def test_the_environment_names_commit_command_and_machine():
    found = runs.environment()
    json.dumps(found)
    assert found["command"].startswith("python ")
    assert found["machine"]["cores"] >= 1 and found["machine"]["processor"]
    assert found["versions"]["numpy"] == np.__version__


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=9))
def test_mean_and_spread_are_numpys(values):
    mean, spread = runs.mean_and_spread(values)
    assert mean == pytest.approx(np.mean(values), abs=1e-9)
    assert spread == pytest.approx(np.std(values, ddof=1), abs=1e-9)


def test_mean_and_spread_of_one_value_and_of_none():
    assert runs.mean_and_spread([3.0]) == (3.0, 0.0)
    with pytest.raises(ValueError, match="at least one value, got none"):
        runs.mean_and_spread([])


def record(method, seed, stage, **figures):
    return {"method": method, "seed": seed, "stage": stage, **figures}


def timing(dense, packed):
    return {
        "dense": {"median": dense},
        "packed": {"median": packed},
        "ratio": {"median": dense / packed},
    }


@pytest.fixture
def finished(tmp_path):
    log = runs.RunLog(tmp_path / "runs.jsonl")
    for seed, accuracy in ((0, 0.990), (1, 0.994)):
        log.append(record("dense", seed, "train", validation_accuracy=0.5, rate=1.0))
        log.append(record("dense", seed, "measure", test_accuracy=accuracy, latency=[]))
    log.append(
        record(
            BLOCK_ROW,
            0,
            "train",
            validation_accuracy=0.99,
            rate=32.0,
        )
    )
    log.append(
        record(
            BLOCK_ROW,
            0,
            "measure",
            test_accuracy=0.985,
            litert_accuracy=0.985,
            packed_bytes=1000,
            latency=[timing(2e-4, 5e-5)],
        )
    )
    return log


def test_a_summary_averages_over_seeds(finished):
    summary = tables.summarize(finished)
    dense, ours = summary["dense"], summary[BLOCK_ROW]
    assert dense["seeds"] == 2
    assert dense["test_accuracy"] == pytest.approx(0.992)
    assert dense["test_accuracy_spread"] == pytest.approx(0.004 / 2**0.5)
    assert "speedup" not in dense and "litert_accuracy" not in dense
    assert ours["packed_ms"] == pytest.approx(0.05)
    assert ours["speedup"] == pytest.approx(4.0)


def test_a_newer_record_takes_the_place_of_an_older_one(finished):
    finished.append(record("dense", 1, "measure", test_accuracy=0.998, latency=[]))
    summary = tables.summarize(finished)
    assert summary["dense"]["seeds"] == 2
    assert summary["dense"]["test_accuracy"] == pytest.approx(0.994)


def printed(log, experiment):
    console = Console(width=150, record=True, file=open("/dev/null", "w"))
    made = experiment(log, log.path.parent, experiment.full_plan)
    tables.show(made.title, made.methods, log, made.goals, console)
    return console.export_text()


def test_the_table_shows_every_method_and_says_which_goal_is_missed(finished):
    text = printed(finished, LeNet5)
    assert "99.20 ± 0.28" in text and "32.0x" in text and "4.0x" in text
    assert "1,000" in text
    assert "MISSED   block-16x1: rate >= 60x, test accuracy >= 99.0%" in text
    assert "tfmot" not in text  # nothing of it has run
    written = json.loads(finished.path.with_suffix(".json").read_text())
    assert written["methods"] == tables.summarize(finished)
    assert list(written["goals"].values()) == [False]


def test_an_experiment_without_runs_says_so(tmp_path):
    text = printed(runs.RunLog(tmp_path / "runs.jsonl"), ResNet8)
    assert "no finished run in" in text


@pytest.mark.parametrize(
    ("rate", "lost", "reached"),
    [(4.0, 0.0099, True), (4.0, 0.0101, False), (3.9, 0.0, False)],
)
def test_resnet8_goal_needs_the_rate_and_the_accuracy(tmp_path, rate, lost, reached):
    log = runs.RunLog(tmp_path / "runs.jsonl")
    log.append(record("pretrained", 0, "measure", test_accuracy=0.87))
    assert ResNet8(log, tmp_path, None).goals(tables.summarize(log)) == []
    log.append(record(QUARTER_ROW, 0, "train", rate=rate))
    log.append(record(QUARTER_ROW, 0, "measure", test_accuracy=0.87 - lost))
    ((_, found),) = ResNet8(log, tmp_path, None).goals(tables.summarize(log))
    assert found is reached


@pytest.mark.parametrize("experiment", [LeNet5, ResNet8])
def test_the_command_line_refuses_unknown_methods(experiment, capsys):
    with pytest.raises(SystemExit) as stopped:
        experiment.main(["--methods", "magic"])
    assert stopped.value.code == 2
    assert "invalid choice: 'magic'" in capsys.readouterr().err


def test_only_the_table_needs_neither_data_nor_training(
    finished, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path / "nowhere"))
    LeNet5.main(["--stages", "table", "--results", str(finished.path)])
    assert "99.20" in capsys.readouterr().out


def test_a_recorded_run_is_not_repeated_and_an_unknown_stage_is_refused(finished):
    experiment = LeNet5(finished, finished.path.parent, LeNet5.full_plan)
    before = finished.path.read_bytes()
    experiment.run("train", "dense", 0, data=None)
    experiment.run("measure", "dense", 1, data=None)
    assert finished.path.read_bytes() == before
    with pytest.raises(ValueError, match="'train' or 'measure', got 'table'"):
        experiment.run("table", "dense", 0, data=None)


def test_measuring_before_training_says_what_is_missing(finished):
    experiment = LeNet5(finished, finished.path.parent, LeNet5.full_plan)
    with pytest.raises(FileNotFoundError, match="run stage 'train' of dense, seed 7"):
        experiment.run("measure", "dense", 7, data=None)


def test_squares_of_a_photograph_are_parts_of_it_and_mirrored_half_of_the_time():
    rows, columns = np.mgrid[:150, :140]
    photograph = np.stack([rows, columns, rows + columns], axis=-1).astype(np.int64)
    squares = one_shot_vww.cut_out(photograph, 40, np.random.default_rng(0))
    assert squares.shape == (40, 96, 96, 3)
    mirrored = 0
    for square in squares:
        down, across = square[:, 0, 0], square[0, :, 1]
        step = np.sign(across[-1] - across[0])
        mirrored += step < 0
        assert np.all(np.diff(down) >= 1)
        assert np.all(step * np.diff(across) >= 1)
        extent = down[-1] - down[0] + 1
        assert 99 <= extent <= 140
        assert abs(abs(across[-1] - across[0]) + 1 - extent) <= 1  # squares
        np.testing.assert_array_equal(square[..., 2], square[..., 0] + square[..., 1])
    assert 10 < mirrored < 30


def harmful_records(structure, rate, validation, test, seed=0):
    method = f"gradual-fisher_{structure}_{rate}x"
    common = {"method": method, "seed": seed}
    timing = {
        "dense": {"median": 4e-5},
        "packed": {"median": 1e-5},
        "ratio": {"median": 4.0},
    }
    sizes = {"dense": 900, "payload": 10, "gap": 50, "block": 40, "packed": None}
    return [
        {**common, "stage": "train", "rate": rate, "validation_accuracy": validation},
        {
            **common,
            "stage": "measure",
            "test_accuracy": test,
            "packed_bytes": 1000 * rate,
            "latency": [timing],
            "storage": {"8": sizes, "4": {**sizes, "gap": 30}},
        },
    ]


def test_the_highest_rate_that_is_accurate_enough_stands_for_its_structure(tmp_path):
    log = runs.RunLog(tmp_path / "harmful.jsonl")
    for row in (
        ("single-weights", 100, 0.992, 0.991),
        ("single-weights", 150, 0.99, 0.984),  # told by validation, not by the test
        ("single-weights", 220, 0.989, 0.995),
        ("block-16x1", 58, 0.991, 0.992),
        ("filters-and-columns", 40, 0.98, 0.98),
    ):
        for record in harmful_records(*row):
            log.append(record)
    chosen = harmful.at_equal_accuracy(log)
    assert [row["structure"] for row in chosen] == ["single-weights", "block-16x1"]
    assert [row["rate"] for row in chosen] == [150, 58]
    assert chosen[0]["packed_ms"] == pytest.approx(0.01)
    console = Console(width=150, record=True)
    console.print(harmful.build(chosen))
    text = console.export_text()
    # The smallest that tells where the weights are; the payload alone does not.
    assert "40 (block)" in text and "30 (gap)" in text and "10 (" not in text
    work = tmp_path / "work"
    experiment = harmful.Harmful(log, work, harmful.Harmful.quick_plan)
    experiment.show()
    document = json.loads((tmp_path / "harmful.json").read_text())
    assert document["at_equal_accuracy"] == chosen
