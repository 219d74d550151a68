# SPDX-License-Identifier: Apache-2.0
"""Recurrent networks: the fused operator beside LiteRT's dense loops.

    python -m tfrewprune.benchmark.recurrent gru:1024:39:30:2 --rates 1 10 30 100

A network is CELL:UNITS:FEATURES:STEPS:LAYERS with random weights, pruned at random in
blocks of 16 outputs. All that is timed runs in turn in one process, after the outputs
have been compared: the packed file; the same unpacked, whose loop has one product of
all steps before it; what TensorFlow makes of the Keras model by itself; and of LSTMs
what LiteRT has an operator for, UNIDIRECTIONAL_SEQUENCE_LSTM.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter
from rich.console import Console
from rich.table import Table

from tfrewprune.benchmark.compare import random_inputs, run_once
from tfrewprune.benchmark.measure import (
    Measurement,
    check_results,
    clock_for,
    interleave,
)
from tfrewprune.benchmark.table import print_table
from tfrewprune.converter import convert, options
from tfrewprune.converter.conversion import read_content
from tfrewprune.converter.flatbuffer import (
    index_list,
    read_model,
    tensor_shape,
    write_model,
)
from tfrewprune.converter.recurrent.streaming import drop_dead_operators
from tfrewprune.converter.tracing import save_for_inference
from tfrewprune.converter.unpack import unpack_model
from tfrewprune.runtime import Interpreter

_BLOCK = 16


@dataclass(frozen=True)
class RecurrentRow:
    """One network at one rate.

    Attributes:
        network: CELL:UNITS:FEATURES:STEPS:LAYERS.
        rate: Weights over surviving weights.
        weights: Type of the packed weights.
        threads: Threads of all.
        batch: Sequences of a call.
        packed_ms: Time of a call, packed.
        loop_ratio: How many times as long our dense loop takes in LiteRT.
        tensorflow_ratio: The same for TensorFlow's own loop.
        fused_ratio: The same for LiteRT's own fused operator; None but for LSTMs.
        error: Largest difference of outputs over the largest output.
        bytes_ratio: Bytes of the file over those of surviving weights and biases.
    """

    network: str
    rate: float
    weights: str
    threads: int
    batch: int
    packed_ms: float
    loop_ratio: float
    tensorflow_ratio: float
    fused_ratio: float | None
    error: float
    bytes_ratio: float


def measure_network(
    network: str,
    rate: float,
    *,
    weights: str = "keep",
    threads: int = 1,
    batch: int = 1,
    min_seconds: float = 3.0,
) -> RecurrentRow:
    """Builds, converts, checks and times one network.

    Args:
        network: CELL:UNITS:FEATURES:STEPS:LAYERS, CELL one of gru, lstm, rnn.
        rate: Weights over surviving weights, at least 1.
        weights: See `convert`.
        threads: Threads of all.
        batch: Sequences of a call.
        min_seconds: How long to measure.

    Raises:
        WrongResultError: If outputs differ.
        ValueError: If the network is not of that form.
    """
    model = _network(network, rate, batch)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(model, folder, weights=weights, batch=batch)
        if network.startswith("lstm"):
            fused = _by_sequence_lstm(paths["packed"].read_bytes(), batch)
            paths["fused"] = Path(folder) / "fused.tflite"
            paths["fused"].write_bytes(fused)
        measurement, error = compare_files(
            folder,
            threads=threads,
            batch=batch,
            tolerance=1e-4 if weights == "keep" else 1e-2,
            min_seconds=min_seconds,
        )
        packed_bytes = paths["packed"].stat().st_size
    kept = sum(int(np.count_nonzero(w)) for w in model.get_weights())
    return RecurrentRow(
        *(network, rate, weights, threads, batch),
        measurement.timing("packed").median * 1e3,
        measurement.ratio("loop", "packed").median,
        measurement.ratio("tensorflow", "packed").median,
        measurement.ratio("fused", "packed").median if "fused" in paths else None,
        error,
        packed_bytes / (kept * (4 if weights == "keep" else 2)),
    )


def write_files(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    weights: str = "keep",
    batch: int = 1,
) -> dict[str, Path]:
    """Writes what is timed of a recurrent Keras model with fixed shapes.

    Args:
        model: Built, pruned or not.
        folder: Made if it is not there.
        weights: See `convert`.
        batch: Batch of the model's input.

    Returns:
        Paths of the `"packed"` model, of the dense `"loop"` that it unpacks to, and of
        what `"tensorflow"` writes by itself.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    dense = read_content(model)
    with tempfile.TemporaryDirectory() as saved:
        save_for_inference(model, Path(saved), batch, whole=False)
        tensorflow = read_content(saved)
    contents = {
        "packed": convert(dense, weights=weights, verify=False),
        "loop": dense,
        "tensorflow": tensorflow,
    }
    paths = {name: place / f"{name}.tflite" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


def compare_files(
    folder: str | os.PathLike[str],
    *,
    threads: int = 1,
    batch: int = 1,
    tolerance: float = 1e-4,
    min_seconds: float = 3.0,
) -> tuple[Measurement, float]:
    """Checks and times the files that `write_files` wrote, in turn.

    Args:
        folder: Where they are; `fused.tflite`, LiteRT's own LSTM, if there is one.
        threads: Threads of all.
        batch: What an open batch becomes.
        tolerance: Largest allowed difference of outputs, over the largest output, of
            the packed model.
        min_seconds: How long to measure.

    Returns:
        The times, and the largest difference of the packed model's outputs over the
        largest output.

    Raises:
        WrongResultError: If outputs differ.
    """
    place = Path(folder)
    interpreters = {
        name: kind(model_path=str(place / f"{name}.tflite"), num_threads=threads)
        for name, kind in (
            ("packed", Interpreter),
            ("loop", LiteRtInterpreter),
            ("tensorflow", LiteRtInterpreter),
            ("fused", LiteRtInterpreter),
        )
        if (place / f"{name}.tflite").exists()
    }
    inputs = [
        np.random.default_rng(0).standard_normal((batch, *given.shape[1:]), np.float32)
        for given in random_inputs(interpreters["loop"])
    ]
    outputs = {name: run_once(one, inputs) for name, one in interpreters.items()}
    error = check_results(outputs["loop"], outputs["packed"], tolerance=tolerance)
    for name in outputs.keys() - {"loop", "packed"}:
        check_results(outputs["loop"], outputs[name], tolerance=1e-4)
    measurement = interleave(
        {name: one.invoke for name, one in interpreters.items()},
        min_seconds=min_seconds,
        clock=clock_for(threads),
    )
    return measurement, error


def _network(network: str, rate: float, batch: int) -> Any:
    import keras

    layers = keras.layers
    cells = {"gru": layers.GRU, "lstm": layers.LSTM, "rnn": layers.SimpleRNN}
    name, *numbers = network.split(":")
    if name not in cells or len(numbers) != 4 or not all(map(str.isdigit, numbers)):
        raise ValueError(
            f"a network must be CELL:UNITS:FEATURES:STEPS:LAYERS, received {network!r}"
        )
    units, features, steps, depth = map(int, numbers)
    keras.utils.set_random_seed(0)
    stack = [cells[name](units, return_sequences=True) for _ in range(depth)]
    model = keras.Sequential([keras.Input((steps, features), batch_size=batch), *stack])
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if weight.path.endswith("bias"):
            weight.assign(0.1 * generator.standard_normal(weight.shape))
        elif rate > 1:
            rows, columns = weight.shape
            blocks = -(-columns // _BLOCK)
            kept = np.zeros(rows * blocks, bool)
            chosen = generator.permutation(rows * blocks)
            kept[chosen[: max(1, round(rows * blocks / rate))]] = True
            mask = np.repeat(kept.reshape(rows, blocks), _BLOCK, 1)[:, :columns]
            weight.assign(weight.numpy() * mask)
    return model


def _by_sequence_lstm(packed: bytes, batch: int) -> bytes:
    """The dense model with LiteRT's own operator for each packed LSTM."""
    model = read_model(packed)
    (graph,) = model.subgraphs
    for operator in graph.operators:
        if model.custom_code(operator) != options.LSTM:
            continue
        layer = options.decode(options.LSTM, bytes(bytearray(operator.customOptions)))
        inputs, outputs = index_list(operator.inputs), index_list(operator.outputs)
        units = tensor_shape(graph.tensors[outputs[0]])[-1]
        for place in (7, 8):
            state = schema.TensorT(
                shape=np.array([batch, units], np.int32),
                type=schema.TensorType.FLOAT32,
                isVariable=True,
                hasRank=True,
            )
            graph.tensors.append(state)
            inputs[place] = len(graph.tensors) - 1
        operator.inputs = np.array(inputs, np.int32)
        operator.outputs = np.array(outputs[:1], np.int32)
        stateful = replace(layer, stateful=1).encode()
        operator.customOptions = np.frombuffer(stateful, np.uint8)
    unpack_model(model)
    drop_dead_operators(graph)
    return write_model(model)


def _table(rows: list[RecurrentRow]) -> Table:
    table = Table(title="Recurrent networks, whole sequences")
    for head in (
        *("network", "rate", "weights", "threads", "batch", "packed ms"),
        *("to our dense loop", "to TensorFlow's", "to LiteRT's fused LSTM"),
        "bytes / surviving",
    ):
        table.add_column(head, justify="left" if head == "network" else "right")
    for row in rows:
        table.add_row(
            *(row.network, f"{row.rate:g}x", row.weights, str(row.threads)),
            str(row.batch),
            f"{row.packed_ms:.3f}",
            f"{row.loop_ratio:.2f}x",
            f"{row.tensorflow_ratio:.2f}x",
            "" if row.fused_ratio is None else f"{row.fused_ratio:.2f}x",
            f"{row.bytes_ratio:.3f}",
        )
    return table


def main(words: list[str] | None = None) -> int:
    """Measures the networks of the command line; JSON lines and a table."""
    parser = argparse.ArgumentParser(
        prog="python -m tfrewprune.benchmark.recurrent",
        description="The fused recurrent operator beside LiteRT's dense loops.",
    )
    parser.add_argument("networks", nargs="+", help="CELL:UNITS:FEATURES:STEPS:LAYERS")
    parser.add_argument("--rates", nargs="+", type=float, default=[1.0])
    parser.add_argument("--weights", choices=("keep", "float16"), default="keep")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="sequences of a call")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--output", help="file that JSON lines are added to")
    given = parser.parse_args(words)
    rows = []
    for network in given.networks:
        for rate in given.rates:
            rows.append(
                measure_network(
                    *(network, rate),
                    weights=given.weights,
                    threads=given.threads,
                    batch=given.batch,
                    min_seconds=given.seconds,
                )
            )
            if given.output:
                with open(given.output, "a") as file:
                    file.write(json.dumps(asdict(rows[-1])) + "\n")
    print_table(Console(), _table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
