"""Pictures and videos inside of a page, as data URIs."""

import base64
import io
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from enerf.core import files, images
from enerf.core.errors import InputError

QUALITY = 90  # of WebP
ERROR_RANGE = 0.25  # error of a color that has the last color of the scale
_GRAY = 0.5  # of pixels that do not count


def picture(image: Float[np.ndarray, "h w 3"] | UInt8[np.ndarray, "h w 3"]) -> str:
    """Return an image as the data URI of a WebP file of quality ``QUALITY``."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(images.to_uint8(image))).save(stream, "WEBP", quality=QUALITY)
    return _uri("image/webp", stream.getvalue())


def video(path: Path, most: int) -> str | None:
    """Return an mp4 file as a data URI; None if it has more bytes than ``most``.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        if files.require_regular(path) > most:
            return None
        return _uri("video/mp4", files.read_bytes(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}), expected a video") from None


def fitted(image: Float[np.ndarray, "h w 3"], width: int) -> Float[np.ndarray, "h2 w2 3"]:
    """Return an image of at most a width, each pixel the mean of the area that it covers."""
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return images.downsample(np.asarray(image, dtype=np.float32), size)


def error_map(
    image: Float[np.ndarray, "h w 3"],
    reference: Float[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "h w 3"]:
    """Return the absolute error of each pixel, the mean of its channels, as a color of matplotlib's inferno.

    0 is black; ``ERROR_RANGE`` and above are the brightest color. Pixels that ``mask`` excludes are gray.

    >>> error_map(np.zeros((1, 1, 3)), np.zeros((1, 1, 3))).round(2).tolist()
    [[[0.0, 0.0, 0.01]]]
    """
    import matplotlib

    error = np.abs(np.asarray(image, np.float64) - reference).mean(-1)
    colors = np.asarray(matplotlib.colormaps["inferno"](np.clip(error / ERROR_RANGE, 0, 1))[..., :3])
    return colors if mask is None else np.where(mask[..., None], colors, _GRAY)


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
