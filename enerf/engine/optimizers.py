"""Optimizers of fields: Adam, without importing torch's compiler, and others for hidden matrices."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from enerf.config.options import ConditioningOptions, FitOptions
from enerf.core.errors import InputError
from enerf.optim import table
from enerf.optim.combined import Combined


def _without_compiler(function: Callable[..., Any]) -> Any:
    """A method of an optimizer without the wrapper that keeps ``torch.compile`` out of it."""
    return inspect.unwrap(function)


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` with methods that do not import ``torch._dynamo``, which takes a second.

    The wrappers that are left out matter within ``torch.compile`` alone, and with ``differentiable``. Values are the
    same bit for bit; state dicts are those of ``torch.optim.Adam``.
    """

    step = torch.no_grad()(_without_compiler(torch.optim.Adam.step))
    zero_grad = _without_compiler(torch.optim.Optimizer.zero_grad)
    add_param_group = _without_compiler(torch.optim.Optimizer.add_param_group)
    state_dict = _without_compiler(torch.optim.Optimizer.state_dict)
    load_state_dict = _without_compiler(torch.optim.Optimizer.load_state_dict)


def adam(
    model: nn.Module,
    lrate: float | int,
    *,
    grid_scale: float | int = 1.0,
    beta2: float | int = 0.999,
    eps: float | int = 1e-8,
    scales: Mapping[str, float] | None = None,
    without: Collection[str] = (),
) -> torch.optim.Optimizer:
    """Return an Adam optimizer of a model's parameters, but those named in ``without``.

    Hash tables, if there are any, form a second parameter group, whose learning rate is ``grid_scale`` times ``lrate``.
    Adam is fused if there are hash tables. ``scales`` are those of further groups, by the beginning of the names of
    their parameters; a group without parameters is left out.
    """
    named, apart = [item for item in model.named_parameters() if item[0] not in set(without)], tuple(scales or ())
    grids = [p for name, p in named if name.endswith(".table")]
    others = [p for name, p in named if not name.endswith(".table") and not (apart and name.startswith(apart))]
    groups: list[dict[str, Any]] = [{"params": others, "scale": 1.0}]
    if grids:
        groups.append({"params": grids, "scale": float(grid_scale)})
    for start, scale in (scales or {}).items():
        if own := [p for name, p in named if name.startswith(start)]:
            groups.append({"params": own, "scale": float(scale)})
    return Adam(groups, lr=lrate, betas=(0.9, beta2), eps=eps, fused=bool(grids))


def set_learning_rate(optimizer: torch.optim.Optimizer, value: float | int) -> None:
    """Set the learning rate of every parameter group: ``value`` times the ``scale`` of the group."""
    for group in optimizer.param_groups:
        group["lr"] = value * group.get("scale", 1.0)


def of_field(
    train: FitOptions,
    conditioning: ConditioningOptions,
    model: nn.Module,
    matrices: Collection[str] = (),
    scales: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """Return the optimizer of a field with the learning rates and betas of the options.

    It is Adam; the parameters named in ``matrices`` are updated by the optimizer that ``conditioning`` names.
    ``scales`` are those of further parameter groups of Adam, see ``adam``.

    Raises
    ------
    InputError
        If a package of the optimizer is missing, or no matrix is left for it.
    """
    grid_scale = train.lrate_grid / train.lrate if train.lrate_grid else 1.0
    others = adam(
        model,
        train.lrate,
        grid_scale=grid_scale,
        beta2=train.adam_beta2,
        eps=train.adam_eps,
        scales=scales,
        without=matrices,
    )
    name = conditioning.methods.optimizer
    if name == "none":
        return others
    return with_matrices(
        others,
        name,
        [parameter for key, parameter in model.named_parameters() if key in set(matrices)],
        (train.lrate, conditioning.lrate_matrices),
        f"--conditioning {conditioning.conditioning}",
        "a deeper network, or other --equilibrate_layers",
    )


def with_matrices(
    others: torch.optim.Optimizer,
    name: str,
    matrices: Sequence[nn.Parameter],
    lrates: tuple[float, float],
    option: str,
    remedy: str,
    **options: Any,
) -> torch.optim.Optimizer:
    """Return an optimizer that updates matrices by the optimizer with that name, and other parameters by ``others``.

    Parameters
    ----------
    others
        The optimizer of all other parameters.
    name, matrices
        A name of ``optim.table``, and the hidden matrices.
    lrates
        Initial learning rates of the other parameters, and of the matrices; 0: the same. Their ratio is the ``scale``
        of the matrices' parameter group.
    option, remedy
        Words for errors: the option that asks for the optimizer, and what to do if there are no matrices.
    options
        Further arguments of ``optim.table.matrix_optimizer``.

    Raises
    ------
    InputError
        If a package is missing, there are no matrices, or the optimizer does not take them.
    """
    if not matrices:
        raise InputError(
            f"option {option}: found no hidden matrix between the first layer and the head, expected one for {name}: "
            f"{remedy}"
        )
    rate = lrates[1] or lrates[0]
    try:
        of_matrices = table.matrix_optimizer(name, matrices, rate, **options)
    except (ImportError, ValueError) as error:
        raise InputError(f"option {option}: {error}") from None
    for group in of_matrices.param_groups:
        group["scale"] = rate / lrates[0]
    return Combined([others, of_matrices])
