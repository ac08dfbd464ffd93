"""Loss terms of every training step, by what is fitted: a mesh, a point cloud, an image or a volume.

Of several processes each draws the samples of the whole batch, and computes the terms of its share: their sums over the
processes are the terms of the batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from enerf.core import rng
from enerf.core.shares import Rows
from enerf.engine import distributed
from enerf.geometry import point_cloud, sample_pool
from enerf.geometry import samples as geometry_samples
from enerf.geometry.mesh import Mesh, PointCloud
from enerf.geometry.occupancy_volume import Volume
from enerf.geometry.samples import Mixture, ShapeSamples
from enerf.tasks.shape import inductive, setup
from enerf.tasks.shape import picture as shape_picture
from enerf.tasks.shape import step as shape_step
from enerf.tasks.shape import voxels as shape_voxels
from enerf.tasks.shape.losses import CloudWeights
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.setup import ShapeRun
from enerf.tasks.shape.step import DistanceLoss, FarPoints, LossTerms

# step -> the terms of its loss
LossTermsAt = Callable[[int], LossTerms]
FAR_STREAM = 1 << 40  # added to the seed, for random numbers other than those of the pools


@contextmanager
def of_run(run: ShapeRun) -> Iterator[LossTermsAt]:
    """Context manager of the loss terms of every step; inside it, samples may be drawn in a background process."""
    target = run.target
    if isinstance(target, Mesh):
        with _mesh_terms(run, target) as terms_at:
            yield terms_at
    elif isinstance(target, PointCloud):
        with _cloud_terms(run, target) as terms_at:
            yield terms_at
    elif isinstance(target, Volume):
        yield _volume_terms(run, target)
    else:
        yield _picture_terms(run, target)


@contextmanager
def _mesh_terms(run: ShapeRun, mesh: Mesh) -> Iterator[LossTermsAt]:
    """Loss terms on labeled samples of a mesh, drawn from pools."""
    config, s = run.config, run.config.samples
    is_distance, n_far = config.data.target == "sdf", config.far_points
    mixture = Mixture(s.uniform * (1 - s.far) if n_far else s.uniform, config.near, s.surface)
    make = partial(
        geometry_samples.pool,
        setup.solid_of(mesh),
        mixture,
        s.pool,
        config.train.seed,
        distances=is_distance,
        normals=s.normals > 0,
    )
    loss = DistanceLoss(s.loss_sdf, s.truncate, s.eikonal, s.normals, s.gradient_step)
    signs = setup.sign_grid_of(config, mesh) if n_far else None
    with _pools(make, s.background) as prepared:
        stream = sample_pool.Stream(prepared, s.pool, s.N_points - n_far, s.pool_uses, config.train.seed)

        def terms_at(step: int) -> LossTerms:
            batch = stream.batch(step)
            samples, part = batch[own(len(batch)).rows].to(run.device), _part(len(batch))
            if is_distance:
                return _scaled(shape_step.distance_terms(run.field, samples, loss), part)
            far = None
            if signs is not None:
                points, states = signs.draw(n_far, rng.generator_for(config.train.seed + FAR_STREAM, step))
                far = _far(points, states, run, n_far / s.N_points)
            totals = None if part == 1 else torch.stack([batch.labels.sum(), (1 - batch.labels).sum()])
            return shape_step.occupancy_terms(run.field, samples, s.balanced, far, totals)

        yield terms_at


def own(n: int) -> Rows:
    """Return the rows of this process in a batch of ``n``."""
    return distributed.current().share.of(0, n)


def _part(n: int) -> float:
    """Return how much of a batch of ``n`` rows this process has; 1 if it works alone."""
    return own(n).count / n


def _scaled(terms: LossTerms, part: float) -> LossTerms:
    """Return means over a share of a batch as parts of the means over the batch."""
    return terms if part == 1 else {name: value * part for name, value in terms.items()}


def _far(points: Tensor, states: Tensor, run: ShapeRun, weight: float) -> FarPoints:
    """Return this process's rows of the points far from the surface, with what its part of their loss needs."""
    part, margin = own(len(points)), run.config.samples.far_margin
    rows = slice(part.rows.start, part.rows.start + part.count)
    total = None if part.count == len(points) else states.abs().sum().float()
    return FarPoints(points[rows].to(run.device), states[rows].to(run.device), margin, weight, total)


@contextmanager
def _cloud_terms(run: ShapeRun, cloud: PointCloud) -> Iterator[LossTermsAt]:
    """Loss terms on points of a cloud (half of the batch) and on points of the box, drawn from pools."""
    s, seed = run.config.samples, run.config.train.seed
    weights = CloudWeights(s.cloud_surface, s.cloud_off, s.cloud_normals, s.cloud_eikonal, s.cloud_alpha)
    n_on = max(1, s.N_points // 2)
    n_off = max(1, s.N_points - n_on)
    make = partial(point_cloud.pool, point_cloud.CloudSolid(cloud), s.pool, seed)
    with _pools(make, s.background) as prepared:
        stream = sample_pool.Stream(prepared, s.pool, n_off, s.pool_uses, seed)

        def terms_at(step: int) -> LossTerms:
            on = geometry_samples.from_cloud(cloud, n_on, rng.generator_for(seed, step))[own(n_on).rows].to(run.device)
            off = stream.batch(step)[own(n_off).rows].to(run.device)
            terms = dict(shape_step.cloud_terms(run.field, on, off, weights, s.gradient_step))
            if (part := _part(n_on)) == 1:
                return terms
            both = (own(n_on).count + own(n_off).count) / (n_on + n_off)
            return {
                name: value * {"off": _part(n_off), "eikonal": both}.get(name, part) for name, value in terms.items()
            }

        yield terms_at


def _pools(make: Callable[[int], ShapeSamples], background: str) -> sample_pool.Pools[ShapeSamples]:
    """Return pools of training samples, drawn in a worker process if ``background`` is ``process``."""
    return sample_pool.Pools(make, background="process" if background == "process" else "none")


def _picture_terms(run: ShapeRun, picture: Picture) -> LossTermsAt:
    """Loss terms on random pixels of an image."""
    config = run.config
    lowered = config.samples.iga
    blocks = inductive.blocks_of(picture) if lowered else []

    def terms_at(step: int) -> LossTerms:
        if lowered:
            generator = rng.generator_for(config.train.seed, step)
            points, colors = inductive.batch(picture, blocks, config.samples.N_points, generator)
            return inductive.terms(run.field, points.to(run.device), colors.to(run.device), lowered)
        n = config.samples.N_points
        points, colors = (
            each[own(n).rows].to(run.device)
            for each in shape_picture.batch(picture, n, rng.generator_for(config.train.seed, step))
        )
        return _scaled(shape_step.color_terms(run.field, points, colors), _part(n))

    return terms_at


def _volume_terms(run: ShapeRun, volume: Volume) -> LossTermsAt:
    """Loss terms on voxels of a volume, each once in an epoch; they are drawn on the GPU if there is one."""
    config = run.config
    kept = volume.to(run.device) if run.device.type == "cuda" else volume

    def terms_at(step: int) -> LossTerms:
        points, labels = shape_voxels.batch(kept, config.samples.N_points, step, config.train.seed)
        n, kind = len(points), config.data.volume_loss
        points, labels = points[own(n).rows].to(run.device), labels[own(n).rows].to(run.device)
        return _scaled(shape_step.volume_terms(run.field, points, labels, kind), _part(n))

    return terms_at
