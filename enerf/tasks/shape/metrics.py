"""Metrics of shapes: a field, or a mesh extracted from it, against the reference mesh.

All quantities are measured in the box [−1, 1]³. Names that end in ``_percent`` are in percent of its side (2), those in
``_file`` in the units of the mesh file. ``eval_points`` defines the points at which fields are evaluated,
``surface_distance`` the comparison of surfaces.

- ``iou`` is the intersection over union of the interiors, on the grid. It saturates: an error layer of thickness t on a
  shape of volume V and area A reduces it only by about t·A/V. ``iou_near`` is the same within the shell and does not
  saturate.
- ``sign_f1_near`` is the mean of the F1 scores of inside and of outside within the shell. (The F1 score of inside alone
  is 2·iou/(1 + iou), which is equivalent to IoU.)
- ``volume_error`` is relative and signed: +0.01 is 1 % too large.
- ``parts_dropped`` is the number of parts that were removed from the mesh since the reference does not have them, with
  ``dropped_volume`` and the greatest ``dropped_distance`` of their vertices from its surface. Other metrics of the mesh
  are those of what is left; those of the field include its errors there.

A value that cannot be computed is None; ``reason`` of the mesh, or ``assumed`` of the reference, explains it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from enerf.core.errors import InputError
from enerf.geometry.mesh import Mesh
from enerf.geometry.solid import Solid
from enerf.geometry.spurious import Dropped
from enerf.tasks.shape import eval_points, surface_distance
from enerf.tasks.shape.eval_points import EvalSettings, Reference

InsideTest = Callable[[Tensor], Tensor]  # points (n, 3) float32 -> bool (n)

_SOLID_NAMES = ("iou", "iou_near", "sign_f1_near", "volume", "volume_file", "volume_error")
_SURFACE_NAMES = (
    *(f"{name}{unit}" for name in ("chamfer_l1", "accuracy", "completeness", "hausdorff")
      for unit in ("", "_percent", "_file")),
    "chamfer_l2", "chamfer_l2_file", "normal_consistency", "normal_consistency_signed", "normal_error_degrees",
)  # fmt: skip
_FACE_NAMES = (
    *("vertices", "faces", "watertight", "boundary_edges", "euler_number", "parts"),
    *("volume_by_faces", "volume_error_by_faces"),
)


def measure_field(inside: InsideTest, reference: Reference, *, quick: bool = False) -> dict[str, Any]:
    """Return metrics of a field as a flat dictionary.

    Parameters
    ----------
    inside
        Maps up to ``eval_points.POINTS_PER_CALL`` points to booleans, on any device: occupancy logits above 0, or
        signed distances below 0.
    reference
        Ground truth.
    quick
        Use 1/``thin``³ of the grid points (33,000 instead of 2.1 million, and as many of the shell), for curves.

    Raises
    ------
    ValueError
        If ``inside`` returns another shape or dtype.
    """
    settings, near = reference.settings, reference.near
    if quick:
        chosen, n = reference.quick_index, settings.quick_points
        parts = [
            _evaluate(inside, p)
            for p in eval_points.grid_points(chosen, settings.grid).split(eval_points.POINTS_PER_CALL)
        ]
        truth, near = reference.grid_labels[chosen], eval_points.LabeledPoints(near.points[:n], near.inside[:n])
    else:
        parts = [_evaluate(inside, part) for part in eval_points.grid(settings.grid)]
        truth = reference.grid_labels
    found = torch.cat(parts)
    found_near = torch.cat([_evaluate(inside, part) for part in near.points.split(eval_points.POINTS_PER_CALL)])
    volume, true = (eval_points.VOLUME * float(each.double().mean()) for each in (found, truth))
    return {
        "iou": iou(found, truth),
        "iou_near": iou(found_near, near.inside),
        "sign_f1_near": sign_f1(found_near, near.inside),
        "volume": volume,
        "volume_file": volume / reference.solid.mesh.normalization.scale**3,
        "volume_error": volume / true - 1 if true else None,
    }


def measure_mesh(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], reference: Reference
) -> dict[str, Any]:
    """Return metrics of an extracted mesh as a flat dictionary: interior (by winding number), surface, and topology.

    Vertices are in the box; the mesh is not repaired. ``volume_error_by_faces`` compares the volumes enclosed by the
    faces, if both meshes are watertight: without discretization error, but overlaps of parts are counted twice.
    """
    places, triangles = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int64)
    scores = (f"fscore_{percent:g}" for percent in reference.settings.thresholds)
    found: dict[str, Any] = dict.fromkeys((*_SOLID_NAMES, *_SURFACE_NAMES, *scores, *_FACE_NAMES))
    found["reason"] = _mesh_problem(places, triangles)
    if np.isfinite(places).all():
        mesh = surface_distance.mesh_from_arrays(places, triangles)
        found |= _mesh_statistics(mesh, reference)
    if found["reason"] is None:
        found |= _surface_metrics(mesh, reference)
        try:
            found |= measure_field(Solid(mesh).occupancy, reference)
        except InputError:
            found["reason"] = "the extracted mesh is flat, has inward normals or encloses no volume"
    return found


def measure(
    reference: Reference,
    field: InsideTest | None = None,
    mesh: tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]] | None = None,
    dropped: Dropped | None = None,
) -> dict[str, Any]:
    """Return all metrics of a shape run: flat dictionaries ``field``, ``mesh``, ``reference`` and ``protocol``.

    ``field`` is the field as it is, ``mesh`` the mesh without the parts that were ``dropped`` from it.
    """
    found: dict[str, Any] = {"reference": reference.describe(), "protocol": protocol(reference.settings)}
    if field is not None:
        found["field"] = measure_field(field, reference)
    if mesh is not None:
        found["mesh"] = measure_mesh(*mesh, reference)
        if dropped is not None:
            found["mesh"] |= _dropped_metrics(dropped, reference)
    return found


def _dropped_metrics(dropped: Dropped, reference: Reference) -> dict[str, Any]:
    """Return what was dropped from a mesh: number of parts, their volume, and how far from the surface they reached."""
    rows = np.ascontiguousarray(dropped.vertices, np.float64)
    farthest = float(reference.solid.nearest(rows).distances.max()) if len(rows) else 0.0
    return {
        "parts_dropped": dropped.spurious,
        "dropped_volume": dropped.volume,
        "dropped_distance_percent": 100 * farthest / eval_points.SIDE,
    }


def protocol(settings: EvalSettings) -> dict[str, Any]:
    """Return the evaluation protocol as a flat dictionary."""
    return {
        **settings.protocol(),
        "box_side": eval_points.SIDE,
        "surface_points": settings.surface_points,
        "surface_distances": "from points drawn by area to the other surface's triangles",
        "chamfer_l1": "(accuracy + completeness) / 2, mean distances",
        "chamfer_l2": "half the sum of the mean squared distances",
        "hausdorff": "greatest distance from a drawn point, either way",
        "normal_error_degrees": "mean angle between normals, whichever way they point",
        "fscore_thresholds_percent_of_side": list(settings.thresholds),
        "volume_error": "relative and signed",
    }


def iou(found: Bool[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float | None:
    """Intersection over union of the true elements; None if neither has any.

    >>> iou(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    0.5
    """
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else None


def sign_f1(found: Bool[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float | None:
    """Mean of the F1 scores of true and of false; None if one of the two classes is empty.

    >>> sign_f1(torch.tensor([True, False]), torch.tensor([True, False]))
    1.0
    """
    scores = []
    for one, other in ((found, truth), (~found, ~truth)):
        total = int(one.sum()) + int(other.sum())
        if not total:
            return None
        scores.append(2 * int((one & other).sum()) / total)
    return sum(scores) / 2


@torch.no_grad()
def _evaluate(inside: InsideTest, points: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """Evaluate the inside test and check its result."""
    answer = inside(points)
    if answer.shape != points.shape[:1] or answer.dtype != torch.bool:
        raise ValueError(
            f"inside test of {len(points)} points: found {answer.dtype} {tuple(answer.shape)}, expected one bool each"
        )
    return answer.cpu()


def _mesh_problem(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> str | None:
    """Return why a mesh has no surface; None if it has one."""
    if not len(faces):
        return "the extracted mesh is empty"
    if not np.isfinite(vertices).all():
        return "the extracted mesh has vertices that are not finite"
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return None if float(np.abs(np.cross(b - a, c - a)).sum()) > 0 else "the extracted mesh has no area"


def _mesh_statistics(mesh: Mesh, reference: Reference) -> dict[str, Any]:
    """Return counts of an extracted mesh, and its enclosed volume."""
    about, true, scale = mesh.report, reference.solid.mesh.report, reference.solid.mesh.normalization.scale
    both = about.watertight and true.watertight and about.faces > 0
    counts = (about.vertices, about.faces, about.watertight and about.faces > 0)
    more = (about.boundary_edges, about.euler_number, about.parts, about.volume)
    error = about.volume / (true.volume * scale**3) - 1 if both and true.volume else None
    return dict(zip(_FACE_NAMES, (*counts, *more, error), strict=True))


def _surface_metrics(mesh: Mesh, reference: Reference) -> dict[str, float]:
    """Return distances and normal agreement between an extracted mesh and the reference."""
    settings, true = reference.settings, reference.solid.mesh
    there = surface_distance.distances_to(mesh, true, settings.surface_points, settings.generator("other"))
    back = surface_distance.distances_to(true, mesh, settings.surface_points, settings.generator("surface"))
    return surface_distance.surface_metrics(
        there, back, settings.thresholds, eval_points.SIDE, true.normalization.scale
    )
