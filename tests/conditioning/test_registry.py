"""Layer types and maps that users add, and single tensors of any module."""

import copy
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from enerf.conditioning import (
    groups,
    layers,
    maps,
    parametrization,
    registry,
    selection,
    state_dict,
    suitability,
    weight_views,
)
from enerf.conditioning.diagnostics import spectrum
from enerf.conditioning.interface import Parametrization
from enerf.conditioning.weight_cache import computed_once
from enerf.conditioning.weight_views import WeightView
from enerf.config import conditionings


@pytest.fixture(autouse=True)
def _registrations() -> Iterator[None]:
    """Registrations hold for the process; put back what was there."""
    tables = (weight_views.REGISTERED, maps.ADDED, parametrization.MAPS, selection.APPLIED)
    before = [dict(each) for each in tables]
    yield
    for each, content in zip(tables, before, strict=True):
        each.clear()
        each.update(content)


class Conv1D(nn.Module):
    """GPT-2's linear layer, which stores the transpose: weight of shape (n_in, n_out)."""

    def __init__(self, n_out: int, n_in: int) -> None:
        super().__init__()
        self.nf, self.nx = n_out, n_in
        self.weight = nn.Parameter(torch.randn(n_in, n_out, generator=torch.Generator().manual_seed(0)))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def description(module: Conv1D) -> list[WeightView]:
    return [WeightView("weight", (module.nx, module.nf), (), module.nf, module.nx, transposed=True)]


def both() -> tuple[nn.Sequential, nn.Sequential]:
    """A network of Conv1D, and the same one of linear layers."""
    ours = nn.Sequential(Conv1D(5, 3), nn.Tanh(), Conv1D(4, 5)).double()
    linear = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    with torch.no_grad():
        for a, b in zip(ours, linear, strict=True):
            if isinstance(a, Conv1D):
                b.weight.copy_(a.weight.T)
                b.bias.zero_()
    return ours, linear


@pytest.mark.parametrize(
    ("method", "how"),
    [
        *(("row", {}), ("column", {"scale": "learned"}), ("ruiz", {"scale": "kept"}), ("weight_norm", {})),
        *(("weight_standardisation", {}), ("row", {"scale": "learned_rows"}), ("unit_row", {})),
        ("row", {"gradient": "detached", "every": 2}),
    ],
)
def test_a_registered_layer_is_conditioned_as_the_linear_layer_that_it_is(method: str, how: dict[str, object]):
    registry.register_layer(Conv1D, description)
    ours, linear = both()
    for net in (ours, linear):
        assert layers.condition(net, method, "all", **how) == ["0", "2"]
    x = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for net in (ours, linear):
        with computed_once(net):
            net(x).square().sum().backward()
    torch.testing.assert_close(ours(x), linear(x), rtol=1e-10, atol=1e-12)
    for (name, a), (_, b) in zip(ours.named_parameters(), linear.named_parameters(), strict=True):
        turned = a.dim() == 2 and a.shape != b.shape
        torch.testing.assert_close(a.grad.T if turned else a.grad, b.grad, rtol=1e-9, atol=1e-11, msg=name)
    assert spectrum.layer_report(ours).keys() == {"0", "2"}
    before = ours.eval()(x)
    assert torch.equal(layers.bake(ours)(x), before)
    assert ours[0].weight.shape == (3, 5)


def test_before_it_is_registered_it_is_told_as_unknown():
    ours, _ = both()
    with pytest.raises(ValueError, match="no layer belongs to 'all'"):
        layers.condition(ours, "row", "all")
    ours.append(nn.Linear(4, 2))
    done = layers.condition(ours, "row", "all")
    assert (done, list(done.unknown)) == (["3"], ["0", "2"])
    registry.register_layer(Conv1D, description)
    assert layers.condition(ours, "row", Conv1D) == ["0", "2"]
    assert layers.select(ours, "Conv1D").names == ["0", "2"]


@pytest.mark.parametrize(("kind", "sentence"), [(int, "expected a subclass"), (nn.Linear, "is a layer already")])
def test_types_that_cannot_be_registered_are_refused(kind: type, sentence: str):
    with pytest.raises(TypeError, match=sentence):
        registry.register_layer(kind, description)


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4))


