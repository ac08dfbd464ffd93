"""The Triton kernels, as plain functions that ``load`` compiles at their first use.

Importing this file does not import Triton. ``load`` sets ``tl`` before anything is compiled; parameters marked
``tl.constexpr`` are compile-time constants, so that loops over layers, terms and corners are unrolled. The algorithms
are described where the kernels are launched: ``triton_dense`` and ``triton_hashgrid``.
"""
# mypy: disable-error-code="no-untyped-def, name-defined"

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
from typing import Any

import torch

tl: Any = None  # triton.language, set by ``load``
CALLS = {"chain": ("step",), "step": ("product",), "features": ("axis", "entry")}  # programs that call others


def unavailable_reason(device: torch.device | None = None) -> str | None:
    """Why the kernels cannot run on a device (None: on a CUDA device) in one line, or None if they can.

    With ``TRITON_INTERPRET=1`` in the environment when Triton is first imported, they run on a CPU, slowly.
    """
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton; the torch backend works without it"
    version = tuple(int(part) for part in importlib.import_module("triton").__version__.split(".")[:2])
    if version < (3, 3):
        return (
            f"triton {version[0]}.{version[1]} is too old: 3.3 or newer is needed; the torch backend works without it"
        )
    if interpreted():
        return None
    if not torch.cuda.is_available():
        return "there is no CUDA device: the torch backend works without one"
    if device is not None and device.type != "cuda":
        return f"triton's kernels run on CUDA devices, not on {device.type}: the torch backend works there"
    return None


def interpreted() -> bool:
    """Whether Triton's interpreter is enabled by the environment."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in {"1", "true", "yes", "on"}


def require(device: torch.device) -> None:
    """Check that the kernels can run on the device.

    Raises
    ------
    RuntimeError
        If they cannot, with ``unavailable_reason``.
    """
    if reason := unavailable_reason(device):
        raise RuntimeError(reason)


def processors(device: torch.device) -> int:
    """Number of multiprocessors of a device; 2 in the interpreter, so that tests use more than one program."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def options(device: torch.device) -> dict[str, Any]:
    """Launch options for a device: three pipeline stages where shared memory is large enough, else two."""
    roomy = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9
    return {
        "num_stages": 3 if roomy else 2,
        "enable_fp_fusion": True,
    }  # explicit: Triton 3.9 warns where fusion is not specified


def factors(dtype: torch.dtype) -> Any:
    """Triton's dtype for the factors of products; fp32 in the interpreter, which has the same result."""
    names = importlib.import_module("triton.language")
    return names.float32 if interpreted() or dtype == torch.float32 else names.bfloat16


def on(device: torch.device) -> Any:
    """The context in which kernels are launched on a device."""
    return torch.cuda.device(device if device.type == "cuda" else -1)


@functools.cache
def load(name: str) -> Any:
    """Compile a function of this file to a kernel, with the functions that it calls."""
    global tl  # noqa: PLW0603
    triton = importlib.import_module("triton")
    tl = triton.language
    free = ["n", "blocks"]  # no specialization for their values
    for inner in CALLS.get(name, ()):
        globals()[inner] = load(inner)
    program = inspect.unwrap(globals()[name])
    return triton.jit(program, do_not_specialize=[p for p in inspect.signature(program).parameters if p in free])


