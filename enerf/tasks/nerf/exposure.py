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
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from enerf.tasks.nerf import image_metrics

KINDS = ("off", "gain", "affine")
NUMBERS = {"gain": 3, "affine": 12}  # per view
_LEAST = 1e-6  # of the eigenvalues of a fit: added per pixel, so that one color determines a map
_SAME = 0.05  # stops: exposures that differ by less are one
PROTOCOL = (
    "exposure maps are the identity for test views; fitted: a map of the same kind is fitted by least squares to the "
    "left half of each test image, and the right half is scored with it, and without (images of which masks leave no "
    "pixel in a half are left out); fit_psnr: with the maps of the training views; by_exif: whole images, with the "
    "mean of the maps of the training views whose exposure by EXIF data is nearest"
)
DESCRIPTIONS = {
    "psnr_right_half": "on the right halves of the test views, as rendered",
    "psnr_fitted": "on the right halves of the test views, with color maps fitted to the left halves",
    "psnr_by_exif": "on the whole test views, with the color maps of training views of the same exposure by EXIF data",
}


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
        return self._mapped(rgb, maps, opacity)

    def by_exposure(
        self, rgb: Float[Tensor, "h w 3"], view: int, exposures: Float64[Tensor, " n"], opacity: Float[Tensor, "h w"]
    ) -> Float[Tensor, "h w 3"]:
        """Colors of a view with the mean of the maps of the training views whose exposure is nearest to its own.

        Nothing of the view's photograph is used but its exposure. The colors are unchanged if that is unknown.

        Parameters
        ----------
        rgb
            Rendered colors.
        view
            The view.
        exposures
            Exposure of each view of the scene, in stops; NaN where unknown.
        opacity
            As for ``forward``.
        """
        n_train = len(self.values)
        train = (self.row < n_train).nonzero()[:, 0]
        away = (exposures.to(self.row.device)[train] - exposures[view].to(self.row.device)).abs()
        if away.isnan().all():
            return rgb
        nearest = train[away <= away.nan_to_num(torch.inf).min() + _SAME]
        maps = self.centered()[self.row[nearest]].mean(0, keepdim=True)
        return self._mapped(rgb.reshape(-1, 3), maps, opacity.reshape(-1)).reshape(rgb.shape)

    def _mapped(
        self, rgb: Float[Tensor, "b 3"], maps: Float[Tensor, "_ k"], opacity: Float[Tensor, " b"] | None
    ) -> Float[Tensor, "b 3"]:
        """Colors by parameters of maps: of each color, or of all."""
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
    """PSNR of the right half of an image: ``right_half`` as rendered, ``fitted`` with a map fitted to the left half.

    Empty if a half has no used pixel.
    """
    middle = rgb.shape[1] // 2
    used = torch.ones(rgb.shape[:2], dtype=torch.bool) if mask is None else mask
    left, right = used[:, :middle], used[:, middle:]
    if not (left.any() and right.any()):
        return {}
    matrix, offset = fit(rgb[:, :middle][left], target[:, :middle][left], kind)
    mapped = (rgb[:, middle:].double() @ matrix.T + offset).to(rgb.dtype)
    return {
        "right_half": image_metrics.psnr(rgb[:, middle:], target[:, middle:], right),
        "fitted": image_metrics.psnr(mapped, target[:, middle:], right),
    }


def summary(measured: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Mean over test views of the scores of ``half_scores`` and, if exposures are known, with maps chosen by them.

    Views of which a half has no used pixel are left out of the former.
    """
    halves = [m["halves"] for m in measured if m["halves"]]
    scores = {f"psnr_{key}": image_metrics.mean([each[key] for each in halves]) for key in ("right_half", "fitted")}
    if all("psnr_by_exif" in m for m in measured):
        scores["psnr_by_exif"] = image_metrics.mean([m["psnr_by_exif"] for m in measured])
    return scores
