"""Which matrices a layer multiplies by: each of its weight tensors as a batch of matrices in torch's layout.

Vocabulary
----------
- a **slot** is one weight tensor of a layer and the way it is read as matrices, n_out × n_in each (``equilibrate``);
- a convolution multiplies patches: its inputs are the (in_channels / groups · taps) values of a patch, its outputs the
  out_channels / groups channels, and each group has a matrix of its own. A transposed convolution spreads each of its
  in_channels / groups inputs over a patch: its outputs are (out_channels / groups · taps);
- ``nn.Bilinear`` is linear in the products of its two inputs: there are in1_features · in2_features inputs;
- ``nn.MultiheadAttention`` packs the projections of queries, keys and values: three matrices (``packing="matrix"``),
  or one for each head of each (``packing="head"``). Its output projection is a linear layer of its own.
"""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

PACKINGS = ("matrix", "head")
KINDS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Bilinear, nn.MultiheadAttention),
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Slot:
    """A weight tensor of a layer, read as matrices.

    Attributes
    ----------
    name
        The tensor's name in its layer.
    shape
        The tensor's shape.
    batch
        How many matrices, as axes; () for a single one.
    n_out, n_in
        The size of each.
    transposed
        Whether the tensor has the inputs first, as transposed convolutions do.
    """

    name: str
    shape: tuple[int, ...]
    batch: tuple[int, ...]
    n_out: int
    n_in: int
    transposed: bool = False

    def to_matrices(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "*batch n_out n_in"]:
        """The tensor as matrices; axes before its own stay in front."""
        lead = weight.shape[: weight.dim() - len(self.shape)]
        if self.transposed:
            return weight.reshape(*lead, *self.batch, self.n_in, self.n_out).transpose(-1, -2)
        return weight.reshape(*lead, *self.batch, self.n_out, self.n_in)

    def from_matrices(self, matrices: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "..."]:
        """Undo ``to_matrices``."""
        lead = matrices.shape[: matrices.dim() - 2 - len(self.batch)]
        turned = matrices.transpose(-1, -2) if self.transposed else matrices
        return turned.reshape(*lead, *self.shape)

    @property
    def output_axis(self) -> int:
        """The tensor's axis that counts output channels: what torch's weight and spectral norm call ``dim``."""
        return 1 if self.transposed else 0


def slots(module: nn.Module, packing: str = "matrix") -> tuple[Slot, ...]:
    """The weight tensors of a layer; none if the layer is of no kind that is known here.

    Works on conditioned layers too: what they are made of does not change.

    Raises
    ------
    ValueError
        If ``packing`` is unknown.

    Examples
    --------
    >>> slots(nn.Conv2d(6, 8, 3, groups=2))
    (Slot(name='weight', shape=(8, 3, 3, 3), batch=(2,), n_out=4, n_in=27, transposed=False),)
    """
    if packing not in PACKINGS:
        raise ValueError(f"packing is {packing!r}; it must be one of {', '.join(PACKINGS)}")
    if isinstance(module, nn.Linear):
        shape = (module.out_features, module.in_features)
        return (Slot("weight", shape, (), *shape),)
    if isinstance(module, nn.Bilinear):
        n_out, n_in = module.out_features, module.in1_features * module.in2_features
        return (Slot("weight", (n_out, module.in1_features, module.in2_features), (), n_out, n_in),)
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return (_of_convolution(module),)
    if isinstance(module, nn.MultiheadAttention):
        return _of_attention(module, packing)
    return ()


def _of_convolution(module: Any) -> Slot:
    taps, groups = tuple(module.kernel_size), module.groups
    ins, outs = module.in_channels, module.out_channels
    batch = () if groups == 1 else (groups,)
    if isinstance(module, TRANSPOSED):
        shape = (ins, outs // groups, *taps)
        return Slot("weight", shape, batch, outs // groups * math.prod(taps), ins // groups, transposed=True)
    return Slot("weight", (outs, ins // groups, *taps), batch, outs // groups, ins // groups * math.prod(taps))


def _of_attention(module: nn.MultiheadAttention, packing: str) -> tuple[Slot, ...]:
    wide, heads = module.embed_dim, module.num_heads

    def slot(name: str, matrices: int, n_in: int) -> Slot:
        if packing == "head":
            return Slot(name, (matrices * wide, n_in), (matrices * heads,), wide // heads, n_in)
        return Slot(name, (matrices * wide, n_in), (matrices,) if matrices > 1 else (), wide, n_in)

    if module._qkv_same_embed_dim:
        return (slot("in_proj_weight", 3, wide),)
    sides = (("q", wide), ("k", module.kdim), ("v", module.vdim))
    return tuple(slot(f"{side}_proj_weight", 1, n_in) for side, n_in in sides)
