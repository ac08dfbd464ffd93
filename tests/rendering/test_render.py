"""Rendering of fields with known results, for any chunk size."""

import dataclasses
import logging
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from enerf.core.types import Proposal, Rays, Rendering
from enerf.rendering import proposal, render, sampling, volume
from enerf.rendering.render import SamplingConfig
from tests import analytic


def _rays(n: int = 5, near: float = 0.0, far: float = 4.0, dtype: torch.dtype = torch.float64) -> Rays:
    """Rays from about the origin, down −z and a little aside, not unit."""
    generator = torch.Generator().manual_seed(0)
    origins = 0.1 * torch.randn(n, 3, generator=generator, dtype=dtype)
    directions = torch.tensor([0.0, 0.0, -2.0], dtype=dtype) + 0.2 * torch.randn(n, 3, generator=generator, dtype=dtype)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    return Rays(
        origins, directions, viewdirs, torch.full_like(viewdirs[:, 0], near), torch.full_like(viewdirs[:, 0], far)
    )


def _render(field: Any) -> Callable[[Rays], Rendering]:
    return lambda batch: render.render_rays(field, field, batch, SamplingConfig(16, 8))[1]


# render_rays


@pytest.mark.parametrize("seed", [None, 0])
def test_fog_has_its_exact_opacity_and_color(seed: int | None):
    rays, fog = _rays(), analytic.Fog(0.3)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for seen in render.render_rays(fog, fog, rays, SamplingConfig(12, 7), generator):
        # up to the last sample; that one reaches infinitely far
        depth = fog.density * (seen.t_vals[:, -1] - seen.t_vals[:, 0]) * rays.directions.norm(dim=-1)
        before_last = seen.weights[:, :-1].sum(-1)
        torch.testing.assert_close(before_last, analytic.opacity(depth), rtol=0, atol=1e-12)
        torch.testing.assert_close(seen.opacity, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
        color = torch.tensor(fog.color, dtype=torch.float64).expand(5, 3)
        torch.testing.assert_close(seen.rgb, color, rtol=0, atol=1e-12)
    if seed is None:
        exact = analytic.opacity(fog.optical_depth(rays.origins, rays.directions, 0.0, 4.0))
        torch.testing.assert_close(before_last, exact, rtol=0, atol=1e-12)


def test_a_wall_is_seen_where_it_is_and_closer_with_fine_samples():
    rays, wall = _rays(), analytic.Wall(-3.0)
    first, final = render.render_rays(wall, wall, rays, SamplingConfig(32, 64))
    true = wall.depth(rays.origins, rays.directions)
    coarse_error, fine_error = first.depth - true, final.depth - true
    spacing = 4.0 / 31
    assert (coarse_error >= 0).all()
    assert (coarse_error < spacing).all()
    # 62 of the 64 lie in the bin of the first opaque sample, which begins half a spacing before that
    within = coarse_error < spacing / 2
    assert (fine_error >= 0).all()
    assert (fine_error[within] < spacing / 60).all()
    assert (fine_error[~within] < coarse_error[~within] - spacing / 2 + spacing / 60).all()
    assert 0 < within.sum() < 5
    torch.testing.assert_close(final.opacity, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("white_bkgd", [False, True])
def test_a_soft_ball_has_the_opacity_of_its_integral(white_bkgd: bool):
    rays, ball = _rays(near=-14.0, far=16.0), analytic.SoftBall(peak=1.0)  # it fades away before both ends
    seen, _ = render.render_rays(ball, None, rays, SamplingConfig(1001, white_bkgd=white_bkgd))
    exact = analytic.opacity(ball.optical_depth(rays.origins, rays.directions, -14.0, 16.0))
    torch.testing.assert_close(seen.opacity, exact, rtol=0, atol=1e-12)
    color = exact[:, None] * torch.tensor(ball.color, dtype=torch.float64)
    torch.testing.assert_close(seen.rgb, color + white_bkgd * (1 - exact[:, None]), rtol=0, atol=1e-12)
    assert 0.05 < exact.min() < exact.max() < 0.95


def test_without_a_fine_field_the_first_rendering_is_the_final_one():
    fog = analytic.Fog()
    first, final = render.render_rays(fog, None, _rays(), SamplingConfig(8, 8))
    assert first is final
    first, final = render.render_rays(fog, fog, _rays(), SamplingConfig(8))
    assert first is final


def test_the_fine_field_is_asked_at_coarse_and_fine_samples_with_the_viewdirs():
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []
    rays, ball, wall = _rays(), analytic.SoftBall(), analytic.Wall()

    def fine(points: torch.Tensor, viewdirs: torch.Tensor) -> Any:
        calls.append((points, viewdirs))
        return wall(points, viewdirs)

    first, final = render.render_rays(ball, fine, rays, SamplingConfig(8, 5))
    more = sampling.importance(first.t_vals, first.weights, 5)
    assert torch.equal(final.t_vals, sampling.union(first.t_vals, more))
    assert len(calls) == 1
    assert torch.equal(calls[0][0], rays.at(final.t_vals))
    assert torch.equal(calls[0][1], rays.viewdirs)


def test_a_generator_jitters_both_passes_and_repeats():
    rays, ball = _rays(), analytic.SoftBall()

    def seen(seed: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        first, final = render.render_rays(ball, ball, rays, SamplingConfig(8, 5), generator)
        return first.t_vals, final.t_vals

    for i in range(2):
        assert torch.equal(seen(1)[i], seen(1)[i])
        assert torch.equal(seen(None)[i], seen(None)[i])
        assert not torch.equal(seen(1)[i], seen(2)[i])
        assert not torch.equal(seen(1)[i], seen(None)[i])


@pytest.mark.parametrize(("n_samples", "n_importance"), [(8, 0), (8, 5), (2, 64)])
def test_points_counts_how_often_a_ray_asks_a_field(n_samples: int, n_importance: int):
    count = 0
    fog = analytic.Fog()

    def counting(points: torch.Tensor, viewdirs: torch.Tensor) -> Any:
        nonlocal count
        count += points.shape[:-1].numel()
        return fog(points, viewdirs)

    config = SamplingConfig(n_samples, n_importance)
    render.render_rays(counting, counting, _rays(3), config)
    assert count == 3 * config.points_per_ray


# proposals


def _proposed(
    coarse: Any, fine: Any, rays: Rays, config: SamplingConfig, seed: int | None = None
) -> tuple[Proposal, Rendering]:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    first, final = render.render_rays(coarse, fine, rays, config, generator)
    assert isinstance(first, Proposal)
    assert isinstance(final, Rendering)
    return first, final


class Noting:
    """A field that records the points it is evaluated at."""

    def __init__(self, field: Any) -> None:
        self.field, self.calls = field, []

    def __call__(self, points: torch.Tensor, viewdirs: torch.Tensor) -> Any:
        self.calls.append((points, viewdirs))
        return self.field(points, viewdirs)


@pytest.mark.parametrize("seed", [None, 0])
def test_a_proposal_asks_each_field_in_the_middles_of_its_intervals_and_no_more(seed: int | None):
    rays, coarse, fine = _rays(), Noting(analytic.SoftBall()), Noting(analytic.Wall())
    config = SamplingConfig(9, 6, proposal=True)
    first, final = _proposed(coarse, fine, rays, config, seed)
    for field, edges, n in ((coarse, first.edges, 9), (fine, first.sample_edges, 6)):
        ((points, viewdirs),) = field.calls
        assert edges.shape == (5, n + 1)
        assert torch.equal(points, rays.at(sampling.midpoints(edges)))
        assert torch.equal(viewdirs, rays.viewdirs)
        assert (edges.diff(dim=-1) > 0).all()
        if seed is None:
            assert torch.equal(edges[:, 0], rays.near)
            assert torch.equal(edges[:, -1], rays.far)
    assert torch.equal(final.t_vals, sampling.midpoints(first.sample_edges))
    assert sum(p.shape[:-1].numel() for p, _ in (*coarse.calls, *fine.calls)) == 5 * config.points_per_ray


def test_taken_intervals_share_the_proposals_weight_evenly():
    rays, ball = _rays(), analytic.SoftBall()
    first, _ = _proposed(ball, ball, rays, SamplingConfig(64, 8, proposal=True))
    expected = proposal.resample(first.edges, first.weights, 8)
    assert torch.equal(first.sample_edges, expected)
    weights = volume.weights(
        ball(rays.at(sampling.midpoints(first.edges)), rays.viewdirs).density,
        volume.widths(first.edges, rays.directions),
    )
    assert torch.equal(first.weights, weights)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("n_importance", [1, 7])
def test_fog_under_a_proposal_has_its_exact_opacity_and_color(seed: int | None, n_importance: int):
    rays, fog = _rays(), analytic.Fog(0.3)
    first, final = _proposed(fog, fog, rays, SamplingConfig(12, n_importance, proposal=True), seed)
    for edges, weights in ((first.edges, first.weights), (first.sample_edges, final.weights)):
        depth = fog.density * (edges[:, -2] - edges[:, 0]) * rays.directions.norm(dim=-1)
        torch.testing.assert_close(weights[:, :-1].sum(-1), analytic.opacity(depth), rtol=0, atol=1e-12)
    torch.testing.assert_close(final.opacity, torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-12)
    color = torch.tensor(fog.color, dtype=torch.float64).expand(5, 3)
    torch.testing.assert_close(final.rgb, color, rtol=0, atol=1e-12)


def test_a_wall_is_found_within_the_intervals_that_its_proposal_made_there():
    rays, wall = _rays(), analytic.Wall(-3.0)
    first, final = _proposed(wall, wall, rays, SamplingConfig(32, 32, proposal=True))
    error = (final.depth - wall.depth(rays.origins, rays.directions)).abs()
    assert (error < 4.0 / 32).all()  # no farther than an interval of the proposal
    around = first.sample_edges.diff(dim=-1).amin(-1)
    assert (around < 4.0 / 32 / 25).all()
    torch.testing.assert_close(final.opacity, torch.ones(5, dtype=torch.float64))


def test_the_rendering_tells_the_proposal_nothing_and_positions_carry_no_gradient():
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    ball = analytic.SoftBall()

    def learned(points: torch.Tensor, viewdirs: torch.Tensor) -> Any:
        seen = ball(points, viewdirs)
        return dataclasses.replace(seen, density=seen.density * scale)

    first, final = _proposed(learned, ball, _rays(), SamplingConfig(9, 6, proposal=True))
    assert first.weights.requires_grad
    assert not first.edges.requires_grad
    assert not first.sample_edges.requires_grad
    assert not final.rgb.requires_grad


def test_white_lies_behind_what_is_rendered_from_a_proposal():
    rays, ball = _rays(near=-14.0, far=16.0), analytic.SoftBall(peak=1.0)
    black, white = (
        _proposed(ball, ball, rays, SamplingConfig(64, 32, white_bkgd=w, proposal=True))[1] for w in (False, True)
    )
    torch.testing.assert_close(white.rgb, black.rgb + (1 - black.opacity[:, None]), rtol=0, atol=1e-12)
    assert (black.opacity < 0.99).any()


def test_proposals_are_even_in_disparity_on_request():
    rays = _rays(near=0.5, far=8.0)
    first, _ = _proposed(analytic.Fog(), analytic.Fog(), rays, SamplingConfig(9, 6, lindisp=True, proposal=True))
    steps = (1 / first.edges).diff(dim=-1)
    torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))


def test_a_generator_jitters_proposals_and_repeats():
    def taken(seed: int | None) -> torch.Tensor:
        return _proposed(analytic.SoftBall(), analytic.SoftBall(), _rays(), SamplingConfig(9, 6, proposal=True), seed)[
            0
        ].sample_edges

    assert torch.equal(taken(1), taken(1))
    assert not torch.equal(taken(1), taken(2))
    assert not torch.equal(taken(1), taken(None))


def test_without_a_fine_field_there_is_nothing_to_propose_to():
    first, final = render.render_rays(analytic.Fog(), None, _rays(), SamplingConfig(8, 4, proposal=True))
    assert isinstance(first, Rendering)
    assert first is final


# in_chunks


@pytest.mark.parametrize("chunk", [1, 3, 10, 11, 1000])
def test_the_chunk_size_does_not_change_a_bit(chunk: int):
    rays, ball = _rays(11), analytic.SoftBall()
    whole = _render(ball)(rays)
    picture = render.in_chunks(_render(ball), rays, chunk)
    for name, values in vars(picture).items():
        assert torch.equal(values, getattr(whole, name)), name


def test_chunks_are_as_large_as_asked_and_leave_no_ray_out():
    sizes: list[int] = []

    def noting(batch: Rays) -> Rendering:
        sizes.append(len(batch))
        return _render(analytic.Fog())(batch)

    render.in_chunks(noting, _rays(11), 4)
    assert sizes == [4, 4, 3]


def test_pictures_carry_no_gradients():
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    fog = analytic.Fog()

    def learned(points: torch.Tensor, viewdirs: torch.Tensor) -> Any:
        return fog(points * scale, viewdirs)

    assert not render.in_chunks(_render(learned), _rays(), 2).rgb.requires_grad
    assert torch.is_grad_enabled()


def test_the_weights_of_earlier_chunks_are_let_go():
    references: list[weakref.ref[torch.Tensor]] = []

    def watched(batch: Rays) -> Rendering:
        assert all(ref() is None for ref in references[:-1])  # the last one goes when the next has come
        seen = _render(analytic.Fog())(batch)
        references.append(weakref.ref(seen.weights))
        return seen

    render.in_chunks(watched, _rays(5), 1)
    assert len(references) == 5


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: 8 bytes"),
    MemoryError(),
]


