"""Whole runs on scenes of transforms.json and COLMAP: trained, resumed, evaluated, rendered and extracted."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from enerf.config import parser
from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import formats, synthetic
from enerf.engine import checkpoint
from enerf.experiments import analyze, compare, extract, open_run
from enerf.experiments.options import AnalyzeOptions, CompareOptions, ExtractOptions
from enerf.tasks.nerf import evaluate, opened, report, setup, train
from enerf.tasks.nerf.config import NerfConfig
from tests.contents import refusal, same, saved
from tests.datasets.scenes import photographed
from tests.datasets.scenes.photographed import FISHEYE, OFF_CENTER, OPENCV, PLAIN

N = 6
TINY = {
    **{"llffhold": 3, "netwidth": 8, "netwidth_fine": 8, "netdepth": 2, "netdepth_fine": 2, "multires": 3},
    **{"multires_views": 1, "use_viewdirs": True, "N_rand": 32, "N_samples": 8, "N_importance": 8, "N_iters": 12},
    **{"i_eval": 6, "i_img": 6, "i_video": 0, "i_testset": 0, "i_weights": 6, "i_print": 0, "eval_rays": 20},
    **{"device": "cpu", "backend": "torch", "precision": "fp32", "density": "softplus", "lrate": 1e-2},
}


def _ndc(folder: Path) -> tuple[Path, dict]:
    """Off-center cameras of several sizes, with a mask, in NDC."""
    posed = photographed.described(folder, photographed.of_sizes(OFF_CENTER, N), photographed.forward(N))
    images.write_png(folder / "mask.png", np.where(np.arange(24) < 8, 0, 255).astype(np.uint8)[None].repeat(18, 0))
    photographed.write(replace(posed, masks=(folder / "mask.png", *[None] * (N - 1))), "transforms")
    return folder, {"sampler": "proposal"}


def _contracted(folder: Path) -> tuple[Path, dict]:
    """Distorted cameras of which one is a fisheye, in contracted space."""
    cameras = (OPENCV, FISHEYE, *[OPENCV] * (N - 2))
    photographed.write(photographed.described(folder, cameras, photographed.forward(N)), "colmap")
    return folder, {"no_ndc": True, "encoding": "hash", "hash_levels": 2, "hash_log2_entries": 10}


def _fisheye(folder: Path) -> tuple[Path, dict]:
    """Fisheye cameras around a sphere, of which some photographs are transparent."""
    posed = photographed.described(folder, (FISHEYE,) * N, photographed.around(N))
    photographed.write(posed, "colmap")
    picture = images.read(posed.files[1])
    alpha = np.where(np.arange(picture.shape[1]) < 5, 0.0, 1.0)[None, :, None].repeat(len(picture), 0)
    images.write_png(posed.files[1], np.concatenate([picture, alpha], -1))
    return folder, {"no_batching": True, "precrop_iters": 5}


def _focal_lengths(folder: Path) -> tuple[Path, dict]:
    """An LLFF scene whose views have different focal lengths."""
    synthetic.write_scene(folder, views=N, width=24, height=18, supersample=1, progress=False)
    rows = np.load(folder / "poses_bounds.npy")
    rows[::2, 14] *= 1.2
    np.save(folder / "poses_bounds.npy", rows)
    return folder, {"factor": 1}


SCENES = {"ndc": _ndc, "contracted": _contracted, "fisheye": _fisheye, "focal": _focal_lengths}


def _config(scene: Path, basedir: Path, **options) -> NerfConfig:
    words = {**TINY, "datadir": str(scene), "basedir": str(basedir), "expname": "run", **options}
    return parser.from_dict(NerfConfig, words)


@pytest.fixture(scope="module", params=SCENES)
def trained(request, tmp_path_factory) -> tuple[Path, dict, str]:
    """A run of 12 steps in one go, its own options and its kind; look, do not write."""
    folder = tmp_path_factory.mktemp(request.param)
    scene, options = SCENES[request.param](folder / "scene")
    config = _config(scene, folder, **options)
    assert train.train(config) is not None
    return config.folder, options, request.param


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of the run."""
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


def _scene_of(folder: Path) -> Path:
    return folder.parent / "scene"


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(trained, tmp_path):
    folder, options, _ = trained
    train.train(_config(_scene_of(folder), tmp_path, **options, N_iters=6, no_final_eval=True))
    train.train(_config(_scene_of(folder), tmp_path, **options))
    assert same(saved(tmp_path / "run"), saved(folder))


def test_format_and_factor_are_recorded_and_kept(trained, tmp_path):
    folder, _, kind = trained
    written = checkpoint.read(checkpoint.checkpoints(folder)[-1])["config"]
    expected = {"ndc": "transforms", "contracted": "colmap", "fisheye": "colmap", "focal": "llff"}[kind]
    assert (written["dataset_type"], written["factor"]) == (expected, 1)
    moved = Path(shutil.copytree(_scene_of(folder), tmp_path / "moved"))
    if kind != "ndc":
        (moved / "transforms.json").write_text("{}")  # of another format, and damaged
        assert setup.open_run(folder, datadir=str(moved)).config.data.dataset_type == expected


def test_metrics_are_of_the_test_views_and_say_how_they_were_chosen(trained, run):
    before = json.loads((run / "metrics.json").read_text(), parse_constant=pytest.fail)
    found = evaluate.evaluate_folder(run, device="cpu")
    assert found["mean"] == before["mean"]
    assert all(5 < view["psnr"] < 50 for view in found["views"])
    assert len(found["views"]) == 2
    protocol, kind = found["protocol"], trained[2]
    assert protocol.get("split") == (None if kind == "focal" else "one in 3, from the first")
    assert protocol["llffhold"] == (3 if kind == "focal" else None)
    assert ("masks" in protocol) == (kind == "ndc")
    assert ("background" in protocol) == (kind == "fisheye")
    described = report.protocol_description(found)
    assert ("llffhold 3" if kind == "focal" else "test views: one in 3, from the first") in described
    written = sorted(path.name for path in (run / "test" / "final").iterdir())
    assert written == sorted(Path(view["name"]).with_suffix(".png").name for view in found["views"])


