"""Cameras of all models, with coefficients like those of real lenses."""

from enerf.core.types import Camera
from enerf.datasets.scenes.camera_models import MODELS, camera_from_parameters

COEFFICIENTS: dict[str, tuple[float, ...]] = {
    "SIMPLE_RADIAL": (-0.1,),
    "RADIAL": (-0.2, 0.05),
    "OPENCV": (-0.2, 0.05, 0.003, -0.004),
    "OPENCV_FISHEYE": (0.05, -0.01, 0.003, -0.0005),
    "FULL_OPENCV": (-0.2, 0.05, 0.003, -0.004, 0.01, 0.05, 0.02, 0.004),
    "FOV": (0.9,),
    "SIMPLE_RADIAL_FISHEYE": (0.05,),
    "RADIAL_FISHEYE": (0.05, -0.01),
    "THIN_PRISM_FISHEYE": (0.05, -0.01, 0.002, -0.003, 0.003, -0.0005, 0.004, -0.002),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        *(0.3, -0.2, 0.1, -0.03, 0.004, -0.0003),
        *(0.002, -0.003, 0.004, 0.0005, 0.003, -0.0004),
    ),
    "SIMPLE_DIVISION": (-0.2,),
    "DIVISION": (0.1,),
    "EUCM": (0.6, 1.1),
}
WIDTH, HEIGHT = 1000, 800


def parameters(model: str) -> tuple[float, ...]:
    """Parameters of a camera of 1000 x 800 pixels, in COLMAP's order."""
    if model == "EQUIRECTANGULAR":
        return float(WIDTH), float(HEIGHT)
    focal = (520.0,) if MODELS[model].has_one_focal_length else (520.0, 490.0)
    return (*focal, 510.0, 395.0, *COEFFICIENTS.get(model, ()))


def camera(model: str) -> Camera:
    return camera_from_parameters(model, WIDTH, HEIGHT, parameters(model))


ALL = {model: camera(model) for model in MODELS}
