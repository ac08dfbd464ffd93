"""Inductive gradient adjustment for images: batches in groups, and their loss; see ``optim.inductive``.

An image is divided into a grid of equal blocks, the groups. A step draws the same number of training pixels in each
block; the first of each stands for its block in the kernel. The authors' code for images takes all pixels in each step,
and the sum over a block in the place of one pixel; their code for radiance fields takes one.
"""

import math

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from enerf.core.errors import InputError
from enerf.fields.shape import ShapeField
from enerf.optim import inductive
from enerf.tasks.shape.picture import Picture

BLOCKS = 16  # along a side


def blocks_of(picture: Picture, side: int = BLOCKS) -> list[Int64[Tensor, " _"]]:
    """Return the training pixels of each of the ``side``² blocks, as flat indices.

    Raises
    ------
    InputError
        If a block has none.
    """
    height, width = picture.colors.shape[:2]
    rows, columns = picture.train_pixels // width, picture.train_pixels % width
    block = rows * side // height * side + columns * side // width
    order = block.argsort(stable=True)
    counts = torch.bincount(block, minlength=side * side)
    if int(counts.min()) == 0:
        raise InputError(
            f"option --iga: {picture.source} has {height} × {width} pixels, expected training pixels in each of "
            f"{side} × {side} blocks"
        )
    return list(picture.train_pixels[order].split(counts.tolist()))


def batch(
    picture: Picture, blocks: list[Int64[Tensor, " _"]], n: int, generator: torch.Generator
) -> tuple[Float32[Tensor, "p g 2"], Float32[Tensor, "p g 3"]]:
    """Return points and colors of p = max(1, n // g) pixels of each of g blocks, drawn with replacement."""
    p = max(1, n // len(blocks))
    drawn = torch.rand(len(blocks), p, generator=generator, dtype=torch.float64)
    chosen = torch.stack([b[(row * len(b)).long().clamp(max=len(b) - 1)] for b, row in zip(blocks, drawn, strict=True)])
    index = chosen.T.contiguous()
    shape = (*index.shape, -1)
    return picture.points(index.flatten()).reshape(shape), picture.colors_at(index.flatten()).reshape(shape)


def kernel(field: ShapeField, points: Float[Tensor, "g 2"]) -> Float[Tensor, "g g"]:
    """Return the neural tangent kernel of Σ_c f_c / √C at points, of all weights and biases of the network.

    The derivative of f(x_i) with respect to a weight matrix is the outer product of the derivative d_i with respect to
    the layer's output and the layer's input a_i: the kernel is the sum over layers of (d_i · d_j)(a_i · a_j + 1).
    """
    with torch.enable_grad():
        buffers, inputs, outputs = [field.encoder(points).detach()], [], []
        for description, layer in zip(field.network.layers, field.linears(), strict=True):
            inputs.append(torch.cat([buffers[source] for source in description.sources], -1))
            outputs.append(functional.linear(inputs[-1], layer.weight.detach(), layer.bias.detach()).requires_grad_())
            buffers.append(field.activation(outputs[-1]) if description.relu else outputs[-1])
        slopes = torch.autograd.grad(outputs[-1].sum() / math.sqrt(field.outputs), outputs)
    parts = [(d @ d.T) * (a @ a.T + 1) for d, a in zip(slopes, inputs, strict=True)]
    return torch.stack(parts).sum(0).detach()


def terms(
    field: ShapeField, points: Float[Tensor, "p g 2"], colors: Float[Tensor, "p g 3"], lowered: int
) -> dict[str, Tensor]:
    """Return the mean squared error, with the gradient (2 / N) Σ (S r) ∇f of the adjusted residuals r.

    S mixes the groups, equally for each index within a group and each channel; it is a constant in the gradient.
    """
    adjusting = inductive.adjustment(kernel(field, points[0]), lowered).to(points.dtype)
    values = field(points)
    with torch.no_grad():
        residuals = values - colors
        adjusted = torch.einsum("ij,pjc->pic", adjusting, residuals)
        error = residuals.square().mean()
    surrogate = 2 * (values * adjusted).mean()
    return {"mse": error + surrogate - surrogate.detach()}
