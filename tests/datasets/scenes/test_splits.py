"""Choice of test views."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.datasets.scenes import poses, splits
from tests.contents import refusal

NAMES = ("left/a.jpg", "left/b.png", "right/a.jpg", "right/c.png", "r_0.5", "d,e.png")
C2W = poses.blender_circle(len(NAMES))


def _refused(*of) -> str:
    return refusal(splits.choose, NAMES, C2W, *of)


@given(n=st.integers(2, 40), hold=st.integers(0, 45).filter(lambda hold: hold != 1))
def test_training_views_are_all_others_and_every_nth_is_a_test_view(n, hold):
    c2w = np.random.default_rng(n).normal(size=(n, 3, 4))
    split = splits.choose([f"{i}.png" for i in range(n)], c2w, hold)
    assert sorted(split.train + split.test) == list(range(n))
    distances = np.linalg.norm(c2w[:, :, 3] - c2w[:, :, 3].mean(0), axis=1)
    assert split.test == (tuple(range(0, n, hold)) if hold else (int(distances.argmin()),))
    assert split.rule == (f"one in {hold}, from the first" if hold else "the most central one")


@given(st.sets(st.integers(0, len(NAMES) - 1), max_size=len(NAMES) - 1))
def test_views_that_the_files_hold_out_precede_every_nth(stated):
    split = splits.choose(NAMES, C2W, 3, stated=sorted(stated, reverse=True))
    assert split.test == (tuple(sorted(stated)) or (0, 3))
    assert split.rule == ("held out by the scene's files" if stated else "one in 3, from the first")


@pytest.mark.parametrize(
    ("named", "test"),
    [
        ("left/a.jpg", (0,)),
        ("left/a", (0,)),
        (r"left\a.jpg", (0,)),
        ("./left/a.jpg", (0,)),
        ("b.png, c.png", (1, 3)),
        ("c,b,c", (1, 3)),
        ("elsewhere/b.JPG", (1,)),
        ("r_0.5", (4,)),
    ],
)
def test_names_are_found_with_and_without_folder_and_suffix(named, test):
    split = splits.choose(NAMES, C2W, 2, named, stated=(5,))
    assert (split.test, split.rule) == (test, "named by --test_views")


def test_a_file_names_one_view_a_line(tmp_path):
    file = tmp_path / "test views"
    file.write_text("\ufeff# held out\r\n\n  left/b.png \r\nd,e.png\n", encoding="utf-8")
    assert splits.is_file(str(file))
    assert splits.choose(NAMES, C2W, 2, str(file)).test == (1, 5)
    file.write_text("# none\n")
    assert "has no names, expected the names of photographs" in _refused(2, str(file))
    file.write_bytes(b"\xff\xfe")
    assert "bytes that are not UTF-8" in _refused(2, str(file))


@pytest.mark.parametrize(
    ("of", "found"),
    [
        ((2, "a.jpg"), "option --test_views: 'a.jpg' is ambiguous (left/a.jpg, right/a.jpg), expected the name of one"),
        ((2, "x.png"), "option --test_views: found 'x.png', expected one of left/a.jpg, left/b.png, "),
        ((2, "left/"), "option --test_views: found 'left/', expected one of"),
        ((2, ","), "option --test_views: ',' has no names"),
        ((1,), "option --llffhold: found 1, which holds out every view, expected 2 or more, or 0"),
        ((-3,), "option --llffhold: found -3, expected 2 or more, or 0"),
        ((2, "", range(6)), "all 6 views are test views (held out by the scene's files), expected some to train on"),
        ((2, "b,c,r_0.5,left/a,right/a," + "e" * 300), f"found {'e' * 30!r}"[:-1]),
    ],
)
def test_impossible_choices_are_one_sentence(of, found):
    assert found in _refused(*of)


def test_names_that_are_longer_than_a_file_name_are_names():
    names = [f"{i:03d}" for i in range(200)]
    split = splits.choose(names, poses.blender_circle(200), 8, ",".join(names[1:]))
    assert split.train == (0,)


def test_a_named_pipe_is_no_file_of_names(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert not splits.is_file(str(tmp_path / "pipe"))
    assert not splits.is_file("")
