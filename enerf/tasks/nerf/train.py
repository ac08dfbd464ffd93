"""Hallway 1: a scene folder to a trained field, its metrics, frames and videos.

``train`` reads like the story it is: prepare the run (scene, fields, optimizer, last checkpoint), fit, report.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from enerf.core import rng
from enerf.core.errors import InputError
from enerf.core.types import Rays
from enerf.datasets.scenes import camera_paths
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.engine import cuda_graph, trainer
from enerf.engine.checkpoint import State
from enerf.engine.journal import Journal
from enerf.engine.trainer import Hook
from enerf.fields.backends.registry import Resolved
from enerf.rendering import render
from enerf.tasks.nerf import evaluate, setup, views
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.step import StepReport

log = logging.getLogger("enerf")


def train(config: NerfConfig, shared: Resolved | None = None) -> dict[str, Any] | None:
    """Train a run to its end and report; returns its metrics, or None if none were asked for.

    ``shared`` is as for ``runs.prepare``.

    Raises
    ------
    InputError
        For a user's mistake.
    NotFinite
        If training met a value that is not finite; the last good checkpoint stays.
    KeyboardInterrupt
        If the run was interrupted; it has been saved.
    """
    run = setup.prepare(config, shared)
    if config.render.render_only:
        _render_only(run)
        return None
    trainer.fit(
        config,
        run.state,
        step_function(run),
        partial(_hooks, run),
        unit="rays",
        per_step=config.train.N_rand,
        watch=nerf_step.update_collapsed,
        metadata=run.record.saved(),
    )
    if config.run.no_final_eval:
        return None
    metrics = evaluate.finished_metrics(run) or evaluate.evaluate(run)
    log.info("%s: test PSNR %.2f dB at step %d", metrics["method"], metrics["mean"]["psnr"], run.state.step)
    return metrics


def step_function(run: Run) -> Callable[[State], StepReport]:
    """The function that adds one step's gradient to the parameters; on a GPU it is recorded and replayed."""
    config, scene, t = run.config, run.scene, run.config.train
    train_views = torch.tensor(scene.train, device=run.device)
    sampling, generator = setup.sampling_config(config), torch.Generator(run.device)
    at_once, recording = setup.rays_at_once(config, run.device), run.device.type == "cuda"

    def gradient(batch: Rays, target: torch.Tensor) -> torch.Tensor:
        return nerf_step.gradient(
            run.fields,
            batch,
            target,
            sampling,
            generator,
            noise_std=config.render.raw_noise_std,
            jitter=config.render.perturb > 0,
            rays_at_once=at_once,
            interlevel=t.interlevel,
            distortion=t.distortion,
        )

    work: cuda_graph.GradientFunction | None = None if recording else gradient

    def step(training: State) -> StepReport:
        nonlocal at_once, work
        while True:
            generator.manual_seed(rng.stream_seed(t.seed, training.step))
            crop = t.precrop_frac if training.step < t.precrop_iters else 1.0
            pixels = scenes_pixels.random_pixels(train_views, scene.camera, t.N_rand, generator, t.no_batching, crop)
            batch = scenes_pixels.rays_of(scene, pixels, config.data.pixel_centers)
            target = scenes_pixels.colors_of(scene, pixels)
            try:
                if work is None:
                    work = cuda_graph.record(gradient, batch, target, generator, training.optimizer)
                return StepReport(*work(batch, target).tolist())  # one look at the device a step
            except (RuntimeError, MemoryError) as error:
                at_once, work = render.halve_chunk(min(at_once, t.N_rand), error), gradient
                training.optimizer.zero_grad()

    return step


def _hooks(run: Run, journal: Journal) -> list[Hook]:
    """What happens between steps."""
    config, scene = run.config, run.scene

    def evaluate_pixels(training: State) -> None:
        value = views.psnr_of_pixels(setup.renderer_of(run), scene, scene.test, config.run.eval_rays)
        training.curve.append([training.step, value])
        journal.record(training.step, {"test_psnr": value})

    def show_picture(training: State) -> None:
        camera = views.preview_camera(scene.camera)
        picture = setup.renderer_of(run, config.render.skip).picture(scene, scene.c2w[scene.test[0]], camera)
        journal.picture(training.step, "test_view", picture.rgb.cpu())

    def render_testset(training: State) -> None:
        folder = config.folder / "test" / f"{training.step:06d}"
        journal.record(
            training.step,
            {"testset": views.means(views.measure(setup.renderer_of(run), scene, scene.test, folder))},
        )

    def render_video(training: State) -> None:
        path = config.folder / f"video_{training.step:06d}.mp4"
        setup.write_video(run, path, camera_paths.default_kind(scene), setup.VIDEO_FRAMES, setup.VIDEO_FPS)

    r = config.run
    return [
        Hook(r.i_eval, evaluate_pixels, at_end=r.i_eval > 0),
        Hook(r.i_img, show_picture),
        Hook(r.i_testset, render_testset),
        Hook(r.i_video, render_video),
    ]


def _render_only(run: Run) -> None:
    """nerf-pytorch's --render_only: the video path, or the test views, of the last checkpoint."""
    if run.state.step == 0 and not run.config.run.ft_path:
        raise InputError(f"{run.config.folder}: option --render_only found no checkpoint there to render")
    name = f"renderonly_{'test' if run.config.render.render_test else 'path'}_{run.state.step:06d}"
    kind = "test" if run.config.render.render_test else camera_paths.default_kind(run.scene)
    path = run.config.folder / name / "video.mp4"
    factor = float(run.config.render.render_factor or 1)
    setup.write_video(run, path, kind, setup.VIDEO_FRAMES, setup.VIDEO_FPS, factor=factor, keep_pngs=True)
    log.info("rendered to %s", path)
