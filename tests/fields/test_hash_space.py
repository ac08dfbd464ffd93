"""Tests of hash-encoded fields: position of a scene's points in the cube, and densities of proposals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from enerf.config.options import ConditioningOptions
from enerf.core.types import FieldOutput, Space
from enerf.fields import hash_space
from enerf.fields.backends.hashgrid import make_grid
from enerf.fields.contraction import uncontract
from enerf.fields.hash_space import HashedSpace, ProposalField
from enerf.fields.nerf import NeRF
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import ModelOptions

GRID = make_grid(3, 2, 10, 4, 16)
BOX = Space((-1.0, 0.5, 2.0), (3.0, 1.0, 4.0))
ALL = Space(
    (-2.0, -1.0, -3.0), (2.0, 3.0, 1.0), contracted=True
)  # a ball of radius 2 around (0, 1, −1) keeps its place
CORNERS = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 3)
SEEDS = st.integers(0, 2**31)
light = settings(max_examples=30, deadline=None)


class Asked(nn.Module):
    """Replaces the encoding: returns the points of the cube at which it is called."""

    def forward(self, points: Tensor) -> Tensor:
        return points


def places(space: Space, points: Tensor) -> Tensor:
    """Where points of scene space lie in the cube, before what is outside is moved to its face."""
    made = HashedSpace(GRID, space).double()
    made.encoding = Asked()
    return made(points)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def box(space: Space) -> tuple[Tensor, Tensor]:
    return torch.tensor(space.low, dtype=torch.float64), torch.tensor(space.high, dtype=torch.float64)


def settled(space: Space = BOX) -> HashedSpace:
    """With features that are worth comparing."""
    made = HashedSpace(GRID, space).double()
    with torch.no_grad():
        made.encoding.table.copy_(drawn(7, *made.encoding.table.shape) - 0.5)
    return made


# places


def test_the_corners_of_the_box_are_those_of_the_cube():
    low, high = box(BOX)
    assert torch.equal(places(BOX, low + CORNERS * (high - low)), CORNERS)


@given(seed=SEEDS)
@light
def test_within_the_box_places_keep_their_proportions(seed: int):
    low, high = box(BOX)
    share = drawn(seed, 5, 3)
    torch.testing.assert_close(places(BOX, low + share * (high - low)), share, rtol=0, atol=1e-14)


@given(seed=SEEDS)
@light
def test_outside_the_box_features_are_those_of_the_nearest_face(seed: int):
    (low, high), made = box(BOX), settled()
    points = low + (high - low) * (6 * drawn(seed, 9, 3) - 2.5)
    nearest = points.clamp(low, high)
    torch.testing.assert_close(made(points), made(nearest), rtol=0, atol=1e-12)


@given(seed=SEEDS, magnitude=st.sampled_from([0.0, 1e-3, 1.0, 1e3, 1e10, 1e30]))
@light
def test_contracted_all_of_space_lies_in_the_cube(seed: int, magnitude: float):
    found = places(ALL, magnitude * (2 * drawn(seed, 9, 3) - 1))
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert ((found - 0.5).norm(dim=-1) <= 0.5 + 1e-12).all()


@given(seed=SEEDS)
@light
def test_within_the_inscribed_ball_contraction_is_a_scaling_about_the_middle(seed: int):
    middle = torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    offset = 2 * drawn(seed, 9, 3) - 1
    offset = 2 * offset / offset.norm(dim=-1, keepdim=True) * drawn(seed + 1, 9, 1)
    torch.testing.assert_close(places(ALL, middle + offset), 0.5 + offset / 8, rtol=0, atol=1e-14)


@given(seed=SEEDS)
@light
def test_beyond_the_ball_no_two_places_meet(seed: int):
    points = 40 * drawn(seed, 9, 3) - 20
    again = uncontract(4 * (places(ALL, points) - 0.5)) * 2 + torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(again, points, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("space", [BOX, ALL])
def test_the_space_travels_in_the_state_dict(space: Space):
    made = settled(space)
    assert set(made.state_dict()) == {"low", "size", "encoding.table"}
    other = HashedSpace(GRID, Space((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), space.contracted)).double()
    points = 6 * drawn(0, 9, 3) - 2
    assert not torch.equal(other(points), made(points))
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(points), made(points))
    assert {name for name, _ in made.named_parameters()} == {"encoding.table"}


# densities

MAGNITUDES = [0.0, 1e-30, 1e-3, 0.5, 1.0, 10.0, 16.0, 80.0, 1e3, 1e10, 1e30]


@pytest.mark.parametrize("kind", hash_space.DENSITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_densities_and_their_gradients_are_finite_at_every_magnitude(kind: str, dtype: torch.dtype):
    raw = torch.tensor([s * m for m in MAGNITUDES for s in (1, -1)], dtype=dtype, requires_grad=True)
    density = hash_space.to_density(raw, kind)
    (slope,) = torch.autograd.grad(density.sum(), raw)
    for values in (density, slope):
        assert values.dtype == dtype
        assert values.isfinite().all()
        assert (values >= 0).all()
    ordered = density.detach()[raw.detach().argsort()]
    assert (ordered.diff() >= 0).all()


def test_densities_are_the_named_functions():
    raw = torch.linspace(-5, 14, 39, dtype=torch.float64)
    torch.testing.assert_close(hash_space.to_density(raw, "relu"), raw.clamp(min=0), rtol=0, atol=0)
    torch.testing.assert_close(hash_space.to_density(raw, "softplus"), (1 + (raw - 1).exp()).log())
    torch.testing.assert_close(hash_space.to_density(raw, "exp"), (raw - 1).exp())


def test_above_its_range_the_exponential_is_linear():
    # Fails: clamp makes it constant there, so a density that has got so high has no gradient and stays for ever;
    # the docstring says linear.
    raw = torch.tensor([17.0, 20.0, 1e3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(hash_space.to_density(raw, "exp").sum(), raw)
    assert (slope > 0).all()


# proposals


def proposal(density: str = "softplus") -> ProposalField:
    made = ProposalField(GRID, BOX, 8, density).double()
    with torch.no_grad():
        made.hashed.encoding.table.copy_(2 * drawn(7, *made.hashed.encoding.table.shape) - 1)
        made.density_head.bias += 0.5
    return made


def inputs() -> tuple[Tensor, Tensor]:
    low, high = box(BOX)
    viewdirs = drawn(1, 4, 3) - 0.5
    return low + (high - low) * drawn(0, 4, 5, 3), viewdirs / viewdirs.norm(dim=-1, keepdim=True)


def test_a_proposal_is_its_grid_under_one_hidden_layer():
    field, (points, viewdirs) = proposal(), inputs()
    hidden = torch.relu(field.trunk[0](field.hashed(points.reshape(-1, 3))))
    raw = field.density_head(hidden).reshape(4, 5)
    torch.testing.assert_close(
        field(points, viewdirs).density, hash_space.to_density(raw, "softplus"), rtol=0, atol=1e-14
    )


def test_proposals_are_black_and_blind_to_directions_and_noise():
    field, (points, viewdirs) = proposal(), inputs()
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    outputs, other = field(points, viewdirs), field(points, -viewdirs, noise_std=2.0, generator=generator)
    assert torch.equal(outputs.density, other.density)
    assert not outputs.rgb.any()
    assert outputs.rgb.shape == points.shape
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", hash_space.DENSITIES)
def test_gradients_reach_table_and_layers(kind: str):
    field, (points, viewdirs) = proposal(kind), inputs()
    field(points, viewdirs).density.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in field.parameters())


@pytest.mark.parametrize("kind", hash_space.DENSITIES)
def test_a_nerf_takes_its_density_and_its_hashed_points(kind: str):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        field = NeRF(2, 8, 10, 1, True, hashed=settled(), density=kind).double()
    points, viewdirs = inputs()
    assert field.trunk[0].in_features == GRID.width
    outputs = field(points, viewdirs)
    hidden = field.trunk(field.hashed(points.reshape(-1, 3)))
    raw = field.density_head(hidden).reshape(4, 5)
    torch.testing.assert_close(outputs.density, hash_space.to_density(raw, kind), rtol=0, atol=1e-13)
    noisy = field(points, viewdirs, noise_std=2, generator=torch.Generator().manual_seed(5))
    noise = torch.randn(4, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(noisy.density, hash_space.to_density(raw + 2 * noise, kind), rtol=0, atol=1e-13)
    assert torch.equal(noisy.rgb, outputs.rgb)


# build

HASH = ModelOptions(
    netdepth=2, netwidth=8, netdepth_fine=2, netwidth_fine=8, encoding="hash", hash_levels=2, hash_features=2,
    hash_log2_entries=8, hash_coarsest=4, hash_finest=8, use_viewdirs=True, density="exp",
)  # fmt: skip


def made(seed: int = 0, space: Space = BOX, proposal: bool = True, model: ModelOptions = HASH) -> RadianceFields:
    return nerf_build.radiance_fields(model, ConditioningOptions(), True, seed, proposal=proposal, space=space)


def test_built_fields_cover_the_space_that_is_given():
    fields = made()
    low, high = box(BOX)
    for field in (fields.coarse, fields.fine):
        assert torch.equal(field.hashed.low.double(), low)
        assert torch.equal((field.hashed.low + field.hashed.size).double(), high)
        assert not field.hashed.contracted
        assert field.density == "exp"
    assert made(space=ALL).fine.hashed.contracted
    assert isinstance(fields.coarse, ProposalField)
    assert isinstance(made(proposal=False).coarse, NeRF)


def test_a_proposal_has_a_grid_of_its_own_even_under_a_field_without_one():
    fields = made(model=ModelOptions(netdepth_fine=2, netwidth_fine=8))
    assert fields.coarse.hashed.encoding.grid == nerf_build.PROPOSAL_GRID
    assert fields.fine.hashed is None


def test_seeds_fix_grids_and_nothing_else_changes():
    before = torch.get_rng_state()
    one, same, other = made(0).state_dict(), made(0).state_dict(), made(1).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    tables = [name for name in one if name.endswith("table")]
    assert len(tables) == 2
    assert not any(torch.equal(one[name], other[name]) for name in tables)


def test_a_batch_of_any_shape_is_accepted():
    fields = made()
    for shape in [(), (2,), (2, 3)]:
        points, viewdirs = torch.zeros(*shape, 5, 3), torch.ones(*shape, 3) / 3**0.5
        for field in (fields.coarse, fields.fine):
            outputs: FieldOutput = field(points, viewdirs)
            assert outputs.density.shape == points.shape[:-1]
            assert outputs.rgb.shape == points.shape
