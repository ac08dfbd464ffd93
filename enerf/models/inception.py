"""The small Inception, made for images of 28 × 28 and used for any size.

Source: Zhang, Bengio, Hardt, Recht, Vinyals, Understanding Deep Learning Requires Rethinking Generalization, ICLR 2017,
figure 3 of the appendix. Published with 1,649,402 parameters for 10 classes, with and without batch normalisation. That
is this network with ``none``, where each output channel of a convolution has a bias; with ``bn`` or ``gn`` it has a
gain and a shift instead, which makes 1,651,114.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from enerf.models.norms import Convolutional, conv_norm_relu, scaled

STEM = 96
# outputs of the 1×1 and of the 3×3 convolution of each module
STAGES = (((32, 32), (32, 48)), ((112, 48), (96, 64), (80, 80), (48, 96)), ((176, 160), (176, 160)))
DOWN = (80, 96)  # outputs of the strided convolution after each stage but the last


class Branches(nn.Module):
    """Several modules' outputs for the same input, next to each other as channels."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The outputs, in the branches' order."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class SmallInception(Convolutional):
    """A stem; three stages of modules of two branches, each stage at half the size; the mean over the image; a head.

    Parameters as of ``Convolutional``.
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
