"""Photographs of any sizes at 1 / factor of their size: from a folder ``images_F``, which is created if missing."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Float32, UInt8

from enerf.core import image_formats, images, parallel
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.datasets.scenes import camera_models
from enerf.datasets.scenes.photographs import Photographs
from enerf.datasets.scenes.transparency import Stored

log = logging.getLogger("enerf")
Result = TypeVar("Result")
LONGEST = 800  # pixels of the longer side of the images, at most, if the factor is chosen


@dataclass(frozen=True)
class Photo:
    """One photograph to be read.

    Attributes
    ----------
    file
        The file.
    width, height
        Size to read it at; its own size, unless it is to be resized.
    rotate
        Whether to apply its EXIF orientation; otherwise its pixels are raw.
    orientation
        EXIF orientation of the pixels that are read: 1 if they are upright.
    """

    file: Path
    width: int
    height: int
    rotate: bool
    orientation: int = 1

    @property
    def may_be_turned(self) -> bool:
        """Whether a copy of its shape may have other pixels than it: upright ones in the place of raw ones."""
        is_square = camera_models.same_shape((self.width, self.height), (self.height, self.width))
        return self.orientation != 1 and (self.orientation < 5 or is_square)

    def read(self, *, by_alpha: bool) -> Float32[np.ndarray, "h w c"]:
        """Read it at its size in [0, 1]; rounded to bytes if it is resized, as if it had been stored."""
        return images.to_floats(self.read_stored(by_alpha=by_alpha))

    def read_stored(self, *, by_alpha: bool) -> UInt8[np.ndarray, "h w c"] | Float32[np.ndarray, "h w c"]:
        """Read it as ``read`` does, but as bytes, value · 255, unless its file has 16 bits per channel."""
        picture = images.read_stored(self.file, self.rotate)
        if picture.shape[:2] == (self.height, self.width):
            return picture
        small = images.downsample(images.to_floats(picture), (self.width, self.height), by_alpha=by_alpha)
        return images.to_uint8(small)


def photographs(photos: Sequence[Photo], folder: Path, *, by_alpha: bool, white: bool, keep_alpha: bool) -> Photographs:
    """The photographs as ``storage.load`` takes them; ``folder`` is where they come from, for messages."""

    def read(index: int) -> Stored:
        return photos[index].read_stored(by_alpha=by_alpha)

    variant = f"{by_alpha},{''.join(str(int(photo.rotate)) for photo in photos)}"
    sizes = tuple((photo.height, photo.width) for photo in photos)
    files = tuple(photo.file for photo in photos)
    return Photographs(files, sizes, read, partial(_threads, photos), folder, white, keep_alpha, variant)


def _bar(label: str, results: Iterator[Result], total: int) -> Iterator[Result]:
    return iter(progress_bar(total, label, "image", iterable=results, delay=2, leave=False, enabled=None))


def _threads(photos: Sequence[Photo]) -> int:
    """Threads that read photographs within the available memory, by the size of the largest one."""
    cores, most = parallel.threads_for(), image_formats.most_pixels()
    if most is not None and parallel.threads_for(image_formats.bytes_to_decode(most)) == cores:
        return cores  # for files of any size
    sizes = [images.size(photo.file) for photo in photos]
    return parallel.threads_for(image_formats.bytes_to_decode(max(width * height for width, height, _ in sizes)))


def automatic_factor(sizes: Sequence[tuple[int, int]]) -> int:
    """The smallest power of two that leaves no side longer than 800 pixels.

    >>> automatic_factor([(800, 600), (640, 480)]), automatic_factor([(4032, 3024)])
    (1, 8)
    """
    factor = 1
    while max(map(max, sizes)) > LONGEST * factor:
        factor *= 2
    return factor


def photos_of(
    files: Sequence[Path],
    scene: Path,
    stated: Sequence[tuple[int, int]],
    factor: int,
    *,
    by_alpha: bool,
    create: bool = True,
) -> tuple[list[Photo], int]:
    """Photographs downsampled by ``factor``, and the factor that was used; 0 selects ``automatic_factor``.

    Downsampled images are read from a folder ``NAME_F`` beside the folder ``NAME`` that contains all files, in which
    they have the same names, but for the suffix. It is created as a whole if it does not exist. If it lacks some, or
    has them without the EXIF orientation of raw pixels, and so perhaps upright, the images are resized in memory.

    Parameters
    ----------
    files
        Image files.
    scene
        The scene's folder, for which no folder of downsampled images is created.
    stated
        Width and height of each in the file of cameras, which tell whether cameras belong to raw or upright pixels: to
        raw ones, before the EXIF orientation is applied, unless only upright ones have this shape.
    factor
        0, or by what width and height are divided.
    by_alpha
        Whether colors are weighted by alpha when images are resized.
    create
        Whether a missing folder of downsampled images is created.

    Raises
    ------
    InputError
        If a file is missing, damaged, or of another shape than stated.
    """
    full = [_full(file, size) for file, size in zip(files, stated, strict=True)]
    factor = factor or automatic_factor([(photo.width, photo.height) for photo in full])
    if factor == 1:
        return full, factor
    small = [
        replace(photo, width=max(1, round(photo.width / factor)), height=max(1, round(photo.height / factor)))
        for photo in full
    ]
    folder = Path(os.path.commonpath([file.parent.absolute() for file in files]))
    if folder == scene.absolute():
        return small, factor
    target = folder.with_name(f"{folder.name}_{factor}")
    if create and not target.exists():
        write_folder(target, small, _names(folder, small), by_alpha=by_alpha)
    stored = _stored(target, folder, small) if target.exists() else None
    return stored or small, factor


def _full(file: Path, stated: tuple[int, int]) -> Photo:
    """A photograph at its own size: raw pixels, as COLMAP and nerfstudio see, or upright ones if only these fit."""
    width, height, orientation = images.header(file)
    if camera_models.same_shape((width, height), stated):
        return Photo(file, width, height, rotate=False, orientation=orientation)
    if orientation >= 5 and camera_models.same_shape((height, width), stated):
        return Photo(file, height, width, rotate=True)
    raise InputError(f"{file} has {width}x{height} pixels, expected the shape of its camera's {stated[0]}x{stated[1]}")


def _stored(target: Path, folder: Path, small: Sequence[Photo]) -> list[Photo] | None:
    """The photographs of an existing folder; None, with a warning, if it lacks some or has them in another size."""
    found = []
    for photo in small:
        bare = target / photo.file.absolute().relative_to(folder)
        candidates = [bare, bare.with_suffix(".png"), bare.with_name(f"{bare.name}.png"), bare.with_suffix(".jpg")]
        there = next((path for path in candidates if path.is_file()), None)
        if there is None:
            log.warning("%s lacks %s: images are resized in memory", target, bare.name)
            return None
        try:
            found.append(_full(there, (photo.width, photo.height)))
        except InputError as error:
            log.warning("%s: images are resized in memory", str(error).rstrip("."))
            return None
        if photo.may_be_turned and found[-1].orientation != photo.orientation:
            log.warning("%s lacks the EXIF orientation of %s: images are resized in memory", there, photo.file)
            return None
    _warn_of_sizes(target, found, small)
    return found


def _warn_of_sizes(target: Path, found: Sequence[Photo], small: Sequence[Photo]) -> None:
    """Log stored images of another size than asked for, of which the cameras take the size."""
    pairs = zip(found, small, strict=True)
    other = [(a, b) for a, b in pairs if abs(a.width - b.width) > 1 or abs(a.height - b.height) > 1]
    if other:
        stored, wanted = other[0]
        log.warning(
            "%s: %d of %d images have another size than expected, %s %dx%d instead of %dx%d; cameras follow their size",
            *(target, len(other), len(found), stored.file.name, stored.width, stored.height),
            *(wanted.width, wanted.height),
        )


def write_folder(target: Path, photos: Sequence[Photo], names: Sequence[str], *, by_alpha: bool) -> bool:
    """Create a folder of PNG files, each photograph at its size, as a whole; false, and logged, if it cannot be made.

    Parameters
    ----------
    target
        The folder, which is used as it is if another process creates it meanwhile.
    photos
        Photographs.
    names
        Path of each in the folder; folders within it are created.
    by_alpha
        Whether colors are weighted by alpha when images are resized.

    Raises
    ------
    InputError
        If a photograph is damaged, or the disk is full.
    """
    core_io.remove_leftovers(target.parent)
    with core_io.temporary_path(target) as temporary:
        try:
            temporary.mkdir()
        except OSError as error:
            log.warning("%s cannot be created (%s): images are resized in memory", target, error.strerror or error)
            return False

        def write(named: tuple[str, Photo]) -> None:
            name, photo = named
            images.write_png(temporary / name, photo.read(by_alpha=by_alpha), photo.orientation)

        written = parallel.in_order(write, zip(names, photos, strict=True), _threads(photos))
        for _ in _bar(f"write {target.name}", written, len(photos)):
            pass
        try:
            os.rename(temporary, target)
        except OSError as error:
            if not target.is_dir():
                reason = error.strerror or error
                raise InputError(f"{target} cannot be created ({reason}), expected a writable folder") from None
    return True


def _names(folder: Path, photos: Sequence[Photo]) -> list[str]:
    """Paths of PNG copies in a folder as those of the photographs are in theirs."""
    inner = [photo.file.absolute().relative_to(folder) for photo in photos]
    short = [name.with_suffix(".png").as_posix() for name in inner]
    return short if len(set(short)) == len(short) else [f"{name.as_posix()}.png" for name in inner]
