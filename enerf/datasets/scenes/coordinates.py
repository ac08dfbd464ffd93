"""Conversion of points between three coordinate frames: field, scene and world.

- **field**: normalized device coordinates (NDC, see ``rays``) if the scene uses them, else scene coordinates;
- **scene**: after recentering and scaling; y is up for forward-facing scenes;
- **world**: the coordinates of the pose files; ``Scene.world_to_scene`` maps them to scene coordinates.

All arithmetic is float64. NDC is undefined for scene z ≥ 0 and maps infinity to z = 1, so that the size of a grid cell
grows with the square of its distance.
"""

import numpy as np
import torch
from jaxtyping import Float64

from enerf.core.types import Camera
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.scene import Scene

Points = Float64[np.ndarray, "n 3"]


def to_world(scene: Scene, points: Points) -> Points:
    """World coordinates of points in field coordinates."""
    return apply_transform(np.linalg.inv(scene.world_to_scene.double().cpu().numpy()), to_scene(scene, points))


def from_world(scene: Scene, points: Points) -> Points:
    """Field coordinates of points in world coordinates; NDC needs a scene z below 0."""
    at = apply_transform(scene.world_to_scene.double().cpu().numpy(), points)
    return to_ndc(at, scene.camera) if scene.ndc else at


def to_scene(scene: Scene, points: Points) -> Points:
    """Scene coordinates of points in field coordinates."""
    return from_ndc(points, scene.camera) if scene.ndc else points


def apply_transform(matrix: Float64[np.ndarray, "4 4"], points: Points) -> Points:
    """Points transformed by an affine map, given as a homogeneous matrix.

    >>> apply_transform(np.diag([2.0, 2.0, 2.0, 1.0]), np.array([[1.0, 0.0, -1.0]])).tolist()
    [[2.0, 0.0, -2.0]]
    """
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def transform_poses(
    matrix: Float64[np.ndarray, "4 4"], c2w: Float64[np.ndarray, "n 3 4"]
) -> Float64[np.ndarray, "n 3 4"]:
    """Poses in other coordinates, given the similarity that maps points to them; rotations stay orthonormal.

    >>> transform_poses(np.diag([2.0, 2.0, 2.0, 1.0]), np.eye(4)[None, :3] + 1.0)[0, :, 3].tolist()
    [2.0, 2.0, 2.0]
    """
    rotation = matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3]))
    centers = apply_transform(matrix, c2w[:, :, 3])
    return np.concatenate([rotation @ c2w[:, :, :3], centers[:, :, None]], axis=-1)


def to_ndc(points: Points, camera: Camera, near: float | int = 1.0) -> Points:
    """NDC of scene points with z < 0: ``rays.point_to_ndc`` in float64."""
    return rays.point_to_ndc(torch.from_numpy(np.ascontiguousarray(points)), camera, near).numpy()


def from_ndc(points: Points, camera: Camera, near: float | int = 1.0) -> Points:
    """Scene coordinates of points in NDC with z < 1, the inverse of ``to_ndc``: ``rays.point_from_ndc`` in float64.

    >>> camera = Camera(4, 4, 4, 4, 2, 2)
    >>> from_ndc(to_ndc(np.array([[1.0, 0.5, -2.0]]), camera), camera).tolist()
    [[1.0, 0.5, -2.0]]
    """
    return rays.point_from_ndc(torch.from_numpy(np.ascontiguousarray(points)), camera, near).numpy()
