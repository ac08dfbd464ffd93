"""Starts of coordinate networks: the weights with which training begins, drawn from torch's own random numbers."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from enerf.fields.encoders import begins_with_points
from enerf.fields.shape import ShapeField

GEOMETRIC = ("relu", "softplus")  # the activations that a geometric start is known for
DIRECTIONS = 1024  # in which ``calibrate_`` looks


def siren_(layers: Sequence[nn.Linear], omega: float | int) -> None:
    """Draw the weights of sine layers and of the head above them; biases stay PyTorch's, uniform in ±1/√n.

    Uniform in ±1/n for the first layer and in ±√(6/n)/ω₀ for the others, n being a layer's inputs.

    Wide networks then have a variance v of ω₀ (W x + b) that goes from layer to layer as
    v ← 1 − exp(−2v) + ω₀²/3n. Without the biases it tends to 0.797, near the 1 that the paper states; with them, at
    n = 256, to 2.16, and the sines are nearer to the arcsine distribution for it.

    Source: Sitzmann et al., SIREN, NeurIPS 2020, section 3.2, supplement 1.5, and the authors' code (the biases, the
    head).
    """
    with torch.no_grad():
        for i, layer in enumerate(layers):
            bound = 1 / layer.in_features if i == 0 else math.sqrt(6 / layer.in_features) / omega
            layer.weight.uniform_(-bound, bound)


def geometric_(field: ShapeField, radius: float | int) -> None:
    """Draw weights with which the field is about |x| − ``radius``; for one output, ReLU or softplus.

    Weights are normal with variance 2 / n_out, so that each layer keeps norms; biases are 0; the head sums with equal
    weights. Encoded features other than the coordinates begin with zero weights, in the first layer and at the skip.
    There the coordinates and the layer below share the norm (variances halved).

    Sources: Atzmon, Lipman, SAL, CVPR 2020, theorem 1; the skip as in Gropp et al., IGR, ICML 2020; the encoding as in
    Yariv et al., IDR, NeurIPS 2020, section 4 and their code.

    Raises
    ------
    ValueError
        If the field has several outputs, another activation, or an encoder that does not begin with the points.
    """
    if reason := why_not_geometric(field):
        raise ValueError(f"the geometric start is not for this field: {reason}")
    d, encoded = field.encoder.d, field.encoder.width
    with torch.no_grad():
        for i, layer in enumerate(field.linears()[:-1]):
            sees_encoded = 0 in field.network.layers[i].sources
            layer.weight.normal_(0.0, math.sqrt((1 if sees_encoded and i > 0 else 2) / layer.out_features))
            layer.bias.zero_()
            if sees_encoded:
                layer.weight[:, d:encoded] = 0
        field.head.weight.fill_(math.sqrt(math.pi / field.head.in_features))
        field.head.bias.fill_(-radius)


def why_not_geometric(field: ShapeField) -> str | None:
    """Why a field cannot begin as a distance to a sphere, or None if it can."""
    if field.outputs != 1:
        return f"it has {field.outputs} outputs, and a distance is one"
    if field.activation.kind not in GEOMETRIC:
        return f"it is known for {' and '.join(GEOMETRIC)}, not for {field.activation.kind}"
    if not begins_with_points(field.encoder):
        return "its encoder does not hand on the coordinates themselves"
    return None


def calibrate_(field: ShapeField, radius: float | int) -> None:
    """Scale the head so that the mean over the sphere of that radius is zero; its bias is -``radius``.

    A geometric start of finite width misses the radius by as much as a fifth; row equilibration changes the norms that
    the layers hand on. The head is never conditioned, so it is what can make up for both.
    """
    d = field.encoder.d
    directions = torch.randn(DIRECTIONS, d, generator=torch.Generator().manual_seed(0)).to(field.head.weight)
    with torch.no_grad():
        points = radius * directions / directions.norm(dim=-1, keepdim=True)
        (values,) = field.twin()([field.encoder.twin(points)])
        field.head.weight *= -field.head.bias / (values.mean() - field.head.bias)


def zero_inputs(field: ShapeField) -> dict[str, int]:
    """Layers some of whose inputs have zero weights throughout, and how many inputs these are."""
    found: dict[str, int] = {}
    for i, layer in enumerate(field.linears()[:-1]):
        zeros = int((layer.weight == 0).all(0).sum())
        if zeros:
            found[f"trunk.{i}"] = zeros
    return found
