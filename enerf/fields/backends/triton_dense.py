"""Dense networks on a GPU: blocks of points go through all layers in one Triton program (twin: ``dense.bind``).

Vocabulary
----------
- a **block** is a fixed number of points; a program takes its block through all steps before the next block;
- a **step** makes one slot of a block: a sum of products over the slots that it reads (so nothing is ever laid side by
  side, and an input shared by a ray's points is read where it lies), plus bias, then ReLU or the mask of one;
- the **work** buffer holds a block's slots, one after the other, each with a power of two of columns up to 256, then
  multiples of 256.

How it works. A step whose source is the slot just made takes it from registers where the two fit (up to 128 wide in
bf16). A wider one writes the slot to the work buffer and reads it back in slices beside the slices of the weights, as
Triton cannot slice what lies in registers: such a block is in the caches of the GPU when it is read, and in training
the backward pass needs it in memory anyway. Without gradients the buffer is a few slots a program, used again for every
block, so that it stays in the caches.

The backward pass is another list of steps through the same kernel: a slot's gradient is the sum of products over the
layers that read it, masked where its ReLU was idle. Sums over a block give the biases' gradients. The weights'
gradients are products over all points, a second kernel: each of its programs adds up some of the blocks in fp32 and
torch adds the programs. That was chosen over adding to the weights' gradient from every block: 65,536 atomic
additions a block and layer would cost more than the product, and their order would change from run to run. It was
chosen over ``torch.mm`` because bf16 products of torch return bf16, and may add up parts in bf16 as well. Results are
the same from run to run.

Precision: ``bf16`` rounds weights, inputs and stored slots to bf16; sums, biases and the biases' gradients are fp32.
``fp32`` computes in IEEE fp32, without tensor cores: right, and slow.

What limits it. **This has not been timed on a GPU.** It is tested in Triton's interpreter and compiles for compute
capability 9.0 without a device. A step of ``fern.txt`` is 0.70 TFLOP; one Hopper reaches about 790 TFLOP/s in bf16, so
no less than 0.9 ms. An 8×256 NeRF stores about 5 kB of activations a point and as much of their gradients, and reads
each once or twice: some 5 GB for the 196,608 points of a step, 1.5 ms at 3.35 TB/s where nothing overlaps. A block of
128 points streams 128 kB of weights and 64 kB of activations from the L2 cache for 17 MFLOP of a 256-wide layer: at
about 5.5 TB/s (an estimate) that caps the chain near half of the peak. Sharing weights between blocks (thread block
clusters) would lift that cap. The first call of a network compiles each pass: 5 to 30 s on a slow core, kept in
Triton's cache.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from enerf.fields.backends.dense import DTYPES, Bound, Network
from enerf.fields.backends.triton_kernels import factors, load, on, options, processors, require, unavailable_reason
from enerf.fields.backends.triton_plan import Plan

__all__ = ["bind", "unavailable_reason"]

SPLITS = 2  # programs a multiprocessor, of the products over all points


def bind(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor], precision: str = "bf16") -> Bound:
    """The network with its weights, evaluated by Triton: differentiable once in weights, biases and inputs.

    Parameters
    ----------
    network
        What is computed.
    weights, biases
        Of each layer, in order: (width, sum of the widths it reads) and (width,), fp32. Their values are copied here:
        bind again after they have changed.
    precision
        ``bf16`` or ``fp32``, of the products' factors.

    Raises
    ------
    RuntimeError
        Where ``unavailable_reason`` gives a reason.
    ValueError
        If a layer does not read its sources' widths, or an input's rows do not divide the points.
    TypeError
        If a tensor is not fp32.
    """
    require(weights[0].device)
    plan = Plan(network, DTYPES[precision])
    _check(network, weights, biases)
    packed = plan.pack(weights, biases)

    def run(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        n = max(len(x) for x in inputs)
        if any(len(x) == 0 or n % len(x) for x in inputs) and n:
            raise ValueError(f"inputs of {[len(x) for x in inputs]} rows: each must divide the largest")
        if any(x.dtype != torch.float32 for x in inputs):
            raise TypeError(f"inputs must be float32, not {[x.dtype for x in inputs]}")
        tensors = (*inputs, *weights, *biases)
        train = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
        return _Chain.apply(plan, packed, train, n, *tensors)

    return run


def _check(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
    """Shapes and dtypes of the parameters, before a kernel reads what is not there."""
    for i, (layer, weight, bias) in enumerate(zip(network.layers, weights, biases, strict=True)):
        shape = (layer.width, sum(network.widths[s] for s in layer.sources))
        if tuple(weight.shape) != shape or tuple(bias.shape) != shape[:1]:
            raise ValueError(f"layer {i}: weight {tuple(weight.shape)} and bias {tuple(bias.shape)} for {shape}")
        if weight.dtype != torch.float32 or bias.dtype != torch.float32:
            raise TypeError(f"layer {i}: weight and bias must be float32, not {weight.dtype} and {bias.dtype}")


class _Chain(torch.autograd.Function):
    """Forward and backward as lists of steps; see the module."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, packed: tuple[Tensor, Tensor], train: bool, n: int, *tensors: Tensor) -> Any:
        inputs = [x.detach().contiguous() for x in tensors[: len(plan.network.inputs)]]
        blocks = -(-n // plan.rows)
        device = inputs[0].device
        programs = blocks if train else min(blocks, 2 * processors(device))
        steps, columns = plan.forward(train)
        work = torch.empty(programs * columns * plan.rows, dtype=plan.dtype, device=device)
        widths = [plan.network.widths[s] for s in plan.network.outputs]
        outs = tuple(torch.empty(n, width, device=device) for width in widths)
        if n:
            repeats = tuple(n // len(x) for x in inputs)
            tables = (work, work, *packed, outs, packed[1])
            _launch(plan, (programs,), tuple(inputs), repeats, *tables, n, blocks, steps, columns, columns, train)
        if train:
            ctx.plan, ctx.n, ctx.shapes, ctx.packed = plan, n, [x.shape for x in inputs], packed
            ctx.save_for_backward(work)
        return outs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        plan, n = ctx.plan, ctx.n
        (work,) = ctx.saved_tensors
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
    """The chain over all blocks, on the device of its work buffer."""
    device = arguments[2].device
    with on(device):
        constants = _constants(plan, *arguments[10:])
        load("chain")[grid](*arguments[:10], *constants, num_warps=plan.warps, **options(device))


def _constants(plan: Plan, steps: Any, columns: int, saved: int, by_block: bool) -> tuple[Any, ...]:
    """What the compiler knows of a chain, in the kernel's order."""
    return steps, columns, saved, plan.rows, plan.deep, factors(plan.dtype), by_block


def _weight(plan: Plan, layer: int, work: Tensor, dz: Tensor, blocks: int) -> Tensor:
    """Gradient of a layer's weight: products over all points, source by source."""
    widths, rows = plan.network.widths, plan.rows
    slot = len(plan.network.inputs) + layer
    wide = plan.padded[slot]
    parts = []
    for source in plan.network.layers[layer].sources:
        deep = plan.padded[source]
        tiles = min(wide, plan.tile), min(deep, plan.tile)
        count = wide // tiles[0] * (deep // tiles[1])
        splits = max(1, min(blocks, SPLITS * processors(work.device) // count))
        out = torch.empty(splits, wide, deep, device=work.device)
        z_at, x_at = plan.z_column[slot] * rows, plan.column[source] * rows
        shapes = (plan.z_column[-1], plan.column[-1], wide, deep, *tiles, rows, factors(plan.dtype))
        with on(work.device):
            tables = (dz, work, out, z_at, x_at, blocks, *shapes)
            load("outer")[(count, splits)](*tables, num_warps=plan.warps, **options(work.device))
        parts.append(out.sum(0)[: widths[slot], : widths[source]])
    return torch.cat(parts, 1)
