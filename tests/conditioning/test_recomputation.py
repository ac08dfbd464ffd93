"""Activation checkpointing: the second forward pass computes what the first one did, and changes nothing."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from enerf.conditioning import layers


def trained(method: str, checkpointed: bool, **how: object) -> list[Tensor]:
    """All parameters and buffers after steps with or without checkpointing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        x = torch.randn(8, 4, dtype=torch.float64)
    layers.condition(net, method, "all", **how)
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for step in range(7):
        optimizer.zero_grad()
        batch = x + step
        out = checkpoint(net, batch, use_reentrant=False) if checkpointed else net(batch)
        out.square().sum().backward()
        optimizer.step()
    return [value.detach().clone() for value in net.state_dict().values()]


@pytest.mark.parametrize(
    ("method", "how"),
    [("row", {"gradient": "detached", "every": 3}), ("row", {}), ("batch_norm", {})],
    ids=["cached divisors", "row", "batch_norm"],
)
def test_checkpointed_training_is_training_bit_for_bit(method: str, how: dict[str, object]):
    plain, checkpointed = (trained(method, c, **how) for c in (False, True))
    assert all(map(torch.equal, plain, checkpointed))


def test_reentrant_checkpointing_is_refused_where_accesses_are_counted():
    net = nn.Sequential(nn.Linear(4, 3))
    layers.condition(net, "row", "all", gradient="detached", every=2)
    x = torch.randn(5, 4, requires_grad=True)
    out = checkpoint(net, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match=r"every > 1: expected use_reentrant=False"):
        out.sum().backward()
