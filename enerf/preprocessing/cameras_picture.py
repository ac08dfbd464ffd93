"""Picture of the cameras and points of a scene from above and from the side, to see whether they are right."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core.types import Camera
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.reporting import plots

_SHOWN, _MOST = (1.0, 99.0), 20_000  # percentiles of the points that are in the picture, and their number
_BEYOND = 3.0  # points farther away than this many times the usual depth are not shown


def draw(path: Path, posed: PosedImages, far: float) -> Path:
    """Write the picture as PNG: the points in their colors, the cameras as open pyramids.

    The vertical direction is the mean of the cameras' up axes, and the picture's horizontal axis the cameras' mean
    right axis.

    Parameters
    ----------
    path
        The file.
    posed
        The scene, with points.
    far
        Distance from the cameras beyond which points are left out, in world units.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    from matplotlib.figure import Figure

    axes = directions(posed.c2w)
    centers = posed.c2w[:, :, 3] @ axes.T
    points, colors = _points(posed, far)
    points = points @ axes.T
    size = 0.06 * float(np.linalg.norm(np.ptp(np.concatenate([centers, points]), axis=0)))
    outlines = np.concatenate(
        [_outline(pose, camera, size) @ axes.T for pose, camera in zip(posed.c2w, posed.cameras, strict=True)]
    )
    figure = Figure(figsize=(12, 6), layout="constrained")
    for place, (title, across, up) in enumerate((("from above", 0, 2), ("from the right", 2, 1))):
        sign = -1.0 if up == 2 else 1.0  # what the cameras look at is at the top
        _draw_side(figure.add_subplot(1, 2, place + 1), title, points, colors, outlines, (across, up), sign)
    figure.suptitle(f"{len(posed.names)} cameras and {len(points):,} points")
    return plots.save(figure, path)


def directions(c2w: Float64[np.ndarray, "v 3 4"]) -> Float64[np.ndarray, "3 3"]:
    """Rows: mean right, up and back of the cameras, orthonormal, up being exact."""
    up = _unit(c2w[:, :, 1].sum(axis=0), np.array([0.0, 1.0, 0.0]))
    right = c2w[:, :, 0].sum(axis=0)
    fallback = np.eye(3)[int(np.abs(up).argmin())]
    right = _unit(right - up * (right @ up), fallback - up * (fallback @ up))
    return np.stack([right, up, np.cross(right, up)])


def _unit(vector: Float64[np.ndarray, " 3"], otherwise: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, " 3"]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-6 else otherwise / np.linalg.norm(otherwise)


def _points(posed: PosedImages, far: float) -> tuple[Float64[np.ndarray, "n 3"], Float64[np.ndarray, "n 3"]]:
    """Points that are shown, and their colors in [0, 1]."""
    if posed.points is None:
        return np.zeros((0, 3)), np.zeros((0, 3))
    xyz = posed.points.xyz
    colors = np.zeros_like(xyz) if posed.points.rgb is None else posed.points.rgb / 255
    distance = np.linalg.norm(xyz - posed.c2w[:, :, 3].mean(axis=0), axis=1)
    low, high = np.percentile(xyz, _SHOWN, axis=0)
    inside = (distance <= _BEYOND * far) & ((xyz >= low) & (xyz <= high)).all(axis=1)
    chosen = np.flatnonzero(inside)
    chosen = chosen[:: max(1, len(chosen) // _MOST)]
    return xyz[chosen], colors[chosen]


def _outline(pose: Float64[np.ndarray, "3 4"], camera: Camera, size: float) -> Float64[np.ndarray, "1 8 3"]:
    """A polyline along the edges of the pyramid between a camera's center and its image, ``size`` away."""
    across, down = camera.width / camera.fx / 2 * size, camera.height / camera.fy / 2 * size
    corners = np.array([[0, 0, 0], [-across, down, -size], [across, down, -size], [0, 0, 0], [across, -down, -size]])
    rest = np.array([[-across, -down, -size], [0, 0, 0], [0, 0, -size]])
    return (np.concatenate([corners, rest]) @ pose[:, :3].T + pose[:, 3])[None]


def _draw_side(
    axes: Any,
    title: str,
    points: Float64[np.ndarray, "n 3"],
    colors: Float64[np.ndarray, "n 3"],
    outlines: Float64[np.ndarray, "v 8 3"],
    which: tuple[int, int],
    sign: float,
) -> None:
    across, up = which
    axes.scatter(points[:, across], sign * points[:, up], c=colors, s=3, linewidths=0, rasterized=True)
    for outline in outlines:
        axes.plot(outline[:, across], sign * outline[:, up], color="tab:red", linewidth=0.6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title(title)
