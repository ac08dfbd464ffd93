"""Tests of whole shape runs, on small generated shapes: what is learned, saved, resumed and refused."""

import json
import logging
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from enerf.cli import train as cli_train
from enerf.config import parser
from enerf.core import images
from enerf.core.errors import InputError, NotFinite, SomeFailed
from enerf.engine import checkpoint
from enerf.experiments import extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry.isosurface import extract as isosurface_extract
from enerf.tasks.shape import eval_points as shape_eval_points
from enerf.tasks.shape import mesh as shape_mesh
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape.config import ShapeConfig
from tests import contents
from tests.contents import same, saved
from tests.geometry import solids

MODEL = ["--netwidth", "16", "--hash_levels", "3", "--hash_log2_entries", "14", "--hash_finest", "24"]
SAMPLES = ["--N_points", "256", "--pool", "1024", "--background", "none"]
RATES = ["--N_iters", "10", "--i_print", "5", "--i_eval", "5", "--i_spectrum", "5", "--i_weights", "5"]
FAST = ["--N_iters", "150", "--N_points", "1024", "--pool", "8192", "--lrate", "1e-2", "--lrate_grid", "5e-2"]
BASE = [*MODEL, *SAMPLES, *RATES, "--device", "cpu", "--expname", "run", "--resolution", "24"]


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Fewer points to measure with."""
    small = shape_eval_points.EvalSettings(grid=24, shell=0.05, shell_points=500, surface_points=500)
    monkeypatch.setattr(shape_setup, "EVAL_SETTINGS", small)
    shape_setup.reference_of.cache_clear()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory) -> Path:
    """An off-center ellipsoid, a thousand times as large as the box."""
    path = tmp_path_factory.mktemp("meshes") / "ellipsoid.ply"
    vertices, faces = solids.ellipsoid()
    trimesh.Trimesh(1000 * vertices, faces, process=False).export(path)
    return path


@pytest.fixture
def make(mesh, tmp_path):
    """Options of a run in a folder of the test's own; later words win."""

    def make(*words: str, of: str = "--mesh", path: Path = mesh) -> ShapeConfig:
        told = [*BASE, of, str(path), "--basedir", str(tmp_path / "logs"), *words]
        return parser.parse(ShapeConfig, told)[0]

    return make


def refusal(config) -> str:
    return contents.refusal(shape_train.train, config)


# one seed, one result


def test_two_runs_with_one_seed_are_equal_to_the_last_bit_and_another_seed_is_another(make):
    one, two, other = make(), make("--expname", "two"), make("--expname", "other", "--seed", "1")
    told = []
    for config in (one, two, other):
        torch.manual_seed(len(told))  # the global generator decides nothing
        told.append(shape_train.train(config)["field"])
    assert same(saved(one.folder), saved(two.folder))
    assert told[0] == told[1]
    assert not same(saved(one.folder)["model"], saved(other.folder)["model"])


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--representation", "sdf", "--eikonal", "0.1", "--normals", "0.1", "--surface", "0.5"],
        ["--equilibrate", "--encoding", "positional", "--activation", "sine", "--equilibrate_scale", "learned"],
        ["--background", "process", "--pool_uses", "1"],
    ],
    ids=["occupancy", "distance with gradients", "sine", "in the background"],
)
def test_a_resumed_run_is_the_run_in_one_go(make, words):
    words = [*words, "--lrate_schedule", "decay"]  # a cosine ends elsewhere if the run does
    whole, parts = make(*words, "--background", "none"), make(*words, "--expname", "parts")
    shape_train.train(parser.replace(whole, no_final_eval=True))
    for n_iters in (3, 10):
        shape_train.train(parser.replace(parts, N_iters=n_iters, i_eval=5, no_final_eval=True))
    told, again = saved(whole.folder), saved(parts.folder)
    assert same(told["model"], again["model"])
    assert same(told["optimiser"], again["optimiser"])


