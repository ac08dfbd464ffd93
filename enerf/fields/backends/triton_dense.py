"""Dense networks on a GPU: one Triton program evaluates all layers, block by block of points.

The reference implementation is ``dense.bind``.

Vocabulary
----------
- a **block** is a fixed number of points; a program executes all steps for one block before the next block;
- a **step** computes one activation buffer of a block: a sum of matrix products over the buffers that it reads (so
  sources are never concatenated, and rows shared by the points of a ray are never copied), plus bias, then ReLU or
  the mask of its derivative;
- the **workspace** contains the activation buffers of a block, one after the other, each padded to a power of two of
  columns up to 256, and to multiples of 256 above.

Forward pass. A step reads the buffer computed just before it from registers if it fits (up to 128 columns in bf16).
Wider ones are written to the workspace and read back in slices together with slices of the weights, as Triton cannot
slice registers: they are still in the GPU's caches, and in training the backward pass needs them in memory anyway.
Without gradients the workspace is a few buffers per program, reused for every block, so that it stays in the caches.

Backward pass. It is another list of steps for the same kernel: the gradient of a buffer is the sum of products over the
layers that read it, masked where its ReLU was inactive. Sums over a block give the gradients of biases. Gradients of
weights are products over all points, in a second kernel: each program sums some of the blocks in fp32, and torch sums
over programs. Atomic additions from every block (65,536 per block and layer) would cost more than the product, in an
order that changes from run to run; ``torch.mm`` returns bf16 for bf16 factors, and may add partial sums in bf16.
Results are the same from run to run.

Precision. ``bf16`` rounds weights, inputs and stored buffers to bf16; sums, biases and their gradients are fp32.
``fp32`` computes in IEEE fp32, without tensor cores: accurate and slow.

Limits. **This has not been timed on a GPU.** It is tested in Triton's interpreter and compiles for compute capability
9.0 without a device. A step of ``fern.txt`` is 0.70 TFLOP; one Hopper reaches about 790 TFLOP/s in bf16, so the bound
is 0.9 ms. An 8×256 NeRF stores about 5 kB of activations per point and as much of gradients, and reads each once or
twice: 5 GB for the 196,608 points of a step, 1.5 ms at 3.35 TB/s without overlap. A block of 128 points reads 128 kB of
weights and 64 kB of activations from the L2 cache for 17 MFLOP of a 256-wide layer: at about 5.5 TB/s (an estimate)
this limits the speed to half of the peak. Sharing weights between blocks (thread block clusters) would raise that
limit. The first call for a network compiles each pass: 5 to 30 s on a slow core, then cached by Triton.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from enerf.core.first_order import first_order
from enerf.fields.backends import dense
from enerf.fields.backends.dense import DTYPES, Bound, Network
from enerf.fields.backends.triton_kernels import factors, load, on, options, processors, require, unavailable_reason
from enerf.fields.backends.triton_plan import Plan, Steps, numbers

__all__ = ["bind", "unavailable_reason"]

SPLITS = 2  # programs per multiprocessor, of the products over all points


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "bf16") -> Bound:
    """Return the network with its weights as a function of its inputs, evaluated by Triton.

    Once differentiable with respect to weights, biases and inputs.

    Parameters
    ----------
    network
        The network.
    weights, biases
        Of each layer, in order: (width, sum of the widths it reads) and (width,), fp32. Their values are copied
        now; later changes have no effect.
    precision
        ``bf16`` or ``fp32``, of the factors of products.

    Raises
    ------
    RuntimeError
        If Triton or a GPU is missing, with ``unavailable_reason``.
    ValueError
        If a shape or device does not match the network or the first weight, or the number of points is not a multiple
        of the rows of an input.
    TypeError
        If a tensor is not fp32.
    """
    require(weights[0].device)
    plan = Plan(network, DTYPES[precision])
    dense.check_parameters(network, weights, biases, weights[0].device)
    _check_dtypes([*weights, *biases], "weights and biases")
    packed = plan.pack(weights, biases)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        n = dense.check_inputs(network, inputs, weights[0].device)
        _check_dtypes(inputs, "inputs")
        tensors = (*inputs, *weights, *biases)
        train = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        return _Chain.apply(plan, packed, train, n, *tensors)

    return run


def _check_dtypes(tensors: Sequence[Tensor], what: str) -> None:
    """Raise a TypeError unless all are float32."""
    if any(x.dtype != torch.float32 for x in tensors):
        raise TypeError(f"{what} must be float32, not {[x.dtype for x in tensors]}")


class _Chain(torch.autograd.Function):
    """Autograd function of a dense network: the Triton kernels of a plan, forward and backward."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, packed: tuple[Tensor, Tensor], train: bool, n: int, *tensors: Tensor) -> Any:
        inputs = [x.detach().contiguous() for x in tensors[: len(plan.network.inputs)]]
        blocks = -(-n // plan.rows)
        device = inputs[0].device
        programs = blocks if train else min(blocks, 2 * processors(device))
        steps, columns = plan.forward(train)
        work = torch.empty(programs * columns * plan.rows, dtype=plan.dtype, device=device)
        widths = [plan.network.widths[s] for s in plan.network.outputs]
        outs = tuple(torch.empty(n, width, dtype=torch.float32, device=device) for width in widths)
        if n:
            repeats = tuple(n // len(x) for x in inputs)
            tables = (work, work, *packed, outs, packed[1])
            _launch(plan, (programs,), tuple(inputs), repeats, *tables, n, blocks, steps, columns, columns, train)
        if train:
            ctx.plan, ctx.n, ctx.shapes, ctx.packed = plan, n, [x.shape for x in inputs], packed
            # all but the workspace only so that a second derivative can be refused
            ctx.save_for_backward(work, *(x for x in tensors if x.requires_grad))
        return outs

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan, n = ctx.plan, ctx.n
        work = ctx.saved_tensors[0]
        kinds = len(plan.network.inputs), len(plan.network.layers)
        needs = ctx.needs_input_grad[4:]
        needs_inputs = tuple(needs[: kinds[0]])
        blocks = -(-n // plan.rows)
        steps, columns = plan.backward(needs_inputs)
        like = {"dtype": torch.float32, "device": work.device}
        dz = torch.empty(blocks * columns * plan.rows, dtype=plan.dtype, device=work.device)
        sums = torch.empty(blocks, columns, **like)
        widths = [width for width, need in zip(plan.network.inputs, needs_inputs, strict=True) if need]
        writes = tuple(torch.empty(n, width, **like) for width in widths)
        if n:
            reads = tuple(g.to(torch.float32).contiguous() for g in grads)
            tables = (dz, work, *ctx.packed, writes or (sums,), sums)
            ones = (1,) * len(reads)
            _launch(plan, (blocks,), reads, ones, *tables, n, blocks, steps, columns, plan.column[-1], True)
        filled = iter(writes)
        d_inputs = [
            next(filled).reshape(shape[0], -1, shape[1]).sum(1) if need and n else None
            for shape, need in zip(ctx.shapes, needs_inputs, strict=True)
        ]
        d_weights = [_weight(plan, i, work, dz, blocks) if needs[kinds[0] + i] else None for i in range(kinds[1])]
        total = sums.sum(0)
        d_biases = [total[plan.bias_at(i)] for i in range(kinds[1])]
        return (None, None, None, None, *d_inputs, *d_weights, *d_biases)


def _launch(plan: Plan, grid: tuple[int, ...], *arguments: Any) -> None:
    """Launch the kernel ``chain`` over all blocks, on the device of its workspace."""
    device = arguments[2].device
    with on(device):
        constants = _constants(plan, *arguments[10:])
        load("chain")[grid](*arguments[:10], *constants, num_warps=plan.warps, **options(device))


def _constants(plan: Plan, steps: Steps, columns: int, saved: int, by_block: bool) -> tuple[Any, ...]:
    """Compile-time arguments of the kernel ``chain``, in its order."""
    return *numbers(steps), columns, saved, plan.rows, plan.deep, factors(plan.dtype), by_block


def _weight(plan: Plan, layer: int, work: Tensor, dz: Tensor, blocks: int) -> Tensor:
    """Gradient of the weight of a layer: products over all points, for each source."""
    widths, rows = plan.network.widths, plan.rows
    buffer = len(plan.network.inputs) + layer
    wide = plan.padded[buffer]
    parts = []
    for source in plan.network.layers[layer].sources:
        deep = plan.padded[source]
        tiles = min(wide, plan.tile), min(deep, plan.tile)
        count = wide // tiles[0] * (deep // tiles[1])
        splits = max(1, min(blocks, SPLITS * processors(work.device) // count))
        out = torch.empty(splits, wide, deep, dtype=torch.float32, device=work.device)
        z_at, x_at = plan.z_column[buffer] * rows, plan.column[source] * rows
        shapes = (plan.z_column[-1], plan.column[-1], wide, deep, *tiles, rows, factors(plan.dtype))
        with on(work.device):
            tables = (dz, work, out, z_at, x_at, blocks, *shapes)
            load("outer")[(count, splits)](*tables, num_warps=plan.warps, **options(work.device))
        parts.append(out.sum(0)[: widths[buffer], : widths[source]])
    return torch.cat(parts, 1)
