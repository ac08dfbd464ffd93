"""The photographs, masks and depth maps of a converted scene: their paths in the new folder, and copying or linking."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from enerf.core import files, images
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.datasets.scenes import transforms_file
from enerf.datasets.scenes.posed_images import PosedImages

IMAGES, MASKS, DEPTHS = "images", "masks", "depths"


@dataclass(frozen=True)
class Source:
    """A file that is put in the new folder: as it is, or as a mask where 255 is kept or, ``inverse``, ignored."""

    file: Path
    is_mask: bool = False
    from_inverse: bool = False
    inverse: bool = False

    @property
    def is_kept(self) -> bool:
        """Whether its bytes stay what they are."""
        return not self.is_mask or (self.inverse == self.from_inverse and self.file.suffix.lower() == ".png")


def placed(posed: PosedImages, out: Path, *, inverse_masks: bool = False) -> PosedImages:
    """The scene with the paths that its files have in a folder; names are relative to its folder of images.

    ``inverse_masks``: masks are instant-ngp's, beside the images.
    """
    return replace(
        posed,
        files=tuple(out / _image(name) for name in posed.names),
        masks=tuple(
            path and out / _mask(name, inverse_masks) for name, path in zip(posed.names, posed.masks, strict=False)
        ),
        masks_are_inverse=inverse_masks,
        depths=tuple(path and out / _depth(name, path) for name, path in zip(posed.names, posed.depths, strict=False)),
    )


def sources(posed: PosedImages, *, masks: bool, depths: bool, inverse_masks: bool = False) -> dict[Path, Source]:
    """The file that is put at each path of the new folder; masks and depth maps only if they are asked for.

    Raises
    ------
    InputError
        If two files would have one path.
    """

    def pairs() -> Iterator[tuple[Path, Source]]:
        for i, name in enumerate(posed.names):
            yield _image(name), Source(posed.files[i])
            if masks and posed.masks and (mask := posed.masks[i]) is not None:
                yield _mask(name, inverse_masks), Source(mask, True, posed.masks_are_inverse, inverse_masks)
            if depths and posed.depths and (depth := posed.depths[i]) is not None:
                yield _depth(name, depth), Source(depth)

    found: dict[Path, Source] = {}
    for path, source in pairs():
        if found.setdefault(path, source) is not source:
            raise InputError(f"{posed.source}: found two files for {path} in the new folder, expected other names")
    return found


def require_space(out: Path, found: Iterable[Path]) -> None:
    """Check that copies of files fit on the disk of a folder, which may not exist yet.

    Raises
    ------
    InputError
        If they do not, or one is no regular file.
    """
    needed = sum(files.require_regular(path) for path in found)
    parent = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise InputError(
            f"{out}: needs {files.format_bytes(needed)} for copies of images, found {files.format_bytes(free)} free on "
            "the disk, expected more (--link makes links)"
        )


def place(found: Mapping[Path, Source], folder: Path, *, link: bool) -> None:
    """Copy files to their paths in a folder, or make links there; masks are converted where they have to be.

    Raises
    ------
    InputError
        If one is no regular file, or a mask that has to be converted is damaged.
    OSError
        If one cannot be read or written.
    """
    for inner, source in progress_bar(
        None, "copy", "file", iterable=found.items(), delay=2, leave=False, enabled=False if link else None
    ):
        target = folder / inner
        target.parent.mkdir(parents=True, exist_ok=True)
        files.require_regular(source.file)
        if not source.is_kept:
            values = images.read_mask(source.file, rotate=False) != (source.from_inverse != source.inverse)
            images.write_png(target, np.where(values, 255, 0).astype(np.uint8))
        elif link:
            os.symlink(source.file.resolve(), target)
        else:
            shutil.copyfile(source.file, target)


def _image(name: str) -> Path:
    return Path(IMAGES) / name


def _mask(name: str, inverse: bool) -> Path:
    return transforms_file.dynamic_mask(_image(name)) if inverse else Path(MASKS) / f"{name}.png"


def _depth(name: str, path: Path) -> Path:
    return Path(DEPTHS) / f"{name}{path.suffix}"
