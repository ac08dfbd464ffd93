"""Test PSNR against seconds of training: the fast preset and nerf-pytorch, alternately, for equal wall time.

    python benchmarks/time_to_psnr.py --peer PATH --datadir SCENE --work DIR [--config fast/fern.txt] [--minutes 10]

Both sides train on the scene as we load it (same photographs, poses and split), in slices of equal seconds, each in a
separate process that computes only in its turn. The peer uses its fern.txt, its own ``create_nerf``, ``get_rays_np``
and ``render``, draws its batches from a permutation of all training pixels as in its loop, with rays through pixel
corners. Our learning rate is scheduled to end after ``--minutes``; the peer's follows its configuration. PSNR is the
mean over test views of the same fixed pixels; its seconds, and those of set-up, are not counted; compilation in the
first step is. The command can be interrupted and started again: states and curves are saved in ``--work``. Without
``--peer`` our side trains alone.

``difference`` is our PSNR less the peer's at the end. The last line is ``ratio=X noise=LOW..HIGH``: how many times
sooner our curve reaches the peer's last PSNR, interpolated between points in log seconds; the noise is the two
neighboring points. It compares two ways of solving one task, not the same mathematics.
"""

import argparse
import math
import shutil
import time
from pathlib import Path
from typing import Any

import ours
import peer
import sides
import torch
from sides import Side

from enerf.config import parser as config_parser
from enerf.core import io
from enerf.core.errors import InputError
from enerf.core.io import atomic_path
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.engine import checkpoint
from enerf.reporting import tables
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf import image_metrics as nerf_image_metrics
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import views as nerf_views

AT = (5, 10, 20, 30, 45, 60, 90, 120, 180, 240, 360, 480, 600, 900, 1200, 1800, 2700, 3600)


class OurSide(ours.Training):
    """A run of this project, resumed from its folder's checkpoint."""

    def __init__(self, options: nerf_config.NerfConfig, pixels: int) -> None:
        super().__init__(options, None, warm=False)
        self.n_pixels = pixels

    def train(self, until: float) -> tuple[float, int]:
        """Train until so many seconds of training have passed; returns seconds and steps, and saves."""
        training = self.run.state
        began, before = time.perf_counter(), training.seconds
        while training.seconds < until:
            self.step()
            ours.synchronize(self.run.device)
            training.seconds = before + time.perf_counter() - began
        return training.seconds, training.step

    def psnr(self) -> float:
        """The curve's value now."""
        return nerf_views.psnr_of_pixels(
            nerf_views.renderer_of(self.run), self.run.scene, self.run.scene.test, self.n_pixels
        )

    def save(self) -> None:
        """Save a checkpoint and delete the previous one."""
        folder = self.run.config.folder
        old = checkpoint.checkpoints(folder)
        new = checkpoint.save(self.run.state, folder, config_parser.to_dict(self.run.config))
        for path in old:
            if path != new:
                path.unlink()


