"""Batch-norm preconditioning: gradients scaled by the statistics of a layer's inputs; outputs are bitwise unchanged.

Vocabulary
----------
A layer computes W x + b. Over the rows of a batch its **inputs** x have mean μ and variance σ², one of each per
input feature; for a convolution one per channel, over batch and positions (without padding), the same for every
kernel element. **σ̃²** = σ² + ``eps_relative`` · max(σ²) + ``eps`` bounds the scaling of nearly constant features.

With batch normalization the layer receives x̂ = (x − μ) / σ̃. A gradient step on the weights of *that* layer equals,
for the layer without it, a step along P Pᵀ g. For the extended parameter (b, w) of one output

    P = (1/q) U D,   U = [[1, −μᵀ], [0, I]],   D = diag(1, 1/σ̃),

so that the gradient g = (g_b, g_w) becomes

    g_w' = (g_w − μ g_b) / (σ̃² q²),   g_b' = g_b / q² − μᵀ g_w'.

**q²** = max(n / N, 1), with n the number of entries of w and N the number of rows (all leading axes of a linear
layer's input; batch times positions for a convolution), limits the steps of small batches. Without a bias, or with a
frozen one, U is omitted, because a shift of the inputs could not be compensated: g_w' = g_w / (σ̃² q²). With frozen
weights, g_b' = g_b / q².

Running averages
----------------
In training mode each call updates μ and σ² with weight 1 − ``decay`` for the new batch; the first calls average with
equal weights (weight of the past after t calls: min(decay, t / (t + 1))). The variance is that of the mixture: it
includes the distance of a batch's mean from the average, so that batches of one row have a variance. In evaluation
mode, and in the second forward pass of activation checkpointing, nothing is updated, and gradients are still
preconditioned. Where μ is much larger than σ, g_w − μ g_b suffers
from cancellation: center the inputs there, as for any other method.

Several processes, accumulation
-------------------------------
Where ``torch.distributed`` runs several processes, μ, σ² and N are those of all of them, so that P is the same
everywhere and the averaged gradient (DDP, FSDP2) is that of the joint batch; N assumes equal parts. Accumulating the
gradients of several calls in training mode would use another P for each, as statistics change and N is smaller: a
backward pass is refused that would add the gradient of a call to that of another one. That is not noticed under
``torch.compile``, where the weight of a call is a gathered copy (FSDP2), and where other code puts another tensor into
``.grad`` between two passes (DDP does so in its first step); several calls in one backward pass are accepted, as for a
layer that is used twice. In evaluation mode P stands still but for N.

``.grad`` receives the preconditioned gradients, which are linear in the plain ones; their
derivatives pass through P Pᵀ again (a Hessian-vector product becomes P Pᵀ H P Pᵀ v). torch raises an error for
forward-mode derivatives, because the identity's tangent would not match this gradient.

References
----------
S. Lange, K. Helfrich, Q. Ye, Batch Normalization Preconditioning for Neural Network Training, JMLR 23(72), 2022; the
defaults are the paper's. The equal weights of the first batches, the variance of the mixture and the treatment of
missing and frozen parameters are additions.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.weak import TensorWeakRef

from enerf.conditioning import recomputation

BUFFERS = ("input_mean", "input_variance", "input_batches")


@dataclass(frozen=True)
class _Options:
    decay: float
    eps_relative: float
    eps: float
    synchronized: bool = True
    accumulation: bool = False


@dataclass
class _Accumulation:
    """The calls of a layer, and those whose gradients are in ``.grad`` of its weight; a copy starts anew."""

    calls: int = 0  # in training mode
    of_gradient: set[int] = field(default_factory=set)
    gradient: TensorWeakRef | None = None  # that tensor; one that others have made has gradients of none of the calls
    backward_pass: int = -1
    accumulates: bool = False  # that pass adds to gradients of earlier ones

    def check_of_call(self, weight: Tensor) -> Callable[[], None]:
        """A function for the backward pass of the present call, which raises an error if it accumulates gradients."""
        call = self.calls
        return lambda: self._check(weight, call)

    def _check(self, weight: Tensor, call: int) -> None:
        backward_pass = torch._C._current_graph_task_id()
        if backward_pass != self.backward_pass:  # torch adds to .grad at the end of a pass
            self.backward_pass = backward_pass
            known = None if self.gradient is None else self.gradient()
            self.accumulates = known is not None and bool(known.any()) and known is weight.grad
            if not self.accumulates:
                self.of_gradient = set()
            torch.autograd.Variable._execution_engine.queue_callback(lambda: self._end(weight))
        if not self.accumulates:
            self.of_gradient.add(call)
        elif call not in self.of_gradient:
            raise RuntimeError(
                "gradients of several calls are accumulated, and batch-norm preconditioning would scale each by the "
                "statistics of its own batch: call zero_grad before each backward pass, or accept it by "
                "batch_norm.precondition_(layer, accumulation=True)"
            )

    def _end(self, weight: Tensor) -> None:
        """Remember the gradient at the end of a pass."""
        self.gradient = None if weight.grad is None else TensorWeakRef(weight.grad)

    def __reduce__(self) -> tuple[type["_Accumulation"], tuple[()]]:
        return _Accumulation, ()


class _PreconditionedLayer(nn.Module):
    """Mixin of the preconditioned layers: three buffers and their update."""

    weight: Tensor
    input_mean: Tensor
    input_variance: Tensor
    input_batches: Tensor
    preconditioning: _Options
    accumulation: _Accumulation

    def _preconditioned(self, inputs: Tensor, spatial: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias whose gradients will be multiplied by P Pᵀ of these inputs.

        The inputs have ``spatial`` axes after that of the channels: 0 for a linear layer, 2 for images.
        """
        options, features = self.preconditioning, self.input_mean.shape[0]
        rows = inputs.numel() // features
        processes = _processes() if options.synchronized else 1
        updates = self.training and (rows or processes > 1) and not recomputation.is_recomputed()
        if updates and not torch.compiler.is_compiling():  # a number that changes would be compiled again
            self.accumulation.calls += 1
        mean, variance = self._updated(inputs.detach(), spatial) if updates else self._averages()
        regularized = variance + options.eps_relative * variance.max() + options.eps
        n = self.weight[0].numel()
        shrink = 1 / max(n / max(rows * processes, 1), 1.0)
        result: tuple[Tensor, Tensor | None] = _Preconditioned.apply(
            self.weight, self.bias, mean, regularized, shrink, self._check_of_call()
        )
        return result

    def _check_of_call(self) -> Callable[[], None] | None:
        """What the backward pass of this call checks, or None."""
        weight = self.weight
        if not self.training or self.preconditioning.accumulation or torch.compiler.is_compiling():
            return None
        is_trained = torch.is_grad_enabled() and weight.requires_grad and weight.is_leaf
        return self.accumulation.check_of_call(weight) if is_trained else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_PreconditionedLayer":
        """Move or convert; the averages of a model in 16 bits stay in 32, because variances can exceed float16."""
        before = {name: getattr(self, name) for name in BUFFERS[:2]}
        super()._apply(fn, recurse)
        for name, exact in before.items():
            converted = getattr(self, name)
            if converted.dtype.itemsize < 4:
                setattr(self, name, exact.to(converted.device))
        return self

    def _averages(self) -> tuple[Tensor, Tensor]:
        return self.input_mean.clone(), self.input_variance.clone()

    def _updated(self, inputs: Tensor, spatial: int) -> tuple[Tensor, Tensor]:
        """Update the averages with one more batch; the returned tensors do not share memory with the buffers."""
        batched = inputs.reshape(-1, *inputs.shape[-1 - spatial :])
        rows = batched.numel() // len(self.input_mean)
        zeros = torch.zeros_like(self.input_mean)
        mean, variance = _statistics(batched.to(zeros.dtype)) if rows else (zeros, zeros)
        if self.preconditioning.synchronized and _processes() > 1:
            mean, variance, rows = _of_all_processes(mean, variance, rows)
            if not rows:
                return self._averages()
        before = self.input_batches.to(mean.dtype)
        past = (before / (before + 1)).clamp(max=self.preconditioning.decay)
        difference = mean - self.input_mean
        mean = self.input_mean + (1 - past) * difference
        variance = past * self.input_variance + (1 - past) * (variance + past * difference.square())
        self.input_mean.copy_(mean)
        self.input_variance.copy_(variance)
        self.input_batches.add_(1)
        return mean, variance

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled layer; those of earlier versions have no record of calls."""
        super().__setstate__({"accumulation": _Accumulation(), **state})

    def extra_repr(self) -> str:
        options = self.preconditioning
        return f"{super().extra_repr()}, batch-norm preconditioned, decay={options.decay}"


class PreconditionedLinear(_PreconditionedLayer, nn.Linear):
    """``nn.Linear`` with preconditioned gradients; made by ``precondition_``."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute the outputs of ``nn.Linear``."""
        return functional.linear(input, *self._preconditioned(input, 0))


