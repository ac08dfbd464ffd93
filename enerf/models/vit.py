"""Vision transformers.

Sources: Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021; the size S is that of Touvron et al., Training
Data-Efficient Image Transformers, ICML 2021. There is no dropout.

Vocabulary
----------
A **patch** is a square of pixels; one linear map, written as a convolution, makes a **token** of each. A learned
**class token** goes before them, a learned **position** is added to each, and **blocks** follow: attention, then two
linear layers with a GELU between, each on normalised tokens and added to its input. The head reads the class token.

For 1000 classes at 224 × 224 with patches of 16, S has 22,050,664 parameters and B 86,567,656.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6  # of the layer normalisations
MLP = 4  # a block's inner width over its tokens'
POSITIONS_STD = 0.02  # of the positions' start; the class token begins at zero


class Size(NamedTuple):
    """How large a vision transformer is: its tokens' width, its blocks, and the heads of each."""

    dim: int
    depth: int
    heads: int


SIZES = {"vit_s": Size(384, 12, 6), "vit_b": Size(768, 12, 12)}


class VisionTransformer(nn.Module):
    """Tokens of patches, blocks, a layer normalisation, and a head on the class token.

    Apart from class token and positions, layers start as PyTorch starts them.

    Parameters
    ----------
    classes, channels
        Of the logits and of the images.
    size
        The images' width and height in pixels.
    patch
        A patch's; divides ``size``.
    dim, depth, heads
        The tokens' width, the number of blocks, and the heads of each, which divide ``dim``.

    Raises
    ------
    ValueError
        If the patches do not fill the images.
    """

    def __init__(self, classes: int, channels: int, size: int, patch: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        if patch < 1 or size % patch:
            raise ValueError(f"patch is {patch}; expected a number that divides the images' {size} pixels")
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.empty((size // patch) ** 2 + 1, dim).normal_(std=POSITIONS_STD))
        self.blocks = nn.Sequential(*(_block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim, EPS)
        self.head = nn.Linear(dim, classes)

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        """Logits of images."""
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(images), -1, -1), tokens], dim=1) + self.positions
        return self.head(self.norm(self.blocks(tokens)[:, 0]))


def resized(size: Size, width: float | int) -> Size:
    """The size with tokens as many times as wide: a whole number of channels a head, and at least 4.

    >>> resized(SIZES["vit_s"], 0.5)
    Size(dim=192, depth=12, heads=6)
    """
    return size._replace(dim=size.heads * max(4, round(size.dim / size.heads * width)))


def _block(dim: int, heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        dim, heads, MLP * dim, 0.0, _gelu, layer_norm_eps=EPS, batch_first=True, norm_first=True
    )


def _gelu(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """The exact GELU.

    Given its own ``gelu``, torch's block would go through a fused kernel in evaluation, and that one approximates the
    function by tanh on CUDA: the network that is tested would not be the one that was trained.
    """
    return functional.gelu(x)
