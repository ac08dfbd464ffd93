"""Several optimizers as one, and the optimizers of matrices."""

import copy
import pickle
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from enerf.core.errors import InputError
from enerf.engine.optimizers import with_matrices
from enerf.optim import table
from enerf.optim.combined import Combined


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 1)).double()


def parts_of(net: nn.Sequential) -> list[Optimizer]:
    matrices = [net[2].weight]
    rest = [p for p in net.parameters() if p is not matrices[0]]
    return [torch.optim.Adam(rest, lr=1e-2), torch.optim.SGD(matrices, lr=0.1, momentum=0.9)]


def trained(net: nn.Sequential, optimizers: list[Optimizer], steps: int, first: int = 0) -> list[torch.Tensor]:
    for step in range(first, first + steps):
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        for optimizer in optimizers:
            optimizer.zero_grad()
        (net(x) - x.prod(-1, keepdim=True)).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
    return [p.detach().clone() for p in net.parameters()]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(map(torch.equal, a, b))


def test_steps_are_those_of_the_parts():
    apart, together = network(), network()
    assert equal(trained(apart, parts_of(apart), 5), trained(together, [Combined(parts_of(together))], 5))


def test_three_steps_a_saved_state_and_two_more_are_five():
    whole, halved = network(), network()
    expected = trained(whole, [Combined(parts_of(whole))], 5)
    first = Combined(parts_of(halved))
    trained(halved, [first], 3)
    state = copy.deepcopy(first.state_dict())
    second = Combined(parts_of(halved))
    second.load_state_dict(state)
    assert equal(trained(halved, [second], 2, first=3), expected)
    third = Combined(parts_of(halved))
    third.load_state_dict(second.state_dict())
    assert second.state_dict()["param_groups"] == third.state_dict()["param_groups"]


def test_rates_that_are_set_in_the_groups_take_effect_after_loading_too():
    net = network()
    optimizer = Combined(parts_of(net))
    trained(net, [optimizer], 1)
    optimizer.load_state_dict(optimizer.state_dict())
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in net.parameters()]
    assert equal(trained(net, [optimizer], 1), before)


def test_copies_are_optimizers_of_their_own_and_groups_are_not_added():
    net = network()
    optimizer = Combined(parts_of(net))
    copied_net, copied = copy.deepcopy((net, optimizer))
    assert equal(trained(copied_net, [copied], 2), trained(net, [optimizer], 2))
    with pytest.raises(RuntimeError, match="add it to a part"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_copies_and_pickles_beside_a_scheduler_are_optimizers_of_their_own():
    net = network()
    optimizer = Combined(parts_of(net))
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)  # replaces the optimizer's step
    copied_net, copied = copy.deepcopy((net, optimizer))
    other_net, other = pickle.loads(pickle.dumps((net, optimizer)))
    expected = trained(net, [optimizer], 2)
    assert equal(trained(copied_net, [copied], 2), expected)
    assert equal(trained(other_net, [other], 2), expected)
    assert not equal(expected, [p.detach() for p in network().parameters()])
    with pytest.raises(RuntimeError, match="add it to a part"):
        copied.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def test_a_closure_is_evaluated_once():
    net, calls = network(), []
    optimizer = Combined(parts_of(net))

    def loss() -> float:
        calls.append(1)
        optimizer.zero_grad()
        value = net(torch.ones(2, 3, dtype=torch.float64)).square().mean()
        value.backward()
        return value.item()

    assert optimizer.step(loss) > 0
    assert len(calls) == 1


def test_a_state_of_other_optimizers_is_refused_and_changes_nothing():
    net, other = network(), network()
    optimizer = Combined(parts_of(net))
    trained(net, [optimizer], 2)
    rates = [group["lr"] for group in optimizer.param_groups]
    before = copy.deepcopy(optimizer.state_dict())
    adam = Combined([torch.optim.Adam(part.param_groups[0]["params"], lr=0.5) for part in parts_of(other)])
    with pytest.raises(ValueError, match="the state is of another optimizer: its group 1 has no dampening"):
        optimizer.load_state_dict(adam.state_dict())
    assert [group["lr"] for group in optimizer.param_groups] == rates
    again = Combined(parts_of(copied := copy.deepcopy(net)))
    again.load_state_dict(before)
    assert equal(trained(net, [optimizer], 1), trained(copied, [again], 1))