class PreconditionedConv1d(_PreconditionedLayer, nn.Conv1d):
    """``nn.Conv1d`` with preconditioned gradients; made by ``precondition_``."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute the outputs of ``nn.Conv1d``."""
        return self._conv_forward(input, *self._preconditioned(input, 1))


class PreconditionedConv2d(_PreconditionedLayer, nn.Conv2d):
    """``nn.Conv2d`` with preconditioned gradients; made by ``precondition_``."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute the outputs of ``nn.Conv2d``."""
        return self._conv_forward(input, *self._preconditioned(input, 2))


class PreconditionedConv3d(_PreconditionedLayer, nn.Conv3d):
    """``nn.Conv3d`` with preconditioned gradients; made by ``precondition_``."""

    def forward(self, input: Tensor) -> Tensor:
        """Compute the outputs of ``nn.Conv3d``."""
        return self._conv_forward(input, *self._preconditioned(input, 3))


CLASSES: dict[type[nn.Module], type[_PreconditionedLayer]] = {
    nn.Linear: PreconditionedLinear,
    nn.Conv1d: PreconditionedConv1d,
    nn.Conv2d: PreconditionedConv2d,
    nn.Conv3d: PreconditionedConv3d,
}
PLAIN: dict[type[nn.Module], type[nn.Module]] = {preconditioned: plain for plain, preconditioned in CLASSES.items()}


