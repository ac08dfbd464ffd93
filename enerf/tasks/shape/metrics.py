"""Shapes to numbers: a field and an extracted mesh against the mesh they are of.

Everything is measured in the box [−1, 1]³; names that end in ``_percent`` are of its side (2), those in ``_file`` in
the units of the mesh's file. ``heldout`` says which points are asked, ``surfaces`` how two surfaces are compared.

Words of this file:

- ``iou`` is the intersection over union of what is inside, by the grid. It saturates: a shape of volume V and area A
  that is wrong by a skin of thickness t loses about t·A/V of it. ``iou_near`` is the same within the shell, and does
  not.
- ``sign_f1_near`` is the mean of the F1 of inside and of outside within the shell; the F1 of inside alone would be
  2·iou/(1 + iou), and say nothing new.
- ``volume_error`` is relative and signed: +0.01 is 1 % too much.

A value that cannot be had is None, and ``reason`` of the mesh, or ``assumed`` of the reference, says why.
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
from enerf.tasks.shape import eval_points, surface_distance
from enerf.tasks.shape.eval_points import Reference, Settings

Inside = Callable[[Tensor], Tensor]  # points (n, 3) float32 -> bool (n)

_OF_SOLID = ("iou", "iou_near", "sign_f1_near", "volume", "volume_file", "volume_error")
_OF_SURFACE = (
    *(f"{name}{unit}" for name in ("chamfer_l1", "accuracy", "completeness", "hausdorff")
      for unit in ("", "_percent", "_file")),
    "chamfer_l2", "chamfer_l2_file", "normal_consistency", "normal_consistency_signed",
)  # fmt: skip
_OF_FACES = (
    *("vertices", "faces", "watertight", "boundary_edges", "euler_number", "parts"),
    *("volume_by_faces", "volume_error_by_faces"),
)


def of_field(inside: Inside, reference: Reference, *, quick: bool = False) -> dict[str, Any]:
    """Figures of a field, flat.

    Parameters
    ----------
    inside
        Says which of up to ``heldout.AT_ONCE`` points are inside: occupancy logits above 0, signed distances below 0.
        It may ask its field for fewer at once, and answer on any device.
    reference
        What is true.
    quick
        Ask about 1/``thin``³ of the points (33,000 instead of 2.1 million, and as many of the shell), for curves.

    Raises
    ------
    ValueError
        If the answer is of another shape, or not of truth values.
    """
    settings, near = reference.settings, reference.near
    if quick:
        chosen, n = reference.quick_index, settings.quick_points
        parts = [_asked(inside, p) for p in eval_points.grid_points(chosen, settings.grid).split(eval_points.AT_ONCE)]
        truth, near = reference.grid_labels[chosen], eval_points.Labelled(near.points[:n], near.inside[:n])
    else:
        parts = [_asked(inside, part) for part in eval_points.grid(settings.grid)]
        truth = reference.grid_labels
    found = torch.cat(parts)
    found_near = torch.cat([_asked(inside, part) for part in near.points.split(eval_points.AT_ONCE)])
    volume, true = (eval_points.VOLUME * float(each.double().mean()) for each in (found, truth))
    return {
        "iou": iou(found, truth),
        "iou_near": iou(found_near, near.inside),
        "sign_f1_near": sign_f1(found_near, near.inside),
        "volume": volume,
        "volume_file": volume / reference.solid.mesh.normalization.scale**3,
        "volume_error": volume / true - 1 if true else None,
    }


def of_mesh(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], reference: Reference) -> dict[str, Any]:
    """Figures of an extracted mesh, flat: those of a field by its winding number, those of its surface, what it is.

    Vertices are in the box; the mesh is taken as it is, nothing is mended. ``volume_error_by_faces`` is that of the
    volume which the faces enclose, where both meshes are watertight: free of the grid's error, but what parts that
    overlap share counts twice.
    """
    places, triangles = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int64)
    scores = (f"fscore_{percent:g}" for percent in reference.settings.thresholds)
    found: dict[str, Any] = dict.fromkeys((*_OF_SOLID, *_OF_SURFACE, *scores, *_OF_FACES))
    found["reason"] = _unusable(places, triangles)
    if np.isfinite(places).all():
        mesh = surface_distance.as_it_is(places, triangles)
        found |= _what_it_is(mesh, reference)
    if found["reason"] is None:
        found |= _apart(mesh, reference)
        try:
            found |= of_field(Solid(mesh).occupancy, reference)
        except InputError:
            found["reason"] = "the extracted mesh is flat, looks inwards or encloses no volume"
    return found


def describe(
    reference: Reference,
    field: Inside | None = None,
    mesh: tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]] | None = None,
) -> dict[str, Any]:
    """All of a shape run for ``metrics.json``: ``field``, ``mesh``, ``reference`` and ``protocol``, flat each."""
    found: dict[str, Any] = {"reference": reference.describe(), "protocol": protocol(reference.settings)}
    if field is not None:
        found["field"] = of_field(field, reference)
    if mesh is not None:
        found["mesh"] = of_mesh(*mesh, reference)
    return found


def protocol(settings: Settings) -> dict[str, Any]:
    """How all figures are measured, flat."""
    return {
        **settings.protocol(),
        "box_side": eval_points.SIDE,
        "surface_points": settings.surface_points,
        "surface_distances": "from points drawn by area to the other surface's triangles",
        "chamfer_l1": "(accuracy + completeness) / 2, mean distances",
        "chamfer_l2": "half the sum of the mean squared distances",
        "hausdorff": "greatest distance from a drawn point, either way",
        "fscore_thresholds_percent_of_side": list(settings.thresholds),
        "volume_error": "relative and signed",
    }


def iou(found: Bool[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float | None:
    """Intersection over union of what is true; None where neither has anything.

    >>> iou(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    0.5
    """
    union = int((found | truth).sum())
    return int((found & truth).sum()) / union if union else None


def sign_f1(found: Bool[Tensor, " n"], truth: Bool[Tensor, " n"]) -> float | None:
    """Mean of the F1 of true and of false; None where either has nothing.

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
def _asked(inside: Inside, some: Float[Tensor, "n 3"]) -> Bool[Tensor, " n"]:
    """What a field says about points."""
    answer = inside(some)
    if answer.shape != some.shape[:1] or answer.dtype != torch.bool:
        raise ValueError(f"inside or not was asked of {len(some)} points, found {answer.dtype} {tuple(answer.shape)}")
    return answer.cpu()


def _unusable(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> str | None:
    """Why a mesh has no surface, if it has none."""
    if not len(faces):
        return "the extracted mesh is empty"
    if not np.isfinite(vertices).all():
        return "the extracted mesh has vertices that are not finite"
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return None if float(np.abs(np.cross(b - a, c - a)).sum()) > 0 else "the extracted mesh has no area"


def _what_it_is(mesh: Mesh, reference: Reference) -> dict[str, Any]:
    """Counts of an extracted mesh, and its volume by its faces."""
    about, true, scale = mesh.report, reference.solid.mesh.report, reference.solid.mesh.normalization.scale
    both = about.watertight and true.watertight and about.faces > 0
    counts = (about.vertices, about.faces, about.watertight and about.faces > 0)
    more = (about.boundary_edges, about.euler_number, about.parts, about.volume)
    error = about.volume / (true.volume * scale**3) - 1 if both and true.volume else None
    return dict(zip(_OF_FACES, (*counts, *more, error), strict=True))


def _apart(mesh: Mesh, reference: Reference) -> dict[str, float]:
    """How far an extracted mesh and the reference lie apart."""
    settings, true = reference.settings, reference.solid.mesh
    there = surface_distance.apart(mesh, true, settings.surface_points, settings.generator("other"))
    back = surface_distance.apart(true, mesh, settings.surface_points, settings.generator("surface"))
    return surface_distance.between(there, back, settings.thresholds, eval_points.SIDE, true.normalization.scale)
