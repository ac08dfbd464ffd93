"""Tests of Hessians and Gauss–Newton matrices: they are what autograd says, for plain and for conditioned models."""

import copy
import functools
import math
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from enerf.conditioning import layers, selection, state_dict
from enerf.conditioning.diagnostics import curvature, eigenvalues, spectrum
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.fields.nerf import NeRF


class Rays(nn.Module):
    """The mean colour and density of a tiny NeRF along rays given as rows (origin, direction)."""

    def __init__(self) -> None:
        super().__init__()
        self.field = NeRF(2, 6, 1, 1, use_viewdirs=True, density="softplus")

    def forward(self, rows: Tensor) -> Tensor:
        t_vals = torch.linspace(0.5, 2, 4, dtype=rows.dtype)
        points = rows[:, None, :3] + rows[:, None, 3:] * t_vals[:, None]
        seen = self.field(points, nn.functional.normalize(rows[:, 3:], dim=-1))
        return torch.cat([seen.rgb.mean(-2), seen.density.mean(-1, keepdim=True)], -1)


def make(kind: str, method: str = "none", scale: str = "fixed", seed: int = 0, **more) -> Objective:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        models = {
            "mlp": lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)),
            "cnn": lambda: nn.Sequential(
                nn.Conv2d(2, 4, 3),
                nn.Tanh(),
                nn.Conv2d(4, 4, 2, groups=2),
                nn.BatchNorm2d(4),
                nn.Flatten(),
                nn.Linear(4, 3),
            ),
            "nerf": Rays,
        }
        shapes = {"mlp": (7, 3), "cnn": (6, 2, 4, 4), "nerf": (5, 6)}
        model = models[kind]().double().eval()
        inputs = torch.randn(shapes[kind], dtype=torch.float64)
        targets = torch.randn(model(inputs).shape, dtype=torch.float64)
    loss: nn.Module = nn.MSELoss()
    if kind == "cnn":
        targets, loss = torch.arange(6) % 3, nn.CrossEntropyLoss()
    if method != "none":
        heads = selection.present(model, ("4", "5", "density_head", "rgb_head"))
        layers.condition(model, method, "hidden", scale=scale, heads=heads, **more)
    if method == "weight_norm":
        curvature.make_differentiable_(model)
    return Objective(model, loss, inputs, targets)


def reference(objective: Objective) -> tuple[Tensor, Tensor]:
    """Hessian and Gauss–Newton matrix, by autograd, column after column."""
    parameters = objective.free_parameters()
    names = [next(n for n, p in objective.model.named_parameters() if p is q) for q in parameters]
    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]

    def outputs(flat: Tensor) -> Tensor:
        parts = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        return functional_call(objective.model, dict(zip(names, parts, strict=True)), (objective.inputs,))

    def loss(made: Tensor) -> Tensor:
        return objective.loss(made, objective.targets)

    flat = torch.cat([p.detach().flatten() for p in parameters])
    hessian = torch.autograd.functional.hessian(lambda at: loss(outputs(at)), flat)
    jacobian = torch.autograd.functional.jacobian(outputs, flat).flatten(0, -2)
    made = outputs(flat).detach()
    bend = torch.autograd.functional.hessian(lambda out: loss(out.reshape(made.shape)), made.flatten())
    return hessian, jacobian.T @ bend @ jacobian


CASES = [
    *(("mlp", "none", "fixed"), ("mlp", "row", "fixed"), ("mlp", "row", "learned"), ("mlp", "ruiz", "kept")),
    ("mlp", "orthogonal", "learned"),
    *(("cnn", "none", "fixed"), ("cnn", "row", "learned"), ("cnn", "weight_norm", "fixed")),
    *(("nerf", "none", "fixed"), ("nerf", "row", "learned"), ("nerf", "row_column", "fixed")),
]


@functools.cache
def reference_of(*case: str) -> tuple[Tensor, Tensor]:
    """The same for a case, computed once; look, do not write."""
    return reference(make(*case))


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_hessian_is_the_one_autograd_computes_of_raw_weights_and_gains(case):
    objective = make(*case)
    expected, _ = reference_of(*case)
    found = eigenvalues.dense(curvature.hessian(objective))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert expected.abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_gauss_newton_matrix_is_the_jacobian_around_the_losss_second_derivative(case):
    objective = make(*case)
    _, expected = reference_of(*case)
    found = eigenvalues.dense(curvature.gauss_newton(objective))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_the_small_gram_matrix_has_all_the_gauss_newton_eigenvalues_that_need_not_be_zero(case):
    objective = make(*case)
    _, whole = reference_of(*case)
    expected = torch.linalg.eigvalsh(whole).flip(0)
    found = curvature.gauss_newton_spectrum(objective)
    outputs = objective.model(objective.inputs).numel()
    assert len(found) == min(outputs, len(whole))
    torch.testing.assert_close(found, expected[: len(found)].clamp(min=0.0), rtol=1e-9, atol=1e-12)
    assert expected[len(found) :].abs().max() < 1e-12 if len(found) < len(expected) else True


