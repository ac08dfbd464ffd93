"""How samples are spaced is decided by the scene: its range of depths, and whether distant space is contracted."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.core.types import Space
from enerf.datasets.scenes import bounds
from enerf.fields.contraction import ContractedSpace, contract
from tests.datasets.scenes.test_bounds import ahead, inwards, scene


@pytest.mark.parametrize(
    ("near", "far", "expected"),
    [(2.0, 6.0, "linear"), (0.1, 30.0, "piecewise"), (0.1, 1e30, "piecewise"), (0.5, 4.5, "linear")],
)
def test_cameras_around_an_object(near, far, expected):
    assert bounds.spacing_of(scene(inwards(0), near, far)) == expected


@pytest.mark.parametrize(("near", "far", "expected"), [(1.2, 10.0, "linear"), (1.2, 100.0, "piecewise")])
def test_cameras_that_look_ahead(near, far, expected):
    assert bounds.spacing_of(scene(ahead(0), near, far, forward_facing=True)) == expected
    assert bounds.spacing_of(scene(ahead(0), near, far, ndc=True, forward_facing=True)) == "linear"


@given(seed=st.integers(0, 1000), spread=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_the_knee_is_beyond_the_object_and_not_far(seed, spread):
    """Points of the uncontracted ball are before the knee, up to the spread of the cameras."""
    made = scene(inwards(seed, spread=spread), 0.1, 1000.0)
    space = bounds.space_of(made)
    exits = made.c2w[:, :, 3].norm(dim=-1) + space.high[0]
    assert abs(bounds.knee_of(made) - float(exits.mean())) < 1e-4
    assert 6 < bounds.knee_of(made) < 10


def test_rays_end_at_a_million_times_near_at_most():
    far = scene(inwards(0), 0.1, 1e30)
    assert bounds.limited(far).far == pytest.approx(1e5)
    for kept in (scene(inwards(0), 2.0, 6.0), scene(ahead(0), 1.0, 1e30, ndc=True)):
        assert bounds.limited(kept) is kept


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_points_of_positional_encodings_are_contracted_about_the_ball(seed):
    space = Space((-1.0, 0.0, 1.0), (3.0, 4.0, 5.0), contracted=True)
    points = 10 * torch.randn(20, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = ContractedSpace(space).double()(points + torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found, contract(points / 2))
    assert not ContractedSpace(space).state_dict()
