"""Frames of a run with proposals (``fast/*.txt``): seconds, where they go, what each approximation costs.

``render.py --preset fast`` calls it. The split renders the same rays in the same chunks by the same functions as
``render.render_rays``, one after the other with a clock between them; its picture must equal that of the renderer, and
its sum is printed beside the seconds of the whole.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sides
import torch

from enerf.core.errors import InputError
from enerf.core.types import Camera, FieldOutput
from enerf.datasets.scenes import camera_models, pixels, rays
from enerf.fields.hash_space import to_density
from enerf.fields.nerf import encoded
from enerf.rendering import interpolation, proposal, render, sampling, volume
from enerf.rendering.render import Picture, in_chunks
from enerf.reporting import tables
from enerf.tasks.nerf import image_metrics
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import views as nerf_views


def trained(datadir: str, seconds: float, folder: Path) -> Path:
    """A run of ``fast/fern.txt``, trained for so long."""
    words = ["--config", "fast/fern.txt", "--datadir", datadir, "--basedir", str(folder), "--expname", "run"]
    words += ["--max_seconds", str(seconds), "--no_final_eval", "--i_eval", "0"]
    command = [sys.executable, "-m", "enerf.cli.main", "train", *words]
    subprocess.run(command, check=True, capture_output=True, cwd=sides.ROOT)
    return folder / "run"


class Split:
    """Seconds of the stages of a frame."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to a stage."""
        began = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


class Preset:
    """A run that is rendered every pixel, and in approximations."""

    def __init__(self, folder: Path, device: str, datadir: str) -> None:
        self.run = nerf_setup.open_run(folder, device, datadir)
        self.scene = self.run.present_scene
        self.sampling = nerf_setup.sampling_config(self.run.config, self.run.scene)
        tolerance = self.run.config.render.interpolate
        self.exact = nerf_views.renderer_of(self.run)
        if not self.sampling.proposal or self.exact.guided is None:
            raise InputError(f"{folder}: expected a run with --sampler proposal")
        self.fields = self.exact.guided.args[0]
        self.ways = {
            "every pixel": self.exact,
            "proposals of every second row and column": replace(self.exact, interpolate=-1.0),
            f"smooth cells interpolated, {tolerance:g}": replace(self.exact, interpolate=tolerance, guided=self._own),
            "both (enerf render)": replace(self.exact, interpolate=tolerance),
        }

    def _own(self, batch: Any, weights: Any) -> Any:
        """Rendering with proposals of every ray."""
        return self.exact.guided(batch, None)

    def camera(self, scale: int) -> Camera:
        """The camera at a multiple of the photographs' size."""
        camera = self.scene.camera
        return camera_models.of_size(camera, scale * camera.width, scale * camera.height)

    def picture(self, way: str, view: int, camera: Camera) -> tuple[torch.Tensor, float]:
        """Colors of a view as ``Renderer.picture`` renders it, and the share of pixels that are not interpolated."""
        renderer, every = self.ways[way], self.rays(view, camera)
        if renderer.interpolate:
            size = (camera.height, camera.width)
            made = interpolation.picture(renderer.guided, every, *size, renderer.rays_at_once, renderer.interpolate)
            return made[0].rgb.clamp(0, 1), float(made[1].float().mean())
        return in_chunks(renderer.render, every, renderer.rays_at_once).rgb.clamp(0, 1), 1.0

    def rays(self, view: int, camera: Camera) -> Any:
        """All rays of a view in field coordinates."""
        found = rays.of_image(camera, self.scene.c2w[view], self.scene.near, self.scene.far, self.exact.pixel_centers)
        return rays.to_ndc(found, self.scene.camera) if self.scene.ndc else found

    @torch.no_grad()
    def split(self, view: int, camera: Camera) -> tuple[Split, torch.Tensor]:
        """Seconds of the stages of a frame of every pixel, and its colors."""
        clock, colors = Split(), []
        with clock("rays"):
            every = self.rays(view, camera)
        for start in range(0, len(every), self.exact.rays_at_once):
            colors.append(self._chunk(clock, every[start : start + self.exact.rays_at_once]))
        return clock, torch.cat(colors).clamp(0, 1)

    def _chunk(self, clock: Split, batch: Any) -> torch.Tensor:
        coarse, fine, s = self.fields.coarse, self.fields.fine, self.sampling
        with clock("proposal points"):
            edges = render.proposal_edges(batch, s)
            points = batch.at(sampling.middles(edges, s.knee))
        with clock("proposal encoding"):
            features = coarse.hashed(points.reshape(-1, 3))
        with clock("proposal network"):
            (raw,) = coarse.bound()([features])
        with clock("proposal weights"):
            density = to_density(raw.reshape(points.shape[:-1]), coarse.density)
            weights = volume.weights(density, volume.widths(edges, batch.directions))
        with clock("resampling"):
            edges = proposal.resample(edges, weights, s.n_importance, knee=s.knee)
            t_vals = sampling.middles(edges, s.knee)
        with clock("fine points"):
            points = batch.at(t_vals)
        with clock("fine encoding"):
            features = fine.hashed(points.reshape(-1, 3))
        with clock("fine network"):
            directions = [encoded(batch.viewdirs, fine.multires_views)] if fine.use_viewdirs else []
            raw, raw_rgb = fine.bound()([features, *directions])
        with clock("density and color"):
            density = to_density(raw.reshape(points.shape[:-1]), fine.density)
            output = FieldOutput(density, torch.sigmoid(raw_rgb).reshape(points.shape))
        with clock("compositing"):
            return volume.composite_intervals(output, edges, batch.directions, s.white_bkgd, t_vals).rgb


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def speed_rows(preset: Preset, scale: int, rounds: int) -> tuple[list[list[str]], list[float]]:
    """Table of the ways to render the first test view at a scale, and the ratios of the first way to the last."""
    view, camera = preset.scene.test[0], preset.camera(scale)
    made: dict[str, tuple[torch.Tensor, float]] = {}
    preset.picture(next(iter(preset.ways)), view, preset.camera(1))  # so that allocations are not measured

    def seconds_of(way: str) -> float:
        return timed(lambda: made.update({way: preset.picture(way, view, camera)}))

    found = sides.by_turns({way: lambda way=way: seconds_of(way) for way in preset.ways}, rounds)
    rows = [[f"{camera.width}x{camera.height}", "seconds", "range", "pixels rendered", "PSNR to every pixel"]]
    exact, _ = next(iter(made.values()))
    for way, seconds in found.items():
        rgb, share = made[way]
        likeness = "same" if torch.equal(rgb, exact) else f"{image_metrics.psnr(rgb, exact):.1f} dB"
        words = (f"{statistics.median(seconds):.2f}", f"{min(seconds):.2f}..{max(seconds):.2f}")
        rows.append([way, *words, f"{100 * share:.0f} %", likeness])
    first, *_, last = found.values()
    return rows, sides.ratios(first, last)