def test_only_the_parameters_that_are_named_are_differentiated():
    whole, _ = reference(make("mlp"))
    objective = make("mlp")
    some = Objective(
        objective.model, objective.loss, objective.inputs, objective.targets, tuple(objective.free_parameters()[2:4])
    )
    block = slice(20, 44)  # the second layer: 5 × 4 weights, 4 biases; 3 × 5 and 5 come before
    torch.testing.assert_close(eigenvalues.dense(curvature.hessian(some)), whole[block, block])
    assert curvature.gauss_newton_spectrum(some).shape == (14,)


def test_a_map_that_is_invariant_to_scale_makes_the_hessian_fall_with_the_square_of_the_raw_weights():
    first, second = make("mlp", "row"), make("mlp", "row")
    with torch.no_grad():
        second.model[0].parametrizations.weight.original.mul_(2)
    assert second.value() == pytest.approx(first.value(), rel=1e-12)

    def of_raw_weights(objective: Objective) -> Tensor:
        raw = (objective.model[0].parametrizations.weight.original,)
        some = Objective(objective.model, objective.loss, objective.inputs, objective.targets, raw)
        return eigenvalues.dense(curvature.hessian(some))

    torch.testing.assert_close(4 * of_raw_weights(second), of_raw_weights(first))


def test_a_map_with_detached_divisors_is_seen_through():
    expected, _ = reference(make("mlp", "row"))
    objective = make("mlp", "row", gradient="detached")
    curvature.make_differentiable_(objective.model)
    torch.testing.assert_close(eigenvalues.dense(curvature.hessian(objective)), expected)


def test_gradients_that_are_preconditioned_are_seen_through():
    expected, _ = reference(make("mlp"))
    objective = make("mlp", "batch_norm")
    objective.model.train()(objective.inputs)
    curvature.make_differentiable_(objective.model.eval())
    torch.testing.assert_close(eigenvalues.dense(curvature.hessian(objective)), expected)


def test_seeing_through_weight_norm_changes_no_weight_and_no_key():
    conv = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2).double())
    layers.condition(conv, "weight_norm")
    weight, keys = conv[0].weight, list(conv.state_dict())
    curvature.make_differentiable_(conv)
    torch.testing.assert_close(conv[0].weight, weight)
    assert list(conv.state_dict()) == keys


def test_the_value_is_the_loss():
    objective = make("cnn")
    assert objective.value() == objective.loss(objective.model(objective.inputs), objective.targets).item()


def test_torchs_random_numbers_stay_as_they_were():
    before = torch.get_rng_state()
    objective = make("mlp", "row")
    eigenvalues.extremes(curvature.hessian(objective))
    eigenvalues.density(curvature.gauss_newton(objective), steps=4)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_dead_model_has_no_curvature_and_no_condition_number():
    objective = make("mlp")
    with torch.no_grad():
        for parameter in objective.free_parameters():
            parameter.zero_()
    found = curvature.gauss_newton_spectrum(
        Objective(objective.model[:4], nn.MSELoss(), objective.inputs, torch.ones(7, 4).double())
    )
    assert eigenvalues.condition_number_above(found, curvature.rounding(found, torch.float64)) == (math.inf, 0)


def test_what_float32_gradients_make_of_a_zero_counts_as_rounding():
    objective = make("mlp")
    final = objective.model[4]
    final.weight.data[1] = final.weight.data[0]  # two outputs that differ by a constant: half of the rows are doubled
    final.requires_grad_(False)
    rank = int(torch.linalg.matrix_rank(reference(objective)[1]))
    assert rank < 14
    for dtype in (torch.float64, torch.float32):
        objective.model.to(dtype)
        batch = (objective.inputs.to(dtype), objective.targets.to(dtype))
        values = curvature.gauss_newton_spectrum(Objective(objective.model, objective.loss, *batch))
        assert eigenvalues.condition_number_above(values, curvature.rounding(values, dtype))[1] == rank


def test_a_loss_that_bends_downwards_is_refused():
    objective = make("mlp")
    bent = Objective(objective.model, lambda a, b: -(a - b).square().mean(), objective.inputs, objective.targets)
    with pytest.raises(ValueError, match="the loss is not convex"):
        curvature.gauss_newton_spectrum(bent)


