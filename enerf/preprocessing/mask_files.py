"""Masks of photographs: where they lie, by their names. Pixels of value zero are ignored.

Names beside a photograph ``a.jpg``: ``a.mask.png``, ``a_mask.png``, ``a-mask.png``, ``a.jpg.mask.png``, ``mask_a.png``,
``dynamic_mask_a.png`` (instant-ngp) and ``a.jpg.png`` (COLMAP); in a folder ``masks`` beside the photographs, at the
top of their folder, or beside a folder ``images``: ``a.png``, ``a.jpg.png`` (COLMAP) and all of the former.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from enerf.core import image_files
from enerf.core.errors import InputError

if TYPE_CHECKING:
    from enerf.preprocessing.photographs import Photograph

log = logging.getLogger("enerf")
FOLDER = "masks"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_DYNAMIC = "dynamic_mask_"


def is_dynamic(name: str) -> bool:
    """Whether a file is named as instant-ngp's masks.

    >>> is_dynamic("dynamic_mask_0001.png"), is_dynamic("0001.png")
    (True, False)
    """
    return name.lower().startswith(_DYNAMIC)


def attach(folder: Path, photographs: "Sequence[Photograph]", masks: str = "") -> "Iterator[Photograph]":
    """The photographs with the files of their masks.

    Parameters
    ----------
    folder
        Folder of the photographs.
    photographs
        Photographs of it.
    masks
        Folder of all masks; empty: wherever they usually lie.

    Raises
    ------
    InputError
        If ``masks`` is given and no folder, or has no mask of any photograph.
    """
    if masks and not os.path.isdir(masks):
        raise InputError(f"option --masks: found {masks}, expected a folder")
    listed: dict[Path, dict[str, Path]] = {}
    found = [_mask_of(folder, photo, masks, listed) for photo in photographs]
    count = sum(mask is not None for mask in found)
    name = photographs[0].name
    usual = f"names such as {PurePosixPath(name).with_suffix('.png')} or {name}.png"
    if masks and not count:
        raise InputError(f"option --masks: found no mask of a photograph in {masks}, expected {usual}")
    beside = {photo.source.parent for photo in photographs}
    unused = [place for place, names in listed.items() if names and place not in beside]
    if unused and not count:
        log.warning("%s: found no mask of a photograph, so that all are used whole, expected %s", unused[0], usual)
    if 0 < count < len(found):
        lacking = [photo.name for photo, mask in zip(photographs, found, strict=True) if mask is None]
        log.warning("%s: no mask of %s, which are used whole", masks or folder, image_files.some(lacking))
    return (replace(photo, mask=mask) for photo, mask in zip(photographs, found, strict=True))


def _mask_of(folder: Path, photo: "Photograph", masks: str, listed: dict[Path, dict[str, Path]]) -> Path | None:
    """File of a photograph's mask."""
    relative = PurePosixPath(photo.source.relative_to(folder).as_posix())
    for place, names in _candidates(folder, photo, relative, masks):
        if place not in listed:
            listed[place] = files_of(place)
        for name in names:
            path = listed[place].get(name.lower())
            if path is not None and path != photo.source:
                return path
    return None


def _candidates(
    folder: Path, photo: "Photograph", relative: PurePosixPath, masks: str
) -> Iterator[tuple[Path, list[str]]]:
    """Folders and names where a mask may be, the most specific first."""
    beside, plain = list(_names(relative)), [f"{relative.stem}{suffix}" for suffix in _SUFFIXES]
    if masks:
        for place in (Path(masks) / relative.parent, Path(masks)):
            yield place, [*beside, *plain]
        return
    yield photo.source.parent, beside
    parts = (folder.name, *relative.parent.parts)
    places = [photo.source.parent / FOLDER, folder / FOLDER / relative.parent]
    places += [
        folder.parent.joinpath(*parts[:i], FOLDER, *parts[i + 1 :]) for i, part in enumerate(parts) if part == "images"
    ]
    for place in places:
        yield place, [*beside, *plain]


def _names(relative: PurePosixPath) -> Iterable[str]:
    """Names that are a mask's in any folder."""
    for suffix in _SUFFIXES:
        for base in (relative.name, relative.stem):
            yield f"{base}.mask{suffix}"
            yield f"{base}_mask{suffix}"
            yield f"{base}-mask{suffix}"
            yield f"mask_{base}{suffix}"
            yield f"mask-{base}{suffix}"
            yield f"{_DYNAMIC}{base}{suffix}"
        yield f"{relative.name}{suffix}"


def files_of(place: Path) -> dict[str, Path]:
    """Files of a folder by their names in small letters; none if it cannot be listed."""
    try:
        return {name.lower(): place / name for name in sorted(os.listdir(place), reverse=True)}
    except OSError:
        return {}
