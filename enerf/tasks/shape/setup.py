"""A shape run: what is learned, its field, and what can be asked of them; prepared from options or opened.

What is learned is a mesh, a cloud of oriented points, or a picture. Fields live in the box [−1, 1]ᵈ; the way back to
the file's coordinates is kept in the checkpoints, so that a mesh can be extracted when the file is gone.
"""

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from enerf.conditioning import layers
from enerf.config import parser
from enerf.core.errors import InputError
from enerf.engine import backend_record, checkpoint, resume
from enerf.engine.backend_record import Record
from enerf.engine.checkpoint import State
from enerf.fields.backends import module, registry
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.backends.registry import Backend, Resolved
from enerf.fields.shape import ShapeField
from enerf.geometry import mesh as geometry_mesh
from enerf.geometry.mesh import Mesh, Normalization, PointCloud
from enerf.geometry.solid import Solid
from enerf.tasks.shape import build, picture
from enerf.tasks.shape.config import ShapeConfig
from enerf.tasks.shape.eval_points import Reference, Settings
from enerf.tasks.shape.picture import Picture

log = logging.getLogger("enerf")

Subject = Mesh | PointCloud | Picture
SETTINGS = Settings()  # what fields and meshes are measured with
POINTS_AT_ONCE = 1 << 17  # of a field, where nothing is learned


@dataclass(frozen=True)
class ShapeRun:
    """A field, and all that is needed to learn and to measure it."""

    config: ShapeConfig
    subject: Subject
    field: ShapeField  # what state.model holds
    state: State
    device: torch.device
    backend: Backend
    record: Record  # of the backends that have trained it

    @property
    def box(self) -> dict[str, Any]:
        """The way back to the file's coordinates, as checkpoints tell it; nothing for a picture."""
        if isinstance(self.subject, Picture):
            return {}
        way = self.subject.normalization
        return {"box": {"centre": list(way.center), "scale": way.scale}}


def prepare(config: ShapeConfig, shared: Resolved | None = None) -> ShapeRun:
    """Subject, field and optimiser of a configuration, resumed from the run's last checkpoint if it has one.

    ``shared`` is what ``auto`` means for a fresh run: the backend and precision of the comparison that it is part of.

    Raises
    ------
    InputError
        For a user's mistake.
    """
    found = resume.last_checkpoint(config)
    t, recorded = config.train, backend_record.backend_to_reuse(found, shared)
    device, backend = registry.resolve_device_and_backend(t.device, t.backend, precision_of(config), recorded)
    subject = load_subject(config)
    made = new_field(config).to(device)
    registry.use(made, backend)
    training = resume.begin(config, made, resume.adam(config.train, made), found)
    record = backend_record.record_of(found, Resolved(backend.name, backend.precision, device.type))
    return ShapeRun(config, subject, made, training, device, backend, record)


def precision_of(config: ShapeConfig) -> str:
    """The precision option; ``fp32`` for networks with other activations than ReLU, which torch evaluates in it."""
    return config.train.precision if config.model.activation == "relu" else "fp32"


def resolve_backend(config: ShapeConfig, recorded: Resolved | None = None) -> Resolved:
    """Return the backend and precision that the options resolve to, those of an earlier run where possible."""
    return registry.resolve(config.train.device, config.train.backend, precision_of(config), recorded)


def load_subject(config: ShapeConfig) -> Subject:
    """What a configuration says is to be learned.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds something else.
    """
    data = config.data
    if data.image:
        return picture.load(Path(data.image).expanduser(), data.holdout, config.train.seed)
    if data.cloud:
        return geometry_mesh.load_point_cloud(Path(data.cloud).expanduser(), data.margin)
    path = Path(data.mesh).expanduser()
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else None
    return _mesh(path, stamp, data.margin)


@lru_cache(maxsize=1)
def _mesh(path: Path, stamp: tuple[int, int] | None, margin: float) -> Mesh:
    """The mesh of a file, read again only if it has changed: comparisons learn the same one many times."""
    return geometry_mesh.load(path, margin)


@lru_cache(maxsize=1)
def reference_of(mesh: Mesh) -> Reference:
    """What is true of a mesh; found once for runs of the same mesh that follow each other."""
    return Reference(solid_of(mesh), SETTINGS)


