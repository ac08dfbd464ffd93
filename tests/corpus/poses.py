"""Poses of LLFF scenes: damaged and lying ``.npy`` files, and numbers from ordinary to absurd."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.corpus.damage import npy
from tests.corpus.inputs import NERF, base, copied, nerf, special_file
from tests.corpus.registry import Command, split, table, values

Edit = Callable[[np.ndarray], np.ndarray]
ROWS = bytes(8 * 17 * 8)  # the body of eight rows of zeros
NPY_RAW = {
    "empty": b"",
    "magic_only": b"\x93NUMPY",
    "version9": b"\x93NUMPY\x09\x00" + bytes(200),
    "header_len_beyond": b"\x93NUMPY\x01\x00\xff\xff{'descr'",
    "shape_1e12": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 17), }", body=ROWS),
    "shape_1e8": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (100000000, 17), }", body=ROWS),
    "shape_2e63": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (9223372036854775807, 17), }", body=ROWS),
    "shape_negative": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-8, 17), }", body=ROWS),
    "shape_neg_neg": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-8, -17), }", body=ROWS),
    "shape_true": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (True, 17), }", body=ROWS),
    "shape_float": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8.0, 17), }", body=ROWS),
    "shape_huge_digits": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 5000 + ", 17), }", body=ROWS
    ),
    "shape_0": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 17), }"),
    "shape_0_huge": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9223372036854775807), }"),
    "shape_scalar": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (), }", body=bytes(8)),
    "shape_3d": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8, 17, 1), }", body=ROWS),
    "header_unclosed": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8, 17", body=ROWS),
    "header_unclosed_string": npy("{'descr': '<f8", body=ROWS),
    "header_triple_quote": npy("'''", body=ROWS),
    "header_indent": npy("  {'descr': '<f8'}\n x: 1\n  y", body=ROWS),
    "header_nul": npy("{'descr': '\x00<f8', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "header_parens_9000": npy("(" * 9000, body=ROWS),
    "header_brackets_200": npy("[" * 150 + "]" * 150, body=ROWS),
    "header_minus_9000": npy("-" * 9000 + "1", body=ROWS),
    "header_plus_chain": npy("+".join(["1"] * 4000), body=ROWS),
    "header_20000_chars": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8, 17), }" + " " * 20000, body=ROWS),
    "header_code": npy("__import__('os').system('touch enerf-executed')", body=ROWS),
    "header_list": npy("[1, 2]", body=ROWS),
    "header_missing_key": npy("{'descr': '<f8', 'shape': (8, 17), }", body=ROWS),
    "header_latin": npy("{'descr': '\xff', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "header_v3_bad_utf8": npy(b"{'descr': '\xff\xfe'}", version=(3, 0), body=ROWS),
    "descr_object": npy("{'descr': '|O', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "descr_void": npy("{'descr': '|V8', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "descr_struct": npy("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "descr_struct_bomb": npy(
        "{'descr': [('a', '<f8', (2147483647,))], 'fortran_order': False, 'shape': (8, 17), }", body=ROWS
    ),
    "descr_unicode": npy("{'descr': '<U2', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "descr_U_huge": npy("{'descr': '<U536870911', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "descr_V_zero": npy("{'descr': '|V0', 'fortran_order': False, 'shape': (9000000000000000000, 17), }"),
    "descr_S0": npy("{'descr': '|S0', 'fortran_order': False, 'shape': (8, 17), }"),
    "descr_datetime": npy("{'descr': '<M8[s]', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS),
    "descr_nested": npy(
        "{'descr': " + "[('a', " * 60 + "'<f8'" + ")]" * 60 + ", 'fortran_order': False, 'shape': (8, 17), }", body=ROWS
    ),
    "zip_npz": b"PK\x03\x04" + bytes(300),
    "gzip": gzip.compress(ROWS),
    "text": b"1 2 3\n",
    "truncated_body": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (8, 17), }", body=ROWS[:700]),
}


def _poses(folder: Path) -> Path:
    return folder / "poses_bounds.npy"


@table("npy_raw", NPY_RAW, "refuse")
def _(folder: Path, raw: bytes) -> Command:
    scene = copied("llff", folder)
    _poses(scene).write_bytes(raw)
    return nerf(folder, scene)


def _rows() -> np.ndarray:
    return np.load(_poses(base("llff")))


def _at(row: Any, column: int, value: float) -> Edit:
    def edit(rows: np.ndarray) -> np.ndarray:
        rows[row, column] = value
        return rows

    return edit


def _scaled(scale: float) -> Edit:
    def edit(rows: np.ndarray) -> np.ndarray:
        rows[:, [3, 8, 13]] *= scale
        rows[:, 15:] *= scale
        return rows

    return edit


def _turned(change: Edit) -> Edit:
    """Change the rotations."""

    def edit(rows: np.ndarray) -> np.ndarray:
        poses = rows[:, :15].reshape(-1, 3, 5)
        poses[:, :, :3] = change(poses[:, :, :3].copy())
        rows[:, :15] = poses.reshape(-1, 15)
        return rows

    return edit


def _moved(change: Edit) -> Edit:
    """Change the camera positions."""

    def edit(rows: np.ndarray) -> np.ndarray:
        rows[:, [3, 8, 13]] = change(rows[:, [3, 8, 13]])
        return rows

    return edit


def _bounds(near: float, far: float) -> Edit:
    def edit(rows: np.ndarray) -> np.ndarray:
        rows[:, 15], rows[:, 16] = near, far
        return rows

    return edit


NPY = {
    "int64": lambda r: np.round(r).astype(np.int64),
    "int8": lambda r: r.astype(np.int8),
    "uint64": lambda r: np.abs(r).astype(np.uint64),
    "complex": lambda r: r.astype(complex),
    "bool": lambda r: r > 0,
    "float16": lambda r: r.astype(np.float16),
    "float16_overflow": lambda r: (r * 1e6).astype(np.float16),
    "longdouble": ("accept", lambda r: r.astype(np.longdouble)),
    "big_endian": ("accept", lambda r: r.astype(">f8")),
    "float32": ("accept", lambda r: r.astype(np.float32)),
    "fortran": ("accept", np.asfortranarray),
    "18_columns": ("refuse", lambda r: np.c_[r, r[:, :1]]),
    "16_columns": ("refuse", lambda r: r[:, :16]),
    "transposed": ("refuse", lambda r: r.T.copy()),
    "one_row": ("refuse", lambda r: r[:1]),
    "rows_7": ("refuse", lambda r: r[:7]),
    "rows_9": ("refuse", lambda r: np.r_[r, r[:1]]),
    "det_minus": ("refuse", _turned(lambda R: R * np.array([1, 1, -1]))),
    "all_R_zero": ("refuse", _turned(lambda R: R * 0)),
    "R_scaled_7": _turned(lambda R: 7 * R),
    "R_1e200": _turned(lambda R: 1e200 * R),
    "R_1e308": _turned(lambda R: 1e308 * R),
    "R_1e-110": _turned(lambda R: 1e-110 * R),
    "R_1e-320": _turned(lambda R: 1e-320 * R),
    "sheared": ("refuse", _turned(lambda R: R + np.array([[0, 0.5, 0], [0, 0, 0], [0, 0, 0]]))),
    "R_random": ("refuse", _turned(lambda R: np.random.default_rng(0).normal(size=R.shape))),
    "looking_back": _turned(lambda R: R * np.where(np.arange(len(R)) % 2, 1, -1)[:, None, None] * np.array([1, 1, 1])),
    "opposite_cameras": _turned(
        lambda R: np.where((np.arange(len(R)) % 2 == 0)[:, None, None], R, R * np.array([1, -1, -1]))
    ),
    "focal_0": ("refuse", _at(slice(None), 14, 0)),
    "focal_neg": ("refuse", _at(slice(None), 14, -5)),
    "focal_1e20": _at(slice(None), 14, 1e20),
    "focal_1e-20": _at(slice(None), 14, 1e-20),
    "focal_1e300": _at(slice(None), 14, 1e300),
    "focal_denormal": _at(slice(None), 14, 5e-324),
    "focal_differs": ("any", _at(3, 14, 500.0)),
    "height_differs": _at(3, 4, 5000.0),
    "width_nan": ("refuse", _at(0, 9, np.nan)),
    "size_swapped": ("refuse", lambda r: r[:, [0, 1, 2, 3, 9, 5, 6, 7, 8, 4, 10, 11, 12, 13, 14, 15, 16]]),
    "near_negative": ("refuse", _at(2, 15, -1.0)),
    "near_zero": ("refuse", _at(2, 15, 0.0)),
    "near_denormal": _at(slice(None), 15, 5e-324),
    "near_1e-300": _at(slice(None), 15, 1e-300),
    "near_1e-30": _at(slice(None), 15, 1e-30),
    "far_1e20": _at(slice(None), 16, 1e20),
    "far_1e300": _at(slice(None), 16, 1e300),
    "far_max": _at(slice(None), 16, 1.7e308),
    "near_close_far": _bounds(1.0, np.nextafter(1.0, 2)),
    "far_inf": ("refuse", _at(1, 16, np.inf)),
    "t_inf": ("refuse", _at(1, 3, np.inf)),
    "t_1e20": _moved(lambda t: t + 1e20),
    "t_1e200": _moved(lambda t: t * 1e200),
    "one_t_1e20": _at(3, 3, 1e20),
    "one_t_1e30": _at(3, 3, 1e30),
    "one_t_1e308": _at(3, 3, 1e308),
    "world_1e-6": ("accept", _scaled(1e-6)),
    "world_1e6": ("accept", _scaled(1e6)),
    "world_1e-30": _scaled(1e-30),
    "world_1e30": _scaled(1e30),
    "world_1e-200": _scaled(1e-200),
    "world_1e200": _scaled(1e200),
    "world_1e-308": _scaled(1e-308),
    "all_same_pose": lambda r: np.repeat(r[:1], len(r), 0),
    "two_same_pose": lambda r: np.r_[r[:1], r[:1], r[2:]],
    "all_same_place": _moved(lambda t: t * 0),
    "cameras_beyond_near": _moved(lambda t: t * 1e4),
    "all_zero": ("refuse", lambda r: r * 0),
    "minus_zero": lambda r: r * -1.0,
}


def _scene_with(folder: Path, edit: Edit) -> Path:
    scene = copied("llff", folder)
    with np.errstate(all="ignore"):
        np.save(_poses(scene), edit(_rows()))
    return scene


@table("npy", NPY)
def _(folder: Path, edit: Edit) -> Command:
    return nerf(folder, _scene_with(folder, edit))


_WITHOUT_NDC = (
    *("t_1e20", "near_denormal", "far_1e300", "far_max", "one_t_1e30", "one_t_1e308", "world_1e-308", "world_1e200"),
    *("all_same_pose", "opposite_cameras", "focal_1e-20"),
)


@table("npy_no_ndc", values(NPY, *_WITHOUT_NDC))
def _(folder: Path, edit: Edit) -> Command:
    return nerf(folder, _scene_with(folder, edit), "--no_ndc")


_SPHERIFIED = ("all_same_pose", "all_same_place", "one_t_1e30", "t_1e200", "world_1e-200", "far_max")


@table("npy_spherify", values(NPY, *_SPHERIFIED))
def _(folder: Path, edit: Edit) -> Command:
    return nerf(folder, _scene_with(folder, edit), "--no_ndc", "--spherify")


@table(
    "npy_file", {kind: kind for kind in ("fifo", "folder", "loop", "devzero", "dangling", "empty", "missing")}, "refuse"
)
def _(folder: Path, kind: str) -> Command:
    scene = copied("llff", folder)
    _poses(scene).unlink()
    special_file(_poses(scene), kind)
    return nerf(folder, scene)


@table("views", {"two": 2, "three": 3})
def _(folder: Path, n: int) -> Command:
    scene = copied("llff", folder)
    for path in sorted((scene / "images").iterdir())[n:]:
        path.unlink()
    np.save(_poses(scene), _rows()[:n])
    return nerf(folder, scene, options=(*NERF, "--N_iters", "4"))


_SETTINGS = {
    "ndc": (),
    "no_ndc": ("--no_ndc",),
    "hash": ("--encoding", "hash", "--hash_log2_entries", "8", "--no_ndc"),
}
_SCALED = ("world_1e-6", "world_1e6")  # trained like any other; cameras at one place may be refused
_WORLDS = {world: ("accept" if world in _SCALED else "any") for world in (*_SCALED, "all_same_pose", "all_same_place")}


@table("numbers", {f"{w}_{name}": (expect, (w, name)) for w, expect in _WORLDS.items() for name in _SETTINGS})
def _(folder: Path, chosen: tuple[str, str]) -> Command:
    scene = _scene_with(folder, split(NPY[chosen[0]])[1])
    return nerf(folder, scene, *_SETTINGS[chosen[1]], options=(*NERF, "--N_iters", "30", "--i_eval", "10"))
