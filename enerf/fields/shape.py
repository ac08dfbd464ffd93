"""A coordinate network: a function from points in 2 or 3 dimensions to occupancy, signed distance, or colors.

The backend evaluates ReLU networks at points that need no gradient. Everything else is evaluated by the **reference
implementation** in torch (``activations.bind`` on ``Encoder.reference``), in the dtype of the weights: other
activations, and points that require a gradient, because the gradients of the kernels are not differentiable again. So
eikonal and normal losses train the same weights with every backend. If the backend computes in bf16, the two results
differ by its rounding.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.fields import activations
from enerf.fields.activations import Activation
from enerf.fields.backends.dense import Bound, Layer, Network
from enerf.fields.backends.module import NetworkModule
from enerf.fields.encoders import Encoder

SKIP_AT = 5  # index of the layer with a skip connection from the trunk's input (NeRF, figure 7); 0: none


class SkipMLP(nn.ModuleList):
    """``depth`` linear layers, each followed by a ReLU; layer ``skip_at``, if any, reads (input, previous output)."""

    def __init__(self, n_in: int, width: int, depth: int, skip_at: int = SKIP_AT) -> None:
        in_features = [n_in, *[width] * (depth - 1)]
        if 0 < skip_at < depth:
            in_features[skip_at] += n_in
        self.skip_at = skip_at
        super().__init__(nn.Linear(n, width) for n in in_features)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Activations of the last layer."""
        h = x
        for i, layer in enumerate(self):
            if 0 < i == self.skip_at:
                h = torch.cat([x, h], dim=-1)
            h = torch.relu(layer(h))
        return h


HEADS = frozenset({"head"})  # the layer whose outputs are the field's values


class ShapeField(NetworkModule):
    """``encoder``, then ``trunk`` of layers with an activation, then a linear ``head``.

    In ``network``, ``relu`` marks the layers with the activation, whichever it is; only ReLU networks are evaluated by
    the backend. Trunk layer ``skip_at`` reads the encoded points, then the previous output (0: no skip connection).
    """

    def __init__(
        self,
        encoder: Encoder,
        depth: int,
        width: int,
        outputs: int = 1,
        *,
        activation: Activation | None = None,
        skip_at: int = SKIP_AT,
    ) -> None:
        super().__init__()
        self.encoder, self.outputs, self.skip_at = encoder, outputs, skip_at
        self.activation = activation or Activation()
        self.network = shape_network(encoder.width, depth, width, outputs, skip_at)
        widths = self.network.widths
        linears = [nn.Linear(sum(widths[s] for s in layer.sources), layer.width) for layer in self.network.layers]
        self.trunk, self.head = nn.ModuleList(linears[:-1]), linears[-1]

    def forward(self, points: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"] | Float[Tensor, "*b c"]:
        """Values at points, without a channel axis if the field has one output.

        Raises
        ------
        ValueError
            If the points have another number of coordinates than the field.
        """
        if points.shape[-1] != self.encoder.d:
            raise ValueError(f"points of {points.shape[-1]} coordinates, and the field takes {self.encoder.d}")
        flat = points.reshape(-1, self.encoder.d)
        if flat.requires_grad and torch.is_grad_enabled():
            (values,) = self.reference(exact=True)([self.encoder.reference(flat)])
        else:
            (values,) = self.bound()([self.encoder(flat)])
        return values.reshape(points.shape[:-1] if self.outputs == 1 else (*points.shape[:-1], self.outputs))

    def bound(self) -> Bound:
        """The network with its weights, evaluated by the backend if its activation is ReLU, else by torch."""
        if self._frozen is None and self.activation.kind != "relu":
            return self.reference()
        return super().bound()

    def _to_freeze(self) -> Bound:
        return super()._to_freeze() if self.activation.kind == "relu" else self.reference()

    def reference(self, exact: bool = False) -> Bound:
        """The network with its current weights, evaluated by the reference implementation in torch.

        ``exact``: gradients are the derivatives of the values, whatever the activation; see ``activations``.
        """
        activation = replace(self.activation, exact=exact)
        layers = self.linears()
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return activations.bind(self.network, weights, biases, activation, self.norms)

    def linears(self) -> list[nn.Linear]:
        """The layers of the trunk, then the head."""
        return [*self.trunk, self.head]


def shape_network(inputs: int, depth: int, width: int, outputs: int, skip_at: int = SKIP_AT) -> Network:
    """The network of a ``ShapeField``: ``depth`` trunk layers and a linear head.

    >>> shape_network(3, 2, 8, 1).layers[-1]
    Layer(sources=(2,), width=1, relu=False)
    """
    trunk = trunk_layers(depth, width, skip_at)
    return Network((inputs,), (*trunk, Layer((depth,), outputs, False)), (depth + 1,))


def trunk_layers(depth: int, width: int, skip_at: int = SKIP_AT, n_inputs: int = 1) -> tuple[Layer, ...]:
    """Layers of an MLP on input 0 of a network with ``n_inputs`` inputs; layer ``skip_at`` reads input 0 again.

    Layer i writes activation buffer ``n_inputs + i``.

    >>> trunk_layers(2, 8, skip_at=1)[1]
    Layer(sources=(0, 1), width=8, relu=True)
    """
    sources = [0, *range(n_inputs, n_inputs + depth - 1)]
    return tuple(Layer((0, s) if 0 < i == skip_at else (s,), width, True) for i, s in enumerate(sources[:depth]))
