"""Volumes of voxels for tests: a ball off the center of an array, and files of it in every format."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import scipy.io
from jaxtyping import Bool, Shaped

SHAPE = (30, 34, 28)


def ball(radius: float = 11.6) -> Bool[np.ndarray, "30 34 28"]:
    """An ellipsoid with half axes of ``radius`` times 1, 1.06 and 0.9 voxels about (14, 18, 13)."""
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    return np.linalg.norm((places - [14, 18, 13]) / [radius, 1.06 * radius, 0.9 * radius], axis=-1) < 1


def npy(values: Shaped[np.ndarray, "..."]) -> bytes:
    """Content of a ``.npy`` file."""
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def npz(**arrays: Shaped[np.ndarray, "..."]) -> bytes:
    """Content of a ``.npz`` file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def mat(compressed: bool = False, **variables: object) -> bytes:
    """Content of a MATLAB 5 file."""
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=compressed)
    return stream.getvalue()


def zipped(members: Mapping[str, bytes]) -> bytes:
    """Content of a zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return stream.getvalue()


def with_size(data: bytes, size: int) -> bytes:
    """The content of a zip of one file, whose headers announce another unpacked size."""
    made = bytearray(data)
    at = made.index(b"PK\x01\x02")
    made[22:26] = made[at + 24 : at + 28] = size.to_bytes(4, "little")
    return bytes(made)


VALUES: dict[str, Callable[[Bool[np.ndarray, "a b c"]], Shaped[np.ndarray, "a b c"]]] = {
    "bool": lambda a: a,
    "0 and 255": lambda a: a.astype(np.uint8) * np.uint8(255),
    "int64": lambda a: a.astype(np.int64),
    "big-endian float": lambda a: a.astype(">f8"),
    "columns first": np.asfortranarray,
}
FILES: dict[str, Callable[[Shaped[np.ndarray, "a b c"]], bytes]] = {
    "it.npy": npy,
    "it.npz": lambda a: npz(voxels=a),
    "it.mat": lambda a: mat(hypercube=a, other=np.ones((2, 2))),
    "compressed.mat": lambda a: mat(compressed=True, hypercube=a),
    "it.mat.zip": lambda a: zipped({"it.mat": mat(any_name=a), "readme.txt": b"text"}),
    "it.npy.zip": lambda a: zipped({"it.npy": npy(a)}),
}


def write(folder: Path, name: str, data: bytes) -> Path:
    """Write a file and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name
