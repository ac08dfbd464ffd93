"""Two surfaces, how far they lie apart and how their normals agree: distances both ways between sampled points.

Words of this file:

- Points are drawn uniformly by area from each surface. From each of them the distance goes to the nearest place of the
  other surface's *triangles*, not to the nearest of points drawn from it: that would not fall below the distance
  between such points (0.003 in the box, for 100,000 on a shape of usual size), however near the surfaces are.
- *Accuracy* is the mean distance from the extracted surface to the reference, *completeness* that from the reference to
  the extracted one. Chamfer L1 is half their sum, Chamfer L2 half the sum of the mean squares.
- *Precision* and *recall* are the shares of those points within a threshold; the F-score is their harmonic mean.
- The Hausdorff distance is the greatest of all distances found: a lower bound of the true one, which a spike that no
  point was drawn from escapes.
- *Normal consistency* is the cosine between the normal at a point and that of the nearest face, the mean over points of
  both surfaces; unsigned as usual, and signed, which tells a surface that looks inwards.

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
class Apart:
    """From points of one surface to the nearest places of another: distances, and cosines between the normals."""

    distances: Float64[np.ndarray, " n"]
    cosines: Float64[np.ndarray, " n"]


def as_it_is(vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], name: str = "extracted") -> Mesh:
    """Mesh of vertices and faces of the box, neither moved nor mended nor turned; its units are the box's."""
    edges, (n, part) = topology.edges(faces), topology.parts(faces)
    boundary = int(edges.boundary.sum())
    volume = topology.volumes(vertices, faces, part, n)[0] if n else np.zeros(0)
    about = Report(
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
    return Mesh(vertices, faces, name, name, Normalization((0.0, 0.0, 0.0), 1.0), about)


def apart(surface: Mesh, other: Mesh, n: int, generator: Generator) -> Apart:
    """From ``n`` points drawn by area from a surface to another, both of some area."""
    places, faces = samples.on_surface(surface, n, generator)
    order = solid.morton_order(places)
    places, faces = np.ascontiguousarray(places[order]), faces[order]
    with_area = np.flatnonzero(other.areas > 0)  # others have no normal, and lie on the edges of their neighbours
    triangles = np.ascontiguousarray(other.faces[with_area])
    squares, nearest, _ = igl.point_mesh_squared_distance(places, other.vertices, triangles)
    cosines = np.einsum("nd,nd->n", surface.normals[faces], other.normals[with_area[nearest]])
    return Apart(np.sqrt(squares), cosines.clip(-1, 1))


def between(
    accuracy: Apart, completeness: Apart, thresholds: tuple[float | int, ...], side: float | int, scale: float | int
) -> dict[str, float]:
    """Figures of two surfaces, flat: plain names in the box's units, ``_percent`` of its side, ``_file`` in the file's.

    Parameters
    ----------
    accuracy, completeness
        From the extracted surface to the reference, and back.
    thresholds
        Of F-scores, in percent of the side.
    side
        Of the box.
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
    for percent in thresholds:
        found[f"fscore_{percent:g}"] = f_score(there, back, percent / 100 * side)
    return found


def f_score(there: Float64[np.ndarray, " n"], back: Float64[np.ndarray, " m"], threshold: float | int) -> float:
    """Harmonic mean of the shares of distances below a threshold.

    >>> f_score(np.array([0.0, 2.0]), np.array([0.0, 0.0]), 1.0)
    0.6666666666666666
    """
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
