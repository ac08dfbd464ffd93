"""Camera poses as pure functions: conversion of axes, normalization, camera paths.

A pose ``c2w`` is a 3 × 4 camera-to-world matrix [R | t]: the columns of R are the camera's axes *right, up, back*
(OpenGL; the camera looks along −back) and t is its center. All arrays are float64, lengths are in the units of the
input poses, and every R returned is orthonormal and right-handed.

Sources: Mildenhall et al., Local Light Field Fusion (2019), for the LLFF axes and the spiral; Mildenhall et
al., NeRF (2020), for recentering and inward-facing scenes. The constants are those of nerf-pytorch.
"""

import numpy as np
from jaxtyping import Bool, Float64

# Conventions of the matrices [R | t] of pose files: the camera's axes, and w2c if they map world to camera coordinates.
# llff: down, right, back; opengl: right, up, back; opencv: right, down, forward.
AXES = ("llff", "opengl", "opencv", "llff_w2c", "opengl_w2c", "opencv_w2c")


def from_axes(matrices: Float64[np.ndarray, "n 3 4"], axes: str) -> Float64[np.ndarray, "n 3 4"]:
    """Camera-to-world poses with OpenGL axes from matrices in one of the conventions ``AXES``; R must be invertible.

    >>> from_axes(np.array([[[1.0, 0, 0, 7], [0, 1, 0, 8], [0, 0, 1, 9]]]), "opencv_w2c")[0].tolist()
    [[1.0, -0.0, -0.0, -7.0], [0.0, -1.0, -0.0, -8.0], [0.0, -0.0, -1.0, -9.0]]
    """
    camera, _, inverted = axes.partition("_")
    if inverted:
        inverse = np.linalg.inv(matrices[:, :, :3])
        matrices = np.concatenate([inverse, -inverse @ matrices[:, :, 3:]], axis=-1)
    if camera == "llff":
        return from_llff_axes(matrices)
    return matrices * np.array([1.0, -1, -1, 1]) if camera == "opencv" else matrices


def to_axes(c2w: Float64[np.ndarray, "n 3 4"], axes: str) -> Float64[np.ndarray, "n 3 4"]:
    """Matrices in one of the conventions ``AXES`` from camera-to-world poses with OpenGL axes: inverts ``from_axes``.

    >>> pose = np.array([[[1.0, 0, 0, 7], [0, 1, 0, 8], [0, 0, 1, 9]]])
    >>> [bool((from_axes(to_axes(pose, axes), axes) == pose).all()) for axes in AXES]
    [True, True, True, True, True, True]
    """
    camera, _, inverted = axes.partition("_")
    right, up, back, center = np.moveaxis(c2w, -1, 0)
    columns = {"llff": (-up, right, back), "opencv": (right, -up, -back)}.get(camera, (right, up, back))
    matrices = np.stack([*columns, center], axis=-1)
    if inverted:
        inverse = np.linalg.inv(matrices[:, :, :3])
        matrices = np.concatenate([inverse, -inverse @ matrices[:, :, 3:]], axis=-1)
    return matrices


def from_llff_axes(llff: Float64[np.ndarray, "n 3 4"]) -> Float64[np.ndarray, "n 3 4"]:
    """Poses with OpenGL axes from poses with LLFF's axes down, right, back; world coordinates are unchanged.

    >>> llff = np.array([[[0.0, 1, 0, 7], [-1, 0, 0, 8], [0, 0, 1, 9]]])
    >>> from_llff_axes(llff)[0].tolist()
    [[1.0, -0.0, 0.0, 7.0], [0.0, 1.0, 0.0, 8.0], [0.0, -0.0, 1.0, 9.0]]
    """
    down, right, back, center = np.moveaxis(llff, -1, 0)
    return np.stack([right, -down, back, center], axis=-1)


def are_rotations(c2w: Float64[np.ndarray, "n 3 4"], tolerance: float = 0.01) -> Bool[np.ndarray, " n"]:
    """Whether each pose's 3 × 3 part is a rotation times a positive scale, up to a relative ``tolerance``."""
    scales = np.linalg.svd(c2w[:, :, :3], compute_uv=False)
    uniform = scales[:, 2] > (1 - tolerance) * scales[:, 0]
    return uniform & (np.linalg.det(c2w[:, :, :3]) > 0)


def orthonormalize(c2w: Float64[np.ndarray, "n 3 4"]) -> Float64[np.ndarray, "n 3 4"]:
    """Poses with each 3 × 3 part replaced by the nearest rotation; centers are unchanged."""
    left, _, right = np.linalg.svd(c2w[:, :, :3])
    return np.concatenate([left @ right, c2w[:, :, 3:]], axis=-1)


def average(c2w: Float64[np.ndarray, "n 3 4"]) -> Float64[np.ndarray, "3 4"]:
    """Average pose: mean center, sum of the viewing directions, and the up axis nearest to the sum of the up axes."""
    rotation = _facing(c2w[:, :, 2].sum(0), c2w[:, :, 1].sum(0))
    return np.concatenate([rotation, c2w[:, :, 3].mean(0)[:, None]], axis=-1)