def test_an_interrupted_run_is_saved_and_goes_on(make, monkeypatch):
    config, followed, seen = make(), shape_step.gradient_step, []

    def interrupted(*more):
        seen.append(1)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return followed(*more)

    monkeypatch.setattr(shape_step, "gradient_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        shape_train.train(config)
    assert saved(config.folder)["step"] == 4
    assert shape_train.train(config)["steps"] == 10


def test_a_value_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(make, monkeypatch):
    config, terms_at, seen = make(), shape_step.occupancy_terms, []

    def broken(*more):
        seen.append(1)
        return {"entropy": terms_at(*more)["entropy"] * (math.nan if len(seen) == 8 else 1)}

    monkeypatch.setattr(shape_step, "occupancy_terms", broken)
    with pytest.raises(NotFinite, match="step 7: the loss is nan"):
        shape_train.train(config)
    assert [path.stem for path in checkpoint.checkpoints(config.folder)] == ["000005", "000007"]


def test_no_reload_starts_anew_and_keeps_the_earlier_run_aside(make):
    shape_train.train(make())
    shape_train.train(make("--no_reload", "--N_iters", "6"))
    assert saved(make().folder)["step"] == 6
    assert (make().folder / "metrics.json.1").is_file()


def test_a_finished_run_is_not_measured_again(make, monkeypatch):
    first = shape_train.train(make())
    monkeypatch.setattr(shape_train.evaluate, "evaluate", lambda run: pytest.fail("measured again"))
    assert shape_train.train(make()) == json.loads((make().folder / "metrics.json").read_text())
    assert first["steps"] == 10


# what is learned


@pytest.mark.parametrize("target", ["occupancy", "sdf"])
def test_an_ellipsoid_is_learned_and_comes_back_in_the_files_coordinates(make, target):
    config = make("--representation", target, *FAST, "--i_eval", "50")
    metrics = shape_train.train(config)
    assert metrics["field"]["iou"] > 0.9
    assert metrics["mesh"]["iou"] > 0.85  # marching cells are a third of the smallest half axis
    assert metrics["target"] == target
    assert [len(row) for row in metrics["curve"]] == [4, 4, 4]
    assert metrics["curve"][-1][2] > 0.8
    made = trimesh.load(config.folder / "mesh.ply", process=False)
    true, _ = solids.ellipsoid()
    np.testing.assert_allclose(made.bounds, 1000 * np.array([true.min(0), true.max(0)]), atol=120)
    assert made.is_watertight
    assert made.volume > 0
    assert metrics["field"]["volume_file"] == pytest.approx(4 / 3 * math.pi * 0.5 * 0.9 * 0.25 * 1e9, rel=0.1)


def test_a_cloud_of_oriented_points_is_learned_as_a_distance(make, tmp_path, mesh):
    whole = trimesh.load(mesh, process=False)
    points, faces = trimesh.sample.sample_surface(whole, 2000, seed=0)
    path = tmp_path / "cloud.ply"
    rows = np.concatenate([points, whole.face_normals[faces]], 1)
    columns = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    lines = [" ".join(map(str, row)) for row in rows]
    path.write_text("\n".join(["ply", "format ascii 1.0", f"element vertex 2000\n{columns}end_header", *lines, ""]))
    small = ["--encoding", "none", "--activation", "softplus", "--netdepth", "3", "--start_radius", "0.5"]
    config = make(
        *small, "--N_iters", "300", "--N_points", "512", "--lrate", "1e-2", "--i_eval", "0", of="--cloud", path=path
    )
    metrics = shape_train.train(config)
    assert metrics["target"] == "sdf"
    assert metrics["cloud"]["mean_distance"] < 0.06
    assert trimesh.load(config.folder / "mesh.ply").volume == pytest.approx(whole.volume, rel=0.2)


@pytest.mark.parametrize("encoding", ["hash", "positional"])
def test_a_picture_is_learned(make, tmp_path, encoding):
    path = tmp_path / "waves.png"
    y, x = np.mgrid[:24, :32] / 24
    images.write_png(path, np.stack([x * 0.7, y, 0.5 + 0.5 * np.sin(5 * x)], -1))
    words = ["--encoding", encoding, "--N_iters", "100", "--i_eval", "50", "--lrate", "1e-2", "--holdout", "0.25"]
    metrics = shape_train.train(make(*words, of="--image", path=path))
    assert metrics["target"] == "colours"
    assert metrics["picture"]["psnr"] > 20
    assert metrics["picture"]["pixels_heldout"] == 192
    assert [len(row) for row in metrics["curve"]] == [4, 4]


def test_checkpoints_lead_back_to_the_file_without_it(make, mesh, tmp_path):
    moved = tmp_path / "moved.ply"
    shutil.copy(mesh, moved)
    config = make(path=moved)
    run = shape_setup.prepare(config)
    shape_train.train(config)
    moved.unlink()
    opened = shape_setup.open_field(config.folder, "cpu")
    assert opened.normalization == run.target.normalization
    at = torch.rand(50, 3) * 2 - 1
    trained = shape_setup.prepare(make())
    torch.testing.assert_close(opened.field(at), shape_setup.frozen(trained.field)(at))
    with pytest.raises(InputError, match=r"moved\.ply"):
        shape_setup.prepare(config)


# parts that the shape does not have


@pytest.fixture
def with_crumb(monkeypatch):
    """Every extracted mesh has a loose part in a corner of the box, besides that of the field."""
    extracted = isosurface_extract.extract

    def extract(*more, **settings):
        found = extracted(*more, **settings)
        crumb = trimesh.creation.icosphere(1, 0.03).apply_translation((-0.9, 0.9, 0.9))
        mesh = solids.together((found.vertices, found.faces), (crumb.vertices, crumb.faces))
        return replace(found, vertices=mesh[0], faces=mesh[1])

    monkeypatch.setattr(isosurface_extract, "extract", extract)


@pytest.fixture(scope="module")
def learned(mesh, tmp_path_factory) -> Path:
    """Folder of a run that knows where its shape is, without an evaluation."""
    words = [*BASE, *FAST, "--i_eval", "0", "--mesh", str(mesh), "--basedir", str(tmp_path_factory.mktemp("learned"))]
    config = parser.parse(ShapeConfig, [*words, "--N_iters", "60", "--no_final_eval"])[0]
    shape_train.train(config)
    return config.folder


def parts(path: Path) -> int:
    return trimesh.load(path, process=False).body_count


def test_parts_that_the_shape_does_not_have_are_dropped_counted_and_logged(learned, tmp_path, with_crumb, caplog):
    folder = Path(shutil.copytree(learned, tmp_path / "run"))
    mesh = shape_train.evaluate.evaluate_folder(folder, "cpu")["mesh"]
    assert (mesh["parts"], mesh["parts_dropped"]) == (1, 1)
    assert mesh["hausdorff_percent"] < 20 < mesh["dropped_distance_percent"] < 100
    assert mesh["dropped_volume"] == pytest.approx(4 / 3 * math.pi * 0.03**3, rel=0.3)
    assert "dropped 1 of 2 parts of the mesh that the shape does not have" in caplog.text
    assert parts(folder / "mesh.ply") == 1


def gone(config):
    raise InputError("does not exist")


def test_a_mesh_extracted_without_the_file_has_no_such_parts_either(learned, tmp_path, with_crumb, caplog, monkeypatch):
    folder = Path(shutil.copytree(learned, tmp_path / "run"))
    (folder / "mesh.ply").write_text("that of metrics.json")
    monkeypatch.setattr(shape_setup, "load_target", gone)
    chosen = ExtractOptions(resolution=24, device="cpu")
    assert extract.extract(folder, chosen).endswith("extracted.ply")
    assert (folder / "mesh.ply").read_text() == "that of metrics.json"
    assert parts(folder / "extracted.ply") == 1
    extract.extract(folder, replace(chosen, all_parts=True, out=str(tmp_path / "all.ply")))
    assert parts(tmp_path / "all.ply") == 2
    path = checkpoint.checkpoints(folder)[-1]
    content = torch.load(path, weights_only=True)
    del content["config"]["box"]["signs"]
    torch.save(content, path)
    with caplog.at_level(logging.INFO, "enerf"):
        extract.extract(folder, replace(chosen, out=str(tmp_path / "old.ply")))
    assert parts(tmp_path / "old.ply") == 2
    assert "does not record where its shape is: parts of the mesh are not checked" in caplog.text


def test_the_mesh_is_asked_about_parts_only_if_it_is_the_one_that_was_trained_on(learned, mesh, tmp_path):
    run = shape_setup.open_field(learned, "cpu")
    low, high = trimesh.load(mesh, process=False).bounds
    other = tmp_path / "other.ply"  # with the same box
    trimesh.creation.box(bounds=np.array([low, high])).export(other)
    copied = shutil.copy(mesh, tmp_path / "renamed.ply")
    assert [shape_mesh._solid(run, str(path)) is not None for path in ("", copied, other)] == [True, True, False]
    unknown = replace(run, inputs=None)  # an earlier version's
    assert [shape_mesh._solid(unknown, str(path)) is not None for path in (copied, tmp_path / "none.ply")] == [
        True,
        False,
    ]


def test_what_no_shape_has_is_refused_before_the_field_is_evaluated(learned, monkeypatch, tmp_path):
    monkeypatch.setattr(isosurface_extract, "extract", lambda *more, **settings: pytest.fail("evaluated"))
    (tmp_path / "file").write_text("")
    for changes, sentence in (
        ({"crop": 1}, "option --crop: found 1, expected 0: this run has no cameras"),
        ({"out": str(tmp_path / "file" / "it.ply")}, "cannot be written"),
        ({"views": str(tmp_path / "file")}, "cannot be written"),
    ):
        with pytest.raises(InputError, match=sentence):
            extract.extract(learned, ExtractOptions(resolution=24, device="cpu", **changes))


def test_a_run_begun_without_far_points_goes_on_without_them(make):
    before = ["--lrate_schedule", "decay", "--no_final_eval", "--i_eval", "0"]
    whole = make(*before, "--far", "0")
    shape_train.train(whole)
    begun = make(*before, "--far", "0", "--N_iters", "5", "--expname", "begun")
    shape_train.train(begun)
    path = checkpoint.checkpoints(begun.folder)[-1]
    content = torch.load(path, weights_only=True)
    del content["config"]["far"]
    torch.save(content, path)
    shape_train.train(make(*before, "--expname", "begun"))
    assert same(saved(whole.folder)["model"], saved(begun.folder)["model"])
    assert checkpoint.read(checkpoint.checkpoints(begun.folder)[-1])["config"]["far"] == 0


# many shapes


def test_a_folder_is_learned_mesh_by_mesh_and_what_fails_is_named_at_the_end(make, mesh, tmp_path, monkeypatch):
    folder, trained = tmp_path / "many", shape_train.train
    folder.mkdir()
    for name in ("a.ply", "b.ply", "d.ply"):
        shutil.copy(mesh, folder / name)
    (folder / "c.obj").write_text("")
    (folder / "notes.txt").write_text("no mesh")

    def train(config):
        if config.scene == "b":
            raise NotFinite("step 7: the loss is nan")
        return trained(config)

    monkeypatch.setattr(shape_train, "train", train)
    config = make("--expname", "all", path=folder)
    with pytest.raises(
        SomeFailed, match=r"2 of its 4 meshes .*b\.ply \(step 7: the loss is nan\); c\.obj \("
    ) as failed:
        shape_train.train_all(config)
    assert [run["shape"] for run in failed.value.measured] == ["a", "d"]
    assert len((config.folder / "results.md").read_text().splitlines()) == 4
    assert json.loads((config.folder / "results.json").read_text()) == failed.value.measured


def test_finished_shapes_of_a_folder_are_not_learned_again(make, mesh, tmp_path, monkeypatch):
    folder = tmp_path / "many"
    folder.mkdir()
    shutil.copy(mesh, folder / "a.ply")
    config = make(path=folder)
    measured = shape_train.train_all(config)
    monkeypatch.setattr(shape_train, "train", lambda config: pytest.fail("learned again"))
    assert shape_train.train_all(config) == measured


def test_a_folder_without_meshes_is_one_sentence(make, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"none: found no mesh in it, expected files of kinds obj, ply"):
        shape_train.train_all(make(path=tmp_path / "none"))


def test_a_folder_of_which_all_fails_prints_where_the_results_are_and_is_an_error(tmp_path, capsys):
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "a.obj").write_text("")
    words = ["--mesh", str(tmp_path / "many"), "--basedir", str(tmp_path), "--expname", "all"]
    with pytest.raises(SomeFailed, match=r"1 of its 1 meshes could not be learned: a\.obj \("):
        cli_train.main("shape", words)
    assert capsys.readouterr().out == f"results: {tmp_path / 'all'}\n"


