"""Rendering and evaluation of whole views."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from enerf.conditioning import layers
from enerf.core import images
from enerf.core.progress import progress_bar
from enerf.core.types import Camera, Rays, Rendering
from enerf.datasets.scenes import camera_models, rays, storage
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.engine import distributed
from enerf.fields.backends import module
from enerf.fields.deferred import DeferredNeRF
from enerf.rendering import empty_space, render, view_rays
from enerf.rendering.render import Picture, SamplingConfig, in_chunks
from enerf.tasks.nerf import exposure, image_metrics, setup
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.exposure import Exposure
from enerf.tasks.nerf.setup import Run

MOST_VIEWS = 200  # views of the test curve, of the fit and of the constant image of large scenes


@dataclass(frozen=True)
class Renderer:
    """Renderer of rays in chunks of ``rays_at_once``; ``pixel_centers`` is the position of a ray within its pixel.

    ``exposure`` are the color maps of training views, if there are any; ``picture`` does not apply them.
    """

    render: Callable[[Rays], Rendering]
    rays_at_once: int
    pixel_centers: float = 0.5
    exposure: Exposure | None = None

    def picture(self, scene: Scene, c2w: Float[Tensor, "3 4"], camera: Camera) -> Picture:
        """Render a camera at a pose: rgb (h, w, 3) in [0, 1], depth and opacity (h, w).

        NDC refer to the scene's camera, as in training, whatever the camera rendered is.
        """
        camera_rays = rays.of_image(camera, c2w, scene.near, scene.far, self.pixel_centers)
        camera_rays = rays.to_ndc(camera_rays, scene.camera) if scene.ndc else camera_rays
        flat = in_chunks(self.render, camera_rays, self.rays_at_once)
        size = (camera.height, camera.width)
        return Picture(flat.rgb.reshape(*size, 3).clamp(0, 1), flat.depth.reshape(size), flat.opacity.reshape(size))

    def free_picture(self, scene: Scene, c2w: Float[Tensor, "3 4"], camera: Camera) -> Picture:
        """Render a camera anywhere, which NDC may not cover in part; what they do not cover is background.

        At poses of the scene it is the same as ``picture``.
        """
        view = view_rays.of_view(scene, camera, c2w, pixel_centers=self.pixel_centers)
        rendered = in_chunks(self.render, view.field_rays, self.rays_at_once) if len(view.field_rays) else None
        return view_rays.assembled(scene, view, rendered, camera)


def renderer_of(run: Run, skip: float = 0.0) -> Renderer:
    """Return a renderer of a baked copy of the fields; ``skip`` is the threshold of empty-space skipping (0: none).

    Levels enabled with refined poses are those of the run's step, as when it is opened: training leaves those of the
    step before.
    """
    fields = layers.bake(copy.deepcopy(run.fields)).eval()
    setup.open_windows(run.config, fields, run.state.step)
    fields.requires_grad_(False)
    module.freeze(fields)  # the copy's weights never change
    sampling = setup.run_sampling(run)
    at_once = setup.rays_at_once(run.config, run.device)
    rendering = partial(_final_rendering, fields, sampling, skip)
    return Renderer(rendering, at_once, run.config.data.pixel_centers, fields.exposure)


def _final_rendering(fields: RadianceFields, sampling: SamplingConfig, skip: float, batch: Rays) -> Rendering:
    if skip > 0 and fields.fine is not None and can_skip(fields, sampling):
        return empty_space.render_rays(fields.coarse, fields.fine, batch, sampling, skip)
    return render.render_rays(fields.coarse, fields.fine, batch, sampling)[1]


def can_skip(fields: RadianceFields, sampling: SamplingConfig) -> bool:
    """Whether empty-space skipping applies to fields: to coarse and fine ones without proposal or deferred shading."""
    is_deferred = isinstance(fields.fine, DeferredNeRF)
    return fields.fine is not None and sampling.n_importance > 0 and not sampling.proposal and not is_deferred


def psnr_of_pixels(renderer: Renderer, scene: Scene, views: Sequence[int], n: int) -> float:
    """Return the mean over views of the PSNR of ``n`` fixed pixels each (0: all); NaN if there are no views.

    Views of which masks exclude all pixels are left out.
    Training views are compared in the colors of their photographs, by their exposure maps.
    """
    found = distributed.current().map(partial(_psnr_of_view, renderer, scene, n), views)
    values = [value for value in found if value is not None]
    return sum(values) / len(values) if values else math.nan


def _psnr_of_view(renderer: Renderer, scene: Scene, n: int, view: int) -> float | None:
    """PSNR of ``n`` fixed pixels of a view; None if masks exclude all."""
    pixels = scenes_pixels.fixed_pixels(scene, view, n)
    if not len(pixels.view):
        return None
    rendering = in_chunks(
        renderer.render, scenes_pixels.rays_of(scene, pixels, renderer.pixel_centers), renderer.rays_at_once
    )
    rgb = _photographed(renderer, rendering, pixels.view.to(rendering.rgb.device), scene)
    return image_metrics.psnr(rgb, scenes_pixels.colors_of(scene, pixels))


@torch.no_grad()
def _photographed(renderer: Renderer, picture: Picture, view: Int[Tensor, " n"], scene: Scene) -> Float[Tensor, "n 3"]:
    """Colors of pixels as the photographs of their views show them."""
    if renderer.exposure is None:
        return picture.rgb
    below = scene.background * (1 - picture.opacity)[:, None]
    if not scene.has_alpha:
        return renderer.exposure(picture.rgb, view)
    return renderer.exposure(picture.rgb - below, view, picture.opacity) + below


def measure(renderer: Renderer, scene: Scene, views: Sequence[int], folder: Path | None) -> list[dict[str, Any]]:
    """Render views; return name, PSNR, SSIM and LPIPS of each; write the images to ``folder`` as PNG if it is given.

    Masked pixels do not count; for LPIPS, a mean over whole images, they are those of the photograph. Several processes
    share the views, and the first one writes.
    """
    team, measured = distributed.current(), []
    with closing(team.map(partial(_measured, renderer, scene), views)) as results:
        for view, (figures, image) in zip(
            progress_bar(None, "test views", "view", iterable=views), results, strict=True
        ):
            measured.append(figures)
            if folder is not None and team.is_first:
                images.write_png(folder / picture_name(scene, view), image)
    return measured


def _measured(renderer: Renderer, scene: Scene, view: int) -> tuple[dict[str, Any], UInt8[np.ndarray, "h w 3"]]:
    """Figures of a view, and its rendering as bytes."""
    picture = renderer.picture(scene, scene.c2w[view], scene.cameras.camera(view))
    rgb = picture.rgb.cpu()
    target, mask = scenes_pixels.view_image(scene, view).cpu(), scenes_pixels.view_mask(scene, view)
    seen = rgb if mask is None else torch.where(mask.cpu()[..., None], rgb, target)
    figures: dict[str, Any] = {
        "name": scene.image_names[view],
        "psnr": image_metrics.psnr(rgb, target, mask),
        "ssim": image_metrics.ssim(seen, target, mask),
        "lpips": image_metrics.lpips(seen, target),
    }
    if renderer.exposure is not None:
        halves = exposure.half_scores(rgb, target, None if mask is None else mask.cpu(), renderer.exposure.kind)
        figures["halves"] = halves
        if scene.exposures is not None:
            mapped = _by_exposure(renderer.exposure, picture, view, scene).cpu()
            figures["psnr_by_exif"] = image_metrics.psnr(mapped, target, mask)
    return figures, images.to_uint8(rgb)


@torch.no_grad()
def _by_exposure(maps: Exposure, picture: Picture, view: int, scene: Scene) -> Float[Tensor, "h w 3"]:
    """Colors of a view with the map of its exposure by EXIF data."""
    assert scene.exposures is not None
    opacity = picture.opacity if scene.has_alpha else torch.ones_like(picture.opacity)
    below = scene.background * (1 - opacity)[..., None]
    return (maps.by_exposure(picture.rgb - below, view, scene.exposures, opacity) + below).clamp(0, 1)


def picture_name(scene: Scene, view: int) -> str:
    """Return the name of the PNG file of a rendered view: the stem of its photograph's name, if no other has the same.

    Otherwise the whole name, with folders, and the suffix of PNG files appended, which differs between views.
    """
    name = Path(scene.image_names[view])
    unique = sum(Path(other).stem == name.stem for other in scene.image_names) == 1
    return f"{name.stem}.png" if unique else f"{name.as_posix()}.png"


def means(measured: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the mean over views of each metric; None if a view lacks it."""
    return {key: image_metrics.mean([m[key] for m in measured]) for key in ("psnr", "ssim", "lpips")}


