"""Photographs of scenes: other formats, damaged files, bombs, and what is no file at all."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.corpus.damage import blank, bomb_png, cut, encoded, exif, flipped, png, text_bomb
from tests.corpus.inputs import NERF, base, copied, nerf, special_file
from tests.corpus.registry import Command, table


def _png() -> bytes:
    return base("llff", "images", "image000.png").read_bytes()


def _with_alpha() -> bytes:
    """An image whose left half is transparent and hides bright red."""
    pixels = np.full((30, 40, 4), (40, 80, 120, 255), np.uint8)
    pixels[:, :20] = 255, 0, 0, 0
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


IMG = {
    "empty": ("refuse", lambda: b""),
    "text": ("refuse", lambda: b"hello"),
    "jpeg_as_png": lambda: encoded("RGB", "JPEG"),
    "gif_animated": lambda: encoded("P", "GIF", save_all=True, append_images=[]),
    "webp": lambda: encoded("RGBA", "WEBP"),
    "palette": lambda: encoded("P", "PNG"),
    "palette_alpha": lambda: encoded("P", "PNG", transparency=3),
    "palette_alpha_bytes": lambda: encoded("P", "PNG", transparency=bytes(range(16))),
    "1bit": lambda: encoded("1", "PNG"),
    "grey": lambda: encoded("L", "PNG"),
    "grey_alpha": lambda: encoded("LA", "PNG"),
    "cmyk_jpeg": lambda: encoded("CMYK", "JPEG"),
    "16bit_grey": lambda: png(40, 30, 16, 0, (b"\0" + bytes(80)) * 30),
    "16bit_rgb": lambda: png(40, 30, 16, 2, (b"\0" + bytes(240)) * 30),
    "16bit_rgba": lambda: png(40, 30, 16, 6, (b"\0" + bytes(320)) * 30),
    "16bit_short": ("refuse", lambda: png(40, 30, 16, 2, (b"\0" + bytes(240)) * 20)),
    "8bit_short": ("refuse", lambda: png(40, 30, 8, 2, (b"\0" + bytes(120)) * 20)),
    "no_idat": ("refuse", lambda: png(40, 30, 8, 2, idat=b"")),
    "declared_2e31": ("refuse", lambda: png(2**31 - 1, 2**31 - 1, 8, 2, b"\0" * 100)),
    "declared_65535": ("refuse", lambda: png(65535, 65535, 8, 2, b"\0" * 100)),
    "declared_0": ("refuse", lambda: png(0, 0, 8, 2, b"\0" * 100)),
    "declared_40_3e6": ("refuse", lambda: png(40, 3000000, 8, 2, b"\0" * 100)),
    "bomb_12000": ("refuse", lambda: bomb_png(12000, 12032)),
    "bomb_16bit_9000": ("refuse", lambda: bomb_png(9000, 9024, 16, 6)),
    "progressive": ("accept", lambda: encoded("RGB", "JPEG", progressive=True)),
    "exif6": lambda: encoded("RGB", "JPEG", exif=exif(6)),
    "exif6_rot": lambda: encoded("RGB", "JPEG", size=(30, 40), exif=exif(6)),
    "exif99": lambda: encoded("RGB", "JPEG", exif=exif(99)),
    "exif_garbage": lambda: encoded("RGB", "JPEG", exif=b"Exif\0\0" + b"\xff" * 50),
    "tiff": lambda: encoded("RGB", "TIFF"),
    "tiff_float": ("refuse", lambda: encoded("F", "TIFF")),
    "tiff_I": lambda: encoded("I", "TIFF"),
    "tiff_flip1": lambda: flipped(encoded("RGB", "TIFF"), 1),
    "tiff_flip2": lambda: flipped(encoded("RGB", "TIFF"), 2),
    "tiff_trunc": ("refuse", lambda: encoded("RGB", "TIFF")[:200]),
    "bmp": ("accept", lambda: encoded("RGB", "BMP")),
    "bmp_trunc": ("refuse", lambda: encoded("RGB", "BMP")[:200]),
    "ppm_as_png": lambda: b"P6 40 30 255\n" + bytes(3600),
    "ppm_bomb": ("refuse", lambda: b"P6 100000 100000 255\n" + bytes(3600)),
    "eps": (
        "refuse",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n(touch enerf-executed) system\n%%EOF\n",
    ),
    "svg": ("refuse", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    "pdf": ("refuse", lambda: b"%PDF-1.4\n"),
    "other_size": ("refuse", lambda: encoded("RGB", "PNG", size=(41, 17))),
    "double_size": ("accept", lambda: encoded("RGB", "PNG", size=(80, 60))),
    "1x1": ("refuse", lambda: encoded("RGB", "PNG", size=(1, 1))),
    "huge_text_chunk": lambda: png(40, 30, 8, 2, (b"\0" + bytes(120)) * 30, extra=text_bomb()),
    **{f"png_flip{i}": (lambda i=i: flipped(_png(), i)) for i in range(10)},
    **{f"jpg_flip{i}": (lambda i=i: flipped(encoded("RGB", "JPEG"), i)) for i in range(6)},
    **{f"png_cut{i}": ("refuse", lambda i=i: cut(_png(), i, 8)) for i in range(1, 8)},
}
MORE_IMG = {
    "rgba_hidden_colors": ("any", _with_alpha),
    "heic_header": ("refuse", lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400)),
    "avif_header": ("refuse", lambda: b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(400)),
    "dng_header": ("refuse", lambda: b"II*\0\x08\0\0\0\x01\0\x12\xc6\1\0\4\0\0\0\1\4\0\0\0\0\0\0"),
    "html_as_png": ("refuse", lambda: b"<!DOCTYPE html><html>404 not found</html>"),
    "git_lfs_pointer": (
        "refuse",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n",
    ),
    "webp_lossless_bomb": ("refuse", lambda: blank("WEBP", (6000, 6000), lossless=True)),
    "jpeg2000": lambda: encoded("RGB", "JPEG2000"),
    "tga": lambda: encoded("RGB", "TGA"),
    "ico": lambda: encoded("RGBA", "ICO"),
    "jpeg_no_end": lambda: encoded("RGB", "JPEG")[:-2],
    "jpeg_trailing": ("accept", lambda: encoded("RGB", "JPEG") + bytes(1000)),
    "png_trailing": ("accept", lambda: encoded("RGB", "PNG") + b"trailing"),
    "png_bad_crc": lambda: _png()[:-20] + bytes([_png()[-20] ^ 255]) + _png()[-19:],
    **{f"webp_flip{i}": (lambda i=i: flipped(encoded("RGB", "WEBP"), i)) for i in range(4)},
    **{f"gif_flip{i}": (lambda i=i: flipped(encoded("P", "GIF"), i)) for i in range(3)},
    **{f"jpg_cut{i}": (lambda i=i: cut(encoded("RGB", "JPEG"), i, 8)) for i in (2, 5, 7)},
}


@table("img", IMG | MORE_IMG)
def _(folder: Path, make: Callable[[], bytes]) -> Command:
    scene = copied("llff", folder)
    (scene / "images/image003.png").write_bytes(make())
    return nerf(folder, scene)


@table(
    "img_file", {kind: kind for kind in ("fifo", "folder", "loop", "devzero", "dangling", "missing", "empty")}, "refuse"
)
def _(folder: Path, kind: str) -> Command:
    scene = copied("llff", folder)
    (scene / "images/image003.png").unlink()
    special_file(scene / "images/image003.png", kind)
    return nerf(folder, scene)


# Names of all photographs: of formats that need an extra, or are not read, with a mask beside each, in another case.
NAMES = {
    "heic": ("accept", "{}.heic"),  # the content is PNG, by which the format is recognized
    "avif": ("accept", "{}.avif"),
    "dng": ("refuse", "{}.dng"),
    "upper": ("accept", "{}.PNG"),
    "jpg": ("accept", "{}.jpg"),
    "hidden": ("refuse", ".{}.png"),
    "none": ("refuse", "{}"),
}


@table("img_names", NAMES)
def _(folder: Path, pattern: str) -> Command:
    scene = copied("llff", folder)
    for path in sorted((scene / "images").iterdir()):
        path.rename(path.with_name(pattern.format(path.stem)))
    return nerf(folder, scene)


@table("img_beside", {"masks": "mask_{}.png", "copies": "{}_copy.png", "text": "{}.txt", "apple": "._{}.png"})
def _(folder: Path, pattern: str) -> Command:
    scene = copied("llff", folder)
    for path in sorted((scene / "images").iterdir()):
        path.with_name(pattern.format(path.stem)).write_bytes(path.read_bytes())
    return nerf(folder, scene)


PIXELS = {
    "black": lambda pixels: pixels * 0,
    "white": lambda pixels: pixels * 0 + 255,
    "noise": lambda pixels: np.random.default_rng(0).integers(0, 255, pixels.shape, dtype=np.uint8),
    "alpha_zero": lambda pixels: np.concatenate([pixels, pixels[..., :1] * 0], -1),
}


@table("img_all", PIXELS, "accept")
def _(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Command:
    scene = copied("llff", folder)
    for path in (scene / "images").iterdir():
        Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
    return nerf(folder, scene, options=(*NERF, "--N_iters", "20"))


SIZES = {f"{w}x{h}": (w, h) for w, h in ((1, 1), (2, 2), (8, 8), (10, 8), (11, 11), (1, 200), (7, 40))}


@table("img_tiny", SIZES)
def _(folder: Path, size: tuple[int, int]) -> Command:
    scene = copied("llff", folder)
    for path in (scene / "images").iterdir():
        Image.open(path).resize(size).save(path)
    rows = np.load(scene / "poses_bounds.npy")
    rows[:, 9], rows[:, 4] = size
    np.save(scene / "poses_bounds.npy", rows)
    return nerf(folder, scene, options=(*NERF, "--N_iters", "2", "--i_img", "1"))


FACTORS = {text: text for text in ("0", "2", "7", "40", "100", "1000000", str(2**63), "-1", "2.5", "1e1")}


@table("factor", FACTORS | {"400_digits": "9" * 400})
def _(folder: Path, factor: str) -> Command:
    scene = copied("llff", folder)
    where = ("--datadir", scene, "--factor", factor, "--basedir", folder / "out", "--expname", "x")
    return Command("train_nerf.py", (*where, *NERF, "--N_iters", "2"), writes="")
