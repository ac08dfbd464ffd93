"""Reading and writing a COLMAP model's binary files: ``cameras.bin``, ``images.bin`` and ``points3D.bin``.

All numbers are little-endian, records follow one another without padding, and each file begins with the number of its
records. Counts are checked against the file's size before anything is allocated.

Source: COLMAP's documentation, "Output Format", and the files that COLMAP 4.2 writes.
"""

import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from enerf.core import files
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, colmap_records
from enerf.datasets.scenes.colmap_records import Images, Points3D

SUFFIX = ".bin"
_COUNT = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")  # identifier, model, width, height; parameters follow
_IMAGE = struct.Struct("<I7dI")  # identifier, quaternion, translation, camera; name and 2-D points follow
_POINT_2D = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
# A point without its track: identifier, position, color, reprojection error; the length of the track.
_POINT_3D = np.dtype([("id", "<i8"), ("xyz", "<f8", 3), ("rgb", "u1", 3), ("error", "<f8"), ("length", "<u8")])
_OBSERVATION = np.dtype([("image", "<u4"), ("index", "<u4")])
_NAMES = {model.colmap_id: name for name, model in camera_models.MODELS.items()}


class _Records:
    """A file's bytes, read from front to back; ``what`` names its records in messages."""

    def __init__(self, file: Path, what: str, least: int) -> None:
        self.file, self.what = file, what
        self.data, self.at = files.read_bytes(file), 0
        self.n = int(self.take(_COUNT)[0])
        if self.n * least > self.left:
            raise InputError(
                f"{file}: found a header of {self.n:,} {what} and {self.left:,} bytes after it, expected at least "
                f"{least} bytes for each: it is truncated or damaged"
            )

    @property
    def left(self) -> int:
        """Number of bytes not yet read."""
        return len(self.data) - self.at

    def take(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The next values."""
        self.require(layout.size)
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def require(self, n_bytes: int) -> None:
        """Check that so many bytes follow."""
        if n_bytes > self.left:
            raise self.truncated()

    def truncated(self) -> InputError:
        """The exception for a file that ends within its records, not raised."""
        return InputError(
            f"{self.file}: found {len(self.data):,} bytes, expected more for its {self.what}: it is truncated"
        )

    def text(self) -> str:
        """The next text, which ends with a zero byte."""
        end = self.data.find(b"\0", self.at, self.at + files.PATH_BYTES + 1)
        if end < 0:
            if self.left <= files.PATH_BYTES:
                raise self.truncated()
            raise InputError(f"{self.file}: found a name of more than {files.PATH_BYTES:,} bytes, expected less")
        found, self.at = self.data[self.at : end], end + 1
        try:
            return found.decode()
        except UnicodeDecodeError:
            raise InputError(f"{self.file}: found the image name {found[:60]!r}, expected UTF-8") from None

    def finish(self) -> None:
        """Check that nothing follows."""
        if self.left:
            raise InputError(
                f"{self.file}: found {self.left:,} bytes after the last of its {self.n:,} {self.what}, expected none"
            )


def read_cameras(file: Path) -> dict[int, Camera | None]:
    """Cameras by their identifiers.

    Raises
    ------
    InputError
        If the file is damaged or a camera is impossible.
    OSError
        If it cannot be read.
    """
    records = _Records(file, "cameras", _CAMERA.size + 16)
    ids, cameras = [], []
    for _ in range(records.n):
        number, model, width, height = records.take(_CAMERA)
        if model not in _NAMES:
            raise InputError(
                f"{file}: found the number {model} as model of camera {number}, expected one of COLMAP's models, "
                f"0 to {max(_NAMES)}"
            )
        name = _NAMES[model]
        parameters = records.take(struct.Struct(f"<{len(camera_models.MODELS[name].parameters)}d"))
        ids.append(number)
        cameras.append(colmap_records.camera(f"{file}: camera {number}", name, width, height, parameters))
    records.finish()
    colmap_records.check_cameras(str(file), ids)
    return dict(zip(ids, cameras, strict=True))


def read_images(file: Path) -> Images:
    """Registered images; ``observed`` are views of the file's bytes.

    Raises
    ------
    InputError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    records = _Records(file, "images", _IMAGE.size + 1 + _COUNT.size)
    numbers, names, observed = [], [], []
    for _ in range(records.n):
        numbers.append(records.take(_IMAGE))
        names.append(colmap_records.listed_name(f"{file}: image {numbers[-1][0]}", records.text()))
        (count,) = records.take(_COUNT)
        records.require(count * _POINT_2D.itemsize)
        observed.append(np.frombuffer(records.data, _POINT_2D, count, records.at)["point"])
        records.at += count * _POINT_2D.itemsize
    records.finish()
    table = np.array(numbers, dtype=np.float64).reshape(-1, 9)  # identifiers have 32 bits, so they stay exact
    images = Images(
        ids=table[:, 0].astype(np.int64),
        quaternions=table[:, 1:5],
        translations=table[:, 5:8],
        cameras=table[:, 8].astype(np.int64),
        names=tuple(names),
        observed=tuple(observed),
    )
    colmap_records.check_images(str(file), images)
    return images


def read_points(file: Path) -> Points3D:
    """Points and the images that observe them.

    Raises
    ------
    InputError
        If the file is damaged.
    OSError
        If it cannot be read.
    """
    records = _Records(file, "points", _POINT_3D.itemsize)
    data, head = records.data, _POINT_3D.itemsize
    files.require_memory(3 * len(data), str(file))
    starts = _starts(records)
    heads = np.frombuffer(b"".join([data[start : start + head] for start in starts[:-1]]), _POINT_3D)
    tracks = np.frombuffer(b"".join([data[start + head : end] for start, end in pairwise(starts)]), _OBSERVATION)
    points = Points3D(
        ids=heads["id"].astype(np.int64),
        xyz=heads["xyz"].astype(np.float64),
        rgb=heads["rgb"].copy(),
        lengths=heads["length"].astype(np.int64),
        tracks=tracks["image"].astype(np.int64),
    )
    colmap_records.check_points(str(file), points)
    return points


def _starts(records: _Records) -> list[int]:
    """Offset of each point, and the end of the file: the length of a track tells where the next point begins."""
    at, read, data = records.at, _COUNT.unpack_from, records.data
    length, head, size = _POINT_3D.itemsize - _COUNT.size, _POINT_3D.itemsize, _OBSERVATION.itemsize
    starts = [at]
    try:
        for _ in range(records.n):
            at += head + size * read(data, at + length)[0]
            starts.append(at)
    except (struct.error, OverflowError):  # beyond the end, or beyond any address
        raise records.truncated() from None
    if at > len(data):
        raise records.truncated()
    records.at = at
    records.finish()
    return starts


def cameras_bytes(cameras: dict[int, Camera]) -> Iterator[bytes]:
    """Content of ``cameras.bin``, in pieces."""
    yield _COUNT.pack(len(cameras))
    for number, camera in cameras.items():
        parameters = camera_models.parameters_of(camera)
        yield _CAMERA.pack(number, camera_models.MODELS[camera.model].colmap_id, camera.width, camera.height)
        yield struct.pack(f"<{len(parameters)}d", *parameters)


def images_bytes(images: Images, pixels: tuple[np.ndarray, ...]) -> Iterator[bytes]:
    """Content of ``images.bin``, in pieces; ``pixels`` are the 2-D points of each image, in pixels."""
    yield _COUNT.pack(len(images.names))
    for i, name in enumerate(images.names):
        pose = (*images.quaternions[i].tolist(), *images.translations[i].tolist())
        yield _IMAGE.pack(int(images.ids[i]), *pose, int(images.cameras[i])) + name.encode() + b"\0"
        points = np.empty(len(images.observed[i]), _POINT_2D)
        points["xy"], points["point"] = pixels[i], images.observed[i]
        yield _COUNT.pack(len(points)) + points.tobytes()


def points_bytes(points: Points3D, indices: Int64[np.ndarray, " k"]) -> Iterator[bytes]:
    """Content of ``points3D.bin``, in pieces; ``indices`` are those of the tracks' 2-D points in their images."""
    yield _COUNT.pack(len(points.ids))
    heads = np.empty(len(points.ids), _POINT_3D)
    heads["id"], heads["xyz"], heads["rgb"], heads["length"] = points.ids, points.xyz, points.rgb, points.lengths
    heads["error"] = -1  # unknown
    tracks = np.empty(len(points.tracks), _OBSERVATION)
    tracks["image"], tracks["index"] = points.tracks, indices
    fixed, observations = heads.tobytes(), tracks.tobytes()
    head, size, at = _POINT_3D.itemsize, _OBSERVATION.itemsize, 0
    for i, length in enumerate(points.lengths.tolist()):
        yield fixed[head * i : head * (i + 1)] + observations[size * at : size * (at + length)]
        at += length
