"""Photographs of a folder and its subfolders: sizes, orientation and focal length by EXIF data, and their masks.

Headers and the entropy-coded pixels of every file are read once, so that damaged files are known before the work.
"""

import logging
import math
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from enerf.core import files, image_files, image_formats
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.preprocessing import mask_files

log = logging.getLogger("enerf")
FEWEST = 3
DIAGONAL = math.hypot(36, 24)  # millimeters of the film that equivalent focal lengths refer to
COPIED = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "TIFF": (".tif", ".tiff"), "BMP": (".bmp",)}
PHONES = ("apple", "samsung", "google", "huawei", "honor", "xiaomi", "oneplus", "oppo", "vivo", "realme", "motorola")
_MAKE, _MODEL, _ORIENTATION, _EXIF = 0x010F, 0x0110, 0x0112, 0x8769
_FOCAL, _FOCAL_35MM, _PLANE_X, _PLANE_UNIT = 0x920A, 0xA405, 0xA20E, 0xA210
_PLANE_MILLIMETERS = {2: 25.4, 3: 10.0, 4: 1.0}  # units of the focal plane's resolution
_UNUSUAL = re.compile(r"[\\\x00-\x1f]")  # backslashes and control characters
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Photograph:
    """A photograph and what its file says of the camera.

    Attributes
    ----------
    source
        The file.
    name
        Name of its upright copy in the scene's folder ``images``, in POSIX form; unique.
    width, height
        Upright size, in pixels.
    orientation
        EXIF orientation, 1 … 8.
    is_copied
        Whether the file's bytes are copied: it is upright and in a format that COLMAP reads.
    has_alpha
        Whether the file has an alpha channel.
    focal
        Focal length in pixels by the EXIF data; None if unknown.
    device
        Manufacturer and model by the EXIF data; empty if unknown.
    mask
        File of its mask; None if it has none.
    """

    source: Path
    name: str
    width: int
    height: int
    orientation: int = 1
    is_copied: bool = True
    has_alpha: bool = False
    focal: float | None = None
    device: str = ""
    mask: Path | None = None

    @property
    def folder(self) -> str:
        """Subfolder that the photograph lies in; empty for the folder itself."""
        parent = PurePosixPath(self.name).parent.as_posix()
        return "" if parent == "." else parent

    @property
    def is_of_phone(self) -> bool:
        """Whether the EXIF data name a manufacturer of phones."""
        return self.device.lower().startswith(PHONES)


@dataclass(frozen=True)
class Collection:
    """Photographs sorted by name, and the files that could not be read, by name, with the reason."""

    photographs: tuple[Photograph, ...]
    unreadable: dict[str, str]


def find(folder: Path, masks: str = "") -> Collection:
    """Photographs of a folder and its subfolders; hidden folders and folders of masks are not entered.

    Parameters
    ----------
    folder
        The folder.
    masks
        Folder of masks; empty: those beside the photographs.

    Raises
    ------
    InputError
        If the folder cannot be listed, or fewer than three photographs can be read.
    """
    sources, aside = _sources(folder, masks)
    found: list[Photograph] = []
    unreadable: dict[str, str] = {}
    taken: set[str] = set()
    bar = progress_bar(None, "examine photographs", "image", iterable=sources, delay=2, leave=False)
    for source in bar:
        relative = source.relative_to(folder).as_posix()
        try:
            photo = _examine(source, relative, taken)
        except (*_UNREADABLE, InputError) as error:
            unreadable[relative] = _reason(error)
            continue
        taken.add(photo.name.lower())
        found.append(photo)
    if unreadable:
        reasons = image_files.some([f"{name} ({reason})" for name, reason in unreadable.items()])
        log.warning("%s: %d of %d photographs cannot be read: %s", folder, len(unreadable), len(sources), reasons)
    if len(found) < FEWEST:
        raise InputError(
            f"{folder}: found {_count(len(found))}{f' ({len(unreadable)} more cannot be read)' * bool(unreadable)}"
            f"{f'; not taken as photographs: {aside}' * bool(aside)}, expected at least {FEWEST}, better 20 or more"
        )
    return Collection(tuple(mask_files.attach(folder, found, masks)), unreadable)


def _count(number: int) -> str:
    return {0: "no photograph", 1: "1 photograph"}.get(number, f"{number} photographs")


