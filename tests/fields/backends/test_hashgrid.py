"""Tests of the hash encoding's reference implementation in float64, and of its C++ kernel against it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from enerf.fields.backends import cpu_hashgrid, hashgrid
from enerf.fields.backends.hashgrid import Grid
from tests.grids import latin

SEEDS = st.integers(0, 2**31)
light = settings(max_examples=20, deadline=None)
few = settings(max_examples=6, deadline=None)  # of many points each
GRIDS = {
    "all kinds of level": hashgrid.make_grid(4, 2, 9, 4, 64),
    "entries that are no power of two": Grid((3, 20), (64, 1000), 2),
    "one cell": Grid((1,), (8,), 2),
    "more entries than corners": Grid((2, 40), (100, 70_000), 2),
}
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def _random(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _table(grid: Grid, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return _random(seed, grid.offsets[-1], grid.features, dtype=dtype) - 0.5


def _close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


# the reference


def test_resolutions_grow_by_one_factor_and_levels_are_no_longer_than_allowed():
    grid = hashgrid.make_grid(5, 4, 12, 8, 128)
    assert grid.resolutions == (8, 16, 32, 64, 128)
    assert grid.entries == (729, 4096, 4096, 4096, 4096)
    assert [grid.is_hashed(level) for level in range(5)] == [False, True, True, True, True]
    assert grid.offsets == (0, 729, 4825, 8921, 13017, 17113)
    assert hashgrid.make_grid(1, 2, 12, 8, 128).resolutions == (8,)


@grids
def test_the_width_is_what_comes_out(grid: Grid):
    for n in (0, 1, 5):
        assert hashgrid.encode(_random(0, n, 3), _table(grid), grid).shape == (n, grid.width)


def test_tables_are_initialized_uniformly_within_one_ten_thousandth():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        table = hashgrid.HashEncoding(GRIDS["more entries than corners"]).table.detach().double().flatten()
    assert len(table) > 100_000
    shares = torch.linspace(0, 1, len(table), dtype=torch.float64)
    assert (
        table.sort().values - 1e-4 * (2 * shares - 1)
    ).abs().max() < 2e-6  # Kolmogorov and Smirnov: 0.01 of the range
    assert table.abs().max() <= 1e-4


@pytest.mark.parametrize("resolution", [1, 2, 5])
def test_a_corner_of_a_dense_level_has_the_features_of_its_entry(resolution: int):
    grid = Grid((resolution,), ((resolution + 1) ** 3,), 3)
    table = _table(grid)
    corners = list(itertools.product(range(resolution + 1), repeat=3))
    points = torch.tensor(corners, dtype=torch.float64) / resolution
    rows = [x + (resolution + 1) * (y + (resolution + 1) * z) for x, y, z in corners]
    assert sorted(rows) == list(range(grid.entries[0]))
    _close(hashgrid.encode(points, table, grid), table[rows])


def _slow_hash(x: int, y: int, z: int, entries: int) -> int:
    """Bit for bit in 32-bit arithmetic."""
    words = [x * 1 % 2**32, y * 2654435761 % 2**32, z * 805459861 % 2**32]
    mixed = sum((sum(word >> bit & 1 for word in words) % 2) << bit for bit in range(32))
    return mixed % entries


@given(corner=st.tuples(*[st.integers(0, 2**20)] * 3), entries=st.sampled_from([2, 1000, 2**16, 2**19]))
@light
def test_the_hash_is_that_of_32_bit_arithmetic(corner: tuple[int, int, int], entries: int):
    grid = Grid((1, 2**20), (8, entries), 1)
    assert hashgrid.entry(torch.tensor(corner), grid, 1).item() == 8 + _slow_hash(*corner, entries)


@grids
@given(seed=SEEDS)
@few
def test_a_level_is_linear_along_each_axis_within_a_cell(grid: Grid, seed: int):
    table = _table(grid, seed)
    for level, resolution in enumerate(grid.resolutions):
        cell = torch.randint(resolution, (3,), generator=torch.Generator().manual_seed(seed))
        for axis in range(3):
            within = _random(seed, 1, 3).repeat(3, 1)
            within[:, axis] = torch.tensor([0.1, 0.3, 0.7], dtype=torch.float64)
            low, middle, high = hashgrid._level((cell + within) / resolution, table, grid, level)
            _close(middle, low + (high - low) / 3)


@grids
@given(seed=SEEDS)
@few
def test_the_encoding_is_continuous_across_faces_of_cells(grid: Grid, seed: int):
    table, step = _table(grid, seed), 1e-9
    for axis, resolution in itertools.product(range(3), grid.resolutions):
        points = _random(seed, 8, 3)
        points[:, axis] = (points[:, axis] * (resolution + 1)).floor() / resolution
        offset = torch.zeros(3, dtype=torch.float64)
        offset[axis] = step
        values = [hashgrid.encode(points + k * offset, table, grid) for k in (-1, 0, 1)]
        steepest = 3 * max(grid.resolutions) * step
        assert (values[0] - values[1]).abs().max() <= steepest
        assert (values[2] - values[1]).abs().max() <= steepest


@grids
def test_a_table_of_one_value_encodes_as_that_value(grid: Grid):
    found = hashgrid.encode(_random(0, 50, 3), torch.full_like(_table(grid), 0.7), grid)
    _close(found, torch.full_like(found, 0.7))


@grids
@pytest.mark.parametrize("far", [1e-3, 1.0, 1e30])
def test_points_outside_are_taken_at_the_nearest_face(grid: Grid, far: float):
    points, table = _random(0, 20, 3) * 3 - 1, _table(grid)
    points = torch.where((points < 0) | (points > 1), points * far, points)
    found = hashgrid.encode(points, table, grid)
    assert torch.equal(found, hashgrid.encode(points.clamp(0, 1), table, grid))
    assert found.isfinite().all()


@grids
def test_gradients_are_those_of_differences_away_from_faces(grid: Grid):
    points = _random(1, 6, 3)
    for resolution in grid.resolutions:  # a face closer than the difference's step would spoil it
        assert ((points * resolution).frac() - 0.5).abs().max() < 0.5 - 1e-4
    table = _table(grid).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, t: hashgrid.encode(p, t, grid), (points.requires_grad_(), table), fast_mode=True
    )


@grids
def test_every_point_hands_its_whole_gradient_to_each_level_of_the_table(grid: Grid):
    table = _table(grid).requires_grad_()
    hashgrid.encode(_random(0, 37, 3) * 3 - 1, table, grid).sum().backward()
    for start, end in itertools.pairwise(grid.offsets):
        _close(table.grad[start:end].sum(0), torch.full((grid.features,), 37.0).double())


# the compiled kernel


@pytest.fixture
def _kernel() -> None:
    if not cpu_hashgrid.available():
        pytest.skip("no C++ compiler made the kernel")


compiled = pytest.mark.usefixtures("_kernel")


def _both(points: Tensor, grid: Grid, seed: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Values and both gradients: the kernel's in float32, the reference's in float64."""
    found = []
    for dtype, encode in [(torch.float32, cpu_hashgrid.encode), (torch.float64, hashgrid.encode)]:
        p = points.to(dtype, copy=True).requires_grad_()
        table = _table(grid, seed, torch.float32).to(dtype).requires_grad_()
        out = encode(p, table, grid)
        grad = _random(seed + 1, *out.shape, dtype=torch.float32) - 0.5
        grad[::3] = 0
        out.backward(grad.to(dtype))
        assert out.dtype == dtype
        found.append((out.detach(), table.grad, p.grad))
    return found


