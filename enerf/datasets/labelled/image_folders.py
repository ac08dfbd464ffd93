"""Image folders in ImageNet's layout: ``train/CLASS/*.png`` and ``test/CLASS/*.png`` (or ``val``, ``validation``).

Classes are the sorted folders of ``train``. Images of one size are kept in memory if they fit; larger sets and images
that are resized are decoded on demand.
"""

import logging
from pathlib import PurePosixPath

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from enerf.core import files, image_files
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.datasets.labelled import decoding
from enerf.datasets.labelled.archive import Archive
from enerf.datasets.labelled.dataset import InMemorySplit, Split
from enerf.datasets.labelled.decoding import OnDemand, Pixels

log = logging.getLogger("enerf")

MEMORY = 2 << 30  # limit for decoded images in memory, in bytes
TESTS = ("test", "val", "validation")

_Files = tuple[tuple[str, ...], Int64[Tensor, " n"]]


def load(archive: Archive, image_size: int, test: str) -> tuple[Split, Split, tuple[str, ...], int, int]:
    """Training images, test images, class names, channels and size.

    Raises
    ------
    InputError
        If there is no test folder, fewer than two classes, a class without images or without training images, a file
        that is not a complete image, or images differ in size without ``image_size``.
    """
    tests = _tests(archive, test)
    classes = _classes(archive, "train")
    if len(classes) < 2:
        raise InputError(f"{archive.where('train')} has {len(classes)} class folders, expected 2 or more")
    unknown = [name for name in _classes(archive, tests) if name not in classes]
    if unknown:
        raise InputError(
            f"{archive.where(f'{tests}/{unknown[0]}')} is no class of {archive.where('train')}, expected classes that "
            "are trained"
        )
    parts = [_files(archive, split, classes) for split in ("train", tests)]
    _warn_of_unread(archive, ("train", tests))
    names = parts[0][0] + parts[1][0]
    first = decoding.decode(archive, names[0])
    height, width = first.shape[:2]
    if not image_size and height != width:
        raise InputError(f"{archive.where(names[0])} has {width}×{height} pixels, expected squares or --image_size")
    in_memory = min(MEMORY, files.available_memory() // 2)
    if not image_size and len(names) * 3 * width * height <= in_memory:
        pixels = _decoded(archive, names, width)
        both = zip(pixels.split([len(labels) for _, labels in parts]), parts, strict=True)
        splits = [InMemorySplit(part, labels) for part, (_, labels) in both]
        return splits[0], splits[1], classes, pixels.shape[1], width
    gray = all(decoding.decode(archive, name).ndim == 2 for name in names)  # stops at the first RGB image
    channels, size = 1 if gray else 3, image_size or width
    lazy = [OnDemand(archive, *one, channels, size, resize=bool(image_size)) for one in parts]
    return lazy[0], lazy[1], classes, channels, size


def _tests(archive: Archive, requested: str) -> str:
    """The folder of test images: the requested one, or the first usual one with images in class folders."""
    tops = {name.split("/")[0] for name in archive.folders} - {"train"}
    names = (requested.strip("/"),) if requested else TESTS
    found = [name for name in names if name in tops]
    if not found:
        raise InputError(
            f"{archive.where()} has no {names[0] if requested else 'test/, val/ or validation/'} beside train/, "
            "expected a folder of test images for each class"
        )
    return next(
        (name for name in found if any(f.startswith(f"{name}/") and f.count("/") > 1 for f in archive.names)), found[0]
    )


def _classes(archive: Archive, split: str) -> tuple[str, ...]:
    """Class folders of a split, each of which must contain images."""
    loose = [name for name in _images(archive, split) if name.count("/") == 1]
    if loose:
        raise InputError(f"{archive.where(loose[0])} lies in no class folder, expected {split}/CLASS/ of images")
    classes = tuple(sorted({name.split("/")[1] for name in archive.folders if _inside(name, split)}))
    filled = {name.split("/")[1] for name in _images(archive, split)}
    empty = [name for name in classes if name not in filled]
    if empty or not classes:
        raise InputError(f"{archive.where('/'.join([split, *empty[:1]]))} holds no images, expected some of each class")
    return classes


def _inside(name: str, split: str) -> bool:
    return name.startswith(f"{split}/") and len(name) > len(split) + 1


def _images(archive: Archive, split: str) -> list[str]:
    """Image files of a split."""
    return [
        name for name in archive.names if _inside(name, split) and image_files.is_image_name(PurePosixPath(name).name)
    ]


def _files(archive: Archive, split: str, classes: tuple[str, ...]) -> _Files:
    """Image files of a split and their labels."""
    names, label_of = _images(archive, split), {name: label for label, name in enumerate(classes)}
    return tuple(names), torch.tensor([label_of[name.split("/")[1]] for name in names])


def _warn_of_unread(archive: Archive, splits: tuple[str, ...]) -> None:
    """Log a warning for each known image format that is not read, with its files."""
    unread: dict[str, list[str]] = {}
    for name in archive.names:
        reason = image_files.reason_not_read(name)
        if reason and any(_inside(name, split) for split in splits):
            unread.setdefault(reason, []).append(name)
    for reason, names in unread.items():
        log.warning("%s: not read: %s (%s)", archive.where(), image_files.some(names), reason)


def _decoded(archive: Archive, names: tuple[str, ...], size: int) -> UInt8[Tensor, "n c h w"]:
    """Images of all files, which must have the same size; one channel if all are grayscale, else three."""
    pixels = np.empty((len(names), 3, size, size), np.uint8)
    gray = np.zeros(len(names), bool)

    def put(place: int, found: Pixels) -> None:
        if found.shape[:2] != (size, size):
            raise InputError(
                f"{archive.where(names[0])} has {size}×{size} pixels and {names[place]} {found.shape[1]}×"
                f"{found.shape[0]}, expected one size or --image_size"
            )
        gray[place] = found.ndim == 2
        pixels[place] = found if found.ndim == 2 else found.transpose(2, 0, 1)

    with progress_bar(len(names), "decode", "image", delay=2) as bar:
        for done in decoding.each(archive, names, put):
            bar.update(done)
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :1]) if gray.all() else pixels)
