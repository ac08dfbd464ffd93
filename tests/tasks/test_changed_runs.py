"""A run started again with other options or other files is refused, and its results stay as they were."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from enerf.cli import evaluate
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.engine import checkpoint, resume, writer_lock
from enerf.experiments import compare
from enerf.experiments.options import CompareOptions
from enerf.tasks import registry
from enerf.tasks.nerf import video
from tests.contents import refusal

COMMON = {
    "device": "cpu",
    "precision": "fp32",
    "i_eval": 0,
    "i_spectrum": 0,
    "i_print": 1,
    "N_iters": 4,
    "expname": "run",
}
TINY = {
    "nerf": {
        **{"factor": 1, "llffhold": 3, "netwidth": 8, "netdepth": 2, "N_rand": 16, "N_samples": 4, "i_img": 0},
        **{"backend": "torch", "final_pixels": True, "eval_rays": 8},
    },
    "shape": {
        **{"netwidth": 8, "hash_levels": 2, "hash_log2_entries": 6, "N_points": 64, "pool": 64, "background": "none"},
        **{"backend": "torch", "resolution": 0, "lrate_schedule": "decay"},
    },
    "classifier": {"model": "densenet", "depth": 10, "width": 4, "N_batch": 4, "augment": "none"},
}
# Changes of options: for each task one that affects the training, one that affects the data, and one by another name.
CHANGES = {
    "nerf": [{"lrate": 0.05}, {"llffhold": 2}, {"seed": 5, "init": "he"}, {"precision": "bf16"}],
    "shape": [{"lrate": 0.05}, {"representation": "sdf"}, {"seed": 5}, {"margin": 0.3}],
    "classifier": [{"lrate": 0.5}, {"augment": "cifar"}, {"seed": 5}, {"train_images": 12}],
}
KINDS = pytest.mark.parametrize("kind", TINY)


def write_data(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write data of one name; the seed changes their content only."""
    if kind == "nerf":
        synthetic.write_scene(folder / "scene", views=5, width=16, height=12, supersample=1, progress=False)
        if seed:
            path = sorted((folder / "scene" / "images").iterdir())[0]
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
        return folder / "scene"
    if kind == "shape":
        made = trimesh.creation.box((1, 2, 3)) if seed else trimesh.creation.icosphere(1)
        made.export(folder / "mesh.obj")
        return folder / "mesh.obj"
    rng = np.random.default_rng(seed)
    for path in (folder / "images" / split / name for split in ("train", "test") for name in ("a", "b")):
        path.mkdir(parents=True)
        for i in range(8):
            Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path / f"{i}.png")
    return folder / "images"


