"""Tests of shape and classifier runs of several processes, and of evaluations by several: they equal those of one."""

import filecmp
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from enerf.engine import checkpoint, journal
from tests import processes
from tests.tasks import config_steps

TRAIN = "enerf.cli.main:enter"
OFTEN = ["--N_iters", "4", "--i_print", "2", "--i_spectrum", "0", "--i_weights", "0", "--i_eval", "2"]
SHAPE = ["--N_points", "128", "--pool", "512", "--background", "none", "--hash_finest", "24", "--resolution", "24"]
CLASSIFIER = ["--model", "densenet", "--depth", "10", "--width", "0.5", "--N_batch", "10", "--augment", "shift_flip"]
NERF = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_samples 8 --N_importance 8 --N_rand 32"
NORMALIZED = ["--conditioning", "batch_norm", "--netwidth", "16", "--resolution", "0", "--N_points"]
RUNS = {
    "shape": ["shape", "--mesh", "plate.ply", *SHAPE, "--netwidth", "16"],
    "volume": ["shape", "--volume", "ball.npy", *NORMALIZED],
    "classifier": ["classify", "--images", "cifar", *CLASSIFIER],
}
CLOSE = 2e-4  # of weights after some steps; Adam divides small gradients by their size


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    config_steps.write_data(folder)
    return folder


def _run(words: list[str], size: int, folder: Path) -> processes.Processes:
    run = processes.run(TRAIN, [words] * size, folder / f"output{size}")
    assert run.codes == [0] * size, "\n".join(map(run.output, range(size)))
    assert all(run.output(rank) == "" for rank in range(1, size))
    return run


def _weights(folder: Path) -> torch.Tensor:
    content, _ = checkpoint.newest(folder, ["shape", "classifier"])
    return torch.cat([value.double().flatten() for value in content["model"].values()])


@pytest.mark.parametrize("kind", RUNS)
def test_two_processes_train_to_the_weights_of_one(data, tmp_path, kind):
    words = [str(data / word) if (data / word).exists() else word for word in RUNS[kind]]
    words += [str(np.load(data / "ball.npy").size - 3)] if kind == "volume" else []  # three in the second step
    words += [*OFTEN, "--device", "cpu", "--precision", "fp32", "--basedir", str(tmp_path), "--expname"]
    for size in (1, 2):
        _run([*words, f"run{size}"], size, tmp_path / kind)
    one, two = (_weights(tmp_path / f"run{size}") for size in (1, 2))
    if kind != "volume":  # biases before a batch normalization have no gradient but rounding, whose signs Adam takes
        assert float((one - two).norm()) <= CLOSE * float(one.norm())
    names = [
        {path.name for path in (tmp_path / f"run{size}").rglob("*") if "tfevents" not in path.name} for size in (1, 2)
    ]
    assert names[0] == names[1]
    found = [json.loads((tmp_path / f"run{size}" / "metrics.json").read_text()) for size in (1, 2)]
    for one, two in zip(*map(_measured, found), strict=True):
        assert one == pytest.approx(two, rel=2e-3, abs=2e-4)


def _measured(metrics: dict) -> list:
    """Steps and scores of the curve, and all other figures that are no times."""
    curve = [value for step, _, *scores in metrics["curve"] for value in (step, *scores)]
    figures = sorted(journal.flat({k: v for k, v in metrics.items() if k != "curve"}).items())
    is_time = re.compile(r"seconds|_per_second|_ms$")
    return [*curve, *(v for name, v in figures if isinstance(v, int | float) and not is_time.search(name))]


