"""A scene: posed photographs and their cameras."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

from enerf.core.types import Camera
from enerf.datasets.scenes import storage
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.packed_images import IndexedImages
from enerf.datasets.scenes.sparse_depths import SparseDepths


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
        is transparent and alpha was kept. ``PackedImages`` if they differ in size or are in a mapped file,
        ``OnDemandImages`` if neither memory nor disk holds them (``datasets.scenes.storage``).
    c2w
        Camera-to-scene poses, OpenGL axes, orthonormal rotations.
    camera
        A pinhole camera that stands for all: that of videos and previews, whose frustum NDC refer to, and of every view
        if ``view_cameras`` is None.
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
    split_rule
        How the test views were chosen.
    factor
        By what width and height of the photographs were divided.
    view_cameras
        Camera of each view, if they are not all ``camera``.
    masks
        Pixels of each view that are used, in training and in evaluation, of the sizes of ``images``; None: all.
    depths
        Known depths at positions of the images; None if there are none, or they were not asked for.
    exposures
        How much light each photograph took in, in stops, by its EXIF data, NaN where that is unknown; None if it is not
        known of any, or was not asked for.
    """

    name: str
    images: Float[Tensor, "n h w c"] | UInt8[Tensor, "n h w c"] | IndexedImages
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
    split_rule: str = ""
    factor: int = 1
    view_cameras: Cameras | None = None
    masks: Bool[Tensor, "n h w 1"] | IndexedImages | None = None
    depths: SparseDepths | None = None
    exposures: Float64[Tensor, " n"] | None = None

    @cached_property
    def cameras(self) -> Cameras:
        """Camera of each view, on the device of the poses."""
        found = self.view_cameras or Cameras([self.camera] * len(self.c2w))
        return found.to(self.c2w.device)

    @cached_property
    def is_large(self) -> bool:
        """Whether the decoded photographs exceed 2 GiB at 3 bytes a pixel: then no work should read all of them."""
        pixels = sum(height * width for height, width in map(self.size, range(len(self.c2w))))
        return 3 * pixels > storage.IN_MEMORY

    @property
    def has_alpha(self) -> bool:
        """Whether the photographs have an alpha channel."""
        return (self.images.shape[-1] if isinstance(self.images, Tensor) else self.images.channels) == 4

    def size(self, view: int) -> tuple[int, int]:
        """Height and width of the image of a view."""
        if isinstance(self.images, Tensor):
            return self.images.shape[1], self.images.shape[2]
        return self.images.size(view)

    def to(self, device: torch.device) -> "Scene":
        """Return the scene with its tensors on a device; ``world_to_scene`` stays on the CPU.

        Images and masks that would take more than half of a GPU's free memory stay where they are.
        """
        masks = None if self.masks is None else storage.to_device(self.masks, device)
        return replace(
            self,
            images=storage.to_device(self.images, device),
            c2w=self.c2w.to(device),
            bounds=self.bounds.to(device),
            view_cameras=None if self.view_cameras is None else self.view_cameras.to(device),
            masks=masks,
            depths=None if self.depths is None else self.depths.to(device),
        )