@pytest.mark.parametrize(
    ("views", "error", "sentence"),
    [
        (lambda module: WeightView("w", (3, 4), (), 3, 4), TypeError, r"are WeightView\(.*; expected a list of"),
        (lambda module: None, TypeError, "are None; expected a list of WeightView"),
        (lambda module: ["w"], TypeError, r"are \['w'\]; expected a list of WeightView"),
        (lambda module: [WeightView("weight", (3, 4), (), 3, 4)], ValueError, "'weight'; its parameters are w$"),
    ],
)
def test_views_that_are_none_are_told_with_their_type(views, error: type[Exception], sentence: str):
    registry.register_layer(Sparse, views)
    net = nn.Sequential(Sparse(), nn.Linear(4, 4))
    with pytest.raises(error, match=rf"^the views of Sparse \(register_layer\) .*{sentence}"):
        layers.condition(net, "row")
    assert layers.conditioned_layers(nn.Sequential(net[1])) == {}


# maps


def halved(weight: Tensor, gradient: str, p: float) -> Tensor:
    return maps.row(weight, gradient, p) / 2


def test_a_registered_map_is_a_method_with_the_options_of_the_others():
    registry.register_map(
        "halved",
        halved,
        divisors=lambda weight, p: (2 * maps.divisors(weight, "row", p)[0], maps.divisors(weight, "row", p)[1]),
        unsuitable=lambda view: "it has a single output" if view.n_out == 1 else None,
        scale_invariant=True,
    )
    made = {}
    for how in ({}, {"gradient": "detached", "every": 3}, {"scale": "learned"}, {"p": 1}):
        net = nn.Sequential(nn.Linear(4, 6), nn.Conv2d(4, 6, 3, groups=2), nn.Linear(4, 1))
        raw = net[0].weight.detach().clone()
        done = layers.condition(net, "halved", "all", **how)
        assert (done, done.left_out) == (["0", "1"], {"2": "it has a single output"})
        made[str(how)] = net
        expected = halved(raw, "through", how.get("p", 2))
        scale = raw.norm() / expected.norm() if "scale" in how else 1
        torch.testing.assert_close(net[0].weight.detach(), scale * expected)
        assert layers.conditioned_layers(net) == {"0": "halved", "1": "halved"}
        baked = state_dict.baked_state(net, net.state_dict())
        torch.testing.assert_close(baked["0.weight"], net[0].weight.detach())
        with computed_once(net):
            assert torch.equal(net[1].weight, net[1].weight)


def test_layers_keep_the_map_that_they_were_conditioned_with():
    nets = [nn.Sequential(nn.Linear(4, 4)) for _ in range(2)]
    for net, factor in zip(nets, (2, 3), strict=True):
        registry.register_map(
            "part",
            lambda weight, gradient, p, factor=factor: weight / factor,
            divisors=lambda weight, p: maps.divisors(weight, "row", p),
            scale_invariant=factor == 3,
        )
        layers.condition(net, "part")
    for net, factor in zip(nets, (2, 3), strict=True):
        for each in (net, copy.deepcopy(net)):
            raw = each[0].parametrizations.weight.original
            assert torch.equal(each[0].weight, raw / factor)
            assert bool(groups.parameter_groups(each).scale_invariant) == (factor == 3)
    registry.register_parametrization("part", lambda module, view: None)
    assert nets[0](torch.ones(1, 4)).isfinite().all()
    with computed_once(nn.ModuleList(nets)):
        assert torch.equal(nets[0][0].weight, nets[0][0].parametrizations.weight.original / 2)


def test_detached_divisors_of_a_registered_map_are_constants_whatever_its_function_does():
    of_rows = nn.Sequential(nn.Linear(5, 8)).double()
    ours = copy.deepcopy(of_rows)
    registry.register_map(
        "unit_rows",
        lambda weight, gradient, p: weight / weight.norm(dim=-2, keepdim=True),
        divisors=lambda weight, p: (weight.norm(dim=-2, keepdim=True), torch.ones_like(weight[..., :1])),
    )
    for net, method in ((ours, "unit_rows"), (of_rows, "row")):
        layers.condition(net, method, gradient="detached")
        net(torch.arange(20.0, dtype=torch.float64).reshape(4, 5)).square().sum().backward()
    torch.testing.assert_close(*(net[0].parametrizations.weight.original.grad for net in (ours, of_rows)))


