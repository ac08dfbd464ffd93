"""Triangle meshes and point clouds normalized to a box, with a report and the map back to file coordinates.

Terms:

- The *box* is [−1, 1]³. A mesh is translated and scaled uniformly so that its bounding box is centered there and its
  longest side is 2 · (1 − margin). All sampling, fitting and extraction uses box coordinates.
- *File coordinates* are those of the file; ``Normalization`` maps between both.

All arithmetic is float64, and the center is subtracted first, so that small shapes far from the origin keep their form.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import igl
import numpy as np
from jaxtyping import Float64, Int64

from enerf.core.errors import InputError
from enerf.geometry import cloud_normals, read, topology

log = logging.getLogger("enerf")

MARGIN = 0.1
MERGE = 1e-8  # vertices nearer than this, in the box, are merged
_SMALLEST, _LARGEST = 1e-100, 1e100  # longest sides whose square and cube neither under- nor overflow


@dataclass(frozen=True)
class Normalization:
    """The similarity between file coordinates and the box: ``box = (file − center) · scale``."""

    center: tuple[float, float, float]
    scale: float

    def to_box(self, points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """File coordinates to box coordinates.

        >>> Normalization((10.0, 0.0, 0.0), 0.5).to_box(np.array([12.0, 1.0, 0.0]))
        array([1. , 0.5, 0. ])
        """
        return (points - np.array(self.center)) * self.scale

    def to_file(self, points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Box coordinates to file coordinates; file distances are box distances / ``scale``."""
        return points / self.scale + np.array(self.center)


@dataclass(frozen=True)
class Report:
    """Properties of a mesh after repair; areas and volumes are in file units.

    Attributes
    ----------
    vertices, faces
        Their numbers.
    watertight
        Whether every edge has two consistently oriented faces.
    boundary_edges, non_manifold_edges, inconsistent_edges
        Number of edges with one face, with more than two, and with two of opposite orientation.
    parts, open_parts
        Number of connected components, and of those with boundary edges.
    euler_number
        Vertices − edges + faces: 2 for each sphere, 0 for each torus.
    area, volume
        Surface area, and enclosed volume with holes capped.
    notes
        Repairs and assumptions, one sentence each.
    """

    vertices: int
    faces: int
    watertight: bool
    boundary_edges: int
    non_manifold_edges: int
    inconsistent_edges: int
    parts: int
    open_parts: int
    euler_number: int
    area: float
    volume: float
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in the box with outward orientation.

    Attributes
    ----------
    vertices, faces
        Box coordinates, and three vertex indices per triangle, counter-clockwise seen from outside.
    name
        The file's name without its suffix.
    source
        The file, for messages.
    normalization
        The map between file and box coordinates.
    report
        Properties and repairs.
    """

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    name: str
    source: str
    normalization: Normalization
    report: Report

    @cached_property
    def triangles(self) -> Float64[np.ndarray, "f 3 3"]:
        """Corner coordinates of each face."""
        return self.vertices[self.faces]

    @cached_property
    def areas(self) -> Float64[np.ndarray, " f"]:
        """Area of each face in box units."""
        return topology.areas(self.vertices, self.faces)

    @cached_property
    def normals(self) -> Float64[np.ndarray, "f 3"]:
        """Outward unit normal of each face; 0 for a face without area."""
        a, b, c = self.triangles.transpose(1, 0, 2)
        across = np.cross(b - a, c - a)
        return across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-300)


@dataclass(frozen=True)
class PointCloud:
    """Points in the box with outward unit normals; the other fields are those of ``Mesh``."""

    points: Float64[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"]
    name: str
    source: str
    normalization: Normalization


def load(path: str | os.PathLike[str], margin: float | int = MARGIN) -> Mesh:
    """Load a mesh (OBJ, PLY, STL, OFF, GLB, glTF) into the box and log its report.

    All meshes of a scene are concatenated with the scene's transforms applied.

    Raises
    ------
    InputError
        If the file is missing, damaged or of another format, has no triangles, or its faces are degenerate or refer to
        missing vertices.
    """
    path = Path(path)
    made = from_arrays(*read.mesh(path), source=path.as_posix(), margin=margin)
    about = made.report
    log.info(
        "%s: %d vertices, %d faces, %d parts, %s", path, about.vertices, about.faces, about.parts,
        "watertight" if about.watertight else "not watertight",
    )  # fmt: skip
    for note in about.notes:
        log.warning("%s: %s", path, note)
    return made


def from_arrays(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], source: str, margin: float | int = MARGIN
) -> Mesh:
    """Build a mesh from vertices and faces in file coordinates: repaired, oriented outwards, in the box.

    Raises
    ------
    InputError
        If no face with an area is left, or the coordinates are too small or too large to be squared.
    """
    vertices, faces, notes = _finite(vertices, faces, source)
    normalization = normalize(vertices[np.unique(faces)], source, margin)
    vertices, faces, repairs = _repair(normalization.to_box(vertices), faces)
    if not len(faces):
        raise InputError(f"{source}: its faces have no area or cancel each other, expected a surface")
    faces, turned = topology.orient_outwards(vertices, faces)
    report = _report(vertices, faces, normalization.scale, notes + repairs + turned)
    return Mesh(vertices, faces, Path(source).stem, source, normalization, report)


def load_point_cloud(path: str | os.PathLike[str], margin: float | int = MARGIN) -> PointCloud:
    """Load the points and normals (nx ny nz, or normal_x normal_y normal_z) of a PLY file into the box.

    Points or normals that are not finite, and normals of length 0, are skipped with a warning; normals that point
    inwards or have inconsistent signs are turned over with a warning.

    Raises
    ------
    InputError
        If the file is missing, damaged, has no normals, all points coincide, or the normals contradict one another.
    """
    path = Path(path)
    points, normals = read.oriented_points(path)
    with np.errstate(over="ignore"):
        length = np.linalg.norm(normals, axis=1)
    good = np.isfinite(points).all(axis=1) & np.isfinite(length) & (length > 0)
    if not good.any():
        raise InputError(f"{path}: {_useless(points, length)}, expected points with normals that are not zero")
    if not good.all():
        log.warning(
            "%s: %d of %d points without a finite position and a normal were skipped", path, (~good).sum(), len(good)
        )
    normalization = normalize(points[good], path.as_posix(), margin)
    points = normalization.to_box(points[good])
    normals, notes = cloud_normals.oriented_outwards(points, normals[good] / length[good][:, None], path.as_posix())
    for note in notes:
        log.warning("%s: %s", path, note)
    return PointCloud(points, normals, name=path.stem, source=path.as_posix(), normalization=normalization)


def _useless(points: Float64[np.ndarray, "n 3"], length: Float64[np.ndarray, " n"]) -> str:
    """What is wrong with a cloud that has no point with a finite position and a normal."""
    if not len(points):
        return "it holds no points"
    if (length == 0).all():
        return f"the normals of all of its {len(points)} points are zero"
    return f"none of its {len(points)} points has a finite position and normal"


def normalize(points: Float64[np.ndarray, "n 3"], source: str, margin: float | int = MARGIN) -> Normalization:
    """The normalization that centers points in the box and leaves a share ``margin`` of its longest side free.

    Raises
    ------
    InputError
        If all points coincide, or their extent is too small or too large to be squared in float64.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high / 2 - low / 2).max()) * 2  # halved first, to avoid overflow
    if not _SMALLEST < longest < _LARGEST:
        raise InputError(f"{source}: its longest side is {longest:g}, expected between {_SMALLEST:g} and {_LARGEST:g}")
    x, y, z = (float(value) for value in low + (high - low) / 2)
    return Normalization((x, y, z), 2 * (1 - margin) / longest)


