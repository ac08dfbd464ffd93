"""Pixels and frames per second of a test view: this project against nerf-pytorch, the same trained weights.

    python benchmarks/render.py --run LOGS/RUN [--peer PATH_TO_NERF_PYTORCH] [--pixels 8192] [--skip 1e-3]
    python benchmarks/render.py --preset fast (--run LOGS/RUN | --datadir FERN [--seconds 60]) [--scales 1 2]

The second form renders whole frames of a run of a fast preset, which it trains if none is given, and shows where the
seconds go: see ``render_preset.py``. The first form:

Work: rows of pixels around the middle of the first test view, through both networks, deterministic samples, no
gradients. The weights are those of a run of this project (trained, so that densities are those of a scene), baked, and
the peer, which needs the paper's model, gets the same ones and the same rays. Our ways by turns: every sample in fp32
(must agree with the peer to rounding), every sample in ``--precision``, and without the samples that ``--skip`` skips
(0: not measured, nor for runs with proposals or deferred shading, to which it does not apply). PSNR is that of two
renders against each other. The last line is ``ratio=X noise=LOW..HIGH``: pixels/s of our fastest way over the peer's,
median over the pairs; without a peer, over our fp32.
"""

import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

import floor
import numpy as np
import ours
import peer
import render_preset
import sides
import torch
from sides import Side

from enerf.core.errors import InputError
from enerf.core.types import Rays
from enerf.datasets.scenes import pixels, rays
from enerf.datasets.scenes.pixels import Pixels
from enerf.fields.backends import registry
from enerf.rendering.render import in_chunks
from enerf.reporting import tables
from enerf.tasks.nerf import image_metrics as nerf_image_metrics
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import views as nerf_views

EXACT, LOW, SKIPPING = "every sample, fp32", "every sample", "samples skipped"


class OurSide:
    """A trained run, rendered in several ways."""

    def __init__(
        self, folder: str, datadir: str, device: str, ways: dict[str, tuple[str, str, float]], n: int, any_model: bool
    ) -> None:
        self.run = nerf_setup.open_run(Path(folder), device, datadir)
        model, scene = self.run.config.model, self.run.scene
        if not any_model:
            _require_paper_model(self.run, folder)
        self.pixels = middle_rows(scene.test[0], scene.camera.width, scene.camera.height, n)
        self.rays = pixels.rays_of(scene, self.pixels, self.run.config.data.pixel_centers)
        self.renderers, chosen = {}, []
        skips = nerf_views.can_skip(self.run.fields, nerf_setup.sampling_config(self.run.config))
        for name, (backend, precision, skip) in ways.items():
            if skip > 0 and not skips:
                continue
            made = registry.choose(backend, precision, self.run.device)
            registry.use(self.run.fields, made)
            self.renderers[name] = nerf_views.renderer_of(self.run, skip)  # a copy of the fields, as they are now
            chosen.append(f"{name}: {made}")
        coarse, fine = floor.points(nerf_setup.sampling_config(self.run.config))
        self.whole = scene.camera.width * scene.camera.height
        self.words = (
            f"{len(self.rays)} pixels of {scene.camera.width}x{scene.camera.height}, {coarse} coarse and {fine} fine "
            f"evaluations a ray, {model.netdepth}x{model.netwidth}; {'; '.join(chosen)}"
        )

    def ways(self) -> list[str]:
        """Names of the ways that apply to the run."""
        return list(self.renderers)

    def frame(self) -> int:
        """Pixels of a whole view."""
        return self.whole

    def seconds(self, name: str) -> float:
        """Seconds of one rendering."""
        return ours.seconds_of(lambda: self.picture(name), 1, self.run.device)

    def picture(self, name: str) -> np.ndarray:
        """The rendered colors."""
        way = self.renderers[name]
        return in_chunks(way.render, self.rays, way.rays_at_once).rgb.cpu().numpy()

    def photograph(self) -> np.ndarray:
        """The pixels of the photograph."""
        return pixels.colors_of(self.run.scene, self.pixels).cpu().numpy()

    def for_peer(self) -> dict[str, Any]:
        """Weights, scene rays, camera and sampling, as plain arrays."""
        scene, config = self.run.scene, self.run.config
        poses = scene.c2w[self.pixels.view]
        offset = {"near": 0.0, "far": 1.0, "pixel_centers": config.data.pixel_centers}
        made: Rays = rays.through_pixels(scene.camera, poses, self.pixels.x, self.pixels.y, **offset)
        fields = {"coarse": self.run.fields.coarse, "fine": self.run.fields.fine}
        names = ("netdepth", "netwidth", "netdepth_fine", "netwidth_fine", "multires", "multires_views")
        options = {name: getattr(config.model, name) for name in names}
        options |= {"N_samples": config.render.N_samples, "N_importance": config.render.N_importance}
        return {
            "options": options,
            "weights": {k: {n: w.cpu().numpy() for n, w in f.state_dict().items()} for k, f in fields.items()},
            "rays": (made.origins.cpu().numpy(), made.directions.cpu().numpy()),
            "camera": peer.camera_of(scene.camera),
        }


