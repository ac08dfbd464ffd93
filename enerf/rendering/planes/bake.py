"""Baking: a plane stack from a radiance field of a forward-facing scene.

The field is sampled along the rays of the reference camera through all texels that a training camera can see. The alpha
of a texel is that of its slab, 1 − exp(−Σ σδ), its color the mean of the samples' colors by their weights within the
slab; with deferred shading it is decoded from their mean features. A plane is put at the mean depth of what is in its
slab. Then the stack is rendered from all training views, and texels and tiles that none of them sees are left out.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from enerf.core import files
from enerf.core.types import FeatureOutput, Rays, ShadedField
from enerf.datasets.scenes import rays as scenes_rays
from enerf.datasets.scenes.scene import Scene
from enerf.rendering import volume
from enerf.rendering.planes import kernel, layout
from enerf.rendering.planes.layout import Layout
from enerf.rendering.planes.stack import PlaneStack, assemble, cut

log = logging.getLogger("enerf")

SAMPLES = 128  # along a ray, at least
UNSEEN = 0.5 / 255  # largest weight in any training view of a texel that is left out
NEAR = 2.0  # slabs: standard deviation of the window in which features are averaged
_VISIBLE = 0.5 / 255  # alpha that is not rounded to 0

Progress = Callable[[float], None]


@dataclass(frozen=True)
class BakeSettings:
    """How a field is baked.

    Attributes
    ----------
    planes
        Number of planes; 0: by parallax, see ``layout.of_scene``.
    samples
        Samples of the field along each ray, at least.
    points_at_once
        Points that the field is evaluated at in one call.
    pixel_centers
        Position of the rays of training views in their pixels.
    """

    planes: int = 0
    samples: int = SAMPLES
    points_at_once: int = 1 << 17
    pixel_centers: float = 0.5


def bake(
    field: ShadedField, scene: Scene, settings: BakeSettings | None = None, progress: Progress = lambda share: None
) -> PlaneStack:
    """The plane stack of a field that is defined in the NDC of a scene.

    Parameters
    ----------
    field
        Density and color, or features, at points in NDC.
    scene
        Its training views decide the planes, their extent, and what is left out.
    settings
        Default: ``BakeSettings()``.
    progress
        Called with the share that is done, in [0, 1].

    Raises
    ------
    InputError
        If the textures do not fit in memory.
    """
    settings = settings or BakeSettings()
    arranged = layout.of_scene(scene, settings.planes)
    textures, t_vals = _textures(field, arranged, scene, settings, progress)
    keep = torch.stack([(cut(plane)[..., 3] > 0).flatten(2).any(-1) for plane in textures])
    tiles, index = assemble(textures, keep)
    stack = replace(arranged.empty(), t_vals=t_vals, tiles=tiles, index=index)
    stack = without_unseen(stack, scene, settings.pixel_centers)
    if not len(stack.tiles):
        log.warning("%s: the field is transparent wherever a training view sees: the planes are empty", scene.name)
    return stack


def _textures(
    field: ShadedField, arranged: Layout, scene: Scene, settings: BakeSettings, progress: Progress
) -> tuple[UInt8[Tensor, "d h w 4"], Float[Tensor, " d"]]:
    """Textures of all planes, and the depths of the planes."""
    camera, d = arranged.camera, len(arranged.edges) - 1
    files.require_memory(12 * d * camera.width * camera.height, f"{scene.name}: {d} planes")
    frusta = layout.in_frusta(arranged, scene)
    seen = (frusta[1:] | frusta[:-1]).flatten(1)  # slabs of texels
    per_slab = -(-settings.samples // d)
    edges = torch.linspace(0, 1, d * per_slab + 1)
    textures = torch.zeros(d, camera.height * camera.width, 4, dtype=torch.uint8)
    depths = torch.zeros(2, d, dtype=torch.float64)
    used = seen.any(0).nonzero()[:, 0]
    at_once = max(1, settings.points_at_once // (d * per_slab))
    done = 0
    for texels in used.split(at_once):
        rays = _texel_rays(arranged, scene, texels)
        rgba, weight, depth = _slabs(field, rays, edges, seen[:, texels].T)
        textures[:, texels] = (rgba * 255).round_().byte().transpose(0, 1)
        depths += torch.stack([(weight * depth).sum(0), weight.sum(0)]).double()
        progress((done := done + len(texels)) / len(used))
    middle = (arranged.edges[1:] + arranged.edges[:-1]) / 2
    t_vals = torch.where(depths[1] > 1e-6, depths[0] / depths[1].clamp(min=1e-6), middle)
    return textures.unflatten(1, (camera.height, camera.width)), t_vals


def _texel_rays(arranged: Layout, scene: Scene, texels: Tensor) -> Rays:
    """NDC rays of the reference camera through texels."""
    width = arranged.camera.width
    local = layout.texel_directions(arranged, (texels % width).double(), (texels // width).double())
    poses = arranged.c2w.expand(len(texels), 3, 4)
    rays = scenes_rays.posed(local.float(), poses.float(), near=0, far=1)
    return scenes_rays.to_ndc(rays, scene.camera)


@torch.no_grad()
def _slabs(
    field: ShadedField, rays: Rays, edges: Float[Tensor, " m"], seen: Bool[Tensor, "n d"]
) -> tuple[Float[Tensor, "n d 4"], Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """RGBA of the slabs of rays; their weights in the ray, and mean t. Slabs that are not seen are empty."""
    n, d = seen.shape
    per_slab = (len(edges) - 1) // d
    t_vals = ((edges[1:] + edges[:-1]) / 2).expand(n, -1)
    chosen = seen.repeat_interleave(per_slab, 1)
    ray, sample = chosen.nonzero(as_tuple=True)
    points = rays.origins[ray] + rays.directions[ray] * t_vals[0, sample][:, None]
    found = field(points[:, None], rays.viewdirs[ray])
    at_points = found.features if isinstance(found, FeatureOutput) else found.rgb
    density, values = torch.zeros(n, d * per_slab), torch.zeros(n, d * per_slab, at_points.shape[-1])
    density[chosen], values[chosen] = found.density[:, 0].float(), at_points[:, 0].float()
    delta = volume.widths(edges.expand(n, -1), rays.directions)
    weights = volume.weights(density.unflatten(1, (d, per_slab)), delta.unflatten(1, (d, per_slab)))
    alpha = weights.sum(-1)
    share = weights / alpha.clamp(min=1e-12)[..., None]
    color = (share[..., None] * values.unflatten(1, (d, per_slab))).sum(2)
    if isinstance(found, FeatureOutput):
        color = _decoded(found, color, alpha, rays.viewdirs)
    depth = (share * t_vals.unflatten(1, (d, per_slab))).sum(-1)
    in_ray = alpha * torch.cat([torch.ones(n, 1), (1 - alpha).cumprod(1)[:, :-1]], 1)
    return torch.cat([color, alpha[..., None]], -1).clamp(0, 1), in_ray, depth


def _decoded(
    found: FeatureOutput, features: Float[Tensor, "n d f"], alpha: Float[Tensor, "n d"], viewdirs: Float[Tensor, "n 3"]
) -> Float[Tensor, "n d 3"]:
    """Colors of slabs from their mean features, averaged with those of near slabs along the ray by alpha.

    The color network has learned means along rays, which a surface of some thickness fills from several slabs.
    """
    offsets = torch.arange(-round(3 * NEAR), round(3 * NEAR) + 1, dtype=torch.float32)
    window = torch.exp(-0.5 * (offsets / NEAR) ** 2)[None, None]

    def sums(values: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return functional.conv1d(values[:, None], window, padding=len(offsets) // 2)[:, 0]

    summed = torch.stack([sums(alpha * feature) for feature in features.unbind(-1)], -1)
    features = summed / sums(alpha).clamp(min=1e-6)[..., None]
    visible = alpha > _VISIBLE / 2
    rgb = torch.zeros(*alpha.shape, 3)
    ray = visible.nonzero()[:, 0]
    rgb[visible] = found.decode(features[visible], viewdirs[ray]).float()
    return rgb


def view_rays(scene: Scene, view: int, pixel_centers: float | int = 0.5) -> tuple[Rays, int]:
    """Scene-space rays of all pixels of a view, and how many there are in a row."""
    cameras = scene.cameras
    local, found = cameras.image(view, pixel_centers, scene.c2w.dtype)
    rays = scenes_rays.posed(local, scene.c2w[view].expand(len(local), 3, 4), near=0, far=1)
    blind = torch.where(found[:, None], rays.directions, torch.nan)
    return Rays(rays.origins, blind, rays.viewdirs, rays.near, rays.far), scene.size(view)[1]


def weights_in_views(stack: PlaneStack, scene: Scene, pixel_centers: float | int = 0.5) -> Float[Tensor, "n 32 32"]:
    """The largest rendering weight of each texel in any training view."""
    largest, tiles = torch.zeros(stack.tiles.shape[:3]), stack.tiles.float() / 255
    for view in scene.train:
        kernel.splat(stack, tiles, *view_rays(scene, view, pixel_centers), largest)
    return largest


def without_unseen(stack: PlaneStack, scene: Scene, pixel_centers: float | int = 0.5) -> PlaneStack:
    """The stack without texels and tiles that no training view sees; texels beside visible ones get their colors."""
    largest = weights_in_views(stack, scene, pixel_centers)
    visible = largest > UNSEEN
    tiles = stack.tiles.clone()
    tiles[..., 3] *= visible
    stack = replace(stack, tiles=filled(tiles))
    return stack.only(stack.visible())


def filled(tiles: UInt8[Tensor, "n 32 32 4"], rounds: int = 2) -> UInt8[Tensor, "n 32 32 4"]:
    """Tiles in which texels of alpha 0 have the mean color of their visible neighbors, or else that of the tile."""
    return torch.cat(list(_filled(tiles, rounds))) if len(tiles) else tiles


def _filled(tiles: UInt8[Tensor, "n 32 32 4"], rounds: int) -> Iterator[UInt8[Tensor, "n 32 32 4"]]:
    for part in tiles.split(1024):
        rgb, alpha = part[..., :3].permute(0, 3, 1, 2).float(), part[:, None, ..., 3]
        known = (alpha > 0).float()
        mean = (rgb * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(min=1)
        for _ in range(rounds):
            near = functional.avg_pool2d(known, 3, 1, 1)
            colors = functional.avg_pool2d(rgb * known, 3, 1, 1) / near.clamp(min=1e-6)
            rgb = torch.where(known > 0, rgb, colors)
            known = (near > 0).float()
        rgb = torch.where(known > 0, rgb, mean)
        yield torch.cat([rgb.round(), alpha], 1).byte().permute(0, 2, 3, 1)