def precondition_(
    module: nn.Module,
    *,
    decay: float = 0.99,
    eps_relative: float = 1e-2,
    eps: float = 1e-4,
    synchronized: bool = True,
    accumulation: bool = False,
) -> None:
    """Precondition the gradients of a layer, in place; its outputs, parameters and hooks do not change.

    Changes the layer's class, and adds three buffers, which are part of its state dict: ``input_mean``,
    ``input_variance`` and ``input_batches``. The class is changed instead of the module replaced, because its parent,
    hooks, optimizers and tied layers refer to this object; a parametrization or a hook would not do, because the
    gradients depend on the inputs of the same call. The new class is a subclass of the old one, importable by name, so
    that ``isinstance``, copies, ``pickle``, ``torch.save`` and ``torch.compile`` work as for the plain layer.

    Parameters
    ----------
    module
        An ``nn.Linear`` or ``nn.Conv1d``, ``2d``, ``3d``; not a subclass, whose ``forward`` may differ.
    decay
        ρ in [0, 1), the weight of the past in the running averages; with 0 they are the statistics of the last batch.
    eps_relative, eps
        ε₁ and ε₂ of σ̃², at least 0. With both at 0, the gradient of a constant feature is not finite.
    synchronized
        Whether statistics are those of all processes of ``torch.distributed``, as for ``nn.SyncBatchNorm``; every
        process must then call the layer equally often. Without effect in a single process.
    accumulation
        Whether gradients of several calls may be added before a step, each preconditioned by the averages at its call.
        By default the backward pass raises a RuntimeError, where it can be noticed (see the module).

    Raises
    ------
    ValueError
        If an option is out of range, or the module has another type, is parametrized, or is preconditioned already.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> precondition_(layer)
    >>> layer(torch.tensor([[1.0, 50.0], [3.0, 10.0]])).sum().backward()
    >>> layer.input_mean, layer.input_variance
    (tensor([ 2., 30.]), tensor([  1., 400.]))
    """
    _check("decay", decay, 0 <= decay < 1, "at least 0 and below 1")
    _check("eps_relative", eps_relative, 0 <= eps_relative < float("inf"), "a number from 0 up")
    _check("eps", eps, 0 <= eps < float("inf"), "a number from 0 up")
    if is_preconditioned(module):
        raise ValueError("the layer is batch-norm preconditioned already; it is done once")
    if type(module) not in CLASSES:
        known = ", ".join(f"nn.{plain.__name__}" for plain in CLASSES)
        raise ValueError(f"the layer is a {type(module).__name__}; batch-norm preconditioning takes {known}")
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    if weight is None:
        raise ValueError("the layer's weight is computed from other parameters, by pruning or a hook of torch.nn.utils")
    features = weight.shape[1] * getattr(module, "groups", 1)
    dtype = torch.promote_types(weight.dtype, torch.float32)
    module.register_buffer("input_mean", torch.zeros(features, dtype=dtype, device=weight.device))
    module.register_buffer("input_variance", torch.ones(features, dtype=dtype, device=weight.device))
    module.register_buffer("input_batches", torch.zeros((), dtype=torch.long, device=weight.device))
    vars(module)["preconditioning"] = _Options(decay, eps_relative, eps, synchronized, accumulation)
    vars(module)["accumulation"] = _Accumulation()
    module.__class__ = CLASSES[type(module)]


