"""Reading and writing a COLMAP model's text files: ``cameras.txt``, ``images.txt`` and ``points3D.txt``.

Lines that begin with ``#`` are comments. A file is refused as truncated if COLMAP's comment on the number of records
says more than there are, or if a file with COLMAP's comments does not end with a line break.

Source: COLMAP's documentation, "Output Format", and the files that COLMAP 4.2 writes.
"""

import re
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from jaxtyping import Float64, Int64

from enerf.core import files
from enerf.core.errors import InputError, shown
from enerf.core.types import Camera
from enerf.datasets.scenes import camera_models, colmap_records
from enerf.datasets.scenes.colmap_records import Images, Points3D

SUFFIX = ".txt"
_COUNT = re.compile(r"#\s*Number of (?:cameras|images|points):\s*([0-9]{1,18})\b", re.ASCII)
_MSVC_NAN = re.compile(r"[+-]?nan\((?:ind|snan)\)|[+-]?1\.#(?:IND|QNAN|SNAN)0*", re.ASCII | re.IGNORECASE)
_BY_COLMAP = ("# Camera list with", "# Image list with", "# 3D point list with")
_TOKEN_BYTES = 100  # of one word of a line, as Python's objects
_IMAGE_COLUMNS = "IMAGE_ID, QW, QX, QY, QZ, TX, TY, TZ, CAMERA_ID, NAME"
_POINT_COLUMNS = "POINT3D_ID, X, Y, Z, R, G, B, ERROR and pairs of IMAGE_ID, POINT2D_IDX"


