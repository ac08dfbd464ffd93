"""Refinement of the training views' poses: a small rigid motion of each camera, trained with the field.

The pose of a view becomes c2w · exp(ξ), with ξ = (ω, u): a rotation vector ω and a translation u in the camera's frame.
The trained numbers are not ξ but z = P ξ: P is the square root of the mean of JᵀJ, where J is the derivative by ξ of
the directions in which the camera sees points of its frustum. A step of length 1 in z, in any direction, moves what the
camera sees by about 1 radian, in all scenes and units. Coarse levels of hash grids, or low frequencies of positional
encodings, are enabled first: the errors of poses are then smaller than the field's details.

Sources: Lin et al., BARF (ICCV 2021), for the joint optimization and the windows of frequencies, equation 14; Park et
al., CamP (SIGGRAPH Asia 2023), section 4, for the preconditioner and its damping.
"""

import logging
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import matched_poses, rigid_motions
from enerf.datasets.scenes import rays as scenes_rays
from enerf.datasets.scenes.scene import Scene
from enerf.fields.hash_space import HashedSpace
from enerf.fields.nerf import PointField

log = logging.getLogger("enerf")

DAMPING = 0.1  # share of the diagonal of JᵀJ that is added to it
FIRST_LEVELS = 0.25  # share of the levels or frequencies that are enabled from the beginning
LEAST_MATCHES = 50  # for each view
_POINTS = 6  # of the frustum along each of its axes


