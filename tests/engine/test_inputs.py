"""Hashes of a run's files: equal content is equal, whatever the folder; any other content, name or number is not."""

import os
import shutil
from pathlib import Path

import pytest

from enerf.engine import inputs
from tests.contents import refusal


@pytest.fixture
def scene(tmp_path):
    folder = tmp_path / "scene"
    (folder / "images").mkdir(parents=True)
    for name in ("poses.npy", "images/a.png", "images/b.png"):
        (folder / name).write_text(name)
    return folder


def of(folder, saved=None) -> inputs.Inputs:
    return inputs.of_files([path for path in folder.rglob("*") if path.is_file()], folder, saved)


def rewrite(path, text: str) -> None:
    """Write another text, with the same times."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_copy_elsewhere_has_the_same_digest_and_every_change_is_named(scene, tmp_path):
    before = of(scene)
    copy = shutil.copytree(scene, tmp_path / "copy")
    assert of(copy).digest == before.digest
    assert inputs.differences(before.saved(), of(copy)) == ""
    changes = {
        "images/a.png changed": lambda: rewrite(copy / "images" / "a.png", "images/A.png"),
        "images/b.png missing": (copy / "images" / "b.png").unlink,
        "images/c.png new": lambda: (copy / "images" / "c.png").write_text(""),
    }
    named = []
    for words, change in changes.items():
        change()
        named.append(words)
        assert inputs.differences(before.saved(), of(copy)) == ", ".join(named)


def test_unchanged_files_are_read_once_and_a_kept_modification_time_does_not_hide_a_change(scene, monkeypatch):
    read, hashed = [], inputs._hashed
    monkeypatch.setattr(inputs, "_hashed", lambda *args: (read.append(1), hashed(*args))[1])
    saved = of(scene).saved()
    inputs._cache.clear()  # as in another process
    assert of(scene, saved).saved() == saved
    assert len(read) == 1
    rewrite(scene / "poses.npy", "other.npy")
    assert inputs.differences(saved, of(scene, saved)) == "poses.npy changed"


def test_many_files_are_compared_as_a_whole(scene, monkeypatch):
    monkeypatch.setattr(inputs, "MAX_NAMED", 2)
    saved = of(scene).saved()
    assert saved["files"] == {}
    rewrite(scene / "poses.npy", "other.npy")
    assert inputs.differences(saved, of(scene)) == "3 files of 33 bytes, not those that it was trained on"


def test_runs_of_earlier_versions_and_unknown_files_are_not_compared(scene):
    assert inputs.differences(None, of(scene)) == ""
    assert inputs.differences(of(scene).saved(), None) == ""


def test_what_cannot_be_read_is_one_sentence(scene):
    assert "cannot be read" in refusal(inputs.of_files, [scene / "none"], scene)
    os.mkfifo(scene / "pipe")
    assert "named pipe" in refusal(inputs.of_files, [scene / "pipe"], scene)


def test_names_are_relative_to_the_folder_of_the_data_however_a_path_is_written(scene, monkeypatch):
    before = of(scene)
    monkeypatch.chdir(scene / "images")
    for path in (Path("../images/a.png"), Path("a.png"), scene / "images/../images/a.png"):
        again = inputs.of_files([path, scene / "images/b.png", scene / "poses.npy"], scene)
        assert (again.digest, again.files) == (before.digest, before.files)


def test_hashes_of_large_inputs_are_kept_for_other_runs(scene, tmp_path, monkeypatch):
    monkeypatch.setenv("ENERF_CACHE", str(tmp_path / "cache"))
    of(scene)
    assert not (tmp_path / "cache").exists()
    monkeypatch.setattr(inputs, "_LARGE", 1)
    inputs._cache.clear()
    expected = of(scene)
    inputs._cache.clear()  # as in another process
    monkeypatch.setattr(inputs, "_hashed", lambda *args: pytest.fail("the files are read again"))
    assert of(scene) == expected
    monkeypatch.undo()
    (tmp_path / "cache" / "inputs" / f"{expected.stamp}.json").write_text("{")
    inputs._cache.clear()
    assert of(scene) == expected
