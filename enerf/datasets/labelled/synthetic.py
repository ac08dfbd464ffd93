"""Generated images of ten geometric figures, written in each of the supported formats.

Position, size, rotation, colors and noise are random, and figures are as often darker than the background as brighter,
so no linear classifier separates them; a small convolutional network does, within seconds.

    enerf generate labelled --out data/figures --kind cifar
"""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from enerf.core import files
from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.datasets.labelled.dataset import InMemorySplit

CLASSES = ("disc", "ring", "square", "frame", "triangle", "cross", "saltire", "lying", "standing", "chequers")
_SUPERSAMPLE = 2  # samples per pixel along each axis
_TURN = 0.15  # largest rotation in radians
_CONTRAST = (90, 160)  # range of the difference between figure and background, of 255
_NOISE = 12  # standard deviation
_CHUNK = 500  # images generated at a time


def figures(n: int, size: int, channels: int, seed: int) -> InMemorySplit:
    """Images of figures with balanced classes, determined by the arguments.

    Raises
    ------
    InputError
        If ``n`` is below 1, ``size`` below 16, or the images need more than the available memory.
    """
    if n < 1 or size < 16:
        raise InputError(f"{n} figures of {size}×{size} pixels requested, expected 1 or more of 16×16 or more")
    files.require_memory(2 * n * channels * size**2, f"{n:,} images")
    random = np.random.default_rng([seed, n, size, channels])
    labels = random.permutation(np.arange(n) % len(CLASSES))
    parts = [_drawn(labels[start : start + _CHUNK], size, channels, random) for start in range(0, n, _CHUNK)]
    return InMemorySplit(torch.from_numpy(np.concatenate(parts)), torch.from_numpy(labels).long())


def _drawn(
    labels: np.ndarray, size: int, channels: int, random: np.random.Generator
) -> UInt8[np.ndarray, "n c size size"]:
    """Images of the given classes."""
    n, fine = len(labels), size * _SUPERSAMPLE
    radius = random.uniform(0.22, 0.4, n)
    center = 0.5 + random.uniform(-1, 1, (2, n)) * (0.48 - radius)
    angle = random.uniform(-_TURN, _TURN, n)
    across, down = np.meshgrid(*[(np.arange(fine) + 0.5) / fine] * 2)
    x, y = ((a - c[:, None, None]) / radius[:, None, None] for a, c in zip((across, down), center, strict=True))
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cosine * x + sine * y, cosine * y - sine * x
    inside = np.zeros(u.shape, bool)
    for label in np.unique(labels):
        these = labels == label
        inside[these] = _inside(CLASSES[label], u[these], v[these])
    cover = inside.reshape(n, size, _SUPERSAMPLE, size, _SUPERSAMPLE).mean((2, 4))[:, None]
    contrast = random.uniform(*_CONTRAST, (n, channels)) * random.choice([-1, 1], (n, 1))
    ground = random.uniform(np.maximum(0, -contrast), np.minimum(255, 255 - contrast))
    picture = ground[..., None, None] + cover * contrast[..., None, None]
    noise = random.normal(0, _NOISE, (n, channels, size, size))
    return np.rint(np.clip(picture + noise, 0, 255)).astype(np.uint8)


def _inside(figure: str, u: Float[np.ndarray, "*b"], v: Float[np.ndarray, "*b"]) -> Bool[np.ndarray, "*b"]:
    """Whether points lie in a figure around the origin, with a radius of about 1; v points down."""
    square, far = np.maximum(abs(u), abs(v)), np.hypot(u, v)
    if figure in ("lying", "standing"):
        return (square < 0.9) & (np.floor((v if figure == "lying" else u) * 2.5 + 0.5) % 2 == 0)
    return {
        "disc": far < 0.95,
        "ring": (far < 1) & (far > 0.55),
        "square": square < 0.8,
        "frame": (square < 0.9) & (square > 0.5),
        "triangle": (v < 0.8) & (v > 2 * abs(u) - 1),
        "cross": (square < 1) & (np.minimum(abs(u), abs(v)) < 0.25),
        "saltire": (square < 0.9) & (abs(abs(u) - abs(v)) < 0.35),
        "chequers": (square < 0.9) & ((np.floor(u / 0.45) + np.floor(v / 0.45)) % 2 == 0),
    }[figure]


