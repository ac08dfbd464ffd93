"""Initialization of coordinate networks, from torch's global generator: SIREN and geometric."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from enerf.fields.encoders import begins_with_points
from enerf.fields.shape import ShapeField

GEOMETRIC = ("relu", "softplus")  # the activations for which geometric initialization is derived
DIRECTIONS = 1024  # number of points on the sphere at which ``calibrate_`` evaluates the field


def siren_(layers: Sequence[nn.Linear], omega: float | int) -> None:
    """SIREN initialization of the weights of sine layers and of the head; biases keep PyTorch's default, U(±1/√n).

    Weights are uniform in ±1/n for the first layer and in ±√(6/n)/ω₀ for the others, for n inputs of the layer.

    In wide networks the variance v of ω₀ (W x + b) then evolves from layer to layer as
    v ← 1 − exp(−2v) + ω₀²/3n. Its fixed point is 0.797 without the biases, near the 1 that the paper states, and 2.16
    with them at n = 256, where the outputs of the sines are closer to the arcsine distribution.

    Source: Sitzmann et al., SIREN, NeurIPS 2020, section 3.2, supplement 1.5, and the authors' code (the biases, the
    head).
    """
    with torch.no_grad():
        for i, layer in enumerate(layers):
            bound = 1 / layer.in_features if i == 0 else math.sqrt(6 / layer.in_features) / omega
            layer.weight.uniform_(-bound, bound)


def geometric_(field: ShapeField, radius: float | int) -> None:
    """Geometric initialization: the field approximates |x| − ``radius``; for one output, ReLU or softplus.

    Weights are normal with variance 2 / n_out, so that layers preserve norms; biases are 0; the head has equal weights.
    Features other than the coordinates get zero weights, in the first layer and at the skip connection. At the skip
    connection the variance is halved, since the layer has the coordinates and the previous layer as inputs.

    Sources: Atzmon, Lipman, SAL, CVPR 2020, theorem 1; the skip as in Gropp et al., IGR, ICML 2020; the encoding as in
    Yariv et al., IDR, NeurIPS 2020, section 4 and their code.

    Raises
    ------
    ValueError
        If the field has several outputs, another activation, or an encoder whose first features are not the points.
    """
    if reason := geometric_unavailable_reason(field):
        raise ValueError(f"geometric initialization cannot be used for this field: {reason}")
    d, encoded = field.encoder.d, field.encoder.width
    with torch.no_grad():
        for i, layer in enumerate(field.linears()[:-1]):
            reads_features = 0 in field.network.layers[i].sources
            layer.weight.normal_(0.0, math.sqrt((1 if reads_features and i > 0 else 2) / layer.out_features))
            layer.bias.zero_()
            if reads_features:
                layer.weight[:, d:encoded] = 0
        field.head.weight.fill_(math.sqrt(math.pi / field.head.in_features))
        field.head.bias.fill_(-radius)


def geometric_unavailable_reason(field: ShapeField) -> str | None:
    """Why geometric initialization cannot be used for a field, or None if it can."""
    if field.outputs != 1:
        return f"it has {field.outputs} outputs, expected 1"
    if field.activation.kind not in GEOMETRIC:
        return f"its activation is {field.activation.kind}, expected {' or '.join(GEOMETRIC)}"
    if not begins_with_points(field.encoder):
        return "its encoder does not return the coordinates as first features"
    return None


def calibrate_(field: ShapeField, radius: float | int) -> None:
    """Scale the weights of the head so that the field has mean zero on the sphere of that radius.

    With finite width, geometric initialization misses the radius by up to a fifth, and row equilibration changes the
    norms of the activations. The head is never conditioned, so its scale corrects both. Its bias must be -``radius``.
    """
    d = field.encoder.d
    directions = torch.randn(DIRECTIONS, d, generator=torch.Generator().manual_seed(0)).to(field.head.weight)
    with torch.no_grad():
        points = radius * directions / directions.norm(dim=-1, keepdim=True)
        (values,) = field.reference()([field.encoder.reference(points)])
        field.head.weight *= -field.head.bias / (values.mean() - field.head.bias)


def zero_inputs(field: ShapeField) -> dict[str, int]:
    """Names of the trunk layers with inputs whose weights are all zero -> number of such inputs."""
    found: dict[str, int] = {}
    for i, layer in enumerate(field.linears()[:-1]):
        zeros = int((layer.weight == 0).all(0).sum())
        if zeros:
            found[f"trunk.{i}"] = zeros
    return found
