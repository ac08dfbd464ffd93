"""Arms of a comparison: equal but for their method, resumable, honestly tabled."""

import dataclasses
import json
import re

import numpy as np
import pytest

from enerf.config import methods, parser
from enerf.core import device, images
from enerf.core.errors import InputError
from enerf.datasets.scenes import synthetic
from enerf.engine import resume
from enerf.experiments import compare, variants
from enerf.experiments.options import CompareOptions
from enerf.reporting import learning_rates
from enerf.tasks import registry
from enerf.tasks.nerf import comparison as nerf_comparison
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import train as nerf_train

TINY = {
    "factor": 1,
    "llffhold": 3,
    "netwidth": 8,
    "netwidth_fine": 8,
    "netdepth": 2,
    "netdepth_fine": 2,
    "N_rand": 16,
    "N_samples": 4,
    "N_importance": 4,
    "N_iters": 4,
    "i_eval": 2,
    "i_img": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "toy"
    return synthetic.write_scene(folder, views=5, width=16, height=12, supersample=1, progress=False)


@pytest.fixture
def base(scene, tmp_path):
    return parser.from_dict(
        nerf_config.NerfConfig, {**TINY, "datadir": str(scene), "basedir": str(tmp_path), "expname": "cmp"}
    )


def metrics(psnr, seed=0, collapsed=False, steps=4):
    return {
        "mean": {"psnr": psnr, "ssim": 0.5, "lpips": None},
        "collapsed": collapsed,
        "constant_psnr": 12.0,
        "seed": seed,
        "steps": steps,
        "seconds": {"train": 1.0, "eval": 1.0},
        "curve": [[2, psnr - 1], [4, psnr]],
    }


def test_every_method_differs_from_plain_by_its_own_options_only(base):
    plain = parser.to_dict(variants.variant_config(base, "plain", None, 0))
    for method, changes in methods.FIELDS.changes.items():
        variant = parser.to_dict(variants.variant_config(base, method, None, 0))
        differing = {name for name in plain if plain[name] != variant[name]} - {"expname"}
        assert differing == {name for name, value in changes.items() if value != plain[name]}


def test_a_comparison_leaves_table_curves_and_crops_and_a_second_call_trains_nothing(base, monkeypatch):
    chosen = CompareOptions(methods="plain,he,equilibrate", seeds="0,1")
    text = compare.compare(base, chosen)
    variants = json.loads((base.folder / "comparison.json").read_text())
    assert {m: [r["seed"] for r in runs] for m, runs in variants.items()} == {
        m: [0, 1] for m in ("plain", "he", "equilibrate")
    }
    assert [r["method"] for r in variants["equilibrate"]] == ["e-nerf", "e-nerf"]
    for name in ("curves.png", "crops.png"):
        assert images.read(base.folder / name).std() > 0.01
    untrained = lambda _: pytest.fail("a finished variant was trained again")  # noqa: E731
    monkeypatch.setitem(registry._TASKS, "nerf", dataclasses.replace(registry.task("nerf"), train=untrained))
    assert compare.compare(base, chosen) == text


def test_learning_rates_make_variants_and_each_method_is_judged_at_its_best(base):
    pixels = parser.replace(base, final_pixels=True, eval_rays=5)
    text = compare.compare(pixels, CompareOptions(methods="plain,gain", seeds="0", lrates="1e-3,1e-2"))
    variants = json.loads((base.folder / "comparison.json").read_text())
    assert list(variants) == ["plain@0.001", "gain@0.001", "plain@0.01", "gain@0.01"]
    rates = {
        name: parser.to_dict(
            parser.parse(nerf_config.NerfConfig, ["--config", str(base.folder / f"{name}_seed0/config.txt")])[0]
        )["lrate"]
        for name in variants
    }
    assert rates == {name: float(name.split("@")[1]) for name in variants}
    assert images.read(base.folder / "rates.png").std() > 0.01
    _, best = text.split(learning_rates.BEST)
    for method in ("plain", "gain"):
        scores = {name: variants[name][0]["mean"]["psnr"] for name in variants if name.startswith(method)}
        assert max(scores, key=scores.get) in best
        assert min(scores, key=scores.get) not in best


def test_fixed_pixels_are_measured_as_the_curve_is_and_said_so(base):
    variant = variants.variant_config(parser.replace(base, final_pixels=True, eval_rays=5), "kept", None, 0)
    found = nerf_train.train(variant)
    assert found["mean"] == {"psnr": found["curve"][-1][1], "ssim": None, "lpips": None}
    assert found["views"] == []
    assert "5 fixed pixels" in found["protocol"]["average"]
    assert found["fit_psnr"] > 0
    assert found["method"] == "e-nerf-kept-he"
    assert not (variant.folder / "test").exists()


def computed_with(base):
    variants = json.loads((base.folder / "comparison.json").read_text())
    return {name: {(run["backend"], run["precision"]) for run in some} for name, some in variants.items()}


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def flags(monkeypatch, *names):
    monkeypatch.setattr(device, "cpu_flags", lambda: frozenset(names))


def test_backend_and_precision_are_resolved_once_for_all_arms(base, monkeypatch, caplog):
    pixels = parser.replace(base, final_pixels=True, eval_rays=5)
    flags(monkeypatch)
    train = nerf_train.train

    def changing(variant, shared):
        flags(monkeypatch, "avx2", "fma", "avx512_bf16")  # a new run would take other kernels, and bf16
        return train(variant, shared)

    monkeypatch.setitem(registry._TASKS, "nerf", dataclasses.replace(registry.task("nerf"), train=changing))
    compare.compare(pixels, CompareOptions(methods="plain"))
    compare.compare(pixels, CompareOptions(methods="plain,he", seeds="0,1"))  # goes on another day
    assert computed_with(base) == {"plain": {("torch", "fp32")}, "he": {("torch", "fp32")}}
    assert warnings_of(caplog) == []


def test_a_variant_that_was_computed_by_other_code_is_one_line(base, monkeypatch, caplog):
    pixels = parser.replace(base, final_pixels=True, eval_rays=5)
    flags(monkeypatch)
    nerf_train.train(variants.variant_config(pixels, "plain", None, 0))
    flags(monkeypatch, "avx512_bf16")
    nerf_train.train(variants.variant_config(parser.replace(pixels, N_iters=2), "he", None, 0))
    compare.compare(pixels, CompareOptions(methods="plain,he,equilibrate"))
    (line,) = warnings_of(caplog)
    assert line == "variant cmp/he_seed0 was trained with torch, bf16, the others with torch, fp32"
    assert computed_with(base) == {
        **{name: {("torch", "fp32")} for name in ("plain", "equilibrate")},
        "he": {("torch", "bf16")},
    }


@pytest.mark.parametrize("text", ["fast", "1e-3,,", "0", "-1", "1e-3,0.001", "inf"])
def test_learning_rates_that_are_none_are_refused(text):
    with pytest.raises(InputError, match=r"option --lrates: found .* expected positive numbers"):
        variants.read_lrates(text)


def test_a_variant_whose_options_changed_is_not_taken_for_finished(base):
    variant = variants.variant_config(base, "plain", None, 0)
    nerf_train.train(variant)
    assert resume.finished_metrics(variant) is not None
    assert resume.finished_metrics(parser.replace(variant, N_iters=6)) is None
    assert nerf_train.train(parser.replace(variant, N_iters=6))["steps"] == 6


def test_variants_of_one_seed_see_the_same_rays(base, monkeypatch):
    from enerf.tasks.nerf import step as nerf_step

    seen: dict[str, list] = {}
    original = nerf_step.gradient
    for method in ("plain", "he", "equilibrate"):
        seen[method] = []

        def spy(fields, rays, target, *args, _into=seen[method], **kwargs):
            _into.append((rays.origins.clone(), target.clone()))
            return original(fields, rays, target, *args, **kwargs)

        monkeypatch.setattr(nerf_step, "gradient", spy)
        nerf_train.train(variants.variant_config(base, method, None, 3))
    for method in ("he", "equilibrate"):
        for (a, b), (c, d) in zip(seen["plain"], seen[method], strict=True):
            assert a.equal(c)
            assert b.equal(d)


@pytest.mark.parametrize("text", ["", "plain,plain", "plain,foo"])
def test_wrong_methods_are_one_sentence(text):
    with pytest.raises(InputError, match=r"option --methods: found .*, expected names from plain, he"):
        variants.read_methods(text, methods.FIELDS)


def test_a_method_that_is_nearly_one_has_a_hint():
    with pytest.raises(InputError, match=r"found .eqilibrate., .*; the nearest is equilibrate$"):
        variants.read_methods("plain,eqilibrate", methods.FIELDS)


@pytest.mark.parametrize(
    ("text", "using"),
    [("row+muon", "muon_e, muon_gain"), ("plain,weight_standardisation", "ws"), ("column+muon", ""), ("foo", "")],
)
def test_a_value_of_conditioning_leads_to_the_methods_with_it(text, using):
    with pytest.raises(InputError) as caught:
        variants.read_methods(text, methods.FIELDS)
    assert str(caught.value).partition("; with that value of --conditioning: ")[2] == using


@pytest.mark.parametrize("text", ["", "a", "0,0", "-1"])
def test_wrong_seeds_are_one_sentence(text):
    with pytest.raises(InputError, match=r"option --seeds: found .*, expected different whole numbers"):
        variants.read_seeds(text)


def test_the_table_gives_mean_sample_deviation_and_success_rate():
    variants = {"plain": [metrics(20.0, 0), metrics(22.0, 1), metrics(12.5, 2)], "e": [metrics(21.0, collapsed=True)]}
    header, plain, e = nerf_comparison.table(variants)
    row = dict(zip(header, plain, strict=True))
    assert row["PSNR [dB]"] == f"{np.mean([20, 22, 12.5]):.2f} ± {np.std([20, 22, 12.5], ddof=1):.2f}"
    assert (row["success"], row["seeds"], row["LPIPS"]) == ("2/3", "0,1,2", "–")
    assert dict(zip(header, e, strict=True))["PSNR [dB]"] == "21.00"
    assert dict(zip(header, e, strict=True))["success"] == "0/1"


def test_the_crop_lies_where_the_detail_is():
    picture = np.full((30, 60, 3), 0.5)
    picture[21:29, 41:59] = np.random.default_rng(0).random((8, 18, 3))
    top, left, height, width = nerf_comparison.busiest_window(picture)
    assert (height, width) == (10, 20)
    assert 19 <= top <= 20
    assert 39 <= left <= 40


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"curves\.png: cannot be written"):
        nerf_comparison.draw_curves({"plain": [metrics(20.0)]}, tmp_path / "file" / "curves.png", "t")


