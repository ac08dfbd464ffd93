"""Adam without torch's compiler: the same values and state as ``torch.optim.Adam``."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from enerf.config.options import ConditioningOptions, FitOptions
from enerf.core.errors import InputError
from enerf.engine import optimizer_state, optimizers
from tests.contents import same


def trained(kind: type[torch.optim.Adam], fused: bool, steps: int = 4) -> tuple[list[torch.Tensor], torch.optim.Adam]:
    """Parameters after some steps with gradients of a seed, two parameter groups, and the optimizer."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in ((3, 2), (5,))]
    groups = [{"params": weights[:1], "scale": 1.0}, {"params": weights[1:], "scale": 4.0}]
    made = kind(groups, lr=0.1, betas=(0.9, 0.99), eps=1e-15, fused=fused)
    for _ in range(steps):
        made.zero_grad(set_to_none=False)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        made.step()
    return weights, made


@pytest.mark.parametrize("fused", [False, True])
def test_weights_and_states_are_those_of_torch(fused):
    (ours, adam), (theirs, of_torch) = (trained(kind, fused) for kind in (optimizers.Adam, torch.optim.Adam))
    assert same([weight.detach() for weight in ours], [weight.detach() for weight in theirs])
    assert same(adam.state_dict(), of_torch.state_dict())


def test_a_state_of_torch_is_loaded_and_the_gradient_does_not_pass_a_step():
    _, of_torch = trained(torch.optim.Adam, True)
    weights, adam = trained(optimizers.Adam, True, steps=0)
    adam.load_state_dict(copy.deepcopy(of_torch.state_dict()))
    assert same(adam.state_dict(), of_torch.state_dict())
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    adam.step()
    assert all(weight.is_leaf and weight.requires_grad for weight in weights)


def test_a_step_of_training_imports_no_compiler():
    code = (
        "import sys, torch\n"
        "from torch import nn\n"
        "from enerf.engine import optimizers, trainer\n"
        "from enerf.tasks.nerf import train\n"
        "model = nn.Linear(2, 1)\n"
        "adam = optimizers.adam(model, 0.1)\n"
        "model(torch.ones(1, 2)).sum().backward()\n"
        "adam.step(); adam.zero_grad(); adam.load_state_dict(adam.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def fields(name: str) -> tuple[nn.Sequential, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 1))
    options = ConditioningOptions(conditioning=name, lrate_matrices=0.04)
    return net, optimizers.of_field(FitOptions(lrate=0.01), options, net, ["1.weight"] if name != "none" else [])


@pytest.mark.parametrize("name", ["none", "muon", "soap"])
def test_a_saved_state_goes_on_to_the_last_bit(name: str, tmp_path):
    if name == "soap":
        pytest.importorskip("pytorch_optimizer", reason="the extra soap is not installed")

    def steps(net: nn.Sequential, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            optimizers.set_learning_rate(optimizer, 0.01 / (1 + step))
            optimizer.zero_grad()
            net(torch.randn(16, 3, generator=torch.Generator().manual_seed(step))).square().mean().backward()
            optimizer.step()

    whole, optimizer = fields(name)
    steps(whole, optimizer, 0, 25)
    halved, first = fields(name)
    steps(halved, first, 0, 12)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    again, second = fields(name)
    again.load_state_dict(halved.state_dict())
    optimizer_state.restore(second, torch.load(tmp_path / "state.pt", weights_only=True), tmp_path / "state.pt")
    steps(again, second, 12, 25)
    assert all(map(torch.equal, again.parameters(), whole.parameters()))


def test_the_rate_of_matrices_keeps_its_ratio():
    _, optimizer = fields("muon")
    optimizers.set_learning_rate(optimizer, 0.001)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.004])


def test_the_state_of_another_optimizer_is_refused(tmp_path):
    pytest.importorskip("pytorch_optimizer", reason="the extra soap is not installed")
    states = {name: fields(name)[1] for name in ("none", "muon", "soap")}
    for name, optimizer in states.items():
        for other, state in states.items():
            if other != name:
                with pytest.raises(InputError, match=r"state\.pt: .*(of another optimizer|groups of parameters)"):
                    optimizer_state.restore(optimizer, state.state_dict(), tmp_path / "state.pt")


def test_no_matrix_and_no_package_are_one_sentence(monkeypatch):
    net, options = nn.Sequential(nn.Linear(3, 1)), ConditioningOptions(conditioning="soap")
    with pytest.raises(InputError, match="option --conditioning soap: found no hidden matrix between the first layer"):
        optimizers.of_field(FitOptions(), options, net)
    monkeypatch.setitem(sys.modules, "pytorch_optimizer", None)
    with pytest.raises(InputError, match="option --conditioning soap: SOAP needs the package pytorch-optimizer"):
        optimizers.of_field(FitOptions(), options, net, ["0.weight"])
