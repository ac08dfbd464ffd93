"""Tests of whole analyses, on tiny trained runs: what is measured, kept, resumed and refused."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.conditioning.diagnostics import eigenvalues, spectrum
from enerf.config import parser
from enerf.core import images, io
from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.engine import checkpoint
from enerf.experiments import analyze, compare
from enerf.experiments.options import AnalyzeOptions, CompareOptions
from enerf.geometry import synthetic as synthetic_shapes
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import train as nerf_train
from enerf.tasks.shape import config as shape_config
from enerf.tasks.shape import setup

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    **{"factor": 1, "llffhold": 3, "netwidth": 8, "netwidth_fine": 8, "netdepth": 2, "netdepth_fine": 2},
    **{"multires": 2, "multires_views": 1, "use_viewdirs": True, "N_rand": 16, "N_samples": 4, "N_importance": 4},
    **{"N_iters": 6, "i_eval": 0, "i_img": 0, "i_weights": 2, "device": "cpu", "backend": "torch", "precision": "fp32"},
}
FEW = AnalyzeOptions(rays=4, device="cpu")


def few(**words) -> AnalyzeOptions:
    return replace(FEW, **words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A comparison of three variants with three checkpoints each; look, do not write."""
    folder = tmp_path_factory.mktemp("analysis")
    scene = synthetic.write_scene(folder / "toy", views=5, width=16, height=12, supersample=1, progress=False)
    base = parser.from_dict(
        nerf_config.NerfConfig, {**TINY, "datadir": str(scene), "basedir": str(folder), "expname": "cmp"}
    )
    compare.compare(base, CompareOptions(methods="plain,weight_norm,detached"))
    return base.folder


@pytest.fixture
def runs(trained, tmp_path) -> Path:
    """A copy of the comparison."""
    return Path(shutil.copytree(trained, tmp_path / "cmp"))


