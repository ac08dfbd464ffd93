"""Quality of a neural shape against seconds: this project and a plain fit of the papers' kind, for equal wall time.

    python benchmarks/shapes.py --meshes armadillo.obj bunny.obj [--config shape_fast.txt] [--seconds 300]

Both sides learn the occupancy of the same mesh in the same box, in slices of equal seconds, each in a separate process
that computes only in its turn (ours prepares samples in one more process, at low priority, which may continue at the
beginning of the other's turn). Ours takes the steps of ``fit_shape.py``; its learning rate is scheduled to end after
``--seconds``. The plain side is ``plain_shape.py``: a 4×256 ReLU network with positional encoding in stock torch.
Seconds are those of fitting with its samples; reading the mesh and measuring are not counted. Figures are those of the
field: IoU on a grid of 128³, and near the surface. At the end each side extracts a mesh, ours from coarse to fine, the
plain side from a dense grid of ``--plain_resolution`` cells a side.

The last line is ``ratio=X noise=LOW..HIGH``: how many times sooner our curve reaches the plain side's last near-surface
IoU, the median over the meshes; where our first point is above it, the ratio is at least that. It compares two ways of
solving one task, not the same mathematics.
"""

import argparse
import statistics
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import ours
import plain_shape
import sides
import torch
from sides import Side

from enerf.config import parser as config_parser
from enerf.core import io
from enerf.engine import optimizers, schedule, trainer
from enerf.geometry import mesh as geometry_mesh
from enerf.tasks.shape import evaluate as shape_evaluate
from enerf.tasks.shape import loss_terms as shape_loss_terms
from enerf.tasks.shape import metrics as shape_metrics
from enerf.tasks.shape import setup as shape_setup
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape.config import ShapeConfig

AT = (2, 5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 300)
MESH_METRICS = ("chamfer_l1_percent", "normal_consistency", "fscore_0.5", "hausdorff_percent", "watertight")


class OurSide:
    """A run of this project, without its records."""

    def __init__(self, options: ShapeConfig) -> None:
        recorder = ours.LogRecorder()
        shape_setup.log.handlers[:] = [recorder]
        shape_setup.log.setLevel("INFO")
        self.run = shape_setup.prepare(options)
        self.words = recorder.lines[0]  # the device and the backend
        self.reference = shape_setup.reference_of(self.run.target)
        self.terms_at = ExitStack().enter_context(shape_loss_terms.of_run(self.run))

    def train(self, until: float) -> tuple[float, int]:
        """Train until so many seconds of training have passed; returns seconds and steps."""
        training = self.run.state
        began, before = time.perf_counter(), training.seconds
        while training.seconds < until:
            optimizers.set_learning_rate(training.optimizer, schedule.learning_rate(self.run.config.train, training))
            trainer.one_step(
                training, lambda now: shape_step.gradient_step(self.run.field, partial(self.terms_at, now.step))
            )
            training.seconds = before + time.perf_counter() - began
        return training.seconds, training.step

    def measured(self) -> dict[str, Any]:
        """Figures of the field now."""
        field = shape_setup.frozen(self.run.field)
        return shape_metrics.measure_field(shape_setup.inside_test(field, "occupancy"), self.reference)

    def mesh(self) -> tuple[float, dict[str, Any]]:
        """Seconds to a mesh, and its figures."""
        began = time.perf_counter()
        found = shape_evaluate.extract_surface(self.run, shape_setup.frozen(self.run.field))
        seconds = time.perf_counter() - began
        return seconds, {} if found is None else shape_metrics.measure_mesh(found.vertices, found.faces, self.reference)


class PlainSide:
    """The plain fit."""

    def __init__(self, path: Path, margin: float, seed: int, batch: int, resolution: int) -> None:
        mesh = geometry_mesh.load(path, margin)
        self.made, self.resolution = plain_shape.begin(mesh, seed, batch), resolution
        self.reference = shape_setup.reference_of(mesh)
        self.words = f"{plain_shape.HIDDEN}×{plain_shape.WIDTH} relu, {plain_shape.BANDS} bands, {batch} uniform points"

    def train(self, until: float) -> tuple[float, int]:
        """Train until so many seconds of training have passed; returns seconds and steps."""
        return self.made.train(until)

    def measured(self) -> dict[str, Any]:
        """Figures of the field now."""
        return shape_metrics.measure_field(lambda points: self.made.field(points) > 0, self.reference)

    def mesh(self) -> tuple[float, dict[str, Any]]:
        """Seconds to a mesh, and its figures."""
        began = time.perf_counter()
        vertices, faces = plain_shape.extract(self.made.field, self.resolution)
        return time.perf_counter() - began, shape_metrics.measure_mesh(vertices, faces, self.reference)


