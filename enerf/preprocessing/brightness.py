"""Brightness of photographs against one another, measured at the points that several of them show."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from enerf.core import files, image_formats
from enerf.core.progress import progress_bar
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.posed_images import PosedImages

UNEVEN = 0.08  # root mean square of the log gains, above which colors of photographs do not fit one another
_SIDE = 800  # pixels of the longer side at which colors are read
_DARKEST, _BRIGHTEST = 0.06, 0.94  # of colors that are compared: others may be clipped
_SMALL = 0.01  # error of a log color, below which it is not weighted higher
_ROUNDS = 50


def log_gains(posed: PosedImages) -> Float64[np.ndarray, "v 3"]:
    """Log gain of each photograph and channel; their mean is 0, and so is the gain of a photograph without points.

    The log of a color is the sum of one number for the photograph and one for the point. They are fitted alternately,
    by means weighted with the inverse of the absolute errors, so that highlights and wrong points hardly count.
    """
    found = np.zeros((len(posed.names), 3))
    points = posed.points
    if points is None or not len(points.point):
        return found
    colors, used = _observed(posed)
    view, (known, point) = points.view[used], np.unique(points.point[used], return_inverse=True)
    log_color, of_point = np.log(colors[used]), np.zeros((len(known), 3))
    weights = np.ones_like(log_color)
    for _ in range(_ROUNDS):
        of_point = _means(point, log_color - found[view], weights, len(known))
        found = _means(view, log_color - of_point[point], weights, len(found))
        found -= found.mean(axis=0)
        weights = 1 / np.maximum(np.abs(log_color - found[view] - of_point[point]), _SMALL)
    return found


def _means(
    index: Int64[np.ndarray, " k"], values: Float64[np.ndarray, "k 3"], weights: Float64[np.ndarray, "k 3"], n: int
) -> Float64[np.ndarray, "n 3"]:
    """Weighted mean of the values of each of ``n`` indices; 0 where there are none."""
    sums = [
        np.bincount(index, values[:, c] * weights[:, c], n) / np.maximum(np.bincount(index, weights[:, c], n), 1e-9)
        for c in range(3)
    ]
    return np.stack(sums, axis=1)


def spread(log_gains: Sequence[Sequence[float]] | Float64[np.ndarray, "v 3"]) -> float:
    """Root mean square of log gains, of the channel that differs most.

    >>> spread([[0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    0.1
    """
    return float(np.sqrt(np.square(np.asarray(log_gains)).mean(axis=0)).max())


def _observed(posed: PosedImages) -> tuple[Float64[np.ndarray, "k 3"], Bool[np.ndarray, " k"]]:
    """Colors at the projections of observed points, and which of them are in the image and not too dark or bright."""
    points = posed.points
    assert points is not None
    offsets = points.xyz[points.point] - posed.c2w[points.view, :, 3]
    local = np.einsum("kji,kj->ki", posed.c2w[points.view, :, :3], offsets)
    projected, valid = Cameras(posed.cameras).project(torch.from_numpy(points.view), torch.from_numpy(local))
    xy, colors = projected.numpy(), np.zeros((len(points.view), 3))
    bar = progress_bar(None, "compare brightness", "image", iterable=posed.files, delay=2, leave=False)
    for i, (file, camera) in enumerate(zip(bar, posed.cameras, strict=True)):
        (here,) = np.nonzero(points.view == i)
        if not len(here):
            continue
        small = _smoothed(file)
        scale = np.array([small.shape[1] / camera.width, small.shape[0] / camera.height])
        column, row = np.floor(xy[here] * scale).astype(np.int64).T
        inside = (column >= 0) & (row >= 0) & (column < small.shape[1]) & (row < small.shape[0])
        colors[here[inside]] = small[row[inside], column[inside]]
    usable = ((colors > _DARKEST) & (colors < _BRIGHTEST)).all(axis=1)
    return colors, usable & valid.numpy()


def _smoothed(file: Path) -> Float64[np.ndarray, "h w 3"]:
    """An upright image at about 800 pixels, in [0, 1], each pixel a mean of its neighborhood."""
    with files.open_regular(file) as opened, image_formats.open_image(opened) as photo:
        photo.draft("RGB", (_SIDE, _SIDE))  # JPEG is decoded at a fraction of its size
        shrink = max(1, max(photo.size) // _SIDE)
        pixels = np.asarray(photo.convert("RGB").reduce(shrink), dtype=np.float64) / 255
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.5))