# refusals


def test_another_model_and_another_kind_are_refused_with_the_difference(make):
    shape_train.train(make("--no_final_eval"))
    assert "netwidth (saved 16, requested 8)" in refusal(make("--netwidth", "8"))
    path = checkpoint.checkpoints(make().folder)[-1]
    content = torch.load(path, weights_only=True)
    content["config"]["kind"] = "nerf"
    torch.save(content, path)
    assert "found a run of kind 'nerf', expected 'shape'" in refusal(make())


def test_a_missing_file_is_one_sentence(make, tmp_path):
    with pytest.raises(InputError, match=r"gone\.obj does not exist, expected a file of a mesh") as caught:
        shape_train.train(make(path=tmp_path / "gone.obj"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--image", "a.png"], "found --mesh and --image, expected one"),
        (["--near", "0.1"], "option --near: found '0.1', expected scales and shares"),
        (["--near", "0:1"], "option --near: found '0:1', expected scales and shares"),
        (["--near", "", "--uniform", "0"], "found no share above 0"),
        (["--pool", "10"], "option --pool: found 10, expected at least the 256 points"),
        (["--eikonal", "1"], "option --eikonal is for signed distances of meshes"),
        (["--hash_finest", "4"], "option --hash_finest: found 4, expected at least --hash_coarsest"),
        (["--equilibrate", "--weight_norm"], "mutually exclusive"),
        (["--finer_bias", "1"], "option --finer_bias: found 1 with --activation relu, expected --activation finer"),
        (["--conditioning", "batch_norm", "--eikonal", "1", "--representation", "sdf"], "expected none of them"),
        (["--margin", "1"], "option --margin: found '1', expected at most 0.9"),
    ],
)
def test_options_that_mean_nothing_are_one_sentence(make, words, sentence):
    with pytest.raises(InputError) as caught:
        make(*words)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_mesh_of_a_field_is_learned_again_as_the_same_shape(make):
    first = make(*FAST, "--i_eval", "0", "--resolution", "48")
    shape_train.train(first)
    again = make(*FAST, "--i_eval", "0", "--expname", "again", "--resolution", "48", path=first.folder / "mesh.ply")
    metrics = shape_train.train(again)
    assert metrics["field"]["iou"] > 0.9
    one, two = (trimesh.load(config.folder / "mesh.ply", process=False) for config in (first, again))
    assert two.volume == pytest.approx(one.volume, rel=0.05)
    np.testing.assert_allclose(two.bounds, one.bounds, atol=80)
