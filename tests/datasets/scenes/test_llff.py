"""Loading LLFF scenes."""

import os
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from enerf.core import image_files, images
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import llff, pixels, poses, synthetic
from tests.datasets.scenes.axes import to_axes
from tests.grids import once
from tests.memory import least_peak

N, W, H, FOCAL = 7, 32, 24, 40.0


def _rotation(rng, size=0.3):
    """A rotation by a small random angle about a random axis (Cayley's formula)."""
    x, y, z = rng.normal(size=3) * size
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.linalg.solve(np.eye(3) + skew, np.eye(3) - skew)


def _world(seed=0, n=N):
    """Random camera-to-world poses with axes right, up, back, and bounds."""
    rng = np.random.default_rng(seed)
    frame = _rotation(rng, 2)
    centers = rng.normal(size=(n, 3)) * 3 + [5, -2, 9]
    c2w = np.stack([np.concatenate([frame @ _rotation(rng), c[:, None]], axis=1) for c in centers])
    near = rng.random(n) * 3 + 2
    return c2w, np.stack([near, near * 5], axis=1)


def _rows(c2w, bounds, width=W, height=H, focal=FOCAL):
    """The rows of poses_bounds.npy, written out view by view in LLFF's axes."""
    rows = []
    for pose, (near, far) in zip(c2w, bounds, strict=True):
        right, up, back, center = pose.T
        columns = [-up, right, back, center, np.array([height, width, focal])]
        rows.append([*np.stack(columns, axis=1).ravel(), near, far])
    return np.array(rows)


def _with_matrices(rows, matrices):
    """The first 15 columns with other matrices."""
    return np.concatenate([matrices, rows[:, :15].reshape(-1, 3, 5)[:, :, 4:]], axis=2).reshape(-1, 15)


def _picture(index, width=W, height=H, channels=3):
    return np.random.default_rng(100 + index).integers(0, 256, (height, width, channels), dtype=np.uint8)


