"""Tests of what meshes are extracted from: a density comes back as the geometry of the world that it was made of."""

import dataclasses

import numpy as np
import pytest
import torch
import trimesh

from enerf.config import parser
from enerf.core.errors import InputError
from enerf.datasets.scenes import coordinates, frusta, llff, synthetic
from enerf.datasets.scenes.raytrace import Sphere
from enerf.datasets.scenes.scene import Scene
from enerf.experiments import extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry.isosurface import source
from enerf.geometry.preview import raycast
from enerf.tasks.nerf import mesh as nerf_mesh
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape.config import ShapeConfig

BALLS = [thing.shape for thing in synthetic.OBJECTS if isinstance(thing.shape, Sphere)][:4]
RESOLUTION = 160
OFF = np.array([1e4, -500.0, 70.0])  # where the ball of a shape run lies


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Scene:
    folder = tmp_path_factory.mktemp("scenes") / "demo"
    return llff.load(synthetic.write_scene(folder, views=6, width=80, height=60, supersample=1, progress=False), 1)


def distance(points: np.ndarray) -> np.ndarray:
    """Signed distance to the demo's balls, in its world."""
    return np.stack([np.linalg.norm(points - ball.center, axis=1) - ball.radius for ball in BALLS]).min(0)


def density_of(scene: Scene, peak: float = 2000.0, width: float = 0.02):
    """The balls as a density in the field's coordinates, thick inside and thin air around."""

    def density(points: torch.Tensor) -> torch.Tensor:
        at = coordinates.to_world(scene, points.double().numpy())
        return (peak * torch.sigmoid(torch.from_numpy(-distance(at) / width))).to(points)

    return density


def made(scene: Scene, **options) -> source.MeshSource:
    where = torch.from_numpy(frusta.surface_box(scene)).float()
    return nerf_mesh.source_from_density(scene, density_of(scene), None, where, **options)


def cell_at(scene: Scene, points: np.ndarray, subject: source.MeshSource) -> np.ndarray:
    """The longest side of the lattice's cells around points of the world, there."""
    box = subject.box.double().numpy()
    side = np.ptp(box, axis=0).max() / RESOLUTION
    at = coordinates.from_world(scene, points)
    moves = [coordinates.to_world(scene, at + side * axis) - points for axis in np.eye(3)]
    return np.linalg.norm(moves, axis=-1).max(0)


@pytest.mark.parametrize("ndc", [True, False], ids=["ndc", "scene"])
def test_the_mesh_of_a_known_density_lies_where_the_world_has_its_geometry(demo, ndc):
    scene = dataclasses.replace(demo, ndc=ndc, near=0.0 if ndc else 1.0, far=1.0 if ndc else float(demo.bounds.max()))
    subject = made(scene, level=1000.0)  # half of the peak: at distance 0
    chosen = ExtractOptions(resolution=RESOLUTION)
    vertices, faces = extract.postprocess(subject, extract.march(subject, chosen, "demo"), chosen)
    off = np.abs(distance(vertices)) / cell_at(scene, vertices, subject)
    assert off.max() < 1
    assert off.mean() < 0.1
    for ball in BALLS:
        near = np.linalg.norm(vertices - ball.center, axis=1) < 1.3 * ball.radius
        np.testing.assert_allclose(vertices[near].min(0), np.array(ball.center) - ball.radius, atol=0.12 * ball.radius)
    normals = raycast.vertex_normals(vertices, faces)
    nearest = np.argmin([np.linalg.norm(vertices - b.center, axis=1) - b.radius for b in BALLS], axis=0)
    outwards = vertices - np.array([b.center for b in BALLS])[nearest]
    assert ((normals * outwards).sum(1) > 0).mean() > 0.99


def test_the_level_that_rays_tell_gives_the_same_geometry(demo):
    """They stop just under the surface, where the density has grown enough: within the width of its rise."""
    subject = made(demo)
    assert 0 < subject.iso_value < 2000
    assert "of the ray's length" in subject.description
    chosen = ExtractOptions(resolution=RESOLUTION)
    vertices, _ = extract.postprocess(subject, extract.march(subject, chosen, "demo"), chosen)
    assert np.median(np.abs(distance(vertices))) < 0.1


def test_a_box_of_the_world_holds_the_one_ball_that_is_asked_for(demo):
    ball = BALLS[2]
    asked = np.array([np.array(ball.center) - 1.2 * ball.radius, np.array(ball.center) + 1.2 * ball.radius])
    where = torch.from_numpy(frusta.field_box_from_world(demo, asked)).float()
    subject = nerf_mesh.source_from_density(demo, density_of(demo), None, where, 1000.0, bounds=asked)
    chosen = ExtractOptions(resolution=96, largest=1)
    vertices, _ = extract.postprocess(subject, extract.march(subject, chosen, "demo"), chosen)
    np.testing.assert_allclose(vertices.min(0), np.array(ball.center) - ball.radius, atol=0.02)
    np.testing.assert_allclose(vertices.max(0), np.array(ball.center) + ball.radius, atol=0.02)


