"""Training of a NeRF: prepare the run (scene, fields, optimizer, last checkpoint), train, evaluate."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from enerf.core import shares
from enerf.core.device import is_out_of_memory
from enerf.core.errors import InputError
from enerf.core.types import Rays
from enerf.datasets.scenes import camera_paths
from enerf.engine import cuda_graph, distributed, joint_start, trainer
from enerf.engine.checkpoint import State
from enerf.engine.joint_step import Part
from enerf.engine.journal import Journal
from enerf.engine.trainer import Hook
from enerf.fields.backends.registry import Resolved
from enerf.rendering import render
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import evaluate, poses_file, setup, video, views
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.batches import Batches
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.step import StepReport

log = logging.getLogger("enerf")


def train(
    config: NerfConfig, shared: Resolved | None = None, watch: Callable[[Run], Hook] | None = None
) -> dict[str, Any] | None:
    """Train a run to its end and return its metrics, or None with ``render_only`` or ``no_final_eval``.

    ``shared`` is as in ``setup.prepare``. ``watch`` returns one more hook, of a viewer of the prepared run; with
    ``render_only`` another process may train the run meanwhile, and nothing can be watched.

    Raises
    ------
    InputError
        For invalid options or data, or if another process writes to the run.
    NotFinite
        If the loss or a gradient is not finite; the state before that step has been saved.
    KeyboardInterrupt
        If the run was interrupted; a checkpoint has been saved.
    """
    if config.render.render_only:
        if watch is not None:
            raise InputError("option --viewer: found --render_only, expected a training; see enerf view")
        _render_only(joint_start.opened(partial(setup.prepare, config, shared, opening=True)))
        return None
    with joint_start.writing(config.folder):
        return _train(config, shared, watch)


def _train(config: NerfConfig, shared: Resolved | None, watch: Callable[[Run], Hook] | None) -> dict[str, Any] | None:
    """Train and evaluate a run whose folder is locked."""
    run = joint_start.prepared(partial(setup.prepare, config), shared)
    config, team = run.config, distributed.current()  # with what ``auto`` stands for
    _require_shares(run)
    trainer.fit(
        config,
        run.state,
        joint_start.agreed(partial(step_function, run)),
        partial(_hooks, run, [] if watch is None else [watch(run)]),
        unit="rays",
        per_step=config.train.N_rand,
        watch=nerf_step.update_collapsed,
        metadata=run.record.saved(),
    )
    _warn_of_end(run)
    if team.is_first:
        poses_file.write(run)
    if config.run.no_final_eval:
        return None
    metrics = team.of_first(partial(evaluate.finished_metrics, run)) or evaluate.evaluate(run)
    log.info("%s: test PSNR %.2f dB at step %d", metrics["method"], metrics["mean"]["psnr"], run.state.step)
    evaluate.log_further(metrics)
    return metrics


def _require_shares(run: Run) -> None:
    """Check that each of several processes has rays of a batch, of a part that fits the memory, and of known depth."""
    config, team, n = run.config, distributed.current(), run.config.train.N_rand
    team.require_share("N_rand", n)
    if (at_once := setup.rays_at_once(config, run.device)) < team.size:
        raise InputError(
            f"options --chunk {config.render.chunk} and --netchunk {config.render.netchunk}: found {at_once} rays at "
            f"once, expected at least 1 for each of the {team.size} processes"
        )
    has_depths = config.conditioning.methods.normalization == "batch_norm" and config.capture.depth_weight > 0
    if has_depths and n // 4 < team.size:
        raise InputError(
            f"option --N_rand: found {n}, whose quarter are rays of known depth, expected at least {4 * team.size} for "
            f"{team.size} processes"
        )


def _warn_of_end(run: Run) -> None:
    """Warn if a run that refines poses ended before all levels or frequencies were enabled."""
    steps = run.config.capture.coarse_to_fine
    if run.fields.poses is not None and run.state.step < steps:
        log.warning(
            "step %d: the run ended within --coarse_to_fine %d: fine detail is not enabled yet, and poses have moved "
            "little, or not at all in the first half of these steps",
            *(run.state.step, steps),
        )


def _gradient(
    run: Run,
    batches: Batches,
    sampling: SamplingConfig,
    generator: torch.Generator,
    at_once: int,
    trains_proposal: bool,
    rays: Rays,
    rows: torch.Tensor,
) -> torch.Tensor:
    """Add the gradient of this process's share of a batch; return its figures, see ``step.gradient``."""
    batch, t = batches.batch(rays, rows), run.config.train
    return nerf_step.gradient(
        run.fields,
        batch.rays,
        batch.target,
        sampling,
        generator,
        noise_std=run.config.render.raw_noise_std,
        jitter=run.config.render.perturb > 0,
        rays_at_once=at_once,
        interlevel=t.interlevel,
        distortion=t.distortion,
        trains_proposal=trains_proposal,
        background=batch.background,
        views=batch.views,
        depths=batch.depths,
        share=distributed.current().share,
    )


class KeptGradients:
    """Gradients of a field that some steps do not train: an optimizer leaves out parameters without a gradient.

    Their tensors are kept, because a CUDA graph of the other steps has their addresses.
    """

    def __init__(self, field: nn.Module) -> None:
        self._field = field
        self._kept: list[tuple[nn.Parameter, torch.Tensor]] = []

    def set_aside(self) -> None:
        """Remove the gradients of the parameters."""
        self._kept += [(p, p.grad) for p in self._field.parameters() if p.grad is not None]
        for parameter, _ in self._kept:
            parameter.grad = None

    def put_back(self) -> None:
        """Give the parameters the gradients that were set aside, set to zero."""
        for parameter, grad in self._kept:
            parameter.grad = grad.zero_()
        self._kept.clear()