def _scene(folder, rows=None, n=N, factor=1, channels=3):
    """Write a scene with pictures of 1 / factor of the recorded size."""
    rows = _rows(*_world(n=n)) if rows is None else rows
    pictures = folder / ("images" if factor == 1 else f"images_{factor}")
    pictures.mkdir(parents=True)
    for i in range(n):
        image = Image.fromarray(_picture(i, W // factor, H // factor, channels))
        image.save(pictures / f"IMG_{i:03d}.png")
    np.save(folder / "poses_bounds.npy", rows)
    return folder


def _listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def _refusal(folder, **options):
    """The one sentence that loading the folder gives, after checking that nothing was left in it."""
    before = _listing(folder) if folder.is_dir() else None
    with pytest.raises(InputError) as caught:
        llff.load(folder, **{"factor": 4, **options})
    assert (_listing(folder) if folder.is_dir() else None) == before
    text = str(caught.value)
    assert "\n" not in text
    assert ". " not in text
    assert "\n" not in text
    assert "expected" in text
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return text


def _colors(scene, view):
    return pixels.view_image(scene, view).numpy()


def _centers(c2w):
    return np.concatenate([c2w[:, :, 3], np.ones((len(c2w), 1))], axis=1)


@pytest.mark.parametrize(
    ("options", "seed"),
    once([{}, {"spherify": True, "ndc": False}, {"bd_factor": None}, {"bd_factor": 1}], range(3)),
)
def test_world_to_scene_takes_the_files_cameras_to_the_scenes_and_back(options, seed, tmp_path):
    c2w, bounds = _world(seed)
    scene = llff.load(_scene(tmp_path, _rows(c2w, bounds)), factor=1, **options)
    there = scene.world_to_scene.numpy()
    moved = scene.c2w.double().numpy()
    assert scene.world_to_scene.dtype == torch.float64
    assert np.allclose(_centers(c2w) @ there.T, _centers(moved), atol=1e-6)
    assert np.allclose(_centers(moved) @ np.linalg.inv(there).T, _centers(c2w), atol=1e-4)
    scale = np.cbrt(np.linalg.det(there[:3, :3]))
    assert np.allclose(there[:3, :3] @ c2w[:, :, :3] / scale, moved[:, :, :3], atol=1e-6)
    assert np.allclose(scene.bounds.numpy(), bounds * scale, rtol=1e-6)
    assert np.allclose(there[3], [0, 0, 0, 1])


def test_forward_facing_scenes_are_scaled_and_recentered(tmp_path):
    scene = llff.load(_scene(tmp_path), factor=1)
    moved = scene.c2w.double().numpy()
    assert np.isclose(scene.bounds.min().item(), 1 / 0.75)
    assert np.allclose(moved[:, :, 3].mean(0), 0, atol=1e-6)
    back, up = moved[:, :, 2].sum(0), moved[:, :, 1].sum(0)
    assert np.allclose(back / np.linalg.norm(back), [0, 0, 1], atol=1e-6)
    assert abs(up[0]) < 1e-5
    assert (scene.near, scene.far, scene.ndc, scene.forward_facing) == (0.0, 1.0, True, True)
    assert scene.name == tmp_path.name


def test_without_ndc_rays_span_the_bounds(tmp_path):
    scene = llff.load(_scene(tmp_path), factor=1, ndc=False)
    assert np.isclose(scene.near, 0.9 * scene.bounds.min().item())
    assert np.isclose(scene.far, scene.bounds.max().item())
    assert not scene.ndc


def test_spherified_scenes_have_rms_radius_1_and_keep_the_callers_ndc(tmp_path):
    _scene(tmp_path)
    for ndc in (True, False):
        scene = llff.load(tmp_path, factor=1, spherify=True, ndc=ndc)
        assert np.isclose((scene.c2w[:, :, 3] ** 2).sum(-1).mean().item(), 1, atol=1e-6)
        assert (scene.forward_facing, scene.ndc) == (False, ndc)


@pytest.mark.parametrize(("hold", "test"), [(2, (0, 2, 4, 6)), (3, (0, 3, 6)), (8, (0,))])
def test_every_nth_view_is_held_out(hold, test, tmp_path):
    scene = llff.load(_scene(tmp_path), factor=1, llffhold=hold)
    assert scene.test == test
    assert sorted(scene.train + scene.test) == list(range(N))


def test_hold_0_keeps_the_central_view_for_testing(tmp_path):
    c2w, bounds = _world()
    scene = llff.load(_scene(tmp_path, _rows(c2w, bounds)), factor=1, llffhold=0)
    distances = [np.linalg.norm(pose[:, 3] - c2w[:, :, 3].mean(0)) for pose in c2w]
    assert scene.test == (distances.index(min(distances)),)
    assert len(scene.train) == N - 1


@pytest.mark.parametrize("factor", [None, 0, 1])
def test_full_size_pictures_are_read_as_they_are(factor, tmp_path):
    scene = llff.load(_scene(tmp_path), factor=factor)
    for i in range(N):
        assert np.array_equal(_colors(scene, i), _picture(i).astype(np.float32) / np.float32(255))
    assert scene.camera == Camera(W, H, FOCAL, FOCAL, W / 2, H / 2)
    assert scene.image_names == tuple(f"IMG_{i:03d}.png" for i in range(N))
    assert scene.images.dtype == torch.uint8
    assert pixels.view_image(scene, 0).dtype == scene.c2w.dtype == scene.bounds.dtype == torch.float32


@pytest.mark.parametrize("factor", [2, 4])
def test_the_focal_length_follows_the_pictures_real_width(factor, tmp_path, caplog):
    scene = llff.load(_scene(tmp_path, factor=factor), factor=factor)
    assert scene.camera == Camera(
        W // factor, H // factor, FOCAL / factor, FOCAL / factor, W / factor / 2, H / factor / 2
    )
    assert not caplog.records


def test_a_width_that_is_not_one_nth_is_used_and_told(tmp_path, caplog):
    rows = _rows(*_world(), width=W * 5, height=H * 5)
    scene = llff.load(_scene(tmp_path, rows, factor=2), factor=2)
    assert np.isclose(scene.camera.fx, FOCAL / 10)
    assert "not 1/2; the focal length follows" in caplog.text


def test_rounded_sides_scale_each_focal_length_by_itself(tmp_path):
    _scene(tmp_path, _rows(*_world(), width=W, height=H))
    scene = llff.load(tmp_path, factor=5)
    camera = scene.camera
    assert (camera.width, camera.height) == (6, 5)
    assert np.isclose(camera.fx, FOCAL * 6 / W)
    assert np.isclose(camera.fy, FOCAL * 5 / H)


@pytest.mark.parametrize("column", [4, 9])
def test_shapes_that_differ_are_refused_by_name_and_value(column, tmp_path):
    rows = _rows(*_world())
    rows[3, column] *= 1.1
    text = _refusal(_scene(tmp_path, rows), factor=1)
    assert "has heights that differ between views" in text
    assert f"view 3 (IMG_003.png): {rows[3, 4] / rows[3, 9]:g}, expected images of one shape" in text


@pytest.mark.parametrize("factor", [1, 4])
def test_focal_lengths_that_differ_are_one_camera_for_each_view(factor, tmp_path):
    rows = _rows(*_world())
    rows[[2, 5], 14] *= 1.25
    rows[3, [4, 9, 14]] *= 2  # twice the pixels of the others' camera
    scene = llff.load(_scene(tmp_path, rows), factor=factor)
    for view, camera in enumerate(map(scene.cameras.camera, range(N))):
        focal = FOCAL / factor * (1.25 if view in (2, 5) else 1)
        assert camera == Camera(W // factor, H // factor, focal, focal, W / factor / 2, H / factor / 2)
    assert scene.camera == scene.cameras.camera(0)
    view, x, y = (torch.full((2,), value) for value in (5, 3, 2))
    made = pixels.rays_of(replace(scene, ndc=False), pixels.Pixels(view, x, y), 0.5)
    center = torch.tensor([W, H]) / factor / 2
    (right, down), focal = torch.tensor([3.5, 2.5]) - center, FOCAL / factor * 1.25
    wanted = scene.c2w[5, :, :3] @ torch.tensor([right / focal, -down / focal, -1])
    assert torch.allclose(made.directions, wanted.expand(2, 3), atol=1e-6)


def test_one_focal_length_is_one_camera_and_rounding_changes_no_bit(tmp_path):
    plain = llff.load(_scene(tmp_path / "plain"), factor=1)
    rows = _rows(*_world())
    rows[1:, 14] *= np.linspace(0.9993, 1.0007, N - 1)
    rounded = llff.load(_scene(tmp_path / "rounded", rows), factor=1)
    for scene in (plain, rounded):
        assert scene.view_cameras is None
        assert scene.camera == Camera(W, H, FOCAL, FOCAL, W / 2, H / 2)
    assert torch.equal(plain.c2w, rounded.c2w)


def test_rounding_and_sizes_of_the_same_camera_are_no_difference(tmp_path):
    rows = _rows(*_world())
    rows[1, 14] *= 1.0005
    rows[2, [4, 9, 14]] *= 2  # twice the pixels
    assert llff.load(_scene(tmp_path, rows), factor=1).camera.fx == FOCAL


@pytest.mark.parametrize("white", [True, False])
def test_transparent_pictures_are_laid_over_white_or_keep_their_colors(white, tmp_path):
    scene = llff.load(_scene(tmp_path, channels=4), factor=1, white_bkgd=white)
    rgba = _picture(2, channels=4) / 255
    wanted = rgba[..., :3] * rgba[..., 3:] + (1 - rgba[..., 3:]) if white else rgba[..., :3]
    assert np.allclose(_colors(scene, 2), wanted, atol=1e-6)


def test_grey_pictures_become_rgb(tmp_path):
    _scene(tmp_path)
    for i in range(N):
        Image.fromarray(_picture(i)[..., 0]).save(tmp_path / "images" / f"IMG_{i:03d}.png")
    scene = llff.load(tmp_path, factor=1)
    assert np.array_equal(_colors(scene, 0), np.repeat(_picture(0)[..., :1] / np.float32(255), 3, axis=-1))


@pytest.mark.parametrize("factor", [1, 4])
def test_photographs_of_8_bits_are_kept_as_bytes_and_are_the_decoders_floats(factor, tmp_path):
    _scene(tmp_path)
    for _ in range(2):  # of a factor of 4, the first one makes the pictures
        scene = llff.load(tmp_path, factor=factor)
        assert scene.images.dtype == torch.uint8
        for i, file in enumerate(image_files.list_images(tmp_path / ("images" if factor == 1 else "images_4"))):
            assert np.array_equal(_colors(scene, i), images.read(file))
            assert scene.image_names[i] == file.name


def _read_only(self, *args, **kwargs):
    raise OSError(30, "Read-only file system")


def test_photographs_shrunk_in_memory_are_the_bytes_that_would_have_been_stored(tmp_path, monkeypatch):
    _scene(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", _read_only)
        in_memory = llff.load(tmp_path, factor=4)
    assert not (tmp_path / "images_4").exists()
    stored = llff.load(tmp_path, factor=4)
    assert in_memory.images.dtype == torch.uint8
    assert torch.equal(in_memory.images, stored.images)


@pytest.mark.parametrize("deep", [range(N), [0], [3], [N - 1]])
def test_a_scene_with_photographs_of_16_bits_stays_float(deep, tmp_path):
    _scene(tmp_path)
    for i in deep:
        fine = np.random.default_rng(i).integers(0, 65536, (H, W, 3), dtype=np.uint16)
        cv2.imwrite(str(tmp_path / "images" / f"IMG_{i:03d}.png"), fine)
    scene = llff.load(tmp_path, factor=1)
    assert scene.images.dtype == torch.float32
    for i, file in enumerate(image_files.list_images(tmp_path / "images")):
        assert np.array_equal(_colors(scene, i), images.read(file))


@pytest.mark.parametrize("factor", [1, 2])
def test_loading_takes_the_memory_of_the_bytes_and_a_few_photographs(factor, tmp_path):
    n, width, height = 100, 320, 240
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "poses_bounds.npy", _rows(*_world(n=n), width * factor, height * factor))
    for i in range(n):
        picture = Image.new("RGB", (width * factor, height * factor), (i, 2 * i, 255 - i))
        picture.save(tmp_path / "images" / f"{i:03d}.png")
    held = llff.load(tmp_path, factor=factor).images.nbytes
    peak = least_peak(lambda: llff.load(tmp_path, factor=factor))
    photograph = 4 * width * height * 3  # as floats, at the size of the scene
    assert held == n * photograph / 4
    assert held <= peak < held + 8 * factor**2 * photograph < 0.6 * n * photograph


def test_missing_folders_show_the_layout(tmp_path):
    text = _refusal(tmp_path / "fern")
    assert "fern is not a folder" in text
    assert "data/nerf_llff_data/<scene>/{poses_bounds.npy, images/, images_8/}" in text
    (tmp_path / "fern").mkdir()
    text = _refusal(tmp_path / "fern")
    assert "poses_bounds.npy does not exist" in text
    assert "data/nerf_llff_data" in text


@pytest.mark.parametrize(
    ("array", "found"),
    [
        (np.zeros((5, 14)), "holds float64 of shape (5, 14), expected N x 17"),
        (np.zeros(17), "holds float64 of shape (17,), expected N x 17"),
        (np.zeros((0, 17)), "holds 0 views, expected 2 or more"),
        (np.zeros((1, 17)), "holds 1 views, expected 2 or more"),
        (np.full((5, 17), "x"), "holds <U1 of shape (5, 17), expected real numbers"),
        (np.zeros((5, 17), complex), "holds complex128 of shape (5, 17), expected real numbers"),
    ],
)
def test_arrays_of_another_shape_or_kind_are_one_sentence(array, found, tmp_path):
    _scene(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", array)
    assert f"{tmp_path / 'poses_bounds.npy'} {found}" in _refusal(tmp_path)


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "object array", "zip", "text", "empty", "cut"])
def test_files_that_are_no_plain_array_are_refused_and_never_run(how, tmp_path):
    file, mark = _scene(tmp_path / "scene") / "poses_bounds.npy", tmp_path / "ran"
    whole = file.read_bytes()
    if how == "object array":
        np.save(file, np.array([_Bomb(mark)], dtype=object), allow_pickle=True)
    elif how == "zip":
        with file.open("wb") as stream:
            np.savez(stream, a=np.zeros((N, 17)))
    else:
        content = {"pickle": pickle.dumps(_Bomb(mark)), "text": b"0 1 2", "empty": b"", "cut": whole[:-9]}
        file.write_bytes(content[how])
    found = {"object array": "holds pickled objects, which are refused", "cut": "and 943 bytes after it"}
    assert found.get(how, "holds no plain array (pickled objects are refused") in _refusal(tmp_path / "scene")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        (0, np.nan, "has values that are not finite in view 2 (IMG_002.png), view 5 (IMG_005.png)"),
        (15, np.inf, "has values that are not finite in view 2"),
        (15, 0.0, "has a near bound that is not between 0 and the far in view 2 (IMG_002.png)"),
        (15, -1.0, "expected 0 < near < far"),
        (16, 0.1, "has a near bound that is not between 0 and the far in view 2"),
        (14, 1e9, "has a focal length of no camera in view 2 (IMG_002.png)"),
        (14, 0.0, "has a height, width or focal length of 0 or less in view 2"),
        (4, -8.0, "has a height, width or focal length of 0 or less in view 2"),
        (slice(0, 3), 0.0, "has axes that are no rotation in view 2"),
        (slice(0, 15, 5), 7.0, "has axes that are no rotation in view 2"),
    ],
)
def test_impossible_rows_are_named(column, value, found, tmp_path):
    rows = _rows(*_world())
    rows[[2, 5], column] = value
    text = _refusal(_scene(tmp_path, rows))
    assert f"{tmp_path / 'poses_bounds.npy'} has" in text
    assert found in text


