"""The trunk that NeRF's networks share: ReLU layers with one skip connection."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

SKIP_AFTER = 4  # layers; NeRF joins its input again at the fifth (index 4), so layer 5 sees both


class SkipMLP(nn.ModuleList):
    """``depth`` linear layers, each followed by a ReLU; the input is joined before the output of layer 4."""

    def __init__(self, n_in: int, width: int, depth: int) -> None:
        joined = SKIP_AFTER + 1
        super().__init__(
            nn.Linear(n_in if i == 0 else width + n_in if i == joined else width, width) for i in range(depth)
        )

    def forward(self, x: Float[Tensor, "*b i"]) -> Float[Tensor, "*b o"]:
        """The last layer's activations."""
        h = x
        for i, layer in enumerate(self):
            if i == SKIP_AFTER + 1:
                h = torch.cat([x, h], dim=-1)
            h = torch.relu(layer(h))
        return h
