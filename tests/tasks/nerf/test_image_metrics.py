"""Tests of image metrics, against closed forms and a slow reference implementation."""

import math
import sys
import types

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from enerf.tasks.nerf import image_metrics as nerf_image_metrics


def picture(seed: int, height: int = 14, width: int = 17) -> torch.Tensor:
    return torch.rand(height, width, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _fresh_network():
    nerf_image_metrics._lpips_network.cache_clear()
    yield
    nerf_image_metrics._lpips_network.cache_clear()


# PSNR


@pytest.mark.parametrize("error", [1.0, 0.5, 0.1, 1e-3, 1e-6])
def test_psnr_of_a_constant_error_is_its_closed_form(error):
    a, b = torch.zeros(5, 4, 3, dtype=torch.float64), torch.full((5, 4, 3), error, dtype=torch.float64)
    assert nerf_image_metrics.psnr(a, b) == pytest.approx(-20 * math.log10(error), rel=1e-12, abs=1e-12)
    assert nerf_image_metrics.psnr(a, b) == nerf_image_metrics.psnr(b, a)


def test_psnr_is_of_the_mean_error_over_pixels_and_channels():
    a, b = picture(0), picture(1)
    slow = np.mean((a.numpy() - b.numpy()) ** 2)
    assert nerf_image_metrics.psnr(a, b) == pytest.approx(-10 * math.log10(slow), rel=1e-13)


def test_psnr_clips_the_rendering_first():
    target = torch.tensor([[0.0, 1.0, 0.5]])
    assert nerf_image_metrics.psnr(torch.tensor([[-3.0, 7.0, 0.5]]), target) == math.inf


def test_psnr_of_equal_pictures_is_infinite_and_of_nan_is_nan():
    assert nerf_image_metrics.psnr(picture(0), picture(0)) == math.inf
    broken = picture(0)
    broken[3, 2, 1] = math.nan
    assert math.isnan(nerf_image_metrics.psnr(broken, picture(0)))


# SSIM


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, equation 13, in every 11×11 window that lies within the picture."""
    axis = np.arange(-5, 6)
    kernel = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    kernel /= kernel.sum()
    values = []
    for c in range(3):
        for y in range(a.shape[0] - 10):
            for x in range(a.shape[1] - 10):
                u, v = a[y : y + 11, x : x + 11, c], b[y : y + 11, x : x + 11, c]
                mu, mv = (kernel * u).sum(), (kernel * v).sum()
                uu, vv = (kernel * (u - mu) ** 2).sum(), (kernel * (v - mv) ** 2).sum()
                uv = (kernel * (u - mu) * (v - mv)).sum()
                top = (2 * mu * mv + 0.01**2) * (2 * uv + 0.03**2)
                values.append(top / ((mu**2 + mv**2 + 0.01**2) * (uu + vv + 0.03**2)))
    return float(np.mean(values))


@pytest.mark.parametrize("noise", [0.02, 0.3, 1.0])
def test_ssim_is_the_slow_references(noise):
    a = picture(0)
    b = (1 - noise) * a + noise * picture(1)
    assert nerf_image_metrics.ssim(a, b) == pytest.approx(slow_ssim(a.numpy(), b.numpy()), abs=1e-9)
    assert nerf_image_metrics.ssim(a.float(), b.float()) == pytest.approx(slow_ssim(a.numpy(), b.numpy()), abs=1e-5)


def test_ssim_of_equal_pictures_is_one_and_less_otherwise():
    a = picture(0)
    assert nerf_image_metrics.ssim(a, a) == pytest.approx(1.0, abs=1e-12)
    assert nerf_image_metrics.ssim(a, picture(1)) < 0.5


def test_ssim_clips_the_rendering_first():
    a = picture(0).round()
    assert nerf_image_metrics.ssim(3 * a - 1, a) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("height", "width", "there"), [(10, 20, False), (20, 10, False), (11, 11, True)])
def test_pictures_smaller_than_the_window_have_no_ssim(height, width, there):
    value = nerf_image_metrics.ssim(picture(0, height, width), picture(1, height, width))
    assert (value is not None) == there


# LPIPS


def test_lpips_is_none_without_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    assert nerf_image_metrics.lpips(picture(0, 40, 40), picture(1, 40, 40)) is None


def test_lpips_is_none_without_its_weights_and_says_so_once(monkeypatch, caplog):
    def absent(net: str, verbose: bool) -> None:
        raise OSError("no route to host")

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=absent))
    for _ in range(2):
        assert nerf_image_metrics.lpips(picture(0, 40, 40), picture(1, 40, 40)) is None
    assert caplog.messages == ["LPIPS is not computed: its network could not be created (no route to host)"]


def test_lpips_gives_its_network_pictures_in_minus_one_to_one(monkeypatch):
    class Network(torch.nn.Module):
        def __init__(self, net: str, verbose: bool) -> None:
            super().__init__()
            assert (net, verbose) == ("alex", False)

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            assert a.shape == b.shape == (1, 3, 40, 31)
            return (a - b).abs().amax()[None, None]

    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=Network))
    black, bright = torch.zeros(40, 31, 3), torch.full((40, 31, 3), 9.0)
    assert nerf_image_metrics.lpips(black, bright) == 2.0
    assert nerf_image_metrics.lpips(black[:, :30], bright[:, :30]) is None


# means and shapes


def test_the_mean_is_there_only_if_every_part_is():
    assert nerf_image_metrics.mean([1.0, 2.0, 6.0]) == 3.0
    assert nerf_image_metrics.mean([1.0, None, 6.0]) is None
    assert nerf_image_metrics.mean([]) is None
    assert nerf_image_metrics.mean([0.0]) == 0.0


def test_shapes_are_executed():
    with pytest.raises(TypeCheckError):
        nerf_image_metrics.psnr(picture(0, 3, 4), picture(0, 4, 3))
