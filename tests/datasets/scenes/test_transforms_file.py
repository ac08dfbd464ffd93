"""Reading and writing transforms.json of instant-ngp and nerfstudio."""

import json
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
from enerf.datasets.scenes import poses, transforms_file, transforms_writer
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.datasets.scenes.transforms_cameras import PROJECTIONS, UNSUPPORTED
from tests.contents import refusal

W, H, N = 16, 12, 4
GLOBAL = {"camera_model": "OPENCV", "w": W, "h": H, "fl_x": 20.0, "fl_y": 21.0, "cx": 8.5, "cy": 5.75}


def _pose(i):
    return np.concatenate([poses.blender_circle(11)[i], [[0, 0, 0, 1]]])


def _picture(path, width=W, height=H, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path, **options)


def _frame(i, name=None, **keys):
    return {"file_path": name or f"images/{i}.png", "transform_matrix": _pose(i).tolist(), **keys}


def _content(n=N, **keys):
    return {**GLOBAL, **keys, "frames": [_frame(i) for i in range(n)]}


def _write(folder, content):
    file = folder / "transforms.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def _scene(folder, content=None, n=N):
    for i in range(n):
        _picture(folder / "images" / f"{i}.png")
    return _write(folder, _content() if content is None else content)


def _refused(file, content=None):
    if content is not None:
        _write(file.parent, content)
    return refusal(transforms_file.read, file)


def _of_frame(frame, **keys):
    content = _content()
    content["frames"][frame].update(keys)
    return content


