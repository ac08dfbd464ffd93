"""Tests of whole runs on volumes of voxels: what is learned, resumed, extracted, reported and refused."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.cli import report as cli_report
from enerf.config import parser
from enerf.core import files
from enerf.engine.probe import ProbeSettings
from enerf.experiments import extract, open_run
from enerf.experiments.options import ExtractOptions
from enerf.geometry import read
from enerf.tasks.shape import evaluate as shape_evaluate
from enerf.tasks.shape import probe as shape_probe
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape import voxels
from enerf.tasks.shape.config import ShapeConfig
from enerf.viewer import live_shapes
from tests import contents
from tests.contents import same, saved
from tests.geometry import volumes

MODEL = [
    "--encoding",
    "positional",
    "--multires",
    "3",
    "--multires_first",
    str(math.pi),
    "--netwidth",
    "32",
    "--netdepth",
    "3",
]
RATES = ["--N_points", "2000", "--N_iters", "10", "--i_print", "5", "--i_eval", "5", "--i_weights", "5"]
RATES += ["--lrate_schedule", "exponential", "--precision", "fp32"]
BASE = [*MODEL, *RATES, "--device", "cpu", "--expname", "run", "--resolution", "24"]
LEARN = ["--epochs", "40", "--N_iters", "100000", "--lrate", "1e-2", "--i_eval", "140"]


@pytest.fixture(scope="module")
def ball(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("volumes")
    data = volumes.zipped({"ball.mat": volumes.mat(hypercube=volumes.ball() * np.uint8(255))})
    return volumes.write(folder, "ball.mat.zip", data)


@pytest.fixture
def make(ball, tmp_path):
    """Options of a run in a folder of the test's own; later words win."""

    def make(*words: str, path: Path = ball) -> ShapeConfig:
        where = ["--volume", str(path), "--basedir", str(tmp_path / "logs")]
        return parser.parse(ShapeConfig, [*BASE, *where, *words])[0]

    return make


@pytest.fixture(scope="module")
def learned(ball, tmp_path_factory) -> Path:
    """Folder of a finished run."""
    where = ["--volume", str(ball), "--basedir", str(tmp_path_factory.mktemp("learned"))]
    config = parser.parse(ShapeConfig, [*BASE, *LEARN, *where])[0]
    shape_train.train(config)
    return config.folder


def radii(vertices: np.ndarray) -> np.ndarray:
    """Distances from the center of the ball in units of its half axes."""
    return np.linalg.norm((vertices - [14, 18, 13]) / [11.6, 1.06 * 11.6, 0.9 * 11.6], axis=1)


def refusal(config) -> str:
    return contents.refusal(shape_train.train, config)


def test_a_ball_is_learned_and_its_mesh_stands_where_its_voxels_are_in_the_array(learned):
    metrics = json.loads((learned / "metrics.json").read_text())
    assert metrics["field"]["iou"] > 0.95
    assert metrics["steps"] == 40 * math.ceil(metrics["field"]["voxels"] / 2000)
    assert metrics["protocol"]["box"] == [23, 25, 21]
    assert [len(row) for row in metrics["curve"]] == [3] * len(metrics["curve"])
    assert metrics["curve"][-1][2] == pytest.approx(metrics["field"]["iou"])  # a small volume is measured as a whole
    vertices, _ = read.mesh(learned / "mesh.ply")
    assert abs(radii(vertices) - 1).max() < 0.15
    assert np.allclose(vertices.mean(0), [14, 18, 13], atol=0.3)


@pytest.mark.parametrize(
    "words", [["--volume_loss", "bce"], ["--encoding", "none", "--activation", "finer", "--lrate", "2e-3"]]
)
def test_other_losses_and_activations_learn_it_too(make, words):
    assert shape_train.train(make(*LEARN, *words))["field"]["iou"] > 0.9


EXPONENTIAL = ["--lrate_schedule", "exponential", "--lrate_end", "0.2"]


