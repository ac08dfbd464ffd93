"""Pages of meshes: orbit, wireframe, clipping plane, and a slider between a mesh and its original."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from enerf.export import mesh_code
from enerf.export.page import Page
from enerf.geometry import cleanup


@dataclass(frozen=True)
class NamedMesh:
    """A mesh of a page.

    Attributes
    ----------
    name
        Any text.
    vertices, faces, colors
        In any unit, +y up; indices; sRGB bytes or None.
    """

    name: str
    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    colors: UInt8[np.ndarray, "n 3"] | None = None


def page(
    mesh: NamedMesh,
    original: NamedMesh | None,
    title: str,
    caption: tuple[str, ...] = (),
    most_faces: int = 200_000,
    yaw: float = 0.4,
) -> Page:
    """The page of a mesh, and of its original if there is one, in the same coordinates.

    Meshes of more than ``most_faces`` faces are decimated. ``yaw`` is the direction
    of the first view, in radians from +z.
    """
    meshes = [_decimated(each, most_faces) for each in (mesh, original) if each is not None]
    corners = meshes[0].vertices[meshes[0].faces].reshape(-1, 3)
    low, high = corners.min(0), corners.max(0)
    center, radius = (low + high) / 2, max(float(np.linalg.norm(high - low)) / 2, 1e-30)
    spans = [np.abs(each.vertices[each.faces].reshape(-1, 3) - center).max(0) for each in meshes]
    codes = [mesh_code.encode(each.vertices, each.faces, each.colors) for each in meshes]
    described = [{"name": each.name, **code.meta} for each, code in zip(meshes, codes, strict=True)]
    meta = {
        "meshes": described,
        "center": center.tolist(),
        "radius": radius,
        "size": (np.max(spans, 0) / radius * 1.02 + 1e-6).tolist(),
        "yaw": yaw,
    }
    lines = [f"{each.name}: {len(each.faces):,} faces" for each in meshes]
    if len(meshes) > 1:
        lines = [f"left: {lines[0]}", f"right: {lines[1]}"]
    return Page("mesh", title, (*caption, *lines), meta, {f"mesh_{i}": code.data for i, code in enumerate(codes)})


def _decimated(mesh: NamedMesh, most_faces: int) -> NamedMesh:
    """The mesh with at most about ``most_faces`` faces; vertices take the colors of the nearest of before."""
    if len(mesh.faces) <= most_faces:
        return mesh
    vertices, faces = cleanup.decimate(mesh.vertices, mesh.faces, most_faces)
    colors = None
    if mesh.colors is not None:
        from scipy import spatial

        colors = mesh.colors[spatial.KDTree(mesh.vertices).query(vertices)[1]]
    return NamedMesh(mesh.name, vertices, faces, colors)
