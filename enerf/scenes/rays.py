"""Cameras and pixels to rays, and rays to normalised device coordinates.

Pixel (x, y) counts columns and rows from the top-left corner. Directions have z = −1 in the camera's frame, so ``t`` is
the depth along the optical axis; they are not unit. ``viewdirs`` are, and are taken before NDC.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.types import Camera, Rays


def resized(camera: Camera, factor: float) -> Camera:
    """The camera of the picture ``factor`` times smaller; sides are rounded down, to at least one pixel.

    >>> resized(Camera(504, 378, 400.0, 400.0, 252.0, 189.0), 2).width
    252
    """
    width, height = max(1, int(camera.width / factor)), max(1, int(camera.height / factor))
    x_scale, y_scale = width / camera.width, height / camera.height
    return Camera(
        width, height, camera.fx * x_scale, camera.fy * y_scale, camera.cx * x_scale, camera.cy * y_scale
    )


def through_pixels(
    camera: Camera,
    c2w: Float[Tensor, "*b 3 4"],
    x: Int[Tensor, "*b"],
    y: Int[Tensor, "*b"],
    near: float,
    far: float,
    pixel_centers: float = 0.5,
) -> Rays:
    """The scene-space rays through some pixels, one pose a pixel.

    ``pixel_centers`` is where in its pixel a ray passes: 0.5 (the centre) or 0 (nerf-pytorch's corner).
    """
    cam_x = (x.to(c2w.dtype) + pixel_centers - camera.cx) / camera.fx
    cam_y = -(y.to(c2w.dtype) + pixel_centers - camera.cy) / camera.fy
    in_camera = torch.stack([cam_x, cam_y, -torch.ones_like(cam_x)], -1)
    directions = (in_camera[..., None, :] * c2w[..., :3]).sum(-1)
    origins = c2w[..., 3].expand_as(directions)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    return Rays(origins, directions, viewdirs, torch.full_like(cam_x, near), torch.full_like(cam_x, far))


def of_image(
    camera: Camera, c2w: Float[Tensor, "3 4"], near: float, far: float, pixel_centers: float = 0.5
) -> Rays:
    """The rays of a whole picture, flat in row-major order: height · width of them."""
    index = torch.arange(camera.height * camera.width, device=c2w.device)
    poses = c2w.expand(len(index), 3, 4)
    return through_pixels(camera, poses, index % camera.width, index // camera.width, near, far, pixel_centers)


def to_ndc(rays: Rays, camera: Camera, near: float = 1.0) -> Rays:
    """The same rays in normalised device coordinates (NeRF, appendix C); ``viewdirs`` stay as they were.

    Origins move to the plane z = −``near``; t = 0 there and t = 1 at infinity. Points on a scene ray map to points on
    its NDC ray. Needs cameras that look down −z: rays with directions z ≥ 0 never meet the plane.
    """
    shift = -(near + rays.origins[..., 2]) / rays.directions[..., 2]
    origins = rays.origins + shift[..., None] * rays.directions
    (ox, oy, oz), (dx, dy, dz) = origins.unbind(-1), rays.directions.unbind(-1)
    x_scale, y_scale = -2.0 * camera.fx / camera.width, -2.0 * camera.fy / camera.height
    ndc_origins = torch.stack([x_scale * ox / oz, y_scale * oy / oz, 1.0 + 2.0 * near / oz], -1)
    ndc_directions = torch.stack(
        [x_scale * (dx / dz - ox / oz), y_scale * (dy / dz - oy / oz), -2.0 * near / oz], -1
    )
    zeros = torch.zeros_like(ox)
    return Rays(ndc_origins, ndc_directions, rays.viewdirs, zeros, torch.ones_like(ox))


def point_to_ndc(points: Float[Tensor, "*b 3"], camera: Camera, near: float = 1.0) -> Float[Tensor, "*b 3"]:
    """Scene points in normalised device coordinates (NeRF, appendix C, equation 8)."""
    x, y, z = points.unbind(-1)
    x_scale, y_scale = -2.0 * camera.fx / camera.width, -2.0 * camera.fy / camera.height
    return torch.stack([x_scale * x / z, y_scale * y / z, 1.0 + 2.0 * near / z], -1)


def all_forward(camera: Camera, c2w: Float[Tensor, "n 3 4"]) -> bool:
    """Whether every ray of every view looks down −z, as NDC needs; the corners decide for the pixels between."""
    corners = torch.tensor(
        [[(x - camera.cx) / camera.fx, -(y - camera.cy) / camera.fy, -1.0] for x in (0, camera.width) for y in (0, camera.height)],
        dtype=c2w.dtype,
        device=c2w.device,
    )
    return bool((corners @ c2w[:, 2, :3].T < 0).all())
