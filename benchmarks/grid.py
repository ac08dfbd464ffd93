"""Points per second through the hash encoding, forward and with its gradients, backend by backend.

    python benchmarks/grid.py [--device cuda] [--points 65536] [--rounds 9]

The grid is that of the fast preset; points are drawn uniformly, which is the worst case for caches: samples of a scene
lie closer together. Backends take turns in one process; values and gradients are compared with those of the reference.
The last line is ``ratio=X noise=LOW..HIGH``: points/s of the last backend over the reference's, forward and with the
gradient of the table.
"""

import statistics
from collections.abc import Callable

import ours
import sides
import torch
from torch import Tensor

from enerf.config import parser as config_parser
from enerf.core import device as core_device
from enerf.core.errors import InputError
from enerf.fields.backends import hashgrid, registry
from enerf.fields.backends.registry import Backend
from enerf.reporting import tables
from enerf.tasks.nerf import config as nerf_config

REFERENCE = "torch"
TASKS = ("forward", "and the table's gradient", "and the points' too")


class Encoding:
    """One backend's encoding of fixed points."""

    def __init__(self, backend: Backend, grid: hashgrid.Grid, points: Tensor) -> None:
        self.encode, self.grid, self.points = backend.encode, grid, points
        self.table = torch.randn(grid.offsets[-1], grid.features, generator=torch.Generator().manual_seed(0))
        self.table = self.table.to(points.device)
        self.pulled = torch.ones(len(points), grid.width, device=points.device)

    def do(self, task: str) -> list[Tensor]:
        """Features, or the gradients that the task names."""
        if task == TASKS[0]:
            with torch.no_grad():
                return [self.encode(self.points, self.table, self.grid)]
        table = self.table.detach().requires_grad_()
        points = self.points.detach().requires_grad_(task == TASKS[2])
        wanted = [table, points] if task == TASKS[2] else [table]
        return list(torch.autograd.grad(self.encode(points, table, self.grid), wanted, self.pulled))


def backends_here(device: torch.device, only: str) -> dict[str, Backend]:
    """The backends with an encoding of their own that can run here, the reference first."""
    names = ("compiled", "triton") if device.type == "cuda" else ("compiled",)
    found = {REFERENCE: registry.make(REFERENCE, "fp32", device)}
    for name in names if only == "auto" else (only,):
        if reason := registry.unavailable_reason(name, "fp32", device):
            if only != "auto":
                raise InputError(f"option --backend: {name} cannot be used here: {reason}")
            continue
        found[name] = registry.make(name, "fp32", device)
    return found


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest norm of a difference, relative."""
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--config", default="fast/fern.txt", help="one of configs/ with a hash grid")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backend", default="auto", help="besides the reference; auto: all that run here")
    parser.add_argument("--points", type=int, default=1 << 16)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    device = ours.device_of(args.device)
    core_device.prepare(device)
    report = sides.Report(args.out, device)
    m = config_parser.parse(nerf_config.NerfConfig, ["--config", args.config])[0].model
    grid = hashgrid.make_grid(m.hash_levels, m.hash_features, m.hash_log2_entries, m.hash_coarsest, m.hash_finest)
    points = torch.rand(args.points, 3, generator=torch.Generator().manual_seed(0)).to(device)
    made = {name: Encoding(backend, grid, points) for name, backend in backends_here(device, args.backend).items()}
    rows, last = [["", *TASKS, "relative error"]], {}
    errors = {name: max(error(e.do(task), made[REFERENCE].do(task)) for task in TASKS) for name, e in made.items()}
    speeds: dict[str, list[str]] = {name: [] for name in made}
    for task in TASKS:

        def timer(encoding: Encoding, task: str = task) -> Callable[[], float]:
            return lambda: ours.seconds_of(lambda: encoding.do(task), 3, device)

        last[task] = sides.by_turns({name: timer(encoding) for name, encoding in made.items()}, args.rounds)
        for name, seconds in last[task].items():
            speeds[name].append(f"{args.points / statistics.median(seconds) / 1e6:.2f}")
    rows += [[name, *speeds[name], f"{errors[name]:.1e}"] for name in made]
    size = f"{m.hash_levels} levels of {m.hash_features}, {grid.offsets[-1]} entries"
    report(f"{args.points} points, {size}; millions of points a second")
    report(tables.as_text(rows))
    seconds, final = last[TASKS[1]], list(made)[-1]
    report(f"ratio: {final} over {REFERENCE}, forward {TASKS[1]}")
    report(sides.ratio_line(sides.ratios(seconds[REFERENCE], seconds[final])))


if __name__ == "__main__":
    sides.enter(main)
