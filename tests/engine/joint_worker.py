"""What each of several processes does in ``test_distributed``: every part leaves its results in a file of the rank."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from enerf.conditioning import batch_norm
from enerf.core.errors import InputError
from enerf.engine import distributed, optimizers, synchronized_norm
from enerf.engine.checkpoint import State
from enerf.engine.distributed import Team
from enerf.engine.joint_step import JointStep, Part
from enerf.geometry.isosurface import extract
from enerf.geometry.isosurface.extract import ExtractionSettings
from enerf.optim import table
from enerf.optim.intrinsic import IntrinsicAdam

OPTIMIZERS = ("adam", "intrinsic_adam", "muon", "soap")
SHAPES = ((3,), (40, 50), (2, 2), (7, 3), ())
ROWS = 11  # of the batches below


def gradients(rank: int) -> list[torch.Tensor]:
    """Values of several shapes and types, one of them not contiguous."""
    generator = torch.Generator().manual_seed(rank)
    found = [torch.randn(shape, generator=generator) for shape in SHAPES]
    return [*found, found[1].T, torch.randn(5, generator=generator, dtype=torch.float64)]


def sums(team: Team) -> list[torch.Tensor]:
    """Sums of gradients in small buckets."""
    distributed.BUCKET = 64
    found = [each.clone(memory_format=torch.preserve_format) for each in gradients(team.rank)]
    team.sum_gradients(found)
    return found


def mapped(team: Team) -> dict[str, object]:
    """What ``map`` gives, with an error of the function, and with one of the caller of the first process."""

    def third(x: int) -> int:
        if x == 2:
            raise InputError("no result for 2")
        return x

    messages = []
    try:
        list(team.map(third, range(4)))
    except InputError as error:
        messages.append(str(error))
    taken: list[list[int]] = []
    for last in (1, 8):  # in the first group of results, and in the last one
        taken.append([])
        try:
            with closing(team.map(lambda x: x, range(9))) as results:
                for each in results:
                    taken[-1].append(each)
                    if team.is_first and each == last:
                        raise InputError("disk full")
        except InputError as error:
            messages.append(str(error))
    return {"squares": list(team.map(lambda x: (team.rank, x * x), range(7))), "messages": messages, "taken": taken}


def problem() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A small network and a batch, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        return model, torch.randn(ROWS, 4, dtype=torch.float64), torch.randn(ROWS, 1, dtype=torch.float64)


def optimizer_of(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer by name; those of matrices for the matrix in the middle."""
    if name == "intrinsic_adam":
        return IntrinsicAdam(model.parameters(), lr=1e-2)
    if name == "adam":
        return optimizers.adam(model, 1e-2)
    return table.matrix_optimizer(name, [model[2].weight], 1e-2)


def trained(name: str, team: Team) -> torch.Tensor:
    """The parameters after some steps of an optimizer on the joint batch."""
    model, inputs, targets = problem()
    optimizer = optimizer_of(name, model)
    rows = team.share.of(0, ROWS).rows
    for _ in range(5):
        optimizer.zero_grad()
        ((model(inputs[rows]) - targets[rows]).square().sum() / ROWS).backward()
        team.sum_gradients([p.grad for p in model.parameters()])
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def normalized(team: Team) -> list[torch.Tensor]:
    """Outputs of batch normalizations of images and of rows, gradients of inputs and parameters, and statistics."""
    found = []
    for norm, shape in ((nn.BatchNorm2d(3), (ROWS, 3, 4, 5)), (nn.BatchNorm1d(3), (ROWS, 3))):
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(shape, generator=generator, dtype=torch.float64)
        weights = torch.randn(shape, generator=generator, dtype=torch.float64)
        norm.double()
        synchronized_norm.synchronize(norm, team)
        own = inputs[team.share.of(0, ROWS).rows].requires_grad_()
        out = norm(norm(own))
        (out * weights[team.share.of(0, ROWS).rows]).sum().backward()
        grads = [norm.weight.grad, norm.bias.grad]
        team.sum_gradients(grads)
        found += [out.detach(), own.grad, *grads, norm.running_mean, norm.running_var]
    return found


def preconditioned(team: Team) -> list[torch.Tensor]:
    """Gradients of a layer with batch-norm preconditioning on a batch of equal shares."""
    model, inputs, targets = problem()
    layer = model[0]
    batch_norm.precondition_(layer)
    n = ROWS // team.size * team.size
    rows = team.share.of(0, n).rows
    (functional.mse_loss(model(inputs[rows]), targets[rows], reduction="sum") / n).backward()
    grads = [layer.weight.grad, layer.bias.grad]
    team.sum_gradients(grads)
    return grads


def extracted(team: Team, reference: bool) -> list[torch.Tensor]:
    """Vertices and faces of the surface of a random network, evaluated at few points at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        model = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 1))
    box = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])
    settings = ExtractionSettings(40, 0.05, points_at_once=300, in_order=team.map, reference=reference, closed=True)
    found = extract.extract(lambda points: model(points)[:, 0] + points.norm(dim=1) - 0.8, box, settings)
    return [torch.from_numpy(found.vertices), torch.from_numpy(found.faces)]


def decided(team: Team) -> dict[str, object]:
    """Steps of which the last process asks to stop after the second, and fails in the fourth."""
    model, inputs, targets = problem()
    state = State(model, optimizers.adam(model, 1e-2))
    rows, calls = team.share.of(0, ROWS).rows, []
    is_last = team.rank == team.size - 1

    def step(state: State) -> Part[list[float]]:
        calls.append(1)
        if is_last and len(calls) == 4:
            raise OSError("the disk of this process is gone\nmore words")
        loss = (model(inputs[rows]) - targets[rows]).square().sum() / ROWS
        loss.backward()
        return Part([float(loss.detach()), 1.0], list)

    joint = JointStep(team, step, lambda: is_last and len(calls) == 2)
    stops, seconds, reports, message = [], [], [], ""
    for _ in range(4):
        state.optimizer.zero_grad()
        try:
            reports.append(joint(state))
        except (InputError, OSError) as error:
            message = str(error)
            break
        seconds.append(joint.seconds(1.0 + team.rank))
        stops.append(joint.is_to_stop())
    return {"stops": stops, "seconds": seconds, "reports": reports, "message": message}


PARTS: dict[str, Callable[[Team], object]] = {
    "sums": sums,
    "mapped": mapped,
    **{name: lambda team, name=name: trained(name, team) for name in OPTIMIZERS},
    "normalized": normalized,
    "preconditioned": preconditioned,
    "decided": decided,
    "extracted0": lambda team: extracted(team, False),
    "extracted1": lambda team: extracted(team, True),
}


def main() -> None:
    """Join the other processes and write the results of all parts to the folder that is given."""
    with distributed.joined("cpu") as team:
        torch.save({name: part(team) for name, part in PARTS.items()}, Path(sys.argv[1]) / f"{team.rank}.pt")
