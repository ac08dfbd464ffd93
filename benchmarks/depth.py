"""Depth supervision with few training views: test PSNR with and without it, on the same held-out views.

Every fourth view of a scene with known depths (a COLMAP model, or transforms.json with depth maps) is held out; 5, 10
and 20 of the others (--views), evenly chosen, are trained on by a fast configuration, with the weights of --weights.

    enerf generate scene --layout around --out data/around --views 40
    python benchmarks/depth.py --datadir data/around --seconds 300
"""

import argparse
import json
from pathlib import Path

import numpy as np

from enerf.config import parser
from enerf.reporting import tables
from enerf.tasks.nerf import setup, train, views
from enerf.tasks.nerf.config import NerfConfig


def configuration(options: argparse.Namespace, weight: float, test_views: str) -> NerfConfig:
    """Configuration of a run; without ``test_views`` with those of the scene."""
    words = ["--config", options.config, "--datadir", options.datadir, "--basedir", options.basedir]
    words += ["--max_seconds", str(options.seconds), "--depth_weight", str(weight), "--no_final_eval", "--no_reload"]
    words += ["--no_pose_check", *(["--test_views", test_views] if test_views else []), *options.words]
    return parser.parse(NerfConfig, words)[0]


def measure(options: argparse.Namespace, names: list[str], count: int, weight: float) -> float:
    """Train on ``count`` views, and return the PSNR of the held-out ones."""
    held, others = names[::4], [name for i, name in enumerate(names) if i % 4]
    chosen = {others[i] for i in np.unique(np.linspace(0, len(others) - 1, count).round().astype(int))}
    config = configuration(options, weight, ",".join(name for name in names if name not in chosen))
    config = parser.replace(config, expname=f"{count}_{weight:g}")
    train.train(config)
    run = setup.open_run(config.folder)
    scored = [i for i, name in enumerate(run.scene.image_names) if name in held]
    return views.psnr_of_pixels(views.renderer_of(run), run.scene, scored, options.pixels)


def main() -> None:
    """Print the table, and write it as JSON into the folder of the runs."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--datadir", required=True, help="a scene with known depths")
    reader.add_argument("--basedir", default="logs/depth", help="folder of the runs; default: logs/depth")
    reader.add_argument("--config", default="fast/unbounded", help="configuration; default: fast/unbounded")
    reader.add_argument("--seconds", type=float, default=300.0, help="of training a run; default: 300")
    reader.add_argument("--views", type=int, nargs="+", default=[5, 10, 20])
    reader.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.1])
    reader.add_argument("--pixels", type=int, default=0, help="fixed pixels of a view that are scored; default: all")
    options, options.words = reader.parse_known_args()
    names = list(setup.load_scene(configuration(options, 0.0, ""), pose_check=False).image_names)
    rows = [["training views", *(f"weight {weight:g}" for weight in options.weights)]]
    for count in options.views:
        rows.append([str(count), *(f"{measure(options, names, count, weight):.2f}" for weight in options.weights)])
        print(tables.as_text(rows), flush=True)
    (Path(options.basedir) / "depth.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
