"""Files are whole or as they were."""

import os

import pytest

from enerf.core import io
from enerf.core.errors import InputError


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError])
def test_what_breaks_off_leaves_the_old_file_and_nothing_else(failure, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def break_off() -> None:
        with io.replacing(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        break_off()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_ends_well_takes_the_place_and_makes_the_folder(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with io.replacing(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_systems_error_becomes_one_sentence_about_the_file(tmp_path):
    with pytest.raises(InputError) as caught, io.blaming(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert str(caught.value) == str(io.unwritable(tmp_path / "a", "No space left on device"))
    assert caught.value.__cause__ is None
