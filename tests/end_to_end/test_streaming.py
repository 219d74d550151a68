# SPDX-License-Identifier: Apache-2.0
"""Models that are fed frame by frame give out what Keras does of the whole sequence."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter as LiteRt

import tfrewprune as trp
from tfrewprune.benchmark.compare import run_once
from tfrewprune.benchmark.streams import frame_latencies

pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("needs Keras' TensorFlow backend", allow_module_level=True)
layers = keras.layers


def small():
    return keras.Sequential(
        [
            keras.Input((None, 5)),
            layers.GRU(16, return_sequences=True, name="first"),
            layers.LSTM(16, return_sequences=True, name="second"),
            layers.Dense(3),
        ]
    )


def floats(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype("f4")


def pushed(streamer, frames, *lengths):
    """What each output is after pieces of these lengths, which are all frames."""
    several = isinstance(frames, list)
    pieces, place = [], 0
    for length in lengths:
        piece = slice(place, place := place + length)
        given = [array[piece] for array in frames] if several else frames[piece]
        pieces.append(keras.tree.flatten(streamer.push(given)))
    assert place == len(frames[0] if several else frames)
    timed = [output.ndim > 1 for output in pieces[0]]
    return [
        np.concatenate(output) if rows else output[-1]
        for rows, output in zip(timed, zip(*pieces, strict=True), strict=True)
    ]


def same(expected, received):
    """Compares outputs of Keras, of a batch of one, with those of a stream."""
    for a, b in zip(keras.tree.flatten(expected), received, strict=True):
        np.testing.assert_allclose(b, np.asarray(a)[0], atol=1e-5)


def test_streams_in_pieces_of_any_length():
    model = small()
    streamer = trp.Streamer(model)
    assert streamer.frame_shape == (5,)
    generator = np.random.default_rng(1)
    frames = generator.standard_normal((50, 5)).astype("f4")
    expected = np.asarray(model(frames[None]))[0]
    pieces = [streamer.push(frames[0])]
    place = 1
    for length in (1, 0, 2, 16, 17, 13):
        pieces.append(streamer.push(frames[place : place + length]))
        assert pieces[-1].shape == (length, 3)
        place += length
    np.testing.assert_allclose(np.concatenate(pieces), expected, atol=1e-5)
    streamer.reset()
    np.testing.assert_allclose(streamer.push(frames), expected, atol=1e-5)


def test_a_model_of_one_frame_takes_any_number():
    shared = layers.GRU(8, return_sequences=True)
    models = [
        keras.Sequential([keras.Input((steps, 5)), shared]) for steps in (1, None)
    ]
    frames = floats(20, 5)
    streamer = trp.Streamer(models[0])
    same(models[1](frames[None]), pushed(streamer, frames, 1, 2, 17))


def test_streams_do_not_see_each_other():
    streamer = trp.Streamer(small())
    frames = np.random.default_rng(1).standard_normal((6, 5)).astype("f4")
    alone = streamer.push(frames)
    a, b = streamer.stream(), streamer.stream()
    poison = np.full(5, np.nan, np.float32)
    received = []
    for frame in frames:
        received.append(a.push(frame))
        assert np.isnan(b.push(poison)).all()
    np.testing.assert_allclose(np.concatenate(received), alone, atol=1e-6)
    b.reset()
    np.testing.assert_allclose(b.push(frames), alone, atol=1e-6)


def test_streams_in_threads():
    from concurrent.futures import ThreadPoolExecutor

    streamer = trp.Streamer(small(), workers=2)
    frames = np.random.default_rng(1).standard_normal((4, 30, 5)).astype("f4")
    expected = [streamer.stream().push(one) for one in frames]

    def follow(one):
        stream = streamer.stream()
        return np.concatenate([stream.push(frame) for frame in one])

    with ThreadPoolExecutor(4) as pool:
        for a, b in zip(expected, pool.map(follow, frames), strict=True):
            np.testing.assert_allclose(b, a, atol=1e-5)


def test_a_streaming_file_streams_and_unpacks(tmp_path):
    model = small()
    packed = trp.convert(model, tmp_path / "stream.tflite", streaming=True)
    names = {d["name"] for d in trp.Interpreter(packed).get_input_details()}
    assert {"first/state", "second/state", "second/cell_state"} <= names
    frames = np.random.default_rng(1).standard_normal((5, 5)).astype("f4")
    expected = np.asarray(model(frames[None]))[0]
    for source in (tmp_path / "stream.tflite", packed, trp.convert(model)):
        received = trp.Streamer(source).push(frames)
        np.testing.assert_allclose(received, expected, atol=1e-5)
    dense = LiteRt(model_content=trp.unpack(packed))
    states = [np.zeros((1, 16), np.float32)] * 3
    received = run_once(dense, [frames[None], *states])[0]
    np.testing.assert_allclose(received[0], expected, atol=1e-5)


def test_what_cannot_be_streamed_says_so(tmp_path):
    x = keras.Input((None, 5))
    backwards = keras.Model(x, layers.LSTM(8, go_backwards=True, name="reverse")(x))
    with pytest.raises(
        trp.ConversionError, match="'reverse' goes through .* backwards"
    ):
        trp.Streamer(backwards)
    y = layers.Conv1D(8, 3, padding="causal")(layers.GRU(8, return_sequences=True)(x))
    with pytest.raises(trp.ConversionError, match="looks at more than one frame"):
        trp.Streamer(keras.Model(x, y))
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    with pytest.raises(trp.ConversionError, match="needs a packed GRU, LSTM or RNN"):
        trp.convert(plain, streaming=True, verify=False)
    odd = keras.Sequential(
        [
            keras.Input((None, 5)),
            layers.GRU(8, return_sequences=True),
            layers.LSTM(8, activation="softsign", name="odd"),
        ]
    )
    odd.save(tmp_path / "odd.keras")
    expected = "recurrent layers packed, but layer 'odd' has activation='softsign'"
    for model in (odd, tmp_path / "odd.keras"):
        with pytest.raises(trp.ConversionError, match=expected):
            trp.convert(model, streaming=True)
        with pytest.raises(trp.ConversionError, match=expected):
            trp.Streamer(model)
    fixed = keras.Sequential([keras.Input((7, 5)), layers.GRU(8)])
    with pytest.raises(trp.ConversionError, match="time .* must be open"):
        trp.Streamer(fixed)
    streamer = trp.Streamer(small())
    with pytest.raises(ValueError, match=r"shape \[5\] or \[n, 5\], received \[3\]"):
        streamer.push(np.zeros(3))
    for workers in (0, True):
        with pytest.raises(ValueError, match="workers must be at least 1"):
            trp.Streamer(small(), workers=workers)


@pytest.mark.parametrize("names", ["012", "zam"])
def test_outputs_come_as_keras_gives_them(names):
    x = keras.Input((None, 5))
    h = layers.GRU(8, return_sequences=True)(x)
    outputs = [layers.Dense(3, name=name)(h) for name in "zam"]
    if names != "012":
        outputs = dict(zip(names, outputs, strict=True))
    model = keras.Model(x, outputs)
    frames = floats(20, 5)
    expected = model(frames[None])
    received = trp.Streamer(model).push(frames)
    keras.tree.assert_same_structure(received, expected)
    same(expected, keras.tree.flatten(received))


MASKED = [
    lambda: layers.GRU(6, return_sequences=True),
    lambda: layers.GRU(6, return_sequences=True, zero_output_for_mask=True),
    lambda: layers.LSTM(6, return_sequences=True),
    lambda: layers.SimpleRNN(6, return_sequences=True),
    lambda: layers.RNN([layers.LSTMCell(6), layers.GRUCell(5)], return_sequences=True),
    lambda: layers.LSTM(6),
    lambda: layers.GRU(6, zero_output_for_mask=True),
]


@pytest.fixture(scope="module")
def masked():
    """A model, frames that it passes over in part, and what it gives out."""
    x = keras.Input((None, 5))
    y = layers.Masking(0.5)(x)
    model = keras.Model(x, [make()(y) for make in MASKED])
    frames = floats(45, 5)
    frames[[0, 1, 4, 5, 10, 21, 22, 39, 42, 43, 44]] = 0.5
    return model, frames, model(frames[None])


def test_masked_frames_repeat_the_output_of_the_piece_before(masked):
    model, frames, expected = masked
    packed = trp.convert(model, streaming=True)
    streamer = trp.Streamer(packed)
    for lengths in ([45], [1] * 45, [5, 16, 1, 17, 3, 1, 1, 1]):
        streamer.reset()
        same(expected, pushed(streamer, frames, *lengths))


def test_masked_frames_of_an_unpacked_streaming_file(masked):
    model, frames, expected = masked
    packed = trp.convert(model, streaming=True)
    dense = LiteRt(model_content=trp.unpack(packed))
    shapes = [detail["shape"] for detail in dense.get_input_details()[1:]]
    states = [np.zeros(shape, "f4") for shape in shapes]
    rows = []
    for begin, end in ((0, 5), (5, 22), (22, 45)):
        outputs = run_once(dense, [frames[None, begin:end], *states])
        rows.append(outputs[: len(MASKED)])
        states = outputs[len(MASKED) :]
    for wanted, *parts in zip(expected, *rows, strict=True):
        timed = parts[0].ndim > 2
        received = np.concatenate(parts, 1) if timed else parts[-1]
        np.testing.assert_allclose(received, wanted, atol=1e-5)


def test_the_check_masks_frames(masked, monkeypatch):
    place = "tfrewprune.converter.recurrent.streaming.repeat_from_before"
    monkeypatch.setattr(place, lambda *_: None)
    with pytest.raises(trp.ConversionError, match="looks at more than one frame"):
        trp.Streamer(masked[0])


def test_integers_with_a_mask():
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(20, 8, mask_zero=True),
            layers.GRU(8, return_sequences=True),
        ]
    )
    words = np.random.default_rng(1).integers(0, 20, 40)
    words[[1, 17, 18]] = 0
    streamer = trp.Streamer(model)
    assert streamer.frame_shape == () and streamer.push([]).shape == (0, 8)
    same(model(words[None]), pushed(streamer, words, 1, 16, 1, 22))
    streamer.reset()
    np.testing.assert_array_equal(streamer.push(int(words[0])).shape, (1, 8))
    assert len(frame_latencies(streamer, streams=1, frames=2, workers=1)) == 2


def test_states_that_go_in_and_out_already_are_kept_by_the_stream():
    x, h, c = keras.Input((None, 5)), keras.Input((8,)), keras.Input((8,), name="cell")
    y, *after = layers.LSTM(8, return_sequences=True, return_state=True)(
        x, initial_state=[h, c]
    )
    model = keras.Model([x, h, c], [y, *after])
    frames, zeros = floats(20, 5), np.zeros((1, 8), "f4")
    expected = model([frames[None], zeros, zeros])
    packed = trp.convert(model, streaming=True)
    details = trp.Interpreter(packed).get_output_details()
    assert len(details) == 3  # as before
    for source in (model, packed, trp.convert(model)):
        same(expected, pushed(trp.Streamer(source), frames, 1, 2, 17))


def test_a_first_state_of_the_caller_whose_last_one_stays_inside():
    x, h = keras.Input((None, 5)), keras.Input((8,))
    model = keras.Model([x, h], layers.GRU(8)(x, initial_state=h))
    frames = floats(20, 5)
    expected = model([frames[None], np.zeros((1, 8), "f4")])
    same(expected, pushed(trp.Streamer(model), frames, 1, 2, 17))


def test_a_state_that_the_model_gives_out_comes_out():
    x = keras.Input((None, 5))
    y, state = layers.GRU(8, return_sequences=True, return_state=True)(x)
    model = keras.Model(x, [y, state, layers.LSTM(4)(y)])
    frames = floats(20, 5)
    streamer = trp.Streamer(model)
    same(model(frames[None]), pushed(streamer, frames, 1, 2, 17))
    assert streamer.push(frames[:0])[1] is None


def test_layers_of_one_name_have_their_own_states():
    x = keras.Input((None, 5))
    y = x
    for _ in range(2):
        inner = [keras.Input((None, 5)), layers.GRU(5, return_sequences=True, name="a")]
        y = keras.Sequential(inner)(y)
    model = keras.Model(x, y)
    frames = floats(20, 5)
    same(model(frames[None]), pushed(trp.Streamer(model), frames, 1, 2, 17))


def test_first_states_that_a_stream_cannot_continue_are_refused():
    x, h = keras.Input((None, 5)), keras.Input((8,))
    states = {
        "a": layers.Dense(8)(h),  # as of a decoder
        "b": keras.ops.ones_like(h) + 0 * h,
    }
    for name, state in states.items():
        y = layers.GRU(8, name=name)(x, initial_state=state)
        with pytest.raises(trp.ConversionError, match=f"'{name}' .* is not known"):
            trp.Streamer(keras.Model([x, h], y))
    both = [layers.GRU(8)(x, initial_state=h) for _ in range(2)]
    with pytest.raises(trp.ConversionError, match="begins several states"):
        trp.Streamer(keras.Model([x, h], both))


@pytest.fixture(scope="module")
def of_three_inputs():
    sound, seen = keras.Input((None, 5), name="sound"), keras.Input((None, 2, 3))
    there = keras.Input((None,), dtype="bool", name="there")
    y = layers.Concatenate()([layers.Reshape((-1, 6))(seen), sound])
    y = layers.GRU(8, return_sequences=True)(y, mask=there)
    model = keras.Model([sound, seen, there], y)
    frames = [floats(40, 5), floats(40, 2, 3), np.arange(40) % 3 > 0]
    return trp.Streamer(model), frames, model([array[None] for array in frames])


def test_several_inputs_in_the_order_of_the_model_or_by_name(of_three_inputs):
    streamer, frames, expected = of_three_inputs
    streamer.reset()
    same(expected, pushed(streamer, frames, 1, 16, 1, 5, 17))
    shapes = streamer.frame_shape
    assert list(shapes.values()) == [(5,), (2, 3), ()] and "sound" in shapes
    streamer.reset()
    by_name = dict(reversed(list(zip(shapes, frames, strict=True))))
    same(expected, [streamer.push(by_name)])
    assert streamer.push([array[0] for array in frames]).shape == (1, 8)
    assert streamer.push(streamer.random_frames(2)).shape == (2, 8)


def test_several_inputs_that_do_not_fit_are_refused(of_three_inputs):
    streamer, frames, _ = of_three_inputs
    with pytest.raises(ValueError, match="as many frames .*'sound': 39, .*: 40"):
        streamer.push([frames[0][1:], *frames[1:]])
    with pytest.raises(ValueError, match=r"inputs \['sound', .* received \['sound'\]"):
        streamer.push({"sound": frames[0]})
    with pytest.raises(ValueError, match="a list of one array for each .* 2 of them"):
        streamer.push(frames[:2])
    with pytest.raises(ValueError, match="a list of one array .* received ndarray"):
        streamer.push(frames[0])
    with pytest.raises(ValueError, match=r"of input 'sound' .* received \[40, 2, 3\]"):
        streamer.push([frames[1], *frames[1:]])
    x, other = keras.Input((None, 5)), keras.Input((1, 5), name="other")
    model = keras.Model([x, other], layers.GRU(8)(x + other))
    with pytest.raises(trp.ConversionError, match="all have an open time, or all one"):
        trp.Streamer(model)