def _assert_alike(points: Tensor, grid: Grid) -> None:
    (out, table, slope), (out_reference, table_reference, slope_reference) = _both(points, grid)
    finest, often = max(grid.resolutions), max(1.0, math.sqrt(len(points)))
    torch.testing.assert_close(out.double(), out_reference, rtol=0, atol=1e-6 * finest)  # a point is known to 2^-24
    torch.testing.assert_close(table.double(), table_reference, rtol=0, atol=1e-6 * finest * often)
    torch.testing.assert_close(slope.double(), slope_reference, rtol=0, atol=1e-6 * finest**2)


def _inner_points(seed: int, n: int, grid: Grid) -> Tensor:
    """Points clear of every face, where float32 and float64 might see different cells."""
    points = _random(seed, 3 * n + 50, 3, dtype=torch.float32).double()
    clear = [((points * r).frac() - 0.5).abs().amax(-1) < 0.5 - 1e-6 * r for r in grid.resolutions]
    return points[torch.stack(clear).all(0)][:n].float()


@compiled
@pytest.mark.parametrize(("features", "n"), latin(2, [1, 2, 4, 8], [0, 1, 7, 256, 1025]))
def test_the_kernel_equals_the_reference(features: int, n: int):
    grid = hashgrid.make_grid(4, features, 9, 4, 64)
    points = _inner_points(n, n, grid)
    assert points.shape == (n, 3)
    _assert_alike(points, grid)


@compiled
@grids
def test_the_kernel_equals_the_reference_on_every_grid(grid: Grid):
    _assert_alike(_inner_points(3, 300, grid), grid)


@compiled
@grids
def test_the_kernel_equals_the_reference_outside_the_cube_and_on_its_faces(grid: Grid):
    values = torch.tensor([-1e30, -1.0, -0.0, 0.0, 0.37, 1.0, 1.5, 1e30])
    points = torch.cartesian_prod(values, values, values)
    _assert_alike(points, grid)


@compiled
def test_the_kernel_equals_the_reference_where_levels_are_large():
    grid = hashgrid.make_grid(3, 4, 17, 64, 512)
    _assert_alike(_inner_points(5, 3000, grid), grid)


