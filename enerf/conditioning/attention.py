"""Attention: shifted projections, an initialization, and preconditioned outputs of heads.

Three methods of the authors of weight conditioning, for ``nn.MultiheadAttention``:

- **spectral conditioning**, the method ``spectral_shift`` of ``condition``: queries, keys and values are projected by
  W + λ I instead of W, where λ I is a constant; see ``shifted``;
- **conditioned initialization**: projections have condition number 1 at first; see ``initialize_attention_``;
- **preconditioned attention**: each row of the output of a head is divided by its norm; see ``preconditioned``.

Of the papers, abstracts, secondary notes and the caption of one figure could be read, not the texts. What was not found
there, and what is done instead, is said in each docstring.

The papers write X W with W of shape n_in × n_out; torch stores the transpose. Their projection of one head is n × d,
here d × n, with d = n / number of heads.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import norms, selection, weight_views
from enerf.conditioning.interface import require_number
from enerf.conditioning.selection import Layers

SHIFT = 10.0  # λ of the paper's experiments
INITS = ("conditioned_attention", "conditioned_attention_matrix", "gaussian_attention", "shifted_attention")


def shifted(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0, shift: float = SHIFT
) -> Float[Tensor, "*batch n_out n_in"]:
    """Spectral conditioning of attention: W + λ I, with a rectangular identity where the matrix is not square.

    The theory adds C = U S Vᵀ, with the singular vectors of W and all singular values equal to σ_max(W), so that
    κ(W + C) ≤ 2; in practice C = λ I. For λ > σ_max(W) and a square W, κ(W + λ I) ≤ (λ + σ_max) / (λ − σ_max), by
    Weyl's inequality.

    Adding a constant changes neither the gradient nor the set of functions: training W below this map is training a
    plain weight that starts at W + λ I, except that weight decay draws it to λ I instead of to 0.

    How the paper treats the rectangular projections of single heads was not found. With ``packing="matrix"``, the
    default of ``condition``, the n × n projection of all heads gets λ I, so that each head reads channels of its own;
    with ``packing="head"`` each head gets λ times the rectangular d × n identity.

    Parameters
    ----------
    weight
        In torch's layout.
    gradient, p
        As for ``maps.row``; without effect, because nothing is divided.
    shift
        λ.

    Raises
    ------
    ValueError
        If ``gradient`` or ``p`` is unknown.

    References
    ----------
    Saratchandran, Lucey, Spectral Conditioning of Attention Improves Transformer Performance, NeurIPS 2025,
    arXiv 2603.07162.

    Examples
    --------
    >>> shifted(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), shift=10.0)
    tensor([[11.,  2.,  3.],
            [ 4., 15.,  6.]])
    """
    norms.check(gradient, p)
    return weight + shift * torch.eye(*weight.shape[-2:], dtype=weight.dtype, device=weight.device)


def preconditioned(heads: Float[Tensor, "*batch tokens d"]) -> Float[Tensor, "*batch tokens d"]:
    """Preconditioned attention: divide each token's output of each head by its Euclidean norm.

    In the paper's words C A, for the output A = softmax(Q Kᵀ / √d) V of a head, with C_ii = 1 / ‖A_i‖₂. C is computed
    anew in each call. It is differentiated, and a norm below ``norms.FLOOR`` counts as the floor; the paper's choice of
    both was not found. Up to these bounds the result is RMS normalization of each head without gains, divided by √d.
    Matrices in half precision are normalized in single precision.

    References
    ----------
    Saratchandran, Preconditioned Attention: Enhancing Efficiency in Transformers, AISTATS 2026, arXiv 2603.27153,
    Figure 1.

    Examples
    --------
    >>> preconditioned(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[0.6000, 0.8000],
            [0.0000, 0.0000]])
    """
    wide = heads if heads.dtype == torch.float64 else heads.float()
    return norms.unit(wide, -1, "through").to(heads.dtype)


def initialize_attention_(
    model: nn.Module, names: Iterable[str], init: str, generator: torch.Generator, shift: float = SHIFT
) -> None:
    """Initialize the projections of queries, keys and values of attention layers in place, and nothing else of them.

    Parameters
    ----------
    model
        The model; the named layers are not conditioned yet.
    names
        Names of ``nn.MultiheadAttention`` layers.
    init
        ``conditioned_attention``: the paper's. For each head, of width d, W_V is the rectangular n × d identity, and
        W_Q and W_K are independent random matrices with Wᵀ W = I_d. All heads therefore take values from the same d
        channels, and the packed matrix has rows of zeros, which row equilibration refuses.
        ``conditioned_attention_matrix``: the same for the projection of all heads at once, so that W_V is the n × n
        identity; which of both the paper means was not found.
        ``gaussian_attention``: control of the same scale: normal, with the variance that gives the same expected
        squared norm as ``conditioned_attention``.
        ``shifted_attention``: control of ``spectral_shift``: adds λ I once; nothing remains afterwards.
    generator
        Random numbers are drawn from it alone.
    shift
        λ of ``shifted_attention``.

    Raises
    ------
    ValueError
        If ``init`` or a name is unknown, or a layer is no attention or is conditioned already.

    References
    ----------
    Conditioned Initialization for Attention, ICLR 2026, openreview.net/forum?id=cKNOCYPo2W.

    Examples
    --------
    >>> net = nn.ModuleList([nn.MultiheadAttention(4, 2)])
    >>> initialize_attention_(net, ["0"], "conditioned_attention", torch.Generator().manual_seed(0))
    >>> net[0].in_proj_weight[8:]
    tensor([[1., 0., 0., 0.],
            [0., 1., 0., 0.],
            [1., 0., 0., 0.],
            [0., 1., 0., 0.]], grad_fn=<SliceBackward0>)
    """
    selection.check_option("init", init, INITS)
    require_number("shift", shift, "a number")
    found = selection.plain_layers(model, names)
    for name in found:
        selection.check_conditionable(model, name, "spectral_shift")
    packing = "matrix" if init in ("conditioned_attention_matrix", "shifted_attention") else "head"
    with torch.no_grad():
        for module in found.values():
            for view in weight_views.views(module, packing):
                weight = getattr(module, view.name)
                matrices = view.to_matrices(weight).clone()
                for letter, matrix in _projections(view.name, matrices):
                    _initialize_matrix_(matrix, letter, init, generator, shift)
                weight.copy_(view.from_matrices(matrices))


def precondition_attention_(model: nn.Module, layers: Layers = "all") -> list[str]:
    """Make attention layers preconditioned, in place, and return their names; parameters and state dict do not change.

    The layers become ``PreconditionedAttention``. This changes the function, and depends on the inputs: ``bake`` leaves
    it, and a model that loads the state dict has to be preconditioned too. Call it before ``condition``.

    Parameters
    ----------
    model
        The model.
    layers
        Selectors as for ``condition``; layers that are no attention are skipped unless they are named.

    Raises
    ------
    ValueError
        If nothing is matched, or a matched layer is conditioned or preconditioned already, of a derived type, or has
        ``add_bias_kv`` or ``add_zero_attn``; no layer is changed.

    Examples
    --------
    >>> encoder = nn.TransformerEncoderLayer(8, 2, batch_first=True)
    >>> precondition_attention_(encoder)
    ['self_attn']
    """
    names = selection.select(model, layers, (), "spectral_shift").names
    found = [model.get_submodule(name) for name in names]
    for name, module in zip(names, found, strict=True):
        if type(module) is not nn.MultiheadAttention:
            kind = type(module).__name__
            raise ValueError(f"{name} is a {kind}; expected a plain MultiheadAttention, without parametrizations")
        _check_supported(module)
    for module in found:
        module.__class__ = PreconditionedAttention
        module.register_forward_pre_hook(_no_fused_kernel)
    return names


class PreconditionedAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` that normalizes each head's outputs; same arguments, parameters and state dict.

    ``add_bias_kv``, ``add_zero_attn`` and nested tensors are not supported.

    Raises
    ------
    ValueError
        For these arguments.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        _check_supported(self)
        self.register_forward_pre_hook(_no_fused_kernel)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Outputs, and attention weights or None; shapes and masks as for ``nn.MultiheadAttention``.

        ``is_causal`` is a hint there, and has no effect here: ``attn_mask`` is needed with it.
        """
        if query.is_nested or (is_causal and attn_mask is None):
            raise ValueError("found a nested tensor, or is_causal without attn_mask; expected padded tensors, a mask")
        batched, dropout = query.dim() == 3, self.dropout if self.training else 0.0
        q, k, v = self._heads(query, key, value)
        mask = self._added_mask(key_padding_mask, attn_mask, q.dtype)
        weights = None
        if need_weights:
            logits = q @ k.transpose(-1, -2) / math.sqrt(self.head_dim)
            weights = functional.dropout((logits if mask is None else logits + mask).softmax(-1), dropout)
            heads = weights.to(v.dtype) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            heads = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        joined = self.out_proj(preconditioned(heads).transpose(1, 2).flatten(-2))
        if not batched:
            return joined[0], None if weights is None else weights[0]
        return joined if self.batch_first else joined.transpose(0, 1), weights

    def _heads(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Queries, keys and values of all heads, each of shape (batch, heads, tokens, d)."""
        names = () if self._qkv_same_embed_dim else ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        if self._qkv_same_embed_dim and query is key and key is value:
            projected = functional.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
            return [self._split(x) for x in projected]
        matrices = [getattr(self, name) for name in names] if names else self.in_proj_weight.chunk(3)
        inputs = zip((query, key, value), matrices, biases, strict=True)
        return [self._split(functional.linear(x, matrix, bias)) for x, matrix, bias in inputs]

    def _split(self, x: Tensor) -> Tensor:
        """Reshape projected tokens, of any layout of ``forward``, to (batch, heads, tokens, head_dim)."""
        batch_first = x[None] if x.dim() == 2 else x if self.batch_first else x.transpose(0, 1)
        return batch_first.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _added_mask(self, padding: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Both masks as one that is added to the logits, of a shape that broadcasts to theirs; None without masks."""
        added = None
        if mask is not None:
            added = _additive(mask, dtype)
            added = added.unflatten(0, (-1, self.num_heads)) if mask.dim() == 3 else added
        if padding is not None:
            keys = _additive(padding, dtype).reshape(-1, 1, 1, padding.shape[-1])
            added = keys if added is None else added + keys
        return added


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers: −∞ where a boolean one is True."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, -math.inf)


def _check_supported(module: nn.MultiheadAttention) -> None:
    if module.bias_k is not None or module.add_zero_attn:
        raise ValueError("preconditioned attention does not support add_bias_kv and add_zero_attn")


def _no_fused_kernel(module: nn.Module, inputs: Any) -> None:
    """No effect, but that ``nn.TransformerEncoderLayer`` calls the layer; without hooks it uses a kernel of its own."""


def _projections(name: str, matrices: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The letter q, k or v and each matrix of one weight tensor of an attention layer."""
    letters = "qkv" if name == "in_proj_weight" else name[0]
    for letter, some in zip(letters, matrices.reshape(len(letters), -1, *matrices.shape[-2:]), strict=True):
        for matrix in some:
            yield letter, matrix


def _initialize_matrix_(matrix: Tensor, letter: str, init: str, generator: torch.Generator, shift: float) -> None:
    n_out, n_in = matrix.shape
    if init == "shifted_attention":
        matrix.copy_(shifted(matrix, shift=shift))
    elif init == "gaussian_attention":
        matrix.normal_(std=1 / math.sqrt(max(n_out, n_in)), generator=generator)
    elif letter == "v":
        nn.init.eye_(matrix)
    else:
        nn.init.orthogonal_(matrix, generator=generator)
