"""Parameters by their role: a partition of the model's parameters, each role by its defining property."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import layers, weight_views
from enerf.conditioning.groups import matrix_views, parameter_groups


class Encoder(nn.Module):
    """Embedding, attention, convolution, norms, and a token: a bit of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.conv = nn.Conv1d(8, 8, 3, padding=1, groups=2)
        self.square = nn.Linear(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.token
        h = self.norm(h + self.attention(h, h, h)[0])
        return self.head(torch.tanh(self.square(self.conv(h.transpose(1, 2)).transpose(1, 2))))


def encoder() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder().double().eval()


CASES = {
    "plain": [],
    "row": [("row", "all", {})],
    "row, learned": [("row", "all", {"scale": "learned"})],
    "row, kept": [("row", "all", {"scale": "kept"})],
    "row, kept divisors": [("row", "all", {"every": 10, "gradient": "detached"})],
    "row, a gain a row": [("row", "all", {"scale": "learned_rows"})],
    "several": [
        ("column", ["conv"], {"scale": "constant"}),
        ("weight_norm", ["head"], {}),
        ("ruiz", ["attention"], {"packing": "head"}),
        ("weight_standardisation", ["out_proj"], {}),
        ("jacobi", ["square"], {}),
    ],
}


def conditioned(case: str) -> Encoder:
    model = encoder()
    for method, names, how in CASES[case]:
        layers.condition(model, method, names, **how)
    return model


@pytest.mark.parametrize("case", CASES)
def test_each_parameter_is_in_one_group_in_the_models_order(case: str):
    model = conditioned(case)
    names = [name for name, _ in model.named_parameters()]
    groups = parameter_groups(model)
    assert sorted(name for group in groups for name in group) == sorted(names)
    for group in groups:
        assert list(group) == [name for name in names if name in group]
        assert all(parameter is model.get_parameter(name) for name, parameter in group.items())


@pytest.mark.parametrize("case", CASES)
def test_scale_invariant_ones_are_those_whose_scale_changes_nothing(case: str):
    model = conditioned(case)
    x = torch.arange(6).reshape(2, 3)
    groups = parameter_groups(model)
    before = model(x).detach()
    for name, parameter in {**groups.matrices, **groups.scale_invariant}.items():
        with torch.no_grad():
            parameter.mul_(2)
            unchanged = torch.allclose(model(x), before, rtol=1e-3 if "attention" in name else 1e-6, atol=1e-6)
            parameter.div_(2)
        assert unchanged == (name in groups.scale_invariant), name
    assert bool(groups.scale_invariant) == (case not in ("plain", "row, kept", "row, kept divisors"))


def test_what_is_in_the_groups():
    groups = parameter_groups(conditioned("row, learned"))
    assert set(groups.rest) >= {"embed.weight", "token", "norm.weight", "norm.bias", "square.bias"}
    assert len(groups.gains) == len(groups.scale_invariant) == 5
    assert all(name.endswith("gain") for name in groups.gains)
    assert list(parameter_groups(conditioned("several")).gains) == ["head.parametrizations.weight.original0"]
    assert set(parameter_groups(encoder()).matrices) == {
        *("attention.in_proj_weight", "attention.out_proj.weight"),
        *("conv.weight", "square.weight", "head.weight"),
    }


def test_tied_weights_and_parametrizations_of_others_have_their_place_too():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.GRUCell(4, 4))
    net[1].weight = net[0].weight
    parametrizations.orthogonal(net[2])
    layers.condition(net, "row", ["0"])
    layers.condition_tensor(net[3], "weight_hh")
    groups = parameter_groups(net)
    assert list(groups.scale_invariant) == [
        "0.parametrizations.weight.original",
        "3.parametrizations.weight_hh.original",
    ]
    assert list(groups.matrices) == ["2.parametrizations.weight.original"]
    chained = nn.Sequential(nn.Linear(4, 4))
    layers.condition(chained, "row", "all")
    parametrize.register_parametrization(chained[0], "weight", nn.Identity())
    assert list(parameter_groups(chained).matrices) == ["0.parametrizations.weight.original"]


@pytest.mark.parametrize("case", CASES)
def test_every_weight_has_a_view_as_matrices_conditioned_or_not(case: str):
    model = conditioned(case)
    groups, views = parameter_groups(model), matrix_views(model)
    weights = {**groups.matrices, **groups.scale_invariant}
    names = [name for name, parameter in model.named_parameters() if parameter in views]
    assert sorted(names) == sorted(weights)
    assert all(view.shape == tuple(parameter.shape) for parameter, view in views.items())
    plain = encoder()
    of_layers = {view.name: view for name in ("attention", "conv") for view in weight_views.views(getattr(plain, name))}
    found = {view.shape: view for view in views.values()}
    for view in of_layers.values():
        assert found[view.shape] == view  # three projections, two groups


def test_weights_without_a_matrix_of_their_shape_have_no_view_and_tied_ones_have_one():
    net = nn.Sequential(nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Embedding(4, 4), nn.LayerNorm(4))
    net[2].weight = net[1].weight
    layers.condition(net, "weight_norm", ["0"])  # its lengths have the shape of its directions
    views = matrix_views(net)
    assert [name for name, parameter in net.named_parameters() if parameter in views] == [
        "0.parametrizations.weight.original1",
        "1.weight",
    ]
    layers.condition(wide := nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8)), "fourier", ["1"])
    assert list(matrix_views(wide)) == [wide[0].weight]
    assert matrix_views(nn.Sequential(nn.LazyLinear(3), nn.LazyConv2d(4, 3))) == {}


def test_norms_of_others_have_roles_also_in_modules_that_are_no_layers():
    cell = nn.utils.parametrizations.weight_norm(nn.GRUCell(3, 4), "weight_hh")
    groups = parameter_groups(cell)
    assert list(groups.gains) == ["parametrizations.weight_hh.original0"]
    assert list(groups.scale_invariant) == ["parametrizations.weight_hh.original1"]
