"""Demonstrations on generated data: ``enerf demo [nerf|shapes|classifiers]``.

Each part is one of the commands that a user would type, and is printed before it runs. Finished trainings and videos
are not computed again; an interrupted one is resumed.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from enerf.cli import app
from enerf.cli import main as command_line

# Name of the demo -> its parts: what it shows, and the command.
DEMOS = {
    "nerf": (
        ("a scene, ray-traced and written in LLFF's folder format", "generate scene --out data/demo"),
        ("a NeRF of it: hash grid and proposed samples", "train --config demo.txt"),
        ("a novel-view video", "render logs/demo --path spiral --frames 32 --fps 16"),
        ("the same path in depth", "render logs/demo --path spiral --frames 32 --fps 16 --depth"),
        ("its mesh", "extract logs/demo --resolution 160 --crop --floaters 0.02 --views --frames 0"),
        (
            "NeRF and E-NeRF with the same seed, batches and steps, and a control of the same scale",
            "compare nerf --config demo.txt --expname demo_compare --N_iters 160 --i_eval 20 --seeds 0 "
            "--methods plain,he,equilibrate",
        ),
    ),
    "shapes": (
        ("shapes with known volumes: ellipsoid, torus, plate and box", "generate shape --out data/shapes"),
        ("the occupancy field of one, by a hash grid", "shape --config shape_demo.txt"),
        (
            "a mesh of the field, and pictures of it",
            "extract logs/demo_shape --resolution 256 --out logs/demo_shape/extracted.ply --views --frames 60",
        ),
    ),
    "classifiers": (
        (
            "2,500 images of ten geometric figures",
            "generate labelled --out data/figures --kind cifar --n_train 2000 --n_test 500",
        ),
        (
            "batch normalization alone, with weight normalization, weight standardization, equilibration",
            "compare classifier --config classifier_demo.txt --expname demo_classifiers",
        ),
    ),
}
# What each demo leaves; printed at the end where it exists.
RESULTS = {
    "nerf": (
        *("logs/demo/test/final", "logs/demo/video_spiral.mp4", "logs/demo/video_spiral_depth.mp4"),
        *("logs/demo/mesh.ply", "logs/demo/mesh_views", "logs/demo/metrics.json"),
        *("logs/demo_compare/comparison.md", "logs/demo_compare/curves.png", "logs/demo_compare/crops.png"),
    ),
    "shapes": ("logs/demo_shape/extracted.ply", "logs/demo_shape/extracted_views", "logs/demo_shape/metrics.json"),
    "classifiers": ("logs/demo_classifiers/comparison.md", "logs/demo_classifiers/curves.png"),
}


def main(argv: Sequence[str] | None = None, *, prog: str = "enerf demo") -> None:
    """Run the parts of a demo one after another, and print how long each took and where the results are.

    Raises
    ------
    InputError
        If a part fails.
    """
    parser = app.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", nargs="?", default="nerf", choices=sorted(DEMOS), help="default: nerf")
    demo = parser.parse_args(argv).demo
    import numpy  # noqa: F401  # without the extra app, say so before anything is written or printed

    parts, seconds = DEMOS[demo], []
    for i, (shows, command) in enumerate(parts):
        sys.stderr.write(f"\n{i + 1}/{len(parts)} {shows}\n    enerf {command}\n")
        began = time.perf_counter()
        command_line.main(shlex.split(command))
        seconds.append(time.perf_counter() - began)
    print()
    for (shows, _), taken in zip(parts, seconds, strict=True):
        print(f"{taken:6.1f} s  {shows}")
    print(f"{sum(seconds):6.1f} s  in all\n\nresults:")
    for path in map(Path, RESULTS[demo]):
        if path.exists():
            print(f"  {path}")