def step_function(run: Run) -> Callable[[State], StepReport | Part[StepReport]]:
    """Return the function that adds the gradient of one step's random batch to the parameters.

    On a GPU the computation is recorded as a CUDA graph. If memory runs out, the number of rays at once is halved, and
    the step is repeated without a graph. Of several processes each computes its share; memory must suffice then.
    """
    config, t, share = run.config, run.config.train, distributed.current().share
    sampling, generator = setup.run_sampling(run), shares.generator(share, run.device)
    batches = Batches(run, generator)
    if batches.has_random_background:
        sampling = replace(sampling, white_bkgd=False)  # a random color takes the place of black
    at_once, recording = setup.rays_at_once(config, run.device), _is_recorded(run)

    report_of_sums = partial(StepReport.of_sums, n=t.N_rand)
    functions: dict[bool, cuda_graph.GradientFunction] = {}  # by whether the proposal is trained
    proposal = KeptGradients(run.fields.coarse)

    def step(training: State) -> StepReport | Part[StepReport]:
        nonlocal at_once, recording
        setup.begin_step(config, training)
        kind = t.trains_proposal(training.step)
        proposal.put_back() if kind else proposal.set_aside()
        while True:
            rays, rows = batches.draw(training.step)
            try:
                if kind not in functions:
                    made = partial(_gradient, run, batches, sampling, generator, at_once, kind)
                    functions[kind] = (
                        cuda_graph.record(made, rays, rows, generator, training.optimizer, run.fields)
                        if recording
                        else made
                    )
                figures = functions[kind](rays, rows).tolist()  # a single device synchronization
                return StepReport(*figures) if share.is_whole else Part(figures, report_of_sums)
            except (RuntimeError, MemoryError) as error:
                if config.conditioning.methods.normalization == "batch_norm" and is_out_of_memory(error):
                    raise InputError(
                        f"option --N_rand: memory ran out with {t.N_rand} rays, and batch_norm needs all rays of a "
                        "step at once; expected fewer"
                    ) from None
                if not share.is_whole and is_out_of_memory(error):
                    raise InputError(
                        f"option --netchunk: memory ran out with a share of {at_once} rays at once; expected less than "
                        f"{config.render.netchunk}"
                    ) from None
                at_once, recording = render.halve_chunk(min(at_once, t.N_rand), error), False
                functions.clear()
                training.optimizer.zero_grad()

    return step


def _is_recorded(run: Run) -> bool:
    """Return whether steps are recorded as a CUDA graph: on a GPU, unless they exchange statistics."""
    if run.device.type != "cuda":
        return False
    methods = run.config.conditioning.methods
    exchanges = distributed.current().is_joint and "batch_norm" in (methods.normalization, methods.weights)
    if exchanges:
        log.info("the step is not recorded as a CUDA graph: the processes exchange the statistics of batches in it")
    return not exchanges


def _hooks(run: Run, more: list[Hook], journal: Journal) -> list[Hook]:
    """Return the hooks of a run: test curve, preview image, renderings of the test set, videos; and ``more``."""
    config = run.config

    def evaluate_pixels(training: State) -> None:
        scene = run.present_scene
        value = views.psnr_of_pixels(
            views.renderer_of(run), scene, views.sampled(scene, scene.test), config.run.eval_rays
        )
        training.curve.append([training.step, value])
        journal.record(training.step, {"test_psnr": value})

    def show_picture(training: State) -> None:
        if not distributed.current().is_first:
            return
        scene = run.present_scene
        camera = views.preview_camera(scene.camera)
        picture = views.renderer_of(run, config.render.skip).picture(scene, scene.c2w[scene.test[0]], camera)
        journal.picture(training.step, "test_view", picture.rgb.cpu())

    def render_testset(training: State) -> None:
        folder, scene = config.folder / "test" / f"{training.step:06d}", run.present_scene
        journal.record(
            training.step,
            {"testset": views.means(views.measure(views.renderer_of(run), scene, scene.test, folder))},
        )

    def render_video(training: State) -> None:
        path = config.folder / f"video_{training.step:06d}.mp4"
        video.write_video(run, path, camera_paths.default_kind(run.scene), video.FRAMES, video.FPS)

    r = config.run
    return [
        Hook(r.i_eval, evaluate_pixels, at_end=r.i_eval > 0),
        Hook(r.i_img, show_picture),
        Hook(r.i_testset, render_testset),
        Hook(r.i_video, render_video),
        *more,
    ]


def _render_only(run: Run) -> None:
    """Render the video path or the test views of the last checkpoint, as ``--render_only`` of nerf-pytorch."""
    if run.state.step == 0 and not run.config.run.ft_path:
        raise InputError(f"{run.config.folder}: option --render_only found no checkpoint there to render")
    name = f"renderonly_{'test' if run.config.render.render_test else 'path'}_{run.state.step:06d}"
    kind = "test" if run.config.render.render_test else camera_paths.default_kind(run.scene)
    path = run.config.folder / name / "video.mp4"
    factor = float(run.config.render.render_factor or 1)
    video.write_video(run, path, kind, video.FRAMES, video.FPS, factor=factor, keep_pngs=True)
    log.info("rendered to %s", path)
