"""Loading the synthetic scenes of NeRF."""

import json
import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from enerf.core import images
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import blender, pixels, poses
from tests.datasets.scenes.axes import to_axes
from tests.memory import least_peak

W, H, ANGLE = 16, 12, 0.7
COUNTS = {"train": 4, "val": 2, "test": 9}


def _picture(split, index, channels=4):
    seed = 100 * list(COUNTS).index(split) + index
    return np.random.default_rng(seed).integers(0, 256, (H, W, channels), dtype=np.uint8)


def _pose(index):
    return np.concatenate([poses.blender_circle(11)[index], [[0, 0, 0, 1]]])


def _shifted(x):
    pose = _pose(1)
    pose[0, 3] = x
    return pose


def _scene(folder, channels=4, extension="", prefix="./"):
    for split, count in COUNTS.items():
        (folder / split).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(_picture(split, i, channels)).save(folder / split / f"r_{i}.png")
        frames = [
            {
                "file_path": f"{prefix}{split}/r_{i}{extension}",
                "transform_matrix": _pose(i).tolist(),
                "rotation": 0.1,
            }
            for i in range(count)
        ]
        _write(folder, split, {"camera_angle_x": ANGLE, "frames": frames})
    return folder


def _write(folder, split, content):
    (folder / f"transforms_{split}.json").write_text(json.dumps(content))


def _change(folder, split, act):
    file = folder / f"transforms_{split}.json"
    content = json.loads(file.read_text())
    act(content)
    file.write_text(json.dumps(content))


def _colors(scene, view):
    return pixels.view_image(scene, view).numpy()


def _refusal(folder, **options):
    with pytest.raises(InputError) as caught:
        blender.load(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text
    assert "\n" not in text
    assert "expected" in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def test_training_frames_come_first_then_every_nth_test_frame(tmp_path):
    _scene(tmp_path)
    for skip, kept in ((8, [0, 8]), (3, [0, 3, 6]), (1, range(9)), (0, range(9))):
        scene = blender.load(tmp_path, testskip=skip)
        names = [f"train/r_{i}.png" for i in range(4)] + [f"test/r_{i}.png" for i in kept]
        assert scene.image_names == tuple(names)
        assert (scene.train, scene.test) == ((0, 1, 2, 3), tuple(range(4, len(names))))
        wanted = [_pose(i)[:3] for i in [*range(4), *kept]]
        assert np.allclose(scene.c2w.numpy(), wanted, atol=1e-6)


def test_the_camera_and_the_bounds_are_nerfs(tmp_path):
    scene = blender.load(_scene(tmp_path))
    focal = W / 2 / math.tan(ANGLE / 2)
    assert scene.camera == Camera(W, H, focal, focal, W / 2, H / 2)
    assert (scene.near, scene.far, scene.ndc, scene.forward_facing) == (2.0, 6.0, False, False)
    assert torch.equal(scene.bounds, torch.tensor([[2.0, 6.0]] * 6))
    assert torch.equal(scene.world_to_scene, torch.eye(4, dtype=torch.float64))
    assert scene.name == tmp_path.name


@pytest.mark.parametrize("white", [True, False])
def test_pictures_lie_over_white_or_keep_their_colors(white, tmp_path):
    scene = blender.load(_scene(tmp_path), white_bkgd=white)
    rgba = _picture("test", 8) / 255
    wanted = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) if white else rgba[..., :3]
    assert np.allclose(_colors(scene, -1), wanted, atol=1e-6)


