"""Textures of meshes: charts by xatlas, colors of texels by a function of surface points.

Source: xatlas (Young), which descends from thekla_atlas.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8
from scipy import ndimage

from enerf.core import images
from enerf.core.errors import InputError
from enerf.geometry.preview import raycast

MOST_FACES = 30_000  # of a mesh that is decimated before it gets a texture: xatlas takes seconds for as many
PADDING = 2  # texels between charts
_CHUNK = 1 << 20  # texels of bounding boxes that are tested at a time

# points and unit normals (n, 3) -> colors in [0, 1] (n, 3)
ColorFunction = Callable[[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]], Float64[np.ndarray, "n 3"]]


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh with a texture.

    Attributes
    ----------
    vertices, faces
        Vertices on the borders of charts are listed once for each chart.
    uv
        Positions in the texture, from the bottom left of the image (0, 0) to the top right (1, 1).
    image
        sRGB, rows from the top.
    """

    vertices: Float64[np.ndarray, "n 3"]
    faces: Int64[np.ndarray, "m 3"]
    uv: Float64[np.ndarray, "n 2"]
    image: UInt8[np.ndarray, "h w 3"]


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
    return TexturedMesh(at, corners, uv, image)


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
    try:
        import xatlas
    except ImportError:
        raise InputError(
            "a mesh cannot have a texture: xatlas is missing, the extra texture brings it (`pip install "
            "'enerf[texture]'`); vertex colors work without it"
        ) from None
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
    counts = spans.prod(1)
    start = 0
    while start < len(faces):
        stop = max(start + 1, int(np.searchsorted(np.cumsum(counts[start:]), _CHUNK)) + start)
        face = np.repeat(np.arange(start, stop), counts[start:stop])
        index = np.arange(len(face)) - np.repeat(np.cumsum(counts[start:stop]) - counts[start:stop], counts[start:stop])
        column, row = first[face, 0] + index % spans[face, 0], first[face, 1] + index // spans[face, 0]
        weights = _barycentric(at[face], np.stack([column, row], 1) + 0.5)
        inside = (weights >= -1e-9).all(1)
        yield row[inside], column[inside], face[inside], weights[inside]
        start = stop


def _barycentric(corners: Float64[np.ndarray, "k 3 2"], points: Float64[np.ndarray, "k 2"]) -> np.ndarray:
    """Weights of the corners of triangles at points; negative outside, NaN in triangles without area."""
    a, b, c = corners.transpose(1, 0, 2)
    ab, ac, ap = b - a, c - a, points - a
    with np.errstate(divide="ignore", invalid="ignore"):
        area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
        v = (ap[:, 0] * ac[:, 1] - ap[:, 1] * ac[:, 0]) / area
        w = (ab[:, 0] * ap[:, 1] - ab[:, 1] * ap[:, 0]) / area
        return np.stack([1 - v - w, v, w], 1)
