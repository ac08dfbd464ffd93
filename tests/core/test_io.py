"""Atomic writing: after a failure the file is as it was before."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enerf.core import io
from enerf.core.errors import InputError
from tests.contents import refusal


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(failure, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_off() -> None:
        with io.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        break_off()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_ends_well_takes_the_place_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with io.atomic_path(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]


def test_the_data_is_flushed_to_disk_before_the_rename(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (calls.append(("fsync", os.fstat(number).st_size)), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append(("replace", a.name)), replace(a, b)))
    with io.atomic_path(tmp_path / "a.txt", fsync=True) as temporary:
        temporary.write_text("whole")
    assert calls == [("fsync", 5), ("replace", temporary.name)]
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("broken", ["mkdir", "fsync", "replace"])
def test_every_failure_of_the_system_is_reported_by_the_given_error_and_leaves_nothing(broken, tmp_path, monkeypatch):
    def fail(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if broken == "mkdir" else os, broken, fail)

    def error(path: Path, reason: str) -> InputError:
        return InputError(f"{path.name}: {reason}")

    with pytest.raises(InputError) as caught, io.atomic_path(tmp_path / "a", fsync=True, error=error) as temporary:
        temporary.write_text("whole")
    assert str(caught.value) == "a: No space left on device"
    assert os.listdir(tmp_path) == []


def test_a_systems_error_becomes_one_sentence_about_the_file(tmp_path):
    with pytest.raises(InputError) as caught, io.os_errors_as_input_errors(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == str(io.write_error(tmp_path / "a", "No space left on device"))
    assert caught.value.__cause__ is None


def test_leftovers_are_removed_if_their_process_is_gone_and_nothing_else(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    here, running, mine = io.host(), os.getppid(), os.getpid()  # mine: of a process before, in a restarted container
    leftovers = [f".{here}-{gone.pid}-0123456789ab.tmp.png", f".{here}-{gone.pid}-0123456789ab.tmp"]
    leftovers += [f".{here}-{mine}-0123456789ab.tmp"]
    kept = [f".{here}-{running}-0123456789ab.tmp.png", f".other-{gone.pid}-0123456789ab.tmp", ".hidden", "a.tmp.png"]
    for folder in (tmp_path, tmp_path / "inner"):
        folder.mkdir(exist_ok=True)
        for name in (*leftovers, *kept):
            (folder / name).write_text("x")
    old = tmp_path / f".elsewhere-{mine}-0123456789ab.tmp.mp4"
    old.write_text("x")
    os.utime(old, (0, 0))
    removed = io.remove_leftovers(tmp_path)
    assert sorted(removed) == sorted(
        [old, *(tmp_path / n for n in leftovers), *(tmp_path / "inner" / n for n in leftovers)]
    )
    assert sorted(os.listdir(tmp_path / "inner")) == sorted(kept)
    assert io.remove_leftovers(tmp_path / "none") == []


def test_leftovers_are_searched_as_deep_as_is_asked(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    deep = tmp_path / "a" / "b" / "c" / "d"
    deep.mkdir(parents=True)
    name = f".{io.host()}-{gone.pid}-0123456789ab.tmp"
    for folder in (tmp_path, *deep.parents[:3], deep):
        (folder / name).write_text("x")
    assert io.remove_leftovers(tmp_path, levels=0) == [tmp_path / name]
    assert io.remove_leftovers(tmp_path) == [tmp_path / "a" / name, tmp_path / "a/b" / name, tmp_path / "a/b/c" / name]
    assert (deep / name).is_file()


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(io, "_exchanged", lambda a, b: False)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    io.replace_folder(tmp_path / "new", tmp_path / "old")
    assert [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))] == ["old", "old/new"]
    (tmp_path / "other").mkdir()
    io.replace_folder(tmp_path / "other", tmp_path / "fresh")
    assert sorted(os.listdir(tmp_path)) == ["fresh", "old"]


def test_folders_are_exchanged_in_one_step_so_that_no_kill_loses_one(tmp_path, monkeypatch):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    (tmp_path / "new" / "a").write_text("a")
    if not io._exchanged(tmp_path / "new", tmp_path / "old"):
        pytest.skip("this system cannot exchange two folders in one step")
    io._exchanged(tmp_path / "new", tmp_path / "old")
    monkeypatch.setattr(os, "rename", None)  # not used: between two renames neither folder would have its name
    io.replace_folder(tmp_path / "new", tmp_path / "old")
    assert os.listdir(tmp_path / "old") == ["a"]
    assert os.listdir(tmp_path) == ["old"]


def test_a_folder_that_a_killed_process_left_is_removed_with_its_content(tmp_path, monkeypatch):
    with io.temporary_path(tmp_path / "images_4") as temporary:
        temporary.mkdir()
        (temporary / "a.png").write_text("x")
        assert io.remove_leftovers(tmp_path) == []
        monkeypatch.setattr(io, "_writing", set())  # as after a restart with the same process number
        assert io.remove_leftovers(tmp_path) == [temporary]
    with io.temporary_path(tmp_path / "images_4") as temporary:
        temporary.mkdir()
    assert os.listdir(tmp_path) == []


def test_the_name_of_a_temporary_file_is_one_that_is_found_later(tmp_path, monkeypatch):
    with io.atomic_path(tmp_path / ("x" * 250)) as temporary:
        temporary.write_text("half")
        assert len(temporary.name) < 100
        assert io.remove_leftovers(tmp_path) == []  # this process is alive
        pid = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: pid + 1)
        monkeypatch.setattr(io, "is_running", lambda number: number != pid)
        assert io.remove_leftovers(tmp_path) == [temporary]
        temporary.write_text("whole")


@pytest.mark.parametrize("text", ["[]", "null", "1", "[" * 100_000])
def test_metrics_that_are_no_object_are_one_sentence(text, tmp_path):
    (tmp_path / "metrics.json").write_text(text)
    assert refusal(io.read_object, tmp_path / "metrics.json").startswith(f"{tmp_path / 'metrics.json'}: ")
    (tmp_path / "metrics.json").write_bytes(b"\xef\xbb\xbf{}")
    assert io.read_object(tmp_path / "metrics.json") == {}
