"""Baked planes against their field: test PSNR, seconds of a frame, seconds of baking and tuning, bytes.

    python benchmarks/planes.py --datadir FERN --config fast/fern.txt [--seconds 600] [--tune 60] [--frames 60]

A field is trained for ``--seconds`` (or a run is given by ``--run``), baked, and tuned for ``--tune`` seconds. All are
scored on whole test views: mean of per-view PSNR; so is the field with colors that do not depend on the view, as those
of planes do not. The control is a field of the same configuration that is trained for as many seconds more as baking
and tuning took; ``--no_control`` leaves it out. Frames of the scene's camera on its default path: median seconds of the
field (``--field_frames``) and of planes, and of a video of ``--frames`` frames from planes that are baked already. The
last line is ``ratio=X noise=LOW..HIGH``: seconds of a frame of the field over those of tuned planes.
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import ours
import sides
import torch
from torch.nn import functional

from enerf.config import parser
from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import camera_paths
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import rays as scenes_rays
from enerf.rendering.planes import blocks, storage
from enerf.rendering.planes.tune import TuneSettings
from enerf.rendering.render import Rendering
from enerf.reporting import tables
from enerf.tasks.nerf import image_metrics, planes, setup, train, video, views
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.planes import PlanesRenderer
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.views import Renderer


def trained(args: Any, folder: Path, seconds: float) -> Run:
    """A run of the configuration, trained for some seconds."""
    words = ["--config", args.config, "--datadir", args.datadir, "--basedir", str(folder), "--no_final_eval"]
    words += ["--expname", f"{seconds:.0f}_seconds", "--max_seconds", str(seconds), *args.words]
    config = parser.parse(NerfConfig, words)[0]
    train.train(config)
    return setup.open_run(config.folder)


def psnr(renderer: Any, run: Run) -> float:
    """Mean over the test views of the PSNR of whole views."""
    scene, values = run.present_scene, []
    for view in scene.test:
        rgb = renderer.picture(scene, scene.c2w[view], scene.cameras.camera(view)).rgb.cpu()
        mask = scenes_pixels.view_mask(scene, view)
        target = scenes_pixels.view_image(scene, view).cpu()
        values.append(image_metrics.psnr(rgb, target, None if mask is None else mask.cpu()))
    return statistics.fmean(values)


def of_one_camera(renderer: Renderer, camera: Camera) -> Renderer:
    """The field with colors that do not depend on the view: those for the reference camera, at the mean depth of rays.

    Planes, which cannot show more, are to be compared with this one.
    """

    def render(batch: Rays) -> Rendering:
        found = renderer.render(batch)
        total = found.weights.sum(-1, keepdim=True).clamp(min=1e-6)
        depth = (found.weights * found.t_vals).sum(-1, keepdim=True) / total
        seen = functional.normalize(
            scenes_rays.point_from_ndc(batch.origins + depth * batch.directions, camera), dim=-1
        )
        return renderer.render(replace(batch, viewdirs=torch.where(seen.isfinite(), seen, batch.viewdirs)))

    return replace(renderer, render=render)


def frames(renderer: Any, run: Run, count: int) -> list[float]:
    """Seconds of frames of the default path; one before them is not counted."""
    scene, seconds = run.present_scene, []
    for pose in camera_paths.camera_path(scene, camera_paths.default_kind(scene), count + 1):
        began = time.perf_counter()
        renderer.picture(scene, pose, scene.camera)
        seconds.append(time.perf_counter() - began)
    return seconds[1:]


def main() -> None:
    """Print the figures."""
    reader = sides.parser(__doc__)
    reader.add_argument("--datadir", required=True, help="a forward-facing scene")
    reader.add_argument("--config", default="fast/fern.txt", help="configuration; default: fast/fern.txt")
    reader.add_argument("--run", type=Path, help="a run of it that is trained already")
    reader.add_argument("--seconds", type=float, default=600.0, help="of training the field; default: 600")
    reader.add_argument("--tune", type=float, default=60.0, help="seconds of tuning; default: 60")
    reader.add_argument("--planes", type=int, default=0, help="number of planes; default: by parallax")
    reader.add_argument("--frames", type=int, default=60, help="of the planes' video; default: 60")
    reader.add_argument("--field_frames", type=int, default=3, help="of the field that are timed; default: 3")
    reader.add_argument("--no_control", action="store_true", help="train no control")
    args, args.words = reader.parse_known_args()
    report = sides.Report(args.out, ours.device_of("cpu"))
    with tempfile.TemporaryDirectory() as work:
        run = setup.open_run(args.run, datadir=args.datadir) if args.run else trained(args, Path(work), args.seconds)
        made_from, began = {"planes": args.planes}, time.perf_counter()
        baked = planes.baked(run, args.planes, made_from)
        baking = time.perf_counter() - began
        tuned = planes.tuned(run, baked, TuneSettings(seconds=args.tune), made_from)
        tuning = time.perf_counter() - began - baking
        storage.save(tuned, Path(work) / planes.TUNED)
        storage.save(baked, Path(work) / planes.BAKED)
        sizes = [(Path(work) / name).stat().st_size / 1e6 for name in (planes.BAKED, planes.TUNED)]
        field = views.renderer_of(run)
        renderers = {"field": field, "bake": PlanesRenderer(baked), "tuned bake": PlanesRenderer(tuned)}
        scores = {name: psnr(renderer, run) for name, renderer in renderers.items()}
        scores["field, colors of one camera"] = psnr(of_one_camera(field, run.present_scene.camera), run)
        if not args.no_control:
            more = baking + tuning
            name = f"field, {more:.0f} s more"
            scores[name] = psnr(views.renderer_of(trained(args, Path(work), run.state.seconds + more)), run)
        seconds = {name: frames(each, run, args.field_frames) for name, each in renderers.items()}
        began = time.perf_counter()
        video.write_video(run, Path(work) / "a.mp4", "spiral", args.frames, 30.0, fast=renderers["tuned bake"])
        filming = time.perf_counter() - began
    report(f"{run.scene.name}, {run.state.step} steps in {run.state.seconds:.0f} s, {torch.get_num_threads()} threads")
    rows = [["", "test PSNR", "to the field", "seconds a frame", "layers", "MB"]]
    for name, score in scores.items():
        time_words = f"{statistics.median(seconds[name]):.3f}" if name in seconds else ""
        rows.append([name, f"{score:.2f}", f"{score - scores['field']:+.2f}", time_words, "", ""])
    for row, stack, size in zip(rows[2:4], (baked, tuned), sizes, strict=True):
        row[4:] = [f"{blocks.layers(stack, blocks.visible(stack), run.scene.camera):.1f}", f"{size:.1f}"]
    report(tables.as_text(rows))
    report(f"baking {baking:.1f} s, tuning {tuning:.1f} s, video of {args.frames} frames {filming:.1f} s")
    report("ratio: seconds of a frame of the field over those of tuned planes")
    report(sides.ratio_line(sides.ratios(seconds["field"], seconds["tuned bake"])))


if __name__ == "__main__":
    sides.enter(main)
