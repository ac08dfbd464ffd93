"""Reading regular files: what is no regular file is refused at once, and so is what does not fit in memory."""

import os
import socket
from pathlib import Path

import pytest

from enerf.core import files
from enerf.core.errors import InputError
from tests.contents import refusal

READERS = (files.require_regular, files.open_regular, files.read_bytes, files.read_text)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_regular_file_is_refused_at_once_and_named(read, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    kinds = {"pipe": "a named pipe", "zero": "a character device", "folder": "a folder", "socket": "a socket"}
    for name, kind in kinds.items():
        assert refusal(read, tmp_path / name) == f"{tmp_path / name}: found {kind}, expected a file"


def test_a_regular_file_is_read_whole_in_part_or_as_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffgrün".encode())
    assert files.read_bytes(path) == "\ufeffgrün".encode()
    assert files.read_bytes(path, start=4) == "\ufeffg".encode()
    assert files.read_text(path) == "grün"
    assert files.require_regular(path) == 8
    assert "8 bytes, expected at most 7" in refusal(files.read_bytes, path, 7)
    path.write_bytes(b"\xff")
    assert "not UTF-8" in refusal(files.read_text, path)


@pytest.mark.parametrize("read", READERS)
def test_a_missing_file_stays_an_os_error(read, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none")


def test_an_allocation_beyond_the_available_memory_is_refused(monkeypatch):
    files.require_memory(files.available_memory() // 2, "--N_rand 8")
    assert "--N_rand 9: needs 8.0 EiB of memory" in refusal(files.require_memory, 2**63, "--N_rand 9")
    assert 2**26 < files.available_memory() < 2**50
    with pytest.raises(InputError, match=r"found 5 B available"):
        files.require_memory(6, "x", device_bytes=5)


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit, usage = tmp_path / "max", tmp_path / "current"
    limit.write_text("1000\n")
    usage.write_text("400\n")
    monkeypatch.setattr(files, "_CGROUP_FILES", ((str(limit), str(usage)),))
    assert files.available_memory() == 600
    limit.write_text("max\n")
    assert files.available_memory() > 600


def test_a_sparse_file_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**43)
    assert "needs 8.0 TiB" in refusal(files.read_bytes, tmp_path / "big")
