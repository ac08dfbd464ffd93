"""Losses of shape fields: occupancy, signed distance, eikonal, normals, point clouds, and colors of images.

All losses are means over points and pure functions of tensors. Signed distances are negative inside, occupancy logits
positive inside. ``gradients`` are derivatives of the field with respect to the points, not normalized.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

NEAR = 0.01  # instant-ngp's, in units of distance


def occupancy(
    logits: Float[Tensor, "*b"],
    inside: Bool[Tensor, "*b"] | Float[Tensor, "*b"],
    *,
    balanced: bool = False,
    totals: Float[Tensor, "2"] | None = None,
) -> Float[Tensor, ""]:
    """Binary cross entropy of logits; ``balanced``: the average of its mean inside and its mean outside.

    Labels between 0 and 1 contribute to both means. A side without points is ignored. ``totals`` are the sums of the
    labels and of 1 − labels of a larger batch: the result is the part of its loss that these points contribute.

    >>> occupancy(torch.zeros(4), torch.tensor([True, False, False, False]))
    tensor(0.6931)
    """
    labels = inside.to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if not balanced:
        return each.mean() if totals is None else each.sum() / totals.sum()
    sides = torch.stack([labels, 1 - labels])
    shares = sides.flatten(1).sum(-1) if totals is None else totals.to(labels)
    means = (sides * each).flatten(1).sum(-1) / shares.clamp(min=torch.finfo(shares.dtype).tiny)
    return means.sum() / (shares > 0).sum()


def squared_occupancy(
    values: Float[Tensor, "*b"], inside: Bool[Tensor, "*b"] | Float[Tensor, "*b"]
) -> Float[Tensor, ""]:
    """Mean squared error of values to 1 inside and 0 outside.

    >>> squared_occupancy(torch.tensor([0.5, 0.0]), torch.tensor([True, False]))
    tensor(0.1250)
    """
    return (values - inside.to(values.dtype)).square().mean()


def squared_colors(values: Float[Tensor, "*b 3"], colors: Float[Tensor, "*b 3"]) -> Float[Tensor, ""]:
    """Mean squared error of colors, over points and channels.

    >>> squared_colors(torch.tensor([[0.5, 0.0, 1.0]]), torch.tensor([[0.5, 0.0, 0.4]]))
    tensor(0.1200)
    """
    return (values - colors).square().mean()


def far_occupancy(
    logits: Float[Tensor, "*b"],
    signs: Float[Tensor, "*b"],
    margin: float | int,
    total: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Mean cross entropy of logits that should be beyond ``margin`` on their side: log(1 + exp(margin − sign · logit)).

    ``signs`` are 1 inside, −1 outside, and 0 for points that are left out. With margin 0 it is ``occupancy``. ``total``
    is the number of points that are not left out of a larger batch, as in ``occupancy``.

    >>> far_occupancy(torch.tensor([-5.0, 3.0]), torch.tensor([-1.0, 0.0]), 5)
    tensor(0.6931)
    """
    each = functional.softplus(margin - signs * logits) * signs.abs()
    return each.sum() / (signs.abs().sum() if total is None else total.to(logits)).clamp(min=1)


def l1(sdf: Float[Tensor, "*b"], target: Float[Tensor, "*b"]) -> Float[Tensor, ""]:
    """Mean absolute error."""
    return (sdf - target).abs().mean()


def truncated_l1(sdf: Float[Tensor, "*b"], target: Float[Tensor, "*b"], distance: float | int) -> Float[Tensor, ""]:
    """Mean absolute error to targets clamped to ± ``distance``, zero where value and target are both beyond it.

    Where the value is within ± ``distance``, or both are beyond it on the same side, this equals |clamp(f) − clamp(d)|
    (Park et al., DeepSDF, CVPR 2019, equation 4). That formula has zero gradient where the value is beyond ``distance``
    and the target is not, or is on the other side; here the full error is used.

    >>> truncated_l1(torch.tensor([0.3, -0.3]), torch.tensor([0.9, 0.9]), 0.1)
    tensor(0.2000)
    """
    error = sdf - target.clamp(-distance, distance)
    far_enough = ((target >= distance) & (error > 0)) | ((target <= -distance) & (error < 0))
    return torch.where(far_enough, 0.0, error.abs()).mean()


def mape(sdf: Float[Tensor, "*b"], target: Float[Tensor, "*b"], near: float | int = NEAR) -> Float[Tensor, ""]:
    """Mean relative error |f − d| / (|d| + ``near``), which weights points near the surface most.

    Source: Müller et al., Instant Neural Graphics Primitives, SIGGRAPH 2022, section 5.2, and its code.

    >>> mape(torch.tensor([0.02]), torch.tensor([0.01]))
    tensor(0.5000)
    """
    return ((sdf - target).abs() / (target.abs() + near)).mean()


