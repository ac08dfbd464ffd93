"""Where the images and masks of a COLMAP model lie, of COLMAP and of the programs that export its format.

COLMAP: names relative to ``images``; the mask of an image ``NAME`` is ``masks/NAME.png``. RealityScan writes the images
beside the model's files, or in a folder that the user chooses, and masks ``NAME.mask.png``; Metashape writes
``images``, ``sparse/0`` and ``masks/STEM.png`` for an image ``STEM.jpg``.

Sources: COLMAP's documentation; LichtFeld Studio's issues 514, 547 and pull request 551, on exports of these programs.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from enerf.core import files
from enerf.core.errors import InputError, shown
from enerf.core.image_files import some
from enerf.datasets.scenes.found_files import FileFinder, is_absolute

log = logging.getLogger("enerf")
_NOT_PHOTOGRAPHS = ("mask", "depth", "images_")  # beginnings of the names of other folders of images


def find(folder: Path, model: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """The scene's folder, and the folder of the images of a model.

    The latter is ``images`` in ``folder`` or, for a path that ends with ``sparse/0`` or the like, in the folder that
    contains this path. If there is none: this folder itself, the model's, or a folder in the first, whichever has an
    image of the first name.

    Parameters
    ----------
    folder
        The model's folder or one that contains it.
    model
        The model's folder.
    names
        Names of its images.
    """
    root = folder
    while not os.path.isdir(root / "images") and (root.name.isdecimal() or root.name in ("sparse", "colmap")):
        root = root.parent
    if os.path.isdir(root / "images"):
        return root, root / "images"
    for place in (folder, model, root, *_folders(root)):
        if FileFinder(place).find(names[0]) is not None:
            log.info("%s: there is no folder images; images are read from %s", root, place)
            return (folder if place in (folder, model) else root), place
    return folder, folder / "images"


def _folders(folder: Path) -> Iterator[Path]:
    """Folders in a folder that may hold photographs, by their names."""
    try:
        found = sorted(folder.iterdir())
    except OSError:
        return
    for path in found:
        if path.is_dir() and not path.name.lower().startswith((*_NOT_PHOTOGRAPHS, ".")):
            yield path


def located(file: Path, folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Names of the images in a folder: as the model has them or, if no file has that name, as ``FileFinder`` finds.

    Parameters
    ----------
    file
        The model's file of images, which begins messages.
    folder
        Folder of the images.
    names
        Names in POSIX form, some perhaps absolute.

    Raises
    ------
    InputError
        If an absolute name leads to no file, or two names lead to the same one.
    """
    finder, found = FileFinder(folder), []
    for name in names:
        absolute = is_absolute(name)
        is_there = not absolute and os.path.lexists(folder / name)
        other = None if is_there else finder.find(name)
        if absolute and other is None:
            raise InputError(
                f"{file}: found the absolute image name {shown(name)}, expected a relative one, or a file of that name "
                f"in {folder}"
            )
        found.append(other or name)
    moved = [(name, other) for name, other in zip(names, found, strict=True) if name != other]
    if moved:
        log.info("%s: %d images have other names in %s: %s is %s", file, len(moved), folder, *moved[0])
        twice, count = Counter(found).most_common(1)[0]
        if count > 1:
            raise InputError(f"{file}: found two names that mean {folder / twice}, expected one for each image")
    return tuple(found)


def masks(folder: Path, images: Path, names: Sequence[str]) -> tuple[Path | None, ...]:
    """Mask of each image, None where there is none; empty if there are none at all.

    Parameters
    ----------
    folder
        Folder of masks: ``NAME.png``, ``NAME.mask.png`` or, where no two images have the same stem, ``STEM.png``.
    images
        Folder of the images, beside which ``NAME.mask.png`` may lie.
    names
        Names of the images.
    """
    stems = Counter(PurePosixPath(name).with_suffix("") for name in names)
    found: list[Path | None] = []
    for name in names:
        stem = PurePosixPath(name).with_suffix("")
        places = [folder / f"{name}.png", folder / f"{name}.mask.png", images / f"{name}.mask.png"]
        places += [folder / f"{stem}.png"] if stems[stem] == 1 else []
        found.append(next((path for path in places if files.is_regular(path)), None))
    lacking = [name for name, path in zip(names, found, strict=True) if path is None]
    if lacking and (folder.is_dir() or any(found)):
        log.info("%s has no NAME.png of %d of %d images: %s", folder, len(lacking), len(names), some(lacking))
    return tuple(found) if any(found) else ()