def _reduced(keys, **more):
    """Content without some keys of the file."""
    return {key: value for key, value in _content().items() if key not in keys.split()} | more


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A scene of which tests change the file only."""
    return _scene(tmp_path_factory.mktemp("scene"))


def test_a_file_of_nerfstudio_gives_cameras_poses_masks_depths_and_split(tmp_path):
    content = _content(
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
        _picture(tmp_path / "masks" / f"{i}.png")
        _picture(tmp_path / "depth" / f"{i}.png")
    file = _scene(tmp_path, content)
    posed = transforms_file.read(tmp_path)
    assert posed.source == file
    assert posed.names == ("images/0.png", "images/1.png", "images/3.png")
    assert posed.files == tuple(tmp_path / name for name in posed.names)
    assert posed.cameras == (Camera(W, H, 20.0, 21.0, 8.5, 5.75, "OPENCV", (0.1, -0.02, 0.003, 0.004)),) * 3
    assert np.abs(posed.c2w - [_pose(i)[:3] for i in (0, 1, 3)]).max() < 1e-14
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
            _frame(0, ".\\images\\0", sharpness=3.5, depth_path="depth\\0.png"),
            _frame(1, "images/1", fl_x=30.0, cx=9.0),
        ],
    }
    _picture(tmp_path / "depth" / "0.png")
    posed = transforms_file.read(_scene(tmp_path, content))
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
    content = {"camera_angle_x": 0.7, "frames": [_frame(i, f"./images/{i}", rotation=0.1) for i in range(2)]}
    posed = transforms_file.read(_scene(tmp_path, content))
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
            _picture(tmp_path / "images" / f"{i}.jpg", width, height)
        keys = {"w": width, "h": height, "fl_x": 20 + i, "fl_y": 20 + i, "cx": width / 2, "cy": height / 2 + 0.25}
        frames.append(_frame(i, f"images/{i}.jpg", **keys, k1=0.01 * i, k2=0.001, k3=0.0001))
    posed = transforms_file.read(_write(tmp_path, {"camera_model": "OPENCV", "frames": frames}))
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
    camera = transforms_file.read(_write(shared.parent, _content(**keys))).cameras[0]
    assert (camera.model, camera.coefficients) == (model, coefficients)


@pytest.mark.parametrize("fisheye", [False, True])
def test_the_projection_of_colmap_is_the_polynomial_of_nerfstudio(fisheye, shared):
    """In perspective cameras of x / z and y / z, in fisheye cameras of these scaled to the angle."""
    pycolmap = pytest.importorskip("pycolmap")
    k1, k2, k3, k4, p1, p2 = 0.1, -0.05, 0.02, 0.01 * fisheye, 0.003 * (not fisheye), -0.004 * (not fisheye)
    model = "OPENCV_FISHEYE" if fisheye else "OPENCV"
    keys = {"k1": k1, "k2": k2, "k3": k3, "k4": k4, "p1": p1, "p2": p2, "camera_model": model}
    found = transforms_file.read(_write(shared.parent, _content(**keys))).cameras[0]
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
        _picture(tmp_path / "images" / f"{i}.png", 20, 10)
    content = {"camera_model": "EQUIRECTANGULAR", "w": 20, "h": 10, "fl_x": 10, "fl_y": 10, "cx": 10, "cy": 5}
    file = _write(tmp_path, {**content, "frames": [_frame(0), _frame(1)]})
    camera = transforms_file.read(file).cameras[0]
    assert camera == Camera(20, 10, 20 / (2 * math.pi), 10 / math.pi, 10, 5, "EQUIRECTANGULAR")
    text = _refused(file, {**content, "fl_x": 12, "frames": [_frame(0)]})
    assert "has fl_x 12, expected 10: a panorama of 20x10" in text


def test_the_file_takes_precedence_as_in_nerfstudio_with_a_warning(shared, caplog):
    content = _of_frame(1, fl_x=25.0, cx=8.5001, k1=0.2)
    content["k1"] = 0.1
    posed = transforms_file.read(_write(shared.parent, content))
    assert posed.cameras == (Camera(W, H, 20.0, 21.0, 8.5, 5.75, "OPENCV", (0.1, 0.0, 0.0, 0.0)),) * N
    assert (
        "fl_x is not used since it contradicts another one (the file precedes frames): view 1 (images/1.png)"
        in caplog.text
    )
    assert "k1 is not used" in caplog.text
    assert "cx" not in caplog.text


def test_an_angle_that_contradicts_the_focal_length_is_told(shared, caplog):
    angle = 2 * math.atan(W / 2 / 20)
    assert transforms_file.read(_write(shared.parent, _content(camera_angle_x=angle))).cameras[0].fx == 20
    assert not caplog.records
    assert transforms_file.read(_write(shared.parent, _content(camera_angle_x=1.1 * angle))).cameras[0].fx == 20
    assert "a value of camera_angle_x is not used" in caplog.text


def test_focal_lengths_that_are_missing_are_those_of_the_other_axis(shared):
    camera = transforms_file.read(_write(shared.parent, _reduced("fl_y"))).cameras[0]
    assert (camera.fx, camera.fy) == (20, 20)
    camera = transforms_file.read(_write(shared.parent, _reduced("fl_x fl_y", y_fov=90.0))).cameras[0]
    assert (camera.fx, camera.fy) == pytest.approx((6, 6))


def test_sizes_that_are_not_stated_are_those_of_each_image(tmp_path):
    file = _scene(tmp_path, _reduced("w h cx cy"))
    _picture(tmp_path / "images" / "2.png", 20, 10)
    cameras = transforms_file.read(file).cameras
    assert [(camera.width, camera.height, camera.cx, camera.cy) for camera in cameras] == [
        *[(W, H, 8, 6)] * 2,
        (20, 10, 10, 5),
        (W, H, 8, 6),
    ]


def test_images_of_the_same_shape_resize_the_camera_and_others_are_refused(tmp_path, caplog):
    keys = {"w": 2 * W, "h": 2 * H, "fl_x": 40, "fl_y": 42, "cx": 17, "cy": 11.5, "k1": 0.1}
    file = _scene(tmp_path, _content(**keys))
    camera = transforms_file.read(file).cameras[0]
    assert camera == Camera(W, H, 20, 21, 8.5, 5.75, "OPENCV", (0.1, 0.0, 0.0, 0.0))
    assert len(caplog.records) == 1
    assert "states images of 32x24 but" in caplog.text
    assert "has 16x12 pixels: the cameras are resized" in caplog.text
    assert "states images of 12x16 but" in _refused(file, _content(w=H, h=W))
    exif = Image.Exif()
    exif[274] = 6
    _picture(tmp_path / "images" / "0.png", exif=exif)
    assert "before its EXIF orientation, which is not applied, expected the same shape" in _refused(file)


def test_repeated_frames_are_left_out_and_contradicting_ones_refused(shared, caplog):
    content = _content()
    content["frames"] += [_frame(1, "./images/../images/1.png"), _frame(2)]
    assert len(transforms_file.read(_write(shared.parent, content)).names) == N
    assert "frames repeat an earlier one and are left out (2): images/1.png, images/2.png" in caplog.text
    content["frames"] += [{**_frame(2), "file_path": "images/3.png"}]
    assert "has two frames of images/3.png, 3 and 6, with different poses" in _refused(shared, content)
    content["frames"][-1] = _frame(3, fl_x=4)
    assert "has two frames of images/3.png" in _refused(shared, content)


def test_equal_poses_of_different_images_are_told(shared, caplog):
    transforms_file.read(_write(shared.parent, _of_frame(2, transform_matrix=_pose(0).tolist())))
    assert "the same pose as that of an earlier view in view 2 (images/2.png)" in caplog.text


def test_missing_images_are_counted_and_none_is_an_error(tmp_path, caplog):
    file = _scene(tmp_path, n=1)
    posed = transforms_file.read(file)
    assert posed.names == ("images/0.png",)
    assert "images do not exist and are left out, 3 of 4: images/1.png, images/2.png, images/3.png" in caplog.text
    (tmp_path / "images" / "0.png").unlink()
    assert "names 4 images, of which none exists, expected images/0.png, images/1.png" in _refused(file)


def test_masks_and_depth_maps_that_are_missing_are_left_out(tmp_path, caplog):
    _picture(tmp_path / "masks" / "1.png")
    content = _of_frame(1, mask_path="masks/1.png", depth_file_path="depth/1.png")
    content["frames"][0]["mask_path"] = "masks/0.png"
    posed = transforms_file.read(_scene(tmp_path, content))
    assert posed.masks == (None, tmp_path / "masks" / "1.png", None, None)
    assert posed.depths == ()
    assert "masks do not exist and are left out (1): masks/0.png" in caplog.text
    assert "depth maps do not exist and are left out (1): depth/1.png" in caplog.text


def test_depth_maps_without_a_unit_are_not_read(tmp_path):
    _picture(tmp_path / "depth" / "1.png")
    posed = transforms_file.read(_scene(tmp_path, _of_frame(1, depth_path="depth/1.png")))
    assert (posed.depths, posed.unread) == ((), ("depth_path",))


@pytest.mark.parametrize("name", ["../0.png", "/etc/0.png", "images/../../0.png", "C:\\data\\0.png", "..", "."])
def test_paths_out_of_the_folder_are_refused(name, shared):
    assert "file_path of frame 1 is '" in _refused(shared, _of_frame(1, file_path=name))
    for key in ("mask_path", "depth_file_path"):
        assert f"{key} of frame 1 is '" in _refused(shared, _of_frame(1, **{key: name}))
    text = _refused(shared, _content(test_filenames=[name]))
    assert "a name of test_filenames is '" in text
    assert "expected a path inside of the folder" in text


def test_absolute_paths_into_the_folder_are_read(shared):
    content = _of_frame(1, file_path=str(shared.parent.resolve() / "images" / "1.png"))
    assert transforms_file.read(_write(shared.parent, content)).names[1] == "images/1.png"


def test_suffixes_are_tried_in_the_order_of_instant_ngp(tmp_path):
    (tmp_path / "images").mkdir()
    names = ["r_0.5", "b", "c", "d"]
    for i, suffix in enumerate([".png", ".jpg", ".bmp", ".jpeg"]):
        _picture(tmp_path / "images" / f"{names[i]}{suffix}")
    _picture(tmp_path / "images" / "c.jpg")
    (tmp_path / "images" / "d").write_bytes((tmp_path / "images" / "b.jpg").read_bytes())
    content = {**GLOBAL, "frames": [_frame(i, f"images/{name}") for i, name in enumerate(names)]}
    posed = transforms_file.read(_write(tmp_path, content))
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
    posed = transforms_file.read(_write(shared.parent, _content(**keys)))
    assert posed.names == tuple(f"images/{i}.png" for i in names)
    assert posed.test == test
    assert (f"nor for testing and are left out ({4 - len(names)})" in caplog.text) == (len(names) < 4)
    assert ("have no frame or image: images/9.png" in caplog.text) == ("9" in lists.get("train", ""))


def test_splits_that_contradict_themselves_are_refused(shared):
    both = _content(train_filenames=["images/0.png", "images/1.png"], test_filenames=["./images/1.png"])
    assert "has names in train_filenames and in another list, images/1.png" in _refused(shared, both)
    assert "has no frame for training" in _refused(
        shared, _content(train_filenames=[], test_filenames=["images/1.png"])
    )
    assert "has val_filenames a list of 1, expected a list of names" in _refused(shared, _content(val_filenames=[1]))


def test_points_are_scaled_to_the_world_of_the_file(tmp_path, caplog):
    xyz = np.random.default_rng(0).normal(size=(5, 3))
    none = np.zeros(0, np.int64)
    file = _scene(tmp_path, _content(ply_file_path="points.ply", applied_scale=3.0))
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
        assert transforms_file.read(_write(shared.parent, content)).unread == ()
    assert [record.message for record in caplog.records] == [
        f"{shared}: unknown keys are ignored: 'comment\\n', 'secret'"
    ]


@pytest.mark.parametrize("text", ["", "{", "nonsense", "[" * 100_000, '{"frames": [' * 50_000])
def test_what_is_no_json_is_one_sentence(text, tmp_path):
    assert "transforms.json is no JSON (" in _refused(_write(tmp_path, text))


def test_files_that_cannot_be_read_are_one_sentence(tmp_path):
    assert "transforms.json does not exist, expected a scene laid out as" in refusal(transforms_file.read, tmp_path)
    file = _scene(tmp_path)
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
        (_of_frame(1, transform_matrix=(_pose(1) * math.nan).tolist()), "that is not finite"),
        (_of_frame(1, transform_matrix=(np.diag([1e200, 1e200, 1e200, 1])).tolist()), "with numbers of up to 1e+200"),
        (_of_frame(1, transform_matrix=_pose(1).T.tolist()), "(is it transposed?)"),
        (_content(fl_x="20"), "has fl_x '20', expected a finite number"),
        (_content(fl_x=math.nan), "has fl_x nan, expected a finite number"),
        (_content(fl_x=10**400), "has fl_x inf, expected a finite number"),
        (_content(fl_x=True), "has fl_x True, expected a finite number"),
        (_content(fl_x=0), "has fl_x 0, expected that of a camera: pixels above 0"),
        (_content(fl_y=-3), "has fl_y -3, expected that of a camera"),
        (_reduced("fl_x", camera_angle_x=3.2), "has camera_angle_x 3.2, expected that of a camera: an angle"),
        (_reduced("fl_x", x_fov=180), "has x_fov 180, expected that of a camera: an angle"),
        (_reduced("fl_x fl_y"), "has no focal length, expected fl_x, camera_angle_x or x_fov"),
        (_content(w=0), "has w 0, expected a whole number of pixels"),
        (_content(w=1.5), "has w 1.5, expected a whole number of pixels"),
        (_content(h=[1]), "has h a list of 1, expected a finite number"),
        (_reduced("w"), "has a width or a height only"),
        (_content(cx=1e9), "has cx 1e+09, expected a principal point near the image"),
        (_content(k1="a"), "has k1 'a', expected a finite number"),
        (_content(k4=0.1), "has k4 0.1, expected 0 in a perspective camera"),
        (_content(camera_model="OPENCV_FISHEYE", p1=0.1), "is a fisheye camera with p1 0.1 and p2 0"),
        (_content(camera_model="FISHEYE624"), "has none in distortion_params, expected 12 numbers"),
        (_content(distortion_params=[1, 2]), "has 2 distortion_params, expected 6: k1, k2"),
        (_content(distortion_params=[0] * 13), "has distortion_params a list of 13"),
        (_content(distortion_params=["1"] * 6), "has distortion_params '1', expected a finite number"),
        (_content(camera_model="VR180_L"), "has camera_model 'VR180_L', which is not supported, expected one of"),
        (_content(camera_model=["OPENCV"]), "has camera_model a list of 1, expected one of SIMPLE_PINHOLE, PINHOLE"),
        (_content(is_fisheye=True), "has camera_model OPENCV and is_fisheye true, expected the same projection"),
        (_content(is_fisheye="no"), "has is_fisheye 'no', expected true or false"),
        (_content(latlong=True), "has latlong, a lens that is not supported"),
        (_content(applied_scale=0), "has applied_scale 0, expected a number above 0"),
        (_content(integer_depth_scale="1"), "has integer_depth_scale '1', expected a number above 0"),
        (_of_frame(1, mask_path=3), "has mask_path 3 in frame 1, expected the name of a file"),
    ],
)
def test_what_no_camera_has_is_one_sentence(content, found, shared):
    text = _refused(shared, content)
    assert str(shared) in text
    assert found in text
    assert "expected" in text


def test_matrices_that_are_no_rotation_are_named(shared):
    mirrored = _pose(1) @ np.diag([1.0, 1, -1, 1])
    _write(shared.parent, _of_frame(1, transform_matrix=mirrored.tolist()))
    with pytest.raises(InputError, match=r"no rotation in view 1 \(images/1.png\)"):
        transforms_file.read(shared)


def test_a_named_pipe_in_the_place_of_an_image_is_refused(tmp_path):
    file = _scene(tmp_path)
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
    content = _of_frame(1, **{key: value}) if in_frame else _content(**{key: value})
    if key == "frames" and not in_frame:
        content["frames"] = value
    _write(shared.parent, content)
    try:
        found = transforms_file.read(shared)
    except InputError as error:
        message, found = str(error), None
    if found is None:
        assert "\n" not in message
    else:
        assert np.isfinite(found.c2w).all()
        assert all(math.isfinite(camera.fx * camera.cx) for camera in found.cameras)


NUMBERS = st.floats(-0.5, 0.5).map(lambda x: round(x, 6))
COUNTS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 0, "SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4, "FULL_OPENCV": 5}
COUNTS_FISHEYE = {"FISHEYE": 0, "SIMPLE_RADIAL_FISHEYE": 1, "RADIAL_FISHEYE": 2, "OPENCV_FISHEYE": 4}


def _canonical(camera):
    """The same projection by one of the models that are read."""
    found = camera.coefficients
    if camera.model in COUNTS_FISHEYE:
        return replace(camera, model="OPENCV_FISHEYE", coefficients=(*found, *[0.0] * (4 - len(found))))
    if camera.model not in COUNTS:
        return camera
    found = (*found, *[0.0] * (8 - len(found)))
    if found[4]:
        return replace(camera, model="FULL_OPENCV", coefficients=found)
    return replace(camera, model="OPENCV" if any(found) else "PINHOLE", coefficients=found[:4] if any(found) else ())


@st.composite
def _cameras(draw, dialect):
    """Fields of the cameras of a scene that a dialect can express; they share none, some or all of their values."""
    families = [COUNTS, COUNTS_FISHEYE, {"RAD_TAN_THIN_PRISM_FISHEYE": 12}]
    family = draw(st.sampled_from(families if dialect == "nerfstudio" else families[:2]))

    def camera():
        model = draw(st.sampled_from(sorted(family)))
        found = tuple(draw(NUMBERS) for _ in range(family[model]))
        if dialect == "instant-ngp" and model == "FULL_OPENCV":
            found = (*found[:4], 0.0)
        if dialect == "instant-ngp" and family is COUNTS_FISHEYE:
            model, found = "OPENCV_FISHEYE", tuple(x + 1 for x in (*found, *[0.0] * (4 - len(found))))
        found = (*found, 0.0, 0.0, 0.0) if model == "FULL_OPENCV" else found
        fx, fy = draw(st.floats(5, 100)), draw(st.sampled_from([7.0, 20.25]))
        return W, H, fx, fy, draw(st.floats(-10, 20)), draw(st.sampled_from([6.0, 7.0])), model, found

    if draw(st.booleans()):
        return (camera(),) * N
    first = camera()
    return tuple(draw(st.sampled_from([first, (W, H, 33.0, *first[3:]), camera()])) for _ in range(N))


@given(data=st.data(), dialect=st.sampled_from(transforms_writer.DIALECTS))
@settings(max_examples=120)
def test_what_is_written_is_read_again(shared, data, dialect):
    cameras = tuple(Camera(*fields) for fields in data.draw(_cameras(dialect)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    matrices = np.linalg.qr(rng.normal(size=(N, 3, 3)))[0]
    matrices *= np.sign(np.linalg.det(matrices))[:, None, None]
    c2w = np.concatenate([matrices, rng.normal(size=(N, 3, 1)) * 10.0 ** rng.integers(-4, 5)], axis=2)
    names = tuple(f"images/{i}.png" for i in range(N))
    files = tuple(shared.parent / name for name in names)
    depths = data.draw(st.sampled_from([(), (None, files[1], None, files[0])]))
    masks, test = ((), None) if dialect == "instant-ngp" else ((files[3], None, None, None), (1, 3))
    unit = data.draw(st.sampled_from([0.001, 0.0002, 1.0])) if depths else 1.0
    posed = PosedImages(shared, names, files, cameras, c2w, None, masks, depths, unit, None, test)
    transforms_writer.write(shared, posed, dialect=dialect)
    found = transforms_file.read(shared)
    assert np.abs(found.c2w - c2w).max() <= 1e-14 * max(1, np.abs(c2w).max())
    assert found.cameras == tuple(map(_canonical, cameras))
    assert found.depth_unit == pytest.approx(unit, rel=1e-12)
    assert (found.names, found.files, found.masks, found.depths, found.test) == (names, files, masks, depths, test)
    content = json.loads(shared.read_text())
    if len(set(cameras)) == 1:
        assert all("fl_x" not in frame for frame in content["frames"])
    for key in ("fl_x", "cx"):  # a program finds a key in the file or in all frames
        assert {key in frame for frame in content["frames"]} == {key not in content}


def test_a_panorama_and_points_are_written_and_read_again(tmp_path):
    for i in range(2):
        _picture(tmp_path / "images" / f"{i}.png", 20, 10)
    names = ("images/0.png", "images/1.png")
    files = tuple(tmp_path / name for name in names)
    camera = Camera(20, 10, 20 / (2 * math.pi), 10 / math.pi, 10, 5, "EQUIRECTANGULAR")
    c2w = np.stack([_pose(i)[:3] for i in range(2)])
    none = np.zeros(0, np.int64)
    points = Points(np.arange(6.0).reshape(2, 3), None, none, none)
    file = tmp_path / "transforms.json"
    posed = PosedImages(file, names, files, (camera,) * 2, c2w, depths=files, depth_unit=0.01, points=points)
    stored = {}

    def write_points(path, written):
        path.write_text("ply")
        stored[path] = written

    transforms_writer.write(file, posed, write_points=write_points)
    found = transforms_file.read(file, read_points=stored.__getitem__)
    assert found.cameras == posed.cameras
    assert np.allclose(found.points.xyz, points.xyz, rtol=1e-14)
    assert np.allclose(stored[tmp_path / "sparse_pc.ply"].xyz, points.xyz / 10)


def test_what_the_format_cannot_express_is_refused(tmp_path):
    file = _scene(tmp_path)
    posed = transforms_file.read(file)

    def refused(dialect="nerfstudio", lossy=False, **changes):
        return refusal(transforms_writer.write, file, replace(posed, **changes), dialect=dialect, lossy=lossy)

    def cameras(*found):
        return tuple(Camera(W, H, 20, 20, 8, 6, model, coefficients) for model, coefficients in found)

    before = file.read_bytes()
    assert "cannot express the camera model FOV, expected one of" in refused(cameras=cameras(*[("FOV", (0.1,))] * N))
    wide = cameras(*[("THIN_PRISM_FISHEYE", (0.1,) * 8)] * N)
    assert "cannot express the camera model THIN_PRISM_FISHEYE" in refused(cameras=wide, lossy=True)
    assert "with the coefficients 1, 1" in refused(cameras=cameras(*[("FULL_OPENCV", (1.0,) * 8)] * N))
    full = cameras(*[("FULL_OPENCV", (1.0,) * 5 + (0.0,) * 3)] * N)
    assert "expected 0 beyond the fourth" in refused("instant-ngp", cameras=full)
    assert "with 1 coefficients, expected 4" in refused(cameras=cameras(*[("OPENCV", (1.0,))] * N))
    mixed = cameras(("PINHOLE", ()), *[("FISHEYE", ())] * (N - 1))
    assert "found cameras of the models FISHEYE and PINHOLE" in refused(cameras=mixed)
    assert "fisheye camera whose coefficients are all 0" in refused("instant-ngp", cameras=mixed)
    assert "cannot express the depth range of views" in refused(bounds=np.ones((N, 2)))
    some = np.zeros(1, np.int64)
    points = Points(np.zeros((1, 3)), None, some, some)
    assert "cannot express points, which views see which points" in refused(points=points)
    text = refused("instant-ngp", masks=posed.files, test=(1,))
    assert "of instant-ngp cannot express masks, the split into training and test views" in text
    assert "poses that are not finite" in refused(c2w=posed.c2w * math.nan)
    assert "numbers that are not finite" in refused(cameras=(replace(posed.cameras[0], fx=math.inf),) * N)
    outside = tuple(Path(f"/elsewhere/{i}.png") for i in range(N))
    assert "found the file /elsewhere/0.png, expected files inside of the folder" in refused(files=outside)
    assert "found dialect colmap, expected nerfstudio or instant-ngp" in refused("colmap")
    assert file.read_bytes() == before
    transforms_writer.write(file, replace(posed, bounds=np.ones((N, 2)), points=points), lossy=True)
    assert transforms_file.read(file).cameras == posed.cameras


def test_mixed_projections_are_written_for_instant_ngp(tmp_path):
    posed = transforms_file.read(_scene(tmp_path))
    fisheye = Camera(W, H, 20, 20, 8, 6, "OPENCV_FISHEYE", (0.1, 0.0, 0.2, 0.0))
    cameras = (
        fisheye,
        *posed.cameras[1:3],
        replace(posed.cameras[3], model="OPENCV", coefficients=(0.1, 0.0, 0.0, 0.2)),
    )
    transforms_writer.write(posed.source, replace(posed, cameras=cameras), dialect="instant-ngp")
    assert transforms_file.read(posed.source).cameras == cameras
    frames = json.loads(posed.source.read_text())["frames"]
    assert "p1" not in frames[0]  # which that program would store in the place of k3
