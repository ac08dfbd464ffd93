"""What convolutional classifiers are built of: convolutions, what normalises their outputs, and how wide they are.

Vocabulary
----------
A **kind** is what normalises: ``bn``, batch normalisation (Ioffe, Szegedy, ICML 2015); ``gn``, group normalisation (Wu,
He, ECCV 2018); ``none``, nothing. Vision transformers have layer normalisation, ``ln``, and no other. A convolution has
a bias only where nothing normalises: both normalisations have a shift of their own.
"""

from jaxtyping import Float
from torch import Tensor, nn

CNN_NORMS = ("bn", "gn", "none")
VIT_NORMS = ("ln",)

MOST_GROUPS = 32  # Wu and He's choice
NARROWEST = 4  # channels that any layer keeps, however small the width


def norm(kind: str, channels: int) -> nn.Module:
    """The module that normalises ``channels`` maps.

    Groups are as many as divide the channels, up to 32: a number of channels up to 32 is normalised one by one.

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
        groups = max(n for n in range(1, MOST_GROUPS + 1) if channels % n == 0)
        return nn.GroupNorm(groups, channels)
    return nn.Identity()


def conv(kind: str, n_in: int, n_out: int, kernel: int, stride: int = 1, padding: int | None = None) -> nn.Conv2d:
    """A square convolution; without ``padding`` given, an odd kernel of stride 1 keeps the images' size.

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
    around = kernel // 2 if padding is None else padding
    return nn.Conv2d(n_in, n_out, kernel, stride, around, bias=kind == "none")


def conv_norm_relu(kind: str, n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution, its normalisation and a ReLU, which writes over what it is given.

    Raises
    ------
    ValueError
        If ``kind`` is unknown.
    """
    return nn.Sequential(conv(kind, n_in, n_out, kernel, stride), norm(kind, n_out), nn.ReLU(inplace=True))


class Convolutional(nn.Module):
    """A stem, a body, the mean over the image, and a head that makes logits of it.

    Those that are made of it take ``classes`` of the logits, ``channels`` of the images, the ``norm`` of their
    convolutions' outputs and a ``width`` that multiplies all channels; they raise a ValueError for an unknown norm.
    """

    def __init__(self, stem: nn.Module, body: nn.Sequential, n_out: int, classes: int) -> None:
        super().__init__()
        self.stem, self.body = stem, body
        self.head = nn.Linear(n_out, classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Logits of images."""
        return self.head(self.body(self.stem(images)).mean((2, 3)))


def scaled(channels: int, width: float | int) -> int:
    """The channels times the width, rounded, and at least 4.

    >>> scaled(64, 0.5), scaled(16, 0.1)
    (32, 4)
    """
    return max(NARROWEST, round(channels * width))


def _check(kind: str) -> None:
    if kind not in CNN_NORMS:
        raise ValueError(f"norm is {kind!r}; it must be one of {', '.join(CNN_NORMS)}")
