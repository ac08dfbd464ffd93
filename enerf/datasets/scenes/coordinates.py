"""Points between three frames: where a field lives, the scene, and the world of the user's files.

- **field**: normalized device coordinates if the scene has them (``rays`` says what they are), else those of the scene;
- **scene**: cameras recenterd and scaled, y up for scenes that look forward;
- **world**: the coordinates of the pose files, which ``Scene.world_to_scene`` takes to the scene.

All arithmetic is float64. NDC has no place for what lies on or behind the plane z = 0 of the scene, and takes infinity
to z = 1: a cell of it grows with the square of its distance.
"""

import numpy as np
import torch
from jaxtyping import Float64

from enerf.core.types import Camera, Scene
from enerf.datasets.scenes import rays

Points = Float64[np.ndarray, "n 3"]


def to_world(scene: Scene, points: Points) -> Points:
    """Points of the field, in the world."""
    return apply_transform(np.linalg.inv(scene.world_to_scene.double().cpu().numpy()), to_scene(scene, points))


def from_world(scene: Scene, points: Points) -> Points:
    """Points of the world, in the field's coordinates; for NDC they have to lie before the cameras (scene z < 0)."""
    at = apply_transform(scene.world_to_scene.double().cpu().numpy(), points)
    return to_ndc(at, scene.camera) if scene.ndc else at


def to_scene(scene: Scene, points: Points) -> Points:
    """Points of the field, in the scene."""
    return from_ndc(points, scene.camera) if scene.ndc else points


def apply_transform(matrix: Float64[np.ndarray, "4 4"], points: Points) -> Points:
    """Points behind a map of homogeneous coordinates.

    >>> apply_transform(np.diag([2.0, 2.0, 2.0, 1.0]), np.array([[1.0, 0.0, -1.0]])).tolist()
    [[2.0, 0.0, -2.0]]
    """
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def to_ndc(points: Points, camera: Camera, near: float | int = 1.0) -> Points:
    """Scene points with z < 0 in normalized device coordinates: ``rays.point_to_ndc`` in float64."""
    return rays.point_to_ndc(torch.from_numpy(np.ascontiguousarray(points)), camera, near).numpy()


def from_ndc(points: Points, camera: Camera, near: float | int = 1.0) -> Points:
    """Scene points of normalized device coordinates with z < 1.

    >>> camera = Camera(4, 4, 4, 4, 2, 2)
    >>> from_ndc(to_ndc(np.array([[1.0, 0.5, -2.0]]), camera), camera).tolist()
    [[1.0, 0.5, -2.0]]
    """
    x, y, z = points.T
    depth = 2.0 * near / (1.0 - z)
    return np.stack(
        [x * depth * camera.width / (2.0 * camera.fx), y * depth * camera.height / (2.0 * camera.fy), -depth], 1
    )
