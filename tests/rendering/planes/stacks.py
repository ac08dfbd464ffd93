"""Small plane stacks for tests."""

from collections.abc import Sequence

import torch

from enerf.core.types import Camera
from enerf.rendering.planes.stack import CELLS, PlaneStack, assemble

POSE = torch.eye(3, 4, dtype=torch.float64)
CAMERA = Camera(2 * CELLS + 1, CELLS + 1, 40.0, 38.0, 30.0, 17.0)


def of_textures(textures: torch.Tensor, t_vals: Sequence[float], keep: torch.Tensor | None = None) -> PlaneStack:
    """A stack of float textures (d, 32, 63, 4)."""
    d = len(t_vals)
    whole = torch.ones(d, 1, 2, dtype=torch.bool) if keep is None else keep
    tiles, index = assemble((textures * 255).round().byte(), whole)
    return PlaneStack(POSE, CAMERA, torch.tensor(t_vals, dtype=torch.float64), tiles, index)


def random(d: int = 3, seed: int = 0, *, smooth: int = 4) -> PlaneStack:
    """A stack with smooth random textures, one of whose tiles is left out."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(d, 4, CAMERA.height // smooth, CAMERA.width // smooth, generator=generator)
    size = (CAMERA.height, CAMERA.width)
    textures = torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=True).permute(0, 2, 3, 1)
    keep = torch.ones(d, 1, 2, dtype=torch.bool)
    keep[d // 2, 0, 1] = False
    return of_textures(textures, torch.linspace(0.1, 1, d).tolist(), keep)
