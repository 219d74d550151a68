# SPDX-License-Identifier: Apache-2.0
"""What every structure owes to those who use it, whichever it is; numpy only."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrewprune import structures
from tfrewprune.methods import GroupLasso, Reweighted
from tfrewprune.recipe import Recipe
from tfrewprune.rule import Rule
from tfrewprune.structures import (
    Balanced,
    Block,
    BlockRowColumn,
    Channel,
    Column,
    Filter,
    Head,
    Kernel,
    KernelGroup,
    KernelLayout,
    KernelShape,
    NofM,
    Pattern,
    Punched,
    RowColumn,
    Structure,
    Unstructured,
    matrix_from_kernel,
)

EXTENT = st.integers(1, 7)
IN_BLOCK_ROWS = st.one_of(
    st.sampled_from([Unstructured(), Kernel()]),
    st.builds(Block, EXTENT, EXTENT, st.booleans()),
    st.builds(KernelGroup, EXTENT, st.integers(1, 3)),
    st.builds(Punched, EXTENT, st.integers(1, 3)),
    st.builds(Pattern, st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
)
STRUCTURES = st.one_of(
    IN_BLOCK_ROWS,
    st.sampled_from([Filter(), Head(), Channel(), Column(), RowColumn(), NofM(2, 4)]),
    st.builds(BlockRowColumn, EXTENT, EXTENT),
    st.builds(lambda n, more: NofM(n, n + more), EXTENT, st.integers(0, 3)),
    st.builds(Balanced, IN_BLOCK_ROWS),
)
SHAPES = st.builds(
    KernelShape, st.integers(1, 5), st.integers(1, 6), st.integers(1, 20)
)


def random_kernel(shape: KernelShape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@st.composite
def cases(draw, structures=STRUCTURES):
    """A structure with its choices made for a kernel, the kernel, its shape."""
    shape = draw(SHAPES)
    kernel = random_kernel(shape, draw(st.integers(0, 99)))
    return draw(structures).fitted(kernel), kernel, shape


@settings(deadline=None)
@given(cases())
def test_spread_is_the_adjoint_of_sums(case):
    structure, kernel, shape = case
    groups = np.random.default_rng(1).standard_normal(structure.group_grid(shape))
    sums = structure.sums(kernel.astype(np.float64), shape)
    assert sums.shape == groups.shape
    spread = np.asarray(structure.spread(groups, shape))
    assert spread.shape == tuple(shape)
    assert np.sum(sums * groups) == pytest.approx(np.sum(kernel * spread), abs=1e-6)


@settings(deadline=None)
@given(cases(), st.integers(0, 9))
def test_a_weight_survives_if_all_its_groups_do(case, seed):
    structure, _, shape = case
    keep = np.random.default_rng(seed).random(structure.group_grid(shape)) < 0.7
    removed = structure.spread((~keep).astype(float), shape)
    mask = structure.mask(keep, shape)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, removed == 0)
    assert structure.kept(keep, shape) == mask.sum()


@settings(deadline=None)
@given(cases())
def test_sizes_count_the_weights_of_a_group(case):
    structure, _, shape = case
    sizes = structure.group_sizes(shape)
    memberships = np.asarray(structure.spread(np.ones(sizes.shape), shape))
    assert sizes.min() > 0
    assert sizes.sum() == memberships.sum()
    if structure.partition:
        np.testing.assert_array_equal(memberships, 1)


@settings(deadline=None)
@given(cases(), st.floats(0, 1))
def test_never_more_weights_than_asked_and_one_group_less_at_most(case, share):
    structure, kernel, shape = case
    weights = share * shape.weights
    keep = structure.select(structure.rms(kernel, shape), shape, weights)
    kept = structure.kept(keep, shape)
    fixed = structure.fixed_rate(shape)
    if fixed is not None:
        assert kept == pytest.approx(shape.weights / fixed)
        return
    assert kept <= weights * (1 + 1e-6)
    most = structure.kept(
        structure.select(structure.rms(kernel, shape), shape, shape.weights), shape
    )
    step = structure.group_sizes(shape).max()
    if isinstance(structure, Balanced):  # one group more means one in every block row
        step *= structure.group_grid(shape)[-1]
    assert kept > min(weights, most) - step - 1e-6


@settings(deadline=None)
@given(cases(), st.integers(1, 3))
def test_the_minimum_survives(case, minimum):
    structure, kernel, shape = case
    minimum = min(minimum, structure.group_count(shape))
    keep = structure.select(structure.rms(kernel, shape), shape, 0, minimum)
    assert structure.kept(keep, shape) >= 1
    if structure.partition and structure.fixed_rate(shape) is None:
        assert keep.sum() >= minimum


@settings(deadline=None)
@given(cases(), st.floats(0, 1))
def test_outputs_that_are_alike_keep_the_same_columns(case, share):
    structure, kernel, shape = case
    matrix = matrix_from_kernel(structure.project(kernel, share * shape.weights)) != 0
    inner = getattr(structure, "of", structure)
    if getattr(inner, "order", None) is not None:
        matrix = matrix[list(inner.order)]
    alike = structure.rows_alike(shape)
    for first in range(0, shape.outputs, alike):
        band = matrix[first : first + alike]
        band = band[band.any(axis=1)]
        assert (band == band[:1]).all()


@settings(deadline=None)
@given(cases(), st.floats(0, 1))
def test_projection_is_idempotent_and_changes_no_survivor(case, share):
    structure, kernel, shape = case
    projected = structure.project(kernel, share * shape.weights)
    survivors = projected != 0
    np.testing.assert_array_equal(projected[survivors], kernel[survivors])
    again = structure.project(projected, share * shape.weights)
    np.testing.assert_array_equal(again, projected)


@settings(deadline=None)
@given(cases(), st.floats(0, 1))
def test_the_mask_can_be_read_back_from_the_zeros(case, share):
    structure, kernel, shape = case
    keep = structure.select(structure.rms(kernel, shape), shape, share * shape.weights)
    mask = structure.mask(keep, shape)
    survivors = structure.surviving_groups(np.where(mask, kernel, 0))
    np.testing.assert_array_equal(survivors, keep)


@settings(deadline=None)
@given(cases())
def test_penalty_is_the_sum_over_groups_of_root_size_times_norm(case):
    structure, kernel, shape = case
    count = structure.group_count(shape)
    expected = 0.0
    for one in np.eye(count):
        member = structure.spread(one.reshape(structure.group_grid(shape)), shape) > 0
        expected += np.sqrt(member.sum()) * np.linalg.norm(kernel[member])
    lasso = GroupLasso().penalty(kernel, structure, shape, {})
    assert lasso == pytest.approx(expected, rel=1e-4)
    ones = {"alpha": np.ones(structure.group_grid(shape), np.float32)}
    assert Reweighted().penalty(kernel, structure, shape, ones) == pytest.approx(lasso)


@settings(deadline=None)
@given(cases(), st.floats(0, 1))
def test_what_must_go_is_pulled(case, share):
    structure, kernel, shape = case
    rms = structure.rms(kernel, shape)
    keep = structure.select(rms, shape, share * shape.weights)
    pulled = structure.pulled(rms, shape, keep)
    if pulled is None:  # as much as everything else
        return
    assert pulled.shape == rms.shape
    felt, mask = structure.spread(pulled, shape), structure.mask(keep, shape)
    np.testing.assert_array_equal(felt > 0, ~mask)  # and nothing else is
    assert set(np.unique(felt)) <= {0, 1}  # and once


@settings(deadline=None)
@given(st.integers(1, 4), STRUCTURES, st.integers(1, 6), st.integers(1, 20), st.data())
def test_gates_share_a_tensor_but_no_group(gates, structure, inputs, units, draw):
    """Groups of all gates are a partition of the tensor; a mask leaves the others."""
    weights = random_kernel(KernelShape(1, inputs, gates * units))[0]
    total, masks = 0.0, []
    everything = np.square(weights, dtype=np.float64).sum()
    for part in range(gates):
        layout = KernelLayout("gate", parts=gates, part=part)
        kernel, shape = layout.to_kernel(weights), layout.kernel_shape(weights.shape)
        fitted = structure.fitted(kernel)
        sums = fitted.sums(np.square(kernel, dtype=np.float64), shape)
        total += sums.sum()
        share = draw.draw(st.floats(0, 1))
        keep = fitted.choose(np.square(kernel), share * shape.weights)
        mask = layout.from_kernel(
            fitted.mask(keep, shape), weights.shape, rest=np.ones(weights.shape, bool)
        )
        others = np.delete(mask, np.s_[part * units : (part + 1) * units], axis=1)
        assert others.all()
        masks.append(mask)
        assert (~mask).sum() == shape.weights - fitted.kept(keep, shape)
    if fitted.partition:
        assert total == pytest.approx(everything, rel=1e-6)
    removed = sum((~mask).sum() for mask in masks)
    assert (~np.logical_and.reduce(masks)).sum() == removed


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.floats(0, 1))
def test_heads_own_all_of_their_tensors(heads, queries, size, share):
    """Query heads of a group, keys and outputs as one kernel: a partition by head."""
    rng = np.random.default_rng(heads)
    tensors = {
        KernelLayout("heads", 1, heads): rng.normal(size=(3, heads * queries, size)),
        KernelLayout("heads", 1): rng.normal(size=(4, heads, size)),
        KernelLayout("heads", 0, heads): rng.normal(size=(heads * queries, size, 2, 3)),
    }
    kernel = np.concatenate([k.to_kernel(t) for k, t in tensors.items()], axis=1)
    shape = KernelShape(*kernel.shape)
    assert kernel.size == sum(tensor.size for tensor in tensors.values())
    keep = Head().choose(np.square(kernel), share * kernel.size)
    kept = 0
    for layout, tensor in tensors.items():
        own = layout.kernel_shape(tensor.shape)
        mask = layout.from_kernel(Head().mask(keep, own), tensor.shape)
        axis = layout.input_axes
        by_head = np.moveaxis(mask, axis, 0).reshape(heads, -1)
        assert (by_head == keep[:, None]).all()
        kept += mask.sum()
    assert kept == Head().kept(keep, shape)


@settings(deadline=None)
@given(cases())
def test_config_survives_json(case):
    structure, _, _ = case
    config = json.loads(json.dumps(structure.get_config()))
    assert Structure.get(config) == structure
    recipe = Recipe(Rule("*", structure=structure, rate=4))
    assert Recipe.from_json(recipe.to_json()) == recipe


IN_BLOCK_ROWS_KINDS = [
    kind
    for kind in vars(structures).values()
    if isinstance(kind, type) and issubclass(kind, Structure) and kind.in_block_rows
]


@pytest.mark.parametrize("kind", IN_BLOCK_ROWS_KINDS)
def test_balanced_leaves_nothing_out_that_a_structure_has_its_own_way(kind):
    own = {name for name in vars(kind) if callable(getattr(Structure, name, None))}
    assert "sums" in own
    missing = own - set(vars(Balanced)) - {"__init__", "__eq__", "__hash__", "__repr__"}
    assert not missing


@settings(deadline=None)
@given(cases(IN_BLOCK_ROWS), st.floats(0, 2))
def test_a_balanced_structure_has_the_same_weights_left(case, threshold):
    structure, kernel, shape = case
    rms = structure.rms(kernel, shape)
    np.testing.assert_array_equal(
        Balanced(structure).left(rms, shape, threshold),
        structure.left(rms, shape, threshold),
    )


@settings(deadline=None)
@given(STRUCTURES, SHAPES)
def test_a_fitted_structure_settles_the_open_one(structure, shape):
    fitted = structure.fitted(random_kernel(shape))
    assert fitted.settles(structure)
    assert fitted.fitted(random_kernel(shape, seed=1)) == fitted
    other = Balanced(Unstructured())
    assert fitted.settles(other) == (fitted == other)


@pytest.mark.parametrize(
    "structure, text",
    [
        (Filter(), "Filter"),
        (Block(), "Block(16, 1)"),
        (Block(2, 1, True, (1, 0)), "Block(2, 1, cluster=True)"),
        (Pattern(library=((0, 1, 2, 3),)), "Pattern(4, 1, 8)"),
        (Balanced(Punched()), "Balanced(Punched(8, 4))"),
    ],
)
def test_short_text(structure, text):
    assert str(structure) == text


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: KernelGroup(0, 4), "`rows` of KernelGroup must be .* rows=0"),
        (lambda: Punched(8, 1.5), "`channels` of Punched .* Received: channels=1.5"),
        (lambda: BlockRowColumn(True), "`rows` of BlockRowColumn .* rows=True"),
        (lambda: NofM(5, 4), "n must be at most m. Received: n=5, m=4"),
        (lambda: NofM(0, 4), "`n` of NofM must be .* n=0"),
        (lambda: Pattern(entries=0), "`entries` of Pattern must be .* entries=0"),
        (lambda: Pattern(2, library=((0, 0),)), "2 different positions"),
        (lambda: Pattern(2, library=((0, 1), (1, 0))), "different tuples"),
        (lambda: Pattern(2, library=((0, 1, 2),)), "tuples of 2 .* Received: library="),
        (lambda: Pattern(2, library=()), "one or more different tuples"),
        (lambda: Pattern(2, library=7), "Received: library=7"),
        (lambda: Balanced(Filter()), "several groups .* Received: of=Filter"),
        (lambda: Balanced(Balanced(Block())), r"Received: of=Balanced\(Block\(16, 1\)"),
        (lambda: Block(cluster=1), "`cluster` of Block must be .* cluster=1"),
        (lambda: Block(2, 1, True, (0, 2)), "names each output once"),
        (lambda: Block(2, 1, order=(0, 1)), "goes with cluster=True"),
    ],
)
def test_wrong_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_open_choices_are_told_when_groups_are_asked_for():
    with pytest.raises(ValueError, match=r"no library yet. .*fitted\(kernel\)"):
        Pattern().sums(np.ones((9, 2, 2)), KernelShape(9, 2, 2))
    with pytest.raises(ValueError, match="names position 8, .* 4 positions"):
        Pattern(1, library=((8,),)).group_grid(KernelShape(4, 2, 2))
    with pytest.raises(ValueError, match="an order of 3 outputs and has no order"):
        Block(2, 1, cluster=True).sums(np.ones((1, 2, 3)), KernelShape(1, 2, 3))
    with pytest.raises(ValueError, match="of 3 outputs and has one of 2"):
        Block(2, 1, True, (1, 0)).spread(np.ones((2, 2)), KernelShape(1, 2, 3))
