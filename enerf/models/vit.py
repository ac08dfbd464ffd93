"""Vision transformers.

Sources: Dosovitskiy et al., An Image Is Worth 16x16 Words, ICLR 2021; the size S is that of Touvron et al., Training
Data-Efficient Image Transformers, ICML 2021. There is no dropout.

Vocabulary
----------
A **patch** is a square of pixels; one linear map, implemented as a strided convolution, turns each into a **token**. A
learned **class token** is prepended and a learned **position** embedding added. **Blocks** are pre-norm transformer
layers: attention, then two linear layers with a GELU between. The head is applied to the class token.

For 1000 classes at 224 × 224 with patches of 16, S has 22,050,664 parameters and B 86,567,656.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6  # of the layer normalizations
MLP = 4  # ratio of a block's hidden width to the tokens' width
POSITIONS_STD = 0.02  # of the initial position embeddings; the class token is initialized to zero


class Size(NamedTuple):
    """Size of a vision transformer: width of the tokens, number of blocks, attention heads per block."""

    dim: int
    depth: int
    heads: int


SIZES = {"vit_s": Size(384, 12, 6), "vit_b": Size(768, 12, 12)}


class VisionTransformer(nn.Module):
    """Vision transformer: patch embedding, blocks, layer normalization, and a linear head on the class token.

    Layers have PyTorch's default initialization, except for the class token and the positions.

    Parameters
    ----------
    classes, channels
        Number of logits, and of channels of the images.
    size
        Width and height of the images in pixels.
    patch
        Width and height of a patch in pixels; divides ``size``.
    dim, depth, heads
        Width of the tokens, number of blocks, and attention heads per block, which divide ``dim``.

    Raises
    ------
    ValueError
        If ``patch`` does not divide ``size``.
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
    """The size with the tokens' width multiplied by ``width``, to a whole number of channels per head, at least 4.

    >>> resized(SIZES["vit_s"], 0.5)
    Size(dim=192, depth=12, heads=6)
    """
    return size._replace(dim=size.heads * max(4, round(size.dim / size.heads * width)))


def _block(dim: int, heads: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        dim, heads, MLP * dim, 0.0, _gelu, layer_norm_eps=EPS, batch_first=True, norm_first=True
    )


def _gelu(x: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
    """The exact GELU, wrapped so that torch does not recognize it.

    With ``torch.nn.functional.gelu`` itself, torch's layer uses a fused kernel in evaluation, which on CUDA
    approximates the function by tanh: evaluation would differ from training.
    """
    return functional.gelu(x)
