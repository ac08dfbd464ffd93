"""Whether a method can be applied to a layer: reasons against it, found without changing the model.

A weight can be of the wrong kind (sparse, quantized, without entries), be computed from other parameters, be shared
with a module that cannot be conditioned with it, have a shape that the method does not suit, or have rows of zeros.

Zero rows
---------
A map divides each row by its norm, or by ``norms.FLOOR`` if the norm is smaller. The row then stays zero, and its
gradient is multiplied by 1/``FLOOR``, a million: one step of training replaces a row that was initialized to zero on
purpose (LoRA's B, zero convolutions, the initialization of a shape as a sphere). ``zero_rows`` selects what happens to
such layers:

- ``left_out``: groups, types and patterns skip them with a reason; naming one is an error, as for other unsuitable
  layers;
- ``refused``: a selector that matches one is an error;
- ``conditioned``: they are conditioned like others.

Zeros on the diagonal are the same for ``jacobi``, which divides by its entries, and so are weights that a map of
``registry.register_map`` would make NaN or infinite: such a map may have no floor, and is applied once to see.

Weights without values (on the meta device) and layers that are conditioned already are not examined.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from enerf.conditioning import batch_norm, maps, norms, weight_views
from enerf.conditioning.weight_views import WeightView

ZERO_ROWS = ("left_out", "refused", "conditioned")
DIVIDES_INPUTS = ("row", "row_column", "ruiz", "orthogonal")
DIVIDES_OUTPUTS = ("column", "row_column", "ruiz", "weight_standardisation", "orthogonal")
SMALLEST_SINGULAR_VALUE = 1e-6  # of the largest, for ``orthogonal``

# torch's hooks that compute a weight before each call: module of their class -> what makes the weight permanent.
PERMANENT = {
    "torch.nn.utils.prune": "torch.nn.utils.prune.remove",
    "torch.nn.utils.weight_norm": "torch.nn.utils.remove_weight_norm",
    "torch.nn.utils.spectral_norm": "torch.nn.utils.remove_spectral_norm",
}


def unsuitable_reason(
    model: nn.Module, name: str, method: str, packing: str = "matrix", zero_rows: str = "left_out"
) -> str | None:
    """Why the layer with that name cannot be conditioned by ``method``, or None if it can."""
    module = model.get_submodule(name)
    reasons = (tensor_reason(module, view, method, zero_rows) for view in weight_views.views(module, packing))
    reason = next((reason for reason in reasons if reason), None)
    plain_type = parametrize.type_before_parametrizations(module)
    if reason is None and method == "batch_norm" and not batch_norm.supports(plain_type):
        return f"batch_norm preconditions linear layers and convolutions, and it is a {type(module).__name__}"
    if reason is None and method == "spectral_shift" and not isinstance(module, nn.MultiheadAttention):
        return "it has no projections of queries, keys and values"
    return reason or _tied_weight_problem(model, name, method)


def tensor_reason(module: nn.Module, view: WeightView, method: str, zero_rows: str = "left_out") -> str | None:
    """Why one weight tensor of a module cannot be conditioned by ``method``, or None if it can."""
    return (
        storage_reason(module, view)
        or _shape_problem(view, method)
        or _added_problem(view, method)
        or _redrawn_problem(module, view, method, zero_rows)
        or _zero_problem(module, view, method, zero_rows)
    )


def computed_reason(module: nn.Module, tensor_name: str) -> str | None:
    """Why assigning to a tensor of the module has no effect, or None: a hook computes it before each call.

    The hook is named, with the function that removes it.
    """
    if tensor_name in module._parameters or tensor_name in module._buffers:
        return None
    hooks = [hook for hook in module._forward_pre_hooks.values() if tensor_name in _computed_tensors(hook)]
    problem = "its weight is computed from other parameters"
    if not hooks:
        return f"{problem}, by code of {type(module).__name__}: make it permanent first"
    kind = type(hooks[0])
    remedy = next((fix for known, fix in PERMANENT.items() if kind.__module__ == known), None)
    return f"{problem} by the hook {kind.__name__}: make it permanent first" + (f" ({remedy})" if remedy else "")


def zero_rows_of(matrices: Tensor, method: str) -> tuple[int, int]:
    """Number of rows whose norm is at most ``norms.FLOOR``, so that ``method`` divides them by that, and of all rows.

    Rows are those of inputs, of outputs, or both, as the method divides.
    """
    zeros = total = 0
    for dim, methods in ((-2, DIVIDES_INPUTS), (-1, DIVIDES_OUTPUTS)):
        if method in methods:
            values = matrices - matrices.mean(-1, keepdim=True) if method == "weight_standardisation" else matrices
            at_floor = norms.floored(values, dim) <= norms.FLOOR
            zeros, total = zeros + int(at_floor.sum()), total + at_floor.numel()
    return zeros, total


class Owner(NamedTuple):
    """Another module that has one of a layer's weights: the weight's name here; path, module and name there."""

    weight: str
    path: str
    module: nn.Module
    name: str


def other_owners(model: nn.Module, layer: nn.Module) -> Iterator[Owner]:
    """The modules that share a weight with the layer."""
    names = {view.name for view in weight_views.views(layer)}
    own = {id(p): key for key, p in layer.named_parameters(recurse=False) if key in names}
    for path, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if module is not layer and id(parameter) in own:
                yield Owner(own[id(parameter)], path, module, key)


def _computed_tensors(hook: object) -> set[str]:
    """Names of the tensors that a hook of ``torch.nn.utils`` computes."""
    return {str(getattr(hook, key)) for key in ("_tensor_name", "name") if hasattr(hook, key)}


def storage_reason(module: nn.Module, view: WeightView) -> str | None:
    """Why a tensor of that kind has no weights that can be scaled or drawn, or None."""
    weight = _raw(module, view)
    if weight is None or isinstance(weight, str):  # None: a conditioned layer with several originals
        return weight
    if is_lazy(weight):
        return "its shape is not known yet: run the model once on an example, then condition it"
    if weight.layout != torch.strided or getattr(weight, "is_sparse", False):
        return f"its weight is sparse ({weight.layout}), and norms of its rows would have to be kept dense"
    if not weight.is_floating_point() or weight.is_quantized or weight.dtype.itemsize < 2:
        return f"its weight holds {weight.dtype}, and only real floating point weights of 16 bits or more can be scaled"
    if not parametrize.is_parametrized(module, view.name) and tuple(weight.shape) != view.shape:
        return f"its weight has shape {tuple(weight.shape)}, expected {view.shape}"
    return None


def _raw(module: nn.Module, view: WeightView) -> Tensor | str | None:
    """The parameter of a weight; a reason if it is computed by a hook; None if there are several."""
    if parametrize.is_parametrized(module, view.name):
        return dict(module.named_parameters()).get(f"parametrizations.{view.name}.original")
    weight: Tensor = getattr(module, view.name)
    return computed_reason(module, view.name) or weight


def _shape_problem(view: WeightView, method: str) -> str | None:
    """Why a method cannot be applied to matrices of that shape, or None."""
    n_out, n_in = view.n_out, view.n_in
    if not n_out or not n_in:
        return f"it has no weights: its matrices are {n_out} × {n_in}"
    per_group = " per group" if view.batch and not view.name.startswith("in_proj") else ""
    if n_out == 1 and method in ("row", "row_column", "ruiz", "jacobi", "unit_row"):
        return (
            f"it has a single output{per_group}, and row equilibration would turn its weights "
            f"(W of shape {n_in} × 1) into sign(W), with zero gradient"
        )
    if n_in == 1 and method == "weight_standardisation":
        return f"it has a single input{per_group}, and a single weight minus its mean is zero"
    if n_in == 1 and method in ("column", "row_column", "ruiz"):
        return (
            f"it has a single input{per_group}, and column equilibration would turn its weights "
            f"(W of shape 1 × {n_out}) into sign(W), with zero gradient"
        )
    if method == "jacobi" and n_out != n_in:
        return f"jacobi needs a square matrix, and this one is {n_out} × {n_in}"
    return None


def _added_problem(view: WeightView, method: str) -> str | None:
    """The reason that the map of ``register_map`` itself gives (``unsuitable``) not to be applied, or None."""
    added = maps.ADDED.get(method)
    return added.unsuitable(view) if added is not None and added.unsuitable is not None else None


def _zero_problem(module: nn.Module, view: WeightView, method: str, zero_rows: str) -> str | None:
    """Why rows of zeros speak against a method, or None."""
    if zero_rows == "conditioned" or parametrize.is_parametrized(module, view.name):
        return None
    weight = getattr(module, view.name).detach()
    if weight.is_meta:
        return None
    if method == "spectral_norm":
        return "its weight is zero, and spectral normalization would divide by zero" if not weight.any() else None
    if method == "weight_norm":  # it has a length for each channel, also of a transposed convolution
        channels = weight.movedim(view.output_axis, 0).flatten(1)
        zeros = int((~channels.any(-1)).sum())
        problem = f"{zeros} of its {len(channels)} outputs have zero weights, which weight norm would turn into NaN"
        return problem if zeros else None
    matrices = view.to_matrices(weight)
    return _diagonal_problem(matrices) if method == "jacobi" else _row_problem(matrices, method)


def _row_problem(matrices: Tensor, method: str) -> str | None:
    """Why rows of zeros, or a rank that is not full, speak against a map, or None."""
    zeros, total = zero_rows_of(matrices, method)
    if not zeros:
        return _rank_problem(matrices) if method == "orthogonal" else _mapped_problem(matrices, method)
    return (
        f"{zeros} of its {total} rows are zero (at most {norms.FLOOR:.0e}) and would have gradients multiplied by "
        f'{1 / norms.FLOOR:.0e}; zero_rows="conditioned" conditions it all the same'
    )


def _diagonal_problem(matrices: Tensor) -> str | None:
    """Why zeros on the diagonal speak against ``jacobi``, or None."""
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)
    zeros = int((diagonal.abs() < norms.FLOOR).sum())
    if not zeros:
        return None
    return (
        f"jacobi divides by the diagonal, and {zeros} of its {diagonal.numel()} entries are zero (below "
        f'{norms.FLOOR:.0e}); zero_rows="conditioned" conditions it all the same'
    )


def _mapped_problem(matrices: Tensor, method: str) -> str | None:
    """The reason not to apply a map of ``register_map`` to these matrices, or None: it fails, or makes NaN of them."""
    added = maps.ADDED.get(method)
    if added is None or added.function is None or not matrices.isfinite().all():
        return None
    try:
        p = 2.0 if 2.0 in added.orders else added.orders[0]
        mapped = added.function(matrices.clone(), "through", p)  # a copy: a map may write to its argument
    except (ValueError, AssertionError, NotImplementedError):  # of this gradient or norm: told when it is applied
        return None
    except RuntimeError as error:  # such as the inverse of a singular matrix
        return f"{method} cannot be computed for it: {error}"
    wrong = int((~mapped.isfinite()).sum()) if isinstance(mapped, Tensor) else 0
    if not wrong:
        return None
    return (
        f"{method} would make {wrong} of its {matrices.numel()} weights NaN or infinite, as division by the norm of a "
        'row of zeros does; zero_rows="conditioned" conditions it all the same'
    )


def _rank_problem(matrices: Tensor) -> str | None:
    """Why matrices of lower rank speak against orthogonal weights, or None."""
    exact = matrices.double()
    if not exact.isfinite().all():
        return None
    tall = exact if exact.shape[-2] >= exact.shape[-1] else exact.mT
    unit = tall / tall.abs().amax((-2, -1), keepdim=True)
    squares = torch.linalg.eigvalsh(unit.mT @ unit)  # by the Gram matrix, as the map does
    ratio = (squares[..., 0].clamp(min=0) / squares[..., -1]).sqrt().min().item()
    if ratio >= SMALLEST_SINGULAR_VALUE:
        return None
    return (
        f"it does not have full rank (smallest singular value {ratio:.0e} of the largest), and gradients would be "
        'multiplied by the inverse of that; zero_rows="conditioned" conditions it all the same'
    )


def _redrawn_problem(module: nn.Module, view: WeightView, method: str, zero_rows: str) -> str | None:
    """Why a method that replaces weights by others is not applied to this one, or None: it is frozen, or zero."""
    added = maps.ADDED.get(method)
    if added is None or not added.redraws or parametrize.is_parametrized(module, view.name):
        return None
    weight = getattr(module, view.name)
    if isinstance(weight, nn.Parameter) and not weight.requires_grad:
        return f"it is frozen, and {method} would replace its weights by others"
    if zero_rows == "conditioned" or weight.is_meta or weight.any():
        return None
    return f'its weight is zero, and {method} would replace it; zero_rows="conditioned" conditions it all the same'


def _tied_weight_problem(model: nn.Module, name: str, method: str) -> str | None:
    """Why a layer cannot be conditioned together with the modules tied to it, or None if it can."""
    layer, added = model.get_submodule(name), maps.ADDED.get(method)
    views = {view.name: view for view in weight_views.views(layer)}
    for owner in other_owners(model, layer):
        others = [_layout(view) for view in weight_views.views(owner.module) if view.name == owner.name]
        shared = f"it shares its weight with {owner.path} ({type(owner.module).__name__}.{owner.name}), which"
        if others != [_layout(views[owner.weight])]:
            return f"{shared} cannot be conditioned with it: untie them first"
        if method == "weight_norm" or (added is not None and added.function is None):
            return f"{shared} {method} would give parameters of its own: untie them first"
    return None


def _layout(view: WeightView) -> tuple[object, ...]:
    return view.shape, view.batch, view.n_out, view.n_in, view.transposed
