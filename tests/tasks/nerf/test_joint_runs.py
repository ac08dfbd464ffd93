"""Tests of runs of several processes on a generated scene: they equal a run of one process, and end together."""

import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from enerf.datasets.scenes import synthetic
from enerf.engine import checkpoint, journal
from tests import processes
from tests.contents import same

TRAIN = "enerf.cli.main:enter"
SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --use_viewdirs --N_samples 8 --N_importance 8"
RATES = "--lrate 5e-3 --lrate_decay 1 --N_rand 32 --eval_rays 20 --raw_noise_std 1"
OFTEN = "--i_print 2 --i_spectrum 0 --i_testset 3 --i_video 0 --i_img 3 --i_eval 3 --i_weights 0"
WORDS = f"train {SMALL} {RATES} {OFTEN} --factor 1 --llffhold 3 --device cpu --backend torch --precision fp32".split()
FOREVER = ["--N_iters", "1000000", "--i_eval", "0", "--i_testset", "0", "--i_img", "0", "--no_final_eval"]
CLOSE = 2e-5


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toy"
    return synthetic.write_scene(folder, views=6, width=16, height=12, supersample=1, progress=False)


@pytest.fixture(scope="module")
def words(scene, tmp_path_factory):
    """The command line of a run, by its name and further words; all runs are in one folder."""
    logs = tmp_path_factory.mktemp("runs")
    return lambda name, *more: [*WORDS, "--datadir", str(scene), "--basedir", str(logs), "--expname", name, *more]


def _folder(words: list[str]) -> Path:
    given = dict(pairwise(words))
    return Path(given["--basedir"]) / given["--expname"]


def _run(words: list[str], size: int) -> processes.Processes:
    return processes.run(TRAIN, [words] * size, _folder(words).with_name(f"{_folder(words).name}_{size}_output"))


@pytest.fixture(scope="module")
def alone(words) -> Path:
    """A run of six steps in one process."""
    run = _run(words("alone", "--N_iters", "6"), 1)
    assert run.codes == [0], run.output()
    return _folder(words("alone"))


@pytest.fixture(scope="module")
def joint(words) -> Path:
    """The same run in two processes."""
    run = _run(words("joint", "--N_iters", "6"), 2)
    assert run.codes == [0, 0], run.output(0) + run.output(1)
    assert run.output(1) == ""
    return _folder(words("joint"))


def _weights(folder: Path) -> torch.Tensor:
    content, _ = checkpoint.newest(folder, ["nerf"])
    return torch.cat([value.double().flatten() for value in content["model"].values()])


def _require_close(folder: Path, expected: Path) -> None:
    found, wanted = _weights(folder), _weights(expected)
    assert float((found - wanted).norm()) <= CLOSE * float(wanted.norm())


def test_the_weights_equal_those_of_one_process_to_rounding(alone, joint):
    _require_close(joint, alone)


def test_one_process_writes_the_same_files_as_a_run_of_one(alone, joint):
    named = [{p.relative_to(f) for p in f.rglob("*") if "tfevents" not in p.name} for f in (alone, joint)]
    assert named[0] == named[1]
    assert len(list(joint.rglob("*tfevents*"))) == 1


def test_the_journal_has_the_means_of_the_joint_batch(alone, joint):
    texts = [(folder / "train.jsonl").read_text().splitlines() for folder in (alone, joint)]
    rows = [[json.loads(line) for line in text] for text in texts]
    for one, two in zip(*rows, strict=True):
        assert one.keys() == two.keys()
        numbers = [
            {name: value for name, value in journal.flat(row).items() if value is not None and "second" not in name}
            for row in (one, two)
        ]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


def test_resuming_with_another_number_of_processes_equals_the_whole_run(words, alone):
    for size, steps in ((2, 2), (1, 3), (3, 6)):
        run = _run(words("resumed", "--N_iters", str(steps), "--no_final_eval"), size)
        assert run.codes == [0] * size, run.output()
    _require_close(_folder(words("resumed")), alone)


