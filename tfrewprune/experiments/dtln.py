# SPDX-License-Identifier: Apache-2.0
"""DTLN, a trained LSTM noise suppressor, in the fused operator: dense and pruned.

The network of `models/dtln` (2 x LSTM(128), a mask of 257 bands, one frame of 8 ms a
call) comes as a `.tflite` whose LSTMs are single steps written out.

- ``dense``: as it is, with the LSTMs in the fused operator;
- ``one-shot-Rx``: pruned in the file by :func:`tfrewprune.prune_one_shot`, from 1,000
  frames and the states that belong to them;
- ``distilled-Rx``: what one-shot left, retrained in Keras towards the masks of the
  dense network, and put back into the file.

All are `Block(16, 1)` on the LSTMs' matrices. The figures are those of spoken digits in
synthetic noise (see `dtln_audio`), which is not what DTLN was trained on: the
signal-to-noise ratio between the output of the dense network and the pruned one's, and
how near both come to the clean signal.

Run ``python -m tfrewprune.experiments.dtln``; ``--stages train`` and then ``--stages
time`` on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfrewprune.converter.files import write_atomically
from tfrewprune.experiments import datasets, dtln_audio, runs, training

RATES = (2, 3, 4)
METHODS = (
    "dense",
    *(f"{how}-{rate}x" for how in ("one-shot", "distilled") for rate in RATES),
)
_STATES = (1, 2, 128, 2)


def source() -> bytes:
    """The network as it was published.

    Raises:
        FileNotFoundError: it is not there.
    """
    return datasets.model_path("dtln/model_1.tflite").read_bytes()


def loaded(content: bytes, packed: bool) -> Any:
    """An interpreter for the file, on one thread: LiteRT's where it is dense."""
    from ai_edge_litert.interpreter import Interpreter as LiteRt

    import tfrewprune

    made = tfrewprune.Interpreter if packed else LiteRt
    interpreter = made(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter


def masks_of(interpreter: Any, magnitudes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs the network frame by frame.

    Args:
        interpreter: See `loaded`.
        magnitudes: ``[n, frames, 257]``.

    Returns:
        Masks, likewise, and the states before each frame, ``[n, frames, 2, 128, 2]``.
    """
    x, states = (detail["index"] for detail in interpreter.get_input_details())
    outputs = [detail["index"] for detail in interpreter.get_output_details()]
    masks = np.zeros(magnitudes.shape, np.float32)
    before = np.zeros((*magnitudes.shape[:2], *_STATES[1:]), np.float32)
    for number, frames in enumerate(magnitudes):
        state = np.zeros(_STATES, np.float32)
        for place, frame in enumerate(frames):
            before[number, place] = state[0]
            interpreter.set_tensor(x, frame[None, None].astype(np.float32))
            interpreter.set_tensor(states, state)
            interpreter.invoke()
            masks[number, place] = interpreter.get_tensor(outputs[0])[0, 0]
            state = interpreter.get_tensor(outputs[1])
    return masks, before


def one_shot(content: bytes, rate: float, count: int) -> bytes:
    """The file with the LSTMs' products pruned without training."""
    import tfrewprune

    noisy, _ = dtln_audio.mixtures("train", 10, 2.0)
    magnitudes = np.abs(dtln_audio.spectra(noisy)).astype(np.float32)
    _, states = masks_of(loaded(content, False), magnitudes)
    frames = magnitudes.reshape(-1, 1, 1, dtln_audio.BANDS)
    chosen = np.random.default_rng(0).choice(len(frames), count, replace=False)
    result = tfrewprune.prune_one_shot(
        content,
        [frames[chosen, 0], states.reshape(-1, *_STATES[1:])[chosen]],
        recipe=tfrewprune.Recipe(lstm_rules(content), rate=rate),
    )
    return result.model


def lstm_rules(content: bytes) -> list:
    """A rule for each product of an LSTM: all dense layers but the last."""
    import tfrewprune

    layers = tfrewprune.inspect_model(content)
    products = [layer.name for layer in layers if layer.shape[0] == 512]
    return [
        tfrewprune.Rule(products, structure=tfrewprune.Block(16, 1)),
        tfrewprune.Rule("*", skip=True),
    ]


def distilled(content: bytes, pruned: bytes, epochs: int, count: int) -> bytes:
    """The pruned file with weights that Keras has trained towards the dense masks.

    Args:
        content: The dense file.
        pruned: What `one_shot` made of it; its zeros stay.
        epochs: Length of the training.
        count: Recordings of 0.9 seconds to train with.
    """
    import keras

    import tfrewprune

    keras.utils.set_random_seed(0)
    path = datasets.model_path("dtln/dtln_mask1.keras")
    model = keras.models.load_model(path, compile=False)
    noisy, _ = dtln_audio.mixtures("train", count, 0.9)
    x = np.abs(dtln_audio.spectra(noisy)).astype(np.float32)
    y = model.predict(x, batch_size=50, verbose=0)
    model.set_weights(weights_of(pruned))
    rule = tfrewprune.Rule(kind="LSTM", structure=tfrewprune.Block(16, 1))
    recipe = tfrewprune.Recipe(rule, retrain_epochs=epochs)
    tfrewprune.mask_zeros(model, recipe)
    steps = epochs * -(-count // 20)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
    model.compile(keras.optimizers.Adam(rate), "mse")
    tfrewprune.masked_retrain(model, recipe, x, y, batch_size=20, verbose=0)
    return with_weights(content, tfrewprune.strip(model).get_weights())


def weights_of(content: bytes) -> list[np.ndarray]:
    """The weights of a file, in the order of the Keras model."""
    from tfrewprune.converter.flatbuffer import read_model
    from tfrewprune.converter.recurrent.foreign import find_cells
    from tfrewprune.converter.recurrent.view import View

    model = read_model(content)
    view = View(model, model.subgraphs[0])
    found = []
    for _, cell in find_cells(view):
        found += [cell.kernel.T, cell.recurrent.T, cell.bias]
    (last,) = [op for op in view.subgraph.operators if _is_last(view, op)]
    _, kernel, bias = (int(tensor) for tensor in last.inputs)
    return [*found, view.floats(kernel).T, view.floats(bias)]


def _is_last(view: Any, operator: Any) -> bool:
    """Whether an operator is the dense layer behind the LSTMs."""
    dense = view.name(operator) == "FULLY_CONNECTED"
    return dense and view.shape(int(operator.outputs[0]))[-1] == dtln_audio.BANDS


def with_weights(content: bytes, weights: Sequence[np.ndarray]) -> bytes:
    """The file with other weights: those of the Keras model, in its order."""
    from ai_edge_litert import schema_py_generated as schema

    from tfrewprune.converter.flatbuffer import index_list, read_model, write_model

    model = read_model(content)
    graph = model.subgraphs[0]
    name = schema.BuiltinOperator.FULLY_CONNECTED

    def put(tensor: int, values: np.ndarray) -> None:
        data = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8)
        model.tree.buffers.append(schema.BufferT(data=data))
        graph.tensors[tensor].buffer = len(model.tree.buffers) - 1

    products = [op for op in graph.operators if model.builtin_code(op) == name]
    biases = [
        tensor
        for op in graph.operators
        for tensor in index_list(op.inputs)
        if tensor >= 0
        and list(graph.tensors[tensor].shape) == [512]
        and model.data(graph.tensors[tensor]) is not None
    ]
    for product, place in zip(products, (0, 1, 3, 4, 6), strict=True):
        put(int(product.inputs[1]), weights[place].T)
    for bias, place in zip(biases, (2, 5), strict=True):
        put(bias, weights[place])
    put(int(products[-1].inputs[2]), weights[7])
    return write_model(model)


def quality(content: bytes, packed: bytes, count: int) -> dict[str, Any]:
    """What a packed network does to test recordings, beside the dense one."""
    noisy, clean = dtln_audio.mixtures("test", count, 2.0)
    spectra = dtln_audio.spectra(noisy)
    magnitudes = np.abs(spectra)
    dense, _ = masks_of(loaded(content, False), magnitudes)
    mask, _ = masks_of(loaded(packed, True), magnitudes)
    before, after = (dtln_audio.joined(spectra * m) for m in (dense, mask))
    length = before.shape[1]
    ratio = dtln_audio.distortion_ratio
    given = ratio(clean[:, :length], noisy[:, :length])
    return {
        "snr_to_dense_db": dtln_audio.signal_to_noise(before, after),
        "mask_difference": float(np.abs(dense - mask).mean()),
        "largest_mask_difference": float(np.abs(dense - mask).max()),
        "si_sdr_noisy_db": given,
        "si_sdr_gain_dense_db": ratio(clean[:, :length], before) - given,
        "si_sdr_gain_db": ratio(clean[:, :length], after) - given,
    }


def speed(content: bytes, packed: bytes, seconds: float) -> dict[str, float]:
    """Microseconds of a frame, in turn with LiteRT's dense network, one thread."""
    from tfrewprune.benchmark.measure import clock_for, interleave

    runners = {"dense": loaded(content, False), "packed": loaded(packed, True)}
    random = np.random.default_rng(0)
    for interpreter in runners.values():
        for detail in interpreter.get_input_details():
            values = random.uniform(0, 1, detail["shape"]).astype(np.float32)
            interpreter.set_tensor(detail["index"], values)
    measured = interleave(
        {name: one.invoke for name, one in runners.items()},
        min_seconds=seconds,
        clock=clock_for(1),
    )
    return {
        "dense_us": measured.timing("dense").median * 1e6,
        "packed_us": measured.timing("packed").median * 1e6,
        "speed_up": measured.ratio("dense", "packed").median,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Trains, measures and times what is not in the file of results yet."""
    import tfrewprune

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    stages = ("train", "time")
    parser.add_argument("--stages", nargs="+", choices=stages, default=stages)
    parser.add_argument("--models", type=Path, default=Path("build/experiments/dtln"))
    parser.add_argument("--epochs", type=int, default=5, help="of a retraining")
    parser.add_argument("--recordings", type=int, default=250, help="to train with")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each timing")
    default = runs.RESULTS / "dtln.json"
    parser.add_argument("--results", type=Path, default=default)
    options = parser.parse_args(arguments)
    training.limit_threads(1)
    options.models.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict] = {}
    if options.results.exists():
        found = json.loads(options.results.read_text(encoding="utf-8"))["methods"]
    content = source()

    def keep(method: str, figures: dict) -> None:
        found.setdefault(method, {}).update(figures)
        text = json.dumps({"methods": found, **runs.environment()}, indent=1)
        write_atomically(options.results, f"{text}\n".encode())
        shown = (f"{k} {v:.4g}" for k, v in figures.items())
        print(f"{method}: {', '.join(shown)}", flush=True)

    for method in options.methods:
        path = options.models / f"{method}.tflite"
        if "train" in options.stages and "snr_to_dense_db" not in found.get(method, {}):
            how, _, rate = method.rpartition("-")
            pruned = content
            if how:
                pruned = one_shot(content, float(rate[:-1]), 1000)
            if how == "distilled":
                amount = (options.epochs, options.recordings)
                pruned = distilled(content, pruned, *amount)
            packed = tfrewprune.convert(pruned, path)
            figures = quality(content, bytes(packed), 20)
            keep(method, figures | {"bytes": len(packed), "dense_bytes": len(content)})
        if "time" in options.stages:
            keep(method, speed(content, path.read_bytes(), options.seconds))


if __name__ == "__main__":
    main()
