"""Probe of a NeRF run: the photometric loss of a fixed batch of rays, twice differentiable.

Rays are sampled without jitter or noise, and the batch is not split.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.conditioning.diagnostics import curvature
from enerf.conditioning.diagnostics.curvature import Objective
from enerf.config import parser
from enerf.core import device as core_device
from enerf.core import rng
from enerf.core.types import Proposal, Rays
from enerf.datasets.scenes import bounds, storage
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe, analyzed_layers, parameters_of
from enerf.fields import conditioning
from enerf.fields.backends import registry
from enerf.fields.nerf import HEADS
from enerf.rendering import render
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import batches, build, losses, refinement, setup
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.step import ViewTerms


def open_probe(saved: dict[str, Any], settings: ProbeSettings) -> RunProbe:
    """Return the probe of a NeRF run; its batch are random pixels of training views, the same for all runs of a scene.

    The weights stay conditioned, and are evaluated by plain torch in fp32, whatever backend trained them.
    """
    config = parser.from_dict(
        nerf_config.NerfConfig, {**saved, **({"datadir": settings.source} if settings.source else {})}
    )
    config = setup.with_background(config, saved)
    device, proposal = core_device.resolve_device(settings.device), config.render.sampler == "proposal"
    scene = setup.load_scene(config, pose_check=False)  # stays on the CPU; only the batch is moved to the device
    config = setup.with_spacing(config, saved, scene)
    fields = build.radiance_fields(
        config.model,
        config.conditioning,
        config.render.N_importance > 0,
        config.train.seed,
        proposal=proposal,
        space=bounds.space_of(scene),
        contracted=config.render.spacing == "piecewise" and not scene.ndc,
    )
    build.add_views(fields, config.capture, scene)
    fields.to(device)
    registry.use(fields, registry.make("torch", "fp32", device))
    names = analyzed_layers(fields, settings.layers, HEADS)
    generator = rng.generator_for(settings.seed, 0)
    readable = storage.readable(scene.train, scene.images, scene.masks)
    pixels = scenes_pixels.PixelSampler(scene, readable).draw(settings.samples, generator)
    rays, colors = (
        scenes_pixels.rays_of(scene, pixels, config.data.pixel_centers),
        scenes_pixels.colors_of(scene, pixels),
    )
    sampling, plain = setup.sampling_config(config, scene), replace(scene, ndc=False)

    def at(path: Path) -> CheckpointProbe:
        content, model = checkpoint.read(path), copy.deepcopy(fields).eval()
        checkpoint.load_weights(model, content["model"], path)
        curvature.make_differentiable_(model)
        parameters = parameters_of(model, names) if settings.layers else ()
        views = ViewTerms(pixels.view, batches.behind(config, scene)) if fields.exposure is not None else None
        setup.open_windows(config, model, content["step"])
        seen = rays
        if model.poses is not None:
            with torch.no_grad():
                poses = copy.deepcopy(model.poses).to("cpu")  # as the scene is
                moved = poses(scenes_pixels.rays_of(plain, pixels, config.data.pixel_centers), pixels.view)
                seen = refinement.to_field(moved, scene.camera if scene.ndc else None)
        loss = photometric(model, sampling, seen, colors, parameters, views)
        return CheckpointProbe(content["step"], model, names, loss)

    return RunProbe(scene.name, conditioning.method_name(config.conditioning, lrate=config.train.lrate), at)


class RayColors(nn.Module):
    """Module from rays, as rows of 11 numbers, to the colors of each rendering with a photometric loss.

    With exposure maps a twelfth number is the view; ``behind`` is as for ``losses.exposed``.
    """

    def __init__(self, fields: RadianceFields, sampling: SamplingConfig, behind: float | None = None) -> None:
        super().__init__()
        self.fields, self.sampling, self.behind = fields, sampling, behind

    def forward(self, rows: Float[Tensor, "b r"]) -> Float[Tensor, "b p 3"]:
        """Return the colors of the coarse and the fine rendering, or of the final one only."""
        rays = Rays(rows[:, :3], rows[:, 3:6], rows[:, 6:9], rows[:, 9], rows[:, 10])
        first, final = render.render_rays(self.fields.coarse, self.fields.fine, rays, self.sampling)
        trained = [final] if first is final or isinstance(first, Proposal) else [first, final]
        if self.fields.exposure is not None and rows.shape[1] > 11:
            view = rows[:, 11].long()
            trained = [losses.exposed(each, self.fields.exposure, view, self.behind) for each in trained]
        return torch.stack([rendering.rgb for rendering in trained], 1)


def rows(rays: Rays) -> Float[Tensor, "b 11"]:
    """Return rays as rows: origins, directions, viewdirs, near, far."""
    return torch.cat([rays.origins, rays.directions, rays.viewdirs, rays.near[:, None], rays.far[:, None]], -1)


def squared_errors(rendered: Float[Tensor, "b p 3"], targets: Float[Tensor, "b p 3"]) -> Float[Tensor, ""]:
    """Return the sum over renderings of the mean squared error, as ``losses.photometric``."""
    return (rendered - targets).square().mean((0, 2)).sum()


def photometric(
    fields: RadianceFields,
    sampling: SamplingConfig,
    rays: Rays,
    colors: Float[Tensor, "b 3"],
    parameters: tuple[nn.Parameter, ...] = (),
    views: ViewTerms | None = None,
) -> Objective:
    """Return the photometric loss of rays as a function of ``parameters``, by default all parameters of the fields.

    With proposal sampling the interlevel loss and the parameters of the proposal are not included, nor are those of
    exposure maps, which are applied if the ``views`` of the rays are given, and of refined poses. The batch is moved to
    the device of the fields.
    """
    n_renderings = 1
    if not parameters and (fields.exposure is not None or fields.poses is not None):
        parts = [fields.fine] if sampling.proposal else [fields.coarse, fields.fine]
        parameters = tuple(parameter for part in parts if part is not None for parameter in part.parameters())
    if fields.fine is not None and sampling.proposal:
        parameters = parameters or tuple(fields.fine.parameters())
    elif fields.fine is not None and sampling.n_importance > 0:
        n_renderings = 2
    device = next(fields.parameters()).device
    targets = colors.to(device)[:, None].expand(-1, n_renderings, -1)
    inputs, behind = rows(rays), None
    if views is not None:
        inputs, behind = torch.cat([inputs, views.view[:, None].to(inputs)], -1), views.behind
    return Objective(RayColors(fields, sampling, behind), squared_errors, inputs.to(device), targets, parameters)
