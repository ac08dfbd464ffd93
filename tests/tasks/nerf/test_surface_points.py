"""Points on surfaces of fields with known surfaces, and the export of points and cameras."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from enerf.cli import export_points as command
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.core.types import Rendering
from enerf.datasets.scenes import camera_path_files, colmap, formats, rays, synthetic
from enerf.datasets.scenes.coordinates import apply_transform
from enerf.datasets.scenes.settings import SceneSettings
from enerf.experiments.options import ExportPointsOptions
from enerf.geometry import colored_points, ply, read
from enerf.tasks.nerf import export_points, poses_file, surface_points
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.train import train
from enerf.tasks.nerf.views import Renderer

BASE = [
    *(
        "--factor",
        "1",
        "--llffhold",
        "3",
        "--netwidth",
        "8",
        "--netwidth_fine",
        "8",
        "--netdepth",
        "2",
        "--i_eval",
        "0",
    ),
    *("--netdepth_fine", "2", "--N_rand", "16", "--N_samples", "4", "--N_importance", "4", "--N_iters", "2"),
    *("--i_print", "0", "--i_spectrum", "0", "--device", "cpu", "--no_final_eval"),
]
PLANE = 3.0  # depth of the plane z = −PLANE in scene coordinates


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return synthetic.write_scene(
        tmp_path_factory.mktemp("points") / "toy", views=5, width=24, height=18, supersample=1, progress=False
    )


def loaded(folder, *, ndc: bool):
    return formats.load("llff", folder, SceneSettings(factor=1, llffhold=3, ndc=ndc))


def plane_renderer(ndc: bool) -> Renderer:
    """Renders the plane, red, with a weight of 0.2 on a sample before it and 0.7 on it."""
    z = 1 - 2 / PLANE if ndc else -PLANE

    def render(batch):
        t = (z - batch.origins[:, 2]) / batch.directions[:, 2]
        t_vals = torch.stack([0.3 * t, t], -1)
        weights = torch.tensor([0.2, 0.7]).expand(len(t), 2)
        rgb = torch.tensor([1.0, 0.0, 0.0]).expand(len(t), 3)
        return Rendering(rgb, (weights * t_vals).sum(-1), weights.sum(-1), weights, t_vals)

    return Renderer(render, 100)


@pytest.mark.parametrize("ndc", [False, True])
def test_points_of_a_plane_lie_on_it_with_its_normal_in_the_coordinates_of_the_files(scene, ndc):
    found_scene = loaded(scene, ndc=ndc)
    found = surface_points.surface_points(found_scene, plane_renderer(ndc), 10_000)
    to_scene = found_scene.world_to_scene.double().numpy()
    at = apply_transform(to_scene, found.xyz)
    normals = found.normals @ to_scene[:3, :3].T
    np.testing.assert_allclose(at[:, 2], -PLANE, atol=1e-4)
    np.testing.assert_allclose(
        normals / np.linalg.norm(normals, axis=1, keepdims=True), [[0, 0, 1]] * len(at), atol=1e-3
    )
    assert (found.rgb == [255, 0, 0]).all()
    assert len(at) == len(found_scene.train) * 24 * 18


def test_colors_are_those_of_the_surface_without_the_background(scene):
    def render(batch):
        found = plane_renderer(False).render(batch)
        rgb = torch.tensor([0.8, 0.4, 0.2]).expand(len(found.rgb), 3)
        return replace(found, rgb=rgb * found.opacity[:, None] + (1 - found.opacity)[:, None])

    white = replace(loaded(scene, ndc=False), background=1.0)
    found = surface_points.surface_points(white, Renderer(render, 100), 100)
    assert (found.rgb == [204, 102, 51]).all()


def test_rays_that_meet_nothing_give_no_points_at_any_opacity(scene):
    def render(batch):
        found = plane_renderer(False).render(batch)
        return replace(found, weights=0 * found.weights, opacity=0 * found.opacity)

    with pytest.raises(InputError, match="no ray"):
        surface_points.surface_points(loaded(scene, ndc=False), Renderer(render, 100), 100, 0.0)


def test_fewer_rays_give_fewer_points(scene):
    found = surface_points.surface_points(loaded(scene, ndc=False), plane_renderer(False), 100)
    assert 50 <= len(found.xyz) <= 200


def test_rays_that_are_not_opaque_give_no_points(scene):
    with pytest.raises(InputError, match=r"no ray .* opacity 0\.95"):
        surface_points.surface_points(loaded(scene, ndc=False), plane_renderer(False), 100, 0.95)


def test_what_other_views_look_through_is_dropped(scene):
    found_scene = loaded(scene, ndc=False)
    maps = [surface_points.depth_map(found_scene, plane_renderer(False), view, 1.0, 0.5) for view in found_scene.train]
    floating = maps[0].points * 1.0
    floating[4, 5] *= 0.5  # half way to the origin, in front of the plane that all views see
    kept = surface_points.is_consistent(maps, replace(maps[0], points=floating))
    assert not kept[4, 5]
    assert kept.sum() == kept.size - 1


def test_normals_of_a_tilted_plane_face_the_camera():
    y, x = np.meshgrid(np.linspace(1, -1, 6), np.linspace(-1, 1, 8), indexing="ij")
    points = np.stack([x, y, -4 + 0.5 * x], -1)
    normals = surface_points.normals_of(points, points)
    expected = np.array([-0.5, 0, 1]) / np.sqrt(1.25)
    np.testing.assert_allclose(normals, np.broadcast_to(expected, normals.shape), atol=1e-12)


def test_masked_pixels_give_no_points(scene):
    found_scene = loaded(scene, ndc=False)
    masks = torch.ones(len(found_scene.c2w), 18, 24, 1, dtype=torch.bool)
    masks[:, :9] = False
    found = surface_points.surface_points(replace(found_scene, masks=masks), plane_renderer(False), 10_000)
    assert len(found.xyz) == len(found_scene.train) * 24 * 9


def test_median_depth_ignores_what_lies_before_and_behind():
    weights = torch.tensor([[0.3, 0.4, 0.3], [0.0, 0.0, 0.0]])
    t_vals = torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 9.0]])
    assert surface_points.median_depth(weights, t_vals)[0].item() == 2.0


@pytest.fixture(scope="module")
def exported(scene, tmp_path_factory):
    """A run and its export; its field is replaced by the plane, which tiny trainings do not have."""
    folder = tmp_path_factory.mktemp("exported")
    words = [*BASE, "--datadir", str(scene), "--basedir", str(folder), "--expname", "run"]
    train(parser.parse(NerfConfig, words)[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_points.views, "renderer_of", lambda run: plane_renderer(run.scene.ndc))
        written = export_points.export(folder / "run", folder / "out", ExportPointsOptions(points=500, frames=7))
    return folder, written


def test_an_export_has_points_with_colors_and_normals(exported):
    folder, written = exported
    assert [path.relative_to(folder / "out").as_posix() for path in written] == [
        *("points.ply", "transforms.json", "sparse/0", "camera_path.json")
    ]
    assert all(path.exists() for path in written)
    columns = ply.parse(written[0].read_bytes(), "points")["vertex"].columns
    assert list(columns) == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue"]
    xyz, normals = read.oriented_points(written[0])
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    assert (colored_points.read(written[0])[1] == [255, 0, 0]).all()
    assert len(xyz) > 200


def test_all_formats_have_the_poses_of_the_scene(exported, scene):
    folder, _ = exported
    out = folder / "out"
    original = formats.posed("llff", scene, SceneSettings(factor=1))
    for found in (
        formats.posed("transforms", out, SceneSettings(read_points=colored_points.read_scene)),
        colmap.read(out),
    ):
        assert [name.rpartition("/")[2] for name in found.names] == list(original.names)
        np.testing.assert_allclose(found.c2w, original.c2w, atol=1e-5)
        assert all(file.is_file() for file in found.files)
        assert found.cameras[0].fx == pytest.approx(original.cameras[0].fx)
        assert len(found.points.xyz) > 200
    held = json.loads((out / "transforms.json").read_text())["test_filenames"]
    assert held == ["images/image000.png", "images/image003.png"]
    path = camera_path_files.read(out / "camera_path.json")
    assert (len(path.poses), path.width, path.height) == (7, 24, 18)
    centers, cameras = path.poses[:, :, 3], original.c2w[:, :, 3]
    assert np.abs(centers - cameras.mean(0)).max() < 3 * np.ptp(cameras, axis=0).max() + 1e-6


def test_refined_poses_are_exported(exported, monkeypatch):
    folder, _ = exported
    run = export_points.setup.open_run(folder / "run", "cpu")
    moved = run.scene.c2w.clone()
    moved[:, :, 3] += 0.25
    seen = replace(run.scene, c2w=moved)
    posed = export_points.present_cameras(run.config, seen)
    np.testing.assert_allclose(posed.c2w, poses_file.world_poses(seen))
    assert posed.test == run.scene.test


def test_mistakes_are_one_sentence_and_leave_nothing(exported, tmp_path):
    folder, _ = exported
    run = str(folder / "run")
    for words, told in (
        (["nowhere", "--out", str(tmp_path / "new")], "nowhere"),
        ([run], "--out"),
        ([run, "--out", str(folder / "out")], "exists"),
        ([run, "--out", str(tmp_path / "new"), "--opacity", "2"], "--opacity"),
        ([run, "--out", str(tmp_path / "new"), "--datadir", "gone"], "gone"),
        ([run, "--out", str(tmp_path / "new"), "--opacity", "1"], "no ray"),
    ):
        with pytest.raises(InputError, match=told):
            command.main(words)
    assert not any(tmp_path.iterdir())


def test_rays_of_a_smaller_camera_show_the_same_scene(scene):
    found_scene = loaded(scene, ndc=False)
    for factor in (1.0, 2.0):
        found = surface_points.depth_map(found_scene, plane_renderer(False), 1, factor, 0.5)
        corner = rays.of_image(found.camera, found_scene.c2w[1], 0, 1).directions[0]
        assert torch.isfinite(corner).all()
        np.testing.assert_allclose(found.points[..., 2], -PLANE, atol=1e-4)
    assert found.depth.shape == (9, 12)
