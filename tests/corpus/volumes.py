"""Volumes of voxels: archives and headers that lie, bombs, other types, empty and full boxes."""

import struct
import zlib
from pathlib import Path

import numpy as np

from tests.corpus.damage import flipped
from tests.corpus.inputs import shape, special_file
from tests.corpus.registry import Command, table
from tests.geometry import volumes
from tests.geometry.volumes import mat, npy, npz, with_size, zipped

BALL = volumes.ball()
MAT, NPY = mat(hypercube=BALL.astype(np.uint8)), npy(BALL)
GIB = 1 << 30


def _element(announced: int, zeros: int) -> bytes:
    """A MATLAB file whose compressed element announces a size and unpacks to many zeros."""
    stream = zlib.compressobj(9)
    packed = stream.compress(struct.pack("<2I", 14, announced))
    packed += b"".join(stream.compress(bytes(1 << 20)) for _ in range(zeros >> 20)) + stream.flush()
    return MAT[:128] + struct.pack("<2I", 15, len(packed)) + packed


def _header(shape: str, dtype: str = "|b1") -> bytes:
    """A ``.npy`` file of a few bytes that announces a shape."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)


def _dimensions(*sides: int) -> bytes:
    """The MATLAB file with other sides in its header."""
    at = MAT.index(struct.pack("<3i", *BALL.shape))
    return MAT[:at] + struct.pack("<3i", *sides) + MAT[at + 12 :]


def _nan() -> np.ndarray:
    values = BALL.astype(np.float32)
    values[2, 2, 2] = np.nan
    return values


VOLUMES = {
    **{f"good/{name}": ("accept", (name, make(BALL.astype(np.uint8)))) for name, make in volumes.FILES.items()},
    "good/gray": ("accept", ("v.npy", npy((BALL * np.linspace(200, 255, BALL.size).reshape(BALL.shape)).astype("u1")))),
    "empty_file": ("refuse", ("v.npy", b"")),
    "text": ("refuse", ("v.mat", b"hypercube = 1\n" * 100)),
    "cut.mat": ("refuse", ("v.mat", MAT[:-100])),
    "cut.npy": ("refuse", ("v.npy", NPY[:-1])),
    "cut.zip": ("refuse", ("v.zip", zipped({"v.npy": NPY})[:-40])),
    "suffix": ("accept", ("v.dat", NPY)),
    "objects": ("refuse", ("v.npy", npy(np.array([{}], dtype=object)))),
    "strings": ("refuse", ("v.npy", npy(np.full((3, 3, 3), "a")))),
    "complex": ("refuse", ("v.npy", npy(BALL * 1j))),
    "two_axes": ("refuse", ("v.npy", npy(BALL[10]))),
    "four_axes": ("refuse", ("v.npy", npy(BALL[None]))),
    "no_voxels": ("refuse", ("v.npy", npy(np.zeros((3, 0, 3), bool)))),
    "all_empty": ("refuse", ("v.npy", npy(np.zeros((9, 9, 9), bool)))),
    "all_full": ("refuse", ("v.npy", npy(np.ones((9, 9, 9), bool)))),
    "one_voxel": ("refuse", ("v.npy", npy(np.arange(27).reshape(3, 3, 3) == 13))),
    "one_layer": ("refuse", ("v.npy", npy(np.pad(np.eye(9, dtype=bool)[None], 2)))),
    "nan": ("refuse", ("v.npy", npy(_nan()))),
    "infinite": ("refuse", ("v.npy", npy(np.where(BALL, np.inf, 0)))),
    "negative": ("refuse", ("v.npy", npy(BALL.astype(np.int8) - 1))),
    "large_values": ("refuse", ("v.npy", npy(BALL * np.int64(2**62)))),
    "header_2e60": ("refuse", ("v.npy", _header("(1048576, 1048576, 1048576)"))),
    "header_negative": ("refuse", ("v.npy", _header("(-4, -4, 4)"))),
    "header_text": ("refuse", ("v.npy", _header("('a', 2, 2)"))),
    "header_code": ("refuse", ("v.npy", _header("(__import__('os').mkdir('enerf-executed'),)"))),
    "mat_sides_2e31": ("refuse", ("v.mat", _dimensions(2**31 - 1, 2**31 - 1, 2**31 - 1))),
    "mat_sides_negative": ("refuse", ("v.mat", _dimensions(-30, -34, 28))),
    "mat_sides_0": ("refuse", ("v.mat", _dimensions(0, 34, 28))),
    "mat_other_sides": ("refuse", ("v.mat", _dimensions(30, 34, 29))),
    "mat_struct": ("refuse", ("v.mat", mat(hypercube={"a": BALL * 1}))),
    "mat_cell": ("refuse", ("v.mat", mat(hypercube=np.array([[BALL * 1]] * 2, dtype=object)))),
    "mat_char": ("refuse", ("v.mat", mat(hypercube="abc"))),
    "mat_two": ("refuse", ("v.mat", mat(a=BALL * 1, b=BALL * 1))),
    "mat_none": ("refuse", ("v.mat", MAT[:128])),
    "mat_7_3": ("refuse", ("v.mat", b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(200))),
    "mat_bomb": ("refuse", ("v.mat", _element(64, GIB))),
    "mat_announces": ("refuse", ("v.mat", _element(0xFFFFFFF0, 1 << 20))),
    "zip_bomb_small": ("refuse", ("v.zip", with_size(zipped({"v.npy": bytes(3 << 28)}), 1000))),
    "zip_announces": ("refuse", ("v.zip", with_size(zipped({"v.npy": NPY}), 0xFFFFFFF0))),
    "zip_two": ("refuse", ("v.zip", zipped({"a.npy": NPY, "b.mat": MAT}))),
    "zip_none": ("refuse", ("v.zip", zipped({"a.txt": b"text"}))),
    "zip_in_zip": ("refuse", ("v.zip", zipped({"a.zip": zipped({"v.npy": NPY})}))),
    "zip_outside": ("accept", ("v.zip", zipped({"../../v.npy": NPY}))),
    "npz_two": ("refuse", ("v.npz", npz(a=BALL, b=BALL))),
    "npz_hidden": ("accept", ("v.zip", zipped({"__MACOSX/v.npy": NPY[:50], "v.npy": NPY}))),
    **{f"flip_mat{i}": ("v.mat", flipped(MAT[:300], i, 4) + MAT[300:]) for i in range(6)},
    **{f"flip_npy{i}": ("v.npy", flipped(NPY[:128], i, 4) + NPY[128:]) for i in range(4)},
    **{f"flip_zip{i}": ("v.zip", flipped(zipped({"v.mat": MAT}), i, 4)) for i in range(6)},
}


@table("volume", VOLUMES)
def _(folder: Path, file: tuple[str, bytes]) -> Command:
    name, content = file
    (folder / name).write_bytes(content)
    words = ("--encoding", "positional", "--netdepth", "2", "--netwidth", "8", "--N_points", "500")
    return shape(folder, "--volume", folder / name, *words)


@table(
    "volume_file",
    {kind: kind for kind in ("fifo", "folder", "loop", "devzero", "dangling", "missing", "empty")},
    "refuse",
)
def _(folder: Path, kind: str) -> Command:
    special_file(folder / "v.npy", kind)
    return shape(folder, "--volume", folder / "v.npy", "--encoding", "positional", "--epochs", "1")
