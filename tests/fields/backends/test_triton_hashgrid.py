"""Tests of the Triton backend of the hash encoding against the reference: on a GPU, or in Triton's interpreter."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from enerf.fields.backends import hashgrid, triton_hashgrid, triton_kernels
from enerf.fields.backends.hashgrid import Grid
from tests.fields.backends import kernel_compiler

HERE = Path(__file__).resolve()
INTERPRETED = triton_kernels.interpreted()
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")

requires_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or not (INTERPRETED or torch.cuda.is_available()),
    reason="needs triton, and a GPU or the interpreter (which another test of this file starts)",
)

GRIDS = {
    "hashed and not": hashgrid.make_grid(4, 2, 9, 3, 40),
    "three features": hashgrid.make_grid(2, 3, 8, 4, 9),
    "entries that are no power of two, one feature": Grid((2, 16, 300), (27, 1000, 77), 1),
}


def _points() -> Tensor:
    """Points within, outside, and on faces, edges and corners of cells; more than one block of them."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(150, 3, generator=generator) * 1.4 - 0.2
    faces = torch.tensor([0.0, 0.25, 0.5, 1.0])
    points[:64] = torch.cartesian_prod(faces, faces, faces)
    points[64:80, 0] = torch.tensor([0.0, 1.0]).repeat(8)
    return points.to(DEVICE)


def _both(
    encode: Callable[[Tensor, Tensor, Grid], Tensor], grid: Grid, points: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, and gradients in points and table of a fixed linear function of them."""
    generator = torch.Generator().manual_seed(1)
    points = points.clone().requires_grad_()
    table = torch.randn(grid.offsets[-1], grid.features, generator=generator).to(DEVICE).requires_grad_()
    out = encode(points, table, grid)
    total = (out * torch.randn(out.shape, generator=generator).to(DEVICE)).sum()
    return (out.detach(), *torch.autograd.grad(total, (points, table)))


@requires_triton
@pytest.mark.parametrize("name", GRIDS)
def test_features_and_both_gradients_are_those_of_the_reference(name: str):
    result = _both(triton_hashgrid.encode, GRIDS[name], _points())
    true = _both(hashgrid.encode, GRIDS[name], _points())
    for a, b in zip(result, true, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))


@requires_triton
def test_a_gradient_that_is_not_requested_is_not_made():
    grid, points = GRIDS["hashed and not"], _points()
    table = torch.ones(grid.offsets[-1], grid.features, device=DEVICE)
    assert not triton_hashgrid.encode(points, table, grid).requires_grad
    triton_hashgrid.encode(points, table.requires_grad_(), grid).sum().backward()
    assert points.grad is None
    assert torch.isclose(table.grad.sum(), torch.tensor(float(150 * grid.width), device=DEVICE))  # shares add up to 1


@requires_triton
def test_no_points_and_points_that_are_no_numbers_are_survived():
    grid = GRIDS["hashed and not"]
    table = torch.ones(grid.offsets[-1], grid.features, device=DEVICE, requires_grad=True)
    empty = triton_hashgrid.encode(torch.empty(0, 3, device=DEVICE), table, grid)
    assert empty.shape == (0, grid.width)
    empty.sum().backward()
    assert (table.grad == 0).all()
    triton_hashgrid.encode(torch.full((3, 3), torch.nan, device=DEVICE), table, grid)


@requires_triton
def test_what_the_kernel_cannot_read_is_refused():
    grid = GRIDS["hashed and not"]
    table = torch.ones(grid.offsets[-1], grid.features, device=DEVICE)
    with pytest.raises(TypeError, match="float32"):
        triton_hashgrid.encode(_points().double(), table, grid)
    with pytest.raises(ValueError, match="a table of"):
        triton_hashgrid.encode(_points(), table[1:], grid)
    with pytest.raises((ValueError, TypeError)):  # by the signature, where shapes are executed
        triton_hashgrid.encode(_points()[:, :2], table, grid)


@requires_triton
def test_a_second_derivative_is_refused():
    grid, points = GRIDS["hashed and not"], _points().requires_grad_()
    table = torch.ones(grid.offsets[-1], grid.features, device=DEVICE, requires_grad=True)
    (slope,) = torch.autograd.grad(triton_hashgrid.encode(points, table, grid).sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="a second derivative of a network, encoding or rendering was needed"):
        torch.autograd.grad(slope.sum(), table)


def test_a_missing_triton_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install triton"):
        triton_hashgrid.encode(torch.zeros(1, 3), torch.zeros(1, 2), GRIDS["hashed and not"])


@kernel_compiler.requires_compiler
@pytest.mark.parametrize("backward", [False, True])
def test_the_encoding_compiles_for_a_gpu_that_need_not_be_there(backward: bool, tmp_path: Path):
    kinds = dict.fromkeys(("points", "table", "out", "grad_out", "grad_table", "grad_points"), "*fp32")
    kinds |= {"levels": "*i32", "n": "i32"}
    known = {"WIDTH": 32, "FEATURES": 4, "PADDED": 4, "BLOCK": triton_hashgrid.BLOCK}
    known |= dict.fromkeys(("BACKWARD", "TO_TABLE", "TO_POINTS"), backward)
    made = kernel_compiler.compiled("features", kinds, known, 4, tmp_path)
    assert ("red.global" in made.asm["ptx"] or "atom.global" in made.asm["ptx"]) == backward  # atomic additions


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter's process")
def test_the_tests_pass_in_tritons_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=HERE.parents[3], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
