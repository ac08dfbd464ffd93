"""Hallway 1: a scene folder to a trained field, its metrics, frames and videos.

``train`` reads like the story it is: load the scene, build the fields, resume, fit, report. The doors in ``scripts/``
call it; ``open_run`` gives them a finished run back.
"""

import copy
import logging
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from enerf import config as options
from enerf import images, machine
from enerf.conditioning import layers, spectrum
from enerf.config import NerfConfig
from enerf.evaluation import report, video, views
from enerf.evaluation.report import Journal
from enerf.evaluation.views import Renderer
from enerf.fields import build
from enerf.fields.build import RadianceFields
from enerf.rendering import render
from enerf.rendering.render import Passes
from enerf.scenes import batches, blender, llff, paths, rays
from enerf.training import loop, state, steps
from enerf.training.loop import Hook, Progress
from enerf.training.state import State
from enerf.training.steps import StepReport
from enerf.types import InputError, Rays, Rendering, Scene

log = logging.getLogger("enerf")

# Options that decide what the weights are: a checkpoint made with others does not fit.
MODEL_OPTIONS = (
    "netdepth netwidth netdepth_fine netwidth_fine multires multires_views i_embed use_viewdirs equilibrate "
    "equilibrate_layers equilibrate_gradient weight_norm"
).split()
# Options that decide what is learned: changing them half way is allowed, and said.
TASK_OPTIONS = (
    "datadir dataset_type factor llffhold no_ndc spherify white_bkgd half_res pixel_centers N_samples N_importance "
    "lindisp raw_noise_std perturb N_rand lrate lrate_decay no_batching seed init"
).split()
VIDEO_FRAMES, VIDEO_FPS = 120, 30.0


@dataclass(frozen=True)
class Run:
    """A field and all that is needed to look at it."""

    config: NerfConfig
    scene: Scene
    state: State
    device: torch.device


def train(config: NerfConfig) -> dict[str, Any] | None:
    """Train a run to its end and report; returns its metrics, or None if none were asked for.

    Raises
    ------
    InputError
        For a user's mistake.
    NotFinite
        If training met a value that is not finite; the last good checkpoint stays.
    KeyboardInterrupt
        If the run was interrupted; it has been saved.
    """
    run = prepare(config)
    folder = config.folder
    if config.render.render_only:
        _render_only(run)
        return None
    report.write_atomic(folder / "config.txt", options.to_text(config))
    why = _fit(run)
    if why == "interrupted":
        log.info("saved at step %d: run the same command again to go on", run.state.step)
        raise KeyboardInterrupt
    if config.run.no_final_eval:
        return None
    metrics = finished_metrics(run) or evaluate(run)
    log.info("%s: PSNR %s dB at step %d; results in %s", metrics["method"], metrics["mean"]["psnr"], run.state.step, folder)
    return metrics


def prepare(config: NerfConfig) -> Run:
    """Scene, fields and optimiser of a configuration, resumed from the run's last checkpoint if it has one."""
    device = machine.resolve_device(config.train.device)
    log.info("%s", machine.prepare(device))
    found = _last_checkpoint(config)  # read before the scene: its mistakes show at once
    scene = to_device(load_scene(config), device)
    with_fine = config.render.N_importance > 0
    fields = build.radiance_fields(config.model, config.conditioning, with_fine, config.train.seed)
    if config.run.ft_path and found is None:
        state.start_from(fields, Path(config.run.ft_path))
    fields = fields.to(device)
    training = State(fields, state.adam(fields, config.train.lrate))
    if found is not None:
        state.restore(training, *found)
        log.info("going on from %s", found[1])
    return Run(config, scene, training, device)


