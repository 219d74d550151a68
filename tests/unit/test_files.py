# SPDX-License-Identifier: Apache-2.0
"""Outputs: whole or absent, through links, and never in place of a device."""

import os
import stat
import threading

import numpy as np
import pytest
from dense_models import block_sparse, conv_model

import tfrewprune as trp
from tfrewprune.converter.files import replacing, write_atomically

DENSE = conv_model(block_sparse((16, 3, 3, 4)), (1, 5, 5, 4), np.zeros(16))


def to_file(kind, target):
    """Writes through one of the public functions; returns the expected bytes."""
    if kind == "convert":
        return trp.convert(DENSE, target, minimum_gain=0, verify=False)
    packed = trp.convert(DENSE, minimum_gain=0, verify=False)
    return trp.unpack(packed, target)


@pytest.mark.parametrize("kind", ["convert", "unpack"])
def test_a_link_stays_and_its_target_is_written(kind, tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    target, link = folder / "v1.tflite", tmp_path / "latest.tflite"
    target.write_bytes(b"old")
    link.symlink_to(target)
    content = to_file(kind, link)
    assert link.is_symlink() and target.read_bytes() == content
    assert list(folder.iterdir()) == [target]


def test_a_link_to_nothing_yet_makes_the_target(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("new.bin")
    write_atomically(link, b"content")
    assert link.is_symlink() and (tmp_path / "new.bin").read_bytes() == b"content"


@pytest.mark.parametrize("kind", ["convert", "unpack"])
def test_a_fifo_is_written_through(kind, tmp_path):
    fifo, received = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    content = to_file(kind, fifo)
    reader.join()
    assert received == [content]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root could replace a device")
def test_a_device_is_never_replaced(tmp_path):
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.write_bytes(b"")
    except OSError as error:
        pytest.skip(f"no device can be made here: {error}")
    write_atomically(device, b"content")
    assert stat.S_ISCHR(device.stat().st_mode)


@pytest.mark.parametrize("kind", ["convert", "unpack"])
def test_a_missing_folder_is_named_before_any_work(kind, tmp_path):
    folder = tmp_path / "nowhere"
    with pytest.raises(FileNotFoundError) as error:
        to_file(kind, folder / "model.tflite")
    assert error.value.filename == str(folder)
    assert "no such folder" in str(error.value)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        trp.convert(tmp_path / "not read yet", folder / "model.tflite")


def test_a_folder_as_output_is_an_error(tmp_path):
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"content")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
def test_what_fails_half_way_leaves_things_as_they_were(there, tmp_path):
    target = tmp_path / "model.keras"
    if there:
        target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(target) as new:
        assert new.suffix == ".keras"
        new.write_bytes(b"half of it")
        raise KeyboardInterrupt
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"] * there


def test_a_new_file_is_as_the_umask_has_it(tmp_path, monkeypatch):
    beside = tmp_path / "beside"
    beside.touch()
    # The umask is of the whole process: to ask for it is to change it for all threads.
    monkeypatch.setattr(os, "umask", None)
    write_atomically(tmp_path / "new", b"new")
    assert (tmp_path / "new").stat().st_mode == beside.stat().st_mode


def test_permissions_of_an_existing_file_are_kept(tmp_path):
    target = tmp_path / "secret"
    target.write_bytes(b"old")
    target.chmod(0o600)
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