class _Lines:
    """A file's lines, with the number that its comment announces."""

    def __init__(self, file: Path, what: str) -> None:
        self.file, self.what = file, what
        text = files.read_text(file)
        files.require_memory(2 * len(text), str(file))
        self.lines = text.split("\n")
        files.require_memory(_TOKEN_BYTES * max(map(len, self.lines)) // 2, str(file))
        comments = [line for line in self.lines[:20] if line.startswith("#")]
        found = (_COUNT.match(line) for line in comments)
        self.announced = next((int(match[1]) for match in found if match), -1)
        by_colmap = self.lines[0].startswith(_BY_COLMAP)
        self.cut = bool(self.lines[-1]) and (by_colmap or self.lines[-1].startswith("#"))
        self.cut |= by_colmap and self.announced < 0 and len(comments) == len(self.lines) - 1
        if not self.lines[-1]:
            self.lines.pop()

    def where(self, index: int) -> str:
        """File and line, for messages."""
        return f"{self.file}: line {index + 1}"

    def records(self) -> Iterator[tuple[int, str]]:
        """Index and text of the lines that are neither empty nor comments."""
        for index, line in enumerate(self.lines):
            stripped = line.strip()
            if stripped and not stripped.startswith("#"):
                yield index, stripped

    def require(self, n: int) -> None:
        """Check the number of records, and that the last line is complete."""
        if n < self.announced:
            raise InputError(
                f"{self.file}: found {n:,} {self.what}, expected the {self.announced:,} that its comment announces (or "
                "no such comment)"
            )
        if self.cut:
            raise InputError(f"{self.file}: found a file that ends within a line or a comment, expected a whole one")


def read_cameras(file: Path) -> dict[int, Camera | None]:
    """Cameras by their identifiers; None for one with a parameter that Windows writes as no number, ``-nan(ind)``.

    Some cameras of RealityScan's exports have such parameters (Brush, issue 383 and pull request 412).

    Raises
    ------
    InputError
        If a line is malformed or a camera impossible.
    OSError
        If the file cannot be read.
    """
    lines = _Lines(file, "cameras")
    ids: list[int] = []
    cameras: list[Camera | None] = []
    for index, line in lines.records():
        words, where = line.split(), lines.where(index)
        if len(words) < 5:
            raise InputError(f"{where}: found {len(words)} words, expected CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS")
        number, width, height = _integers(where, [words[0], *words[2:4]])
        ids.append(number)
        if any(map(_MSVC_NAN.fullmatch, words[4:])):
            cameras.append(None)
            continue
        cameras.append(colmap_records.camera(where, words[1], width, height, _floats(where, words[4:])))
    lines.require(len(ids))
    colmap_records.check_cameras(str(file), ids)
    return dict(zip(ids, cameras, strict=True))


def read_images(file: Path) -> Images:
    """Registered images.

    An image takes two lines, of which the second, its 2-D points, may be empty, or missing at the end of the file. A
    name extends to the end of its line, so it may contain spaces.

    Raises
    ------
    InputError
        If a line is malformed.
    OSError
        If the file cannot be read.
    """
    lines = _Lines(file, "images")
    ids, poses, cameras, names, observed = [], [], [], [], []
    skipped = -1
    for index, line in lines.records():
        if index == skipped:
            continue
        words, where = line.split(maxsplit=9), lines.where(index)
        if len(words) != 10:
            raise InputError(f"{where}: found {len(words)} words, expected {_IMAGE_COLUMNS}")
        number, camera = _integers(where, [words[0], words[8]])
        ids.append(number)
        cameras.append(camera)
        poses.append(_floats(where, words[1:8]))
        names.append(colmap_records.listed_name(where, words[9]))
        skipped = index + 1
        lines.cut |= skipped >= len(lines.lines) and lines.announced >= 0
        observed.append(_observed(lines, skipped))
    lines.require(len(ids))
    table = np.array(poses, dtype=np.float64).reshape(-1, 7)
    images = Images(
        ids=np.array(ids, dtype=np.int64),
        quaternions=table[:, :4],
        translations=table[:, 4:],
        cameras=np.array(cameras, dtype=np.int64),
        names=tuple(names),
        observed=tuple(observed),
    )
    colmap_records.check_images(str(file), images)
    return images


def _observed(lines: _Lines, index: int) -> Int64[np.ndarray, " _"]:
    """Identifiers of the 3-D points that an image's 2-D points observe, −1 for none, from its line of images.txt."""
    words = lines.lines[index].split() if index < len(lines.lines) else []
    if len(words) % 3:
        raise InputError(f"{lines.where(index)}: found {len(words)} words, expected X, Y, POINT3D_ID of each 2-D point")
    return _array(lines.where(index), words[2::3])


def read_points(file: Path) -> Points3D:
    """Points and the images that observe them.

    Raises
    ------
    InputError
        If a line is malformed.
    OSError
        If the file cannot be read.
    """
    lines = _Lines(file, "points")
    ids, xyz, rgb, lengths, tracks = array("q"), array("d"), array("B"), array("q"), array("q")
    for index, line in lines.records():
        words = line.split()
        if len(words) < 8 or len(words) % 2:
            raise InputError(f"{lines.where(index)}: found {len(words)} words, expected {_POINT_COLUMNS}")
        try:
            ids.append(int(words[0]))
            xyz.extend(map(float, words[1:4]))
            rgb.extend(map(int, words[4:7]))
            tracks.extend(map(int, words[8::2]))
        except (ValueError, OverflowError):
            _refuse_point(lines.where(index), words)
        lengths.append(len(words) // 2 - 4)
    lines.require(len(ids))
    points = Points3D(
        ids=np.array(ids, dtype=np.int64),
        xyz=np.array(xyz, dtype=np.float64).reshape(-1, 3),
        rgb=np.array(rgb, dtype=np.uint8).reshape(-1, 3),
        lengths=np.array(lengths, dtype=np.int64),
        tracks=np.array(tracks, dtype=np.int64),
    )
    colmap_records.check_points(str(file), points)
    return points


def _refuse_point(where: str, words: list[str]) -> NoReturn:
    """Raise an InputError that names the word of a point's line that is no number, or not in its range."""
    _integers(where, words[:1])
    _floats(where, words[1:4])
    _integers(where, words[4:7], 255)
    _integers(where, words[8::2])
    raise InputError(f"{where}: found numbers out of range, expected {_POINT_COLUMNS}")


def _integers(where: str, words: Sequence[str], most: int = colmap_records.MOST_ID) -> list[int]:
    """Whole numbers from 0 to ``most``."""
    for word in words:
        if not (word.isascii() and word.isdecimal() and len(word) < 20 and int(word) <= most):
            raise InputError(f"{where}: found {shown(word)}, expected a whole number from 0 to {most}")
    return [int(word) for word in words]


def _floats(where: str, words: Sequence[str]) -> list[float]:
    """Numbers, which may be infinite or NaN."""
    try:
        return [float(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not _is_float(word))
        raise InputError(f"{where}: found {shown(wrong)}, expected a number") from None


def _is_float(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _array(where: str, words: list[str]) -> Int64[np.ndarray, " k"]:
    """Whole numbers as an array; they may be negative."""
    try:
        return np.fromiter(map(int, words), dtype=np.int64, count=len(words))
    except (ValueError, OverflowError):
        raise InputError(f"{where}: found an identifier that is no whole number of 64 bits, expected one") from None


def check_names(where: str, names: Sequence[str]) -> None:
    """Raise InputError if a name has a space, where COLMAP would end it."""
    for name in names:
        if len(name.split()) != 1:
            raise InputError(f"{where}: found the image name {shown(name)}, expected none with spaces in a text file")


def cameras_bytes(cameras: dict[int, Camera]) -> Iterator[bytes]:
    """Content of ``cameras.txt``, in pieces."""
    yield _comment("Camera list with one line of data per camera:", "CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]")
    yield f"# Number of cameras: {len(cameras)}\n".encode()
    for number, camera in cameras.items():
        parameters = _words(camera_models.parameters_of(camera))
        yield f"{number} {camera.model} {camera.width} {camera.height} {parameters}\n".encode()


def images_bytes(images: Images, pixels: tuple[Float64[np.ndarray, "_ 2"], ...]) -> Iterator[bytes]:
    """Content of ``images.txt``, in pieces; ``pixels`` are the 2-D points of each image, in pixels."""
    yield _comment("Image list with two lines of data per image:", _IMAGE_COLUMNS, "POINTS2D[] as (X, Y, POINT3D_ID)")
    yield f"# Number of images: {len(images.names)}\n".encode()
    for i, name in enumerate(images.names):
        pose = _words((*images.quaternions[i].tolist(), *images.translations[i].tolist()))
        yield f"{images.ids[i]} {pose} {images.cameras[i]} {name}\n".encode()
        triples = zip(pixels[i].tolist(), images.observed[i].tolist(), strict=True)
        yield (" ".join(f"{x!r} {y!r} {point}" for (x, y), point in triples) + "\n").encode()


def points_bytes(points: Points3D, indices: Int64[np.ndarray, " k"]) -> Iterator[bytes]:
    """Content of ``points3D.txt``, in pieces; ``indices`` are those of the tracks' 2-D points in their images."""
    yield _comment("3D point list with one line of data per point:", _POINT_COLUMNS)
    yield f"# Number of points: {len(points.ids)}\n".encode()
    tracks = np.stack([points.tracks, indices], axis=1)
    ends = np.cumsum(points.lengths)
    rows = zip(points.ids.tolist(), points.xyz.tolist(), points.rgb.tolist(), strict=True)
    for (number, xyz, rgb), end, length in zip(rows, ends.tolist(), points.lengths.tolist(), strict=True):
        words = (number, _words(xyz), *rgb, -1, *tracks[end - length : end].ravel().tolist())
        yield (" ".join(map(str, words)) + "\n").encode()


def _words(values: Sequence[float]) -> str:
    """Numbers in the shortest decimal form that gives the same float64."""
    return " ".join(repr(value) for value in values)


def _comment(*lines: str) -> bytes:
    return "".join(f"#{' ' if i == 0 else '   '}{line}\n" for i, line in enumerate(lines)).encode()
