# SPDX-License-Identifier: Apache-2.0
"""Counts what ARM's cost model is fitted to: `make arm-counts`.

Writes `tfrewprune/benchmark/arm_counts.jsonl`: a line for each layer and way to pack,
with the instructions of LiteRT's dense layer and of ours, less those of an empty one.
`python -m tfrewprune.benchmark.cost_fit fit` reads it.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from conftest import CPUS, ROOT, ArmPython
from counting import build_counter, count

from tfrewprune.benchmark.cost_fit import LAYERS, Case, pack_case
from tfrewprune.benchmark.layers import build_model, parse_layers

CHOSEN = {
    *("c3_28s", "c3_14", "c1_56n", "c1_16", "c1_14", "c3_33d6"),
    *("c1_1s", "f256", "f1024", "f512b"),
}
KEPT = (0.25, 0.0625)
ROWS = (4, 8, 16, 32, 0)
OUTPUT = ROOT / "tfrewprune/benchmark/arm_counts.jsonl"


def empty(folder: Path) -> Path:
    """A model that computes next to nothing."""
    (layer,) = parse_layers("empty fc 1->1")
    path = folder / "empty.tflite"
    path.write_bytes(build_model(layer, np.ones((1, 1), "f4"), np.ones(1, "f4")))
    return path


def main(build: Path) -> None:
    library = build / "arm/libtfrewprune_delegate.so"
    python = ArmPython(build / "arm-root", CPUS["cortex-a76"])
    with tempfile.TemporaryDirectory() as name, OUTPUT.open("w") as output:
        folder = Path(name)
        counter = build_counter(folder)
        for layer in LAYERS:
            if layer.name not in CHOSEN:
                continue
            cases = [Case(layer, rows, kept) for kept in KEPT for rows in ROWS]
            cases.append(Case(layer, 16, 0.25, shuffled=True))
            packed = [pack_case(case) for case in cases]
            # The first run of a process takes more than others do.
            files = [empty(folder), empty(folder), folder / "dense.tflite"]
            files[2].write_bytes(packed[0].dense)
            for number, case in enumerate(packed):
                files.append(folder / f"{number}.tflite")
                files[-1].write_bytes(case.packed)
            _, nothing, dense, *ours = count(python, counter, library, files)
            for case, models, counts in zip(cases, packed, ours, strict=True):
                line = {"case": case.key, **models.fields}
                for side, found in (("dense", dense), ("packed", counts)):
                    line[side] = {k: found[k] - nothing[k] for k in found}
                output.write(json.dumps(line) + "\n")
            print("counted", layer.name, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
