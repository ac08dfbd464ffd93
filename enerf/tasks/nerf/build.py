"""Options to a radiance field: the only place that conditions.

The order is a contract: build -> start -> condition -> device -> optimizer -> load. The random numbers of the
start are drawn before any control or map is applied, so a baseline and a treatment with one seed share every
weight they can.
"""

import torch
from torch import nn

from enerf.config.options import ConditioningOptions
from enerf.core.errors import InputError
from enerf.core.types import Space
from enerf.fields import conditioning as fields_conditioning
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.hash_space import HashedSpace, ProposalField
from enerf.fields.nerf import HEADS, NeRF
from enerf.tasks.nerf.config import ModelOptions

UNIT_BOX = Space((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
PROPOSAL_GRID, PROPOSAL_WIDTH = make_grid(5, 2, 16, 16, 256), 16


class RadianceFields(nn.Module):
    """The coarse field, and the fine one if there is one."""

    def __init__(self, coarse: nn.Module, fine: nn.Module | None) -> None:
        super().__init__()
        self.coarse, self.fine = coarse, fine


def radiance_fields(
    model: ModelOptions,
    conditioning: ConditioningOptions,
    with_fine: bool,
    seed: int,
    *,
    proposal: bool = False,
    space: Space = UNIT_BOX,
) -> RadianceFields:
    """Freshly started and conditioned fields, on the CPU; torch's global random numbers stay as they were.

    Parameters
    ----------
    model
        Sizes of the networks.
    conditioning
        Start, map or control, and the layers that they concern.
    with_fine
        Whether there is a fine field.
    seed
        Fixes every raw weight, whatever ``conditioning`` says (but for an ``init`` that draws anew).
    proposal
        Whether the coarse field is a proposal: a small density on a hash grid of its own.
    space
        What hash grids cover.

    Raises
    ------
    InputError
        If a layer or method is asked for that cannot be conditioned.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        fields = plain_fields(model, with_fine, proposal, space)
    try:
        fields_conditioning.apply(fields, conditioning, HEADS, seed)
    except ValueError as error:
        raise InputError(f"option --equilibrate_layers or --equilibrate: {error}") from None
    return fields


def plain_fields(
    model: ModelOptions, with_fine: bool, proposal: bool = False, space: Space = UNIT_BOX
) -> RadianceFields:
    """Unconditioned fields with PyTorch's start."""
    coarse: nn.Module
    if proposal:
        coarse = ProposalField(PROPOSAL_GRID, space, PROPOSAL_WIDTH, model.density)
    else:
        coarse = _nerf(model, model.netdepth, model.netwidth, space)
    fine = _nerf(model, model.netdepth_fine, model.netwidth_fine, space) if with_fine else None
    return RadianceFields(coarse, fine)


def _nerf(model: ModelOptions, depth: int, width: int, space: Space) -> NeRF:
    """One network over the encoding that the options ask for."""
    bands = (model.multires, model.multires_views) if model.i_embed == 0 else (-1, -1)
    hashed = None
    if model.encoding == "hash":
        sizes = (model.hash_levels, model.hash_features, model.hash_log2_entries)
        hashed = HashedSpace(make_grid(*sizes, model.hash_coarsest, model.hash_finest), space)
    return NeRF(depth, width, *bands, model.use_viewdirs, hashed=hashed, density=model.density, skip_at=model.netskip)


def model_description(model: ModelOptions, samples: int, importance: int, proposal: bool) -> str:
    """How a model is called beside its figures, if it is not the paper's.

    >>> model_description(ModelOptions(), 64, 64, False), model_description(ModelOptions(encoding="hash"), 32, 24, True)
    ('', 'hash grid, 8×256, 24 of 32 proposed')
    """
    sizes = (model.netdepth_fine, model.netwidth_fine, model.netskip)
    usual = model.encoding == "positional" and sizes == (8, 256, 5) and not proposal
    if usual:
        return ""
    words = ["hash grid"] if model.encoding == "hash" else []
    words.append(f"{model.netdepth_fine}×{model.netwidth_fine}")
    words += ["no skip"] if not model.netskip else []
    words += [f"{importance} of {samples} proposed"] if proposal else []
    return ", ".join(words)
