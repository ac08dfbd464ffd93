"""Empty-space skipping renders what the reference implementation does."""

import pytest
import torch

from enerf.core.types import FieldOutput, Rays
from enerf.rendering import empty_space, render
from enerf.rendering.render import SamplingConfig
from tests import analytic


def _rays(n: int = 40) -> Rays:
    generator = torch.Generator().manual_seed(0)
    origins = 0.3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    directions = torch.tensor([0.0, 0.0, -2.0], dtype=torch.float64) + 0.3 * torch.randn(
        n, 3, generator=generator, dtype=torch.float64
    )
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    near = torch.zeros(n, dtype=torch.float64)
    return Rays(origins, directions, viewdirs, near, near + 4)


class _Counting:
    """A field that counts the points it is evaluated at."""

    def __init__(self, field) -> None:
        self.field, self.points = field, 0

    def __call__(self, points: torch.Tensor, viewdirs: torch.Tensor) -> FieldOutput:
        self.points += points[..., 0].numel()
        return self.field(points, viewdirs)


@pytest.mark.parametrize("field", [analytic.Wall(-3.0), analytic.SoftBall(peak=1.0), analytic.Fog(0.3)], ids=type)
def test_nothing_that_is_seen_is_left_out(field):
    rays, config = _rays(), SamplingConfig(32, 32)
    exact = render.render_rays(field, field, rays, config)[1]
    found = empty_space.render_rays(field, field, rays, config, 1e-6)
    torch.testing.assert_close(found.rgb, exact.rgb, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.opacity, exact.opacity, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.t_vals, exact.t_vals, rtol=0, atol=1e-3)


def test_nothing_is_evaluated_in_front_of_a_wall_nor_behind_it():
    coarse, fine = _Counting(analytic.Wall(-3.0)), _Counting(analytic.Wall(-3.0))
    rays, config = _rays(), SamplingConfig(64, 64)
    empty_space.render_rays(coarse, fine, rays, config, 1e-3)
    assert coarse.points < 0.8 * 64 * len(rays)  # the wall is at less than half of each ray
    assert fine.points < 0.8 * 128 * len(rays)


def test_what_the_coarse_field_did_not_look_at_is_not_taken_for_empty():
    # The coarse field is opaque at once, so it stops; the fine one is empty up to the wall far behind.
    opaque, wall = analytic.Fog(1e6), analytic.Wall(-5.0)
    rays, config = _rays(), SamplingConfig(32, 32)
    exact = render.render_rays(opaque, wall, rays, config)[1]
    found = empty_space.render_rays(opaque, wall, rays, config, 1e-3)
    torch.testing.assert_close(found.rgb, exact.rgb, rtol=0, atol=1e-6)


def test_near_any_marks_both_sides_of_a_mark_and_nothing_far():
    t_vals = torch.linspace(0, 1, 21, dtype=torch.float64).expand(2, 21).contiguous()
    marked = torch.zeros(2, 21, dtype=torch.bool)
    marked[0, 10] = True
    positions = torch.tensor([[0.0, 0.39, 0.41, 0.5, 0.59, 0.66]] * 2, dtype=torch.float64)
    assert empty_space.near_marked(t_vals, marked, positions).tolist() == [
        [False, True, True, True, True, False],
        [False] * 6,
    ]
