"""Residuals of shapes: occupancy logits, signed distances, their gradients, and clouds of points on a surface.

Everything is a mean over points, and a function of tensors alone. Signed distances are negative inside, occupancy
logits positive inside. ``gradients`` are those of the field in the points, not normalised.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

NEAR = 0.01  # instant-ngp's, in units of distance


def occupancy(
    logits: Float[Tensor, "*b"], inside: Bool[Tensor, "*b"] | Float[Tensor, "*b"], *, balanced: bool = False
) -> Float[Tensor, ""]:
    """The binary cross entropy of logits; ``balanced``: the mean of its mean inside and its mean outside.

    Labels between 0 and 1 count for both sides. A side without points counts for nothing.

    >>> occupancy(torch.zeros(4), torch.tensor([True, False, False, False]))
    tensor(0.6931)
    """
    labels = inside.to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if not balanced:
        return each.mean()
    sides = torch.stack([labels, 1 - labels])
    shares = sides.flatten(1).sum(-1)
    means = (sides * each).flatten(1).sum(-1) / shares.clamp(min=torch.finfo(shares.dtype).tiny)
    return means.sum() / (shares > 0).sum()


def l1(sdf: Float[Tensor, "*b"], target: Float[Tensor, "*b"]) -> Float[Tensor, ""]:
    """The mean absolute error."""
    return (sdf - target).abs().mean()


def truncated_l1(sdf: Float[Tensor, "*b"], target: Float[Tensor, "*b"], distance: float | int) -> Float[Tensor, ""]:
    """The mean absolute error, where beyond ``distance`` from the surface only "at least so far" is asked.

    Targets beyond are charged up to the distance and on the right side of the surface only. For values within ± the
    distance, and for values on the far side of a target beyond it, this is |clamp(f) − clamp(d)| (Park et al., DeepSDF,
    CVPR 2019, equation 4). That formula has no gradient where a value lies beyond the distance on the wrong side or
    beside a near target; this one charges the whole error there.

    >>> truncated_l1(torch.tensor([0.3, -0.3]), torch.tensor([0.9, 0.9]), 0.1)
    tensor(0.2000)
    """
    error = sdf - target.clamp(-distance, distance)
    far_enough = ((target >= distance) & (error > 0)) | ((target <= -distance) & (error < 0))
    return torch.where(far_enough, 0.0, error.abs()).mean()


def mape(sdf: Float[Tensor, "*b"], target: Float[Tensor, "*b"], near: float | int = NEAR) -> Float[Tensor, ""]:
    """The mean error relative to the distance: |f − d| / (|d| + ``near``), so that the surface counts most.

    Source: Müller et al., Instant Neural Graphics Primitives, SIGGRAPH 2022, section 5.2, and its code.

    >>> mape(torch.tensor([0.02]), torch.tensor([0.01]))
    tensor(0.5000)
    """
    return ((sdf - target).abs() / (target.abs() + near)).mean()


def eikonal(gradients: Float[Tensor, "*b d"]) -> Float[Tensor, ""]:
    """The mean of (|∇f| − 1)², zero for distances. Where ∇f is zero it has no gradient.

    Source: Gropp et al., IGR, ICML 2020, equation 2.

    >>> eikonal(torch.tensor([[0.6, 0.8], [3.0, 0.0]]))
    tensor(2.)
    """
    return (gradients.norm(dim=-1) - 1).square().mean()


def normal_agreement(
    gradients: Float[Tensor, "*b d"], normals: Float[Tensor, "*b d"], *, oriented: bool = True
) -> Float[Tensor, ""]:
    """The mean of 1 − cos between gradients and normals: 0 where they agree, 2 where they are opposed.

    ``oriented=False``: 1 − |cos|, for normals whose side is not known.

    >>> normal_agreement(torch.tensor([[0.0, 5.0]]), torch.tensor([[1.0, 0.0]]))
    tensor(1.)
    """
    cosines = functional.cosine_similarity(gradients, normals, dim=-1)
    return (1 - (cosines if oriented else cosines.abs())).mean()


def off_surface(sdf: Float[Tensor, "*b"], alpha: float | int = 100.0) -> Float[Tensor, ""]:
    """The mean of exp(−α |f|): no surface where there are no points.

    Source: Sitzmann et al., SIREN, NeurIPS 2020, section 4.2, equation 6.
    """
    return torch.exp(-alpha * sdf.abs()).mean()


def off_surface_signed(
    sdf: Float[Tensor, "*b"], labels: Float[Tensor, "*b"], alpha: float | int = 100.0
) -> Float[Tensor, ""]:
    """``off_surface`` where it is known what is inside (label 1) and what is not (0); at 1/2 it is as it was.

    With x = α |f| on the right side and −α |f| on the wrong one, a point is charged exp(−x) for x ≥ 0 and 1 − x below:
    the same slope goes on where the sign is wrong. Without it, nothing keeps a second surface from standing where no
    points are.

    >>> off_surface_signed(torch.tensor([-0.01, 0.01]), torch.tensor([1.0, 1.0]))
    tensor(1.1839)
    """
    x = alpha * torch.where(labels == 0.5, sdf.abs(), (1 - 2 * labels) * sdf)
    return torch.where(x >= 0, torch.exp(-x.clamp(min=0)), 1 - x).mean()


@dataclass(frozen=True)
class CloudWeights:
    """What the parts of ``point_cloud`` weigh, and its α.

    The defaults are those of SIREN's authors' code: 3000, 100, 100 and 50, where the first three are of means over both
    sets of points, in equal parts.
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
    """The weighted parts of a signed distance's loss on a cloud of points, by name; their sum is the loss.

    Source: Sitzmann et al., SIREN, NeurIPS 2020, section 4.2, equation 6, with (|∇f| − 1)² for its absolute value.

    Parameters
    ----------
    on, on_gradients
        Values and gradients at points of the cloud.
    normals
        Of these points, unit or not; None: unknown, and that part is missing.
    off, off_gradients
        The same at points anywhere else.
    weights
        Of the parts; None: the defaults.
    oriented
        Whether normals point outwards, as for ``normal_agreement``.
    labels
        What is known of the other points, as for ``off_surface_signed``; None: nothing.

    Returns
    -------
    dict
        ``surface`` |f|, ``off`` exp(−α |f|) or as the labels say, ``eikonal`` over both sets, and ``normals``, if they
        are known.
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
