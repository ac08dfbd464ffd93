"""Image I/O: read, area-downsample, convert to bytes, write PNG and MP4.

An image is an array ``height × width × channels``, float in [0, 1] or bytes in [0, 255], in the color space of the file
(sRGB for photographs). Channels are RGB, or RGBA with straight alpha. *Raw* pixels are those the file stores; *upright*
pixels are those after the EXIF orientation has been applied.
"""

import io
import logging
import os
import struct
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped, UInt8
from PIL import Image
from torch import Tensor

from enerf.core import files, image_formats
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.core.image_files import reason_not_read

log = logging.getLogger("enerf")
AnyPath = str | os.PathLike[str]
_EXIF_ORIENTATION = 274
_PNG_METADATA = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")  # where Pillow looks for the orientation
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MOST_CHUNKS = 1 << 18  # of a PNG file that are looked at for metadata
_CRF = 10  # constant rate factor of the encoder; imageio's quality 8
_UNDECODABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, Image.DecompressionBombError)


def size(path: AnyPath) -> tuple[int, int, bool]:
    """Raw width, raw height, and whether the EXIF orientation swaps the two; errors as for ``header``."""
    width, height, orientation = header(path)
    return width, height, orientation >= 5


def header(path: AnyPath) -> tuple[int, int, int]:
    """Raw width, raw height, and EXIF orientation, 1 (upright) to 8.

    Raises InputError if the file is missing, not an image, or does not fit in memory.
    """
    try:
        with files.open_regular(path) as file, image_formats.open_image(file) as photo:
            image_formats.require_pixels(photo, path)
            orientation = _orientation(photo, _png_metadata(file) if photo.format == "PNG" else b"")
            tags = getattr(photo, "tag_v2", {})  # Pillow rotates a TIFF's size, but not its tags
            width, height = int(tags.get(256, photo.size[0])), int(tags.get(257, photo.size[1]))
    except _UNDECODABLE as error:
        raise _unreadable(path, error) from None
    return width, height, orientation


def read(path: AnyPath, rotate: bool = True) -> Float32[np.ndarray, "h w c"]:
    """Read an image in [0, 1] with 3 channels, or 4 if the file has transparency.

    16-bit files keep their precision; gray, palette and CMYK files are converted to RGB. Pixels are upright with
    ``rotate`` and raw without; HEIC is always upright. The format is detected from the file's content, not its name. Of
    an animated image the first frame is read, with a warning.

    Raises InputError if the file is missing, truncated, not an image, or does not fit in memory.
    """
    return to_floats(read_stored(path, rotate))


def read_stored(path: AnyPath, rotate: bool = True) -> UInt8[np.ndarray, "h w c"] | Float32[np.ndarray, "h w c"]:
    """Read an image as ``read`` does, but as bytes, value · 255, unless the file has 16 bits per channel.

    A quarter of the memory, and exact: ``to_floats`` of the bytes are the floats of ``read``.
    """
    try:
        data = files.read_bytes(path)
        with image_formats.open_image(io.BytesIO(data)) as photo:
            image_formats.require_pixels(photo, path)
            if (frames := image_formats.frame_count(photo)) > 1:
                log.warning("%s: found %d frames or pages; the first is read", path, frames)
            upright = photo.format == "TIFF"  # both decoders rotate a TIFF by themselves, and Pillow forgets it
            if not upright:
                photo.load()  # raises for a truncated file, which cv2 would fill with gray
            orientation, deep = _orientation(photo, data), image_formats.has_16_bits(photo, data)
            photo.load()
            pixels = _decode_16_bit(data) if deep else _decode_8_bit(photo)
            require_all_rows(photo, data)
    except _UNDECODABLE as error:
        raise _unreadable(path, error) from None
    if rotate == upright:
        return pixels
    return apply_orientation(pixels, orientation if rotate else {6: 8, 8: 6}.get(orientation, orientation))


def read_mask(path: AnyPath, rotate: bool = True) -> Bool[np.ndarray, "h w"]:
    """Which pixels of an image are not black, whatever their alpha; ``rotate`` and errors as for ``read``."""
    red, green, blue = (part > 0 for part in np.moveaxis(read(path, rotate)[..., :3], -1, 0))
    return np.asarray(red | green | blue)


