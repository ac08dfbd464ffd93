"""The camera models of COLMAP: their names, numbers and parameters, and conversion to and from ``Camera``.

Source: COLMAP, Camera Models (https://colmap.github.io/cameras.html). The formulas are in ``projections``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from enerf.core.errors import InputError, shown
from enerf.core.types import Camera

_INTRINSICS = ("f", "fx", "fy", "cx", "cy", "w", "h")


@dataclass(frozen=True)
class Model:
    """A camera model.

    Attributes
    ----------
    name
        COLMAP's name, in capitals.
    colmap_id
        COLMAP's number, as binary files write it.
    parameters
        Names of the parameters in COLMAP's order: focal lengths, principal point, distortion coefficients.
    """

    name: str
    colmap_id: int
    parameters: tuple[str, ...]

    @property
    def coefficients(self) -> tuple[str, ...]:
        """Names of the distortion coefficients: the parameters without focal lengths and principal point.

        >>> MODELS["RADIAL"].coefficients
        ('k1', 'k2')
        """
        return tuple(name for name in self.parameters if name not in _INTRINSICS)

    @property
    def has_one_focal_length(self) -> bool:
        """Whether fx and fy are one parameter."""
        return self.parameters[0] == "f"


_PARAMETERS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "OPENCV_FISHEYE": "fx fy cx cy k1 k2 k3 k4",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
    "FOV": "fx fy cx cy omega",
    "SIMPLE_RADIAL_FISHEYE": "f cx cy k",
    "RADIAL_FISHEYE": "f cx cy k1 k2",
    "THIN_PRISM_FISHEYE": "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1",
    "RAD_TAN_THIN_PRISM_FISHEYE": "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3",
    "SIMPLE_DIVISION": "f cx cy k",
    "DIVISION": "fx fy cx cy k",
    "SIMPLE_FISHEYE": "f cx cy",
    "FISHEYE": "fx fy cx cy",
    "EUCM": "fx fy cx cy alpha beta",
    "EQUIRECTANGULAR": "w h",
}  # in the order of COLMAP's numbers
MODELS: dict[str, Model] = {
    name: Model(name, number, tuple(names.split())) for number, (name, names) in enumerate(_PARAMETERS.items())
}


def model_of(name: str, where: str = "camera") -> Model:
    """The model of a name; ``where`` (a file and a camera) begins the message.

    Raises
    ------
    InputError
        If there is none.
    """
    if name not in MODELS:
        raise InputError(f"{where}: found the camera model {shown(name)}, expected one of {', '.join(MODELS)}")
    return MODELS[name]


def camera_from_parameters(
    model: str, width: int, height: int, parameters: Sequence[float | int], where: str = "camera"
) -> Camera:
    """The camera of a named model with parameters in COLMAP's order; values are not checked (see ``cameras.check``).

    The parameters of EQUIRECTANGULAR are the image's size: fx = width / 2π, fy = height / π, and the principal point is
    the image's center. ``where`` (a file and a camera) begins the message of an error.

    Raises
    ------
    InputError
        If the model is unknown or has another number of parameters, or those of EQUIRECTANGULAR are not the image's
        size.

    >>> camera_from_parameters("SIMPLE_RADIAL", 8, 6, (7.0, 4.0, 3.0, -0.1))
    Camera(width=8, height=6, fx=7.0, fy=7.0, cx=4.0, cy=3.0, model='SIMPLE_RADIAL', coefficients=(-0.1,))
    """
    names = model_of(model, where).parameters
    if len(parameters) != len(names):
        raise InputError(
            f"{where}: found {len(parameters)} parameters of the camera model {model}, expected {len(names)}: "
            f"{', '.join(names)}"
        )
    values = dict(zip(names, map(float, parameters), strict=True))
    if model == "EQUIRECTANGULAR":
        if (values["w"], values["h"]) != (width, height):
            raise InputError(
                f"{where}: found an EQUIRECTANGULAR camera of {values['w']:g} x {values['h']:g} pixels, expected the "
                f"size of the image, {width} x {height}"
            )
        return Camera(width, height, width / (2 * math.pi), height / math.pi, width / 2, height / 2, model)
    fx, fy = (values["f"],) * 2 if "f" in values else (values["fx"], values["fy"])
    coefficients = tuple(values[name] for name in MODELS[model].coefficients)
    return Camera(width, height, fx, fy, values["cx"], values["cy"], model, coefficients)


def parameters_of(camera: Camera, where: str = "camera") -> tuple[float, ...]:
    """Parameters of a camera in COLMAP's order, the inverse of ``camera_from_parameters``.

    Raises
    ------
    InputError
        If the model has one focal length and the camera two different ones.

    >>> parameters_of(Camera(8, 6, 7.0, 7.0, 4.0, 3.0, "SIMPLE_RADIAL", (-0.1,)))
    (7.0, 4.0, 3.0, -0.1)
    """
    model = model_of(camera.model, where)
    if camera.model == "EQUIRECTANGULAR":
        return float(camera.width), float(camera.height)
    if model.has_one_focal_length and camera.fx != camera.fy:
        raise InputError(
            f"{where}: found focal lengths {camera.fx:g} and {camera.fy:g} of a {model.name} camera, expected one"
        )
    focal = (camera.fx,) if model.has_one_focal_length else (camera.fx, camera.fy)
    return tuple(float(value) for value in (*focal, camera.cx, camera.cy, *camera.coefficients))


def same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two sizes, width and height, have the same aspect ratio, within 1 % or a pixel.

    >>> same_shape((4000, 3000), (500, 373)), same_shape((4000, 3000), (3000, 4000))
    (True, False)
    """
    return abs(a[0] * b[1] - a[1] * b[0]) <= max(0.01 * a[1] * b[0], *a, *b)


def of_size(camera: Camera, width: int, height: int) -> Camera:
    """Camera of the same image at another size, with the same field of view."""
    across, down = width / camera.width, height / camera.height
    return replace(
        camera,
        width=width,
        height=height,
        fx=camera.fx * across,
        fy=camera.fy * down,
        cx=camera.cx * across,
        cy=camera.cy * down,
    )


def resized(camera: Camera, factor: float | int) -> Camera:
    """Camera of the image downsampled by ``factor`` (above 0), with the same field of view.

    Width and height are rounded down, to at least one pixel; the focal lengths are scaled by the rounded ratio.

    >>> resized(Camera(504, 378, 400.0, 400.0, 252.0, 189.0), 2).width
    252
    """
    return of_size(camera, max(1, int(camera.width / factor)), max(1, int(camera.height / factor)))
