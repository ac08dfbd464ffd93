"""Class folders of images: links, pipes, bombs, names that are no text, images of other sizes and formats."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.damage import blank, bomb_png, encoded, flipped, png
from tests.corpus.inputs import classifier, copied
from tests.corpus.registry import Command, table, values

Edit = Callable[[Path], Any]

FOLD = {
    "fifo": ("refuse", lambda s: os.mkfifo(s / "train/a/z.png")),
    "loop": ("any", lambda s: (s / "train/a/z.png").symlink_to("z.png")),
    "devzero": ("refuse", lambda s: (s / "train/a/z.png").symlink_to("/dev/zero")),
    "folder_png": lambda s: (s / "train/a/z.png").mkdir(),
    "dir_loop": lambda s: (s / "train/a/up").symlink_to(".."),
    "class_loop": lambda s: (s / "train/c").symlink_to("../train"),
    "empty_png": ("refuse", lambda s: (s / "train/a/z.png").write_bytes(b"")),
    "bomb": ("refuse", lambda s: (s / "train/a/z.png").write_bytes(bomb_png(30000, 30016))),
    "bomb_first": ("refuse", lambda s: (s / "train/a/0.png").write_bytes(bomb_png(30000, 30016))),
    "declared": ("refuse", lambda s: (s / "train/a/z.png").write_bytes(png(60000, 60000, 8, 2, b"x"))),
    "one_class": ("refuse", lambda s: shutil.rmtree(s / "train/b")),
    "empty_class": ("refuse", lambda s: (s / "train/c").mkdir()),
    "no_test": ("refuse", lambda s: shutil.rmtree(s / "test")),
    "test_class": ("refuse", lambda s: shutil.copytree(s / "test/a", s / "test/z")),
    "loose": ("refuse", lambda s: shutil.copy(s / "train/a/0.png", s / "train/0.png")),
    "other_size": ("refuse", lambda s: (s / "train/a/z.png").write_bytes(encoded("RGB", "PNG", size=(31, 31)))),
    "not_square": ("refuse", lambda s: [p.write_bytes(encoded("RGB", "PNG")) for p in s.rglob("*.png")]),
    "gif_name": lambda s: (s / "train/a/z.gif").write_bytes(encoded("P", "GIF")),
    "16bit": lambda s: (s / "train/a/z.png").write_bytes(png(32, 32, 16, 2, (b"\0" + bytes(192)) * 32)),
    "cmyk": lambda s: (s / "train/a/z.jpg").write_bytes(encoded("CMYK", "JPEG", size=(32, 32))),
    "badname": lambda s: Path(os.fsdecode(os.fsencode(s / "train/a") + b"/\xff.png")).write_bytes(
        encoded("RGB", "PNG", size=(32, 32))
    ),
    "badclass": lambda s: shutil.copytree(s / "train/a", os.fsdecode(os.fsencode(s / "train") + b"/\xff")),
    "unreadable_cut": ("refuse", lambda s: (s / "train/a/0.png").write_bytes((s / "train/a/0.png").read_bytes()[:-30])),
    "1x1": ("any", lambda s: [p.write_bytes(encoded("RGB", "PNG", size=(1, 1))) for p in s.rglob("*.png")]),
    **{
        f"flip{i}": (
            lambda s, i=i: (s / "train/a/0.png").write_bytes(flipped((s / "train/a/0.png").read_bytes(), i, 3))
        )
        for i in range(5)
    },
}
MORE_FOLD = {
    "fifo_readme": ("refuse", lambda s: os.mkfifo(s / "train/a/README")),
    "fifo_test": ("refuse", lambda s: os.mkfifo(s / "test/b/z.png")),
    "fifo_class": ("refuse", lambda s: os.mkfifo(s / "train/c")),
    "dangling": ("refuse", lambda s: (s / "train/a/z.png").symlink_to("nowhere")),
    "link_to_image": ("accept", lambda s: (s / "train/a/z.png").symlink_to("0.png")),
    "bomb_jpeg": ("refuse", lambda s: (s / "train/a/z.jpg").write_bytes(blank("JPEG", (15000, 15000)))),
    "bomb_gif": ("refuse", lambda s: (s / "train/a/z.webp").write_bytes(blank("GIF", (14000, 14000)))),
    "html": ("refuse", lambda s: (s / "train/a/z.png").write_bytes(b"<html>404</html>")),
    "lfs": ("refuse", lambda s: (s / "train/a/z.png").write_bytes(b"version https://git-lfs.github.com/spec/v1")),
    "heic": lambda s: (s / "train/a/z.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)),
    "text_beside": ("accept", lambda s: (s / "train/a/notes.txt").write_text("x")),
    "thumbs": ("accept", lambda s: (s / "train/a/Thumbs.db").write_bytes(b"x")),
    "rgba": lambda s: (s / "train/a/z.png").write_bytes(encoded("RGBA", "PNG", size=(32, 32))),
    "gray_one": ("accept", lambda s: (s / "train/a/z.png").write_bytes(encoded("L", "PNG", size=(32, 32)))),
    "newline_class": lambda s: (s / "train/a").rename(s / "train/x\nerror: y"),
    "deep": lambda s: (s / "train/a/b/c/d/e/f").mkdir(parents=True),
    "val_instead": ("accept", lambda s: (s / "test").rename(s / "val")),
    "many_classes": lambda s: [shutil.copytree(s / "train/a", s / f"train/c{i}") for i in range(60)],
    "upper": ("refuse", lambda s: (s / "train").rename(s / "Train")),
}


@table("folders", FOLD | MORE_FOLD)
def _(folder: Path, edit: Edit) -> Command:
    images = copied("folders", folder)
    edit(images)
    return classifier(folder, images)


_RESIZED = ("fifo", "devzero", "bomb", "1x1", "not_square", "empty_png", "badname")


@table("folders_resized", values(FOLD, *_RESIZED) | values(MORE_FOLD, "dangling", "rgba", "bomb_jpeg"))
def _(folder: Path, edit: Edit) -> Command:
    images = copied("folders", folder)
    edit(images)
    return classifier(folder, images, "--image_size", "32")