def _require_paper_model(run: nerf_setup.Run, folder: str) -> None:
    """Raise ``InputError`` unless the run is of the model that the peer has too."""
    model, scene = run.config.model, run.scene
    if model.encoding != "positional" or run.config.render.sampler != "hierarchical" or not scene.ndc:
        raise InputError(f"{folder}: expected a run of the paper's model on a forward-facing scene")
    if not (model.use_viewdirs and run.fields.fine is not None):
        raise InputError(f"{folder}: expected a run with viewing directions and a fine network")


class PeerSide(peer.Peer):
    """The peer with our weights and our rays."""

    def __init__(self, path: Path, device: str, given: dict[str, Any]) -> None:
        super().__init__(path, device, **given["options"])
        self.take_weights(**given["weights"])
        self._rays = tuple(torch.as_tensor(x).to(self.device) for x in given["rays"])
        self._camera = given["camera"]

    def seconds(self) -> float:
        """Seconds of one rendering."""
        return ours.seconds_of(self.picture, 1, self.device)

    def picture(self) -> np.ndarray:
        """The rendered colors."""
        return self.render(self._rays, self._camera).cpu().numpy()


def middle_rows(view: int, width: int, height: int, n: int) -> Pixels:
    """At least ``n`` pixels of whole rows around the middle, or all there are."""
    rows = min(height, -(-n // width))
    index = torch.arange(rows * width) + (height - rows) // 2 * width
    return Pixels(torch.full_like(index, view), index % width, index // width)


def rows_of(
    pictures: dict[str, np.ndarray], seconds: dict[str, list[float]], truth: np.ndarray, frame: int
) -> list[list[str]]:
    """The table: speed, and PSNR against the first and against the photograph; ``frame`` pixels are a whole view."""
    reference, *_ = pictures
    rows = [["", "pixels/s", "frames/s", f"PSNR to {reference}", "largest difference", "PSNR to the photograph"]]
    tensors = {name: torch.as_tensor(picture) for name, picture in pictures.items()}
    for name, rgb in tensors.items():
        speed = len(rgb) / statistics.median(seconds[name])
        likeness = nerf_image_metrics.psnr(rgb, tensors[reference].clamp(0, 1))
        likeness_words = "same" if math.isinf(likeness) else f"{likeness:.1f} dB"
        furthest = float((rgb - tensors[reference]).abs().max())
        truth_words = f"{nerf_image_metrics.psnr(rgb, torch.as_tensor(truth)):.2f} dB"
        rows.append([name, f"{speed:.0f}", f"{speed / frame:.3g}", likeness_words, f"{furthest:.1e}", truth_words])
    return rows


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--run", type=Path, help="a training run's folder; of the paper's model with --peer")
    parser.add_argument("--preset", choices=("fast",), help="whole frames of a run of fast/fern.txt, by part")
    parser.add_argument(
        "--scales",
        type=sides.count,
        nargs="+",
        default=[1, 2],
        help="with --preset: sizes, in units of the photographs'",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, with --preset and without --run")
    parser.add_argument("--datadir", default="", help="where its scene is now")
    peer.add_option(parser, required=False)
    parser.add_argument(
        "--pixels", type=sides.count, default=8192, help="at least so many, whole rows of a test view, or all"
    )
    parser.add_argument("--pairs", type=sides.count, default=3, help="how often the sides take turns")
    parser.add_argument("--skip", type=float, default=1e-3, help="as train_nerf.py's; 0: no way that skips samples")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    args = parser.parse_args()
    device = ours.device_of(args.device)
    report = sides.Report(args.out, device)
    if args.preset:
        with tempfile.TemporaryDirectory() as folder:
            run = args.run or render_preset.trained(args.datadir, args.seconds, Path(folder))
            render_preset.measure(run, args.device, args.datadir, args.pairs, args.scales, report)
        return
    if args.run is None:
        raise InputError("option --run: found nothing, expected the folder of a training run")
    ways: dict[str, Any] = {EXACT: (args.backend, "fp32", 0.0), LOW: (args.backend, args.precision, 0.0)}
    if args.skip > 0:
        ways[SKIPPING] = (args.backend, args.precision, args.skip)
    where = (str(args.run), args.datadir, args.device)
    mine = Side("enerf", OurSide, *where, ways, args.pixels, args.peer is None)
    report(f"enerf: {mine.words}")
    names = mine.call("ways")
    timers = {name: lambda name=name: mine.call("seconds", name) for name in names}
    if args.peer:
        other = Side("nerf-pytorch", PeerSide, args.peer.resolve(), device.type, mine.call("for_peer"))
        report(f"nerf-pytorch: {other.words}")
        timers = {"nerf-pytorch": lambda: other.call("seconds"), **timers}
    pictures = {
        name: other.call("picture") if name == "nerf-pytorch" else mine.call("picture", name) for name in timers
    }
    seconds = sides.by_turns(timers, args.pairs)
    truth, frame = mine.call("photograph"), mine.call("frame")
    report(tables.as_text(rows_of(pictures, seconds, truth, frame)))
    reference = next(iter(timers))
    fastest = min((name for name in names if name != EXACT), key=lambda name: statistics.median(seconds[name]))
    report(f"ratio: pixels/s of {fastest!r} over {reference!r}")
    report(sides.ratio_line(sides.ratios(seconds[reference], seconds[fastest])))


if __name__ == "__main__":
    sides.enter(main)
