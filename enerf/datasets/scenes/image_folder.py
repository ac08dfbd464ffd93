"""Image folders of an LLFF scene: ``images``, and ``images_F`` whose pictures have F times shorter sides.

``find`` decides what will be read and changes nothing; ``read`` makes a missing ``images_F`` first. A folder
that another program left half-made is never used and never deleted.
"""

import logging
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from enerf.core import images
from enerf.core.errors import InputError

log = logging.getLogger("enerf")
Size = tuple[float | int, float | int]  # width, height


@dataclass(frozen=True)
class Photos:
    """Pictures of one scene, in the order of its views.

    Attributes
    ----------
    files
        The files, sorted by name.
    width, height
        The size at which all of them are read.
    rotate
        Whether they are turned upright by their EXIF orientation.
    make
        The folder to fill with pictures of this size before reading; None if the files have it already.
    """

    files: tuple[Path, ...]
    width: int
    height: int
    rotate: bool
    make: Path | None = None


def find(scene: Path, factor: int, count: int, recorded: Size) -> Photos:
    """Pictures of a scene at 1 / ``factor`` of the full size; nothing is decoded or written.

    Parameters
    ----------
    scene
        The folder that holds ``images`` and its smaller siblings.
    factor
        1 for ``images``, F for ``images_F``; where that is missing, its pictures will be area-downsampled
        from ``images``, or else from an ``images_k`` with k dividing F.
    count
        How many views there are poses for.
    recorded
        Width and height of the pictures that the poses were made from, which tells whether the poses are
        those of upright or of raw pixels.

    Raises
    ------
    InputError
        If the pictures are missing, not as many as the poses, or of several shapes.
    """
    target = scene / _name(factor)
    if target.is_dir():
        return _survey(_whole(target, scene / "images", count), recorded)
    divisor = _divisor(scene, factor, count)
    found = _survey(_whole(scene / _name(divisor), scene / "images", count), recorded)
    width, height = (max(1, round(side * divisor / factor)) for side in (found.width, found.height))
    return replace(found, width=width, height=height, output_folder=target)


def read(photos: Photos, white: bool) -> tuple[Float32[np.ndarray, "n h w 3"], tuple[str, ...]]:
    """Colors in [0, 1] and file names.

    Transparent pictures are laid over white or else keep their stored colors.

    Raises InputError if a file is damaged, or the disk is full while a folder is made.
    """
    if photos.output_folder is not None:
        photos = write_resized(photos, photos.output_folder)
    pixels = np.empty((len(photos.files), photos.height, photos.width, 3), dtype=np.float32)
    for i, file in enumerate(_progress(photos.files, f"read {photos.files[0].parent.name}")):
        pixels[i] = images.composite(_picture(file, photos), white)
    return pixels, tuple(file.name for file in photos.files)


def _name(factor: int) -> str:
    return "images" if factor == 1 else f"images_{factor}"


def _whole(folder: Path, originals: Path, count: int) -> tuple[Path, ...]:
    """Files of a folder that holds as many pictures as there are poses."""
    files = images.list_images(folder)
    if len(files) == count:
        return tuple(files)
    full = images.list_images(originals) if originals.is_dir() and originals != folder else []
    if len(full) == count:
        raise InputError(
            f"{folder} holds {len(files)} images{_missing(files, full)} while {originals} holds {count}, "
            f"expected as many: delete {folder.name} and it will be made anew."
        )
    raise InputError(
        f"{folder} holds {len(files)} images ({_some([f.name for f in files]) or 'none'}) while "
        f"{folder.parent / 'poses_bounds.npy'} has {count} rows, "
        "expected one image for each row (take away the photographs that COLMAP did not place)."
    )


def _missing(files: list[Path], full: list[Path]) -> str:
    """Words for the originals that have no counterpart, where the names allow to tell."""
    stems = {file.stem for file in files}
    absent = [file.stem for file in full if file.stem not in stems]
    told = len(absent) == len(full) - len(files)
    return f" (missing {_some(absent)})" if told and absent else ""