def measure(both: dict[str, Side], seconds: float, report: sides.Report) -> dict[str, list[list[float]]]:
    """Train by turns to the end; the points (seconds, steps, IoU, near IoU) of both curves."""
    curves: dict[str, list[list[float]]] = {name: [] for name in both}
    for until in sorted({float(t) for t in AT if t < seconds} | {seconds}):
        for name, side in both.items():
            passed, steps = side.call("train", until)
            found = side.call("measured")
            curves[name].append([passed, steps, found["iou"] or 0.0, found["iou_near"] or 0.0])
            report(
                f"{name}: {passed:.1f} s, step {steps}, IoU {curves[name][-1][2]:.4f}, near {curves[name][-1][3]:.4f}"
            )
    return curves


def sooner(curves: dict[str, list[list[float]]]) -> float:
    """How many times sooner the first curve reaches the last near-surface IoU of the second; 0 if it does not."""
    mine, other = curves.values()
    goal = other[-1][3]
    reached = [point[0] for point in mine if point[3] >= goal]
    return other[-1][0] / reached[0] if reached else 0.0


def one_mesh(path: Path, args: argparse.Namespace, report: sides.Report) -> dict[str, list[list[float]]]:
    """Both sides on one mesh."""
    arguments = ["--config", args.config, "--mesh", str(path), "--max_seconds", str(args.seconds), "--no_reload"]
    options, _ = config_parser.parse(ShapeConfig, [*arguments, "--N_iters", "1000000000", "--seed", str(args.seed)])
    plain = (path, options.data.margin, args.seed, args.batch, args.plain_resolution)
    both = {"enerf": Side("enerf", OurSide, options, children=True), "plain": Side("plain", PlainSide, *plain)}
    for name, side in both.items():
        report(f"{path.stem}, {name}: {side.words}")
    curves = measure(both, args.seconds, report)
    for name, side in both.items():
        seconds, found = side.call("mesh")
        figures = ", ".join(f"{key} {found.get(key)}" for key in MESH_METRICS)
        report(f"{path.stem}, {name}: mesh in {seconds:.1f} s: {figures}")
        side.close()
    return curves


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--meshes", type=Path, nargs="+", required=True)
    parser.add_argument("--config", default="shape_fast.txt", help="our side's, one of configs/")
    parser.add_argument("--seconds", type=float, default=300, help="of training, each side, each mesh")
    parser.add_argument("--batch", type=int, default=plain_shape.BATCH, help="points a step of the plain side")
    parser.add_argument("--plain_resolution", type=int, default=128, help="cells a side of the plain side's mesh")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    report = sides.Report(args.out, torch.device("cpu"))
    every = {path.stem: one_mesh(path, args, report) for path in args.meshes}
    ratios = [sooner(curves) for curves in every.values()]
    for (name, curves), ratio in zip(every.items(), ratios, strict=True):
        ends = ", ".join(f"{side} IoU {curve[-1][2]:.4f}, near {curve[-1][3]:.4f}" for side, curve in curves.items())
        report(f"{name}: {ends}; {ratio:.1f} times sooner")
    if args.out:
        panels = [
            {
                "curves": {side: ([p[0] for p in curve], [p[3] for p in curve]) for side, curve in curves.items()},
                **{"x": f"seconds of training, {name}", "y": "near-surface IoU", "log": "x"},
            }
            for name, curves in every.items()
        ]
        sides.draw(panels, args.out.with_suffix(".png"))
        io.write_json(args.out.with_suffix(".json"), every)
    report(f"ratio={statistics.median(ratios):.1f} noise={min(ratios):.1f}..{max(ratios):.1f}")


if __name__ == "__main__":
    sides.enter(main)