class PeerSide(peer.Peer):
    """nerf-pytorch's training loop on our scene."""

    def __init__(self, path: Path, options: nerf_config.NerfConfig, work: Path, pixels: int) -> None:
        scene = nerf_setup.load_scene(options)
        self.scene, self.camera, self.file = scene, peer.camera_of(scene.camera), work / "nerf-pytorch.pt"
        self.test_pixels = [scenes_pixels.fixed_pixels(scene, view, pixels) for view in scene.test]
        super().__init__(path, options.train.device)  # which may move torch's defaults to a GPU
        self.seconds, self.steps, self.epoch, self.at = 0.0, 0, 0, 0
        self.bounds = {"near": scene.near, "far": scene.far, "ndc": scene.ndc}
        self.test_kwargs |= self.bounds
        origins, directions = zip(*(self._rays_of(v) for v in scene.train), strict=True)
        self.origins, self.directions = torch.stack(origins), torch.stack(directions)
        colors = [scenes_pixels.view_image(scene, view).reshape(-1, 3) for view in scene.train]
        self.colors = torch.cat(colors).to(self.device)
        self.words += f", {len(self.colors)} training rays"
        if self.file.is_file():
            self._restore(torch.load(self.file, map_location=self.device, weights_only=True))
        self._shuffle()

    def train(self, until: float) -> tuple[float, int]:
        """Train until so many seconds of training have passed; returns seconds and steps."""
        began, before = time.perf_counter(), self.seconds
        while self.seconds < until:
            chosen = self.order[self.at : self.at + self.args.N_rand]
            view, pixel = chosen // self.per_view, chosen % self.per_view
            rays = (self.origins[view, pixel], self.directions[view, pixel])
            self.step(rays, self.colors[chosen], self.camera, **self.bounds)
            self.at += self.args.N_rand
            if self.at >= len(self.order):
                self.epoch, self.at = self.epoch + 1, 0
                self._shuffle()
            for group in self.optimizer.param_groups:
                group["lr"] = self.args.lrate * 0.1 ** (self.steps / (self.args.lrate_decay * 1000))
            self.steps += 1
            self.seconds = before + time.perf_counter() - began
        return self.seconds, self.steps

    def psnr(self) -> float:
        """The curve's value now: the same pixels of the same views as ours."""
        values = []
        for view, pixels in zip(self.scene.test, self.test_pixels, strict=True):
            index = (pixels.y * self.scene.camera.width + pixels.x).to(self.device)
            origins, directions = self._rays_of(view)
            rgb = self.render((origins[index], directions[index]), self.camera)
            values.append(nerf_image_metrics.psnr(rgb.cpu(), scenes_pixels.colors_of(self.scene, pixels)))
        return sum(values) / len(values)

    def save(self) -> None:
        """Save the state atomically."""
        content = {name: getattr(self, name) for name in ("seconds", "steps", "epoch", "at")}
        content |= {key: self.train_kwargs[key].state_dict() for key in ("network_fn", "network_fine")}
        with atomic_path(self.file) as temporary:
            torch.save({**content, "optimizer": self.optimizer.state_dict()}, temporary)

    def _restore(self, content: dict[str, Any]) -> None:
        for name in ("seconds", "steps", "epoch", "at"):
            setattr(self, name, content[name])
        for key in ("network_fn", "network_fine"):
            self.train_kwargs[key].load_state_dict(content[key])
        self.optimizer.load_state_dict(content["optimizer"])

    def _rays_of(self, view: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The peer's rays of all pixels of a view, row by row."""
        made = self.module.get_rays_np(*self.camera, self.scene.c2w[view].cpu().numpy())
        origins, directions = (torch.as_tensor(x.copy().reshape(-1, 3), dtype=torch.float32) for x in made)
        return origins.to(self.device), directions.to(self.device)

    def _shuffle(self) -> None:
        """The order of all training pixels in this epoch."""
        generator = torch.Generator("cpu").manual_seed(self.epoch)
        self.order = torch.randperm(len(self.colors), generator=generator, device="cpu").to(self.device)

    @property
    def per_view(self) -> int:
        """Pixels of a view."""
        return self.scene.camera.width * self.scene.camera.height


def interpolated(curve: list[list[float]], goal: float) -> tuple[float, float, float] | None:
    """Seconds at which a curve (seconds, steps, PSNR) first reaches a PSNR: between points, and its neighbours'."""
    for i, (seconds, _, psnr) in enumerate(curve):
        if psnr >= goal:
            if i == 0:
                return seconds, seconds, seconds
            early, _, below = curve[i - 1]
            share = (goal - below) / (psnr - below)
            return early * (seconds / early) ** share, early, seconds
    return None


def settings_of(args: argparse.Namespace, scene: Scene) -> dict[str, Any]:
    """Settings that must be equal when a measurement is resumed."""
    size = f"{scene.camera.width}x{scene.camera.height}"
    names = ("config", "minutes", "pixels", "rays", "backend", "precision", "seed", "equilibrate")
    return {"scene": scene.name, "size": size, **{name: getattr(args, name) for name in names}}


def opened(work: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The record of the work folder, loaded if it exists."""
    path = work / "time_to_psnr.json"
    found = io.read_json(path) if path.is_file() else {"settings": settings, "curves": {}}
    for name, value in settings.items():
        if found["settings"].get(name) != value:
            raise InputError(f"{path}: holds another measurement ({name} {found['settings'].get(name)!r} there, "
                             f"{value!r} requested), expected the same or another --work")  # fmt: skip
    return found


def measure(both: dict[str, Side], record: dict[str, Any], args: argparse.Namespace, report: sides.Report) -> None:
    """Train both sides by turns to the end, and measure the points of their curves."""
    end = args.minutes * 60
    wanted = sorted({float(t) for t in (args.at or AT) if t < end} | {end})
    slices = [args.slice * (i + 1) for i in range(math.ceil(end / args.slice))]
    for until in sorted({*wanted, *(s for s in slices if s < end)}):
        for name, side in both.items():
            curve = record["curves"].setdefault(name, [])
            seconds, steps = side.call("train", until)
            if until in wanted and wanted.index(until) == len(curve):
                same = curve and curve[-1][1] == steps  # a step of the peer may be longer than a slice
                curve.append([seconds, steps, curve[-1][2] if same else side.call("psnr")])
                report(f"{name}: {curve[-1][0]:.1f} s, step {steps}, {curve[-1][2]:.2f} dB")
            side.call("save")
            io.write_json(args.work / "time_to_psnr.json", record)


def conclude(curves: dict[str, list[list[float]]], goals: list[float], report: sides.Report) -> None:
    """The table, the times to the goals, and the last line."""
    names = list(curves)
    rows = [["seconds of training", *names]]
    for points in zip(*curves.values(), strict=True):
        cells = [f"{psnr:.2f} dB ({seconds:.0f} s, step {steps})" for seconds, steps, psnr in points]
        rows.append([f"{min(p[0] for p in points):.0f}", *cells])
    report(tables.as_text(rows))
    for name, curve in curves.items():
        for goal in goals:
            found = interpolated(curve, goal)
            reached = f"after {found[0]:.0f} s ({found[1]:.0f}..{found[2]:.0f})" if found else "not reached"
            report(f"{name}: {goal:g} dB {reached}")
    if len(names) == 1:
        return
    mine, other = curves[names[0]], curves[names[1]]
    report(f"difference={mine[-1][2] - other[-1][2]:.2f} dB at the end")
    found, total = interpolated(mine, other[-1][2]), other[-1][0]
    if found is None:
        report("ratio=below 1: our curve does not reach the peer's last PSNR")
        return
    if found[1] == found[2]:
        report("our first point is above the peer's last: the ratio is at least this")
    report(f"ratio={total / found[0]:.1f} noise={total / found[2]:.1f}..{total / found[1]:.1f}")


def main() -> None:
    parser = sides.parser(__doc__)
    peer.add_option(parser, required=False)
    ours.add_options(parser, "fast/fern.txt")
    parser.add_argument("--datadir", type=Path, required=True, help="an LLFF scene folder")
    parser.add_argument("--work", type=Path, required=True, help="states, curves and picture of this measurement")
    parser.add_argument("--factor", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=10, help="of training, each side")
    parser.add_argument("--slice", type=float, default=20, help="most seconds of a turn")
    parser.add_argument("--at", type=float, nargs="*", help="seconds at which PSNR is taken")
    parser.add_argument("--pixels", type=int, default=1024, help="fixed pixels a test view; 0: all")
    parser.add_argument("--goals", type=float, nargs="*", default=[24, 25, 25.3], help="PSNR whose time is reported")
    parser.add_argument("--equilibrate", nargs="?", const="row", default="none", help="our side trains E-NeRF")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    changes = {name: getattr(args, name) for name in ("factor", "seed", "equilibrate")}
    seconds = args.minutes * 60
    work = {"basedir": str(args.work), "expname": "enerf", "datadir": str(args.datadir), "max_seconds": seconds}
    options = config_parser.replace(ours.options_of(args, **changes, **work), no_reload=False)
    args.work.mkdir(parents=True, exist_ok=True)
    record = opened(args.work, settings_of(args, nerf_setup.load_scene(options)))
    report = sides.Report(args.out, ours.device_of(args.device))
    both = {"enerf": Side("enerf", OurSide, options, args.pixels)}
    if args.peer:
        both["nerf-pytorch"] = Side("nerf-pytorch", PeerSide, args.peer.resolve(), options, args.work, args.pixels)
    for name, side in both.items():
        report(f"{name}: {side.words}")
    measure(both, record, args, report)
    curves = {name: record["curves"][name] for name in both}
    drawn = {name: ([p[0] for p in curve], [p[2] for p in curve]) for name, curve in curves.items()}
    picture = args.work / "time_to_psnr.png"
    panel = {"curves": drawn, "x": "seconds of training", "y": "test PSNR (dB)", "log": "x"}
    sides.draw([panel], picture)
    if args.out:
        shutil.copy(picture, args.out.with_suffix(".png"))
        shutil.copy(args.work / "time_to_psnr.json", args.out.with_suffix(".json"))
    conclude(curves, args.goals, report)


if __name__ == "__main__":
    sides.enter(main)
