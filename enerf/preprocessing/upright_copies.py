"""Upright copies of photographs and masks in a scene's folder, in formats that COLMAP reads.

COLMAP ignores the EXIF orientation, and drops WebP, HEIC and AVIF files. Files that need no change are copied byte
by byte: a link to the original would let whoever edits the scene's images change the only original. All others are
decoded, rotated and encoded again, as JPEG of quality 97 without chroma subsampling, or as PNG from formats without
loss.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from enerf.core import files, image_formats, images, io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.datasets.scenes import exif_exposure
from enerf.preprocessing.photographs import Photograph

QUALITY = 97
IMAGES, MASKS = "images", "masks"
_BLOCK = 1 << 20  # bytes that are copied at a time
_LOSSY = (".jpg", ".jpeg", ".webp")  # masks whose zeros are not exact


def write(scene: Path, photographs: Sequence[Photograph], *, invert_masks: bool = False) -> None:
    """Write ``images/NAME`` and, of photographs with a mask, ``masks/NAME.png``; files that are there are kept.

    Each file is written atomically, so that what is there is whole. Masks are 255 where a pixel counts, else 0.

    Parameters
    ----------
    scene
        Folder of the scene.
    photographs
        What is copied.
    invert_masks
        Ignore the pixels where masks are not zero.

    Raises
    ------
    InputError
        If a file is damaged, a mask is of another shape than its photograph, or a file cannot be written.
    """
    for photo in progress_bar(None, "copy photographs", "image", iterable=photographs, delay=2, leave=False):
        target = scene / IMAGES / photo.name
        if not target.is_file():
            _write_image(target, photo)
        if photo.mask is not None and not mask_path(scene, photo).is_file():
            kept = _mask(photo, photo.mask) != invert_masks
            images.write_png(mask_path(scene, photo), kept.astype(np.uint8) * np.uint8(255))


def mask_path(scene: Path, photo: Photograph) -> Path:
    """File of a photograph's mask in the scene, named as COLMAP does."""
    return scene / MASKS / f"{photo.name}.png"


def write_jpeg(path: Path, pixels: UInt8[np.ndarray, "h w 3"], exif: Image.Exif | None = None) -> None:
    """Write a JPEG of quality 97 without chroma subsampling, atomically, with EXIF data if some are given.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with io.atomic_path(path) as temporary, io.os_errors_as_input_errors(path):
        kept = b"" if exif is None else exif
        Image.fromarray(pixels).save(temporary, format="JPEG", quality=QUALITY, subsampling=0, exif=kept)


def _write_image(target: Path, photo: Photograph) -> None:
    if photo.is_copied:
        _copy(photo.source, target)
        return
    pixels = images.to_uint8(images.read(photo.source))
    if pixels.shape[:2] != (photo.height, photo.width):
        raise InputError(
            f"{photo.source}: found {pixels.shape[1]}x{pixels.shape[0]} pixels, expected {photo.width}x{photo.height} "
            "as its header says"
        )
    if target.suffix.lower() == ".png":
        images.write_png(target, pixels)
    else:
        write_jpeg(target, np.ascontiguousarray(pixels[..., :3]), _exposure(photo.source))


def _exposure(source: Path) -> Image.Exif:
    """The EXIF data that say how a photograph was exposed, alone."""
    kept = Image.Exif()
    with files.open_regular(source) as file, image_formats.open_image(file) as photo:
        known = photo.getexif().get_ifd(exif_exposure.EXIF_IFD)
    if not np.isnan(exif_exposure.of_tags(dict(known))):
        kept.get_ifd(exif_exposure.EXIF_IFD).update({tag: known[tag] for tag in exif_exposure.TAGS if tag in known})
    return kept


def _copy(source: Path, target: Path) -> None:
    """Copy the bytes of a file atomically."""
    with (
        files.open_regular(source) as file,
        io.atomic_path(target) as temporary,
        io.os_errors_as_input_errors(target),
        temporary.open("wb") as output,
    ):
        while block := file.read(_BLOCK):
            output.write(block)


def _mask(photo: Photograph, path: Path) -> Bool[np.ndarray, "h w"]:
    """Where a mask is not zero, upright and at the size of the photograph.

    A mask is rotated with its photograph if it has the shape of the unrotated pixels only, or orientation data of its
    own. Values of lossy files count as zero below a half.
    """
    import cv2

    gray = _gray(images.read(path))
    height, width = gray.shape
    if photo.orientation >= 5 and _fits(height, width, photo) and not _fits(width, height, photo):
        gray = images.apply_orientation(gray, photo.orientation)
        height, width = gray.shape
    if not _fits(width, height, photo):
        raise InputError(
            f"{path}: found a mask of {width}x{height} pixels, expected the shape of {photo.source.name}, "
            f"{photo.width}x{photo.height}"
        )
    kept = gray >= 0.5 if path.suffix.lower() in _LOSSY else gray > 0
    if (width, height) == (photo.width, photo.height):
        return kept
    size = (photo.width, photo.height)
    return np.asarray(cv2.resize(kept.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)


def _gray(pixels: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """The largest color channel; where a mask is transparent, zero."""
    gray = pixels[..., :3].max(axis=-1)
    return np.where(pixels[..., 3] > 0, gray, np.float32(0)) if pixels.shape[-1] == 4 else gray


def _fits(width: int, height: int, photo: Photograph) -> bool:
    """Whether a size has the photograph's aspect ratio, within 1 %."""
    return abs(width * photo.height - height * photo.width) <= 0.01 * height * photo.width
