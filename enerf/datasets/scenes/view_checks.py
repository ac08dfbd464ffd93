"""Checks of the views of a scene, common to all file formats: errors and warnings name the views.

Matrices are those of the file or poses; lengths are in the units of the file.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from enerf.core.errors import InputError
from enerf.datasets.scenes import normalization, pose_check, poses
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.packed_images import IndexedImages

log = logging.getLogger("enerf")
_examined: set[tuple[object, ...]] = set()
PARALLAX = 1e-4  # least distance between cameras, times the nearest depth: less than a tenth of a pixel
SAME_FOCAL = 1e-3  # relative difference of focal lengths and of shapes that counts as rounding
LOW_NEAR, HIGH_FAR = 0.1, 100.0  # times the median: bounds beyond are outliers
BEYOND_FAR, BEYOND_NEAR = 1e3, 1e6  # times the median far, the least near: distances of cameras that cannot be

Poses = Float64[np.ndarray, "n 3 4"]
Bounds = Float64[np.ndarray, "n 2"]
Pictures = Shaped[np.ndarray, "n h w _"] | Shaped[Tensor, "n h w _"] | IndexedImages


def name_views(selected: Bool[np.ndarray, " n"], names: Sequence[str], values: Sequence[float] | None = None) -> str:
    """Index and file name, and value if given, of up to five selected views, and the number of the others.

    >>> name_views(np.array([True, False, True]), ["a.png", "b.png", "c.png"], [1.0, 2.0, 3.5])
    'view 0 (a.png): 1, view 2 (c.png): 3.5'
    """
    at = np.flatnonzero(selected)
    text = [f"view {i} ({names[i]})" + ("" if values is None else f": {values[i]:g}") for i in at[:5].tolist()]
    return ", ".join(text) + (f" and {len(at) - 5} more" if len(at) > 5 else "")


def require_rotations(file: Path, matrices: Poses, names: Sequence[str]) -> None:
    """Check that all 3 × 3 parts are rotations; a uniform scale, which changes no picture, is logged.

    Raises
    ------
    InputError
        If one is sheared, mirrored or zero.
    """
    wrong = ~poses.are_rotations(matrices)
    if wrong.any():
        raise InputError(
            f"{file} has axes that are no rotation in {name_views(wrong, names)}, expected right-handed "
            "orthonormal axes."
        )
    scales = np.linalg.norm(matrices[:, :, 0], axis=1)
    scaled = np.abs(scales - 1) > 0.01
    if scaled.any():
        log.warning(
            "%s: rotations that are scaled are normalized: %s", file, name_views(scaled, names, scales.tolist())
        )


def require_one_shape(file: Path, aspect: Float64[np.ndarray, " n"], names: Sequence[str]) -> None:
    """Check that the images of all views have one shape; ``aspect`` are heights as parts of the width.

    Raises
    ------
    InputError
        If one differs from that of the median view by more than rounding.
    """
    usual = _usual(aspect)
    other = ~_agrees(aspect, usual)
    if other.any():
        raise InputError(
            f"{file} has heights that differ between views, {usual:g} of the width in most of them but "
            f"{name_views(other, names, aspect.tolist())}, expected images of one shape."
        )


def has_one_focal_length(focal: Float64[np.ndarray, " n"]) -> bool:
    """Whether focal lengths, as parts of the width, differ from that of the median view by no more than rounding."""
    return bool(_agrees(focal, _usual(focal)).all())


def _usual(values: Float64[np.ndarray, " n"]) -> float:
    """The value of a view that is nearest to the median."""
    return float(values[np.abs(values - float(np.median(values))).argmin()])


def _agrees(values: Float64[np.ndarray, " n"], usual: float) -> Bool[np.ndarray, " n"]:
    return np.abs(values - usual) <= SAME_FOCAL * usual


def require_parallax(file: Path, centers: Float64[np.ndarray, "n 3"], near: float, which: str = "cameras") -> None:
    """Check that the cameras are at more than one point; a single one is logged.

    Raises
    ------
    InputError
        If they are not: no depth can be learned from them.
    """
    if len(centers) < 2:
        log.warning("%s: no depth can be learned from one of the %s", file, which)
        return
    with np.errstate(over="ignore"):
        spread = float(np.linalg.norm((centers - centers[0]) / near, axis=1).max())  # of depths
    if spread < PARALLAX:
        raise InputError(
            f"{file} has all {which} at one point (they are {spread * near:g} apart, where depths begin at {near:g}), "
            "expected different places: no depth can be learned from these."
        )


def require_one_scale(
    file: Path, centers: Float64[np.ndarray, "n 3"], bounds: Bounds, names: Sequence[str], options: str = ""
) -> None:
    """Check that no camera is incomparably farther from the others than what it sees; ``options`` set the bounds.

    Raises
    ------
    InputError
        If one is: normalization would leave nothing of the scene.
    """
    near, far = float(bounds[:, 0].min()), float(np.median(bounds[:, 1]))
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.linalg.norm(centers / near - np.median(centers, axis=0) / near, axis=1)
        beyond = ~(away <= min(BEYOND_FAR * far / near, BEYOND_NEAR))
        away_in_file = np.linalg.norm(centers - np.median(centers, axis=0), axis=1).tolist()
    if beyond.any():
        raise InputError(
            f"{file} has cameras too far from the others: {name_views(beyond, names, away_in_file)}"
            f", where depths are between {near:g} and {far:g}, expected poses and bounds{options} of the same scale."
        )


def warn_of_equal_poses(file: Path, matrices: Poses, names: Sequence[str]) -> None:
    """Log views that have exactly the pose of an earlier one."""
    _, first, group = np.unique(matrices.reshape(len(matrices), -1), axis=0, return_index=True, return_inverse=True)
    again = first[group.ravel()] != np.arange(len(matrices))
    if again.any():
        log.warning("%s: the same pose as that of an earlier view in %s", file, name_views(again, names))


def robust_bounds(file: Path, bounds: Bounds, names: Sequence[str]) -> Bounds:
    """Bounds with outliers replaced by the extreme of the other views; logged. Others are unchanged.

    A near bound below a tenth of the median, or a far one above 100 times the median, is an outlier: of a single
    misplaced point, usually. The scene's scale is that of the nearest bound.
    """
    near, far = bounds[:, 0], bounds[:, 1]
    low, high = near < LOW_NEAR * np.median(near), far > HIGH_FAR * np.median(far)
    if not (low.any() or high.any()):
        return bounds
    least, most = float(near[~low].min()), float(far[~high].max())
    message = "%s: the %s bound is an outlier and replaced by the %s of the others, %g: %s"
    if low.any():
        log.warning(message, file, "near", "least", least, name_views(low, names, near.tolist()))
    if high.any():
        log.warning(message, file, "far", "greatest", most, name_views(high, names, far.tolist()))
    near, far = np.where(low, least, near), np.where(high, most, far)
    return np.stack([near, np.where(far > near, far, most)], axis=1)


def warn_of_range(file: Path, c2w: Poses, near: float, far: float) -> None:
    """Log a range of depths that does not contain the point at which cameras look; poses of OpenGL axes.

    Nothing is logged of cameras that do not look at one point.
    """
    target = normalization.looked_at(c2w)
    if target is None:
        return
    depths = -np.einsum("ni,ni->n", target - c2w[:, :, 3], c2w[:, :, 2])
    usual = float(np.median(depths))
    if not near <= usual <= far:
        low, high = float(max(depths.min(), 0.1 * usual)), float(depths.max())
        log.warning(
            "%s: the cameras look at a point that is %.3g to %.3g in front of them, outside of the range of depths, "
            "%g to %g; expected one that contains the scene, e.g. --near %.3g --far %.3g",
            *(file, depths.min(), high, near, far, 0.5 * low, 1.5 * high),
        )
    if np.linalg.norm(target) > usual:
        log.warning(
            "%s: the cameras look at the point (%.3g, %.3g, %.3g), expected one near the origin", file, *target.tolist()
        )


def warn_of_axes(file: Path, pictures: Pictures, matrices: Poses, axes: str, cameras: Cameras) -> None:
    """Log if the poses do not fit the photographs, which the cameras are those of. See ``pose_check``.

    A scene is examined once in a process, however many runs of a comparison read it.
    """
    key = (str(file), axes, hashlib.blake2b(matrices.tobytes()).digest(), cameras.rows)
    if key in _examined:
        return
    _examined.add(key)
    finding = pose_check.examine(lambda view: np.asarray(pictures[view]), matrices, axes, cameras)
    advice = finding.advice(axes) if finding else None
    if advice:
        log.warning("%s: %s (--no_pose_check skips this check)", file, advice)
