"""The standard files of CIFAR-10 and CIFAR-100, binary or pickled: the same images and labels, to the byte.

A row of a binary file is one label (CIFAR-100: the coarse one, then the fine one, which is taken) and 3072 bytes: red,
green and blue planes of 32 × 32. Krizhevsky, Learning multiple layers of features from tiny images (2009).
"""

import numpy as np
import torch
from jaxtyping import UInt8

from enerf.core.errors import InputError
from enerf.datasets.labelled import safe_pickle
from enerf.datasets.labelled.archive import Store
from enerf.datasets.labelled.dataset import Held

SIZE, CHANNELS = 32, 3
_PIXELS = CHANNELS * SIZE * SIZE
_TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))

_Rows = tuple[UInt8[np.ndarray, "n 3072"], list[int]]


def load(store: Store) -> tuple[Held, Held, tuple[str, ...]]:
    """Training images, test images, and the names of the classes: numbers, where no file names them.

    Raises
    ------
    InputError
        If a file is missing, damaged, or does not hold whole rows with labels in range.
    """
    ten, binary = store.kind.startswith("CIFAR-10,"), store.kind.endswith("binary")
    suffix = ".bin" if binary else ""
    parts = (_TRAIN, ("test_batch",)) if ten else (("train",), ("test",))
    missing = [name + suffix for names in parts for name in names if name + suffix not in store.names]
    if missing:
        raise InputError(f"{store.where()} lacks {', '.join(missing)}, expected all files of {store.kind}")
    n = 10 if ten else 100
    read = _binary if binary else _pickled
    train, test = (_joined([read(store, name + suffix, n) for name in names]) for names in parts)
    return train, test, _classes(store, n)


def _joined(parts: list[_Rows]) -> Held:
    """Rows one after the other, as images."""
    rows = np.concatenate([rows for rows, _ in parts])
    labels = [label for _, labels in parts for label in labels]
    return Held(torch.from_numpy(rows).reshape(-1, CHANNELS, SIZE, SIZE), torch.tensor(labels, dtype=torch.int64))


def _binary(store: Store, name: str, n: int) -> _Rows:
    """Rows of a binary file."""
    before = 1 if n == 10 else 2
    data, row = store.read(name), before + _PIXELS
    if not data or len(data) % row:
        raise InputError(f"{store.where(name)} has {len(data):,} bytes, expected rows of {row:,} bytes each")
    rows = np.frombuffer(data, np.uint8).reshape(-1, row)
    labels = rows[:, before - 1].tolist()
    _check(store, name, labels, n)
    return rows[:, before:], labels


def _pickled(store: Store, name: str, n: int) -> _Rows:
    """Rows of a pickled file."""
    key = "labels" if n == 10 else "fine_labels"
    said = _said(store, name)
    rows, labels = said.get("data"), said.get(key)
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != _PIXELS:
        raise InputError(f"{store.where(name)} has no rows of {_PIXELS} bytes under 'data', expected those of CIFAR")
    labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        raise InputError(f"{store.where(name)} has no list of numbers under {key!r}, expected a label for each image")
    if len(labels) != len(rows) or not labels:
        raise InputError(
            f"{store.where(name)} holds {len(rows)} images and {len(labels)} labels, expected as many, and some"
        )
    _check(store, name, labels, n)
    return np.ascontiguousarray(rows), labels


def _said(store: Store, name: str) -> dict:
    """What a pickled file says."""
    try:
        return safe_pickle.read(store.read(name))
    except ValueError as error:
        raise InputError(
            f"{store.where(name)} cannot be read ({error}), expected a pickled file of {store.kind}"
        ) from None


def _check(store: Store, name: str, labels: list[int], n: int) -> None:
    wrong = next((row for row, label in enumerate(labels) if not 0 <= label < n), None)
    if wrong is not None:
        raise InputError(f"{store.where(name)}: row {wrong} has the label {labels[wrong]}, expected 0 to {n - 1}")


def _classes(store: Store, n: int) -> tuple[str, ...]:
    """Names of the classes."""
    binary = store.kind.endswith("binary")
    meta = {10: "batches.meta", 100: "fine_label_names" if binary else "meta"}[n] + (".txt" if binary else "")
    if meta not in store.names:
        return tuple(map(str, range(n)))
    if binary:
        names = store.read(meta).decode("utf-8", errors="replace").split("\n")
    else:
        listed = _said(store, meta).get("label_names" if n == 10 else "fine_label_names", ())
        said = listed if isinstance(listed, list | tuple) else ()
        names = [name.decode("utf-8", errors="replace") if isinstance(name, bytes) else str(name) for name in said]
    names = [name.strip() for name in names if name.strip()]
    if len(set(names)) != n or len(names) != n:
        raise InputError(f"{store.where(meta)} names {len(set(names))} different classes, expected {n}")
    return tuple(names)