def test_processes_that_open_different_checkpoints_are_refused(data, tmp_path):
    words = ["--datadir", str(data / "forward"), "--basedir", str(tmp_path), "--factor", "1", "--i_eval", "0"]
    for steps in ("2", "3"):
        more = ["--N_iters", steps, "--no_final_eval", "--device", "cpu", "--expname", f"run{steps}"]
        _run(["train", *NERF.split(), *words, *more], 1, tmp_path / "train")
    (newest,) = (tmp_path / "run3" / "checkpoints").glob("*.pt")
    commands = []
    for steps in ("2", "3"):  # the same run, as two processes find it while it is trained
        folder = Path(shutil.copytree(tmp_path / "run2", tmp_path / steps / "run"))
        commands.append(["eval", str(folder), "--device", "cpu"])
    shutil.copy(newest, folder / "checkpoints")
    run = processes.run(TRAIN, commands, tmp_path / "eval")
    assert run.codes == [2, 2]
    assert run.output().endswith("expected the same options, data and checkpoints for all processes of a run")
    assert not (tmp_path / "2" / "run" / "metrics.json").exists()


@pytest.mark.parametrize("kind", ["shape", "classifier"])
def test_if_the_first_process_dies_another_saves_the_state_with_its_curve(data, tmp_path, kind):
    """The classifier has batch normalization: its processes exchange statistics within a step."""
    words = [str(data / word) if (data / word).exists() else word for word in RUNS[kind]]
    words += [*OFTEN, "--N_iters", "1000000", "--device", "cpu", "--precision", "fp32", "--i_eval", "2"]
    words += ["--basedir", str(tmp_path), "--expname", "run"]
    run = processes.start(TRAIN, [words] * 2, tmp_path / kind)
    journal, until = tmp_path / "run" / "train.jsonl", time.monotonic() + processes.SECONDS
    while time.monotonic() < until and not (journal.is_file() and len(journal.read_text().splitlines()) > 3):
        assert all(each.is_alive() for each in run.made), run.output() + run.output(1)
        time.sleep(0.05)
    os.kill(run.made[0].pid, signal.SIGKILL)
    assert run.wait().codes == [-signal.SIGKILL, 4], run.output(1)
    content, path = checkpoint.newest(tmp_path / "run", ["shape", "classifier"])
    assert content["curve"]
    assert run.output(1).endswith(
        f"error: training stopped: one of the 2 processes has ended; the state before it is saved: {path}"
    )


def test_two_processes_evaluate_and_render_what_one_does_bit_for_bit(data, tmp_path):
    run = ["--datadir", str(data / "forward"), "--basedir", str(tmp_path), "--expname", "run", "--factor", "1"]
    short = ["--N_iters", "2", "--i_eval", "0", "--no_final_eval", "--device", "cpu"]
    _run(["train", *NERF.split(), *run, *short], 1, tmp_path / "train")
    folder, found = tmp_path / "run", []
    for size in (1, 2):
        _run(["eval", str(folder), "--device", "cpu"], size, tmp_path / "eval")
        metrics = json.loads((folder / "metrics.json").read_text())
        pictures = {p.name: Image.open(p).tobytes() for p in sorted((folder / "test" / "final").iterdir())}
        out = tmp_path / f"video{size}.mp4"
        words = ["render", str(folder), "--frames", "5", "--factor", "1", "--png", "--out", str(out), "--device", "cpu"]
        _run(words, size, tmp_path / "render")
        found.append(({k: v for k, v in metrics.items() if k != "seconds"}, pictures))
    assert found[0] == found[1]
    frames = [sorted((tmp_path / f"video{size}_frames").glob("*.png")) for size in (1, 2)]
    assert len(frames[0]) == 5
    assert all(filecmp.cmp(a, b, shallow=False) for a, b in zip(*frames, strict=True))
    assert filecmp.cmp(tmp_path / "video1.mp4", tmp_path / "video2.mp4", shallow=False)


def test_commands_that_work_alone_refuse_several_processes(data, tmp_path):
    run = processes.run(TRAIN, [["compare", "nerf", "--datadir", str(data / "forward")]] * 2, tmp_path)
    assert run.codes == [2, 2]
    assert run.output() == "error: command compare: found 2 processes of torchrun, expected one"
    assert run.output(1) == ""
