"""GoogLeNet for small images, after Szegedy et al., Going Deeper with Convolutions, CVPR 2015, table 1.

Its nine modules and their widths are the paper's. For small images, as is usual with CIFAR, one 3×3 convolution of 192
channels replaces the stem with its strides and pools; two 3×3 convolutions replace each 5×5; every convolution is
followed by a normalization; there are no auxiliary heads and no dropout. The well-known public PyTorch implementation
of this variant has 6,166,250 parameters for 10 classes, 7,904 of them biases of convolutions, which have no effect
before a normalization; without them, this network has 6,158,346.
"""

from torch import nn

from enerf.models.inception import Branches
from enerf.models.norms import ConvClassifier, conv_norm_relu, scaled

STEM = 192
# output channels of a module's convolutions: 1×1; 1×1 and 3×3; 1×1 and "5×5"; 1×1 after the pool
Module = tuple[int, int, int, int, int, int]
STAGES: tuple[tuple[Module, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class GoogLeNet(ConvClassifier):
    """GoogLeNet: a stem, three stages of four-branch modules with max pooling between, global average pooling, a head.

    Parameters: see ``ConvClassifier``.
    """

    def __init__(self, classes: int, channels: int = 3, norm: str = "bn", width: float | int = 1.0) -> None:
        n_in = scaled(STEM, width)
        stem = conv_norm_relu(norm, channels, n_in, 3)
        modules: list[nn.Module] = []
        for stage in STAGES:
            if modules:
                modules += [nn.MaxPool2d(3, 2, padding=1)]
            for outputs in stage:
                one, three_in, three, five_in, five, pooled = (scaled(c, width) for c in outputs)
                modules += [_module(norm, n_in, (one, three_in, three, five_in, five, pooled))]
                n_in = one + three + five + pooled
        super().__init__(stem, nn.Sequential(*modules), n_in, classes)


def _module(norm: str, n_in: int, outputs: Module) -> Branches:
    """An inception module of four branches: 1×1; 1×1 and 3×3; 1×1 and two 3×3; max pooling and 1×1."""
    one, three_in, three, five_in, five, pooled = outputs
    return Branches(
        conv_norm_relu(norm, n_in, one, 1),
        nn.Sequential(conv_norm_relu(norm, n_in, three_in, 1), conv_norm_relu(norm, three_in, three, 3)),
        nn.Sequential(
            conv_norm_relu(norm, n_in, five_in, 1),
            conv_norm_relu(norm, five_in, five, 3),
            conv_norm_relu(norm, five, five, 3),
        ),
        nn.Sequential(nn.MaxPool2d(3, 1, padding=1), conv_norm_relu(norm, n_in, pooled, 1)),
    )