@pytest.mark.parametrize("white", [True, False])
def test_half_resolution_averages_four_pixels_and_halves_the_focal_length(white, tmp_path):
    full, half = (blender.load(_scene(tmp_path / str(i)), i == 1, 8, white) for i in range(2))
    rgba = (_picture("train", 1) / 255).reshape(H // 2, 2, W // 2, 2, 4).mean((1, 3))
    wanted = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) if white else rgba[..., :3]
    assert np.allclose(_colors(half, 1), wanted, atol=1e-6)
    assert half.camera == Camera(W // 2, H // 2, full.camera.fx / 2, full.camera.fy / 2, W / 4, H / 4)


@pytest.mark.parametrize(("extension", "prefix"), [("", ""), (".png", "./"), ("", ".\\")])
def test_file_paths_may_carry_an_extension_or_a_backslash(extension, prefix, tmp_path):
    scene = blender.load(_scene(tmp_path, extension=extension, prefix=prefix))
    assert scene.image_names[0] == "train/r_0.png"


def test_pictures_without_alpha_are_taken_as_they_are(tmp_path):
    scene = blender.load(_scene(tmp_path, channels=3), white_bkgd=True)
    assert np.array_equal(_colors(scene, 0), _picture("train", 0, 3) / np.float32(255))


def _as_decoded(folder, scene, half, white):
    """Whether the scene has the decoder's floats, put through what was asked for."""
    pictures = (images.read(folder / name) for name in scene.image_names)
    wanted = (images.composite(images.downsample(picture, 2 if half else 1), white) for picture in pictures)
    return all(np.array_equal(_colors(scene, view), picture) for view, picture in enumerate(wanted))


@pytest.mark.parametrize(("channels", "white"), [(3, False), (3, True), (4, False)])
def test_pictures_of_8_bits_are_kept_as_bytes_and_are_the_decoders_floats(channels, white, tmp_path):
    scene = blender.load(_scene(tmp_path, channels), white_bkgd=white)
    assert scene.images.dtype == torch.uint8
    assert _as_decoded(tmp_path, scene, False, white)


@pytest.mark.parametrize(("half", "white"), [(False, True), (True, False), (True, True)])
def test_colors_between_bytes_stay_float(half, white, tmp_path):
    scene = blender.load(_scene(tmp_path), half, white_bkgd=white)
    assert scene.images.dtype == torch.float32
    assert _as_decoded(tmp_path, scene, half, white)


@pytest.mark.parametrize("names", [["train/r_0.png"], ["train/r_2.png", "test/r_8.png"], ["test/r_8.png"]])
def test_a_scene_with_pictures_of_16_bits_stays_float(names, tmp_path):
    _scene(tmp_path)
    for name in names:
        fine = np.random.default_rng(1).integers(0, 65536, (H, W, 4), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / name), fine)
    scene = blender.load(tmp_path)
    assert scene.images.dtype == torch.float32
    assert _as_decoded(tmp_path, scene, False, False)


def test_loading_takes_the_memory_of_the_bytes_and_a_few_pictures(tmp_path):
    n, width, height = 60, 320, 240
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        frames = [{"file_path": f"{split}/{i}", "transform_matrix": _pose(i % 11).tolist()} for i in range(n)]
        _write(tmp_path, split, {"camera_angle_x": ANGLE, "frames": frames})
        for i in range(n):
            Image.new("RGBA", (width, height), (i, 2 * i, 255 - i, i)).save(tmp_path / split / f"{i}.png")
    held = blender.load(tmp_path, testskip=1).images.nbytes
    peak = least_peak(lambda: blender.load(tmp_path, testskip=1))
    floats = 4 * width * height * 3  # of a picture
    assert held == 2 * n * floats / 4
    assert held <= peak < held + 10 * floats < 0.5 * 2 * n * floats


def test_the_validation_frames_are_not_needed(tmp_path):
    (_scene(tmp_path) / "transforms_val.json").unlink()
    assert len(blender.load(tmp_path).images) == 6


def test_scaled_matrices_are_cameras_all_the_same(tmp_path):
    _scene(tmp_path)

    def scale(content):
        matrix = np.array(content["frames"][2]["transform_matrix"])
        matrix[:3, :3] *= 1.7
        content["frames"][2]["transform_matrix"] = matrix.tolist()

    _change(tmp_path, "train", scale)
    assert np.allclose(blender.load(tmp_path).c2w[2].numpy(), _pose(2)[:3], atol=1e-6)


def test_missing_files_are_one_sentence(tmp_path):
    assert "lego is not a folder, expected a scene laid out as data/nerf_synthetic" in _refusal(tmp_path / "lego")
    _scene(tmp_path)
    (tmp_path / "test" / "r_8.png").unlink()
    assert f"{tmp_path / 'test' / 'r_8.png'} cannot be read (no such file" in _refusal(tmp_path)
    (tmp_path / "transforms_test.json").unlink()
    assert "transforms_test.json does not exist, expected a scene laid out as" in _refusal(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000])
