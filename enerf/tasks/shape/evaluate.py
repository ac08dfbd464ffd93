"""Evaluation of shape runs: writes ``metrics.json`` with the metrics and the protocol of their measurement."""

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from enerf.core import io
from enerf.engine import distributed, joint_start, results, resume
from enerf.fields.shape import ShapeField
from enerf.geometry import spurious, write
from enerf.geometry.isosurface import extract
from enerf.geometry.isosurface.extract import ExtractionSettings, Surface
from enerf.geometry.isosurface.sample_grid import Inside
from enerf.geometry.mesh import Mesh, PointCloud
from enerf.geometry.occupancy_volume import Volume
from enerf.geometry.spurious import Dropped
from enerf.tasks.shape import metrics as shape_metrics
from enerf.tasks.shape import picture, setup, voxels
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.setup import ShapeRun

log = logging.getLogger("enerf")
MESH = "mesh.ply"

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def evaluate_folder(folder: Path, device: str = "auto", source: str = "") -> dict[str, Any]:
    """Open a finished run, evaluate it again and return its metrics.

    ``source`` is the new path of its training target, if that was moved.

    Raises
    ------
    InputError
        If the folder is not a shape run, or its training target is missing.
    """
    run = setup.open_run(folder, device, source)
    with joint_start.published(run.config.folder, run.state.step) as out:
        return evaluate(run, out)


def evaluate(run: ShapeRun, out: Path | None = None) -> dict[str, Any]:
    """Evaluate the field and the mesh extracted from it; write ``metrics.json`` and ``mesh.ply``.

    They are written to ``out``, by default the run's folder.

    A point cloud defines no interior: the distance of its points to the mesh is measured instead. A volume defines no
    surface: the IoU over all of its voxels is measured.

    Several processes extract the mesh together, and the first one measures and writes.
    """
    began, field = time.perf_counter(), setup.frozen(run.field)
    has_mesh = run.config.run.resolution and not isinstance(run.target, Picture)
    surface = extract_surface(run, field) if has_mesh else None
    return distributed.current().of_first(partial(_measured, run, out or run.config.folder, field, surface, began))


def _measured(run: ShapeRun, out: Path, field: ShapeField, surface: Surface | None, began: float) -> dict[str, Any]:
    """Return the metrics of a field and of its surface; write them and the mesh to ``out``."""
    is_picture = isinstance(run.target, Picture)
    measured = _picture_metrics(run, field) if is_picture else _shape_metrics(run, out, field, surface)
    backend = run.record.metrics(run.state.step, run.config.folder)
    metrics = {**_protocol(run), **backend, **measured, "curve": run.state.curve}
    metrics["seconds"] = {"train": run.state.seconds, "eval": time.perf_counter() - began}
    io.write_json(out / results.METRICS, metrics)
    return metrics


def finished_metrics(run: ShapeRun) -> dict[str, Any] | None:
    """Return the saved metrics if they were measured at the current step with the same protocol, else None."""
    return resume.matching_metrics(run.config.folder, _protocol(run))


def _protocol(run: ShapeRun) -> dict[str, Any]:
    """Return the settings stored in ``metrics.json``; saved metrics are reused only if all of them are equal."""
    config, m = run.config, run.config.model
    grid = f"hash {m.hash_levels}×{m.hash_features}, 2^{m.hash_log2_entries}, {m.hash_coarsest}..{m.hash_finest}"
    network = f"{m.netdepth}×{m.netwidth} {m.activation}, {grid if m.encoding == 'hash' else m.encoding}"
    found = {
        "shape": run.target.name,
        "target": config.data.target,
        "method": setup.method_name(config),
        "model": network,
        "steps": run.state.step,
        "seed": config.train.seed,
        "device": str(run.device),
        "precision": run.record.metrics(run.state.step, config.folder)["precision"],
        "points_a_step": config.samples.N_points,
        "resolution": config.run.resolution,
    }
    if isinstance(run.target, Volume):
        found["protocol"] = voxels.protocol(run.target, config.data.volume_loss, config.data.level)
    return found


def _picture_metrics(run: ShapeRun, field: ShapeField) -> dict[str, Any]:
    """Return the PSNR of an image."""
    assert isinstance(run.target, Picture)
    return {"picture": picture.measure(setup.in_chunks(field), run.target)}


def _shape_metrics(run: ShapeRun, out: Path, field: ShapeField, surface: Surface | None) -> dict[str, Any]:
    """Return metrics of the field and of its mesh, which is written to ``mesh.ply`` in ``out``."""
    inside = setup.inside_test(field, run.config.data.target, run.config.data.level)
    dropped = None
    if surface is not None:
        surface, dropped = without_spurious_parts(run, surface)
        assert not isinstance(run.target, Picture)
        write.write(out / MESH, run.target.normalization.to_file(surface.vertices), surface.faces)
        log.info("mesh: %d vertices, %d faces: %s", len(surface.vertices), len(surface.faces), run.config.folder / MESH)
    if isinstance(run.target, Volume):
        return {"field": voxels.measure(inside, run.target.to(run.device))}
    if not isinstance(run.target, Mesh):
        return {"cloud": _cloud_distances(run, surface)}
    mesh = None if surface is None else (surface.vertices, surface.faces)
    return shape_metrics.measure(setup.reference_of(run.target), inside, mesh, dropped)


def without_spurious_parts(run: ShapeRun, surface: Surface) -> tuple[Surface, Dropped | None]:
    """Drop the parts of a mesh that the shape does not have, with a log line; returns also what was dropped.

    Unchanged, and None, for a point cloud or a volume, of which no sign grid is kept.
    """
    signs = setup.sign_grid_of(run.config, run.target)
    if signs is None:
        return surface, None
    assert isinstance(run.target, Mesh)
    solid = partial(setup.solid_of, run.target)
    vertices, faces, dropped = spurious.drop(surface.vertices, surface.faces, signs, solid)
    if dropped.spurious or dropped.none_left:
        log.warning("mesh: %s", dropped)
    return replace(surface, vertices=vertices, faces=faces), dropped


def extract_surface(run: ShapeRun, field: Any) -> Surface | None:
    """Extract the mesh of a field in the box; None, with a warning, if there is no surface."""
    inside: Inside = "above" if run.config.data.target == "occupancy" else "below"
    signs = setup.sign_grid_of(run.config, run.target)
    cells = None if signs is None else signs.surface_cells()
    settings = ExtractionSettings(
        run.config.run.resolution,
        run.config.data.level,
        inside=inside,
        closed=True,
        surface_cells=cells,
        in_order=distributed.current().map,
    )
    try:
        return extract.extract(setup.in_chunks(field), BOX, settings)
    except ValueError as error:
        log.warning("no mesh: %s", error)
        return None


def _cloud_distances(run: ShapeRun, surface: Surface | None) -> dict[str, Any]:
    """Return distances of the points of a cloud to the mesh."""
    if surface is None or not isinstance(run.target, PointCloud):
        return {"mean_distance": None, "points": 0}
    import igl

    points = run.target.points
    squares, _, _ = igl.point_mesh_squared_distance(points, surface.vertices, surface.faces)
    distances = np.sqrt(np.asarray(squares))
    scale = run.target.normalization.scale
    return {
        "points": len(points),
        "mean_distance": float(distances.mean()),
        "mean_distance_file": float(distances.mean()) / scale,
        "largest_distance": float(distances.max()),
        "protocol": "from the points of the cloud to the triangles of the mesh, in the box of side 2",
    }