def _finite(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], source: str
) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f2 3"], list[str]]:
    """Vertices with non-finite ones set to 0, the faces that do not use those, and a note if faces were dropped."""
    bad = ~np.isfinite(vertices).all(axis=1)
    kept = faces[~bad[faces].any(axis=1)]
    if not len(kept):
        found = (
            "has no faces" if not len(faces) else f"has vertices that are not finite in all of its {len(faces)} faces"
        )
        raise InputError(f"{source} {found}, expected a triangle mesh with finite vertices")
    dropped = len(faces) - len(kept)
    notes = [f"{dropped} faces with vertices that are not finite were dropped"] if dropped else []
    return np.where(bad[:, None], 0.0, vertices), kept, notes


def _repair(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"], list[str]]:
    """Merge vertices; drop unused ones, degenerate and duplicate faces, and coincident opposite faces."""
    notes: list[str] = []
    vertices, _, index = igl.remove_duplicate_vertices(np.ascontiguousarray(vertices), MERGE)
    faces = index.astype(np.int64)[faces]  # libigl returns "long long", which jaxtyping does not accept as int64
    a, b, c = faces.T
    whole = faces[(a != b) & (b != c) & (c != a)]
    with_area = whole[topology.areas(vertices, whole) > 0] if len(whole) else whole
    if len(with_area) < len(whole) and topology.edges(with_area).boundary.sum() > topology.edges(whole).boundary.sum():
        with_area = whole  # keep slivers whose removal would open the surface; they affect neither sign nor distance
    if len(with_area) < len(faces):
        notes.append(f"{len(faces) - len(with_area)} faces without area were dropped")
    faces, repeats = topology.without_repeats(with_area)
    if repeats:
        notes.append(f"{repeats} duplicate or coincident opposite faces were dropped")
    used, index = np.unique(faces, return_inverse=True)
    return np.ascontiguousarray(vertices[used]), np.ascontiguousarray(index.reshape(-1, 3)), notes


def _report(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], scale: float, notes: Sequence[str]
) -> Report:
    """Properties of a mesh, and notes on what is assumed."""
    found, (n, part) = topology.edges(faces), topology.parts(faces)
    boundary, inconsistent = int(found.boundary.sum()), found.inconsistent
    opened = len(np.unique(part[np.flatnonzero(found.boundary) // 3]))
    volume, area = topology.volumes(vertices, faces, part, n)
    remarks = list(notes)
    if boundary:
        remarks.append(
            f"{opened} of {n} parts are open ({boundary} boundary edges): points with a generalized winding number "
            "above 1/2 count as inside, as if each hole were closed by a surface"
        )
    if found.non_manifold:
        remarks.append(f"{found.non_manifold} edges have more than two faces, which does not affect inside and outside")
    return Report(
        vertices=len(vertices),
        faces=len(faces),
        watertight=not (boundary or inconsistent or found.non_manifold),
        boundary_edges=boundary,
        non_manifold_edges=found.non_manifold,
        inconsistent_edges=inconsistent,
        parts=n,
        open_parts=opened,
        euler_number=len(vertices) - found.count + len(faces),
        area=float(area.sum() / scale**2),
        volume=float(volume.sum() / scale**3),
        notes=tuple(remarks),
    )
