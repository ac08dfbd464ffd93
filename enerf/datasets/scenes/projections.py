"""Formulas of the camera models: directions to the image plane and, where there is a closed form, back.

Directions have OpenCV's axes: x right, y down, z along the optical axis. Points (u, v) of the image plane are pixels
without focal length and principal point: pixel = (fx u + cx, fy v + cy). All functions are elementwise: coefficients
``c`` are one tensor per coefficient, which broadcasts with the points.

COLMAP's 18 models are special cases of 12 **families**, whose further coefficients are zero (``family_of``).

Models with polynomial distortion project to an undistorted plane (a, b) first: (x, y) / z, or for fisheye models
θ (x, y) / √(x² + y²), where θ is the angle to the optical axis. ``distort`` maps (a, b) to (u, v); with s = a² + b² and
a radial factor g(s):

    u = a g + 2 p1 a b + p2 (s + 2 a²) + sx1 s,    v = b g + 2 p2 a b + p1 (s + 2 b²) + sy1 s

except for RAD_TAN_THIN_PRISM_FISHEYE, which applies the last three terms of each to (a g, b g).

Sources: COLMAP, Camera Models (https://colmap.github.io/cameras.html). OpenCV, Camera Calibration and 3D
Reconstruction, for OPENCV, FULL_OPENCV and OPENCV_FISHEYE. Devernay and Faugeras, Straight lines have to be straight
(2001), equations 13 and 14, for FOV. Weng et al., Camera calibration with distortion models (1992), for thin prisms.
Project Aria, Camera Intrinsic Models, for RAD_TAN_THIN_PRISM_FISHEYE. Fitzgibbon, Simultaneous linear estimation of
multiple view geometry and lens distortion (2001), for DIVISION. Khomutenko et al., An enhanced unified camera model
(2016), and Usenko et al., The double sphere camera model (2018), section III-C, for EUCM.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.core.types import Camera
from enerf.datasets.scenes.camera_models import MODELS

Values = Float[Tensor, "*b"]
PERSPECTIVE = ("PINHOLE", "RADIAL", "OPENCV", "FULL_OPENCV")  # families whose undistorted plane is (x, y) / z
FISHEYE = ("FISHEYE", "OPENCV_FISHEYE", "THIN_PRISM_FISHEYE", "RAD_TAN_THIN_PRISM_FISHEYE")  # whose plane is of angles
DISTORTED = (*PERSPECTIVE[1:], *FISHEYE[1:])  # families that need ``undistortion``
RADIAL = ("RADIAL", "OPENCV_FISHEYE")  # of these, those whose distortion depends on the radius alone
_SPECIAL_CASES = {
    "SIMPLE_PINHOLE": "PINHOLE",
    "SIMPLE_RADIAL": "RADIAL",
    "SIMPLE_FISHEYE": "FISHEYE",
    "SIMPLE_RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "RADIAL_FISHEYE": "OPENCV_FISHEYE",
    "SIMPLE_DIVISION": "DIVISION",
}
# indices of the coefficients of s, s², ... in the numerator and denominator of the radial factor
_RADIAL_TERMS: dict[str, tuple[list[int], list[int]]] = {
    "RADIAL": ([0, 1], []),
    "OPENCV": ([0, 1], []),
    "FULL_OPENCV": ([0, 1, 4], [5, 6, 7]),
    "OPENCV_FISHEYE": ([0, 1, 2, 3], []),
    "THIN_PRISM_FISHEYE": ([0, 1, 4, 5], []),
    "RAD_TAN_THIN_PRISM_FISHEYE": ([0, 1, 2, 3, 4, 5], []),
}
_LEAST_OMEGA = 1e-6  # of the FOV model, which is a pinhole at 0; the error is below ω² r² / 3


class Distorted(NamedTuple):
    """Points (u, v) of the image plane, and their derivatives by the undistorted (a, b)."""

    u: Tensor
    v: Tensor
    du_da: Tensor
    du_db: Tensor
    dv_da: Tensor
    dv_db: Tensor

    @property
    def is_regular(self) -> Bool[Tensor, "*b"]:
        """Whether the derivative's determinant and trace are positive, as they are at the center."""
        determinant = self.du_da * self.dv_db - self.du_db * self.dv_da
        return (determinant > 0) & (self.du_da + self.dv_db > 0)