def test_a_state_of_muon_is_loaded_any_number_of_times():
    net = network()
    adam, sgd = parts_of(net)
    optimizer = Combined([adam, table.matrix_optimizer("muon", sgd.param_groups[0]["params"], 1e-2)])
    trained(net, [optimizer], 1)
    for _ in range(2):
        optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert set(optimizer.state_dict()["state"]) == set(range(6))


def test_a_state_from_before_a_scheduler_is_loaded():
    net = network()
    optimizer = Combined(parts_of(net))
    trained(net, [optimizer], 2)
    state = copy.deepcopy(optimizer.state_dict())
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    optimizer.load_state_dict(state)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-2, 0.1]


def test_a_damaged_state_changes_nothing():
    net = network()
    optimizer = Combined(parts_of(net))
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 9.0
    del state["param_groups"][1]["params"]
    with pytest.raises(KeyError):
        optimizer.load_state_dict(state)
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [1e-2, 0.1]
    assert all(a is b for a, b in zip(optimizer.param_groups, optimizer.parts[0].param_groups, strict=False))


def test_the_state_of_a_new_optimizer_replaces_the_old_one():
    net = network()
    optimizer = Combined(parts_of(net))
    new = copy.deepcopy(optimizer.state_dict())
    trained(net, [optimizer], 2)
    optimizer.load_state_dict(new)
    assert optimizer.state_dict()["state"] == {}


def test_what_matrix_optimizers_and_combinations_do_not_take_is_one_sentence():
    layer = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"a parameter has shape \(4,\); muon takes parameters with two axes"):
        table.matrix_optimizer("muon", [*layer.parameters()], 1e-3)
    with pytest.raises(ValueError, match=r"a parameter has shape \(\); muon takes parameters with two axes"):
        table.matrix_optimizer("muon", [nn.Parameter(torch.ones(()))], 1e-3)
    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times"):
        Combined([torch.optim.LBFGS([layer.weight]), torch.optim.SGD([layer.bias], lr=0.1)])


def test_parameters_in_two_parts_no_parts_and_other_states_are_refused():
    net = network()
    both = [torch.optim.Adam(net.parameters()), torch.optim.SGD([net[0].weight], lr=0.1)]
    with pytest.raises(ValueError, match="in two optimizers"):
        Combined(both)
    with pytest.raises(ValueError, match="no optimizers"):
        Combined([])
    with pytest.raises(ValueError, match="1 parameter groups, expected 2"):
        Combined(parts_of(net)).load_state_dict(both[0].state_dict())


