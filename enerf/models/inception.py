"""The small Inception, designed for images of 28 × 28 pixels; works for any size.

Source: Zhang, Bengio, Hardt, Recht, Vinyals, Understanding Deep Learning Requires Rethinking Generalization, ICLR 2017,
figure 3 of the appendix. Published with 1,649,402 parameters for 10 classes, with and without batch normalization. This
network has as many with ``none``, where convolutions have a bias per output channel; with ``bn`` or ``gn`` each channel
has a scale and a shift instead, and the network 1,651,114 parameters.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.models.norms import ConvClassifier, conv_norm_relu, scaled

STEM = 96
# output channels of the 1×1 and of the 3×3 convolution of each module
STAGES = (((32, 32), (32, 48)), ((112, 48), (96, 64), (80, 80), (48, 96)), ((176, 160), (176, 160)))
DOWN = (80, 96)  # output channels of the strided convolution after each stage but the last


class Branches(nn.Module):
    """Applies several modules to the same input and concatenates their outputs along the channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The concatenated outputs, in the order of the branches."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SmallInception(ConvClassifier):
    """Small Inception: a stem, three stages of two-branch modules, each at half the size, average pooling, a head.

    Parameters: see ``ConvClassifier``.
    """

    def __init__(self, classes: int, channels: int = 3, norm: str = "bn", width: float | int = 1.0) -> None:
        n_in = scaled(STEM, width)
        stem = conv_norm_relu(norm, channels, n_in, 3)
        modules: list[nn.Module] = []
        for stage, down in zip(STAGES, (*DOWN, 0), strict=True):
            for pair in stage:
                one, three = (scaled(c, width) for c in pair)
                modules += [Branches(conv_norm_relu(norm, n_in, one, 1), conv_norm_relu(norm, n_in, three, 3))]
                n_in = one + three
            if down:
                halved = conv_norm_relu(norm, n_in, scaled(down, width), 3, stride=2)
                modules += [Branches(halved, nn.MaxPool2d(3, 2, padding=1))]
                n_in += scaled(down, width)
        super().__init__(stem, nn.Sequential(*modules), n_in, classes)
