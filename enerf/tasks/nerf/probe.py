"""The training loss of some rays, or of samples of a shape, as an objective that can be differentiated twice.

No jitter, no noise, no parts.
"""

import copy
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
from enerf.datasets.scenes import bounds
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.engine import checkpoint
from enerf.engine.probe import CheckpointProbe, ProbeSettings, RunProbe, analyzed_layers, parameters_of
from enerf.fields import conditioning
from enerf.fields.backends import registry
from enerf.fields.nerf import HEADS
from enerf.rendering import render
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import build, setup
from enerf.tasks.nerf import config as nerf_config
from enerf.tasks.nerf.build import RadianceFields


def open_probe(saved: dict[str, Any], settings: ProbeSettings) -> RunProbe:
    """A NeRF, and the photometric loss of random pixels of its training views, the same for all runs of a scene.

    Its weights stay conditioned, and torch evaluates them in fp32, whatever has trained them.
    """
    config = parser.from_dict(
        nerf_config.NerfConfig, {**saved, **({"datadir": settings.source} if settings.source else {})}
    )
    device, proposal = core_device.resolve_device(settings.device), config.render.sampler == "proposal"
    scene = setup.load_scene(config)  # of which only the rays' colors go to the device
    fields = build.radiance_fields(
        config.model,
        config.conditioning,
        config.render.N_importance > 0,
        config.train.seed,
        proposal=proposal,
        space=bounds.space_of(scene),
    ).to(device)
    registry.use(fields, registry.make("torch", "fp32", device))
    names = analyzed_layers(fields, settings.layers, HEADS)
    generator = rng.generator_for(settings.seed, 0)
    pixels = scenes_pixels.random_pixels(
        torch.tensor(scene.train), scene.camera, settings.samples, generator, one_view=False
    )
    rays, colors = (
        scenes_pixels.rays_of(scene, pixels, config.data.pixel_centers),
        scenes_pixels.colors_of(scene, pixels),
    )
    passes = setup.sampling_config(config)

    def at(path: Path) -> CheckpointProbe:
        content, model = checkpoint.read(path), copy.deepcopy(fields).eval()
        checkpoint.load_weights(model, content["model"], path)
        curvature.make_differentiable_(model)
        some = parameters_of(model, names) if settings.layers else ()
        return CheckpointProbe(content["step"], model, names, photometric(model, passes, rays, colors, some))

    return RunProbe(scene.name, conditioning.method_name(config.conditioning), at)


class RayColors(nn.Module):
    """Rays as rows of 11 numbers -> their colors, of each pass that is trained on photographs."""

    def __init__(self, fields: RadianceFields, passes: SamplingConfig) -> None:
        super().__init__()
        self.fields, self.passes = fields, passes

    def forward(self, rows: Float[Tensor, "b 11"]) -> Float[Tensor, "b p 3"]:
        """Colors of the coarse pass and the final one, or of the final one alone."""
        asked = Rays(rows[:, :3], rows[:, 3:6], rows[:, 6:9], rows[:, 9], rows[:, 10])
        first, final = render.render_rays(self.fields.coarse, self.fields.fine, asked, self.passes)
        trained = [final] if first is final or isinstance(first, Proposal) else [first, final]
        return torch.stack([seen.rgb for seen in trained], 1)


def rows(rays: Rays) -> Float[Tensor, "b 11"]:
    """Rays as rows: origins, directions, viewdirs, near, far."""
    return torch.cat([rays.origins, rays.directions, rays.viewdirs, rays.near[:, None], rays.far[:, None]], -1)


def squared_errors(made: Float[Tensor, "b p 3"], targets: Float[Tensor, "b p 3"]) -> Float[Tensor, ""]:
    """The mean squared error of each pass, added up: ``losses.photometric``."""
    return (made - targets).square().mean((0, 2)).sum()


def photometric(
    fields: RadianceFields,
    passes: SamplingConfig,
    rays: Rays,
    colors: Float[Tensor, "b 3"],
    parameters: tuple[nn.Parameter, ...] = (),
) -> Objective:
    """The photometric loss of some rays as a function of the fields' parameters, or of those that are named.

    The loss that a proposal is fitted by is left out, and so are the proposal's parameters. The batch is moved to where
    the fields are.
    """
    n_passes = 1
    if fields.fine is not None and passes.proposal:
        parameters = parameters or tuple(fields.fine.parameters())
    elif fields.fine is not None and passes.n_importance > 0:
        n_passes = 2
    device = next(fields.parameters()).device
    targets = colors.to(device)[:, None].expand(-1, n_passes, -1)
    return Objective(RayColors(fields, passes), squared_errors, rows(rays).to(device), targets, parameters)