class PoseRefinement(nn.Module):
    """Rigid motions of some views, zero before training; other views stay as they are.

    Attributes
    ----------
    values
        z of each refined view.
    basis
        The inverse of P of each refined view: ξ = basis · z.
    """

    row: Tensor
    basis: Tensor
    rotation: Tensor

    def __init__(self, scene: Scene, views: Sequence[int]) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(len(views), 6))
        self.register_buffer("basis", torch.stack([preconditioner(scene, view) for view in views]).float())
        row = torch.full((len(scene.c2w),), len(views))
        row[torch.tensor(list(views))] = torch.arange(len(views))
        self.register_buffer("row", row, persistent=False)
        self.register_buffer("rotation", scene.c2w[:, :, :3].clone().cpu(), persistent=False)

    def motions(self) -> Float[Tensor, "v 6"]:
        """ξ of the refined views: rotation vector and translation."""
        return (self.basis @ self.values[:, :, None])[:, :, 0]

    def forward(self, rays: Rays, view: Int[Tensor, " b"]) -> Rays:
        """Rays in scene space of the refined cameras, from those of the given poses."""
        motions = self.motions()
        moved = torch.cat([motions, torch.zeros_like(motions[:1])])[self.row[view]]
        rotation = self.rotation[view]
        axis, along = (torch.einsum("bij,bj->bi", rotation, part) for part in (moved[:, :3], moved[:, 3:]))
        directions, viewdirs = (rigid_motions.rotated(axis, x) for x in (rays.directions, rays.viewdirs))
        return Rays(rays.origins + rigid_motions.shifted(axis, along), directions, viewdirs, rays.near, rays.far)

    @torch.no_grad()
    def poses(self, c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """Refined poses c2w · exp(ξ) of all views, in float64."""
        motions = torch.cat([self.motions(), torch.zeros_like(self.values[:1])])[self.row]
        return rigid_motions.applied(motions.to(c2w.device).double(), c2w.double())


def preconditioner(scene: Scene, view: int) -> Float[Tensor, "6 6"]:
    """The inverse of P of a view: (C + λ diag C)^(−1/2), where C is the mean of JᵀJ over points of its frustum.

    The points are even over the image and in inverse depth over the view's bounds. J is the derivative of their unit
    directions in the camera's frame, by which a motion ξ moves them by −ω × p − u.
    """
    camera = scene.cameras.camera(view)
    steps = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    across, down, share = (part.flatten() for part in torch.meshgrid(steps, steps, steps, indexing="ij"))
    views = torch.full((len(across),), view, device=scene.cameras.device)
    x, y = (part.to(views.device) for part in (across * camera.width, down * camera.height))
    directions = scene.cameras.directions(views, x, y, 0, torch.float64).cpu()
    near, far = scene.bounds[view].double().cpu()
    points = directions / ((1 - share) / near + share / far)[:, None]
    points = points[points.isfinite().all(1)]
    length = points.norm(dim=-1)[:, None, None]
    unit = points / length[:, :, 0]
    x, y, z = points.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    moved = torch.cat([cross, -torch.eye(3, dtype=torch.float64).expand_as(cross)], -1)  # −ω × p = p × ω
    jacobian = (moved - unit[:, :, None] * (unit[:, None] @ moved)) / length
    covariance = (jacobian.mT @ jacobian).mean(0)
    damped = covariance + DAMPING * torch.diag(covariance.diagonal())
    values, vectors = torch.linalg.eigh(damped)
    return vectors @ torch.diag(values.clamp(min=1e-8 * float(values[-1])).rsqrt()) @ vectors.T


def start_from_matches(poses: PoseRefinement, scene: Scene) -> None:
    """Start the motions of a scene's training views where matched key points of their images agree."""
    views = list(scene.train)
    matches = matched_poses.matches_of(scene, views)
    n = sum(len(each.points_i) for each in matches)
    if n < LEAST_MATCHES * len(views):
        log.info("%s: poses start as given: found %d matches of key points in %d views", scene.name, n, len(views))
        return
    poses.values.data.copy_(matched_poses.of_scene(scene, views, poses.basis.double(), matches))
    moved = float(poses.values.detach().norm(dim=1).rad2deg().mean())
    log.info(
        "%s: poses start where %d matches of key points agree: images move by %.2g° in the mean (--no_pose_matches)",
        *(scene.name, n, moved),
    )


def to_field(refined: Rays, scene_ndc: Camera | None) -> Rays:
    """Rays in field coordinates: NDC of the scene's camera if it is given."""
    return refined if scene_ndc is None else scenes_rays.to_ndc(refined, scene_ndc)


def add_windows(fields: nn.Module) -> None:
    """Add to each encoding of a field the window by which its features are multiplied; all 1."""
    for part in fields.modules():
        if isinstance(part, HashedSpace):
            width: int = part.encoding.grid.width
        elif isinstance(part, PointField) and part.hashed is None and part.multires > 0:
            width = 3 * (1 + 2 * part.multires)
        else:
            continue
        weight = next(part.parameters())
        part.window = torch.ones(width, device=weight.device, dtype=weight.dtype)


def open_windows(fields: nn.Module, progress: float) -> None:
    """Set the windows of ``add_windows``: at 0 the first quarter of levels or frequencies is enabled, at 1 all are."""
    for part in fields.modules():
        if isinstance(part, HashedSpace):
            grid = part.encoding.grid
            weights = window(len(grid.resolutions), progress).repeat_interleave(grid.features)
        elif isinstance(part, PointField) and part.window is not None:
            weights = torch.cat([torch.ones(3), window(part.multires, progress).repeat_interleave(6)])
        else:
            continue
        assert part.window is not None
        part.window.copy_(weights)


def window(count: int, progress: float) -> Float[Tensor, " count"]:
    """Weights in [0, 1] of levels from coarse to fine; a level is faded in after the one before it.

    >>> window(4, 0.0).tolist(), window(4, 0.5).tolist(), window(4, 2.0).tolist()
    ([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.5, 0.0], [1.0, 1.0, 1.0, 1.0])
    """
    first = max(1.0, FIRST_LEVELS * count)
    enabled = first + (count - first) * min(max(progress, 0.0), 1.0)
    share = (enabled - torch.arange(count, dtype=torch.float64)).clamp(0, 1)
    return ((1 - torch.cos(math.pi * share)) / 2).float()