def test_what_is_no_json_is_one_sentence(text, tmp_path):
    (_scene(tmp_path) / "transforms_train.json").write_bytes(text.encode("latin-1"))
    assert "transforms_train.json is no JSON (" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "has camera_angle_x None, expected an angle"),
        ({"frames": []}, "has camera_angle_x None, expected an angle"),
        ({"camera_angle_x": 4, "frames": []}, "has camera_angle_x 4, expected an angle between 0 and pi"),
        ({"camera_angle_x": float("nan"), "frames": []}, "has camera_angle_x nan"),
        ({"camera_angle_x": True, "frames": []}, "has camera_angle_x True"),
        ({"camera_angle_x": 10**400, "frames": []}, "has camera_angle_x inf"),
        ({"camera_angle_x": ANGLE, "frames": [{"file_path": "a\nb\0"}]}, r"has no file_path in frame 0 ('a\nb\x00')"),
        ({"camera_angle_x": ANGLE}, "has no list of frames"),
        ({"camera_angle_x": ANGLE, "frames": []}, "has no list of frames"),
        ({"camera_angle_x": ANGLE, "frames": ["r_0"]}, "has no file_path in frame 0"),
        ({"camera_angle_x": ANGLE, "frames": [{"file_path": ""}]}, "has no file_path in frame 0"),
        (
            {"camera_angle_x": ANGLE, "frames": [{"file_path": "a"}]},
            "has no 4 x 4 transform_matrix in frame 0 (a)",
        ),
    ],
)
def test_missing_or_impossible_keys_are_one_sentence(content, found, tmp_path):
    _write(_scene(tmp_path), "train", content)
    assert f"{tmp_path / 'transforms_train.json'} {found}" in _refusal(tmp_path)


@pytest.mark.parametrize(
    ("matrix", "found"),
    [
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], "has no 4 x 4 transform_matrix in frame 1 (./train/r_1)"),
        ([[1, 0], [1]], "has no 4 x 4 transform_matrix in frame 1"),
        ("identity", "has no 4 x 4 transform_matrix in frame 1"),
        (
            np.full((4, 4), np.nan).tolist(),
            "has a transform_matrix in frame 1 (./train/r_1) that is not finite",
        ),
        (
            np.zeros((4, 4)).tolist(),
            "has a transform_matrix in frame 1 (./train/r_1) whose last row is [0.0, 0.0, 0.0, 0.0]",
        ),
        (np.diag([0.0, 0, 0, 1]).tolist(), "has axes that are no rotation in view 1 (train/r_1.png)"),
        (np.diag([1.0, 1, -1, 1]).tolist(), "expected right-handed orthonormal axes"),
        (np.vectorize(str)(np.eye(4)).tolist(), "has no 4 x 4 transform_matrix in frame 1"),
        (np.eye(4, dtype=bool).tolist(), "has no 4 x 4 transform_matrix in frame 1"),
        (
            (np.eye(4, dtype=int).astype(object) * 10**400).tolist(),
            "transform_matrix in frame 1 (./train/r_1) that is not",
        ),
        (_pose(1).T.tolist(), "expected 0, 0, 0, 1 (is it transposed?)"),
        (_shifted(1e6).tolist(), "has cameras too far from the others: view 1 (train/r_1.png): 1e+06"),
    ],
)
def test_impossible_matrices_are_named(matrix, found, tmp_path):
    _change(_scene(tmp_path), "train", lambda content: content["frames"][1].update(transform_matrix=matrix))
    text = _refusal(tmp_path)
    assert "transforms_train.json" in text
    assert found in text


def test_fields_of_view_that_differ_are_one_sentence(tmp_path):
    _change(_scene(tmp_path), "test", lambda content: content.update(camera_angle_x=0.9))
    assert "transforms_test.json has camera_angle_x 0.9, expected 0.7 as for training" in _refusal(tmp_path)


def test_a_picture_of_another_size_is_named(tmp_path):
    Image.fromarray(np.zeros((H, W + 2, 4), np.uint8)).save(_scene(tmp_path) / "train" / "r_2.png")
    assert f"{tmp_path / 'train' / 'r_2.png'} has 18x12 pixels, expected 16x12 as r_0.png" in _refusal(tmp_path)


def test_a_negative_testskip_is_one_sentence(tmp_path):
    assert "option --testskip: found -1, expected 0 or more" in _refusal(_scene(tmp_path), testskip=-1)


@pytest.mark.data
def test_the_real_lego_loads():
    folder = Path(os.environ.get("ENERF_DATA", "")) / "blender" / "lego_200"
    if "ENERF_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("ENERF_DATA names no folder with blender/lego_200")
    scene = blender.load(folder, half_res=True, testskip=1, white_bkgd=True)
    assert scene.images.shape[1:] == (100, 100, 3)
    assert len(scene.train) == 100
    assert all((_colors(scene, view)[0, 0] == 1).all() for view in range(len(scene.images)))
    assert np.isclose(scene.camera.fx, 277.7777 / 2, atol=1e-3)
    distances = np.linalg.norm(scene.c2w[:, :, 3].numpy(), axis=1)
    assert np.allclose(distances, distances.mean(), atol=1e-3)
    assert np.allclose(scene.c2w[:, :, 2].numpy() * distances[:, None], scene.c2w[:, :, 3].numpy(), atol=1e-2)