def pinhole_directions(
    camera: Camera, x: Float[Tensor, "*b"], y: Float[Tensor, "*b"], pixel_centers: float | int = 0.5
) -> Float[Tensor, "*b 3"]:
    """Ray directions through pixels of a pinhole camera, in its frame (OpenGL axes, z = −1) and the dtype of ``x``."""
    cam_x = (x + pixel_centers - camera.cx) / camera.fx
    cam_y = -(y + pixel_centers - camera.cy) / camera.fy
    return torch.stack([cam_x, cam_y, -torch.ones_like(cam_x)], -1)


def family_of(model: str) -> str:
    """The family of a camera model: itself, or the model that it is a special case of.

    >>> family_of("SIMPLE_RADIAL"), family_of("EUCM")
    ('RADIAL', 'EUCM')
    """
    return _SPECIAL_CASES.get(model, model)


def family_coefficients(model: str, coefficients: Sequence[float]) -> tuple[float, ...]:
    """Coefficients of a model's family: its own, and zeros.

    >>> family_coefficients("SIMPLE_RADIAL", (0.1,))
    (0.1, 0.0)
    """
    missing = len(MODELS[family_of(model)].coefficients) - len(coefficients)
    return (*coefficients, *[0.0] * missing)


def is_perspective(model: str) -> bool:
    """Whether a model maps to (x, y) / z before distortion, so that its rays lie in front of the plane z = 0.

    >>> is_perspective("OPENCV"), is_perspective("FOV")
    (True, False)
    """
    return family_of(model) in PERSPECTIVE


def radial_polynomials(
    family: str, coefficients: Float[Tensor, "*n c"]
) -> tuple[Float[Tensor, "*n above"], Float[Tensor, "*n below"]]:
    """Numerator and denominator of the radial factor g(s): coefficients of increasing powers of s, the first of them 1.

    >>> radial_polynomials("RADIAL", torch.tensor([0.1, 0.2]))
    (tensor([1.0000, 0.1000, 0.2000]), tensor([1.]))
    """
    one = torch.ones_like(coefficients[..., :1])
    above, below = _RADIAL_TERMS[family]
    return torch.cat([one, coefficients[..., above]], -1), torch.cat([one, coefficients[..., below]], -1)


def radial_factor(family: str, s: Values, c: Sequence[Tensor]) -> tuple[Values, Values]:
    """The factor g of radial distortion at s, the undistorted radius squared, and its derivative dg/ds.

    >>> radial_factor("RADIAL", torch.tensor(2.0), (torch.tensor(0.5), torch.tensor(0.25)))
    (tensor(3.), tensor(1.5000))
    """
    above, below = _RADIAL_TERMS[family]
    factor, slope = _polynomial(s, [c[i] for i in above])
    if not below:
        return factor, slope
    divisor, divisor_slope = _polynomial(s, [c[i] for i in below])
    factor = factor / divisor
    return factor, (slope - factor * divisor_slope) / divisor


def distort(family: str, a: Values, b: Values, c: Sequence[Tensor]) -> Distorted:
    """Distortion of points of the undistorted plane, for the families ``DISTORTED``."""
    s = a * a + b * b
    g, slope = radial_factor(family, s, c)
    twice = 2 * slope
    cross = twice * a * b
    radial = Distorted(a * g, b * g, torch.addcmul(g, twice * a, a), cross, cross, torch.addcmul(g, twice * b, b))
    if family in RADIAL:
        return radial
    if family != "RAD_TAN_THIN_PRISM_FISHEYE":
        shift = _decentering(a, b, s, c[2], c[3])
        if family == "THIN_PRISM_FISHEYE":
            shift = _added(shift, _thin_prism(a, b, s, (c[6], None, c[7], None)))
        return _added(radial, shift)
    after = decenter(radial.u, radial.v, c)
    return Distorted(
        after.u,
        after.v,
        after.du_da * radial.du_da + after.du_db * radial.dv_da,
        after.du_da * radial.du_db + after.du_db * radial.dv_db,
        after.dv_da * radial.du_da + after.dv_db * radial.dv_da,
        after.dv_da * radial.du_db + after.dv_db * radial.dv_db,
    )


