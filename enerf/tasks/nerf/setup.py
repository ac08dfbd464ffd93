"""Set-up of NeRF runs: scene, fields and training state, from options or from the folder of a finished run."""

import copy
import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from enerf.conditioning import layers
from enerf.core import device as core_device
from enerf.core import images
from enerf.core.errors import InputError
from enerf.core.types import Rays, Rendering, Scene
from enerf.datasets.scenes import blender, bounds, camera_paths, llff, rays
from enerf.engine import backend_record, checkpoint, resume
from enerf.engine.backend_record import Record
from enerf.engine.checkpoint import State
from enerf.fields.backends import module, registry
from enerf.fields.backends.registry import Backend, Resolved
from enerf.rendering import empty_space, render
from enerf.rendering.render import SamplingConfig
from enerf.reporting import video
from enerf.tasks.nerf import build, import_checkpoint
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.views import Renderer

log = logging.getLogger("enerf")

VIDEO_FRAMES, VIDEO_FPS = 120, 30.0


@dataclass(frozen=True)
class Run:
    """Scene, fields and training state of a run."""

    config: NerfConfig
    scene: Scene
    fields: RadianceFields  # the same module as state.model
    state: State
    device: torch.device
    backend: Backend
    record: Record  # of the backends used for training


def prepare(config: NerfConfig, shared: Resolved | None = None) -> Run:
    """Return the run of a configuration, resumed from its last checkpoint if there is one.

    Parameters
    ----------
    config
        Options of the run.
    shared
        Backend and precision that ``auto`` stands for in a new run: those of the comparison that it is part of.

    Raises
    ------
    InputError
        If the scene or the checkpoint cannot be read, or the options do not fit them.
    """
    # before the scene is read, so that its errors appear at once
    found = resume.last_checkpoint(config)
    t, recorded = config.train, backend_record.backend_to_reuse(found, shared)
    device, backend = registry.resolve_device_and_backend(t.device, t.backend, t.precision, recorded)
    scene = to_device(load_scene(config), device)
    with_fine = config.render.N_importance > 0
    fields = build.radiance_fields(
        config.model,
        config.conditioning,
        with_fine,
        config.train.seed,
        proposal=config.render.sampler == "proposal",
        space=bounds.space_of(scene),
    ).to(device)
    registry.use(fields, backend)
    training = resume.begin(config, fields, resume.adam(config.train, fields), found, [import_checkpoint.IMPORTER])
    record = backend_record.record_of(found, Resolved(backend.name, backend.precision, device.type))
    return Run(config, scene, fields, training, device, backend, record)


def resolve_backend(config: NerfConfig, recorded: Resolved | None = None) -> Resolved:
    """Return the backend and precision that the options resolve to, those of an earlier run where possible."""
    return registry.resolve(config.train.device, config.train.backend, config.train.precision, recorded)


def load_scene(config: NerfConfig) -> Scene:
    """Read the scene of a configuration, on the CPU.

    Raises
    ------
    InputError
        If it cannot be read, or NDC is used and not all cameras look forward.
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
    """Return the scene with its tensors on a device."""
    return replace(scene, images=scene.images.to(device), c2w=scene.c2w.to(device), bounds=scene.bounds.to(device))


def open_run(folder: Path, device: str = "auto", datadir: str = "") -> Run:
    """Open the last checkpoint of a run, with baked weights; ``datadir`` is the scene's new path, if it has moved.

    It is evaluated with the backend and precision that trained it; if that is not possible, a warning gives the reason.

    Raises
    ------
    InputError
        If the folder is not a NeRF run, or its scene is missing.
    """
    content, _ = checkpoint.newest(folder, [NerfConfig.kind])
    run = prepare(resume.reopened(NerfConfig, content["config"], folder, device, "datadir", datadir))
    layers.bake(run.fields)
    return run


def renderer_of(run: Run, skip: float = 0.0) -> Renderer:
    """Return a renderer of a baked copy of the fields; ``skip`` is the threshold of empty-space skipping (0: none)."""
    fields = layers.bake(copy.deepcopy(run.fields)).eval()
    module.freeze(fields)  # the copy's weights never change
    sampling = sampling_config(run.config)
    at_once = rays_at_once(run.config, run.device)
    return Renderer(partial(_final_rendering, fields, sampling, skip), at_once, run.config.data.pixel_centers)


def _final_rendering(fields: RadianceFields, sampling: SamplingConfig, skip: float, batch: Rays) -> Rendering:
    if skip > 0 and fields.fine is not None and sampling.n_importance and not sampling.proposal:
        return empty_space.render_rays(fields.coarse, fields.fine, batch, sampling, skip)
    return render.render_rays(fields.coarse, fields.fine, batch, sampling)[1]


def sampling_config(config: NerfConfig) -> SamplingConfig:
    """Return the sampling of a configuration; in NDC ``lindisp`` is ignored with a warning."""
    r = config.render
    in_ndc = config.data.dataset_type == "llff" and not config.data.no_ndc
    if in_ndc and r.lindisp:
        log.warning("--lindisp has no effect in NDC, which is linear in disparity already")
    lindisp = r.lindisp and not in_ndc
    return SamplingConfig(r.N_samples, r.N_importance, lindisp, config.data.white_bkgd, r.sampler == "proposal")


def rays_at_once(config: NerfConfig, device: torch.device) -> int:
    """Return the number of rays rendered at once, within ``chunk``, ``netchunk`` and the limit of the device."""
    width = max(config.model.netwidth_fine, 0 if config.render.sampler == "proposal" else config.model.netwidth)
    points = core_device.points_at_once(device, config.render.netchunk, width)
    r = config.render
    per_ray = max(r.N_samples, r.N_importance) if r.sampler == "proposal" else r.N_samples + r.N_importance
    return max(1, min(r.chunk, points // per_ray))


def write_video(
    run: Run,
    path: Path,
    kind: str,
    frames: int,
    fps: float,
    *,
    factor: float = 1.0,
    depth: bool = False,
    keep_pngs: bool = False,
) -> Path:
    """Render a camera path to an mp4 file; frames of an interrupted call are reused. Returns the path of the file."""
    poses = camera_paths.camera_path(run.scene, kind, frames)
    camera = rays.resized(run.scene.camera, factor)
    renderer = renderer_of(run, run.config.render.skip)

    def frame(i: int) -> Any:
        picture = renderer.picture(run.scene, poses[i], camera)
        if depth:
            return video.colorize_depth(picture.depth.cpu().double().numpy(), run.scene.near, run.scene.far)
        return images.to_uint8(picture.rgb.cpu())

    trained = {
        "step": run.state.step,
        "seconds": run.state.seconds,
    }  # distinguishes runs that were trained in the same folder
    settings = {**trained, "path": kind, "frames": len(poses), "factor": factor, "depth": depth}
    return video.write(path, frame, len(poses), fps, settings, keep_pngs=keep_pngs)
