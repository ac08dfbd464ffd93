"""Operations on rays by a C++ kernel, float32 on CPUs; reference implementations: ``RayFunctions`` names them.

Each function equals its reference implementation up to rounding and draws the same random numbers. It calls the
reference where the kernel does not apply: without a compiler, for other dtypes and devices, for batches that are not of
one axis, for more than 1,024 samples of a ray or 64 channels of a sample, and where positions need a gradient; edges,
middles and resampling also with a ``knee``, edges without a generator or with ``lindisp``. The kernel uses torch's
number of threads; results are the same bit for bit for any number. Gradients are not differentiable again
(``core.first_order``).
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import cpu_build, shares
from enerf.core.first_order import first_order
from enerf.core.types import FeatureOutput, FieldOutput, Rays, Rendering
from enerf.rendering import proposal, sampling, volume

SOURCE = Path(__file__).with_name("cpu_rays.cpp")
MAX_SAMPLES, MAX_CHANNELS = 1024, 64  # of a ray, and of a sample: sizes of the kernel's arrays


def available() -> bool:
    """Whether the kernel can be used; compiles it in the first call, which takes seconds."""
    return cpu_build.library(SOURCE) is not None


def uniform_edges(
    near: Float[Tensor, "*b"],
    far: Float[Tensor, "*b"],
    n: int,
    lindisp: bool = False,
    generator: torch.Generator | None = None,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b n1"]:
    """Edges of ``n`` intervals from near to far, as of ``proposal.uniform_edges``."""
    shape = (near.numel(),)
    if lindisp or knee > 0 or generator is None or not _applies([n], [], [(near, shape), (far, shape)]):
        return proposal.uniform_edges(near, far, n, lindisp, generator, knee)
    fraction = torch.linspace(0.0, 1.0, n + 1, dtype=near.dtype, device=near.device)
    u = shares.rand((len(near), n + 1), generator, near.dtype, near.device)
    out = torch.empty_like(u)
    _call("rays_stratified", len(near), [n + 1], [near.contiguous(), far.contiguous(), fraction, u, out])
    return out


def at_middles(
    rays: Rays, edges: Float[Tensor, "*b m"], knee: float | int = 0.0
) -> tuple[Float[Tensor, "*b s"], Float[Tensor, "*b s 3"]]:
    """The middles between edges and the points of rays there, as of ``sampling.at_middles``."""
    b, s = len(rays), edges.shape[-1] - 1
    if knee > 0 or not _applies([s], [], [(rays.origins, (b, 3)), (rays.directions, (b, 3)), (edges, (b, s + 1))]):
        return sampling.at_middles(rays, edges, knee)
    t_vals, points = edges.new_empty(b, s), edges.new_empty(b, s, 3)
    given = [x.contiguous() for x in (rays.origins, rays.directions, edges)]
    _call("rays_at_middles", b, [s], [*given, t_vals, points])
    return t_vals, points


def weights(
    density: Float[Tensor, "*b s"], edges: Float[Tensor, "*b m"], directions: Float[Tensor, "*b 3"]
) -> Float[Tensor, "*b s"]:
    """Weights of the intervals between edges, as of ``volume.weights`` with ``volume.widths``."""
    b, s = len(directions), density.shape[-1]
    if not _applies([s], [(density, (b, s))], [(edges, (b, s + 1)), (directions, (b, 3))]):
        return volume.interval_weights(density, edges, directions)
    found: Tensor = _Composite.apply(density.contiguous(), None, edges.contiguous(), None, directions.contiguous())[0]
    return found


@torch.no_grad()
def resample(
    edges: Float[Tensor, "*b m1"],
    weights: Float[Tensor, "*b m"],
    n: int,
    generator: torch.Generator | None = None,
    padding: float = proposal.PADDING,
    knee: float | int = 0.0,
) -> Float[Tensor, "*b n1"]:
    """Edges of ``n`` intervals of equal mass of a histogram, as of ``proposal.resample``."""
    b, m = len(edges), weights.shape[-1]
    if knee > 0 or not _applies([m, n], [(weights, (b, m))], [(edges, (b, m + 1))]):
        return proposal.resample(edges, weights, n, generator, padding, knee)
    first = None
    if generator is not None:
        first = 0.5 + shares.rand((b, 1), generator, edges.dtype, edges.device)
    out = edges.new_empty(b, n + 1)
    arrays = [edges.contiguous(), weights.contiguous(), first, out]
    _call("rays_resample", b, [m, n], arrays, ctypes.c_float(padding))
    return out


def composite_intervals(
    field: FieldOutput | FeatureOutput,
    edges: Float[Tensor, "*b m"],
    directions: Float[Tensor, "*b 3"],
    white_bkgd: bool = False,
    t_vals: Float[Tensor, "*b s"] | None = None,
    viewdirs: Float[Tensor, "*b 3"] | None = None,
) -> Rendering:
    """Pixels from a field's values in the intervals between edges, as of ``volume.composite_intervals``."""
    t_vals = sampling.midpoints(edges) if t_vals is None else t_vals
    values = field.features if isinstance(field, FeatureOutput) else field.rgb
    weights, sums, depth, opacity = composite(field.density, values, edges, directions, t_vals)
    return volume.pixels(field, weights, t_vals, (sums, depth, opacity), white_bkgd, viewdirs)


