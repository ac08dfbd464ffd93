"""Random batches of a training run: rays, and a row of numbers for each ray.

The rows contain, in this order: the color of the pixel; with random backgrounds, the color behind the ray; if something
is trained for each view, the view. They travel as one tensor, since a CUDA graph copies rays and one tensor of targets
(``engine.cuda_graph``). The random numbers of a step depend only on (seed, step): of pixels, then of backgrounds.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import rng
from enerf.core.types import Rays
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.pixels import PixelSampler
from enerf.datasets.scenes.scene import Scene
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.step import ViewTerms


@dataclass(frozen=True)
class Batch:
    """A batch of rays, their colors, and what else the loss needs; arguments of ``step.gradient``."""

    rays: Rays
    target: Float[Tensor, "b 3"]
    background: Float[Tensor, "b 3"] | None
    views: ViewTerms | None


class Batches:
    """Random batches of the training views of a run; ``generator`` is that of all random numbers of a step."""

    def __init__(self, run: Run, generator: torch.Generator) -> None:
        config, scene = run.config, run.scene
        self._run, self._generator = run, generator
        self.has_random_background = scene.has_alpha and config.data.training_background == "random"
        self._has_views = run.fields.exposure is not None
        self._everywhere = PixelSampler(scene, scene.train)
        is_cropped = config.train.precrop_iters > 0
        self._central = PixelSampler(scene, scene.train, config.train.precrop_frac) if is_cropped else self._everywhere

    def draw(self, step: int) -> tuple[Rays, Float[Tensor, "b c"]]:
        """Rays and rows of a step."""
        config, scene, n = self._run.config, self._run.scene, self._run.config.train.N_rand
        self._generator.manual_seed(rng.stream_seed(config.train.seed, step))
        sampler = self._central if step < config.train.precrop_iters else self._everywhere
        pixels = sampler.draw(n, self._generator, config.train.no_batching)
        rays = scenes_pixels.rays_of(scene, pixels, config.data.pixel_centers)
        if self.has_random_background:
            background = torch.rand(n, 3, generator=self._generator, device=self._run.device)
            columns = [scenes_pixels.colors_of(scene, pixels, background), background]
        else:
            columns = [scenes_pixels.colors_of(scene, pixels)]
        if self._has_views:
            columns.append(pixels.view[:, None].to(columns[0].dtype))
        return rays, columns[0] if len(columns) == 1 else torch.cat(columns, -1)

    def batch(self, rays: Rays, rows: Float[Tensor, "b c"]) -> Batch:
        """The parts of a batch; no synchronization with the device."""
        background = rows[:, 3:6] if self.has_random_background else None
        return Batch(rays, rows[:, :3], background, self._views(rows) if self._has_views else None)

    def _views(self, rows: Float[Tensor, "b c"]) -> ViewTerms:
        config, scene = self._run.config, self._run.scene
        below = 0.0 if self.has_random_background else behind(config, scene)  # the random color is added later
        return ViewTerms(rows[:, -1].long(), below, config.capture.exposure_weight)


def behind(config: NerfConfig, scene: Scene) -> float | None:
    """Gray value over which renderings of a scene lie where its photographs are transparent; None if they are not."""
    return float(config.data.is_white) if scene.has_alpha else None