def quality_rows(preset: Preset) -> list[list[str]]:
    """Table of the PSNR of all test views at the photographs' size."""
    values = {}
    for way in preset.ways:
        rendered = {v: preset.picture(way, v, preset.camera(1))[0] for v in preset.scene.test}
        truth = {v: pixels.view_image(preset.scene, v).reshape(-1, 3) for v in preset.scene.test}
        values[way] = statistics.mean(image_metrics.psnr(rendered[v], truth[v]) for v in rendered)
    exact = next(iter(values.values()))
    rows = [[f"{len(preset.scene.test)} test views", "PSNR to the photographs", "change"]]
    return rows + [[way, f"{value:.3f} dB", f"{value - exact:+.3f} dB"] for way, value in values.items()]


def split_rows(preset: Preset, scale: int) -> list[list[str]]:
    """Table of where the seconds of a frame of every pixel go."""
    view, camera = preset.scene.test[0], preset.camera(scale)
    clock, colors = preset.split(view, camera)
    every = preset.rays(view, camera)
    whole: list[Picture] = []
    seconds = timed(lambda: whole.append(in_chunks(preset.exact.render, every, preset.exact.rays_at_once)))
    if not torch.equal(whole[0].rgb.clamp(0, 1), colors):
        raise InputError("the split renders another picture than the renderer: it does not measure it")
    total = sum(clock.seconds.values())
    rows = [[f"every pixel, {camera.width}x{camera.height}", "seconds", "share"]]
    rows += [[stage, f"{each:.3f}", f"{100 * each / total:.0f} %"] for stage, each in clock.seconds.items()]
    return [*rows, ["sum", f"{total:.3f}", "100 %"], ["the renderer, without rays", f"{seconds:.3f}", ""]]


def measure(
    folder: Path, device: str, datadir: str, rounds: int, scales: Sequence[int], report: Callable[[str], None]
) -> None:
    """Print all tables, and the ratio of the seconds of every pixel to those of both approximations."""
    preset = Preset(folder, device, datadir)
    m, s = preset.run.config.model, preset.sampling
    report(
        f"{s.n_samples} intervals of the proposal, {s.n_importance} fine, {m.netdepth_fine}x{m.netwidth_fine}; "
        f"{preset.run.backend}; step {preset.run.state.step}"
    )
    for scale in scales:
        rows, ratios = speed_rows(preset, scale, rounds)
        report("\n" + tables.as_text(rows))
        report("\n" + tables.as_text(split_rows(preset, scale)))
        report(f"ratio, scale {scale}: {sides.ratio_line(ratios)}")
    if 1 in scales:
        report("\n" + tables.as_text(quality_rows(preset)))
    report("ratio: seconds of every pixel over those of both approximations, at the last size")
    report(sides.ratio_line(ratios))
