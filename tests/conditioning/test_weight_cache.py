"""Tests of the weight cache: bitwise equal values, the gradients of plain backward, and nothing left behind."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import layers, maps
from enerf.conditioning.layers import Equilibrated
from enerf.conditioning.weight_cache import computed_once
from tests.grids import latin

KINDS = {
    **{method: (method, "through") for method in maps.METHODS},
    **{f"{method} detached": (method, "detached") for method in maps.METHODS},
    "weight_norm": ("weight_norm", ""),
}
kinds = pytest.mark.parametrize("kind", KINDS)
SQUARE = ("1", "2", "3")


def network(kind: str | None = None, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Layers of mixed shapes, three of them alike; the last stays plain, as heads do."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [(6, 9), (9, 9), (9, 9), (9, 9), (9, 5), (5, 1)]
        net = nn.Sequential(*[nn.Linear(*size) for size in sizes]).to(dtype)
    if kind is not None:
        method, gradient = KINDS[kind]
        names = list(SQUARE) if method == "jacobi" else ["0", *SQUARE, "4"]
        if method == "weight_norm":
            layers.weight_norm(net, names)
        else:
            layers.condition(net, method, names, gradient)
    return net


def several(dtype: torch.dtype = torch.float64) -> nn.ModuleDict:
    """One network of each kind, and a plain one."""
    nets = {kind.replace(" ", "_"): network(kind, seed, dtype) for seed, kind in enumerate(KINDS)}
    return nn.ModuleDict({**nets, "plain": network(None, 99, dtype)})


def run(net: nn.Module, x: Tensor) -> Tensor:
    h = x
    for layer in net:
        h = torch.tanh(layer(h))
    return h


def inputs(n: int = 12, seed: int = 1) -> Tensor:
    return torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def loss(model: nn.Module, x: Tensor) -> Tensor:
    """A sum over points, so that parts of it add up."""
    nets = model.values() if isinstance(model, nn.ModuleDict) else [model]
    return sum((run(net, x).square().sum() for net in nets), torch.zeros((), dtype=x.dtype))


def gradients(model: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}


def plainly(model: nn.Module, x: Tensor) -> dict[str, Tensor | None]:
    """The gradients of plain backward through the parametrizations, on a copy."""
    copied = copy.deepcopy(model)
    copied.zero_grad()
    loss(copied, x).backward()
    return gradients(copied)


def assert_same(found: dict[str, Tensor | None], expected: dict[str, Tensor | None], rel: float = 1e-12) -> None:
    assert found.keys() == expected.keys()
    for name, exact in expected.items():
        ours = found[name]
        assert (ours is None) == (exact is None), name
        if exact is not None:
            assert (ours - exact).norm() <= rel * exact.norm(), name


def raw(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def unharmed(model: nn.Module, before: list[Tensor]) -> bool:
    """Whether parametrizations run at each access again, on the same raw weights."""
    same = all(torch.equal(a, b) for a, b in zip(raw(model), before, strict=True))
    layer = next(m for m in model.modules() if parametrize.is_parametrized(m))
    return same and layer.weight is not layer.weight and layer.weight.grad_fn is not None


# values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inside_weights_are_those_of_outside_bit_for_bit(dtype: torch.dtype):
    model = several(dtype)
    linears = [m for m in model.modules() if hasattr(m, "weight") and hasattr(m, "bias")]
    before = [m.weight.detach().clone() for m in linears]
    with computed_once(model):
        assert all(torch.equal(m.weight, w) for m, w in zip(linears, before, strict=True))


SIZES = [(3, 256), (256, 256), (256, 319), (64, 64), (17, 33), (2, 2)]


@pytest.mark.parametrize(
    ("method", "size"), [(m, s) for m, s in latin(2, maps.METHODS, SIZES) if m != "jacobi" or s[0] == s[1]]
)
def test_stacking_does_not_change_a_bit_of_float32(method: str, size: tuple[int, int]):
    net = nn.Sequential(*[nn.Linear(*size) for _ in range(3)])
    layers.condition(net, method, ["0", "1", "2"])
    before = [layer.weight.detach().clone() for layer in net]
    with computed_once(net):
        assert all(torch.equal(layer.weight, w) for layer, w in zip(net, before, strict=True))


def test_inside_each_weight_is_one_tensor():
    net = network("row")
    with computed_once(net):
        assert net[0].weight is net[0].weight
        assert net[0].weight.is_leaf


# gradients


@kinds
def test_gradients_are_those_of_plain_backward(kind: str):
    model = network(kind)
    with computed_once(model):
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))
    assert all(p.grad is not None and p.grad.norm() > 0 for p in model.parameters())


@pytest.mark.parametrize("rows", [1, 5, 12])
def test_parts_add_up_through_several_networks_of_all_kinds(rows: int):
    model = several()
    with computed_once(model):
        for part in inputs().split(rows):
            loss(model, part).backward()
    assert_same(gradients(model), plainly(model, inputs()))


@kinds
def test_gradients_are_added_to_those_that_are_there(kind: str):
    model = network(kind)
    there = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        p.grad = there[name].clone()
    with computed_once(model):
        loss(model, inputs()).backward()
    added = {name: g - there[name] for name, g in gradients(model).items() if g is not None}
    assert_same(added, plainly(model, inputs()))


@kinds
def test_a_weight_that_no_loss_reaches_gets_what_plain_backward_gives_it_or_zero(kind: str):
    model = network(kind)
    x = inputs()[:, :1].expand(-1, 9)
    with computed_once(model):
        torch.tanh(model[1](x)).sum().backward()  # one of the three layers that are alike
    found = gradients(model)
    copied = copy.deepcopy(model)
    copied.zero_grad()
    torch.tanh(copied[1](x)).sum().backward()
    for name, exact in gradients(copied).items():
        if exact is None:
            assert found[name] is None or not found[name].any(), name
        else:
            torch.testing.assert_close(found[name], exact, rtol=1e-12, atol=1e-14)
    assert all(found[name] is None for name, _ in model[4].named_parameters("4"))  # nor a kind of its own


def test_a_block_without_a_loss_leaves_gradients_absent():
    model = several()
    with computed_once(model):
        pass
    assert all(p.grad is None for p in model.parameters())


@kinds
def test_raw_weights_that_are_frozen_stay_without_gradients(kind: str):
    model = network(kind)
    for layer in (model[1], model[3]):  # of the three that are alike
        for p in layer.get_submodule("parametrizations.weight").parameters():
            p.requires_grad_(False)
    with computed_once(model):
        assert not model[1].weight.requires_grad
        assert model[2].weight.requires_grad
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))
    assert gradients(model)["1.bias"] is not None
    assert [name for name, g in gradients(model).items() if g is None and name.startswith("3.")]


def test_other_maps_than_ours_and_chains_of_maps_work_too():
    model = network()
    parametrize.register_parametrization(model[1], "weight", Equilibrated("row"))
    parametrize.register_parametrization(model[1], "weight", Equilibrated("column"))
    parametrizations.orthogonal(model[2])
    parametrize.register_parametrization(model[3], "bias", nn.Tanh())
    with computed_once(model):
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))


def test_a_layer_in_two_places_is_counted_once_and_gets_both_gradients():
    net = network("row")
    model = nn.ModuleDict({"a": net, "b": nn.Sequential(net[0], *list(net)[1:])})
    with computed_once(model):
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))


# how often


def test_each_kind_of_map_is_called_once(monkeypatch: pytest.MonkeyPatch):
    model = nn.ModuleDict({"a": network("row"), "b": network("row", 1), "c": network("row detached", 2)})
    shapes: list[tuple[str, tuple[int, ...]]] = []
    applied = Equilibrated.compute

    def counted(self: Equilibrated, weight: Tensor, gain: Tensor | None) -> Tensor:
        shapes.append((self.gradient, tuple(weight.shape)))
        return applied(self, weight, gain)

    monkeypatch.setattr(Equilibrated, "compute", counted)
    with computed_once(model):
        for part in inputs().split(3):
            loss(model, part).backward()
    through = [("through", (2, 9, 6)), ("through", (6, 9, 9)), ("through", (2, 5, 9))]
    detached = [("detached", (9, 6)), ("detached", (3, 9, 9)), ("detached", (5, 9))]
    assert sorted(shapes) == sorted(through + detached)


def test_weight_norm_is_computed_once_a_weight(monkeypatch: pytest.MonkeyPatch):
    model, calls = network("weight_norm"), []
    forward = parametrizations._WeightNorm.forward
    monkeypatch.setattr(
        parametrizations._WeightNorm, "forward", lambda self, *x: calls.append(self) or forward(self, *x)
    )
    with computed_once(model):
        for part in inputs().split(3):
            loss(model, part).backward()
    assert len(calls) == len(set(calls)) == 5


# what is left behind


@kinds
def test_an_error_inside_leaves_gradients_untouched_and_the_model_as_it_was(kind: str):
    model = network(kind)
    before = raw(model)

    def fails() -> None:
        with computed_once(model):
            loss(model, inputs()).backward()
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fails()
    conditioned = [n for n in gradients(model) if "parametrizations" in n]
    assert all(gradients(model)[n] is None for n in conditioned)
    assert unharmed(model, before)
    model.zero_grad()
    with computed_once(model):
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))


def test_afterwards_weights_follow_the_raw_ones_again():
    model = network("row")
    before = raw(model)
    with computed_once(model):
        loss(model, inputs()).backward()
    assert unharmed(model, before)
    with torch.no_grad():
        model[0].get_parameter("parametrizations.weight.original")[0] *= 3
    torch.testing.assert_close(model[0].weight.norm(dim=0), torch.ones(6, dtype=torch.float64))


def test_nesting_for_one_model_raises_and_the_outer_block_goes_on():
    model = network("row")
    with computed_once(model):
        weight = model[0].weight
        with pytest.raises(RuntimeError, match="computed once already"), computed_once(model):
            pass
        assert model[0].weight is weight
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))


def test_copies_made_inside_are_ordinary_models():
    model = network("row")
    with computed_once(model):
        copied = copy.deepcopy(model)
        weight = model[0].weight
        assert model[0].weight is weight
    for net in (model, copied):
        with torch.no_grad():
            net[0].get_parameter("parametrizations.weight.original")[0] *= 3
        torch.testing.assert_close(net[0].weight.norm(dim=0), torch.ones(6, dtype=torch.float64))
    with computed_once(copied):
        loss(copied, inputs()).backward()
    assert_same(gradients(copied), plainly(copied, inputs()))
    assert model[0].parametrizations.weight.original.grad is None


@pytest.mark.parametrize("assign", [False, True])
def test_raw_weights_that_are_loaded_inside_are_an_error_at_the_end(assign: bool):
    model, other = network("row"), network("row", 1)
    with pytest.raises(RuntimeError, match="a raw weight was changed inside computed_once"), computed_once(model):
        model.load_state_dict(other.state_dict(), assign=assign)
    torch.testing.assert_close(model[0].weight, other[0].weight)


def test_raw_weights_that_change_inside_are_an_error_at_the_next_access():
    model = network("row")

    def changes() -> None:
        with computed_once(model):
            with torch.no_grad():
                model[0].parametrizations.weight.original.add_(1.0)
            _ = model[0].weight
            raise AssertionError("the outdated weight was returned")

    with pytest.raises(RuntimeError, match="a raw weight was changed inside computed_once"):
        changes()


def test_baking_inside_is_refused_and_changes_nothing():
    model = network("row")
    before = raw(model)
    with computed_once(model):
        with pytest.raises(RuntimeError, match="cannot be baked inside computed_once"):
            layers.bake(model)
        loss(model, inputs()).backward()
    assert unharmed(model, before)


def test_blocks_of_two_models_may_be_nested():
    one, other = network("row"), network("column", 1)
    with computed_once(one), computed_once(other):
        (loss(one, inputs()) + loss(other, inputs())).backward()
    assert_same(gradients(one), plainly(one, inputs()))
    assert_same(gradients(other), plainly(other, inputs()))


def test_without_gradients_it_only_computes():
    model = several()
    with torch.no_grad():
        expected = loss(model, inputs())
        with computed_once(model):
            assert torch.equal(loss(model, inputs()), expected)
            assert not model["row"][0].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_plain_models_are_left_alone():
    model = network()
    with computed_once(model):
        assert model[0].weight is dict(model.named_parameters())["0.weight"]
        loss(model, inputs()).backward()
    assert_same(gradients(model), plainly(model, inputs()))


def test_its_weights_have_no_place_in_the_state_dict():
    model = network("row")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with computed_once(model):
        inside = model.state_dict()
    assert inside.keys() == before.keys()
    assert all(torch.equal(inside[name], value) for name, value in before.items())


# what belongs inside and what outside


@kinds
def test_a_backward_pass_after_the_block_is_refused(kind: str):
    model = network(kind)
    with computed_once(model):
        late = loss(model, inputs())
        loss(model, inputs()).backward()
    before = gradients(model)
    with pytest.raises(RuntimeError, match=r"backward outside computed_once: .* must be called inside it"):
        late.backward()
    conditioned = [{n: g for n, g in found.items() if "parametrizations" in n} for found in (gradients(model), before)]
    assert_same(*conditioned)
    loss(model, inputs()).backward()  # of a loss that is computed outside


def test_gradients_with_respect_to_inputs_may_be_taken_after_the_block():
    model, x = network("row"), inputs().requires_grad_()
    with computed_once(model):
        value = loss(model, x)
    (found,) = torch.autograd.grad(value, x)
    (expected,) = torch.autograd.grad(loss(model, x), x)
    torch.testing.assert_close(found, expected)


def test_a_backward_pass_after_a_block_that_failed_is_refused_too():
    model = network("row")

    def fails() -> Tensor:
        with computed_once(model):
            values.append(loss(model, inputs()))
            raise KeyError("inside")

    values: list[Tensor] = []
    with pytest.raises(KeyError, match="inside"):
        fails()
    with pytest.raises(RuntimeError, match="backward outside computed_once"):
        values[0].backward()


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam, torch.optim.LBFGS])
def test_a_step_inside_is_refused_and_moves_nothing(make: type[torch.optim.Optimizer]):
    model = network("row")
    optimizer, before = make(model.parameters(), lr=0.1), raw(model)

    def closure() -> Tensor:
        value = loss(model, inputs())
        value.backward()
        return value

    def steps() -> None:
        with computed_once(model):
            closure()
            optimizer.step(closure)

    with pytest.raises(RuntimeError, match="an optimizer stepped inside computed_once"):
        steps()
    assert unharmed(model, before)
    optimizer.zero_grad()

    def inside() -> Tensor:
        with computed_once(model):
            return closure()

    optimizer.step(inside)
    assert not torch.equal(raw(model)[0], before[0])


def test_optimizers_of_other_parameters_may_step_inside():
    model, other = network("row"), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([other], lr=0.5)
    other.grad = torch.ones(2)
    with computed_once(model):
        optimizer.step()
        loss(model, inputs()).backward()
    assert torch.equal(other.detach(), torch.full((2,), 0.5))
    assert_same(gradients(model), plainly(model, inputs()))
