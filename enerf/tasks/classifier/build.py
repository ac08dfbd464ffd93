"""Construction of classifiers from options: build, initialize, condition.

The order of operations is fixed, as for fields: ``network`` (build) -> ``condition`` (initialize, then treatment) ->
device -> optimizer -> load. Random numbers are drawn before any treatment is applied, so that the variants of a
comparison share every raw weight.
"""

import logging

import torch
from torch import nn

from enerf.conditioning import attention
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
from enerf.tasks.classifier.config import ATTENTION_TREATMENTS, MODELS, SHIFT, TREATMENTS

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
MODELS_WITH_DEPTH = ("densenet", *vit.SIZES)  # models whose depth can be chosen
RESNETS = {"resnet18": 18, "resnet50": 50}
DENSENET_SIZES = (100, 12)  # depth and growth rate of the DenseNet
MIN_SIZE = 8  # pixels; networks halve the resolution three times
NORMS = {"bn": "batch norm", "gn": "group norm", "none": "variant without a norm", "ln": "layer norm"}


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
    """Build a classifier on the CPU; the state of torch's global generator is not changed.

    It maps images ``b channels size size`` to logits ``b classes``. Layers have PyTorch's default initialization.

    Parameters
    ----------
    name
        One of ``MODELS``.
    classes, channels, size
        Number of logits; channels of the images; their width and height in pixels.
    norm
        One of ``norms_of(name)``.
    seed
        Determines every weight.
    width
        Multiplies the channels of a CNN (the growth rate of a DenseNet) or the token width of a vision transformer.
    depth
        Layers of a DenseNet, blocks of a vision transformer; 0: the model's default.
    patch
        Side of a vision transformer's patches in pixels; 0: 4 for images up to 64 pixels, 16 for larger ones.

    Raises
    ------
    ValueError
        If a number is out of range, or the model does not support the norm, depth or patch.
    """
    _check(name, norm, width, depth, patch)
    for option, value, least in (("classes", classes, 1), ("channels", channels, 1), ("size", size, MIN_SIZE)):
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
    """Return the norms that a model supports.

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
    """Return the default side of patches for images of a size, in pixels."""
    return 4 if size <= 64 else 16


def model_title(name: str, width: float | int = 1.0, depth: int = 0, patch: int = 0, size: int = 32) -> str:
    """Return the name of a model in tables: its title, and settings that differ from its authors'.

    Raises
    ------
    ValueError
        If the model is unknown, or does not support the width, depth or patch.

    Examples
    --------
    >>> model_title("densenet", depth=22), model_title("vit_s", depth=6), model_title("resnet18", width=0.25)
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
    shift: float = SHIFT,
    seed: int = 0,
) -> list[str]:
    """Initialize and condition layers in place; return the names of the treated layers (initialized, if untreated).

    All selected layers are initialized, whatever the treatment, so that the variants of a comparison share their
    weights. Layers selected by a group, a type or a pattern that do not support the treatment are skipped and logged.

    Parameters
    ----------
    model
        Network built by ``network``.
    treatment
        ``""``: none; ``w``: weight normalization; ``ws``: weight standardization; ``e``: the map ``method``; ``bnp``:
        batch-norm preconditioning of the gradients, not available for packed projections of attention; ``sc``: spectral
        conditioning of attention; ``pa``: preconditioned attention. The last two treat the attention among the layers.
    layers
        Selection as in ``conditioning.selection``: ``all`` includes the head, ``hidden`` does not.
    init, seed
        ``default``, ``glorot``, ``he`` or ``unit_row``, or one of ``attention.INITS``, for the attention among the
        layers; and its seed.
    method, gradient, scale, p
        Options of the map ``e``, as in ``conditioning.layers.condition``; ``scale`` also of ``sc``; ignored by other
        treatments.
    shift
        λ of ``sc`` and of the initialization ``shifted_attention``.

    Raises
    ------
    ValueError
        If an option or a layer is unknown, or a layer selected by name does not support the treatment.
    """
    known = (*TREATMENTS[1:], *ATTENTION_TREATMENTS)
    if treatment and treatment not in known:
        raise ValueError(f"treatment is {treatment!r}; it must be one of {', '.join(known)}, or empty")
    # every layer supports weight norm
    suits = "spectral_shift" if init in attention.INITS else "unit_row" if init == "unit_row" else "weight_norm"
    initialized = conditioned.select(model, layers, HEADS, suits).names
    maps = {"w": "weight_norm", "ws": "weight_standardisation", "e": method, "bnp": "batch_norm"}
    maps |= dict.fromkeys(ATTENTION_TREATMENTS, "spectral_shift")
    treated: list[str] = []
    if treatment:
        treated, skipped = conditioned.select(model, layers, HEADS, maps[treatment])
        _log_skipped("preconditioned attention" if treatment == "pa" else maps[treatment], skipped)
    generator = torch.Generator().manual_seed(seed)
    if init in attention.INITS:
        attention.initialize_attention_(model, initialized, init, generator, shift)
    else:
        conditioned.initialize_(model, initialized, init, generator)
    if treatment == "pa":
        return attention.precondition_attention_(model, treated)
    if treatment == "sc":
        return conditioned.condition(model, "spectral_shift", treated, scale=scale, shift=shift)
    if treatment == "e":
        return conditioned.condition(model, method, treated, gradient, scale=scale, p=p)
    return conditioned.condition(model, maps[treatment], treated) if treatment else initialized


def _log_skipped(method: str, skipped: dict[str, str]) -> None:
    """Log the skipped layers in one line."""
    reasons: dict[str, list[str]] = {}
    for name, why in skipped.items():
        reasons.setdefault(why, []).append(name)
    if reasons:
        words = "; ".join(f"{', '.join(names)} ({why})" for why, names in reasons.items())
        log.info("%s skips %s", method, words)


def _dense(width: float | int, depth: int) -> tuple[int, int]:
    """Return depth and growth rate of a DenseNet."""
    return depth or DENSENET_SIZES[0], scaled(DENSENET_SIZES[1], width)


def _check(name: str, norm: str, width: float | int, depth: int, patch: int) -> None:
    known = norms_of(name)
    title = TITLES[name]
    if norm not in known:
        has_not = f", and {title} has no {NORMS[norm]}" if norm in NORMS else f" for {title}"
        raise ValueError(f"norm is {norm!r}{has_not}; expected {' or '.join(known)}")
    if not 0 < width < float("inf"):
        raise ValueError(f"width is {width} for {title}; expected a number above 0")
    if depth < 0:
        raise ValueError(f"depth is {depth} for {title}; expected a number of layers, or 0 for the model's default")
    if depth and name not in MODELS_WITH_DEPTH:
        raise ValueError(
            f"depth is {depth}, but that of {title} is fixed; it can be set for {', '.join(MODELS_WITH_DEPTH)}"
        )
    if depth and name == "densenet":
        layers_per_block(depth)
    if patch < 0:
        raise ValueError(f"patch is {patch} for {title}; expected a number of pixels, or 0 for the default")
    if patch and name not in vit.SIZES:
        raise ValueError(f"patch is {patch}, but {title} has no patches; it can be set for {', '.join(vit.SIZES)}")
