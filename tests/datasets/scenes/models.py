"""Small scenes with random poses, cameras, points and observations, for tests of file formats."""

import math
from pathlib import Path

import numpy as np

from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, poses
from enerf.datasets.scenes.posed_images import Points, PosedImages


def random_poses(rng: np.random.Generator, n: int) -> np.ndarray:
    """Poses with uniformly distributed rotations."""
    quaternions = rng.normal(size=(n, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    centers = rng.normal(size=(n, 3, 1)) * 3
    return np.concatenate([np.stack([poses.rotation(q) for q in quaternions]), centers], axis=2)


def random_camera(rng: np.random.Generator, model: str) -> Camera:
    """A camera with small distortion."""
    width, height = (int(side) for side in rng.integers(20, 4000, 2))
    if model == "EQUIRECTANGULAR":
        return camera_models.camera_from_parameters(model, width, height, (width, height))
    fx, fy, cx, cy = rng.uniform(0.3, 2, 4) * width
    fy = fx if camera_models.MODELS[model].has_one_focal_length else fy
    coefficients = tuple(rng.normal(size=len(camera_models.MODELS[model].coefficients)).tolist())
    return Camera(width, height, *map(float, (fx, fy, cx, cy)), model, coefficients)


def random_scene(seed: int, n_views: int = 3, n_points: int = 5, n_observations: int = 8) -> PosedImages:
    """A scene as ``colmap.read`` gives it: sorted names, observations sorted by point and view, without repetition."""
    rng = np.random.default_rng(seed)
    models = rng.choice(list(camera_models.MODELS), n_views)
    pairs = np.unique(rng.integers(0, max(1, n_points * n_views), n_observations * (n_points > 0)))
    xyz = rng.normal(size=(n_points, 3)) * 10.0 ** rng.integers(-3, 4)
    points = Points(xyz, rng.integers(0, 256, (n_points, 3)).astype(np.uint8), *np.divmod(pairs, n_views))
    names = tuple(f"left/{i:03}.jpg" for i in range(n_views))
    return PosedImages(
        source=Path("generated"),
        names=names,
        files=tuple(Path("images") / name for name in names),
        cameras=tuple(random_camera(rng, str(model)) for model in models),
        c2w=random_poses(rng, n_views),
        points=points if n_points else None,
    )


def require_equal(found: PosedImages, expected: PosedImages, tolerance: float = 1e-9) -> None:
    """Check that names, cameras, poses and points are equal; positions and angles to a tolerance."""
    assert found.names == expected.names
    for one, other in zip(found.cameras, expected.cameras, strict=True):
        assert (one.model, one.width, one.height) == (other.model, other.width, other.height)
        ours, theirs = (camera_models.parameters_of(each) for each in (one, other))
        assert all(math.isclose(a, b, rel_tol=tolerance) for a, b in zip(ours, theirs, strict=True))
    np.testing.assert_allclose(found.c2w, expected.c2w, rtol=0, atol=tolerance)
    assert (found.points is None) == (expected.points is None)
    if found.points is not None:
        np.testing.assert_allclose(found.points.xyz, expected.points.xyz, rtol=tolerance)
        for part in ("rgb", "point", "view"):
            np.testing.assert_array_equal(getattr(found.points, part), getattr(expected.points, part))
