"""Textures of meshes: charts by xatlas, colors of texels by a function of surface points.

Source: xatlas (Young), which descends from thekla_atlas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8
from scipy import ndimage

from enerf.core import files, images
from enerf.core.errors import InputError
from enerf.geometry.preview import raycast

MOST_FACES = 30_000  # of a mesh that is decimated before it gets a texture: xatlas takes seconds for as many
PADDING = 2  # texels between charts
SMALLEST = 16  # texels along a side
_CHUNK = 1 << 20  # texels of bounding boxes that are tested at a time
_BYTES = 24  # of memory per texel, for the image, its mask, and the place of the nearest texel of a chart

# points and unit normals (n, 3) -> colors in [0, 1] (n, 3)
ColorFunction = Callable[[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]], Float64[np.ndarray, "n 3"]]


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with a texture.

    Attributes
    ----------
    vertices, faces
        Vertices on the borders of charts are listed once for each chart; faces are in the order of the given ones.
    normals
        Unit normals of the vertices, smooth over the borders of charts.
    uv
        Positions in the texture, from the bottom left of the image (0, 0) to the top right (1, 1).
    image
        sRGB, rows from the top.
    """

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int64[np.ndarray, "m 3"]
    normals: Float64[np.ndarray, "n 3"]
    uv: Float64[np.ndarray, "n 2"]
    image: UInt8[np.ndarray, "h w 3"]

    def colors_at(
        self, face: Int64[np.ndarray, " n"], weights: Float64[np.ndarray, "n 3"]
    ) -> Float64[np.ndarray, "n 3"]:
        """Colors in [0, 1] at points of faces, of the nearest texels; ``weights`` are barycentric."""
        height, width = self.image.shape[:2]
        uv = (weights[:, :, None] * self.uv[self.faces[face]]).sum(1)
        column = np.clip((uv[:, 0] * width).astype(np.int64), 0, width - 1)
        row = np.clip(((1 - uv[:, 1]) * height).astype(np.int64), 0, height - 1)
        return np.asarray(self.image[row, column] / 255)


def check(size: int) -> None:
    """Check that a texture of ``size`` × ``size`` texels can be made.

    Raises
    ------
    InputError
        If xatlas is missing, the texture has no room for charts, or memory is too small.
    """
    if size < SMALLEST:
        raise InputError(f"option --texture: found {size}, expected 0 or at least {SMALLEST} texels")
    _xatlas()
    files.require_memory(_BYTES * size * size, f"option --texture: {size} x {size} texels")


def textured(
    vertices: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"], colors: ColorFunction, size: int
) -> TexturedMesh:
    """Return a mesh with a texture of ``size`` × ``size`` texels, colored by a function of points and their normals.

    Texels outside of all charts have the color of the nearest one inside.

    Raises
    ------
    InputError
        If xatlas is missing.
    """
    number, corners, uv = unwrapped(vertices, faces, size)
    normals = raycast.vertex_normals(vertices, faces)[number]
    image, covered = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), bool)
    at = vertices[number]
    for row, column, face, weights in texels(corners, uv, size):
        shares, ends = weights[:, :, None], corners[face]
        points, across = (shares * at[ends]).sum(1), (shares * normals[ends]).sum(1)
        across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-300)
        image[row, column] = images.to_uint8(colors(points, across))
        covered[row, column] = True
    if covered.any() and not covered.all():
        nearest = ndimage.distance_transform_edt(~covered, return_distances=False, return_indices=True)
        image = image[tuple(nearest)]
    normals[~normals.any(1)] = [0.0, 0.0, 1.0]  # of faces without area
    return TexturedMesh(at, corners, normals, uv, image)


def unwrapped(
    vertices: Float64[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"], size: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, "m 3"], Float64[np.ndarray, "k 2"]]:
    """Return for each vertex of an atlas the vertex of the mesh, the faces, and positions in a texture, in [0, 1].

    Charts are ``PADDING`` texels apart in a texture of ``size`` × ``size`` texels.

    Raises
    ------
    InputError
        If xatlas is missing.
    """
    xatlas = _xatlas()
    center, extent = vertices.mean(0), max(float(np.ptp(vertices, axis=0).max()), 1e-300)
    atlas = xatlas.Atlas()
    atlas.add_mesh(((vertices - center) / extent).astype(np.float32), faces.astype(np.uint32))
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    charts.max_iterations = 1
    packing.resolution, packing.padding, packing.bilinear = size, PADDING, True
    atlas.generate(charts, packing)
    number, corners, uv = atlas.get_mesh(0)
    return number.astype(np.int64), corners.astype(np.int64), uv.astype(np.float64)


def texels(
    faces: Int64[np.ndarray, "m 3"], uv: Float64[np.ndarray, "n 2"], size: int
) -> Iterator[
    tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Float[np.ndarray, "k 3"]]
]:
    """Yield, in chunks, row, column, face and barycentric weights of the texels whose centers lie in faces."""
    at = np.stack([uv[:, 0] * size, (1 - uv[:, 1]) * size], 1)[faces]  # column and row of each corner
    first = np.clip(np.floor(at.min(1) - 0.5).astype(np.int64), 0, size - 1)
    spans = np.clip(np.ceil(at.max(1) - 0.5).astype(np.int64), 0, size - 1) - first + 1
    owner, down = _counted(spans[:, 1])  # faces row by row: one face may cover a large part of the texture
    ends = np.cumsum(spans[owner, 0])
    start = 0
    while start < len(owner):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, "right")))
        line, across = _counted(spans[owner[start:stop], 0])
        face = owner[start:stop][line]
        column, row = first[face, 0] + across, first[face, 1] + down[start:stop][line]
        weights = _barycentric(at[face], np.stack([column, row], 1) + 0.5)
        inside = (weights >= -1e-9).all(1)
        yield row[inside], column[inside], face[inside], weights[inside]
        start = stop


def _counted(counts: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Each index as often as its count says, and the numbers from 0 of its repetitions.

    >>> [part.tolist() for part in _counted(np.array([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(counts) - counts, counts)


def _barycentric(corners: Float64[np.ndarray, "k 3 2"], points: Float64[np.ndarray, "k 2"]) -> np.ndarray:
    """Weights of the corners of triangles at points; negative outside, NaN in triangles without area."""
    a, b, c = corners.transpose(1, 0, 2)
    ab, ac, ap = b - a, c - a, points - a
    with np.errstate(divide="ignore", invalid="ignore"):
        area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
        v = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
        w = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
        return np.stack([1 - v - w, v, w], 1)


def _xatlas() -> Any:
    """The module xatlas.

    Raises
    ------
    InputError
        If it is missing.
    """
    try:
        import xatlas
    except ImportError:
        raise InputError(
            "a mesh cannot have a texture: xatlas is missing, the extra texture brings it (`pip install "
            "'enerf[texture]'`); vertex colors work without it"
        ) from None
    return xatlas
