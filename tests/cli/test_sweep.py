"""``enerf sweep`` and ``enerf status`` as they are typed."""

import json

import pytest

from enerf.cli import status, sweep
from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from tests.experiments.sweeps import TINY


def words(scene, folder):
    options = {**TINY, "datadir": scene, "basedir": folder, "expname": "s", "N_iters": 2}
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    top = tmp_path_factory.mktemp("data")
    for i, name in enumerate(("toy", "other")):
        synthetic.write_scene(top / name, views=5, width=16, height=12, supersample=1, progress=False, seed=i)
    return top


def test_a_sweep_over_two_scenes_and_its_state(scenes, tmp_path, capsys):
    argv = ["nerf", *words(scenes / "toy", tmp_path), "--scenes", "toy,other", "--methods", "plain,he"]
    sweep.command([*argv, "--executor", "serial"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split()[-3:] == ["toy", "other", "mean"]
    assert printed[-2:] == [str(tmp_path / "s" / name) for name in sweep.WRITTEN]
    assert {path.parent.name for path in (tmp_path / "s").glob("*/comparison.md")} == {"toy", "other"}
    status.main([str(tmp_path), "--json"])
    runs = json.loads(capsys.readouterr().out)
    assert [(run["state"], run["step"]) for run in runs] == [("finished", 2)] * 4
    status.main([str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[-1] == "4 runs: 4 finished"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "found nothing as the task, expected one of nerf, shape, classifier"),
        (["nerf", "--executor", "local", "--scenes", "none"], "option --scenes: found 'none', expected a path"),
        (
            ["nerf", "--executor", "cloud"],
            "option --executor: found 'cloud', expected one of auto, serial",
        ),
        (["nerf", "--methods", "plain,unknown"], "option --methods: found 'unknown'"),
    ],
)
def test_wrong_words_are_one_sentence(scenes, tmp_path, argv, told):
    with pytest.raises(InputError, match="found") as refusal:
        sweep.command([*argv, *(words(scenes / "toy", tmp_path) if argv else [])])
    assert told in str(refusal.value)


@pytest.mark.parametrize("seconds", ["-1", "0", "1e300", "x"])
def test_odd_times_between_lists_are_refused(tmp_path, seconds):
    with pytest.raises(InputError, match=r"--watch: found"):
        status.main([str(tmp_path), "--watch", seconds])


def test_the_state_of_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(InputError, match="does not exist, expected a folder with training runs"):
        status.main([str(tmp_path / "none")])