def recenter(
    c2w: Float64[np.ndarray, "n 3 4"],
) -> tuple[Float64[np.ndarray, "n 3 4"], Float64[np.ndarray, "4 4"]]:
    """Poses in the frame of their average pose, and the rigid transform from old to new world coordinates.

    >>> moved, transform = recenter(blender_circle(3))
    >>> bool(np.allclose(average(moved), np.eye(4)[:3]))
    True
    """
    transform = _inverse(average(c2w))
    return _apply(transform, c2w), transform


def meeting_point(c2w: Float64[np.ndarray, "n 3 4"], least: float = 1e-8) -> Float64[np.ndarray, "3"]:
    """The point nearest to all optical axes, in the least-squares sense.

    ``least`` bounds the mean squared sine of the angles between the axes and their mean direction, roughly.

    Raises
    ------
    ValueError
        If all cameras look the same way.
    """
    centers, back = c2w[:, :, 3], c2w[:, :, 2]
    projection = np.eye(3) - back[:, :, None] * back[:, None, :]  # onto the plane orthogonal to an optical axis
    if np.linalg.eigvalsh(projection.mean(0))[0] < least:
        raise ValueError("all cameras look the same way")
    return np.linalg.solve(projection.mean(0), np.einsum("nij,nj->i", projection, centers) / len(c2w))


def spherify(
    c2w: Float64[np.ndarray, "n 3 4"], bounds: Float64[np.ndarray, "n 2"]
) -> tuple[Float64[np.ndarray, "n 3 4"], Float64[np.ndarray, "n 2"], Float64[np.ndarray, "4 4"]]:
    """Normalized poses and bounds of cameras around an object, and the similarity from old to new world coordinates.

    The origin becomes the point nearest to all optical axes, in the least-squares sense; the z axis points from there
    to the mean camera center; and the cameras' root-mean-square distance from the origin becomes 1.

    Raises
    ------
    ValueError
        If all cameras look the same way or are at one point.
    """
    target = meeting_point(c2w)
    rotation = _facing((c2w[:, :, 3] - target).mean(0), np.array([0.1, 0.2, 0.3]))
    rigid = _inverse(np.concatenate([rotation, target[:, None]], axis=-1))
    moved = _apply(rigid, c2w)
    if _radius(moved) < 1e-12:
        raise ValueError("all cameras stand at one point")
    scale = 1 / _radius(moved)
    moved[:, :, 3] *= scale
    return moved, bounds * scale, np.diag([scale, scale, scale, 1.0]) @ rigid


def spiral(
    c2w: Float64[np.ndarray, "n 3 4"], bounds: Float64[np.ndarray, "n 2"], frames: int
) -> Float64[np.ndarray, "frames 3 4"]:
    """Spiral path of two turns about the average pose of a forward-facing scene; all frames look at one point.

    The radii are the 90th percentiles of the cameras' offsets from the average pose, along its axes. The depth of the
    target is between 0.9 times the nearest and 5 times the farthest bound (weights 1/4 and 3/4 in inverse depth). The
    last frame is one step before the first.
    """
    middle = average(c2w)
    radii = np.percentile(np.abs(_apply(_inverse(middle), c2w)[:, :, 3]), 90, axis=0)
    depth = 1 / (0.25 / (0.9 * bounds.min()) + 0.75 / (5.0 * bounds.max()))
    angles = np.linspace(0, 4 * np.pi, frames + 1)[:-1]
    offsets = np.stack([np.cos(angles), -np.sin(angles), -np.sin(0.5 * angles)], axis=-1) * radii
    centers = offsets @ middle[:, :3].T + middle[:, 3]
    target = middle @ np.array([0, 0, -depth, 1])
    return _poses_at(centers, centers - target, c2w[:, :, 1].sum(0))


def circle(c2w: Float64[np.ndarray, "n 3 4"], frames: int) -> Float64[np.ndarray, "frames 3 4"]:
    """Circular path about the z axis of a spherified scene; all frames look at the origin.

    Height and distance from the origin are the cameras' mean height and root-mean-square distance. The last frame
    equals the first, as in nerf-pytorch.
    """
    radius, height = _radius(c2w), c2w[:, 2, 3].mean()
    horizontal = np.sqrt(max(radius**2 - height**2, 0))
    angles = np.linspace(0, 2 * np.pi, frames)
    centers = np.stack([horizontal * np.cos(angles), horizontal * np.sin(angles), np.full(frames, height)], axis=-1)
    return _poses_at(centers, centers, np.array([0.0, 0, 1]))


def blender_circle(frames: int, radius: float = 4.0) -> Float64[np.ndarray, "frames 3 4"]:
    """Circular path about the z axis, at a distance from the origin and 30° elevation, looking at the origin.

    >>> blender_circle(4)[:, :, 3].round(3)
    array([[-0.   , -3.464,  2.   ],
           [-3.464,  0.   ,  2.   ],
           [ 0.   ,  3.464,  2.   ],
           [ 3.464,  0.   ,  2.   ]])
    """
    angles = np.linspace(-np.pi, np.pi, frames + 1)[:-1]
    tilt = np.pi / 6
    centers = radius * np.stack(
        [np.sin(angles) * np.cos(tilt), np.cos(angles) * np.cos(tilt), np.full(frames, np.sin(tilt))], axis=-1
    )
    return _poses_at(centers, centers, np.array([0.0, 0, 1]))


