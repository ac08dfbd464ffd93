"""Shape runs: training target, field, optimizer and backend; prepared from options or opened from a folder.

The target is a mesh, an oriented point cloud, an image, or a volume of voxels. Fields are defined on the box
[−1, 1]ᵈ; the transform to the file's coordinates is saved in checkpoints, so that a mesh can be extracted without the
file.
"""

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enerf.conditioning import layers
from enerf.config import parser
from enerf.core import memory as core_memory
from enerf.core.errors import InputError
from enerf.engine import checkpoint, joint_start, optimizers, resume, run_record
from enerf.engine.checkpoint import State
from enerf.engine.run_record import Record
from enerf.fields import conditioning
from enerf.fields.backends import module, registry
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.backends.registry import Backend, Resolved
from enerf.fields.shape import HEADS, ShapeField
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry import occupancy_volume, sign_grid
from enerf.geometry.mesh import Mesh, Normalization, PointCloud
from enerf.geometry.occupancy_volume import AxisNormalization, Volume
from enerf.geometry.sign_grid import SignGrid
from enerf.geometry.solid import Solid
from enerf.tasks.shape import build, memory, picture, voxels
from enerf.tasks.shape.config import SOURCES, ShapeConfig
from enerf.tasks.shape.eval_points import EvalSettings, Reference
from enerf.tasks.shape.picture import Picture

log = logging.getLogger("enerf")

TrainingTarget = Mesh | PointCloud | Picture | Volume
EVAL_SETTINGS = EvalSettings()  # evaluation points of fields and meshes
CELLS = 128  # along a side of the sign grid of fields without a hash grid
POINTS_PER_CALL = 1 << 17  # largest number of points in one call of a field, without gradients


@dataclass(frozen=True)
class ShapeRun:
    """A field with all that is needed to train and evaluate it."""

    config: ShapeConfig
    target: TrainingTarget
    field: ShapeField  # the same object as state.model
    state: State
    device: torch.device
    backend: Backend
    record: Record  # backends that trained it

    @property
    def computed(self) -> dict[str, Any]:
        """Nothing that may differ between computers."""
        return {}

    @property
    def box_metadata(self) -> dict[str, Any]:
        """Entries of checkpoints: transform from the box to the file's coordinates, and sign grid of a mesh.

        Empty for an image.
        """
        if isinstance(self.target, Picture):
            return {}
        normalization, signs = self.target.normalization, sign_grid_of(self.config, self.target)
        evidence = {} if signs is None else {"signs": signs.to_text()}
        scale = normalization.scale
        scales = list(scale) if isinstance(scale, tuple) else scale  # by axis for a volume
        return {"box": {"centre": list(normalization.center), "scale": scales, **evidence}}


def prepare(config: ShapeConfig, shared: Resolved | None = None, *, opening: bool = False) -> ShapeRun:
    """Load the target, build field and optimizer, and resume from the run's last checkpoint if there is one.

    ``shared`` is the backend and precision of the comparison that the run belongs to: a new run uses them for ``auto``.

    Raises
    ------
    InputError
        If the options, the file or the checkpoint cannot be used.
    """
    config = resolve_steps(config)  # first, since checkpoints have the number of steps
    found = resume.last_checkpoint(config, opening=opening)
    t, recorded = config.train, run_record.backend_to_reuse(found, shared)
    device, backend = registry.resolve_device_and_backend(t.device, t.backend, precision_of(config), recorded)
    if not opening:
        core_memory.require(memory.training_bytes(config), device)
    config = _as_begun(config, found)
    target = load_target(config)
    files = resume.check_inputs(config, found, input_files(config), opening=opening)
    field = new_field(config).to(device)
    registry.use(field, backend)
    matrices = conditioning.matrices_of(field, config.conditioning, HEADS)
    optimizer = optimizers.of_field(config.train, config.conditioning, field, matrices)
    state = resume.begin(config, field, optimizer, found)
    now = Resolved(backend.name, backend.precision, device.type)
    record = run_record.record_of(found, now, config, files)
    return ShapeRun(config, target, field, state, device, backend, record)


def _as_begun(config: ShapeConfig, found: checkpoint.Found | None) -> ShapeConfig:
    """Return the configuration; with ``far = 0`` if the run's checkpoint is of a version without that option."""
    if found is None or "far" in found[0]["config"]:
        return config
    if config.samples.far:
        log.info("--far 0 is used: the run was begun before there were points far from the surface")
    return replace(config, samples=replace(config.samples, far=0.0))


