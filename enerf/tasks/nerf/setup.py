"""Set-up of NeRF runs: scene, fields and training state, from options or from the folder of a finished run."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from enerf.conditioning import layers
from enerf.config import parser
from enerf.core import device as core_device
from enerf.core import memory as core_memory
from enerf.core.errors import InputError
from enerf.datasets.scenes import alignment, bounds, formats, image_blocks, rays, splits, storage
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import AUTOMATIC, SceneSettings
from enerf.datasets.scenes.sparse_depths import of_views
from enerf.engine import checkpoint, joint_start, optimizers, resume, run_record
from enerf.engine.checkpoint import State
from enerf.engine.run_record import Record
from enerf.fields import conditioning as fields_conditioning
from enerf.fields.backends import registry
from enerf.fields.backends.registry import Backend, Resolved
from enerf.fields.nerf import HEADS
from enerf.geometry import colored_points
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import build, import_checkpoint, memory, refinement
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import NerfConfig

log = logging.getLogger("enerf")


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

    @property
    def computed(self) -> dict[str, Any]:
        """What the photographs and points of the scene give: bounds, channels, and size of a block of images."""
        scene, t = self.scene, self.config.train
        capacity = image_blocks.capacity_of(scene, scene.train, int(t.block_gb * 1e9)) if t.batches == "blocks" else 0
        pixels = f"{storage.channels_of(scene.images)} of {scene.images.dtype}"
        return {
            "bounds of the scene": (scene.near, scene.far),
            "channels of the images": pixels,
            "images of a block": capacity,
        }

    @property
    def present_scene(self) -> Scene:
        """The scene with its present poses: refined ones, and test poses aligned to them; the scene itself without.

        The similarity that aligns the test poses is that from the given to the refined training poses.
        """
        if self.fields.poses is None:
            return self.scene
        given, train = self.scene.c2w.double().cpu().numpy(), list(self.scene.train)
        found = self.fields.poses.poses(self.scene.c2w).cpu().numpy()
        others = [view for view in range(len(given)) if view not in set(train)]
        if others:
            found[others] = alignment.between(given[train], found[train]).apply(given[others])
        return replace(self.scene, c2w=torch.from_numpy(found).to(self.scene.c2w))


def prepare(config: NerfConfig, shared: Resolved | None = None, *, opening: bool = False) -> Run:
    """Return the run of a configuration, resumed from its last checkpoint if there is one.

    Parameters
    ----------
    config
        Options of the run.
    shared
        Backend and precision that ``auto`` stands for in a new run: those of the comparison that it is part of.
    opening
        Whether a run is opened to be looked at, not to be trained; then changed options are not reported.

    Raises
    ------
    InputError
        If the scene or the checkpoint cannot be read, or the options do not fit them.
    """
    # before the scene is read, so that its errors appear at once
    found = resume.last_checkpoint(config, opening=opening)
    saved = None if found is None else found[0]["config"]
    config = with_background(config, saved)
    t, recorded = config.train, run_record.backend_to_reuse(found, shared)
    device, backend = registry.resolve_device_and_backend(t.device, t.backend, t.precision, recorded)
    if not opening:
        # on a GPU the chunk is halved when memory runs out
        at_once = 1 if device.type == "cuda" else rays_at_once(config, device)
        core_memory.require(memory.training_bytes(config, at_once), device)
    config = with_format(config, saved)
    scene = load_scene(config, pose_check=found is None).to(device)
    if config.data.factor == AUTOMATIC:
        config = parser.replace(config, factor=scene.factor)
    config = with_batches(with_spacing(config, saved, scene), saved, scene, device, opening=opening)
    files = resume.check_inputs(config, found, input_files(config), opening=opening)
    _log_background(config, scene)
    with_fine = config.render.N_importance > 0
    fields = build.radiance_fields(
        config.model,
        config.conditioning,
        with_fine,
        config.train.seed,
        proposal=config.render.sampler == "proposal",
        space=bounds.space_of(scene),
        contracted=config.render.spacing == "piecewise" and not scene.ndc,
    )
    build.add_views(fields, config.capture, scene)
    if fields.poses is not None and found is None and not (opening or config.capture.no_pose_matches):
        refinement.start_from_matches(fields.poses, scene)
    fields.to(device)
    registry.use(fields, backend)
    matrices = fields_conditioning.matrices_of(fields, config.conditioning, HEADS)
    rates = build.view_rates(config.train, config.capture)
    optimizer = optimizers.of_field(config.train, config.conditioning, fields, matrices, rates)
    training = resume.begin(config, fields, optimizer, found, [import_checkpoint.IMPORTER])
    open_windows(config, fields, training.step)
    now = Resolved(backend.name, backend.precision, device.type)
    record = run_record.record_of(found, now, config, files)
    return Run(config, scene, fields, training, device, backend, record)


def open_windows(config: NerfConfig, fields: RadianceFields, step: int) -> None:
    """Enable the levels or frequencies of a step, if poses are refined."""
    if fields.poses is not None:
        refinement.open_windows(fields, _progress(config, step))


def begin_step(config: NerfConfig, training: State) -> None:
    """Before a step of a run that refines poses, enable the step's hash levels or frequencies and set the poses' rate.

    Poses that follow the first, wrong depths of the field stay wrong, so they are fixed in the first half of
    ``coarse_to_fine``, and their rate rises in the second half.
    """
    assert isinstance(training.model, RadianceFields)
    if training.model.poses is None:
        return
    open_windows(config, training.model, training.step)
    for group in training.optimizer.param_groups:
        if any(parameter is training.model.poses.values for parameter in group["params"]):
            group["lr"] *= min(1.0, max(0.0, 2 * _progress(config, training.step) - 1))


def _progress(config: NerfConfig, step: int) -> float:
    """Share of ``coarse_to_fine`` that has passed before a step."""
    return step / config.capture.coarse_to_fine if config.capture.coarse_to_fine else 1.0


def with_background(config: NerfConfig, saved: dict[str, Any] | None) -> NerfConfig:
    """Return the configuration with the background that ``auto`` stands for.

    ``saved`` are the options in the run's checkpoint, None for a new run. A run that was started before the option
    existed lacks it and keeps what it was trained with, ``stored``.
    """
    if config.data.background_color != "auto":
        return config
    recorded = "auto" if saved is None else saved.get("background_color", "stored")
    return parser.replace(config, background_color=config.data.training_background if recorded == "auto" else recorded)


def with_spacing(config: NerfConfig, saved: dict[str, Any] | None, scene: Scene) -> NerfConfig:
    """Return the configuration with the spacing of samples that ``auto`` stands for.

    ``saved`` are the options in the run's checkpoint, None for a new run. A run that was started before the option
    existed keeps ``linear`` spacing, or ``disparity`` with ``lindisp``.
    """
    r = config.render
    if r.spacing != "auto":
        return config
    spacing = bounds.spacing_of(scene) if saved is None else saved.get("spacing", "linear")
    spacing = "disparity" if r.lindisp else spacing
    if spacing == "piecewise":
        log.info(
            "%s: samples are spaced evenly in depth up to %.3g, in disparity from there to %.3g (--spacing)",
            *(scene.name, bounds.knee_of(scene), scene.far),
        )
    return parser.replace(config, spacing=spacing)


def with_batches(
    config: NerfConfig, saved: dict[str, Any] | None, scene: Scene, device: torch.device, *, opening: bool = False
) -> NerfConfig:
    """Return the configuration with the kind of batches that ``auto`` stands for; ``saved`` as above.

    A run that was started before the option existed draws from all views. The kind, and the steps after which a block
    gets another view, are recorded: they do not change with the computer on which a run is resumed.

    Raises
    ------
    InputError
        If a run is to be trained on all views, and they are neither in memory nor in the cache.
    """
    is_resident = storage.is_resident(scene.images) and (scene.masks is None or storage.is_resident(scene.masks))
    kind = config.train.batches
    if kind == "auto" and saved is not None:
        kind = saved.get("batches", "all")
    if kind == "auto":
        kind = "all" if is_resident else "blocks"
    is_decoded = not any(isinstance(each, OnDemandImages) for each in (scene.images, scene.masks))
    if kind == "all" and not (is_decoded or opening):
        raise InputError(
            f"option --batches: found all, and {scene.name}, whose decoded photographs fit neither in memory nor in "
            f"--cache_gb {config.data.cache_gb:g}, expected more of these, or a new run with blocks"
        )
    every = config.train.block_steps
    if kind == "blocks" and not every:
        every = (saved or {}).get("block_steps") or image_blocks.steps_of(scene, scene.train, device)
    return parser.replace(config, batches=kind, block_steps=every)


def resolve_backend(config: NerfConfig, recorded: Resolved | None = None) -> Resolved:
    """Return the backend and precision that the options resolve to, those of an earlier run where possible."""
    return registry.resolve(config.train.device, config.train.backend, config.train.precision, recorded)


def with_format(config: NerfConfig, saved: dict[str, Any] | None = None) -> NerfConfig:
    """Return the configuration with the format of its scene and the downsampling factor, if they are automatic.

    ``saved`` are the options in the run's checkpoint, None for a new run: it keeps its own. Otherwise the format is the
    one that the folder is in. The factor of LLFF scenes is 8; that of others, which depends on the sizes of the images,
    stays automatic.

    Raises
    ------
    InputError
        If the folder is in no known format, or in several.
    """
    name, factor, recorded = config.data.dataset_type, config.data.factor, saved or {}
    if name == "auto":
        name = recorded.get("dataset_type", "auto")
    if name == "auto":
        name, shown = formats.detect(Path(config.data.datadir))
        log.info("%s: format %s, by %s", config.data.datadir, name, shown)
    if factor == AUTOMATIC:
        factor = recorded.get("factor", formats.LLFF_FACTOR if name == "llff" else AUTOMATIC)
    return parser.replace(config, dataset_type=name, factor=factor)


def scene_settings(config: NerfConfig, *, pose_check: bool = False) -> SceneSettings:
    """Return the options of a configuration that its scene depends on."""
    data = config.data
    return SceneSettings(
        factor=data.factor,
        llffhold=data.llffhold,
        test_views=data.test_views,
        ndc=not data.no_ndc,
        spherify=data.spherify,
        near=data.near,
        far=data.far,
        white_bkgd=data.is_white,
        keep_alpha=data.training_background != "stored",
        pose_axes=None if data.pose_axes == "format" else data.pose_axes,
        pose_check=pose_check and not data.no_pose_check,
        half_res=data.half_res,
        testskip=data.testskip,
        use_masks=not data.no_masks,
        pixel_centers=data.pixel_centers,
        depths=config.capture.depth_weight > 0,
        exposures=config.capture.exposure != "off",
        limits=storage.Limits.of_cache(data.cache_gb),
        read_points=colored_points.read_scene,
    )


def load_scene(config: NerfConfig, *, pose_check: bool = True) -> Scene:
    """Read the scene of a configuration, on the CPU; ``pose_check`` and the option decide if poses are checked.

    Raises
    ------
    InputError
        If it cannot be read, or NDC is used and not all cameras look forward.
    """
    data = with_format(config).data
    scene = formats.load(data.dataset_type, Path(data.datadir), scene_settings(config, pose_check=pose_check))
    if scene.ndc and not rays.all_forward(scene.cameras, scene.c2w):
        raise InputError(
            f"{data.datadir}: some cameras do not look forward, which NDC needs; give --no_ndc (and --spherify for "
            "cameras around an object)"
        )
    if config.capture.depth_weight > 0 and (scene.depths is None or not len(of_views(scene.depths, scene.train))):
        raise InputError(
            f"option --depth_weight: found no known depths in {data.datadir}, expected a COLMAP model whose views "
            "observe points (--dataset_type colmap if it is beside transforms.json), or transforms.json with depth maps"
        )
    return bounds.limited(scene)


def input_files(config: NerfConfig) -> list[Path]:
    """Return the files that the scene of a configuration is read from; downsampled images if they exist.

    Raises
    ------
    InputError
        If a folder cannot be listed, or a file of poses cannot be read.
    """
    data = with_format(config).data
    named = [Path(data.test_views)] if splits.is_file(data.test_views) else []
    return [*formats.input_files(data.dataset_type, Path(data.datadir), scene_settings(config)), *named]


def _log_background(config: NerfConfig, scene: Scene) -> None:
    """Log what transparent images are composited over, if there are some and their alpha was kept."""
    if scene.has_alpha:
        log.info(
            "%s: transparent pixels are composited over %s in training and %s in evaluation (--background_color)",
            *(config.data.datadir, *backgrounds(config)),
        )


def backgrounds(config: NerfConfig) -> tuple[str, str]:
    """Return what transparent images are composited over in training and in evaluation."""
    background = config.data.training_background
    return "random colors" if background == "random" else background, "white" if config.data.is_white else "black"


def open_run(folder: Path, device: str = "auto", datadir: str = "") -> Run:
    """Open the last checkpoint of a run, with baked weights; ``datadir`` is the scene's new path, if it has moved.

    It is evaluated with the backend and precision that trained it; if that is not possible, a warning gives the reason.

    Raises
    ------
    InputError
        If the folder is not a NeRF run, or its scene is missing.
    """
    content, _ = checkpoint.newest(folder, [NerfConfig.kind])
    recorded = str(content["config"].get("datadir", ""))
    if not datadir and recorded and not Path(recorded).expanduser().exists():
        raise InputError(f"{folder}: its scene {recorded} is not found, expected its new path by --datadir")
    config = resume.reopened(NerfConfig, content["config"], folder, device, "datadir", datadir)
    run = joint_start.opened(partial(prepare, config, opening=True))
    layers.bake(run.fields)
    return run


def sampling_config(config: NerfConfig, scene: Scene | None = None) -> SamplingConfig:
    """Return the sampling of a configuration for a scene, which ``piecewise`` spacing needs.

    If the scene uses NDC, the spacing is linear, and a warning says so if the options name another.
    """
    r, ndc = config.render, scene is not None and scene.ndc
    if ndc and (r.lindisp or r.spacing not in ("auto", "linear")):
        log.warning("--lindisp and --spacing have no effect in NDC, which is linear in disparity already")
    lindisp = (r.lindisp or r.spacing == "disparity") and not ndc
    knee = bounds.knee_of(scene) if scene is not None and r.spacing == "piecewise" and not ndc else 0.0
    return SamplingConfig(r.N_samples, r.N_importance, lindisp, config.data.is_white, r.sampler == "proposal", knee)


def run_sampling(run: Run) -> SamplingConfig:
    """Return the sampling of a run: by compiled operations on rays where its backend is compiled for CPUs."""
    compiled = run.backend.name == "compiled" and run.device.type == "cpu"
    return replace(sampling_config(run.config, run.scene), compiled=compiled)


def rays_at_once(config: NerfConfig, device: torch.device) -> int:
    """Return the number of rays rendered at once, within ``chunk``, ``netchunk`` and the limit of the device.

    With batch normalization all rays of a step are rendered at once, because the statistics are theirs.
    """
    if config.conditioning.methods.normalization == "batch_norm":
        return config.train.N_rand
    width = max(config.model.netwidth_fine, 0 if config.render.sampler == "proposal" else config.model.netwidth)
    points = core_device.points_at_once(device, config.render.netchunk, width)
    r = config.render
    per_ray = max(r.N_samples, r.N_importance) if r.sampler == "proposal" else r.N_samples + r.N_importance
    return max(1, min(r.chunk, points // per_ray))
