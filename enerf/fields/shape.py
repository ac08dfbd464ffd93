"""A coordinate network: points in 2 or 3 dimensions to occupancy logits, to a signed distance, or to colours.

Values come by two ways. The backend evaluates ReLU networks whose points need no gradient: this is where the time of a
run goes. Everything else goes through the torch **twin** (``activations.bind`` on ``Encoder.twin``): other activations,
in the dtype of the weights and never in bf16; and every call whose points require a gradient, since the kernels'
gradients cannot be differentiated again. So eikonal and normal losses train the same weights under every backend. Where
the backend computes in bf16, the values of the two ways differ by its rounding.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.fields import activations
from enerf.fields.activations import Activation
from enerf.fields.backends.dense import Bound, Layer, Network
from enerf.fields.backends.module import Networked
from enerf.fields.encoders import Encoder

SKIP_AT = 5  # the layer, counted from 0, that sees the trunk's input again (NeRF, figure 7); 0: none


class SkipMLP(nn.ModuleList):
    """``depth`` linear layers, each followed by a ReLU; layer ``skip_at``, if any, sees (input, output of the last)."""

    def __init__(self, n_in: int, width: int, depth: int, skip_at: int = SKIP_AT) -> None:
        sees = [n_in, *[width] * (depth - 1)]
        if 0 < skip_at < depth:
            sees[skip_at] += n_in
        self.skip_at = skip_at
        super().__init__(nn.Linear(seen, width) for seen in sees)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Activations of the last layer."""
        h = x
        for i, layer in enumerate(self):
            if 0 < i == self.skip_at:
                h = torch.cat([x, h], dim=-1)
            h = torch.relu(layer(h))
        return h


HEADS = frozenset({"head"})  # the layer whose outputs are the field's values


class ShapeField(Networked):
    """``encoder``, then ``trunk`` of activated layers, then one linear ``head``.

    ``network`` says where the activation stands by ``relu``, whichever it is; only ReLU itself is given to a backend.
    Trunk layer ``skip_at`` sees the encoded points again, before the output of the layer below (0: none does).
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
        """Values at points: one a point, or, of several outputs, as many as there are.

        Raises
        ------
        ValueError
            If the points have another number of coordinates than the field.
        """
        if points.shape[-1] != self.encoder.d:
            raise ValueError(f"points of {points.shape[-1]} coordinates, and the field takes {self.encoder.d}")
        flat = points.reshape(-1, self.encoder.d)
        if flat.requires_grad and torch.is_grad_enabled():
            (values,) = self.twin()([self.encoder.twin(flat)])
        else:
            (values,) = self.bound()([self.encoder(flat)])
        return values.reshape(points.shape[:-1] if self.outputs == 1 else (*points.shape[:-1], self.outputs))

    def bound(self) -> Bound:
        """The network with its weights: by the backend if it is one of ReLUs, by the twin if not."""
        if self._held is None and self.activation.kind != "relu":
            return self.twin()
        return super().bound()

    def twin(self) -> Bound:
        """The network with the weights as they are now, by torch alone."""
        layers = self.linears()
        weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
        return activations.bind(self.network, weights, biases, self.activation)

    def linears(self) -> list[nn.Linear]:
        """The layers of the trunk, and the head."""
        return [*self.trunk, self.head]


def shape_network(inputs: int, depth: int, width: int, outputs: int, skip_at: int = SKIP_AT) -> Network:
    """``depth`` activated layers and a linear one; layer ``skip_at``, if any, sees (input, output of the last).

    >>> shape_network(3, 2, 8, 1, skip_at=1).layers[1]
    Layer(sources=(0, 1), width=8, relu=True)
    """
    trunk = [Layer((0, i) if 0 < i == skip_at else (i,), width, True) for i in range(depth)]
    return Network((inputs,), (*trunk, Layer((depth,), outputs, False)), (depth + 1,))