def test_a_mirrored_camera_is_named(tmp_path):
    rows = _rows(*_world())
    rows[3, 0:15:5] *= -1
    assert "no rotation in view 3 (IMG_003.png), expected right-handed" in _refusal(_scene(tmp_path, rows))


def test_many_impossible_rows_are_not_all_listed(tmp_path):
    rows = _rows(*_world())
    rows[:, 15] = 0
    assert "view 4 (IMG_004.png) and 2 more, expected" in _refusal(_scene(tmp_path, rows))


def test_counts_that_differ_are_told_with_both_counts(tmp_path):
    _scene(tmp_path, rows=_rows(*_world(n=N - 2)))
    text = _refusal(tmp_path)
    assert f"{tmp_path / 'images'} holds 7 images (IMG_000.png, IMG_001.png, " in text
    assert f" and 2 more) while {tmp_path / 'poses_bounds.npy'} has 5 rows" in text
    assert "expected one image for each row" in text


def test_pictures_of_another_shape_than_the_poses_are_refused(tmp_path):
    text = _refusal(_scene(tmp_path, _rows(*_world(), width=H, height=W)))
    assert "was made from images of 24x32" in text
    assert "IMG_000.png is read at 8x6, expected the same shape" in text


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"llffhold": 1}, "option --llffhold: found 1, which holds out every view, expected 2 or more"),
        ({"llffhold": -1}, "option --llffhold: found -1, expected"),
        ({"factor": -2}, "option --factor: found -2, expected"),
        ({"bd_factor": 0.0}, "option bd_factor: found 0.0, expected a number above 0"),
    ],
)
def test_impossible_options_are_one_sentence(options, found, tmp_path):
    assert found in _refusal(_scene(tmp_path), **options)


