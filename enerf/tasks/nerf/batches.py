"""Random batches of a training run: rays, and a row of numbers for each ray.

The rows contain, in this order: the color of the pixel; with random backgrounds, the color behind the ray; with known
depths, the t of the depth; if something is trained for each view, the view. With known depths a quarter more rays
follow those of the pixels, through positions of known depth; their colors are 0. All travel as one tensor, since a CUDA
graph copies rays and one tensor of targets (``engine.cuda_graph``). The random numbers of a step depend only on (seed,
step): of pixels, of backgrounds, then of depths.
"""

import logging
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from enerf.core import files, rng
from enerf.core.types import Rays
from enerf.datasets.scenes import image_blocks, sparse_depths
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import rays as scenes_rays
from enerf.datasets.scenes.image_blocks import ImageBlocks
from enerf.datasets.scenes.pixels import PixelSampler
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.sparse_depths import SparseDepths
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.refinement import to_field
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.step import DepthTerms, ViewTerms

log = logging.getLogger("enerf")


@dataclass(frozen=True)
class Batch:
    """A batch of rays, their colors, and what else the loss needs; arguments of ``step.gradient``."""

    rays: Rays
    target: Float[Tensor, "b 3"]
    background: Float[Tensor, "b 3"] | None
    views: ViewTerms | None
    depths: DepthTerms | None


class Batches:
    """Random batches of the training views of a run; ``generator`` is that of all random numbers of a step."""

    def __init__(self, run: Run, generator: torch.Generator) -> None:
        config, scene = run.config, run.scene
        self._run, self._generator = run, generator
        self.has_random_background = scene.has_alpha and config.data.training_background == "random"
        self._has_views = run.fields.exposure is not None or run.fields.poses is not None
        # rays are refined in scene space, before they are converted to NDC
        self._ndc = scene.camera if scene.ndc and run.fields.poses is not None else None
        self._scene = replace(scene, ndc=False) if self._ndc is not None else scene
        self._depths: SparseDepths | None = None
        if config.capture.depth_weight > 0 and scene.depths is not None:
            self._depths = sparse_depths.of_views(scene.depths, scene.train)
        self._blocks = _blocks(run) if config.train.batches == "blocks" else None
        self._samplers: dict[float, PixelSampler] = {}  # of all views, by their crop
        if self._blocks is None:
            self._samplers = {crop: PixelSampler(scene, scene.train, crop) for crop in _crops(config)}

    def draw(self, step: int) -> tuple[Rays, Float[Tensor, "b c"]]:
        """Rays and rows of a step."""
        config, scene, n = self._run.config, self._scene, self._run.config.train.N_rand
        self._generator.manual_seed(rng.stream_seed(config.train.seed, step))
        crop = config.train.precrop_frac if step < config.train.precrop_iters else 1.0
        sampler = self._samplers[crop] if self._blocks is None else self._blocks.at(step, crop)
        pictures = scene if self._blocks is None else self._blocks.scene
        pixels = sampler.draw(n, self._generator, config.train.no_batching)
        rays = scenes_pixels.rays_of(scene, pixels, config.data.pixel_centers)
        if self.has_random_background:
            background = torch.rand(n, 3, generator=self._generator, device=self._run.device)
            columns = [scenes_pixels.colors_of(pictures, pixels, background), background]
        else:
            columns = [scenes_pixels.colors_of(pictures, pixels)]
        view = pixels.view
        if self._depths is not None:
            known, t, of_view = self._known_depths(self._depths, max(1, n // 4))
            rays, view = joined(rays, known), torch.cat([view, of_view])
            columns = [torch.nn.functional.pad(torch.cat(columns, -1), (0, 1, 0, len(t)))]
            columns[0][n:, -1] = t
        if self._has_views:
            columns.append(view[:, None].to(columns[0].dtype))
        return rays, columns[0] if len(columns) == 1 else torch.cat(columns, -1)

    def _known_depths(self, depths: SparseDepths, count: int) -> tuple[Rays, Float[Tensor, " d"], Int[Tensor, " d"]]:
        """Random rays of known depth, the t of that depth, and the view; rays and t are in NDC if the batch's are."""
        scene = self._scene
        drawn = torch.randint(len(depths), (count,), generator=self._generator, device=self._run.device)
        chosen = depths.where(drawn)
        rays, t = scenes_pixels.depth_rays(scene, chosen)
        if not scene.ndc:
            return rays, t, chosen.view
        return scenes_rays.to_ndc(rays, scene.camera), scenes_rays.t_in_ndc(rays, t), chosen.view

    def batch(self, rays: Rays, rows: Float[Tensor, "b c"]) -> Batch:
        """The parts of a batch; no synchronization with the device."""
        config = self._run.config
        n = config.train.N_rand
        background = rows[:n, 3:6] if self.has_random_background else None
        views = self._views(rows[:n]) if self._has_views else None
        depths = None
        if self._depths is not None:
            column = 6 if self.has_random_background else 3
            known, t = self._refined(rays[n:], rows[n:, column], rows[n:, -1].long())
            depths = DepthTerms(known, t, config.capture.depth_weight)
        return Batch(rays[:n], rows[:n, :3], background, views, depths)

    @torch.no_grad()
    def _refined(self, rays: Rays, t: Float[Tensor, " d"], view: Int[Tensor, " d"]) -> tuple[Rays, Float[Tensor, " d"]]:
        """Rays of known depth in field coordinates, and the t of that depth; known depths move no camera."""
        poses = self._run.fields.poses
        if poses is None:
            return rays, t
        moved = poses(rays, view)
        t = t if self._ndc is None else scenes_rays.t_in_ndc(moved, t)
        return to_field(moved, self._ndc), t

    def _views(self, rows: Float[Tensor, "b c"]) -> ViewTerms:
        config, scene = self._run.config, self._run.scene
        below = 0.0 if self.has_random_background else behind(config, scene)  # the random color is added later
        return ViewTerms(rows[:, -1].long(), below, config.capture.exposure_weight, self._ndc)


def _crops(config: NerfConfig) -> tuple[float, ...]:
    """The central regions that steps are drawn from."""
    return (1.0, config.train.precrop_frac) if config.train.precrop_iters > 0 else (1.0,)


def _blocks(run: Run) -> ImageBlocks:
    """Blocks of the training views by the options, which are logged."""
    config, scene = run.config, run.scene
    t, views = config.train, scene.train
    capacity = image_blocks.capacity_of(scene, views, int(t.block_gb * 1e9))
    if run.device.type == "cpu":
        files.require_memory(image_blocks.bytes_each(scene, views) * capacity, "option --block_gb")
    log.info(
        "%s: the rays of a step are drawn from a block of %d of %d training views (--batches blocks, --block_gb), of "
        "which one is replaced every %d steps (--block_steps)",
        *(scene.name, capacity, len(views), t.block_steps),
    )
    return ImageBlocks(scene, views, capacity, t.block_steps, t.seed, _crops(config))


def joined(first: Rays, second: Rays) -> Rays:
    """The rays of two batches, one after the other."""
    return Rays(**{name: torch.cat([value, getattr(second, name)]) for name, value in vars(first).items()})


def behind(config: NerfConfig, scene: Scene) -> float | None:
    """Gray value over which renderings of a scene lie where its photographs are transparent; None if they are not."""
    return float(config.data.is_white) if scene.has_alpha else None
