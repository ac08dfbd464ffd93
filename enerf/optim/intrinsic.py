"""Adam, RMSprop and Adagrad with L2 and L1 regularization in the preconditioned (intrinsic) parameter.

Vocabulary
----------
An adaptive optimizer steps θ ← θ − α P Pᵀ g with a diagonal **preconditioner** P: torch divides the averaged
gradient by √v̂ + ε, so that P = (√v̂ + ε)^(−1/2). The same step is plain gradient descent in the **intrinsic
parameter** z = P⁻¹ θ, whose gradient is Pᵀ g. Regularizing z instead of θ (with P constant within a step, as
in the paper) gives, with strengths λ called **l2** and **l1**:

- L2, λ/2 ‖z‖²: its gradient step is z ← (1 − αλ) z, so θ ← (1 − αλ) θ − α P Pᵀ g. This is decoupled weight
  decay, the same for every P: ``IntrinsicAdam`` with ``l2`` *is* AdamW (Theorem 3);
- L1, λ ‖z‖₁: its subgradient step is θ ← θ − α P Pᵀ g − αλ P sign(θ) (Theorem 4). It lies between Adam on a
  loss with L1, which would shrink by αλ P Pᵀ sign(θ), and "AdamW with L1", which would shrink by αλ sign(θ).

Momentum (Adam's first moment, RMSprop's ``momentum``) averages gradients of the loss only, as in AdamW.

Shrinkage
---------
``"sign"`` is the theorem's step, with θ before the step and P of the second moment that the step has just updated.
Once |θ| is below the **threshold** αλP, an entry with zero gradient oscillates around zero by αλP and does not
converge. ``"soft"`` is the proximal step of the same penalty. In z it is the usual one: a gradient
step to z⁺, then argmin over u of λ ‖u‖₁ + ‖u − z⁺‖² / (2α), which moves each entry of z⁺ towards zero by αλ and
no further. In terms of θ = P u, the distance is measured in the metric (P Pᵀ)⁻¹, and each entry solves

    argmin over u of  λ |u| / p + (u − θ⁺)² / (2 α p²)  =  sign(θ⁺) · max(|θ⁺| − αλp, 0):

soft thresholding by αλP after the gradient step. Far from zero it moves an entry as ``"sign"`` does; but it produces
exact zeros, which persist while |Pᵀ g| ≤ λ. At a fixed P its fixed points are the stationary points of
loss + λ ‖P⁻¹ θ‖₁. A weight whose gradient was always zero has P = ε^(−1/2), which is 10⁴ for Adam's ε: both kinds of
step move it fast.

References
----------
Q. Ye, Preconditioning for Accelerated Gradient Descent Optimization and Regularization (arXiv 2410.00232),
Theorems 3 and 4.
"""

from collections.abc import Callable
from typing import Any, SupportsFloat

import torch
from torch import Tensor
from torch.optim import Adagrad, AdamW, Optimizer, RMSprop
from torch.optim.optimizer import ParamsT, _use_grad_for_differentiable

from enerf.optim import shrinkage as shrinkage_ops
from enerf.optim.shrinkage import Rates, Sparsity, sparsity

__all__ = ["IntrinsicAdagrad", "IntrinsicAdam", "IntrinsicRMSprop", "Sparsity", "sparsity"]


def _bare(step: Callable[..., Any]) -> Callable[..., Any]:
    """The function that torch's class defines as its step, without decorators.

    ``Optimizer.__init__`` wraps ``step`` of each class in a function that runs the hooks of the optimizer, and the one
    in torch's source is decorated to turn gradients off. ``step`` of this module has both already. Within them, the
    undecorated function and the terms around it are compiled to one graph by ``torch.compile``.
    """
    while hasattr(step, "__wrapped__"):
        step = step.__wrapped__
    return step