def resolve_steps(config: ShapeConfig) -> ShapeConfig:
    """Return the configuration with the epochs of a volume converted to steps; unchanged without ``--epochs``.

    Raises
    ------
    InputError
        As ``load_target``.
    """
    if not config.samples.epochs:
        return config
    target = load_target(config)
    assert isinstance(target, Volume)
    steps = voxels.steps_per_epoch(target, config.samples.N_points)
    n = min(config.train.N_iters, math.ceil(config.samples.epochs * steps))
    log.info("%d steps of at most %d voxels, %d steps an epoch", n, config.samples.N_points, steps)
    return replace(config, train=replace(config.train, N_iters=n))


def precision_of(config: ShapeConfig) -> str:
    """Return the precision option; ``fp32`` for activations other than ReLU, which are evaluated by torch in fp32."""
    return config.train.precision if config.model.activation == "relu" else "fp32"


def resolve_backend(config: ShapeConfig, recorded: Resolved | None = None) -> Resolved:
    """Return the backend and precision that the options resolve to, those of an earlier run where possible."""
    return registry.resolve(config.train.device, config.train.backend, precision_of(config), recorded)


def load_target(config: ShapeConfig) -> TrainingTarget:
    """Load the mesh, point cloud, image or volume of a configuration.

    Raises
    ------
    InputError
        If the file is missing, damaged, or of another kind.
    """
    data = config.data
    if data.image:
        return picture.load(Path(data.image).expanduser(), data.holdout, config.train.seed)
    if data.cloud:
        return geometry_mesh.load_point_cloud(Path(data.cloud).expanduser(), data.margin)
    path = Path(data.source).expanduser()
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    return _load_volume(path, stamp) if data.volume else _load_mesh(path, stamp, data.margin)


def input_files(config: ShapeConfig) -> list[Path]:
    """Return the file of the mesh, point cloud, image or volume of a configuration."""
    return [Path(config.data.source).expanduser()]


@lru_cache(maxsize=1)
def _load_mesh(path: Path, stamp: tuple[int, int] | None, margin: float) -> Mesh:
    """Load a mesh; the last one is cached, until its file changes, because all runs of a comparison use it."""
    return geometry_mesh.load(path, margin)


@lru_cache(maxsize=1)
def _load_volume(path: Path, stamp: tuple[int, int] | None) -> Volume:
    """Load a volume; cached as meshes are."""
    return occupancy_volume.load(path)


@lru_cache(maxsize=1)
def reference_of(mesh: Mesh) -> Reference:
    """Return the ground truth of a mesh; the last one is cached, for consecutive runs of the same mesh."""
    return Reference(solid_of(mesh), EVAL_SETTINGS)


@lru_cache(maxsize=1)
def solid_of(mesh: Mesh) -> Solid:
    """Return the solid of a mesh; the last one is cached, because building its search trees is slow."""
    return Solid(mesh)


def sign_grid_of(config: ShapeConfig, target: TrainingTarget) -> SignGrid | None:
    """Return which cells of the box are wholly inside or outside of a mesh; None for other targets.

    The cells are those of the finest hash grid, rounded up to a power of two, and at most 256 a side.
    """
    if not isinstance(target, Mesh):
        return None
    finest = config.model.hash_finest if config.model.encoding == "hash" else CELLS
    return _sign_grid(target, min(sign_grid.MAX_CELLS, max(32, 1 << (finest - 1).bit_length())))


@lru_cache(maxsize=1)
def _sign_grid(mesh: Mesh, cells: int) -> SignGrid:
    """Return the grid of a mesh; the last one is cached, because it takes seconds."""
    return sign_grid.of_solid(solid_of(mesh), cells)


def new_field(config: ShapeConfig) -> ShapeField:
    """Build, initialize and condition the field of a configuration, on the CPU."""
    m, is_picture = config.model, bool(config.data.image)
    return build.shape_field(
        config.conditioning,
        config.train.seed,
        inputs=2 if is_picture else 3,
        outputs=3 if is_picture else 1,
        depth=m.netdepth,
        width=m.netwidth,
        skip_at=m.netskip,
        encoding=m.encoding,
        bands=m.multires,
        first_band=m.multires_first,
        waves=m.fourier_features,
        wave_scale=m.fourier_scale,
        grid=make_grid(m.hash_levels, m.hash_features, m.hash_log2_entries, m.hash_coarsest, m.hash_finest),
        activation=m.activation,
        beta=m.softplus_beta,
        omega=m.omega_0,
        sigma=m.gaussian_sigma,
        first_biases=m.finer_bias,
        start_radius=m.start_radius,
    )


def method_name(config: ShapeConfig) -> str:
    """Name of a run's method in tables and ``metrics.json``; options without effect are omitted.

    >>> method_name(parser.from_dict(ShapeConfig, {"image": "a.png", "activation": "finer", "finer_bias": 2.0}))
    'mlp-finer_bias2'
    """
    name = conditioning.method_name(config.conditioning, "mlp", config.train.lrate)
    name += f"-finer_bias{config.model.finer_bias:g}" if config.model.finer_bias else ""
    return name + ("-iga" if config.samples.iga else "")