def eikonal(gradients: Float[Tensor, "*b d"]) -> Float[Tensor, ""]:
    """Mean of (|∇f| − 1)², zero for exact distances. Its gradient is zero where ∇f is zero.

    Source: Gropp et al., IGR, ICML 2020, equation 2.

    >>> eikonal(torch.tensor([[0.6, 0.8], [3.0, 0.0]]))
    tensor(2.)
    """
    return (gradients.norm(dim=-1) - 1).square().mean()


def normal_agreement(
    gradients: Float[Tensor, "*b d"], normals: Float[Tensor, "*b d"], *, oriented: bool = True
) -> Float[Tensor, ""]:
    """Mean of 1 − cos of the angle between gradients and normals: 0 if parallel, 2 if opposite.

    ``oriented=False``: 1 − |cos|, for normals of unknown orientation.

    >>> normal_agreement(torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(1.)
    """
    cosines = functional.cosine_similarity(gradients, normals, dim=-1)
    return (1 - (cosines if oriented else cosines.abs())).mean()


def off_surface(sdf: Float[Tensor, "*b"], alpha: float | int = 100.0) -> Float[Tensor, ""]:
    """Mean of exp(−α |f|): penalizes a zero level set where there are no points.

    Source: Sitzmann et al., SIREN, NeurIPS 2020, section 4.2, equation 6.
    """
    return torch.exp(-alpha * sdf.abs()).mean()


def off_surface_signed(
    sdf: Float[Tensor, "*b"], labels: Float[Tensor, "*b"], alpha: float | int = 100.0
) -> Float[Tensor, ""]:
    """``off_surface`` with labels: 1 inside, 0 outside, 1/2 unknown (then equal to ``off_surface``).

    With x = α |f| where the sign of f is correct and −α |f| where it is wrong, the loss of a point is exp(−x) for x ≥ 0
    and 1 − x for x < 0, the linear extension. Without labels, nothing prevents additional surfaces away from the
    points.

    >>> off_surface_signed(torch.tensor([-0.01, 0.01]), torch.tensor([1.0, 1.0]))
    tensor(1.1839)
    """
    x = alpha * torch.where(labels == 0.5, sdf.abs(), (1 - 2 * labels) * sdf)
    return torch.where(x >= 0, torch.exp(-x.clamp(min=0)), 1 - x).mean()


@dataclass(frozen=True)
class CloudWeights:
    """Weights of the terms of ``point_cloud``, and its α.

    The defaults correspond to 3000, 100, 100 and 50 in the code of SIREN's authors, where the first three multiply
    means over both sets of points, which are of equal size; here each is a mean over its own set.
    """

    surface: float | int = 1500.0
    off: float | int = 50.0
    normals: float | int = 50.0
    eikonal: float | int = 50.0
    alpha: float | int = 100.0


def point_cloud(
    on: Float[Tensor, " n"],
    on_gradients: Float[Tensor, "n d"],
    normals: Float[Tensor, "n d"] | None,
    off: Float[Tensor, " m"],
    off_gradients: Float[Tensor, "m d"],
    weights: CloudWeights | None = None,
    *,
    oriented: bool = True,
    labels: Float[Tensor, " m"] | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """Return the weighted loss terms of a signed distance fitted to a point cloud; the loss is their sum.

    Source: Sitzmann et al., SIREN, NeurIPS 2020, section 4.2, equation 6, with (|∇f| − 1)² for the absolute value.

    Parameters
    ----------
    on, on_gradients
        Values and gradients of the field at points of the cloud.
    normals
        Normals of these points, of any length; None: unknown, the term is omitted.
    off, off_gradients
        Values and gradients at other points of the box.
    weights
        Weights of the terms; None: the defaults.
    oriented
        Whether normals point outwards, as for ``normal_agreement``.
    labels
        Labels of the other points, as for ``off_surface_signed``; None: unknown.

    Returns
    -------
    dict
        ``surface`` |f|, ``off`` (``off_surface``, or ``off_surface_signed`` with labels), ``eikonal`` over both sets,
        and ``normals`` if they are known.
    """
    w = weights or CloudWeights()
    parts = {
        "surface": w.surface * on.abs().mean(),
        "off": w.off * (off_surface(off, w.alpha) if labels is None else off_surface_signed(off, labels, w.alpha)),
        "eikonal": w.eikonal * eikonal(torch.cat([on_gradients, off_gradients])),
    }
    if normals is not None:
        parts["normals"] = w.normals * normal_agreement(on_gradients, normals, oriented=oriented)
    return parts