def newton_schulz(gradient: torch.Tensor) -> torch.Tensor:
    """Five iterations of the quintic polynomial of Jordan et al. 2024, in bfloat16, as torch computes them."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient.bfloat16()
    x = x.T if len(x) > len(x.T) else x
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if len(gradient) > len(gradient.T) else x


def test_a_step_of_muon_is_the_orthogonalized_gradient_with_the_size_of_adams():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(12, 8))
    before, gradient = weight.detach().clone(), torch.randn(12, 8)
    weight.grad = gradient.clone()
    table.matrix_optimizer("muon", [weight], 0.01).step()
    step = (before - weight.detach()) / 0.01
    expected = 0.2 * 12**0.5 * newton_schulz(gradient).float()
    torch.testing.assert_close(step, expected, rtol=0.05, atol=0.02)
    assert step.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.35)


@pytest.mark.parametrize("name", table.MATRIX_OPTIMIZERS)
def test_matrices_are_trained_without_decay_by_every_optimizer_of_the_table(name: str):
    if name == "soap":
        pytest.importorskip("pytorch_optimizer", reason="the extra soap is not installed")
    torch.manual_seed(0)
    target, weight = torch.randn(6, 5), nn.Parameter(torch.zeros(6, 5))
    optimizer = table.matrix_optimizer(name, [weight], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        (weight - target).square().mean().backward()
        optimizer.step()
    assert (weight - target).abs().max() < 0.2
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)


def signed(matrices: list[nn.Parameter], lr: float) -> Optimizer:
    return torch.optim.SGD(matrices, lr=lr)


def decayed(matrices: list[nn.Parameter], lr: float, **options: Any) -> Optimizer:
    return torch.optim.SGD(matrices, lr=lr, **options)


@pytest.fixture(params=[signed, decayed])
def added(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Optimizer]:
    """A function that is in the table, by its name."""
    monkeypatch.setitem(table.MATRIX_OPTIMIZERS, request.param.__name__, f"{__name__}:{request.param.__name__}")
    return request.param


def test_weight_decay_is_that_of_optimizers_that_have_it_and_an_error_for_others(added: Callable[..., Optimizer]):
    weight, name = nn.Parameter(torch.ones(2, 2)), added.__name__
    others = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    assert table.matrix_optimizer(name, [weight], 0.1).param_groups[0]["weight_decay"] == 0
    if added is decayed:
        assert table.matrix_optimizer(name, [weight], 0.1, weight_decay=0.2).param_groups[0]["weight_decay"] == 0.2
        return
    sentence = "weight_decay is 0.2, but signed has no decoupled weight decay; expected 0"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        table.matrix_optimizer(name, [weight], 0.1, weight_decay=0.2)
    with pytest.raises(InputError, match=f"^option --optimiser signed: {sentence}$"):
        with_matrices(others, name, [weight], (0.1, 0.0), "--optimiser signed", "a deeper network", weight_decay=0.2)


@pytest.mark.parametrize("name", table.MATRIX_OPTIMIZERS)
def test_numbers_out_of_range_are_one_sentence_for_every_optimizer_of_the_table(name: str):
    weight = nn.Parameter(torch.ones(2, 2))
    for value in (-0.1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=f"^lr is {value:g}; expected a number of at least 0, and finite$"):
            table.matrix_optimizer(name, [weight], value)
        with pytest.raises(
            ValueError, match=f"^weight_decay is {value:g}; expected a number of at least 0, and finite$"
        ):
            table.matrix_optimizer(name, [weight], 0.1, weight_decay=value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(ImportError, match=r"pip install 'enerf\[soap\]'"):
        table.matrix_optimizer("soap", [nn.Parameter(torch.ones(2, 2))], 0.1)
    with pytest.raises(ValueError, match="'lion'; it must be one of muon, soap"):
        table.matrix_optimizer("lion", [nn.Parameter(torch.ones(2, 2))], 0.1)


def test_an_old_torch_trains_by_the_same_formula(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    optimizer = table.matrix_optimizer("muon", [weight := nn.Parameter(torch.zeros(2, 2))], 0.1)
    weight.grad = torch.tensor([[3.0, 0.0], [0.0, -2.0]])
    optimizer.step()
    assert (weight.detach() / (0.1 * 0.2 * 2**0.5)).round().tolist() == [[-1, 0], [0, 1]]


def test_hooks_of_loading_are_run_in_order():
    optimizer = Combined(parts_of(network()))
    called: list[str] = []

    def before(of: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        called.append("before")
        groups = [{**group, "lr": 0.5} for group in state["param_groups"]]
        return {**state, "param_groups": groups}

    optimizer.register_load_state_dict_pre_hook(before)
    optimizer.register_load_state_dict_post_hook(lambda of: called.append("after"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == ["before", "after"]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_a_part_that_loads_a_state_is_seen_after_the_next_step():
    net = network()
    parts = parts_of(net)
    optimizer = Combined(parts)
    parts[1].load_state_dict(parts[1].state_dict())
    net(torch.ones(2, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    optimizer.param_groups[1]["lr"] = 7.0
    assert parts[1].param_groups[0]["lr"] == 7.0