def test_a_ratio_of_rates_is_part_of_a_methods_name(base):
    known = methods.FIELDS
    assert variants.read_methods("muon*5,plain,muon_gain*0.5", known) == ["muon*5", "plain", "muon_gain*0.5"]
    for text in ("plain*5", "muon*", "muon*0", "muon*x", "muon*-1", "muon**5", "muon*5,muon*5"):
        with pytest.raises(InputError, match="option --methods: found"):
            variants.read_methods(text, known)
    variant = variants.variant_config(base, "muon*5", 0.002, 0)
    assert variant.conditioning.lrate_matrices == pytest.approx(0.01)
    assert variant.run.expname.endswith("muonx5@0.002_seed0")


@pytest.mark.parametrize(
    ("names", "same"),
    [("muon*5,muon*5.0", "muon*5 and muon*5.0"), ("plain,muon,muon*1", "muon and muon*1")],
)
def test_two_names_of_one_training_are_refused(base, names, same):
    with pytest.raises(InputError, match=f"option --methods: found {re.escape(same)}, which are the same training"):
        variants.plan({"": base}, CompareOptions(methods=names))


def test_methods_that_are_the_same_at_one_rate_alone_are_compared(base):
    fixed = parser.replace(base, conditioning="muon", lrate_matrices=0.005)
    assert len(variants.plan({"": fixed}, CompareOptions(methods="muon,muon*5", lrates="5e-4,1e-3"))) == 4
    with pytest.raises(InputError, match="found muon and muon"):
        variants.plan({"": fixed}, CompareOptions(methods="muon,muon*5", lrates="1e-3"))


def test_options_that_every_method_sets_are_told(base, caplog):
    variants.warn_of_overridden(parser.replace(base, equilibrate="row", init="he"))
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"--{name} has no effect here: each method of a comparison has its own"
        for name in ("init he", "equilibrate row")
    ]
