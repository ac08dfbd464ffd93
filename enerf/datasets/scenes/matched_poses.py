"""Small motions of cameras under which matched key points of their images agree: bundle adjustment without points.

The error of a match is the angle by which its two rays miss each other's epipolar planes, to first order, in pixels:
t · (a × b) over the length of its derivative by both unit directions, where t is the direction between the centers.
The sum of a robust loss of all errors is minimized by Levenberg and Marquardt's method, twice: the first loss also
converges from large errors, the second ignores wrong matches. Motions that no match
determines, the similarity of all cameras among them, stay near zero.

Source: Hartley and Zisserman, Multiple View Geometry (2nd edition), section 11.4.3, Sampson's distance, here for rays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from enerf.datasets.scenes import key_points, rigid_motions
from enerf.datasets.scenes.key_points import Match
from enerf.datasets.scenes.scene import Scene

SIDE, FEATURES = 1024, 2000  # the longer side of the images matched, in pixels; key points of an image
NEIGHBORS = 12  # views that a view is matched with
WIDEST = 60.0  # degrees between the optical axes of views that are matched
MATCHES = 100  # of a pair that are used
SCALE = 0.5  # pixels at which the first loss becomes robust, the second at half of that
PRIOR = 0.01  # weight of a motion that moves an image by a pixel
_STEPS, _CONVERGED = 50, 1e-6


def pairs_of(c2w: Float64[np.ndarray, "n 3 4"], views: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of each view with those nearest to it that look in a similar direction."""
    centers, axes = c2w[views, :, 3], c2w[views, :, 2]
    distances = np.linalg.norm(centers[:, None] - centers, axis=-1)
    near = axes @ axes.T > np.cos(np.deg2rad(WIDEST))
    found = set()
    for i, view in enumerate(views):
        others = [j for j in np.argsort(distances[i], kind="stable").tolist() if j != i and near[i, j]]
        found |= {(min(view, views[j]), max(view, views[j])) for j in others[:NEIGHBORS]}
    return sorted(found)


def matches_of(scene: Scene, views: Sequence[int]) -> list[Match]:
    """Matches of key points between neighboring views of a scene, in used pixels."""
    pairs = pairs_of(scene.c2w.double().cpu().numpy(), views)
    pictures = {view: key_points.gray(scene.images[view].cpu().numpy(), SIDE) for view in views}
    masks = scene.masks
    used = None if masks is None else {view: masks[view].cpu().numpy()[:, :, 0] for view in views}
    found = key_points.match(pictures, pairs, scene.cameras.to("cpu"), FEATURES, used)
    return [_thinned(each) for each in found]


def of_scene(
    scene: Scene, views: Sequence[int], basis: Float64[Tensor, "v 6 6"], matches: Sequence[Match]
) -> Float64[Tensor, "v 6"]:
    """``motions`` of some views of a scene, from matches of these views."""
    row = {view: index for index, view in enumerate(views)}
    ends = [(row[each.i], row[each.j], _directions(each.points_i), _directions(each.points_j)) for each in matches]
    focal = float(np.median([scene.cameras.camera(view).fx for view in views]))
    return motions(scene.c2w[list(views)].double().cpu(), basis.cpu(), ends, focal)


def _directions(points: Float64[np.ndarray, "k 2"]) -> Float64[Tensor, "k 3"]:
    """Unit directions, OpenGL axes, of points in the image plane at unit depth."""
    x, y = torch.from_numpy(points).unbind(1)
    return torch.nn.functional.normalize(torch.stack([x, -y, -torch.ones_like(x)], 1), dim=1)


def _thinned(match: Match) -> Match:
    """A match with at most ``MATCHES`` points, evenly chosen."""
    n = len(match.points_i)
    kept = np.unique(np.linspace(0, n - 1, min(n, MATCHES)).round().astype(int))
    return Match(match.i, match.j, match.points_i[kept], match.points_j[kept])


