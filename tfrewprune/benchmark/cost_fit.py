# SPDX-License-Identifier: Apache-2.0
"""Fits the converter's cost model to measurements of this machine.

The converter decides with ``payload/cost.py`` whether a layer is packed and how; its
coefficients in ``payload/cost.json`` come from here, a set for each target:

    python -m tfrewprune.benchmark.cost_fit measure   # adds to cost_data.jsonl, minutes
    python -m tfrewprune.benchmark.cost_fit fit       # writes payload/cost.json

``measure`` forces every way to pack on layers of many sizes, geometries and rates and
times each beside LiteRT's dense layer; what the file has is not measured again. ``fit``
solves non-negative least squares on relative errors, one system for each of the model's
formulas. ARM is counted (``cost_counted.py``), Intel derived (``cost_derived.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter as LiteRtInterpreter
from rich.progress import track

from tfrewprune import payload
from tfrewprune.benchmark.compare import time_pair
from tfrewprune.benchmark.cost_counted import CORES, counted_times, read_counts
from tfrewprune.benchmark.cost_derived import intel_cost
from tfrewprune.benchmark.layers import Layer, build_model, parse_layers
from tfrewprune.benchmark.weights import pruned_weights
from tfrewprune.converter.files import write_atomically
from tfrewprune.converter.flatbuffer import read_model, write_model
from tfrewprune.converter.perform import perform
from tfrewprune.converter.plan import Decision, Settings, make_plan
from tfrewprune.payload.cost import VECTOR_BATCH, LayerShape
from tfrewprune.payload.cost_targets import this_target
from tfrewprune.payload.format import BAND_ROWS
from tfrewprune.payload.grouping import (
    RowSupport,
    neighbours,
    popcount,
    scattered_bands,
)
from tfrewprune.payload.irregular import IrregularPacking
from tfrewprune.payload.packer import Packing
from tfrewprune.runtime import Interpreter

DATA = Path(__file__).with_name("cost_data.jsonl")
# XNNPACK cannot be told to leave AVX-512 out, but on Zen 4 its peak is that of AVX2.
MEASURED = {
    "x86-avx512-zen5": "AMD EPYC Zen 5",
    "x86-avx512-zen4": "AMD EPYC Zen 4",
    "x86-avx2": "AMD EPYC Zen 4, AVX2 kernels",
}
COEFFICIENTS = Path(payload.__file__).with_name("cost.json")

LAYERS = parse_layers(
    """
    c3_56 conv 56x56 64->64 k3x3
    c3_28 conv 28x28 128->128 k3x3
    c3_28s conv 28x28 16->32 k3x3
    c3_14 conv 14x14 256->256 k3x3
    c3_7 conv 7x7 512->512 k3x3
    c3_28s2 conv 28x28 128->128 k3x3 s2
    c1_112 conv 112x112 16->96 k1x1
    c1_56 conv 56x56 64->256 k1x1
    c1_56n conv 56x56 144->24 k1x1
    c1_28n conv 28x28 512->128 k1x1
    c1_16 conv 16x16 32->64 k1x1
    c1_14 conv 14x14 1024->256 k1x1
    c1_7 conv 7x7 512->2048 k1x1
    c3_33d6 conv 33x33 128->128 k3x3 d6
    c3_65d18 conv 65x65 64->64 k3x3 d18
    c1x3_2k conv 1x2048 64->64 k1x3 d16
    c1x7_17 conv 17x17 128->128 k1x7
    c7x1_17 conv 17x17 128->192 k7x1
    c1_1 conv 1x1 512->512 k1x1
    c1_1s conv 1x1 144->576 k1x1
    f256 fc 256->256
    f1024 fc 1024->1024
    f2048 fc 2048->1000
    f4096 fc 4096->4096
    f512b fc 512->512 batch16
    """
)
KEPT = (0.5, 0.25, 0.125, 0.0625)
# Bytes of weights that stay in the cache from call to call.
CACHE_BYTES = 2_000_000


@dataclass(frozen=True)
class Sample:
    """One timed layer. Times in microseconds, one thread.

    Attributes:
        target: The kind of processor.
        rows: Output channels.
        columns: Columns of the weight matrix.
        pixels: Output positions.
        taps: Kernel height x width.
        band_rows: R, or 0 for a layer packed without bands.
        bands: Bands; or segments without bands.
        kept: Columns of all bands together; or weights without bands.
        scattered: Bands whose rows are not neighbours.
        dense: LiteRT's time.
        packed: Ours.
        case: What was asked for, see `Case.key`; empty in the oldest data.
    """

    target: str
    rows: int
    columns: int
    pixels: int
    taps: int
    band_rows: int
    bands: int
    kept: int
    scattered: int
    dense: float
    packed: float
    case: str = ""

    @property
    def channels(self) -> int:
        """Input channels."""
        return self.columns // self.taps


@dataclass(frozen=True)
class Case:
    """A layer and a way to pack it.

    Attributes:
        layer: The geometry.
        band_rows: Rows of a band, or 0 for a layer packed without bands.
        kept: Fraction of weights.
        shuffled: Whether the rows of a band are no neighbours.
    """

    layer: Layer
    band_rows: int
    kept: float
    shuffled: bool = False

    @property
    def key(self) -> str:
        """What tells it from the others."""
        shuffled = " shuffled" if self.shuffled else ""
        return f"{self.layer.name} R{self.band_rows} {self.kept:g}{shuffled}"


def cases() -> Iterator[Case]:
    """Yields all that is measured."""
    for layer in LAYERS:
        for kept in KEPT:
            for band_rows in (*BAND_ROWS, 0):
                yield Case(layer, band_rows, kept)
            if kept in (0.25, 0.0625):
                yield Case(layer, 16, kept, shuffled=True)


@dataclass(frozen=True)
class PackedCase:
    """A case as two models.

    Attributes:
        fields: What `Sample` says of the layer and how it is packed.
        dense: The dense model.
        packed: The packed one.
    """

    fields: dict[str, int]
    dense: bytes
    packed: bytes


def pack_case(case: Case) -> PackedCase:
    """Packs one layer in the given way."""
    layer, band_rows, kept = case.layer, case.band_rows, case.kept
    structure = f"block{band_rows}x1" if band_rows else "unstructured"
    weights = pruned_weights(layer, structure, 1 / kept)
    taps = max(1, layer.kernel[0] * layer.kernel[1])
    shape = LayerShape(layer.outputs, layer.columns, layer.pixels, taps)
    packing: Packing | IrregularPacking
    if band_rows:
        support = RowSupport(weights)
        grouping = neighbours(support, band_rows)
        if case.shuffled:
            order = np.random.default_rng(0).permutation(layer.outputs)
            # Band b gets the rows that block b has been moved to.
            original, weights = weights, np.empty_like(weights)
            weights[order] = original
            grouping = np.append(order, layer.outputs)[grouping]
            support = RowSupport(weights)
        union = support.union(grouping)
        count = int(popcount(union).sum())
        packing = Packing(weights, grouping, union, count, support.kept)
        scattered = scattered_bands(grouping, layer.outputs)
        counts = {"bands": packing.band_count, "kept": count, "scattered": scattered}
    else:
        packing = IrregularPacking.of(weights, shape)
        segments = packing.segment_count
        counts = {"bands": segments, "kept": packing.kept, "scattered": 0}
    dense = build_model(layer, weights, np.zeros(layer.outputs, np.float32))
    tree = read_model(dense)
    (planned,) = make_plan(tree, Settings(minimum_gain=0))
    perform(tree, [Decision(planned.layer, planned.shape, planned.kept, packing)])
    size = {"rows": shape.rows, "columns": shape.columns}
    size |= {"pixels": shape.pixels, "taps": shape.taps, "band_rows": band_rows}
    return PackedCase(size | counts, dense, write_model(tree))


def measure(case: Case, target: str, isa: str | None = None) -> Sample:
    """Times a case beside the dense layer."""
    models = pack_case(case)
    inputs = np.random.default_rng(1).standard_normal(case.layer.input_shape)
    measurement, _ = time_pair(
        LiteRtInterpreter(model_content=models.dense, num_threads=1),
        Interpreter(model_content=models.packed, num_threads=1, isa=isa),
        [inputs.astype(np.float32)],
        min_seconds=0.1,
    )
    times = {
        name: 1e6 * measurement.timing(name).median for name in ("dense", "packed")
    }
    return Sample(target, **models.fields, **times, case=case.key)


def fit_all(samples: list[Sample]) -> dict[str, dict]:
    """Returns the content of ``cost.json``: fields by target."""
    models = {}
    for target, name in MEASURED.items():
        chosen = [sample for sample in samples if sample.target == target]
        models[target] = {
            "measured": f"{name}, one thread, beside LiteRT's XNNPACK",
            **fit(chosen),
        }
    models["x86-avx512-intel"] = intel_cost(models["x86-avx512-zen5"])
    counted = read_counts()
    for target, core in CORES.items():
        times = counted_times(core, counted)
        fields = fit([Sample(target, **fields) for fields in times])
        fields["cache_bytes"] = core.cache_bytes
        for part in ("dense", "many", "single", "irregular"):
            fields[part]["uncached_byte"] = short(1 / core.memory_bytes)
        said = f"instructions counted, cycles as stated of {core.name}"
        models[target] = {"measured": said, **fields}
    return models


def fit(samples: list[Sample]) -> dict:
    """Returns the fields of one target, with the quality of the fit.

    Every formula of ``CostModel`` is linear in its coefficients; the call overhead is
    shared, so it is fitted on the packed layers with bands and then held.
    """
    quality: dict[str, list[float]] = {}

    def solve(name: str, rows: list[list[float]], times: list[float]) -> np.ndarray:
        coefficients, ratios = solve_relative(np.array(rows), np.array(times))
        percentiles = np.percentile(ratios, (5, 50, 95))
        quality[name] = [round(float(p), 2) for p in percentiles]
        return coefficients

    def banded(single: bool) -> tuple[dict, float]:
        chosen = [s for s in samples if s.band_rows and (s.pixels == 1) == single]
        heights = list(BAND_ROWS)
        rows = []
        for s in chosen:
            features = np.zeros((4, 3))
            features[heights.index(s.band_rows)] = s.bands, s.kept, s.channels
            shared = [1, s.pixels * s.scattered]
            shared.append(uncached(s.kept * (s.band_rows * 4 + 2)))
            rows.append([*shared, *(s.pixels * features.T.reshape(-1))])
        name = "single" if single else "many"
        found = solve(name, rows, [s.packed for s in chosen])
        fields = {
            "band": by_height(found[3:7]),
            "column": by_height(found[7:11]),
            "channel": by_height(found[11:15]),
            "scatter": short(found[1]),
            "uncached_byte": short(found[2]),
        }
        return fields, float(found[0])

    many, _ = banded(single=False)
    single, call = banded(single=True)
    rows = []
    for s in samples:
        weights = s.rows * s.columns
        several = s.pixels if s.pixels > 1 else 0
        moved = several * (s.channels + s.rows)
        rows.append([weights, weights * several, moved, uncached(4 * weights)])
    dense = solve("dense", rows, [max(s.dense - call, 0.1) for s in samples])
    irregular = [s for s in samples if not s.band_rows]
    vector = [s for s in irregular if s.taps == 1 and s.pixels < VECTOR_BATCH]
    planes = [s for s in irregular if s not in vector]
    rows = []
    for s in planes:
        vectors = -(-s.pixels // 16)
        moved = s.channels + s.rows
        rows.append([vectors * s.kept, vectors * s.bands, vectors * moved])
    # A call over several positions counts twice, see `CostModel`.
    lifted = solve("irregular", rows, [max(s.packed - 2 * call, 0.1) for s in planes])
    rows = [
        [s.pixels * s.kept, s.pixels * s.bands, uncached(6 * (s.kept + s.bands))]
        for s in vector
    ]
    alone = solve("irregular single", rows, [max(s.packed - call, 0.1) for s in vector])
    return {
        "predicted_over_measured_p5_p50_p95": quality,
        "call": short(call),
        "cache_bytes": CACHE_BYTES,
        "dense": {
            "weight": short(dense[0]),
            "mac": short(dense[1]),
            "channel": short(dense[2]),
            "uncached_byte": short(dense[3]),
        },
        "many": many,
        "single": single,
        "irregular": {
            "weight": short(lifted[0]),
            "segment": short(lifted[1]),
            "channel": short(lifted[2]),
            "single_weight": short(alone[0]),
            "single_segment": short(alone[1]),
            "uncached_byte": short(alone[2]),
        },
    }


def solve_relative(
    features: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Non-negative coefficients that predict ``times`` with small relative errors.

    Samples that the formula cannot explain get less weight in a second pass.

    Returns:
        The coefficients, and predicted / measured of every sample.
    """
    from scipy.optimize import nnls

    relative = features / times[:, None]
    scale = relative.max(axis=0)
    scale[scale == 0] = 1
    relative = relative / scale
    found, _ = nnls(relative, np.ones(len(times)))
    doubt = np.abs(np.log(np.maximum(relative @ found, 1e-3)))
    trust = 1 / np.maximum(1, doubt / 0.15)
    found, _ = nnls(relative * trust[:, None], trust)
    return found / scale, relative @ found


