"""Normalization of world coordinates, by how the cameras stand."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from enerf.core.errors import InputError
from enerf.datasets.scenes import poses

FORWARD = 20.0  # degrees from the mean viewing direction
BESIDE = 0.25  # largest root-mean-square distance of optical axes from the point they look at, in median depths
BD_FACTOR = 0.75  # the nearest depth becomes 1 / BD_FACTOR, as for LLFF scenes
INFINITY = 1e30  # scene units

Poses = Float64[np.ndarray, "n 3 4"]
Bounds = Float64[np.ndarray, "n 2"]


@dataclass(frozen=True)
class Normalized:
    """Poses and bounds in scene coordinates.

    Attributes
    ----------
    layout
        ``forward``, ``around`` or ``free``, see ``layout_of``.
    c2w, bounds
        Camera-to-scene poses, and nearest and farthest depths in scene units.
    world_to_scene
        The similarity from world to scene coordinates.
    """

    layout: str
    c2w: Poses
    bounds: Bounds
    world_to_scene: Float64[np.ndarray, "4 4"]

    def is_beyond_plane(self) -> bool:
        """Whether what the cameras see, from each one's nearest depth on, is beyond the near plane of NDC, z = -1.

        It is not of cameras that advance by more than a part of the nearest depth: those behind see what is before the
        plane, which NDC cannot represent.
        """
        nearest = self.c2w[:, 2, 3] - self.bounds[:, 0] * self.c2w[:, 2, 2]  # on the optical axis
        return bool((nearest <= -1).all())


def layout_of(c2w: Poses) -> str:
    """How cameras stand; poses have OpenGL axes.

    - ``forward``: all viewing directions are within 20° of their mean, as for LLFF's scenes;
    - ``around``: their optical axes pass near one point in front of them, an object;
    - ``free``: anything else.
    """
    directions = -c2w[:, :, 2]
    mean = directions.mean(0)
    length = float(np.linalg.norm(mean))
    if length > 1e-6 and float((directions @ mean).min()) > length * np.cos(np.deg2rad(FORWARD)):
        return "forward"
    return "free" if looked_at(c2w) is None else "around"


def looked_at(c2w: Poses) -> Float64[np.ndarray, "3"] | None:
    """The point that cameras look at: in front of them, and near their optical axes; None if there is none."""
    try:
        target = poses.meeting_point(c2w, least=1e-3)
    except ValueError:
        return None
    offsets = target - c2w[:, :, 3]
    depths = -np.einsum("ni,ni->n", offsets, c2w[:, :, 2])
    beside = np.linalg.norm(offsets + depths[:, None] * c2w[:, :, 2], axis=1)
    usual = float(np.median(depths))
    return None if usual <= 0 or np.sqrt((beside**2).mean()) > BESIDE * usual else target


def normalize(c2w: Poses, bounds: Bounds, layout: str) -> Normalized:
    """Poses and bounds in the scene coordinates of a layout.

    - ``forward`` and ``free``: in the frame of the average camera, scaled so that the nearest depth is 1 / 0.75;
    - ``around``: by ``poses.spherify``: the point looked at becomes the origin, the cameras' root-mean-square distance
      from it 1, and z points up, to the mean camera.

    Raises
    ------
    InputError
        If ``around`` is asked for, and the cameras do not look at one point.
    """
    c2w = poses.orthonormalize(c2w)
    if layout == "around":
        try:
            moved, scaled, similarity = poses.spherify(c2w, bounds)
        except ValueError as error:
            raise InputError(f"option --spherify: {error}, expected them around an object") from None
        return Normalized(layout, moved, np.minimum(scaled, INFINITY), similarity)
    scale = 1 / (float(bounds[:, 0].min()) * BD_FACTOR)
    c2w = c2w.copy()
    c2w[:, :, 3] *= scale
    moved, rigid = poses.recenter(c2w)
    similarity = rigid @ np.diag([scale, scale, scale, 1.0])
    return Normalized(layout, moved, np.minimum(bounds * scale, INFINITY), similarity)


def geometric_bounds(c2w: Poses, is_object: bool) -> Bounds | None:
    """Depth bounds of cameras around an object, from the point that they look at; None if they look at none.

    For an object without background (``is_object``) they are half and one and a half of the depth of that point;
    otherwise a tenth of it, and ten times the cameras' distance from it, for a background.
    """
    target = looked_at(c2w)
    if target is None:
        return None
    depths = -np.einsum("ni,ni->n", target - c2w[:, :, 3], c2w[:, :, 2])
    depths = np.maximum(depths, 0.1 * np.median(depths))
    low, high = (0.5, 1.5) if is_object else (0.1, 10.0)
    return np.stack([low * depths, high * depths], axis=1)
