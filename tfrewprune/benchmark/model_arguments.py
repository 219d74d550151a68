# SPDX-License-Identifier: Apache-2.0
"""The part of a command line that names packed models: files, or well-known ones."""

import argparse


def model_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Returns the parser of ``python -m tfrewprune.benchmark.NAME``.

    It takes packed files, ``--models`` and ``--threads``.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m tfrewprune.benchmark.{name}", description=description
    )
    parser.add_argument("packed", nargs="*", help="packed .tflite files")
    parser.add_argument(
        "--models",
        nargs="+",
        default=(),
        help="pruned keras.applications: resnet50, vgg16, mobilenet_v2",
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser


def parse_models(
    parser: argparse.ArgumentParser, words: list[str] | None, purpose: str
) -> argparse.Namespace:
    """Parses; no model at all is an error: "nothing to PURPOSE"."""
    arguments = parser.parse_args(words)
    if not arguments.packed and not arguments.models:
        parser.error(f"nothing to {purpose}: name packed files or --models")
    return arguments
