"""Building blocks of the convolutional classifiers: convolutions, normalizations, channel scaling.

Vocabulary
----------
A **kind** of normalization is ``bn``, batch normalization (Ioffe, Szegedy, ICML 2015); ``gn``, group normalization (Wu,
He, ECCV 2018); or ``none``. Vision transformers support only layer normalization, ``ln``. Convolutions have a bias only
with ``none``, since both normalizations have a shift of their own.
"""

from jaxtyping import Float
from torch import Tensor, nn

CNN_NORMS = ("bn", "gn", "none")
VIT_NORMS = ("ln",)

MAX_GROUPS = 32  # as in Wu and He
MIN_CHANNELS = 4  # of any layer, however small the width multiplier


def norm(kind: str, channels: int) -> nn.Module:
    """Normalization module for ``channels`` feature maps.

    The number of groups is the largest divisor of ``channels`` up to 32: up to 32 channels, each is its own group.

    Raises
    ------
    ValueError
        If ``kind`` is unknown.

    Examples
    --------
    >>> norm("gn", 48).num_groups
    24
    """
    _check(kind)
    if kind == "bn":
        return nn.BatchNorm2d(channels)
    if kind == "gn":
        groups = max(n for n in range(1, MAX_GROUPS + 1) if channels % n == 0)
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


def conv(kind: str, n_in: int, n_out: int, kernel: int, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A convolution with a square kernel; by default padded so that an odd kernel of stride 1 keeps the image size.

    Raises
    ------
    ValueError
        If ``kind`` is unknown.

    Examples
    --------
    >>> conv("none", 3, 8, 3).padding, conv("bn", 3, 8, 3).bias
    ((1, 1), None)
    """
    _check(kind)
    padding = kernel // 2 if padding is None else padding
    return nn.Conv2d(n_in, n_out, kernel, stride, padding, bias=kind == "none")


def conv_norm_relu(kind: str, n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, its normalization and an in-place ReLU.

    Raises
    ------
    ValueError
        If ``kind`` is unknown.
    """
    return nn.Sequential(conv(kind, n_in, n_out, kernel, stride), norm(kind, n_out), nn.ReLU(inplace=True))


class ConvClassifier(nn.Module):
    """Base class: a stem, a body, global average pooling, and a linear head.

    Subclasses take ``classes``, the number of logits; ``channels`` of the images; ``norm``, the kind of normalization
    after each convolution; and ``width``, which multiplies all numbers of channels. They raise a ValueError for an
    unknown norm.
    """

    def __init__(self, stem: nn.Module, body: nn.Sequential, n_out: int, classes: int) -> None:
        super().__init__()
        self.stem, self.body = stem, body
        self.head = nn.Linear(n_out, classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Logits of images."""
        return self.head(self.body(self.stem(images)).mean((2, 3)))


def scaled(channels: int, width: float | int) -> int:
    """Number of channels times the width multiplier, rounded, at least 4.

    >>> scaled(64, 0.5), scaled(16, 0.1)
    (32, 4)
    """
    return max(MIN_CHANNELS, round(channels * width))


def _check(kind: str) -> None:
    if kind not in CNN_NORMS:
        raise ValueError(f"norm is {kind!r}; it must be one of {', '.join(CNN_NORMS)}")
