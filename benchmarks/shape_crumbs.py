"""Loose parts of learned shapes: without and with points far from the surface, before and after the check of parts.

    python benchmarks/shape_crumbs.py --meshes armadillo.obj bunny.obj --work DIR [--N_iters 2800] [--sides far,plain]

Each mesh is learned with ``shape_fast.txt`` for the same number of steps, once with its default of ``--far`` ("far")
and once with ``--far 0`` ("plain"); 2,800 steps take 60 s on the machine of docs/results. Meshes that are missing are
skipped; ``spheres``, which is generated, has 44 parts, the smallest three cells of the finest grid wide. Runs are kept
in ``--work``: those that exist are not repeated.

IoU is that of the field. Parts and Hausdorff distances, in percent of the side of the box, are given as extracted, and
as written, without the parts that the shape does not have. The last line says how many "far" meshes have a Hausdorff
distance of at most 1 % (a part that is missing counts as well as one too many).
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import sides
import torch
import trimesh

from enerf.config import parser as config_parser
from enerf.geometry import write
from enerf.tasks.shape import train as shape_train
from enerf.tasks.shape.config import ShapeConfig

SIDES = {"far": [], "plain": ["--far", "0"]}
LARGEST, SMALLEST, GAP = 0.2, 0.012, 0.03  # radii of the spheres, and the distance between them
GOAL = 1.0  # percent


def spheres(path: Path, n: int) -> Path:
    """Write a mesh of disjoint spheres in the box, with radii in geometric progression, unless it exists."""
    if path.is_file():
        return path
    generator, placed = np.random.default_rng(0), list[tuple[np.ndarray, float]]()
    for radius in np.geomspace(LARGEST, SMALLEST, n).tolist():
        while True:
            center = generator.uniform(radius - 0.9, 0.9 - radius, 3)
            if all(np.linalg.norm(center - other) > radius + r + GAP for other, r in placed):
                placed.append((center, radius))
                break
    balls = [trimesh.creation.icosphere(3 if r > GAP else 2, r).apply_translation(c) for c, r in placed]
    whole = trimesh.util.concatenate(balls)
    write.write(path, np.asarray(whole.vertices), np.asarray(whole.faces))
    return path


def learned(path: Path, side: str, args: argparse.Namespace) -> dict[str, Any]:
    """The metrics of one run, which is trained if it does not exist."""
    words = ["--config", args.config, "--mesh", str(path), "--N_iters", str(args.N_iters), "--max_seconds", "0"]
    words += ["--i_eval", "0", "--basedir", str(args.work), "--expname", f"{path.stem}_{side}", *SIDES[side]]
    metrics = shape_train.train(config_parser.parse(ShapeConfig, words)[0])
    assert metrics is not None
    return metrics


def row(metrics: dict[str, Any]) -> str:
    """The figures of a run in one line."""
    field, mesh = metrics["field"], metrics["mesh"]
    dropped = mesh.get("parts_dropped") or 0
    extracted = max(mesh["hausdorff_percent"], mesh.get("dropped_distance_percent") or 0)
    return (
        f"IoU {field['iou']:.4f}, near {field['iou_near']:.4f}; Chamfer L1 {mesh['chamfer_l1_percent']:.4f} %; "
        f"extracted: {mesh['parts'] + dropped} parts, Hausdorff {extracted:.2f} %; "
        f"written: {mesh['parts']} parts of {metrics['reference']['parts']}, {mesh['hausdorff_percent']:.2f} %; "
        f"{metrics['seconds']['train']:.0f} s"
    )


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--meshes", type=Path, nargs="+", default=[], help="meshes to learn")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--config", default="shape_fast.txt", help="one of configs/")
    parser.add_argument("--spheres", type=int, default=44, help="parts of the generated mesh; 0: no such mesh")
    parser.add_argument("--N_iters", type=int, default=2800, help="steps of each run")
    parser.add_argument("--sides", default="far,plain", help="which of far, plain")
    args = parser.parse_args()
    report = sides.Report(args.out, torch.device("cpu"))
    good = total = 0
    generated = [spheres(args.work / "spheres.ply", args.spheres)] if args.spheres else []
    for path in [*args.meshes, *generated]:
        if not path.is_file():
            report(f"{path.name}: skipped, not found")
            continue
        for side in args.sides.split(","):
            metrics = learned(path, side, args)
            report(f"{path.stem}, {side}: {row(metrics)}")
            if side == "far":
                total += 1
                good += metrics["mesh"]["hausdorff_percent"] <= GOAL
    if total:
        report(f"{good} of {total} meshes have a Hausdorff distance of at most {GOAL:g} %")


if __name__ == "__main__":
    sides.enter(main)