@pytest.mark.parametrize(
    ("function", "how", "sentence"),
    [
        (lambda w, gradient, p: w[..., :1, :], {}, r"the map odd returned a tensor of shape \(1, 4\)"),
        (lambda w, gradient, p: w.double(), {}, r"the map odd returned a tensor .* torch.float64 .*expected .*float32"),
        (lambda w, gradient, p: None, {}, r"the map odd returned None for a weight"),
        (halved, {"divisors": lambda w, p: w.norm(dim=-2)}, "divisors of the map odd returned a tensor"),
        (
            halved,
            {"divisors": lambda w, p: (w.norm(dim=-2), w[..., :1])},
            r"for inputs, returned .*expected .*\(1, 4\)",
        ),
    ],
)
def test_what_a_map_returns_is_checked_when_a_layer_is_conditioned(function, how, sentence: str):
    registry.register_map("odd", function, **how)
    net = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(TypeError, match=sentence):
        layers.condition(net, "odd", gradient="detached", every=2 if how else 1)
    assert layers.conditioned_layers(net) == {}


def without_floor(weight: Tensor, gradient: str, p: float) -> Tensor:
    return weight / weight.norm(dim=-2, keepdim=True)


def with_a_row_of_zeros() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[1].weight[:, 2] = 0
    return net


def test_layers_of_which_a_registered_map_makes_nan_are_left_out_or_refused():
    registry.register_map("without_floor", without_floor)
    net, reason = with_a_row_of_zeros(), "without_floor would make 4 of its 16 weights NaN or infinite"
    assert layers.select(net, "all", method="without_floor").skipped["1"].startswith(reason)
    for how in ({"layers": ["0", "1"]}, {"layers": "all", "zero_rows": "refused"}):
        with pytest.raises(ValueError, match=f"^1 cannot be conditioned: {reason}"):
            layers.condition(net, "without_floor", **how)
        assert layers.conditioned_layers(net) == {}
    with pytest.raises(ValueError, match=f"^weight cannot be conditioned: {reason}"):
        layers.condition_tensor(net[1], method="without_floor")
    done = layers.condition(net, "without_floor", "all")
    assert done == ["0"]
    assert list(done.left_out) == ["1"]
    assert net[0].weight.isfinite().all()
    insisted = with_a_row_of_zeros()
    assert layers.condition(insisted, "without_floor", "all", zero_rows="conditioned") == ["0", "1"]


def test_rows_of_zeros_are_no_reason_where_the_map_keeps_them_finite_and_weights_that_are_not_finite_are_none():
    registry.register_map("halved", halved)
    registry.register_map("without_floor", without_floor)
    assert layers.condition(with_a_row_of_zeros(), "halved", "all") == ["0", "1"]
    net = with_a_row_of_zeros()
    with torch.no_grad():
        net[1].weight[0, 0] = torch.nan
    assert layers.select(net, "all", method="without_floor").names == ["0", "1"]
    with torch.device("meta"):
        assert layers.select(with_a_row_of_zeros(), "all", method="without_floor").names == ["0", "1"]


def test_a_registered_map_may_refuse_the_norm_that_it_is_not_asked_for():
    def of_sums(weight: Tensor, gradient: str, p: float) -> Tensor:
        if p != 1:
            raise ValueError(f"p is {p}; expected 1")
        return weight / weight.norm(p, dim=-2, keepdim=True)

    registry.register_map("of_sums", of_sums)
    net = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(ValueError, match=r"p is 2.0; expected 1"):
        layers.condition(net, "of_sums", scale="constant")
    assert layers.condition(net, "of_sums", p=1) == ["0"]