def supports(layer_type: type[nn.Module]) -> bool:
    """Whether layers of exactly that type can be preconditioned; True for types that already are.

    >>> supports(nn.Conv2d), supports(nn.ConvTranspose2d)
    (True, False)
    """
    return layer_type in CLASSES or issubclass(layer_type, _PreconditionedLayer)


def is_preconditioned(module: nn.Module) -> bool:
    """Whether ``precondition_`` was applied to this layer.

    Examples
    --------
    >>> is_preconditioned(nn.Linear(2, 1))
    False
    """
    return isinstance(module, _PreconditionedLayer)


def restore_(module: nn.Module) -> None:
    """Undo ``precondition_``, in place: restore the plain class and remove the buffers; outputs do not change.

    Raises
    ------
    ValueError
        If the layer is not preconditioned, or was parametrized afterwards.
    """
    check_restorable(module)
    module.__class__ = PLAIN[type(module)]
    for name in (*BUFFERS, "preconditioning", "accumulation"):
        delattr(module, name)


def check_restorable(module: nn.Module) -> None:
    """Raise a ValueError unless ``restore_`` can be applied to the layer."""
    if type(module) not in PLAIN:
        raise ValueError(
            f"the layer is a {type(module).__name__}; only layers changed by precondition_ can be restored"
        )


