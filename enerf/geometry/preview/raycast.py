"""Shaded pictures of a mesh on the CPU by ray casting with Intel's Embree, a few hundred ns per ray."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from enerf.core.errors import InputError
from enerf.geometry.preview import cameras, shading
from enerf.geometry.preview.cameras import View

# faces (n,) and barycentric weights (n, 3) -> colors in [0, 1] (n, 3)
FaceColors = Callable[[Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]], Float[np.ndarray, "n 3"]]


class MeshScene:
    """A mesh to be rendered; its acceleration structure is built once, in coordinates relative to its center.

    Parameters
    ----------
    vertices, faces
        The mesh.
    colors
        Vertex colors in [0, 1], or colors at points of faces, as of a texture.
    flat
        Flat shading per face instead of smooth shading.

    Raises
    ------
    InputError
        If embreex is missing, or the mesh has no faces.
    """

    def __init__(
        self,
        vertices: Float[np.ndarray, "n 3"],
        faces: Int[np.ndarray, "m 3"],
        colors: Float[np.ndarray, "n 3"] | FaceColors | None = None,
        *,
        flat: bool = False,
    ) -> None:
        if not len(faces):
            raise InputError("a mesh to be shown has no faces, expected at least one")
        used = vertices[np.unique(faces)]
        self.low, self.high = used.min(0).astype(np.float64), used.max(0).astype(np.float64)
        self.center, self.size = (self.low + self.high) / 2, max(float(np.ptp(used, axis=0).max()), 1e-300)
        self.faces, self.colors = faces, colors
        at = (vertices - self.center) / self.size
        self._face_normals = _cross(at, faces)
        self._normals = None if flat else vertex_normals(at, faces)
        self._scene = _embree(at[faces].astype(np.float32))

    def hits(
        self, origins: Float[np.ndarray, "n 3"], directions: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, "n 3"]]:
        """First hits along unit directions: distance (infinite if none), face (−1 if none), barycentric weights."""
        local = ((origins - self.center) / self.size).astype(np.float32)
        found = self._scene.run(local, directions.astype(np.float32), output=True)
        u, v = found["u"].astype(np.float64), found["v"].astype(np.float64)
        face = found["primID"].astype(np.int64)
        distance = np.where(face >= 0, found["tfar"].astype(np.float64) * self.size, np.inf)
        return distance, face, np.stack([1 - u - v, u, v], -1)

    def picture(self, view: View | None = None, supersample: int = 2) -> Float[np.ndarray, "h w 3"]:
        """A picture in [0, 1] with ``supersample``² rays per pixel; by default a view of the whole mesh."""
        view = view or cameras.around(self.low, self.high)
        origins, directions = (rays.numpy().reshape(-1, 3) for rays in view.rays(supersample))
        _, face, weights = self.hits(origins, directions)
        hit = face >= 0
        normals, colors = self._attributes(face, weights, hit)
        pixels = shading.shade(normals, directions, hit, view, colors)
        height, width = view.height * supersample, view.width * supersample
        return shading.downsampled(pixels.reshape(height, width, 3), supersample)

    def _attributes(
        self, face: Int[np.ndarray, " n"], weights: Float[np.ndarray, "n 3"], hit: Bool[np.ndarray, " n"]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Unit normals and colors at the hits."""
        normals = np.zeros((len(face), 3))
        if self._normals is None:
            normals[hit] = self._face_normals[face[hit]]
        else:
            normals[hit] = _interpolated(self._normals, self.faces[face[hit]], weights[hit])
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        normals = normals / np.where(lengths > 0, lengths, 1)
        if self.colors is None:
            return normals, None
        colors = np.ones((len(face), 3))
        if callable(self.colors):
            colors[hit] = self.colors(face[hit], weights[hit])
        else:
            colors[hit] = _interpolated(self.colors, self.faces[face[hit]], weights[hit])
        return normals, colors


def vertex_normals(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit vertex normals: area-weighted means of the face normals; 0 for unused vertices.

    >>> vertex_normals(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), np.array([[0, 1, 2]]))[0].tolist()
    [0.0, 0.0, 1.0]
    """
    cross = _cross(vertices, faces)
    total = np.zeros(vertices.shape, dtype=np.float64)
    for axis in range(3):
        weights = np.repeat(cross[:, axis], 3)
        total[:, axis] = np.bincount(faces.ravel(), weights, minlength=len(vertices))
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    return total / np.where(lengths > 0, lengths, 1)


def _cross(vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, "m 3"]:
    """Face normals with a length of twice the area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def _interpolated(
    values: Float[np.ndarray, "n 3"], corners: Int[np.ndarray, "k 3"], weights: Float[np.ndarray, "k 3"]
) -> Float[np.ndarray, "k 3"]:
    """Barycentric interpolation of vertex values."""
    return np.asarray(np.einsum("kc,kcd->kd", weights, values[corners]))


def _embree(triangles: Float[np.ndarray, "m 3 3"]) -> Any:
    """Embree scene of the triangles."""
    try:
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene
    except ImportError:
        raise InputError(
            "a mesh cannot be shown: embreex is missing, `pip install embreex` brings it; meshes are written without it"
        ) from None
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, triangles)
    return scene
