"""Videos: each frame is rendered once, an interrupted video resumes, and foreign files are not touched."""

import json
import re
import subprocess

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from enerf.core.errors import InputError
from enerf.reporting import video
from enerf.tasks.nerf.video import written

SETTINGS = {"step": 3, "size": (1, 2), "scale": float("inf")}
WIDTH, HEIGHT = 32, 16


def gray(i: int) -> np.ndarray:
    """A frame that tells its number by its brightness."""
    return np.full((HEIGHT, WIDTH, 3), 20 + 30 * i, np.uint8)


class Camera:
    """Renders gray frames, notes which, and is cut off before one of them."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at, self.rendered = fails_at, []

    def __call__(self, i: int) -> np.ndarray:
        if i == self.fails_at:
            raise KeyboardInterrupt
        self.rendered.append(i)
        return gray(i)


def film(path) -> tuple[str, np.ndarray]:
    """What ffmpeg says about a film, and its frames."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stderr.decode(), np.frombuffer(done.stdout, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def test_a_video_has_its_frames_in_order_size_and_speed(tmp_path):
    path = written(tmp_path / "a.mp4", gray, 7, 12.5, SETTINGS)
    words, read = film(path)
    assert len(read) == 7
    assert f"{WIDTH}x{HEIGHT}" in words
    assert "12.50 fps" in words
    for i, frame in enumerate(read):
        assert abs(float(frame.mean()) - (20 + 30 * i)) < 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_an_interrupted_video_goes_on_with_the_frames_that_are_missing(tmp_path):
    cut = Camera(fails_at=3)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "a.mp4", cut, 5, 10, SETTINGS)
    assert not (tmp_path / "a.mp4").exists()
    again = Camera()
    path = written(tmp_path / "a.mp4", again, 5, 10, SETTINGS)
    assert (cut.rendered, again.rendered) == ([0, 1, 2], [3, 4])
    assert [round((float(f.mean()) - 20) / 30) for f in film(path)[1]] == [0, 1, 2, 3, 4]
    assert not (tmp_path / "a_frames").exists()


@pytest.mark.parametrize("damage", [None, "{", "[]"])
def test_frames_of_other_settings_are_not_used(damage, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "a.mp4", Camera(fails_at=3), 5, 10, SETTINGS)
    if damage is not None:
        (tmp_path / "a_frames" / "settings.json").write_text(damage)
    again = Camera()
    written(tmp_path / "a.mp4", again, 5, 10, SETTINGS if damage else {**SETTINGS, "step": 4})
    assert again.rendered == [0, 1, 2, 3, 4]


def test_kept_frames_serve_a_second_video(tmp_path):
    written(tmp_path / "a.mp4", gray, 3, 10, SETTINGS, keep_pngs=True)
    kept = sorted((tmp_path / "a_frames").glob("*.png"))
    assert [p.name for p in kept] == ["0000.png", "0001.png", "0002.png"]
    assert all(np.array_equal(iio.imread(p), gray(i)) for i, p in enumerate(kept))
    again = Camera()
    path = written(tmp_path / "a.mp4", again, 3, 20, SETTINGS)
    assert again.rendered == []
    assert len(film(path)[1]) == 3


def test_a_folder_of_somebody_elses_is_refused_and_left_as_it_is(tmp_path):
    theirs = tmp_path / "a_frames" / "0000.png"
    theirs.parent.mkdir()
    theirs.write_text("holiday")
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))}/a_frames: found files that are not"):
        written(tmp_path / "a.mp4", gray, 3, 10, SETTINGS)
    assert theirs.read_text() == "holiday"


def test_what_is_not_ours_outlives_the_frames(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path / "a.mp4", Camera(fails_at=1), 3, 10, SETTINGS)
    (tmp_path / "a_frames" / "notes.txt").write_text("mine")
    written(tmp_path / "a.mp4", gray, 3, 10, SETTINGS)
    assert [p.name for p in (tmp_path / "a_frames").iterdir()] == ["notes.txt"]


def test_the_settings_are_written_as_strict_json(tmp_path):
    written(tmp_path / "a.mp4", gray, 1, 10, SETTINGS, keep_pngs=True)
    noted = json.loads((tmp_path / "a_frames" / "settings.json").read_text(), parse_constant=pytest.fail)
    assert noted == {"step": 3, "size": [1, 2], "scale": None}


def test_a_video_of_nothing_is_refused(tmp_path):
    with pytest.raises(InputError, match="no frames"):
        written(tmp_path / "a.mp4", gray, 0, 10, SETTINGS)


# depth


def test_near_is_bright_and_far_is_dark():
    depth = np.linspace(1.0, 5.0, 60).reshape(6, 10)
    colors = video.colorize_depth(depth)
    assert colors.dtype == np.uint8
    assert colors.shape == (6, 10, 3)
    light = colors.astype(float).sum(-1).ravel()
    assert (np.diff(light) <= 0).all()
    assert light[0] > 600
    assert light[-1] < 20


def test_given_depths_bound_the_colors():
    depth = np.array([[-1.0, 0.0, 0.5, 1.0, 9.0]])
    row = video.colorize_depth(depth, 0, 1)[0]
    assert np.array_equal(row[0], row[1])
    assert np.array_equal(row[3], row[4])
    assert len(np.unique(row, axis=0)) == 3
    assert np.array_equal(video.colorize_depth(np.array([[0.5]]), 0.0, 1.0)[0, 0], row[2])


def test_one_depth_everywhere_is_one_color():
    assert len(np.unique(video.colorize_depth(np.full((3, 4), 2.0)).reshape(-1, 3), axis=0)) == 1
