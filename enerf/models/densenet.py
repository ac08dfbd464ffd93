"""DenseNet-BC for small images.

Source: Huang, Liu, van der Maaten, Weinberger, Densely Connected Convolutional Networks, CVPR 2017, section 3 and table
2. With 100 layers and growth rate 12 it has 769,162 parameters for 10 classes (published: 0.8M).

Vocabulary
----------
Each **layer** takes the channels of all layers before it and appends ``growth`` more: normalization, ReLU, 1×1
convolution to 4 · growth channels, then the same with a 3×3 convolution. A **transition** halves the number of channels
and the image size. Three blocks of n layers each, two transitions, the stem and the head give the **depth** 6 n + 4.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from enerf.models import norms
from enerf.models.norms import conv

BLOCKS = 3
BOTTLENECK = 4  # ratio of a layer's inner channels to its growth


class DenseLayer(nn.Module):
    """Appends ``growth`` channels to its input."""

    def __init__(self, n_in: int, growth: int, kind: str) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1, self.conv1 = norms.norm(kind, n_in), conv(kind, n_in, inner, 1)
        self.norm2, self.conv2 = norms.norm(kind, inner), conv(kind, inner, growth, 3)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Input and new channels, concatenated. The first ReLU is not in place, as it may act on the input itself."""
        inner = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(inner), inplace=True))], dim=1)


class Transition(nn.Module):
    """1×1 convolution to ``n_out`` channels, then 2×2 average pooling."""

    def __init__(self, n_in: int, n_out: int, kind: str) -> None:
        super().__init__()
        self.norm, self.conv = norms.norm(kind, n_in), conv(kind, n_in, n_out, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Feature maps of half the size."""
        return functional.avg_pool2d(self.conv(functional.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """DenseNet-BC: a stem of 2 · growth channels, three blocks with two transitions, global average pooling, a head.

    Parameters
    ----------
    classes, channels
        Number of logits, and of channels of the images, which are at least 4 pixels wide.
    norm
        Normalization of the convolutions' inputs: ``bn``, ``gn`` or ``none``.
    depth
        Number of layers, 6 n + 4.
    growth
        Growth rate: the channels that each layer adds.

    Raises
    ------
    ValueError
        If the depth is not of this form (the message has the nearest that are), or ``norm`` is unknown.
    """

    def __init__(self, classes: int, channels: int = 3, norm: str = "bn", depth: int = 100, growth: int = 12) -> None:
        super().__init__()
        layers = layers_per_block(depth)
        width = 2 * growth
        self.stem = conv(norm, channels, width, 3)
        modules: list[nn.Module] = []
        for block in range(BLOCKS):
            if block:
                modules += [Transition(width, width // 2, norm)]
                width //= 2
            modules += [DenseLayer(width + i * growth, growth, norm) for i in range(layers)]
            width += layers * growth
        self.body = nn.Sequential(*modules)
        self.norm = norms.norm(norm, width)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Logits of images."""
        return self.head(functional.relu(self.norm(self.body(self.stem(images)))).mean((2, 3)))


def layers_per_block(depth: int) -> int:
    """Number of layers in each of the three blocks of a network of that depth.

    Raises
    ------
    ValueError
        If the depth is not 6 n + 4; the message has the nearest that are.

    Examples
    --------
    >>> layers_per_block(100)
    16
    """
    layers, rest = divmod(depth - 4, 2 * BLOCKS)
    if layers < 1 or rest:
        near = sorted({2 * BLOCKS * max(n, 1) + 4 for n in (layers, layers + 1)})
        nearest = " and ".join(map(str, near))
        raise ValueError(f"depth is {depth}, and a DenseNet-BC has 6 n + 4 layers, n from 1; the nearest: {nearest}")
    return layers
