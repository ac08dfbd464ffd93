"""Name and numbers to a classifier: freshly started, and conditioned from outside.

The order is the same contract as for fields: ``network`` (build) -> ``condition`` (start, then treatment) -> device ->
optimiser -> load. Random numbers are drawn before any treatment is applied, so that arms of a comparison share every
raw weight.
"""

import logging

import torch
from torch import nn

from enerf.conditioning import layers as conditioned
from enerf.conditioning.layers import Layers
from enerf.conditioning.selection import check_option
from enerf.models import vit
from enerf.models.densenet import DenseNet, layers_per_block
from enerf.models.googlenet import GoogLeNet
from enerf.models.inception import SmallInception
from enerf.models.norms import CNN_NORMS, VIT_NORMS, scaled
from enerf.models.resnet import ResNet
from enerf.models.vit import VisionTransformer
from enerf.tasks.classifier.config import MODELS, TREATMENTS

log = logging.getLogger("enerf")

TITLES = {
    "inception": "Inception",
    "densenet": "DenseNet-BC",
    "googlenet": "GoogLeNet",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vit_s": "ViT-S",
    "vit_b": "ViT-B",
}
HEADS = frozenset({"head"})  # the layer whose outputs are the logits
DEEP = ("densenet", *vit.SIZES)  # models whose depth can be chosen
RESNETS = {"resnet18": 18, "resnet50": 50}
DENSE = (100, 12)  # depth and growth of the DenseNet
SMALLEST = 8  # pixels, so that something is left after three halvings
NORMS = {"bn": "batch norm", "gn": "group norm", "none": "way to go without a norm", "ln": "layer norm"}


