"""Tests of the table and the panels of an analysis."""

import math

import pytest
from torch import nn

from enerf.conditioning import condition, layer_report
from enerf.core import images
from enerf.core.errors import InputError
from enerf.experiments import analysis_report


def record(step: int, kappa: float | None = 4.0, curved: bool = True, **layer) -> dict:
    layers = {
        name: {"kappa": kappa, "row_norm_min": low, "row_norm_max": 2.0, "effective_rank": rank, **layer}
        for name, low, rank in (("a", 1.0, 7.0), ("b", 0.5, 8.0), ("c", 1.0, 30.0))
    }
    curvature = {
        **{"loss": 0.1, "hessian_max": 4.0 * step, "hessian_min": -step, "converged": step < 9},
        **{"gauss_newton_kappa": 1e5, "gauss_newton_rank": 12, "gauss_newton_effective_rank": 3.0},
    }
    return {"step": step, "layers": layers, **({"curvature": curvature} if curved else {})}


def history(name: str, *records: dict) -> dict:
    return {"name": name, "scene": "toy", "method": "nerf", "records": list(records)}


def test_a_checkpoint_is_summed_up_by_medians_and_by_the_extremes_of_row_norms():
    found = analysis_report.summary(record(3, kappa_raw=9.0))
    assert (found["kappa"], found["kappa_raw"], found["effective_rank"]) == (4, 9, 8)
    assert (found["row_norm_min"], found["row_norm_max"]) == (0.5, 2)
    assert found["negative_share"] == 0.25
    assert analysis_report.summary(record(3))["kappa_raw"] == 4, (
        "without a map the raw weights are those that are applied"
    )


def test_ranks_of_raw_weights_are_those_of_applied_ones_in_plain_layers_and_missing_in_older_records():
    assert analysis_report.summary(record(3))["stable_rank"] is None  # an earlier version did not measure it
    plain = analysis_report.summary(record(3, stable_rank=3.0))
    assert (plain["stable_rank"], plain["stable_rank_raw"], plain["effective_rank_raw"]) == (3, 3, 8)
    earlier = analysis_report.summary(record(3, kappa_raw=9.0))
    assert (earlier["effective_rank"], earlier["effective_rank_raw"], earlier["stable_rank_raw"]) == (8, None, None)
    mixed = record(3, stable_rank=3.0)  # a plain layer's rank is not that of the others
    mixed["layers"]["a"] |= {"kappa_raw": 9.0}
    assert analysis_report.summary(mixed)["stable_rank_raw"] is None
    mixed["layers"]["a"] |= {"stable_rank_raw": 2.0}
    assert analysis_report.summary(mixed)["stable_rank_raw"] == 3


def test_the_table_has_the_ranks_of_raw_and_applied_weights_and_a_dash_for_missing_ones():
    raw = {"kappa_raw": 9.0, "effective_rank_raw": 5.0, "stable_rank_raw": 2.0, "stable_rank": 3.0}
    header, new, old = analysis_report.table(
        [history("new", record(2, **raw), record(8, **{**raw, "stable_rank": 6.0})), history("old", record(2))]
    )
    columns = ["eff. rank W raw", "eff. rank W applied", "stable rank W raw", "stable rank W applied"]
    found = [[dict(zip(header, row, strict=True))[column] for column in columns] for row in (new, old)]
    assert found == [["5 ×1", "8 ×1", "2 ×1", "6 ×2"], ["8", "8", "–", "–"]]


def test_a_layer_report_has_every_statistic_of_weights():
    net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 4))
    condition(net, "row", ["0"])
    found = analysis_report.summary({"step": 1, "layers": layer_report(net)})
    assert all(found[key] is not None for key, _, _ in analysis_report.FIGURES[: analysis_report.N_WEIGHT_FIGURES])


def test_what_json_could_not_hold_is_infinite_and_what_was_not_measured_is_not():
    found = analysis_report.summary(record(3, kappa=None, curved=False))
    assert found["kappa"] == math.inf
    assert found["hessian_max"] is None
    assert found["kappa_inputs"] is None


def test_the_table_tells_the_last_checkpoint_and_the_change_since_the_first():
    header, row = analysis_report.table([history("plain", record(2), record(8))])
    cells = dict(zip(header, row, strict=True))
    assert (cells["run"], cells["step"], cells["row norms"]) == ("plain", "8", "0.5–2")
    assert (cells["λ_max"], cells["λ_min"], cells["rank G"]) == ("32 ×4", "-8 ×4", "12")
    assert cells["κ([1, H])"] == "–"


def test_one_checkpoint_has_no_change():
    header, row = analysis_report.table([history("plain", record(8))])
    assert dict(zip(header, row, strict=True))["λ_max"] == "32"


def test_what_did_not_converge_is_marked():
    header, row = analysis_report.table([history("plain", record(2), record(10))])
    cells = dict(zip(header, row, strict=True))
    assert (cells["λ_max"], cells["λ_min"]) == ("~40 ×5", "~-10 ×5")


def test_without_curvature_there_are_no_empty_columns():
    header, _ = analysis_report.table([history("plain", record(2, curved=False))])
    ranks = ["eff. rank W raw", "eff. rank W applied", "stable rank W raw", "stable rank W applied"]
    assert header == ["run", "step", "κ(W) raw", "κ(W) applied", "row norms", *ranks]


@pytest.mark.parametrize("curved", [True, False])
def test_pictures_and_text_are_written(curved: bool, tmp_path):
    variants = [
        history(f"{variant}_seed{seed}", record(2, curved=curved), record(8, None, curved))
        for variant in "pq"
        for seed in (0, 1)
    ]
    variants[0]["records"][-1]["density"] = {"values": [-1.0, 4.0], "weights": [0.75, 0.25]}
    text = analysis_report.write(variants, tmp_path, "What was measured.")
    assert "p_seed0" in text
    assert "∞" in text
    written = (tmp_path / "analysis.md").read_text(encoding="utf-8")
    assert written.startswith("# Weights and curvature: toy\n\nWhat was measured.\n\n| run |")
    assert images.read(tmp_path / "analysis.png").std() > 0.01
    assert images.read(tmp_path / "density.png").std() > 0.01


def test_no_density_no_picture(tmp_path):
    assert analysis_report.draw_densities([history("p", record(2))], tmp_path / "density.png") is None
    assert not any(tmp_path.iterdir())


def test_a_smoothed_density_has_its_weights_at_its_values():
    at, density = analysis_report.smooth_density([0.0, 0.5], [0.75, 0.25])
    assert sum(density) * 0.002 == pytest.approx(1, abs=1e-6)
    assert sum(d for x, d in zip(at, density, strict=True) if x > 0.25) * 0.002 == pytest.approx(0.25, abs=1e-6)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"analysis\.png: cannot be written"):
        analysis_report.draw([history("p", record(2))], tmp_path / "file" / "analysis.png", "t")
