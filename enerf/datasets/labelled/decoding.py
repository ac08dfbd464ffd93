"""Decoding of image files in parallel, and splits whose images are decoded on demand.

Pixels are uint8 with EXIF rotation applied: one channel for grayscale files, otherwise RGB. OpenCV decodes in threads,
as it releases the GIL; files that it may not recognize as truncated are decoded by Pillow.
"""

import functools
import io
import math
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from PIL import ImageOps
from torch import Tensor

from enerf.core import image_formats, images
from enerf.core.errors import InputError
from enerf.datasets.labelled import augmentation
from enerf.datasets.labelled.archive import Archive

Pixels = UInt8[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _ 3"]
THREADS = min(16, os.cpu_count() or 1)
_MARGIN = 256 / 224  # shorter side after resizing over the central crop, for tests
_CHUNK = 64  # files per task
_UNCHECKED_PIXELS = 1 << 22  # images up to here are decoded without a look at the available memory


def decode(archive: Archive, name: str) -> Pixels:
    """Pixels of an image file.

    Raises
    ------
    InputError
        If it is truncated, damaged, not an image, does not fit in memory, or has 32 bits per channel.
    """
    data, where = archive.read(name), archive.where(name)
    try:
        if not 0 < _declared_pixels(data) <= _UNCHECKED_PIXELS:
            with image_formats.open_image(io.BytesIO(data)) as photo:
                image_formats.require_pixels(photo, where)
        return _decode(data)
    except InputError:
        raise
    except Exception as error:  # Pillow's readers raise errors of any type
        reason = str(error).rstrip(".") or type(error).__name__
        raise InputError(f"{where} cannot be read ({reason}), expected a whole image file") from None


def _decode(data: bytes) -> Pixels:
    """Pixels of an image by OpenCV, or by Pillow where OpenCV cannot."""
    import cv2

    complete = _is_complete(data)
    if complete:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
        except cv2.error:  # too many pixels
            pixels = None
        if pixels is not None:
            return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])
    with image_formats.open_image(io.BytesIO(data)) as photo:
        photo.load()
        if complete:
            images.require_all_rows(photo, data)
        upright = ImageOps.exif_transpose(photo)
        if upright.mode.startswith("I;16"):  # the high byte, as in OpenCV; Pillow would clip to white
            return (np.asarray(upright) >> 8).astype(np.uint8)
        if upright.mode in ("I", "F"):
            raise ValueError("its pixels have 32 bits, of an unknown range; 8 or 16 are read")
        return np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB"))


def _is_complete(data: bytes) -> bool:
    """Whether a JPEG or PNG has its end marker; OpenCV silently fills truncated files."""
    return (data.startswith(b"\xff\xd8") and b"\xff\xd9" in data[-64:]) or (
        data.startswith(b"\x89PNG") and b"IEND" in data[-64:]
    )


def _declared_pixels(data: bytes) -> int:
    """Number of pixels that the header of a PNG or JPEG declares; 0 if it is not found."""
    if data.startswith(b"\x89PNG"):
        return math.prod(struct.unpack(">II", data[16:24]))
    start = 2
    while start + 9 <= len(data) and data[start] == 0xFF:
        if 0xC0 <= data[start + 1] <= 0xCF and data[start + 1] not in (0xC4, 0xC8, 0xCC):  # a start of frame
            return math.prod(struct.unpack(">HH", data[start + 5 : start + 9]))
        start += 2 + int.from_bytes(data[start + 2 : start + 4])
    return 0


def each(archive: Archive, names: Sequence[str], then: Callable[[int, Pixels], None]) -> Iterator[int]:
    """Decode files in several threads and call ``then(index, pixels)``; yields the number of files per chunk.

    Raises
    ------
    InputError
        If a file is not a complete image; the first of them is reported.
    """

    def chunk(start: int) -> int:
        indices = range(start, min(start + _CHUNK, len(names)))
        for index in indices:
            then(index, decode(archive, names[index]))
        return len(indices)

    pool = ThreadPoolExecutor(THREADS)
    try:
        yield from pool.map(chunk, range(0, len(names), _CHUNK))
    finally:
        pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class OnDemand:
    """A split whose image files are decoded on demand.

    With ``resize``, images of any size become squares: for tests and size-preserving augmentations, the shorter side is
    resized to 256/224 of ``size`` and the center is cropped (as in Krizhevsky, Sutskever, Hinton, 2012); for ``crop``,
    a random crop is resized. Without ``resize`` all files must have that size.
    """

    archive: Archive
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
        """Images of the given numbers.

        Raises
        ------
        InputError
            If a file is not a complete image, or has another size and ``resize`` is off.
        """
        names = [self.names[i] for i in numbers.tolist()]
        made = np.empty((len(names), self.size, self.size, self.channels), np.uint8)
        fit: Callable[[str, Pixels, int], Pixels] = self._center_crop
        if augment == "crop":
            if generator is None:
                raise ValueError("crop needs a generator of random numbers")
            draws = torch.rand(len(names), augmentation.TRIES, 4, generator=generator, dtype=torch.float64).numpy()
            flips = torch.randint(2, (len(names),), generator=generator).tolist()
            fit = functools.partial(self._random_crop, draws=draws, flips=flips)

        def put(place: int) -> None:
            pixels = fit(names[place], as_channels(decode(self.archive, names[place]), self.channels), place)
            made[place] = pixels.reshape(made.shape[1:])

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(put, range(len(names))))
        images = torch.from_numpy(made).permute(0, 3, 1, 2).contiguous()
        return images if augment == "crop" else augmentation.augmented(images, augment, generator)

    def _center_crop(self, name: str, pixels: Pixels, place: int) -> Pixels:
        """The resized center crop used for tests."""
        height, width = pixels.shape[:2]
        if not self.resize:
            if (width, height) != (self.size, self.size):
                raise InputError(
                    f"{self.archive.where(name)} has {width}×{height} pixels, expected {self.size}×{self.size} as the "
                    "first image, or --image_size"
                )
            return pixels
        side = round(self.size * _MARGIN)
        scale = side / min(height, width)
        pixels = resized(pixels, max(side, round(width * scale)), max(side, round(height * scale)))
        top, left = ((length - self.size) // 2 for length in pixels.shape[:2])
        return pixels[top : top + self.size, left : left + self.size]

    def _random_crop(
        self, name: str, pixels: Pixels, place: int, draws: Float64[np.ndarray, "b t 4"], flips: list[int]
    ) -> Pixels:
        """A resized random crop, flipped horizontally with probability 1/2."""
        left, top, width, height = augmentation.crop_box(pixels.shape[1], pixels.shape[0], draws[place])
        part = resized(pixels[top : top + height, left : left + width], self.size, self.size)
        return part[:, ::-1] if flips[place] else part


def as_channels(pixels: Pixels, channels: int) -> Pixels:
    """Replicate grayscale pixels to three channels if ``channels`` is 3."""
    return np.repeat(pixels[..., None], 3, axis=-1) if channels == 3 and pixels.ndim == 2 else pixels


def resized(pixels: UInt8[np.ndarray, "_ _ *c"], width: int, height: int) -> UInt8[np.ndarray, "{height} {width} *c"]:
    """Resized pixels: area averaging when shrinking, bilinear interpolation when enlarging."""
    import cv2

    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = width * height < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
