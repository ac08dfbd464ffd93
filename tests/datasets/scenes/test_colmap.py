"""COLMAP's sparse models: equality with pycolmap, writing and reading back, which model and files are taken."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, colmap
from tests.contents import refusal
from tests.datasets.scenes import models

FORMATS = pytest.mark.parametrize("text", [False, True], ids=["binary", "text"])


def _write(reconstruction, folder: Path, text: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (reconstruction.write_text if text else reconstruction.write_binary)(str(folder))
    return folder


def _synthesized(pycolmap, model="OPENCV", frames=4, points=30, seed=0):
    pycolmap.set_random_seed(seed)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 2, frames
    options.num_points3D = points
    options.camera_model_id = getattr(pycolmap.CameraModelId, model)
    options.camera_params = pycolmap.Camera.create_from_model_name(1, model, 900.0, 1024, 768).params.tolist()
    found = pycolmap.synthesize_dataset(options)
    for point in found.points3D.values():
        point.color = np.random.default_rng(seed).integers(0, 256, 3).astype(np.uint8)
    return found


def _require_as_pycolmap(found, reconstruction):
    """What was read is what pycolmap knows of a model."""
    images = {image.name: image for image in reconstruction.images.values()}
    assert found.names == tuple(sorted(images))
    for name, pose, camera in zip(found.names, found.c2w, found.cameras, strict=True):
        theirs = images[name].cam_from_world().inverse().matrix() * [1, -1, -1, 1]
        np.testing.assert_allclose(pose, theirs, rtol=0, atol=1e-12)
        assert camera.model == images[name].camera.model_name
        assert (camera.width, camera.height) == (images[name].camera.width, images[name].camera.height)
        np.testing.assert_allclose(camera_models.parameters_of(camera), images[name].camera.params, rtol=1e-15)
    ids = sorted(reconstruction.points3D)
    points = [reconstruction.points3D[number] for number in ids]
    np.testing.assert_allclose(found.points.xyz, [point.xyz for point in points], rtol=1e-15)
    np.testing.assert_array_equal(found.points.rgb, [point.color for point in points])
    named = {(found.names[view], point) for view, point in zip(found.points.view, found.points.point, strict=True)}
    seen = {
        (reconstruction.images[element.image_id].name, row)
        for row, point in enumerate(points)
        for element in point.track.elements
    }
    assert named == seen
    assert len(named) == len(found.points.view)


@FORMATS
@pytest.mark.parametrize("rigs", [False, True], ids=["colmap3", "colmap4"])
def test_a_model_that_colmap_writes_is_read_as_colmap_reads_it(tmp_path, text, rigs):
    pycolmap = pytest.importorskip("pycolmap")
    reconstruction = _synthesized(pycolmap)
    model = _write(reconstruction, tmp_path, text)
    assert (model / f"rigs.{'txt' if text else 'bin'}").is_file()
    if not rigs:
        for path in [*model.glob("rigs.*"), *model.glob("frames.*")]:
            path.unlink()
    _require_as_pycolmap(colmap.read(model), reconstruction)


def test_all_camera_models_are_read_as_colmap_reads_them(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    for name, model in camera_models.MODELS.items():
        assert int(getattr(pycolmap.CameraModelId, name)) == model.colmap_id
        reconstruction = _synthesized(pycolmap, name, frames=1, points=5)
        for text in (False, True):
            _require_as_pycolmap(colmap.read(_write(reconstruction, tmp_path / f"{name}{text}", text)), reconstruction)


@FORMATS
def test_colmap_opens_what_is_written(tmp_path, text):
    pycolmap = pytest.importorskip("pycolmap")
    for seed in range(20):
        scene = models.random_scene(seed, n_views=4, n_points=7, n_observations=20)
        colmap.write(tmp_path / str(seed), scene, text=text)
        reconstruction = pycolmap.Reconstruction(str(tmp_path / str(seed)))
        _require_as_pycolmap(scene, reconstruction)
        for number, point in reconstruction.points3D.items():
            for element in point.track.elements:
                image = reconstruction.images[element.image_id]
                assert image.points2D[element.point2D_idx].point3D_id == number
        assert reconstruction.compute_num_observations() == len(scene.points.point)


def test_observations_are_written_where_a_camera_without_distortion_projects_the_point(tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    scene = models.random_scene(3, n_views=4, n_points=50, n_observations=150)
    cameras = tuple(Camera(80, 60, 70.0 + i, 75.0, 41.0, 29.0) for i in range(4))
    colmap.write(tmp_path, replace(scene, cameras=cameras))
    compared = 0
    for image in pycolmap.Reconstruction(str(tmp_path)).images.values():
        world = {row + 1: xyz for row, xyz in enumerate(scene.points.xyz)}
        for point in image.points2D:
            theirs = image.project_point(world[point.point3D_id])
            if theirs is not None:  # in front of the camera
                np.testing.assert_allclose(point.xy, theirs, rtol=1e-9)
                compared += 1
    assert compared > 30


@FORMATS
def test_positions_of_observations_can_be_given(tmp_path, text):
    pycolmap = pytest.importorskip("pycolmap")
    scene = models.random_scene(5, n_points=6, n_observations=12)
    pixels = np.random.default_rng(0).uniform(0, 100, (len(scene.points.point), 2))
    colmap.write(tmp_path, scene, text=text, pixels=pixels)
    reconstruction = pycolmap.Reconstruction(str(tmp_path))
    for xy, point, view in zip(pixels, scene.points.point, scene.points.view, strict=True):
        of_image = reconstruction.images[int(view) + 1].points2D
        assert [tuple(each.xy) for each in of_image if each.point3D_id == point + 1] == [tuple(xy)]


@given(seed=st.integers(0, 2**32), views=st.integers(1, 6), points=st.integers(0, 9), text=st.booleans())
def test_what_is_written_is_read_back(tmp_path_factory, seed, views, points, text):
    folder = tmp_path_factory.mktemp("model")
    scene = models.random_scene(seed, views, points, 2 * points)
    colmap.write(folder, scene, text=text)
    found = colmap.read(folder)
    models.require_equal(found, scene)
    assert found.cameras == scene.cameras  # exactly
    assert found.points is None or (found.points.xyz == scene.points.xyz).all()


def test_binary_and_text_of_a_model_are_read_alike_and_binary_is_preferred(tmp_path):
    scene = models.random_scene(1)
    colmap.write(tmp_path / "a", scene)
    colmap.write(tmp_path / "b", scene, text=True)
    models.require_equal(colmap.read(tmp_path / "a"), colmap.read(tmp_path / "b"), tolerance=0)
    for path in (tmp_path / "b").iterdir():
        (tmp_path / "a" / path.name).write_text("damaged")
    models.require_equal(colmap.read(tmp_path / "a"), scene)
    assert [path.suffix for path in colmap.input_files(tmp_path / "a")] == [".bin"] * 3


def test_views_are_sorted_by_name_and_points_by_identifier(tmp_path):
    scene = models.random_scene(2, n_views=5, n_points=9, n_observations=30)
    colmap.write(tmp_path, scene, text=True)
    file = tmp_path / "images.txt"
    lines = [line for line in file.read_text().split("\n") if not line.startswith("#")][:-1]
    shuffled = [line for i in (3, 0, 4, 2, 1) for line in lines[2 * i : 2 * i + 2]]
    file.write_text("\n".join(shuffled))
    file = tmp_path / "points3D.txt"
    file.write_text("\r\n".join(reversed(file.read_text().split("\n")[3:])))
    models.require_equal(colmap.read(tmp_path), scene)


def test_unnormalized_quaternions_are_normalized(tmp_path):
    (tmp_path / "cameras.txt").write_text("7 PINHOLE 8 6 5 5 4 3\n")
    (tmp_path / "images.txt").write_text("1 2 0 0 0 1 2 3 7 my photo.jpg\n\n")
    found = colmap.read(tmp_path)
    np.testing.assert_array_equal(found.c2w[0], [[1, 0, 0, -1], [0, -1, 0, -2], [0, 0, -1, -3]])
    assert found.names == ("my photo.jpg",)
    assert found.points is None


def test_observations_of_unregistered_images_and_repeated_ones_are_left_out(tmp_path):
    (tmp_path / "cameras.txt").write_text("7 PINHOLE 8 6 5 5 4 3\n")
    images = "9 1 0 0 0 1 2 3 7 b.jpg\n1 1 -1 2 2 70\n4 1 0 0 0 1 2 3 7 a.jpg\n3 3 70 4 4 71 5 5 71\n"
    (tmp_path / "images.txt").write_text(images)
    (tmp_path / "points3D.txt").write_text("71 1 2 3 0 0 255 0.5 4 1 4 2\n70 4 5 6 9 9 9 0.5 9 1 4 0 5 3\n")
    points = colmap.read(tmp_path).points
    assert points.xyz.tolist() == [[4, 5, 6], [1, 2, 3]]
    assert points.rgb.tolist() == [[9, 9, 9], [0, 0, 255]]
    assert list(zip(points.point.tolist(), points.view.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    # without tracks, the observations of the images are taken; points that do not exist are left out
    (tmp_path / "points3D.txt").write_text("70 4 5 6 9 9 9 0.5\n71 1 2 3 0 0 255 0.5\n")
    again = colmap.read(tmp_path).points
    assert (again.point.tolist(), again.view.tolist()) == (points.point.tolist(), points.view.tolist())
    (tmp_path / "points3D.txt").write_text("71 1 2 3 0 0 255 0.5\n")
    assert colmap.read(tmp_path).points.view.tolist() == [0]


@pytest.mark.parametrize("place", ["", "sparse", "sparse/0", "colmap/sparse/0", "colmap/sparse/3", "colmap"])
def test_a_model_is_found_in_the_usual_places(tmp_path, place):
    scene = models.random_scene(1)
    (tmp_path / "images").mkdir()
    assert not colmap.detect(tmp_path)
    assert "found no COLMAP model" in refusal(colmap.read, tmp_path)
    colmap.write(tmp_path / place, scene)
    assert colmap.detect(tmp_path)
    for folder in (tmp_path, tmp_path / place):
        found = colmap.read(folder)
        assert found.source == tmp_path / place
        assert found.files == tuple(tmp_path / "images" / name for name in scene.names)
    assert colmap.read(tmp_path, tmp_path / "images_4").files[0] == tmp_path / "images_4" / scene.names[0]


@FORMATS
def test_of_several_models_the_one_with_the_most_images_is_read(tmp_path, text, caplog):
    for number, views in (("0", 2), ("1", 3), ("2", 7), ("10", 5)):
        colmap.write(tmp_path / "sparse" / number, models.random_scene(0, n_views=views), text=text)
    (tmp_path / "sparse" / "notes").mkdir()
    with caplog.at_level(logging.INFO, "enerf"):
        assert len(colmap.read(tmp_path).names) == 7
    assert "4 models: 0 (2 images), 1 (3 images), 2 (7 images), 10 (5 images); 2 is read" in caplog.text


def test_a_model_without_points_is_read(tmp_path):
    scene = models.random_scene(0)
    colmap.write(tmp_path / "a", scene)
    (tmp_path / "a" / "points3D.bin").unlink()
    colmap.write(tmp_path / "b", scene, text=True)
    (tmp_path / "b" / "points3D.txt").write_text("")
    for folder in (tmp_path / "a", tmp_path / "b"):
        models.require_equal(colmap.read(folder), replace(scene, points=None))


def test_points_without_colors_are_written_black(tmp_path):
    scene = models.random_scene(0)
    colmap.write(tmp_path, replace(scene, points=replace(scene.points, rgb=None)))
    assert not colmap.read(tmp_path).points.rgb.any()


def test_files_of_another_model_are_not_combined_with_those_written(tmp_path):
    scene = models.random_scene(0)
    colmap.write(tmp_path, scene)
    colmap.write(tmp_path, models.random_scene(1))  # replaced
    models.require_equal(colmap.read(tmp_path), models.random_scene(1))
    assert "cameras.bin: found a file of another model" in refusal(colmap.write, tmp_path, scene, text=True)
    (tmp_path / "rigs.bin").touch()
    assert "rigs.bin: found a file of another model" in refusal(colmap.write, tmp_path, scene)
    models.require_equal(colmap.read(tmp_path), models.random_scene(1))


def test_names_that_the_format_cannot_hold_are_not_written(tmp_path):
    scene = models.random_scene(0, n_views=1, n_points=0)
    for text, name, words in (
        (True, "a b.jpg", "with spaces"),
        (False, "../a.jpg", "inside"),
        (False, "a\0b", "control"),
    ):
        assert words in refusal(colmap.write, tmp_path / "model", replace(scene, names=(name,)), text=text)
    assert not (tmp_path / "model").exists()


@pytest.mark.data
def test_a_real_model_is_read_as_colmap_reads_it(tmp_path):
    folder = Path(os.environ.get("ENERF_DATA", "")) / "colmap" / "canclip"
    if "ENERF_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("ENERF_DATA names no folder with colmap/canclip")
    pycolmap = pytest.importorskip("pycolmap")
    found = colmap.read(folder)
    _require_as_pycolmap(found, pycolmap.Reconstruction(str(folder / "sparse" / "0")))
    assert all(file.is_file() for file in found.files)
    for text in (False, True):
        colmap.write(tmp_path / str(text), found, text=text)
        models.require_equal(colmap.read(tmp_path / str(text)), found)
