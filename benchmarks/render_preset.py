"""Frames of a run of a fast preset: seconds, and where they go; ``render.py --preset fast`` calls it.

Every pixel is rendered, by the operations on rays that are compiled, as commands use them, and by those of torch. The
frame by part is timed as in ``profile_step.py``: each part without those within it, so that they add up to the whole.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import ours
import profile_step
import sides
import torch

from enerf.core.errors import InputError
from enerf.datasets.scenes import camera_models
from enerf.fields.deferred import ColorNetwork, DeferredNeRF
from enerf.fields.hash_space import ProposalField
from enerf.fields.nerf import NeRF
from enerf.rendering.render import Picture
from enerf.reporting import tables
from enerf.tasks.nerf import image_metrics
from enerf.tasks.nerf import setup as nerf_setup
from enerf.tasks.nerf import views as nerf_views

COMPILED, TORCH = "compiled operations on rays", "torch's"
PARTS = {name: profile_step.FUNCTIONS[name] for name in (*profile_step.FIELDS, "sampling and compositing")}
PARTS |= {"proposal without these": [(ProposalField, "forward")]}
PARTS |= {"field without these": [(NeRF, "forward"), (DeferredNeRF, "forward"), (ColorNetwork, "forward")]}


def trained(datadir: str, seconds: float, folder: Path) -> Path:
    """A run of ``fast/fern.txt`` on a scene, trained for so long.

    Raises
    ------
    InputError
        If it cannot be trained.
    """
    if not datadir:
        raise InputError("option --preset: expected --run, or --datadir with a scene to train on")
    words = ["--config", "fast/fern.txt", "--datadir", datadir, "--basedir", str(folder), "--expname", "run"]
    words += ["--max_seconds", str(seconds), "--no_final_eval", "--i_eval", "0"]
    command = [sys.executable, "-m", "enerf.cli.main", "train", *words]
    done = subprocess.run(command, capture_output=True, cwd=sides.ROOT, text=True, check=False)
    if done.returncode:
        raise InputError(f"training failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    return folder / "run"


class Preset:
    """A run, and its first test view, rendered in two ways at multiples of the photographs' size."""

    def __init__(self, folder: Path, device: str, datadir: str) -> None:
        self.run = nerf_setup.open_run(folder, device, datadir)
        self.scene = self.run.present_scene
        if not nerf_setup.sampling_config(self.run.config).proposal:
            raise InputError(f"{folder}: expected a run with --sampler proposal")
        found, chosen = {}, nerf_setup.run_sampling
        for name, compiled in ((TORCH, False), (COMPILED, True)):
            with patch.object(nerf_setup, "run_sampling", lambda run, use=compiled: replace(chosen(run), compiled=use)):
                found[name] = nerf_views.renderer_of(self.run)
        self.renderers = found

    def picture(self, way: str, scale: int) -> Picture:
        """The view, rendered in one way at ``scale`` times the photographs' size."""
        camera = self.scene.camera
        camera = camera_models.of_size(camera, scale * camera.width, scale * camera.height)
        return self.renderers[way].picture(self.scene, self.scene.c2w[self.scene.test[0]], camera)

    def speed(self, scale: int, rounds: int) -> tuple[str, list[float]]:
        """Table of the seconds of a frame at a scale, and the ratios of torch's operations to the compiled ones."""
        made: dict[str, torch.Tensor] = {}

        def seconds_of(way: str) -> float:
            return ours.seconds_of(lambda: made.update({way: self.picture(way, scale).rgb}), 1, self.run.device)

        seconds = sides.by_turns({way: lambda way=way: seconds_of(way) for way in self.renderers}, rounds)
        height, width = made[TORCH].shape[:2]
        rows = [[f"{width}x{height}", "seconds", "range", f"PSNR to {TORCH}"]]
        for way, found in seconds.items():
            same = torch.equal(made[way], made[TORCH])
            likeness = "same" if same else f"{image_metrics.psnr(made[way], made[TORCH]):.1f} dB"
            rows.append([way, f"{statistics.median(found):.2f}", f"{min(found):.2f}..{max(found):.2f}", likeness])
        return tables.as_text(rows), sides.ratios(seconds[TORCH], seconds[COMPILED])

    def parts(self, scale: int) -> str:
        """Table of where the seconds of a frame go, by compiled operations."""
        clock = profile_step.Clock()
        with profile_step.timing(clock, PARTS):
            self.picture(COMPILED, scale)
        clock.switch()
        whole = sum(clock.seconds.values())
        rows = [["part of a frame", "seconds", "share"]]
        for name in (*PARTS, profile_step.OTHERS):
            seconds = clock.seconds.get(name, 0.0)
            rows.append([name, f"{seconds:.3f}", f"{100 * seconds / whole:.0f} %"])
        return tables.as_text([*rows, ["sum", f"{whole:.3f}", "100 %"]])


def measure(
    folder: Path, device: str, datadir: str, rounds: int, scales: Sequence[int], report: Callable[[str], None]
) -> None:
    """Print all tables, and the ratio of the seconds by torch's operations to those by compiled ones."""
    preset = Preset(folder, device, datadir)
    if preset.run.device.type != "cpu":
        raise InputError("the operations on rays are compiled for CPUs only: give --device cpu")
    model, sampling = preset.run.config.model, nerf_setup.sampling_config(preset.run.config)
    report(
        f"step {preset.run.state.step}; {sampling.n_samples} intervals of the proposal, "
        f"{sampling.n_importance} samples, shading per {model.shading}, "
        f"{model.netdepth_fine}x{model.netwidth_fine}; {preset.run.backend}"
    )
    preset.picture(COMPILED, 1)  # kernels are loaded
    for scale in scales:
        table, ratios = preset.speed(scale, rounds)
        report("\n" + table)
        report("\n" + preset.parts(scale))
    report(f"ratio: seconds of a frame with {TORCH} over those with {COMPILED}, at the last size")
    report(sides.ratio_line(ratios))
