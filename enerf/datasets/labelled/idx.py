"""The files of MNIST and Fashion-MNIST: grey images and labels in the idx format, plain or compressed.

A file is a magic number (two zeros, 8 for bytes, the number of axes), the length of each axis in 4 bytes, the highest
first, and that many bytes. No more than the header says is ever unpacked. LeCun, Cortes, Burges, The MNIST database.
"""

import gzip
import io
import math
import re
import struct
import zlib

import numpy as np
import torch
from jaxtyping import UInt8

from enerf.core.errors import InputError
from enerf.datasets.labelled.archive import MEMBER, Store
from enerf.datasets.labelled.dataset import Held

_PIECE = 1 << 24  # bytes unpacked at a time


def load(store: Store) -> tuple[Held, Held, tuple[str, ...]]:
    """Training images, test images, and the classes, which are numbers: as many as the training labels have.

    Raises
    ------
    InputError
        If a file is missing, damaged or not what its name says, images are not square or differ in size, images and
        labels differ in number, or labels leave one out.
    """
    train, _ = _split(store, "train")
    n = int(train.labels.max()) + 1
    absent = sorted(set(range(n)) - set(train.labels.tolist()))
    if absent:
        raise InputError(
            f"{store.where(_named(store, 'train', 'labels', 1))} has labels up to {n - 1} and none is {absent[0]}, "
            "expected each class to have images"
        )
    test, name = _split(store, "t10k")
    wrong = (test.labels >= n).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(f"{store.where(name)}: row {row} has the label {int(test.labels[row])}, expected 0 to {n - 1}")
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = [f"{split.images.shape[2]}×{split.images.shape[3]}" for split in (train, test)]
        raise InputError(
            f"{store.where()} has training images of {sizes[0]} and test images of {sizes[1]} pixels, expected one size"
        )
    return train, test, tuple(map(str, range(n)))


def _split(store: Store, which: str) -> tuple[Held, str]:
    """Images and labels of a split, and the name of the file of labels."""
    images_name, labels_name = _named(store, which, "images", 3), _named(store, which, "labels", 1)
    images, labels = array(store, images_name, 3), array(store, labels_name, 1)
    if len(images) != len(labels):
        raise InputError(
            f"{store.where(images_name)} holds {len(images)} images and {labels_name} {len(labels)} labels, expected "
            "as many"
        )
    if not images.size or images.shape[1] != images.shape[2]:
        raise InputError(
            f"{store.where(images_name)} holds {len(images)} images of {images.shape[1]}×{images.shape[2]} pixels, "
            "expected square ones, and some"
        )
    return Held(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()), labels_name


def _named(store: Store, which: str, what: str, axes: int) -> str:
    """The file's name, whichever way it is spelt."""
    found = [name for name in store.names if re.fullmatch(rf"{which}-{what}[-.]idx{axes}-ubyte(\.gz)?", name)]
    if not found:
        raise InputError(f"{store.where()} lacks {which}-{what}-idx{axes}-ubyte or the same with .gz")
    return found[0]


def array(store: Store, name: str, axes: int) -> UInt8[np.ndarray, "..."]:
    """The bytes of an idx file, in the shape that its header says.

    Raises
    ------
    InputError
        If it is damaged, not of bytes along so many axes, or longer or shorter than its header says.
    """
    data, where = store.read(name), store.where(name)
    try:
        with gzip.open(io.BytesIO(data)) if name.endswith(".gz") else io.BytesIO(data) as file:
            header = file.read(4 + 4 * axes)
            if header[:4] != bytes((0, 0, 8, axes)):
                raise InputError(
                    f"{where} begins with {header[:4].hex() or 'nothing'}, expected {bytes((0, 0, 8, axes)).hex()}: "
                    f"an idx file of bytes along {axes} {'axis' if axes == 1 else 'axes'}"
                )
            if len(header) < 4 + 4 * axes:
                raise EOFError
            shape = struct.unpack(f">{axes}I", header[4:])
            found = _read(file, math.prod(shape), where)
    except EOFError:
        raise InputError(f"{where} cannot be read (it ends too soon), expected a whole file") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{where} cannot be read ({str(error).lower()}), expected a whole gzip file") from None
    return np.frombuffer(found, np.uint8).reshape(shape)


def _read(file: gzip.GzipFile | io.BytesIO, size: int, where: str) -> bytearray:
    """The rest of a file, which has to be of that size."""
    if size > MEMBER:
        raise InputError(f"{where} promises {size:,} bytes, expected no more than {MEMBER:,}")
    found = bytearray()
    while len(found) < size:
        piece = file.read(min(_PIECE, size - len(found)))
        if not piece:
            raise EOFError
        found += piece
    if file.read(1):
        raise InputError(f"{where} holds more than the {size:,} bytes that its header says, expected no more")
    return found
