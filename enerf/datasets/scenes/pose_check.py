"""Whether camera poses fit the photographs: epipolar errors of SIFT matches, for each convention of pose files.

A pose file does not say in which axes its matrices are, nor whether they map camera to world coordinates or back; read
in the wrong convention, they are rigid poses that fit no photograph. The **epipolar error** of a match is the distance,
in pixels, between a point in one image and the projection of the other image's ray in front of both cameras: a half or
a segment of the epipolar line, so that points behind a camera count as errors. Matches are filtered by a fundamental
matrix, which depends on no pose.

Sources: Lowe, Distinctive image features from scale-invariant keypoints (2004); Hartley and Zisserman, Multiple View
Geometry (2nd edition), chapter 9; Barath et al., MAGSAC++ (2020), by OpenCV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Shaped, UInt8

from enerf.core import images
from enerf.datasets.scenes import poses
from enerf.datasets.scenes.cameras import Cameras

SIDE = 384  # the longer side of the images matched, in pixels
ANCHORS, PAIRS = 5, 10  # views that pairs are made of, and pairs at most
FEATURES = 1000  # SIFT key points per image
RATIO = 0.8  # Lowe's: between the distances to the nearest and the second nearest descriptor
LEAST_MATCHES, LEAST_PAIRS = 15, 3  # matches that a pair, and pairs that a statement needs
GOOD, BAD, CLEARLY = 2.0, 1.0, 5.0  # pixels of a convention that fits, of one that may not; the ratio between them
NARROW = 0.2  # least cosine of the angle from the optical axis of points that are compared
WILD = 8.0  # pixels: of poses that belong to other photographs

Pose = Float64[np.ndarray, "3 4"]
Poses = Float64[np.ndarray, "n 3 4"]
Points = Float64[np.ndarray, "k 2"]
Picture = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class Match:
    """Matched points of views ``i`` and ``j``: directions in the image plane at unit depth, x right and y down."""

    i: int
    j: int
    points_i: Points
    points_j: Points


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
    small = {view: _shrink(picture(view)) for view in sorted({view for pair in chosen for view in pair})}
    matches = match(small, chosen, cameras)
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


def match(pictures: dict[int, Picture], pairs: list[tuple[int, int]], cameras: Cameras) -> list[Match]:
    """SIFT matches of pairs of images that agree with a fundamental matrix; pairs with few matches are left out.

    The images are those of ``cameras`` at any size.
    """
    import cv2

    sift = cv2.SIFT_create(nfeatures=FEATURES)  # type: ignore[attr-defined]
    features = {view: sift.detectAndCompute(picture, None) for view, picture in pictures.items()}
    found = []
    for i, j in pairs:
        points_i, points_j = _mutual(features[i], features[j])
        if len(points_i) < LEAST_MATCHES:
            continue
        _, inside = cv2.findFundamentalMat(points_i, points_j, cv2.USAC_MAGSAC, 1.5, 0.999, 2000)
        if inside is None:
            continue
        keep = np.asarray(inside).ravel().astype(bool)
        both = [_in_plane(cameras, view, pictures[view], at[keep]) for view, at in ((i, points_i), (j, points_j))]
        seen = np.isfinite(np.concatenate(both, axis=1)).all(axis=1)
        if np.count_nonzero(seen) >= LEAST_MATCHES:
            found.append(Match(i, j, both[0][seen], both[1][seen]))
    return found


def _in_plane(cameras: Cameras, view: int, picture: Picture, points: Points) -> Points:
    """Points of a picture in the plane at unit depth, x right and y down; NaN if far from the optical axis."""
    camera, (height, width) = cameras.camera(view), picture.shape
    at = torch.from_numpy((points + 0.5) * (camera.width / width, camera.height / height))  # OpenCV's centers are whole
    views = torch.full((len(at),), view)
    x, y, z = cameras.directions(views, at[:, 0], at[:, 1], 0.0, torch.float64).unbind(-1)
    plane = torch.stack([x / -z, -y / -z], -1)
    return torch.where((-z > NARROW * torch.stack([x, y, z]).norm(dim=0))[:, None], plane, torch.nan).numpy()


def _mutual(a: tuple[Any, Any], b: tuple[Any, Any]) -> tuple[Points, Points]:
    """Key points of two images whose descriptors are mutual nearest neighbors and pass Lowe's ratio test."""
    (points_a, words_a), (points_b, words_b) = a, b
    if min(len(points_a), len(points_b)) < LEAST_MATCHES:
        return np.empty((0, 2)), np.empty((0, 2))
    words_a, words_b = (words / np.linalg.norm(words, axis=1, keepdims=True) for words in (words_a, words_b))
    likeness = words_a @ words_b.T
    to_b, to_a = likeness.argmax(1), likeness.argmax(0)
    two = 2 - 2 * np.partition(likeness, -2, axis=1)[:, -2:]  # squared distances: second nearest, nearest
    good = (to_a[to_b] == np.arange(len(to_b))) & (two[:, 1] < RATIO**2 * two[:, 0])
    at_a, at_b = (np.array([point.pt for point in points]) for points in (points_a, points_b))
    return at_a[good], at_b[to_b[good]]


def _shrink(picture: Shaped[np.ndarray, "h w _"]) -> UInt8[np.ndarray, "h2 w2"]:
    """Gray image with at most ``SIDE`` pixels on its longer side."""
    import cv2

    height, width = picture.shape[:2]
    factor = max(1.0, max(height, width) / SIDE)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(np.ascontiguousarray(picture[..., :3]), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(images.to_uint8(small), cv2.COLOR_RGB2GRAY))