def test_cropping_leaves_what_cameras_see(demo):
    subject = made(demo, level=1000.0)
    chosen = ExtractOptions(resolution=96)
    found = extract.march(subject, chosen, "demo")
    left = [len(extract.postprocess(subject, found, chosen)[0])]
    for n in (1, len(demo.train)):
        some, _ = extract.postprocess(subject, found, dataclasses.replace(chosen, crop=n))
        assert (frusta.count_views(demo, some) >= n).all()
        left.append(len(some))
    assert left[2] < left[1] <= left[0]
    with pytest.raises(InputError, match="nothing is left"):
        extract.postprocess(subject, found, dataclasses.replace(chosen, crop=100))


def test_a_field_of_thin_air_has_no_level(demo):
    where = torch.from_numpy(frusta.surface_box(demo)).float()
    with pytest.raises(InputError, match=r"no training ray reaches an opacity of 0.5 .* density reaches 0.01; give"):
        nerf_mesh.source_from_density(demo, lambda p: torch.full_like(p[:, 0], 0.01), None, where)


@pytest.mark.parametrize("ndc", [True, False], ids=["ndc", "scene"])
def test_the_field_as_rays_find_it_is_the_picture_of_the_mesh(demo, ndc):
    scene = dataclasses.replace(demo, ndc=ndc)
    subject = made(scene, level=1000.0)
    chosen = ExtractOptions(resolution=128)
    vertices, faces = extract.postprocess(subject, extract.march(subject, chosen, "demo"), chosen)
    upright = coordinates.apply_transform(subject.frame, vertices)
    view = subject.view(upright, 60)
    assert (view.width, view.height) == (80, 60)
    mesh = raycast.MeshScene(upright, faces).picture(view, supersample=1)
    field = extract.trace_view(subject, upright, view)
    empty = [(picture == 1).all(-1) for picture in (mesh, field)]
    assert 0.1 < (~empty[0]).mean() < 0.9
    assert (empty[0] != empty[1]).mean() < 0.02
    assert np.abs(mesh - field).mean() < 0.02


@pytest.fixture(scope="module")
def shape_run(tmp_path_factory):
    """A signed distance of an off-center ball, far from unit scale, learned for some steps."""
    folder = tmp_path_factory.mktemp("shape")
    ball = trimesh.creation.icosphere(3, radius=30.0)
    ball.apply_translation(OFF)
    ball.export(folder / "ball.ply")
    words = [*("--mesh", str(folder / "ball.ply"), "--basedir", str(folder), "--expname", "run", "--device", "cpu")]
    words += [*("--representation", "sdf", "--netdepth", "4", "--netwidth", "128", "--encoding", "none")]
    words += [*("--start_radius", "0.6", "--N_points", "256", "--N_iters", "3", "--lrate", "1e-5", "--no_final_eval")]
    shape_train.train(parser.parse(ShapeConfig, words)[0])
    return folder / "run"


def test_the_mesh_of_a_shape_lies_in_the_coordinates_of_its_file(shape_run, tmp_path):
    """It begins as about a ball, and three small steps change little."""
    out = tmp_path / "ball.ply"
    chosen = ExtractOptions(resolution=48, out=str(out), device="cpu")
    extract.extract(shape_run, chosen)
    mesh = trimesh.load_mesh(out)
    assert mesh.is_watertight
    np.testing.assert_allclose(mesh.bounds.mean(0), OFF, atol=5)
    np.testing.assert_allclose(np.ptp(mesh.bounds, axis=0), 60 * 0.6 / 0.9, rtol=0.25)
    subject = extract.open_source(shape_run, chosen)
    with torch.no_grad():
        distance = subject.field(torch.from_numpy(subject.from_world(np.asarray(mesh.vertices))).float())
    assert float(distance.abs().max()) < 0.2 * 2 / 48
    half = np.array([OFF - 40, OFF + np.array([40, 40, 0])])
    extract.extract(shape_run, ExtractOptions(resolution=48, out=str(out), device="cpu"), half)
    assert trimesh.load_mesh(out).bounds[1, 2] <= OFF[2] + 1e-3


def test_shapes_have_no_cameras_to_crop_by_and_no_surface_beyond_their_box(shape_run, tmp_path):
    chosen = ExtractOptions(resolution=24, out=str(tmp_path / "it.ply"), device="cpu")
    with pytest.raises(InputError, match="option --crop: found 1, expected 0: this run has no cameras"):
        extract.extract(shape_run, dataclasses.replace(chosen, crop=1))
    with pytest.raises(InputError, match=r"option --box: .* expected a box within"):
        extract.extract(shape_run, chosen, np.array([[0.0, 0, 0], [1, 1, 1]]))
    far = dataclasses.replace(chosen, out=str(tmp_path / "it.stl"), resolution=20_000)
    with pytest.raises(InputError, match=r"option --out: it.stl would hold coordinates up to .* expected \.ply"):
        extract.extract(shape_run, far)
