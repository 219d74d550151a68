# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune demo`: the whole path on real data, in a few minutes."""

import argparse

from tfrewprune.cli.arguments import add_json_argument, positive_integer

HELP = "train, prune, convert and time a small model, with a report"
DESCRIPTION = """\
Trains a small CNN on scikit-learn's handwritten digits, prunes it with the reweighted
block penalty, retrains it, converts it and times it in LiteRT beside the dense model.
Needs no network, but the packages of the extra "report". Writes dense.tflite,
packed.tflite, demo.json and report.html.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output",
        metavar="DIR",
        default="demo-output",
        help="folder for the results, made if missing (default: demo-output)",
    )
    parser.add_argument(
        "--threads",
        type=positive_integer,
        default=1,
        help="threads for timing (default: 1)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of data split and training"
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune.cli.output import print_json, reserved_stdout, start_keras

    start_keras()
    from tfrewprune.demo import run_demo

    with reserved_stdout() as out:
        if arguments.json:
            result = run_demo(
                arguments.output, threads=arguments.threads, seed=arguments.seed
            )
            print_json(result.to_dict(), out)
        else:
            from tfrewprune.cli.demo_output import DemoDisplay

            display = DemoDisplay(out)
            result = run_demo(
                arguments.output,
                threads=arguments.threads,
                seed=arguments.seed,
                progress=display,
            )
            display.show(result, arguments.output)
