"""Tables of NeRF runs with published results for comparison."""

import re
from collections.abc import Sequence
from typing import Any

from enerf.reporting import grouping
from enerf.tasks.nerf.image_metrics import mean

# Published means of per-image PSNR on LLFF; each row with its evaluation protocol.
LLFF_SCENES = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
PUBLISHED: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    (
        "NeRF paper (TensorFlow)",
        "factor 4, llffhold 8, 200k steps",
        (25.17, 27.40, 31.16, 27.45, 20.92, 20.36, 32.70, 26.80),
    ),
    ("JaxNeRF", "factor 4, llffhold 8, 1M steps", (24.83, 28.07, 31.76, 28.10, 21.23, 20.27, 33.04, 27.42)),
    ("NeRF-Factory NeRF", "factor 4, llffhold 8, 1M steps", (25.19, 27.94, 31.73, 28.03, 21.17, 20.29, 32.96, 27.52)),
    ("NeRF-Factory Plenoxels", "factor 4, llffhold 8", (24.91, 28.17, 31.36, 27.77, 21.19, 20.01, 31.33, 26.54)),
    ("TensoRF (paper)", "factor 4, llffhold 8", (25.27, 28.60, 31.36, 28.14, 21.30, 19.87, 32.35, 26.97)),
    (
        "K-Planes, hybrid",
        "factor 4, llffhold 8, 33 min on one GPU",
        (25.38, 28.67, 30.44, 28.64, 21.30, 20.26, 32.64, 28.01),
    ),
    ("NeuRBF", "factor 4, llffhold 8, 31 min on one GPU", (25.48, 28.57, 30.98, 28.68, 21.81, 20.03, 32.80, 28.06)),
    ("SNeRG, baked", "factor 4, llffhold 8", (24.63, 27.47, 30.92, 27.09, 20.76, 19.26, 30.07, 26.72)),
    (
        "NeRF in the weight-conditioning paper",
        "its own split: 3 unseen views",
        (27.51, 31.3, 33.16, 29.34, 23.10, 23.98, 39.15, 30.05),
    ),
    (
        "E-NeRF in the weight-conditioning paper",
        "its own split: 3 unseen views",
        (28.53, 31.8, 33.14, 29.62, 23.84, 24.14, 39.89, 30.67),
    ),
)


def table(runs: Sequence[dict[str, Any]], published: bool = True) -> list[list[str]]:
    """Return a table of PSNRs: one row per method and protocol, one column per scene, and the mean over these scenes.

    Runs that differ in their seed only are averaged; other options that differ are named beside the method. The mean is
    empty unless all scenes of the table have a value.
    Rows of published results follow if the table has an LLFF scene, each with its evaluation protocol.
    """
    scenes = sorted({run["scene"] for run in runs})
    rows = [["method", "protocol", *scenes, "mean"]]
    groups: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    special = grouping.distinctions(runs, lambda run: (run["method"], protocol_description(run), run["scene"]))
    for run, options in zip(runs, special, strict=True):
        method = f"{run['method']} ({options})" if options else run["method"]
        cell = groups.setdefault((method, protocol_description(run)), {}).setdefault(run["scene"], [])
        cell.append(run["mean"]["psnr"])
    for (method, protocol), found in sorted(groups.items()):
        values = [mean(found.get(s, [])) for s in scenes]
        rows.append([method, protocol, *map(_decibels, values), _decibels(mean(values))])
    shown = [s for s in scenes if s in LLFF_SCENES]
    if published and shown:
        for method, protocol, figures in PUBLISHED:
            values = [dict(zip(LLFF_SCENES, figures, strict=True)).get(s) for s in scenes]
            rows.append([f"published: {method}", protocol, *map(_decibels, values), _decibels(mean(values))])
    return rows


def protocol_description(run: dict[str, Any]) -> str:
    """Return a short description of an evaluation protocol: image size, split, length of training, and model.

    The split is what the protocol says of how the test views were chosen; ``llffhold`` if that chose them; else the
    "given split" of the scene's files. It says so if the test photographs took part in computing the cameras.
    """
    p = run["protocol"]
    split = f"llffhold {p['llffhold']}" if p.get("llffhold") is not None else "given split"
    split = f"test views: {p['split']}" if p.get("split") else split
    length = f"{run['max_seconds']:g} s" if run.get("max_seconds") else f"{run['steps']} steps"
    model = f", {run['model']}" if run.get("model") else ""
    fixed = re.search(r"of (\w+) fixed pixels", p.get("average", ""))
    model += f", on {fixed[1]} fixed pixels a view only" if fixed else ""
    cameras = f"cameras {p['cameras']}, " if p.get("cameras") else ""
    return f"{p['width']}×{p['height']} (factor {p['factor']}), {split}, {cameras}{length}{model}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
