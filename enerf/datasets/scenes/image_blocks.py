"""Blocks of images: a part of the training views in memory, which are replaced one after the other while training.

Batches are drawn from the views that are in memory. The views have a random order, a function of the seed; at a step
the block is a window of this order, taken as a circle, which moves on by one view every few steps. So the views of a
block depend on (seed, step) alone, and a resumed run has the same. Threads read the views that come next.
"""

import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from jaxtyping import Shaped
from torch import Tensor

from enerf.core import image_formats, parallel, rng
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import storage
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.pixels import PixelSampler
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.usable_pixels import Counts, segment_width

MOST_THREADS = 4  # each decodes an image, of which it needs a multiple of the bytes
_ORDER = 1 << 40  # number of the random order's stream, which is that of no step

Read = tuple[Tensor, Tensor | None, list[Counts]]  # image, mask, and counts of usable pixels for each crop


class Slots:
    """Images of a block of some views, indexed by the views of the scene."""

    def __init__(self, scene: Scene, views: Sequence[int], capacity: int, channels: int, dtype: torch.dtype) -> None:
        device, n = scene.c2w.device, len(scene.c2w)
        sizes = torch.tensor([scene.size(view) for view in range(n)])
        area = int(sizes[list(views)].prod(1).max())
        self.channels, self.dtype, self.device = channels, dtype, device
        self._sizes = [tuple(size) for size in sizes.tolist()]
        self._widths = sizes[:, 1].to(device)
        self._slot = torch.zeros(n, dtype=torch.int64, device=device)
        self._pixels = torch.empty(capacity, area, channels, dtype=dtype, device=device)

    def put(self, slot: int, view: int, image: Shaped[Tensor, "h w c"]) -> None:
        """Store the image of a view."""
        self._slot[view] = slot
        self._pixels[slot, : image.shape[0] * image.shape[1]].copy_(image.reshape(-1, image.shape[-1]))

    def __getitem__(self, index: int | tuple[Tensor, Tensor, Tensor]) -> Shaped[Tensor, "*b c"]:
        if isinstance(index, tuple):
            view, y, x = index
            return self._pixels[self._slot[view], y * self._widths[view] + x]
        height, width = self._sizes[index]
        return self._pixels[int(self._slot[index]), : height * width].reshape(height, width, -1)

    def size(self, view: int) -> tuple[int, int]:
        """Height and width of the image of a view."""
        height, width = self._sizes[view]
        return height, width

    def to(self, device: torch.device | str) -> "Slots":
        """The images themselves, which stay where they are."""
        return self


