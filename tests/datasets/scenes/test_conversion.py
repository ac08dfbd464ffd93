"""Scenes written in another format and read again: nothing is lost unsaid, nothing existing is changed."""

import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from enerf.cli import main
from enerf.core import image_files, images
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import (
    blender,
    camera_models,
    colmap,
    conversion,
    formats,
    llff,
    pixels,
    poses,
    splits,
    synthetic,
    transforms_file,
    transforms_writer,
)
from enerf.datasets.scenes.conversion import ConversionSettings
from enerf.datasets.scenes.posed_images import Points, PosedImages
from enerf.datasets.scenes.settings import SceneSettings
from enerf.geometry import colored_points
from tests.contents import refusal
from tests.datasets.scenes.transforms_scene import H, W, write_picture

N = 5
NONE = np.zeros(0, np.int64)
PINHOLE = Camera(W, H, 20.0, 20.0, W / 2, H / 2)
READ = SceneSettings(read_points=colored_points.read_scene)
# Coefficients of the models that transforms.json of nerfstudio reads, as it reads them.
LENSES = {
    "PINHOLE": (),
    "OPENCV": (-0.1, 0.02, 1e-3, -2e-3),
    "OPENCV_FISHEYE": (0.05, -0.01, 2e-3, 1e-3),
    "FULL_OPENCV": (0.1, 0.02, 1e-3, -1e-3, 0.01, 0.0, 0.0, 0.0),
    "RAD_TAN_THIN_PRISM_FISHEYE": (0.01,) * 12,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs, masks and depth maps that no test changes."""
    made = tmp_path_factory.mktemp("source")
    for i in range(N):
        write_picture(made / "images" / "left" / f"{i}.png")
        write_picture(made / "images" / f"{i}.png")
        write_picture(made / "depths" / f"{i}.png")
    for i, suffix in enumerate(("png", "jpg", "bmp")):
        mask = np.zeros((H, W), np.uint8)
        mask[: i + 3] = 200
        (made / "masks").mkdir(exist_ok=True)
        Image.fromarray(mask).save(made / "masks" / f"{i}.{suffix}")
    return made


def _around(rng, n=N):
    """Poses that look at the origin from about 4 away, with a random roll."""
    found = poses.blender_circle(11)[:n].copy()
    for pose in found:
        angle = rng.uniform(-3, 3)
        cosine, sine = np.cos(angle), np.sin(angle)
        pose[:, :2] = pose[:, :2] @ np.array([[cosine, -sine], [sine, cosine]])
    return found * np.array([1, 1, 1, rng.uniform(0.1, 10)])


def _scene(folder, seed=0, model="PINHOLE", n_points=0, inner="", **changes):
    """A scene with photographs of random poses and cameras."""
    rng = np.random.default_rng(seed)
    names = tuple(f"{inner}{i}.png" for i in range(N))
    fx, fy, cx, cy = rng.uniform([18, 18, 6, 5], [25, 25, 10, 7], (4,))
    camera = Camera(W, H, float(fx), float(fy), float(cx), float(cy), model, LENSES[model])
    points = None
    if n_points:
        pairs = np.unique(rng.integers(0, n_points * N, 3 * n_points))
        xyz = rng.normal(size=(n_points, 3)) * 0.3
        points = Points(xyz, rng.integers(0, 256, (n_points, 3)).astype(np.uint8), *np.divmod(pairs, N))
    files = tuple(folder / "images" / name for name in names)
    return replace(
        PosedImages(folder, names, files, (camera,) * N, _around(rng), points=points),
        **changes,
    )


def _to(target, **more):
    return ConversionSettings(target, write_points=colored_points.write_scene, **more)


def _read(out):
    return formats.posed(formats.detect(out)[0], out, READ)


def _kept(posed, mask):
    """The pixels that a mask does not exclude."""
    return None if mask is None else (images.read(mask)[..., 0] > 0) != posed.masks_are_inverse


def _require_same(found, expected, names=None):
    """Cameras, poses, points, split and bounds agree to 1e-9, and files have the same content."""
    assert found.names == (expected.names if names is None else names)
    for one, other in zip(found.cameras, expected.cameras, strict=True):
        assert (one.model, one.width, one.height) == (other.model, other.width, other.height)
        ours, theirs = (camera_models.parameters_of(each) for each in (one, other))
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=0)
    np.testing.assert_allclose(found.c2w, expected.c2w, rtol=0, atol=1e-9)
    for part in ("files", "depths"):
        ours, theirs = getattr(found, part), getattr(expected, part)
        assert [path and path.read_bytes() for path in ours] == [path and path.read_bytes() for path in theirs]
    kept = [[_kept(each, mask) for mask in each.masks] for each in (found, expected)]
    assert all(a is b is None or np.array_equal(a, b) for a, b in zip(*kept, strict=True))
    assert (found.points is None) == (expected.points is None)
    if found.points is not None:
        np.testing.assert_allclose(found.points.xyz, expected.points.xyz, rtol=1e-12)
        np.testing.assert_array_equal(found.points.rgb, expected.points.rgb)


@given(seed=st.integers(0, 2**32), model=st.sampled_from(sorted(LENSES)), points=st.sampled_from([0, 1, 30]))
@settings(max_examples=25)
def test_colmap_and_transforms_hold_what_the_other_does(tmp_path_factory, folder, seed, model, points):
    made = tmp_path_factory.mktemp("out")
    masks = tuple(folder / "masks" / name for name in ("0.png", "1.jpg", "2.bmp"))
    scene = _scene(folder, seed, model, points, masks=(None, *masks, None))
    conversion.convert(scene, made / "a", _to("colmap"))
    once = _read(made / "a")
    _require_same(once, scene)
    if points:
        np.testing.assert_array_equal(once.points.point, scene.points.point)
        np.testing.assert_array_equal(once.points.view, scene.points.view)
        once = replace(once, points=replace(once.points, point=NONE, view=NONE))
    conversion.convert(replace(once, test=(1, 4)), made / "b", _to("transforms"))
    twice = _read(made / "b")
    _require_same(twice, scene, tuple(f"images/{name}" for name in scene.names))
    assert twice.test == (1, 4)
    conversion.convert(replace(twice, test=None), made / "c", _to("colmap"))
    for name in ("cameras.bin", "images.bin"):
        assert (made / "c/sparse/0" / name).stat().st_size > 0
    _require_same(_read(made / "c"), scene)


@given(seed=st.integers(0, 2**32), focal=st.floats(5, 100), through=st.sampled_from(["transforms", "colmap"]))
@settings(max_examples=25)
def test_an_llff_scene_comes_back_with_its_bounds(tmp_path_factory, folder, seed, focal, through):
    made, rng = tmp_path_factory.mktemp("out"), np.random.default_rng(seed)
    near = rng.uniform(1, 2, N)
    bounds = np.stack([near, near * rng.uniform(2, 5, N)], axis=1)
    scene = _scene(folder, seed, cameras=(replace(PINHOLE, fx=focal, fy=focal),) * N, bounds=bounds)
    conversion.convert(scene, made / "a", _to("llff"))
    once = _read(made / "a")
    _require_same(once, scene)
    np.testing.assert_array_equal(once.bounds, bounds)
    told = refusal(conversion.convert, once, made / "b", _to(through))
    assert f"{conversion.TARGETS[through].in_words} cannot express the depth range of views, expected" in told
    conversion.convert(once, made / "b", _to(through, lossy=True))
    conversion.convert(_read(made / "b"), made / "c", _to("llff", near=float(near[0]), far=9.5))
    again = _read(made / "c")
    _require_same(again, scene)
    assert (again.bounds == [near[0], 9.5]).all()


@pytest.mark.parametrize("dialect", transforms_writer.DIALECTS)
def test_depth_maps_and_their_unit_stay_in_transforms_of_both_programs(tmp_path, folder, dialect):
    depths = (None, *(folder / "depths" / f"{i}.png" for i in range(N - 1)))
    scene = _scene(folder, depths=depths, depth_unit=0.0025)
    conversion.convert(scene, tmp_path / "a", _to("transforms", dialect=dialect))
    found = _read(tmp_path / "a")
    _require_same(found, scene, tuple(f"images/{name}" for name in scene.names))
    assert found.depth_unit == pytest.approx(0.0025, rel=1e-12)
    keys = json.loads((tmp_path / "a" / "transforms.json").read_text())
    assert ("is_fisheye" in keys) == (dialect == "instant-ngp")


def test_the_radius_of_fisheye_pictures_is_kept_or_named(tmp_path, folder, caplog):
    scene = _scene(folder, model="OPENCV_FISHEYE", radii=(5.5,) * N, unread=("aabb_scale", "up"))
    conversion.convert(scene, tmp_path / "a", _to("transforms"))
    assert "a: keys of" in caplog.text
    assert "are left out: aabb_scale, up" in caplog.text
    assert _read(tmp_path / "a").radii == scene.radii
    for settings_ in (_to("colmap"), _to("transforms", dialect="instant-ngp")):
        told = refusal(conversion.convert, scene, tmp_path / "b", settings_)
        assert "cannot express the radius of fisheye pictures, expected" in told
    different = replace(scene, radii=(4.0, *scene.radii[1:]))
    told = refusal(conversion.convert, different, tmp_path / "b", _to("transforms"))
    assert "cannot express different radii of fisheye pictures, expected" in told


def test_masks_of_instant_ngp_are_the_inverse_ones(tmp_path, folder):
    masks = (folder / "masks" / "0.png", None, folder / "masks" / "2.bmp", None, None)
    scene = _scene(folder, masks=masks)
    conversion.convert(scene, tmp_path / "ngp", _to("transforms", dialect="instant-ngp", link=True))
    once = _read(tmp_path / "ngp")
    names = tuple(f"images/{name}" for name in scene.names)
    _require_same(once, scene, names)
    assert once.masks[0] == tmp_path / "ngp" / "images" / "dynamic_mask_0.png"
    assert "mask" not in (tmp_path / "ngp" / "transforms.json").read_text()
    conversion.convert(once, tmp_path / "again", _to("transforms", dialect="instant-ngp", link=True))
    again = _read(tmp_path / "again")
    assert again.masks[0].is_symlink()  # nothing to convert
    _require_same(again, scene, names)
    for target in ("colmap", "transforms"):
        conversion.convert(again, tmp_path / target, _to(target))
        found = _read(tmp_path / target)
        _require_same(found, scene, scene.names if target == "colmap" else names)
        assert not found.masks_are_inverse
    taken = replace(scene, names=("dynamic_mask_1.png", *scene.names[1:]), masks=(None, masks[0], None, None, None))
    told = refusal(conversion.convert, taken, tmp_path / "no", _to("transforms", dialect="instant-ngp"))
    assert "found two files for images/dynamic_mask_1.png in the new folder, expected other names" in told


def test_observations_are_where_the_distorted_camera_sees_the_points(tmp_path, folder):
    pycolmap = pytest.importorskip("pycolmap")
    for model in ("OPENCV", "OPENCV_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE"):
        scene = _scene(folder, 3, model, n_points=40)
        conversion.convert(scene, tmp_path / model, _to("colmap"))
        found = pycolmap.Reconstruction(str(tmp_path / model / "sparse" / "0"))
        assert found.compute_num_observations() == len(scene.points.view)
        for image in found.images.values():
            assert image.name in scene.names
            for point in image.points2D:
                theirs = image.project_point(found.points3D[point.point3D_id].xyz)
                np.testing.assert_allclose(point.xy, theirs, rtol=1e-6)


def test_what_a_format_lacks_is_named_and_left_out_on_demand(tmp_path, folder, caplog):
    mask = (folder / "masks" / "0.png", *[None] * (N - 1))
    everything = _scene(
        folder, n_points=9, masks=mask, depths=mask, bounds=np.tile([1.0, 9.0], (N, 1)), test=(2,), model="OPENCV"
    )
    expected = {
        ("llff", "nerfstudio"): "LLFF's format cannot express distortion, different focal lengths along x and y, "
        "a principal point off the center, masks, depth maps, points, ",
        ("colmap", "nerfstudio"): "COLMAP's format cannot express the depth range of views, depth maps, ",
        ("transforms", "nerfstudio"): "transforms.json cannot express the depth range of views, which views see ",
        ("transforms", "instant-ngp"): "of instant-ngp cannot express the depth range of views, points, ",
    }
    for (target, dialect), told in expected.items():
        out = tmp_path / f"{target}_{dialect}" / "out"
        assert told in refusal(conversion.convert, everything, out, _to(target, dialect=dialect))
        assert not out.parent.exists()
        caplog.clear()
        with caplog.at_level(logging.INFO, "enerf"):
            conversion.convert(everything, out, _to(target, dialect=dialect, lossy=True))
        assert f"{told.split(' cannot')[0]} cannot express it: " in caplog.text
        assert ("--near and --far in training" in caplog.text) == (target != "llff")
        found = _read(out)
        assert (found.masks != ()) == (target != "llff")
        assert (found.depths != ()) == (target == "transforms")
        assert (found.points is not None) == (dialect == "nerfstudio" and target != "llff")
        if target == "transforms" and dialect == "nerfstudio":
            assert found.test == (2,)
            continue
        assert f"give --test_views {out / 'test_views.txt'}" in caplog.text
        chosen = splits.choose(found.names, found.c2w, 8, str(out / "test_views.txt"), found.test)
        assert chosen.test == (2,)


def test_cameras_that_llff_cannot_express_are_refused(tmp_path, folder):
    scene = _scene(folder, cameras=(PINHOLE,) * N, bounds=np.tile([1.0, 9.0], (N, 1)))

    def refused(*cameras, **more):
        changed = replace(scene, cameras=(*cameras, *[PINHOLE] * (N - len(cameras))))
        return refusal(conversion.convert, changed, tmp_path / "out", _to("llff", **more))

    fisheye = replace(PINHOLE, model="OPENCV_FISHEYE", coefficients=(0.1, 0.0, 0.0, 0.0))
    assert "cameras of the model OPENCV_FISHEYE, which LLFF's format cannot express" in refused(fisheye, lossy=True)
    longer = replace(PINHOLE, fx=20.001, fy=20.001)
    assert "cannot express focal lengths that differ by less than 0.1 %" in refused(longer)
    smaller = camera_models.of_size(PINHOLE, W // 2, H // 2)
    assert "cannot express images of several sizes" in refused(smaller)
    assert "camera of 0.png: found the focal length fx = -1" in refused(replace(PINHOLE, fx=-1.0))
    zoomed = replace(scene, cameras=(replace(PINHOLE, fx=21.0, fy=21.0), *scene.cameras[1:]))
    conversion.convert(zoomed, tmp_path / "fine", _to("llff"))
    _require_same(_read(tmp_path / "fine"), zoomed)


def test_depths_for_llff_are_those_of_the_scene_its_points_or_the_options(tmp_path, folder):
    plain = _scene(folder, cameras=(PINHOLE,) * N)
    told = refusal(conversion.convert, plain, tmp_path / "a", _to("llff", near=1.0))
    assert "has neither depths of views nor points, expected --near and --far" in told
    told = refusal(conversion.convert, plain, tmp_path / "a", _to("llff", near=2.0, far=2.0))
    assert "found a nearest depth that is not between 0 and the farthest in view 0 (0.png)" in told
    told = refusal(conversion.convert, plain, tmp_path / "a", _to("colmap", far=2.0))
    assert "options --near and --far: found 0 and 2, expected 0" in told
    points = _scene(folder, n_points=200).points
    conversion.convert(replace(plain, points=points), tmp_path / "a", _to("llff", lossy=True, far=50.0))
    found = _read(tmp_path / "a")
    distance = np.linalg.norm(found.c2w[:, :, 3], axis=1)
    assert (found.bounds[:, 1] == 50).all()
    assert ((found.bounds[:, 0] > 0) & (found.bounds[:, 0] < distance)).all()


def test_names_in_folders_become_names_of_one_folder_in_their_order(tmp_path, folder):
    names = ("left/1.png", "0.png", "left/0.png", "2.png", "1.png")
    files = tuple(folder / "images" / name for name in names)
    changed = replace(_scene(folder, cameras=(PINHOLE,) * N), names=names, files=files, test=(0, 3))
    conversion.convert(changed, tmp_path / "a", _to("llff", near=1.0, far=5.0))
    found = _read(tmp_path / "a")
    assert found.names == ("0.png", "1.png", "2.png", "left_0.png", "left_1.png")
    np.testing.assert_allclose(found.c2w, changed.c2w[[1, 4, 3, 2, 0]], atol=1e-12)
    assert (tmp_path / "a" / "test_views.txt").read_text() == "2.png\nleft_1.png\n"
    points = Points(np.zeros((1, 3)), None, np.zeros(2, np.int64), np.array([0, 3]))
    conversion.convert(replace(changed, points=points), tmp_path / "b", _to("colmap"))
    again = _read(tmp_path / "b")
    assert [again.names[i] for i in again.points.view] == ["2.png", "left/1.png"]
    same = replace(changed, names=("left/1.png", "left_1.png", *names[2:]))
    told = refusal(conversion.convert, same, tmp_path / "c", _to("llff", near=1.0, far=5.0))
    assert "several views of the image name 'left_1.png'" in told
    outside = replace(changed, names=("../1.png", *names[1:]))
    assert "expected a file inside of the image folder" in refusal(
        conversion.convert, outside, tmp_path / "c", _to("colmap")
    )
    mask = replace(changed, names=("0_mask.png", *names[1:]))
    told = refusal(conversion.convert, mask, tmp_path / "c", _to("llff", near=1.0, far=5.0))
    assert "do not count as photographs by their names, 0_mask.png" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_nothing_existing_is_changed_and_a_failure_leaves_nothing(tmp_path, folder, monkeypatch):
    scene = _scene(folder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert "found files in" in refusal(conversion.convert, scene, tmp_path / "full", _to("colmap"))
    for name in ("full/notes.txt", "link"):
        assert "which is a link or no folder" in refusal(conversion.convert, scene, tmp_path / name, _to("colmap"))
    conversion.convert(scene, tmp_path / "empty", _to("colmap"))
    _require_same(_read(tmp_path / "empty"), scene)
    before = sorted(tmp_path.rglob("*"))

    def full_disk(path, posed, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(colmap, "write", full_disk)
    told = refusal(conversion.convert, scene, tmp_path / "new", _to("colmap"))
    assert told.startswith(f"{tmp_path / 'new'}: cannot be written (No space left on device)")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 9}))
    told = refusal(conversion.convert, scene, tmp_path / "new", _to("colmap"))
    assert "for copies of images, found 9 B free on the disk" in told
    assert sorted(tmp_path.rglob("*")) == before


def test_links_lead_to_the_originals(tmp_path, folder, monkeypatch):
    masks = (folder / "masks" / "0.png", folder / "masks" / "1.jpg", None, None, None)
    monkeypatch.chdir(folder.parent)
    relative = Path(folder.name)
    files = tuple(relative / "images" / f"{i}.png" for i in range(N))
    scene = _scene(folder, masks=masks, files=files)
    conversion.convert(scene, tmp_path / "a", _to("colmap", link=True))
    _require_same(_read(tmp_path / "a"), scene)
    linked = tmp_path / "a" / "images" / "0.png"
    assert linked.is_symlink()
    assert linked.resolve() == (folder / "images" / "0.png").resolve()
    assert (tmp_path / "a" / "masks" / "0.png.png").is_symlink()
    assert not (tmp_path / "a" / "masks" / "1.png.png").is_symlink()  # converted to PNG


def test_images_that_are_not_quite_of_their_cameras_shape_are_read_again(tmp_path, folder):
    write_picture(tmp_path / "a.png", 500, 373)  # 0.5 % narrower
    camera = Camera(4000, 3000, 3000.0, 3000.0, 2000.0, 1500.0)
    scene = replace(_scene(folder), files=(tmp_path / "a.png",) * N, cameras=(camera,) * N)
    conversion.convert(scene, tmp_path / "colmap", _to("colmap"))
    conversion.convert(_read(tmp_path / "colmap"), tmp_path / "transforms", _to("transforms"))
    assert {(each.width, each.height) for each in _read(tmp_path / "transforms").cameras} == {(500, 373)}


def test_images_that_are_missing_turned_or_of_another_shape_are_named(tmp_path, folder):
    scene = _scene(folder, cameras=(PINHOLE,) * N)

    def refused(path, target="colmap", **more):
        changed = replace(scene, files=(path, *scene.files[1:]))
        return refusal(conversion.convert, changed, tmp_path / "out", _to(target, **more))

    assert f"of which 1 do not exist, expected {tmp_path / 'a.png'}" in refused(tmp_path / "a.png")
    write_picture(tmp_path / "wide.png", 40, 12)
    assert "has 40x12 pixels, expected the shape of its camera's 16x12" in refused(tmp_path / "wide.png")
    exif = Image.Exif()
    exif[274] = 6
    write_picture(tmp_path / "turned.jpg", H, W, exif=exif.tobytes())
    assert "is turned by its EXIF orientation" in refused(tmp_path / "turned.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    assert "found a named pipe" in refused(tmp_path / "pipe.png")


def _pixels(scene):
    return [images.to_uint8(pixels.view_image(scene, view)) for view in range(len(scene.image_names))]


@pytest.mark.parametrize("size", [(24, 18), (18, 18)])
@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_images_of_any_orientation_are_seen_the_same_after_a_conversion_or_refused(tmp_path, size, orientation):
    made = synthetic.write_scene(tmp_path / "llff", 4, width=size[0], height=size[1], supersample=1, progress=False)
    exif = Image.Exif()
    exif[274] = orientation
    for file in sorted((made / "images").glob("*.png")):
        Image.open(file).save(file, exif=exif)
    shutil.copytree(made / "images", tmp_path / "colmap" / "images")
    kept = SceneSettings(factor=1, pose_check=False)
    raw = _scene(made, cameras=(Camera(*size, 20.0, 20.0, size[0] / 2, size[1] / 2),) * N)
    names = tuple(path.name for path in image_files.list_images(made / "images"))
    raw = replace(raw, names=names, files=tuple(tmp_path / "colmap" / "images" / name for name in names))
    raw = replace(raw, cameras=raw.cameras[:4], c2w=llff.read_posed(made).c2w)
    colmap.write(tmp_path / "colmap" / "sparse" / "0", raw)
    for source, target in (("llff", "colmap"), ("llff", "transforms"), ("llff", "llff"), ("colmap", "llff")):
        posed, out = formats.posed(source, tmp_path / source, READ), tmp_path / f"{source}_{target}"
        chosen = _to(target, lossy=True, near=2.0 * (target == "llff"), far=9.0 * (target == "llff"))
        depths = {"near": 2.0, "far": 9.0}
        try:
            conversion.convert(posed, out, chosen)
        except InputError as error:
            assert "is turned by its EXIF orientation and its camera is that of the" in str(error)  # noqa: PT017
            assert orientation != 1
            assert source != target
            continue
        before = formats.load(source, tmp_path / source, replace(kept, **(depths if source == "colmap" else {})))
        after = formats.load(target, out, replace(kept, **({} if target == "llff" else depths)))
        assert all(np.array_equal(a, b) for a, b in zip(_pixels(before), _pixels(after), strict=True))


def test_llff_is_read_as_training_reads_it(tmp_path):
    out = synthetic.write_scene(tmp_path / "toy", views=6, width=16, height=12, supersample=1, progress=False)
    posed, scene = llff.read_posed(out), llff.load(out, factor=1, pose_check=False)
    moved = scene.world_to_scene.numpy()
    np.testing.assert_allclose(moved[:3, :3] @ posed.c2w[:, :, 3, None] + moved[:3, 3:], scene.c2w[:, :, 3:], atol=1e-5)
    scale = np.cbrt(np.linalg.det(moved[:3, :3]))
    np.testing.assert_allclose(moved[:3, :3] @ posed.c2w[:, :, :3] / scale, scene.c2w[:, :, :3], atol=1e-5)
    np.testing.assert_allclose(posed.bounds * scale, scene.bounds, rtol=1e-5)
    assert posed.names == scene.image_names
    assert set(posed.cameras) == {scene.camera}
    (out / "images").rename(out / "images_4")
    smaller = llff.read_posed(out)
    assert smaller.files[0].parent.name == "images_4"


def _write_blender(folder, n=4):
    for split in ("train", "test"):
        frames = []
        for i, pose in enumerate(poses.blender_circle(n if split == "train" else 2)):
            write_picture(folder / split / f"r_{i}.png", 16, 16)
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": [*pose.tolist(), [0, 0, 0, 1]]})
        (folder / f"transforms_{split}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    return folder


def test_a_blender_scene_keeps_its_split_in_all_formats(tmp_path):
    source = _write_blender(tmp_path / "toy")
    posed, scene = blender.read_posed(source), blender.load(source, testskip=1, pose_check=False)
    np.testing.assert_allclose(posed.c2w, scene.c2w, atol=1e-6)
    assert set(posed.cameras) == {scene.camera}
    assert (posed.names, posed.test) == (scene.image_names, scene.test)
    for target in ("llff", "colmap", "transforms"):
        near, far = (2.0, 6.0) if target == "llff" else (0, 0)
        conversion.convert(posed, tmp_path / target, _to(target, near=near, far=far))
    files = [tmp_path / target / "test_views.txt" for target in ("llff", "colmap")]
    assert [file.read_text() for file in files] == ["test_r_0.png\ntest_r_1.png\n", "test/r_0.png\ntest/r_1.png\n"]
    found = transforms_file.read(tmp_path / "transforms")
    assert [found.names[i] for i in found.test] == ["images/test/r_0.png", "images/test/r_1.png"]


def test_colmap_masks_are_read_where_there_are_some(tmp_path, folder, caplog):
    conversion.convert(_scene(folder), tmp_path / "a", _to("colmap"))
    assert colmap.read(tmp_path / "a").masks == ()
    (tmp_path / "a" / "masks").mkdir()
    assert colmap.read(tmp_path / "a").masks == ()
    write_picture(tmp_path / "a" / "masks" / "1.png.png")
    with caplog.at_level(logging.INFO, "enerf"):
        assert colmap.read(tmp_path / "a").masks == (None, tmp_path / "a/masks/1.png.png", None, None, None)
    assert "has no NAME.png of 4 of 5 images: 0.png, 2.png" in caplog.text
    os.mkfifo(tmp_path / "a" / "masks" / "0.png.png")
    assert "found a named pipe" in refusal(colmap.read, tmp_path / "a")


def test_the_command_converts_detects_and_takes_axes(tmp_path, capsys):
    out = synthetic.write_scene(tmp_path / "toy", views=5, width=16, height=12, supersample=1, progress=False)
    words = ["convert", str(out), "--to", "transforms", "--lossy", "--out"]
    assert main.main([*words, str(tmp_path / "a")]) is None
    assert capsys.readouterr().out == f"{tmp_path / 'a'}\n"
    first = _read(tmp_path / "a")
    np.testing.assert_allclose(first.c2w, llff.read_posed(out).c2w, atol=1e-12)
    main.main([*words, str(tmp_path / "b"), "--pose_axes", "opencv"])
    content = json.loads((tmp_path / "b" / "transforms.json").read_text())
    rows = np.load(out / "poses_bounds.npy")[:, :15].reshape(-1, 3, 5)
    turned = np.array([frame["transform_matrix"] for frame in content["frames"]])[:, :3]
    np.testing.assert_allclose(turned, rows[:, :, :4] * [1, -1, -1, 1], atol=1e-9)
    assert "option --out: found nothing" in refusal(main.main, ["convert", str(out), "--to", "colmap"])
    for more in ([], ["--to", "blender"]):
        told = refusal(main.main, ["convert", str(out), "--out", str(tmp_path / "c"), *more])
        assert "expected one of llff, colmap, transforms" in told


@pytest.mark.data
@pytest.mark.parametrize("name", ["llff/fern", "colmap/canclip", "blender/lego_200"])
def test_a_real_scene_is_converted_and_comes_back(tmp_path, name):
    source = Path(os.environ.get("ENERF_DATA", "")) / name
    if "ENERF_DATA" not in os.environ or not source.is_dir():
        pytest.skip(f"ENERF_DATA names no folder with {name}")
    posed = _read(source)
    conversion.convert(posed, tmp_path / "a", _to("transforms", lossy=True, link=True))
    conversion.convert(_read(tmp_path / "a"), tmp_path / "b", _to("colmap", link=True))
    found = _read(tmp_path / "b")
    order = [posed.names.index(each) for each in found.names]
    np.testing.assert_allclose(found.c2w, posed.c2w[order], rtol=0, atol=1e-9 * max(1, np.abs(posed.c2w).max()))
    assert len(image_files.list_images(tmp_path / "a" / "images")) in (0, len(posed.names))
    for one, i in zip(found.cameras, order, strict=True):
        np.testing.assert_allclose(one.fx, posed.cameras[i].fx, rtol=1e-9)
