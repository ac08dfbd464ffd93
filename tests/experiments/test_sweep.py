"""Sweeps over scenes: their names, their table, and what is missing in it."""

import json

import pytest

from enerf.core.errors import InputError, NotFinite, SomeFailed
from enerf.engine import writer_lock
from enerf.experiments import sweep, variants
from enerf.experiments.options import CompareOptions, ExecutorOptions, SweepOptions
from enerf.experiments.run_queue import Failure, Results
from enerf.fields.backends.registry import Resolved
from tests.experiments.sweeps import config


@pytest.fixture
def base(tmp_path):
    for name in ("fern", "flower"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return config(tmp_path / "data" / "fern", tmp_path / "logs")


def test_scenes_are_names_beside_the_configurations_data_or_paths(base, tmp_path):
    (tmp_path / "elsewhere" / "room").mkdir(parents=True)
    found = sweep.scenes_of(base, f"fern, flower,{tmp_path / 'elsewhere' / 'room'}")
    assert [(scene, c.data.datadir) for scene, c in found.items()] == [
        ("fern", str(tmp_path / "data" / "fern")),
        ("flower", str(tmp_path / "data" / "flower")),
        ("room", str(tmp_path / "elsewhere" / "room")),
    ]
    assert {c.folder for c in found.values()} == {tmp_path / "logs/sweep" / name for name in found}
    assert sweep.scenes_of(base, " ") == {"": base}


@pytest.mark.parametrize(("text", "told"), [("fern,rom", "found 'rom', expected a path"), ("fern,fern", "fern twice")])
def test_wrong_scenes_are_refused_with_what_there_is(base, text, told):
    with pytest.raises(InputError, match="option --scenes") as refusal:
        sweep.scenes_of(base, text)
    assert told in str(refusal.value)
    assert "flower" in str(refusal.value) or "twice" in told


def results_of(base, scores, failed=(), code=3):
    planned = variants.plan(sweep.scenes_of(base, "fern,flower"), CompareOptions(methods="plain,he", seeds="0,1"))
    results = Results(planned)
    for variant in planned:
        key = (variant.scene, variant.name, variant.seed)
        if key in scores:
            results.metrics[variant] = {"mean": {"psnr": scores[key]}, "collapsed": False, "constant_psnr": 12.0}
        if key in failed:
            results.failed[variant] = Failure(code, "the loss is not finite")
    return results


def test_the_table_has_means_of_complete_scenes_and_counts_of_others(base):
    scores = {("fern", "plain", 0): 20.0, ("fern", "plain", 1): 22.0, ("flower", "plain", 0): 25.0}
    scores |= {("flower", "plain", 1): 25.0, ("fern", "he", 0): 21.0}
    results = results_of(base, scores, {("fern", "he", 1)})
    assert sweep.table(results) == [
        ["test PSNR [dB]", "fern", "flower", "mean"],
        ["plain", "21.00 ± 1.41", "25.00 ± 0.00", "23.00"],
        ["he", "21.00 (1 of 2)", "(0 of 2)", ""],
    ]
    assert sweep.missing(results) == [
        "flower/he, seed 0: waiting",
        "fern/he, seed 1: diverged: the loss is not finite",
        "flower/he, seed 1: waiting",
    ]
    assert "Missing:" in sweep.as_markdown(results)
    assert "missing:" not in sweep.as_text(results_of(base, dict.fromkeys([(s, m, i) for s in ("fern", "flower")
                                              for m in ("plain", "he") for i in (0, 1)], 20.0)))  # fmt: skip


def test_the_table_counts_runs_that_learned_nothing(base):
    scores = dict.fromkeys([(s, m, i) for s in ("fern", "flower") for m in ("plain", "he") for i in (0, 1)], 20.0)
    results = results_of(base, scores)
    for variant, metrics in results.metrics.items():
        metrics["collapsed"] = variant.label == "fern/he, seed 1"
        metrics["mean"]["psnr"] = 12.8 if variant.label == "fern/plain, seed 0" else 20.0
    assert sweep.table(results)[1:] == [
        ["plain", "16.40 ± 5.09 (1 learned nothing)", "20.00 ± 0.00", "18.20"],
        ["he", "20.00 ± 0.00 (1 learned nothing)", "20.00 ± 0.00", "20.00"],
    ]


def test_names_of_files_prefer_the_suffix_of_the_configurations_data(base, tmp_path):
    data = tmp_path / "data"
    for name in ("bunny.obj", "bunny.mtl", "dragon.ply", "dragon.stl", "two.ply"):
        (data / name).touch()
    own = (data, ".obj")
    assert sweep._path_of("bunny", *own) == data / "bunny.obj"
    assert sweep._path_of("two", *own) == data / "two.ply"
    for word in ("dragon", "*", str(data / "none"), "**"):
        with pytest.raises(InputError, match="option --scenes: found"):
            sweep._path_of(word, *own)


def test_a_folder_that_is_no_scene_is_refused_before_any_run_begins(base):
    with pytest.raises(InputError, match="fern is no scene"):
        sweep.sweep(base, SweepOptions(methods="plain"), ExecutorOptions())
    assert not list(base.folder.glob("*/output.log"))


def test_gpus_of_a_cluster_that_are_not_here_need_a_backend_by_name(base, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    far = config(base.data.datadir, base.run.basedir, device="cuda", backend="auto")
    how = ExecutorOptions(executor="slurm")
    with pytest.raises(InputError, match=r"option --backend: found auto, expected a name"):
        sweep.sweep(far, SweepOptions(methods="plain"), how)
    named = config(base.data.datadir, base.run.basedir, device="cuda", backend="triton", precision="bf16")
    found = sweep._backend_elsewhere(named, how, variants.plan({"": named}, CompareOptions(methods="plain")))
    assert found == Resolved("triton", "bf16")  # which this computer could not use itself
    assert variants.shared_backend(named, [named], found) == found
    assert not Resolved("triton", "bf16", "cuda").differs(found)


def test_failures_but_losses_that_are_not_finite_beside_results_are_errors(base):
    sweep.require_success(results_of(base, {}))
    sweep.require_success(results_of(base, {("fern", "plain", 0): 20.0}, {("fern", "he", 1)}))
    with pytest.raises(NotFinite, match=r"1 of 8 runs failed; fern/he, seed 1: the loss is not finite"):
        sweep.require_success(results_of(base, {}, {("fern", "he", 1)}))
    with pytest.raises(SomeFailed) as found:
        sweep.require_success(results_of(base, {("fern", "plain", 0): 20.0}, {("fern", "he", 1)}, code=-9))
    assert len(found.value.measured) == 1


@pytest.mark.parametrize(("before", "scenes"), [("", "fern"), ("fern", "")])
def test_runs_begun_without_scenes_are_not_trained_again_in_folders_of_scenes(base, before, scenes):
    base.folder.mkdir(parents=True)
    rows = [{"folder": "plain_seed0", "scene": before, "state": "finished"}]
    (base.folder / "sweep.json").write_text(json.dumps({"runs": rows}))
    with pytest.raises(InputError, match="option --scenes") as refusal:
        sweep.sweep(base, SweepOptions(methods="plain", scenes=scenes), ExecutorOptions())
    assert "another --expname" in str(refusal.value)


def test_the_executor_is_made_for_all_runs_so_that_a_resumed_one_has_as_many_threads(base, monkeypatch):
    planned = variants.plan({"": base}, CompareOptions(methods="plain,he"))
    monkeypatch.setattr(sweep.variants, "finished", lambda config: {} if "plain" in str(config.folder) else None)
    monkeypatch.setattr(sweep, "_require_readable", lambda bases: None)
    seen = []

    def made(name, how, runs, folder):
        seen.extend(run.label for run in runs)
        raise InputError("seen")

    monkeypatch.setattr(sweep, "executor", made)
    with pytest.raises(InputError, match="seen"):
        sweep.sweep(base, SweepOptions(methods="plain,he"), ExecutorOptions())
    assert seen == [run.label for run in planned]


def test_one_folder_has_one_sweep(base):
    with writer_lock.writing(base.folder), pytest.raises(InputError, match="already writes to it"):
        sweep.sweep(base, SweepOptions(methods="plain"), ExecutorOptions())
