"""Where the photographs of a scene are: in memory, in a mapped file of the cache folder, or decoded on demand.

Small scenes are in memory. Larger ones are decoded once into a file that is mapped (``decoded_cache``): the pixels are
the same bit for bit. If neither the bound of the cache nor the disk allows that, they are in memory if it has room for
twice as much, and else decoded when they are used (``on_demand_images``).
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from enerf.core import files, image_formats, images, ranks
from enerf.datasets.scenes import decoded_cache, transparency
from enerf.datasets.scenes.on_demand_images import OnDemandImages
from enerf.datasets.scenes.packed_images import IndexedImages, PackedImages
from enerf.datasets.scenes.photographs import Photographs
from enerf.datasets.scenes.transparency import Stored

log = logging.getLogger("enerf")
SceneImages = Tensor | IndexedImages
IN_MEMORY = 1 << 31  # bytes of decoded photographs that are kept in memory, if it has four times as much
HEADROOM = 2  # times the decoded photographs: memory with which they are in it if the cache has no room
_OPAQUE = ("RGB", "L", "CMYK", "YCbCr", "1")  # Pillow's modes of images without transparency, unless their data say so


@dataclass(frozen=True)
class Limits:
    """Bounds of the bytes of decoded photographs in memory and in files of the cache folder; by default, in memory."""

    in_memory: int = sys.maxsize
    cached: int = 0

    @classmethod
    def of_cache(cls, gigabytes: float | int) -> "Limits":
        """Bounds for a cache of that many gigabytes (10^9 bytes)."""
        return cls(min(IN_MEMORY, files.available_memory() // 4), int(gigabytes * 1e9))


UNBOUNDED = Limits()


def load(photographs: Photographs, limits: Limits) -> SceneImages:
    """The decoded photographs: bytes if lossless, else floats in [0, 1]; as a tensor if they have one size.

    Raises
    ------
    InputError
        If one is damaged; on demand, when it is used.
    """
    needed = decoded_cache.Layout().n_bytes(photographs.pixels)
    if needed <= limits.in_memory:
        return in_memory(photographs)
    try:
        return decoded_cache.mapped(photographs, limits.cached)
    except decoded_cache.NoRoom as reason:
        if fits_memory(max(needed, reason.n_bytes)):
            log.info("%s: %s: photographs are kept in memory", photographs.folder, reason)
            return in_memory(photographs)
        log.warning("%s: %s: photographs are decoded again whenever they are used", photographs.folder, reason)
    return on_demand(photographs)


def fits_memory(n_bytes: int) -> bool:
    """Whether photographs or masks of so many bytes may be kept in memory by each process of this computer."""
    return HEADROOM * n_bytes * ranks.local_size() < files.available_memory()


def in_memory(photographs: Photographs) -> Tensor | PackedImages:
    """The decoded photographs in memory."""
    flags = {"white": photographs.white, "keep_alpha": photographs.keep_alpha}
    if (size := photographs.common_size) is not None:
        shape = (len(photographs), *size)
        return torch.from_numpy(transparency.stacked(photographs.each(), shape, photographs.folder, **flags))
    flat = transparency.packed(photographs.each(), photographs.pixels, photographs.folder, **flags)
    return PackedImages(torch.from_numpy(flat), torch.tensor(photographs.sizes))


def on_demand(photographs: Photographs) -> OnDemandImages:
    """The photographs, decoded whenever they are used; as all of them would be stored in memory.

    With alpha if a pixel is transparent and alpha is kept, as floats if one of them has other values than bytes. Files
    that may be so by their headers are decoded once to know, up to the first one that is.
    """
    channels, is_exact = 3, images.exact_bytes(photographs.one(0, 3)) is not None
    for index, file in enumerate(photographs.files):
        has_alpha, is_deep = _header(file)
        asks_alpha = channels == 3 and photographs.keep_alpha and has_alpha
        if asks_alpha or (is_exact and (is_deep or (photographs.white and has_alpha))):
            picture = photographs.one(index, 4)
            channels = 4 if photographs.keep_alpha and _is_transparent(picture) else channels
            is_exact = is_exact and images.exact_bytes(picture) is not None

    def read(index: int) -> Tensor:
        picture = photographs.one(index, channels)
        stored = images.to_uint8(picture) if is_exact else images.to_floats(picture)
        return torch.from_numpy(stored if stored.flags.writeable else stored.copy())

    return OnDemandImages(read, torch.tensor(photographs.sizes), channels, torch.uint8 if is_exact else torch.float32)


def _is_transparent(picture: Stored) -> bool:
    """Whether a pixel of a decoded picture is not opaque."""
    return picture.shape[-1] == 4 and bool((images.to_floats(picture[..., 3:]) < 1).any())


def _header(file: object) -> tuple[bool, bool]:
    """Whether an image file can have transparent pixels, and 16 bits, by its header; of JPEG, by its name."""
    path = str(file)
    if path.lower().endswith((".jpg", ".jpeg")):
        return False, False
    try:
        with files.open_regular(path) as content, image_formats.open_image(content) as photo:
            has_alpha = photo.mode not in _OPAQUE or "transparency" in photo.info
            content.seek(0)
            return has_alpha, image_formats.has_16_bits(photo, content.read(25))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True, True


def is_resident(found: SceneImages) -> bool:
    """Whether any pixel can be read at once: images in memory, or mapped ones that memory can hold."""
    if not isinstance(found, PackedImages):
        return isinstance(found, Tensor)
    if not found.is_mapped:
        return True
    return found.pixels.nbytes <= files.available_memory() * 3 // 4


def readable(views: Sequence[int], *stored: SceneImages | None, most: int = 16) -> Sequence[int]:
    """The views, or a few spread over them if any of the images has to be decoded on demand."""
    return evenly(views, most) if any(isinstance(each, OnDemandImages) for each in stored) else views


def evenly(views: Sequence[int], most: int) -> Sequence[int]:
    """The views, or ``most`` of them at even distances if they are more.

    >>> evenly(range(3), 4), evenly(range(10), 4)
    (range(0, 3), [0, 2, 5, 7])
    """
    n = len(views)
    return views if n <= most else [views[i * n // most] for i in range(most)]


def channels_of(found: SceneImages) -> int:
    """Number of channels of images."""
    return found.shape[-1] if isinstance(found, Tensor) else found.channels


def to_device(found: SceneImages, device: torch.device) -> SceneImages:
    """Images on a device, or as they are if they would take more than half of a GPU's free memory."""
    pixels = found.pixels if isinstance(found, PackedImages) else found
    if not isinstance(pixels, Tensor) or device.type != "cuda":
        return found.to(device)
    free, _ = torch.cuda.mem_get_info(device)
    if pixels.device.type == "cpu" and pixels.nbytes > free // 2:
        log.info("photographs stay in the host's memory: the GPU has %s free", files.format_bytes(free))
        return found
    return found.to(device)


def gathered(found: SceneImages, view: Tensor, y: Tensor, x: Tensor, device: torch.device) -> Tensor:
    """The pixels of images at some views, rows and columns, on ``device``, wherever images and indices are."""
    at = found.device
    return found[view.to(at), y.to(at), x.to(at)].to(device)
