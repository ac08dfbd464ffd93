"""Smooth camera paths through keyframes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

Poses = Float64[np.ndarray, "n 3 4"]


WRAPPED = 8  # keyframes before and after a closed path that its rotations take into account


@dataclass(frozen=True)
class Keyframe:
    """A camera that a path passes: pose (OpenGL axes) and vertical field of view in degrees."""

    c2w: Float64[np.ndarray, "3 4"]
    fov: float | int


def interpolated(
    keyframes: Sequence[Keyframe], times: Float64[np.ndarray, " f"], *, closed: bool = False
) -> tuple[Poses, Float64[np.ndarray, " f"]]:
    """Poses and fields of view at times in [0, 1], at equal time from one keyframe to the next.

    Centers and fields of view follow natural cubic splines, rotations scipy's ``RotationSpline``; both have continuous
    acceleration. ``closed`` appends the first keyframe at the end, which a path of three or more passes as smoothly as
    the others. Two keyframes are joined by a straight line.

    Raises
    ------
    ValueError
        If there is no keyframe.
    """
    if not keyframes:
        raise ValueError("a path needs a keyframe")
    passed = [*keyframes, keyframes[0]] if closed and len(keyframes) > 1 else list(keyframes)
    poses, fovs = np.stack([each.c2w for each in passed]), np.array([float(each.fov) for each in passed])
    if len(passed) == 1:
        return np.repeat(poses, len(times), 0), np.repeat(fovs, len(times))
    from scipy.interpolate import CubicSpline

    knots, at = np.arange(len(passed), dtype=np.float64), np.clip(times, 0, 1) * (len(passed) - 1)
    values = np.concatenate([poses[:, :, 3], fovs[:, None]], 1)
    ends = "periodic" if closed and len(passed) > 2 else "natural"
    smooth = CubicSpline(knots, values, bc_type=ends)(at)
    rotations = _rotations(poses[:, :, :3], at, wrapped=WRAPPED if closed and len(keyframes) > 2 else 0)
    limits = np.clip(smooth[:, 3], fovs.min(), fovs.max())
    return np.concatenate([rotations, smooth[:, :3, None]], -1), limits


def _rotations(
    passed: Float64[np.ndarray, "k 3 3"], at: Float64[np.ndarray, " f"], wrapped: int
) -> Float64[np.ndarray, "f 3 3"]:
    """Rotations at times from 0 to k - 1, at which the given ones are passed; with ``wrapped`` they go round."""
    from scipy.spatial.transform import Rotation, RotationSpline

    knots = np.arange(-wrapped, len(passed) + wrapped)
    chosen = knots % (len(passed) - 1) if wrapped else knots
    return np.asarray(RotationSpline(knots, Rotation.from_matrix(passed[chosen]))(at).as_matrix())
