"""Nearest and farthest depth of views, from the points that they see."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import projections
from enerf.datasets.scenes.posed_images import Points, PosedImages

FACTOR = 1.5  # beyond what is usual of the views, a bound needs the support of more points
SUPPORT = 5.0  # percent of a view's points
FEWEST = 10  # points, from which on a view has bounds of its own
_TESTED = 20_000  # points that are projected into each view where no observations are known


def depth_bounds(posed: PosedImages, low: float | int = 0.5, high: float | int = 99.5) -> Float64[np.ndarray, "v 2"]:
    """Near and far of each view: percentiles of the depths of its points, limited by what is usual of the views.

    Depth is the distance along the optical axis (−z of the camera's OpenGL axes), in world units, and points behind a
    camera are ignored. For cameras whose rays have unit directions (fisheye, panorama and others that are no pinhole
    with distortion) it is the distance from the center, in all directions.

    Extreme percentiles of a view with few points are those of single points, which may be misplaced. So let q(p) be a
    view's percentile of depths in units of its median depth, and m(p) the median of q(p) over the views. The near bound
    of a view is q(low), but at least the smaller of m(low) and q(5), divided by 1.5: a view may be nearer to something
    than the others are if 5 % of its points show it. The far bound is q(high), but at most the larger of m(high) and
    q(95), times 1.5. Misplaced points in less than half of the views, of less than 5 % of their points, thus move a
    bound by a limited factor; points that are misplaced in most views are not recognized.

    Views with fewer than 10 points in front of them get the medians of near and far over the others, unless all have
    so few. Where no observations are known, the points inside the pinhole image of a view count as its points (up to
    20,000, evenly chosen), whether or not something hides them.

    Parameters
    ----------
    posed
        The scene, with points.
    low, high
        Percentiles between 0 and 100.

    Raises
    ------
    InputError
        If no view has a point in front of it.
    """
    points = posed.points
    if points is None or not len(points.xyz):
        raise InputError(f"{posed.source}: found no points, expected some for the range of depths")
    shares = np.array([low, SUPPORT, 50.0, 100 - SUPPORT, high])
    counts, percentiles = np.zeros(len(posed.names), dtype=np.int64), []
    for view, depths in enumerate(_depths_of_views(posed, points)):
        counts[view] = len(depths)
        percentiles.append(np.percentile(depths, shares) if len(depths) else np.zeros(len(shares)))
    if not counts.any():
        raise InputError(
            f"{posed.source}: found no point in front of a camera, expected points that the views see, or poses in "
            "other axes (--pose_axes)"
        )
    known = counts >= min(FEWEST, counts.max())
    found = np.stack(percentiles)[known]
    middle = found[:, 2:3]
    least, lower, _, upper, most = (found / middle).T
    near = np.maximum(least, np.minimum(np.median(least), lower) / FACTOR)
    far = np.minimum(most, np.maximum(np.median(most), upper) * FACTOR)
    own = np.stack([near, far], axis=1) * middle
    bounds = np.tile(np.median(own, axis=0), (len(counts), 1))
    bounds[known] = own
    return bounds


def _depths_of_views(posed: PosedImages, points: Points) -> Iterator[Float64[np.ndarray, " _"]]:
    """Depths above 0 of the points of each view, one view at a time."""
    if len(points.point):
        order = np.argsort(points.view, kind="stable")
        ends = np.cumsum(np.bincount(points.view, minlength=len(posed.names)))
        observed = np.split(points.point[order], ends[:-1])
    chosen = np.unique(np.linspace(0, len(points.xyz) - 1, min(_TESTED, len(points.xyz))).astype(np.int64))
    for view, (pose, camera) in enumerate(zip(posed.c2w, posed.cameras, strict=True)):
        offsets = points.xyz[observed[view] if len(points.point) else chosen] - pose[:, 3]
        if not len(points.point):
            offsets = offsets[_is_inside(offsets @ pose[:, :3], camera)]
        is_perspective = projections.is_perspective(camera.model)
        depths = -(offsets @ pose[:, 2]) if is_perspective else np.linalg.norm(offsets, axis=1)
        yield depths[depths > 0]


def _is_inside(local: Float64[np.ndarray, "n 3"], camera: Camera) -> Bool[np.ndarray, " n"]:
    """Whether an image, by its focal lengths and principal point, contains points in the camera's frame."""
    if camera.model == "EQUIRECTANGULAR":
        return np.ones(len(local), dtype=bool)
    x, y, z = local.T
    across, down = camera.fx * x - camera.cx * z, -camera.fy * y - camera.cy * z
    return (z < 0) & (across >= 0) & (across <= -camera.width * z) & (down >= 0) & (down <= -camera.height * z)
