"""Tests of picture files: the views that are written, and a video with the requested number of frames."""

import imageio_ffmpeg
import numpy as np
import pytest

from enerf.core import images
from enerf.geometry.preview import turntable
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene

VERTICES = np.array([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
VIEW = View((0.0, 0.0, 0.3), 6.0, width=32, height=24)


@pytest.mark.parametrize(
    ("swing", "names"),
    [(0.0, {"front", "right", "left", "back", "above"}), (20.0, {"front", "right", "left", "above"})],
)
def test_every_side_has_its_picture_and_the_film_its_frames(tmp_path, swing, names):
    written = turntable.write(tmp_path / "new", MeshScene(VERTICES, FACES), VIEW, swing=swing, frames=6)
    assert {path.stem for path in written} == names | {"turntable"}
    assert all(images.read(path).shape == (24, 32, 3) for path in written if path.suffix == ".png")
    assert imageio_ffmpeg.count_frames_and_secs(str(written[-1]))[0] == 6


def test_no_frames_no_film(tmp_path):
    written = turntable.write(tmp_path, MeshScene(VERTICES, FACES), VIEW, frames=0)
    assert all(path.suffix == ".png" for path in written)
    assert not (tmp_path / "turntable.mp4").exists()


def test_the_front_is_the_view_itself_and_a_swing_stays_within_its_angle():
    sides = turntable.sides(VIEW, 20.0)
    assert sides["front"] == VIEW
    assert all(abs(v.azimuth - VIEW.azimuth) <= 20 and abs(v.elevation - VIEW.elevation) <= 20 for v in sides.values())
