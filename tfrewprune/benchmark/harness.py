# SPDX-License-Identifier: Apache-2.0
"""Layers x structures x rates x threads x kernels, beside LiteRT's dense XNNPACK."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter

from tfrewprune.benchmark.compare import time_pair
from tfrewprune.benchmark.layers import Layer, build_model, load_layers
from tfrewprune.benchmark.machine import fill_seconds, measure_machine
from tfrewprune.benchmark.packing import pack_every_layer
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.runtime import Interpreter

LAYER_TOLERANCE = 1e-4
"""Float32 sums in another order differ by less than this over the largest output."""


@dataclass(frozen=True)
class Sweep:
    """A product of things to measure.

    Attributes:
        shapes: Name of a list in `shapes/`, or a file.
        structures: Names as in `pruned_weights`.
        rates: Weights / surviving weights.
        threads: Thread counts.
        isas: Kernels; None is the best of this CPU.
        only: Layers to take from the list; empty takes all.
    """

    shapes: str
    structures: tuple[str, ...] = ("block16x1",)
    rates: tuple[float, ...] = (8,)
    threads: tuple[int, ...] = (1,)
    isas: tuple[str | None, ...] = (None,)
    only: tuple[str, ...] = ()

    def layers(self) -> list[Layer]:
        """The layers of the list.

        Raises:
            ValueError: If `only` names a layer the list does not have.
        """
        layers = load_layers(self.shapes)
        missing = set(self.only) - {layer.name for layer in layers}
        if missing:
            raise ValueError(f"{self.shapes} has no layer {sorted(missing)}.")
        return [layer for layer in layers if not self.only or layer.name in self.only]


_SQUARES = ("conv3x3_56_64", "conv3x3_28_128", "conv3x3_14_256", "conv3x3_7_512")
_STRIDED = tuple(name.replace("3x3", "3x3s2") for name in _SQUARES)
_DENSE = ("fc_1024", "fc_4096", "fc_2048_1000")

DEFAULT_PLAN = (
    Sweep("goals", rates=(4, 8, 16)),
    Sweep(
        "goals",
        ("block8x1", "block4x1", "pattern16", "unstructured", "pattern1"),
        rates=(8, 16),
        only=_SQUARES,
    ),
    Sweep("goals", ("unstructured",), rates=(8, 16), only=_STRIDED + _DENSE),
    Sweep("goals", rates=(4,), isas=("avx2", "portable"), only=("conv3x3_28_128",)),
    Sweep("goals", ("unstructured",), rates=(8, 16), isas=("avx2",), only=_SQUARES),
    Sweep("goals", rates=(4, 8), threads=(2,), only=_SQUARES),
    Sweep("resnet50"),
    Sweep("vgg16"),
    Sweep("mobilenet_v2"),
    # The other sizes of the list are among the goals.
    Sweep(
        "gemv",
        rates=(4, 8, 16),
        only=("fc_256", "fc_512", "gru_1024_gates", "fc_1024_batch8"),
    ),
)
"""What `make bench` measures, beside whole models: every layer list at 8x, and the
shapes that speed goals are stated for at all their rates."""


@dataclass(frozen=True)
class Row:
    """One measured layer. Times in seconds, medians over alternating rounds: processor
    time on one thread, wall time on more.

    Attributes:
        shapes: List the layer is from.
        layer: Its name.
        structure: What was removed.
        rate: Asked for: weights / surviving weights.
        kept: Fraction of weights that survived.
        threads: Threads of both interpreters.
        isa: Kernels that ran.
        dense_seconds: LiteRT with XNNPACK.
        packed_seconds: Ours.
        ratio: dense / packed, median of the rounds' ratios.
        ratio_p10: 10th percentile.
        ratio_p90: 90th percentile.
        rounds: How many rounds.
        flops_done: FLOP/s on surviving weights: 2 for each output pixel that a weight
            meets inside the image. Multiplying padding is no work.
        flops_dense: FLOP/s if the removed weights counted as work.
        dense_flops: FLOP/s of LiteRT's dense layer.
        share_of_peak: `flops_done` over the FMA peak measured in this run, or None.
        bytes_moved: Input + output + payload, each once.
        share_of_bandwidth: Least time to move those bytes, at the bandwidth measured
            for a working set of this size, over our time; or None.
        share_of_stores: Time to fill a buffer of the output's size, measured in this
            run, over our time; or None.
        payload_overhead: Payload bytes over the bytes of the surviving weights.
        error: Largest output difference over the largest output.
    """

    shapes: str
    layer: str
    structure: str
    rate: float
    kept: float
    threads: int
    isa: str
    dense_seconds: float
    packed_seconds: float
    ratio: float
    ratio_p10: float
    ratio_p90: float
    rounds: int
    flops_done: float
    flops_dense: float
    dense_flops: float
    share_of_peak: float | None
    bytes_moved: int
    share_of_bandwidth: float | None
    share_of_stores: float | None
    payload_overhead: float
    error: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_sweeps(
    sweeps: Iterable[Sweep],
    *,
    min_seconds: float = 0.6,
    tune: str | None = None,
    skipped: Callable[[str], None] = lambda reason: None,
) -> Iterator[Row]:
    """Measures every combination of every sweep, one after the other.

    Args:
        sweeps: What to measure.
        min_seconds: Time spent on one row's timing.
        tune: "once" measures drivers before, see `Interpreter`.
        skipped: Called with the reason for each combination that this CPU or that
            layer does not allow.

    Yields:
        One row a combination.
    """
    for sweep in sweeps:
        for layer in sweep.layers():
            for combination in itertools.product(
                sweep.structures, sweep.rates, sweep.threads, sweep.isas
            ):
                try:
                    yield measure_layer(
                        layer,
                        *combination,
                        min_seconds=min_seconds,
                        tune=tune,
                        where=sweep.shapes,
                    )
                except ValueError as error:
                    skipped(f"{layer.name} {combination}: {error}")


def measure_layer(
    layer: Layer,
    structure: str = "block16x1",
    rate: float = 8,
    threads: int = 1,
    isa: str | None = None,
    *,
    min_seconds: float = 0.6,
    tune: str | None = None,
    where: str = "",
) -> Row:
    """Prunes a layer, packs it, checks it against the dense one and times both.

    Args:
        layer: The geometry.
        structure: See `pruned_weights`.
        rate: Weights / surviving weights.
        threads: Threads of both interpreters.
        isa: Kernels, or None for the best.
        min_seconds: Time spent on timing.
        tune: "once" measures drivers before, see `Interpreter`.
        where: Name of the list, for the row.

    Returns:
        The figures.

    Raises:
        ValueError: If the structure does not fit or the CPU lacks `isa`.
        WrongResultError: If ours computes something else than LiteRT.
    """
    weights = pruned_weights(layer, structure, rate)
    generator = np.random.default_rng(1)
    bias = generator.standard_normal(layer.outputs).astype(np.float32)
    dense_model = build_model(layer, weights, bias)
    packed_model, payload_bytes = pack_every_layer(dense_model)
    candidate = Interpreter(
        model_content=packed_model, num_threads=threads, isa=isa, tune=tune
    )
    inputs = generator.standard_normal(layer.input_shape).astype(np.float32)
    measurement, error = time_pair(
        LiteRtInterpreter(model_content=dense_model, num_threads=threads),
        candidate,
        [inputs],
        threads=threads,
        tolerance=LAYER_TOLERANCE,
        min_seconds=min_seconds,
    )
    kept = int(np.count_nonzero(weights))
    seconds = measurement.timing("packed").median
    dense_seconds = measurement.timing("dense").median
    ratio = measurement.ratio("dense", "packed")
    machine = measure_machine(candidate.isa, threads)
    written = 4 * layer.pixels * layer.outputs
    read = inputs.nbytes + payload_bytes
    least = machine.least_seconds(read, written)
    fill = fill_seconds(candidate.isa, written, threads)
    by_tap = weights.reshape(layer.outputs, -1, layer.inputs)
    kept_by_tap = np.count_nonzero(by_tap, axis=(0, 2))
    flops_done = 2 * int(kept_by_tap @ layer.tap_pixels.ravel()) / seconds
    return Row(
        shapes=where,
        layer=layer.name,
        structure=structure,
        rate=rate,
        kept=kept / weights.size,
        threads=threads,
        isa=candidate.isa,
        dense_seconds=dense_seconds,
        packed_seconds=seconds,
        ratio=ratio.median,
        ratio_p10=ratio.p10,
        ratio_p90=ratio.p90,
        rounds=measurement.rounds,
        flops_done=flops_done,
        flops_dense=2 * layer.macs / seconds,
        dense_flops=2 * layer.macs / dense_seconds,
        share_of_peak=flops_done / machine.peak if machine.peak else None,
        bytes_moved=read + written,
        share_of_bandwidth=least / seconds if least is not None else None,
        share_of_stores=fill / seconds if fill is not None else None,
        payload_overhead=payload_bytes / max(4 * kept, 1),
        error=error,
    )
