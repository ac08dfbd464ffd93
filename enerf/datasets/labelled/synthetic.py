"""Generated pictures of ten geometric figures, in each of the forms that data sets come in.

Place, size, turn, colours and noise are random, and a figure is as often darker than its ground as lighter, so no
linear map of the pixels tells them apart; a small convolutional network does, within seconds.

    python -m enerf.datasets.labelled.synthetic data/figures --kind cifar
"""

import gzip
import io
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from enerf.core import io as core_io
from enerf.core.errors import InputError
from enerf.datasets.labelled.dataset import Held

CLASSES = ("disc", "ring", "square", "frame", "triangle", "cross", "saltire", "lying", "standing", "chequers")
_FINER = 2  # samples of a pixel, in each direction
_TURN = 0.15  # radians either way
_CONTRAST = (90, 160)  # of figure and ground, in 256 levels
_NOISE = 12  # its standard deviation
_PART = 500  # pictures made at a time


def figures(n: int, size: int, channels: int, seed: int) -> Held:
    """Pictures of figures, as many of each class as of any other or one more; the same for the same numbers.

    Raises
    ------
    InputError
        If there are to be none, or they are too small for figures to be told apart.
    """
    if n < 1 or size < 16:
        raise InputError(f"{n} figures of {size}×{size} pixels are asked for, expected 1 or more of 16×16 or more")
    random = np.random.default_rng([seed, n, size, channels])
    labels = random.permutation(np.arange(n) % len(CLASSES))
    parts = [_drawn(labels[start : start + _PART], size, channels, random) for start in range(0, n, _PART)]
    return Held(torch.from_numpy(np.concatenate(parts)), torch.from_numpy(labels).long())


def _drawn(
    labels: np.ndarray, size: int, channels: int, random: np.random.Generator
) -> UInt8[np.ndarray, "n c size size"]:
    """Pictures of these classes."""
    n, fine = len(labels), size * _FINER
    radius = random.uniform(0.22, 0.4, n)
    centre = 0.5 + random.uniform(-1, 1, (2, n)) * (0.48 - radius)
    angle = random.uniform(-_TURN, _TURN, n)
    across, down = np.meshgrid(*[(np.arange(fine) + 0.5) / fine] * 2)
    x, y = ((a - c[:, None, None]) / radius[:, None, None] for a, c in zip((across, down), centre, strict=True))
    cosine, sine = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = cosine * x + sine * y, cosine * y - sine * x
    inside = np.zeros(u.shape, bool)
    for label in np.unique(labels):
        these = labels == label
        inside[these] = _inside(CLASSES[label], u[these], v[these])
    cover = inside.reshape(n, size, _FINER, size, _FINER).mean((2, 4))[:, None]
    contrast = random.uniform(*_CONTRAST, (n, channels)) * random.choice([-1, 1], (n, 1))
    ground = random.uniform(np.maximum(0, -contrast), np.minimum(255, 255 - contrast))
    picture = ground[..., None, None] + cover * contrast[..., None, None]
    noise = random.normal(0, _NOISE, (n, channels, size, size))
    return np.rint(np.clip(picture + noise, 0, 255)).astype(np.uint8)


def _inside(figure: str, u: Float[np.ndarray, "*b"], v: Float[np.ndarray, "*b"]) -> Bool[np.ndarray, "*b"]:
    """Whether places belong to a figure about the origin, which reaches to 1 or so; v points down."""
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
    """The folder, with 32×32 colour pictures in the binary files of CIFAR-10.

    Raises
    ------
    InputError
        If there are to be fewer than 5 training pictures or no test pictures, a file of such a name holds something
        else (nothing is overwritten), or the folder cannot be written.
    """
    if n_train < 5:
        raise InputError(f"{n_train} training pictures are asked for, expected 5 or more: CIFAR-10 has 5 files")
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
    """The folder, with 28×28 grey pictures in compressed idx files, as MNIST's.

    Raises
    ------
    InputError
        If there are to be fewer than 10 training pictures or no test pictures, a file of such a name holds something
        else (nothing is overwritten), or the folder cannot be written.
    """
    if n_train < len(CLASSES):
        raise InputError(f"{n_train} training pictures are asked for, expected {len(CLASSES)} or more: one of a class")
    for which, split in zip(("train", "t10k"), _both(n_train, n_test, 28, 1, seed), strict=True):
        header = struct.pack(">IIII", 0x803, len(split), 28, 28)
        _put(Path(folder) / f"{which}-images-idx3-ubyte.gz", _zipped(header + split.images.numpy().tobytes()))
        labels = split.labels.numpy().astype(np.uint8).tobytes()
        _put(Path(folder) / f"{which}-labels-idx1-ubyte.gz", _zipped(struct.pack(">II", 0x801, len(split)) + labels))
    return Path(folder)


def write_folder(folder: Path, n_train: int, n_test: int, seed: int = 0, size: int = 32) -> Path:
    """The folder, with colour pictures as PNG files ``train/disc/00000.png`` and so on.

    Raises
    ------
    InputError
        If there are to be fewer than 10 training pictures or no test pictures, a file of such a name holds something
        else (nothing is overwritten), or the folder cannot be written.
    """
    if n_train < len(CLASSES):
        raise InputError(f"{n_train} training pictures are asked for, expected {len(CLASSES)} or more: one of a class")
    for which, split in zip(("train", "test"), _both(n_train, n_test, size, 3, seed), strict=True):
        for i, (picture, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            stream = io.BytesIO()
            Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(stream, "PNG")
            _put(Path(folder) / which / CLASSES[label] / f"{i:05}.png", stream.getvalue())
    return Path(folder)


def _both(n_train: int, n_test: int, size: int, channels: int, seed: int) -> tuple[Held, Held]:
    return figures(n_train, size, channels, 2 * seed), figures(n_test, size, channels, 2 * seed + 1)


def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _put(path: Path, data: bytes) -> None:
    """Write a file, unless it is there already."""
    with core_io.blaming(path):
        there = path.exists()
        if there and path.read_bytes() != data:
            raise InputError(f"{path} exists and holds something else; name another folder or remove it")
    if not there:
        with core_io.replacing(path) as temporary, core_io.blaming(path):
            temporary.write_bytes(data)
