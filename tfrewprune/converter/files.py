# SPDX-License-Identifier: Apache-2.0
"""Writes files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path


def check_folder(path: str | os.PathLike[str]) -> None:
    """Raises FileNotFoundError, naming the folder, if a file has nowhere to go."""
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        message = "there is no such folder for the output"
        raise FileNotFoundError(errno.ENOENT, message, str(folder))


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file that appears whole or not at all.

    Through a symbolic link its target is written. What is there but is no regular file,
    such as a device or a FIFO, is written through: it cannot be replaced.

    Args:
        path: The file.
        content: All of it.

    Raises:
        FileNotFoundError: If there is no such folder.
        OSError: If the file cannot be written.
    """
    target = Path(os.path.realpath(path))
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with open(target, "wb") as file:
            file.write(content)
        return
    check_folder(target)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _new_file_mode() if mode is None else stat.S_IMODE(mode))
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _new_file_mode() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