def network(
    name: str,
    *,
    classes: int,
    channels: int,
    size: int,
    norm: str,
    seed: int,
    width: float | int = 1.0,
    depth: int = 0,
    patch: int = 0,
) -> nn.Module:
    """A freshly started classifier, on the CPU; torch's global random numbers stay as they were.

    It takes images ``b channels size size`` and returns logits ``b classes``. Layers start as PyTorch starts them.

    Parameters
    ----------
    name
        One of ``MODELS``.
    classes, channels, size
        Of the logits; of the images; their width and height in pixels.
    norm
        One of ``norms_of(name)``.
    seed
        Fixes every weight.
    width
        Multiplies the channels of a CNN (of a DenseNet, the growth) and the tokens' width of a vision transformer.
    depth
        Layers of a DenseNet, blocks of a vision transformer; 0: the model's own.
    patch
        Pixels along a vision transformer's patch; 0: 4 for images up to 64 pixels, 16 for larger ones.

    Raises
    ------
    ValueError
        If a number is out of its range, or the model has no such norm, depth or patch.
    """
    _check(name, norm, width, depth, patch)
    for option, value, least in (("classes", classes, 1), ("channels", channels, 1), ("size", size, SMALLEST)):
        if value < least:
            raise ValueError(f"{option} is {value}; {TITLES[name]} needs at least {least}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        if name in vit.SIZES:
            dim, blocks, heads = vit.resized(vit.SIZES[name], width)
            side = patch or default_patch(size)
            return VisionTransformer(classes, channels, size, side, dim, depth or blocks, heads)
        if name == "densenet":
            return DenseNet(classes, channels, norm, *_dense(width, depth))
        if name in RESNETS:
            return ResNet(RESNETS[name], classes, channels, norm, width)
        kind = SmallInception if name == "inception" else GoogLeNet
        return kind(classes, channels, norm, width)


def norms_of(name: str) -> tuple[str, ...]:
    """What can normalise a model.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> norms_of("resnet18"), norms_of("vit_s")
    (('bn', 'gn', 'none'), ('ln',))
    """
    check_option("model", name, MODELS)
    return VIT_NORMS if name in vit.SIZES else CNN_NORMS


def default_patch(size: int) -> int:
    """Pixels along a patch of images of that size, if none is asked for."""
    return 4 if size <= 64 else 16


def words(name: str, width: float | int = 1.0, depth: int = 0, patch: int = 0, size: int = 32) -> str:
    """What a model is called in tables: its title, and what was chosen otherwise than its authors did.

    Raises
    ------
    ValueError
        If there is no such model, width, depth or patch.

    Examples
    --------
    >>> words("densenet", depth=22), words("vit_s", depth=6), words("resnet18", width=0.25)
    ('DenseNet-BC-22-12', 'ViT-S/4, 6 blocks', 'ResNet-18, width 0.25')
    """
    _check(name, norms_of(name)[0], width, depth, patch)
    if name == "densenet":
        return "-".join([TITLES[name], *map(str, _dense(width, depth))])
    parts = [TITLES[name]]
    if name in vit.SIZES:
        parts = [f"{TITLES[name]}/{patch or default_patch(size)}"]
        parts += [f"{depth} blocks"] if depth not in (0, vit.SIZES[name].depth) else []
    parts += [f"width {width:g}"] if width != 1 else []
    return ", ".join(parts)


def condition(
    model: nn.Module,
    treatment: str,
    *,
    layers: Layers = "all",
    init: str = "default",
    method: str = "row",
    gradient: str = "through",
    scale: str = "fixed",
    p: float | int = 2.0,
    seed: int = 0,
) -> list[str]:
    """Start layers anew and treat them, in place; returns the names of those treated, or of those started if none is.

    The start is that of all layers meant, whatever the treatment, so that arms share it. Layers that a group, a kind or
    a pattern means and that the treatment does not suit are left out, and logged.

    Parameters
    ----------
    model
        What ``network`` made.
    treatment
        ``""``: none; ``w``: weight normalisation; ``ws``: weight standardisation; ``e``: the map ``method``; ``bnp``:
        batch-norm preconditioning of the gradients, which packed projections of attention cannot have.
    layers
        Words of ``conditioning.selection``: ``all`` has the head too, ``hidden`` has not.
    init, seed
        ``default``, ``glorot``, ``he`` or ``unit_row``, and the seed of what it draws.
    method, gradient, scale, p
        Of the map ``e``, as for ``conditioning.layers.condition``; other treatments have none of these.

    Raises
    ------
    ValueError
        If an option or a word is unknown, or a layer named cannot be treated.
    """
    if treatment not in TREATMENTS:
        raise ValueError(f"treatment is {treatment!r}; it must be one of {', '.join(TREATMENTS[1:])}, or empty")
    # weight norm suits every layer that there is
    started = conditioned.select(model, layers, HEADS, "unit_row" if init == "unit_row" else "weight_norm").names
    maps = {"w": "weight_norm", "ws": "weight_standardisation", "e": method, "bnp": "batch_norm"}
    treated: list[str] = []
    if treatment:
        treated, left_out = conditioned.select(model, layers, HEADS, maps[treatment])
        _tell(maps[treatment], left_out)
    conditioned.initialize_(model, started, init, torch.Generator().manual_seed(seed))
    if treatment == "e":
        return conditioned.condition(model, method, treated, gradient, scale=scale, p=p)
    return conditioned.condition(model, maps[treatment], treated) if treatment else started


def _tell(method: str, left_out: dict[str, str]) -> None:
    """Log the layers that are left out, in one line."""
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    if reasons:
        told = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
        log.info("%s leaves out %s", method, told)


def _dense(width: float | int, depth: int) -> tuple[int, int]:
    """Depth and growth of a DenseNet."""
    return depth or DENSE[0], scaled(DENSE[1], width)


def _check(name: str, norm: str, width: float | int, depth: int, patch: int) -> None:
    known = norms_of(name)
    title = TITLES[name]
    if norm not in known:
        has_not = f", and {title} has no {NORMS[norm]}" if norm in NORMS else f" for {title}"
        raise ValueError(f"norm is {norm!r}{has_not}; expected {' or '.join(known)}")
    if not 0 < width < float("inf"):
        raise ValueError(f"width is {width} for {title}; expected a number above 0")
    if depth < 0:
        raise ValueError(f"depth is {depth} for {title}; expected a number of layers, or 0 for the model's own")
    if depth and name not in DEEP:
        raise ValueError(f"depth is {depth}, and that of {title} is fixed; it can be chosen for {', '.join(DEEP)}")
    if depth and name == "densenet":
        layers_per_block(depth)
    if patch < 0:
        raise ValueError(f"patch is {patch} for {title}; expected a number of pixels, or 0 for the usual one")
    if patch and name not in vit.SIZES:
        raise ValueError(f"patch is {patch}, and {title} has no patches; they belong to {', '.join(vit.SIZES)}")