def load_scene(config: NerfConfig) -> Scene:
    """The scene a configuration names.

    Raises
    ------
    InputError
        If it cannot be loaded, or its cameras do not all look forward although NDC needs that.
    """
    data = config.data
    if data.dataset_type == "blender":
        return blender.load(Path(data.datadir), data.half_res, data.testskip, data.white_bkgd)
    scene = llff.load(
        Path(data.datadir),
        factor=data.factor,
        llffhold=data.llffhold,
        spherify=data.spherify,
        ndc=not data.no_ndc,
        white_bkgd=data.white_bkgd,
    )
    if scene.ndc and not rays.all_forward(scene.camera, scene.c2w):
        raise InputError(
            f"{data.datadir}: some cameras do not look forward, which NDC needs; give --no_ndc (and --spherify for "
            "cameras around an object)"
        )
    return scene


def to_device(scene: Scene, device: torch.device) -> Scene:
    """The scene with its tensors on a device."""
    return replace(scene, images=scene.images.to(device), c2w=scene.c2w.to(device), bounds=scene.bounds.to(device))


def open_run(folder: Path, device: str = "auto") -> Run:
    """A run as its last checkpoint left it, conditioned weights baked into plain ones.

    Raises
    ------
    InputError
        If the folder is no run, or its scene is gone.
    """
    found = state.checkpoints(folder)
    if not found:
        raise InputError(f"{folder}: found no checkpoints/*.pt, expected the folder of a training run")
    content = state.read(found[-1])
    saved = {**content["config"], "basedir": str(folder.resolve().parent), "expname": folder.resolve().name}
    run = prepare(options.from_dict({**saved, "device": device, "no_reload": False, "ft_path": ""}))
    layers.bake(run.state.model)
    return run


def renderer_of(run: Run) -> Renderer:
    """The run's field as it is now, baked, as something that renders rays."""
    fields = layers.bake(copy.deepcopy(run.state.model)).eval()
    sampling = passes_of(run.config)
    at_once = rays_at_once(run.config, run.device)
    return Renderer(partial(_final_rendering, fields, sampling), at_once, run.config.data.pixel_centers)


def _final_rendering(fields: RadianceFields, sampling: Passes, asked: Rays) -> Rendering:
    return render.render_rays(fields.coarse, fields.fine, asked, sampling)[1]


def passes_of(config: NerfConfig) -> Passes:
    """The sampling of a configuration; NDC has no linear disparity, its near plane is at zero."""
    r = config.render
    in_ndc = config.data.dataset_type == "llff" and not config.data.no_ndc
    if in_ndc and r.lindisp:
        log.warning("--lindisp has no effect in NDC, which is linear in disparity already")
    return Passes(r.N_samples, r.N_importance, r.lindisp and not in_ndc, config.data.white_bkgd)