def test_the_norms_of_a_registered_map_are_checked_before_it_is_called():
    registry.register_map("of_sums", lambda weight, gradient, p: weight / weight.norm(1, dim=-2), orders=(1,))
    with pytest.raises(ValueError, match=r"p is 2.0, but of_sums is computed with 1$"):
        layers.condition(nn.Sequential(nn.Linear(3, 4)), "of_sums")
    zeros = nn.Sequential(nn.Linear(3, 4))
    nn.init.zeros_(zeros[0].weight)
    with pytest.raises(ValueError, match="of_sums would make 12 of its 12 weights NaN"):
        layers.condition(zeros, "of_sums", p=1)
    for orders in ((), (2, 3), {3}):
        with pytest.raises(ValueError, match=r"orders of the map of_sums are .*; expected some of 1, 2 and inf"):
            registry.register_map("of_sums", halved, orders=orders)


def test_a_layer_for_which_a_registered_map_cannot_be_computed_is_left_out_unchanged():
    def inverse(weight: Tensor, gradient: str, p: float) -> Tensor:
        if p == 1:
            raise NotImplementedError
        mapped = torch.linalg.inv(weight)
        weight.data.mul_(2)
        return mapped

    registry.register_map("inverse", inverse)
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    with torch.no_grad():
        net[1].weight[0] = 0
    before = [layer.weight.clone() for layer in net]
    names, skipped = layers.select(net, "all", method="inverse")
    assert names == ["0"]
    assert skipped["1"].startswith("inverse cannot be computed for it: ")
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(net, before, strict=True))


def test_no_name_of_another_kind_is_taken():
    before = {*maps.ADDED}
    for name in ("none", *conditionings.names()):
        for register in (registry.register_map, registry.register_parametrization):
            with pytest.raises(ValueError, match=f"name is '{name}'; expected an identifier that is not one of"):
                register(name, lambda *_: None)
    assert maps.ADDED.keys() == before


@pytest.mark.parametrize("name", ["row", "weight_norm", "muon", "soap", "layer_norm", "none", "not a name"])
def test_names_that_are_taken_are_refused(name: str):
    with pytest.raises(ValueError, match="expected an identifier that is not one of row, column"):
        registry.register_map(name, halved)


def test_a_map_without_divisors_cannot_be_cached():
    registry.register_map("halved", halved)
    with pytest.raises(ValueError, match="halved is more than a division"):
        layers.condition(nn.Sequential(nn.Linear(3, 3)), "halved", "all", "detached", every=2)


# one tensor of one module


def test_methods_that_are_no_maps_are_refused_with_the_names_of_all_maps():
    code = (
        "from torch import nn; from enerf.conditioning import condition_tensor\n"
        "try: condition_tensor(nn.Linear(4, 4), method='fourier')\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("method is 'fourier'; for one tensor it must be one of row, column, ")
    assert "orthogonal" in done.stdout


def test_one_tensor_of_any_module_is_conditioned_alone():
    cell = nn.GRUCell(4, 8)
    others = {name: p.detach().clone() for name, p in cell.named_parameters() if name != "weight_hh"}
    expected = maps.row(cell.weight_hh.detach())
    layers.condition_tensor(cell, "weight_hh", scale="learned")
    ratio = cell.weight_hh / expected
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))
    assert all(torch.equal(dict(cell.named_parameters())[name], value) for name, value in others.items())
    cell(torch.ones(2, 4), torch.ones(2, 8)).sum().backward()
    assert cell.parametrizations.weight_hh.original.grad.norm() > 0
    assert layers.conditioned_layers(nn.ModuleDict({"cell": cell})) == {"cell": "row"}
    before = cell(torch.ones(2, 4))
    assert torch.equal(layers.bake(cell)(torch.ones(2, 4)), before)