def test_spherify_without_a_common_point_is_one_sentence(tmp_path):
    c2w, bounds = _world()
    c2w[:, :, :3] = c2w[0, :, :3]
    text = _refusal(_scene(tmp_path, _rows(c2w, bounds)), spherify=True)
    assert "option --spherify: all cameras look the same way in" in text
    assert "poses_bounds.npy, expected them around an object" in text


def _turned(folder, recorded, orientation):
    """A scene of raw 32 x 24 pictures with an EXIF orientation, whose poses record another size."""
    _scene(folder, _rows(*_world(), width=recorded[0], height=recorded[1]))
    exif = Image.Exif()
    exif[274] = orientation
    for i in range(N):
        Image.fromarray(_picture(i)).save(folder / "images" / f"IMG_{i:03d}.png", exif=exif)
    return folder


def test_poses_of_upright_pictures_turn_the_pictures_upright(tmp_path):
    scene = llff.load(_turned(tmp_path, (H, W), 6), factor=1)
    assert np.array_equal(np.round(_colors(scene, 1) * 255), np.rot90(_picture(1), -1))
    assert (scene.camera.width, scene.camera.height) == (H, W)


def test_poses_of_raw_pictures_keep_the_pictures_raw(tmp_path):
    scene = llff.load(_turned(tmp_path, (W, H), 6), factor=1)
    assert np.array_equal(np.round(_colors(scene, 1) * 255), _picture(1))
    assert (scene.camera.width, scene.camera.height) == (W, H)


