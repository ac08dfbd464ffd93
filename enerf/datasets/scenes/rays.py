"""Rays of cameras and pixels, and their conversion to normalized device coordinates (NDC).

Vocabulary
----------
- **pixel** (x, y): column x and row y, counted from the top-left corner.
- **directions** have z = −1 in the camera's frame, so ``t`` is the depth along the optical axis; they are not
  unit. ``viewdirs`` are, and are taken before NDC.
- **NDC**, normalized device coordinates: a projective map of scene space beyond the plane z = −near, inside the
  frustum of a reference camera at the origin that looks down −z, to the cube [−1, 1]³. The plane is mapped to z = −1,
  infinity to z = 1, and the edges of the reference camera's image to −1 and 1: if its principal point is not the
  image's center, the frustum is sheared. It is a pinhole; rays of other cameras may have any directions down −z.

Source: Mildenhall et al., NeRF (2020), appendix C.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.core.types import Camera, Rays
from enerf.datasets.scenes.cameras import Cameras

_ROUNDING = 1e-12  # of a principal point, as a part of the image's size


def through_pixels(
    camera: Camera,
    c2w: Float[Tensor, "*b 3 4"],
    x: Int[Tensor, "*b"],
    y: Int[Tensor, "*b"],
    *,
    near: float | int,
    far: float | int,
    pixel_centers: float | int = 0.5,
) -> Rays:
    """Scene-space rays through pixels of one camera: ``of_views`` with one pose per pixel."""
    cameras, view = Cameras([camera], c2w.device), torch.zeros_like(x)
    return of_views(cameras, view, c2w, x, y, near=near, far=far, pixel_centers=pixel_centers)


def of_views(
    cameras: Cameras,
    view: Int[Tensor, "*b"],
    c2w: Float[Tensor, "*b 3 4"],
    x: Int[Tensor, "*b"],
    y: Int[Tensor, "*b"],
    *,
    near: float | int,
    far: float | int,
    pixel_centers: float | int = 0.5,
) -> Rays:
    """Scene-space rays through pixels, with a view and a pose per pixel; dtype and device are those of the poses.

    Directions are NaN where a camera has no ray, see ``cameras``. ``pixel_centers`` is the position of the ray in its
    pixel: 0.5 (the center) or 0 (the corner, as in nerf-pytorch).
    """
    in_camera = cameras.directions(view, x, y, pixel_centers, c2w.dtype)
    return posed(in_camera, c2w, near=near, far=far)


def posed(
    in_camera: Float[Tensor, "*b 3"], c2w: Float[Tensor, "*b 3 4"], *, near: float | int, far: float | int
) -> Rays:
    """Scene-space rays with the given directions in the frames of their cameras, one pose per ray."""
    directions = (in_camera[..., None, :] * c2w[..., :3]).sum(-1)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    along = in_camera[..., 0]
    return Rays(c2w[..., 3], directions, viewdirs, torch.full_like(along, near), torch.full_like(along, far))


def of_image(
    camera: Camera,
    c2w: Float[Tensor, "3 4"],
    near: float | int,
    far: float | int,
    pixel_centers: float | int = 0.5,
) -> Rays:
    """The height · width rays of a whole image, flat in row-major order.

    A pixel without a ray, of a strongly distorted camera, has that of the optical axis.
    """
    in_camera, _ = Cameras([camera], c2w.device).image(0, pixel_centers, c2w.dtype)
    return posed(in_camera, c2w.expand(len(in_camera), 3, 4), near=near, far=far)


def to_ndc(rays: Rays, camera: Camera, near: float | int = 1.0) -> Rays:
    """Rays in normalized device coordinates; ``viewdirs`` are unchanged.

    Origins are moved to the plane z = −``near``; t = 0 there and t = 1 at infinity. Points on a scene ray are mapped to
    points on its NDC ray. Needs rays with a negative z direction (``all_forward``): others do not meet the plane.
    """
    shift = -(near + rays.origins[..., 2]) / rays.directions[..., 2]
    origins = rays.origins + shift[..., None] * rays.directions
    (ox, oy, oz), (dx, dy, dz) = origins.unbind(-1), rays.directions.unbind(-1)
    x_scale, y_scale = -2.0 * camera.fx / camera.width, -2.0 * camera.fy / camera.height
    ndc_origins = point_to_ndc(origins, camera, near)
    ndc_directions = torch.stack([x_scale * (dx / dz - ox / oz), y_scale * (dy / dz - oy / oz), -2.0 * near / oz], -1)
    zeros = torch.zeros_like(ox)
    return Rays(ndc_origins, ndc_directions, rays.viewdirs, zeros, torch.ones_like(ox))


def t_in_ndc(rays: Rays, t: Float[Tensor, "*b"], near: float | int = 1.0) -> Float[Tensor, "*b"]:
    """The t along the rays of ``to_ndc`` of the points at t along scene-space rays: 0 at the near plane, 1 at infinity.

    It depends on the depth of the points alone.

    >>> down = torch.tensor([0.0, 0.0, -1.0])
    >>> t_in_ndc(Rays(torch.zeros(3), down, down, torch.tensor(0.0), torch.tensor(9.0)), torch.tensor(4.0)).item()
    0.75
    """
    return 1.0 + near / (rays.origins[..., 2] + t * rays.directions[..., 2])


def point_to_ndc(points: Float[Tensor, "*b 3"], camera: Camera, near: float | int = 1.0) -> Float[Tensor, "*b 3"]:
    """Normalized device coordinates of scene points with z < 0 (NeRF, appendix C, equation 8).

    >>> point_to_ndc(torch.tensor([[0.0, 0.0, -1.0], [1.0, 0.0, -2.0]]), Camera(4, 4, 4, 4, 2, 2)).tolist()
    [[0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]
    """
    x, y, z = points.unbind(-1)
    x_scale, y_scale = -2.0 * camera.fx / camera.width, -2.0 * camera.fy / camera.height
    x_ndc, y_ndc = x_scale * x / z, y_scale * y / z
    x_axis, y_axis = ndc_shear(camera)
    x_ndc, y_ndc = x_ndc + x_axis if x_axis else x_ndc, y_ndc + y_axis if y_axis else y_ndc
    return torch.stack([x_ndc, y_ndc, 1.0 + 2.0 * near / z], -1)


def point_from_ndc(points: Float[Tensor, "*b 3"], camera: Camera, near: float | int = 1.0) -> Float[Tensor, "*b 3"]:
    """Scene coordinates of points in NDC with z < 1; the inverse of ``point_to_ndc``.

    >>> point_from_ndc(torch.tensor([[1.0, 0.0, 0.0]]), Camera(4, 4, 4, 4, 2, 2)).tolist()
    [[1.0, 0.0, -2.0]]
    """
    x, y, z = points.unbind(-1)
    x_axis, y_axis = ndc_shear(camera)
    x, y = x - x_axis if x_axis else x, y - y_axis if y_axis else y
    depth = 2.0 * near / (1.0 - z)
    x, y = x * depth * camera.width / (2.0 * camera.fx), y * depth * camera.height / (2.0 * camera.fy)
    return torch.stack([x, y, -depth], -1)


def ndc_shear(camera: Camera) -> tuple[float, float]:
    """NDC x and y of the optical axis: 0 if the principal point is the image's center up to rounding.

    >>> ndc_shear(Camera(8, 6, 5.0, 5.0, 6.0, 3.0))
    (0.5, 0.0)
    """
    across, down = 2.0 * camera.cx / camera.width - 1.0, 1.0 - 2.0 * camera.cy / camera.height
    return across if abs(across) > _ROUNDING else 0.0, down if abs(down) > _ROUNDING else 0.0


def all_forward(cameras: Cameras, c2w: Float[Tensor, "n 3 4"]) -> bool:
    """Whether every ray of every view has a negative z direction, as NDC needs; tested at the images' outlines."""
    view, x, y = cameras.border()
    in_camera = cameras.directions(view, x, y, 0.0, c2w.dtype)
    return bool(((in_camera * c2w[view, 2, :3]).sum(-1) < 0).all())
