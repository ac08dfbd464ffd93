"""Where the planes of a scene are, and which of their texels training cameras can see, by their frusta alone."""

import logging
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from enerf.core.types import Camera
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.planes.stack import CELLS, PlaneStack, grid_size, ray_lines

log = logging.getLogger("enerf")

PARALLAX = 1.25  # pixels between neighboring planes, as the outermost training camera sees them
FEWEST, MOST = 8, 256  # planes
STEP = 8  # texels between the points that are tested against frusta
_LARGEST = 8192  # texels along a side
_BEHIND = 1e-3  # disparity that stands for infinity where a point is needed


@dataclass(frozen=True)
class Layout:
    """Reference camera and slabs of a plane stack.

    Attributes
    ----------
    c2w, camera
        As of ``PlaneStack``.
    edges
        Values of t between which the slabs are; the planes of a bake are within them.
    """

    c2w: Float[Tensor, "3 4"]
    camera: Camera
    edges: Float[Tensor, " m"]

    def empty(self) -> PlaneStack:
        """A stack of this layout without tiles, with planes in the middle of the slabs."""
        rows, columns = (self.camera.height - 1) // CELLS, (self.camera.width - 1) // CELLS
        middle = (self.edges[1:] + self.edges[:-1]) / 2
        index = torch.full((len(middle), rows, columns), -1, dtype=torch.int32)
        return PlaneStack(self.c2w, self.camera, middle, torch.zeros(0, 32, 32, 4, dtype=torch.uint8), index)


def of_scene(scene: Scene, planes: int = 0) -> Layout:
    """Layout of a scene in NDC: texels of the size of its camera's pixels, slabs of equal disparity.

    Parameters
    ----------
    scene
        Its camera at the origin is the reference camera, which NDC refer to. The grid covers what training cameras see
        at infinity and at the nearest depth of ``scene.bounds``.
    planes
        Number of slabs; 0: so many that the outermost training camera sees ``PARALLAX`` pixels between neighbors.
    """
    camera, c2w = scene.camera, torch.eye(3, 4, dtype=torch.float64)
    view, x, y = scene.cameras.to("cpu").border()
    chosen = torch.isin(view, torch.tensor(scene.train))
    view, x, y = view[chosen], x[chosen], y[chosen]
    poses = scene.c2w.double().cpu()[view]
    local = scene.cameras.to("cpu").directions(view, x.double(), y.double(), 0.0, torch.float64)
    directions = (poses[:, :, :3] @ local[:, :, None])[..., 0]
    base = Layout(c2w, camera, torch.tensor([0.0, 1.0], dtype=torch.float64)).empty()
    line, _ = ray_lines(base, poses[:, :, 3], directions)
    shift = float(line[:, 2:].norm(dim=1).max())
    count = planes or min(max(math.ceil(shift / PARALLAX), FEWEST), MOST)
    nearest = min(1.0, 1 / float(scene.bounds[list(scene.train)].min()))
    ends = torch.cat([line[:, :2], line[:, :2] + nearest * line[:, 2:]])
    low, high = ends.min(0).values.floor() - 1, ends.max(0).values.ceil() + 1
    size = (high - low + 1).clamp(max=_LARGEST)
    rows, columns = grid_size(int(size[0]), int(size[1]))
    left, top = float(low[0]), float(low[1])
    grid = Camera(
        *(columns * CELLS + 1, rows * CELLS + 1), camera.fx, camera.fy, float(camera.cx - left), float(camera.cy - top)
    )
    log.info(
        "%s: %d planes of %d x %d texels (parallax %.3g pixels)", scene.name, count, grid.width, grid.height, shift
    )
    return Layout(c2w, grid, torch.linspace(0, 1, count + 1, dtype=torch.float64))


def texel_directions(layout: Layout, x: Float[Tensor, " n"], y: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Directions with z = −1 of texels, in the frame of the reference camera, in float64."""
    camera = layout.camera
    right, up = (x.double() + 0.5 - camera.cx) / camera.fx, (camera.cy - y.double() - 0.5) / camera.fy
    return torch.stack([right, up, -torch.ones_like(right)], -1)


def in_frusta(layout: Layout, scene: Scene) -> Bool[Tensor, "m h w"]:
    """Whether texels of the planes at the edges of the slabs are in the image of a training camera, or nearly.

    A texel is tested by the points, ``STEP`` texels apart, around it: it counts if one of them is in an image.
    """
    camera, cameras = layout.camera, scene.cameras.to("cpu")
    x, y = (torch.arange(0, n + STEP, STEP, dtype=torch.float64) for n in (camera.width, camera.height))
    points = texel_directions(layout, *(part.flatten() for part in torch.meshgrid(x, y, indexing="xy")))
    poses, rotation, center = scene.c2w.double().cpu(), layout.c2w[:, :3], layout.c2w[:, 3]
    found = torch.zeros(len(layout.edges), len(points), dtype=torch.bool)
    for row, t in enumerate(layout.edges.tolist()):
        disparity = max(1 - t, _BEHIND)
        at = (points / disparity) @ rotation.T + center
        for view in scene.train:
            local = (at - poses[view, :, 3]) @ poses[view, :, :3]
            pixels, valid = cameras.project(torch.full((len(at),), view), local)
            size = cameras.sizes[view]
            found[row] |= valid & ((pixels >= 0) & (pixels <= size)).all(1)
    grid = found.reshape(-1, 1, len(y), len(x)).float()
    near = functional.max_pool2d(grid, 2, stride=1)  # of the four points around each block
    whole = near.repeat_interleave(STEP, 2).repeat_interleave(STEP, 3)
    return whole[:, 0, : camera.height, : camera.width] > 0