@dataclass(frozen=True)
class _Problem:
    """Errors of matches as functions of the views' motions, which are given by z: ξ = basis · z.

    ``redescending`` selects the loss r² / (1 + r²) of Geman and McClure, of which wrong matches have no slope, instead
    of Cauchy's, log(1 + r²), which has no other minima far away; r are errors in units of ``scale`` pixels.
    """

    c2w: Float64[Tensor, "v 3 4"]
    basis: Float64[Tensor, "v 6 6"]
    first: Int[Tensor, " m"]
    second: Int[Tensor, " m"]
    a: Float64[Tensor, "m 3"]
    b: Float64[Tensor, "m 3"]
    focal: float
    scale: float = SCALE
    redescending: bool = False

    def errors(self, at_first: Float64[Tensor, "m 6"], at_second: Float64[Tensor, "m 6"]) -> Float64[Tensor, " m"]:
        """Errors in units of ``scale``, for the z of both views of each match."""
        start, a = self._ray(self.first, at_first, self.a)
        end, b = self._ray(self.second, at_second, self.b)
        t = torch.nn.functional.normalize(end - start, dim=1)
        by_a, by_b = torch.linalg.cross(b, t), torch.linalg.cross(t, a)
        volume = (a * by_a).sum(1)
        steepness = by_a.square().sum(1) + by_b.square().sum(1) - 2 * volume.square()  # along a and b nothing changes
        return volume * (self.focal / self.scale) / steepness.clamp(min=1e-12).sqrt()

    def _ray(self, view: Tensor, z: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Origins and directions of moved rays in the scene."""
        pose, motion = self.c2w[view], torch.einsum("nij,nj->ni", self.basis[view], z)
        axis, along = (torch.einsum("nij,nj->ni", pose[:, :, :3], part) for part in motion.split(3, 1))
        turned = rigid_motions.rotated(axis, torch.einsum("nij,nj->ni", pose[:, :, :3], direction))
        return pose[:, :, 3] + rigid_motions.shifted(axis, along), turned

    def loss(self, z: Float64[Tensor, "v 6"]) -> float:
        """Robust loss of all matches, and the prior."""
        squares = self.errors(z[self.first], z[self.second]).square()
        robust = squares / (1 + squares) if self.redescending else torch.log1p(squares)
        return float(robust.sum() + self._prior * z.square().sum())

    @property
    def _prior(self) -> float:
        return (PRIOR * self.focal / self.scale) ** 2

    def normal_equations(self, z: Float64[Tensor, "v 6"]) -> tuple[Float64[Tensor, "u u"], Float64[Tensor, " u"]]:
        """The matrix JᵀWJ and the vector JᵀWr, with the weights of the robust loss; u = 6 v."""
        n = len(z)
        ends = [z[index].requires_grad_() for index in (self.first, self.second)]
        errors = self.errors(*ends)
        slopes = torch.autograd.grad(errors.sum(), ends)
        errors = errors.detach()
        weight = (1 + errors.square()) ** (-2 if self.redescending else -1)
        matrix, vector = z.new_zeros(n * n, 6, 6), z.new_zeros(n, 6)
        rows = (self.first, self.second)
        for row, slope in zip(rows, slopes, strict=True):
            vector.index_add_(0, row, (weight * errors)[:, None] * slope)
            for column, other in zip(rows, slopes, strict=True):
                matrix.index_add_(0, row * n + column, weight[:, None, None] * slope[:, :, None] * other[:, None])
        dense = matrix.reshape(n, n, 6, 6).transpose(1, 2).reshape(6 * n, 6 * n)
        dense = dense + self._prior * torch.eye(6 * n, dtype=z.dtype)
        return dense, (vector + self._prior * z).reshape(-1)

    def minimum(self, z: Float64[Tensor, "v 6"]) -> Float64[Tensor, "v 6"]:
        """The z of a local minimum of the loss, by Levenberg and Marquardt's method from a start."""
        loss, damping = self.loss(z), 1e-3
        for _ in range(_STEPS if loss > 1e-12 else 0):
            matrix, vector = self.normal_equations(z)
            while True:
                damped = matrix + damping * torch.diag(matrix.diagonal())
                proposed = z - torch.linalg.solve(damped, vector).reshape(-1, 6)
                now = self.loss(proposed)
                if now < loss or damping > 1e6:
                    break
                damping *= 4
            if not now < loss:
                break
            gain, loss, z, damping = (loss - now) / loss, now, proposed, max(damping / 5, 1e-9)
            if gain < _CONVERGED:
                break
        return z


def motions(
    c2w: Float64[Tensor, "v 3 4"],
    basis: Float64[Tensor, "v 6 6"],
    matches: Sequence[tuple[int, int, Float64[Tensor, "_ 3"], Float64[Tensor, "_ 3"]]],
    focal: float,
) -> Float64[Tensor, "v 6"]:
    """The z of each view for which matches agree best: the view is moved by exp(basis · z) in its frame.

    Parameters
    ----------
    c2w
        Poses of the views, OpenGL axes.
    basis
        Of each view, motions that move its image by about a radian.
    matches
        Two views, and unit directions of the matched points in their frames.
    focal
        Focal length in pixels, by which angles become pixels.
    """
    i, j, a, b = zip(*matches, strict=True)
    sizes = torch.tensor([len(each) for each in a])
    first, second = (torch.tensor(views).repeat_interleave(sizes) for views in (i, j))
    robust = _Problem(c2w, basis, first, second, torch.cat(a), torch.cat(b), focal)
    exact = replace(robust, scale=SCALE / 2, redescending=True)
    return exact.minimum(robust.minimum(torch.zeros(len(c2w), 6, dtype=torch.float64)))