@pytest.mark.parametrize(
    "length",
    [["--N_iters", "14"], ["--epochs", "2", "--N_iters", "100"], ["--epochs", "2", "--N_iters", "99", *EXPONENTIAL]],
)
def test_a_resumed_run_is_the_run_in_one_go(make, length, monkeypatch):
    whole, parts = make(*length, "--no_final_eval"), make(*length, "--no_final_eval", "--expname", "parts")
    shape_train.train(whole)
    step, seen = voxels.batch, []

    def interrupted(*more):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return step(*more)

    with monkeypatch.context() as patch:
        patch.setattr(voxels, "batch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shape_train.train(parts)
    shape_train.train(parts)
    assert saved(whole.folder)["step"] == 14
    assert same(saved(whole.folder)["model"], saved(parts.folder)["model"])
    assert same(saved(whole.folder)["optimiser"], saved(parts.folder)["optimiser"])


def test_a_finished_run_is_not_measured_again_and_another_file_of_that_name_is_refused(
    make, ball, tmp_path, monkeypatch
):
    path = volumes.write(tmp_path, "it.npy", volumes.npy(volumes.ball()))
    config = make(path=path)
    shape_train.train(config)
    with monkeypatch.context() as patch:
        patch.setattr(shape_evaluate, "evaluate", lambda run: pytest.fail("measured again"))
        assert shape_train.train(config)["steps"] == 10
    volumes.write(tmp_path, "it.npy", volumes.npy(volumes.ball(10.0)))
    assert "it.npy" in refusal(config)
    moved = volumes.write(tmp_path, "moved.npy", volumes.npy(volumes.ball()))
    path.unlink()
    assert shape_train.train(make(path=moved))["steps"] == 10
    assert shape_evaluate.evaluate_folder(config.folder, "cpu", str(moved))["field"]["voxels"] == 12_075


def test_the_mesh_is_extracted_without_the_file_at_the_level_of_the_loss(learned, monkeypatch):
    monkeypatch.setattr(shape_setup, "load_target", lambda config: pytest.fail("read"))
    found = extract.mesh_of(learned, ExtractOptions(resolution=24, device="cpu"), None)
    assert abs(radii(found.vertices) - 1).max() < 0.15
    opened = open_run.open_run(learned, device="cpu")
    low, high = opened.mesh(24, box=[[0, 0, 0], [14, 40, 40]]).bounds
    assert high[0] == pytest.approx(14, abs=0.01)
    assert low[0] == pytest.approx(3, abs=0.01)  # the center of the first voxel


def test_a_probe_has_the_loss_of_training(learned):
    content = torch.load(sorted((learned / "checkpoints").glob("*.pt"))[-1], weights_only=True)
    probe = shape_probe.open_probe(content["config"], ProbeSettings("", 2000, 0, "", "cpu"))
    path = sorted((learned / "checkpoints").glob("*.pt"))[-1]
    run = shape_setup.open_run(learned, "cpu")
    points, labels = voxels.batch(run.target, 2000, 0, 0)
    expected = (run.field(points) - labels).square().mean().item()
    assert probe.at(path).objective.value() == pytest.approx(expected, rel=1e-4)


def test_the_report_and_the_viewer_show_the_mesh(learned, tmp_path):
    page = tmp_path / "report.html"
    cli_report.main([str(learned), "--out", str(page)])
    assert "shown alone: a volume has no reference mesh" in page.read_text(encoding="utf-8")
    shown = live_shapes.mesh_of(shape_setup.open_run(learned, "cpu"), 32)
    assert np.allclose(shown.vertices.mean(0), [14, 18, 13], atol=0.5)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--representation", "sdf"], "voxels have no distances"),
        (["--mesh", "a.ply"], "found --mesh and --volume, expected one of them"),
        (["--volume", "", "--mesh", "a.ply", "--epochs", "3"], "option --epochs: found 3 without --volume"),
        (["--volume", "", "--mesh", "a.ply", "--volume_loss", "bce"], "option --volume_loss: found bce without"),
    ],
)
def test_options_that_mean_nothing_are_one_sentence(make, words, sentence):
    assert sentence in contents.refusal(make, *words)


def test_a_volume_beyond_the_memory_is_refused_before_it_is_read(make, monkeypatch):
    monkeypatch.setattr(shape_setup, "load_target", lambda config: pytest.fail("read"))
    monkeypatch.setattr(files, "available_memory", lambda: 3 << 20)
    big = make("--N_points", "1", "--netwidth", "2", "--epochs", "0")
    monkeypatch.setattr("enerf.geometry.volume_files.announced_bytes", lambda path: 4 << 20)
    assert "option --volume: found values that need 4.0 MiB" in refusal(big)


@pytest.mark.data
@pytest.mark.slow
def test_a_volume_of_the_papers_is_learned(tmp_path):
    path = Path(os.environ.get("ENERF_DATA", "")) / "volumes" / "dragon.mat.zip"
    if "ENERF_DATA" not in os.environ or not path.is_file():
        pytest.skip("ENERF_DATA names no folder with volumes/dragon.mat.zip")
    words = ["--config", "shape_volume.txt", "--volume", str(path), "--basedir", str(tmp_path), "--N_iters", "200"]
    words += ["--N_points", "20000", "--netwidth", "64", "--i_eval", "0", "--resolution", "0"]
    assert shape_train.train(parser.parse(ShapeConfig, words)[0])["field"]["iou"] > 0.8
