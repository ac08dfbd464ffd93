"""Baselines of the papers: weight normalization, spectral normalization, weight standardization, initializations.

Weight norm and spectral norm are subclasses of torch's own parametrizations; weight standardization is a map like those
of ``maps``; initializations change the weights once, and no parametrization remains. ``batch_norm`` is a module of its
own.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from enerf.conditioning import maps, norms, recomputation, suitability, weight_views
from enerf.conditioning.interface import Parametrization, leave_shared_class
from enerf.conditioning.rollback import unchanged_on_error
from enerf.conditioning.selection import as_names, check_conditionable, check_option, plain_layers

INITS = ("default", "glorot", "he", "unit_row")
SPECTRAL_SCALES = ("fixed", "constant", "learned")
INITIAL_ITERATIONS = 15  # of torch's spectral normalization


def standardized(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Weight standardization: the weights of each output have mean 0 and variance 1 over its inputs.

    Meant for layers that are followed by a normalization layer: each output has norm √n_in, so that otherwise the
    activations grow by √n_in per layer. An output with equal weights becomes 0.

    Parameters
    ----------
    weight
        In torch's layout; the inputs of a convolution are the values of its patch.
    gradient
        ``"through"``, or ``"detached"`` to treat the deviation (not the mean) as a constant.
    p
        Must be 2: the standard deviation is a Euclidean norm.

    Raises
    ------
    ValueError
        If ``gradient`` is unknown, or ``p`` is not 2.

    References
    ----------
    Qiao, Wang, Liu, Shen, Yuille, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    arXiv 1903.10520.

    Examples
    --------
    >>> standardized(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).round(decimals=5)
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    if p != 2:
        raise ValueError(f"p is {p!r}; weight standardization divides by a standard deviation, which has p = 2")
    centered = weight - weight.mean(-1, keepdim=True)
    return norms.unit(centered, -1, gradient) * math.sqrt(weight.shape[-1])


def weight_norm(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Apply torch's weight normalization (a learned length per output) to layers, and return their names.

    Unlike the maps of ``condition`` it does not change the initial weights. On an error no layer is changed.

    Raises
    ------
    ValueError
        If a name is unknown, or a layer has no weight matrices, is conditioned already, has an output whose weights are
        all zero (its applied weights would be NaN), or shares its weight.

    References
    ----------
    Salimans, Kingma, Weight Normalization, NeurIPS 2016.
    """
    return _normalize(model, names, "weight_norm", _register_weight_norm)


