"""Image metrics: PSNR, SSIM and LPIPS of one image with sRGB values in [0, 1]."""

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

log = logging.getLogger("enerf")


def psnr(rgb: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"], mask: Bool[Tensor, "*b"] | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB, ``rgb`` clipped to [0, 1]; inf for equal images, NaN for NaN.

    Only the pixels of ``mask`` count, if it is given; NaN if there are none.

    >>> round(psnr(torch.zeros(4, 3), torch.full((4, 3), 0.1)), 3)
    20.0
    """
    squares = (rgb.clamp(0, 1) - target).square()
    mse = float((squares if mask is None else squares[mask]).mean(dtype=torch.float64))
    return math.inf if mse == 0 else -10.0 * math.log10(mse)


def ssim(
    rgb: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None = None
) -> float | None:
    """Return the structural similarity, averaged over channels and windows; None for sides under 11 pixels.

    Source: Wang et al. 2004, equation 13, with an 11×11 Gaussian window of σ 1.5. Only windows that lie within the
    image are used, as in JaxNeRF; libraries that pad the image give other values. With ``mask`` only windows centered
    at its pixels; None if there are none.
    """
    if min(rgb.shape[:2]) < 11:
        return None
    a, b = (x.clamp(0, 1).double().movedim(-1, 0)[:, None] for x in (rgb, target))
    axis = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    window = torch.softmax(-(axis**2) / (2 * 1.5**2), 0)

    def blur(x: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(x, window[None, None, :, None]), window[None, None, None, :])

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    if mask is not None:
        similarity = similarity[..., mask[5:-5, 5:-5].to(similarity.device)]
    return float(similarity.mean()) if similarity.numel() else None


def lpips(rgb: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"]) -> float | None:
    """Return LPIPS with AlexNet (Zhang et al. 2018); None without extra ``lpips`` or weights, or under 31 pixels."""
    if min(rgb.shape[:2]) < 31:  # the smallest input of AlexNet
        return None
    network = _lpips_network()
    if network is None:
        return None
    with torch.no_grad():
        return float(network(*(x.clamp(0, 1).movedim(-1, 0)[None] * 2 - 1 for x in (rgb, target))))


@lru_cache(maxsize=1)
def _lpips_network() -> Any:
    """Return the LPIPS network, or None if it is not available; cached, so that a failure is logged once."""
    try:
        import lpips as package

        return package.LPIPS(net="alex", verbose=False).eval()
    except ImportError:
        return None  # the extra is not installed: null in metrics.json
    except Exception as error:  # its weights are downloaded, which can fail in many ways
        log.warning("LPIPS is not computed: its network could not be created (%s)", error)
        return None


def mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of numbers; None if one of them is None, or there are none.

    >>> mean([1.0, 2.0]), mean([1.0, None]), mean([])
    (1.5, None, None)
    """
    present = [v for v in values if v is not None]
    return sum(present) / len(present) if present and len(present) == len(values) else None
