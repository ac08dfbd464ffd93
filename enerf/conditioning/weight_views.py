"""Weight tensors of a layer viewed as matrices in torch's layout.

Vocabulary
----------
- a **weight view** describes how one weight tensor of a layer is read as a batch of n_out × n_in matrices;
- a convolution multiplies patches: its inputs are the (in_channels / groups · kernel elements) values of a patch, its
  outputs the out_channels / groups channels, and each group has its own matrix. For a transposed convolution the
  inputs are the in_channels / groups channels, the outputs the (out_channels / groups · kernel elements) values of a
  patch;
- ``nn.Bilinear`` is linear in the products of its two inputs: it has in1_features · in2_features inputs;
- types that are not built in are described by a function that ``registry.register_layer`` is given;
- ``nn.MultiheadAttention`` packs the projections of queries, keys and values: three matrices (``packing="matrix"``),
  or one per head and projection (``packing="head"``). Its output projection is a linear layer of its own.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

PACKINGS = ("matrix", "head")
LAYER_TYPES: tuple[type[nn.Module], ...] = (
    nn.Linear,
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.Bilinear, nn.MultiheadAttention),
)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

REGISTERED: dict[type[nn.Module], Callable[[Any], Iterable["WeightView"]]] = {}  # see registry.register_layer


@dataclass(frozen=True)
class WeightView:
    """A weight tensor of a layer, read as a batch of matrices.

    Attributes
    ----------
    name
        Name of the tensor in its layer.
    shape
        Shape of the tensor.
    batch
        Batch axes of the matrices; () for a single matrix.
    n_out, n_in
        Size of each matrix.
    transposed
        Whether the tensor stores inputs before outputs, as transposed convolutions do.

    Raises
    ------
    ValueError
        If the matrices have other numbers of entries than the tensor, or a single matrix another shape.
    """

    name: str
    shape: tuple[int, ...]
    batch: tuple[int, ...]
    n_out: int
    n_in: int
    transposed: bool = False

    def __post_init__(self) -> None:
        """Check that the tensor can be read as described."""
        matrix = (self.n_in, self.n_out) if self.transposed else (self.n_out, self.n_in)
        stored = f"{self.name} of shape {tuple(self.shape)}"
        if math.prod(self.shape) != math.prod(self.batch) * math.prod(matrix):
            of = f"{tuple(self.batch)} matrices" if self.batch else "one matrix"
            raise ValueError(f"{stored} cannot be read as {of} of {self.n_out} × {self.n_in}")
        if not self.batch and len(self.shape) == 2 and tuple(self.shape) != matrix:
            hint = "without" if self.transposed else "with"
            raise ValueError(f"{stored} is not a matrix of {self.n_out} × {self.n_in}: is it, {hint} transposed=True?")

    def to_matrices(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "*batch n_out n_in"]:
        """Return the parameter as matrices of shape (*batch, n_out, n_in); further leading axes are kept."""
        if self.is_matrix:
            return weight
        lead = weight.shape[: weight.dim() - len(self.shape)]
        if self.transposed:
            return weight.reshape(*lead, *self.batch, self.n_in, self.n_out).transpose(-1, -2)
        return weight.reshape(*lead, *self.batch, self.n_out, self.n_in)

    def from_matrices(self, matrices: Float[Tensor, "*batch n_out n_in"]) -> Float[Tensor, "..."]:
        """Undo ``to_matrices``."""
        if self.is_matrix:
            return matrices
        lead = matrices.shape[: matrices.dim() - 2 - len(self.batch)]
        turned = matrices.transpose(-1, -2) if self.transposed else matrices
        return turned.reshape(*lead, *self.shape)

    @property
    def is_matrix(self) -> bool:
        """Whether the tensor is a single matrix in torch's layout, so that it is its own view."""
        return not self.transposed and len(self.shape) == 2 and not self.batch

    @property
    def output_axis(self) -> int:
        """Axis of the output channels: the argument ``dim`` of torch's weight and spectral norm."""
        return 1 if self.transposed else 0


def layer_types() -> tuple[type[nn.Module], ...]:
    """The types of modules that have weight views: ``LAYER_TYPES`` and those that were registered."""
    return (*LAYER_TYPES, *REGISTERED)


