"""Closed surfaces made by hand, whose inside is known in closed form."""

import numpy as np
import trimesh

CENTER, HALF_AXES = np.array([0.3, -0.2, 0.1]), np.array([0.5, 0.9, 0.25])
RING, TUBE = 1.0, 0.35


def ellipsoid(subdivisions=3):
    """Vertices and faces of an off-center ellipsoid with unequal axes; vertices lie on it."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    return ball.vertices.view(np.ndarray) * HALF_AXES + CENTER, ball.faces.view(np.ndarray).astype(np.int64)


def level_of_ellipsoid(points):
    """Below 1 within the ellipsoid, above it without."""
    return np.linalg.norm((points - CENTER) / HALF_AXES, axis=-1)


def torus():
    """Vertices and faces of a torus about the z axis."""
    ring = trimesh.creation.torus(RING, TUBE, major_sections=96, minor_sections=48)
    return ring.vertices.view(np.ndarray).copy(), ring.faces.view(np.ndarray).astype(np.int64)


def distance_to_torus(points):
    """Signed distance to the round torus."""
    across = np.hypot(points[:, 0], points[:, 1]) - RING
    return np.hypot(across, points[:, 2]) - TUBE


def box(low=(-0.5, -0.5, -0.5), high=(0.5, 0.5, 0.5)):
    """Vertices and faces of a box, two triangles a side."""
    made = trimesh.creation.box(bounds=[low, high])
    return made.vertices.view(np.ndarray).copy(), made.faces.view(np.ndarray).astype(np.int64)


def hemisphere(around=32, up=12):
    """Vertices and faces of the upper half of a unit sphere, open below, with its pole at the end."""
    angle = np.arange(around) * 2 * np.pi / around
    rings = [
        np.stack([np.cos(angle) * np.cos(h), np.sin(angle) * np.cos(h), np.full(around, np.sin(h))], axis=1)
        for h in np.arange(up) * np.pi / 2 / up
    ]
    faces = []
    for k in range(up):
        for i in range(around):
            a, b = k * around + i, k * around + (i + 1) % around
            c, d = a + around, b + around
            faces += [[a, b, d], [a, d, c]] if k + 1 < up else [[a, b, up * around]]
    return np.concatenate([*rings, [[0.0, 0.0, 1.0]]]), np.array(faces)


def together(*meshes):
    """Several meshes as one."""
    counts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    return np.concatenate([v for v, _ in meshes]), np.concatenate([f + k for (_, f), k in zip(meshes, counts)])  # noqa: B905
