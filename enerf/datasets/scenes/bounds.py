"""The part of scene space that the rays of a scene pass through: what a grid has to cover."""

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.types import Camera, Scene, Space
from enerf.datasets.scenes import rays

MARGIN = 0.02  # of the box, on each side: room for cameras between those of the scene


def space_of(scene: Scene) -> Space:
    """A box around all rays of a scene in NDC, or around its object; for other scenes all of space, contracted.

    In NDC it holds the corner rays of every camera. Cameras that look inwards see an object if their rays, which end at
    ``far``, pass the middle by less than the cameras' own distance from it; what reaches farther is contracted around
    a ball through the cameras. Cameras that look outwards or ahead have a ball around them, and the nearest they see.
    """
    if scene.ndc:
        points = _ends(scene)
        low, high = points.amin(0), points.amax(0)
        room = MARGIN * (high - low)
        return Space(_triple(low - room), _triple(high + room))
    centers = scene.c2w[:, :, 3]
    if scene.forward_facing:
        middle = centers.mean(0)
        reach = float((centers - middle).norm(dim=-1).max() + scene.bounds[:, 0].median())
        return Space(_triple(middle - reach), _triple(middle + reach), contracted=True)
    distance = float(centers.norm(dim=-1).mean())
    beyond = max(scene.far - distance, distance - scene.near)
    radius = min(beyond, distance)
    return Space((-radius,) * 3, (radius,) * 3, contracted=beyond > distance)


def _ends(scene: Scene) -> Float[Tensor, "n 3"]:
    """Both ends of the corner rays of all cameras, in NDC."""
    camera: Camera = scene.camera
    x = torch.tensor([0, camera.width, 0, camera.width], device=scene.c2w.device)
    y = torch.tensor([0, 0, camera.height, camera.height], device=scene.c2w.device)
    n = len(scene.c2w)
    made = rays.through_pixels(
        camera,
        scene.c2w.repeat_interleave(4, 0),
        x.repeat(n),
        y.repeat(n),
        near=scene.near,
        far=scene.far,
        pixel_centers=0.0,
    )
    made = rays.to_ndc(made, camera)
    return made.at(torch.stack([made.near, made.far], -1)).reshape(-1, 3)


def _triple(x: Float[Tensor, " 3"]) -> tuple[float, float, float]:
    a, b, c = x.tolist()
    return a, b, c
