"""Reading transforms.json of instant-ngp and nerfstudio."""

import logging
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import transforms_file
from enerf.datasets.scenes.posed_images import Points
from enerf.datasets.scenes.transforms_cameras import PROJECTIONS, UNSUPPORTED
from tests.contents import refusal
from tests.datasets.scenes.transforms_scene import (
    GLOBAL,
    H,
    N,
    W,
    content_with,
    frame_with,
    pose,
    write_file,
    write_picture,
    write_scene,
)


def _refused(file, content=None):
    if content is not None:
        write_file(file.parent, content)
    return refusal(transforms_file.read, file)


def _of_frame(frame, **keys):
    content = content_with()
    content["frames"][frame].update(keys)
    return content


def _reduced(keys, **more):
    """Content without some keys of the file."""
    return {key: value for key, value in content_with().items() if key not in keys.split()} | more


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A scene of which tests change the file only."""
    return write_scene(tmp_path_factory.mktemp("scene"))


def test_a_file_of_nerfstudio_gives_cameras_poses_masks_depths_and_split(tmp_path):
    content = content_with(
        k1=0.1,
        k2=-0.02,
        p1=0.003,
        p2=0.004,
        applied_transform=[[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]],
        applied_scale=2.0,
        orientation_override="none",
        ply_file_path="sparse_pc.ply",
        train_filenames=["images/0.png", "./images/1.png"],
        val_filenames=["images\\3.png"],
    )
    for i, frame in enumerate(content["frames"]):
        frame |= {"mask_path": f"masks/{i}.png", "depth_file_path": f"depth/{i}.png", "colmap_im_id": i}
        write_picture(tmp_path / "masks" / f"{i}.png")
        write_picture(tmp_path / "depth" / f"{i}.png")
    file = write_scene(tmp_path, content)
    posed = transforms_file.read(tmp_path)
    assert posed.source == file
    assert posed.names == ("images/0.png", "images/1.png", "images/3.png")
    assert posed.files == tuple(tmp_path / name for name in posed.names)
    assert posed.cameras == (Camera(W, H, 20.0, 21.0, 8.5, 5.75, "OPENCV", (0.1, -0.02, 0.003, 0.004)),) * 3
    assert np.abs(posed.c2w - [pose(i)[:3] for i in (0, 1, 3)]).max() < 1e-14
    assert posed.masks == tuple(tmp_path / "masks" / f"{i}.png" for i in (0, 1, 3))
    assert posed.depths == tuple(tmp_path / "depth" / f"{i}.png" for i in (0, 1, 3))
    assert posed.depth_unit == pytest.approx(0.002)
    assert posed.test == (2,)
    assert posed.points is None
    assert posed.unread == ("applied_transform", "colmap_im_id", "orientation_override", "ply_file_path")


def test_a_file_of_instant_ngp_is_read_as_that_program_does(tmp_path, caplog):
    """Angles of view before focal lengths, frames before the file, and depth maps by integer_depth_scale."""
    content = {
        **{"x_fov": 60.0, "w": 16.0, "h": 12.0, "cx": 7.0, "aabb_scale": 16, "scale": 0.5, "offset": [0, 0, 0]},
        **{"integer_depth_scale": 0.0002, "sharpness_discard_threshold": 0.5, "up": [0, 0, 1], "from_mitsuba": False},
        "frames": [
            frame_with(0, ".\\images\\0", sharpness=3.5, depth_path="depth\\0.png"),
            frame_with(1, "images/1", fl_x=30.0, cx=9.0),
        ],
    }
    write_picture(tmp_path / "depth" / "0.png")
    posed = transforms_file.read(write_scene(tmp_path, content))
    focal = 8 / math.tan(0.5 * math.radians(60))
    assert posed.names == ("images/0.png", "images/1.png")
    assert posed.cameras[0] == Camera(W, H, focal, focal, 7.0, 6.0)
    assert posed.cameras[1] == Camera(W, H, 30.0, 30.0, 9.0, 6.0)
    assert posed.depths == (tmp_path / "depth" / "0.png", None)
    assert posed.depth_unit == 0.0002
    assert posed.test is None
    assert " ".join(posed.unread) == ("aabb_scale from_mitsuba offset scale sharpness sharpness_discard_threshold up")
    assert "a value of cx is not used since it contradicts another one (frames precede the file): view 1" in caplog.text
    assert "a value of x_fov is not used" in caplog.text


def test_a_file_with_an_angle_alone_is_that_of_a_centered_pinhole(tmp_path, caplog):
    content = {"camera_angle_x": 0.7, "frames": [frame_with(i, f"./images/{i}", rotation=0.1) for i in range(2)]}
    posed = transforms_file.read(write_scene(tmp_path, content))
    focal = W / 2 / math.tan(0.35)
    assert posed.cameras == (Camera(W, H, focal, focal, W / 2, H / 2),) * 2
    assert posed.unread == ("rotation",)
    assert not caplog.records


def test_a_file_of_a_phone_with_cameras_of_frames_and_missing_images(tmp_path, caplog):
    """Portrait and landscape, focus of each frame, distortion, and images that were deleted."""
    frames = []
    for i in range(8):
        width, height = (W, H) if i % 2 else (H, W)
        if i not in (2, 5):
            write_picture(tmp_path / "images" / f"{i}.jpg", width, height)
        keys = {"w": width, "h": height, "fl_x": 20 + i, "fl_y": 20 + i, "cx": width / 2, "cy": height / 2 + 0.25}
        frames.append(frame_with(i, f"images/{i}.jpg", **keys, k1=0.01 * i, k2=0.001, k3=0.0001))
    posed = transforms_file.read(write_file(tmp_path, {"camera_model": "OPENCV", "frames": frames}))
    assert posed.names == tuple(f"images/{i}.jpg" for i in (0, 1, 3, 4, 6, 7))
    for i, camera in zip((0, 1, 3, 4, 6, 7), posed.cameras, strict=True):
        width, height = (W, H) if i % 2 else (H, W)
        expected = Camera(width, height, 20 + i, 20 + i, width / 2, height / 2 + 0.25, "FULL_OPENCV")
        assert camera == replace(expected, coefficients=(0.01 * i, 0.001, 0.0, 0.0, 0.0001, 0.0, 0.0, 0.0))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "images do not exist and are left out, 2 of 8: images/2.jpg, images/5.jpg" in caplog.text


@pytest.mark.parametrize(
    ("keys", "model", "coefficients"),
    [
        ({}, "PINHOLE", ()),
        ({"k1": 0, "k2": 0.0, "p1": 0}, "PINHOLE", ()),
        ({"k1": None, "p2": 0.5}, "OPENCV", (0, 0, 0, 0.5)),
        ({"camera_model": "SIMPLE_RADIAL", "k1": 0.5}, "OPENCV", (0.5, 0, 0, 0)),
        ({"k1": 1, "k2": 2, "k3": 3, "p1": 4, "p2": 5}, "FULL_OPENCV", (1, 2, 4, 5, 3, 0, 0, 0)),
        ({"distortion_params": [1, 2, 3, 0, 4, 5]}, "FULL_OPENCV", (1, 2, 4, 5, 3, 0, 0, 0)),
        ({"camera_model": "OPENCV_FISHEYE", "k1": 1, "k4": 2}, "OPENCV_FISHEYE", (1, 0, 0, 2)),
        ({"camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE", (0, 0, 0, 0)),
        ({"camera_model": None, "is_fisheye": True, "k3": 3}, "OPENCV_FISHEYE", (0, 0, 3, 0)),
        (
            {"camera_model": "FISHEYE624", "distortion_params": list(range(12))},
            "RAD_TAN_THIN_PRISM_FISHEYE",
            tuple(range(12)),
        ),
    ],
)
def test_distortion_has_the_model_and_order_of_colmap(keys, model, coefficients, shared):
    camera = transforms_file.read(write_file(shared.parent, content_with(**keys))).cameras[0]
    assert (camera.model, camera.coefficients) == (model, coefficients)


@pytest.mark.parametrize("fisheye", [False, True])
def test_the_projection_of_colmap_is_the_polynomial_of_nerfstudio(fisheye, shared):
    """In perspective cameras of x / z and y / z, in fisheye cameras of these scaled to the angle."""
    pycolmap = pytest.importorskip("pycolmap")
    k1, k2, k3, k4, p1, p2 = 0.1, -0.05, 0.02, 0.01 * fisheye, 0.003 * (not fisheye), -0.004 * (not fisheye)
    model = "OPENCV_FISHEYE" if fisheye else "OPENCV"
    keys = {"k1": k1, "k2": k2, "k3": k3, "k4": k4, "p1": p1, "p2": p2, "camera_model": model}
    found = transforms_file.read(write_file(shared.parent, content_with(**keys))).cameras[0]
    parameters = [found.fx, found.fy, found.cx, found.cy, *found.coefficients]
    colmap = pycolmap.Camera(model=found.model, width=W, height=H, params=parameters)
    x, y = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 50))
    pixels = colmap.img_from_cam(np.stack([x, y, np.ones(50)], axis=1))
    radius = np.hypot(x, y)
    x, y = (x * np.arctan(radius) / radius, y * np.arctan(radius) / radius) if fisheye else (x, y)
    r = x * x + y * y
    d = 1 + k1 * r + k2 * r**2 + k3 * r**3 + k4 * r**4
    u = x * d + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    v = y * d + 2 * p2 * x * y + p1 * (r + 2 * y * y)
    assert np.abs(pixels - np.stack([20 * u + 8.5, 21 * v + 5.75], axis=1)).max() < 1e-12


def test_a_panorama_covers_the_sphere(tmp_path):
    for i in range(2):
        write_picture(tmp_path / "images" / f"{i}.png", 20, 10)
    content = {"camera_model": "EQUIRECTANGULAR", "w": 20, "h": 10, "fl_x": 10, "fl_y": 10, "cx": 10, "cy": 5}
    file = write_file(tmp_path, {**content, "frames": [frame_with(0), frame_with(1)]})
    camera = transforms_file.read(file).cameras[0]
    assert camera == Camera(20, 10, 20 / (2 * math.pi), 10 / math.pi, 10, 5, "EQUIRECTANGULAR")
    text = _refused(file, {**content, "fl_x": 12, "frames": [frame_with(0)]})
    assert "has fl_x 12, expected 10: a panorama of 20x10" in text


def test_the_file_takes_precedence_as_in_nerfstudio_with_a_warning(shared, caplog):
    content = _of_frame(1, fl_x=25.0, cx=8.5001, k1=0.2)
    content["k1"] = 0.1
    posed = transforms_file.read(write_file(shared.parent, content))
    assert posed.cameras == (Camera(W, H, 20.0, 21.0, 8.5, 5.75, "OPENCV", (0.1, 0.0, 0.0, 0.0)),) * N
    assert (
        "fl_x is not used since it contradicts another one (the file precedes frames): view 1 (images/1.png)"
        in caplog.text
    )
    assert "k1 is not used" in caplog.text
    assert "cx" not in caplog.text


def test_an_angle_that_contradicts_the_focal_length_is_told(shared, caplog):
    angle = 2 * math.atan(W / 2 / 20)
    assert transforms_file.read(write_file(shared.parent, content_with(camera_angle_x=angle))).cameras[0].fx == 20
    assert not caplog.records
    assert transforms_file.read(write_file(shared.parent, content_with(camera_angle_x=1.1 * angle))).cameras[0].fx == 20
    assert "a value of camera_angle_x is not used" in caplog.text


def test_focal_lengths_that_are_missing_are_those_of_the_other_axis(shared):
    camera = transforms_file.read(write_file(shared.parent, _reduced("fl_y"))).cameras[0]
    assert (camera.fx, camera.fy) == (20, 20)
    camera = transforms_file.read(write_file(shared.parent, _reduced("fl_x fl_y", y_fov=90.0))).cameras[0]
    assert (camera.fx, camera.fy) == pytest.approx((6, 6))


def test_sizes_that_are_not_stated_are_those_of_each_image(tmp_path):
    file = write_scene(tmp_path, _reduced("w h cx cy"))
    write_picture(tmp_path / "images" / "2.png", 20, 10)
    cameras = transforms_file.read(file).cameras
    assert [(camera.width, camera.height, camera.cx, camera.cy) for camera in cameras] == [
        *[(W, H, 8, 6)] * 2,
        (20, 10, 10, 5),
        (W, H, 8, 6),
    ]


def test_images_of_the_same_shape_resize_the_camera_and_others_are_refused(tmp_path, caplog):
    keys = {"w": 2 * W, "h": 2 * H, "fl_x": 40, "fl_y": 42, "cx": 17, "cy": 11.5, "k1": 0.1}
    file = write_scene(tmp_path, content_with(**keys))
    camera = transforms_file.read(file).cameras[0]
    assert camera == Camera(W, H, 20, 21, 8.5, 5.75, "OPENCV", (0.1, 0.0, 0.0, 0.0))
    assert len(caplog.records) == 1
    assert "states images of 32x24 but" in caplog.text
    assert "has 16x12 pixels: the cameras are resized" in caplog.text
    assert "states images of 12x16 but" in _refused(file, content_with(w=H, h=W))
    exif = Image.Exif()
    exif[274] = 6
    write_picture(tmp_path / "images" / "0.png", exif=exif)
    assert "before its EXIF orientation, which is not applied, expected the same shape" in _refused(file)


def test_repeated_frames_are_left_out_and_contradicting_ones_refused(shared, caplog):
    content = content_with()
    content["frames"] += [frame_with(1, "./images/../images/1.png"), frame_with(2)]
    assert len(transforms_file.read(write_file(shared.parent, content)).names) == N
    assert "frames repeat an earlier one and are left out (2): images/1.png, images/2.png" in caplog.text
    content["frames"] += [{**frame_with(2), "file_path": "images/3.png"}]
    assert "has two frames of images/3.png, 3 and 6, with different poses" in _refused(shared, content)
    content["frames"][-1] = frame_with(3, fl_x=4)
    assert "has two frames of images/3.png" in _refused(shared, content)


def test_missing_images_are_counted_and_none_is_an_error(tmp_path, caplog):
    file = write_scene(tmp_path, n=1)
    posed = transforms_file.read(file)
    assert posed.names == ("images/0.png",)
    assert "images do not exist and are left out, 3 of 4: images/1.png, images/2.png, images/3.png" in caplog.text
    (tmp_path / "images" / "0.png").unlink()
    assert "names 4 images, of which none exists, expected images/0.png, images/1.png" in _refused(file)


def test_masks_and_depth_maps_that_are_missing_are_left_out(tmp_path, caplog):
    write_picture(tmp_path / "masks" / "1.png")
    content = _of_frame(1, mask_path="masks/1.png", depth_file_path="depth/1.png")
    content["frames"][0]["mask_path"] = "masks/0.png"
    posed = transforms_file.read(write_scene(tmp_path, content))
    assert posed.masks == (None, tmp_path / "masks" / "1.png", None, None)
    assert posed.depths == ()
    assert "masks do not exist and are left out (1): masks/0.png" in caplog.text
    assert "depth maps do not exist and are left out (1): depth/1.png" in caplog.text


def test_masks_of_instant_ngp_lie_beside_the_images_unless_frames_name_others(tmp_path, caplog):
    file = write_scene(tmp_path)
    beside = tmp_path / "images" / "dynamic_mask_2.png"
    write_picture(beside)
    with caplog.at_level(logging.INFO):
        posed = transforms_file.read(file)
    assert (posed.masks, posed.masks_are_inverse) == ((None, None, beside, None), True)
    assert "1 of 4 images have a mask of instant-ngp, dynamic_mask_NAME.png: pixels that are not black" in caplog.text
    write_file(tmp_path, _of_frame(0, mask_path="images/0.png"))
    posed = transforms_file.read(file)
    assert (posed.masks, posed.masks_are_inverse) == ((tmp_path / "images" / "0.png", None, None, None), False)
    beside.unlink()
    os.mkfifo(beside)
    assert "dynamic_mask_2.png: found a named pipe, expected a file" in _refused(file, content_with())


@pytest.mark.parametrize(("model", "scale"), [("OPENCV_FISHEYE", 1), ("OPENCV_FISHEYE", 2), ("OPENCV", 1)])
def test_the_radius_of_a_picture_is_that_of_fisheye_cameras_at_the_size_of_the_image(model, scale, tmp_path):
    content = content_with(camera_model=model, fisheye_crop_radius=5.0 * scale, w=scale * W, h=scale * H)
    posed = transforms_file.read(write_scene(tmp_path, content))
    assert posed.radii == ((5.0,) * N if model == "OPENCV_FISHEYE" else ())
    assert posed.unread == (() if posed.radii else ("fisheye_crop_radius",))
    assert "has fisheye_crop_radius -1, expected a number above 0" in _refused(
        posed.source, {**content, "fisheye_crop_radius": -1}
    )


def test_keys_that_are_not_used_are_told(shared, caplog):
    with caplog.at_level(logging.INFO):
        transforms_file.read(write_file(shared.parent, _of_frame(0, sharpness=3.0)))
    assert [record.message for record in caplog.records] == [f"{shared}: keys are understood and not used: sharpness"]


def test_depth_maps_without_a_unit_are_not_read(tmp_path):
    write_picture(tmp_path / "depth" / "1.png")
    posed = transforms_file.read(write_scene(tmp_path, _of_frame(1, depth_path="depth/1.png")))
    assert (posed.depths, posed.unread) == ((), ("depth_path",))


@pytest.mark.parametrize("name", ["../9.png", "/etc/9.png", "images/../../9.png", "C:\\data\\9.png", "..", "."])
def test_paths_out_of_the_folder_to_no_file_in_it_are_refused(name, shared):
    assert "file_path of frame 1 is '" in _refused(shared, _of_frame(1, file_path=name))
    for key in ("mask_path", "depth_file_path"):
        assert f"{key} of frame 1 is '" in _refused(shared, _of_frame(1, **{key: name}))
    text = _refused(shared, content_with(test_filenames=[name]))
    assert "a name of test_filenames is '" in text
    assert "expected a path inside of the folder" in text


def test_absolute_paths_into_the_folder_are_read(shared):
    content = _of_frame(1, file_path=str(shared.parent.resolve() / "images" / "1.png"))
    assert transforms_file.read(write_file(shared.parent, content)).names[1] == "images/1.png"


def test_suffixes_are_tried_in_the_order_of_instant_ngp(tmp_path):
    (tmp_path / "images").mkdir()
    names = ["r_0.5", "b", "c", "d"]
    for i, suffix in enumerate([".png", ".jpg", ".bmp", ".jpeg"]):
        write_picture(tmp_path / "images" / f"{names[i]}{suffix}")
    write_picture(tmp_path / "images" / "c.jpg")
    (tmp_path / "images" / "d").write_bytes((tmp_path / "images" / "b.jpg").read_bytes())
    content = {**GLOBAL, "frames": [frame_with(i, f"images/{name}") for i, name in enumerate(names)]}
    posed = transforms_file.read(write_file(tmp_path, content))
    assert posed.names == ("images/r_0.5.png", "images/b.jpg", "images/c.jpg", "images/d")


@pytest.mark.parametrize(
    ("lists", "names", "test"),
    [
        ({}, "0123", None),
        ({"train": "01", "test": "23"}, "0123", (2, 3)),
        ({"train": "01", "val": "23", "test": "23"}, "0123", (2, 3)),
        ({"train": "01", "val": "2", "test": "3"}, "013", (2,)),
        ({"train": "0", "val": "2", "test": ""}, "02", (1,)),
        ({"train": "30", "test": ""}, "03", ()),
        ({"test": "1"}, "0123", (1,)),
        ({"val": "2", "test": "1"}, "013", (1,)),
        ({"train": "0129", "test": "3"}, "0123", (3,)),
    ],
)
def test_the_split_is_that_of_the_lists(lists, names, test, shared, caplog):
    keys = {f"{key}_filenames": [f"images/{i}.png" for i in value] for key, value in lists.items()}
    posed = transforms_file.read(write_file(shared.parent, content_with(**keys)))
    assert posed.names == tuple(f"images/{i}.png" for i in names)
    assert posed.test == test
    assert (f"nor for testing and are left out ({4 - len(names)})" in caplog.text) == (len(names) < 4)
    assert ("have no frame or image: images/9.png" in caplog.text) == ("9" in lists.get("train", ""))


def test_splits_that_contradict_themselves_are_refused(shared):
    both = content_with(train_filenames=["images/0.png", "images/1.png"], test_filenames=["./images/1.png"])
    assert "has names in train_filenames and in another list, images/1.png" in _refused(shared, both)
    assert "has no frame for training" in _refused(
        shared, content_with(train_filenames=[], test_filenames=["images/1.png"])
    )
    assert "has val_filenames a list of 1, expected a list of names" in _refused(
        shared, content_with(val_filenames=[1])
    )


def test_points_are_scaled_to_the_world_of_the_file(tmp_path, caplog):
    xyz = np.random.default_rng(0).normal(size=(5, 3))
    none = np.zeros(0, np.int64)
    file = write_scene(tmp_path, content_with(ply_file_path="points.ply", applied_scale=3.0))
    asked = []

    def read_points(path):
        asked.append(path)
        return Points(xyz, None, none, none)

    assert transforms_file.read(file, read_points=read_points).points is None
    assert "the file of points" in caplog.text
    (tmp_path / "points.ply").write_text("ply")
    posed = transforms_file.read(file, read_points=read_points)
    assert np.array_equal(posed.points.xyz, 3 * xyz)
    assert asked == [tmp_path / "points.ply"]
    assert posed.unread == ()


def test_unknown_keys_are_told_once(shared, caplog):
    content = _of_frame(0, secret=1)
    content |= {"comment\n": 2}
    with caplog.at_level(logging.INFO):
        assert transforms_file.read(write_file(shared.parent, content)).unread == ()
    assert [record.message for record in caplog.records] == [
        f"{shared}: unknown keys are ignored: 'comment\\n', 'secret'"
    ]


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, '{"frames": [' * 50_000])
def test_what_is_no_json_is_one_sentence(text, tmp_path):
    assert "transforms.json is no JSON (" in _refused(write_file(tmp_path, text))


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    assert "transforms.json does not exist, expected a scene laid out as" in refusal(transforms_file.read, tmp_path)
    file = write_scene(tmp_path)
    file.write_bytes(b"\x80")
    assert "found bytes that are not UTF-8" in _refused(file)
    file.unlink()
    os.mkfifo(file)
    assert "found a named pipe, expected a file" in _refused(file)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([], "has no list of frames"),
        ({"frames": {}}, "has no list of frames"),
        ({"frames": []}, "has no list of frames"),
        ({"frames": [3]}, "has no file_path in frame 0"),
        (_of_frame(1, file_path=3), "has no file_path in frame 1"),
        (_of_frame(1, file_path="a\0"), r"has no file_path in frame 1 ('a\x00')"),
        (_of_frame(1, transform_matrix=None), "has no 4 x 4 transform_matrix in frame 1 (images/1.png)"),
        (_of_frame(1, transform_matrix=[["1"] * 4] * 4), "has no 4 x 4 transform_matrix in frame 1"),
        (_of_frame(1, transform_matrix=(pose(1) * math.nan).tolist()), "that is not finite"),
        (_of_frame(1, transform_matrix=(np.diag([1e200, 1e200, 1e200, 1])).tolist()), "with numbers of up to 1e+200"),
        (_of_frame(1, transform_matrix=pose(1).T.tolist()), "(is it transposed?)"),
        (content_with(fl_x="20"), "has fl_x '20', expected a finite number"),
        (content_with(fl_x=math.nan), "has fl_x nan, expected a finite number"),
        (content_with(fl_x=10**400), "has fl_x inf, expected a finite number"),
        (content_with(fl_x=True), "has fl_x True, expected a finite number"),
        (content_with(fl_x=0), "has fl_x 0, expected that of a camera: 0.0016 to"),
        (content_with(fl_y=-3), "has fl_y -3, expected that of a camera"),
        (_reduced("fl_x", camera_angle_x=3.2), "has camera_angle_x 3.2, expected that of a camera: an angle"),
        (_reduced("fl_x", x_fov=180), "has x_fov 180, expected that of a camera: an angle"),
        (_reduced("fl_x fl_y"), "has no focal length, expected fl_x, camera_angle_x or x_fov"),
        (content_with(w=0), "has w 0, expected a whole number of pixels"),
        (content_with(w=1.5), "has w 1.5, expected a whole number of pixels"),
        (content_with(h=[1]), "has h a list of 1, expected a finite number"),
        (_reduced("w"), "has a width or a height only"),
        (content_with(cx=1e9), "has cx 1e+09, expected a principal point near the image"),
        (content_with(k1="a"), "has k1 'a', expected a finite number"),
        (content_with(k4=0.1), "has k4 0.1, expected 0 in a perspective camera"),
        (content_with(camera_model="OPENCV_FISHEYE", p1=0.1), "is a fisheye camera with p1 0.1 and p2 0"),
        (content_with(camera_model="FISHEYE624"), "has none in distortion_params, expected 12 numbers"),
        (content_with(distortion_params=[1, 2]), "has 2 distortion_params, expected 6: k1, k2"),
        (content_with(distortion_params=[0] * 13), "has distortion_params a list of 13"),
        (content_with(distortion_params=["1"] * 6), "has distortion_params '1', expected a finite number"),
        (content_with(camera_model="VR180_L"), "has camera_model 'VR180_L', which is not supported, expected one of"),
        (
            content_with(camera_model=["OPENCV"]),
            "has camera_model a list of 1, expected one of SIMPLE_PINHOLE, PINHOLE",
        ),
        (content_with(is_fisheye=True), "has camera_model OPENCV and is_fisheye true, expected the same projection"),
        (content_with(is_fisheye="no"), "has is_fisheye 'no', expected true or false"),
        (content_with(latlong=True), "has latlong, a lens that is not supported"),
        (content_with(applied_scale=0), "has applied_scale 0, expected a number above 0"),
        (content_with(integer_depth_scale="1"), "has integer_depth_scale '1', expected a number above 0"),
        (_of_frame(1, mask_path=3), "has mask_path 3 in frame 1, expected the name of a file"),
    ],
)
def test_what_no_camera_has_is_one_sentence(content, found, shared):
    text = _refused(shared, content)
    assert str(shared) in text
    assert found in text
    assert "expected" in text


def test_matrices_that_are_no_rotation_are_named(shared):
    mirrored = pose(1) @ np.diag([1.0, 1, -1, 1])
    write_file(shared.parent, _of_frame(1, transform_matrix=mirrored.tolist()))
    with pytest.raises(InputError, match=r"no rotation in view 1 \(images/1.png\)"):
        transforms_file.read(shared)


def test_a_named_pipe_in_the_place_of_an_image_is_refused(tmp_path):
    file = write_scene(tmp_path)
    (tmp_path / "images" / "2.png").unlink()
    os.mkfifo(tmp_path / "images" / "2.png")
    assert "2.png: found a named pipe, expected a file" in _refused(file)


def test_the_names_of_cameras_are_those_of_nerfstudio():
    assert len(PROJECTIONS) + len(UNSUPPORTED) == 13
    assert not set(PROJECTIONS) & set(UNSUPPORTED)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
SOME_KEYS = (
    "w h cx cy fl_x fl_y camera_angle_x x_fov k1 k2 k3 k4 p1 distortion_params camera_model is_fisheye applied_scale "
    "frames file_path transform_matrix mask_path depth_file_path train_filenames test_filenames aabb_scale latlong "
    "integer_depth_scale"
)


@given(key=st.sampled_from(SOME_KEYS.split()), value=ANYTHING, in_frame=st.booleans())
@settings(max_examples=150)
def test_any_value_of_a_key_is_read_or_refused(shared, key, value, in_frame):
    content = _of_frame(1, **{key: value}) if in_frame else content_with(**{key: value})
    if key == "frames" and not in_frame:
        content["frames"] = value
    write_file(shared.parent, content)
    try:
        found = transforms_file.read(shared)
    except InputError as error:
        message, found = str(error), None
    if found is None:
        assert "\n" not in message
    else:
        assert np.isfinite(found.c2w).all()
        assert all(math.isfinite(camera.fx * camera.cx) for camera in found.cameras)


@pytest.mark.data
def test_the_real_lego_is_read():
    folder = Path(os.environ.get("ENERF_DATA", "")) / "blender" / "lego_200"
    if "ENERF_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("ENERF_DATA names no folder with blender/lego_200")
    posed = transforms_file.read(folder / "transforms_train.json")
    assert len(posed.names) == 100
    assert (posed.cameras[0].width, posed.cameras[0].model) == (200, "PINHOLE")
    assert np.isclose(posed.cameras[0].fx, 277.7777, atol=1e-3)


def test_the_file_of_points_is_a_file_of_the_scene_if_it_exists(tmp_path):
    file = write_scene(tmp_path, content_with(ply_file_path="points/a.ply"))
    assert transforms_file.input_files(tmp_path) == [file]
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "a.ply").write_text("ply")
    assert transforms_file.input_files(tmp_path) == [file, tmp_path / "points" / "a.ply"]
    assert transforms_file.input_files(file, with_points=False) == [file]
    write_file(tmp_path, content_with(ply_file_path="../a.ply"))
    assert "expected a path inside of the folder" in refusal(transforms_file.input_files, tmp_path)
    write_file(tmp_path, content_with(ply_file_path=7))
    assert "has ply_file_path 7, expected the name of a file" in refusal(transforms_file.input_files, tmp_path)
