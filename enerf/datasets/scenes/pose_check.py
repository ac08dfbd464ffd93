"""Whether camera poses fit the photographs: epipolar errors of SIFT matches, for each convention of pose files.

A pose file does not say in which axes its matrices are, nor whether they map camera to world coordinates or back; read
in the wrong convention, they are rigid poses that fit no photograph. The **epipolar error** of a match is the distance,
in pixels, between a point in one image and the projection of the other image's ray in front of both cameras: a half or
a segment of the epipolar line, so that points behind a camera count as errors. Matches are filtered by a fundamental
matrix, which depends on no pose.

Source: Hartley and Zisserman, Multiple View Geometry (2nd edition), chapter 9.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Shaped

from enerf.datasets.scenes import poses
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.key_points import Match, Points, gray, match

SIDE = 384  # the longer side of the images matched, in pixels
ANCHORS, PAIRS = 5, 10  # views that pairs are made of, and pairs at most
FEATURES = 1000  # SIFT key points per image
LEAST_PAIRS = 3  # pairs that a statement needs
GOOD, BAD, CLEARLY = 2.0, 1.0, 5.0  # pixels of a convention that fits, of one that may not; the ratio between them
WILD = 8.0  # pixels: of poses that belong to other photographs

Pose = Float64[np.ndarray, "3 4"]
Poses = Float64[np.ndarray, "n 3 4"]


@dataclass(frozen=True)
class Finding:
    """Median epipolar error of each convention, in pixels of the images matched, which are ``width`` pixels wide."""

    errors: dict[str, float]
    pairs: int
    matches: int
    width: int

    def advice(self, axes: str) -> str | None:
        """What is wrong with poses read in the convention ``axes``, and what to do; None if nothing is known to be."""
        now, least = self.errors[axes], min(self.errors.values())
        better = [name for name, error in self.errors.items() if error < max(2 * least, 0.5)]
        where = f"in {self.pairs} pairs of views, {self.matches} matches, at {self.width} pixels of width"
        if least < GOOD and now > max(BAD, CLEARLY * least):
            return (
                f"the poses do not fit the photographs in the axes {axes} (median epipolar error {_pixels(now)}), and "
                f"do in {' and '.join(better)} ({_pixels(least)}; {where}): give --pose_axes {better[0]}"
            )
        if least > GOOD and now > WILD:
            return (
                f"the poses fit the photographs in no axes (median epipolar error {_pixels(now)} in {axes}, "
                f"at best {_pixels(least)}; {where}): are they of other photographs, or in another order?"
            )
        return None


def _pixels(error: float) -> str:
    return f"{error:.1f} pixels" if np.isfinite(error) else "infinite: points are behind the cameras"


def examine(
    picture: Callable[[int], Shaped[np.ndarray, "_ _ _"]], matrices: Poses, axes: str, cameras: Cameras
) -> Finding | None:
    """Epipolar errors of a pose file's matrices in each convention; None if there are too few matches.

    Parameters
    ----------
    picture
        The image of each view: bytes, or floats in [0, 1]; an alpha channel is ignored.
    matrices
        The file's, [R | t] of each view.
    axes
        The convention they are read in, one of ``poses.AXES``; it selects views that see the same things.
    cameras
        Cameras of the images.

    The result is deterministic.
    """
    chosen = pairs_of(poses.from_axes(matrices, axes))
    small = {view: gray(picture(view), SIDE) for view in sorted({view for pair in chosen for view in pair})}
    matches = match(small, chosen, cameras, FEATURES)
    if len(matches) < LEAST_PAIRS:
        return None
    _, wide = next(iter(small.values())).shape
    f = float(np.median([cameras.camera(v).fx * small[v].shape[1] / cameras.camera(v).width for v in small]))
    errors = {name: float(np.median(_errors(matches, poses.from_axes(matrices, name), f))) for name in poses.AXES}
    return Finding(errors, len(matches), sum(len(m.points_i) for m in matches), wide)


def _errors(matches: list[Match], c2w: Poses, focal: float) -> list[float]:
    """Median error of each pair, in pixels."""
    return [float(np.median(epipolar_errors(m, c2w))) * focal for m in matches]


def epipolar_errors(m: Match, c2w: Poses) -> Float64[np.ndarray, " k"]:
    """Epipolar error of each match, the larger of both directions, at unit depth; infinite if behind both cameras.

    ``c2w`` has OpenGL axes.
    """
    a, b = c2w[m.i], c2w[m.j]
    return np.maximum(_one_way(a, b, m.points_i, m.points_j), _one_way(b, a, m.points_j, m.points_i))


def _one_way(a: Pose, b: Pose, points_a: Points, points_b: Points) -> Float64[np.ndarray, " k"]:
    """Distance of each point in b from the projection of a's ray in front of both.

    In b's frame (x right, y down, z forward) the ray is o + λ d, λ ≥ 0, and projects to v + s w with v = d / d_z,
    w = o − o_z v and s = 1 / (o_z + λ d_z): a straight line of which the visible part is an interval of s.
    """
    flip = np.array([1.0, -1.0, -1.0])
    rays = np.concatenate([points_a, np.ones((len(points_a), 1))], axis=1) * flip
    d = (rays @ a[:, :3].T @ b[:, :3]) * flip
    o = ((a[:, 3] - b[:, 3]) @ b[:, :3]) * flip
    dz = np.where(np.abs(d[:, 2]) < 1e-9, 1e-9, d[:, 2])
    v = d[:, :2] / dz[:, None]
    w = o[:2] - o[2] * v
    start = 1 / o[2] if o[2] > 0 else np.inf
    low, high = np.where(dz > 0, 0.0, start), np.where(dz > 0, start, np.inf)
    squared = np.maximum((w**2).sum(1), 1e-300)
    s = np.clip(((points_b - v) * w).sum(1) / squared, np.minimum(low, 1e100), high)
    distance = np.linalg.norm(v + s[:, None] * w - points_b, axis=1)
    return np.where((dz > 0) | (o[2] > 0), distance, np.inf)


def pairs_of(c2w: Poses) -> list[tuple[int, int]]:
    """Pairs of views that probably see the same things, spread over all views.

    Each of a few views is paired with two of those that look the same way within 20°, at a middle and a smaller
    distance. The angle between two views is the same in every convention.
    """
    n, found = len(c2w), []
    for i in np.unique(np.linspace(0, n - 1, min(n, ANCHORS)).round().astype(int)).tolist():
        cosines = (np.einsum("jk,njk->n", c2w[i, :, :3], c2w[:, :, :3]) - 1) / 2
        degrees = np.rad2deg(np.arccos(np.clip(cosines, -1, 1)))
        distances = np.linalg.norm(c2w[:, :, 3] - c2w[i, :, 3], axis=1)
        others = [j for j in np.argsort(distances, kind="stable").tolist() if j != i]
        near = [j for j in others if degrees[j] < 20] or sorted(others, key=lambda j: degrees[j])[:2]
        found += [(min(i, j), max(i, j)) for j in {near[len(near) // 4], near[len(near) // 2]}]
    return sorted(set(found))[:PAIRS]