@contextmanager
def plain_calls(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Context manager: preconditioned layers among the modules compute as plain ones, without gathering statistics."""
    changed = [(module, type(module)) for module in modules if type(module) in PLAIN]
    for module, preconditioned in changed:
        module.__class__ = PLAIN[preconditioned]
    try:
        yield
    finally:
        for module, preconditioned in changed:
            module.__class__ = preconditioned


class _Preconditioned(torch.autograd.Function):
    """Identity on (weight, bias), whose backward pass multiplies their joint gradient by P Pᵀ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        shrink: float,
        check: Callable[[], None] | None,
    ) -> tuple[Tensor, Tensor | None]:
        return weight.view_as(weight), None if bias is None else bias.view_as(bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor | None]) -> None:
        _, _, mean, variance, ctx.shrink, ctx.check = inputs
        ctx.save_for_backward(mean, variance)

    @staticmethod
    def backward(ctx: Any, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, ...]:
        mean, variance = ctx.saved_tensors
        if ctx.check is not None:
            ctx.check()
        with_weight, with_bias = ctx.needs_input_grad[:2]
        if not with_weight:
            return None, None if bias is None else bias * ctx.shrink, None, None, None, None
        if not with_bias:
            return _precondition(weight, None, mean, variance, ctx.shrink)[0], None, None, None, None, None
        return *_precondition(weight, bias, mean, variance, ctx.shrink), None, None, None, None


def _statistics(inputs: Float[Tensor, "rows features *spatial"]) -> tuple[Tensor, Tensor]:
    """Mean and variance of each feature.

    Images on the CPU use the kernel of torch's batch normalization, 3 to 20 times faster than ``var_mean`` and accurate
    to 1e-5 of the variance.
    """
    if inputs.ndim == 4 and inputs.device.type == "cpu" and inputs.dtype == torch.float32 and _is_plain(inputs):
        mean, variance = torch.batch_norm_update_stats(inputs, None, None, 0.0)
        return mean, variance
    axes = [axis for axis in range(inputs.ndim) if axis != 1]
    variance, mean = torch.var_mean(inputs, axes, correction=0)
    return mean, variance


def _processes() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    return torch.distributed.get_world_size()


def _of_all_processes(mean: Tensor, variance: Tensor, rows: int) -> tuple[Tensor, Tensor, int]:
    """Mean and variance over the rows of all processes, and the number of rows; each process gets the same."""
    count = mean.new_full((1,), rows)
    own = torch.cat([count, mean, variance])
    gathered = [torch.empty_like(own) for _ in range(_processes())]
    torch.distributed.all_gather(gathered, own)
    table = torch.stack(gathered)
    counts, means, variances = table.split([1, len(mean), len(mean)], 1)
    total = counts.sum()
    shares = counts / total.clamp(min=1)
    joint = (shares * means).sum(0)
    return joint, (shares * (variances + (means - joint).square())).sum(0), int(total)


def _is_plain(inputs: Tensor) -> bool:
    """Whether this is an ordinary tensor: not under vmap, compilation or fake-tensor mode."""
    return (
        type(inputs) is Tensor
        and not torch.compiler.is_compiling()
        and not torch._C._functorch.is_batchedtensor(inputs)
    )


def _precondition(
    weight: Float[Tensor, "n_out n_in *kernel"],
    bias: Float[Tensor, " n_out"] | None,
    mean: Float[Tensor, " features"],
    variance: Float[Tensor, " features"],
    shrink: float,
) -> tuple[Float[Tensor, "n_out n_in *kernel"], Float[Tensor, " n_out"] | None]:
    """P Pᵀ g for g = (bias, weight). ``variance`` is σ̃², ``shrink`` is 1/q², n_in is features / groups."""
    n_out, n_in = weight.shape[:2]
    groups = mean.shape[0] // n_in
    grouped = weight.reshape(groups, n_out // groups, n_in, -1)
    mean, variance = mean.reshape(groups, 1, n_in, 1), variance.reshape(groups, 1, n_in, 1)
    if bias is None:
        return (grouped * shrink / variance).reshape(weight.shape).to(weight.dtype), None
    per_output = bias.reshape(groups, n_out // groups, 1, 1)
    scaled = (grouped - mean * per_output) * shrink / variance
    shifted = per_output * shrink - (mean * scaled).sum((2, 3), keepdim=True)
    return scaled.reshape(weight.shape).to(weight.dtype), shifted.reshape(n_out).to(bias.dtype)


def _check(option: str, value: float, holds: bool, expected: str) -> None:
    if not holds:
        raise ValueError(f"{option} is {value!r}; it must be {expected}")