OPTION = {"nerf": "datadir", "shape": "mesh", "classifier": "images"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Function from a task to the folder of its data and of a finished run ``logs/run``, made once."""
    made: dict[str, Path] = {}

    def finish(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            write_data(kind, folder)
            train(config_of(kind, folder))
            made[kind] = folder
        return made[kind]

    return finish


@pytest.fixture
def copy(finished, tmp_path):
    def copied(kind: str) -> Path:
        return shutil.copytree(finished(kind), tmp_path / "copy", symlinks=True)

    return copied


def config_of(kind: str, folder: Path, **changes):
    data = next(path for path in sorted(folder.iterdir()) if path.name != "logs")
    values = {**COMMON, **TINY[kind], "basedir": str(folder / "logs"), OPTION[kind]: str(data), **changes}
    return parser.from_dict(registry.task(kind).load("config"), values)


def train(config):
    return registry.task(config.kind).load("train")(config)


def state_of(folder: Path) -> dict[str, bytes]:
    """All files of a run but TensorBoard's."""
    return {
        p.name: p.read_bytes() for p in (folder / "logs" / "run").rglob("*") if p.is_file() and "events" not in p.name
    }


@KINDS
def test_a_finished_run_with_other_options_is_refused_and_stays_as_it_was(kind, copy):
    folder = copy(kind)
    train(config_of(kind, folder))  # the data are in another folder: classifiers are measured again
    before = state_of(folder)
    for change in CHANGES[kind]:
        told = refusal(train, config_of(kind, folder, **change))
        assert all(f"{name} (saved " in told for name in change)
        assert (
            "expected the same, another --expname, --resume_with_changes (the change is recorded), or --no_reload"
            in told
        )
        told = refusal(train, config_of(kind, folder, **change, resume_with_changes=True))
        assert "found no step left to train (step 4 of --N_iters 4)" in told
        assert state_of(folder) == before
    train(config_of(kind, folder))
    assert state_of(folder) == before


@KINDS
def test_ordinary_continuation_is_easy_and_figures_carry_the_options_of_their_steps(kind, copy):
    folder = copy(kind)
    before = json.loads((folder / "logs" / "run" / "metrics.json").read_text())
    assert before["options"]["N_iters"] == 4
    assert "history" not in before
    moved = shutil.move(folder, folder.with_name("moved"))  # the same files elsewhere
    metrics = train(config_of(kind, Path(moved), N_iters=6, i_print=2))
    assert (metrics["steps"], metrics["options"]["N_iters"]) == (6, 6)
    assert "history" not in metrics  # neither a longer run nor another place of the same data is a change
    assert metrics["inputs"]["digest"] == before["inputs"]["digest"]
    content, _ = checkpoint.newest(Path(moved) / "logs" / "run", [kind])
    assert "history" not in content["config"]
    assert content["config"]["N_iters"] == 6
    assert content["config"]["lrate"] == before["options"]["lrate"]


@KINDS
def test_a_change_that_is_asked_for_is_recorded_step_by_step(kind, copy):
    folder, lrate = copy(kind), 0.02
    for n, change in ((6, lrate), (8, lrate / 2)):
        metrics = train(config_of(kind, folder, N_iters=n, lrate=change, resume_with_changes=True))
    changes = [(entry["step"], entry["options"]["lrate"][1]) for entry in metrics["history"]]
    assert changes == [(4, lrate), (6, lrate / 2)]
    text = (folder / "logs" / "run" / "config.txt").read_text()
    assert f"# step 6: lrate was {lrate}, then {lrate / 2}\n" in text
    assert "resume_with_changes = False\n" in text
    again = parser.read_text(type(config_of(kind, folder)), folder / "logs" / "run" / "config.txt")
    assert again.train.lrate == lrate / 2


@KINDS
def test_other_files_of_the_same_name_are_found_out(kind, copy, caplog):
    folder = copy(kind)
    before, data = state_of(folder), config_of(kind, folder)
    path = Path(parser.to_dict(data)[OPTION[kind]])
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError):
        train(data)
    write_data(kind, folder, seed=1)
    told = refusal(train, data)
    assert f"files of {OPTION[kind]}: its files are not those that the run was trained on (" in told
    assert " changed" in told
    assert state_of(folder) == before
    evaluated = registry.task(kind).load("evaluate")(folder / "logs" / "run", "cpu", str(path))
    assert "changed" in evaluated["eval_files"]
    assert any(line.startswith(f"--{OPTION[kind]}: its files are not those") for line in caplog.messages)
    metrics = train(config_of(kind, folder, N_iters=6, resume_with_changes=True))
    assert "changed" in metrics["history"][0]["files"]


def test_a_comparison_does_not_believe_an_edited_config_and_sees_a_replaced_mesh(tmp_path):
    write_data("shape", tmp_path)
    base = config_of("shape", tmp_path, expname="cmp")
    chosen = CompareOptions(methods="plain", seeds="0")
    compare.compare(base, chosen)
    variant = tmp_path / "logs" / "cmp" / "plain_seed0"
    before = (variant / "metrics.json").read_bytes()
    text = (variant / "config.txt").read_text()
    (variant / "config.txt").write_text(text.replace("lrate = ", "lrate = 0.0", 1))
    other = config_of("shape", tmp_path, expname="cmp", lrate=0.07)
    assert "lrate (saved" in refusal(compare.compare, other, chosen)
    compare.compare(base, chosen)
    assert (variant / "metrics.json").read_bytes() == before
    write_data("shape", tmp_path, seed=1)
    assert "not those that the run was trained on (mesh.obj changed)" in refusal(compare.compare, base, chosen)