def require_all_rows(photo: Image.Image, data: bytes) -> None:
    """Raise ValueError if a PNG, decoded by Pillow, has too few rows, which Pillow fills with zeros and OpenCV refuses.

    Then one of the last two is zero: of an interlaced image the last one may be complete without its predecessor.
    """
    import cv2

    if photo.format != "PNG":
        return
    width, height = photo.size
    if all(row.any() for row in np.asarray(photo.crop((0, max(0, height - 2), width, height)))):
        return
    if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None:
        raise ValueError("its pixel data end early")


def apply_orientation(pixels: Shaped[np.ndarray, "h w *c"], orientation: int) -> Shaped[np.ndarray, "h2 w2 *c"]:
    """Upright pixels from raw pixels and their EXIF orientation 1 … 8.

    >>> apply_orientation(np.array([[1, 2, 3]]), 6).tolist()
    [[1], [2], [3]]
    """
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def composite(rgba: Float[np.ndarray, "*b c"], white: bool) -> Float[np.ndarray, "*b 3"]:
    """Image without its alpha channel: composited over white, or else its stored colors.

    As in nerf-pytorch; in NeRF's synthetic scenes, transparent pixels are stored as black. An image without alpha is
    returned unchanged.

    >>> composite(np.array([0.5, 0.0, 1.0, 0.5]), white=True)
    array([0.75, 0.5 , 1.  ])
    """
    rgb, alpha = rgba[..., :3], rgba[..., 3:4]
    return rgb * alpha + (1 - alpha) if white and rgba.shape[-1] == 4 else rgb


def downsample(
    image: Float32[np.ndarray, "h w c"], to: float | int | tuple[int, int], *, by_alpha: bool = False
) -> Float32[np.ndarray, "h2 w2 c"]:
    """Area-downsampled image: each pixel is the mean of the area it covers; alpha is averaged like a color.

    Parameters
    ----------
    image
        The image.
    to
        A factor that divides width and height (rounded to whole pixels), or the new ``(width, height)``.
    by_alpha
        Weight colors by alpha in their mean, so that hidden colors of transparent pixels are not mixed into visible
        ones: the result over any background is the downsampled image over that background.
    """
    height, width = image.shape[:2]
    shape = to if isinstance(to, tuple) else (max(1, round(width / to)), max(1, round(height / to)))
    if shape == (width, height):
        return image.copy()
    small = _area_mean(image, shape)
    if not by_alpha or not has_transparency(image):
        return small
    weighted = _area_mean(np.concatenate([image[..., :3] * image[..., 3:], image[..., 3:]], axis=-1), shape)
    alpha = weighted[..., 3:]
    return np.concatenate(
        [np.where(alpha > 0, weighted[..., :3] / np.maximum(alpha, 1e-12), small[..., :3]), alpha], -1
    )


def has_transparency(image: Float32[np.ndarray, "h w c"] | UInt8[np.ndarray, "h w c"]) -> bool:
    """Whether some pixel is not opaque."""
    return image.shape[-1] == 4 and bool(image[..., 3].min() < (255 if image.dtype == np.uint8 else 1))


def to_floats(image: UInt8[np.ndarray, "*b"] | Float32[np.ndarray, "*b"]) -> Float32[np.ndarray, "*b"]:
    """Values in [0, 1] of bytes, which are divided by 255; floats are returned unchanged."""
    return _from_uint8(image) if image.dtype == np.uint8 else image


def stack(
    pictures: Iterable[Float32[np.ndarray, "h w c"] | UInt8[np.ndarray, "h w c"]], shape: tuple[int, int, int, int]
) -> UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]:
    """Images in one array of that shape: bytes if all are, or every float is exactly a byte / 255; else the floats.

    The iterable is consumed one image at a time, so that memory holds the array and one image. Bytes divided by 255
    give the same floats bit for bit. If an image has an alpha channel, so has the array, opaque for the others.

    >>> stack([np.zeros((1, 2, 3), np.float32)], (1, 1, 2, 3)).dtype
    dtype('uint8')
    """
    return _filled((picture[None] for picture in pictures), np.empty(shape, dtype=np.uint8))


def pack(
    pictures: Iterable[Float32[np.ndarray, "_ _ c"] | UInt8[np.ndarray, "_ _ c"]], pixels: int
) -> UInt8[np.ndarray, "p c"] | Float32[np.ndarray, "p c"]:
    """Pixels of images of any sizes in one array, image after image; ``pixels`` is their number. Like ``stack``."""
    rows = (picture.reshape(-1, picture.shape[-1]) for picture in pictures)
    return _filled(rows, np.empty((pixels, 3), dtype=np.uint8))