def chain(
    reads, repeats, work, saved, weights, biases, writes, sums, n, blocks,
    STEPS: tl.constexpr, TERMS: tl.constexpr, COLUMNS: tl.constexpr, SAVED: tl.constexpr,
    ROWS: tl.constexpr, DEEP: tl.constexpr, FACTORS: tl.constexpr, BY_BLOCK: tl.constexpr,
):  # fmt: skip
    """Execute all steps for blocks of ROWS points."""
    program = tl.program_id(0)
    for block in range(program, blocks, tl.num_programs(0)):
        place = block if BY_BLOCK else program
        base = work + tl.cast(place, tl.int64) * (COLUMNS * ROWS)
        before = saved + tl.cast(block, tl.int64) * (SAVED * ROWS)
        total = sums + tl.cast(block, tl.int64) * COLUMNS
        row = tl.cast(block, tl.int64) * ROWS + tl.arange(0, ROWS)
        tl.debug_barrier()  # the last step of the previous block may still read the region
        last = row  # not used by the first step
        for t in tl.static_range(len(STEPS) // 13):
            last = step(
                reads, repeats, base, before, weights, biases, writes, total, n, row, last,
                STEPS, TERMS, t, ROWS, DEEP, FACTORS,
            )  # fmt: skip
            tl.debug_barrier()  # later steps read what all threads have stored


def step(
    reads, repeats, base, before, weights, biases, writes, sums, n, row, last,
    STEPS: tl.constexpr, TERMS: tl.constexpr, T: tl.constexpr,
    ROWS: tl.constexpr, DEEP: tl.constexpr, FACTORS: tl.constexpr,
):  # fmt: skip
    """Compute one buffer of a block: input, terms, bias, ReLU or mask, stores; step T of triton_plan.numbers."""
    column: tl.constexpr = STEPS[13 * T]
    padded: tl.constexpr = STEPS[13 * T + 1]
    width: tl.constexpr = STEPS[13 * T + 2]
    tile: tl.constexpr = STEPS[13 * T + 3]
    read: tl.constexpr = STEPS[13 * T + 4]
    first: tl.constexpr = STEPS[13 * T + 5]
    count: tl.constexpr = STEPS[13 * T + 6]
    bias: tl.constexpr = STEPS[13 * T + 7]
    relu: tl.constexpr = STEPS[13 * T + 8]
    mask: tl.constexpr = STEPS[13 * T + 9]
    write: tl.constexpr = STEPS[13 * T + 10]
    keep: tl.constexpr = STEPS[13 * T + 11]
    sums_at: tl.constexpr = STEPS[13 * T + 12]
    inner = tl.arange(0, ROWS)
    result = last
    for j in tl.static_range(padded // tile):
        col = j * tile + tl.arange(0, tile)
        inside = (row < n)[:, None] & (col < width)[None, :]
        if read >= 0:
            at = (row // repeats[read])[:, None] * width + col[None, :]
            acc = tl.load(reads[read] + at, mask=inside, other=0.0)
        else:
            acc = tl.zeros([ROWS, tile], dtype=tl.float32)
        for i in tl.static_range(count):
            acc = product(acc, base, weights, last, inner, col, TERMS, first + i, DEEP, FACTORS)
        if bias >= 0:
            acc += tl.load(biases + bias + col)[None, :]
        if relu == 1:
            acc = tl.maximum(acc, 0.0)
        if mask >= 0:
            h = tl.load(before + mask * ROWS + inner[:, None] * padded + col[None, :])
            acc = tl.where(h.to(tl.float32) > 0, acc, 0.0)
        if write >= 0:
            tl.store(writes[write] + row[:, None] * width + col[None, :], acc, mask=inside)
        if sums_at >= 0:
            tl.store(sums + sums_at + col, tl.sum(acc, 0))
        result = acc.to(base.dtype.element_ty)
        if keep == 1:
            tl.store(base + column * ROWS + inner[:, None] * padded + col[None, :], result)
    return result


def product(
    acc, base, weights, last, inner, col, TERMS: tl.constexpr, T: tl.constexpr, DEEP: tl.constexpr,
    FACTORS: tl.constexpr,
):  # fmt: skip
    """``acc`` plus the product of a buffer and a matrix; term T of triton_plan.numbers."""
    source: tl.constexpr = TERMS[6 * T]
    length: tl.constexpr = TERMS[6 * T + 1]
    matrix_at: tl.constexpr = TERMS[6 * T + 2]
    down: tl.constexpr = TERMS[6 * T + 3]
    across: tl.constexpr = TERMS[6 * T + 4]
    fresh: tl.constexpr = TERMS[6 * T + 5]
    matrix = weights + matrix_at + col[None, :] * across
    if fresh == 1:
        b = tl.load(matrix + tl.arange(0, length)[:, None] * down)
        acc = tl.dot(last.to(FACTORS), b.to(FACTORS), acc, input_precision="ieee")
    else:
        depth: tl.constexpr = length if length < DEEP else DEEP
        k = tl.arange(0, depth)
        a_at = base + source * inner.shape[0] + inner[:, None] * length + k[None, :]
        b_at = matrix + k[:, None] * down
        for start in range(0, length, depth):
            left, right = tl.load(a_at + start).to(FACTORS), tl.load(b_at + start * down).to(FACTORS)
            acc = tl.dot(left, right, acc, input_precision="ieee")
    return acc


def outer(
    dz, x, out, z_at, x_at, blocks,
    Z_COLUMNS: tl.constexpr, X_COLUMNS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr,
    TILE_OUT: tl.constexpr, TILE_IN: tl.constexpr, ROWS: tl.constexpr, FACTORS: tl.constexpr,
):  # fmt: skip
    """Weight gradient, one tile of dzᵀ x: program (·, j) sums row blocks j, j + num_programs(1) ...; callers add."""
    first = (tl.program_id(0) // (IN // TILE_IN)) * TILE_OUT + tl.arange(0, TILE_OUT)
    second = (tl.program_id(0) % (IN // TILE_IN)) * TILE_IN + tl.arange(0, TILE_IN)
    inner = tl.arange(0, ROWS)
    acc = tl.zeros([TILE_OUT, TILE_IN], dtype=tl.float32)
    left = z_at + inner[None, :] * OUT + first[:, None]
    right = x_at + inner[:, None] * IN + second[None, :]
    for block in range(tl.program_id(1), blocks, tl.num_programs(1)):
        a = tl.load(dz + tl.cast(block, tl.int64) * (Z_COLUMNS * ROWS) + left)
        b = tl.load(x + tl.cast(block, tl.int64) * (X_COLUMNS * ROWS) + right)
        acc = tl.dot(a.to(FACTORS), b.to(FACTORS), acc, input_precision="ieee")
    tl.store(out + tl.program_id(1) * (OUT * IN) + first[:, None] * IN + second[None, :], acc)


def features(
    points, table, levels, out, grad_out, grad_table, grad_points, n,
    WIDTH: tl.constexpr, FEATURES: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
    BACKWARD: tl.constexpr, TO_TABLE: tl.constexpr, TO_POINTS: tl.constexpr,
):  # fmt: skip
    """One level (second program index) of the hash encoding at BLOCK points; see hashgrid.encode."""
    level = tl.program_id(1)
    side = tl.load(levels + level * 4)
    row = tl.cast(tl.program_id(0), tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = row < n
    px, cx, fx = axis(points, row, inside, side, 0)
    py, cy, fy = axis(points, row, inside, side, 1)
    pz, cz, fz = axis(points, row, inside, side, 2)
    feature = tl.arange(0, PADDED)
    valid = inside[:, None] & (feature < FEATURES)[None, :]
    at = row[:, None] * WIDTH + level * FEATURES + feature[None, :]
    total = tl.zeros([BLOCK, PADDED], dtype=tl.float32)
    gx = tl.zeros([BLOCK], dtype=tl.float32)
    gy = gx
    gz = gx
    if BACKWARD:
        grad = tl.load(grad_out + at, mask=valid, other=0.0)
    for corner in tl.static_range(8):
        wx = fx if corner // 4 == 1 else 1 - fx
        wy = fy if corner // 2 % 2 == 1 else 1 - fy
        wz = fz if corner % 2 == 1 else 1 - fz
        index = entry(cx + corner // 4, cy + corner // 2 % 2, cz + corner % 2, side, levels + level * 4)
        cell = index[:, None] * FEATURES + feature[None, :]
        if not BACKWARD:
            total += (wx * wy * wz)[:, None] * tl.load(table + cell, mask=valid, other=0.0)
        if TO_TABLE:
            tl.atomic_add(grad_table + cell, (wx * wy * wz)[:, None] * grad, mask=valid)
        if TO_POINTS:
            slope = tl.sum(grad * tl.load(table + cell, mask=valid, other=0.0), 1)
            gx += slope * (wy * wz) * (2 * (corner // 4) - 1)
            gy += slope * (wx * wz) * (2 * (corner // 2 % 2) - 1)
            gz += slope * (wx * wy) * (2 * (corner % 2) - 1)
    if not BACKWARD:
        tl.store(out + at, total, mask=valid)
    if TO_POINTS:
        base = grad_points + (tl.cast(level, tl.int64) * n + row) * 3
        tl.store(base, tl.where((px >= 0) & (px <= 1), gx * side, 0.0), mask=inside)
        tl.store(base + 1, tl.where((py >= 0) & (py <= 1), gy * side, 0.0), mask=inside)
        tl.store(base + 2, tl.where((pz >= 0) & (pz <= 1), gz * side, 0.0), mask=inside)


def axis(points, row, inside, side, AXIS: tl.constexpr):
    """For one axis: the coordinate of points, the index of their cell, and their position in it in [0, 1]."""
    at = tl.load(points + row * 3 + AXIS, mask=inside, other=0.0)
    scaled = tl.minimum(tl.maximum(at, 0.0), 1.0) * side
    cell = tl.minimum(tl.maximum(scaled.to(tl.int32), 0), side - 1)  # NaN gives a valid cell too
    return at, cell, scaled - cell


def entry(x, y, z, side, level):
    """Row of the table for a grid corner; see hashgrid.entry."""
    x, y, z, wide = x.to(tl.uint32), y.to(tl.uint32), z.to(tl.uint32), (side + 1).to(tl.uint32)
    hashed = (x ^ (y * 2654435761) ^ (z * 805459861)) % tl.load(level + 1).to(tl.uint32)
    index = tl.where(tl.load(level + 3) != 0, hashed, x + wide * (y + wide * z))
    return tl.load(level + 2).to(tl.int64) + index.to(tl.int64)