def open_run(folder: Path, device: str = "auto", source: str = "") -> ShapeRun:
    """Open a run at its last checkpoint; ``source`` is the new path of its training target, if that was moved.

    Raises
    ------
    InputError
        If the folder is not a shape run, or its file is missing.
    """
    content, _ = checkpoint.newest(folder, [ShapeConfig.kind])
    option = _source_option(content["config"])
    config = resume.reopened(ShapeConfig, content["config"], folder, device, option, source)
    return joint_start.opened(partial(prepare, config, opening=True))


def _source_option(saved: dict[str, Any]) -> str:
    """Return the name of the option that holds the path of a saved run's training target."""
    return next((name for name in SOURCES if saved.get(name)), "mesh")


@dataclass(frozen=True)
class OpenedField:
    """A trained field without its training target; ``normalization`` maps to the file's coordinates.

    ``signs`` are the cells of the box that are wholly inside or outside of the mesh, None if that is not known;
    ``inputs`` the hash of the mesh's file, as saved by ``Inputs.saved``, or None.
    """

    config: ShapeConfig
    field: ShapeField
    normalization: Normalization | AxisNormalization
    step: int
    device: torch.device
    signs: SignGrid | None = None
    inputs: dict[str, Any] | None = None


def open_field(folder: Path, device: str = "auto", precision: str = "auto") -> OpenedField:
    """Open the field of a run's last checkpoint, with baked and cached weights; its training target is not needed.

    It is evaluated by the backend that trained it, in the same precision if ``precision`` is ``auto``; if that is not
    possible, another one is used with a warning.

    Raises
    ------
    InputError
        If the folder is not a shape run, or is one of an image.
    """
    return joint_start.opened(
        partial(_opened_field, folder, device, precision), lambda found: {"step of the checkpoint": found.step}
    )


def _opened_field(folder: Path, device: str, precision: str) -> OpenedField:
    content, path = checkpoint.newest(folder, [ShapeConfig.kind])
    saved = content["config"]
    if "box" not in saved:
        raise InputError(f"{folder}: found a run of an image, expected one of a mesh, a point cloud or a volume")
    config = parser.from_dict(ShapeConfig, saved)
    recorded = run_record.checkpoint_backend(content)
    if precision != "auto":
        recorded = replace(recorded, precision=precision)  # chosen by the caller: no warning
    on_device, backend = registry.resolve_device_and_backend(device, "auto", precision, recorded)
    field = new_field(config).to(on_device)
    registry.use(field, backend)
    checkpoint.load_weights(field, content["model"], path)
    normalization = _saved_normalization(saved["box"])
    signs, files = _saved_signs(saved, path), saved.get("inputs")
    return OpenedField(config, frozen(field), normalization, content["step"], on_device, signs, files)


def _saved_normalization(box: dict[str, Any]) -> Normalization | AxisNormalization:
    """Return the map between the box and file coordinates of a checkpoint; by axis for a volume."""
    (x, y, z), scale = box["centre"], box["scale"]
    if not isinstance(scale, list):
        return Normalization((x, y, z), scale)
    a, b, c = scale
    return AxisNormalization((x, y, z), (a, b, c))


def _saved_signs(saved: dict[str, Any], path: Path) -> SignGrid | None:
    """Return the sign grid of a checkpoint; None if it has none, as those of point clouds and of earlier versions."""
    if "signs" not in saved["box"]:
        return None
    try:
        return SignGrid.from_text(saved["box"]["signs"])
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def frozen(field: ShapeField) -> ShapeField:
    """Return a copy of a field for evaluation, with baked and cached weights."""
    baked = layers.bake(copy.deepcopy(field)).eval()
    module.freeze(baked)
    return baked


def inside_test(field: ShapeField, target: str, level: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Return a function from points to whether they are inside.

    ``target`` is ``occupancy`` (inside: values above ``level``) or ``sdf`` (distances below it).
    """
    values = in_chunks(field)
    if target == "occupancy":
        return lambda points: values(points) > level
    return lambda points: values(points) < level


def in_chunks(field: ShapeField) -> Callable[[Tensor], Tensor]:
    """Return the field as a function that evaluates points in chunks, without gradients.

    Points are moved to the field's device, values to that of the points.
    """
    device = next(field.parameters()).device

    @torch.no_grad()
    def values(points: Tensor) -> Tensor:
        parts = [field(part.to(device)).to(points.device) for part in points.split(POINTS_PER_CALL)]
        return torch.cat(parts)

    return values


def with_source(config: ShapeConfig, mesh: Path, expname: str) -> ShapeConfig:
    """Return the configuration with another mesh and experiment name."""
    return replace(
        config,
        data=replace(config.data, mesh=str(mesh)),
        run=replace(config.run, expname=expname),
    )
