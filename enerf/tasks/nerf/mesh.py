"""What meshes are extracted from: a run's field, where it lives, and the way from there to the user's coordinates.

Three frames: that of the **field**, in which the mesh is marched; the **world** of the user's files, in which it is
cropped, polished, colored and written; and an upright **picture frame**.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import device as core_device
from enerf.core import rng
from enerf.core.errors import InputError
from enerf.core.types import ScalarField, Scene
from enerf.datasets.scenes import coordinates, frusta
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.fields.backends import module, registry
from enerf.fields.nerf import NeRF
from enerf.geometry.isosurface.source import Box, MeshSource, MeshSourceSettings, Points, front_view
from enerf.geometry.preview import sphere_tracing
from enerf.geometry.preview.cameras import View
from enerf.rendering import iso_level
from enerf.rendering.iso_level import IsoValue
from enerf.tasks.nerf import setup

LEVEL_RAYS, LEVEL_SAMPLES = 2048, 512  # that the level of a density is told by
SWING = 25.0  # degrees to each side, for scenes that are seen from one side


def mesh_source(folder: Path, settings: MeshSourceSettings) -> MeshSource:
    """The density of a NeRF, of its fine field if it has one.

    Raises
    ------
    InputError
        If the run cannot be opened, the box makes no sense, or no training ray stops half of its light in it.
    """
    run = setup.open_run(folder, settings.device, settings.source)
    recorded = run.record.trained(run.state.step)
    if settings.precision != "auto":
        recorded = dataclasses.replace(recorded, precision=settings.precision)  # requested: no difference to warn of
    backend = registry.choose("auto", settings.precision, run.device, recorded)
    registry.use(run.fields, backend)
    run.fields.eval().requires_grad_(False)
    module.hold(run.fields)
    radiance = run.fields.coarse if run.fields.fine is None else run.fields.fine
    assert isinstance(radiance, NeRF)
    scene = run.scene
    box = settings.box
    where = frusta.surface_box(scene) if box is None else frusta.field_box_from_world(scene, box)
    return source_from_density(
        scene,
        radiance.densities(),
        partial(_colors, radiance, scene, run.device),
        torch.from_numpy(where).to(run.device, torch.float32),
        settings.level,
        bounds=box,
        points_at_once=core_device.points_at_once(
            run.device, run.config.render.netchunk, radiance.density_head.in_features
        ),
        pixel_centers=run.config.data.pixel_centers,
    )


def source_from_density(
    scene: Scene,
    density: ScalarField,
    colors: Callable[[Points, Points], Points] | None,
    where: Float[Tensor, "2 3"],
    level: float | int | None = None,
    *,
    bounds: Box | None = None,
    points_at_once: int = 1 << 16,
    pixel_centers: float | int = 0.5,
) -> MeshSource:
    """The subject of a scene and a density in its field's coordinates; its rays tell the level if none is given."""
    if level is None:
        found = iso_value_of(scene, density, where, pixel_centers, points_at_once)
        level, why = found.density, str(found)
    else:
        why = f"level {level:g}, as asked for"
    unit = "NDC length, and cells grow with the square of the distance" if scene.ndc else "scene length"
    ahead = scene.ndc or scene.forward_facing
    return MeshSource(
        name=scene.name,
        field=density,
        box=where,
        iso_value=level,
        inside="above",
        description=f"{why}; densities are per unit of {unit}",
        points_at_once=points_at_once,
        to_world=partial(coordinates.to_world, scene),
        from_world=partial(coordinates.from_world, scene),
        colors=colors,
        camera_counts=partial(frusta.count_views, scene),
        bounds=bounds,
        frame=scene.world_to_scene.double().cpu().numpy(),
        view=partial(_through_the_cameras, scene) if ahead else partial(front_view, up="z"),
        swing=SWING if ahead else 0.0,
    )


@torch.no_grad()
def iso_value_of(
    scene: Scene,
    density: ScalarField,
    box: Float[Tensor, "2 3"],
    pixel_centers: float | int = 0.5,
    points_at_once: int = 1 << 16,
) -> IsoValue:
    """The level that the training rays tell, where they pass the box.

    Raises
    ------
    InputError
        If none of them stops half of its light there.
    """
    generator = rng.generator_for(0, 0)
    pixels = scenes_pixels.random_pixels(torch.tensor(scene.train), scene.camera, LEVEL_RAYS, generator, one_view=False)
    rays = scenes_pixels.rays_of(scene, pixels, pixel_centers)
    near, far = sphere_tracing.through(rays.origins, rays.directions, box)
    near, far = torch.maximum(near, rays.near), torch.minimum(far, rays.far)
    rays, near, far = rays[near < far], near[near < far], far[near < far]
    t_vals = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, LEVEL_SAMPLES, device=near.device)
    points = rays.at(t_vals).reshape(-1, 3)
    found = torch.cat([density(some) for some in points.split(points_at_once)]).reshape(t_vals.shape)
    level = iso_level.iso_value_from_rays(found, t_vals, rays.directions) if len(rays) else None
    if level is None:
        highest = float(found.max()) if len(rays) else 0.0
        raise InputError(
            f"{scene.name}: no training ray stops half of its light in the box, where the density reaches "
            f"{highest:.4g}; give --level, another --box, or a run that was trained for longer"
        )
    return level


@torch.no_grad()
def _colors(radiance: NeRF, scene: Scene, device: torch.device, points: Points, normals: Points) -> Points:
    """The field's colors of points in the world, along the sight of the training camera that sees them most frontally.

    It was trained along such directions, which the inward normal need not be near to: of a scene that is seen from one
    side, most normals look past all cameras.
    """
    at = torch.from_numpy(coordinates.from_world(scene, points)).to(device, torch.float32)
    sight = torch.from_numpy(frusta.most_frontal_directions(scene, points, normals)).to(device, torch.float32)
    rgb = [radiance(a[:, None], d).rgb[:, 0] for a, d in zip(at.split(1 << 16), sight.split(1 << 16), strict=True)]
    return torch.cat(rgb).double().cpu().numpy()


def _through_the_cameras(scene: Scene, vertices: Points, size: int) -> View:
    """The sight from the middle of the cameras, which is the origin of the scene, at the depth of most of the mesh."""
    camera = scene.camera
    depth = max(float(np.median(-vertices[:, 2])), 1e-6)
    width = max(2, round(size * camera.width / camera.height))
    fov = float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy)))
    return View((0.0, 0.0, -depth), depth, azimuth=0.0, elevation=0.0, width=width, height=size, fov=fov)
