"""Groups of cameras, pairs, the choice of frames, and why structure from motion failed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core import images
from enerf.datasets.scenes import camera_models
from enerf.preprocessing import camera_groups, diagnosis, pairs, video_frames
from enerf.preprocessing.diagnosis import Matches
from enerf.preprocessing.photographs import Photograph
from enerf.preprocessing.video_frames import Candidates
from tests.contents import refusal


def photo(name: str, width=40, height=30, **more) -> Photograph:
    return Photograph(Path(name), name, width, height, **more)


def test_photographs_of_one_kind_share_a_camera():
    some = [photo("a"), photo("b", focal=35.0), photo("c", 30, 40), photo("d/a"), photo("e"), photo("f", focal=35.2)]
    members = [group.members for group in camera_groups.group(some)]
    assert members == [(0, 4), (1, 5), (2,), (3,)]
    assert [group.members for group in camera_groups.group(some, "image")] == [(i,) for i in range(6)]
    assert "photographs of 30x40, 40x30 pixels" in refusal(camera_groups.group, some, "all")
    assert len(camera_groups.group([*some[:2], some[3]], "folder")) == 2


@pytest.mark.parametrize("model", ["auto", "PINHOLE", "OPENCV", "OPENCV_FISHEYE", "RADIAL"])
def test_cameras_begin_with_the_focal_length_of_exif_data(model):
    group = camera_groups.group([photo("a", focal=33.0), photo("b", focal=33.0)], "all", model)[0]
    camera = camera_models.camera_from_parameters(group.model, 40, 30, group.parameters)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (33, 33, 20, 15)
    assert group.has_prior
    assert not any(camera.coefficients)
    guess = camera_groups.group([photo("a")])[0]
    assert guess.parameters[0] == pytest.approx(48)
    assert not guess.has_prior


def test_many_photographs_of_a_phone_have_an_opencv_camera():
    some = [photo(f"{i}", device="Apple iPhone") for i in range(20)]
    assert camera_groups.group(some)[0].model == "OPENCV"
    assert camera_groups.group(some[:19])[0].model == "SIMPLE_RADIAL"


@given(count=st.integers(0, 60), overlap=st.integers(1, 12))
def test_sequential_pairs_are_ordered_unique_and_connect_all(count, overlap):
    found = pairs.sequential(count, overlap)
    assert found == sorted(set(found))
    assert all(0 <= i < j < count for i, j in found)
    assert {(i, i + 1) for i in range(count - 1)} <= set(found)
    assert set(found) <= set(pairs.exhaustive(count))


def test_similar_images_are_paired():
    rng = np.random.default_rng(0)
    words = rng.integers(0, 256, (4, 40, 128), dtype=np.uint8)  # four places
    rows = [np.clip(words[i % 4] + rng.integers(0, 9, (40, 128)), 0, 255).astype(np.uint8) for i in range(12)]
    rows.append(np.zeros((0, 128), np.uint8))
    found = pairs.similar(rows, 2)
    assert found == pairs.similar(rows, 2)
    assert {(i, j) for i in range(12) for j in range(i + 1, 12) if i % 4 == j % 4} == set(found)
    assert pairs.similar(rows[-1:]) == []


@given(steps=st.lists(st.floats(0, 0.2), min_size=1, max_size=60), count=st.integers(3, 20), seed=st.integers(0, 9))
def test_frames_are_the_sharpest_of_equal_parts_of_the_path(steps, count, seed):
    path = np.cumsum([0.0, *steps])
    sharpness = np.random.default_rng(seed).random(len(path))
    chosen = video_frames.choose(Candidates(sharpness, path), count)
    assert 1 <= len(chosen) <= count
    assert chosen == sorted(set(chosen))
    if path[-1] >= video_frames.STILL:
        part = np.minimum((path / path[-1] * count).astype(int), count - 1)
        assert len(set(part[chosen])) == len(chosen) == len(set(part))
        assert all(sharpness[i] == sharpness[part == part[i]].max() for i in chosen)


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """A video of a texture that rests, moves, and is blurred in every second frame."""
    import cv2

    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (90, 400, 3), dtype=np.uint8), (0, 0), 1.5)
    frames = []
    for i in range(40):
        start = 4 * max(0, i - 15)
        frame = texture[:, start : start + 120]
        frames.append(cv2.GaussianBlur(frame, (0, 0), 3) if i % 2 else frame)
    path = tmp_path_factory.mktemp("video") / "a b.mp4"
    images.write_mp4(path, frames, fps=10)
    return path


def test_sharp_frames_of_a_video_are_taken_where_it_moves(moving, tmp_path):
    found = video_frames.measure(moving, [video_frames._SQUARE], None)
    assert len(found.path) == 40
    assert found.path[15] < 0.02
    assert found.path[-1] == pytest.approx(24 * 4 / 120, rel=0.3)
    chosen = video_frames.choose(found, 8)
    assert len(chosen) == 8
    assert all(i % 2 == 0 for i in chosen)
    names = video_frames.extract(moving, tmp_path, 8, "png")
    assert names == [f"frame_{i + 1:04d}.png" for i in range(8)]
    assert images.read(tmp_path / names[0]).shape == (90, 120, 3)
    assert video_frames.probe(moving) == (4.0, 10.0)


def test_a_video_that_does_not_move_or_is_none_is_refused(tmp_path):
    path = tmp_path / "still.mp4"
    still = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    images.write_mp4(path, [still] * 9)
    assert "expected a video in which the camera moves" in refusal(video_frames.extract, path, tmp_path, 8, "jpg")
    path.write_bytes(b"no video")
    assert "found no video in the file" in refusal(video_frames.probe, path)


CALIBRATED, UNCALIBRATED, EITHER = 2, 3, 6


def matches(pairs_of: list, count: int = 6, features: int = 500) -> Matches:
    rows = np.array(pairs_of, dtype=np.float64).reshape(-1, 5)
    return Matches([f"{i}.jpg" for i in range(count)], [1000] * count, [features] * count, rows)


@pytest.mark.parametrize(
    ("found", "models", "words"),
    [
        (matches([]), [], "no two of the 6 photographs that show the same things"),
        (matches([[0, 1, CALIBRATED, 9, 50.0]]), [], "no two of the 6 photographs"),
        (matches([], features=7), [], "almost no detail"),
        (matches([[0, 1, EITHER, 99, 0.1], [1, 2, EITHER, 99, 0.2]]), [], "the camera did not move"),
        (matches([[0, 1, EITHER, 99, 60.0], [1, 2, EITHER, 99, 70.0]]), [[3, 0]], "turned on the spot"),
        (matches([[0, 1, CALIBRATED, 99, 60.0], [3, 4, UNCALIBRATED, 99, 70.0]]), [], "do not belong together"),
        (matches([[0, 1, CALIBRATED, 99, 60.0], [1, 2, CALIBRATED, 99, 70.0]]), [[2, 80]], "two photographs that fit"),
        (matches([[0, 1, CALIBRATED, 99, 60.0], [1, 2, CALIBRATED, 99, 70.0]]), [], "no pair to begin with"),
    ],
)
def test_each_failure_has_its_sentence(found, models, words):
    text = diagnosis.failure("photos", found, models)
    assert text.startswith("photos: found ")
    assert words in text
    assert ", expected " in text


def test_masks_that_leave_no_key_points_are_said():
    found = replace(matches([], features=0), are_masked=True)
    assert "found almost no key points at pixels that the masks use" in diagnosis.failure("photos", found, [])


def test_models_of_noise_are_recognized():
    turned, moved = (matches([[i, i + 1, kind, 99, 60.0] for i in range(5)]) for kind in (EITHER, CALIBRATED))
    camera = {"focal": 300.0, "focal_deviation": 8.0}
    vague = {"focal": 400.0, "focal_deviation": 90.0}
    assert not diagnosis.is_of_noise(moved, {"parallax": 0.1, "cameras": [camera]})
    assert not diagnosis.is_of_noise(turned, {"parallax": 0.1, "cameras": [camera, vague]})
    assert diagnosis.is_of_noise(turned, {"parallax": 0.1, "cameras": [vague]})
    assert diagnosis.is_of_noise(moved, {"parallax": 0.001, "cameras": [camera]})


def test_photographs_that_are_left_out_are_named_with_the_reason():
    found = matches([[0, 1, CALIBRATED, 99, 60.0], [1, 2, CALIBRATED, 99, 70.0], [2, 3, CALIBRATED, 20, 70.0]])
    found = Matches(found.names, found.longest, [500, 500, 500, 500, 0, 500], found.pairs)
    assert diagnosis.left_out(found, [0, 1, 2]) == {
        "3.jpg": "too few matches with the others",
        "4.jpg": "no key points: blank, blurred, or masked as a whole",
        "5.jpg": "shows nothing that the others show",
    }
    assert diagnosis.warning("photos", found, [0, 1, 2]).startswith("photos: 3 of 6 photographs are registered, not 3")
    assert diagnosis.warning("photos", found, range(6)) == ""
