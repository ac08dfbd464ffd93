"""Key points of images that show the same things: SIFT, matched between pairs of views.

Matches are filtered by a fundamental matrix, which depends on no pose.

Sources: Lowe, Distinctive image features from scale-invariant keypoints (2004); Barath et al., MAGSAC++ (2020), by
OpenCV.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Shaped, UInt8

from enerf.core import images, parallel
from enerf.datasets.scenes.cameras import Cameras

RATIO = 0.8  # Lowe's: between the distances to the nearest and the second nearest descriptor
LEAST_MATCHES = 15  # that a pair needs
NARROW = 0.2  # least cosine of the angle from the optical axis of points that are compared

Points = Float64[np.ndarray, "k 2"]
Picture = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class Match:
    """Matched points of views ``i`` and ``j``: directions in the image plane at unit depth, x right and y down."""

    i: int
    j: int
    points_i: Points
    points_j: Points


def match(
    pictures: Mapping[int, Picture],
    pairs: Sequence[tuple[int, int]],
    cameras: Cameras,
    features: int,
    used: Mapping[int, Bool[np.ndarray, "h w"]] | None = None,
) -> list[Match]:
    """SIFT matches of pairs of images that agree with a fundamental matrix; pairs with few matches are left out.

    Parameters
    ----------
    pictures
        Gray images by view: those of ``cameras`` at any size.
    pairs
        Views that are matched.
    cameras
        Camera of each view.
    features
        Key points of an image, at most: the strongest.
    used
        Pixels of each view's camera where key points may be; None: all.

    The result is deterministic.
    """
    import cv2

    def mask(view: int) -> Picture | None:
        height, width = pictures[view].shape
        return None if used is None else cv2.resize(used[view].astype(np.uint8), (width, height), None, 0, 0, 0)

    def describe(view: int) -> Any:
        sift = cv2.SIFT_create(nfeatures=features)  # type: ignore[attr-defined]
        return sift.detectAndCompute(pictures[view], mask(view))

    described = dict(zip(pictures, parallel.in_order(describe, pictures, parallel.threads_for()), strict=True))
    found = []
    for i, j in pairs:
        points_i, points_j = _mutual(described[i], described[j])
        if len(points_i) < LEAST_MATCHES:
            continue
        try:
            _, inside = cv2.findFundamentalMat(points_i, points_j, cv2.USAC_MAGSAC, 1.5, 0.999, 2000)
        except cv2.error:  # OpenCV 5 fails an assertion where its estimator finds no model
            continue
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


def gray(picture: Shaped[np.ndarray, "h w _"], side: int) -> UInt8[np.ndarray, "h2 w2"]:
    """Gray image with at most ``side`` pixels on its longer side; an alpha channel is ignored."""
    import cv2

    height, width = picture.shape[:2]
    factor = max(1.0, max(height, width) / side)
    size = (max(1, round(width / factor)), max(1, round(height / factor)))
    small = cv2.resize(np.ascontiguousarray(picture[..., :3]), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(images.to_uint8(small), cv2.COLOR_RGB2GRAY))
