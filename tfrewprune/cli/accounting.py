# SPDX-License-Identifier: Apache-2.0
"""`tfrewprune accounting`: bytes under every storage scheme."""

import argparse

from tfrewprune.cli.arguments import add_json_argument, positive_number

HELP = "count the bytes of the weights under every storage scheme"
DESCRIPTION = """\
Counts what the weights of a .keras or .tflite file, dense or packed, need when they are
stored densely, as surviving weights alone, and with all indices: gaps, compressed
sparse rows, a bitmap, blocks, kernel patterns, each at its best for each layer. The
last column is the packed payload of this package. A total takes dense where a scheme
would be larger. Biases are not counted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help=".keras or .tflite file")
    parser.add_argument(
        "--bits",
        type=positive_number,
        help="bits of a weight after quantization (default: as the file stores them)",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        help="draw the totals at 32, 8, 4 and 2 bits into this .svg, .png or .pdf file",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    from tfrewprune.cli import output
    from tfrewprune.converter.files import is_keras_file

    if is_keras_file(arguments.model):
        output.start_keras()
    from tfrewprune.storage import accounting
    from tfrewprune.storage.account import COLUMNS

    with output.reserved_stdout() as out:
        account = accounting(arguments.model, arguments.bits)
        if arguments.plot:
            account.plot(arguments.plot)
        if arguments.json:
            output.print_json({"model": arguments.model, **account.to_dict()}, out)
            return
        console = output.console(out)
        ranks = {"csr": 3, "bitmap": 2, "payload": 4, "pattern": 1, "packed": 1}
        columns = (
            output.Column("layer"),
            output.Column(">kept"),
            *(output.Column(f">{name}", ranks.get(name, 0)) for name in COLUMNS),
        )
        width = "as stored" if account.bits is None else f"of {account.bits:g} bits"
        title = f"{arguments.model}: bytes, weights {width}"
        rows = account.rows()
        console.print(output.fitted_table(title, columns, rows, console.width))
        gap, block = account.total("gap"), account.total("block")
        more, less = ("gap", "block") if gap > block else ("block", "gap")
        console.print(
            f"The same weights need {max(gap, block) / max(1, min(gap, block)):.2f}x "
            f"the bytes as {more} indices than as {less} indices.",
            highlight=False,
        )
