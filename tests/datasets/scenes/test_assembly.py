"""Scenes of transforms.json and COLMAP models: pixels, rays and coordinates agree with what was photographed."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.core import images
from enerf.datasets.scenes import bounds as scenes_bounds
from enerf.datasets.scenes import colmap, coordinates, formats, frusta, poses, rays
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.packed_images import PackedImages
from enerf.datasets.scenes.pixels import Pixels
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import SceneSettings
from enerf.geometry.colored_points import read_scene
from tests.contents import refusal, same
from tests.datasets.scenes import photographed
from tests.datasets.scenes.axes import to_axes
from tests.datasets.scenes.photographed import FISHEYE, OFF_CENTER, OPENCV, PLAIN

N = 5
FULL = SceneSettings(factor=1, llffhold=2, pose_check=False, read_points=read_scene)
TORN = replace(OPENCV, coefficients=(-0.9, 0.0, 0.0, 0.0))  # folded within the image: corners have no rays
STANDING = {"forward": photographed.forward(N), "around": photographed.around(N)}


def _cameras(name: str):
    return {
        "plain": (PLAIN,) * N,
        "off center": (OFF_CENTER,) * N,
        "distorted": (OPENCV,) * N,
        "folded": (TORN,) * N,
        "fisheye": (FISHEYE,) * N,
        "sizes": photographed.of_sizes(OFF_CENTER, N),
        "different": (OPENCV, *photographed.of_sizes(OFF_CENTER, 3), replace(PLAIN, fx=25.0)),
    }[name]


def _load(kind: str, folder, **options) -> Scene:
    assert formats.detect(folder)[0] == kind
    return formats.load(kind, folder, replace(FULL, **options))


def _written(folder, kind: str, lens: str, standing: str, scale: float = 1.0):
    """A scene on disk in a world of another scale, and what it consists of."""
    posed = photographed.described(folder, _cameras(lens), STANDING[standing])
    photographed.write(posed, kind)
    posed = photographed.moved(posed, scale)
    for file in [*(folder / "sparse" / "0").glob("*"), *folder.glob("*.json"), *folder.glob("*.ply")]:
        file.unlink()
    photographed.write_cameras(posed, kind)
    return posed


def _in_scene(scene: Scene, points: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(coordinates.apply_transform(scene.world_to_scene.numpy(), points))


def _require_rays_through(scene: Scene, view: int, at: np.ndarray, world: np.ndarray) -> None:
    """Check that the rays of pixels pass the points in the world that they show, in scene and in field coordinates."""
    width = scene.size(view)[1]
    index = torch.from_numpy(at)
    pixels = Pixels(torch.full_like(index, view), index % width, index // width)
    points = _in_scene(scene, world)
    made = scenes_pixels.rays_of(replace(scene, ndc=False), pixels, 0.5)
    offsets = points - made.origins.double()
    along = made.directions.double()
    t = (offsets * along).sum(-1) / along.square().sum(-1)
    beside = (offsets - t[:, None] * along).norm(dim=-1) / offsets.norm(dim=-1)
    assert float(beside.max()) < 1e-5
    assert float(t.min()) > 0
    assert torch.allclose(made.viewdirs.norm(dim=-1), torch.ones(len(at)))
    if scene.ndc:
        made, points = scenes_pixels.rays_of(scene, pixels, 0.5), rays.point_to_ndc(points, scene.camera)
        t = (points - made.origins.double())[:, 2] / made.directions.double()[:, 2]
        assert torch.allclose(made.origins + t[:, None] * made.directions, points, atol=2e-5)
        assert float(t.min()) > -1e-5
        assert float(t.max()) < 1


CASES = [
    *(("transforms", lens, "forward") for lens in ("off center", "distorted", "sizes", "different", "folded")),
    *(("colmap", lens, "forward") for lens in ("plain", "distorted", "different")),
    *(("transforms", lens, "around") for lens in ("fisheye", "sizes")),
    *(("colmap", lens, "around") for lens in ("fisheye", "folded", "off center")),
]


@pytest.mark.parametrize(("kind", "lens", "standing"), CASES)
def test_pixels_and_rays_and_coordinates_are_those_of_the_world(kind, lens, standing, tmp_path):
    posed = _written(tmp_path, kind, lens, standing, scale=7.0)
    scene = _load(kind, tmp_path)
    assert scene.image_names == tuple(("" if kind == "colmap" else "images/") + name for name in posed.names)
    assert isinstance(scene.images, PackedImages) == (lens in ("sizes", "different"))
    assert scene.ndc == (standing == "forward")
    assert scene.forward_facing == (standing == "forward")
    for view, (camera, pose) in enumerate(zip(posed.cameras, STANDING[standing], strict=True)):
        assert scene.size(view) == (camera.height, camera.width)
        wanted = photographed.photograph(camera, pose).astype(np.float32) / np.float32(255)
        assert np.array_equal(scenes_pixels.view_image(scene, view).numpy(), wanted)
        at, seen = photographed.hits(camera, pose)
        world = photographed.in_other_world(seen, 7.0)
        _require_rays_through(scene, view, at, world)
        mask, found = scenes_pixels.view_mask(scene, view), photographed.world_rays(camera, pose)[2]
        assert (mask is None and found.all()) or np.array_equal(mask.numpy().ravel(), found)
        if view in scene.train:
            field = coordinates.from_world(scene, world)
            assert (frusta.count_views(scene, world) >= 1).all()
            np.testing.assert_allclose(coordinates.to_world(scene, field), world, rtol=1e-6, atol=1e-5)
    assert (scene.masks is not None) == (lens == "folded")


@pytest.mark.parametrize(("kind", "lens", "standing"), [CASES[1], CASES[3], CASES[8], CASES[11]])
def test_what_training_rays_show_is_in_the_boxes_of_grids_and_meshes(kind, lens, standing, tmp_path):
    _written(tmp_path, kind, lens, standing)
    scene = _load(kind, tmp_path)
    box, space = frusta.surface_box(scene), scenes_bounds.space_of(scene)
    for view in scene.train:
        pixels = scenes_pixels.fixed_pixels(scene, view, 60)
        made = scenes_pixels.rays_of(scene, pixels, 0.5)
        ends = made.at(torch.stack([made.near, made.far], -1)).reshape(-1, 3).double().numpy()
        if not space.contracted:
            assert (ends >= np.array(space.low) - 1e-5).all()
            assert (ends <= np.array(space.high) + 1e-5).all()
        seen = scene.bounds[list(scene.train)]
        depths = torch.linspace(0.9 * float(seen[:, 0].min()), float(seen[:, 1].max()), 5)
        shown = scenes_pixels.rays_of(replace(scene, ndc=False), pixels, 0.5).at(depths.expand(len(made), 5))
        if scene.forward_facing:
            field = coordinates.to_ndc(shown.reshape(-1, 3).double().numpy(), scene.camera)
            assert (field >= box[0] - 1e-3).all()
            assert (field <= box[1] + 1e-3).all()


@pytest.mark.parametrize(("kind", "lens"), [("transforms", "off center"), ("colmap", "sizes")])
def test_the_scale_and_place_of_the_world_change_nothing_in_the_scene(kind, lens, tmp_path):
    found = []
    for name, scale in (("a", 1.0), ("b", 1000.0)):
        _written(tmp_path / name, kind, lens, "forward", scale)
        found.append(_load(kind, tmp_path / name))
    a, b = found
    assert torch.allclose(a.c2w, b.c2w, atol=1e-5)
    assert torch.allclose(a.bounds, b.bounds, rtol=1e-4)
    assert (a.near, a.far, a.train, a.test) == (b.near, b.far, b.train, b.test)
    assert all(torch.equal(a.images[view], b.images[view]) for view in range(N))


def test_both_formats_give_the_same_scene(tmp_path):
    a, b = (_written(tmp_path / kind, kind, "off center", "forward") for kind in ("colmap", "transforms"))
    assert np.array_equal(a.c2w, b.c2w)
    a, b = (_load(kind, tmp_path / kind, near=2.0, far=20.0) for kind in ("colmap", "transforms"))
    assert torch.allclose(a.c2w, b.c2w, atol=1e-6)
    assert (a.camera, a.test, a.view_cameras) == (b.camera, b.test, None)
    assert torch.equal(a.images, b.images)


@pytest.mark.parametrize("factor", [2, 3])
def test_the_cameras_of_downsampled_images_see_the_same(factor, tmp_path):
    posed = _written(tmp_path, "transforms", "different", "forward")
    scene = _load("transforms", tmp_path, factor=factor)
    assert scene.factor == factor
    for view, camera in enumerate(posed.cameras):
        height, width = scene.size(view)
        small = scene.cameras.camera(view)
        assert (width, height) == (round(camera.width / factor), round(camera.height / factor))
        assert np.allclose([small.fx / width, small.fy / height], [camera.fx / camera.width, camera.fy / camera.height])
        assert np.allclose([small.cx / width, small.cy / height], [camera.cx / camera.width, camera.cy / camera.height])
        assert small.coefficients == camera.coefficients
        wanted = images.downsample(images.read(posed.files[view]), (width, height))
        assert np.array_equal(images.to_uint8(scene.images[view]), images.to_uint8(wanted))


def test_an_automatic_factor_is_that_of_the_longest_side(tmp_path, monkeypatch):
    _written(tmp_path, "colmap", "sizes", "forward")
    monkeypatch.setattr("enerf.datasets.scenes.resized_files.LONGEST", 10)
    scene = _load("colmap", tmp_path, factor=-1)
    assert scene.factor == 4
    assert max(max(scene.size(view)) for view in range(N)) == 8
    assert (tmp_path / "images_4").is_dir()


@pytest.mark.parametrize("kind", ["transforms", "colmap"])
def test_matrices_in_other_axes_than_the_formats_are_read_as_the_option_says(kind, tmp_path):
    posed = _written(tmp_path, kind, "plain", "forward")
    wanted = _load(kind, tmp_path)
    own = {"transforms": "opengl", "colmap": "opencv_w2c"}[kind]
    assert same([_load(kind, tmp_path, pose_axes=own).c2w], [wanted.c2w])
    for file in (tmp_path / "sparse" / "0").glob("*"):
        file.unlink()
    wrong = poses.from_axes(to_axes(posed.c2w, "opencv"), own)  # the file then has the matrices of opencv
    photographed.write_cameras(replace(posed, c2w=wrong), kind)
    found = _load(kind, tmp_path, pose_axes="opencv")
    assert torch.allclose(found.c2w, wanted.c2w, atol=1e-5)
    assert torch.allclose(found.world_to_scene, wanted.world_to_scene, atol=1e-5)


def test_poses_in_other_axes_are_found_by_the_photographs_and_the_advice_helps(tmp_path, caplog):
    camera = replace(PLAIN, width=160, height=120, fx=144.0, fy=144.0, cx=80.0, cy=60.0)
    posed = photographed.described(tmp_path, [camera] * 6, photographed.forward(6))
    photographed.write(replace(posed, c2w=poses.from_axes(to_axes(posed.c2w, "opencv"), "opencv_w2c")), "colmap")
    for file, pose in zip(posed.files, posed.c2w, strict=True):
        images.write_png(file, photographed.photograph(camera, pose))
    _load("colmap", tmp_path, pose_check=True, near=1.0, far=20.0)
    assert "give --pose_axes opencv " in caplog.text
    caplog.clear()
    _load("colmap", tmp_path, pose_check=True, pose_axes="opencv")
    assert "pose_axes" not in caplog.text


# test views, bounds


def test_test_views_are_those_of_the_option_then_of_the_file_then_every_nth(tmp_path):
    posed = photographed.described(tmp_path, (PLAIN,) * N, STANDING["forward"])
    photographed.write(replace(posed, test=(1, 4)), "transforms")
    scene = _load("transforms", tmp_path)
    assert (scene.train, scene.test, scene.split_rule) == ((0, 2, 3), (1, 4), "held out by the scene's files")
    scene = _load("transforms", tmp_path, test_views="03,00.png")
    assert (scene.test, scene.split_rule) == ((0, 3), "named by --test_views")
    photographed.write_cameras(replace(posed, test=()), "transforms")
    assert _load("transforms", tmp_path).test == (0, 2, 4)


def test_depths_are_those_of_the_points_or_of_the_options(tmp_path):
    posed = _written(tmp_path, "colmap", "plain", "forward", scale=3.0)
    scene = _load("colmap", tmp_path, ndc=False)
    scale = float(np.cbrt(np.linalg.det(scene.world_to_scene.numpy()[:3, :3])))
    for view in range(N):
        depths = -(posed.points.xyz[posed.points.view == view] - posed.c2w[view, :, 3]) @ posed.c2w[view, :, 2]
        near, far = scene.bounds[view].double().numpy() / scale
        assert depths.min() * 0.6 < near < np.percentile(depths, 5)
        assert np.percentile(depths, 95) < far < depths.max() * 1.6
    assert np.isclose(scene.near, 0.9 * float(scene.bounds[:, 0].min()))
    assert np.isclose(scene.far, float(scene.bounds[:, 1].max()))
    chosen = _load("colmap", tmp_path, ndc=False, near=4.0, far=50.0)
    scale = float(np.cbrt(np.linalg.det(chosen.world_to_scene.numpy()[:3, :3])))
    assert torch.allclose(chosen.bounds, torch.tensor([4.0 * scale, 50.0 * scale]).expand(N, 2))


def test_cameras_around_a_point_need_no_points_and_others_do(tmp_path):
    for name, c2w in sorted(STANDING.items()):
        posed = photographed.described(tmp_path / name, (PLAIN,) * N, c2w)
        photographed.write(replace(posed, points=None), "transforms")
    scene = _load("transforms", tmp_path / "around")
    assert torch.allclose(scene.bounds, scene.c2w[:, :, 3].norm(dim=-1)[:, None] * torch.tensor([0.1, 10.0]), rtol=0.05)
    parallel = replace(posed, source=tmp_path / "forward", c2w=posed.c2w.copy(), points=None)
    parallel.c2w[:, :, :3] = np.eye(3)
    files = tuple(tmp_path / "forward" / "images" / file.name for file in posed.files)
    photographed.write_cameras(replace(parallel, files=files), "transforms")
    text = refusal(_load, "transforms", tmp_path / "forward")
    assert "has no points, and its cameras look at no common point, expected --near and --far" in text
    assert "expected --near and --far" in refusal(_load, "transforms", tmp_path / "forward", near=2.0)
    assert _load("transforms", tmp_path / "forward", near=2.0, far=9.0).ndc


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"near": 30.0}, "options --near and --far: found depths from 30 to"),
        ({"far": 0.001}, "expected near below far"),
        ({"far": 1e30}, "expected at most 1e+06 times the nearest"),
        ({"llffhold": 1}, "option --llffhold: found 1"),
        ({"test_views": "x"}, "option --test_views: found 'x'"),
    ],
)
def test_impossible_options_are_one_sentence_and_write_nothing(options, found, tmp_path):
    posed = photographed.described(tmp_path, (PLAIN,) * 3, STANDING["forward"][:3])
    photographed.write(posed, "colmap")
    assert found in refusal(_load, "colmap", tmp_path, **options)


def test_cameras_that_advance_have_no_ndc_though_they_face_one_direction(tmp_path):
    c2w = STANDING["forward"].copy()
    c2w[:, 2, 3] -= np.linspace(0, 2.5, N)
    c2w[:, 1, 3] = -1.2  # near the floor
    photographed.write(photographed.described(tmp_path, (PLAIN,) * N, c2w), "colmap")
    scene = _load("colmap", tmp_path)
    assert (scene.ndc, scene.forward_facing) == (False, True)
    assert scenes_bounds.space_of(scene).contracted


@pytest.mark.parametrize(("standing", "ndc", "spherify"), [("forward", False, False), ("around", True, True)])
def test_ndc_is_an_option_and_cameras_around_never_have_it(standing, ndc, spherify, tmp_path):
    _written(tmp_path, "colmap", "plain", standing)
    scene = _load("colmap", tmp_path, ndc=ndc, spherify=spherify)
    assert not scene.ndc
    assert scene.forward_facing == (standing == "forward")
    assert scene.near > 0


def test_two_views_are_the_least(tmp_path):
    posed = photographed.described(tmp_path, (PLAIN,), STANDING["forward"][:1])
    photographed.write(posed, "colmap")
    text = refusal(_load, "colmap", tmp_path)
    assert text == f"{tmp_path / 'sparse' / '0'} has 1 photographs, expected 2 or more: to train on and to test"


def test_missing_photographs_of_a_colmap_model_are_named(tmp_path):
    photographed.write(photographed.described(tmp_path, (PLAIN,) * 3, STANDING["forward"][:3]), "colmap")
    (tmp_path / "images" / "01.png").unlink()
    with pytest.raises(Exception, match=r"01\.png cannot be read \(no such file"):
        _load("colmap", tmp_path)
    assert colmap.read(tmp_path).files[1] == tmp_path / "images" / "01.png"


def test_a_scene_by_the_folder_of_its_model_is_named_by_the_folder_above(tmp_path):
    _written(tmp_path / "garden", "colmap", "plain", "forward")
    assert _load("colmap", tmp_path / "garden" / "sparse" / "0").name == "garden"
    assert _load("colmap", tmp_path / "garden").name == "garden"
