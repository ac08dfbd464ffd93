"""Loss terms of every training step, by what is fitted: a mesh, a point cloud, an image or a volume."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from enerf.core import rng
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
            samples = stream.batch(step).to(run.device)
            if is_distance:
                return shape_step.distance_terms(run.field, samples, loss)
            far = None
            if signs is not None:
                points, states = signs.draw(n_far, rng.generator_for(config.train.seed + FAR_STREAM, step))
                far = FarPoints(points.to(run.device), states.to(run.device), s.far_margin, n_far / s.N_points)
            return shape_step.occupancy_terms(run.field, samples, s.balanced, far)

        yield terms_at


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
            on = geometry_samples.from_cloud(cloud, n_on, rng.generator_for(seed, step)).to(run.device)
            return shape_step.cloud_terms(run.field, on, stream.batch(step).to(run.device), weights, s.gradient_step)

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
        points, colors = shape_picture.batch(
            picture, config.samples.N_points, rng.generator_for(config.train.seed, step)
        )
        return shape_step.color_terms(run.field, points.to(run.device), colors.to(run.device))

    return terms_at


def _volume_terms(run: ShapeRun, volume: Volume) -> LossTermsAt:
    """Loss terms on voxels of a volume, each once in an epoch; they are drawn on the GPU if there is one."""
    config = run.config
    kept = volume.to(run.device) if run.device.type == "cuda" else volume

    def terms_at(step: int) -> LossTerms:
        points, labels = shape_voxels.batch(kept, config.samples.N_points, step, config.train.seed)
        return shape_step.volume_terms(run.field, points.to(run.device), labels.to(run.device), config.data.volume_loss)

    return terms_at
