"""Laws of the residuals."""

import pytest
import torch
from jaxtyping import TypeCheckError

from enerf.training import losses
from enerf.types import Rendering


def colours(seed: int, n: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rendering(rgb: torch.Tensor) -> Rendering:
    n = len(rgb)
    return Rendering(rgb, torch.zeros(n), torch.zeros(n), torch.zeros(n, 2), torch.zeros(n, 2))


def test_the_mean_squared_error_is_a_mean_over_rays_and_channels():
    a, b = colours(0), colours(1)
    slow = sum((float(a[i, c]) - float(b[i, c])) ** 2 for i in range(7) for c in range(3)) / 21
    assert float(losses.mse(a, b)) == pytest.approx(slow, rel=1e-14)


def test_both_networks_are_charged_each_once():
    first, final, target = rendering(colours(0)), rendering(colours(1)), colours(2)
    loss = losses.photometric(first, final, target)
    assert torch.equal(loss, losses.mse(final.rgb, target) + losses.mse(first.rgb, target))
    assert torch.equal(losses.photometric(first, first, target), losses.mse(first.rgb, target))


def test_shapes_are_executed():
    with pytest.raises(TypeCheckError):
        losses.mse(colours(0), colours(0, 6))
