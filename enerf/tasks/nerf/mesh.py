"""Mesh source of a NeRF run: density or fused depth maps, iso value, box, coordinate transforms and colors.

Three frames: the mesh is extracted in the **field** frame; cropped, cleaned, colored and written in the **world** frame
of the scene's files; and rendered in an upright **preview** frame.
"""

import dataclasses
import logging
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
from enerf.core.types import FeatureOutput, ScalarField
from enerf.datasets.scenes import coordinates, frusta, storage
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.fields.backends import module, registry
from enerf.fields.nerf import PointField
from enerf.geometry.isosurface.source import Box, MeshSource, MeshSourceSettings, Points, front_view
from enerf.geometry.preview import sphere_tracing
from enerf.geometry.preview.cameras import View
from enerf.rendering import iso_level
from enerf.rendering.iso_level import IsoValue
from enerf.tasks.nerf import fused_mesh, setup, views

log = logging.getLogger("enerf")

N_RAYS, N_SAMPLES = 2048, 512  # from which the iso value is estimated
SWING = 25.0  # degrees that preview cameras turn to each side, for forward-facing scenes


def mesh_source(folder: Path, settings: MeshSourceSettings) -> MeshSource:
    """Return the mesh source of a NeRF run: the density of its fine field, or of the coarse one if it has no other.

    Raises
    ------
    InputError
        If the run cannot be opened, the box is invalid, or no training ray reaches an opacity of one half in it.
    """
    run = setup.open_run(folder, settings.device, settings.source)
    renderer = views.renderer_of(run) if settings.fusion else None  # a copy of the fields, as they were trained
    recorded = run.record.trained(run.state.step)
    if settings.precision != "auto":
        recorded = dataclasses.replace(recorded, precision=settings.precision)  # requested explicitly: no warning
    backend = registry.choose("auto", settings.precision, run.device, recorded)
    log.info("the field is evaluated with backend %s", backend)
    registry.use(run.fields, backend)
    run.fields.eval().requires_grad_(False)
    module.freeze(run.fields)
    radiance = run.fields.coarse if run.fields.fine is None else run.fields.fine
    assert isinstance(radiance, PointField)
    scene = run.present_scene
    box = settings.box
    field_box = frusta.surface_box(scene) if box is None else frusta.field_box_from_world(scene, box)
    found = source_from_density(
        scene,
        radiance.densities(),
        partial(_colors, radiance, scene, run.device),
        torch.from_numpy(field_box).to(run.device, torch.float32),
        0.0 if settings.fusion else settings.level,
        bounds=box,
        points_at_once=core_device.points_at_once(
            run.device, run.config.render.netchunk, radiance.density_head.in_features
        ),
        pixel_centers=run.config.data.pixel_centers,
    )
    if settings.fusion is None or renderer is None:
        return found
    return fused_mesh.fused(found, scene, renderer, settings.fusion)


def source_from_density(
    scene: Scene,
    density: ScalarField,
    colors: Callable[[Points, Points], Points] | None,
    field_box: Float[Tensor, "2 3"],
    level: float | int | None = None,
    *,
    bounds: Box | None = None,
    points_at_once: int = 1 << 16,
    pixel_centers: float | int = 0.5,
) -> MeshSource:
    """Return the mesh source of a density.

    Parameters
    ----------
    scene
        Gives the cameras, the training rays and the transform between field and world coordinates.
    density, field_box
        The density as a function of points in field coordinates, and the box to search, in these coordinates.
    colors
        Colors of vertices from points and normals in world coordinates; None: no colors.
    level
        The iso value; None: estimated from the training rays.
    bounds
        Box in world coordinates to which the mesh is cropped.
    points_at_once
        Maximum number of points per evaluation.
    pixel_centers
        Position of a ray within its pixel.
    """
    if level is None:
        found = estimate_iso_value(scene, density, field_box, pixel_centers, points_at_once)
        level, origin = found.density, str(found)
    else:
        origin = f"level {level:g}, as requested"
    unit = "NDC length, and cells grow with the square of the distance" if scene.ndc else "scene length"
    ahead = scene.ndc or scene.forward_facing
    return MeshSource(
        name=scene.name,
        field=density,
        box=field_box,
        iso_value=level,
        inside="above",
        description=f"{origin}; densities are per unit of {unit}",
        points_at_once=points_at_once,
        to_world=partial(coordinates.to_world, scene),
        from_world=partial(coordinates.from_world, scene),
        colors=colors,
        camera_counts=partial(frusta.count_views, scene),
        bounds=bounds,
        frame=scene.world_to_scene.double().cpu().numpy(),
        view=partial(_camera_view, scene) if ahead else partial(front_view, up="z"),
        swing=SWING if ahead else 0.0,
    )


@torch.no_grad()
def estimate_iso_value(
    scene: Scene,
    density: ScalarField,
    box: Float[Tensor, "2 3"],
    pixel_centers: float | int = 0.5,
    points_at_once: int = 1 << 16,
) -> IsoValue:
    """Estimate the iso value of a density from random training rays within a box.

    Raises
    ------
    InputError
        If no ray reaches an opacity of one half in the box.
    """
    generator = rng.generator_for(0, 0)
    readable = storage.readable(scene.train, scene.masks)
    pixels = scenes_pixels.PixelSampler(scene, readable).draw(N_RAYS, generator)
    rays = scenes_pixels.rays_of(scene, pixels, pixel_centers)
    near, far = sphere_tracing.intersect_box(rays.origins, rays.directions, box)
    near, far = torch.maximum(near, rays.near), torch.minimum(far, rays.far)
    rays, near, far = rays[near < far], near[near < far], far[near < far]
    t_vals = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, N_SAMPLES, device=near.device)
    points = rays.at(t_vals).reshape(-1, 3)
    densities = torch.cat([density(part) for part in points.split(points_at_once)]).reshape(t_vals.shape)
    level = iso_level.iso_value_from_rays(densities, t_vals, rays.directions) if len(rays) else None
    if level is None:
        highest = float(densities.max()) if len(rays) else 0.0
        raise InputError(
            f"{scene.name}: no training ray reaches an opacity of 0.5 in the box, where the density reaches "
            f"{highest:.4g}; give --level, another --box, or a run that was trained for longer"
        )
    return level


@torch.no_grad()
def _colors(radiance: PointField, scene: Scene, device: torch.device, points: Points, normals: Points) -> Points:
    """Return the field's colors at points in world coordinates, seen from the training camera that is most frontal.

    The field was trained on such directions; the inward normals may be far from all of them, in forward-facing scenes.
    """
    at = torch.from_numpy(coordinates.from_world(scene, points)).to(device, torch.float32)
    viewdirs = torch.from_numpy(frusta.most_frontal_directions(scene, points, normals)).to(device, torch.float32)
    rgb = []
    for a, d in zip(at.split(1 << 16), viewdirs.split(1 << 16), strict=True):
        out = radiance(a[:, None], d)
        rgb.append((out.at_points(d) if isinstance(out, FeatureOutput) else out).rgb[:, 0])
    return torch.cat(rgb).double().cpu().numpy()


def _camera_view(scene: Scene, vertices: Points, size: int) -> View:
    """Return the view from the mean camera, at the origin of the scene, towards the median depth of the vertices."""
    camera = scene.camera
    depth = max(float(np.median(-vertices[:, 2])), 1e-6)
    width = max(2, round(size * camera.width / camera.height))
    fov = float(np.degrees(2 * np.arctan(camera.height / 2 / camera.fy)))
    return View((0.0, 0.0, -depth), depth, azimuth=0.0, elevation=0.0, width=width, height=size, fov=fov)