def rays_at_once(config: NerfConfig, device: torch.device) -> int:
    """How many rays are rendered together."""
    points = machine.points_at_once(device, config.render.netchunk)
    return max(1, min(config.render.chunk, points // (config.render.N_samples + config.render.N_importance)))


def _fit(run: Run) -> str:
    """Train with all the hooks; saves at the end and when stopped."""
    config, training = run.config, run.state
    journal = Journal(config.folder, training.step)
    progress = Progress()
    save = partial(state.save, folder=config.folder, config=options.to_dict(config))
    started_at = training.step
    try:
        why = loop.fit(
            training,
            step_function(run),
            partial(state.learning_rate, lrate=config.train.lrate, decay_thousands=config.train.lrate_decay),
            progress,
            _hooks(run, journal, progress, save),
            config.train.N_iters,
            config.train.max_seconds,
            config.train.N_rand,
        )
        if training.step > started_at or not state.checkpoints(config.folder):
            save(training)
        return why
    finally:
        journal.close()


def linear_layers(model: torch.nn.Module) -> list[str]:
    """The names of all layers whose κ and row norms are recorded, conditioned or not."""
    return [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module.out_features > 1
    ]


def step_function(run: Run) -> Any:
    """The function that adds one step's gradient to the parameters."""
    config, scene = run.config, run.scene
    train_views = torch.tensor(scene.train, device=run.device)
    sampling = passes_of(config)
    at_once = [rays_at_once(config, run.device)]

    def step(training: State) -> StepReport:
        while True:
            generator = batches.generator_for(config.train.seed, training.step, run.device)
            crop = config.train.precrop_frac if training.step < config.train.precrop_iters else 1.0
            pixels = batches.random_pixels(
                train_views, scene.camera, config.train.N_rand, generator, config.train.no_batching, crop
            )
            try:
                return steps.accumulate_gradient(
                    training.model,
                    batches.rays_of(scene, pixels, config.data.pixel_centers),
                    batches.colours_of(scene, pixels),
                    sampling,
                    generator,
                    config.render.raw_noise_std,
                    config.render.perturb > 0,
                    at_once[0],
                )
            except (RuntimeError, MemoryError) as error:
                at_once[0] = render.halved(min(at_once[0], config.train.N_rand), error)
                training.optimiser.zero_grad()

    return step


def _hooks(run: Run, journal: Journal, progress: Progress, save: Any) -> list[Hook]:
    """What happens between steps."""
    config, scene = run.config, run.scene
    names = linear_layers(run.state.model)

    def record(training: State) -> None:
        lrate = training.optimiser.param_groups[0]["lr"]
        journal.record(training.step, {**progress.take(), "lrate": lrate, "seconds": training.seconds})

    def evaluate_pixels(training: State) -> None:
        value = views.psnr_of_pixels(renderer_of(run), scene, scene.test, config.run.eval_rays)
        training.curve.append([training.step, value])
        journal.record(training.step, {"test_psnr": value})

    def record_spectrum(training: State) -> None:
        journal.record(training.step, {"spectrum": spectrum.layer_report(training.model, names)})

    def show_picture(training: State) -> None:
        camera = views.preview_camera(scene.camera)
        picture = renderer_of(run).picture(scene, scene.c2w[scene.test[0]], camera)
        journal.picture(training.step, "test_view", picture.rgb.cpu())

    def render_testset(training: State) -> None:
        folder = config.folder / "test" / f"{training.step:06d}"
        journal.record(training.step, {"testset": views.means(views.measure(renderer_of(run), scene, scene.test, folder))})

    def render_video(training: State) -> None:
        path = config.folder / f"video_{training.step:06d}.mp4"
        write_video(run, path, paths.default_kind(scene), VIDEO_FRAMES, VIDEO_FPS)

    r = config.run
    return [
        Hook(r.i_print, record, at_end=True),
        Hook(r.i_spectrum, record_spectrum, at_end=True),
        Hook(r.i_eval, evaluate_pixels, at_end=r.i_eval > 0),
        Hook(r.i_img, show_picture),
        Hook(r.i_testset, render_testset),
        Hook(r.i_video, render_video),
        Hook(r.i_weights, save),
    ]


def evaluate(run: Run) -> dict[str, Any]:
    """Render and measure the test views at full size; writes ``metrics.json`` and the pictures.

    PSNR is the mean over test images of per-image PSNR, of float renders clipped to [0, 1].
    """
    began = time.perf_counter()
    measured = views.measure(renderer_of(run), run.scene, run.scene.test, run.config.folder / "test" / "final")
    seconds = time.perf_counter() - began
    metrics = {**_described(run), "mean": views.means(measured), "views": measured}
    metrics["seconds"] = {"train": run.state.seconds, "eval": seconds}
    metrics["curve"] = run.state.curve
    report.write_json(run.config.folder / "metrics.json", metrics)
    return metrics


def _described(run: Run) -> dict[str, Any]:
    """What a figure needs beside it: scene, method, steps, and the protocol it was measured with."""
    config, scene = run.config, run.scene
    is_llff = config.data.dataset_type == "llff"
    return {
        "scene": scene.name,
        "method": build.method_name(config.conditioning),
        "steps": run.state.step,
        "seed": config.train.seed,
        "device": str(run.device),
        "collapsed": run.state.collapsed,
        "constant_psnr": views.constant_psnr(scene),
        "protocol": {
            "factor": config.data.factor if is_llff else 1 + config.data.half_res,
            "llffhold": config.data.llffhold if is_llff else None,
            "test_views": [scene.image_names[v] for v in scene.test],
            "height": scene.camera.height,
            "width": scene.camera.width,
            "average": "mean over test images of per-image PSNR",
            "curve": f"mean per-image PSNR of {config.run.eval_rays or 'all'} fixed pixels a test view",
        },
    }


def finished_metrics(run: Run) -> dict[str, Any] | None:
    """The run's metrics if they were measured at its present step."""
    path = run.config.folder / "metrics.json"
    found = report.read_json(path) if path.is_file() else None
    return found if found and found.get("steps") == run.state.step else None


def write_video(
    run: Run,
    path: Path,
    kind: str,
    frames: int,
    fps: float,
    factor: float = 1.0,
    depth: bool = False,
    keep_pngs: bool = False,
) -> Path:
    """Render a camera path to an mp4; goes on with frames that an interrupted call has left."""
    poses = paths.camera_path(run.scene, kind, frames)
    camera = rays.resized(run.scene.camera, factor)
    renderer = renderer_of(run)

    def frame(i: int) -> Any:
        picture = renderer.picture(run.scene, poses[i], camera)
        if depth:
            return video.colour_depth(picture.depth.cpu().double().numpy())
        return images.to_uint8(picture.rgb.cpu())

    settings = {"step": run.state.step, "path": kind, "frames": len(poses), "factor": factor, "depth": depth}
    return video.write(path, frame, len(poses), fps, settings, keep_pngs)


def _render_only(run: Run) -> None:
    """nerf-pytorch's --render_only: the video path, or the test views, of the last checkpoint."""
    if run.state.step == 0 and not run.config.run.ft_path:
        raise InputError(f"{run.config.folder}: option --render_only found no checkpoint there to render")
    name = f"renderonly_{'test' if run.config.render.render_test else 'path'}_{run.state.step:06d}"
    kind = "test" if run.config.render.render_test else paths.default_kind(run.scene)
    path = run.config.folder / name / "video.mp4"
    factor = float(run.config.render.render_factor or 1)
    write_video(run, path, kind, VIDEO_FRAMES, VIDEO_FPS, factor, keep_pngs=True)
    log.info("rendered to %s", path)


def _last_checkpoint(config: NerfConfig) -> tuple[dict[str, Any], Path] | None:
    """The newest checkpoint of the run, checked against the options asked for; None to start anew."""
    found = state.checkpoints(config.folder)
    if found and config.run.no_reload:
        _set_aside(config.folder / "checkpoints")
        return None
    if not found:
        return None
    content, asked = state.read(found[-1]), options.to_dict(config)
    saved = content["config"]
    wrong = state.differing(saved, asked, MODEL_OPTIONS)
    if (saved["N_importance"] > 0) != (asked["N_importance"] > 0):
        wrong += state.differing(saved, asked, ["N_importance"])
    if wrong:
        raise InputError(
            f"{found[-1]}: this experiment was trained with other model options: {', '.join(wrong)}; expected the same, "
            "another --expname, or --no_reload"
        )
    for changed in state.differing(saved, asked, TASK_OPTIONS):
        log.warning("going on with a changed option: %s", changed)
    return content, found[-1]


def _set_aside(folder: Path) -> None:
    """Rename a folder out of the way; nothing is deleted."""
    n = next(n for n in range(1, sys.maxsize) if not folder.with_name(f"{folder.name}.{n}").exists())
    folder.rename(folder.with_name(f"{folder.name}.{n}"))
    log.info("--no_reload: earlier checkpoints are now in %s.%d", folder, n)
