"""ResNet-18 and ResNet-50 for small images.

Source: He, Zhang, Ren, Sun, Deep Residual Learning for Image Recognition, CVPR 2016, table 1, whose widths and numbers
of blocks these are. For small images, as is usual with CIFAR, one 3×3 convolution of stride 1 replaces the 7×7 stem
and its pooling: 11,173,962 and 23,520,842 parameters for 10 classes and 3 channels. Bottlenecks have their stride in
the 3×3 convolution, not in the 1×1 before it, which would ignore three of four pixels; shortcuts between different
shapes are 1×1 convolutions.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from enerf.models.norms import ConvClassifier, conv, conv_norm_relu, norm, scaled

WIDTHS = (64, 128, 256, 512)
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}
EXPANSION = 4  # ratio of a bottleneck's output channels to its inner channels


class Residual(nn.Module):
    """Residual block: ReLU of the branch's output plus its input, which is projected if their shapes differ."""

    def __init__(self, kind: str, branch: nn.Sequential, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(conv(kind, n_in, n_out, 1, stride), norm(kind, n_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Output feature maps; the ReLU is in place, on the sum."""
        return functional.relu(self.branch(x) + self.shortcut(x), inplace=True)


class ResNet(ConvClassifier):
    """ResNet: a stem, four stages of residual blocks, each but the first at half the size, average pooling, a head.

    Parameters
    ----------
    layers
        18 (basic blocks) or 50 (bottlenecks).
    classes, channels, norm, width
        See ``ConvClassifier``.

    Raises
    ------
    ValueError
        If ``layers`` or ``norm`` is unknown.
    """

    def __init__(
        self, layers: int, classes: int, channels: int = 3, norm: str = "bn", width: float | int = 1.0
    ) -> None:
        if layers not in BLOCKS:
            raise ValueError(f"a ResNet of {layers} layers; expected {' or '.join(map(str, BLOCKS))}")
        n_in = scaled(WIDTHS[0], width)
        stem = conv_norm_relu(norm, channels, n_in, 3)
        modules: list[nn.Module] = []
        for stage, blocks in enumerate(BLOCKS[layers]):
            inner = scaled(WIDTHS[stage], width)
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                made = _basic(norm, n_in, inner, stride) if layers == 18 else _bottleneck(norm, n_in, inner, stride)
                modules += [made]
                n_in = inner if layers == 18 else EXPANSION * inner
        super().__init__(stem, nn.Sequential(*modules), n_in, classes)


def _basic(kind: str, n_in: int, n_out: int, stride: int) -> Residual:
    """Basic block: two 3×3 convolutions."""
    first = conv_norm_relu(kind, n_in, n_out, 3, stride)
    return Residual(kind, nn.Sequential(*first, conv(kind, n_out, n_out, 3), norm(kind, n_out)), n_in, n_out, stride)


def _bottleneck(kind: str, n_in: int, inner: int, stride: int) -> Residual:
    """Bottleneck: 1×1 to ``inner`` channels, 3×3, 1×1 to 4 · ``inner`` channels."""
    n_out = EXPANSION * inner
    narrow, across = conv_norm_relu(kind, n_in, inner, 1), conv_norm_relu(kind, inner, inner, 3, stride)
    branch = nn.Sequential(*narrow, *across, conv(kind, inner, n_out, 1), norm(kind, n_out))
    return Residual(kind, branch, n_in, n_out, stride)
