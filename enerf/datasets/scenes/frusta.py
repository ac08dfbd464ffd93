"""What the training cameras of a scene can have seen: the part of space inside their pictures, and boxes around it.

A camera's **frustum** is all that lies before it and inside the sides of its picture. Nothing is said of what hides
behind something else.
"""

import itertools

import numpy as np
import torch
from jaxtyping import Float64, Int64

from enerf.core.errors import InputError
from enerf.core.types import Scene
from enerf.datasets.scenes import bounds as scenes_bounds
from enerf.datasets.scenes import coordinates

NEARER = 0.9  # of the nearest bound: where the box around frusta begins
CHUNK = 1 << 18  # points that are looked at together
Points = Float64[np.ndarray, "n 3"]
Box = Float64[np.ndarray, "2 3"]


def surface_box(scene: Scene) -> Box:
    """The box, in field coordinates, in which a scene's surfaces are looked for.

    Cameras that look inwards have that of ``extent.space_of``: NeRF's synthetic objects lie well within it. For cameras
    that look ahead it holds the frusta of the training views between 0.9 of the nearest and the farthest depth that
    any of them is said to see. In NDC this keeps away from z = 1, which is infinitely far.
    """
    if not scene.forward_facing and not scene.ndc:
        space = scenes_bounds.space_of(scene)
        return np.array([space.low, space.high])
    ends = _corners(scene)
    points = coordinates.to_ndc(ends, scene.camera) if scene.ndc else ends
    low, high = points.min(0), points.max(0)
    return np.array([np.maximum(low, [-np.inf, -np.inf, -1.0]) if scene.ndc else low, high])


def _corners(scene: Scene) -> Points:
    """Ends of the training views' corner rays at nearest and farthest depth; in NDC no nearer than its plane."""
    camera, c2w = scene.camera, _poses(scene)
    bounds = scene.bounds[list(scene.train)].double().cpu().numpy()
    u = (np.array([0.0, camera.width]) - camera.cx) / camera.fx
    v = (camera.cy - np.array([0.0, camera.height])) / camera.fy
    local = np.array([[x, y, -1.0] for x, y in itertools.product(u, v)])
    directions = np.einsum("nij,kj->nki", c2w[:, :, :3], local)
    depths = np.array([NEARER * bounds.min(), bounds.max()])
    ends = c2w[:, None, None, :, 3] + depths[:, None] * directions[:, :, None]
    points = ends.reshape(-1, 3)
    if scene.ndc:
        points = np.stack([points[:, 0], points[:, 1], np.minimum(points[:, 2], -1.0)], 1)
    return points


def field_box_from_world(scene: Scene, asked: Box) -> Box:
    """The smallest box in field coordinates that holds a box of the world (in NDC the part of it with scene z ≤ −1).

    Raises
    ------
    InputError
        If its corners are not in order, or all of it lies before NDC's near plane.
    """
    if not np.isfinite(asked).all() or not (asked[0] < asked[1]).all():
        raise InputError(f"option --box: found {asked.ravel().tolist()}, expected a lowest and a highest corner")
    corners = np.array(list(itertools.product(*asked.T)))
    points = coordinates.apply_transform(scene.world_to_scene.double().cpu().numpy(), corners)
    if scene.ndc:
        points = coordinates.to_ndc(_beyond_plane(points), scene.camera)
    return np.array([points.min(0), points.max(0)])


def _beyond_plane(corners: Float64[np.ndarray, "8 3"], plane: float = -1.0) -> Points:
    """Corners of the part of a box with z ≤ ``plane``: its own, and where its edges pass through the plane."""
    kept = [corners[corners[:, 2] <= plane]]
    for i, j in itertools.combinations(range(8), 2):
        a, b = corners[i], corners[j]
        if bin(i ^ j).count("1") == 1 and (a[2] - plane) * (b[2] - plane) < 0:
            kept.append((a + (plane - a[2]) / (b[2] - a[2]) * (b - a))[None])
    points = np.concatenate(kept)
    if not len(points):
        raise InputError("option --box: all of it lies before the near plane of NDC, expected a box before the cameras")
    return points


def count_views(scene: Scene, points: Points) -> Int64[np.ndarray, " n"]:
    """How many training cameras have each point of the world in their frustum."""
    found = np.zeros(len(points), dtype=np.int64)
    for part in _parts(len(points)):
        found[part] = _inside(scene, _in_cameras(scene, points[part])).sum(1)
    return found


def most_frontal_directions(scene: Scene, points: Points, normals: Points) -> Points:
    """For points of surfaces in the world, the unit direction, in the scene, along which a training camera looks there.

    It is the camera that sees the surface most frontally among those that have the point in their frustum, or among all
    if none has: a direction that the field was trained with or, where no camera saw it, the nearest to one.
    """
    centers = _poses(scene)[:, :, 3]
    matrix = scene.world_to_scene.double().cpu().numpy()
    towards = np.empty_like(points)
    for part in _parts(len(points)):
        at = coordinates.apply_transform(matrix, points[part])
        across = normals[part] @ matrix[:3, :3].T
        views = at[:, None] - centers
        views /= np.maximum(np.linalg.norm(views, axis=-1, keepdims=True), 1e-300)
        frontal = -(views @ across[:, :, None])[..., 0]
        held = _inside(scene, _in_cameras(scene, points[part]))
        best = np.where(held | ~held.any(1, keepdims=True), frontal, -np.inf).argmax(1)
        towards[part] = views[np.arange(len(best)), best]
    return towards


def _in_cameras(scene: Scene, points: Points) -> Float64[np.ndarray, "n k 3"]:
    """Points of the world in the frame of each training camera."""
    c2w = _poses(scene)
    at = coordinates.apply_transform(scene.world_to_scene.double().cpu().numpy(), points)
    turned = at @ np.concatenate(list(c2w[:, :, :3]), 1)  # one product: a column for each axis of each camera
    return turned.reshape(len(at), len(c2w), 3) - np.einsum("kji,kj->ki", c2w[:, :, :3], c2w[:, :, 3])


def _inside(scene: Scene, local: Float64[np.ndarray, "n k 3"]) -> np.ndarray:
    """Whether points in cameras' frames lie before them and inside their pictures."""
    camera, depth = scene.camera, -local[..., 2]
    x, y = camera.fx * local[..., 0] + camera.cx * depth, -camera.fy * local[..., 1] + camera.cy * depth
    sides = (x >= 0) & (x <= camera.width * depth) & (y >= 0) & (y <= camera.height * depth)
    return np.asarray((depth > 0) & sides)


def _poses(scene: Scene) -> Float64[np.ndarray, "k 3 4"]:
    return scene.c2w[torch.tensor(scene.train)].double().cpu().numpy()


def _parts(n: int) -> list[slice]:
    return [slice(start, start + CHUNK // 16) for start in range(0, n, CHUNK // 16)]
