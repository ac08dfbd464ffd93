"""Training of shape fields on a mesh, a point cloud or an image: prepare the run, fit, evaluate."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from enerf.core import io, rng
from enerf.core.errors import InputError
from enerf.engine import resume, trainer
from enerf.engine.checkpoint import State
from enerf.engine.journal import Journal
from enerf.engine.trainer import Hook
from enerf.fields.backends.registry import Resolved
from enerf.geometry import point_cloud, read, sample_pool
from enerf.geometry import samples as geometry_samples
from enerf.geometry.mesh import Mesh, PointCloud
from enerf.geometry.samples import Mixture, ShapeSamples
from enerf.geometry.solid import Solid
from enerf.reporting import tables
from enerf.tasks.shape import evaluate, report, setup
from enerf.tasks.shape import metrics as shape_metrics
from enerf.tasks.shape import picture as shape_picture
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape.config import ShapeConfig
from enerf.tasks.shape.losses import CloudWeights
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.setup import ShapeRun
from enerf.tasks.shape.step import DistanceLoss, LossTerms

log = logging.getLogger("enerf")

CURVE = ("iou", "iou_near", "psnr", "psnr_heldout")  # metrics of a point of the curve
# step -> the terms of its loss
LossTermsAt = Callable[[int], LossTerms]


def train(config: ShapeConfig, shared: Resolved | None = None) -> dict[str, Any] | None:
    """Train a run to its end and evaluate it; return its metrics, or None with ``--no_final_eval``.

    ``shared`` is as for ``setup.prepare``.

    Raises
    ------
    InputError
        If the options, the file or the checkpoint cannot be used.
    NotFinite
        If the loss or a gradient is not finite; the last good checkpoint is kept.
    KeyboardInterrupt
        If the run was interrupted; a checkpoint was saved.
    """
    run = setup.prepare(config, shared)
    with loss_terms(run) as terms_at:
        trainer.fit(
            config,
            run.state,
            lambda state: shape_step.gradient_step(run.field, partial(terms_at, state.step)),
            partial(_hooks, run),
            unit="points",
            per_step=config.samples.N_points,
            metadata={**run.box_metadata, **run.record.saved()},
        )
    if config.run.no_final_eval:
        return None
    return evaluate.finished_metrics(run) or evaluate.evaluate(run)


def train_all(config: ShapeConfig) -> list[dict[str, Any]]:
    """Train one run, or one for every mesh if ``--mesh`` is a folder; return the metrics of all runs.

    The table in the experiment's folder is rewritten after each run. Finished runs are not repeated, an unfinished one
    is resumed; a file that cannot be used is skipped with a warning.

    Raises
    ------
    InputError
        If the folder contains no usable mesh.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    folder = Path(config.data.mesh).expanduser()
    if not config.data.mesh or not folder.is_dir():
        metrics = train(config)
        return [] if metrics is None else [metrics]
    found = sorted(path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in read.SUFFIXES)
    if not found:
        raise InputError(f"{folder}: found no mesh in it, expected files of kinds {', '.join(read.SUFFIXES)}")
    named = {path: path.stem if [p.stem for p in found].count(path.stem) == 1 else path.name for path in found}
    measured: list[dict[str, Any]] = []
    for i, (path, name) in enumerate(named.items()):
        variant = setup.with_source(config, path, f"{config.run.expname or config.scene}/{name}")
        log.info("shape %d of %d: %s (%s)", i + 1, len(named), name, variant.folder)
        try:
            metrics = resume.finished_metrics(variant) or train(
                replace(variant, run=replace(variant.run, no_final_eval=False))
            )
        except InputError as error:
            log.warning("%s is skipped: %s", path, error)
            continue
        measured += [metrics] if metrics else []
        io.write_atomic(config.folder / "results.md", tables.as_markdown(report.table(measured)) + "\n")
        io.write_json(config.folder / "results.json", measured)
    if not measured:
        raise InputError(f"{folder}: none of its {len(found)} meshes could be learned")
    return measured


