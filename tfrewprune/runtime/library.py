# SPDX-License-Identifier: Apache-2.0
"""Finds the native delegate library on disk."""

import ctypes
import os
import sys
from pathlib import Path

_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
LIBRARY_NAME = f"libtfrewprune_delegate{_SUFFIX}"
LIBRARY_VARIABLE = "TFREWPRUNE_LIBRARY"


class LibraryNotFoundError(FileNotFoundError):
    """The native delegate library is not where it should be."""


def delegate_path() -> str:
    """Returns the absolute path of the native delegate library.

    Hand it to anything that loads TFLite external delegates: `load_delegate` for
    LiteRT's `Interpreter` in Python, `TfLiteExternalDelegateCreate` in C and C++, or
    `benchmark_model --external_delegate_path`. `tfrewprune.Interpreter` and
    `tfrewprune.CompiledModel` do so by themselves.

    The environment variable `TFREWPRUNE_LIBRARY` names another build of the library,
    for example one with sanitizers.

    Raises:
        LibraryNotFoundError: If the file does not exist; the message says what to run.

    Example:
        >>> import tfrewprune as trp
        >>> from ai_edge_litert.interpreter import Interpreter, load_delegate
        >>> delegate = load_delegate(trp.delegate_path(), {"threads": 2})
        >>> interpreter = Interpreter(
        ...     "packed.tflite", experimental_delegates=[delegate]
        ... )  # doctest: +SKIP
    """
    override = os.environ.get(LIBRARY_VARIABLE)
    if override:
        path = Path(override).expanduser().resolve()
        if not path.is_file():
            raise LibraryNotFoundError(
                f"{LIBRARY_VARIABLE} must name the built {LIBRARY_NAME}. "
                f"Received: {override!r}, and there is no such file."
            )
        return str(path)
    path = Path(__file__).resolve().parent / LIBRARY_NAME
    if not path.is_file():
        raise LibraryNotFoundError(
            f"The native library {LIBRARY_NAME} is missing from {path.parent}. "
            "Build it with `pip install -e .` in the source folder (a C++17 compiler "
            f"is needed), or set {LIBRARY_VARIABLE} to the path of a build."
        )
    return str(path)


def driver_names() -> tuple[str, ...]:
    """Returns the names that `Interpreter` takes as `driver`.

    Raises:
        LibraryNotFoundError: If the native library was not built.

    Example:
        >>> "direct" in driver_names()
        True
    """
    function = ctypes.CDLL(delegate_path()).tfrewprune_driver_name
    function.argtypes = [ctypes.c_int]
    function.restype = ctypes.c_char_p
    names: list[str] = []
    while (name := function(len(names))) is not None:
        names.append(name.decode("ascii"))
    return tuple(names)