def _up_to(most: int, error: BaseException, sizes: list[int]) -> Callable[[Rays], Rendering]:
    """A renderer whose memory holds so many rays."""

    def limited(batch: Rays) -> Rendering:
        sizes.append(len(batch))
        if len(batch) > most:
            raise error
        return _render(analytic.SoftBall())(batch)

    return limited


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_without_memory_the_chunk_is_halved_with_one_line_and_nothing_is_lost(
    error: BaseException, caplog: pytest.LogCaptureFixture
):
    rays, sizes = _rays(11), []
    with caplog.at_level(logging.WARNING, logger="enerf"):
        picture = render.in_chunks(_up_to(4, error, sizes), rays, 8)
    assert sizes == [8, 4, 4, 3]
    assert [r.getMessage() for r in caplog.records] == ["out of memory with 8 rays at once: continuing with 4"]
    assert torch.equal(picture.rgb, _render(analytic.SoftBall())(rays).rgb)


def test_halving_starts_from_the_rays_there_are(caplog: pytest.LogCaptureFixture):
    sizes: list[int] = []
    with caplog.at_level(logging.WARNING, logger="enerf"):
        render.in_chunks(_up_to(3, MemoryError(), sizes), _rays(11), 1 << 15)
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_one_ray_too_many_raises(error: BaseException):
    sizes: list[int] = []
    with pytest.raises(type(error)) as caught:
        render.in_chunks(_up_to(0, error, sizes), _rays(4), 4)
    assert caught.value is error
    assert sizes == [4, 2, 1]


def test_other_errors_pass_through_at_once():
    sizes: list[int] = []
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        render.in_chunks(_up_to(0, error, sizes), _rays(4), 4)
    assert sizes == [4]


def test_what_a_failed_try_held_is_free_before_the_gpus_cache_is_emptied(monkeypatch: pytest.MonkeyPatch):
    class Activations:
        """Something large."""

    references: list[weakref.ref[Activations]] = []
    free: list[bool] = []

    def forgetful(batch: Rays) -> Rendering:
        if len(batch) > 2:
            activations = Activations()
            references.append(weakref.ref(activations))
            raise torch.OutOfMemoryError
        return _render(analytic.Fog())(batch)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: free.append(references[-1]() is None))
    render.in_chunks(forgetful, _rays(4), 4)
    assert free == [True]