def _filled(parts: Iterable[np.ndarray], pixels: np.ndarray) -> np.ndarray:
    """An array, given with three channels, filled along its first axis: bytes if lossless, with alpha if there is."""
    start = 0
    for part in parts:
        end = start + len(part)
        if part.shape[-1] > pixels.shape[-1]:
            pixels = _with_alpha(pixels, start)
        values = part if part.shape[-1] == pixels.shape[-1] else opaque(part)
        stored = exact_bytes(values) if pixels.dtype == np.uint8 else to_floats(values)
        if stored is None:
            before, stored, pixels = pixels[:start], values, np.empty(pixels.shape, dtype=np.float32)
            pixels[:start] = before
            pixels[:start] /= np.float32(255)
        pixels[start:end] = stored
        start = end
        del part, values, stored  # before the next one is read
    return pixels


def exact_bytes(image: Float32[np.ndarray, "*b"] | UInt8[np.ndarray, "*b"]) -> UInt8[np.ndarray, "*b"] | None:
    """The bytes that are an image's values · 255; None if there are none because a value is between two bytes."""
    if image.dtype == np.uint8:
        return image
    stored = to_uint8(image)
    return stored if np.array_equal(_from_uint8(stored), image) else None


def to_uint8(x: Shaped[np.ndarray, "*b"] | Shaped[Tensor, "*b"]) -> UInt8[np.ndarray, "*b"]:
    """Bytes of values in [0, 1]: clipped, scaled and rounded; bytes are returned unchanged, NaN becomes 0.

    >>> to_uint8(np.array([-1.0, 0.5, 0.999, 2.0]))
    array([  0, 128, 255, 255], dtype=uint8)
    """
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.float() if x.dtype != torch.uint8 else x).numpy()
    if x.dtype == np.uint8:
        return x
    scaled = np.clip(np.nan_to_num(np.asarray(x, dtype=np.float32), nan=0.0), 0, 1) * 255
    return np.floor(scaled + 0.5).astype(np.uint8)


def write_png(
    path: AnyPath, image: Shaped[np.ndarray, "h w *c"] | Shaped[Tensor, "h w *c"], orientation: int = 1
) -> None:
    """Write a PNG of 1, 3 or 4 channels atomically; missing folders are created.

    ``orientation`` is that of the EXIF data, which are left out if it is 1 (upright).

    Raises InputError if the folder cannot be written to or is full.
    """
    path, pixels = Path(path), to_uint8(image)
    pixels = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    with core_io.atomic_path(path) as temporary, core_io.os_errors_as_input_errors(path):
        exif = Image.Exif()
        if orientation != 1:
            exif[_EXIF_ORIENTATION] = orientation
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG", exif=exif)


def write_mp4(path: AnyPath, frames: Iterable[np.ndarray | Tensor], fps: float | int = 30) -> None:
    """Write an H.264 video atomically, with one frame at a time in memory.

    Frames are images of 1, 3 or 4 channels (alpha is dropped); sides of odd length are padded with their last row or
    column, because the pixel format (yuv420p, for compatibility) needs even ones.

    Raises InputError if there is no frame, the encoder is missing, or the folder cannot be written to or is
    full; ValueError if frames differ in size.
    """
    path = Path(path)
    pictures = (_video_frame(to_uint8(frame)) for frame in frames)
    first = next(pictures, None)
    if first is None:
        raise InputError(f"{path}: found no frames, expected at least one")
    with core_io.atomic_path(path) as temporary:
        encoder = _start_encoder(temporary, first.shape[1], first.shape[0], fps)
        message = _encode(encoder, chain([first], pictures), first.shape)
        if message:
            raise core_io.write_error(path, message)


def _area_mean(image: Float32[np.ndarray, "h w c"], shape: tuple[int, int]) -> Float32[np.ndarray, "h2 w2 c"]:
    """Mean of the area that each pixel of the new width and height covers."""
    import cv2

    small = cv2.resize(np.ascontiguousarray(image), shape, interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32).reshape(shape[1], shape[0], image.shape[2])


def opaque(picture: Shaped[np.ndarray, "*b 3"]) -> Shaped[np.ndarray, "*b 4"]:
    """An image, of floats or bytes, with an alpha channel of opaque pixels."""
    alpha = np.full((*picture.shape[:-1], 1), 255 if picture.dtype == np.uint8 else 1, picture.dtype)
    return np.concatenate([picture, alpha], axis=-1)


