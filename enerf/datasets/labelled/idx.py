"""The files of MNIST and Fashion-MNIST: grayscale images and labels in the idx format, plain or gzipped.

A file is a magic number (two zeros, 8 for bytes, the number of axes), the length of each axis as a big-endian 32-bit
integer, and the data. No more than the header declares is decompressed. Source: LeCun, Cortes, Burges, The MNIST
database.
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

from enerf.core import files
from enerf.core.errors import InputError
from enerf.datasets.labelled.archive import MEMBER, Archive
from enerf.datasets.labelled.dataset import InMemorySplit

_PIECE = 1 << 24  # bytes decompressed at a time
_DEFLATE = 1100  # largest ratio of decompressed to compressed bytes; that of zlib's format is 1032


def load(archive: Archive) -> tuple[InMemorySplit, InMemorySplit, tuple[str, ...]]:
    """Training images, test images, and class names, which are the numbers from 0 to the largest training label.

    Raises
    ------
    InputError
        If a file is missing, damaged or has unexpected contents, images are not square or differ in size, images and
        labels differ in number, or a class has no training images.
    """
    train, _ = _split(archive, "train")
    n = int(train.labels.max()) + 1
    absent = sorted(set(range(n)) - set(train.labels.tolist()))
    if absent:
        raise InputError(
            f"{archive.where(_named(archive, 'train', 'labels', 1))} has labels up to {n - 1} and none is {absent[0]}, "
            "expected each class to have images"
        )
    test, name = _split(archive, "t10k")
    wrong = (test.labels >= n).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{archive.where(name)}: row {row} has the label {int(test.labels[row])}, expected 0 to {n - 1}"
        )
    if train.images.shape[1:] != test.images.shape[1:]:
        sizes = [f"{split.images.shape[2]}×{split.images.shape[3]}" for split in (train, test)]
        raise InputError(
            f"{archive.where()} has training images of {sizes[0]} and test images of {sizes[1]} pixels, expected one "
            "size"
        )
    return train, test, tuple(map(str, range(n)))


def _split(archive: Archive, which: str) -> tuple[InMemorySplit, str]:
    """Images and labels of a split, and the name of its label file."""
    images_name, labels_name = _named(archive, which, "images", 3), _named(archive, which, "labels", 1)
    images, labels = array(archive, images_name, 3), array(archive, labels_name, 1)
    if len(images) != len(labels):
        raise InputError(
            f"{archive.where(images_name)} holds {len(images)} images and {labels_name} {len(labels)} labels, expected "
            "as many"
        )
    if not images.size or images.shape[1] != images.shape[2]:
        raise InputError(
            f"{archive.where(images_name)} holds {len(images)} images of {images.shape[1]}×{images.shape[2]} pixels, "
            "expected square ones, and some"
        )
    return InMemorySplit(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()), labels_name


def _named(archive: Archive, which: str, what: str, axes: int) -> str:
    """Name of a file in any of its spellings."""
    found = [name for name in archive.names if re.fullmatch(rf"{which}-{what}[-.]idx{axes}-ubyte(\.gz)?", name)]
    if not found:
        raise InputError(f"{archive.where()} lacks {which}-{what}-idx{axes}-ubyte or the same with .gz")
    return found[0]


def array(archive: Archive, name: str, axes: int) -> UInt8[np.ndarray, "..."]:
    """The data of an idx file, in the shape given by its header.

    Raises
    ------
    InputError
        If it is damaged, does not contain bytes along ``axes`` axes, or its size differs from its header.
    """
    data, where = archive.read(name), archive.where(name)
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
            _check_promise(math.prod(shape), len(data), isinstance(file, gzip.GzipFile), where)
            found = _read(file, math.prod(shape), where)
    except EOFError:
        raise InputError(f"{where} cannot be read (it ends too soon), expected a whole file") from None
    except (OSError, zlib.error) as error:
        raise InputError(f"{where} cannot be read ({str(error).lower()}), expected a whole gzip file") from None
    return np.frombuffer(found, np.uint8).reshape(shape)


def _check_promise(size: int, n_bytes: int, is_zipped: bool, where: str) -> None:
    """Check the size that a header declares, before it is allocated, against the file's own size and the memory."""
    if size > MEMBER:
        raise InputError(f"{where} promises {size:,} bytes, expected no more than {MEMBER:,}")
    if size > n_bytes * (_DEFLATE if is_zipped else 1):
        raise InputError(f"{where} promises {size:,} bytes and has {n_bytes:,}, expected a whole file")
    files.require_memory(size, where)


def _read(file: gzip.GzipFile | io.BytesIO, size: int, where: str) -> bytearray:
    """The rest of a file, which must have the given size."""
    found = bytearray()
    while len(found) < size:
        piece = file.read(min(_PIECE, size - len(found)))
        if not piece:
            raise EOFError
        found += piece
    if file.read(1):
        raise InputError(f"{where} holds more than the {size:,} bytes that its header says, expected no more")
    return found
