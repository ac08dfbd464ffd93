"""The synthetic scene: correct poses, exact depth, and a consistent folder that is written atomically."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import llff, pixels, synthetic

SMALL = {"views": 5, "width": 40, "height": 30, "supersample": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return synthetic.write_scene(tmp_path_factory.mktemp("scenes") / "demo", **SMALL, progress=False)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_poses_are_right_handed_rotations():
    c2w = synthetic.poses(20)
    np.testing.assert_allclose(
        c2w[:, :, :3].transpose(0, 2, 1) @ c2w[:, :, :3], np.tile(np.eye(3), (20, 1, 1)), atol=1e-14
    )
    np.testing.assert_allclose(np.linalg.det(c2w[:, :, :3]), 1)
    assert (c2w[:, 2, 2] > 0.95).all()  # forward-facing
    assert (np.abs(c2w[:, :, 3]) < (0.7, 0.5, 0.1)).all()
    assert np.ptp(c2w[:, 0, 3]) > 0.8


def test_seeds_differ():
    assert (synthetic.poses(6, seed=1) != synthetic.poses(6, seed=2)).any()


def test_depth_is_the_z_depth_of_pixel_centers():
    camera, c2w = synthetic.camera(12, 10), synthetic.poses(3)[2]
    _, depth = synthetic.render(camera, c2w, supersample=2)
    for row, column in ((0, 0), (9, 3), (5, 11)):
        seen = np.array([(column + 0.5 - 6) / camera.fx, -(row + 0.5 - 5) / camera.fy, -1])
        ray = c2w[:, :3] @ seen
        _, t = synthetic.trace(c2w[:, 3], 3 * ray)
        assert abs(-(c2w[:, :3].T @ (t * 3 * ray))[2] - depth[row, column]) < 1e-9


def test_a_pixel_is_the_mean_of_its_parts():
    c2w = synthetic.poses(3)[1]
    coarse, _ = synthetic.render(synthetic.camera(16, 12), c2w, supersample=2)
    fine, _ = synthetic.render(synthetic.camera(32, 24), c2w, supersample=1)
    np.testing.assert_allclose(coarse, fine.reshape(12, 2, 16, 2, 3).mean((1, 3)), atol=1e-9)


def test_the_file_tells_the_poses_and_bounds(folder):
    rows = np.load(folder / "poses_bounds.npy")
    assert rows.dtype == np.float64
    assert rows.shape == (5, 17)
    matrices = rows[:, :15].reshape(5, 3, 5)
    down, right, back, center, size = np.moveaxis(matrices, -1, 0)
    np.testing.assert_array_equal(np.stack([right, -down, back, center], -1), synthetic.poses(5))
    np.testing.assert_array_equal(size, np.tile([30, 40, 36.0], (5, 1)))
    for c2w, (near, far) in zip(synthetic.poses(5), rows[:, 15:], strict=True):
        _, depth = synthetic.render(synthetic.camera(120, 90), c2w, supersample=1)  # finer than what was written
        assert 0 < near < depth.min()
        assert depth.max() < far


def test_the_images_are_the_renderings(folder):
    assert sorted(path.name for path in (folder / "images").iterdir()) == [f"image{i:03d}.png" for i in range(5)]
    image, _ = synthetic.render(synthetic.camera(40, 30), synthetic.poses(5)[3], supersample=2)
    written = np.asarray(Image.open(folder / "images/image003.png"))
    assert written.shape == (30, 40, 3)
    assert np.abs(written / 255 - image).max() <= 0.5 / 255 + 1e-9


def test_same_settings_same_bytes(folder, tmp_path):
    again = synthetic.write_scene(str(tmp_path / "new/demo"), **SMALL, progress=False)
    assert contents(again) == contents(folder)
    assert os.listdir(tmp_path / "new") == ["demo"]


def test_a_second_call_does_nothing(folder, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}
    monkeypatch.setattr(synthetic, "render", lambda *_: pytest.fail("rendered again"))
    assert synthetic.write_scene(folder, **SMALL) == folder
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))} == before


def test_what_is_there_is_never_overwritten(folder, tmp_path):
    foreign = tmp_path / "mine"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    before = contents(folder) | contents(tmp_path)
    for target, settings in ((foreign, SMALL), (tmp_path / "file", SMALL), (folder, SMALL | {"seed": 1})):
        with pytest.raises(InputError, match=str(target)):
            synthetic.write_scene(target, **settings, progress=False)
    assert contents(folder) | contents(tmp_path) == before


def test_a_scene_that_lost_a_picture_is_not_taken_for_whole(tmp_path):
    demo = synthetic.write_scene(tmp_path / "demo", 2, width=8, height=6, supersample=1, progress=False)
    (demo / "images/image001.png").unlink()
    with pytest.raises(InputError):
        synthetic.write_scene(demo, 2, width=8, height=6, supersample=1, progress=False)


def test_an_empty_folder_is_filled(tmp_path):
    synthetic.write_scene(tmp_path, 2, width=8, height=6, supersample=1, progress=False)
    assert json.loads((tmp_path / "scene.json").read_text())["width"] == 8


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing(tmp_path, monkeypatch, error):
    def fail(path, image):
        if path.name == "image003.png":
            raise error
        write(path, image)

    write = images.write_png
    monkeypatch.setattr(images, "write_png", fail)
    with pytest.raises(error):
        synthetic.write_scene(tmp_path / "demo", **SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_a_sentence(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(InputError, match="No space left"):
        synthetic.write_scene(tmp_path / "demo", **SMALL, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"views": 0}, {"width": -1}, {"supersample": 0}, {"seed": -1}])
def test_numbers_too_small_are_refused(tmp_path, wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is {next(iter(wrong.values()))}"):
        synthetic.write_scene(tmp_path / "demo", **SMALL | wrong)
    assert list(tmp_path.iterdir()) == []


def test_the_loader_reads_what_was_written(folder):
    scene = llff.load(folder, factor=1)
    to_scene, c2w = scene.world_to_scene.double().numpy(), synthetic.poses(5)
    centers = c2w[:, :, 3] @ to_scene[:3, :3].T + to_scene[:3, 3]
    np.testing.assert_allclose(scene.c2w[:, :, 3].numpy(), centers, atol=1e-5)
    turn = to_scene[:3, :3] / np.cbrt(np.linalg.det(to_scene[:3, :3]))
    np.testing.assert_allclose(scene.c2w[:, :, :3].numpy(), turn @ c2w[:, :, :3], atol=1e-5)
    assert scene.camera == synthetic.camera(40, 30)
    assert scene.test == (0,)
    for i in (0, 4):
        image, _ = synthetic.render(scene.camera, c2w[i], supersample=2)
        assert np.abs(pixels.view_image(scene, i).numpy() - image).max() <= 1 / 255
