# SPDX-License-Identifier: Apache-2.0
"""The experiments' training parts, and one whole experiment in little."""

import keras
import numpy as np
import pytest

from tfrewprune.experiments import (
    datasets,
    precision,
    resnet8,
    resnet20,
    rows,
    training,
)
from tfrewprune.experiments.experiment import count_weights
from tfrewprune.experiments.lenet5 import ROWS, LeNet5, lenet5, narrowed, of_weights
from tfrewprune.experiments.runs import RunLog
from tfrewprune.shrinking import shrink


def random_images(count, size=8):
    random = np.random.default_rng(0)
    images = random.random((count, size, size, 3), np.float32)
    labels = np.arange(count)
    empty = images[:0], labels[:0]
    return datasets.ImageData(images, labels, *empty, *empty)


def test_crops_without_margin_are_the_images_or_their_mirror_images():
    data = random_images(training.BATCH_SIZE + 30)
    batches = training.crops(data, seed=1, margin=0, flips=True)
    seen = []
    flipped = 0
    for index in range(len(batches)):
        for crop, label in zip(*batches[index], strict=True):
            image = data.x_train[label]
            mirrored = not np.array_equal(crop, image)
            np.testing.assert_array_equal(crop, image[:, ::-1] if mirrored else image)
            flipped += mirrored
            seen.append(label)
    assert sorted(seen) == list(range(len(data.x_train)))  # each once an epoch
    assert 0.3 < flipped / len(seen) < 0.7


def test_crops_move_the_image_by_at_most_the_margin():
    data = random_images(training.BATCH_SIZE)
    crops, labels = training.crops(data, seed=2, margin=2, flips=True)[0]
    shifts = set()
    for crop, label in zip(crops, labels, strict=True):
        wide = np.pad(data.x_train[label], ((2, 2), (2, 2), (0, 0)), mode="reflect")
        found = [
            (top, left)
            for top in range(5)
            for left in range(5)
            for image in (crop, crop[:, ::-1])
            if np.array_equal(image, wide[top : top + 8, left : left + 8])
        ]
        assert found
        shifts.update(found)
    assert len(shifts) > 15  # of 25


def test_the_order_of_the_crops_follows_the_seed():
    data = random_images(40)
    first, again, other = (
        training.crops(data, seed, margin=4)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1].tolist() != other[1].tolist()


@pytest.mark.parametrize("experiment", [LeNet5, resnet8.ResNet8, resnet20.ResNet20])
def test_every_row_of_a_table_has_a_name_and_a_recipe_of_its_own(experiment):
    table = ROWS if experiment is LeNet5 else experiment.rows
    assert len(set(experiment.methods)) == len(experiment.methods) > len(table)
    for row in table:
        if row.method == "tfmot":
            continue
        recipe = row.recipe(["a", "b"], row.rate, 3, 5)
        assert recipe.rate == row.rate and recipe.strength is None
        assert {rule.rate for rule in recipe.rules} == {None}  # none is inherited
        spent = recipe.retrain_epochs
        spent += recipe.reweighted_epochs if recipe.method.trains else 0
        assert spent == 8  # equal budgets


def sparse_lenet5():
    """A LeNet-5 of few weights, with units of no input and units of no output."""
    random = np.random.default_rng(0)
    weights = lenet5().get_weights()
    for layer, share in enumerate((0.1, 0.01, 0.0005, 0.05)):
        kernel, bias = weights[2 * layer : 2 * layer + 2]
        kernel *= random.random(kernel.shape) < share
        bias += 0.1 * random.standard_normal(bias.shape)
    return of_weights(weights)


def test_a_network_without_its_dead_units_computes_the_same():
    model = sparse_lenet5()
    weights = model.get_weights()
    x = np.random.default_rng(1).random((20, 28, 28, 1), np.float32)
    expected = model.predict(x, verbose=0)
    cleaned = shrink(model, keep_shapes=True).model.get_weights()
    small = shrink(model).model.get_weights()
    for left in (cleaned, small):
        found = of_weights(left).predict(x, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    kept = [sum(map(np.count_nonzero, w[::2])) for w in (weights, cleaned, small)]
    assert kept[0] > kept[1] == kept[2] > 0
    assert small[4].shape[1] < 500 and small[0].shape[-1] <= 20
    for bias, following in zip(small[1:6:2], small[2::2], strict=True):
        # Each unit that is left is read by somebody.
        read = following.reshape(-1, len(bias), following.shape[-1]).any(axis=(0, 2))
        assert read.all()


def test_a_network_without_any_path_keeps_its_constant_output():
    weights = lenet5((2, 3, 4)).get_weights()
    weights[4][:] = 0
    weights[5][:], weights[7][:] = 1, 2
    expected = 2 + weights[6].sum(axis=0)
    x = np.ones((1, 28, 28, 1), np.float32)
    found = shrink(of_weights(weights)).model.predict(x, verbose=0)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)


def test_the_first_cut_leaves_the_filters_of_largest_norm():
    model = lenet5()
    weights = model.get_weights()
    weights[0][..., :3] *= 10
    left = narrowed(of_weights(weights)).get_weights()
    assert [left[2 * layer].shape[-1] for layer in range(4)] == [12, 28, 128, 10]
    np.testing.assert_array_equal(left[0][..., :3], weights[0][..., :3])