def capacity_of(scene: Scene, views: Sequence[int], n_bytes: int) -> int:
    """Number of images of a block of so many bytes, by the largest image and its mask; at least one, at most all."""
    return max(1, min(len(views), n_bytes // bytes_each(scene, views)))


def bytes_each(scene: Scene, views: Sequence[int]) -> int:
    """Bytes of the largest image of some views, with its mask if there are masks."""
    area = max(height * width for height, width in map(scene.size, views))
    return area * (storage.channels_of(scene.images) * scene.images.dtype.itemsize + (scene.masks is not None))


def steps_of(scene: Scene, views: Sequence[int], device: torch.device) -> int:
    """Number of steps after which a block gets another view, so that reading takes a small part of a step's time.

    The mean megapixels of a view, rounded and at least one; four times as many if the steps take the processor too.
    """
    areas = [height * width for height, width in map(scene.size, views)]
    share = 4 if device.type == "cpu" else 1
    return max(1, round(share * sum(areas) / len(areas) / 1e6))


class ImageBlocks:
    """The block of images of each step, and samplers of its pixels.

    Parameters
    ----------
    scene
        Its photographs and masks, wherever they are.
    views
        The training views.
    capacity
        Number of images of a block.
    every
        Number of steps after which it gets another view.
    seed
        Decides the order of the views.
    crops
        Central regions that samplers are asked for, as for ``PixelSampler``.

    Attributes
    ----------
    scene
        The scene with the images and masks of the block, indexed by the views of the scene.
    """

    def __init__(
        self, scene: Scene, views: Sequence[int], capacity: int, every: int, seed: int, crops: Sequence[float] = (1.0,)
    ) -> None:
        order = torch.randperm(len(views), generator=rng.generator_for(seed, _ORDER)).tolist()
        self._order = [views[i] for i in order] if capacity < len(views) else list(views)
        self._source, self._capacity, self._every, self._crops = scene, min(capacity, len(views)), every, tuple(crops)
        channels = storage.channels_of(scene.images)
        self._images = Slots(scene, views, self._capacity, channels, scene.images.dtype)
        self._masks = None if scene.masks is None else Slots(scene, views, self._capacity, 1, torch.bool)
        self.scene = replace(scene, images=self._images, masks=self._masks)
        largest = max(height * width for height, width in map(scene.size, views))
        self._segment = segment_width(self._capacity * largest)
        threads = min(MOST_THREADS, parallel.threads_for(image_formats.bytes_to_decode(largest)))
        self._ahead = threads + 1
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="enerf-images")
        weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._reading: dict[int, Future[Read]] = {}  # by position in the order
        self._present: dict[int, list[Counts]] = {}  # positions of the block, with the counts of each
        self._samplers: dict[float, PixelSampler] = {}

    def views_at(self, step: int) -> tuple[int, ...]:
        """Views of the block of a step."""
        return tuple(self._order[position % len(self._order)] for position in self._window(step))

    def at(self, step: int, crop: float | int = 1.0) -> PixelSampler:
        """Sampler of the pixels of a step's block, whose images are in memory then."""
        window = self._window(step)
        if list(self._present) != list(window):
            self._move(window)
            self._samplers.clear()
        if crop not in self._samplers:
            counts = None
            if self._masks is not None:
                counts = [found[self._crops.index(crop)] for found in self._present.values()]
            self._samplers[crop] = PixelSampler(self.scene, self.views_at(step), crop, counts)
        return self._samplers[crop]

    def _window(self, step: int) -> range:
        """Positions of a step's block in the order."""
        start = step // self._every if self._capacity < len(self._order) else 0
        return range(start, start + self._capacity)

    def _move(self, window: range) -> None:
        """Bring the images of a window into memory, and have those after it read."""
        wanted = range(window.start, window.stop + (self._ahead if self._capacity < len(self._order) else 0))
        for position in [p for p in self._reading if p not in wanted]:
            self._reading.pop(position).cancel()
        present: dict[int, list[Counts]] = {}
        for position in window:
            if position in self._present:
                present[position] = self._present[position]
                continue
            self._have_read(range(position, min(position + self._ahead, wanted.stop)))
            view = self._order[position % len(self._order)]
            image, mask, present[position] = self._reading.pop(position).result()
            self._images.put(position % self._capacity, view, image)
            if self._masks is not None and mask is not None:
                self._masks.put(position % self._capacity, view, mask)
        self._have_read(range(window.stop, wanted.stop))
        self._present = present

    def _have_read(self, positions: range) -> None:
        for position in positions:
            if position not in self._reading and position not in self._present:
                view = self._order[position % len(self._order)]
                self._reading[position] = self._read(view)

    def _read(self, view: int) -> Future[Read]:
        """Read a view in a background thread; if the scene is on a GPU, at once, since steps are recorded as graphs."""
        if "cuda" not in {each.device.type for each in (self._source.images, self._source.masks) if each is not None}:
            return self._pool.submit(_read, self._source, view, self._segment, self._crops)
        done: Future[Read] = Future()
        done.set_result(_read(self._source, view, self._segment, self._crops))
        return done


def _read(scene: Scene, view: int, segment: int, crops: Sequence[float]) -> Read:
    """Read a view's image and mask, to the CPU unless the scene is on a GPU, and count the mask's usable pixels."""
    image = scene.images.decoded(view) if isinstance(scene.images, OnDemandImages) else scene.images[view].clone()
    if scene.masks is None:
        return image, None, []
    mask = scene.masks.decoded(view) if isinstance(scene.masks, OnDemandImages) else scene.masks[view].clone()
    return image, mask, [scenes_pixels.counts_of(mask, segment, crop) for crop in crops]
