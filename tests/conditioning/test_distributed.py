"""Conditioned models on two processes (DDP, FSDP2, gloo): the steps are those of one process on the joint batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

# In processes of their own, which join by a file.
SCRIPT = """
import copy, sys, torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from enerf.conditioning import bake, baked_state, batch_norm, computed_once, condition
from enerf.optim import sparsity

rank, file, what = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
torch.manual_seed(0)
plain = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2)).double()
x = 2 + torch.randn(8, 4, dtype=torch.float64) * torch.logspace(-1, 1, 4, dtype=torch.float64)


def steps(net, call, x, n=5):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(n):
        optimizer.zero_grad()
        call(x + step).square().mean().backward()
        optimizer.step()


def joint(how):
    net = copy.deepcopy(plain)
    how(net)
    steps(net, net, x)
    return net


def ours():
    return x[4 * rank : 4 * rank + 4]


def close(a, b, name):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11, msg=lambda text: f"{name}: {text}")


CASES = {
    "row": lambda net: condition(net, "row", "all"),
    "learned": lambda net: condition(net, "row", "all", scale="learned"),
    "learned_rows": lambda net: condition(net, "column", "all", scale="learned_rows"),
    "every": lambda net: condition(net, "row", "all", "detached", every=2),
    "weight_norm": lambda net: condition(net, "weight_norm", "all"),
}


def ddp():
    for name, how in CASES.items():
        net = copy.deepcopy(plain)
        how(net)
        steps(net, nn.parallel.DistributedDataParallel(net), ours())
        for a, b in zip(net.state_dict().values(), joint(how).state_dict().values(), strict=True):
            close(a, b, name)


def once():
    from torch.distributed.fsdp import fully_shard

    net = copy.deepcopy(plain)
    condition(net, "row", "all")
    call = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for step in range(5):
        optimizer.zero_grad()
        with computed_once(net):
            call(ours() + step).square().mean().backward()
        optimizer.step()
    close(net(x), joint(CASES["row"])(x), "computed_once")
    net = copy.deepcopy(plain)
    condition(net, "row", "all")
    fully_shard(net)
    try:
        with computed_once(net):
            raise AssertionError("not refused")
    except RuntimeError as error:
        assert "sharded" in str(error), error


def fsdp():
    from torch.distributed.fsdp import fully_shard

    for name, how in CASES.items():
        net = copy.deepcopy(plain)
        how(net)
        fully_shard(net)
        steps(net, net, ours())
        for convert in (lambda: bake(net), lambda: baked_state(net, net.state_dict())):
            try:
                convert()
                raise AssertionError("not refused")
            except ValueError as error:
                assert "is sharded: gather the state dict" in str(error), error
        full = get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))
        expected = joint(how)
        if rank == 0:
            twin = copy.deepcopy(plain)
            how(twin)
            baked = baked_state(twin, full)
            close(nn.functional.linear(x, baked["0.weight"], baked["0.bias"]), expected[0](x), f"{name}, baked")
        expected = dict(expected.named_parameters())
        for key, value in net.named_parameters():
            close(value.full_tensor(), expected[key], f"{name} {key}")
        assert sparsity(net.parameters(), 0.1) == sparsity(expected.values(), 0.1), name


def preconditioned():
    def how(synchronized):
        def apply(net):
            for layer in (net[0], net[2], net[4]):
                batch_norm.precondition_(layer, synchronized=synchronized)
        return apply

    expected = joint(how(False))
    net = copy.deepcopy(plain)
    condition(net, "batch_norm", "all")
    steps(net, nn.parallel.DistributedDataParallel(net), ours())
    for a, b in zip(net.state_dict().values(), expected.state_dict().values(), strict=True):
        close(a, b, "batch_norm")
    from torch.distributed.fsdp import fully_shard

    net = copy.deepcopy(plain)
    condition(net, "batch_norm", "all")
    fully_shard(net)
    steps(net, net, ours())
    for key, value in net.named_parameters():
        close(value.full_tensor(), expected.get_parameter(key), f"batch_norm, sharded, {key}")
    local = copy.deepcopy(plain)
    how(False)(local)
    steps(local, nn.parallel.DistributedDataParallel(local), ours())
    assert (local[0].weight - expected[0].weight).norm() > 1e-5 * expected[0].weight.norm()  # it does matter
    layer = nn.Linear(4, 2).double()
    batch_norm.precondition_(layer)
    layer(x if rank == 0 else x[:0])
    close(layer.input_mean, x.mean(0), "uneven")
    close(layer.input_variance, x.var(0, correction=0), "uneven")


{"ddp": ddp, "fsdp": fsdp, "once": once, "batch_norm": preconditioned}[what]()
dist.barrier()
dist.destroy_process_group()
print("the same")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("what", ["ddp", "fsdp", "once", "batch_norm"])
def test_two_processes_train_as_one_on_the_joint_batch(what: str, tmp_path: Path):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT]
    both = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    for process in both:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        assert out.endswith("the same\n"), err
