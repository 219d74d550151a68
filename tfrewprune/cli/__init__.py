# SPDX-License-Identifier: Apache-2.0
"""The `tfrewprune` command. One file a subcommand; nothing heavy is imported here."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

SUBCOMMANDS = (
    "demo",
    "plan",
    "recipes",
    "prune",
    "inspect",
    "accounting",
    "convert",
    "unpack",
    "bench",
)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2

_EPILOG = """\
exit codes:
  0  the work was done
  1  the work failed; one line on standard error says why
  2  the command line was wrong

With --json a subcommand writes one JSON document to standard output and nothing else.
Set TFREWPRUNE_TRACEBACK=1 to see where an error came from.
"""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the whole command."""
    from tfrewprune import __version__

    parser = argparse.ArgumentParser(
        prog="tfrewprune",
        description="Prunes Keras models in blocks and runs them faster in LiteRT.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(
        title="subcommands", dest="command", required=True, metavar="COMMAND"
    )
    for name in SUBCOMMANDS:
        module = import_module(f"tfrewprune.cli.{name}")
        subparser = subparsers.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words after the program's name; None takes them from `sys.argv`.

    Returns:
        The exit code: 0 done, 1 failed. Wrong usage exits with 2 by itself.
    """
    # TensorFlow reads this when it is first imported, which is later.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parsed = build_parser().parse_args(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of a pipe went away, as `head` does; that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except KeyboardInterrupt:
        print("tfrewprune: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("TFREWPRUNE_TRACEBACK"):
            raise
        print(
            f"tfrewprune {parsed.command}: error: {_one_line(error)}", file=sys.stderr
        )
        return EXIT_FAILED
    return EXIT_OK


def _one_line(error: Exception) -> str:
    message = " ".join(str(error).split())
    if isinstance(error, ModuleNotFoundError):
        if error.name in ("keras", "tensorflow"):
            return "needs Keras and TensorFlow: pip install keras tensorflow"
        return message
    if isinstance(error, OSError) and error.filename is not None:
        message = f"{error.strerror}: {error.filename}"
    if isinstance(error, (OSError, ValueError, RuntimeError)) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