def test_half_turns_are_applied(tmp_path):
    scene = llff.load(_turned(tmp_path, (W, H), 3), factor=1)
    assert np.array_equal(np.round(_colors(scene, 1) * 255), _picture(1)[::-1, ::-1])


def _real(name):
    folder = Path(os.environ.get("ENERF_DATA", "")) / "llff" / name
    if "ENERF_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"ENERF_DATA names no folder with llff/{name}")
    return folder


@pytest.mark.data
@pytest.mark.parametrize(("name", "views"), [("fern", 20), ("flower", 34)])
def test_real_scenes_load_with_the_published_protocol(name, views):
    folder = _real(name)
    scene = llff.load(folder, factor=8)
    raw = np.load(folder / "poses_bounds.npy")
    assert scene.images.shape == (views, 378, 504, 3)
    assert scene.test == tuple(range(0, views, 8))
    assert np.isclose(scene.camera.fx, raw[0, 14] / 8)
    assert np.isclose(scene.bounds.min().item(), 1 / 0.75)
    assert np.isclose(scene.bounds.max() / scene.bounds.min(), raw[:, 16].max() / raw[:, 15].min())
    centers = raw[:, :15].reshape(-1, 3, 5)[:, :, :4]
    assert np.allclose(_centers(centers) @ scene.world_to_scene.numpy().T, _centers(scene.c2w.numpy()), atol=1e-5)
    assert (scene.c2w[:, 2, 2] > 0.9).all()
    assert all(0.1 < pixels.view_image(scene, view).mean() < 0.9 for view in range(views))