def decenter(a: Values, b: Values, c: Sequence[Tensor]) -> Distorted:
    """Decentering and thin prisms of RAD_TAN_THIN_PRISM_FISHEYE, given points after its radial distortion."""
    s = a * a + b * b
    shift = _added(_decentering(a, b, s, c[7], c[6]), _thin_prism(a, b, s, c[8:12]))
    return Distorted(a + shift.u, b + shift.v, 1 + shift.du_da, shift.du_db, shift.dv_da, 1 + shift.dv_db)


def project(
    family: str, x: Values, y: Values, z: Values, c: Sequence[Tensor], limit: Tensor | None = None
) -> tuple[Values, Values, Bool[Tensor, "*b"]]:
    """Points (u, v) of the image plane that directions of any length are mapped to, and whether the model maps them.

    It does not map directions behind a perspective camera, nor others outside of its domain; ``limit`` is that of
    ``undistortion.limits``, needed for the families ``DISTORTED``. (u, v) is finite or NaN there.
    """
    if family == "EQUIRECTANGULAR":
        across = torch.hypot(x, z)
        return torch.atan2(x, z), torch.atan2(y, across), (across > 0) | (y != 0)
    if family in PERSPECTIVE:
        valid = z > 0
        depth = torch.where(valid, z, 1.0)
        return _on_plane(family, x / depth, y / depth, c, limit, valid)
    square = x * x + y * y
    if family == "DIVISION":
        scale, valid = _division_scale(square, z, c[0])
    elif family == "EUCM":
        alpha, beta = c
        distance = (beta * square + z * z).sqrt()
        slope = torch.where(alpha > 0.5, 1 - alpha, alpha) / torch.where(alpha > 0.5, alpha, 1 - alpha)
        denominator = alpha * distance + (1 - alpha) * z
        valid = (denominator > 0) & (z > -slope * distance)
        scale = 1 / torch.where(valid, denominator, 1.0)
    else:
        radius = square.sqrt()
        omega = c[0].abs().clamp(min=_LEAST_OMEGA) if family == "FOV" else None
        stretch = 1.0 if omega is None else 2 * (0.5 * omega).tan()
        angle = torch.atan2(stretch * radius, z) / (1.0 if omega is None else omega)
        on_axis = radius < 1e-150
        valid = (z > 0) | (~on_axis if omega is None else torch.zeros_like(on_axis))
        at_center = (stretch if omega is None else stretch / omega) / torch.where(z > 0, z, 1.0)
        scale = torch.where(on_axis, at_center, angle / torch.where(on_axis, 1.0, radius))
    if family in FISHEYE:
        return _on_plane(family, x * scale, y * scale, c, limit, valid)
    return x * scale, y * scale, valid


def from_plane(family: str, a: Values, b: Values) -> tuple[Values, Values, Values]:
    """Directions of points of the undistorted plane: with z = 1 for ``PERSPECTIVE``, unit for ``FISHEYE``."""
    if family in PERSPECTIVE:
        return a, b, torch.ones_like(a)
    angle = (a * a + b * b).sqrt()
    scale = torch.sinc(angle / math.pi)  # sin(angle) / angle
    return a * scale, b * scale, angle.cos()


def unproject(
    family: str, u: Values, v: Values, c: Sequence[Tensor]
) -> tuple[Values, Values, Values, Bool[Tensor, "*b"]]:
    """Directions that are mapped to (u, v), and whether there is one, for all families but ``DISTORTED``.

    With z = 1 for PINHOLE, unit for all others.
    """
    if family == "PINHOLE":
        return *from_plane(family, u, v), torch.ones_like(u, dtype=torch.bool)
    if family == "EQUIRECTANGULAR":
        x, y, z = v.cos() * u.sin(), v.sin(), v.cos() * u.cos()
        return x, y, z, (u.abs() <= math.pi * (1 + 1e-12)) & (v.abs() <= 0.5 * math.pi * (1 + 1e-12))
    square = u * u + v * v
    if family == "FISHEYE":
        return *from_plane(family, u, v), square < math.pi**2
    if family == "FOV":
        omega = c[0].abs().clamp(min=_LEAST_OMEGA)
        angle = square.sqrt() * omega
        scale = torch.sinc(angle / math.pi) * omega
        return *_unit(u * scale, v * scale, angle.cos() * 2 * (0.5 * omega).tan()), angle < 0.5 * math.pi
    if family == "DIVISION":
        return *_unit(u, v, 1 + c[0] * square), c[0] * square < 1
    alpha, beta = c
    root = (1 - (2 * alpha - 1) * beta * square).sqrt()
    denominator = alpha * root + 1 - alpha
    z = (1 - alpha * alpha * beta * square) / denominator
    return *_unit(u, v, z), (root > 0) & (denominator > 0)