def test_a_byte_order_mark_is_skipped_and_what_is_no_text_is_named(tmp_path):
    file = _scene(tmp_path) / "transforms_train.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(blender.load(tmp_path).train) == COUNTS["train"]
    file.write_bytes(b"\x80")
    with pytest.raises(InputError, match=r"transforms_train.json: found bytes that are not UTF-8"):
        blender.load(tmp_path)


@pytest.mark.parametrize("name", ["transforms_train.json", "train/r_0.png", "test/r_8.png"])
def test_a_named_pipe_in_the_place_of_a_file_is_refused(name, tmp_path):
    (_scene(tmp_path) / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: found a named pipe, expected a file"):
        blender.load(tmp_path)


def _place(folder, change):
    """Apply a function to all poses of a scene, 3 × 4."""
    for split in COUNTS:

        def act(content):
            for frame in content["frames"]:
                frame["transform_matrix"] = change(np.array(frame["transform_matrix"])[:3]).tolist()

        _change(folder, split, act)


def _moved(c2w, factor=1.0, shift=0.0):
    return np.concatenate([c2w[:, :3], c2w[:, 3:] * factor + shift], axis=1)


def test_cameras_that_look_beyond_far_are_told_the_range_that_fits(tmp_path, caplog):
    _place(_scene(tmp_path), lambda c2w: _moved(c2w, 10.0))
    assert blender.load(tmp_path).far == 6
    assert "look at a point that is 40 to 40 in front of them, outside of the range of depths, 2 to 6" in caplog.text
    assert "--near 20 --far 60" in caplog.text
    caplog.clear()
    scene = blender.load(tmp_path, near=20, far=60)
    assert "in front of them" not in caplog.text
    assert (scene.near, scene.far) == (20.0, 60.0)
    assert scene.bounds.unique().tolist() == [20.0, 60.0]


def test_an_object_far_from_the_origin_is_told(tmp_path, caplog):
    _place(_scene(tmp_path), lambda c2w: _moved(c2w, 1.0, 100.0))
    blender.load(tmp_path)
    assert "look at the point (100, 100, 100), expected one near the origin" in caplog.text


@pytest.mark.parametrize(("near", "far"), [(7, 0), (0, 1.5), (-1, 3), (math.nan, 3), (1, math.inf)])
def test_impossible_ranges_are_one_sentence(near, far, tmp_path):
    assert "options --near and --far: found depths from" in _refusal(_scene(tmp_path), near=near, far=far)


def test_cameras_at_one_point_are_refused(tmp_path):
    _place(_scene(tmp_path), lambda c2w: _moved(c2w, 1e-9))
    text = _refusal(tmp_path)
    assert "has all training cameras at one point" in text
    assert "no depth can be learned" in text


@pytest.mark.parametrize("axes", poses.AXES)
def test_poses_in_other_axes_give_the_same_scene(axes, tmp_path):
    wanted = blender.load(_scene(tmp_path))
    _place(tmp_path, lambda c2w: to_axes(c2w[None], axes)[0])
    assert torch.allclose(blender.load(tmp_path, pose_axes=axes).c2w, wanted.c2w, atol=1e-6)


def test_intrinsics_of_several_cameras_are_refused_and_unread_ones_are_told(tmp_path, caplog):
    _change(_scene(tmp_path), "train", lambda content: content.update(k1=0.1, k2=0, cx=9, w=16, cy=6.01, h=12))
    blender.load(tmp_path)
    assert "k1, cx is not read: the camera is a pinhole" in caplog.text
    _change(tmp_path, "train", lambda content: content["frames"][2].update(fl_x=30.0))
    _change(tmp_path, "train", lambda content: content.update(fl_x=20.0))
    assert "has fl_x 30.0 in frame 2, expected 20.0 as elsewhere in the file" in _refusal(tmp_path)
    _change(tmp_path, "train", lambda content: content["frames"][2].update(fl_x=10**400))
    assert "has fl_x inf in frame 2, expected 20.0" in _refusal(tmp_path)


def test_a_scale_of_the_axes_and_repeated_poses_are_told(tmp_path, caplog):
    first = _pose(0)
    first[:3, :3] *= 1.5
    _change(_scene(tmp_path), "train", lambda content: content["frames"][0].update(transform_matrix=first.tolist()))
    _change(tmp_path, "train", lambda content: content["frames"][3].update(transform_matrix=_pose(2).tolist()))
    blender.load(tmp_path, testskip=8)
    assert "rotations that are scaled are normalized: view 0 (train/r_0.png): 1.5" in caplog.text
    assert "the same pose as that of an earlier view in view 3 (train/r_3.png)" in caplog.text
