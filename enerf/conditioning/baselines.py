"""What the papers compare equilibration with: the same layers, normalised, standardised or only started otherwise.

Weight norm and spectral norm are torch's own parametrizations; weight standardisation is a map like those of
``equilibrate``; the starts change the weights once and leave no map. ``batch_norm`` has a file of its own.
"""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from enerf.conditioning import maps, norms, weight_views
from enerf.conditioning.selection import check_conditionable, check_option, plain_layers

INITS = ("default", "glorot", "he", "unit_row")


def standardised(
    weight: Float[Tensor, "*batch n_out n_in"], gradient: str = "through", p: float | int = 2.0
) -> Float[Tensor, "*batch n_out n_in"]:
    """Weights whose every output has mean 0 and variance 1 over its inputs: weight standardisation.

    Made for layers that a normalisation follows: each output has norm √n_in, so that without one the activations grow
    by √n_in a layer. An output whose weights are all alike becomes 0.

    Parameters
    ----------
    weight
        In torch's layout; a convolution's inputs are the values of its patch.
    gradient
        ``"through"``, or ``"detached"``: the deviation is a constant, the mean is not.
    p
        2; the deviation has no other norm.

    Raises
    ------
    ValueError
        If ``gradient`` is neither, or ``p`` is not 2.

    References
    ----------
    Qiao, Wang, Liu, Shen, Yuille, Micro-Batch Training with Batch-Channel Normalization and Weight Standardization,
    arXiv 1903.10520.

    Examples
    --------
    >>> standardised(torch.tensor([[1.0, 3.0], [5.0, 5.0]])).round(decimals=5)
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    if p != 2:
        raise ValueError(f"p is {p!r}; weight standardisation divides by a standard deviation, which has p = 2")
    centred = weight - weight.mean(-1, keepdim=True)
    return norms.unit(centred, -1, gradient) * math.sqrt(weight.shape[-1])


def weight_norm(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Put layers under torch's weight normalisation (a learned length per output) and return their names.

    Unlike ``condition``'s maps it leaves the start as it is.

    Raises
    ------
    ValueError
        If a name is unknown, or the layer has no matrices or is conditioned already.

    References
    ----------
    Salimans, Kingma, Weight Normalization, NeurIPS 2016.
    """
    found = plain_layers(model, names)
    for module in found.values():
        for slot in weight_views.slots(module):
            parametrizations.weight_norm(module, slot.name, dim=slot.output_axis)
    return list(found)


def spectral_norm(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Put layers under torch's spectral normalisation (largest singular value about 1) and return their names.

    Its power iteration moves on at each access in training mode, and draws its start from torch's random numbers.
    Raises as ``weight_norm``.

    References
    ----------
    Miyato, Kataoka, Koyama, Yoshida, Spectral Normalization for GANs, ICLR 2018.
    """
    found = plain_layers(model, names)
    for module in found.values():
        for slot in weight_views.slots(module):
            parametrizations.spectral_norm(module, slot.name, dim=slot.output_axis)
    return list(found)


def unit_row_(model: nn.Module, names: Iterable[str], packing: str = "matrix") -> None:
    """Replace each weight by its row equilibration, once: the start of a row conditioned layer, no map.

    A control of the same scale as ``condition(model, "row", names)``.

    Raises
    ------
    ValueError
        If a name is unknown, or the layer is of no kind that is known, is conditioned already or has a single output.
    """
    names = list(names)
    for name in names:
        check_conditionable(model, name, "row", packing)
    with torch.no_grad():
        for module in plain_layers(model, names).values():
            for slot in weight_views.slots(module, packing):
                weight = getattr(module, slot.name)
                weight.copy_(slot.from_matrices(maps.row(slot.to_matrices(weight))))


def initialise_(model: nn.Module, names: Iterable[str], init: str, generator: torch.Generator) -> None:
    """Draw the weights of the named layers anew; biases stay.

    Parameters
    ----------
    model
        Holds the layers, which are not conditioned yet.
    names
        Their names.
    init
        ``default``: leave the weights as they are. ``glorot``: uniform in ±√(6 / (n_in + n_out)). ``he``:
        normal with variance 2 / n_in. ``unit_row``: the weights as they are, row equilibrated; draws
        nothing.
    generator
        The only source of randomness.

    Raises
    ------
    ValueError
        If ``init`` or a name is unknown, or the layer is of no kind that is known or is conditioned already.

    References
    ----------
    Glorot, Bengio, AISTATS 2010; He, Zhang, Ren, Sun, ICCV 2015.
    """
    check_option("init", init, INITS)
    names = list(names)
    if init == "unit_row":
        unit_row_(model, names)
    for module in plain_layers(model, names).values():
        for slot in weight_views.slots(module):
            if init == "glorot":
                nn.init.xavier_uniform_(getattr(module, slot.name), generator=generator)
            elif init == "he":
                nn.init.kaiming_normal_(getattr(module, slot.name), nonlinearity="relu", generator=generator)
