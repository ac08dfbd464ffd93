"""Exposure and white balance of each photograph: a small map from rendered to photographed colors.

The map of a view is a gain of each channel (``gain``), or a 3 × 3 matrix and an offset (``affine``). Maps could undo a
change of all colors of the field, so their mean over the training views is the identity by construction: the mean is
subtracted from the parameters, of log gains for ``gain`` (the geometric mean of the gains is 1), of matrices and
offsets for ``affine`` (the mean of the mapped colors is the color itself). Other views are not mapped.

Sources: Martin-Brualla et al., NeRF in the Wild (CVPR 2021), for the evaluation on half images; Rematas et al., Urban
Radiance Fields (CVPR 2022), section 3.3, for affine maps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from enerf.tasks.nerf import image_metrics

KINDS = ("off", "gain", "affine")
NUMBERS = {"gain": 3, "affine": 12}  # per view
_LEAST = 1e-6  # of the eigenvalues of a fit: added per pixel, so that one color determines a map
PROTOCOL = (
    "exposure maps are the identity for test views; fitted: a map of the same kind is fitted by least squares to the "
    "left half of each test image, and the right half is scored with it, and without"
)


class Exposure(nn.Module):
    """Color maps of the training views, the identity before training.

    Attributes
    ----------
    values
        One row per training view: log gains, or the difference of matrix and offset from the identity.
    """

    row: Tensor

    def __init__(self, kind: str, train: Sequence[int], n_views: int) -> None:
        """Maps of the views ``train`` of a scene of ``n_views``; ``kind`` is ``gain`` or ``affine``."""
        super().__init__()
        self.kind = kind
        self.values = nn.Parameter(torch.zeros(len(train), NUMBERS[kind]))
        row = torch.full((n_views,), len(train))
        row[torch.tensor(list(train))] = torch.arange(len(train))
        self.register_buffer("row", row, persistent=False)

    def centered(self) -> Float[Tensor, "v k"]:
        """Parameters of the maps, whose mean over the training views is 0."""
        return self.values - self.values.mean(0, keepdim=True)

    def forward(
        self, rgb: Float[Tensor, "b 3"], view: Int[Tensor, " b"], opacity: Float[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b 3"]:
        """Colors as the photographs of the views show them.

        Parameters
        ----------
        rgb
            Rendered colors.
        view
            View of each color; those that are no training views leave it unchanged.
        opacity
            By which ``rgb`` is multiplied already, if what lies behind it is no part of the photograph; None: 1.
        """
        maps = torch.cat([self.centered(), torch.zeros_like(self.values[:1])])[self.row[view]]
        if self.kind == "gain":
            return rgb * maps.exp()
        offset = maps[:, 9:] if opacity is None else maps[:, 9:] * opacity[:, None]
        return rgb + (maps[:, :9].reshape(-1, 3, 3) * rgb[:, None, :]).sum(-1) + offset

    def penalty(self) -> Float[Tensor, ""]:
        """Mean square of the centered parameters."""
        return self.centered().square().mean()


def fit(
    rgb: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"], kind: str
) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Matrix and offset of the map that brings colors nearest to others, in the least-squares sense; in float64.

    A tiny weight on the distance from the identity decides what the colors leave open.

    >>> gray = torch.full((4, 3), 0.25)
    >>> [round(x, 3) for x in fit(gray, 2 * gray, "gain")[0].diagonal().tolist()]
    [2.0, 2.0, 2.0]
    """
    x, y = rgb.double(), target.double()
    weight = _LEAST * max(len(x), 1)
    if kind == "gain":
        gains = ((x * y).sum(0) + weight) / (x.square().sum(0) + weight)
        return torch.diag(gains), torch.zeros_like(gains)
    ones = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    identity = torch.eye(4, 3, dtype=x.dtype, device=x.device)
    damped = ones.T @ ones + weight * torch.eye(4, dtype=x.dtype, device=x.device)
    solved = torch.linalg.solve(damped, ones.T @ y + weight * identity)
    return solved[:3].T, solved[3]


def half_scores(
    rgb: Float[Tensor, "h w 3"], target: Float[Tensor, "h w 3"], mask: Bool[Tensor, "h w"] | None, kind: str
) -> dict[str, Any]:
    """PSNR of the right half of an image: ``right_half`` as rendered, ``fitted`` with a map fitted to the left half."""
    middle = rgb.shape[1] // 2
    used = torch.ones(rgb.shape[:2], dtype=torch.bool) if mask is None else mask
    left, right = used[:, :middle], used[:, middle:]
    matrix, offset = fit(rgb[:, :middle][left], target[:, :middle][left], kind)
    mapped = (rgb[:, middle:].double() @ matrix.T + offset).to(rgb.dtype)
    return {
        "right_half": image_metrics.psnr(rgb[:, middle:], target[:, middle:], right),
        "fitted": image_metrics.psnr(mapped, target[:, middle:], right),
    }


def summary(measured: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Mean over test views of the scores of ``half_scores``."""
    return {f"psnr_{key}": image_metrics.mean([m["halves"][key] for m in measured]) for key in ("right_half", "fitted")}
