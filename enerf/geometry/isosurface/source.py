"""The source of a mesh: a scalar field, its box, its iso value and the map to the coordinates of the user's files."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from enerf.core.types import ScalarField
from enerf.geometry.isosurface.sample_grid import Inside
from enerf.geometry.preview import cameras
from enerf.geometry.preview.cameras import Up, View
from enerf.geometry.sign_grid import SignGrid
from enerf.geometry.solid import Solid

Points = Float64[np.ndarray, "n 3"]
Box = Float64[np.ndarray, "2 3"]


def front_view(vertices: Points, size: int, up: Up = "y") -> View:
    """A view of all vertices from the front and slightly above, ``size`` pixels wide and high."""
    view = View((0.0, 0.0, 0.0), 1.0, width=size, height=size, up=up)
    return cameras.around(vertices.min(0), vertices.max(0), view=view)


@dataclass(frozen=True)
class Support:
    """Which parts of a surface were observed.

    Attributes
    ----------
    views
        Points in field coordinates to the number of depth maps whose surface is near them. Vertices near none are
        dropped: they close what no map sees.
    least
        Parts that have a smaller mean number are dropped.
    """

    views: ScalarField
    least: float | int


@dataclass(frozen=True)
class MeshSource:
    """A scalar field with all that is needed to extract, place and color its mesh.

    Attributes
    ----------
    name
        Name of the scene or shape.
    field
        Points in field coordinates to values, in the dtype and on the device of ``box``.
    box
        Region of the field to extract, in field coordinates.
    iso_value, inside, slope
        As in ``extract.ExtractionSettings``.
    description
        One sentence for the log: how the iso value was chosen, and units.
    points_at_once
        Suggested number of points in one call of the field.
    to_world, from_world
        Maps from field coordinates to those of the user's files (the world), and back.
    colors
        World points and normals to colors in [0, 1], or None.
    camera_counts
        World points to the number of training cameras that see them, or None.
    bounds
        Box in world coordinates to which the mesh is cropped, or None.
    frame
        Similarity from the world to an upright frame for pictures.
    view
        Vertices in that frame and an image height in pixels to the first view.
    swing
        Degrees by which pictures turn to each side; 0: all around.
    signs
        Cells of the box [−1, 1]³ that are wholly inside or outside of the shape that the field was fitted to, or None.
    solid
        Opens that shape itself, None if its file is not there or is another; or None.
    support
        Which parts of the surface were observed, or None: all are kept.
    file_name
        Name of the mesh file in the run's folder, if the user gives none.
    """

    name: str
    field: ScalarField
    box: Float[Tensor, "2 3"]
    iso_value: float
    inside: Inside
    description: str = ""
    slope: float | None = None
    points_at_once: int = 1 << 16
    to_world: Callable[[Points], Points] = np.copy
    from_world: Callable[[Points], Points] = np.copy
    colors: Callable[[Points, Points], Points] | None = None
    camera_counts: Callable[[Points], np.ndarray] | None = None
    bounds: Box | None = None
    frame: Float64[np.ndarray, "4 4"] = dataclasses.field(default_factory=lambda: np.eye(4))
    view: Callable[[Points, int], View] = front_view
    swing: float | int = 0.0
    signs: SignGrid | None = None
    solid: Callable[[], Solid | None] | None = None
    support: Support | None = None
    file_name: str = "mesh.ply"


@dataclass(frozen=True)
class FusionSettings:
    """How depth maps are fused.

    Attributes
    ----------
    resolution
        Cells of the lattice along the longest side of the box; the truncation is three of them or more.
    rays
        Number of pixels of all depth maps.
    between
        Number of cameras between each training view and the next.
    no_fill
        Leave open what the field places beyond the farthest bound.
    """

    resolution: int
    rays: int = 4_000_000
    between: int = 0
    no_fill: bool = False


@dataclass(frozen=True)
class MeshSourceSettings:
    """How the field of a run is opened for extraction.

    Attributes
    ----------
    level
        Iso value; None: chosen by the task's rule.
    box
        Where the surface is searched, in the coordinates of the user's files; None: everywhere.
    device, precision
        As the options say.
    source
        New place of the run's data, if it has moved; else empty.
    fusion
        Fuse depth maps in the place of the field; None: the field itself.
    """

    level: float | None = None
    box: Box | None = None
    device: str = "auto"
    precision: str = "fp32"
    source: str = ""
    fusion: FusionSettings | None = None
