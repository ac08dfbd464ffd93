"""Errors of one small training step against float64, pixels and gradients, for each backend."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from enerf.config.options import ConditioningOptions
from enerf.core import rng
from enerf.core.errors import InputError
from enerf.core.types import Rays
from enerf.fields.backends import registry
from enerf.fields.backends.registry import Backend
from enerf.rendering import render
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.setup import sampling_config

RAYS = 32
HEADING = ("", "largest pixel error", "gradient, relative", "worst tensor, relative")


def table(options: NerfConfig, device: torch.device) -> list[tuple[str, ...]]:
    """One row for stock torch in fp32 and for the chosen backend in fp32 and bf16, against the reference in float64.

    The step has no jitter and no noise; the weights are unconditioned and untrained, with densities raised so that rays
    are not empty (the errors would be zero). Relative errors are norms of differences over norms of gradients: of all
    parameters together, and of the tensor with the largest error.
    """
    reference = registry.make("torch", "fp32", device)
    exact = _step(options, reference, torch.float64, device)
    rows = [HEADING]
    with _stock_products():
        rows.append(_row("stock torch, fp32", _step(options, reference, torch.float32, device), exact))
    for precision in ("fp32", "bf16"):
        try:
            chosen = registry.choose(options.train.backend, precision, device)
        except InputError:  # a processor without instructions for bf16
            rows.append((f"enerf, {options.train.backend}, {precision}", *["cannot be used here"] * (len(HEADING) - 1)))
            continue
        rows.append(_row(f"enerf, {chosen}", _step(options, chosen, torch.float32, device), exact))
    return rows


@contextmanager
def _stock_products() -> Iterator[None]:
    """Context manager: fp32 products at torch's default precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _step(options: NerfConfig, backend: Backend, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Pixels, then the gradient of each parameter."""
    fields = _fields(options).to(device, dtype)
    registry.use(fields, backend)
    generator = torch.Generator().manual_seed(0)
    origins, directions, target = (torch.rand(RAYS, 3, generator=generator) for _ in range(3))
    origins, directions = origins - 0.5, directions - 0.5
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    made = (origins, directions, viewdirs, torch.zeros(RAYS), torch.ones(RAYS))
    batch = Rays(*(x.to(device, dtype) for x in made))
    passes = sampling_config(options)
    with torch.no_grad():
        _, final = render.render_rays(fields.coarse, fields.fine, batch, passes)
    unused = rng.generator_for(0, 0, device)
    nerf_step.accumulate_gradient(fields, batch, target.to(device, dtype), passes, unused, jitter=False)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in fields.parameters()]
    return [x.detach().double().cpu() for x in (final.rgb, *gradients)]


def _fields(options: NerfConfig) -> RadianceFields:
    """Untrained fields with raised densities."""
    proposing = options.render.sampler == "proposal"
    made = nerf_build.radiance_fields(
        options.model, ConditioningOptions(), options.render.N_importance > 0, options.train.seed, proposal=proposing
    )
    with torch.no_grad():
        for field in (made.coarse, made.fine):
            if field is not None:
                field.density_head.weight.mul_(10)
                field.density_head.bias.add_(0.5)
    return made


def _row(name: str, found: list[Tensor], exact: list[Tensor]) -> tuple[str, ...]:
    pixels = float((found[0] - exact[0]).abs().max())
    errors = [float((a - b).norm()) for a, b in zip(found[1:], exact[1:], strict=True)]
    sizes = [float(b.norm()) for b in exact[1:]]
    worst = max(e / s for e, s in zip(errors, sizes, strict=True) if s > 0)
    return name, f"{pixels:.1e}", f"{math.hypot(*errors) / math.hypot(*sizes):.1e}", f"{worst:.1e}"
