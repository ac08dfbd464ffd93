"""Gradients of scalar fields with respect to the points, for normals and eikonal losses.

``with_gradient`` uses autograd: exact, and differentiable again (a ``ShapeField`` then uses its reference
implementation). ``differences`` uses central differences, two evaluations for each coordinate: it works with every
backend, and reaches beyond the grid cell of the point.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core.types import ScalarField


def with_gradient(
    field: ScalarField, points: Float[Tensor, "*b d"], *, for_training: bool = False
) -> tuple[Float[Tensor, "*b"], Float[Tensor, "*b d"]]:
    """Values, and their gradients with respect to the points.

    Parameters
    ----------
    field
        The field; each value depends on its own point only.
    points
        Where it is evaluated; they are detached.
    for_training
        Whether both results are differentiable with respect to the field's parameters; if not, they are detached.

    Examples
    --------
    >>> with_gradient(lambda x: x.norm(dim=-1) - 1.0, torch.tensor([[3.0, 4.0]]))
    (tensor([4.]), tensor([[0.6000, 0.8000]]))
    """
    with torch.enable_grad():
        at = points.detach().requires_grad_()
        values = field(at)
        (gradients,) = torch.autograd.grad(values.sum(), at, create_graph=for_training)
    return (values, gradients) if for_training else (values.detach(), gradients)


def differences(field: ScalarField, points: Float[Tensor, "*b d"], step: float | int) -> Float[Tensor, "*b d"]:
    """Gradients by central differences over ± ``step`` along each axis, exact for quadratic fields.

    Source: Li et al., Neuralangelo, CVPR 2023, equation 8.

    >>> differences(lambda x: (x * x).sum(-1), torch.tensor([[3.0, 0.0]]), 0.5)
    tensor([[6., 0.]])
    """
    offsets = step * torch.eye(points.shape[-1], dtype=points.dtype, device=points.device)
    around = torch.stack([points[..., None, :] + offsets, points[..., None, :] - offsets])
    ahead, behind = field(around).unbind(0)
    return (ahead - behind) / (2 * step)
