"""The trunk that NeRF's networks share: ReLU layers with one skip connection."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
