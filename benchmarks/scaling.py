"""How time and memory grow: a training step and a frame against rays, samples, width, picture size and photographs.

    python benchmarks/scaling.py --out FOLDER [--config fern.txt] [--quick] [--limit 240]

One thing varies at a time around the configuration; each point is measured in a fresh process, on photographs of noise
that are made in memory. Memory is the process's peak resident set (with the libraries, about 0.3 GB), or on a GPU the
peak of what torch allocated. The folder keeps ``scaling.json`` (points that are there are not measured again),
``scaling.txt`` and ``scaling.png``. The last line is ``ratio=X noise=LOW..HIGH``: peak memory of training besides the
photographs themselves, with most photographs over that with fewest; the noise is its range over all numbers of them.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ours
import sides
from sides import Side

from enerf.config import parser as config_parser
from enerf.core import io
from enerf.core.errors import InputError
from enerf.reporting import tables
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import views as nerf_views

# What varies, over which values; then over which with --quick.
STEPS = {
    "rays": ((256, 512, 1024, 2048, 4096, 8192), (64, 128)),
    "samples": ((16, 32, 64, 128), (16, 32)),
    "width": ((64, 128, 256, 512), (64, 128)),
    "photographs": ((20, 100, 300, 1000), (20, 60)),
}
FRAMES = {
    "height": ((47, 94, 189, 378), (24, 47)),
    "samples": ((16, 32, 64, 128), (16, 32)),
    "width": ((64, 128, 256, 512), (64, 128)),
}
FRAME_HEIGHT = 94  # of frames in which something else varies
QUICK_RAYS = 64
TIMED, ENOUGH = 5, 10.0  # measured steps or frames, and seconds after which fewer do


class Point:
    """One configuration, measured."""

    def __init__(self, options: nerf_config.NerfConfig, photographs: int, height: int) -> None:
        self.idle = ours.peak_memory(ours.device_of("cpu"))
        scene = ours.noise_scene(photographs, height * ours.WIDTH // ours.HEIGHT, height)
        self.images = scene.images.numel() * scene.images.element_size() / 1e6
        self.training = ours.Training(options, scene, warm=False)
        self.words = self.training.words

    def step(self) -> dict[str, float]:
        """Seconds and memory of a training step."""
        return self._measured(lambda: self.training.seconds(1))

    def frame(self) -> dict[str, float]:
        """Seconds and memory of a rendered frame."""
        run = self.training.run
        renderer = nerf_views.renderer_of(run)
        pose = run.scene.c2w[run.scene.test[0]]

        def seconds() -> float:
            return ours.seconds_of(lambda: renderer.picture(run.scene, pose, run.scene.camera), 1, run.device)

        return self._measured(seconds)

    def _measured(self, seconds: Any) -> dict[str, float]:
        found = [seconds()]  # the first one, which allocates and compiles, counts for nothing unless it is too long
        while len(found) < TIMED + 1 and sum(found) < ENOUGH:
            found.append(seconds())
        kept = found[1:] or found
        memory = ours.peak_memory(self.training.run.device)
        return {"seconds": statistics.median(kept), "MB": memory, "photographs MB": self.images, "idle MB": self.idle}


def plan(options: nerf_config.NerfConfig, quick: bool) -> list[dict[str, Any]]:
    """The points: what is measured, what varies, its value, options, photographs and height."""
    found = []
    for kind, table in (("step", STEPS), ("frame", FRAMES)):
        for name, (values, few) in table.items():
            for value in few if quick else values:
                changes, photographs = {}, ours.PHOTOS if kind == "step" else 2
                height = ours.HEIGHT if kind == "step" else (FRAME_HEIGHT // 4 if quick else FRAME_HEIGHT)
                if quick:
                    changes["N_rand"] = QUICK_RAYS
                if name == "rays":
                    changes["N_rand"] = value
                elif name == "samples":
                    changes |= {"N_samples": value, "N_importance": value if options.render.N_importance else 0}
                elif name == "width":
                    changes |= {"netwidth": value, "netwidth_fine": value}
                elif name == "photographs":
                    photographs = value
                else:
                    height = value
                settings = {"changes": changes, "photographs": photographs, "height": height}
                found.append({"kind": kind, "name": name, "value": value, **settings})
    return found


def measured(point: dict[str, Any], options: nerf_config.NerfConfig, limit: float) -> dict[str, Any]:
    """A point's figures, or the reason for which it has none."""
    changed = config_parser.replace(options, **point["changes"])
    try:
        side = Side("a point", Point, changed, point["photographs"], point["height"])
        found = side.call(point["kind"], limit=limit)
        side.close()
        return {**found, "words": side.words}
    except TimeoutError:
        return {"failed": f"longer than {limit:g} s"}
    except InputError as error:
        return {"failed": str(error)}


def rows_of(points: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The table."""
    rows = [["", "against", "value", "ms", "peak MB", "of it photographs"]]
    for p in points:
        found = p["found"]
        if "failed" in found:
            rows.append([p["kind"], p["name"], str(p["value"]), found["failed"], "", ""])
            continue
        figures = [f"{found['seconds'] * 1e3:.1f}", f"{found['MB']:.0f}", f"{found['photographs MB']:.0f}"]
        rows.append([p["kind"], p["name"], str(p["value"]), *figures])
    return rows


def panels_of(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A panel for time and one for memory of each thing that varies."""
    panels = []
    for key, label in (("seconds", "seconds"), ("MB", "peak memory (MB)")):
        for name in dict.fromkeys(p["name"] for p in points):
            curves = {}
            for kind in ("step", "frame"):
                chosen = [p for p in points if (p["kind"], p["name"]) == (kind, name) and key in p["found"]]
                if chosen:
                    curves[kind] = ([p["value"] for p in chosen], [p["found"][key] for p in chosen])
            panels.append({"curves": curves, "x": name, "y": label, "log": "xy"})
    return panels


def conclude(points: Sequence[dict[str, Any]], report: sides.Report) -> None:
    """What grows with the photographs besides them."""
    chosen = [p["found"] for p in points if p["kind"] == "step" and p["name"] == "photographs" and "MB" in p["found"]]
    besides = [found["MB"] - found["photographs MB"] for found in chosen]
    if len(besides) < 2:
        report("ratio: too few points with photographs were measured")
        return
    report(f"training memory besides the photographs: {', '.join(f'{b:.0f}' for b in besides)} MB")
    shares = [b / besides[0] for b in besides]
    report(f"ratio={shares[-1]:.2f} noise={min(shares):.2f}..{max(shares):.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    ours.add_options(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder of the table, the plot and the points so far")
    parser.add_argument("--quick", action="store_true", help="few and small points")
    parser.add_argument("--limit", type=float, default=240, help="most seconds of one point")
    args = parser.parse_args()
    options = ours.options_of(args)
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "scaling.json"
    known = io.read_json(kept) if kept.is_file() else {}
    report = sides.Report(args.out / "scaling.txt", ours.device_of(args.device))
    points, words = plan(options, args.quick), None
    for point in points:
        key = json.dumps([args.config, args.rays, args.device, args.backend, args.precision, point], sort_keys=True)
        if key not in known:
            known[key] = measured(point, options, args.limit)
            io.write_json(kept, known)
        point["found"] = known[key]
        words = words or point["found"].get("words")
        print("  ".join(rows_of([point])[1]), flush=True)
    report(f"{args.config}: {words}")
    report(tables.as_text(rows_of(points)))
    sides.draw(panels_of(points), args.out / "scaling.png", rows=2)
    conclude(points, report)


if __name__ == "__main__":
    sides.enter(main)
