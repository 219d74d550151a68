# SPDX-License-Identifier: Apache-2.0
"""Sizes of storage schemes against encoders and decoders written here."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfrewprune as trp
from tfrewprune.benchmark.layers import Layer, build_model
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.cli import main
from tfrewprune.storage.schemes import SCHEMES, best


class Bits:
    """A string of bits that is written and then read."""

    def __init__(self):
        self.text, self.place = "", 0

    def write(self, number, width):
        assert 0 <= number < 1 << width or number == width == 0
        self.text += f"{number:0{width}b}" if width else ""

    def read(self, width):
        part = self.text[self.place : self.place + width]
        self.place += width
        return int(part, 2) if width else 0

    def done(self):
        return self.place == len(self.text)


def width(count):
    return math.ceil(math.log2(count)) if count > 1 else 0


def gap_text(matrix, bits, k):
    out, zeros = Bits(), 0
    for number in matrix.ravel().tolist():
        if number == 0:
            zeros += 1
            continue
        while zeros >= 2**k:
            out.write(2**k - 1, k)
            out.write(0, bits)
            zeros -= 2**k
        out.write(zeros, k)
        out.write(number, bits)
        zeros = 0
    found, place = np.zeros(matrix.size, int), 0
    while not out.done():
        place += out.read(k)
        found[place] = out.read(bits)
        place += 1
    np.testing.assert_array_equal(found, matrix.ravel())
    return out.text


def csr_text(matrix, bits):
    rows, columns = matrix.shape
    kept = np.count_nonzero(matrix)
    pointer = int(kept).bit_length()
    out = Bits()
    for row in range(rows + 1):
        out.write(np.count_nonzero(matrix[:row]), pointer)
    for row in matrix:
        for column in np.flatnonzero(row):
            out.write(int(column), width(columns))
            out.write(int(row[column]), bits)
    starts = [out.read(pointer) for _ in range(rows + 1)]
    found = np.zeros_like(matrix)
    for row in range(rows):
        for _ in range(starts[row], starts[row + 1]):
            column = out.read(width(columns))
            found[row, column] = out.read(bits)
    np.testing.assert_array_equal(found, matrix)
    return out.text


def bitmap_text(matrix, bits):
    out = Bits()
    for number in matrix.ravel():
        out.write(int(number != 0), 1)
    for number in matrix[matrix != 0]:
        out.write(int(number), bits)
    alive = [out.read(1) for _ in range(matrix.size)]
    found = np.array([out.read(bits) if bit else 0 for bit in alive])
    np.testing.assert_array_equal(found.reshape(matrix.shape), matrix)
    return out.text


def block_text(matrix, bits, p, q, how):
    """Blocks in turn: which rows and columns survive, then their numbers."""
    out, found = Bits(), np.zeros_like(matrix)
    tiles = [
        (slice(top, top + p), slice(left, left + q))
        for top in range(0, matrix.shape[0], p)
        for left in range(0, matrix.shape[1], q)
    ]
    for tile in tiles:
        block = matrix[tile]
        sides = []
        for axis, extent in ((1, p), (0, q)):
            alive = block.any(axis=axis)
            if how in ("bitmaps", ("columns", "rows")[axis]):
                for bit in alive:
                    out.write(int(bit), 1)
            elif how == "lists":
                out.write(int(alive.sum()), width(extent + 1))
                for index in np.flatnonzero(alive):
                    out.write(int(index), width(extent))
            else:
                alive[:] = True
            sides.append(np.flatnonzero(alive))
        for number in block[np.ix_(*sides)].ravel():
            out.write(int(number), bits)
    for tile in tiles:
        view = found[tile]
        sides = []
        for axis, extent in ((0, p), (1, q)):
            if how in ("bitmaps", ("rows", "columns")[axis]):
                alive = np.flatnonzero([out.read(1) for _ in range(view.shape[axis])])
            elif how == "lists":
                count = out.read(width(extent + 1))
                alive = np.array([out.read(width(extent)) for _ in range(count)], int)
            else:
                alive = np.arange(view.shape[axis])
            sides.append(alive)
        view[np.ix_(*sides)] = np.reshape(
            [out.read(bits) for _ in range(math.prod(map(len, sides)))],
            [len(side) for side in sides],
        )
    np.testing.assert_array_equal(found, matrix)
    return out.text


def pattern_text(matrix, bits, taps):
    rows, columns = matrix.shape
    channels = columns // taps
    kernels = matrix.reshape(rows, taps, channels).transpose(0, 2, 1)
    library = sorted({tuple((k != 0).tolist()) for k in kernels.reshape(-1, taps)})
    library = [pattern for pattern in library if any(pattern)]
    out = Bits()
    for pattern in library:
        for bit in pattern:
            out.write(int(bit), 1)
    for filters in kernels:
        alive = np.flatnonzero(filters.any(axis=1))
        out.write(len(alive), width(channels + 1))
        for channel in alive:
            kernel = filters[channel]
            out.write(int(channel), width(channels))
            out.write(library.index(tuple((kernel != 0).tolist())), width(len(library)))
            for number in kernel[kernel != 0]:
                out.write(int(number), bits)
    known = [[out.read(1) for _ in range(taps)] for _ in library]
    found = np.zeros_like(kernels)
    for row in range(rows):
        for _ in range(out.read(width(channels + 1))):
            channel = out.read(width(channels))
            pattern = np.array(known[out.read(width(len(library)))], bool)
            found[row, channel, pattern] = [
                out.read(bits) for _ in range(pattern.sum())
            ]
    np.testing.assert_array_equal(found, kernels)
    return out.text


@st.composite
def sparse(draw):
    """(matrix of whole numbers, kernel positions, bits a number)."""
    taps = draw(st.sampled_from([1, 4, 9]))
    shape = draw(st.integers(1, 20)), taps * draw(st.integers(1, 9))
    bits = draw(st.sampled_from([2, 4, 7]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    matrix = rng.integers(1, 2**bits, shape)
    for axis in (0, 1):  # whole rows and columns, and single ones
        gone = rng.random(shape[axis]) < draw(st.sampled_from([0, 0.3, 0.8]))
        matrix[(slice(None), gone) if axis else gone] = 0
    matrix[rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.95]))] = 0
    return matrix, taps, bits


@settings(max_examples=20, deadline=None)
@given(sparse())
def test_sizes_are_those_of_real_encoders(given_matrix):
    matrix, taps, bits = given_matrix
    mask = matrix != 0
    for name, codings in SCHEMES.items():
        for coding in codings(mask, taps):
            if name == "gap":
                text = gap_text(matrix, bits, int(coding.how.split("-")[0]))
            elif name == "csr":
                text = csr_text(matrix, bits)
            elif name == "bitmap":
                text = bitmap_text(matrix, bits)
            elif name == "pattern":
                text = pattern_text(matrix, bits, taps)
            elif coding.how == "empty":
                assert not mask.any() and coding.bytes(bits) == 1
                continue
            else:
                size, how = coding.how.split(", ")
                p, q = map(int, size.split(" x "))
                text = block_text(matrix, bits, p, q, how)
            assert coding.bytes(bits) == math.ceil(len(text) / 8), (name, coding)


@pytest.mark.parametrize(
    ("density", "bits", "expected"),
    [(0.25, 2, 5.56), (0.1, 4, 9.32), (0.05, 8, 14.55), (0.01, 32, 41.24)],
)
def test_gaps_of_random_zeros_need_what_theory_says(density, bits, expected):
    """The expectation over random positions, minimised over the width of a gap."""
    mask = np.random.default_rng(0).random((1000, 2000)) < density
    smallest = best(tuple(SCHEMES["gap"](mask, 1)), bits)
    assert 8 * smallest.bytes(bits) / mask.sum() == pytest.approx(expected, rel=0.01)


LAYER = Layer("layer", 14, 14, 64, 64, kernel=(3, 3))


def tflite(structure, rate=8):
    weights = pruned_weights(LAYER, structure, rate)
    return build_model(LAYER, weights, np.zeros(64, np.float32))


def test_blocks_cost_less_than_single_weights_and_packing_is_counted():
    dense = tflite("block16x1")
    packed = bytes(trp.convert(dense))
    accounts = [trp.accounting(content) for content in (dense, packed)]
    (before,), (after,) = (account.layers for account in accounts)
    assert before.codings == after.codings and before.shape == (64, 9, 64)
    assert (before.weights, before.kept) == (36864, 36864 // 8)
    (record,) = trp.inspect_model(packed)
    assert after.bytes("packed") == record.bytes_packed
    assert before.bytes("dense") == 4 * 36864
    assert before.bytes("payload") == 4 * 36864 // 8
    # The payload holds one column of 2 bytes for 16 weights, a header and a start.
    assert after.bytes("packed") < 1.06 * after.bytes("payload")
    assert after.bytes("packed", bits=8) is None
    scattered = trp.accounting(tflite("unstructured"))
    for bits in (8, 4, 2):
        assert accounts[0].total("block", bits) < 1.3 * accounts[0].total(
            "payload", bits
        )
        assert scattered.total("gap", bits) > 1.5 * accounts[0].total("block", bits)


def test_a_total_takes_dense_where_a_scheme_is_larger():
    dense = tflite("unstructured", 1)
    account = trp.accounting(dense, bits=2)
    (layer,) = account.layers
    assert layer.bytes("gap", 2) > layer.bytes("dense", 2) == account.total("gap")
    assert account.total("packed") is None
    assert account.at(None).bits is None


def test_an_emptied_layer_needs_next_to_nothing():
    """Not what it needed dense."""
    weights = np.zeros((64, 576), np.float32)
    account = trp.accounting(build_model(LAYER, weights, np.zeros(64, np.float32)))
    (layer,) = account.layers
    assert account.total("payload") == layer.bytes("payload", None) == 0
    for scheme in ("gap", "csr", "block"):
        assert account.total(scheme) == layer.bytes(scheme, None) < 1000


def test_results_are_read_as_their_models():
    import keras

    model = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32, name="d")])
    data = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    recipe = trp.Recipe("d", rate=4, method="Magnitude", retrain_epochs=0)
    result = trp.prune_one_shot(model, data, recipe=recipe)
    (layer,) = trp.accounting(result).layers
    assert (layer.kept, layer.weights) == (256, 1024)
    dense = bytes(trp.convert(result.model, minimum_gain=math.inf))
    again = trp.Recipe(rate=4, skip_last=False)
    assert trp.accounting(trp.prune_one_shot(dense, data, recipe=again)).kept == 256
    model.compile("adam", "mse")
    assert trp.accounting(trp.compress(model, recipe)).kept == 256


def test_a_keras_model_and_its_file_read_alike(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(6, 3, name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, name="dense"),
        ]
    )
    kernel, bias = model.layers[0].get_weights()
    kernel[:, :, 1] = 0
    model.layers[0].set_weights([kernel, bias])
    path = tmp_path / "model.keras"
    model.save(path)
    for source in (model, path):
        account = trp.accounting(source)
        assert [layer.layer for layer in account.layers] == ["conv", "dense"]
        conv = account.layers[0]
        assert (conv.shape, conv.kept) == ((6, 9, 3), 108)
        assert conv.bytes("block") == 4 * 108 + 4  # 27 columns in one block
    assert "bits a kept weight" in str(account)


def test_weights_that_several_operators_read_are_counted_once():
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 32))
    conv = keras.layers.Conv2D(32, 3, padding="same", name="conv")
    outputs = keras.layers.Conv2D(8, 1, name="last")(conv(conv(conv(inputs))))
    model = keras.Model(inputs, outputs)
    recipe = trp.Recipe("conv", rate=8, method="Magnitude")
    trp.hard_prune(model, recipe)
    packed = trp.convert(model, verify=False)
    truth = trp.accounting(model)
    for content in (bytes(packed), trp.unpack(packed)):
        account = trp.accounting(content)
        assert [layer.shared for layer in account.layers] == [3, 1]
        assert "(3x)" in str(account).splitlines()[1]
        for scheme in ("dense", "payload", "block", "packed"):
            assert account.total(scheme) == truth.total(scheme), scheme
        assert (account.weights, account.kept) == (truth.weights, truth.kept)
        first, *others, last = trp.inspect_model(content)
        assert first.shares is None and last.shares is None
        assert [layer.shares for layer in others] == [first.name] * 2


def test_the_command_prints_a_table_json_and_a_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    path, picture = tmp_path / "model.tflite", tmp_path / "sizes.svg"
    path.write_bytes(tflite("block16x1"))
    assert main(["accounting", str(path), "--bits", "4", "--plot", str(picture)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("total") for line in lines)
    assert "as gap indices than as block indices" in " ".join(lines)
    assert picture.read_text().count("weights alone")
    assert main(["accounting", str(path), "--json", "--bits", "4"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["kept"] == 4608 and document["bytes"]["packed"] is None
    assert document["layers"][0]["how"]["block"]


@pytest.mark.parametrize("bits", [0, -1, 65, float("nan")])
def test_bits_must_be_possible(bits):
    with pytest.raises(ValueError, match="Bits of a weight must be above 0"):
        trp.accounting(tflite("block16x1"), bits=bits)


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match="'zip'. Expected one of.*'gap'"):
        trp.accounting(tflite("block16x1")).total("zip")