@pytest.mark.parametrize("name", ["gradual-fisher", "reweighted"])
def test_resnet8_recipe_prunes_all_kernels_together_to_the_rate_of_the_row(name):
    try:
        model = resnet8.pretrained()
    except FileNotFoundError as reason:
        pytest.skip(str(reason))
    import tfrewprune

    before = count_weights(model)
    recipe = resnet8.recipe(rows.Row("block-16x1", name, 4.0), resnet8.Plan(), model)
    tfrewprune.hard_prune(model, recipe)
    after = count_weights(model)
    assert before["weights"] == after["weights"] == 77_360
    assert before["rate"] == 1
    assert 4 <= after["rate"] < 4.1
    kept = after["kept_in_layer"]
    assert kept["conv2d"] == 432 and kept["dense"] == 640  # both left dense


def test_resnet20_is_the_published_one_and_leaves_first_and_last_layer_dense():
    import tfrewprune

    model = resnet20.resnet20()
    before = count_weights(model)
    assert before["weights"] == 270_896  # 268,336 and two projections
    image = np.full((1, 32, 32, 3), 128, np.float32)
    assert model.predict(image, verbose=0).sum() == pytest.approx(1, abs=1e-5)
    row = rows.Row("block-16x1", "gradual-fisher", 4.0)
    recipe = resnet8.recipe(row, resnet20.Plan(), model)
    tfrewprune.hard_prune(model, recipe)
    after = count_weights(model)
    assert 4 <= after["rate"] < 4.1
    kept, whole = after["kept_in_layer"], before["kept_in_layer"]
    for name in ("first", "classes"):
        assert kept[name] == whole[name]


@pytest.fixture
def stripes(tmp_path, monkeypatch):
    """Images of the shape of MNIST whose class is where a bright stripe lies."""
    random = np.random.default_rng(0)

    def draw(count):
        labels = random.integers(0, 10, count).astype(np.uint8)
        images = random.integers(0, 60, (count, 28, 28), np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] = 255
        return images, labels

    x, y = draw(5000 + 2560)
    x_test, y_test = draw(500)
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    monkeypatch.setenv("TFREWPRUNE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_quick_run_trains_prunes_converts_and_resumes(stripes, capsys):
    try:
        import tfrewprune

        tfrewprune.delegate_path()
    except (OSError, RuntimeError) as reason:
        pytest.skip(f"no delegate library: {reason}")
    work = stripes / "work"
    name = "gradual-fisher_single-weights_330x"
    arguments = ["--quick", "--work", str(work), "--methods", "dense"]
    LeNet5.main([*arguments, "--stages", "train"])
    start = (work / "start-seed0.keras").read_bytes()
    arguments.append(name)
    LeNet5.main(arguments)
    assert "LeNet-5 on MNIST" in capsys.readouterr().out

    log = RunLog(work / "results.jsonl")
    found = {(run["method"], run["stage"]): run for run in log.records()}
    assert len(found) == len(log.records()) == 4
    assert (work / "start-seed0.keras").read_bytes() == start  # shared, not retrained

    dense, trained = found["dense", "train"], found[name, "train"]
    assert dense["weights"] == trained["weights"] == 430_500
    assert dense["rate"] == pytest.approx(1, abs=1e-3)
    assert trained["row"]["structure"] == "single-weights"
    assert trained["recipe"]["method"]["score"] == "fisher"
    assert trained["kept"] == pytest.approx(430_500 / trained["rate"])
    assert trained["rate"] >= 330

    measured = found[name, "measure"]
    assert measured["litert_accuracy"] == pytest.approx(
        measured["test_accuracy"], abs=0.004
    )
    assert measured["dense_bytes"] < found["dense", "measure"]["dense_bytes"] / 5
    assert found["dense", "measure"]["test_accuracy"] > 0.5

    LeNet5.main(arguments)
    assert len(log.records()) == 4


def small_network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x))
    return keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))


def test_the_model_for_training_learns_what_the_plain_model_learns():
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 6, 6, 3)).astype(np.float32)
    y = random.integers(0, 4, 64)
    plain = small_network()
    fast = precision.for_training(plain)
    for model in (plain, fast):
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    back = precision.for_deployment(fast)
    # bfloat16 has 8 bits of mantissa; the weights moved by far more than that.
    start = small_network().get_weights()
    for before, expected, learned in zip(
        start, plain.get_weights(), back.get_weights(), strict=True
    ):
        moved = np.abs(expected - before).max()
        assert moved > 0
        assert np.abs(learned - expected).max() < 0.15 * moved + 1e-4


def test_the_model_for_deployment_is_plain_keras_in_float32():
    plain = small_network()
    back = precision.for_deployment(precision.for_training(plain))
    for layer, original in zip(back.layers[1:], plain.layers[1:], strict=True):
        assert (type(layer), layer.name) == (type(original), original.name)
    assert {layer.compute_dtype for layer in back.layers} == {"float32"}
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(back.predict(x), plain.predict(x))
