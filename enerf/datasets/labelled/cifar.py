"""The standard files of CIFAR-10 and CIFAR-100, binary or pickled, with identical results.

A row of a binary file is one label (CIFAR-100: the coarse and the fine label; the fine one is used) and 3072 bytes:
red, green and blue planes of 32 × 32. Source: Krizhevsky, Learning multiple layers of features from tiny images
(2009).
"""

import numpy as np
import torch
from jaxtyping import UInt8

from enerf.core.errors import InputError
from enerf.datasets.labelled import safe_pickle
from enerf.datasets.labelled.archive import Archive
from enerf.datasets.labelled.dataset import InMemorySplit

SIZE, CHANNELS = 32, 3
_PIXELS = CHANNELS * SIZE * SIZE
_LONG = 10**18  # Python makes no text of numbers of thousands of digits
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))

_Rows = tuple[UInt8[np.ndarray, "n 3072"], list[int]]


def load(archive: Archive) -> tuple[InMemorySplit, InMemorySplit, tuple[str, ...]]:
    """Training images, test images, and class names (numbers if no file names them).

    Raises
    ------
    InputError
        If a file is missing, damaged, or does not contain complete rows with valid labels.
    """
    ten, binary = archive.kind.startswith("CIFAR-10,"), archive.kind.endswith("binary")
    suffix = ".bin" if binary else ""
    parts = (_TRAIN, ("test_batch",)) if ten else (("train",), ("test",))
    missing = [name + suffix for names in parts for name in names if name + suffix not in archive.names]
    if missing:
        raise InputError(f"{archive.where()} lacks {', '.join(missing)}, expected all files of {archive.kind}")
    n = 10 if ten else 100
    read = _binary if binary else _pickled
    train, test = (_joined([read(archive, name + suffix, n) for name in names]) for names in parts)
    return train, test, _classes(archive, n)


def _joined(parts: list[_Rows]) -> InMemorySplit:
    """A split from the concatenated rows."""
    rows = np.concatenate([rows for rows, _ in parts])
    labels = [label for _, labels in parts for label in labels]
    return InMemorySplit(
        torch.from_numpy(rows).reshape(-1, CHANNELS, SIZE, SIZE), torch.tensor(labels, dtype=torch.int64)
    )


def _binary(archive: Archive, name: str, n: int) -> _Rows:
    """Rows of a binary file."""
    before = 1 if n == 10 else 2
    data, row = archive.read(name), before + _PIXELS
    if not data or len(data) % row:
        raise InputError(f"{archive.where(name)} has {len(data):,} bytes, expected rows of {row:,} bytes each")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    labels = rows[:, before - 1].tolist()
    _check(archive, name, labels, n)
    return rows[:, before:], labels


def _pickled(archive: Archive, name: str, n: int) -> _Rows:
    """Rows of a pickled file."""
    key = "labels" if n == 10 else "fine_labels"
    contents = _unpickled(archive, name)
    rows, labels = contents.get("data"), contents.get(key)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        raise InputError(f"{archive.where(name)} has no rows of {_PIXELS} bytes under 'data', expected those of CIFAR")
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise InputError(f"{archive.where(name)} has no list of numbers under {key!r}, expected a label for each image")
    if len(labels) != len(rows) or not labels:
        raise InputError(
            f"{archive.where(name)} holds {len(rows)} images and {len(labels)} labels, expected as many, and some"
        )
    _check(archive, name, labels, n)
    return np.ascontiguousarray(rows), labels


def _unpickled(archive: Archive, name: str) -> dict:
    """Contents of a pickled file."""
    try:
        return safe_pickle.read(archive.read(name))
    except ValueError as error:
        raise InputError(
            f"{archive.where(name)} cannot be read ({error}), expected a pickled file of {archive.kind}"
        ) from None


def _check(archive: Archive, name: str, labels: list[int], n: int) -> None:
    wrong = next((row for row, label in enumerate(labels) if not 0 <= label < n), None)
    if wrong is not None:
        found = str(labels[wrong]) if abs(labels[wrong]) < _LONG else "a number of many digits"
        raise InputError(f"{archive.where(name)}: row {wrong} has the label {found}, expected 0 to {n - 1}")


def _classes(archive: Archive, n: int) -> tuple[str, ...]:
    """Names of the classes."""
    binary = archive.kind.endswith("binary")
    meta = {10: "batches.meta", 100: "fine_label_names" if binary else "meta"}[n] + (".txt" if binary else "")
    if meta not in archive.names:
        return tuple(map(str, range(n)))
    if binary:
        names = archive.read(meta).decode("utf-8", errors="replace").split("\n")
    else:
        listed = _unpickled(archive, meta).get("label_names" if n == 10 else "fine_label_names", ())
        found = listed if isinstance(listed, list | tuple) else ()
        names = [name.decode("utf-8", errors="replace") if isinstance(name, bytes) else str(name) for name in found]
    names = [name.strip() for name in names if name.strip()]
    if len(set(names)) != n or len(names) != n:
        raise InputError(f"{archive.where(meta)} names {len(set(names))} different classes, expected {n}")
    return tuple(names)