class WeightNorm(parametrizations._WeightNorm, Parametrization):
    """Torch's weight normalization; the applied weight has the memory format of the directions."""

    method = "weight_norm"

    def forward(self, length: Float[Tensor, "..."], direction: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Compute the weight that the layer applies."""
        return weight_views.in_format_of(direction, super().forward(length, direction))


def spectral_norm(model: nn.Module, names: Iterable[str], scale: str = "fixed") -> list[str]:
    """Apply torch's spectral normalization (largest singular value about 1) to layers, and return their names.

    A power iteration is done at each access in training mode, but not where activation checkpointing computes again;
    its initial vector is drawn from torch's global generator. Tied layers share its vectors and the gain, and stay
    tied. Errors as for ``weight_norm``, for a weight that is zero altogether.

    Parameters
    ----------
    model, names
        The model and its layers.
    scale
        ``fixed``: the largest singular value is 1; ``constant``: the one that it has now; ``learned``: a parameter, one
        a layer, which starts at the present one, so that the initial weights change by no more than the power
        iteration is off.

    References
    ----------
    Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for GANs, ICLR 2018.
    """
    shared: dict[int, tuple[SpectralNorm, SpectralGain | None]] = {}  # of each weight

    def register(module: nn.Module, name: str, dim: int) -> None:
        weight = getattr(module, name)
        if id(weight) not in shared:
            gain = None if scale == "fixed" else SpectralGain(weight, dim, learned=scale == "learned")
            shared[id(weight)] = SpectralNorm(weight, dim=dim), gain
        norm, gain = shared[id(weight)]
        parametrize.register_parametrization(module, name, norm)
        if gain is not None:
            exact = gain.gain.detach().clone()
            parametrize.register_parametrization(module, name, gain)  # it assigns the weight, by which the gain is set
            with torch.no_grad():
                gain.gain.copy_(exact)

    check_option("scale", scale, SPECTRAL_SCALES)
    return _normalize(model, names, "spectral_norm", register)


class SpectralNorm(parametrizations._SpectralNorm, Parametrization):
    """Torch's spectral normalization with two changes.

    An assigned weight gets vectors of its own. Vectors do not advance where activation checkpointing computes again:
    the pass that is computed again sees the vectors of the latest forward pass, which is its own unless there was
    another one before the backward pass.
    """

    method = "spectral_norm"

    def _power_method(self, weight_mat: Float[Tensor, "n_out n_in"], n_power_iterations: int) -> None:
        is_first = n_power_iterations > self.n_power_iterations  # of the constructor, wherever that is called
        if is_first or not recomputation.is_recomputed():
            super()._power_method(weight_mat, n_power_iterations)

    def right_inverse(self, value: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return an assigned weight, and set the vectors by as many iterations as for a new layer."""
        with torch.no_grad():
            self._power_method(self._reshape_weight_to_matrix(value), INITIAL_ITERATIONS)
        return value


class SpectralGain(Parametrization):
    """Parametrization that multiplies a spectrally normalized weight by a gain, which is its largest singular value.

    Parameters
    ----------
    weight
        The weight whose largest singular value is the initial gain; a learned gain is trained if the weight is.
    dim
        Its axis of outputs.
    learned
        Whether the gain is a parameter.
    """

    method = "spectral_norm"
    gain: Tensor

    def __init__(self, weight: Tensor, dim: int, learned: bool) -> None:
        super().__init__()
        self.dim = dim
        value = self._size(weight.detach())
        if learned:
            self.gain = nn.Parameter(value, requires_grad=weight.requires_grad)
        else:
            self.register_buffer("gain", value)

    def forward(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Compute the weight that the layer applies."""
        return weight * self.gain

    def right_inverse(self, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return an assigned weight, and set the gain to its largest singular value."""
        with torch.no_grad():
            self.gain.copy_(self._size(weight))
        return weight

    def _size(self, weight: Tensor) -> Tensor:
        matrix = weight.movedim(self.dim, 0).flatten(1)
        exact = matrix.to(torch.promote_types(matrix.dtype, torch.float32))  # there is no SVD in half precision
        finite = exact.isfinite().all()
        size = torch.linalg.matrix_norm(torch.where(finite, exact, 0.0), 2)
        return torch.where(finite, size, torch.nan).reshape(1).to(weight.dtype)


def _register_weight_norm(module: nn.Module, name: str, dim: int) -> None:
    parametrizations.weight_norm(module, name, dim)
    item: Any = module.get_submodule(f"parametrizations.{name}")
    item[0] = WeightNorm(item[0].dim)


def _normalize(model: nn.Module, names: Iterable[str], method: str, register: Callable[..., object]) -> list[str]:
    """Register one of torch's parametrizations for all weights of the layers, or for none."""
    found = plain_layers(model, names)
    for name in found:
        check_conditionable(model, name, method)
    with unchanged_on_error(found.values()):
        for module in found.values():
            for view in weight_views.views(module):
                leave_shared_class(module)
                register(module, view.name, dim=view.output_axis)
    return list(found)


def unit_row_(model: nn.Module, names: Iterable[str], packing: str = "matrix") -> None:
    """Replace each weight by its row equilibration, in place and once, without a parametrization.

    A control with the same initial weights as ``condition(model, "row", names)``.

    Raises
    ------
    ValueError
        If a name is unknown, or a layer has no weight matrices, is conditioned already or has a single output.
    """
    names = as_names(names)
    for name in names:
        check_conditionable(model, name, "unit_row", packing)
    with torch.no_grad():
        changed = [
            (weight, view.from_matrices(maps.row(view.to_matrices(weight))))
            for module in plain_layers(model, names).values()
            for view in weight_views.views(module, packing)
            for weight in (getattr(module, view.name),)
        ]
        for weight, unit in changed:
            weight.copy_(unit)


def initialize_(model: nn.Module, names: Iterable[str], init: str, generator: torch.Generator) -> None:
    """Initialize the weights of the named layers in place; biases are unchanged.

    Parameters
    ----------
    model
        The model; the named layers are not conditioned yet.
    names
        Names of the layers.
    init
        ``default``: no change. ``glorot``: uniform in ±√(6 / (n_in + n_out)). ``he``: normal with variance 2 / n_in.
        Both numbers are those of ``torch.nn.init``, of the tensor as it is stored: of a packed projection n_out is that
        of all three matrices, of a transposed convolution the two are exchanged, and of groups n_out is that of all.
        ``unit_row``: row equilibration of the current weights, see ``unit_row_``; draws no random numbers.
    generator
        Random numbers are drawn from it alone.

    Raises
    ------
    ValueError
        If ``init`` or a name is unknown, or a layer has no weight matrices, is conditioned already, or has weights that
        are no floating point numbers or not known yet (a lazy layer). No layer is changed.

    References
    ----------
    Glorot, Bengio, AISTATS 2010; He, Zhang, Ren, Sun, ICCV 2015.
    """
    check_option("init", init, INITS)
    names = as_names(names)
    if init == "unit_row":
        unit_row_(model, names)
    found = plain_layers(model, names)
    for name, module in found.items() if init in ("glorot", "he") else ():
        for view in weight_views.views(module):
            if (reason := suitability.storage_reason(module, view)) is not None:
                raise ValueError(f"{name} cannot be initialized: {reason}")
    for module in found.values():
        for view in weight_views.views(module):
            if init == "glorot":
                nn.init.xavier_uniform_(getattr(module, view.name), generator=generator)
            elif init == "he":
                nn.init.kaiming_normal_(getattr(module, view.name), nonlinearity="relu", generator=generator)