def uncached(size: float) -> float:
    """Bytes beyond the cache."""
    return max(0.0, size - CACHE_BYTES)


def by_height(values: np.ndarray) -> dict[str, float]:
    """Coefficients by rows of a band, as JSON keys."""
    names = map(str, BAND_ROWS)
    return dict(zip(names, map(short, values), strict=True))


def short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}")


def main(arguments: list[str] | None = None) -> None:
    """Command line: ``measure`` or ``fit``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stage", choices=("measure", "fit"))
    parser.add_argument("--target", help="name of this kind of processor")
    parser.add_argument("--isa", help="kernels of the packed side: avx512, avx2, ...")
    parser.add_argument(
        "--seconds", type=float, help="measure no longer than that; go on another time"
    )
    given = parser.parse_args(arguments)
    samples = read_samples()
    if given.stage == "measure":
        target = given.target or this_target()
        known = {sample.case for sample in samples if sample.target == target}
        left = [case for case in cases() if case.key not in known]
        end = time.monotonic() + (given.seconds or float("inf"))
        with DATA.open("a") as file:
            for case in track(left, "measuring"):
                if time.monotonic() > end:
                    break
                sample = measure(case, target, given.isa)
                file.write(json.dumps(asdict(sample)) + "\n")
                file.flush()
    else:
        text = json.dumps(fit_all(samples), indent=2) + "\n"
        write_atomically(COEFFICIENTS, text.encode())
        print(COEFFICIENTS.read_text())


def read_samples() -> list[Sample]:
    """Returns what was measured so far."""
    return [Sample(**json.loads(line)) for line in DATA.open()]


if __name__ == "__main__":
    main()
