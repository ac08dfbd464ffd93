"""The plain side of ``shapes.py``: occupancy as the papers fit it, in stock torch, and a mesh from a dense grid.

    python benchmarks/plain_shape.py --mesh MESH [--seconds 60] [--batch 4096]

Only the mesh reader is this project's, so that both sides have the same box. It is what published
code does, with the choices of Tancik et al., Fourier features let networks learn high frequency functions (2020), in
the occupancy experiment of their repository: a ReLU network of width 256, binary cross entropy, Adam at 5e-4, points
drawn uniformly from the box and labelled as they come ("dense sampling": no sample is drawn near the surface). As in
the papers on activations and conditioning there are 4 hidden layers, float32, and NeRF's positional encoding, here of 6
bands. Two choices are ours, in its favour: 4,096 points a step where theirs are 32,768, which on a CPU are so few steps
that nothing is learned in a minute (IoU 0.00 beside 0.92 of the armadillo), and a rate that stays as it is, for theirs
falls tenfold in 5,000 steps. Labels are generalized winding numbers above 1/2 by libigl; their time counts, as does
that of everything after the mesh was read.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import igl
import numpy as np
import torch
from torch import Tensor, nn

from enerf.geometry import mesh as geometry_mesh
from enerf.geometry.mesh import Mesh

BANDS, WIDTH, HIDDEN, RATE, BATCH = 6, 256, 4, 5e-4, 1 << 12
POINTS_PER_CALL = 1 << 16  # points of the dense grid


class Plain(nn.Module):
    """Logits of points: positional encoding, then ReLU layers."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [3 + 6 * BANDS, *[WIDTH] * HIDDEN]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(WIDTH, 1))

    def forward(self, points: Tensor) -> Tensor:
        """Logits of points ``n 3``."""
        waves = [2.0**k * points for k in range(BANDS)]
        encoded = torch.cat([points, *[f(wave) for wave in waves for f in (torch.sin, torch.cos)]], -1)
        return self.layers(encoded)[:, 0]


@dataclass
class Fit:
    """A fit that is trained in slices of time, with its field in between.

    Attributes
    ----------
    seconds, steps
        Seconds of training and set-up, and steps, so far.
    """

    seconds: float
    steps: int
    _model: Plain
    _optimizer: torch.optim.Adam
    _generator: torch.Generator
    _inside: Callable[[Tensor], Tensor]
    _batch: int

    def train(self, until: float) -> tuple[float, int]:
        """Train until so many seconds of work have been done; returns seconds and steps.

        The last step may go over, by less than its own length.
        """
        began, before = time.perf_counter(), self.seconds
        while self.seconds < until:
            points = torch.rand(self._batch, 3, generator=self._generator) * 2 - 1
            labels = self._inside(points)
            self._optimizer.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(self._model(points), labels).backward()
            self._optimizer.step()
            self.steps += 1
            self.seconds = before + time.perf_counter() - began
        return self.seconds, self.steps

    @torch.no_grad()
    def field(self, points: Tensor) -> Tensor:
        """Logits of points ``n 3``, positive inside."""
        return torch.cat([self._model(part) for part in points.split(POINTS_PER_CALL)])


def begin(mesh: Mesh, seed: int = 0, batch: int = BATCH) -> Fit:
    """A fit before its first step: network, optimizer, and the tree that labels points."""
    began = time.perf_counter()
    tree = igl.FastWindingNumberBVH()
    tree.init(mesh.vertices, mesh.faces, 2)

    def inside(points: Tensor) -> Tensor:
        rows = np.ascontiguousarray(points.numpy(), dtype=np.float64)
        return torch.from_numpy(np.asarray(tree.winding_number(rows, 2.0)) > 0.5).float()

    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Plain()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    return Fit(time.perf_counter() - began, 0, model, optimizer, generator, inside, batch)


def fit(mesh: Mesh, seconds: float, seed: int = 0, batch: int = BATCH) -> Callable[[Tensor], Tensor]:
    """Logits of points in the box after so many seconds of fitting."""
    made = begin(mesh, seed, batch)
    made.train(seconds)
    return made.field


def extract(field: Callable[[Tensor], Tensor], resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces where the logits cross 0: every sample of ``resolution``³ cells of the box, then libigl.

    Outward faces; the box closes nothing. Memory grows with the cube: about 5 GB at 512, for libigl wants every place.
    """
    axis = torch.linspace(-1, 1, resolution + 1)
    values = np.empty((resolution + 1,) * 3, dtype=np.float32)  # z, y, x: libigl wants x to change fastest
    for k, z in enumerate(axis):
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        points = torch.stack([x, y, z.expand_as(x)], -1).reshape(-1, 3)
        values[k] = field(points).numpy().reshape(x.shape)
    places = np.stack([c.ravel() for c in np.meshgrid(*[axis.double().numpy()] * 3, indexing="ij")[::-1]], -1)
    found = igl.marching_cubes(-values.ravel().astype(np.float64), places, *values.shape, 0.0)
    return np.asarray(found[0]), np.asarray(found[1], dtype=np.int64)


def words(found: dict[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {'none' if found[name] is None else format(found[name], '.4g')}" for name in names)


def main() -> None:
    import sides

    from enerf.geometry.solid import Solid
    from enerf.tasks.shape import metrics as shape_metrics
    from enerf.tasks.shape.eval_points import Reference

    parser = sides.parser(__doc__)
    parser.add_argument("--mesh", type=Path, required=True)
    parser.add_argument("--seconds", type=float, nargs="+", default=[60.0], help="when to measure")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--resolution", type=int, default=0, help="of a mesh at the end, measured too; 0: none")
    args = parser.parse_args()
    report = sides.Report(args.out)
    mesh = geometry_mesh.load(args.mesh)
    reference = Reference(Solid(mesh))
    made = begin(mesh, args.seed, args.batch)
    for until in sorted(args.seconds):
        seconds, steps = made.train(until)
        found = shape_metrics.measure_field(lambda points: made.field(points) > 0, reference)
        metric_words = words(found, ("iou", "iou_near", "sign_f1_near", "volume_error"))
        report(f"{mesh.name}: {seconds:.1f} s, step {steps}: {metric_words}")
    if args.resolution:
        began = time.perf_counter()
        vertices, faces = extract(made.field, args.resolution)
        report(f"{len(faces)} faces from a dense grid of {args.resolution}³ in {time.perf_counter() - began:.1f} s")
        found = shape_metrics.measure_mesh(vertices, faces, reference)
        names = ("chamfer_l1_percent", "normal_consistency", "fscore_0.5", "hausdorff_percent", "parts")
        report(words(found, names))


if __name__ == "__main__":
    import sides

    sides.enter(main)