@contextmanager
def loss_terms(run: ShapeRun) -> Iterator[LossTermsAt]:
    """Context manager of the loss terms of every step; inside it, samples may be drawn in a background process."""
    target = run.target
    if isinstance(target, Mesh):
        with _mesh_terms(run, setup.solid_of(target)) as terms_at:
            yield terms_at
    elif isinstance(target, PointCloud):
        with _cloud_terms(run, target) as terms_at:
            yield terms_at
    else:
        yield _picture_terms(run, target)


@contextmanager
def _mesh_terms(run: ShapeRun, solid: Solid) -> Iterator[LossTermsAt]:
    """Loss terms on labeled samples of a mesh, drawn from pools."""
    config, s = run.config, run.config.samples
    mixture = Mixture(uniform=s.uniform, near=config.near, surface=s.surface)
    is_distance = config.data.target == "sdf"
    make = partial(
        geometry_samples.pool, solid, mixture, s.pool, config.train.seed, distances=is_distance, normals=s.normals > 0
    )
    loss = DistanceLoss(s.loss_sdf, s.truncate, s.eikonal, s.normals, s.gradient_step)
    with _pools(make, s.background) as prepared:
        stream = sample_pool.Stream(prepared, s.pool, s.N_points, s.pool_uses, config.train.seed)

        def terms_at(step: int) -> LossTerms:
            samples = stream.batch(step).to(run.device)
            if is_distance:
                return shape_step.distance_terms(run.field, samples, loss)
            return shape_step.occupancy_terms(run.field, samples, s.balanced)

        yield terms_at


@contextmanager
def _cloud_terms(run: ShapeRun, cloud: PointCloud) -> Iterator[LossTermsAt]:
    """Loss terms on points of a cloud (half of the batch) and on points of the box, drawn from pools."""
    s, seed = run.config.samples, run.config.train.seed
    weights = CloudWeights(s.cloud_surface, s.cloud_off, s.cloud_normals, s.cloud_eikonal, s.cloud_alpha)
    n_on = max(1, s.N_points // 2)
    n_off = max(1, s.N_points - n_on)
    make = partial(point_cloud.pool, point_cloud.CloudSolid(cloud), s.pool, seed)
    with _pools(make, s.background) as prepared:
        stream = sample_pool.Stream(prepared, s.pool, n_off, s.pool_uses, seed)

        def terms_at(step: int) -> LossTerms:
            on = geometry_samples.from_cloud(cloud, n_on, rng.generator_for(seed, step)).to(run.device)
            return shape_step.cloud_terms(run.field, on, stream.batch(step).to(run.device), weights, s.gradient_step)

        yield terms_at


def _pools(make: Callable[[int], ShapeSamples], background: str) -> sample_pool.Pools[ShapeSamples]:
    """Pools of samples, filled in a background process if the option says so."""
    return sample_pool.Pools(make, background="process" if background == "process" else "none")


def _picture_terms(run: ShapeRun, picture: Picture) -> LossTermsAt:
    """Loss terms on random pixels of an image."""
    config = run.config

    def terms_at(step: int) -> LossTerms:
        points, colors = shape_picture.batch(
            picture, config.samples.N_points, rng.generator_for(config.train.seed, step)
        )
        return shape_step.color_terms(run.field, points.to(run.device), colors.to(run.device))

    return terms_at


def _hooks(run: ShapeRun, journal: Journal) -> list[Hook]:
    """Return the hook that appends a point ``[step, seconds, metrics ...]`` to the curve."""

    def evaluate_point(state: State) -> None:
        field = setup.frozen(run.field)
        measured: dict[str, Any]
        if isinstance(run.target, Picture):
            measured = shape_picture.measure(setup.in_chunks(field), run.target)
        elif isinstance(run.target, Mesh):
            inside = setup.inside_test(field, run.config.data.target)
            measured = shape_metrics.measure_field(inside, setup.reference_of(run.target), quick=True)
        else:
            return
        point = {name: measured[name] for name in CURVE if measured.get(name) is not None}
        state.curve.append([state.step, state.seconds, *point.values()])
        journal.record(state.step, point)

    every = run.config.run.i_eval
    return [Hook(every, evaluate_point, at_end=every > 0)]
