"""Laws of the diagnostics."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from enerf.conditioning import equilibrate, layers, spectrum


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
def test_kappa_is_at_least_one_blind_to_scale_and_to_transposition(n_out: int, n_in: int, seed: int, scale: float):
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
    torch.testing.assert_close(spectrum.row_norms(equilibrate.row(weight)), torch.ones(6, dtype=torch.float64))


def test_row_norms_survive_float32_extremes():
    torch.testing.assert_close(
        spectrum.row_norms(torch.tensor([[3e30, 3e-30], [4e30, 4e-30]])),
        torch.tensor([5e30, 5e-30], dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )


def test_the_report_tells_what_layers_apply_and_what_lies_beneath():
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3), nn.ReLU())
    raw = [model[i].weight.detach().clone() for i in range(3)]
    layers.condition(model, "row", ["0"])
    layers.weight_norm(model, ["1"])
    report = spectrum.layer_report(model, ["2", "0", "1"])
    assert list(report) == ["2", "0", "1"]
    assert report["0"] == {
        "kappa": spectrum.condition_number(equilibrate.row(raw[0])).item(),
        "row_norm_min": pytest.approx(1, abs=1e-6),
        "row_norm_max": pytest.approx(1, abs=1e-6),
        "kappa_raw": spectrum.condition_number(raw[0]).item(),
    }
    assert report["1"]["kappa"] == pytest.approx(spectrum.condition_number(raw[1]).item(), rel=1e-4)
    assert "kappa_raw" not in report["1"]
    assert report["2"] == {
        "kappa": spectrum.condition_number(raw[2]).item(),
        "row_norm_min": spectrum.row_norms(raw[2]).min().item(),
        "row_norm_max": spectrum.row_norms(raw[2]).max().item(),
    }


def test_the_report_refuses_unknown_names_and_other_modules():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    with pytest.raises(ValueError, match=r"no layer is named 'linear'; the nn.Linear layers are 0$"):
        spectrum.layer_report(model, ["linear"])
    with pytest.raises(ValueError, match=r"1 is a ReLU; only nn.Linear"):
        spectrum.layer_report(model, ["1"])


@pytest.mark.parametrize("measure", [spectrum.singular_values, spectrum.condition_number, spectrum.row_norms])
def test_shapes_are_executed(measure):
    with pytest.raises(TypeCheckError):
        measure(torch.ones(3))
