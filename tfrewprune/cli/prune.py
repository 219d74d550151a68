# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune prune`: prune a trained model without training."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tfrewprune.cli.arguments import (
    add_json_argument,
    add_structure_argument,
    positive_number,
)

if TYPE_CHECKING:
    from tfrewprune.oneshot import OneShotResult

HELP = "prune a trained model from a few unlabelled inputs, without training"
DESCRIPTION = """\
Prunes a .tflite with float weights, or a Keras file, layer by layer: what is left of
each layer is refitted so that its outputs come as near as they can to the dense ones.
Needs 100 to 1,000 inputs, prepared as the model expects them, and no labels. OUT is a
dense file of the same kind with zeros in it; `tfrewprune convert` packs it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=".tflite, .keras or .h5 file")
    parser.add_argument("target", metavar="OUT", help="file to write, of the same kind")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help=".npy, or .npz with an array for each input of the model, by its name",
    )
    parser.add_argument(
        "--rate",
        type=positive_number,
        help="dense / kept weights over all pruned layers, such as 2",
    )
    for name, what in (
        ("weights", "share or number of weights of the whole model"),
        ("macs", "share or number of multiplications"),
        ("bytes", "share or number of bytes of the packed file"),
        ("latency-ms", "predicted milliseconds of the layers, one thread"),
    ):
        parser.add_argument(
            f"--max-{name}", metavar="LIMIT", help=f"{what}, such as 40%% of dense"
        )
    parser.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="LAYER",
        help="leave a layer, or those of a pattern, as they are; may be repeated",
    )
    add_structure_argument(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune.cli.output import console, print_json, reserved_stdout, start_keras
    from tfrewprune.converter.files import check_folder, is_keras_file, replacing

    kind, target = Path(arguments.model).suffix, Path(arguments.target)
    if target.suffix != kind:
        raise ValueError(
            f"OUT must be a {kind or '.tflite'} file like MODEL, received "
            f"{str(target)!r}"
        )
    check_folder(target)
    if is_keras_file(arguments.model):
        start_keras()
    with reserved_stdout() as out:
        result = _prune(arguments)
        with replacing(target) as new:
            if result.tflite is not None:
                new.write_bytes(result.tflite)
            else:
                result.model.save(new)
        if arguments.json:
            document = {"model": arguments.model, "target": str(target)}
            print_json(document | result.to_dict(), out)
        else:
            print(result, file=out)
            console(out).print(
                f"{target} is dense; pack it: tfrewprune convert {target} PACKED",
                highlight=False,
            )


def _prune(arguments: argparse.Namespace) -> "OneShotResult":
    from tfrewprune.constraints import CONSTRAINTS
    from tfrewprune.oneshot import prune_one_shot
    from tfrewprune.recipe import Recipe
    from tfrewprune.rule import Rule

    limits = {unit: getattr(arguments, f"max_{unit}") for unit in CONSTRAINTS}
    limits = {unit: limit for unit, limit in limits.items() if limit is not None}
    rules = [Rule(name, skip=True) for name in arguments.skip]
    rules.append(Rule("*", structure=arguments.structure))
    return prune_one_shot(
        arguments.model,
        arguments.data,
        rate=arguments.rate,
        recipe=Recipe(rules),
        constraints=limits or None,
        verbose=lambda line: print(line, file=sys.stderr),
    )
