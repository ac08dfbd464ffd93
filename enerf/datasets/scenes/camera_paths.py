"""Camera paths for videos: which one suits a scene, and its poses in scene coordinates."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.errors import InputError
from enerf.core.types import Scene
from enerf.datasets.scenes import poses

KINDS = ("spiral", "circle", "turntable", "interpolate", "test")
TOLERANCE = 1e-3  # of the cameras' distance from the origin, which ``poses.spherify`` makes 1


def default_kind(scene: Scene) -> str:
    """Path that nerf-pytorch shows of such a scene.

    ``spiral`` for cameras that look one way, ``circle`` for cameras around an object that were spherified
    (their root-mean-square distance from the origin is 1 then), ``turntable`` for other ones around an
    object.
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
        Its cameras say where the path runs.
    kind
        ``spiral``: two turns about the average camera. ``circle``: a turn about the z axis at the cameras'
        own height and distance. ``turntable``: a turn about the z axis 4 from the origin, as for NeRF's
        synthetic objects. ``interpolate``: through the training views. ``test``: the test views themselves,
        whatever ``frames`` says. The first three are nerf-pytorch's.
    frames
        How many poses.

    Raises
    ------
    InputError
        If ``kind`` is none of these.
    """
    c2w, bounds = scene.c2w.double().cpu().numpy(), scene.bounds.double().cpu().numpy()
    if kind == "spiral":
        path = poses.spiral(c2w, bounds, frames)
    elif kind == "circle":
        path = poses.circle(c2w, frames)
    elif kind == "turntable":
        path = poses.blender_circle(frames)
    elif kind == "interpolate":
        path = poses.interpolate(c2w[list(scene.train)], frames)
    elif kind == "test":
        path = c2w[list(scene.test)]
    else:
        raise InputError(f"option --path: found {kind!r}, expected one of {', '.join(KINDS)}")
    return torch.from_numpy(np.ascontiguousarray(path)).to(scene.c2w)
