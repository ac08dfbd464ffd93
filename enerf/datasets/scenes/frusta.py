"""Frusta of the training cameras: bounding boxes for mesh extraction, and which cameras have a point in view.

A camera's **frustum** is the set of points in front of it that project into its image. Occlusion is ignored.
"""

import itertools

import numpy as np
import torch
from jaxtyping import Float64, Int64

from enerf.core.errors import InputError
from enerf.datasets.scenes import bounds as scenes_bounds
from enerf.datasets.scenes import coordinates
from enerf.datasets.scenes.scene import Scene

NEARER = 0.9  # times the nearest bound: the depth at which the frusta begin
CHUNK = 1 << 18  # point-camera pairs to process at a time
Points = Float64[np.ndarray, "n 3"]
Box = Float64[np.ndarray, "2 3"]


def surface_box(scene: Scene) -> Box:
    """The default box for mesh extraction, in field coordinates: lowest and highest corner.

    For inward-facing cameras it is the box of ``bounds.space_of``, which contains NeRF's synthetic objects. For
    forward-facing ones it is the bounding box of the training views' frusta between 0.9 times the nearest and the
    farthest bound of any view. In NDC it stays below z = 1, which is infinitely far.
    """
    if not scene.forward_facing and not scene.ndc:
        space = scenes_bounds.space_of(scene)
        return np.array([space.low, space.high])
    ends = _corners(scene)
    points = coordinates.to_ndc(ends, scene.camera) if scene.ndc else ends
    low, high = points.min(0), points.max(0)
    return np.array([np.maximum(low, [-np.inf, -np.inf, -1.0]) if scene.ndc else low, high])


def _corners(scene: Scene) -> Points:
    """Scene points on the training views' corner rays at the nearest and farthest depth; for NDC, with z ≤ −1."""
    bounds = scene.bounds[list(scene.train)].double().cpu().numpy()
    view, x, y = (index.cpu() for index in scene.cameras.border())
    chosen = torch.isin(view, torch.tensor(scene.train))
    view, x, y = view[chosen], x[chosen], y[chosen]
    local = scene.cameras.to("cpu").directions(view, x.double(), y.double(), 0.0).numpy()
    c2w = scene.c2w.double().cpu().numpy()[view.numpy()]
    directions = np.einsum("nij,nj->ni", c2w[:, :, :3], local)
    depths = np.array([NEARER * bounds.min(), bounds.max()])
    ends = c2w[:, None, :, 3] + depths[:, None] * directions[:, None]
    points = ends.reshape(-1, 3)
    if scene.ndc:
        points = np.stack([points[:, 0], points[:, 1], np.minimum(points[:, 2], -1.0)], 1)
    return points


def field_box_from_world(scene: Scene, box: Box) -> Box:
    """The bounding box, in field coordinates, of a box in world coordinates; for NDC, of its part with scene z ≤ −1.

    Raises
    ------
    InputError
        If its corners are not finite or not ordered, or all of it is on the near side of NDC's near plane.
    """
    if not np.isfinite(box).all() or not (box[0] < box[1]).all():
        raise InputError(f"option --box: found {box.ravel().tolist()}, expected a lowest and a highest corner")
    corners = np.array(list(itertools.product(*box.T)))
    points = coordinates.apply_transform(scene.world_to_scene.double().cpu().numpy(), corners)
    if scene.ndc:
        points = coordinates.to_ndc(_beyond_plane(points), scene.camera)
    return np.array([points.min(0), points.max(0)])


def _beyond_plane(corners: Float64[np.ndarray, "8 3"], plane: float = -1.0) -> Points:
    """Corners of the part of a box with z ≤ ``plane``: its own, and the intersections of its edges with the plane."""
    parts = [corners[corners[:, 2] <= plane]]
    for i, j in itertools.combinations(range(8), 2):
        a, b = corners[i], corners[j]
        if bin(i ^ j).count("1") == 1 and (a[2] - plane) * (b[2] - plane) < 0:
            parts.append((a + (plane - a[2]) / (b[2] - a[2]) * (b - a))[None])
    points = np.concatenate(parts)
    if not len(points):
        raise InputError("option --box: all of it is nearer than the near plane of NDC, expected a box beyond it")
    return points


def count_views(scene: Scene, points: Points) -> Int64[np.ndarray, " n"]:
    """The number of training cameras whose frustum contains each point; points are in world coordinates."""
    found = np.zeros(len(points), dtype=np.int64)
    for part in _parts(len(points), len(scene.train)):
        found[part] = _inside(scene, _in_cameras(scene, points[part])).sum(1)
    return found


def most_frontal_directions(scene: Scene, points: Points, normals: Points) -> Points:
    """The unit direction, in scene coordinates, from the training camera with the most frontal view of each point.

    Surface points and their outward normals are in world coordinates. Of the cameras whose frustum contains a point (of
    all if none does), it is the one with the viewing direction nearest to the inward normal: the field was trained with
    such directions, unlike the inward normal itself.
    """
    centers = _poses(scene)[:, :, 3]
    matrix = scene.world_to_scene.double().cpu().numpy()
    directions = np.empty_like(points)
    for part in _parts(len(points), len(scene.train)):
        at = coordinates.apply_transform(matrix, points[part])
        outwards = normals[part] @ matrix[:3, :3].T
        views = at[:, None] - centers
        views /= np.maximum(np.linalg.norm(views, axis=-1, keepdims=True), 1e-300)
        frontal = -(views @ outwards[:, :, None])[..., 0]
        visible = _inside(scene, _in_cameras(scene, points[part]))
        best = np.where(visible | ~visible.any(1, keepdims=True), frontal, -np.inf).argmax(1)
        directions[part] = views[np.arange(len(best)), best]
    return directions


def _in_cameras(scene: Scene, points: Points) -> Float64[np.ndarray, "n k 3"]:
    """World points in the frame of each training camera (OpenGL axes, scene units)."""
    c2w = _poses(scene)
    at = coordinates.apply_transform(scene.world_to_scene.double().cpu().numpy(), points)
    rotated = at @ np.concatenate(list(c2w[:, :, :3]), 1)  # a single product, with a column per axis and camera
    return rotated.reshape(len(at), len(c2w), 3) - np.einsum("kji,kj->ki", c2w[:, :, :3], c2w[:, :, 3])


def _inside(scene: Scene, local: Float64[np.ndarray, "n k 3"]) -> np.ndarray:
    """Whether points in camera coordinates are in front of the camera and project into its image."""
    view = torch.tensor(scene.train).expand(local.shape[:2])
    pixels, valid = scene.cameras.to("cpu").project(view, torch.from_numpy(local))
    sizes = scene.cameras.to("cpu").sizes[view]
    return np.asarray(valid & ((pixels >= 0) & (pixels <= sizes)).all(-1))


def _poses(scene: Scene) -> Float64[np.ndarray, "k 3 4"]:
    return scene.c2w[torch.tensor(scene.train)].double().cpu().numpy()


def _parts(n: int, cameras: int) -> list[slice]:
    """Parts of the points, 16,384 at most, of which the pairs with cameras are few enough."""
    step = max(1, CHUNK // max(16, cameras))
    return [slice(start, start + step) for start in range(0, n, step)]