def _on_plane(
    family: str, a: Values, b: Values, c: Sequence[Tensor], limit: Tensor | None, valid: Bool[Tensor, "*b"]
) -> tuple[Values, Values, Bool[Tensor, "*b"]]:
    """(u, v) and validity of points of the undistorted plane."""
    if family not in DISTORTED:
        return a, b, valid
    found = distort(family, a, b, c)
    inside = (a * a + b * b).sqrt() < limit if limit is not None else torch.ones_like(valid)
    return found.u, found.v, valid & inside & found.is_regular


def _division_scale(square: Values, z: Values, k: Tensor) -> tuple[Values, Bool[Tensor, "*b"]]:
    """The factor from (x, y) to (u, v): the positive root of k (x² + y²) t² − z t + 1 that is 1 / z for k = 0."""
    discriminant = z * z - 4 * k * square
    root = discriminant.clamp(min=0).sqrt()
    behind = (z < 0) & (k * square < 0)
    valid = ((z > 0) & (discriminant > 0)) | ((z == 0) & (k * square < 0)) | behind
    in_front = 2 / torch.where(valid & ~behind, z + root, 1.0)
    return torch.where(behind, (z - root) / torch.where(behind, 2 * k * square, 1.0), in_front), valid


def _polynomial(s: Values, k: Sequence[Tensor]) -> tuple[Values, Values]:
    """1 + k[0] s + k[1] s² + ... and its derivative by s."""
    value, slope = k[-1], torch.zeros_like(k[-1])
    for coefficient in reversed(k[:-1]):
        slope = torch.addcmul(value, slope, s)
        value = torch.addcmul(coefficient, value, s)
    return value * s + 1, torch.addcmul(value, slope, s)


def _decentering(a: Values, b: Values, s: Values, p1: Tensor, p2: Tensor) -> Distorted:
    """Displacement by decentering distortion: (2 p1 a b + p2 (s + 2 a²), 2 p2 a b + p1 (s + 2 b²))."""
    ap1, bp1, ap2, bp2 = a * p1, b * p1, a * p2, b * p2
    inner = 2 * (ap2 + bp1)
    cross = 2 * (ap1 + bp2)
    return Distorted(
        torch.addcmul(s * p2, a, inner),
        torch.addcmul(s * p1, b, inner),
        inner + 4 * ap2,
        cross,
        cross,
        inner + 4 * bp1,
    )


def _thin_prism(a: Values, b: Values, s: Values, k: Sequence[Tensor | None]) -> Distorted:
    """Displacement (k[0] s + k[1] s², k[2] s + k[3] s²); None is zero."""

    def along(first: Tensor | None, second: Tensor | None) -> tuple[Tensor, Tensor]:
        """A displacement and twice its derivative by s."""
        assert first is not None
        if second is None:
            return first * s, 2 * first
        return s * (first + second * s), 2 * (first + 2 * second * s)

    (u, u_slope), (v, v_slope) = along(k[0], k[1]), along(k[2], k[3])
    return Distorted(u, v, u_slope * a, u_slope * b, v_slope * a, v_slope * b)


def _added(one: Distorted, other: Distorted) -> Distorted:
    return Distorted(*(a + b for a, b in zip(one, other, strict=True)))


def _unit(x: Values, y: Values, z: Values) -> tuple[Values, Values, Values]:
    length = (x * x + y * y + z * z).sqrt()
    return x / length, y / length, z / length
