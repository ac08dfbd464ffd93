"""Training of shape fields on a mesh, a point cloud, an image or a volume: prepare the run, fit, evaluate."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from enerf.core import io, ranks
from enerf.core.errors import InputError, NotFinite, SomeFailed
from enerf.engine import distributed, joint_start, resume, trainer
from enerf.engine.checkpoint import State
from enerf.engine.journal import Journal
from enerf.engine.trainer import Hook
from enerf.fields.backends.registry import Resolved
from enerf.geometry import read
from enerf.geometry.mesh import Mesh, PointCloud
from enerf.geometry.occupancy_volume import Volume
from enerf.reporting import tables
from enerf.tasks.shape import evaluate, loss_terms, report, setup, voxels
from enerf.tasks.shape import metrics as shape_metrics
from enerf.tasks.shape import picture as shape_picture
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape.config import ShapeConfig
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.setup import ShapeRun

log = logging.getLogger("enerf")

CURVE = ("iou", "iou_near", "psnr", "psnr_heldout")  # metrics of a point of the curve


def train(
    config: ShapeConfig, shared: Resolved | None = None, watch: Callable[[ShapeRun], Hook] | None = None
) -> dict[str, Any] | None:
    """Train a run to its end and evaluate it; return its metrics, or None with ``--no_final_eval``.

    ``shared`` is as for ``setup.prepare``. ``watch`` returns one more hook, of a viewer of the prepared run.

    Raises
    ------
    InputError
        If the options, the file or the checkpoint cannot be used, or another process writes to the run.
    NotFinite
        If the loss or a gradient is not finite; the state before that step has been saved.
    KeyboardInterrupt
        If the run was interrupted; a checkpoint was saved.
    """
    with joint_start.writing(config.folder):
        return _train(config, shared, watch)


def _train(
    config: ShapeConfig, shared: Resolved | None, watch: Callable[[ShapeRun], Hook] | None
) -> dict[str, Any] | None:
    """Train and evaluate a run whose folder is locked."""
    run = joint_start.prepared(partial(setup.prepare, config), shared)
    config, team = run.config, distributed.current()
    _require_shares(run)
    gradient = shape_step.share_step if team.is_joint else shape_step.gradient_step
    with loss_terms.of_run(run) as terms_at:
        trainer.fit(
            config,
            run.state,
            lambda state: gradient(run.field, partial(terms_at, state.step)),
            partial(_hooks, run, [] if watch is None else [watch(run)]),
            unit="points",
            per_step=config.samples.N_points,
            metadata={**run.box_metadata, **run.record.saved()},
        )
    if config.run.no_final_eval:
        return None
    return team.of_first(partial(evaluate.finished_metrics, run)) or evaluate.evaluate(run)


def _require_shares(run: ShapeRun) -> None:
    """Check that each of several processes has points of every kind in a batch."""
    config, team = run.config, distributed.current()
    n = config.samples.N_points
    parts = [n]
    if isinstance(run.target, PointCloud):
        parts = [max(1, n // 2)]  # on the cloud; elsewhere there are as many or more
    elif isinstance(run.target, Mesh) and config.far_points:
        parts = [n - config.far_points]
    for each in parts:
        team.require_share("N_points", each)
    rest = run.target.voxels.numel() % n if isinstance(run.target, Volume) else 0
    if config.conditioning.methods.normalization == "batch_norm" and 0 < rest < team.size:
        raise InputError(
            f"option --N_points: found {n}, which leaves {rest} of the voxels for the last batch of an epoch, expected "
            f"none or at least {team.size}, one for each process"
        )
    if config.samples.iga:
        ranks.require_alone(f"option --iga {config.samples.iga}")


def train_all(config: ShapeConfig, watch: Callable[[ShapeRun], Hook] | None = None) -> list[dict[str, Any]]:
    """Train one run, or one for every mesh if ``--mesh`` is a folder; return the metrics of all runs.

    The table in the experiment's folder is rewritten after each run. Finished runs are not repeated, an unfinished one
    is resumed. A mesh that cannot be read, or whose training fails, does not end the others. ``watch`` is as of
    ``train``, for one run only.

    Raises
    ------
    SomeFailed
        After the last mesh, if some of them failed; with the metrics of the others.
    InputError
        If the folder contains no mesh.
    KeyboardInterrupt
        If interrupted; the same call resumes.
    """
    folder = Path(config.data.mesh).expanduser()
    if not config.data.mesh or not folder.is_dir():
        metrics = train(config, watch=watch)
        return [] if metrics is None else [metrics]
    ranks.require_alone(f"option --mesh {folder}, a folder")
    if watch is not None:
        raise InputError(f"option --viewer: found the folder {folder} as --mesh, expected one mesh")
    named = _named_meshes(folder)
    io.remove_leftovers(config.folder)
    measured: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    for i, (path, name) in enumerate(named.items()):
        variant = setup.with_source(config, path, f"{config.run.expname or config.scene}/{name}")
        log.info("shape %d of %d: %s (%s)", i + 1, len(named), name, variant.folder)
        try:
            metrics = resume.finished_metrics(variant, setup.input_files) or train(
                replace(variant, run=replace(variant.run, no_final_eval=False))
            )
        except (InputError, NotFinite) as error:
            log.warning("%s is skipped: %s", path, error)
            failed[path.name] = str(error)
            continue
        measured += [{**metrics, "shape": name}] if metrics else []
        io.write_atomic(config.folder / "results.md", tables.as_markdown(report.table(measured)) + "\n")
        io.write_json(config.folder / "results.json", measured)
    if failed:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        raise SomeFailed(
            f"{folder}: {len(failed)} of its {len(named)} meshes could not be learned: {reasons}", measured
        )
    return measured


def _named_meshes(folder: Path) -> dict[Path, str]:
    """Return the mesh files in a folder, sorted by name, each with the name of its run.

    Raises
    ------
    InputError
        If there are none, or the folder cannot be listed.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower().lstrip(".") in read.SUFFIXES)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror}), expected a folder of meshes") from None
    if not found:
        raise InputError(f"{folder}: found no mesh in it, expected files of kinds {', '.join(read.SUFFIXES)}")
    stems = Counter(path.stem for path in found)
    return {path: path.stem if stems[path.stem] == 1 else path.name for path in found}


def _hooks(run: ShapeRun, more: list[Hook], journal: Journal) -> list[Hook]:
    """Return the hook that appends a point ``[step, seconds, metrics ...]`` to the curve, and ``more``."""

    def evaluate_point(state: State) -> None:
        point = distributed.current().of_first(partial(_curve_point, run))
        if point is not None:
            state.curve.append([state.step, state.seconds, *point.values()])
            journal.record(state.step, point)

    every = run.config.run.i_eval
    return [Hook(every, evaluate_point, at_end=every > 0), *more]


def _curve_point(run: ShapeRun) -> dict[str, Any] | None:
    """Return the metrics of the curve at present; None for targets without any."""
    field = setup.frozen(run.field)
    measured: dict[str, Any]
    if isinstance(run.target, Picture):
        measured = shape_picture.measure(setup.in_chunks(field), run.target)
    elif isinstance(run.target, Mesh):
        inside = setup.inside_test(field, run.config.data.target)
        measured = shape_metrics.measure_field(inside, setup.reference_of(run.target), quick=True)
    elif isinstance(run.target, Volume):
        inside = setup.inside_test(field, run.config.data.target, run.config.data.level)
        measured = voxels.measure(inside, run.target, quick=True)
    else:
        return None
    return {name: measured[name] for name in CURVE if measured.get(name) is not None}
