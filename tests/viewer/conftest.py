"""Runs of a few steps on the generated scene, for the viewer."""

import pytest

from enerf.config import parser
from enerf.datasets.scenes import synthetic
from enerf.tasks.nerf import train
from enerf.tasks.nerf.config import NerfConfig

SMALL = [
    *("--config", "demo.txt", "--hash_levels", "4", "--hash_log2_entries", "10", "--netwidth_fine", "16"),
    *("--N_rand", "256", "--i_print", "1", "--i_eval", "0", "--device", "cpu", "--no_final_eval", "--no_pose_check"),
]


@pytest.fixture(scope="session")
def viewed_scene(tmp_path_factory):
    """Folder of a generated scene."""
    folder = tmp_path_factory.mktemp("viewed") / "toy"
    synthetic.write_scene(folder, views=6, width=48, height=36, supersample=1, progress=False)
    return folder


@pytest.fixture(scope="session")
def words(viewed_scene):
    """Options of a run of the scene."""
    return [*SMALL, "--datadir", str(viewed_scene), "--basedir", str(viewed_scene.parent / "logs")]


@pytest.fixture(scope="session")
def runs(words, viewed_scene):
    """Folders of two runs: in NDC, and without, whose scene coordinates differ."""
    for name, more in (("one", ["--N_iters", "60"]), ("two", ["--N_iters", "20", "--no_ndc", "--spherify"])):
        train.train(parser.parse(NerfConfig, [*words, "--expname", name, *more])[0])
    return [viewed_scene.parent / "logs" / name for name in ("one", "two")]
