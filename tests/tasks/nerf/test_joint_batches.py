"""Tests of shares of a batch of rays: their gradients and figures add up to those of the batch, in float64."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from enerf.config.options import ConditioningOptions
from enerf.core import shares
from enerf.core.shares import Share
from enerf.core.types import Rays, Space
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import ModelOptions
from enerf.tasks.nerf.exposure import Exposure
from enerf.tasks.nerf.step import DepthTerms, StepReport, ViewTerms

N = 13
SMALL = {"netdepth": 2, "netwidth": 8, "netdepth_fine": 2, "netwidth_fine": 10, "multires": 2, "multires_views": 1}
SIZES = pytest.mark.parametrize(("size", "at_once"), [(2, N), (3, 5), (4, 6), (13, N), (5, 3)])


def _fields(proposal: bool = False) -> RadianceFields:
    model = ModelOptions(use_viewdirs=True, **SMALL)
    space = Space((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))
    made = nerf_build.radiance_fields(model, ConditioningOptions(), True, seed=3, proposal=proposal, space=space)
    made.exposure = Exposure("affine", [0, 1, 2], 4)
    made = made.double()
    with torch.no_grad():  # so that something is seen
        made.fine.density_head.bias += 1.0
        made.exposure.values += 0.1 * torch.randn(3, 12, generator=torch.Generator().manual_seed(1))
    return made


def _rays(n: int, seed: int) -> tuple[Rays, torch.Tensor]:
    drawn = torch.rand(n, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    directions = drawn[:, 3:6] - torch.tensor([0.5, 0.5, 1.5], dtype=torch.float64)
    near = torch.full((n,), 0.5, dtype=torch.float64)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    return Rays(drawn[:, :3], directions, viewdirs, near, near + 2), drawn[:, 6:]


def _found(fields: RadianceFields, share: Share, at_once: int, config: SamplingConfig, **options):
    fields.zero_grad()
    rays, target = _rays(N, 0)
    generator = shares.generator(share, "cpu").manual_seed(7)
    options = {"rays_at_once": at_once, "jitter": True, "share": share, **options}
    figures = nerf_step.gradient(fields, rays, target, config, generator, **options).tolist()
    return torch.cat([p.grad.flatten() for p in fields.parameters()]), figures


def _require_sums(fields: RadianceFields, size: int, at_once: int, config: SamplingConfig, options: Callable) -> None:
    whole, figures = _found(fields, shares.WHOLE, at_once, config, **options())
    parts = [_found(fields, Share(rank, size), at_once, config, **options()) for rank in range(size)]
    total = torch.stack([gradient for gradient, _ in parts]).sum(0)
    assert float(whole.norm()) > 1e-3
    assert float((total - whole).norm()) <= 1e-12 * float(whole.norm())
    sums = torch.tensor([numbers for _, numbers in parts], dtype=torch.float64).sum(0).tolist()
    expected = dataclasses.astuple(StepReport(*figures))
    assert dataclasses.astuple(StepReport.of_sums(sums, N)) == pytest.approx(expected, rel=1e-9)


@SIZES
def test_with_jitter_and_noise_of_hierarchical_samples(size, at_once):
    config = SamplingConfig(5, 4, white_bkgd=True)
    _require_sums(_fields(), size, at_once, config, lambda: {"noise_std": 0.7, "views": ViewTerms(torch.arange(N) % 4)})


@SIZES
def test_with_proposals_backgrounds_exposures_and_known_depths(size, at_once):
    config = SamplingConfig(8, 5, proposal=True)
    depths = DepthTerms(_rays(N // 3, 5)[0], torch.linspace(0.6, 2, N // 3, dtype=torch.float64), 0.3)
    options = {
        "background": torch.rand(N, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64),
        "views": ViewTerms(torch.arange(N) % 4, 0.0, exposure_weight=0.5),
        "depths": depths,
        "distortion": 0.1,
        "noise_std": 0.5,
    }
    _require_sums(_fields(proposal=True), size, at_once, config, lambda: options)
