# SPDX-License-Identifier: Apache-2.0
"""Second moments, least squares and group OBS against brute force."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune.calibration.columns import Geometry
from tfrewprune.calibration.inputs import (
    InputSpec,
    calibration_inputs,
    check_outputs,
)
from tfrewprune.calibration.keras_inputs import input_specs
from tfrewprune.calibration.problem import DAMPING, Problem, damping_for
from tfrewprune.calibration.selection import _removal, prune
from tfrewprune.structures import (
    Balanced,
    Block,
    BlockRowColumn,
    Channel,
    Column,
    Filter,
    Kernel,
    KernelGroup,
    KernelShape,
    NofM,
    Pattern,
    Punched,
    RowColumn,
    Structure,
    Unstructured,
)


def correlated(samples: int, columns: int, seed: int = 0) -> np.ndarray:
    """Inputs whose columns can stand in for one another."""
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((columns, columns)) * 0.4 + np.eye(columns)
    return (random.standard_normal((samples, columns)) @ mixing + 0.5).astype("float32")


def problem_of(shape: KernelShape, seed: int = 0, **options) -> Problem:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((shape.columns, shape.outputs))
    x = correlated(600, shape.columns, seed)
    return Problem(weights, [(x, x @ weights)], **options)


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    size=st.tuples(st.integers(8, 11), st.integers(8, 11)),
    strides=st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 2)]),
    dilations=st.sampled_from([(1, 1), (2, 2)]),
    padding=st.sampled_from(["valid", "same"]),
)
def test_columns_times_kernel_is_the_convolution(
    kernel, size, strides, dilations, padding
):
    if max(strides) > 1 and max(dilations) > 1:
        strides = (1, 1)  # Keras has no convolution with both
    random = np.random.default_rng(0)
    x = random.standard_normal((2, *size, 3)).astype("float32")
    w = random.standard_normal((*kernel, 3, 4)).astype("float32")
    if padding == "valid" and any(
        (k - 1) * d >= n for k, d, n in zip(kernel, dilations, size, strict=True)
    ):
        return
    expected = keras.ops.conv(
        x, w, strides=strides, padding=padding, dilation_rate=dilations
    )
    expected = keras.ops.convert_to_numpy(expected)
    geometry = Geometry(kernel, strides, dilations, padding)
    found = geometry.columns(x) @ w.reshape(-1, 4)
    np.testing.assert_allclose(found, expected.reshape(-1, 4), atol=1e-4)
    assert geometry.positions(x.shape) == len(found)
    some = np.array([0, len(found) - 1])
    np.testing.assert_array_equal(geometry.columns(x, some), geometry.columns(x)[some])


def test_causal_columns_see_no_later_input():
    x = np.arange(5, dtype="float32").reshape(1, 5, 1)
    columns = Geometry((2,), (1,), (2,), "causal").columns(x)
    assert columns.tolist() == [[0, 0], [0, 1], [0, 2], [1, 3], [2, 4]]


@pytest.mark.parametrize("centred", [True, False])
def test_solution_is_the_least_squares_one_with_its_constant(centred):
    random = np.random.default_rng(1)
    weights = random.standard_normal((12, 5))
    x = correlated(300, 12)
    y = (x + 0.1 * random.standard_normal(x.shape)) @ weights + 3.0
    # In two batches: moments add up.
    batches = [(x[:200], y[:200]), (x[200:], y[200:])]
    problem = Problem(weights, batches, centred=centred, damping=0)
    keep = np.random.default_rng(2).random((12, 5)) < 0.5
    solved = problem.solve(keep)
    assert (solved[~keep] == 0).all()
    for output in range(5):
        design = x[:, keep[:, output]].astype(float)
        if centred:
            design = np.column_stack([design, np.ones(len(x))])
        expected, *_ = np.linalg.lstsq(design, y[:, output], rcond=None)
        found = solved[keep[:, output], output]
        np.testing.assert_allclose(found, expected[: len(found)], atol=1e-4)
    shift = problem.shift(solved)
    assert (shift is not None) == centred
    constant = shift if centred else 0
    residual = np.square(x @ solved + constant - y).sum()
    around = np.square(y - y.mean(0) if centred else y).sum()
    assert problem.loss(solved) == pytest.approx(residual / around, rel=1e-3)


@pytest.mark.parametrize(
    "structure",
    [Block(4, 1), Block(4, 2), Filter(), Channel(), Kernel(), Unstructured()],
    ids=str,
)
def test_cost_of_a_group_is_what_removing_it_adds_after_the_refit(structure):
    shape = KernelShape(4, 3, 6)
    problem = problem_of(shape)
    keep = np.ones((shape.columns, shape.outputs), bool)
    kernel, energy = _removal(problem, structure, shape, keep)
    costs = structure.sums(energy.reshape(shape), shape)

    def damped(weights: np.ndarray) -> float:
        return float(
            (weights * (problem.hessian @ weights)).sum()
            - 2 * (weights * problem.target).sum()
        )

    for group in [np.unravel_index(i, costs.shape) for i in (0, costs.size - 1)]:
        groups = np.ones(costs.shape, bool)
        groups[group] = False
        left = structure.mask(groups, shape).reshape(keep.shape)
        added = damped(problem.solve(left)) - damped(kernel)
        assert costs[group] == pytest.approx(added, rel=1e-6)


STRUCTURES = [
    *(Block(4, 1), Block(8, 4), Filter(), Channel(), Column(), Kernel()),
    *(KernelGroup(4, 2), Pattern(4, rows=4), Punched(4, 2), RowColumn()),
    *(BlockRowColumn(4, 8), Balanced(Block(4, 1)), NofM(2, 4), Unstructured()),
]


@pytest.mark.parametrize("structure", STRUCTURES, ids=str)
def test_every_structure_is_kept_to(structure: Structure):
    shape = KernelShape(9, 4, 8)
    problem = problem_of(shape)
    structure = structure.fitted(problem.weights.reshape(shape))
    allowed = shape.weights / 2
    keep, levels = prune(problem, structure, shape, allowed)
    assert 0 < keep.sum() <= allowed
    mask = keep.reshape(shape)
    survivors = structure.surviving_groups(mask.astype(np.float32))
    assert (structure.mask(survivors, shape) == mask).all()
    assert [level.kept for level in levels] == sorted(
        {level.kept for level in levels}, reverse=True
    )
    assert levels[-1].loss == pytest.approx(problem.loss(problem.solve(keep)))
    assert (levels[-1].keep(shape) == keep).all()


@pytest.mark.parametrize("structure", [Block(4, 1), Kernel(), Unstructured()], ids=str)
def test_less_is_lost_than_by_magnitude_and_the_same_refit(structure):
    shape, found = KernelShape(4, 8, 8), {"ours": 0.0, "magnitude": 0.0}
    for seed in range(3):
        problem = problem_of(shape, seed)
        kernel = problem.weights.reshape(shape)
        keep, _ = prune(problem, structure, shape, shape.weights / 2)
        found["ours"] += problem.loss(problem.solve(keep))
        groups = structure.choose(np.square(kernel), shape.weights / 2)
        by_size = structure.mask(groups, shape).reshape(keep.shape)
        found["magnitude"] += problem.loss(problem.solve(by_size))
    assert found["ours"] < 0.9 * found["magnitude"]


def test_zero_groups_stay_zero():
    shape = KernelShape(1, 16, 8)
    random = np.random.default_rng(0)
    weights = random.standard_normal((16, 8))
    weights[3, :4] = 0
    x = correlated(100, 16)
    problem = Problem(weights, [(x, x @ weights)])
    keep, _ = prune(problem, Block(4, 1), shape, 120)
    assert not keep[3, :4].any()


def test_dead_and_few_samples_are_remarked():
    weights = np.ones((16, 4))
    still = np.ones((50, 16), np.float32)
    dead = Problem(weights, [(still, still @ weights)])
    assert "do not vary" in dead.remark
    keep, _ = prune(dead, Block(4, 1), KernelShape(1, 16, 4), 32)
    np.testing.assert_allclose(dead.solve(keep)[keep], 1)
    few = correlated(10, 16)
    assert (
        "10 samples for 16 columns" in Problem(weights, [(few, few @ weights)]).remark
    )
    many = correlated(20, 16)
    assert Problem(weights, [(many, many @ weights)]).remark is None


SPEC = InputSpec("image", (None, 4, 4, 3), np.dtype("float32"))
GOOD = np.random.default_rng(0).random((10, 4, 4, 3))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "Received: None"),
        (GOOD[..., 0], r"expected shape \(inputs, 4, 4, 3\). Received: \(10, 4, 4\)"),
        (GOOD[:, :2], r"Received: \(10, 2, 4, 3\)"),
        (GOOD.astype(str), "expected numbers"),
        (GOOD[:0], "Received: none"),
        (np.where(GOOD > 0.9, np.nan, GOOD), "values are NaN or Inf"),
        (np.ones((5, 4, 4, 3)), "all 5 inputs are the same"),
        ([GOOD[0], GOOD[0, :2]], "different shapes"),
        ({"a": GOOD, "b": GOOD}, "named image. Received: a, b"),
    ],
)
def test_data_that_do_not_fit_are_refused(data, message):
    with pytest.raises(ValueError, match=message):
        calibration_inputs(data, [SPEC])


def test_data_come_in_many_shapes(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    np.savez(tmp_path / "a.npz", image=GOOD)
    batches = [(GOOD[:6], np.zeros(6)), (GOOD[6:], np.zeros(4))]
    for data in (
        GOOD,
        list(GOOD),
        {"image": GOOD},
        tmp_path / "a.npy",
        str(tmp_path / "a.npz"),
        iter(batches),
    ):
        (found,) = calibration_inputs(data, [SPEC])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, GOOD, rtol=1e-6)
    two = [SPEC, InputSpec("n", (None,), np.dtype("int32"))]
    with pytest.raises(ValueError, match="with fractions"):
        calibration_inputs([GOOD, np.arange(10) / 2], two)
    small = [InputSpec("image", (None, 2), np.dtype("uint8"))]
    for wide in ([[0, -50], [400, 1]], [[0.0, -1.0], [255.0, 1.0]]):
        with pytest.raises(ValueError, match=r"expected uint8, 0 to 255. Received: -"):
            calibration_inputs(np.array(wide), small)
    with pytest.raises(ValueError, match=r"same number of inputs. Received: \[10, 9\]"):
        calibration_inputs([GOOD, np.arange(9)], two)
    with pytest.raises(ValueError, match="2 inputs"):
        calibration_inputs([GOOD], two)
    (tmp_path / "broken.npy").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"expected a .npy or .npz file"):
        calibration_inputs(tmp_path / "broken.npy", [SPEC])


def test_names_are_all_of_one_kind():
    """`fit` and signatures may call an input what another tensor is called."""
    x, y = np.arange(8.0).reshape(4, 2), np.arange(4.0, 12).reshape(4, 2)
    kind = ((None, 2), np.dtype("float32"))
    crosswise = [InputSpec("b", *kind, ("a",)), InputSpec("a", *kind, ("b",))]
    for data in ({"a": x, "b": y}, iter([{"a": x[:3], "b": y[:3]}, {"a": x, "b": y}])):
        found = calibration_inputs(data, crosswise)
        np.testing.assert_array_equal([found[0][0], found[1][0]], [x[0], y[0]])
    half = [InputSpec("img:0", *kind, ("img",)), InputSpec("ref:0", *kind, ("ref",))]
    for names in (("img", "ref"), ("img:0", "ref:0")):
        found = calibration_inputs(dict(zip(names, (x, y), strict=True)), half)
        np.testing.assert_array_equal(found, [x, y])
    message = r"entries named img, ref, or img:0, ref:0\. Received: img, ref:0"
    with pytest.raises(ValueError, match=message):
        calibration_inputs({"img": x, "ref:0": y}, half)


def test_dicts_have_the_keys_that_fit_takes():
    inputs = [keras.Input((2,), name=name) for name in ("b", "a", "c")]
    output = keras.layers.Concatenate()(inputs)
    with pytest.warns(UserWarning, match="all keys in the dict must match"):
        model = keras.Model({"a": inputs[0], "x": {"b": inputs[1:]}}, output)
    x = np.random.default_rng(0).random((3, 4, 2)).astype("float32")
    data = {"a": x[0], "x": {"b": [x[1], x[2]]}}
    specs = input_specs(model)
    for named in (data, iter([(data, np.zeros(4))])):
        np.testing.assert_array_equal(calibration_inputs(named, specs), x)
    found = calibration_inputs(dict(zip("bac", x, strict=True)), specs)
    np.testing.assert_array_equal(found, x)
    plain = input_specs(keras.Model(inputs, output))
    found = calibration_inputs(dict(zip("bac", x, strict=True)), plain)
    np.testing.assert_array_equal(found, x)


def test_outputs_that_tell_inputs_not_apart_are_refused():
    with pytest.raises(ValueError, match="same output for every"):
        check_outputs([np.ones((4, 2))])
    with pytest.raises(ValueError, match="NaN or infinite outputs"):
        check_outputs([np.array([[1.0], [np.nan]])])
    check_outputs([np.arange(4.0)])


def test_few_samples_leave_a_refit_nearer_to_the_dense_weights():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 16))
    keep = np.repeat(rng.random((64, 1)) < 0.5, 16, axis=1)

    def moved(samples, **options):
        x = rng.normal(size=(samples, 64))
        problem = Problem(weights, [(x, x @ weights)], **options)
        return np.square(problem.solve(keep) - weights * keep).sum()

    assert moved(16) < 0.9 * moved(16, damping=DAMPING)
    assert damping_for(64, 16) > damping_for(64, 64) > damping_for(64, 6400) == DAMPING
