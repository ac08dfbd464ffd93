"""How a scene is made from what its files say: the options that all formats share, and those of some."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enerf.datasets.scenes.posed_images import Points
from enerf.datasets.scenes.storage import UNBOUNDED, Limits

AUTOMATIC = -1  # the factor by which photographs are downsampled


@dataclass(frozen=True)
class SceneSettings:
    """Options of a scene.

    Attributes
    ----------
    factor
        By what width and height of the photographs are divided; 0 and 1: full size; −1: 8 for LLFF scenes, else as
        ``resized_files.automatic_factor``.
    llffhold, test_views
        Test views, see ``splits.choose``; ``llffhold`` is not for Blender scenes.
    ndc
        Whether forward-facing scenes use normalized device coordinates.
    spherify
        Normalize as for cameras around an object, even if they do not stand so.
    near, far
        Depths at which rays start and end, in units of the file; 0: by the scene. Not for LLFF scenes.
    white_bkgd
        Composite transparent images over white.
    keep_alpha
        Keep the alpha channel of transparent images, and composite them when they are used.
    pose_axes
        Axes in which the file's matrices are, one of ``poses.AXES``; None: those of the format.
    pose_check
        Whether to log a warning if the poses do not fit the photographs.
    half_res, testskip
        Blender: half of the resolution, every n-th test view.
    use_masks
        Whether pixels that masks exclude are left out.
    pixel_centers
        Position in its pixel of the ray without which a pixel is left out: 0.5 (the center) or 0 (the corner).
    depths
        Whether known depths, of points or depth maps, are read.
    exposures
        Whether exposures are read from the photographs' EXIF data.
    limits
        Where the photographs may be, see ``storage``.
    read_points
        Reads a PLY file of points, for ``transforms.json``; None leaves it unread.
    """

    factor: int = AUTOMATIC
    llffhold: int = 8
    test_views: str = ""
    ndc: bool = True
    spherify: bool = False
    near: float = 0.0
    far: float = 0.0
    white_bkgd: bool = False
    keep_alpha: bool = False
    pose_axes: str | None = None
    pose_check: bool = True
    half_res: bool = False
    testskip: int = 8
    use_masks: bool = True
    pixel_centers: float = 0.5
    depths: bool = False
    exposures: bool = False
    limits: Limits = UNBOUNDED
    read_points: Callable[[Path], Points] | None = None
