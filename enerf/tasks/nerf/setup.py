"""A run: a scene, its field, and what can be asked of them: prepared from options or opened from a folder."""

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
    """A field and all that is needed to look at it."""

    config: NerfConfig
    scene: Scene
    fields: RadianceFields  # what state.model holds
    state: State
    device: torch.device
    backend: Backend
    record: Record  # of the backends that have trained it


def prepare(config: NerfConfig, shared: Resolved | None = None) -> Run:
    """Scene, fields and optimizer of a configuration, resumed from the run's last checkpoint if it has one.

    ``shared`` is what ``auto`` means for a fresh run: the backend and precision of the comparison that it is part of.
    """
    # read before the scene: its mistakes show at once
    found = resume.last_checkpoint(config)
    t, recorded = config.train, backend_record.backend_to_reuse(found, shared)
    device, backend = registry.placed(t.device, t.backend, t.precision, recorded)
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


def open_run(folder: Path, device: str = "auto", datadir: str = "") -> Run:
    """A run as its last checkpoint left it, conditioned weights baked; ``datadir`` says where its scene is now.

    The backend and precision that trained it evaluate it too; where they cannot, one warning says why.

    Raises
    ------
    InputError
        If the folder is no run of a NeRF, or its scene is gone.
    """
    content, _ = checkpoint.newest(folder, [NerfConfig.kind])
    run = prepare(resume.reopened(NerfConfig, content["config"], folder, device, "datadir", datadir))
    layers.bake(run.fields)
    return run


def renderer_of(run: Run, skip: float = 0.0) -> Renderer:
    """The run's field as it is now, baked, as something that renders rays; exactly, or without what has no weight."""
    fields = layers.bake(copy.deepcopy(run.fields)).eval()
    module.hold(fields)  # the copy's weights never change
    sampling = sampling_config(run.config)
    at_once = rays_at_once(run.config, run.device)
    return Renderer(partial(_final_rendering, fields, sampling, skip), at_once, run.config.data.pixel_centers)


def _final_rendering(fields: RadianceFields, sampling: SamplingConfig, skip: float, asked: Rays) -> Rendering:
    if skip > 0 and fields.fine is not None and sampling.n_importance and not sampling.proposal:
        return empty_space.render_rays(fields.coarse, fields.fine, asked, sampling, skip)
    return render.render_rays(fields.coarse, fields.fine, asked, sampling)[1]


def sampling_config(config: NerfConfig) -> SamplingConfig:
    """The sampling of a configuration; NDC has no linear disparity, its near plane is at zero."""
    r = config.render
    in_ndc = config.data.dataset_type == "llff" and not config.data.no_ndc
    if in_ndc and r.lindisp:
        log.warning("--lindisp has no effect in NDC, which is linear in disparity already")
    lindisp = r.lindisp and not in_ndc
    return SamplingConfig(r.N_samples, r.N_importance, lindisp, config.data.white_bkgd, r.sampler == "proposal")


def rays_at_once(config: NerfConfig, device: torch.device) -> int:
    """How many rays are rendered together."""
    width = max(config.model.netwidth_fine, 0 if config.render.sampler == "proposal" else config.model.netwidth)
    points = core_device.points_at_once(device, config.render.netchunk, width)
    r = config.render
    most = max(r.N_samples, r.N_importance) if r.sampler == "proposal" else r.N_samples + r.N_importance
    return max(1, min(r.chunk, points // most))


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
    """Render a camera path to an mp4; goes on with frames that an interrupted call has left."""
    poses = camera_paths.camera_path(run.scene, kind, frames)
    camera = rays.resized(run.scene.camera, factor)
    renderer = renderer_of(run, run.config.render.skip)

    def frame(i: int) -> Any:
        picture = renderer.picture(run.scene, poses[i], camera)
        if depth:
            return video.colorize_depth(picture.depth.cpu().double().numpy(), run.scene.near, run.scene.far)
        return images.to_uint8(picture.rgb.cpu())

    trained = {"step": run.state.step, "seconds": run.state.seconds}  # tells apart runs that took one another's place
    settings = {**trained, "path": kind, "frames": len(poses), "factor": factor, "depth": depth}
    return video.write(path, frame, len(poses), fps, settings, keep_pngs=keep_pngs)
