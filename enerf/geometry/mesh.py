"""Meshes in a box, with a report of what they are and the way back to the file's coordinates.

Words of this file:

- The *box* is [−1, 1]³. A mesh is moved and scaled, all axes alike, so that its bounding box is centred there and
  its longest side is 2 · (1 − margin) long. All sampling, fitting and marching happens in the box.
- *File coordinates* are those the file has; ``Normalisation`` goes there and back.
- *Seams* are vertices that a file lists more than once for one place, because their texture coordinates differ.

All arithmetic is float64, and the centre is subtracted first, so that a small thing far from the origin keeps its form.
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
from enerf.geometry import read, topology

log = logging.getLogger("enerf")

MARGIN = 0.1
MERGE = 1e-8  # vertices this near each other, in the box, are one
_SMALLEST, _LARGEST = 1e-100, 1e100  # longest sides whose square and cube are numbers still


@dataclass(frozen=True)
class Normalisation:
    """The similarity between file coordinates and the box: ``box = (file − centre) · scale``."""

    centre: tuple[float, float, float]
    scale: float

    def to_box(self, points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Points of the file, in the box.

        >>> Normalisation((10.0, 0.0, 0.0), 0.5).to_box(np.array([12.0, 1.0, 0.0]))
        array([1. , 0.5, 0. ])
        """
        return (points - np.array(self.centre)) * self.scale

    def to_file(self, points: Float64[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 3"]:
        """Points of the box, in the file's coordinates; distances there are those of the box / ``scale``."""
        return points / self.scale + np.array(self.centre)


@dataclass(frozen=True)
class Report:
    """What a mesh is, after it was mended; lengths, areas and volumes are the file's.

    Attributes
    ----------
    vertices, faces
        How many there are.
    watertight
        Whether every edge has two faces, and they agree on what is out.
    boundary_edges, non_manifold_edges, inconsistent_edges
        Edges with one face, with more than two, and with two that disagree on what is out.
    parts, open_parts
        How many pieces hang together, and how many of those have boundary edges.
    euler_number
        Vertices − edges + faces: 2 for each ball, 0 for each ring.
    area, volume
        Of the surface, and of what it encloses with its holes capped.
    notes
        What was mended and what is assumed, a sentence each.
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
    """Triangles in the box, wound to look outwards.

    Attributes
    ----------
    vertices, faces
        Places in the box, and three of them for each triangle, counter-clockwise as seen from outside.
    name
        The file's name without its suffix.
    source
        The file, for messages.
    normalisation
        The way back to the file's coordinates.
    report
        What was found.
    """

    vertices: Float64[np.ndarray, "v 3"]
    faces: Int64[np.ndarray, "f 3"]
    name: str
    source: str
    normalisation: Normalisation
    report: Report

    @cached_property
    def triangles(self) -> Float64[np.ndarray, "f 3 3"]:
        """The corners of each face."""
        return self.vertices[self.faces]

    @cached_property
    def areas(self) -> Float64[np.ndarray, " f"]:
        """The area of each face, in the box."""
        return topology.areas(self.vertices, self.faces)

    @cached_property
    def normals(self) -> Float64[np.ndarray, "f 3"]:
        """The unit vector out of each face; 0 for a face without area."""
        a, b, c = self.triangles.transpose(1, 0, 2)
        across = np.cross(b - a, c - a)
        return across / np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), 1e-300)


@dataclass(frozen=True)
class PointCloud:
    """Points in the box with unit normals that look outwards; the other fields are those of ``Mesh``."""

    points: Float64[np.ndarray, "n 3"]
    normals: Float64[np.ndarray, "n 3"]
    name: str
    source: str
    normalisation: Normalisation


def load(path: str | os.PathLike[str], margin: float | int = MARGIN) -> Mesh:
    """Mesh of a file that trimesh reads (OBJ, PLY, STL, OFF, GLB, glTF), in the box; its report is logged.

    Several meshes are put together as their scene has them.

    Raises
    ------
    InputError
        If the file is missing, damaged, of another kind, holds no triangles or points alone, or its faces have no
        extent or name vertices that are not there.
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
    """Mesh of vertices and faces in file coordinates: mended, turned to look outwards, in the box.

    Raises
    ------
    InputError
        If no face with an extent is left, or the coordinates are too small or too large to be squared.
    """
    vertices, faces, notes = _finite(vertices, faces, source)
    normalisation = normalise(vertices[np.unique(faces)], source, margin)
    vertices, faces, mended = _mend(normalisation.to_box(vertices), faces)
    if not len(faces):
        raise InputError(f"{source}: its faces have no area or cancel each other, expected a surface.")
    faces, turned = topology.outwards(vertices, faces)
    report = _report(vertices, faces, normalisation.scale, notes + mended + turned)
    return Mesh(vertices, faces, Path(source).stem, source, normalisation, report)


def load_point_cloud(path: str | os.PathLike[str], margin: float | int = MARGIN) -> PointCloud:
    """Points of a PLY file in the box, with the unit normals (nx ny nz) it has.

    Points or normals that are not finite, and normals of length 0, are left out with a warning.

    Raises
    ------
    InputError
        If the file is missing, damaged, has no normals, or no points of different places.
    """
    path = Path(path)
    points, normals = read.oriented_points(path)
    with np.errstate(over="ignore"):
        length = np.linalg.norm(normals, axis=1)
    good = np.isfinite(points).all(axis=1) & np.isfinite(length) & (length > 0)
    if not good.any():
        raise InputError(f"{path}: none of its {len(points)} points has a place and a normal that are finite.")
    if not good.all():
        log.warning("%s: %d points without a finite place and normal were left out", path, (~good).sum())
    normalisation = normalise(points[good], path.as_posix(), margin)
    return PointCloud(
        points=normalisation.to_box(points[good]),
        normals=normals[good] / length[good][:, None],
        name=path.stem,
        source=path.as_posix(),
        normalisation=normalisation,
    )


def normalise(points: Float64[np.ndarray, "n 3"], source: str, margin: float | int = MARGIN) -> Normalisation:
    """The normalisation that centres points in the box and leaves ``margin`` of it free on the longest axis.

    Raises
    ------
    InputError
        If all points are one, or so near or far that float64 cannot hold their squares.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    longest = float((high / 2 - low / 2).max()) * 2  # halves, because the whole could overflow
    if not _SMALLEST < longest < _LARGEST:
        raise InputError(f"{source}: its longest side is {longest:g}, expected between {_SMALLEST:g} and {_LARGEST:g}.")
    x, y, z = (float(value) for value in low + (high - low) / 2)
    return Normalisation((x, y, z), 2 * (1 - margin) / longest)


def _finite(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], source: str
) -> tuple[Float64[np.ndarray, "v 3"], Int64[np.ndarray, "f2 3"], list[str]]:
    """Faces whose vertices are finite; the others' places become 0, which no face uses."""
    bad = ~np.isfinite(vertices).all(axis=1)
    kept = faces[~bad[faces].any(axis=1)]
    if not len(kept):
        found = (
            "has no faces" if not len(faces) else f"has vertices that are not finite in all of its {len(faces)} faces"
        )
        raise InputError(f"{source} {found}, expected a triangle mesh with finite vertices.")
    dropped = len(faces) - len(kept)
    said = [f"{dropped} faces with vertices that are not finite were dropped"] if dropped else []
    return np.where(bad[:, None], 0.0, vertices), kept, said


def _mend(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"]
) -> tuple[Float64[np.ndarray, "w 3"], Int64[np.ndarray, "g 3"], list[str]]:
    """Vertices merged and those no face uses dropped; faces without area, copies and walls between parts dropped."""
    said: list[str] = []
    vertices, _, index = igl.remove_duplicate_vertices(np.ascontiguousarray(vertices), MERGE)
    faces = index.astype(np.int64)[faces]  # libigl's are "long long", which jaxtyping takes for another kind
    a, b, c = faces.T
    whole = faces[(a != b) & (b != c) & (c != a)]
    with_area = whole[topology.areas(vertices, whole) > 0] if len(whole) else whole
    if len(with_area) < len(whole) and topology.edges(with_area).boundary.sum() > topology.edges(whole).boundary.sum():
        with_area = whole  # slivers that hold a seam together may stay: they change neither side nor distance
    if len(with_area) < len(faces):
        said.append(f"{len(faces) - len(with_area)} faces without area were dropped")
    faces, repeats = topology.without_repeats(with_area)
    if repeats:
        said.append(f"{repeats} faces that lie on another were dropped")
    used, index = np.unique(faces, return_inverse=True)
    return np.ascontiguousarray(vertices[used]), np.ascontiguousarray(index.reshape(-1, 3)), said


def _report(
    vertices: Float64[np.ndarray, "v 3"], faces: Int64[np.ndarray, "f 3"], scale: float, notes: Sequence[str]
) -> Report:
    """What a mesh is, and what is assumed about it."""
    found, (n, part) = topology.edges(faces), topology.parts(faces)
    boundary, inconsistent = int(found.boundary.sum()), found.inconsistent
    opened = len(np.unique(part[np.flatnonzero(found.boundary) // 3]))
    volume, area = topology.volumes(vertices, faces, part, n)
    assumed = list(notes)
    if boundary:
        assumed.append(
            f"{opened} of {n} parts are open ({boundary} boundary edges): what has a generalised winding number above "
            "1/2 is taken to be inside, as if a film were spanned over each hole"
        )
    if found.non_manifold:
        assumed.append(f"{found.non_manifold} edges have more than two faces, which does not hinder inside and outside")
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
        notes=tuple(assumed),
    )
