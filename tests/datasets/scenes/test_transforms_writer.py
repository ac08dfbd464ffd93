"""Writing transforms.json for nerfstudio and instant-ngp, and reading it again."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core import images
from enerf.core.types import Camera
from enerf.datasets.scenes import transforms_file, transforms_writer
from enerf.datasets.scenes.posed_images import Points, PosedImages
from tests.contents import refusal
from tests.datasets.scenes.transforms_scene import H, N, W, pose, write_picture, write_scene


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A scene of which tests change the file only."""
    return write_scene(tmp_path_factory.mktemp("scene"))


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
    assert len({"mask_path" in frame for frame in content["frames"]}) == 1  # nerfstudio demands all or none
    if len(set(cameras)) == 1:
        assert all("fl_x" not in frame for frame in content["frames"])
    for key in ("fl_x", "cx"):  # a program finds a key in the file or in all frames
        assert {key in frame for frame in content["frames"]} == {key not in content}


def test_frames_without_a_mask_beside_others_have_one_that_ignores_nothing(tmp_path):
    file = write_scene(tmp_path)
    posed = transforms_file.read(file)
    first = posed.cameras[0]
    mask = tmp_path / "masks" / "a.png"
    images.write_png(mask, np.zeros((first.height, first.width), np.uint8))
    masks = (mask, *[None] * (len(posed.names) - 1))
    transforms_writer.write(file, replace(posed, masks=masks), lossy=True)
    named = [frame["mask_path"] for frame in json.loads(file.read_text())["frames"]]
    assert named[0] == "masks/a.png"
    assert images.read_mask(tmp_path / named[1], rotate=False).all()
    assert images.read_mask(tmp_path / named[1], rotate=False).shape == (first.height, first.width)
    assert transforms_file.read(file).masks == masks


def test_a_panorama_and_points_are_written_and_read_again(tmp_path):
    for i in range(2):
        write_picture(tmp_path / "images" / f"{i}.png", 20, 10)
    names = ("images/0.png", "images/1.png")
    files = tuple(tmp_path / name for name in names)
    camera = Camera(20, 10, 20 / (2 * math.pi), 10 / math.pi, 10, 5, "EQUIRECTANGULAR")
    c2w = np.stack([pose(i)[:3] for i in range(2)])
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
    file = write_scene(tmp_path)
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
    assert "found a depth unit of nan" in refused(depths=posed.files, depth_unit=math.nan)
    assert "found dialect colmap, expected nerfstudio or instant-ngp" in refused("colmap")
    assert file.read_bytes() == before
    transforms_writer.write(file, replace(posed, bounds=np.ones((N, 2)), points=points), lossy=True)
    assert transforms_file.read(file).cameras == posed.cameras


def test_mixed_projections_are_written_for_instant_ngp(tmp_path):
    posed = transforms_file.read(write_scene(tmp_path))
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