def composite(
    density: Float[Tensor, "*b s"],
    values: Float[Tensor, "*b s c"],
    edges: Float[Tensor, "*b m"],
    directions: Float[Tensor, "*b 3"],
    t_vals: Float[Tensor, "*b s"],
) -> tuple[Float[Tensor, "*b s"], Float[Tensor, "*b c"], Float[Tensor, "*b"], Float[Tensor, "*b"]]:
    """Weights of intervals, and weighted sums of values of any number of channels, of ``t_vals`` and of 1.

    The sums are a ray's color or features, depth and opacity over black. The kernel supports up to 64 channels.
    """
    (b, s), channels = (len(directions), density.shape[-1]), values.shape[-1]
    trained = [(density, (b, s)), (values, (b, s, channels))]
    fixed = [(edges, (b, s + 1)), (directions, (b, 3)), (t_vals, (b, s))]
    if not (0 < channels <= MAX_CHANNELS and _applies([s], trained, fixed)):
        w = volume.interval_weights(density, edges, directions)
        return w, (w[..., None] * values).sum(-2), (w * t_vals).sum(-1), w.sum(-1)
    arrays = [x.contiguous() for x in (density, values, edges, t_vals, directions)]
    weights, sums, depth, opacity = _Composite.apply(*arrays)
    return weights, sums, depth, opacity


def interlevel_loss(
    edges_fine: Float[Tensor, "*b n1"],
    weights_fine: Float[Tensor, "*b n"],
    edges_prop: Float[Tensor, "*b m1"],
    weights_prop: Float[Tensor, "*b m"],
) -> Float[Tensor, ""]:
    """Loss of the proposal, as of ``proposal.interlevel_loss``."""
    b, n, m = len(edges_fine), weights_fine.shape[-1], weights_prop.shape[-1]
    trained = [(weights_fine, (b, n)), (weights_prop, (b, m))]
    if not _applies([n, m], trained, [(edges_fine, (b, n + 1)), (edges_prop, (b, m + 1))]):
        return proposal.interlevel_loss(edges_fine, weights_fine, edges_prop, weights_prop)
    fixed = [x.detach().contiguous() for x in (edges_fine, weights_fine, edges_prop)]
    found: Tensor = _Interlevel.apply(weights_prop.contiguous(), *fixed)
    return found


