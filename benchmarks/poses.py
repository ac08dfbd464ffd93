"""Refinement of perturbed poses: what is left of the errors of training poses, and the test PSNR, with and without it.

The poses of a scene in LLFF's format are rotated by 1° about random axes and shifted by 2 % of the cameras' spread in
random directions (--degrees, --share), and the scene with these poses is trained by a fast configuration. Errors are
those after the similarity between the found and the true poses (``datasets.scenes.alignment``).

    python benchmarks/poses.py --datadir data/demo --factor 1 --seconds 600
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np

from enerf.config import parser
from enerf.datasets.scenes import alignment, poses, raytrace
from enerf.reporting import tables
from enerf.tasks.nerf import poses_file, setup, train
from enerf.tasks.nerf.config import NerfConfig


def perturbed(c2w: np.ndarray, degrees: float, share: float, seed: int) -> np.ndarray:
    """Poses rotated by an angle about random axes, and shifted by a share of the spread in random directions."""
    rng = np.random.default_rng(seed)
    axes, shifts = (raytrace.unit(rng.normal(size=(len(c2w), 3))) for _ in range(2))
    half = np.deg2rad(degrees) / 2
    quaternions = np.concatenate([np.full((len(c2w), 1), np.cos(half)), np.sin(half) * axes], 1)
    turns = np.stack([poses.rotation(q) for q in quaternions])
    centers = c2w[:, :, 3] + share * alignment.spread(c2w) * shifts
    return np.concatenate([turns @ c2w[:, :, :3], centers[:, :, None]], -1)


def write_scene(source: Path, target: Path, degrees: float, share: float, seed: int) -> None:
    """Write a copy of an LLFF scene with perturbed poses; its images are links."""
    target.mkdir(parents=True, exist_ok=True)
    rows = np.load(source / "poses_bounds.npy").astype(np.float64)
    matrices = rows[:, :15].reshape(-1, 3, 5)
    c2w = perturbed(poses.from_llff_axes(matrices[:, :, :4]), degrees, share, seed)
    right, up, back, center = np.moveaxis(c2w, -1, 0)
    matrices[:, :, :4] = np.stack([-up, right, back, center], -1)
    np.save(target / "poses_bounds.npy", np.concatenate([matrices.reshape(-1, 15), rows[:, 15:]], 1))
    for folder in source.glob("images*"):
        if not (target / folder.name).exists():
            os.symlink(folder.resolve(), target / folder.name)


def errors(found: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Mean angle in degrees, and mean distance as a share of the spread, after alignment."""
    angles, distances = alignment.residuals(found, true)
    return float(angles.mean()), float(distances.mean()) / alignment.spread(true)


def measure(options: argparse.Namespace, degrees: float, refine: bool) -> list[str]:
    """Train one variant, and return its row of the table."""
    source, basedir = Path(options.datadir), Path(options.basedir)
    scene = basedir / f"scene_{degrees:g}"
    write_scene(source, scene, degrees, options.share if degrees else 0.0, options.seed)
    words = ["--config", options.config, "--datadir", str(scene), "--basedir", str(basedir)]
    words += ["--expname", f"{degrees:g}_{'refined' if refine else 'given'}", "--factor", str(options.factor)]
    words += ["--max_seconds", str(options.seconds), "--seed", str(options.seed), "--no_pose_check", "--no_reload"]
    config = parser.parse(NerfConfig, [*words, *(["--refine_poses"] if refine else []), *options.words])[0]
    result = train.train(config)
    assert result is not None
    run = setup.open_run(config.folder)
    ids = list(run.scene.train)
    rows = np.load(source / "poses_bounds.npy").astype(np.float64)
    true = poses.from_llff_axes(rows[:, :15].reshape(-1, 3, 5)[:, :, :4])[ids]
    before, after = (errors(poses_file.world_poses(each)[ids], true) for each in (run.scene, run.present_scene))
    refined = result.get("poses", {}).get("psnr_refined")
    return [
        f"{degrees:g}",
        "yes" if refine else "no",
        str(result["steps"]),
        *(f"{x[0]:.3f}" for x in (before, after)),
        *(f"{100 * x[1]:.2f}" for x in (before, after)),
        f"{result['mean']['psnr']:.2f}",
        "" if refined is None else f"{refined:.2f}",
    ]


def main() -> None:
    """Print the table, and write it as JSON into the folder of the runs."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--datadir", required=True, help="a scene in LLFF's format")
    reader.add_argument("--basedir", default="logs/poses", help="folder of the runs; default: logs/poses")
    reader.add_argument("--config", default="fast/fern", help="configuration of the runs; default: fast/fern")
    reader.add_argument("--factor", type=int, default=1)
    reader.add_argument("--seconds", type=float, default=600.0, help="of training a run; default: 600")
    reader.add_argument("--degrees", type=float, default=1.0)
    reader.add_argument("--share", type=float, default=0.02)
    reader.add_argument("--seed", type=int, default=0)
    reader.add_argument("--only", action="store_true", help="only the perturbed scene with refinement")
    options, options.words = reader.parse_known_args()
    chosen = (
        [(options.degrees, True)] if options.only else [(0.0, False), (options.degrees, False), (options.degrees, True)]
    )
    head = [
        "degrees",
        "refined",
        "steps",
        "angle before",
        "after",
        "shift % before",
        "after",
        "PSNR",
        "test poses fitted",
    ]
    rows = [head, *(measure(options, *each) for each in chosen)]
    (Path(options.basedir) / "poses.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(tables.as_text(rows))


if __name__ == "__main__":
    main()
