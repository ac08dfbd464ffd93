"""Construction of radiance fields from options: networks, initialization and conditioning.

The order is fixed: build, initialize, condition, device, optimizer, load. The initial weights are drawn before any
conditioning is applied, so that all methods with one seed start from the same raw weights.
"""

from typing import Any

import torch
from torch import nn

from enerf.config.options import ConditioningOptions
from enerf.core.types import Space
from enerf.datasets.scenes.scene import Scene
from enerf.fields import conditioning as fields_conditioning
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.contraction import ContractedSpace
from enerf.fields.deferred import DeferredNeRF
from enerf.fields.hash_space import HashedSpace, ProposalField
from enerf.fields.nerf import HEADS, NeRF, PointField
from enerf.tasks.nerf import refinement
from enerf.tasks.nerf.config import CaptureOptions, ModelOptions, TrainOptions
from enerf.tasks.nerf.exposure import Exposure
from enerf.tasks.nerf.refinement import PoseRefinement

UNIT_BOX = Space((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
PROPOSAL_GRID, PROPOSAL_WIDTH = make_grid(5, 2, 16, 16, 256), 16


class RadianceFields(nn.Module):
    """The coarse field (or the proposal), the fine field or None, and what is trained for each view, or None."""

    def __init__(self, coarse: nn.Module, fine: nn.Module | None) -> None:
        super().__init__()
        self.coarse, self.fine = coarse, fine
        self.exposure: Exposure | None = None
        self.poses: PoseRefinement | None = None


def radiance_fields(
    model: ModelOptions,
    conditioning: ConditioningOptions,
    with_fine: bool,
    seed: int,
    *,
    proposal: bool = False,
    space: Space = UNIT_BOX,
    contracted: bool = False,
) -> RadianceFields:
    """Return initialized and conditioned fields, on the CPU; torch's global random state is not changed.

    Parameters
    ----------
    model
        Sizes of the networks.
    conditioning
        Initialization, map or control, and the layers to which they apply.
    with_fine
        Whether there is a fine field.
    seed
        Seed of the raw weights, which do not depend on ``conditioning``, except for an ``init`` other than ``default``.
    proposal
        Whether the coarse field is a proposal: a small density network with its own hash grid.
    space
        Region that hash grids cover.
    contracted
        Whether the points of positional encodings are contracted outside of ``space`` too.

    Raises
    ------
    InputError
        If a selected layer cannot be conditioned.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
        fields = plain_fields(model, with_fine, proposal, space, contracted)
    fields_conditioning.apply(fields, conditioning, HEADS, seed)
    return fields


def add_views(fields: RadianceFields, capture: CaptureOptions, scene: Scene) -> None:
    """Add to fields what is trained for each training view of a scene; nothing with the default options."""
    if capture.exposure != "off":
        fields.exposure = Exposure(capture.exposure, scene.train, len(scene.c2w))
    if capture.refine_poses:
        fields.poses = PoseRefinement(scene, scene.train)
        refinement.add_windows(fields)


def view_rates(train: TrainOptions, capture: CaptureOptions) -> dict[str, float]:
    """Return the rates, as multiples of ``lrate``, of the parameters that ``add_views`` adds: name prefix -> rate."""
    return {"exposure.": capture.lrate_exposure / train.lrate, "poses.": capture.lrate_poses / train.lrate}


def plain_fields(
    model: ModelOptions, with_fine: bool, proposal: bool = False, space: Space = UNIT_BOX, contracted: bool = False
) -> RadianceFields:
    """Return unconditioned fields with PyTorch's default initialization."""
    coarse: nn.Module
    if proposal:
        coarse = ProposalField(PROPOSAL_GRID, space, PROPOSAL_WIDTH, model.density)
    else:
        coarse = _nerf(model, model.netdepth, model.netwidth, space, contracted)
    fine = _nerf(model, model.netdepth_fine, model.netwidth_fine, space, contracted) if with_fine else None
    return RadianceFields(coarse, fine)


def _nerf(model: ModelOptions, depth: int, width: int, space: Space, contracted: bool) -> PointField:
    """Return a radiance field with the encoding of the options."""
    bands = (model.multires, model.multires_views) if model.i_embed == 0 else (-1, -1)
    hashed = None
    if model.encoding == "hash":
        sizes = (model.hash_levels, model.hash_features, model.hash_log2_entries)
        hashed = HashedSpace(make_grid(*sizes, model.hash_coarsest, model.hash_finest), space)
    common: dict[str, Any] = {"hashed": hashed, "density": model.density, "skip_at": model.netskip}
    made: PointField
    if model.shading == "ray":
        colors = {"features": model.ray_features, "color_depth": model.netdepth_color}
        common |= {**colors, "color_width": model.netwidth_color}
        made = DeferredNeRF(depth, width, *bands, model.use_viewdirs, **common)
    else:
        made = NeRF(depth, width, *bands, model.use_viewdirs, **common)
    if contracted and hashed is None:
        made.contracted = ContractedSpace(space)
    return made


def model_description(model: ModelOptions, samples: int, importance: int, proposal: bool) -> str:
    """Return a short description of a model for tables; empty for the paper's model.

    >>> model_description(ModelOptions(), 64, 64, False), model_description(ModelOptions(encoding="hash"), 32, 24, True)
    ('', 'hash grid, 8×256, 24 of 32 proposed')
    >>> model_description(ModelOptions(netdepth=4), 64, 0, False)
    '4×256'
    """
    has_fine = importance > 0
    depth, width = (model.netdepth_fine, model.netwidth_fine) if has_fine else (model.netdepth, model.netwidth)
    sizes = (depth, width, model.netskip)
    is_deferred = model.shading == "ray"
    is_paper = model.encoding == "positional" and sizes == (8, 256, 5) and not proposal and not is_deferred
    if is_paper:
        return ""
    words = ["hash grid"] if model.encoding == "hash" else []
    words.append(f"{depth}×{width}")
    words += [f"colors {model.netdepth_color}×{model.netwidth_color} once per ray"] if is_deferred else []
    words += ["no skip"] if not model.netskip else []
    words += [f"{importance} of {samples} proposed"] if proposal else []
    return ", ".join(words)
