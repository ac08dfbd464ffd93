"""Plane stacks and scenes for tests of pages."""

import torch
from torch.nn import functional

from enerf.core.types import Camera
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.planes.stack import CELLS, PlaneStack, assemble
from tests.rendering.planes.stacks import POSE


def large(d: int, rows: int, columns: int, seed: int = 0) -> PlaneStack:
    """A stack of all tiles with smooth random textures, back planes more opaque."""
    generator = torch.Generator().manual_seed(seed)
    height, width = rows * CELLS + 1, columns * CELLS + 1
    coarse = torch.rand(d, 4, 2 * rows + 2, 2 * columns + 2, generator=generator)
    coarse[:, 3] = 0.05 + 0.5 * coarse[:, 3]
    coarse[-1, 3] = 1
    textures = functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    tiles, index = assemble(
        (textures.permute(0, 2, 3, 1) * 255).round().byte(), torch.ones(d, rows, columns, dtype=torch.bool)
    )
    camera = Camera(width, height, 0.8 * width, 0.8 * width, width / 2 + 3, height / 2 - 2)
    return PlaneStack(POSE, camera, torch.linspace(0.1, 1, d, dtype=torch.float64), tiles, index)


def forward_scene(camera: Camera | None = None, spread: float = 0.1) -> Scene:
    """Five cameras that look along -z, around the origin."""
    camera = camera or Camera(40, 40, 40.0, 40.0, 20.0, 20.0)
    c2w = torch.eye(3, 4).repeat(5, 1, 1)
    c2w[1:, :2, 3] = spread * torch.tensor([[1.0, 1], [-1, 1], [-1, -1], [1, -1]])
    return Scene(
        *("toy", torch.full((5, camera.height, camera.width, 3), 0.5), c2w, camera),
        *(torch.tensor([[1.0, 10.0]] * 5), tuple("abcde"), (0, 1, 2, 3, 4), ()),
        *(0, 1, True, True, torch.eye(4)),
    )
