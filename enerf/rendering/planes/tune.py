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
from jaxtyping import Bool, Float
from torch import Tensor

from enerf.core import files
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.rendering.planes import blocks, kernel
from enerf.rendering.planes.bake import Progress, view_rays, weights_in_views
from enerf.rendering.planes.stack import PlaneStack, neighbors

log = logging.getLogger("enerf")

BYTES = 28  # of memory for a byte of the tiles: textures, gradient, moments, and what finds closed texels
PAUSE = 10.0  # times the shortest step: a longer one was interrupted
Targets = Callable[[int], Float[Tensor, "h w 3"]]


@dataclass(frozen=True)
class TuneSettings:
    """How long and how strongly textures are tuned.

    Attributes
    ----------
    seconds
        Wall-clock time in which the process runs; the rate falls with it.
    steps
        Number of steps, instead of ``seconds`` if it is not 0: then the result is reproducible.
    rate
        Largest step of a texel, in units of its range, at the beginning; a tenth of it at the end.
    color, alpha
        Weights of the total variation, relative to the squared error of a pixel.
    sparsity
        Weight of the sum of alpha, in the first part.
    first_part
        Share of the steps or seconds after which tiles and blocks are left out.
    negligible
        Share of the light in the training views that the tiles left out at the beginning and after the first part may
        contribute, all together: more at the beginning, where most are the haze of a field, which tuning replaces.
    layers
        Largest mean number of layers after the first part, as of ``blocks``.
    seed
        Seed of the order of the views.
    pixel_centers
        Position of the rays in their pixels.
    """

    seconds: float = 60.0
    steps: int = 0
    rate: float = 0.02
    color: float = 0.005
    alpha: float = 0.005
    sparsity: float = 0.001
    first_part: float = 0.4
    negligible: tuple[float, float] = (0.02, 0.004)
    layers: float = 24.0
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
    files.require_memory(BYTES * stack.tiles.numel(), f"{scene.name}: tuning {len(stack.tiles)} tiles")
    clock = _Clock()
    dropped = _negligible(_weights(stack, scene, settings), settings.negligible[0])
    state = _State(stack.only(~dropped))
    order, step, compact = _Order(scene, settings.seed), 0, False
    while (share := _share(settings, step, clock.spent())) < 1:
        progress(share)
        if not compact and share >= settings.first_part:
            state.keep(_counting(state.stack(), scene, settings))
            compact = True
        step += 1
        view = order.view()
        rays, width = view_rays(scene, view, settings.pixel_centers)
        target = (scenes_pixels.view_image(scene, view) if targets is None else targets(view)).reshape(-1, 3)
        kernel.descend(state.base, state.tiles, rays, width, target, _shares(scene, view, rays.directions), state.slope)
        strength = 0.0 if compact else settings.sparsity
        kernel.regularize(state.tiles, state.slope, settings.color, settings.alpha, strength)
        kernel.join(state.slope, state.pairs)
        kernel.adam(state.tiles, state.slope, (state.mean, state.square), settings.rate * _decay(share), step)
        state.close_borders()
    progress(1.0)
    log.info("%s: %d steps of tuning, %d tiles", scene.name, step, len(state.tiles))
    if step < len(scene.train):
        log.warning("%s: %d steps of tuning are fewer than the %d photographs", scene.name, step, len(scene.train))
    tuned = state.stack()
    return tuned.only(tuned.visible())


class _State:
    """Textures as floats, with their gradient and moments, of the blocks that are drawn: first all."""

    def __init__(self, stack: PlaneStack) -> None:
        self.base, self.tiles = stack, stack.tiles.float() / 255
        self.slope = torch.zeros_like(self.tiles)
        self.mean, self.square = torch.zeros_like(self.tiles), torch.zeros_like(self.tiles)
        self._draw(torch.ones(len(self.tiles), 4, 4, dtype=torch.bool))

    def _draw(self, drawn: Bool[Tensor, "n 4 4"]) -> None:
        """Find which tiles share texels, and which texels are closed, if only some blocks are drawn."""
        self.pairs = neighbors(self.base.index)
        self.closed = blocks.closed_texels(self.base, drawn).flatten().nonzero()[:, 0]
        self.close_borders()

    def close_borders(self) -> None:
        """Set the alpha to 0 where what is drawn ends at what is left out, which would be seen as an edge."""
        self.tiles.view(-1, 4)[:, 3].index_fill_(0, self.closed, 0.0)

    def stack(self) -> PlaneStack:
        """The stack with these textures."""
        return replace(self.base, tiles=(self.tiles * 255).round().byte())

    def keep(self, drawn: Bool[Tensor, "n 4 4"]) -> None:
        """Leave out all other blocks, and the tiles that have none of these; one array after another is copied."""
        kept = drawn.flatten(1).any(1)
        places = self.base.places(kept)
        for name in ("tiles", "slope", "mean", "square"):
            setattr(self, name, getattr(self, name)[places])
        self.base = self.base.only(kept)
        self._draw(drawn[places])


class _Clock:
    """Seconds spent, without those in which the process was stopped."""

    def __init__(self) -> None:
        self._last, self._spent, self._shortest = time.perf_counter(), 0.0, math.inf

    def spent(self) -> float:
        """Seconds, to which each call adds those since the last one: at most ``PAUSE`` times the shortest of them."""
        now = time.perf_counter()
        passed, self._last = now - self._last, now
        self._shortest = min(self._shortest, passed)
        self._spent += min(passed, PAUSE * self._shortest)
        return self._spent


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


def _counting(stack: PlaneStack, scene: Scene, settings: TuneSettings) -> Bool[Tensor, "n 4 4"]:
    """Blocks that are drawn on after the first part."""
    weights = _weights(stack, scene, settings)
    drawn = blocks.visible(stack) & ~_negligible(weights, settings.negligible[1])[:, None, None]
    return blocks.fewer(stack, drawn, weights, scene.camera, settings.layers)


def _weights(stack: PlaneStack, scene: Scene, settings: TuneSettings) -> Float[Tensor, "n 32 32"]:
    return weights_in_views(stack, scene, settings.pixel_centers)


def _negligible(weights: Float[Tensor, "n 32 32"], share: float) -> Bool[Tensor, " n"]:
    """Which tiles count least in the training views: their weights sum up to ``share`` of all.

    The limit is on the sum, not on a tile: with more planes, each tile counts less.
    """
    weight = weights.flatten(1).mean(1)
    order = weight.argsort()
    dropped = torch.zeros(len(weight), dtype=torch.bool)
    dropped[order[weight[order].cumsum(0) < share * weight.sum()]] = True
    return dropped


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
