"""Photographs as a moving camera sees them: the nearest one, moved to the camera's view by the rendered depth."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.datasets.scenes import pixels
from enerf.datasets.scenes.scene import Scene
from enerf.viewer import poses

TURN = 2.0  # distances between cameras that a turn by one radian counts as


def nearest(scene: Scene, c2w: Float[Tensor, "3 4"]) -> int:
    """Index of the photograph taken nearest to a pose: the distance of the centers and the angle of the axes count.

    Distances are in units of the median distance between a camera and its nearest neighbor.
    """
    distance = (scene.c2w[:, :, 3] - c2w[:, 3]).norm(dim=-1) / poses.spacing(scene)
    angle = (scene.c2w[:, :, 2] @ c2w[:, 2]).clamp(-1, 1).arccos()
    return int((distance + TURN * angle).argmin())


def moved(
    scene: Scene, index: int, points: Float[Tensor, "h w 3"]
) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    """Colors of a photograph at scene points, and which points it shows; occlusion is ignored.

    Points that are not finite are not shown.
    """
    height, width = points.shape[:2]
    pose, flat = scene.c2w[index], points.reshape(-1, 3)
    finite = flat.isfinite().all(-1)
    local = (torch.where(finite[:, None], flat, 0.0) - pose[:, 3]) @ pose[:, :3]
    at, valid = scene.cameras.project(torch.full((len(flat),), index, device=flat.device), local)
    rows, columns = scene.size(index)
    size = torch.tensor([columns, rows], device=flat.device)
    shown = valid & finite & ((at >= 0) & (at <= size)).all(-1)
    photograph = pixels.view_image(scene, index).to(flat).permute(2, 0, 1)[None]
    grid = torch.where(shown[:, None], 2 * at / size - 1, 0.0).reshape(1, height, width, 2)
    colors = torch.nn.functional.grid_sample(photograph, grid, padding_mode="border", align_corners=False)
    return colors[0].permute(1, 2, 0), shown.reshape(height, width)
