# SPDX-License-Identifier: Apache-2.0
"""Files of models: which are of Keras, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path


def is_keras_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one that Keras saves models in, by its name."""
    return Path(path).suffix in (".keras", ".h5", ".hdf5")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises FileNotFoundError, naming the folder, if a file has nowhere to go."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        message = "there is no such folder for the output"
        raise FileNotFoundError(errno.ENOENT, message, str(folder))


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a place to write a file to that then appears whole or not at all.

    Through a symbolic link its target is written. What is there but is no regular file,
    such as a device or a FIFO, is written through: it cannot be replaced.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        yield target
        return
    check_folder(target)
    # Writers go by the suffix.
    name = f".{target.stem}.{secrets.token_hex(8)}{target.suffix}"
    temporary = target.with_name(name)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    os.close(os.open(temporary, flags, 0o666 if mode is None else 0o600))
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(stat.S_IMODE(mode))
        temporary.replace(target)
    except BaseException:
        temporary.unlink()
        raise


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file as `replacing` does.

    Args:
        path: The file.
        content: All of it.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If the file cannot be written.
    """
    with replacing(path) as new:
        new.write_bytes(content)


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None