@compiled
def test_the_kernel_finds_the_same_cells_as_the_reference_in_the_same_precision():
    grid = hashgrid.make_grid(6, 2, 14, 16, 1024)
    points, table = _random(0, 4000, 3, dtype=torch.float32), _table(grid, dtype=torch.float32)
    found, reference = cpu_hashgrid.encode(points, table, grid), hashgrid.encode(points, table, grid)
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-6)


@pytest.fixture
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@compiled
@pytest.mark.usefixtures("_threads")
def test_values_and_gradients_repeat_bit_for_bit_whatever_the_threads():
    grid = hashgrid.make_grid(5, 4, 10, 8, 64)
    points = _random(0, 5000, 3, dtype=torch.float32)
    runs = []
    for threads in (1, 2, 2, 7):
        torch.set_num_threads(threads)
        runs.append(_both(points, grid)[0])
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


@compiled
def test_rows_of_zeros_change_no_bit_of_the_gradient():
    grid = hashgrid.make_grid(3, 2, 10, 8, 64)
    points, keep = _random(0, 3000, 3, dtype=torch.float32), _random(1, 3000) < 0.3
    grad = torch.where(keep[:, None], _random(2, 3000, grid.width, dtype=torch.float32) - 0.5, -0.0)
    tables = [_table(grid, dtype=torch.float32).requires_grad_() for _ in range(2)]
    cpu_hashgrid.encode(points, tables[0], grid).backward(grad)
    cpu_hashgrid.encode(points[keep], tables[1], grid).backward(grad[keep])
    assert torch.equal(tables[0].grad, tables[1].grad)


@compiled
def test_strided_values_are_taken_as_they_are_meant():
    grid = hashgrid.make_grid(2, 4, 9, 4, 16)
    points, table = _random(0, 3, 50, dtype=torch.float32).T, _table(grid, dtype=torch.float32)
    assert not points.is_contiguous()
    table.requires_grad_()
    out = cpu_hashgrid.encode(points, table, grid)
    assert torch.equal(out, cpu_hashgrid.encode(points.contiguous(), table.clone().T.contiguous().T, grid))
    out.sum().backward()  # its gradient is one number, repeated by strides of 0
    torch.testing.assert_close(table.grad.sum(), torch.tensor(50.0 * grid.width))


@compiled
def test_entries_after_the_last_level_get_no_gradient():
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    table = torch.nn.functional.pad(_table(grid, dtype=torch.float32), (0, 0, 0, 3)).requires_grad_()
    cpu_hashgrid.encode(_random(0, 9, 3, dtype=torch.float32), table, grid).sum().backward()
    assert (table.grad[-3:] == 0).all()


@compiled
def test_a_point_that_is_no_number_stays_inside_the_table():
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    points = torch.full((3, 3), math.nan)
    assert cpu_hashgrid.encode(points, _table(grid, dtype=torch.float32), grid).isfinite().all()


@pytest.mark.parametrize(("dtype", "features"), [(torch.float64, 2), (torch.float32, 3)])
def test_what_the_kernel_cannot_take_is_handed_to_the_reference(dtype: torch.dtype, features: int):
    grid = hashgrid.make_grid(2, features, 9, 4, 16)
    points, table = _random(0, 20, 3, dtype=dtype), _table(grid, dtype=dtype)
    assert torch.equal(cpu_hashgrid.encode(points, table, grid), hashgrid.encode(points, table, grid))


@pytest.mark.parametrize("shape", [(4, 2), (4, 4), (12,), (2, 2, 3)])
def test_points_that_have_not_three_coordinates_are_refused(shape: tuple[int, ...]):
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    with pytest.raises((ValueError, RuntimeError, IndexError, TypeError)):
        cpu_hashgrid.encode(torch.rand(shape), _table(grid, dtype=torch.float32), grid)


@compiled
def test_a_grid_whose_numbers_do_not_match_never_reaches_the_kernel():
    points, table = torch.rand(5, 3), torch.rand(64, 2)
    for grid in (Grid((4, 8), (16,), 2), Grid((4,), (16, 16), 2), Grid((), (), 2), Grid((4,), (0,), 2)):
        assert not cpu_hashgrid._applies(points, table, grid)


@compiled
@pytest.mark.parametrize("resolution", [2**22 - 1, 2**23, 2_642_245])
def test_a_level_with_more_corners_than_64_bits_count_is_hashed(resolution: int):
    # (2^22)^3 is 0 modulo 2^64: counted in 64 bits, such a level would be read far beyond its entries
    grid = Grid((resolution,), (64,), 2)
    points, table = _random(0, 200, 3, dtype=torch.float32), _table(grid, dtype=torch.float32)
    found = cpu_hashgrid.encode(points, table, grid)
    torch.testing.assert_close(found, hashgrid.encode(points, table, grid), rtol=0, atol=1e-5)


def test_a_table_shorter_than_its_grid_is_never_read_past_its_end():
    grid = hashgrid.make_grid(2, 2, 9, 4, 16)
    with pytest.raises(IndexError):
        cpu_hashgrid.encode(torch.ones(1, 3), torch.zeros(5, 2), grid)