def test_one_near_outlier_leaves_the_scene_as_it_is_without_it(tmp_path, caplog):
    c2w, bounds = _world()
    least = bounds[:, 0].argsort()[0]
    plain = llff.load(_scene(tmp_path / "plain", _rows(c2w, bounds)), factor=1, ndc=False)
    assert not caplog.records
    bounds[(least + 1) % N, 0] = 0.01
    robust = llff.load(_scene(tmp_path / "outlier", _rows(c2w, bounds)), factor=1, ndc=False)
    assert torch.equal(plain.c2w, robust.c2w)
    assert torch.equal(plain.world_to_scene, robust.world_to_scene)
    assert (plain.near, plain.far) == (robust.near, robust.far)
    assert f"view {(least + 1) % N} (IMG_00{(least + 1) % N}.png): 0.01" in caplog.text


@pytest.mark.parametrize("axes", poses.AXES)
def test_poses_in_other_axes_give_the_same_scene(axes, tmp_path):
    c2w, bounds = _world()
    rows = _rows(c2w, bounds)
    wanted = llff.load(_scene(tmp_path, rows), factor=1, spherify=True, ndc=False)
    rows[:, :15] = _with_matrices(rows, to_axes(c2w, axes))
    np.save(tmp_path / "poses_bounds.npy", rows)
    found = llff.load(tmp_path, factor=1, spherify=True, ndc=False, pose_axes=axes)
    assert torch.allclose(found.c2w, wanted.c2w, atol=1e-6)
    assert torch.allclose(found.world_to_scene, wanted.world_to_scene, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"spherify": True, "ndc": False}])
def test_cameras_at_one_point_are_one_sentence(options, tmp_path):
    c2w, bounds = _world()
    c2w[:, :, 3] = c2w[0, :, 3]
    assert "has all cameras at one point" in _refusal(_scene(tmp_path, _rows(c2w, bounds)), **options)


def test_training_cameras_at_one_point_are_one_sentence(tmp_path):
    c2w, bounds = _world()
    c2w[1:, :, 3] = c2w[1, :, 3]
    assert "has all training cameras at one point" in _refusal(_scene(tmp_path, _rows(c2w, bounds)), factor=1)


def test_poses_in_other_axes_than_said_are_told_before_their_cameras_are_refused(tmp_path, caplog):
    folder = synthetic.write_scene(tmp_path / "demo", views=6, width=160, height=120, supersample=1, progress=False)
    rows = np.load(folder / "poses_bounds.npy")
    llff.load(folder, factor=1)
    assert not caplog.records
    rows[:, :15] = _with_matrices(rows, to_axes(synthetic.poses(6), "opencv"))
    np.save(folder / "poses_bounds.npy", rows)
    llff.load(folder, factor=1, pose_check=False)
    assert not caplog.records
    llff.load(folder, factor=1)
    assert "give --pose_axes opencv" in caplog.text
    caplog.clear()
    llff.load(folder, factor=1, pose_axes="opencv")
    assert not caplog.records


def test_a_named_pipe_in_the_place_of_the_poses_is_refused(tmp_path):
    (_scene(tmp_path) / "poses_bounds.npy").unlink()
    os.mkfifo(tmp_path / "poses_bounds.npy")
    with pytest.raises(InputError, match="found a named pipe, expected a file"):
        llff.load(tmp_path, factor=1)


def test_a_far_bound_that_means_infinity_needs_ndc(tmp_path):
    c2w, bounds = _world()
    bounds[:, 1] = 1e300
    _scene(tmp_path, _rows(c2w, bounds))
    assert llff.load(tmp_path, factor=1).bounds.isfinite().all()
    assert "has far bounds of up to" in _refusal(tmp_path, factor=1, ndc=False)
