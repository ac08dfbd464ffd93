"""Tests of the diagnostics."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from enerf.conditioning import initialize_attention_, layers, maps
from enerf.conditioning.diagnostics import spectrum
from enerf.conditioning.interface import Parametrization


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def with_singular_values(values: list[float], n_out: int, n_in: int, seed: int = 0) -> Tensor:
    left, _ = torch.linalg.qr(gaussian(n_out, n_out, seed=seed))
    right, _ = torch.linalg.qr(gaussian(n_in, n_in, seed=seed + 1))
    k = len(values)
    return left[:, :k] @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right[:k]


@pytest.mark.parametrize(("n_out", "n_in"), [(3, 3), (3, 7), (7, 3)])
def test_known_singular_values_come_back_in_order(n_out: int, n_in: int):
    weight = with_singular_values([0.5, 8.0, 2.0], n_out, n_in)
    expected = torch.tensor([8.0, 2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(spectrum.singular_values(weight), expected)
    torch.testing.assert_close(spectrum.condition_number(weight), torch.tensor(16.0, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(n_out=st.integers(1, 6), n_in=st.integers(1, 6), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_kappa_is_at_least_one_invariant_to_scale_and_to_transposition(n_out: int, n_in: int, seed: int, scale: float):
    weight = gaussian(n_out, n_in, seed=seed)
    kappa = spectrum.condition_number(weight)
    assert kappa >= 1
    for other in (scale * weight, -weight, weight.T):
        torch.testing.assert_close(spectrum.condition_number(other), kappa, rtol=1e-6, atol=0)


def test_kappa_of_a_singular_matrix_is_infinite():
    singular = torch.diag(torch.tensor([3.0, 2.0, 0.0]))
    assert spectrum.condition_number(singular).item() == math.inf
    assert spectrum.condition_number(torch.zeros(2, 3)).item() == math.inf


def test_kappa_is_computed_in_float64():
    weight = torch.diag(torch.tensor([1.0, 1e-12], dtype=torch.float32))
    assert spectrum.condition_number(weight).item() == pytest.approx(1e12, rel=1e-6)


def test_batch_axes_are_independent_matrices():
    weights = gaussian(2, 3, 4, 5)
    assert spectrum.singular_values(weights).shape == (2, 3, 4)
    assert spectrum.row_norms(weights).shape == (2, 3, 5)
    torch.testing.assert_close(spectrum.condition_number(weights)[1, 2], spectrum.condition_number(weights[1, 2]))


def test_row_norms_are_the_norms_of_what_leaves_each_input():
    weight = gaussian(4, 6)
    unit_inputs = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(spectrum.row_norms(weight), nn.functional.linear(unit_inputs, weight).norm(dim=1))
    torch.testing.assert_close(spectrum.row_norms(maps.row(weight)), torch.ones(6, dtype=torch.float64))


def test_row_norms_survive_float32_extremes():
    torch.testing.assert_close(
        spectrum.row_norms(torch.tensor([[3e30, 3e-30], [4e30, 4e-30]])),
        torch.tensor([5e30, 5e-30], dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )


@pytest.mark.parametrize(("n_out", "n_in"), [(5, 5), (3, 7), (7, 3)])
def test_the_ranks_count_equal_singular_values_and_nothing_else(n_out: int, n_in: int):
    two = with_singular_values([4.0, 4.0, 0.0], n_out, n_in)
    for rank in (spectrum.effective_rank, spectrum.stable_rank):
        torch.testing.assert_close(rank(two), torch.tensor(2.0, dtype=torch.float64), rtol=1e-12, atol=0)
        assert rank(torch.zeros(n_out, n_in)).item() == 0


@settings(max_examples=25, deadline=None)
@given(n_out=st.integers(1, 6), n_in=st.integers(1, 6), seed=st.integers(0, 10**6), scale=st.floats(1e-6, 1e6))
def test_the_ranks_lie_between_one_and_the_rank_and_are_invariant_to_scale(
    n_out: int, n_in: int, seed: int, scale: float
):
    weight = gaussian(n_out, n_in, seed=seed)
    stable, effective = spectrum.stable_rank(weight), spectrum.effective_rank(weight)
    assert min(stable, effective) >= 1 - 1e-12
    assert max(stable, effective) <= min(n_out, n_in) * (1 + 1e-12)
    torch.testing.assert_close(spectrum.stable_rank(scale * weight), stable)
    torch.testing.assert_close(spectrum.effective_rank(scale * weight.T), effective)


def test_the_effective_rank_is_the_exponential_of_the_entropy():
    weight = with_singular_values([4.0, 2.0, 1.0, 1.0], 4, 6)
    shares = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    torch.testing.assert_close(spectrum.effective_rank(weight), torch.exp(-(shares * shares.log()).sum()))
    torch.testing.assert_close(spectrum.stable_rank(weight), torch.tensor(22 / 16, dtype=torch.float64))


@settings(max_examples=25, deadline=None)
@given(n_in=st.integers(1, 6), more=st.integers(0, 4), seed=st.integers(0, 10**6))
def test_the_spread_of_row_norms_is_at_most_kappa_if_there_are_no_more_inputs_than_outputs(n_in, more, seed):
    weight = gaussian(n_in + more, n_in, seed=seed)
    assert 1 <= spectrum.row_norm_spread(weight) <= spectrum.condition_number(weight) * (1 + 1e-9)


def test_equilibrated_rows_have_no_spread_and_a_zero_row_an_infinite_one():
    weight = gaussian(4, 6)
    made = maps.row(weight)
    assert spectrum.row_norm_spread(made).item() == pytest.approx(1, abs=1e-12)
    assert spectrum.row_norm_variation(made).item() == pytest.approx(0, abs=1e-12)
    weight[:, 2] = 0
    assert spectrum.row_norm_spread(weight).item() == math.inf
    assert spectrum.row_norm_variation(torch.zeros(3, 2)).item() == 0
    norms = spectrum.row_norms(weight)
    torch.testing.assert_close(spectrum.row_norm_variation(weight), norms.std(correction=0) / norms.mean())


@pytest.mark.parametrize(
    "measure", [spectrum.effective_rank, spectrum.stable_rank, spectrum.row_norm_spread, spectrum.row_norm_variation]
)
def test_the_other_measures_take_batches_too(measure):
    weights = gaussian(2, 3, 4, 5)
    assert measure(weights).shape == (2, 3)
    torch.testing.assert_close(measure(weights)[1, 2], measure(weights[1, 2]))


def test_the_report_tells_what_layers_apply_and_what_lies_beneath():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3), nn.ReLU())
    raw = [model[i].weight.detach().clone() for i in range(3)]
    layers.condition(model, "row", ["0"])
    layers.weight_norm(model, ["1"])
    report = spectrum.layer_report(model, ["2", "0", "1"])
    assert list(report) == ["2", "0", "1"]
    assert report["0"] == {
        "kappa": spectrum.condition_number(maps.row(raw[0])).item(),
        "row_norm_min": pytest.approx(1, abs=1e-6),
        "row_norm_max": pytest.approx(1, abs=1e-6),
        "row_norm_spread": pytest.approx(1, abs=1e-6),
        "effective_rank": spectrum.effective_rank(maps.row(raw[0])).item(),
        "stable_rank": spectrum.stable_rank(maps.row(raw[0])).item(),
        **{"rank": 4.0, "kappa_range": pytest.approx(spectrum.condition_number(maps.row(raw[0])).item())},
        "kappa_raw": spectrum.condition_number(raw[0]).item(),
        "effective_rank_raw": spectrum.effective_rank(raw[0]).item(),
        "stable_rank_raw": spectrum.stable_rank(raw[0]).item(),
    }
    assert report["1"]["kappa"] == pytest.approx(spectrum.condition_number(raw[1]).item(), rel=1e-4)
    assert report["1"]["kappa_raw"] == pytest.approx(spectrum.condition_number(raw[1]).item(), rel=1e-4)
    assert report["2"] == {
        "kappa": spectrum.condition_number(raw[2]).item(),
        "row_norm_min": spectrum.row_norms(raw[2]).min().item(),
        "row_norm_max": spectrum.row_norms(raw[2]).max().item(),
        "row_norm_spread": spectrum.row_norm_spread(raw[2]).item(),
        "effective_rank": spectrum.effective_rank(raw[2]).item(),
        "stable_rank": spectrum.stable_rank(raw[2]).item(),
        **{"rank": 3.0, "kappa_range": pytest.approx(spectrum.condition_number(raw[2]).item())},
    }


@pytest.mark.parametrize("method", ["weight_norm", "spectral_norm", "fourier", "orthogonal", "weight_standardisation"])
def test_raw_values_are_those_of_the_trained_matrix_whatever_the_method(method: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4))
        layers.condition(model, method, ["0"])
    matrix = max(model[0].parametrizations.weight.parameters(), key=torch.numel)
    with torch.no_grad():
        matrix[0] *= 3
    report = spectrum.layer_report(model)["0"]
    assert report["kappa_raw"] == pytest.approx(spectrum.condition_number(matrix).item())
    assert report["stable_rank_raw"] == pytest.approx(spectrum.stable_rank(matrix).item())
    assert report["effective_rank_raw"] == pytest.approx(spectrum.effective_rank(matrix).item())
    is_changed = report["stable_rank_raw"] != pytest.approx(report["stable_rank"], rel=1e-3)
    assert is_changed == (method != "spectral_norm")  # it divides all by one number


class _Product(Parametrization):
    """A weight of two factors."""

    method = "product"

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return left @ right

    def right_inverse(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.eye(len(weight)), weight.clone()


def test_raw_parameters_that_are_not_one_matrix_have_no_raw_values():
    model = nn.Sequential(nn.Linear(5, 4))
    expected = spectrum.condition_number(model[0].weight).item()
    nn.utils.parametrize.register_parametrization(model[0], "weight", _Product())
    report = spectrum.layer_report(model)["0"]
    assert report["kappa"] == pytest.approx(expected)
    assert not [key for key in report if key.endswith("_raw")]


def test_parametrizations_of_others_have_no_raw_values():
    model = nn.Sequential(nn.utils.parametrizations.orthogonal(nn.Linear(5, 4)))
    assert not [key for key in spectrum.layer_report(model)["0"] if key.endswith("_raw")]


def test_of_a_layer_with_several_matrices_the_worst_is_told():
    conv = nn.Conv2d(4, 6, 3, groups=2)
    attention = nn.MultiheadAttention(8, 2, kdim=3, vdim=5)
    model = nn.ModuleDict({"conv": conv, "attention": attention})
    with torch.no_grad():
        conv.weight[4] *= 100
    raw = conv.weight.detach().reshape(2, 3, 18)
    layers.condition(model, "row", ["conv", "attention"])
    report = spectrum.layer_report(model, ["conv", "attention"])
    made = maps.row(raw)
    assert report["conv"] == {
        "kappa": pytest.approx(max(spectrum.condition_number(matrix).item() for matrix in made), rel=1e-5),
        "row_norm_min": pytest.approx(1, abs=1e-6),
        "row_norm_max": pytest.approx(1, abs=1e-6),
        "row_norm_spread": pytest.approx(1, abs=1e-6),
        "effective_rank": pytest.approx(min(spectrum.effective_rank(matrix).item() for matrix in made), rel=1e-5),
        "stable_rank": pytest.approx(min(spectrum.stable_rank(matrix).item() for matrix in made), rel=1e-5),
        **{"rank": 3.0, "kappa_range": pytest.approx(report["conv"]["kappa"])},
        "kappa_raw": pytest.approx(max(spectrum.condition_number(matrix).item() for matrix in raw), rel=1e-5),
        "effective_rank_raw": pytest.approx(min(spectrum.effective_rank(matrix).item() for matrix in raw), rel=1e-5),
        "stable_rank_raw": pytest.approx(min(spectrum.stable_rank(matrix).item() for matrix in raw), rel=1e-5),
    }
    sides = [side.detach() for side in (attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight)]
    heads = [head for side in sides for head in side.split(4)]
    expected = max(spectrum.condition_number(head).item() for head in heads)
    assert report["attention"]["kappa"] == pytest.approx(expected, rel=1e-6)
    assert report["attention"]["rank"] == 3  # of keys, which have three channels
    together = max(spectrum.condition_number(side).item() for side in sides)
    assert report["attention"]["kappa_all_heads"] == pytest.approx(together, rel=1e-6)
    assert report["attention"]["row_norm_spread"] == pytest.approx(1, abs=1e-6)  # of the matrices of all heads


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_of_conditioned_attention_each_head_has_kappa_one_and_full_rank_by_construction(heads: int):
    model = nn.ModuleList([nn.MultiheadAttention(8, heads)]).double()
    initialize_attention_(model, ["0"], "conditioned_attention", torch.Generator().manual_seed(0))
    report = spectrum.layer_report(model)["0"]
    for name, expected in (("kappa", 1), ("rank", 8 // heads), ("effective_rank", 8 // heads)):
        assert report[name] == pytest.approx(expected, rel=1e-9)
    assert ("kappa_all_heads" in report) == (heads > 1)
    if heads > 1:  # the values of all heads are the same d of 8 channels
        assert report["kappa_all_heads"] > 1e15
        assert report["rank_all_heads"] == 8 // heads


def test_ranks_and_kappa_of_attention_are_those_of_its_worst_head():
    model = nn.ModuleList([nn.MultiheadAttention(8, 2)]).double()
    initialize_attention_(model, ["0"], "conditioned_attention_matrix", torch.Generator().manual_seed(0))
    with torch.no_grad():
        model[0].in_proj_weight[4:8] = torch.eye(4, 8) * torch.tensor([1.0, 2.0, 4.0, 0.0])[:, None]
    report = spectrum.layer_report(model)["0"]
    assert (report["rank"], report["kappa"], report["kappa_range"]) == (3, math.inf, pytest.approx(4))


@pytest.mark.parametrize("measure", [spectrum.condition_number, spectrum.stable_rank, spectrum.row_norm_spread])
def test_matrices_without_entries_have_no_statistics(measure):
    with pytest.raises(ValueError, match=r"weight has shape \(0, 3\); expected matrices with entries"):
        measure(torch.ones(0, 3))


def test_the_report_refuses_unknown_names_and_other_modules():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    for group in ("hidden", "all"):
        with pytest.raises(ValueError, match=rf"^{group} is a group, expected names of layers: those of select\(model"):
            spectrum.layer_report(model, group)
    with pytest.raises(ValueError, match=r"no layer is named 'linear'; the layers are 0$"):
        spectrum.layer_report(model, ["linear"])
    with pytest.raises(ValueError, match=r"1 is a ReLU; the layers that can be conditioned are Linear"):
        spectrum.layer_report(model, ["1"])


@pytest.mark.parametrize("measure", [spectrum.singular_values, spectrum.condition_number, spectrum.row_norms])
def test_shapes_are_executed(measure):
    with pytest.raises(TypeCheckError):
        measure(torch.ones(3))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("conditioned", [False, True])
def test_statistics_of_matrices_that_are_not_finite_are_nan_and_those_of_others_stay(value: float, conditioned: bool):
    net = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(4, 4, 1, groups=2))
    if conditioned:
        layers.condition(net, "row", "all")
    clean = spectrum.layer_report(net, ["0", "1"])
    with torch.no_grad():
        for layer in net:
            raw = layer.parametrizations.weight.original if conditioned else layer.weight
            raw.view(-1)[0] = value
    report = spectrum.layer_report(net, ["0", "1"])
    assert all(math.isnan(x) for layer in report.values() for x in layer.values())
    matrices = torch.stack([torch.full((3, 4), value), torch.eye(3, 4)])
    for function in (spectrum.condition_number, spectrum.effective_rank, spectrum.stable_rank):
        broken, identity = function(matrices)
        assert broken.isnan()
        assert torch.equal(identity, function(matrices[1]))
    assert not any(math.isnan(x) for layer in clean.values() for x in layer.values())


# rank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [1, 2, 6])
def test_rank_and_kappa_on_the_range_are_those_of_the_factors(rank: int, dtype: torch.dtype):
    left = torch.linalg.qr(gaussian(8, 6))[0][:, :rank]
    right = torch.linalg.qr(gaussian(6, 6, seed=1))[0][:, :rank]
    weight = (left * torch.logspace(0, 1, rank, dtype=torch.float64) @ right.T).to(dtype)
    assert spectrum.numerical_rank(weight).item() == rank
    kappa = 10.0 if rank > 1 else 1.0
    assert spectrum.range_condition_number(weight).item() == pytest.approx(kappa, rel=1e-4)
    if rank < 6:
        assert spectrum.condition_number(weight) > 1e6


def test_of_a_batch_each_matrix_has_its_rank_and_the_zero_matrix_none():
    weights = torch.stack([torch.zeros(3, 4), torch.eye(3, 4), torch.ones(3, 4), torch.full((3, 4), math.nan)])
    rank, kappa = spectrum.numerical_rank(weights), spectrum.range_condition_number(weights)
    torch.testing.assert_close(rank, torch.tensor([0.0, 3, 1, math.nan], dtype=torch.float64), equal_nan=True)
    torch.testing.assert_close(kappa, torch.tensor([math.inf, 1, 1, math.nan], dtype=torch.float64), equal_nan=True)


def test_the_report_is_of_all_layers_by_default():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Conv1d(4, 4, 1), nn.Embedding(3, 4))
    with torch.no_grad():
        net[2].weight[1:] = net[2].weight[:1]
    report = spectrum.layer_report(net)
    assert list(report) == ["0", "2"]
    assert report["2"]["rank"] == 1
    assert report["2"]["kappa_range"] == pytest.approx(1)
    assert report["2"]["kappa"] > 1e6


def test_complex_matrices_keep_their_imaginary_parts():
    matrix = torch.tensor([[1j, 0], [0, 2]])
    assert spectrum.condition_number(matrix) == 2
    assert spectrum.row_norms(torch.tensor([[3 + 4j, 0], [0, 1]])).tolist() == [5, 1]
    assert spectrum.numerical_rank(matrix) == 2
    assert spectrum.condition_number(matrix * math.nan).isnan()


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
def test_layers_without_entries_have_no_report():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 0), nn.LazyLinear(2))
    assert list(spectrum.layer_report(net)) == ["0"]
    for name in ("1", "2"):
        with pytest.raises(ValueError, match=f"{name} has no weights yet, or none at all"):
            spectrum.layer_report(net, [name])