def test_its_view_is_that_of_the_layer_or_the_last_two_axes_or_what_one_says():
    conv, experts = nn.Conv2d(4, 6, 3), nn.Module()
    experts.weight = nn.Parameter(torch.randn(3, 5, 4))
    turned = nn.Module()
    turned.weight = nn.Parameter(torch.randn(4, 5))
    layers.condition_tensor(conv)
    layers.condition_tensor(experts)
    with pytest.raises(ValueError, match="name is 'weight', but the view is of 'bias'; expected one tensor"):
        layers.condition_tensor(turned, view=WeightView("bias", (4, 5), (), 5, 4, transposed=True))
    layers.condition_tensor(turned, view=WeightView("weight", (4, 5), (), 5, 4, transposed=True))
    torch.testing.assert_close(conv.weight.flatten(1).norm(dim=0), torch.ones(36))
    torch.testing.assert_close(experts.weight.norm(dim=1), torch.ones(3, 4))
    torch.testing.assert_close(turned.weight.norm(dim=1), torch.ones(4))
    with torch.no_grad():
        assert conv(torch.ones(1, 4, 3, 3)).shape == (1, 6, 1, 1)


@pytest.mark.parametrize(
    ("name", "how", "sentence"),
    [
        ("weight", {"method": "weight_norm"}, "for one tensor it must be one of row, column"),
        ("wait", {}, "Linear has no parameter 'wait'"),
        ("bias", {}, r"bias has shape \(4,\); expected at least two axes"),
        ("weight", {"method": "jacobi"}, "weight cannot be conditioned: jacobi needs a square matrix"),
        ("weight", {"method": "column"}, "1 of its 4 rows are zero"),
        ("weight", {"zero_rows": "yes"}, "zero_rows is 'yes'"),
        ("weight", {"every": 2}, "requires gradient"),
    ],
)
def test_tensors_that_cannot_be_conditioned_are_refused_and_unchanged(name: str, how: dict[str, object], sentence: str):
    layer = nn.Linear(3, 4)
    with torch.no_grad():
        layer.weight[1] = 0
    with pytest.raises(ValueError, match=sentence):
        layers.condition_tensor(layer, name, **how)
    assert list(layer.state_dict()) == ["weight", "bias"]
    layers.condition_tensor(layer)
    with pytest.raises(ValueError, match="weight is parametrized already"):
        layers.condition_tensor(layer)


def test_reasons_of_tensors_are_those_of_layers():
    layer = nn.Linear(3, 1)
    (view,) = weight_views.views(layer)
    reason = suitability.tensor_reason(layer, view, "row")
    assert reason is not None
    assert reason == layers.select(nn.Sequential(layer, nn.Linear(3, 3)), "all").skipped["0"]
    assert functional.linear(torch.ones(1, 3), layer.weight).shape == (1, 1)


@pytest.mark.parametrize("make", [nn.GRU, nn.LSTM, nn.RNN])
def test_recurrent_layers_apply_the_conditioned_weight(make: type[nn.RNNBase]):
    layer = make(4, 8).double()
    expected = make(4, 8).double()
    expected.load_state_dict(layer.state_dict())
    with torch.no_grad():
        expected.weight_hh_l0.copy_(maps.row(layer.weight_hh_l0))
    layers.condition_tensor(layer, "weight_hh_l0")
    x = torch.randn(5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(2):
        torch.testing.assert_close(layer(x)[0], expected(x)[0])
        layer(x)[0].sum().backward()
    raw = layer.parametrizations.weight_hh_l0.original
    assert (raw.grad * raw).sum(0).abs().max() < 1e-10
    assert raw.grad.norm() > 0


def test_a_registered_parametrization_is_one_of_this_package_or_nothing_changes():
    class Doubled(Parametrization):
        method = "doubled"

        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    def apply(module: nn.Module, view: WeightView) -> None:
        parametrize.register_parametrization(module, view.name, Doubled())

    registry.register_parametrization("doubled", apply)
    net = nn.Sequential(nn.Linear(3, 4)).double()
    raw = net[0].weight.detach().clone()
    assert layers.condition(net, "doubled") == ["0"]
    assert layers.conditioned_layers(net) == {"0": "doubled"}
    assert torch.equal(layers.bake(net)[0].weight, 2 * raw)
    registry.register_parametrization("nothing", lambda module, view: None)
    with pytest.raises(ValueError, match="the method nothing has registered no parametrization of weight"):
        layers.condition(net, "nothing")
    assert layers.conditioned_layers(net) == {}