def _divisor(scene: Path, factor: int, count: int) -> int:
    """Factor of the finest folder that ``images_F`` can be made from."""
    if (scene / "images").is_dir() and factor > 1:
        return 1
    names = sorted(path.name for path in scene.glob("images_*") if path.is_dir())
    for k in range(2, factor):
        if factor % k == 0 and _name(k) in names and len(images.list_images(scene / _name(k))) == count:
            return k
    wanted = f"images/ or images_k with k dividing {factor}" if factor > 1 else "images/ or another factor"
    found = _some(names) or "no image folder"
    raise InputError(f"{scene / _name(factor)} does not exist and cannot be made: found {found}, expected {wanted}.")


def _survey(files: tuple[Path, ...], recorded: Size) -> Photos:
    """Pictures with the size that most of them have; others of the same shape will be fitted to it."""
    sizes = [images.size(file) for file in files]
    rotate = not any(swaps and _raw_poses(width, height, recorded) for width, height, swaps in sizes)
    shown = [(h, w) if swaps and rotate else (w, h) for w, h, swaps in sizes]
    (width, height), _ = Counter(shown).most_common(1)[0]
    folder = files[0].parent
    others = {file.name: size for file, size in zip(files, shown, strict=True) if size != (width, height)}
    odd = [f"{name} ({w}x{h})" for name, (w, h) in others.items() if not _same_shape((w, h), (width, height))]
    if odd:
        raise InputError(f"{folder} holds {_some(odd)}, expected {width}x{height} as the other images.")
    if others:
        told = _some(list(others))
        log.warning("%s: %s differ from %dx%d and are resized to it", folder, told, width, height)
    return Photos(files, width, height, rotate)


def _raw_poses(width: int, height: int, recorded: Size) -> bool:
    """Whether the poses were made from raw pixels: COLMAP usually ignores the EXIF orientation."""
    return _same_shape((width, height), recorded) and not _same_shape((height, width), recorded)


def _same_shape(a: Size, b: Size) -> bool:
    """Whether two sizes have one aspect ratio, within a hundredth."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= 0.01 * a[1] * b[0]


def _picture(file: Path, photos: Photos) -> Float32[np.ndarray, "h w c"]:
    """Picture at the common size; a resized one is rounded to bytes, as if it had been stored."""
    picture = images.read(file, photos.rotate)
    if picture.shape[:2] == (photos.height, photos.width):
        return picture
    small = images.downsample(picture, (photos.width, photos.height))
    return images.to_uint8(small).astype(np.float32) / np.float32(255)


def write_resized(photos: Photos, target: Path) -> Photos:
    """Pictures in a new folder, which appears whole or not at all; the old ones if no folder can be made."""
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        temporary.mkdir()
    except OSError as error:
        log.warning("%s cannot be made (%s): its images are made in memory", target, error.strerror or error)
        return replace(photos, output_folder=None)
    names = _png_names(photos.files)
    try:
        for name, file in zip(names, _progress(photos.files, f"make {target.name}"), strict=True):
            images.write_png(temporary / name, _picture(file, photos))
        _settle(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(photos, files=tuple(target / name for name in names), output_folder=None)


def _settle(temporary: Path, target: Path) -> None:
    """Rename the finished folder, unless another run has made the same one meanwhile."""
    try:
        os.rename(temporary, target)
    except OSError as error:
        if not target.is_dir():
            reason = error.strerror or error
            raise InputError(f"{target} cannot be made ({reason}), expected a writable folder.") from None


def _png_names(files: tuple[Path, ...]) -> list[str]:
    """Names of the PNG copies; they sort as the originals do.

    >>> _png_names((Path("a.JPG"), Path("b.png"))), _png_names((Path("a.JPG"), Path("a.png")))
    (['a.png', 'b.png'], ['a.JPG.png', 'a.png.png'])
    """
    short = [f"{file.stem}.png" for file in files]
    orderly = short == sorted(set(short))
    return short if orderly else [f"{file.name}.png" for file in files]


def _progress(files: tuple[Path, ...], what: str) -> Iterable[Path]:
    """Files, with a bar on a terminal if they take more than two seconds."""
    return tqdm(files, desc=what, unit="image", delay=2, leave=False, disable=None)


def _some(names: list[str]) -> str:
    """Up to five of the names, and how many more there are."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
