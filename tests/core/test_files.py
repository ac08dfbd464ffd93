"""Reading regular files: what is no regular file is refused at once, and so is what does not fit in memory."""

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core import files
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
    monkeypatch.setattr(files, "available_memory", lambda: 5)
    files.require_memory(5, "x")
    assert "found 5 B available" in refusal(files.require_memory, 6, "x")


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    limit, usage, statistics = tmp_path / "max", tmp_path / "current", tmp_path / "stat"
    limit.write_text("1000\n")
    usage.write_text("400\n")
    monkeypatch.setattr(files, "_CGROUP_FILES", ((str(limit), str(usage), str(statistics), "total_"),))
    assert files.available_memory() == 600
    statistics.write_text("active_file 1\ntotal_active_file 100\ntotal_inactive_file 200\ntotal_cache 350\n")
    assert files.available_memory() == 900  # what caches files can be freed
    limit.write_text("max\n")
    assert files.available_memory() > 600


def test_a_sparse_file_larger_than_memory_is_refused_before_it_is_read(tmp_path: Path):
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**43)
    assert "needs 8.0 TiB" in refusal(files.read_bytes, tmp_path / "big")


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0~/"), min_size=1, max_size=60))
def test_a_name_that_a_file_can_have_passes_unchanged(name):
    assert files.expanded(name, "x") == name
    if name.strip(".") or len(name) > 2:
        assert files.inner_name(f"{name}/{name}", "x") == f"{name}/{name}"


def test_home_folders_are_expanded_as_in_a_shell(monkeypatch):
    monkeypatch.setenv("HOME", "/nest")
    assert files.expanded("~/a", "option --out") == "/nest/a"
    assert files.expanded("~", "option --out") == "/nest"
    assert files.expanded("a/~", "option --out") == "a/~"
    assert "no home folder of ~nobody_has_this_name" in refusal(files.expanded, "~nobody_has_this_name/a", "--out")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("a\0b", "without zero bytes"),
        ("a\udcff", "in UTF-8"),
        ("a/" + "é" * 128, "names have at most 255 bytes each"),
        ("a/" * 2048, "at most 4,095 bytes"),
    ],
)
def test_what_no_file_can_be_named_is_one_sentence(path, sentence):
    for check in (files.expanded, files.inner_name):
        found = refusal(check, path, "option --x")
        assert found.startswith("option --x: found ")
        assert sentence in found
        assert len(found) < 250


@pytest.mark.parametrize("name", ["/a", "..", "a/../../b", ".", "./", "~/a", "/", "a/.."])
def test_a_name_that_leaves_its_folder_is_refused(name):
    assert "expected a name inside of the folder of results" in refusal(files.inner_name, name, "option --expname")
