"""Files of plane stacks: one ``.npz`` of plain arrays, with the tiles as lossless WebP pictures.

``version`` (1), ``camera`` (width, height, fx, fy, cx, cy), ``c2w`` (3, 4), ``t_vals`` (d,), ``index`` (d, rows,
columns), ``white``, ``metadata`` (JSON as bytes), ``pages`` (how many pictures there are of each kind), and bytes
``rgb_0``, ``alpha_0``, ``rgb_1`` ...: pictures of 64 tiles a row, row by row in the order of their places, at most 256
rows each; the last row is filled up with zeros. Alpha is in the green channel of its pictures.
"""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from enerf.core import files
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.rendering.planes.stack import CELLS, TILE, PlaneStack

VERSION = 1
ACROSS, DOWN = 64, 256  # tiles of a picture
MOST_BYTES = 1 << 30  # of a file
_DAMAGE = (
    *(ValueError, KeyError, EOFError, OSError, SyntaxError, TypeError, NotImplementedError, RecursionError),
    *(MemoryError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile, Image.DecompressionBombError),
)


def save(stack: PlaneStack, path: Path) -> None:
    """Write a stack atomically.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    camera = stack.camera
    arrays: dict[str, Any] = {
        "version": np.int64(VERSION),
        "camera": np.array([camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy], np.float64),
        "c2w": stack.c2w.double().numpy(),
        "t_vals": stack.t_vals.double().numpy(),
        "index": stack.index.numpy(),
        "white": np.bool_(stack.white),
        "metadata": np.frombuffer(json.dumps(stack.metadata, allow_nan=False).encode(), np.uint8),
    }
    groups = stack.tiles.split(ACROSS * DOWN) if len(stack.tiles) else ()
    for number, group in enumerate(groups):
        page = _page(group).numpy()
        arrays[f"rgb_{number}"] = _encoded(page[..., :3])
        arrays[f"alpha_{number}"] = _encoded(page[..., 3:] * np.array([0, 1, 0], np.uint8))
    arrays["pages"] = np.int64(len(groups))
    with core_io.atomic_path(path) as temporary, core_io.os_errors_as_input_errors(path):
        np.savez(temporary, **arrays)


def load(path: Path) -> PlaneStack:
    """Read a stack; nothing in the file is executed.

    Raises
    ------
    InputError
        If it is missing, damaged, or not such a file.
    """
    try:
        with np.load(io.BytesIO(files.read_bytes(path, MOST_BYTES)), allow_pickle=False) as content:
            return _checked(content)
    except FileNotFoundError:
        raise InputError(f"{path}: not found, expected a file of baked planes") from None
    except _DAMAGE as error:
        reason = str(error).strip().split("\n", maxsplit=1)[0][:120] or type(error).__name__
        raise InputError(f"{path}: cannot be read as baked planes ({reason}), expected a whole file") from None


def _checked(content: Any) -> PlaneStack:
    """The stack of the arrays of a file; raises one of ``_DAMAGE`` if they contradict one another."""
    if int(content["version"]) != VERSION:
        raise ValueError(f"version {int(content['version'])}, this program reads {VERSION}")
    numbers = [float(value) for value in content["camera"].tolist()]
    width, height = int(numbers[0]), int(numbers[1])
    fx, fy, cx, cy = numbers[2:]
    camera = Camera(width, height, fx, fy, cx, cy)
    c2w, t_vals, index = content["c2w"], content["t_vals"], content["index"]
    expected = (len(t_vals), (height - 1) // CELLS, (width - 1) // CELLS)
    if index.dtype != np.int32 or index.shape != expected or (width - 1) % CELLS or (height - 1) % CELLS:
        raise ValueError("the index of the tiles does not fit the camera and the planes")
    if c2w.shape != (3, 4) or not np.isfinite(c2w).all() or not np.isfinite(numbers).all() or min(numbers[:4]) <= 0:
        raise ValueError("the camera is impossible")
    if t_vals.ndim != 1 or not ((t_vals >= 0) & (t_vals <= 1)).all() or (np.diff(t_vals) <= 0).any():
        raise ValueError("the planes are not in order")
    places = np.sort(index[index >= 0])
    if not (places == np.arange(len(places))).all():
        raise ValueError("the index of the tiles has gaps")
    metadata = json.loads(content["metadata"].tobytes())
    if not isinstance(metadata, dict):
        raise ValueError("the metadata are no object")
    return PlaneStack(
        torch.from_numpy(c2w.astype(np.float64)),
        camera,
        torch.from_numpy(t_vals.astype(np.float64)),
        _tiles(content, len(places)),
        torch.from_numpy(index),
        bool(content["white"]),
        metadata,
    )


def _tiles(content: Any, count: int) -> UInt8[Tensor, "n 32 32 4"]:
    """The tiles of all pictures of a file."""
    tiles, pages = [torch.zeros(0, TILE, TILE, 4, dtype=torch.uint8)], -(-count // (ACROSS * DOWN))
    if int(content["pages"]) != pages:
        raise ValueError(f"{int(content['pages'])} pictures in the place of {pages}")
    for number in range(pages):
        n = min(count - number * ACROSS * DOWN, ACROSS * DOWN)
        size = (ACROSS * TILE, -(-n // ACROSS) * TILE)
        rgb, alpha = (_decoded(content[f"{kind}_{number}"], size) for kind in ("rgb", "alpha"))
        page = torch.from_numpy(np.concatenate([rgb, alpha[..., 1:2]], -1))
        tiles.append(page.unflatten(0, (-1, TILE)).unflatten(2, (ACROSS, TILE)).transpose(1, 2).flatten(0, 1)[:n])
    return torch.cat(tiles)


def _page(tiles: UInt8[Tensor, "n 32 32 4"]) -> UInt8[Tensor, "h w 4"]:
    """Tiles as a picture of 64 a row."""
    rows = -(-len(tiles) // ACROSS)
    full = tiles.new_zeros(rows * ACROSS, TILE, TILE, 4)
    full[: len(tiles)] = tiles
    return full.unflatten(0, (rows, ACROSS)).transpose(1, 2).flatten(0, 1).flatten(1, 2)


def _encoded(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, " b"]:
    """A picture as lossless WebP."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "WEBP", lossless=True, quality=20, method=1)
    return np.frombuffer(stream.getvalue(), np.uint8)


def _decoded(data: UInt8[np.ndarray, " b"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of a known width and height."""
    with Image.open(io.BytesIO(data.tobytes()), formats=["WEBP"]) as picture:
        if picture.size != size:
            raise ValueError(f"a picture of {picture.size} pixels in the place of {size}")
        return np.asarray(picture.convert("RGB"))