def exponential_density(raw: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """exp(x − 1) of float32 values x on the CPU, continued linearly where x − 1 is above 15; needs the kernel."""
    found: Tensor = _Density.apply(raw.contiguous())
    return found


Shaped = tuple[Tensor, tuple[int, ...]]  # an array, and the shape that the kernel expects


def _applies(samples: Sequence[int], trained: Sequence[Shaped], fixed: Sequence[Shaped]) -> bool:
    """Whether the kernel can be used for these arrays; ``fixed`` are those in which it is not differentiable."""
    return (
        all(x.dtype == torch.float32 and x.device.type == "cpu" and x.shape == shape for x, shape in (*trained, *fixed))
        and not (torch.is_grad_enabled() and any(x.requires_grad for x, _ in fixed))
        and all(0 < n <= MAX_SAMPLES for n in samples)
        and available()
    )


class _Composite(torch.autograd.Function):
    """Autograd function of weights and, with values, of sums of values, depths and opacities; contiguous arrays."""

    @staticmethod
    def forward(
        ctx: Any, density: Tensor, values: Tensor | None, edges: Tensor, t_vals: Tensor | None, directions: Tensor
    ) -> tuple[Tensor, ...]:
        n, s = density.shape
        weights, after = torch.empty_like(density), torch.empty_like(density)
        channels = 0 if values is None else values.shape[-1]
        sums = [] if values is None else [density.new_empty(shape) for shape in ((n, channels), (n,), (n,))]
        arrays = [density, values, edges, t_vals, directions, weights, after, *(sums or (None, None, None))]
        _call("rays_composite", n, [s, channels], arrays)
        ctx.save_for_backward(density, values, edges, t_vals, directions, weights, after)
        ctx.set_materialize_grads(False)
        return weights, *sums

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        density, values, edges, t_vals, directions, weights, after = ctx.saved_tensors
        needed = ctx.needs_input_grad
        found = [torch.empty_like(x) if needed[i] else None for i, x in enumerate((density, values))]
        reached = [None if g is None else g.contiguous() for g in (*grads, None, None, None)[:4]]
        channels = 0 if values is None else values.shape[-1]
        arrays = [*reached, *found, values, edges, t_vals, directions, weights, after]
        _call("rays_composite_backward", len(density), [density.shape[1], channels], arrays)
        return *found, None, None, None


class _Interlevel(torch.autograd.Function):
    """Autograd function of the interlevel loss, differentiable in the weights of the proposal; contiguous arrays."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, edges_fine: Tensor, weights_fine: Tensor, edges: Tensor) -> Tensor:
        losses = weights.new_empty(len(weights))
        slope = torch.empty_like(weights) if ctx.needs_input_grad[0] else None
        sizes = [weights_fine.shape[1], weights.shape[1]]
        arrays = [edges_fine, weights_fine, edges, weights, losses, slope]
        _call("rays_interlevel", len(weights), sizes, arrays)
        ctx.save_for_backward(weights, slope)
        return losses.mean()

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weights, slope = ctx.saved_tensors
        return slope * (grad / len(weights)), None, None, None


class _Density(torch.autograd.Function):
    """Autograd function of ``exponential_density``, for contiguous values."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor) -> Tensor:
        density, slope = torch.empty_like(raw), torch.empty_like(raw)
        _call("rays_density", raw.numel(), [], [raw, density, slope])
        ctx.save_for_backward(raw, slope)
        return density

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor]:
        return (grad * ctx.saved_tensors[1],)


def _call(name: str, rays: int, sizes: list[int], arrays: list[Tensor | None], *numbers: Any) -> None:
    """Call a function of the kernel: number of rays or values, sizes, number of threads, more numbers, arrays.

    None stands for an array that is not needed.
    """
    pointers = [ctypes.c_void_p(None if x is None else x.data_ptr()) for x in arrays]
    function = getattr(cpu_build.library(SOURCE), name)
    status = function(ctypes.c_int64(rays), *sizes, torch.get_num_threads(), *numbers, *pointers)
    cpu_build.check(status, SOURCE.stem)
