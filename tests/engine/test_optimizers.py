"""Adam without torch's compiler: the same values and state as ``torch.optim.Adam``."""

import copy
import subprocess
import sys

import pytest
import torch

from enerf.engine import optimizers
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
