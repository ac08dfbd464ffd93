"""What a shape run is measured to be: its ``metrics.json``, with the protocol of every figure beside it."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from enerf.core import io
from enerf.engine import resume
from enerf.fields import conditioning
from enerf.geometry import write
from enerf.geometry.isosurface import extract
from enerf.geometry.isosurface.extract import ExtractionSettings, Surface
from enerf.geometry.isosurface.sample_grid import Inside
from enerf.geometry.mesh import Mesh
from enerf.tasks.shape import metrics as shape_metrics
from enerf.tasks.shape import picture, setup
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.setup import ShapeRun

log = logging.getLogger("enerf")

BOX = torch.tensor([[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]])


def evaluate_folder(folder: Path, device: str = "auto", source: str = "") -> dict[str, Any]:
    """Open a finished run, measure it again and return its metrics; ``source`` is the new place of its file, if any.

    Raises
    ------
    InputError
        If the folder is no run of a shape, or its mesh, cloud or picture is missing.
    """
    return evaluate(setup.open_run(folder, device, source))


def evaluate(run: ShapeRun) -> dict[str, Any]:
    """Measure the field, and the mesh that is extracted from it; writes ``metrics.json`` and ``mesh.ply``.

    A cloud of points has no inside to compare with: how far the mesh lies from its points is measured instead.
    """
    began = time.perf_counter()
    measured = _picture(run) if isinstance(run.subject, Picture) else _shape(run)
    computed = run.record.metrics(run.state.step)
    metrics = {**_described(run), **computed, **measured, "curve": run.state.curve}
    metrics["seconds"] = {"train": run.state.seconds, "eval": time.perf_counter() - began}
    io.write_json(run.config.folder / "metrics.json", metrics)
    return metrics


def finished_metrics(run: ShapeRun) -> dict[str, Any] | None:
    """The run's metrics if they were measured at its present step, of the same subject."""
    return resume.matching_metrics(run.config.folder, _described(run))


def _described(run: ShapeRun) -> dict[str, Any]:
    """What a figure needs beside it: shape, method, steps."""
    config, m = run.config, run.config.model
    grid = f"hash {m.hash_levels}×{m.hash_features}, 2^{m.hash_log2_entries}, {m.hash_coarsest}..{m.hash_finest}"
    network = f"{m.netdepth}×{m.netwidth} {m.activation}, {grid if m.encoding == 'hash' else m.encoding}"
    return {
        "shape": run.subject.name,
        "target": config.data.target,
        "method": conditioning.method_name(config.conditioning, "mlp"),
        "model": network,
        "steps": run.state.step,
        "seed": config.train.seed,
        "device": str(run.device),
        "precision": run.record.trained(run.state.step).precision if m.activation == "relu" else "fp32",
        "points_a_step": config.samples.N_points,
        "resolution": config.run.resolution,
    }


def _picture(run: ShapeRun) -> dict[str, Any]:
    """PSNR of a picture."""
    assert isinstance(run.subject, Picture)
    made = setup.in_parts(setup.frozen(run.field))
    return {"picture": picture.measured(made, run.subject)}


def _shape(run: ShapeRun) -> dict[str, Any]:
    """Figures of a field and of its mesh, which is written."""
    field, target = setup.frozen(run.field), run.config.data.target
    inside = setup.inside_of(field, target)
    surface = extracted(run, field) if run.config.run.resolution else None
    if surface is not None:
        path = run.config.folder / "mesh.ply"
        assert not isinstance(run.subject, Picture)
        write.write(path, run.subject.normalization.to_file(surface.vertices), surface.faces)
        log.info("mesh: %d vertices, %d faces: %s", len(surface.vertices), len(surface.faces), path)
    if not isinstance(run.subject, Mesh):
        return {"cloud": _from_cloud(run, surface)}
    mesh = None if surface is None else (surface.vertices, surface.faces)
    return shape_metrics.describe(setup.reference_of(run.subject), inside, mesh)


def extracted(run: ShapeRun, field: Any) -> Surface | None:
    """The mesh of a field in the box, or None with a warning if there is none."""
    inside: Inside = "above" if run.config.data.target == "occupancy" else "below"
    settings = ExtractionSettings(run.config.run.resolution, inside=inside, closed=True)
    try:
        return extract.extract(setup.in_parts(field), BOX, settings)
    except ValueError as error:
        log.warning("no mesh: %s", error)
        return None


def _from_cloud(run: ShapeRun, surface: Surface | None) -> dict[str, Any]:
    """How far the points of a cloud lie from the mesh."""
    if surface is None or isinstance(run.subject, Mesh | Picture):
        return {"mean_distance": None, "points": 0}
    import igl

    points = run.subject.points
    squares, _, _ = igl.point_mesh_squared_distance(points, surface.vertices, surface.faces)
    distances = np.sqrt(np.asarray(squares))
    scale = run.subject.normalization.scale
    return {
        "points": len(points),
        "mean_distance": float(distances.mean()),
        "mean_distance_file": float(distances.mean()) / scale,
        "largest_distance": float(distances.max()),
        "protocol": "from the points of the cloud to the triangles of the mesh, in the box of side 2",
    }