def test_a_comparison_without_reload_is_trained_again(tmp_path, caplog):
    write_data("shape", tmp_path)
    base, chosen = (
        config_of("shape", tmp_path, expname="cmp", no_reload=True),
        CompareOptions(methods="plain", seeds="0"),
    )
    for _ in range(2):
        compare.compare(base, chosen)
    variant = tmp_path / "logs" / "cmp" / "plain_seed0"
    assert sorted(path.name for path in variant.glob("metrics.json*")) == ["metrics.json", "metrics.json.1"]


def test_a_mesh_that_is_learned_as_a_point_cloud_of_the_same_file_is_another_run(copy):
    folder = copy("shape")
    before = state_of(folder)
    changed = config_of("shape", folder, mesh="", cloud=str(folder / "mesh.obj"))
    assert "cloud (saved empty, requested " in refusal(train, changed)
    assert state_of(folder) == before


def test_files_beside_the_classes_of_images_are_no_part_of_the_data(copy):
    folder = copy("classifier")
    config = config_of("classifier", folder, basedir=str(folder / "images" / "logs"))
    train(config)
    (folder / "images" / "notes.txt").write_text("seen")
    assert train(parser.replace(config, N_iters=5))["steps"] == 5
    shutil.copy(folder / "images/train/a/0.png", folder / "images/train/a/new.png")
    assert "train/a/new.png new" in refusal(train, parser.replace(config, N_iters=6))


def test_what_are_no_metrics_is_one_sentence(copy):
    folder = copy("shape")
    (folder / "logs" / "run" / "metrics.json").write_text('{"steps": 4}')
    assert "expected the metrics of a run" in refusal(resume.finished_metrics, config_of("shape", folder))


def test_a_run_is_rendered_with_other_options_while_another_process_trains_it(copy, monkeypatch):
    folder = copy("nerf")
    monkeypatch.setattr(video, "FRAMES", 1)
    with writer_lock.writing(folder / "logs" / "run"):
        assert train(config_of("nerf", folder, render_only=True, render_factor=4, N_samples=8)) is None
        assert "writes to it" in refusal(train, config_of("nerf", folder))
    assert (folder / "logs/run/renderonly_path_000004/video.mp4").is_file()


def test_evaluating_an_earlier_checkpoint_does_not_replace_the_metrics_of_a_later_one(copy):
    folder = copy("shape") / "logs" / "run"
    newest = checkpoint.checkpoints(folder)[-1]
    content = checkpoint.read(newest)
    newest.with_name("000002.pt").write_bytes(newest.read_bytes())
    newest.write_bytes(b"")
    torch.save({**content, "step": 2}, newest.with_name("000002.pt"))
    before = (folder / "metrics.json").read_bytes()
    told = refusal(evaluate.main, [str(folder), "--device", "cpu"])
    assert "found metrics of step 4, but the newest checkpoint that can be read is of step 2" in told
    assert (folder / "metrics.json").read_bytes() == before


def test_stored_metrics_are_printed_without_those_of_unfinished_runs(copy, capsys, caplog):
    folder = copy("shape") / "logs"
    shutil.copytree(folder / "run", folder / "unfinished")
    (folder / "unfinished" / "metrics.json").unlink()
    evaluate.main([str(folder), "--stored"])
    assert "mesh" in capsys.readouterr().out
    assert caplog.messages == [f"{folder / 'unfinished'}: found no metrics.json, the run is left out"]


def test_meshes_of_one_name_and_several_formats_are_different_shapes(tmp_path):
    (tmp_path / "meshes").mkdir()
    trimesh.creation.icosphere(1).export(tmp_path / "meshes" / "a.obj")
    trimesh.creation.box((1, 2, 3)).export(tmp_path / "meshes" / "a.stl")
    config = parser.replace(config_of("shape", tmp_path, expname="both"), mesh=str(tmp_path / "meshes"))
    measured = registry.task("shape").load("train_all")(config)
    assert [run["shape"] for run in measured] == ["a.obj", "a.stl"]