def write_cifar(folder: Path, n_train: int, n_test: int, seed: int = 0) -> Path:
    """Write 32×32 color images as binary files of CIFAR-10; returns the folder.

    Raises
    ------
    InputError
        If fewer than 5 training images or no test images are requested, a file of such a name has other content
        (nothing is overwritten), or the folder cannot be written.
    """
    if n_train < 5:
        raise InputError(f"{n_train} training images requested, expected 5 or more: CIFAR-10 has 5 files")
    train, test = _both(n_train, n_test, 32, 3, seed)
    rows = [
        np.concatenate([s.labels.numpy().astype(np.uint8)[:, None], s.images.flatten(1).numpy()], 1)
        for s in (train, test)
    ]
    for i, part in enumerate(np.array_split(rows[0], 5), start=1):
        _put(Path(folder) / f"data_batch_{i}.bin", part.tobytes())
    _put(Path(folder) / "test_batch.bin", rows[1].tobytes())
    _put(Path(folder) / "batches.meta.txt", "\n".join([*CLASSES, ""]).encode())
    return Path(folder)


def write_idx(folder: Path, n_train: int, n_test: int, seed: int = 0) -> Path:
    """Write 28×28 grayscale images as gzipped idx files, like MNIST's; returns the folder.

    Raises
    ------
    InputError
        If fewer than 10 training images or no test images are requested, a file of such a name has other content
        (nothing is overwritten), or the folder cannot be written.
    """
    if n_train < len(CLASSES):
        raise InputError(f"{n_train} training images requested, expected {len(CLASSES)} or more: one per class")
    for which, split in zip(("train", "t10k"), _both(n_train, n_test, 28, 1, seed), strict=True):
        header = struct.pack(">IIII", 0x803, len(split), 28, 28)
        _put(Path(folder) / f"{which}-images-idx3-ubyte.gz", _zipped(header + split.images.numpy().tobytes()))
        labels = split.labels.numpy().astype(np.uint8).tobytes()
        _put(Path(folder) / f"{which}-labels-idx1-ubyte.gz", _zipped(struct.pack(">II", 0x801, len(split)) + labels))
    return Path(folder)


def write_folder(folder: Path, n_train: int, n_test: int, seed: int = 0, size: int = 32) -> Path:
    """Write color images as PNG files ``train/disc/00000.png`` and so on; returns the folder.

    Raises
    ------
    InputError
        If fewer than 10 training images or no test images are requested, a file of such a name has other content
        (nothing is overwritten), or the folder cannot be written.
    """
    if n_train < len(CLASSES):
        raise InputError(f"{n_train} training images requested, expected {len(CLASSES)} or more: one per class")
    for which, split in zip(("train", "test"), _both(n_train, n_test, size, 3, seed), strict=True):
        for i, (picture, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            stream = io.BytesIO()
            Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(stream, "PNG")
            _put(Path(folder) / which / CLASSES[label] / f"{i:05}.png", stream.getvalue())
    return Path(folder)


def _both(n_train: int, n_test: int, size: int, channels: int, seed: int) -> tuple[InMemorySplit, InMemorySplit]:
    return figures(n_train, size, channels, 2 * seed), figures(n_test, size, channels, 2 * seed + 1)


def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _put(path: Path, data: bytes) -> None:
    """Write a file, unless it exists with the same content."""
    with core_io.os_errors_as_input_errors(path):
        there = path.exists()
        if there and files.read_bytes(path) != data:
            raise InputError(f"{path} exists and holds something else; name another folder or remove it")
    if not there:
        with core_io.atomic_path(path) as temporary, core_io.os_errors_as_input_errors(path):
            temporary.write_bytes(data)