@pytest.fixture(scope="module")
def analyzed(trained, tmp_path_factory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out")
    return out, analyze.analyze([trained], few(out=str(out), density=5))


def content(folder: Path) -> dict:
    found = json.loads((folder / "analysis.json").read_text(), parse_constant=pytest.fail)
    return {Path(key).name: run for key, run in found["runs"].items()}


def test_variants_are_reported_side_by_side_at_every_checkpoint(analyzed):
    out, text = analyzed
    found = content(out)
    assert {name: [r["step"] for r in run["records"]] for name, run in found.items()} == {
        f"{variant}_seed0": [2, 4, 6] for variant in ("plain", "weight_norm", "detached")
    }
    assert [line.split()[:2] for line in text.splitlines()[2:5]] == [
        [f"{variant}_seed0", "6"] for variant in ("detached", "plain", "weight_norm")
    ]
    assert text.splitlines()[-1] == str(out)
    assert "detached_seed0" in (out / "analysis.md").read_text(encoding="utf-8")
    for name in ("analysis.png", "density.png"):
        assert images.read(out / name).std() > 0.01


def test_all_variants_of_a_scene_have_the_loss_of_the_same_rays_and_the_curvature_of_their_own_parameters(analyzed):
    found = content(analyzed[0])
    sizes = {name: run["records"][0]["curvature"]["parameters"] for name, run in found.items()}
    assert sizes["plain_seed0"] == sizes["detached_seed0"] < sizes["weight_norm_seed0"]  # one length more an output
    for run in found.values():
        for record in run["records"]:
            bent = record["curvature"]
            assert bent["hessian_min"] <= 0 < bent["hessian_max"]
            assert 1 <= bent["gauss_newton_rank"] <= 4 * 2 * 3
            assert bent["gauss_newton_max"] <= bent["gauss_newton_trace"]
            assert ("density" in record) == (record["step"] in (2, 6))


def test_reported_weights_are_what_the_layers_of_the_checkpoint_apply(analyzed, trained):
    for variant in ("plain", "detached"):
        path = trained / f"{variant}_seed0" / "checkpoints" / "000004.pt"
        weights = checkpoint.read(path)["model"]
        record = content(analyzed[0])[f"{variant}_seed0"]["records"][1]
        told = record["layers"]["fine.feature"]
        key = "fine.feature.weight" if variant == "plain" else "fine.feature.parametrizations.weight.original"
        raw = spectrum.condition_number(weights[key]).item()
        assert told["kappa" if variant == "plain" else "kappa_raw"] == pytest.approx(raw)
        assert set(record["layers"]) == {
            f"{f}.{n}" for f in ("coarse", "fine") for n in ("trunk.0", "trunk.1", "feature", "view")
        }
        assert 1 <= told["kappa_inputs"] < math.inf
        assert 1 <= told["rank_inputs"] <= 9


def test_the_hessian_of_a_checkpoint_is_that_of_its_loss(trained, monkeypatch):
    seen = []
    monkeypatch.setattr(
        eigenvalues,
        "extremes",
        lambda hessian, **_: seen.append(hessian) or eigenvalues.Extremes((-1.0,), (1.0,), True, 0),
    )
    subject = analyze.open_probe(trained / "plain_seed0", FEW)
    probe = subject.at(trained / "plain_seed0" / "checkpoints" / "000002.pt")
    analyze.measure(probe, FEW)
    parameters = dict(probe.model.named_parameters())
    assert seen[0].shape == (sum(p.numel() for p in parameters.values()),) * 2
    assert probe.step == 2
    assert (subject.scene, subject.method) == ("toy", "nerf")


def test_a_second_call_measures_nothing_and_says_the_same(runs, monkeypatch):
    text = analyze.analyze([runs], few(no_hessian=True))
    monkeypatch.setattr(analyze, "open_probe", lambda *_: pytest.fail("what is measured was measured again"))
    assert analyze.analyze([runs], few(no_hessian=True)) == text
    assert text.splitlines()[-1] == str(runs / "analysis")
    two = [runs / "plain_seed0", runs / "detached_seed0"]
    assert analyze.analyze(two, few(no_hessian=True)).splitlines()[-1] == str(runs / "analysis")


def test_an_interrupted_analysis_leaves_what_is_finished_and_goes_on(runs, monkeypatch):
    original, seen = analyze.measure, []

    def measured(*args):
        seen.append(1)
        if len(seen) == 5:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(analyze, "measure", measured)
    with pytest.raises(KeyboardInterrupt):
        analyze.analyze([runs], few(no_hessian=True))
    assert sum(len(run["records"]) for run in content(runs / "analysis").values()) == 4
    assert (runs / "analysis" / "analysis.png").is_file()
    leftover = runs / "analysis" / f".{io.host()}-{2**22 + 1}-0123456789ab.tmp.png"  # of a process that was killed
    leftover.write_text("")
    analyze.analyze([runs], few(no_hessian=True))
    assert len(seen) == 5 + 5
    assert not leftover.exists()


def test_damaged_checkpoints_are_named_and_others_take_their_place(runs, caplog):
    paths = checkpoint.checkpoints(runs / "plain_seed0")
    data = paths[-1].read_bytes()
    paths[-1].write_bytes(data[: len(data) // 2])
    analyze.analyze([runs / "plain_seed0"], few(no_hessian=True, checkpoints=2))
    (history,) = content(runs / "plain_seed0" / "analysis").values()
    assert [record["step"] for record in history["records"]] == [2, 4]
    assert f"{paths[-1]}: cannot be read as a checkpoint" in caplog.text
    for path in paths[:-1]:
        path.write_bytes(b"")
    shutil.rmtree(runs / "plain_seed0" / "analysis")
    assert str(paths[-1]) in refusal([runs / "plain_seed0"], no_hessian=True)


def test_a_checkpoint_that_its_run_deletes_meanwhile_is_left_out(runs, monkeypatch, caplog):
    run, opened = runs / "plain_seed0", analyze.open_probe
    paths = checkpoint.checkpoints(run)

    def opened_late(*args):
        for path in deleted:
            path.unlink(missing_ok=True)
        return opened(*args)

    monkeypatch.setattr(analyze, "open_probe", opened_late)
    deleted = paths[1:2]
    analyze.analyze([run], few(no_hessian=True))
    assert [record["step"] for record in content(run / "analysis")["plain_seed0"]["records"]] == [2, 6]
    assert f"{paths[1]}: deleted by its run since the analysis began; left out" in caplog.text
    shutil.rmtree(run / "analysis")
    deleted = paths[2:]
    assert "deleted every chosen checkpoint" in refusal([run], no_hessian=True, checkpoints=1)


def test_weights_alone_are_quick_and_curvature_can_follow(runs, monkeypatch):
    quick = few(no_hessian=True, checkpoints=2)
    text = analyze.analyze([runs / "plain_seed0"], quick)
    assert "λ_max" not in text
    (found,) = content(runs / "plain_seed0" / "analysis").values()
    assert [record["step"] for record in found["records"]] == [2, 6]
    assert "λ_max" in analyze.analyze([runs / "plain_seed0"], FEW)
    (found,) = content(runs / "plain_seed0" / "analysis").values()
    assert ["curvature" in record for record in found["records"]] == [True] * 3
    assert "λ_max" in analyze.analyze([runs / "plain_seed0"], quick), "what is known is told"


def test_without_the_extra_weights_are_told_and_one_line_says_why(runs, monkeypatch, caplog):
    caplog.set_level("INFO", "enerf")
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    assert "κ(W) applied" in analyze.analyze([runs / "plain_seed0"], FEW)
    assert [m for m in caplog.messages if m.startswith("weights only: ") and "enerf[diagnostics]" in m]


def test_chosen_layers_bound_what_is_told_and_what_is_differentiated(runs):
    some = few(layers="trunk.1,rgb_head", checkpoints=1)
    analyze.analyze([runs / "detached_seed0"], some)
    ((record,),) = [run["records"] for run in content(runs / "detached_seed0" / "analysis").values()]
    assert record["step"] == 6
    assert list(record["layers"]) == [f"{f}.{n}" for f in ("coarse", "fine") for n in ("trunk.1", "rgb_head")]
    assert record["curvature"]["parameters"] == 2 * (8 * 8 + 8 + 3 * 4 + 3)


def test_a_jacobian_that_would_be_too_large_is_skipped_and_logged(runs, monkeypatch, caplog):
    caplog.set_level("INFO", "enerf")
    monkeypatch.setattr(analyze, "JACOBIAN_BYTES", 1)
    text = analyze.analyze([runs / "plain_seed0"], few(checkpoints=1))
    assert "the Gauss–Newton matrix is skipped" in caplog.text
    assert "–" in text.splitlines()[2]


@pytest.mark.parametrize(
    "words",
    [
        {"sampler": "proposal", "encoding": "hash", "hash_levels": 2, "hash_log2_entries": 6},
        {"N_importance": 0},
        {"conditioning": "fourier+batch_norm"},
        {"conditioning": "spectral_norm+layer_norm+muon"},
        {"conditioning": "orthogonal"},
    ],
)
def test_other_fields_are_analyzed_too(words, trained, tmp_path):
    scene = trained.parent / "toy"
    more = {"datadir": str(scene), "basedir": str(tmp_path), "expname": "other", "no_final_eval": True, "i_weights": 0}
    config = parser.from_dict(nerf_config.NerfConfig, {**TINY, **more, **words})
    nerf_train.train(config)
    text = analyze.analyze([config.folder], few(checkpoints=2))
    assert text.splitlines()[2].split()[:2] == ["other", "6"]
    assert content(config.folder / "analysis")["other"]["records"][-1]["curvature"]["hessian_max"] > 0


@pytest.mark.parametrize("target", ["occupancy", "sdf"])
def test_shapes_are_analyzed_too_with_the_same_points_for_every_variant(target, tmp_path):
    synthetic_shapes.write_shapes(tmp_path)
    torus = tmp_path / "torus.ply"
    told = ["--mesh", str(torus), "--basedir", str(tmp_path), "--expname", "cmp", "--representation", target]
    small = ["--encoding", "positional", "--netwidth", "8", "--N_points", "64", "--pool", "64", "--background", "none"]
    short = ["--N_iters", "4", "--i_weights", "2", "--i_eval", "0", "--resolution", "0", "--device", "cpu"]
    base = parser.parse(shape_config.ShapeConfig, [*told, *small, *short, "--precision", "fp32"])[0]
    compare.compare(base, CompareOptions(methods="plain,equilibrate"))
    analyze.analyze([base.folder], few(rays=16))
    found = content(base.folder / "analysis")
    assert {run["method"] for run in found.values()} == {"mlp", "e-mlp"}
    for run in found.values():
        assert [record["step"] for record in run["records"]] == [2, 4]
        assert list(run["records"][0]["layers"]) == ["trunk.0", "trunk.1"]
        assert run["records"][0]["curvature"]["hessian_max"] > 0


def test_images_are_analyzed_too_by_the_loss_of_their_training_pixels(tmp_path):
    path = tmp_path / "waves.png"
    y, x = np.mgrid[:6, :8] / 8
    images.write_png(path, np.stack([x, y, 0.5 + 0.5 * np.sin(5 * x)], -1))
    told = ["--image", str(path), "--basedir", str(tmp_path), "--expname", "cmp", "--encoding", "none"]
    small = ["--netwidth", "8", "--netdepth", "3", "--N_points", "16", "--holdout", "0.25", "--activation", "finer"]
    short = ["--N_iters", "4", "--i_weights", "2", "--i_eval", "0", "--device", "cpu", "--finer_bias", "2"]
    base = parser.parse(shape_config.ShapeConfig, [*told, *small, *short])[0]
    compare.compare(base, CompareOptions(methods="plain,equilibrate"))
    analyze.analyze([base.folder], few(rays=48))
    found = content(base.folder / "analysis")
    assert {run["method"] for run in found.values()} == {"mlp-finer_bias2", "e-mlp-finer_bias2"}
    for name, run in found.items():
        assert [record["step"] for record in run["records"]] == [2, 4]
        assert run["records"][0]["curvature"]["hessian_max"] > 0
        assert 1 < run["records"][0]["layers"]["trunk.1"]["kappa"] < math.inf
        opened = setup.open_run(base.folder / name, "cpu")
        index = opened.target.train_pixels
        assert len(index) == 36
        errors = opened.field(opened.target.points(index)) - opened.target.colors_at(index)
        assert run["records"][1]["curvature"]["loss"] == pytest.approx(errors.square().mean().item(), rel=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_tells_the_same(runs):
    told = []
    for device in ("cpu", "cuda"):
        out = runs / device
        analyze.analyze([runs / "detached_seed0"], few(device=device, out=str(out), checkpoints=1, density=4))
        ((record,),) = [run["records"] for run in content(out).values()]
        told.append(record)
    cpu, gpu = told
    for key in ("loss", "hessian_max", "gauss_newton_max", "gauss_newton_effective_rank"):
        assert gpu["curvature"][key] == pytest.approx(cpu["curvature"][key], rel=0.02)
    assert gpu["layers"]["fine.feature"] == pytest.approx(cpu["layers"]["fine.feature"], rel=0.02)


# what is refused


def refusal(folders: list[Path], **words) -> str:
    with pytest.raises(InputError) as caught:
        analyze.analyze(folders, few(**words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_are_one_sentence(runs, tmp_path):
    assert refusal([tmp_path / "nowhere"]).startswith(f"{tmp_path / 'nowhere'}: found no checkpoints/*.pt")
    assert refusal([runs], layers="trunc").startswith("option --layers: no layer is named 'trunc'; the nearest")
    assert refusal([runs], device="tpu").startswith("option --device: found 'tpu'")
    assert "poses_bounds.npy" in refusal([runs], datadir=str(tmp_path / "gone"))
    assert not (runs / "analysis").exists()


def test_a_run_of_an_unknown_kind_is_one_sentence(runs):
    path = runs / "plain_seed0" / "checkpoints" / "000006.pt"
    saved = checkpoint.read(path)
    saved["config"]["kind"] = "poem"
    torch.save(saved, path)
    assert (
        refusal([runs / "plain_seed0"])
        == f"{runs / 'plain_seed0'}: found a run of kind 'poem', expected one of nerf, shape, classifier"
    )


def test_checkpoints_are_spread_with_both_ends():
    paths = [Path(f"{i}") for i in range(10)]
    assert analyze.evenly_spaced(paths, 0) == analyze.evenly_spaced(paths, 99) == paths
    assert analyze.evenly_spaced(paths, 1) == paths[-1:]
    for n in range(2, 10):
        found = analyze.evenly_spaced(paths, n)
        assert (len(set(found)), found[0], found[-1]) == (n, paths[0], paths[-1])


def test_the_script_runs(runs):
    command = [
        sys.executable,
        ROOT / "scripts" / "analyse_conditioning.py",
        runs / "plain_seed0",
        "--no_hessian",
        "--device",
        "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].startswith("plain_seed0  6")
    assert "analyze 100% 3/3" in done.stderr
