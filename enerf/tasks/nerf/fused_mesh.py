"""Mesh source of a NeRF run by fusion of depth maps (``geometry.fusion``), in the place of its density.

Colors are those that the cameras of the depth maps render. The field's color at a single point of the mesh is not what
a camera sees, which is a mean along the ray: points of a mesh are more or less deep in a surface, and so their colors
are harsher and more uneven than those of pictures.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.errors import InputError
from enerf.datasets.scenes import coordinates
from enerf.datasets.scenes.scene import Scene
from enerf.geometry.fusion import FusedDepths, Truncation
from enerf.geometry.isosurface.source import FusionSettings, MeshSource, Points, Support
from enerf.tasks.nerf import depth_maps
from enerf.tasks.nerf.views import Renderer

LEAST_CELLS = 3  # of the lattice in the truncation
NDC_SHARE = 0.02  # truncation in NDC, as a share of the longest side of the box
DISTANCE_SHARE = 0.01  # truncation in scene coordinates, as a share of the distance from the camera
POINTS_AT_ONCE = 1 << 15  # at which the distances are evaluated in one call
LEAST_VIEWS, LEAST_SHARE = 4, 0.25  # depth maps that see a part on average: a number, at most a share of the maps


def truncation_of(box: Float[Tensor, "2 3"], resolution: int, ndc: bool) -> Truncation:
    """The truncation for a box that is divided into ``resolution`` cells along its longest side."""
    side = float((box[1] - box[0]).max())
    cells = LEAST_CELLS * side / resolution
    return Truncation(max(cells, NDC_SHARE * side)) if ndc else Truncation(cells, DISTANCE_SHARE)


def fused(source: MeshSource, scene: Scene, renderer: Renderer, settings: FusionSettings) -> MeshSource:
    """Return a mesh source with the field of fused depth maps.

    Parameters
    ----------
    source
        Source of the run's density: its box and maps are taken, and its colors where no depth map sees the surface.
    scene, renderer
        The scene, whose training views are rendered, and the renderer of the field.
    settings
        Resolution of the lattice, number of rays and of cameras between the training views.

    Raises
    ------
    InputError
        If no depth map has a surface.
    """
    where = depth_maps.viewpoints(scene, settings.between)
    maps = depth_maps.surface_maps(scene, renderer, where, settings.rays, fill=not settings.no_fill)
    infinity = 1.0 if scene.ndc else 0.0
    if not any(bool(((each.weight > 0) & (each.level < infinity)).any()) for each in maps):
        raise InputError(f"{scene.name}: no ray of the training views meets a surface, expected some; train for longer")
    truncation = truncation_of(source.box, settings.resolution, scene.ndc)
    field = FusedDepths(maps, truncation, scene.camera if scene.ndc else None)
    sizes = sum(each.level.numel() for each in maps)
    return replace(
        source,
        field=field,
        iso_value=0.0,
        inside="below",
        description=f"{len(maps)} depth maps of {sizes:,} pixels in all, truncated at {_words(truncation, scene.ndc)}",
        points_at_once=POINTS_AT_ONCE,
        colors=None if source.colors is None else partial(_colors, field, scene, source.box, source.colors),
        support=Support(field.views_near, min(LEAST_VIEWS, LEAST_SHARE * len(maps))),
    )


@torch.no_grad()
def _colors(
    field: FusedDepths,
    scene: Scene,
    like: Tensor,
    otherwise: Callable[[Points, Points], Points],
    points: Points,
    normals: Points,
) -> Points:
    """Rendered colors of surface points with normals in world coordinates; ``otherwise`` where no map sees them."""
    rotation = scene.world_to_scene.double().cpu().numpy()[:3, :3]
    turned = normals @ (rotation / abs(np.cbrt(np.linalg.det(rotation)))).T
    at = (torch.from_numpy(part).to(like) for part in (coordinates.from_world(scene, points), turned))
    parts = [field.colors(*both) for both in zip(*(part.split(POINTS_AT_ONCE) for part in at), strict=True)]
    rgb, weight = (torch.cat(part).double().cpu().numpy() for part in zip(*parts, strict=True))
    unseen = weight == 0
    if unseen.any():
        rgb[unseen] = otherwise(points[unseen], normals[unseen])
    return np.asarray(rgb)


def _words(truncation: Truncation, ndc: bool) -> str:
    if ndc:
        return f"{truncation.length:.3g} of NDC depth"
    return f"{truncation.length:.3g} and {truncation.share:.0%} of the distance, in scene lengths"
