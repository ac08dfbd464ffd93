"""Folders of images in ImageNet's layout: ``train/CLASS/*.png`` and ``test/CLASS/*.png`` (or ``val``, ``validation``).

Classes are the folders of ``train``, sorted. Images of one size are held in memory where they fit into it; others,
and those that are to be resized, are decoded when they are asked for.
"""

from pathlib import PurePosixPath

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from enerf.core import images
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.datasets.labelled import decoding
from enerf.datasets.labelled.archive import Store
from enerf.datasets.labelled.dataset import Held, Split
from enerf.datasets.labelled.decoding import OnDemand, Pixels

MEMORY = 2 << 30  # bytes of decoded images that are held
TESTS = ("test", "val", "validation")

_Files = tuple[tuple[str, ...], Int64[Tensor, " n"]]


def load(store: Store, image_size: int, test: str) -> tuple[Split, Split, tuple[str, ...], int, int]:
    """Training images, test images, names of the classes, channels and size.

    Raises
    ------
    InputError
        If there is no test folder, a class without images or one that is not trained, fewer than two of them, a file
        that is no whole image, or images differ in size and are not to be resized.
    """
    tests = _tests(store, test)
    classes = _classes(store, "train")
    if len(classes) < 2:
        raise InputError(f"{store.where('train')} has {len(classes)} class folders, expected 2 or more")
    unknown = [name for name in _classes(store, tests) if name not in classes]
    if unknown:
        raise InputError(
            f"{store.where(f'{tests}/{unknown[0]}')} is no class of {store.where('train')}, expected classes that are "
            "trained"
        )
    files = [_files(store, split, classes) for split in ("train", tests)]
    names = files[0][0] + files[1][0]
    first = decoding.decode(store, names[0])
    height, width = first.shape[:2]
    if not image_size and height != width:
        raise InputError(f"{store.where(names[0])} has {width}×{height} pixels, expected squares or --image_size")
    if not image_size and len(names) * 3 * width * height <= MEMORY:
        pixels = _decoded(store, names, width)
        parts = pixels.split([len(labels) for _, labels in files])
        held = [Held(part, labels) for part, (_, labels) in zip(parts, files, strict=True)]
        return held[0], held[1], classes, pixels.shape[1], width
    grey = all(decoding.decode(store, name).ndim == 2 for name in names)  # over at the first that is not
    channels, size = 1 if grey else 3, image_size or width
    asked = [OnDemand(store, *one, channels, size, resize=bool(image_size)) for one in files]
    return asked[0], asked[1], classes, channels, size


def _tests(store: Store, asked: str) -> str:
    """The folder that tests are in: the one asked for, or the first usual one whose images lie in class folders."""
    tops = {name.split("/")[0] for name in store.folders} - {"train"}
    names = (asked.strip("/"),) if asked else TESTS
    found = [name for name in names if name in tops]
    if not found:
        raise InputError(
            f"{store.where()} has no {names[0] if asked else 'test/, val/ or validation/'} beside train/, expected "
            "a folder of test images for each class"
        )
    return next(
        (name for name in found if any(f.startswith(f"{name}/") and f.count("/") > 1 for f in store.names)), found[0]
    )


def _classes(store: Store, split: str) -> tuple[str, ...]:
    """Folders of a split, each of which has to have images."""
    loose = [name for name in _images(store, split) if name.count("/") == 1]
    if loose:
        raise InputError(f"{store.where(loose[0])} lies in no class folder, expected {split}/CLASS/ of images")
    classes = tuple(sorted({name.split("/")[1] for name in store.folders if _inside(name, split)}))
    filled = {name.split("/")[1] for name in _images(store, split)}
    empty = [name for name in classes if name not in filled]
    if empty or not classes:
        raise InputError(f"{store.where('/'.join([split, *empty[:1]]))} holds no images, expected some of each class")
    return classes


def _inside(name: str, split: str) -> bool:
    return name.startswith(f"{split}/") and len(name) > len(split) + 1


def _images(store: Store, split: str) -> list[str]:
    """Files of a split that are taken for images."""
    return [name for name in store.names if _inside(name, split) and images.is_image_name(PurePosixPath(name).name)]


def _files(store: Store, split: str, classes: tuple[str, ...]) -> _Files:
    """Image files of a split and their labels."""
    names, label_of = _images(store, split), {name: label for label, name in enumerate(classes)}
    return tuple(names), torch.tensor([label_of[name.split("/")[1]] for name in names])


def _decoded(store: Store, names: tuple[str, ...], size: int) -> UInt8[Tensor, "n c h w"]:
    """Images of all files, which have to have one size; one channel if all are grey, else three."""
    pixels = np.empty((len(names), 3, size, size), np.uint8)
    grey = np.zeros(len(names), bool)

    def put(place: int, found: Pixels) -> None:
        if found.shape[:2] != (size, size):
            raise InputError(
                f"{store.where(names[0])} has {size}×{size} pixels and {names[place]} {found.shape[1]}×"
                f"{found.shape[0]}, expected one size or --image_size"
            )
        grey[place] = found.ndim == 2
        pixels[place] = found if found.ndim == 2 else found.transpose(2, 0, 1)

    with progress_bar(len(names), "decode", "image", delay=2) as bar:
        for done in decoding.each(store, names, put):
            bar.update(done)
    return torch.from_numpy(np.ascontiguousarray(pixels[:, :1]) if grey.all() else pixels)
