"""Image files to pixels, many at a time, and splits whose images are decoded when they are asked for.

Pixels are upright bytes, one channel where the file is grey and else red, green and blue. OpenCV decodes, several files
at once, because it lets go of Python's lock; whatever it might take for whole although it is not, Pillow judges.
"""

import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from enerf.core.errors import InputError
from enerf.datasets.labelled import augmentation
from enerf.datasets.labelled.archive import Store

Pixels = UInt8[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _ 3"]
THREADS = min(16, os.cpu_count() or 1)
_MARGIN = 256 / 224  # of the picture's shorter side over the part of it that tests see
_PART = 64  # files decoded one after the other


def decode(store: Store, name: str) -> Pixels:
    """Pixels of an image file.

    Raises
    ------
    InputError
        If it is truncated, damaged or no image, or has 32 bits a pixel.
    """
    import cv2

    data = store.read(name)
    if _looks_whole(data):
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
        except cv2.error:  # of too many pixels
            pixels = None
        if pixels is not None:
            return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    try:
        with Image.open(io.BytesIO(data)) as photo:
            photo.load()
            upright = ImageOps.exif_transpose(photo)
            if upright.mode.startswith("I;16"):  # the high byte, as OpenCV has it; Pillow would make all of it white
                return (np.asarray(upright) >> 8).astype(np.uint8)
            if upright.mode in ("I", "F"):
                raise ValueError("its pixels have 32 bits, of an unknown range; 8 or 16 are read")
            return np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        reason = "no image format is recognised" if "cannot identify" in str(error) else str(error).rstrip(".")
        raise InputError(
            f"{store.where(name)} cannot be read ({reason or type(error).__name__}), expected a whole image file"
        ) from None


def _looks_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG ends as it should; OpenCV fills up what is missing in one that does not."""
    return (data.startswith(b"\xff\xd8") and b"\xff\xd9" in data[-64:]) or (
        data.startswith(b"\x89PNG") and b"IEND" in data[-64:]
    )


def each(store: Store, names: Sequence[str], then: Callable[[int, Pixels], None]) -> Iterator[int]:
    """Decode files in several threads and call ``then`` with place and pixels; yields how many were done each time.

    Raises
    ------
    InputError
        If a file is no whole image: of those, the one that comes first.
    """

    def part(start: int) -> int:
        places = range(start, min(start + _PART, len(names)))
        for place in places:
            then(place, decode(store, names[place]))
        return len(places)

    pool = ThreadPoolExecutor(THREADS)
    try:
        yield from pool.map(part, range(0, len(names), _PART))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class OnDemand:
    """A split whose files are decoded when they are asked for.

    With ``resize``, pictures of any size become squares: for tests and augmentations that keep the size, the shorter
    side becomes 256/224 of ``size`` and the middle is taken (Krizhevsky, Sutskever, Hinton, 2012, as is usual now);
    for ``crop``, a random part. Without it they have that size.
    """

    store: Store
    names: tuple[str, ...]
    labels: Int64[Tensor, " n"]
    channels: int
    size: int
    resize: bool = True
    on_demand: bool = True

    def __len__(self) -> int:
        return len(self.names)

    def batch(
        self, numbers: Int64[Tensor, " b"], augment: str = "none", generator: torch.Generator | None = None
    ) -> UInt8[Tensor, "b c h w"]:
        """Images of these numbers.

        Raises
        ------
        InputError
            If a file is no whole image, or has another size and is not to be resized.
        """
        names = [self.names[i] for i in numbers.tolist()]
        made = np.empty((len(names), self.size, self.size, self.channels), np.uint8)
        fit: Callable[[str, Pixels, int], Pixels] = self._middle
        if augment == "crop":
            if generator is None:
                raise ValueError("crop needs a generator of random numbers")
            draws = torch.rand(len(names), augmentation.TRIES, 4, generator=generator, dtype=torch.float64).numpy()
            flips = torch.randint(2, (len(names),), generator=generator).tolist()
            fit = functools.partial(self._part, draws=draws, flips=flips)

        def put(place: int) -> None:
            pixels = fit(names[place], as_channels(decode(self.store, names[place]), self.channels), place)
            made[place] = pixels.reshape(made.shape[1:])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, range(len(names))))
        images = torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()
        return images if augment == "crop" else augmentation.augmented(images, augment, generator)

    def _middle(self, name: str, pixels: Pixels, place: int) -> Pixels:
        """The picture as tests see it."""
        height, width = pixels.shape[:2]
        if not self.resize:
            if (width, height) != (self.size, self.size):
                raise InputError(
                    f"{self.store.where(name)} has {width}×{height} pixels, expected {self.size}×{self.size} as the "
                    "first image, or --image_size"
                )
            return pixels
        side = round(self.size * _MARGIN)
        scale = side / min(height, width)
        pixels = resized(pixels, max(side, round(width * scale)), max(side, round(height * scale)))
        top, left = ((length - self.size) // 2 for length in pixels.shape[:2])
        return pixels[top : top + self.size, left : left + self.size]

    def _part(
        self, name: str, pixels: Pixels, place: int, draws: Float64[np.ndarray, "b t 4"], flips: list[int]
    ) -> Pixels:
        """A random part of the picture, every other one turned left to right."""
        left, top, width, height = augmentation.crop_box(pixels.shape[1], pixels.shape[0], draws[place])
        part = resized(pixels[top : top + height, left : left + width], self.size, self.size)
        return part[:, ::-1] if flips[place] else part


def as_channels(pixels: Pixels, channels: int) -> Pixels:
    """Grey pixels as three equal channels where three are wanted."""
    return np.repeat(pixels[..., None], 3, axis=-1) if channels == 3 and pixels.ndim == 2 else pixels


def resized(pixels: UInt8[np.ndarray, "_ _ *c"], width: int, height: int) -> UInt8[np.ndarray, "{height} {width} *c"]:
    """A picture of that size: means over areas where it shrinks, straight lines between pixels where it grows."""
    import cv2

    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width * height < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
