"""Files of camera paths, and paths through keyframes."""

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from enerf.core.errors import InputError
from enerf.datasets.scenes import camera_path_files, coordinates, keyframes
from enerf.datasets.scenes.keyframes import Keyframe


def pose(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([Rotation.random(random_state=seed).as_matrix(), rng.normal(size=(3, 1))], 1)


KEYS = tuple(Keyframe(pose(i), 40.0 + i) for i in range(4))


@pytest.fixture
def file(tmp_path):
    """A path in a file, and a function that changes its content."""
    target = tmp_path / "camera_path.json"
    camera_path_files.write(target, camera_path_files.through(KEYS, 1.0, 12, 64, 48))

    def change(**values):
        content = json.loads(target.read_text())
        for name, value in values.items():
            where, key = (content["camera_path"][1], name[2:]) if name.startswith("c_") else (content, name)
            where[key] = value
        target.write_text(json.dumps(content))
        return target

    return change


def test_a_path_passes_its_keyframes_smoothly():
    times = np.linspace(0, 1, 3001)
    poses, fovs = keyframes.interpolated(KEYS, times)
    for i, key in enumerate(KEYS):
        assert np.allclose(poses[1000 * i], key.c2w, atol=1e-9)
        assert fovs[1000 * i] == pytest.approx(key.fov)
    products = poses[:, :, :3] @ poses[:, :, :3].transpose(0, 2, 1)
    assert np.allclose(products, np.eye(3), atol=1e-9)
    speed = np.diff(poses[:, :, 3], axis=0)
    assert np.abs(np.diff(speed, axis=0)).max() < 0.01 * np.abs(speed).max()  # no corner


def test_a_closed_path_ends_where_it_begins():
    poses, _ = keyframes.interpolated(KEYS, np.array([0.0, 1.0]), closed=True)
    assert np.allclose(poses[0], poses[1], atol=1e-9)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_keyframes_are_enough(count):
    poses, fovs = keyframes.interpolated(KEYS[:count], np.array([0.0, 0.5, 1.0]))
    assert np.allclose(poses[-1], KEYS[count - 1].c2w)
    assert np.isfinite(fovs).all()


def test_without_keyframes_there_is_no_path():
    with pytest.raises(ValueError, match="needs a keyframe"):
        keyframes.interpolated([], np.zeros(1))


def test_a_file_gives_back_the_path(file):
    made, found = camera_path_files.through(KEYS, 1.0, 12, 64, 48), camera_path_files.read(file())
    assert np.allclose(found.poses, made.poses)
    assert np.allclose(found.fovs, made.fovs)
    assert (found.width, found.height, found.fps, found.closed, len(found.keyframes)) == (64, 48, 12, False, 4)
    assert found.camera(0).fy == pytest.approx(24 / np.tan(np.radians(20.0)))


def test_a_file_with_keyframes_alone_is_interpolated(file):
    found = camera_path_files.read(file(camera_path=[]))
    assert np.allclose(found.poses, camera_path_files.through(KEYS, 1.0, 12, 64, 48).poses)


def test_paths_of_nerfstudio_are_mapped_back_to_the_scenes_files(file):
    target = file()
    scale, transform = 0.25, pose(9)
    applied = np.concatenate([pose(8), [[0, 0, 0, 1]]])
    (target.parent / "dataparser_transforms.json").write_text(
        json.dumps({"transform": transform.tolist(), "scale": scale})
    )
    found = camera_path_files.read(target, applied)
    to_nerfstudio = np.diag([scale] * 3 + [1]) @ np.concatenate([transform, [[0, 0, 0, 1]]]) @ np.linalg.inv(applied)
    assert np.allclose(coordinates.transform_poses(to_nerfstudio, found.poses)[0], KEYS[0].c2w)


def test_the_applied_transform_is_that_of_the_scene(tmp_path):
    assert camera_path_files.applied_transform(tmp_path) is None
    (tmp_path / "transforms.json").write_text(json.dumps({"applied_transform": pose(1).tolist()}))
    assert np.allclose(camera_path_files.applied_transform(tmp_path)[:3], pose(1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"camera_path": [], "keyframes": []}, "found 0 cameras in camera_path, expected 1 to 100000"),
        ({"camera_path": 3}, "camera_path: found '3', expected a list of cameras"),
        ({"c_camera_to_world": [1, 2]}, r"camera 1 of camera_path: found .* 16 numbers of a rigid motion"),
        ({"c_camera_to_world": [2.0] * 16}, "rigid motion"),
        ({"c_camera_to_world": "abc"}, "rigid motion"),
        ({"c_camera_to_world": None}, "rigid motion"),
        ({"c_camera_to_world": [float("nan")] * 16}, "rigid motion"),
        ({"c_fov": 180}, r"camera 1 of camera_path: fov: found '180', expected a number from 0\.1 to 179"),
        ({"fps": 0}, "fps: found '0'"),
        ({"fps": True}, "fps: found 'True'"),
        ({"render_width": 1 << 20}, "render_width: found '1048576', expected a whole number from 2 to 16384"),
        ({"render_height": None}, "render_height: found 'None'"),
        ({"camera_type": "fisheye"}, "found camera_type 'fisheye', expected perspective"),
    ],
)
def test_a_damaged_file_is_one_sentence(file, values, message):
    with pytest.raises(InputError, match=message):
        camera_path_files.read(file(**values))


def test_a_damaged_transform_is_one_sentence(file):
    target = file()
    (target.parent / "dataparser_transforms.json").write_text('{"transform": [[1, 0, 0, 0]], "scale": 1}')
    with pytest.raises(InputError, match=r"transform: found .* expected a 3×4 matrix"):
        camera_path_files.read(target)
