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


def test_a_closed_path_turns_on_smoothly_where_it_ends():
    step = 1e-4
    poses, _ = keyframes.interpolated(KEYS, np.array([0, step, 1 - step, 1.0]), closed=True)
    first, last = (poses[i, :, :3].T @ poses[i + 1, :, :3] for i in (0, 2))
    turned, turns = (Rotation.from_matrix(each).as_rotvec() / step for each in (last, first))
    assert np.linalg.norm(turns) > 1
    assert np.allclose(turned, turns, atol=0.02 * np.linalg.norm(turns))


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


@pytest.fixture
def of_nerfstudio(tmp_path):
    """A scene's folder, and the similarity from its files to what nerfstudio trains on, with the files that say so.

    That program turns and moves the poses of transforms.json (``oriented``), and scales them then.
    """
    oriented, applied = (np.concatenate([pose(i), [[0, 0, 0, 1]]]) for i in (9, 8))
    scale, applied_scale = 0.25, 1.6
    scene = tmp_path / "scene"
    scene.mkdir()
    content = {"applied_transform": applied[:3].tolist(), "applied_scale": applied_scale}
    (scene / "transforms.json").write_text(json.dumps(content))
    content = {"transform": (oriented @ applied)[:3].tolist(), "scale": scale * applied_scale}
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps(content))
    return scene, np.diag([scale] * 3 + [1]) @ oriented


def test_paths_of_nerfstudio_are_mapped_back_to_the_scenes_files(file, of_nerfstudio):
    scene, to_nerfstudio = of_nerfstudio
    (scene / "dataparser_transforms.json").write_bytes((scene.parent / "dataparser_transforms.json").read_bytes())
    (scene.parent / "dataparser_transforms.json").unlink()
    moved = scene / "camera_path.json"
    moved.write_bytes(file().read_bytes())
    found = camera_path_files.read(moved, scene)
    assert np.allclose(coordinates.transform_poses(to_nerfstudio, found.poses)[0], KEYS[0].c2w)
    assert np.allclose(coordinates.transform_poses(to_nerfstudio, found.keyframes[3].c2w[None])[0], KEYS[3].c2w)


def test_a_path_beside_nerfstudios_file_is_written_in_its_coordinates(of_nerfstudio):
    scene, to_nerfstudio = of_nerfstudio
    made, target = camera_path_files.through(KEYS, 1.0, 12, 64, 48), scene.parent / "made.json"
    camera_path_files.write(target, made, scene)
    content = json.loads(target.read_text())
    matrix = np.array(content["camera_path"][0]["camera_to_world"]).reshape(4, 4)[:3]
    assert np.allclose(matrix, coordinates.transform_poses(to_nerfstudio, made.poses)[0])
    found = camera_path_files.read(target, scene)
    assert np.allclose(found.poses, made.poses)
    assert np.allclose(found.keyframes[2].c2w, KEYS[2].c2w)


def test_scenes_of_an_older_nerfstudio_have_the_transform_that_it_did_not_write(file, tmp_path):
    target, scene = file(), tmp_path / "scene"
    (scene / "colmap" / "sparse" / "0").mkdir(parents=True)
    (scene / "transforms.json").write_text("{}")
    (tmp_path / "dataparser_transforms.json").write_text(json.dumps({"transform": np.eye(4)[:3].tolist()}))
    found = camera_path_files.read(target, scene)
    assert np.allclose(found.poses[0, :, 3], KEYS[0].c2w[[1, 0, 2], 3] * [1, 1, -1])


def test_keyframes_of_an_older_nerfstudio_are_texts_column_by_column(file):
    keys = [
        {"matrix": json.dumps(np.concatenate([key.c2w, [[0, 0, 0, 1]]]).T.ravel().tolist()), "fov": 50} for key in KEYS
    ]
    found = camera_path_files.read(file(keyframes=keys))
    assert np.allclose(found.keyframes[1].c2w, KEYS[1].c2w)


def test_nerfstudio_gives_a_path_the_same_length(file):
    """It adds up the time from each keyframe to the next, and back to the first of a closed path."""
    target = file()
    for closed, transitions in ((False, 3), (True, 4)):
        camera_path_files.write(target, camera_path_files.through(KEYS, 2.0, 12, 64, 48, closed=closed))
        assert json.loads(target.read_text())["default_transition_sec"] * transitions == pytest.approx(2.0)


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
