"""A scene: posed photographs and their cameras."""

from dataclasses import dataclass

from jaxtyping import Float, UInt8
from torch import Tensor

from enerf.core.types import Camera


@dataclass(frozen=True)
class Scene:
    """Posed photographs and their cameras, in scene coordinates: recentered and rescaled by the loader.

    Attributes
    ----------
    name
        The scene's folder name.
    images
        sRGB in [0, 1]. Images of 8 bits per channel are stored as bytes (value · 255), which
        ``datasets.scenes.pixels`` converts to floats on access. Four channels, RGBA with straight alpha, if some pixel
        is transparent and alpha was kept.
    c2w
        Camera-to-scene poses, OpenGL axes, orthonormal rotations.
    camera
        The camera, shared by all images.
    bounds
        Nearest and farthest depth in each view, in scene units.
    image_names
        File names, in the order of ``images``.
    train, test
        Indices into ``images``; disjoint.
    near, far
        Values of t where rays start and end: 0 and 1 if ``ndc``, scene units otherwise.
    ndc
        Whether the field is defined in normalized device coordinates (forward-facing scenes).
    forward_facing
        Whether all cameras face the same direction (LLFF) rather than inwards at an object.
    world_to_scene
        Homogeneous similarity from the file's (world) coordinates to scene coordinates.
    background
        Gray value that images with alpha are composited over in evaluation: 0 black, 1 white.
    """

    name: str
    images: Float[Tensor, "n h w c"] | UInt8[Tensor, "n h w c"]
    c2w: Float[Tensor, "n 3 4"]
    camera: Camera
    bounds: Float[Tensor, "n 2"]
    image_names: tuple[str, ...]
    train: tuple[int, ...]
    test: tuple[int, ...]
    near: float | int
    far: float | int
    ndc: bool
    forward_facing: bool
    world_to_scene: Float[Tensor, "4 4"]
    background: float | int = 0.0
