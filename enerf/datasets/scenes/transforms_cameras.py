"""Cameras of ``transforms.json``: focal lengths, angles, principal points, sizes and distortion of file and frames.

A key may stand at the top of the file, for all frames, or in a frame. Where both are present and differ, nerfstudio
reads the one at the top and instant-ngp that of the frame; so does this module (``own_first``), with a warning.

Distortion. The principal point is measured as in COLMAP in both programs: the center of the top-left pixel is at (0.5,
0.5). In perspective cameras, nerfstudio takes k1 … k4 as the
coefficients of r², r⁴, r⁶ and r⁸ and p1, p2 as OpenCV's tangential ones; k3 of OpenCV is the same, but its k4 is a
coefficient of the denominator, and no model of COLMAP has r⁸, so that k4 other than 0 is refused (nerfstudio refuses it
too when it undistorts images). instant-ngp knows k1, k2, p1, p2 in perspective cameras and ignores k3 and k4, which
its own converter always writes as 0; here they mean the same as in nerfstudio. In fisheye cameras k1 … k4 are OpenCV's
in both programs; p1 and p2 are refused. A fisheye camera whose coefficients are all 0 is equidistant, as in nerfstudio
(instant-ngp reads it as a pinhole).

Sources: nerfstudio's documentation, "Data conventions", and its classes ``Cameras`` and ``Nerfstudio``; instant-ngp's
``nerf_loader.cu`` and ``colmap2nerf.py``; OpenCV's documentation of ``calib3d``; COLMAP's of its camera models.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes.transforms_json import is_number, nearly_equal, short

# Names that nerfstudio accepts as camera_model, and the projection of each; all perspective ones read all coefficients.
PROJECTIONS = {
    **dict.fromkeys(("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"), "perspective"),
    "OPENCV_FISHEYE": "fisheye",
    "FISHEYE624": "fisheye624",
    "EQUIRECTANGULAR": "equirectangular",
}
UNSUPPORTED = ("OMNIDIRECTIONALSTEREO_L", "OMNIDIRECTIONALSTEREO_R", "VR180_L", "VR180_R", "ORTHOPHOTO")
_OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular", "orthographic")  # of instant-ngp
COEFFICIENTS = ("k1", "k2", "k3", "k4", "p1", "p2")  # in the order of nerfstudio's distortion_params
KEYS = frozenset(
    {"w", "h", "cx", "cy", "camera_model", "is_fisheye", "distortion_params", *COEFFICIENTS, *_OTHER_LENSES}
    | {key.format(axis) for key in ("fl_{}", "camera_angle_{}", "{}_fov") for axis in "xy"}
)
_LARGEST_SIDE = 1 << 20  # pixels


@dataclass(frozen=True)
class View:
    """What a file says of the camera of one frame.

    Attributes
    ----------
    where
        File and frame, which begin error messages.
    index
        Index of the frame.
    shared, own
        Objects of the file and of the frame.
    own_first
        Whether keys of the frame take precedence over those of the file, as in instant-ngp.
    contradictions
        Collects, for all views, keys whose values are not used since others contradict them: indices of frames.
    """

    where: str
    index: int
    shared: Mapping[str, Any]
    own: Mapping[str, Any]
    own_first: bool
    contradictions: dict[str, list[int]] = field(default_factory=dict)

    def values(self, key: str) -> list[Any]:
        """Values of a key that are not null, that which takes precedence first."""
        scopes = (self.own, self.shared) if self.own_first else (self.shared, self.own)
        return [scope[key] for scope in scopes if scope.get(key) is not None]

    def value(self, key: str) -> Any:
        """The value of a key that is used; None if it is missing."""
        found = self.values(key)
        if len(found) == 2 and not nearly_equal(found[1], found[0]):
            self.contradicted(key)
        return found[0] if found else None

    def number(self, key: str) -> float | None:
        """The number of a key that is used; None if it is missing."""
        value = self.value(key)
        return None if value is None else self.checked(key, value)

    def checked(self, key: str, value: Any) -> float:
        """A value as a finite number; an InputError names the key."""
        if not is_number(value) or not math.isfinite(value):
            raise InputError(f"{self.where} has {key} {short(value)}, expected a finite number")
        return float(value)

    def contradicted(self, key: str) -> None:
        """Record that a value of a key is not used."""
        seen = self.contradictions.setdefault(key, [])
        if not seen or seen[-1] != self.index:
            seen.append(self.index)


def view(
    file: Path,
    name: str,
    index: int,
    shared: Mapping[str, Any],
    own: Mapping[str, Any],
    own_first: bool,
    contradictions: dict[str, list[int]],
) -> View:
    """The view of a frame; ``name`` is that of its image."""
    return View(f"{file} (frame {index}, {name})", index, shared, own, own_first, contradictions)


def stated_size(view: View) -> tuple[int, int] | None:
    """Width and height that the file states; None if it does not.

    Raises
    ------
    InputError
        If one is missing or no whole number of pixels.
    """
    sides = {key: view.number(key) for key in ("w", "h")}
    if sides["w"] is None and sides["h"] is None:
        return None
    for key, side in sides.items():
        if side is None:
            raise InputError(f"{view.where} has a width or a height only, expected w and h or neither")
        if not 1 <= side <= _LARGEST_SIDE or side != int(side):
            raise InputError(
                f"{view.where} has {key} {side:g}, expected a whole number of pixels up to {_LARGEST_SIDE:,}"
            )
    return int(sides["w"] or 0), int(sides["h"] or 0)


def camera(view: View, width: int, height: int) -> Camera:
    """The camera of a view, of the size that its keys refer to.

    Raises
    ------
    InputError
        If a number is none, no camera can have it, or the model is not supported.
    """
    projection = _projection(view)
    if projection == "equirectangular":
        return _equirectangular(view, width, height)
    fx, fy = focal_lengths(view, width, height)
    cx, cy = _principal_point(view, width, height)
    model, coefficients = _distortion(view, projection)
    return Camera(width, height, fx, fy, cx, cy, model, coefficients)


def focal_lengths(view: View, width: int, height: int) -> tuple[float, float]:
    """Focal lengths along x and y in pixels; one that is missing equals the other.

    Three keys give one: ``fl_x``, ``x_fov`` in degrees and ``camera_angle_x`` in radians, and likewise for y. The first
    of these in the order of the program is used: fl_x of the file, then of the frame, then the angles of the frame,
    then of the file for nerfstudio, which reads only fl_x; x_fov, fl_x and camera_angle_x of the frame and then of the
    file for instant-ngp.

    Raises
    ------
    InputError
        If there is none, or no camera can have it.
    """
    fx, fy = (_focal_length(view, axis, side) for axis, side in (("x", width), ("y", height)))
    if fx is None and fy is None:
        raise InputError(f"{view.where} has no focal length, expected fl_x, camera_angle_x or x_fov")
    fx, fy = (fy if fx is None else fx), (fx if fy is None else fy)
    assert fx is not None and fy is not None  # noqa: PT018
    return fx, fy


def _focal_length(view: View, axis: str, side: int) -> float | None:
    """The focal length along an axis; None if no key gives it. Keys that give another one are recorded."""
    length, degrees, radians = f"fl_{axis}", f"{axis}_fov", f"camera_angle_{axis}"
    if view.own_first:
        order = [(scope, key) for scope in (view.own, view.shared) for key in (degrees, length, radians)]
    else:
        order = [(view.shared, length), (view.own, length)]
        order += [(scope, key) for scope in (view.own, view.shared) for key in (radians, degrees)]
    found: list[tuple[str, float]] = []
    for scope, key in order:
        if scope.get(key) is None:
            continue
        value = view.checked(key, scope[key])
        focal = value if key == length else _focal_of_angle(math.radians(value) if key == degrees else value, side)
        if not 1e-4 * side < focal < 1e4 * side:
            expected = (
                f"{1e-4 * side:g} to {1e4 * side:g} pixels" if key == length else "an angle from 0 to 180 degrees"
            )
            raise InputError(f"{view.where} has {key} {value:g}, expected that of a camera: {expected}")
        found.append((key, focal))
    for key, focal in found[1:]:
        if not nearly_equal(focal, found[0][1]):
            view.contradicted(key)
    return found[0][1] if found else None


def _focal_of_angle(angle: float, side: int) -> float:
    """Focal length in pixels of an angle of view in radians; 0 if no camera has that angle."""
    return 0.5 * side / math.tan(0.5 * angle) if 0 < angle < math.pi else 0.0


def _principal_point(view: View, width: int, height: int) -> tuple[float, float]:
    """Principal point in pixels, by default the center of the image."""
    point = []
    for key, side in (("cx", width), ("cy", height)):
        value = view.number(key)
        at = side / 2 if value is None else value
        if not -side <= at <= 2 * side:
            raise InputError(
                f"{view.where} has {key} {at:g}, expected a principal point near the image of {width}x{height} pixels"
            )
        point.append(at)
    return point[0], point[1]


def _projection(view: View) -> str:
    """Kind of projection, one of the values of ``PROJECTIONS``."""
    other = [key for key in _OTHER_LENSES if view.value(key) not in (None, False)]
    if other:
        raise InputError(f"{view.where} has {other[0]}, a lens that is not supported, expected a camera without it")
    name, fisheye = view.value("camera_model"), view.value("is_fisheye")
    if fisheye not in (None, True, False, 0, 1):
        raise InputError(f"{view.where} has is_fisheye {short(fisheye)}, expected true or false")
    if name is None:
        return "fisheye" if fisheye else "perspective"
    if not isinstance(name, str) or name not in PROJECTIONS:
        known = isinstance(name, str) and name in UNSUPPORTED
        raise InputError(
            f"{view.where} has camera_model {short(name)}{', which is not supported' if known else ''}, expected one "
            f"of {', '.join(PROJECTIONS)}"
        )
    found = PROJECTIONS[name]
    if fisheye is not None and bool(fisheye) != found.startswith("fisheye"):
        raise InputError(
            f"{view.where} has camera_model {name} and is_fisheye {str(bool(fisheye)).lower()}, expected the same "
            "projection of both"
        )
    return found


def _distortion(view: View, projection: str) -> tuple[str, tuple[float, ...]]:
    """COLMAP's name of the model of a projection, and its coefficients."""
    listed, named = _coefficients(view)
    if projection == "fisheye624":
        if listed is None or len(listed) != 12:
            found = "none" if listed is None else f"{len(listed)} of them"
            raise InputError(f"{view.where} has {found} in distortion_params, expected 12 numbers for FISHEYE624")
        return "RAD_TAN_THIN_PRISM_FISHEYE", listed
    if listed is not None and len(listed) != len(COEFFICIENTS):
        raise InputError(f"{view.where} has {len(listed)} distortion_params, expected 6: {', '.join(COEFFICIENTS)}")
    k1, k2, k3, k4, p1, p2 = named if listed is None else listed
    if projection == "fisheye":
        if (p1, p2) != (0, 0):
            raise InputError(f"{view.where} is a fisheye camera with p1 {p1:g} and p2 {p2:g}, expected 0 for both")
        return "OPENCV_FISHEYE", (k1, k2, k3, k4)
    if k4 != 0:
        raise InputError(
            f"{view.where} has k4 {k4:g}, expected 0 in a perspective camera: no model has a coefficient of the 8th "
            "power of the radius"
        )
    if k3 != 0:
        return "FULL_OPENCV", (k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
    return ("OPENCV", (k1, k2, p1, p2)) if any((k1, k2, p1, p2)) else ("PINHOLE", ())


def _coefficients(view: View) -> tuple[tuple[float, ...] | None, tuple[float, ...]]:
    """The list ``distortion_params`` if present, and the coefficients by name, 0 where missing.

    nerfstudio reads all of them from the file if it has any, else from the frame; instant-ngp each for itself.
    """
    keys = ("distortion_params", *COEFFICIENTS)
    own, shared = ({key: scope[key] for key in keys if scope.get(key) is not None} for scope in (view.own, view.shared))
    used = {**shared, **own} if view.own_first else (shared or own)
    for scope in (own, shared):
        for key in scope:
            if not nearly_equal(scope[key], used.get(key, 0)):
                view.contradicted(key)
    named = tuple(view.checked(key, used.get(key, 0.0)) for key in COEFFICIENTS)
    listed = used.get("distortion_params")
    if listed is None:
        return None, named
    if not isinstance(listed, list) or len(listed) > 12:
        raise InputError(f"{view.where} has distortion_params {short(listed)}, expected a list of 6 numbers")
    return tuple(view.checked("distortion_params", value) for value in listed), named


def _equirectangular(view: View, width: int, height: int) -> Camera:
    """A panorama of the whole sphere; nerfstudio's focal lengths are width / 2 and height, its center the image's."""
    expected = {"fl_x": width / 2, "fl_y": height, "cx": width / 2, "cy": height / 2}
    for key, value in expected.items():
        found = view.number(key)
        if found is not None and not nearly_equal(found, value):
            raise InputError(
                f"{view.where} has {key} {found:g}, expected {value:g}: a panorama of {width}x{height} pixels covers "
                "the whole sphere"
            )
    center = (width / 2, height / 2)
    return Camera(width, height, width / (2 * math.pi), height / math.pi, *center, "EQUIRECTANGULAR")
