"""Hallway 2: a mesh, a cloud of points or a picture to a learned field, its metrics and a mesh.

``fit`` reads like the story it is: prepare the run (subject, field, optimiser, last checkpoint), learn, report.
"""

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
from enerf.tasks.shape.step import DistanceLoss, Parts

log = logging.getLogger("enerf")

CURVE = ("iou", "iou_near", "psnr", "psnr_heldout")  # figures of a point of the curve
# step -> the parts of its loss
PartsOf = Callable[[int], Parts]


def train(config: ShapeConfig, shared: Resolved | None = None) -> dict[str, Any] | None:
    """Learn a shape to the end of the run and report; returns its metrics, or None if none were asked for.

    ``shared`` is as for ``shape_runs.prepare``.

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
    with losses(run) as parts_of:
        trainer.fit(
            config,
            run.state,
            lambda training: shape_step.followed(run.field, partial(parts_of, training.step)),
            partial(_hooks, run),
            unit="points",
            per_step=config.samples.N_points,
            metadata={**run.box, **run.record.saved()},
        )
    if config.run.no_final_eval:
        return None
    return evaluate.finished_metrics(run) or evaluate.evaluate(run)


def train_all(config: ShapeConfig) -> list[dict[str, Any]]:
    """Train one run, or one for every mesh if ``--mesh`` is a folder; the table in the folder grows with each.

    Finished runs are not run again, a half-finished one goes on; a file that cannot be used is told of and left out.

    Raises
    ------
    InputError
        If the folder holds no mesh that can be used.
    KeyboardInterrupt
        If interrupted; the same call goes on where it stopped.
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
        arm = setup.with_source(config, path, f"{config.run.expname or config.scene}/{name}")
        log.info("shape %d of %d: %s (%s)", i + 1, len(named), name, arm.folder)
        try:
            metrics = resume.finished_metrics(arm) or train(replace(arm, run=replace(arm.run, no_final_eval=False)))
        except InputError as error:
            log.warning("%s is left out: %s", path, error)
            continue
        measured += [metrics] if metrics else []
        io.write_atomic(config.folder / "results.md", tables.as_markdown(report.table(measured)) + "\n")
        io.write_json(config.folder / "results.json", measured)
    if not measured:
        raise InputError(f"{folder}: none of its {len(found)} meshes could be learned")
    return measured


@contextmanager
def losses(run: ShapeRun) -> Iterator[PartsOf]:
    """The loss of every step; within, samples are prepared in the background."""
    subject = run.subject
    if isinstance(subject, Mesh):
        with _of_mesh(run, setup.solid_of(subject)) as parts_of:
            yield parts_of
    elif isinstance(subject, PointCloud):
        with _of_cloud(run, subject) as parts_of:
            yield parts_of
    else:
        yield _of_picture(run, subject)


@contextmanager
def _of_mesh(run: ShapeRun, solid: Solid) -> Iterator[PartsOf]:
    """Losses of labelled samples of a mesh, drawn in pools."""
    config, s = run.config, run.config.samples
    mixture = Mixture(uniform=s.uniform, near=config.near, surface=s.surface)
    is_distance = config.data.target == "sdf"
    make = partial(
        geometry_samples.pool, solid, mixture, s.pool, config.train.seed, distances=is_distance, normals=s.normals > 0
    )
    loss = DistanceLoss(s.loss_sdf, s.truncate, s.eikonal, s.normals, s.gradient_step)
    with _pools(make, s.background) as prepared:
        stream = sample_pool.Stream(prepared, s.pool, s.N_points, s.pool_uses, config.train.seed)

        def parts_of(step: int) -> Parts:
            samples = stream.batch(step).to(run.device)
            if is_distance:
                return shape_step.distance_parts(run.field, samples, loss)
            return shape_step.occupancy_parts(run.field, samples, s.balanced)

        yield parts_of


@contextmanager
def _of_cloud(run: ShapeRun, cloud: PointCloud) -> Iterator[PartsOf]:
    """Losses of points of a cloud, half of a step's points, and of places all over the box, drawn in pools."""
    s, seed = run.config.samples, run.config.train.seed
    weights = CloudWeights(s.cloud_surface, s.cloud_off, s.cloud_normals, s.cloud_eikonal, s.cloud_alpha)
    n_on = max(1, s.N_points // 2)
    n_off = max(1, s.N_points - n_on)
    make = partial(point_cloud.pool, point_cloud.CloudSolid(cloud), s.pool, seed)
    with _pools(make, s.background) as prepared:
        stream = sample_pool.Stream(prepared, s.pool, n_off, s.pool_uses, seed)

        def parts_of(step: int) -> Parts:
            on = geometry_samples.from_cloud(cloud, n_on, rng.generator_for(seed, step)).to(run.device)
            return shape_step.cloud_parts(run.field, on, stream.batch(step).to(run.device), weights, s.gradient_step)

        yield parts_of


def _pools(make: Callable[[int], ShapeSamples], background: str) -> sample_pool.Pools[ShapeSamples]:
    """Pools that are made where the option says."""
    return sample_pool.Pools(make, background="process" if background == "process" else "none")


def _of_picture(run: ShapeRun, picture: Picture) -> PartsOf:
    """Losses of random pixels of a picture."""
    config = run.config

    def parts_of(step: int) -> Parts:
        places, colours = shape_picture.batch(
            picture, config.samples.N_points, rng.generator_for(config.train.seed, step)
        )
        return shape_step.colour_parts(run.field, places.to(run.device), colours.to(run.device))

    return parts_of


def _hooks(run: ShapeRun, journal: Journal) -> list[Hook]:
    """What happens between steps: a point of the curve, ``[step, seconds, figures ...]``."""

    def look(training: State) -> None:
        field = setup.frozen(run.field)
        figures: dict[str, Any]
        if isinstance(run.subject, Picture):
            figures = shape_picture.measured(setup.in_parts(field), run.subject)
        elif isinstance(run.subject, Mesh):
            inside = setup.inside_of(field, run.config.data.target)
            figures = shape_metrics.of_field(inside, setup.reference_of(run.subject), quick=True)
        else:
            return
        told = {name: figures[name] for name in CURVE if figures.get(name) is not None}
        training.curve.append([training.step, training.seconds, *told.values()])
        journal.record(training.step, told)

    every = run.config.run.i_eval
    return [Hook(every, look, at_end=every > 0)]
