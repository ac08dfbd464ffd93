"""Folders of scenes: which format is detected, incomplete ``images_F``, files of test views."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.damage import cut, encoded
from tests.corpus.inputs import base, copied, nerf, special_file
from tests.corpus.registry import Command, table

Edit = Callable[[Path], Any]


def _also(what: str, *names: str) -> Edit:
    """Copy files of another scene into the folder."""

    def edit(scene: Path) -> None:
        for name in names:
            source = base(what, name)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, scene / name)

    return edit


def _alone(*names: str) -> Edit:
    """Delete all but some files of the folder."""

    def edit(scene: Path) -> None:
        for path in scene.iterdir():
            if path.name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return edit


def _special(name: str, kind: str) -> Edit:
    def edit(scene: Path) -> None:
        path = scene / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        special_file(path, kind)

    return edit


DETECT: dict[str, Any] = {
    "llff": ("accept", ("llff", lambda s: None)),
    "colmap": ("accept", ("colmap", lambda s: None)),
    "transforms": ("accept", ("transforms", lambda s: None)),
    "nothing": ("refuse", ("llff", _alone())),
    "photographs": ("refuse", ("llff", _alone("images"))),
    "llff_and_colmap": ("accept", ("llff", _also("colmap", "sparse"))),
    "llff_and_transforms": ("refuse", ("llff", _also("transforms", "transforms.json"))),
    "transforms_and_colmap": ("accept", ("transforms", _also("colmap", "sparse"))),
    "transforms_and_blender": ("refuse", ("blender", _also("transforms", "transforms.json"))),
    "half_blender": ("refuse", ("blender", lambda s: (s / "transforms_test.json").unlink())),
    "folder_of_scenes": ("refuse", ("llff", lambda s: (_alone()(s), shutil.copytree(base("colmap"), s / "garden")))),
    "poses_fifo": ("refuse", ("llff", _special("poses_bounds.npy", "fifo"))),
    "poses_folder": ("refuse", ("llff", _special("poses_bounds.npy", "folder"))),
    "transforms_folder": ("refuse", ("transforms", _special("transforms.json", "folder"))),
    "transforms_dangling": ("refuse", ("transforms", _special("transforms.json", "dangling"))),
    "sparse_fifo": ("refuse", ("colmap", _special("sparse", "fifo"))),
    "sparse_loop": ("refuse", ("colmap", _special("sparse", "loop"))),
    "sparse_dangling": ("refuse", ("colmap", _special("sparse", "dangling"))),
    "sparse_up": ("refuse", ("colmap", lambda s: (shutil.rmtree(s / "sparse"), (s / "sparse").symlink_to(".")))),
    "images_up": ("refuse", ("colmap", lambda s: (shutil.rmtree(s / "images"), (s / "images").symlink_to("..")))),
    "model_itself": ("accept", ("colmap", lambda s: [p.rename(s / p.name) for p in (s / "sparse/0").iterdir()])),
    "bad_name": (
        "accept",
        ("colmap", lambda s: os.mkdir(os.fsencode(s / "sparse") + b"/\xff")),
    ),
}


@table("detect", DETECT)
def _(folder: Path, case: tuple[str, Edit]) -> Command:
    what, edit = case
    scene = copied(what, folder)
    edit(scene)
    return nerf(folder, scene)


# Name of a format, and the folder of a scene in another one.
GIVEN = {
    f"{name}_of_{what}": (name, what) for name in ("llff", "blender", "transforms", "colmap") for what in ("llff",)
}
GIVEN |= {f"{name}_of_colmap": (name, "colmap") for name in ("llff", "blender", "transforms")}
GIVEN.pop("llff_of_llff")


@table("dataset_type", GIVEN, "refuse")
def _(folder: Path, case: tuple[str, str]) -> Command:
    name, what = case
    return nerf(folder, copied(what, folder), "--dataset_type", name)


def _smaller(scene: Path, factor: int = 2) -> Path:
    """Make a complete folder of downsampled images."""
    from PIL import Image

    target = scene / f"images_{factor}"
    target.mkdir()
    for path in sorted((scene / "images").iterdir()):
        with Image.open(path) as photo:
            photo.resize((photo.width // factor, photo.height // factor)).save(target / path.name)
    return target


IMAGES_F: dict[str, Any] = {
    "none": ("accept", lambda s: None),
    "complete": ("accept", _smaller),
    "one_missing": ("accept", lambda s: (_smaller(s) / "image004.png").unlink()),  # resized in memory
    "empty": ("accept", lambda s: (s / "images_2").mkdir()),
    "one_more": ("accept", lambda s: shutil.copy(_smaller(s) / "image004.png", s / "images_2" / "more.png")),
    "other_shape": ("accept", lambda s: (_smaller(s) / "image004.png").write_bytes(encoded("RGB", "PNG", (15, 20)))),
    "other_size": ("any", lambda s: (_smaller(s) / "image004.png").write_bytes(encoded("RGB", "PNG", (10, 7)))),
    "one_cut": (
        "refuse",
        lambda s: (_smaller(s) / "image004.png").write_bytes(cut((s / "images_2/image004.png").read_bytes(), 1, 2)),
    ),
    "one_empty": ("any", lambda s: (_smaller(s) / "image004.png").write_bytes(b"")),
    "one_fifo": ("any", lambda s: ((_smaller(s) / "image004.png").unlink(), os.mkfifo(s / "images_2/image004.png"))),
    "is_a_file": ("any", lambda s: (s / "images_2").write_text("x")),
    "is_a_fifo": ("any", lambda s: os.mkfifo(s / "images_2")),
    "dangling": ("any", lambda s: (s / "images_2").symlink_to("nowhere")),
    "to_images": ("any", lambda s: (s / "images_2").symlink_to("images")),
    "jpeg": ("accept", lambda s: [p.rename(p.with_suffix(".jpg")) for p in sorted(_smaller(s).iterdir())]),
    "read_only": ("accept", lambda s: s.chmod(0o555)),
}


@table("images_f", IMAGES_F)
def _(folder: Path, edit: Edit) -> Command:
    scene = copied("colmap", folder)
    edit(scene)
    return _with_factor(folder, scene, "2")


@table("factor_colmap", {"1": "1", "0": "0", "-1": "-1", "40": "40", "4096": "4096"}, "accept")
def _(folder: Path, factor: str) -> Command:
    return _with_factor(folder, copied("colmap", folder), factor)


@table("factor_colmap_wrong", {"-2": "-2", "4097": "4097", "2e63": str(2**63), "1.5": "1.5", "text": "half"}, "refuse")
def _(folder: Path, factor: str) -> Command:
    return _with_factor(folder, copied("colmap", folder), factor)


def _with_factor(folder: Path, scene: Path, factor: str) -> Command:
    command = nerf(folder, scene, f"--factor={factor}")
    return Command(command.script, command.arguments, writes="")


# Bytes of a file of test views, or the kind of a special file.
TEST_VIEWS: dict[str, Any] = {
    "names": ("accept", b"image001.png\nimage004.png\n"),
    "stems": ("accept", b"image001\nimage004"),
    "bom_crlf": ("accept", b"\xef\xbb\xbfimage001.png\r\nimage004.png\r\n"),
    "comments": ("accept", b"# held out\n\n  image001.png  \n"),
    "twice": ("accept", b"image001.png\nimage001.png\nimage001"),
    "in_folders": ("accept", b"images/image001.png\n"),
    "empty": ("refuse", b""),
    "comments_only": ("refuse", b"# image001.png\n"),
    "unknown": ("refuse", b"image001.png\nother.png\n"),
    "traversal": ("refuse", b"../../etc/passwd\n"),
    "absolute": ("refuse", b"/etc/passwd\n"),
    "all": ("refuse", "".join(f"image{i:03}.png\n" for i in range(8)).encode()),
    "ambiguous": ("refuse", b"image\n"),
    "latin1": ("refuse", b"im\xe4ge001.png\n"),
    "utf16": ("refuse", "image001.png\n".encode("utf-16")),
    "binary": ("refuse", bytes(range(256)) * 10),
    "nul": ("refuse", b"image001.png\0\n"),
    "escape": ("refuse", b"\x1b[2J\x1b]0;pwned\x07\n"),
    "line_50MB": ("refuse", b"a" * (50 << 20)),
    "lines_1e6": ("refuse", b"image001.png\n" * 10**6 + b"other.png"),
    "fifo": ("refuse", "fifo"),
    "folder": ("refuse", "folder"),
    "devzero": ("refuse", "devzero"),
    "dangling": ("refuse", "dangling"),
    "missing": ("refuse", "missing"),
}


@table("test_views", TEST_VIEWS)
def _(folder: Path, content: bytes | str) -> Command:
    file = folder / "views.txt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        special_file(file, content)
    return nerf(folder, copied("colmap", folder), "--test_views", file)


WORDS = {
    "name": ("accept", "image001.png"),
    "names": ("accept", "image001.png,image004"),
    "spaces": ("accept", " image001.png , image004.png "),
    "commas": ("refuse", ",,"),
    "unknown": ("refuse", "image001.png,other.png"),
    "newline": ("refuse", "other\nerror: all is well"),
    "long": ("refuse", "x" * 5000),
    "many": ("refuse", ",".join(f"image{i:03}.png" for i in range(8))),
    "bad_utf8": ("refuse", "\udcff.png"),
    "tilde": ("refuse", "~nobodyhere/views.txt"),
}


@table("test_views_names", WORDS)
def _(folder: Path, words: str) -> Command:
    return nerf(folder, copied("colmap", folder), f"--test_views={words}")


@table("test_views_llff", {"name": ("accept", "image001.png"), "unknown": ("refuse", "other.png")})
def _(folder: Path, words: str) -> Command:
    return nerf(folder, copied("llff", folder), "--test_views", words)
