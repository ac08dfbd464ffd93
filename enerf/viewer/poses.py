"""Poses for viser, whose cameras have OpenCV's axes, and where a browser's camera starts."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from enerf.datasets.scenes import poses
from enerf.datasets.scenes.scene import Scene

TURNED = np.diag([1.0, -1.0, -1.0])  # between axes of OpenGL and OpenCV
BEHIND = 1.5  # root-mean-square distances of the cameras from their mean: how far a browser's camera starts behind them
OUTSIDE = 1.15  # the same for cameras around an object: times their distance from it
ORBIT = 1.0  # distance of the point that a camera starts to turn about, in the same unit
FOV = 60.0  # degrees, at most, of a browser's camera

Pose = Float64[np.ndarray, "3 4"]
Vector = Float64[np.ndarray, "3"]


@dataclass(frozen=True)
class Start:
    """Where a camera starts: position, the point that it looks at, up, and the vertical field of view in radians.

    Position and point differ.
    """

    position: Vector
    look_at: Vector
    up: Vector
    fov: float | int


def from_viser(wxyz: np.ndarray, position: np.ndarray) -> Float[Tensor, "3 4"]:
    """Pose with OpenGL axes of one of viser's cameras.

    >>> (from_viser(np.array([1.0, 0, 0, 0]), np.zeros(3))[:, 2] == torch.tensor([0.0, 0.0, -1.0])).all().item()
    True
    """
    quaternion = np.asarray(wxyz, dtype=np.float64)
    rotation = poses.rotation(quaternion / max(float(np.linalg.norm(quaternion)), 1e-12)) @ TURNED
    pose = np.concatenate([rotation, np.asarray(position, dtype=np.float64)[:, None]], 1)
    return torch.from_numpy(pose).float()


def to_viser(c2w: Pose) -> tuple[Float64[np.ndarray, "4"], Vector]:
    """Quaternion (w, x, y, z) and position of a pose with OpenGL axes, for viser."""
    return poses.quaternion(c2w[:, :3] @ TURNED), c2w[:, 3]


def start(scene: Scene) -> Start:
    """Start of a browser's camera: behind the training cameras, looking at the scene.

    At a training camera, the photograph that is drawn there would cover the whole view.
    """
    c2w = scene.c2w[list(scene.train)].double().cpu().numpy()
    camera = scene.camera
    fov = min(2 * np.arctan(0.5 * camera.height / camera.fy), np.radians(FOV))
    middle = poses.average(c2w)
    up = c2w[:, :, 1].mean(0)
    up = up / np.linalg.norm(up) if np.linalg.norm(up) > 1e-6 else middle[:, 1]
    spread = float(np.sqrt(((c2w[:, :, 3] - middle[:, 3]) ** 2).sum(-1).mean()))
    target = focus(scene)
    if scene.forward_facing:
        depth = float(np.linalg.norm(target - middle[:, 3]))
        unit = max(spread, 1e-3 * depth)
        orbit = min(depth, ORBIT * unit)  # about a near point: a far one would throw the camera far away
        return Start(middle[:, 3] + BEHIND * unit * middle[:, 2], middle[:, 3] - orbit * middle[:, 2], up, float(fov))
    away = c2w[0, :, 3] - target
    if np.linalg.norm(away) < spacing(scene):  # cameras that turn on the spot: then from behind the first one
        return Start(target + away + spacing(scene) * c2w[0, :, 2], target + away, up, float(fov))
    return Start(target + OUTSIDE * away, target, up, float(fov))


def focus(scene: Scene) -> Vector:
    """The middle of what the training cameras see: for forward-facing ones the depth of the spiral's target."""
    c2w = scene.c2w[list(scene.train)].double().cpu().numpy()
    middle = poses.average(c2w)
    if scene.forward_facing:
        bounds = scene.bounds.double().cpu().numpy()
        depth = 1 / (0.25 / (0.9 * bounds.min()) + 0.75 / (5.0 * bounds.max()))
        return np.asarray(middle[:, 3] - depth * middle[:, 2])
    try:
        return poses.meeting_point(c2w)
    except ValueError:
        return np.asarray(middle[:, 3] - spacing(scene) * middle[:, 2])


def spacing(scene: Scene) -> float:
    """Median distance between a camera and its nearest neighbor, or a part of the near bound.

    The latter is for one camera, and for cameras at one place.
    """
    centers, near = scene.c2w[:, :, 3].double().cpu(), float(scene.bounds.min())
    if len(centers) < 2:
        return 0.2 * near
    apart = torch.cdist(centers, centers) + torch.diag(torch.full((len(centers),), torch.inf, dtype=torch.float64))
    return max(1e-6, 0.01 * near, float(apart.amin(1).median()))