def preview_camera(camera: Camera, pixels: int = 10_000) -> Camera:
    """Return the camera with its image downsampled to about ``pixels`` pixels at most.

    >>> preview_camera(Camera(400, 300, 400.0, 400.0, 200.0, 150.0), 1200).width
    40
    """
    return camera_models.resized(camera, max(1.0, (camera.width * camera.height / pixels) ** 0.5))


def sampled(scene: Scene, views: Sequence[int]) -> Sequence[int]:
    """Return views of a scene; of a large one ``MOST_VIEWS``, evenly over them, if they are more."""
    return storage.evenly(views, MOST_VIEWS) if scene.is_large else views


def constant_psnr(scene: Scene) -> float:
    """Return the test PSNR of a constant image: the mean color of the training views; masked pixels do not count.

    Of large scenes, some of the training and test views are used, see ``sampled``.
    """
    means = torch.stack([_mean_color(scene, view) for view in sampled(scene, scene.train)])
    color, values = means[means.isfinite().all(1)].mean(0), []
    for view in sampled(scene, scene.test):
        target = scenes_pixels.view_image(scene, view)
        values.append(image_metrics.psnr(color.expand_as(target), target, scenes_pixels.view_mask(scene, view)))
    return sum(values) / len(values) if values else math.nan


def _mean_color(scene: Scene, view: int) -> Float[Tensor, "3"]:
    """Return the mean color of a view's pixels that masks do not exclude; NaN if there are none."""
    image, mask = scenes_pixels.view_image(scene, view), scenes_pixels.view_mask(scene, view)
    return image.mean((0, 1)) if mask is None else image[mask].mean(0)
