"""Activation checkpointing: the second forward pass computes what the first one did, and changes nothing."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from enerf.conditioning import computed_once, layers


def trained(
    method: str, reentrant: bool | None, accumulated: int = 1, once: bool = False, **how: object
) -> list[Tensor]:
    """All parameters and buffers after steps; without checkpointing if ``reentrant`` is None."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        x = torch.randn(8, 4, dtype=torch.float64)
        layers.condition(net, method, "all", **how)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for step in range(7):
        optimizer.zero_grad()
        with computed_once(net) if once else nullcontext():
            for part in (x + step).chunk(accumulated):
                batch = part.requires_grad_(reentrant is True)  # reentrant checkpointing follows inputs that need it
                out = net(batch) if reentrant is None else checkpoint(net, batch, use_reentrant=reentrant)
                out.square().sum().backward()
        optimizer.step()
    return [value.detach().clone() for value in net.state_dict().values()]


@pytest.mark.parametrize(
    ("method", "how"),
    [
        ("row", {"gradient": "detached", "every": 3}),
        ("row", {}),
        ("batch_norm", {}),
        ("spectral_norm", {}),
        ("spectral_norm", {"scale": "learned"}),
        ("weight_norm", {}),
        ("orthogonal", {}),
    ],
    ids=["cached divisors", "row", "batch_norm", "spectral_norm", "spectral gain", "weight_norm", "orthogonal"],
)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_training_is_training_bit_for_bit(method: str, how: dict[str, object], reentrant: bool):
    plain, checkpointed = (trained(method, r, **how) for r in (None, reentrant))
    assert all(map(torch.equal, plain, checkpointed))


@pytest.mark.parametrize("reentrant", [None, False, True])
def test_accumulated_gradients_see_the_divisors_of_their_step(reentrant: bool | None):
    how = {"gradient": "detached", "every": 2}
    whole, parts = trained("row", None, **how), trained("row", reentrant, 4, **how)
    for a, b in zip(parts, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("method", ["row", "spectral_norm", "weight_norm", "batch_norm"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_inside_computed_once_checkpointed_training_is_training(method: str, reentrant: bool):
    whole, once = trained(method, None), trained(method, reentrant, once=True)
    for a, b in zip(once, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)