def _sources(folder: Path, masks: str) -> tuple[list[Path], str]:
    """Image files of a folder and its subfolders, sorted by name; and what was not taken, as text."""
    found: list[Path] = []
    aside: list[str] = []
    pending = [folder]
    left_out = os.path.realpath(masks) if masks else ""
    while pending:
        inner = pending.pop()
        listing = image_files.listing(inner)
        found += [file for file in listing.images if not mask_files.is_dynamic(file.name)]
        aside += [listing.set_aside()] if listing.set_aside() else []
        subfolders = [inner / name for name in listing.others.get("folders", ())]
        links = [path.name for path in subfolders if path.is_symlink()]
        aside += [f"{image_files.some(links)} (links to folders)"] if links else []
        pending += [
            path
            for path in subfolders
            if not (path.name.startswith(".") or path.name == mask_files.FOLDER or path.is_symlink())
            and os.path.realpath(path) != left_out
        ]
    if aside:
        log.info("%s: not taken as photographs: %s", folder, "; ".join(aside))
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix()), "; ".join(aside)


def _examine(source: Path, relative: str, taken: set[str]) -> Photograph:
    """Read headers of a file and check that its pixels are whole."""
    relative.encode()  # raises for names that are not UTF-8, which no file of a scene can hold
    with files.open_regular(source) as file, image_formats.open_image(file) as photo:
        image_formats.require_pixels(photo, source)
        exif = photo.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        orientation = orientation if orientation in range(1, 9) else 1
        raw = (int(photo.size[0]), int(photo.size[1]))
        kind = photo.format or ""
        if kind == "TIFF":  # Pillow rotates a TIFF's size, but not its tags
            raw = (int(photo.tag_v2.get(256, raw[0])), int(photo.tag_v2.get(257, raw[1])))  # type: ignore[attr-defined]
        if kind == "HEIF":  # its decoder rotates
            orientation = 1
        focal, device = _focal(exif, *raw), _device(exif)
        if kind == "MPO":  # JPEG with further pictures behind it
            kind = "JPEG"
        has_alpha = photo.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in photo.info
        is_copied = orientation == 1 and kind in COPIED and photo.mode != "CMYK"
        if kind == "JPEG":
            photo.draft("RGB", (max(1, raw[0] // 8), max(1, raw[1] // 8)))  # reads all, decodes an eighth
        photo.load()
        if photo.mode in ("I", "F") and kind != "PNG":
            raise ValueError("it has 32 bits a channel, which have no agreed range")
    width, height = raw[::-1] if orientation >= 5 else raw
    suffix = "" if is_copied else ".png" if has_alpha or kind in ("TIFF", "BMP", "PNG") else ".jpg"
    name = _unique(relative, kind, suffix, taken)
    return Photograph(source, name, width, height, orientation, is_copied, has_alpha, focal, device)


def _unique(relative: str, kind: str, suffix: str, taken: set[str]) -> str:
    """Name of a copy: that of the file, with a suffix that tells its format, and unlike all others in any case."""
    path = PurePosixPath(_UNUSUAL.sub("_", relative))
    known = COPIED.get(kind, ()) if not suffix else ((".jpg", ".jpeg") if suffix == ".jpg" else (suffix,))
    wanted = path if path.suffix.lower() in known else path.with_suffix(known[0])
    for candidate in (wanted, path.with_name(f"{path.name}{known[0]}")):
        if candidate.as_posix().lower() not in taken:
            return candidate.as_posix()
    number = 2
    while f"{path.as_posix()}.{number}{known[0]}".lower() in taken:
        number += 1
    return f"{path.as_posix()}.{number}{known[0]}"


def _focal(exif: Any, width: int, height: int) -> float | None:
    """Focal length in pixels by the EXIF data: the equivalent for film of 36 × 24 mm, or that and the sensor's pitch.

    Equivalent focal lengths refer to the diagonal of the picture (CIPA DCG-001). Implausible ones count as unknown.
    """
    inner = exif.get_ifd(_EXIF)
    equivalent = _number(inner.get(_FOCAL_35MM))
    focal, pitch = _number(inner.get(_FOCAL)), _number(inner.get(_PLANE_X))
    unit = _PLANE_MILLIMETERS.get(inner.get(_PLANE_UNIT, 2), 0.0)
    found = equivalent * math.hypot(width, height) / DIAGONAL if equivalent else focal * pitch / unit if unit else 0.0
    return found if 0.1 < found / max(width, height) < 100 else None


def _device(exif: Any) -> str:
    texts = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKE, _MODEL)]
    return " ".join(text for text in texts if text)[:100]


def _number(value: Any) -> float:
    """A positive finite number of EXIF data; 0 if it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if 0 < number < math.inf else 0.0


def _reason(error: Exception) -> str:
    """Short description of an error, without the file's path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def sizes(photographs: Sequence[Photograph]) -> str:
    """The different sizes as text, for messages.

    >>> sizes([Photograph(Path("a"), "a", 4, 3), Photograph(Path("b"), "b", 4, 3)])
    '4x3'
    """
    return image_files.some(sorted({f"{photo.width}x{photo.height}" for photo in photographs}))