class _Intrinsic(Optimizer):
    """Common base; precedes one of torch's optimizers in the order of inheritance.

    Subclasses set ``_bare_step``. Compiled steps call no ``super()``, which ``torch.compile`` cannot resume after a
    graph break.
    """

    _bare_step: Callable[..., Any]

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor | None = None,
        *,
        l1: SupportsFloat = 0.0,
        l2: SupportsFloat = 0.0,
        shrinkage: str = "sign",
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        l1, l2 = shrinkage_ops.strength("l1", l1), shrinkage_ops.strength("l2", l2)
        if lr is not None:
            options["lr"] = lr
        super().__init__(params, weight_decay=weight_decay, **options)  # type: ignore[call-arg]
        self._step_supports_amp_scaling = False  # so that a gradient scaler skips the whole step, not only torch's part
        self.defaults.update(l1=l1, l2=l2, shrinkage=shrinkage)
        for group in self.param_groups:
            for name in shrinkage_ops.DEFAULTS:
                group.setdefault(name, self.defaults[name])
            shrinkage_ops.check_(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, which may have its own options; they are checked as by the constructor."""
        super().add_param_group(param_group)
        if "l1" in self.defaults:  # otherwise the constructor checks
            try:
                shrinkage_ops.check_(self.param_groups[-1])
            except ValueError:
                self.param_groups.pop()
                raise

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            shrinkage_ops.complete_loaded_(group)
        super().__setstate__(state)

    @_use_grad_for_differentiable  # turns gradients off, at the graph breaks that torch's own steps have
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step, and return the result of ``closure`` if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found = [(group, shrinkage_ops.params_with_gradients(group)) for group in self.param_groups]
        updated = [(group, params) for group, params in found if params]
        signs = [self._decay(group, params) for group, params in updated]
        self._torch_step()
        for (group, params), signs_before in zip(updated, signs, strict=True):
            if group["l1"]:
                self._shrink(group, params, signs_before)
        return loss

    def _torch_step(self) -> None:
        """Do the step of torch's class without its hooks, which are run by this class's ``step``."""
        self._bare_step(self)

    def _decay(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        """Do the step of L2; return the signs of the parameters before it, or [] if they are not needed."""
        needed = group["l1"] and group["shrinkage"] == "sign"
        signs = shrinkage_ops.signs(params, shrinkage_ops.uses_foreach(group, params)) if needed else []
        if group["l2"]:
            rates = [rate * group["l2"] for rate in self._learning_rates(group, params, 0)]
            shrinkage_ops.decay_(params, rates, shrinkage_ops.uses_foreach(group, params))
        return signs

    def _shrink(self, group: dict[str, Any], params: list[Tensor], signs: list[Tensor]) -> None:
        """Do the step of L1, with P of the step that torch has just done."""
        foreach = shrinkage_ops.uses_foreach(group, params)
        moments, corrections = self._moments(group, [self.state[param] for param in params])
        denominators = shrinkage_ops.denominators(moments, corrections, group["eps"], foreach)
        rates = [rate * group["l1"] for rate in self._learning_rates(group, params, -1)]
        thresholds = shrinkage_ops.thresholds(denominators, rates, foreach)
        if group["shrinkage"] == "soft":
            shrinkage_ops.soft_threshold_(params, thresholds, foreach)
        else:
            shrinkage_ops.subtract_signs_(params, thresholds, signs, foreach)

    def _learning_rates(self, group: dict[str, Any], params: list[Tensor], since: int) -> Rates:
        """α of each parameter; its step counter plus ``since`` is the number of steps before this one."""
        return [group["lr"]] * len(params)

    def _moments(self, group: dict[str, Any], states: list[dict[str, Any]]) -> tuple[list[Tensor], Rates]:
        """Second moments and the bias corrections of their roots, of a subclass; see ``shrinkage.denominators``."""
        raise NotImplementedError


class IntrinsicAdam(_Intrinsic, AdamW):
    """Adam with L1 and L2 penalties on z = P⁻¹θ, P being Adam's diagonal preconditioner; without L1 exactly AdamW.

    Parameters
    ----------
    params
        As for every torch optimizer. A group may have its own ``l1``, ``l2`` and ``shrinkage``.
    lr
        α; None is torch's default.
    l1, l2
        λ of λ ‖z‖₁ and of λ/2 ‖z‖², at least 0; a tensor or a NumPy scalar is converted to a number.
    shrinkage
        L1 step: ``"sign"`` or ``"soft"``; see the module.
    weight_decay
        Must be 0; use ``l2``.
    **options
        Options of torch's AdamW: ``betas``, ``eps``, ``amsgrad`` (P is then computed from the largest second moment),
        ``maximize``, ``foreach``, ``capturable``, ``fused``.

    Raises
    ------
    ValueError
        If an option is out of range, ``weight_decay`` or ``differentiable`` is set, or a parameter is complex.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> optimizer = IntrinsicAdam([weight], lr=0.5, l1=0.1, shrinkage="soft")
    >>> (weight * torch.tensor([1.0, 0.0])).sum().backward()
    >>> optimizer.step()
    >>> weight.detach(), sparsity(optimizer).overall
    (tensor([0.4500, 0.0000]), 0.5)
    """

    _bare_step = staticmethod(_bare(AdamW.step))

    def state_dict(self) -> dict[str, Any]:
        """Return the state; ``l2`` is also saved as AdamW's ``weight_decay``, so that AdamW continues with it.

        AdamW ignores ``l1``: it has no such term.
        """
        saved: dict[str, Any] = super().state_dict()
        for group in saved["param_groups"]:
            group["weight_decay"] = group["l2"]
        return saved

    def _torch_step(self) -> None:
        if torch.compiler.is_compiling():  # it would also write back groups with capturable=True, its own assumption
            self._bare_step(self)
            return
        for group in self.param_groups:
            group["weight_decay"] = group["l2"]  # Theorem 3, done by torch's own kernels
        try:
            self._bare_step(self)
        finally:
            for group in self.param_groups:
                group["weight_decay"] = 0.0

    def _decay(self, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        if not torch.compiler.is_compiling():
            group = {**group, "l2": 0.0}
        return _Intrinsic._decay(self, group, params)

    def _moments(self, group: dict[str, Any], states: list[dict[str, Any]]) -> tuple[list[Tensor], Rates]:
        beta2, moment = group["betas"][1], "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
        corrections = [(1 - beta2**step) ** 0.5 for step in shrinkage_ops.steps_done(group, states)]
        return [state[moment] for state in states], corrections


class IntrinsicRMSprop(_Intrinsic, RMSprop):
    """RMSprop with intrinsic regularization.

    Parameters as for ``IntrinsicAdam``; ``options`` are those of torch's RMSprop: ``alpha``, ``eps``, ``momentum``,
    ``centered`` (P is then computed from the variance), ``capturable``, ``foreach``, ``maximize``. torch's RMSprop has
    no decoupled decay: it loads a state of this class, and ignores ``l1`` and ``l2``.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.zeros(1)
    >>> IntrinsicRMSprop([weight], lr=0.1, l2=1.0).step()
    >>> weight.detach()
    tensor([0.9000])
    """

    _bare_step = staticmethod(_bare(RMSprop.step))

    def _moments(self, group: dict[str, Any], states: list[dict[str, Any]]) -> tuple[list[Tensor], Rates]:
        moments = [state["square_avg"] for state in states]
        if group["centered"]:
            means = [state["grad_avg"] for state in states]
            moments = [v.addcmul(mean, mean, value=-1) for v, mean in zip(moments, means, strict=True)]
        return moments, [1.0] * len(moments)


class IntrinsicAdagrad(_Intrinsic, Adagrad):
    """Adagrad with intrinsic regularization.

    Parameters as for ``IntrinsicAdam``; ``options`` are those of torch's Adagrad: ``lr_decay`` (applied to the
    regularization as to the gradient), ``initial_accumulator_value``, ``eps``, ``foreach``, ``maximize``, ``fused``.
    Sparse gradients are supported where ``l1`` and ``l2`` are 0. torch's Adagrad ignores both in a loaded state.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> weight.grad = torch.full((1,), 2.0)
    >>> IntrinsicAdagrad([weight], lr=0.5).step()
    >>> weight.detach()
    tensor([0.5000])
    """

    _bare_step = staticmethod(_bare(Adagrad.step))

    def _learning_rates(self, group: dict[str, Any], params: list[Tensor], since: int) -> Rates:
        if not group["lr_decay"]:
            return _Intrinsic._learning_rates(self, group, params, since)
        steps = [step + since for step in shrinkage_ops.steps_done(group, [self.state[param] for param in params])]
        return [group["lr"] / (1 + step * group["lr_decay"]) for step in steps]

    def _moments(self, group: dict[str, Any], states: list[dict[str, Any]]) -> tuple[list[Tensor], Rates]:
        return [state["sum"] for state in states], [1.0] * len(states)
