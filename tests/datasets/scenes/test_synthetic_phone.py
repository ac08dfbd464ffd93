"""The generated capture of a phone: the same bytes from the same seed, EXIF data, distortion, masks, the truth."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.core import images
from enerf.datasets.scenes import alignment, exif_exposure, synthetic_phone, synthetic_photographs
from enerf.datasets.scenes.cameras import Cameras
from enerf.preprocessing import photographs, video_frames
from tests.contents import refusal

VIEWS, WIDTH = 10, 64


def write(folder: Path, **settings) -> Path:
    given = {"views": VIEWS, "width": WIDTH, "progress": False} | settings
    return synthetic_photographs.write_photographs(folder, **given)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("capture") / "phone")


def test_the_same_seed_gives_the_same_bytes(capture, tmp_path):
    assert bytes_of(write(tmp_path / "phone")) == bytes_of(capture)
    assert bytes_of(write(tmp_path / "other", seed=1)) != bytes_of(capture)
    truth = synthetic_photographs.truth_path(capture)
    assert synthetic_photographs.truth_path(tmp_path / "phone").read_bytes() == truth.read_bytes()
    assert set(bytes_of(capture)) == {
        *(f"IMG_{i + 1:04d}.jpg" for i in range(VIEWS)),
        *(f"masks/{Path(photo.name).stem}.png" for photo in photographs.find(capture).photographs if photo.mask),
    }


def test_a_finished_capture_is_left_and_other_folders_are_refused(capture, tmp_path):
    before = (capture / "IMG_0001.jpg").stat()
    assert write(capture) == capture
    assert (capture / "IMG_0001.jpg").stat() == before
    assert "does not contain this scene" in refusal(write, capture, seed=5)
    assert "views is 0, expected 1 or more" in refusal(write, tmp_path / "none", views=0)
    (tmp_path / "a.mp4").write_text("mine")
    words = refusal(synthetic_photographs.write_video, tmp_path / "a.mp4", 3, width=32)
    assert "found a file that is not this video" in words


def test_exif_data_are_those_of_a_phone(capture):
    shots = synthetic_phone.shots(VIEWS)
    found = photographs.find(capture).photographs
    assert all(photo.is_of_phone for photo in found)
    assert [photo.orientation for photo in found] == [shot.orientation for shot in shots]
    assert sorted({shot.orientation for shot in synthetic_phone.shots()}) == [1, 3, 6]
    for photo in found:
        size = synthetic_phone.lens(WIDTH, 48, photo.orientation)
        assert (photo.width, photo.height) == (size.width, size.height)
        assert photo.focal == pytest.approx(size.fx, rel=0.03)  # EXIF data are rounded
    stops = exif_exposure.of_files([photo.source for photo in found])
    dark = np.array([shot.is_dark for shot in shots])
    assert np.ptp(stops[dark]) == np.ptp(stops[~dark]) == 0
    assert stops[~dark][0] - stops[dark][0] == pytest.approx(np.log2(100 / 60), abs=1e-6)


def test_of_fifty_a_third_is_dark_one_is_blurred_and_three_have_a_person():
    shots = synthetic_phone.shots(50)
    assert sum(shot.is_dark for shot in shots) == 16
    assert sum(shot.is_blurred for shot in shots) == 1
    assert sum(shot.person is not None for shot in shots) == 3


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_rays_are_projected_to_their_pixels(orientation):
    camera = synthetic_phone.lens(WIDTH, 48, orientation)
    rays = torch.from_numpy(synthetic_phone._rays(camera)).double()
    points = torch.cat([rays, torch.full((*rays.shape[:2], 1), -1.0)], dim=-1)
    found, valid = Cameras([camera]).project(torch.zeros(rays.shape[:2], dtype=torch.int64), points)
    index = torch.arange(camera.width * camera.height)
    corner = torch.stack([index % camera.width, index // camera.width], dim=-1)
    expected = corner[:, None] + torch.tensor(synthetic_phone._OFFSETS)
    assert valid.all()
    torch.testing.assert_close(found, expected.double(), rtol=0, atol=1e-4)


def test_a_rotated_sensor_sees_the_rotated_picture():
    """The lens belongs to the sensor: what it shows at (x, y) is at (h − y, x) of an image rotated clockwise."""
    points = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.3
    points[:, 2] = -1.0
    view = torch.zeros(50, dtype=torch.int64)
    level = synthetic_phone.lens(WIDTH, 48)
    x, y = Cameras([level]).project(view, points)[0].T
    clockwise = torch.stack([points[:, 1], -points[:, 0], points[:, 2]], dim=-1)  # up becomes right
    turned = Cameras([synthetic_phone.lens(WIDTH, 48, 6)]).project(view, clockwise)[0]
    torch.testing.assert_close(turned, torch.stack([48 - y, x], dim=-1))
    upside_down = Cameras([synthetic_phone.lens(WIDTH, 48, 3)]).project(view, points * torch.tensor([-1.0, -1.0, 1.0]))[
        0
    ]
    torch.testing.assert_close(upside_down, torch.stack([WIDTH - x, 48 - y], dim=-1))


def test_masks_cover_what_moves(capture):
    for photo, shot in zip(photographs.find(capture).photographs, synthetic_phone.shots(VIEWS), strict=True):
        assert (photo.mask is not None) == (shot.person is not None)
        if photo.mask is None:
            continue
        camera = synthetic_phone.lens(WIDTH, 48, shot.orientation)
        person = (*synthetic_phone.OBJECTS, *synthetic_phone._person(shot.person))
        moves = (
            np.abs(synthetic_phone.render(camera, shot.c2w, person) - synthetic_phone.render(camera, shot.c2w)) > 1e-6
        )
        ignored = images.read(photo.mask)[..., 0] == 0
        assert ignored.shape == (photo.height, photo.width)
        assert moves.any()
        assert not (moves.any(axis=-1) & ~ignored).any()
        assert ignored.mean() < 0.8


def test_the_second_exposure_is_a_gain_of_linear_light():
    gray = np.full((1, 1, 3), 0.5)
    linear = [((value + 0.055) / 1.055) ** 2.4 for value in (gray, synthetic_phone.exposed(gray, (0.5, 0.25, 1.0)))]
    np.testing.assert_allclose(linear[1] / linear[0], np.array([[[0.5, 0.25, 1.0]]]))


def test_a_blurred_photograph_has_weaker_edges():
    camera, (shot, *_) = synthetic_phone.lens(320, 240), synthetic_phone.shots(10)
    sharp = synthetic_phone.render(camera, shot.c2w)
    blurred = synthetic_phone._blurred(camera, shot.c2w)
    assert np.abs(np.diff(blurred, axis=1)).mean() < 0.8 * np.abs(np.diff(sharp, axis=1)).mean()
    assert np.abs(blurred.mean((0, 1)) - sharp.mean((0, 1))).max() < 0.02


def test_the_truth_lies_beside_the_photographs_and_has_their_cameras(capture):
    content = json.loads(synthetic_photographs.truth_path(capture).read_text())
    shots = synthetic_phone.shots(VIEWS)
    assert [frame["file_path"] for frame in content["frames"]] == [f"phone/IMG_{i + 1:04d}.jpg" for i in range(VIEWS)]
    c2w = np.array([frame["transform_matrix"][:3] for frame in content["frames"]])
    np.testing.assert_allclose(c2w, [shot.c2w for shot in shots])
    tangential = synthetic_phone.lens(WIDTH, 48, shots[0].orientation).coefficients[2:]
    assert (content["frames"][0]["p1"], content["frames"][0]["p2"]) == tangential


def test_a_video_has_its_frames_and_their_poses_beside_it(tmp_path):
    file = synthetic_photographs.write_video(tmp_path / "walk.mp4", 6, width=64, progress=False)
    assert video_frames.probe(file) == (pytest.approx(0.2, abs=0.01), 30.0)
    before = file.read_bytes()
    assert synthetic_photographs.write_video(file, 6, width=64, progress=False) == file
    content = json.loads(synthetic_photographs.truth_path(file).read_text())
    c2w = np.array([frame["transform_matrix"][:3] for frame in content["frames"]])
    np.testing.assert_allclose(c2w, synthetic_phone.walk(6))
    file.unlink()
    assert synthetic_photographs.write_video(file, 6, width=64, progress=False).read_bytes() == before


def test_the_walk_is_smooth_and_goes_all_around():
    c2w = synthetic_phone.walk(300)
    angles, steps = alignment.differences(c2w[1:], c2w[:-1])
    assert angles.max() < 4
    assert steps.max() < 0.15
    turn = np.unwrap(np.arctan2(c2w[:, 2, 3], c2w[:, 0, 3]))
    assert turn[-1] - turn[0] > 2 * np.pi
