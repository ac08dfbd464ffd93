"""Tests of the training losses."""

import pytest
import torch
from jaxtyping import TypeCheckError

from enerf.core.types import Proposal, Rendering
from enerf.rendering import proposal
from enerf.tasks.nerf import losses as nerf_losses


def colors(seed: int, n: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rendering(rgb: torch.Tensor) -> Rendering:
    n = len(rgb)
    return Rendering(rgb, torch.zeros(n), torch.zeros(n), torch.zeros(n, 2), torch.zeros(n, 2))


def test_the_mean_squared_error_is_a_mean_over_rays_and_channels():
    a, b = colors(0), colors(1)
    slow = sum((float(a[i, c]) - float(b[i, c])) ** 2 for i in range(7) for c in range(3)) / 21
    assert float(nerf_losses.mse(a, b)) == pytest.approx(slow, rel=1e-14)


def test_both_networks_are_charged_each_once():
    first, final, target = rendering(colors(0)), rendering(colors(1)), colors(2)
    loss = nerf_losses.photometric(first, final, target)
    assert torch.equal(loss, nerf_losses.mse(final.rgb, target) + nerf_losses.mse(first.rgb, target))
    assert torch.equal(nerf_losses.photometric(first, first, target), nerf_losses.mse(first.rgb, target))


# proposals


def proposed(requires_grad: bool = False) -> tuple[Proposal, Rendering, torch.Tensor]:
    """Outputs of a proposal and a field for 7 rays, with 5 and 4 intervals."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(7, 18, dtype=torch.float64, generator=generator) + 0.05
    edges = [
        torch.nn.functional.pad(x.cumsum(-1) / x.sum(-1, keepdim=True), (1, 0)) for x in (drawn[:, :5], drawn[:, 5:9])
    ]
    weights = [x / (1.2 * x.sum(-1, keepdim=True)) for x in (drawn[:, 9:14], drawn[:, 14:])]
    rgb = colors(1)
    if requires_grad:
        for leaf in (*weights, rgb):
            leaf.requires_grad_()
    zeros = torch.zeros(7, dtype=torch.float64)
    first = Proposal(edges[0], weights[0], edges[1])
    return first, Rendering(rgb, zeros, zeros, weights[1], zeros[:, None].expand(7, 4)), colors(2)


@pytest.mark.parametrize("interlevel", [0.0, 1.0, 0.3])
@pytest.mark.parametrize("distortion", [0.0, 0.01, 2.0])
def test_a_proposals_loss_is_the_sum_of_its_three_parts(interlevel: float, distortion: float):
    first, final, target = proposed()
    parts = (
        nerf_losses.mse(final.rgb, target),
        proposal.interlevel_loss(first.sample_edges, final.weights, first.edges, first.weights),
        proposal.distortion_loss(first.sample_edges, final.weights),
    )
    assert all(part > 0 for part in parts)
    found = nerf_losses.photometric_with_proposal(first, final, target, interlevel, distortion)
    expected = float(parts[0]) + interlevel * float(parts[1]) + distortion * float(parts[2])
    assert float(found) == pytest.approx(expected, rel=1e-14)


def test_each_part_teaches_what_it_is_for():
    first, final, target = proposed(requires_grad=True)
    leaves = (first.weights, final.weights, final.rgb)

    def taught(interlevel: float, distortion: float) -> list[bool]:
        loss = nerf_losses.photometric_with_proposal(first, final, target, interlevel, distortion)
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        return [bool(g.any()) for g in grads]

    assert taught(0.0, 0.0) == [False, False, True]
    assert taught(1.0, 0.0) == [True, False, True]  # the field does not come to meet its proposal
    assert taught(0.0, 1.0) == [False, True, True]


def test_the_proposals_loss_is_a_mean_over_rays():
    first, final, target = proposed()
    whole = nerf_losses.photometric_with_proposal(first, final, target, 0.7, 0.2)
    single = []
    for i in range(7):
        part = slice(i, i + 1)
        alone = Proposal(first.edges[part], first.weights[part], first.sample_edges[part])
        seen = Rendering(*(x[part] for x in vars(final).values()))
        single.append(float(nerf_losses.photometric_with_proposal(alone, seen, target[part], 0.7, 0.2)))
    assert float(whole) == pytest.approx(sum(single) / 7, rel=1e-13)


def test_a_proposal_that_is_the_fields_own_histogram_costs_nothing():
    _, final, target = proposed()
    first = proposed()[0]
    same = Proposal(first.sample_edges, final.weights, first.sample_edges)
    assert float(nerf_losses.photometric_with_proposal(same, final, target)) == pytest.approx(
        float(nerf_losses.mse(final.rgb, target)), rel=1e-14
    )


def test_shapes_are_executed():
    with pytest.raises(TypeCheckError):
        nerf_losses.mse(colors(0), colors(0, 6))
