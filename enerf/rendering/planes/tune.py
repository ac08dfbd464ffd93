"""Tuning: gradient descent of the textures of a plane stack on the photographs that its field was trained on.

Each step renders one training view and follows the gradient of its squared error by Adam, with textures clamped to
[0, 1]. Textures of planes that no other view contradicts would fit each photograph alone, so the total variation of
color and alpha is penalized; and alpha itself in the first part, after which tiles that hardly count are left out.
"""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import files
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.planes import kernel
from enerf.rendering.planes.bake import Progress, view_rays, weights_in_views
from enerf.rendering.planes.stack import PlaneStack, neighbors, numbered

log = logging.getLogger("enerf")

Targets = Callable[[int], Float[Tensor, "h w 3"]]


@dataclass(frozen=True)
class TuneSettings:
    """How long and how strongly textures are tuned.

    Attributes
    ----------
    seconds
        Wall-clock time; the rate falls with it.
    steps
        Number of steps, instead of ``seconds`` if it is not 0: then the result is reproducible.
    rate
        Largest step of a texel, in units of its range, at the beginning; a tenth of it at the end.
    color, alpha
        Weights of the total variation, relative to the squared error of a pixel.
    sparsity
        Weight of the sum of alpha, in the first part.
    first_part
        Share of the steps or seconds after which tiles are left out.
    negligible
        Share of the light in the training views that the tiles left out may contribute, all together.
    seed
        Seed of the order of the views.
    pixel_centers
        Position of the rays in their pixels.
    """

    seconds: float = 60.0
    steps: int = 0
    rate: float = 0.02
    color: float = 0.01
    alpha: float = 0.01
    sparsity: float = 0.001
    first_part: float = 0.4
    negligible: float = 0.01
    seed: int = 0
    pixel_centers: float = 0.5


def tune(
    stack: PlaneStack,
    scene: Scene,
    settings: TuneSettings | None = None,
    targets: Targets | None = None,
    progress: Progress = lambda share: None,
) -> PlaneStack:
    """The stack with tuned textures, of which tiles that became negligible are left out.

    Parameters
    ----------
    stack
        A bake of the scene's field.
    scene
        Its training views and their masks; their poses are those that the field was trained with in the end.
    settings
        Default: ``TuneSettings()``.
    targets
        Image of a training view; default: its photograph.
    progress
        Called with the share that is done, in [0, 1].

    Raises
    ------
    InputError
        If the textures, their gradients and moments do not fit in memory.
    """
    settings = settings or TuneSettings()
    files.require_memory(20 * stack.tiles.numel(), f"{scene.name}: tuning {len(stack.tiles)} tiles")
    state, order, step, compact = _State(stack), _Order(scene, settings.seed), 0, False
    began = time.perf_counter()
    while (share := _share(settings, step, time.perf_counter() - began)) < 1:
        progress(share)
        if not compact and share >= settings.first_part:
            state, compact = state.without(_negligible(state.stack(), scene, settings)), True
        step += 1
        view = order.view()
        rays, width = view_rays(scene, view, settings.pixel_centers)
        target = (scenes_pixels.view_image(scene, view) if targets is None else targets(view)).reshape(-1, 3)
        kernel.descend(state.base, state.tiles, rays, width, target, _shares(scene, view, rays.directions), state.slope)
        strength = 0.0 if compact else settings.sparsity
        kernel.regularize(state.tiles, state.slope, settings.color, settings.alpha, strength)
        kernel.join(state.slope, state.pairs)
        kernel.adam(state.tiles, state.slope, state.moments, settings.rate * _decay(share), step)
    progress(1.0)
    log.info("%s: %d steps of tuning, %d tiles", scene.name, step, len(state.tiles))
    return state.without(~_visible(state.stack())).stack()


class _State:
    """Textures as floats, with their gradient and moments."""

    def __init__(self, stack: PlaneStack) -> None:
        self.base, self.tiles = stack, stack.tiles.float() / 255
        self.slope = torch.zeros_like(self.tiles)
        self.moments = (torch.zeros_like(self.tiles), torch.zeros_like(self.tiles))
        self.pairs = neighbors(stack.index)

    def stack(self) -> PlaneStack:
        """The stack with these textures."""
        return replace(self.base, tiles=(self.tiles * 255).round().byte())

    def without(self, dropped: Tensor) -> "_State":
        """The state of the tiles that are not dropped, in the order of their places."""
        keep = self.base.index >= 0
        keep[keep.clone()] = ~dropped[self.base.index[keep].long()]
        places = self.base.index[keep].long()
        planes = keep.flatten(1).any(1)
        other = _State.__new__(_State)
        other.tiles, other.slope = self.tiles[places], self.slope[places]
        other.moments = (self.moments[0][places], self.moments[1][places])
        index, t_vals = numbered(keep[planes]), self.base.t_vals[planes]
        other.base = replace(self.base, tiles=self.base.tiles[places], index=index, t_vals=t_vals)
        other.pairs = neighbors(index)
        return other


class _Order:
    """Views in a random order, each once before any is repeated."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._views, self._generator = list(scene.train), torch.Generator().manual_seed(seed)
        self._left: list[int] = []

    def view(self) -> int:
        """The next view."""
        if not self._left:
            self._left = [self._views[i] for i in torch.randperm(len(self._views), generator=self._generator).tolist()]
        return self._left.pop()


def _negligible(stack: PlaneStack, scene: Scene, settings: TuneSettings) -> Tensor:
    """Which tiles count least in the training views: those whose weights sum up to a share of all.

    The limit is on the sum, not on a tile: with more planes, each tile counts less.
    """
    weight = weights_in_views(stack, scene, settings.pixel_centers).flatten(1).mean(1)
    order = weight.argsort()
    dropped = torch.zeros(len(weight), dtype=torch.bool)
    dropped[order[weight[order].cumsum(0) < settings.negligible * weight.sum()]] = True
    return dropped


def _visible(stack: PlaneStack) -> Tensor:
    """Which tiles have an alpha above 0."""
    return (stack.tiles[..., 3] > 0).flatten(1).any(1)


def _shares(scene: Scene, view: int, directions: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Weights of the pixels of a view: 0 if it is masked or has no ray, otherwise 1."""
    used = directions.isfinite().all(1)
    mask = scenes_pixels.view_mask(scene, view)
    return (used if mask is None else used & mask.flatten()).float()


def _share(settings: TuneSettings, step: int, seconds: float) -> float:
    """Share that is done."""
    return step / settings.steps if settings.steps else seconds / settings.seconds if settings.seconds > 0 else 1.0


def _decay(share: float) -> float:
    """Factor of the rate: half a cosine from 1 to 0.1."""
    return 0.1 + 0.9 * (0.5 + 0.5 * math.cos(math.pi * share))
