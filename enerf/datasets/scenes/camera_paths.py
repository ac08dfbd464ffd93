"""Camera paths for videos, in scene coordinates, and the default path of a scene."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.errors import InputError
from enerf.datasets.scenes import poses
from enerf.datasets.scenes.scene import Scene

KINDS = ("spiral", "circle", "turntable", "interpolate", "test")
TOLERANCE = 1e-3  # of the cameras' root-mean-square distance from the origin, which is 1 after ``poses.spherify``


def default_kind(scene: Scene) -> str:
    """The path that nerf-pytorch uses for such a scene.

    ``spiral`` for forward-facing cameras, ``circle`` for spherified ones (their root-mean-square distance from the
    origin is 1), ``turntable`` for others around an object.
    """
    if scene.forward_facing:
        return "spiral"
    distance = float(scene.c2w[:, :, 3].double().square().sum(-1).mean().sqrt())
    return "circle" if abs(distance - 1) < TOLERANCE else "turntable"


def camera_path(scene: Scene, kind: str, frames: int) -> Float[Tensor, "f 3 4"]:
    """Camera-to-scene poses of a video, with dtype and device of the scene's own.

    Parameters
    ----------
    scene
        Its cameras determine the path.
    kind
        ``spiral``: two turns about the average camera. ``circle``: a turn about the z axis at the cameras' height
        and distance. ``turntable``: a turn about the z axis, at distance 4 from the origin as for NeRF's synthetic
        objects, or at the training cameras' mean distance if that is not between 2 and 6. ``interpolate``: through the
        training views. ``test``: the test views, regardless of ``frames``. The first three are those of nerf-pytorch.
    frames
        Number of poses.

    Raises
    ------
    InputError
        If ``kind`` is unknown, or ``test`` and there are no test views.
    """
    c2w, bounds = scene.c2w.double().cpu().numpy(), scene.bounds.double().cpu().numpy()
    if kind == "spiral":
        path = poses.spiral(c2w, bounds, frames)
    elif kind == "circle":
        path = poses.circle(c2w, frames)
    elif kind == "turntable":
        path = poses.blender_circle(frames, _turntable_radius(scene))
    elif kind == "interpolate":
        path = poses.interpolate(c2w[list(scene.train)], frames)
    elif kind == "test":
        if not scene.test:
            raise InputError(f"option --path: found test, but no test views of {scene.name}, expected another path")
        path = c2w[list(scene.test)]
    else:
        raise InputError(f"option --path: found {kind!r}, expected one of {', '.join(KINDS)}")
    return torch.from_numpy(np.ascontiguousarray(path)).to(scene.c2w)


def _turntable_radius(scene: Scene) -> float:
    """Distance of a turntable's cameras from the origin."""
    mean = float(scene.c2w[list(scene.train), :, 3].double().norm(dim=-1).mean())
    return 4.0 if 2 <= mean <= 6 else mean