def _with_alpha(pixels: Shaped[np.ndarray, "n *b 3"], filled: int) -> Shaped[np.ndarray, "n *b 4"]:
    """The array with an opaque alpha channel; the first ``filled`` entries along the first axis are copied."""
    wider = np.empty((*pixels.shape[:-1], 4), dtype=pixels.dtype)
    wider[:filled, ..., :3] = pixels[:filled]
    wider[:filled, ..., 3] = 255 if pixels.dtype == np.uint8 else 1
    return wider


def _orientation(photo: Image.Image, data: bytes) -> int:
    """EXIF orientation 1 … 8; 1 if it is absent or invalid. ``data`` are the bytes of a PNG file, or its metadata.

    Pillow decodes a PNG to find metadata behind the pixels, which is not done if there are none.
    """
    if photo.format == "PNG" and not any(keyword in data for keyword in _PNG_METADATA):
        return 1
    try:
        value = photo.getexif().get(_EXIF_ORIENTATION, 1)
    except (*_UNDECODABLE, KeyError, TypeError):
        return 1
    return value if value in range(1, 9) else 1


def _png_metadata(file: BinaryIO) -> bytes:
    """Types of a PNG file's chunks of metadata, and where texts begin; the pixels are not read."""
    before, found = file.tell(), []
    file.seek(len(_PNG_SIGNATURE))
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            break
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        text = file.read(min(length, 80)) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
        found += [kind, text] if text or kind == b"eXIf" else []
        file.seek(length - len(text) + 4, os.SEEK_CUR)
    file.seek(before)
    return b"\0".join(found)


def _decode_16_bit(data: bytes) -> Float32[np.ndarray, "h w c"]:
    """Decode a 16-bit image with OpenCV, which keeps all 16 bits (Pillow does not); the result is RGB."""
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise ValueError("its 16-bit pixels cannot be decoded")
    pixels = pixels.astype(np.float32) / np.float32(65535)
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=-1)
    order = [2, 1, 0, 3] if pixels.shape[-1] == 4 else [2, 1, 0]
    return np.ascontiguousarray(pixels[..., order])


def _decode_8_bit(photo: Image.Image) -> UInt8[np.ndarray, "h w c"]:
    """Image of a file of any color model with up to 8 bits per channel."""
    if photo.mode in ("I", "F"):
        raise ValueError("it has 32 bits a channel, which have no agreed range")
    transparent = photo.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in photo.info
    mode = "RGBA" if transparent else "RGB"
    return np.asarray(photo if photo.mode == mode else photo.convert(mode))


def _from_uint8(x: UInt8[np.ndarray, "*b"]) -> Float32[np.ndarray, "*b"]:
    return np.divide(x, np.float32(255), dtype=np.float32)  # one new array


def _video_frame(pixels: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Three channels, even height and width."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels[..., :3]
    return np.pad(pixels, [(0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)], mode="edge")


def _start_encoder(path: Path, width: int, height: int, fps: float | int) -> "subprocess.Popen[bytes]":
    """Process of ffmpeg that reads raw RGB frames from its standard input."""
    import imageio_ffmpeg

    source = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -".split()
    target = f"-an -c:v libx264 -pix_fmt yuv420p -crf {_CRF} -f mp4".split()
    try:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *source, *target, str(path)]
        return subprocess.Popen(command, stdin=PIPE, stdout=DEVNULL, stderr=PIPE)
    except (RuntimeError, OSError) as error:
        raise InputError(f"ffmpeg cannot be run ({_reason(error)}), expected imageio-ffmpeg's.") from None


def _encode(encoder: "subprocess.Popen[bytes]", pictures: Iterable[np.ndarray], shape: tuple[int, ...]) -> str:
    """Send the frames to the encoder; returns its error message, empty on success."""
    assert encoder.stdin is not None
    try:
        for picture in pictures:
            if picture.shape != shape:
                raise ValueError(f"a frame of shape {picture.shape} follows frames of shape {shape}")
            try:
                encoder.stdin.write(picture.tobytes())
            except OSError:
                break  # the encoder has exited; its standard error says why
        message = encoder.communicate()[1].decode(errors="replace").strip()
    finally:
        encoder.kill()
        with suppress(OSError), encoder:
            pass  # closes the pipes and waits
    return (message.split("\n")[-1] or "the encoder stopped") if encoder.returncode else ""


def _reason(error: Exception) -> str:
    """Short description of an error, without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _unreadable(path: AnyPath, error: Exception) -> InputError:
    reason = _reason(error)
    if reason == "no image format is recognized" and (not_read := reason_not_read(Path(path).name)):
        reason = not_read
    return InputError(f"{path} cannot be read ({reason}), expected a whole image file.")
