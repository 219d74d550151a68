# SPDX-License-Identifier: Apache-2.0
"""Other engines on the same layers and weights, in turn with ours."""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter
from rich.table import Table

from tfrewprune.benchmark.compare import run_once
from tfrewprune.benchmark.harness import LAYER_TOLERANCE
from tfrewprune.benchmark.layers import Layer, build_model, load_layers
from tfrewprune.benchmark.measure import check_results, clock_for, interleave
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.runtime import Interpreter

ENGINES = ("onnxruntime", "deepsparse", "mnn")
_AVX2 = "ours, AVX2"
"""Our kernels without AVX-512, beside engines that have none."""
LAYERS = (
    "conv3x3_56_64",
    "conv3x3_28_128",
    "conv3x3_14_256",
    "conv3x3_7_512",
    "conv1x1_14_256_1024",
    "fc_4096",
)
STRUCTURES = ("block16x1", "unstructured")
RATES = (8, 16)
_ROUNDS = 9


class PeerError(RuntimeError):
    """Another engine is missing, or failed."""


class Peer:
    """A child process that runs layers in one engine.

    Args:
        engine: One of `ENGINES`.
        python: Interpreter that has the engine installed.
    """

    def __init__(self, engine: str, python: str = sys.executable) -> None:
        self.engine = engine
        script = resources.files("tfrewprune.benchmark").joinpath("peer_engine.py")
        self._child = subprocess.Popen(
            [python, os.fspath(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def load(self, path: Path, threads: int) -> tuple[str, np.ndarray]:
        """Loads a layer; returns the engine's version and the layer's output.

        Raises:
            PeerError: If the engine is missing or cannot run the layer.
        """
        output = path.with_name("output.npy")
        answer = self._ask(
            load=str(path), engine=self.engine, threads=threads, output=str(output)
        )
        return answer["version"], np.load(output)

    def time(self, seconds: float) -> float:
        """Median seconds of one call, over a block of that length."""
        return self._ask(time=seconds)["seconds"]

    def close(self) -> None:
        """Ends the child process."""
        self._child.terminate()
        self._child.communicate()

    def _ask(self, **order: Any) -> dict[str, Any]:
        try:
            self._child.stdin.write(json.dumps(order) + "\n")
            self._child.stdin.flush()
            answer = json.loads(self._child.stdout.readline() or "{}")
        except BrokenPipeError:
            answer = {}
        if not answer:
            answer = {"error": "the process ended"}
        if "error" in answer:
            raise PeerError(f"{self.engine}: {answer['error']}")
        return answer


def measure_peers(
    python: str = sys.executable,
    *,
    layers: Iterable[Layer] | None = None,
    structures: Iterable[str] | None = None,
    rates: Iterable[float] | None = None,
    threads: int = 1,
    skipped: Callable[[str], None] = lambda reason: None,
) -> Iterator[dict[str, Any]]:
    """Times our kernels, LiteRT dense and the other engines on the same layers.

    Args:
        python: Interpreter that has the engines; their dependencies need not agree
            with ours.
        layers: What to run; None takes those of the goals in `LAYERS`.
        structures: Names as in `pruned_weights`; None takes `STRUCTURES`.
        rates: Weights / surviving weights; None takes `RATES`.
        threads: Threads of everybody.
        skipped: Called with the reason when an engine is missing or fails.

    Yields:
        One JSON-able record a layer, structure and rate: seconds by engine.
    """
    if layers is None:
        layers = [layer for layer in load_layers("goals") if layer.name in LAYERS]
    peers = [Peer(engine, python) for engine in ENGINES]
    try:
        for layer, structure, rate in itertools.product(
            layers, structures or STRUCTURES, rates or RATES
        ):
            yield _measure(layer, structure, rate, threads, peers, skipped)
    finally:
        for peer in peers:
            peer.close()


def peer_table(records: Iterable[dict[str, Any]]) -> Table:
    """Makes the table of the engines that ran."""
    records = list(records)
    ran = {name for record in records for name in record["seconds"]}
    engines = [name for name in ("ours", _AVX2, "litert", *ENGINES) if name in ran]
    table = Table(title="Engines on the same layers, milliseconds")
    for head in ("layer", "structure"):
        table.add_column(head)
    for head in ("rate", *engines, "ours vs best other"):
        head = "LiteRT dense" if head == "litert" else head
        table.add_column(head, justify="right")
    for record in records:
        seconds = record["seconds"]
        others = [seconds[name] for name in seconds if name not in ("ours", _AVX2)]
        table.add_row(
            record["layer"],
            record["structure"],
            f"{record['rate']:g}x",
            *(
                f"{seconds[name] * 1e3:.4f}" if name in seconds else "-"
                for name in engines
            ),
            f"{min(others) / seconds['ours']:.2f}x",
        )
    return table


def _measure(
    layer: Layer,
    structure: str,
    rate: float,
    threads: int,
    peers: Iterable[Peer],
    skipped: Callable[[str], None],
) -> dict[str, Any]:
    weights = pruned_weights(layer, structure, rate)
    generator = np.random.default_rng(1)
    bias = generator.standard_normal(layer.outputs).astype(np.float32)
    values = generator.standard_normal(layer.input_shape).astype(np.float32)
    dense_model = build_model(layer, weights, bias)
    dense = LiteRtInterpreter(model_content=dense_model, num_threads=threads)
    packed = pack_every_layer(dense_model)[0]
    ours = {"ours": Interpreter(model_content=packed, num_threads=threads)}
    if ours["ours"].isa == "avx512":
        ours[_AVX2] = Interpreter(model_content=packed, num_threads=threads, isa="avx2")
    expected = run_once(dense, [values])
    for interpreter in ours.values():
        check_results(
            expected, run_once(interpreter, [values]), tolerance=LAYER_TOLERANCE
        )
    here = {name: interpreter.invoke for name, interpreter in ours.items()}
    here["litert"] = dense.invoke
    times: dict[str, list[float]] = {name: [] for name in here}
    versions = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.npz"
        _save(path, layer, weights, bias, values, filters_of(structure))
        able = []
        for peer in peers:
            try:
                versions[peer.engine], output = peer.load(path, threads)
            except PeerError as error:
                skipped(f"{layer.name}: {error}")
                continue
            if output.ndim == 4:
                output = output.transpose(0, 2, 3, 1)
            check_results(
                expected, [output], tolerance=LAYER_TOLERANCE, what=peer.engine
            )
            able.append(peer)
            times[peer.engine] = []
        for _ in range(_ROUNDS):
            turn = interleave(
                here,
                min_seconds=0,
                min_rounds=1,
                block_seconds=0.02,
                warm_up_seconds=0.002,
                clock=clock_for(threads),
            )
            for name in here:
                times[name].append(turn.timing(name).median)
            for peer in able:
                times[peer.engine].append(peer.time(0.02))
    return {
        "layer": layer.name,
        "structure": structure,
        "rate": rate,
        "threads": threads,
        "isa": ours["ours"].isa,
        "seconds": {name: float(np.median(blocks)) for name, blocks in times.items()},
        "versions": versions,
    }


def filters_of(structure: str) -> int:
    """How many neighbouring filters a structure's name says share their columns."""
    block = re.match(r"block(\d+)x", structure)
    return int(block[1]) if block else 1


def _save(path: Path, layer: Layer, weights, bias, values, block: int = 1) -> None:
    """Writes the layer as ONNX wants it: NCHW, explicit padding."""
    shape, pads = layer.output_shape, [0] * 4
    if not layer.is_dense:
        kernels = weights.reshape(layer.outputs, *layer.kernel, layer.inputs)
        weights = np.ascontiguousarray(kernels.transpose(0, 3, 1, 2))
        values = np.ascontiguousarray(values.transpose(0, 3, 1, 2))
        shape = (shape[0], shape[3], shape[1], shape[2])
        # TFLite's SAME padding puts the odd row and column at the end.
        for axis, size in enumerate((layer.height, layer.width)):
            reach = (layer.kernel[axis] - 1) * layer.dilation + 1
            count = -(-size // layer.stride)
            total = max((count - 1) * layer.stride + reach - size, 0)
            pads[axis], pads[axis + 2] = total // 2, total - total // 2
    np.savez(
        path,
        block=np.array(block),
        weights=weights,
        bias=bias,
        input=values,
        output_shape=np.array(shape),
        pads=np.array(pads),
        strides=np.array([layer.stride] * 2),
        dilations=np.array([layer.dilation] * 2),
    )