@pytest.mark.slow
def test_refined_poses_of_changing_numbers_of_processes_equal_those_of_one(words):
    refine = ["--refine_poses", "--coarse_to_fine", "2", "--N_iters", "6", "--no_final_eval"]
    one = _run(words("refined", *refine), 1)
    assert one.codes == [0], one.output()
    for size, steps in ((2, 2), (1, 4), (2, 6)):
        run = _run(words("refined_jointly", *refine, "--N_iters", str(steps)), size)
        assert run.codes == [0] * size, run.output()
    _require_close(_folder(words("refined_jointly")), _folder(words("refined")))
    content, _ = checkpoint.newest(_folder(words("refined")), ["nerf"])
    assert float(content["model"]["poses.values"].abs().sum()) > 0


def test_a_checkpoint_of_several_processes_is_like_that_of_one(alone, joint):
    contents = [checkpoint.newest(folder, ["nerf"])[0] for folder in (alone, joint)]
    assert contents[0].keys() == contents[1].keys()
    different = {name for name in contents[0]["config"] if not same(*(each["config"][name] for each in contents))}
    assert different <= {"expname"}


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (["--lrate", "1e-3"], "option --lrate: process 0 found 0.005 and process 1 0.001, expected the same options"),
        (["--datadir", "another scene"], "files of the data: process 0 found "),
        (["--N_rand", "1"], "option --N_rand: process 0 found 32 and process 1 1, expected the same options"),
    ],
)
def test_processes_with_other_options_or_data_are_refused_in_one_sentence(words, tmp_path, second, message):
    if "another scene" in second:
        other = synthetic.write_scene(tmp_path / "toy", views=6, width=16, height=12, supersample=2, progress=False)
        second = ["--datadir", str(other)]
    first = words("refused", "--N_iters", "2")
    run = processes.run(TRAIN, [first, [*first, *second]], tmp_path / "out")
    assert run.codes == [2, 2]
    errors = [line for line in run.output().split("\n") if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {message}")
    assert "Traceback" not in run.output() + run.output(1)
    assert not list(_folder(first).rglob("*.pt"))


def test_more_processes_than_rays_are_refused(words):
    run = _run(words("many", "--N_iters", "2", "--N_rand", "1"), 2)
    assert run.codes == [2, 2]
    assert run.output().endswith("error: option --N_rand: found 1, expected at least 1 for each of the 2 processes")


def _started(words: list[str], size: int) -> processes.Processes:
    """Processes that train for ever, once they have taken some steps."""
    run = processes.start(TRAIN, [words] * size, _folder(words).with_name(f"{_folder(words).name}_output"))
    until = time.monotonic() + processes.SECONDS
    journal = _folder(words) / "train.jsonl"
    while time.monotonic() < until and not (journal.is_file() and journal.stat().st_size):
        assert all(each.is_alive() for each in run.made), run.output()
        time.sleep(0.05)
    return run


@pytest.mark.parametrize("victim", [0, 1])
def test_if_a_process_dies_the_others_save_the_last_whole_step_and_say_so_in_one_sentence(words, victim):
    chosen = words(f"killed{victim}", *FOREVER)
    run = _started(chosen, 2)
    os.kill(run.made[victim].pid, signal.SIGKILL)
    run.wait()
    assert run.codes[1 - victim] == 4
    (saved,) = checkpoint.checkpoints(_folder(chosen))
    said = run.output(1 - victim).split("\n")[-1]
    assert said == (f"error: training stopped: one of the 2 processes has ended; the state before it is saved: {saved}")
    assert checkpoint.read(saved)["step"] == int(saved.stem)
    resumed = _run([*chosen, "--N_iters", str(int(saved.stem) + 1)], 1)
    assert resumed.codes == [0], resumed.output()


def test_a_signal_to_one_process_ends_all_after_the_same_step(words):
    chosen = words("stopped", *FOREVER)
    run = _started(chosen, 2)
    os.kill(run.made[1].pid, signal.SIGTERM)
    run.wait()
    assert run.codes == [130, 130]
    assert len(checkpoint.checkpoints(_folder(chosen))) == 1
    assert run.output().split("\n")[-1] == "interrupted"
    assert run.output(1) == ""
