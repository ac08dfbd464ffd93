"""The trunk that NeRF's networks share: ReLU layers with one skip connection."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

SKIP_AT = 5  # the layer, counted from 0, that sees the trunk's input again (NeRF, figure 7)


class SkipMLP(nn.ModuleList):
    """``depth`` linear layers, each followed by a ReLU; layer 5, if any, sees (input, output of 4)."""

    def __init__(self, n_in: int, width: int, depth: int) -> None:
        sees = [n_in, *[width] * (depth - 1)]
        if depth > SKIP_AT:
            sees[SKIP_AT] += n_in
        super().__init__(nn.Linear(seen, width) for seen in sees)

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """Activations of the last layer."""
        h = x
        for i, layer in enumerate(self):
            if i == SKIP_AT:
                h = torch.cat([x, h], dim=-1)
            h = torch.relu(layer(h))
        return h