def views(module: nn.Module, packing: str = "matrix") -> tuple[WeightView, ...]:
    """Weight views of a layer; empty if its type is not in ``layer_types()``.

    The result is the same before and after the layer is conditioned.

    Raises
    ------
    TypeError
        If the function of a registered type does not return weight views.
    ValueError
        If ``packing`` is unknown, or a registered view is of a tensor that the module lacks.

    Examples
    --------
    >>> views(nn.Conv2d(6, 8, 3, groups=2))
    (WeightView(name='weight', shape=(8, 3, 3, 3), batch=(2,), n_out=4, n_in=27, transposed=False),)
    """
    if packing not in PACKINGS:
        raise ValueError(f"packing is {packing!r}; it must be one of {', '.join(PACKINGS)}")
    for layer_type in type(module).__mro__:  # the most specific type first
        if layer_type in REGISTERED:
            return _registered_views(module, layer_type)
    if isinstance(module, nn.Linear):
        shape = (module.out_features, module.in_features)
        return (WeightView("weight", shape, (), *shape),)
    if isinstance(module, nn.Bilinear):
        n_out, n_in = module.out_features, module.in1_features * module.in2_features
        return (WeightView("weight", (n_out, module.in1_features, module.in2_features), (), n_out, n_in),)
    if isinstance(module, (*CONVOLUTIONS, *TRANSPOSED)):
        return (_convolution_view(module),)
    if isinstance(module, nn.MultiheadAttention):
        return _attention_views(module, packing)
    return ()


def _registered_views(module: nn.Module, layer_type: type[nn.Module]) -> tuple[WeightView, ...]:
    """The views of a layer whose type ``registry.register_layer`` has added."""
    found: object = REGISTERED[layer_type](module)
    of = f"the views of {layer_type.__name__} (register_layer)"
    views = tuple(found) if isinstance(found, Iterable) else (found,)
    if not isinstance(found, Iterable) or not all(isinstance(view, WeightView) for view in views):
        raise TypeError(f"{of} are {found!r}; expected a list of WeightView")
    for view in views:
        if not parametrize.is_parametrized(module, view.name) and not hasattr(module, view.name):
            known = ", ".join(name for name, _ in module.named_parameters(recurse=False)) or "none"
            raise ValueError(f"{of} name the tensor {view.name!r}; its parameters are {known}")
    return views


def _convolution_view(module: Any) -> WeightView:
    kernel, groups = tuple(module.kernel_size), module.groups
    ins, outs = module.in_channels, module.out_channels
    batch = () if groups == 1 else (groups,)
    if isinstance(module, TRANSPOSED):
        shape = (ins, outs // groups, *kernel)
        return WeightView("weight", shape, batch, outs // groups * math.prod(kernel), ins // groups, transposed=True)
    return WeightView(
        "weight", (outs, ins // groups, *kernel), batch, outs // groups, ins // groups * math.prod(kernel)
    )


def _attention_views(module: nn.MultiheadAttention, packing: str) -> tuple[WeightView, ...]:
    width, heads = module.embed_dim, module.num_heads

    def view(name: str, matrices: int, n_in: int) -> WeightView:
        if packing == "head":
            return WeightView(name, (matrices * width, n_in), (matrices * heads,), width // heads, n_in)
        return WeightView(name, (matrices * width, n_in), (matrices,) if matrices > 1 else (), width, n_in)

    if module._qkv_same_embed_dim:
        return (view("in_proj_weight", 3, width),)
    projections = (("q", width), ("k", module.kdim), ("v", module.vdim))
    return tuple(view(f"{letter}_proj_weight", 1, n_in) for letter, n_in in projections)


def in_format_of(raw: Tensor, mapped: Tensor) -> Tensor:
    """The applied weight, channels last if the raw one is: otherwise each convolution would convert it."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    if raw.dim() not in formats or any(map(torch._C._functorch.is_batchedtensor, (raw, mapped))) or raw.is_contiguous():
        return mapped
    wanted = formats[raw.dim()]
    return mapped.contiguous(memory_format=wanted) if raw.is_contiguous(memory_format=wanted) else mapped
