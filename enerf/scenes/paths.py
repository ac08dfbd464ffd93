"""Camera paths for videos."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from enerf.scenes import poses
from enerf.types import InputError, Scene

KINDS = ("spiral", "circle", "interpolate", "test")


def default_kind(scene: Scene) -> str:
    """The path that suits a scene: a spiral before forward-facing views, a circle around an object."""
    return "spiral" if scene.forward_facing else "circle"


def camera_path(scene: Scene, kind: str, frames: int) -> Float[Tensor, "f 3 4"]:
    """Camera-to-scene poses of a video.

    ``spiral`` and ``circle`` are nerf-pytorch's, ``interpolate`` passes through the training views, ``test`` shows the
    test views themselves, whatever ``frames`` says.
    """
    c2w, bounds = scene.c2w.double().cpu().numpy(), scene.bounds.double().cpu().numpy()
    if kind == "spiral":
        path = poses.spiral(c2w, bounds, frames)
    elif kind == "circle":
        path = poses.circle(c2w, frames)
    elif kind == "interpolate":
        path = poses.interpolate(c2w[list(scene.train)], frames)
    elif kind == "test":
        path = c2w[list(scene.test)]
    else:
        raise InputError(f"option --path: found {kind!r}, expected one of {', '.join(KINDS)}")
    return torch.from_numpy(np.ascontiguousarray(path)).to(scene.c2w)