def test_views_and_videos_are_rendered(trained, tmp_path):
    views = opened.open_views(trained[0], device="cpu")
    pose = views.scene.c2w[0]
    for camera in (None, views.scene.cameras.camera(1), PLAIN):
        picture = views.render(pose, camera)
        size = camera or views.scene.camera
        assert picture.rgb.shape == (size.height, size.width, 3)
        assert picture.rgb.isfinite().all()
    for path in (None, "test"):
        assert views.write_video(tmp_path / f"{path}.mp4", path, 2, 5.0).stat().st_size > 0
    by_name = open_run.open_run(trained[0], device="cpu").render(pose)
    assert np.array_equal(np.asarray(by_name.rgb), np.asarray(views.render(pose).rgb))


def test_a_mesh_is_extracted_between_the_cameras_and_the_far_bounds(trained, tmp_path):
    with pytest.raises(InputError) as told:
        extract.extract(trained[0], ExtractOptions(resolution=12, level="1e9", device="cpu"))
    low, high = map(float, re.search(r"ranges over \[(.*), (.*)\]", str(told.value)).groups())
    out = tmp_path / "mesh.ply"
    chosen = ExtractOptions(resolution=16, level=str((low + high) / 2), device="cpu", out=str(out))
    extract.extract(trained[0], chosen)
    assert out.stat().st_size > 0


# options


@pytest.fixture
def small(tmp_path) -> Path:
    posed = photographed.described(tmp_path / "scene", (PLAIN,) * 4, photographed.forward(4))
    return photographed.write(posed, "transforms")


QUICK = {"N_iters": 1, "no_final_eval": True, "i_img": 0, "i_eval": 0}


def test_an_automatic_format_is_found_and_logged_once_and_a_changed_one_is_refused(small, tmp_path, caplog):
    caplog.set_level("INFO")
    train.train(_config(small, tmp_path, **QUICK))
    assert f"{small}: format transforms, by transforms.json" in caplog.text
    caplog.clear()
    train.train(_config(small, tmp_path, **{**QUICK, "N_iters": 2}))
    assert "by transforms.json" not in caplog.text
    photographed.write_cameras(photographed.described(small, (PLAIN,) * 4, photographed.forward(4)), "colmap")
    text = refusal(train.train, _config(small, tmp_path, **{**QUICK, "N_iters": 3, "dataset_type": "colmap"}))
    assert "dataset_type (saved transforms, requested colmap)" in text
    text = refusal(train.train, _config(small, tmp_path, **{**QUICK, "N_iters": 3, "factor": 2}))
    assert "factor (saved 1, requested 2)" in text
    train.train(_config(small, tmp_path, **{**QUICK, "N_iters": 3, "factor": 1, "dataset_type": "transforms"}))


def test_options_without_a_run_resolve_to_what_the_folder_is(small, tmp_path):
    config = _config(small, tmp_path)
    found = setup.with_format(config)
    assert (found.data.dataset_type, found.data.factor) == ("transforms", -1)
    kept = setup.with_format(config, {"dataset_type": "llff", "factor": 4})
    assert (kept.data.dataset_type, kept.data.factor) == ("llff", 4)
    forced = setup.with_format(parser.replace(config, dataset_type="llff"))
    assert (forced.data.dataset_type, forced.data.factor) == ("llff", formats.LLFF_FACTOR)
    assert setup.with_format(found) == found
    assert "is no scene" in refusal(setup.with_format, _config(tmp_path / "scene" / "images", tmp_path))


def test_points_and_named_test_views_are_inputs_of_a_run(small, tmp_path):
    names = tmp_path / "names"
    names.write_text("00\n")
    options = {**QUICK, "test_views": str(names)}
    train.train(_config(small, tmp_path, **options))
    found = {path.name for path in setup.input_files(_config(small, tmp_path, **options))}
    assert {"names", "sparse_pc.ply", "transforms.json", "00.png"} <= found
    names.write_text("01\n")
    text = refusal(train.train, _config(small, tmp_path, **{**options, "N_iters": 2}))
    assert "names" in text
    names.write_text("00\n")
    (small / "sparse_pc.ply").write_bytes((small / "sparse_pc.ply").read_bytes()[:-27] + bytes(27))
    assert "sparse_pc.ply" in refusal(train.train, _config(small, tmp_path, **{**options, "N_iters": 2}))


def test_a_comparison_draws_a_view_of_a_scene_in_folders_and_is_analyzed(tmp_path):
    posed = photographed.described(tmp_path / "scene", photographed.of_sizes(PLAIN, 4), photographed.forward(4))
    names = ("left/0.png", "right/0.png", "left/1.png", "right/1.png")
    files = tuple(tmp_path / "scene" / "images" / name for name in names)
    scene = photographed.write(replace(posed, names=names, files=files), "colmap")
    base = _config(scene, tmp_path, **{**QUICK, "no_final_eval": False})
    compare.compare(base, CompareOptions(methods="plain,weight_norm"))
    assert images.read(base.folder / "crops.png").std() > 0.01
    text = analyze.analyze([base.folder], AnalyzeOptions(rays=4, device="cpu", no_hessian=True))
    assert all(f"{method}_seed0" in text for method in ("plain", "weight_norm"))
    drawn = base.folder / "plain_seed0" / "test" / "final"
    assert sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.png")) == [
        "left/0.png.png",
        "right/1.png.png",
    ]