def interpolate(c2w: Float64[np.ndarray, "n 3 4"], frames: int) -> Float64[np.ndarray, "frames 3 4"]:
    """Path through the given poses in their order, from the first to the last, at equal time per pose.

    Centers are interpolated linearly, rotations by slerp along the shorter arc.
    """
    times = np.linspace(0, len(c2w) - 1, frames)
    start = np.minimum(times.astype(int), max(len(c2w) - 2, 0))
    stop = np.minimum(start + 1, len(c2w) - 1)
    share = times - start
    quaternions = np.stack([quaternion(pose[:, :3]) for pose in c2w])
    rotations = [
        rotation(_slerp(quaternions[i], quaternions[j], t)) for i, j, t in zip(start, stop, share, strict=True)
    ]
    centers = c2w[start, :, 3] * (1 - share[:, None]) + c2w[stop, :, 3] * share[:, None]
    return np.concatenate([np.stack(rotations), centers[:, :, None]], axis=-1)


def central_view(c2w: Float64[np.ndarray, "n 3 4"]) -> int:
    """Index of the camera nearest to the mean center, nerf-pytorch's default test view."""
    centers = c2w[:, :, 3]
    return int(np.argmin(((centers - centers.mean(0)) ** 2).sum(-1)))


def _radius(c2w: Float64[np.ndarray, "n 3 4"]) -> float:
    """Root-mean-square distance of the camera centers from the origin."""
    return float(np.sqrt((c2w[:, :, 3] ** 2).sum(-1).mean()))


def _unit(vector: Float64[np.ndarray, "3"], default: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3"]:
    """The vector normalized to length 1; ``default`` if it is zero."""
    length = np.linalg.norm(vector)
    return vector / length if length > 1e-12 else default


def _facing(back: Float64[np.ndarray, "3"], up: Float64[np.ndarray, "3"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation whose third column is parallel to ``back`` and whose second is as near to ``up`` as possible.

    If ``up`` is zero or parallel to ``back``, the world's y or else z axis replaces it, so that a perfectly symmetric
    ring of cameras still has an average.
    """
    z = _unit(back, np.array([0.0, 0, 1]))
    y = _unit(up, z)
    if np.linalg.norm(np.cross(y, z)) < 1e-6:
        y = np.eye(3)[1 if abs(z[1]) < 0.9 else 2]
    x = np.cross(y, z)
    x = x / np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], axis=-1)


def _poses_at(
    centers: Float64[np.ndarray, "n 3"], back: Float64[np.ndarray, "n 3"], up: Float64[np.ndarray, "3"]
) -> Float64[np.ndarray, "n 3 4"]:
    """Poses at the centers, each looking along −``back``."""
    rotations = np.stack([_facing(direction, up) for direction in back])
    return np.concatenate([rotations, centers[:, :, None]], axis=-1)


def _inverse(pose: Float64[np.ndarray, "3 4"]) -> Float64[np.ndarray, "4 4"]:
    """Homogeneous inverse of a rigid pose."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:, :3].T
    inverse[:3, 3] = -pose[:, :3].T @ pose[:, 3]
    return inverse


def _apply(transform: Float64[np.ndarray, "4 4"], c2w: Float64[np.ndarray, "n 3 4"]) -> Float64[np.ndarray, "n 3 4"]:
    """Poses after a rigid transform of world coordinates."""
    moved = transform[:3, :3] @ c2w
    moved[:, :, 3] += transform[:3, 3]
    return moved


def quaternion(rotation: Float64[np.ndarray, "3 3"]) -> Float64[np.ndarray, "4"]:
    """Unit quaternion (w, x, y, z) of a rotation, of either sign.

    The eigenvector of the largest eigenvalue of the symmetric matrix below; there are no special cases
    (Bar-Itzhack, 2000).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    matrix = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    return np.linalg.eigh(matrix)[1][:, -1]


def rotation(q: Float64[np.ndarray, "4"]) -> Float64[np.ndarray, "3 3"]:
    """Rotation of a unit quaternion (w, x, y, z)."""
    w, v = q[0], q[1:]
    cross = np.array([[0, -v[2], v[1]], [v[2], 0, -v[0]], [-v[1], v[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def _slerp(a: Float64[np.ndarray, "4"], b: Float64[np.ndarray, "4"], share: float) -> Float64[np.ndarray, "4"]:
    """Spherical linear interpolation from a to b at ``share`` in [0, 1], along the shorter arc."""
    b = -b if a @ b < 0 else b
    angle = np.arccos(min(a @ b, 1.0))
    between = a + share * (b - a) if angle < 1e-6 else np.sin((1 - share) * angle) * a + np.sin(share * angle) * b
    return between / np.linalg.norm(between)