@lru_cache(maxsize=1)
def solid_of(mesh: Mesh) -> Solid:
    """A mesh that can be asked what is inside; its trees are built once, for learning and for measuring."""
    return Solid(mesh)


def new_field(config: ShapeConfig) -> ShapeField:
    """The freshly started and conditioned field of a configuration, on the CPU."""
    m, of_picture = config.model, bool(config.data.image)
    return build.shape_field(
        config.conditioning,
        config.train.seed,
        inputs=2 if of_picture else 3,
        outputs=3 if of_picture else 1,
        depth=m.netdepth,
        width=m.netwidth,
        skip_at=m.netskip,
        encoding=m.encoding,
        bands=m.multires,
        waves=m.fourier_features,
        wave_scale=m.fourier_scale,
        grid=make_grid(m.hash_levels, m.hash_features, m.hash_log2_entries, m.hash_coarsest, m.hash_finest),
        activation=m.activation,
        beta=m.softplus_beta,
        omega=m.omega_0,
        sigma=m.gaussian_sigma,
        start_radius=m.start_radius,
    )


def open_run(folder: Path, device: str = "auto", source: str = "") -> ShapeRun:
    """Open a run as its last checkpoint left it; ``source`` is the new place of its mesh, cloud or picture, if any.

    Raises
    ------
    InputError
        If the folder is no run of a shape, or its file is missing.
    """
    content, _ = checkpoint.newest(folder, [ShapeConfig.kind])
    return prepare(
        resume.reopened(ShapeConfig, content["config"], folder, device, _source_option(content["config"]), source)
    )


def _source_option(saved: dict[str, Any]) -> str:
    """Return the option that names what a saved run was trained on."""
    return next((name for name in ("mesh", "cloud", "image") if saved.get(name)), "mesh")


@dataclass(frozen=True)
class Opened:
    """A learned field without what it was learned from; ``normalisation`` leads back to the file's coordinates."""

    config: ShapeConfig
    field: ShapeField
    normalisation: Normalization
    step: int
    device: torch.device


def open_field(folder: Path, device: str = "auto", precision: str = "auto") -> Opened:
    """The field of a run's last checkpoint, its weights baked and held; its file need not be there.

    The backend that trained it evaluates it too, in the same precision if ``precision`` is ``auto``; where it cannot,
    one warning says why.

    Raises
    ------
    InputError
        If the folder is no shape run, or one of a picture.
    """
    content, path = checkpoint.newest(folder, [ShapeConfig.kind])
    saved = content["config"]
    if "box" not in saved:
        raise InputError(f"{folder}: found the run of a picture, expected one of a mesh or a cloud of points")
    config = parser.from_dict(ShapeConfig, saved)
    again = backend_record.checkpoint_backend(content)
    if precision != "auto":
        again = replace(again, precision=precision)  # the caller's choice, not a difference to warn of
    where, backend = registry.resolve_device_and_backend(device, "auto", precision, again)
    made = new_field(config).to(where)
    registry.use(made, backend)
    checkpoint.load_weights(made, content["model"], path)
    x, y, z = saved["box"]["centre"]
    return Opened(config, frozen(made), Normalization((x, y, z), saved["box"]["scale"]), content["step"], where)


def frozen(of: ShapeField) -> ShapeField:
    """A copy of a field as it is now, baked, its weights held: for everything but learning."""
    made = layers.bake(copy.deepcopy(of)).eval()
    module.freeze(made)
    return made


def inside_of(of: ShapeField, target: str) -> Callable[[Tensor], Tensor]:
    """Which points a field says are inside: logits above 0, signed distances below; asked on the field's device."""
    sign = 1.0 if target == "occupancy" else -1.0
    values = in_parts(of)
    return lambda points: sign * values(points) > 0


def in_parts(of: ShapeField) -> Callable[[Tensor], Tensor]:
    """A field asked for some points at a time, without gradients, wherever they are; values come back there."""
    device = next(of.parameters()).device

    @torch.no_grad()
    def values(points: Tensor) -> Tensor:
        parts = [of(part.to(device)).to(points.device) for part in points.split(POINTS_AT_ONCE)]
        return torch.cat(parts)

    return values


def with_source(config: ShapeConfig, mesh: Path, expname: str) -> ShapeConfig:
    """The same run of another mesh, in a folder of its own."""
    return replace(
        config,
        data=replace(config.data, mesh=str(mesh)),
        run=replace(config.run, expname=expname),
    )
