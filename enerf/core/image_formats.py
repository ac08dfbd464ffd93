"""Opening of image files by Pillow: formats that need a plugin, and limits of size, before anything is decoded."""

import importlib
import threading
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from enerf.core import files

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_DECODERS = ("pi_heif", "pillow_heif")  # the same interface; the second one can also write
_FILTERS = threading.Lock()  # warnings.catch_warnings changes the filters of all threads
_BYTES_PER_VALUE = 6  # a decoded byte, its copy in RGB or RGBA, and a float32


def most_pixels() -> int | None:
    """Pixels of an image beyond which Pillow opens no file; None: it has no limit."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def open_image(file: Any) -> Image.Image:
    """Open an image in a binary file without decoding it; the format is detected from the content, HEIC included.

    Raises
    ------
    ValueError
        If it is empty, in no known format or in one whose decoder is not installed, or has more pixels than Pillow's
        limit, about 180 million.
    OSError, SyntaxError
        From Pillow, for damaged headers.
    """
    start = file.read(16)
    file.seek(0)
    if not start:
        raise ValueError("the file is empty")
    if start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS and not _heif_is_registered():
        raise ValueError("HEIC is read with the extra heic: pip install 'enerf[heic]'")
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its memory is checked by require_pixels
        try:
            return Image.open(file)
        except UnidentifiedImageError:
            raise ValueError(_unknown_format(start)) from None
        except Image.DecompressionBombError:
            raise ValueError(f"it declares more than {most_pixels():,} pixels") from None


def require_pixels(photo: Image.Image, path: Any) -> None:
    """Check that an opened image fits in memory once it is decoded to floats.

    Raises
    ------
    InputError
        If it does not.
    """
    width, height = photo.size
    files.require_memory(bytes_to_decode(width * height), f"{path}: an image of {width}x{height} pixels")


def bytes_to_decode(pixels: int) -> int:
    """Bytes of memory that decoding an image of so many pixels to floats may need."""
    return pixels * 4 * _BYTES_PER_VALUE


def has_16_bits(photo: Image.Image, start: bytes) -> bool:
    """Whether a PNG or TIFF stores 16 bits per channel, which Pillow reduces to 8 for color images.

    ``start``: the first 25 bytes of the file, or more.
    """
    if photo.format == "PNG":
        return start[24] == 16  # the depth in the IHDR chunk, which always comes first
    bits = getattr(photo, "tag_v2", {}).get(258, 8)
    return bool(np.max(bits) == 16)


def frame_count(photo: Image.Image) -> int:
    """Number of frames or pages of an animated or paged image; 1 for photographs with embedded previews (MPO)."""
    if photo.format not in ("PNG", "GIF", "WEBP", "TIFF", "AVIF"):
        return 1
    return int(getattr(photo, "n_frames", 1))


def _unknown_format(start: bytes) -> str:
    if start[4:8] == b"ftyp" and start[8:12] in _AVIF_BRANDS:
        return "AVIF is read with Pillow 11.3 or later: pip install -U pillow"
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "it is JPEG XL, which is not read: convert it to PNG or JPEG"
    return "no image format is recognized"


@lru_cache(maxsize=1)
def _heif_is_registered() -> bool:
    """Register the HEIC decoder of one of the plugins with Pillow; returns whether there is one."""
    for name in _DECODERS:
        try:
            plugin = importlib.import_module(name)
        except ImportError:
            continue
        plugin.register_heif_opener(thumbnails=False)
        return True
    return False
