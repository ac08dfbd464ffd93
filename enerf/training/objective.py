"""The training loss of some rays, or of samples of a shape, as an objective that can be differentiated twice.

No jitter, no noise, no parts.
"""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.conditioning.curvature import Objective
from enerf.fields.build import RadianceFields
from enerf.rendering import render
from enerf.rendering.render import Passes
from enerf.shapes.points import ShapeSamples
from enerf.training import shape_losses, shape_steps
from enerf.training.shape_steps import DistanceLoss
from enerf.types import Proposal, Rays


class RayColours(nn.Module):
    """Rays as rows of 11 numbers -> their colours, of each pass that is trained on photographs."""

    def __init__(self, fields: RadianceFields, passes: Passes) -> None:
        super().__init__()
        self.fields, self.passes = fields, passes

    def forward(self, rows: Float[Tensor, "b 11"]) -> Float[Tensor, "b p 3"]:
        """Colours of the coarse pass and the final one, or of the final one alone."""
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
    passes: Passes,
    rays: Rays,
    colours: Float[Tensor, "b 3"],
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
    targets = colours.to(device)[:, None].expand(-1, n_passes, -1)
    return Objective(RayColours(fields, passes), squared_errors, rows(rays).to(device), targets, parameters)


def of_shape(
    field: nn.Module,
    samples: ShapeSamples,
    distance_loss: str = "mape",
    truncate: float | int = 0.1,
    parameters: tuple[nn.Parameter, ...] = (),
) -> Objective:
    """The loss of a field at some samples, as a function of its parameters or of those that are named.

    That of signed distances if the samples have them, else that of occupancy logits; losses of gradients are left out.
    """
    if samples.distances is None:
        return Objective(field, shape_losses.occupancy, samples.points, samples.labels, parameters)
    loss = DistanceLoss(distance_loss, truncate)
    error = partial(shape_steps.distance_error, loss=loss)
    return Objective(field, error, samples.points, samples.distances, parameters)
