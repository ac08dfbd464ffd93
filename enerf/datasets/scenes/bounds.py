"""The region of scene space that a field's grid has to cover."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.types import Space
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.scene import Scene

WIDE = 10.0  # ratio of far to near from which on samples are spaced in disparity far away
FARTHEST = 1e6  # largest ratio of far to near
MARGIN = 0.02  # share of the box, on each side: for cameras between those of the scene


def space_of(scene: Scene) -> Space:
    """The region covered by a field's grid, in field coordinates.

    - NDC: the bounding box of all cameras' corner rays.
    - Forward-facing without NDC: all of space, contracted outside a ball around the cameras, whose radius is that of
      the cameras plus the median near bound.
    - Inward-facing: a box around the origin that contains the rays, whose radius is at most the cameras' mean distance
      from the origin; if the rays extend farther, all of space, contracted outside that radius.
    """
    if scene.ndc:
        points = _ends(scene)
        low, high = points.amin(0), points.amax(0)
        margin = MARGIN * (high - low)
        return Space(_triple(low - margin), _triple(high + margin))
    centers = scene.c2w[:, :, 3]
    if scene.forward_facing:
        middle = centers.mean(0)
        radius = float((centers - middle).norm(dim=-1).max() + scene.bounds[:, 0].median())
        return Space(_triple(middle - radius), _triple(middle + radius), contracted=True)
    distance = float(centers.norm(dim=-1).mean())
    beyond = max(scene.far - distance, distance - scene.near)
    radius = min(beyond, distance)
    return Space((-radius,) * 3, (radius,) * 3, contracted=beyond > distance)


def spacing_of(scene: Scene) -> str:
    """How samples along a scene's rays are spaced unless an option says so: ``linear`` or ``piecewise``.

    ``piecewise`` (evenly in t near the cameras, in 1/t beyond ``knee_of``) if the field contracts distant space and the
    rays end more than 10 times farther than they start.
    """
    is_wide = scene.far > WIDE * scene.near
    return "piecewise" if not scene.ndc and is_wide and space_of(scene).contracted else "linear"


def knee_of(scene: Scene) -> float:
    """The t up to which samples are evenly spaced in t: about where rays leave the region that is not contracted.

    For cameras around an object the far side of the ball about it; for others the radius of the ball about them.
    """
    space = space_of(scene)
    radius = 0.5 * (space.high[0] - space.low[0])
    return radius if scene.forward_facing else radius + float(scene.c2w[:, :, 3].norm(dim=-1).mean())


def limited(scene: Scene) -> Scene:
    """A copy of the scene whose far bound is at most a million times the near one, so that no length overflows.

    In contracted space what lies beyond is less than a millionth of the region's size away from there.
    """
    far = FARTHEST * scene.near
    return scene if scene.ndc or scene.far <= far else replace(scene, far=far)


def _ends(scene: Scene) -> Float[Tensor, "n 3"]:
    """End points of all cameras' corner rays, in NDC; of rays through the edges if they are distorted."""
    view, x, y = scene.cameras.border()
    corners = rays.of_views(
        scene.cameras, view, scene.c2w[view], x, y, near=scene.near, far=scene.far, pixel_centers=0.0
    )
    corners = rays.to_ndc(corners, scene.camera)
    return corners.at(torch.stack([corners.near, corners.far], -1)).reshape(-1, 3)


def _triple(x: Float[Tensor, " 3"]) -> tuple[float, float, float]:
    a, b, c = x.tolist()
    return a, b, c
