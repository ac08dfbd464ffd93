"""A table of cameras: directions of pixels, projection of points, for batches of pixels of several cameras.

Directions and points are in the camera's frame with OpenGL axes (x right, y up, looking down −z). Directions of
perspective models (PINHOLE, RADIAL, OPENCV, FULL_OPENCV and their special cases) have z = −1, so that ``t`` is the
depth along the optical axis. Those of all other models (fisheye, FOV, DIVISION, EUCM, EQUIRECTANGULAR), which may see
beyond 90° from the axis, are unit, so that ``t`` is the distance from the camera.

Some pixels have no ray: beyond the radius where a distortion is folded, or outside of the domain of a wide-angle model
(see ``undistortion``). Their direction is NaN, never one that is not projected to the pixel again; ``valid`` and
``image`` say which they are, so that they are neither drawn for training nor scored.

**Precision.** Computation is in float64 and rounded once to the requested dtype. In float64, directions are projected
to their pixel within 1e-9 pixels. Rounding to float32 moves the pixel of a direction by up to about 1e-7 times the
focal length or its distance from the principal point (6e-4 pixels for 6,000), and that of a position by half a unit in
the last place (2.4e-4 between 4,096 and 8,192). A table of one pinhole camera is computed in the requested dtype, as
``projections.pinhole_directions`` does.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, Int64, Num
from torch import Tensor

from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, projections, undistortion

WIDEST_PINHOLE = math.radians(60)  # angle from the axis to the edge of the image in ``undistorted``
_LARGEST = 1e9  # coefficient, far above those of lenses: its polynomials do not overflow
_CHUNK = 1 << 18  # pixels of an image that are processed at a time
_PER_EDGE = 17  # points of an image's edge in ``border``
_ON_AXIS = 128  # points of each half axis of the image at which ``undistorted`` looks


def check(camera: Camera, where: str) -> None:
    """Check the values of a camera; ``where`` (a file and a camera or view) begins the message.

    Raises
    ------
    InputError
        If the model is unknown, the number of coefficients is not that of the model, a value is not finite, absurd or
        impossible, or the principal point is outside of the image by more than the image's size.
    """
    model = camera_models.model_of(camera.model, where)
    if camera.width < 1 or camera.height < 1:
        raise InputError(
            f"{where}: found an image of {camera.width} x {camera.height} pixels, expected at least 1 x 1 pixels"
        )
    for name, focal in (("fx", camera.fx), ("fy", camera.fy)):
        if not (math.isfinite(focal) and focal > 0):
            raise InputError(f"{where}: found the focal length {name} = {focal:g}, expected a finite number above 0")
    for name, at, size in (("cx", camera.cx, camera.width), ("cy", camera.cy, camera.height)):
        if not -size <= at <= 2 * size:
            raise InputError(
                f"{where}: found the principal point {name} = {at:g} in an image of {camera.width} x {camera.height} "
                f"pixels, expected a number between {-size} and {2 * size}"
            )
    names, values = model.coefficients, camera.coefficients
    if len(values) != len(names):
        raise InputError(
            f"{where}: found {len(values)} distortion coefficients of the camera model {model.name}, expected "
            f"{len(names)}{': ' * bool(names)}{', '.join(names)}"
        )
    for name, value in zip(names, values, strict=True):
        if not abs(value) <= _LARGEST:
            raise InputError(
                f"{where}: found the distortion coefficient {name} = {value:g}, expected a number between "
                f"{-_LARGEST:g} and {_LARGEST:g}"
            )
    if model.name == "EUCM" and not (0 <= values[0] <= 1 and values[1] > 0):
        raise InputError(
            f"{where}: found an EUCM camera of alpha = {values[0]:g} and beta = {values[1]:g}, expected alpha between "
            "0 and 1, beta above 0"
        )
    if model.name == "FOV" and abs(values[0]) >= math.pi:
        raise InputError(f"{where}: found a FOV camera of omega = {values[0]:g}, expected radians below pi")


def check_views(cameras: Sequence[Camera], names: Sequence[str], source: Path) -> None:
    """Check the camera of each view; ``source`` and the names of the views begin messages. Raises as ``check``."""
    first: dict[Camera, str] = {}
    for camera, name in zip(cameras, names, strict=True):
        if first.setdefault(camera, name) is name:
            check(camera, f"{source}: camera of {name}")


@dataclass(frozen=True)
class _Group:
    """Rows of one family: their coefficients, and the tables that invert them if there is no closed form.

    ``row`` maps rows of the table to rows of the group (0 for those of other families), ``member`` says which are its.
    """

    family: str
    member: Bool[Tensor, " r"]
    row: Int64[Tensor, " r"]
    coefficients: Float[Tensor, "c n"]
    inverse: undistortion.Inverse | None

    def to(self, device: torch.device | str) -> "_Group":
        member, row, coefficients = (part.to(device) for part in (self.member, self.row, self.coefficients))
        return _Group(self.family, member, row, coefficients, self.inverse and self.inverse.to(device))

    @property
    def is_one_row(self) -> bool:
        return self.coefficients.shape[1] == 1

    def coefficients_of(self, row: Int64[Tensor, " b"]) -> tuple[Tensor, ...]:
        """Coefficients of each point, given its row of the table."""
        if self.is_one_row:
            return tuple(self.coefficients[:, 0])
        local = self.row.index_select(0, row)
        return tuple(part.index_select(0, local) for part in self.coefficients)

    def limit_of(self, row: Int64[Tensor, " b"]) -> Tensor | None:
        """Radius of the domain of each point's distortion."""
        if self.inverse is None:
            return None
        return self.inverse.limit[0] if self.is_one_row else self.inverse.limit[self.row.index_select(0, row)]

    def unproject(self, row: Int64[Tensor, " b"], u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Directions with OpenCV's axes of points of the image plane, and whether they were found."""
        if self.inverse is None:
            return projections.unproject(self.family, u, v, self.coefficients_of(row))
        local = None if self.is_one_row else self.row.index_select(0, row)
        a, b, found = undistortion.undistort(self.inverse, local, u, v)
        return *projections.from_plane(self.family, a, b), found


class Cameras:
    """The cameras of the views of a scene, on a device; equal cameras are one row of the table.

    Attributes
    ----------
    rows
        The different cameras.
    row
        Row of each view.
    intrinsics
        fx, fy, cx, cy of each row.
    """

    rows: tuple[Camera, ...]
    row: Int64[Tensor, " v"]
    intrinsics: Float[Tensor, "4 r"]

    def __init__(self, cameras: Sequence[Camera], device: torch.device | str = "cpu") -> None:
        """Table of one camera per view, of which there is at least one; values must have passed ``check``."""
        numbers: dict[Camera, int] = {}
        row = [numbers.setdefault(camera, len(numbers)) for camera in cameras]
        self.rows = tuple(numbers)
        self.row = torch.tensor(row, dtype=torch.int64, device=device)
        values = [[float(value) for value in (c.fx, c.fy, c.cx, c.cy)] for c in self.rows]
        self.intrinsics = torch.tensor(values, dtype=torch.float64, device=device).T.contiguous()
        families = [projections.family_of(camera.model) for camera in self.rows]
        self._groups = tuple(_group(self.rows, families, family).to(device) for family in dict.fromkeys(families))
        self._row_of_view = tuple(row)

    def __len__(self) -> int:
        return len(self._row_of_view)

    @property
    def device(self) -> torch.device:
        """The device of the table and of all results."""
        return self.row.device

    @property
    def is_single(self) -> bool:
        """Whether all views have the same camera."""
        return len(self.rows) == 1

    @property
    def is_plain(self) -> bool:
        """Whether all cameras are pinholes."""
        return [group.family for group in self._groups] == ["PINHOLE"]

    @property
    def sizes(self) -> Int64[Tensor, "v 2"]:
        """Width and height of each view's image."""
        sizes = torch.tensor([[camera.width, camera.height] for camera in self.rows], device=self.device)
        return sizes[self.row]

    def camera(self, view: int) -> Camera:
        """The camera of a view."""
        return self.rows[self._row_of_view[view]]

    def to(self, device: torch.device | str) -> "Cameras":
        """The same table on a device."""
        moved = Cameras.__new__(Cameras)
        moved.rows, moved._row_of_view = self.rows, self._row_of_view
        moved.row, moved.intrinsics = self.row.to(device), self.intrinsics.to(device)
        moved._groups = tuple(group.to(device) for group in self._groups)
        return moved

    def directions(
        self,
        view: Int[Tensor, "*b"],
        x: Num[Tensor, "*b"],
        y: Num[Tensor, "*b"],
        pixel_centers: float | int = 0.5,
        dtype: torch.dtype = torch.float32,
    ) -> Float[Tensor, "*b 3"]:
        """Directions of pixels in the frames of their views; NaN where a pixel has no ray.

        Parameters
        ----------
        view
            Index of the view of each pixel.
        x, y
            Column and row, which may be fractions.
        pixel_centers
            Position of the ray in its pixel: 0.5 (the center) or 0 (the corner).
        dtype
            Type of the result.
        """
        x, y = x.to(self.device), y.to(self.device)
        if self.is_single and self.is_plain:
            return projections.pinhole_directions(self.rows[0], x.to(dtype), y.to(dtype), pixel_centers)
        row, (fx, fy, cx, cy) = self._intrinsics_of(view)
        u = (x.double().reshape(-1) + pixel_centers - cx) / fx
        v = (y.double().reshape(-1) + pixel_centers - cy) / fy
        right, down, forward, found = self._merged(row, lambda group: group.unproject(row, u, v))
        found_directions = torch.stack([right, -down, -forward], -1)
        if not self.is_plain:
            found_directions = torch.where(found[:, None], found_directions, math.nan)
        return found_directions.to(dtype).reshape(*x.shape, 3)

    def valid(
        self, view: Int[Tensor, "*b"], x: Num[Tensor, "*b"], y: Num[Tensor, "*b"], pixel_centers: float | int = 0.5
    ) -> Bool[Tensor, "*b"]:
        """Whether pixels have a ray."""
        return ~self.directions(view, x, y, pixel_centers)[..., 2].isnan()

    def project(
        self, view: Int[Tensor, "*b"], points: Float[Tensor, "*b 3"]
    ) -> tuple[Float[Tensor, "*b 2"], Bool[Tensor, "*b"]]:
        """Positions (x, y) of points in the images, in pixels from the top-left corner, and whether they are projected.

        The points are in the frame of the view's camera. A point is not projected if it is behind a perspective camera
        or in a direction that the model does not cover; its position is meaningless. A position may lie outside of the
        image. The dtype is that of the points.
        """
        row, (fx, fy, cx, cy) = self._intrinsics_of(view)
        right, up, back = points.to(self.device).double().reshape(-1, 3).unbind(-1)

        def projected(group: _Group) -> tuple[Tensor, ...]:
            c, limit = group.coefficients_of(row), group.limit_of(row)
            return projections.project(group.family, right, -up, -back, c, limit)

        u, v, valid = self._merged(row, projected)
        pixels = torch.stack([fx * u + cx, fy * v + cy], -1).to(points.dtype)
        return pixels.reshape(*points.shape[:-1], 2), valid.reshape(points.shape[:-1])

    def image(
        self, view: int, pixel_centers: float | int = 0.5, dtype: torch.dtype = torch.float32
    ) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:
        """Directions of all height · width pixels of a view, flat in row-major order, and whether they have a ray.

        For rendering: a pixel without a ray has the direction of the optical axis, which is finite. Nothing is cached.
        """
        camera = self.camera(view)
        parts = []
        for index in torch.arange(camera.height * camera.width, device=self.device).split(_CHUNK):
            views = torch.full_like(index, view)
            parts.append(self.directions(views, index % camera.width, index // camera.width, pixel_centers, dtype))
        directions = torch.cat(parts)
        found = ~directions[:, 2].isnan()
        axis = torch.zeros(3, dtype=dtype, device=self.device)
        axis[2] = -1
        return torch.where(found[:, None], directions, axis), found

    def has_ray(self, view: int, pixel_centers: float | int = 0.5) -> Bool[Tensor, "h w"]:
        """Which pixels of a view have a ray."""
        camera = self.camera(view)
        if projections.family_of(camera.model) == "PINHOLE":
            return torch.ones(camera.height, camera.width, dtype=torch.bool, device=self.device)
        return self.image(view, pixel_centers)[1].reshape(camera.height, camera.width)

    def border(self) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"], Int64[Tensor, " k"]]:
        """View, x and y of points on the outlines of all images that have a ray: corners, and points of edges between.

        Positions are counted from the corner of the first pixel. For pinholes the corners alone, whose rays bound all
        others. Of a view without rays on its outline, such as that of a fisheye whose picture is a circle within the
        image, points of a grid that have one.
        """
        steps = torch.tensor([0, 1]) if self.is_plain else torch.linspace(0, 1, _PER_EDGE)
        across, down = (part.flatten() for part in torch.meshgrid(steps, steps, indexing="xy"))
        outer = (across == 0) | (across == 1) | (down == 0) | (down == 1)
        view, x, y = self._at(across[outer], down[outer])
        if self.is_plain:
            return view, x, y
        found = self.valid(view, x, y, 0)
        view, x, y = view[found], x[found], y[found]
        blind = torch.bincount(view, minlength=len(self)) == 0
        if blind.any():
            inner = self._at(across[~outer], down[~outer])
            chosen = blind[inner[0]] & self.valid(*inner, 0)
            view, x, y = (torch.cat([a, b[chosen]]) for a, b in zip((view, x, y), inner, strict=True))
        return view, x, y

    def _at(
        self, across: Float[Tensor, " n"] | Int[Tensor, " n"], down: Float[Tensor, " n"] | Int[Tensor, " n"]
    ) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " k"], Int64[Tensor, " k"]]:
        """View, x and y of positions in the images of all views, given as parts of width and height."""
        parts = []
        for camera in self.rows:
            xy = torch.stack([across * camera.width, down * camera.height]).round().long()
            parts.append(xy.to(self.device))
        x, y = torch.stack(parts, 1)[:, self.row].flatten(1)
        return torch.arange(len(self), device=self.device).repeat_interleave(len(across)), x, y

    def _intrinsics_of(self, view: Int[Tensor, "*b"]) -> tuple[Int64[Tensor, " b"], Sequence[Tensor]]:
        """Row, and fx, fy, cx, cy of each pixel, flat; scalars if there is one camera."""
        flat = view.to(self.device, torch.int64).reshape(-1)
        if self.is_single:
            return torch.zeros_like(flat), list(self.intrinsics[:, 0])
        row = self.row.index_select(0, flat)
        return row, [part.index_select(0, row) for part in self.intrinsics]

    def _merged(self, row: Int64[Tensor, " b"], function: Callable[[_Group], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Results of the function for the group of each row: computed for all points by each, then selected."""
        first, *others = self._groups
        merged = function(first)
        for group in others:
            member = group.member.index_select(0, row)
            merged = tuple(torch.where(member, new, old) for new, old in zip(function(group), merged, strict=True))
        return merged


def undistorted(camera: Camera) -> Camera:
    """The pinhole camera of about the same field of view, for videos, NDC and previews; a pinhole is unchanged.

    Size, principal point and the ratio of the focal lengths are kept. The focal lengths are the least with which the
    middles of the image's edges see no further than the given camera does in the same direction from the principal
    point, nor further than 60° from the optical axis.
    """
    if projections.family_of(camera.model) == "PINHOLE":
        return replace(camera, model="PINHOLE")
    table = Cameras([camera])
    share = torch.linspace(0, 1, _ON_AXIS + 1, dtype=torch.float64)[1:]
    scales = []
    for length, step_x, step_y, focal in (
        (camera.cx, -1, 0, camera.fx),
        (camera.width - camera.cx, 1, 0, camera.fx),
        (camera.cy, 0, -1, camera.fy),
        (camera.height - camera.cy, 0, 1, camera.fy),
    ):
        if length <= 0:  # the principal point is beyond this edge
            continue
        x, y = camera.cx + share * length * step_x, camera.cy + share * length * step_y
        seen = table.directions(torch.zeros(_ON_AXIS, dtype=torch.int64), x, y, 0, torch.float64)
        angle = torch.atan2(seen[:, :2].norm(dim=-1), -seen[:, 2])
        widest = min(float(angle.nan_to_num(0.0).max()), WIDEST_PINHOLE)
        if widest > 0:
            scales.append(length / (focal * math.tan(widest)))
    scale = max(scales, default=1.0)
    return replace(camera, fx=camera.fx * scale, fy=camera.fy * scale, model="PINHOLE", coefficients=())


def reference(cameras: Cameras) -> Camera:
    """The pinhole camera that stands for a table: a single camera's own, or one of median values.

    Its size is the most frequent one of the views (of several, the first view's). The focal lengths and the principal
    point are medians over the views of these values as parts of the image's size, after ``undistorted``.
    """
    plain = [undistorted(camera) for camera in cameras.rows]
    if cameras.is_single:
        return plain[0]
    views = [plain[row] for row in cameras.row.tolist()]
    (width, height), _ = Counter((camera.width, camera.height) for camera in views).most_common(1)[0]

    def median(values: Sequence[float], sizes: Sequence[int], size: int) -> float:
        """The lower median of values by sizes, for an image of another size."""
        order = sorted(range(len(values)), key=lambda i: values[i] / sizes[i])
        usual = statistics.median_low(range(len(order)))
        value, own = values[order[usual]], sizes[order[usual]]
        return value if own == size else value / own * size

    widths, heights = [camera.width for camera in views], [camera.height for camera in views]
    return Camera(
        width,
        height,
        median([camera.fx for camera in views], widths, width),
        median([camera.fy for camera in views], heights, height),
        median([camera.cx for camera in views], widths, width),
        median([camera.cy for camera in views], heights, height),
    )


def _group(rows: Sequence[Camera], families: Sequence[str], family: str) -> _Group:
    """The rows of a family."""
    member = torch.tensor([name == family for name in families])
    own = [camera for camera, name in zip(rows, families, strict=True) if name == family]
    values = [projections.family_coefficients(camera.model, camera.coefficients) for camera in own]
    coefficients = torch.tensor(values, dtype=torch.float64).reshape(len(own), -1)
    inverse = None
    if family in projections.DISTORTED:
        reach = torch.tensor([_reach(camera) for camera in own], dtype=torch.float64)
        inverse = undistortion.inverse_of(family, coefficients, reach)
    row = (member.cumsum(0) - 1).clamp(min=0) * member
    return _Group(family, member, row, coefficients.T.contiguous(), inverse)


def _reach(camera: Camera) -> float:
    """Distance in the image plane from the optical axis to the farthest corner of the image."""
    across = max(abs(camera.cx), abs(camera.width - camera.cx)) / camera.fx
    return math.hypot(across, max(abs(camera.cy), abs(camera.height - camera.cy)) / camera.fy)
