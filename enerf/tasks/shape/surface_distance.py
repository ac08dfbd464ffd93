"""Distances between two surfaces and agreement of their normals: Chamfer, Hausdorff, F-score, normal consistency.

- Points are sampled uniformly by area from each surface. Distances are to the nearest point on the *triangles* of the
  other surface, not to its sampled points: those distances would not fall below the spacing of the samples (0.003 in
  the box, for 100,000 points on a shape of usual size), however close the surfaces are.
- *Accuracy* is the mean distance from the extracted surface to the reference, *completeness* that from the reference to
  the extracted one. Chamfer L1 is half their sum, Chamfer L2 half the sum of the mean squares.
- *Precision* and *recall* are the shares of those points within a threshold; the F-score is their harmonic mean.
- The Hausdorff distance is the maximum over all sampled points: a lower bound, which can miss thin spikes.
- *Normal consistency* is the mean, over points of both surfaces, of the cosine between the normal at a point and that
  of the nearest face; unsigned as usual, and signed, which detects inverted orientation. *Normal error* is the mean
  of the angle that belongs to the unsigned cosine.

Sources: Mescheder, Oechsle, Niemeyer, Nowozin, Geiger, Occupancy networks (2019), section 4; Tatarchenko et al., What
do single-view 3D reconstruction networks learn? (2019), section 5.1, for the F-score.
"""

from dataclasses import dataclass

import igl
import numpy as np
from jaxtyping import Float64, Int64
from torch import Generator

from enerf.geometry import samples, solid, topology
from enerf.geometry.mesh import Mesh, Normalization, Report

Rows = Float64[np.ndarray, "n 3"]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from points of a surface to another surface; cosines and sines of the angles between the normals."""

    distances: Float64[np.ndarray, " n"]
    cosines: Float64[np.ndarray, " n"]
    sines: Float64[np.ndarray, " n"]


def mesh_from_arrays(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], name: str = "extracted"
) -> Mesh:
    """Make a mesh from vertices in box units, without normalizing, repairing or reorienting it."""
    edges, (n, part) = topology.edges(faces), topology.parts(faces)
    boundary = int(edges.boundary.sum())
    volume = topology.volumes(vertices, faces, part, n)[0] if n else np.zeros(0)
    report = Report(
        vertices=len(vertices),
        faces=len(faces),
        watertight=not (boundary or edges.inconsistent or edges.non_manifold),
        boundary_edges=boundary,
        non_manifold_edges=edges.non_manifold,
        inconsistent_edges=edges.inconsistent,
        parts=n,
        open_parts=len(np.unique(part[np.flatnonzero(edges.boundary) // 3])),
        euler_number=len(np.unique(faces)) - edges.count + len(faces),
        area=float(topology.areas(vertices, faces).sum()),
        volume=float(volume.sum()),
        notes=(),
    )
    return Mesh(vertices, faces, name, name, Normalization((0.0, 0.0, 0.0), 1.0), report)


def distances_to(surface: Mesh, other: Mesh, n: int, generator: Generator) -> SurfaceDistances:
    """Return distances from ``n`` points, sampled by area on a surface, to another; both have a positive area."""
    points, faces = samples.on_surface(surface, n, generator)
    order = solid.morton_order(points)
    points, faces = np.ascontiguousarray(points[order]), faces[order]
    with_area = np.flatnonzero(other.areas > 0)  # degenerate faces have no normal and are covered by their neighbors
    triangles = np.ascontiguousarray(other.faces[with_area])
    squares, nearest, _ = igl.point_mesh_squared_distance(points, other.vertices, triangles)
    here, there = surface.normals[faces], other.normals[with_area[nearest]]
    sines = np.linalg.norm(np.cross(here, there), axis=1)  # exact for small angles, where cosines are not
    return SurfaceDistances(np.sqrt(squares), np.einsum("nd,nd->n", here, there).clip(-1, 1), sines)


def surface_metrics(
    accuracy: SurfaceDistances,
    completeness: SurfaceDistances,
    thresholds: tuple[float | int, ...],
    side: float | int,
    scale: float | int,
) -> dict[str, float]:
    """Return metrics of two surfaces as a flat dictionary.

    Plain names are in box units, ``_percent`` in percent of the box's side, ``_file`` in the file's units.

    Parameters
    ----------
    accuracy, completeness
        Distances from the extracted surface to the reference, and from the reference to it.
    thresholds
        Distance thresholds of F-scores, in percent of the side.
    side
        Side of the box.
    scale
        Box units per unit of the file.
    """
    there, back = accuracy.distances, completeness.distances
    lengths = {
        "chamfer_l1": float(there.mean() + back.mean()) / 2,
        "accuracy": float(there.mean()),
        "completeness": float(back.mean()),
        "hausdorff": float(max(there.max(), back.max())),
    }
    found: dict[str, float] = {}
    for name, value in lengths.items():
        found |= {name: value, f"{name}_percent": 100 * value / side, f"{name}_file": value / scale}
    square = float((there**2).mean() + (back**2).mean()) / 2
    found |= {"chamfer_l2": square, "chamfer_l2_file": square / scale**2}
    cosines = (accuracy.cosines, completeness.cosines)
    found["normal_consistency"] = float(sum(np.abs(c).mean() for c in cosines)) / 2
    found["normal_consistency_signed"] = float(sum(c.mean() for c in cosines)) / 2
    angles = [np.degrees(np.arctan2(each.sines, np.abs(each.cosines))).mean() for each in (accuracy, completeness)]
    found["normal_error_degrees"] = float(sum(angles)) / 2
    for percent in thresholds:
        found[f"fscore_{percent:g}"] = f_score(there, back, percent / 100 * side)
    return found


def f_score(there: Float64[np.ndarray, " n"], back: Float64[np.ndarray, " m"], threshold: float | int) -> float:
    """Harmonic mean of precision and recall: the fractions of distances below a threshold.

    >>> f_score(np.array([0.0, 2.0]), np.array([0.0, 0.0]), 1.0)
    0.6666666666666666
    """
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