@pytest.mark.parametrize("missing", ["curvlinops", "scipy.sparse.linalg"])
def test_without_the_extra_one_sentence_says_what_to_install_and_what_works_without(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    ask = {
        "curvlinops": lambda: curvature.hessian(make("mlp")),
        "scipy.sparse.linalg": lambda: eigenvalues.extremes(torch.eye(100)),
    }
    with pytest.raises(ImportError, match=r'pip install "enerf\[diagnostics\]"; singular values, κ and row norms'):
        ask[missing]()


def test_the_gauss_newton_spectrum_of_weights_that_are_not_finite_is_nan():
    objective = make("mlp")
    with torch.no_grad():
        objective.model[0].weight[0, 0] = math.nan
    assert curvature.gauss_newton_spectrum(objective).isnan().all()


def test_the_gauss_newton_spectrum_of_a_linear_function_that_is_not_finite_is_nan():
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight[0, 0] = math.nan
    points = torch.ones(3, 2, dtype=torch.float64)
    objective = Objective(model, nn.functional.mse_loss, points, points)
    assert curvature.gauss_newton_spectrum(objective).isnan().all()


def test_the_gauss_newton_spectrum_of_large_outputs_in_half_precision_is_finite():
    model = nn.Linear(2, 2).half()
    nn.init.constant_(model.bias, 200.0)
    points = torch.ones(200, 2, dtype=torch.float16)  # the sum of all outputs is larger than this type can hold
    objective = Objective(model, nn.functional.mse_loss, points, 200 * points)
    assert curvature.gauss_newton_spectrum(objective).isfinite().all()


def test_weight_norm_of_others_stays_that_of_others_in_a_model_that_was_made_differentiable():
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 4))
    layers.condition(net, "weight_norm", ["1"])
    before = spectrum.layer_report(net)
    curvature.make_differentiable_(net)
    assert layers.conditioned_layers(net) == {"1": "weight_norm"}
    assert spectrum.layer_report(net)["0"] == pytest.approx(before["0"], rel=1e-4)
    state = layers.bake(copy.deepcopy(net)).state_dict()
    assert [name for name in state if "weight" in name and "original" not in name] == ["1.weight"]
    net.load_state_dict(state_dict.unbaked_state(net, state))
    torch.testing.assert_close(net[1].weight, state["1.weight"])


@pytest.mark.parametrize("method", ["weight_norm", "row", "spectral_norm", "fourier"])
def test_a_report_of_a_model_that_was_made_differentiable_is_that_of_the_model(method: str):
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)).double()
    layers.condition(net, method)
    net.eval()
    copied = copy.deepcopy(net)
    curvature.make_differentiable_(copied)
    found, expected = spectrum.layer_report(copied), spectrum.layer_report(net)
    assert layers.conditioned_layers(copied) == layers.conditioned_layers(net)
    assert found.keys() == expected.keys()
    for name, of_layer in expected.items():
        assert {"kappa_raw", "stable_rank_raw", "effective_rank_raw"} <= of_layer.keys()
        assert found[name] == pytest.approx(of_layer, rel=1e-9)


@pytest.mark.parametrize(
    ("method", "more", "sentence"),
    [
        ("row", {"gradient": "detached"}, "0 has a map with gradient='detached': apply make_differentiable_ to a copy"),
        ("row", {"gradient": "detached", "every": 5}, "0 has a map with gradient='detached'"),
        ("batch_norm", {}, "0 has a preconditioner of gradients: apply make_differentiable_"),
        ("weight_norm", {}, "0 has torch's weight norm, which has no derivatives in forward mode"),
        ("spectral_norm", {}, "is spectral norm in training mode, where each call changes it: use model.eval"),
    ],
)
def test_what_has_other_derivatives_than_its_function_is_refused(method, more, sentence):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    layers.condition(net, method, **more)
    objective = Objective(net, nn.MSELoss(), torch.randn(4, 3).double(), torch.randn(4, 2).double())
    operators = [curvature.hessian, curvature.gauss_newton]
    for operator in [*operators, *[curvature.gauss_newton_spectrum] * (method != "weight_norm")]:
        with pytest.raises(ValueError, match=sentence):
            operator(objective)
    if method == "spectral_norm":
        net.eval()
    else:
        curvature.make_differentiable_(net)
    products = curvature.hessian(objective) @ torch.eye(sum(p.numel() for p in objective.free_parameters())).double()
    torch.testing.assert_close(products, reference(objective)[0], rtol=1e-8, atol=1e-9)


def test_mistakes_in_an_objective_are_one_sentence():
    net = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    batch = torch.randn(4, 3), torch.randn(4, 2)
    net[0].requires_grad_(False)
    for parameters, sentence in (((net[0].weight,), "is frozen"), ((nn.Parameter(torch.ones(2)),), "is not one of")):
        with pytest.raises(ValueError, match=rf"a parameter of shape \(.*\) {sentence}.*; expected trained ones"):
            Objective(net, nn.MSELoss(), *batch, parameters)
    each = Objective(net, nn.MSELoss(reduction="none"), *batch)
    for measure in (
        curvature.gauss_newton_spectrum,
        Objective.value,
        lambda of: curvature.hessian(of) @ torch.ones(12),
        lambda of: curvature.gauss_newton(of) @ torch.ones(12),
    ):
        with pytest.raises(ValueError, match=r"the loss has shape \(4, 2\), expected a scalar: is a reduction missing"):
            measure(each)
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="the model has no trained parameters"):
        Objective(net, nn.MSELoss(), *batch)


def test_group_norm_is_refused_where_forward_mode_is_needed():
    net = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4)).double()
    objective = Objective(net, nn.MSELoss(), torch.randn(4, 3).double(), torch.randn(4, 4).double())
    with pytest.raises(ValueError, match="1 has group normalization, which has no derivatives in forward mode"):
        curvature.hessian(objective)
    assert curvature.gauss_newton_spectrum(objective).isfinite().all()
