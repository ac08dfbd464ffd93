"""Image files of a folder, recognized by their names: photographs, masks beside them, and files that are not read."""

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from enerf.core.errors import InputError

AnyPath = str | os.PathLike[str]
_CLASSIC = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff"})
_MODERN = frozenset({".heic", ".heif", ".hif", ".avif"})  # phones write them; often converted copies lie beside them
_NOT_READ = {
    "raw photographs: develop them with the same settings to TIFF, PNG or JPEG": (
        ".dng .cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .raf .rw2 .orf .pef .srw .x3f .iiq .3fr .fff .rwl .dcr .kdc .erf"
    ),
    "JPEG XL: convert them to PNG or JPEG": ".jxl",
    "JPEG 2000: convert them to PNG or JPEG": ".jp2 .j2k .jpx .jpf",
    "GIF: convert them to PNG": ".gif",
    "high dynamic range: convert them to PNG with one exposure": ".exr .hdr",
    "drawings or layers: export them to PNG": ".psd .xcf .svg .eps .pdf",
    "videos: extract frames to PNG or JPEG": ".mp4 .mov .m4v .avi .mkv .webm .insv .360",
}
_REASON_BY_SUFFIX = {suffix: reason for reason, suffixes in _NOT_READ.items() for suffix in suffixes.split()}
_MASK_ENDINGS = (".mask", "_mask", "-mask")
_MASK_BEGINNINGS = ("mask_", "mask-", "dynamic_mask_")


@dataclass(frozen=True)
class Listing:
    """Content of a folder of photographs; each part is sorted by name.

    Attributes
    ----------
    folder
        The folder.
    images
        Photographs in formats that are read, in the order of their names.
    masks
        Names of masks that lie beside their photographs.
    copies
        Names of HEIC and AVIF files that lie beside a converted copy of the same name.
    unread
        Names of files in other image formats, or that cannot be opened, by the reason.
    others
        Names of files and folders that are no images, by their kind.
    """

    folder: Path
    images: tuple[Path, ...]
    masks: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    unread: dict[str, tuple[str, ...]] = field(default_factory=dict)
    others: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def set_aside(self, *, others: bool = False) -> str:
        """The image files that are not taken as photographs, and why; with ``others`` also the remaining files.

        Empty if there are none.
        """
        groups = {"masks": self.masks, "HEIC or AVIF beside a converted copy": self.copies, **self.unread}
        groups |= self.others if others else {}
        return "; ".join(f"{some(names)} ({kind})" for kind, names in groups.items() if names)


def is_image_name(name: str) -> bool:
    """Whether a file name is that of an image that is read: a known suffix, in any case, and not hidden.

    >>> [is_image_name(name) for name in ("a.JPG", "a.heic", "._a.png", ".DS_Store", "notes.txt")]
    [True, True, False, False, False]
    """
    return not name.startswith(".") and _suffix(name) in _CLASSIC | _MODERN


def has_image_suffix(name: str) -> bool:
    """Whether a file name has the suffix of an image, read or not.

    >>> has_image_suffix("a.dng"), has_image_suffix("r_0.5")
    (True, False)
    """
    return is_image_name(name) or bool(reason_not_read(name))


def reason_not_read(name: str) -> str:
    """Why files of a known suffix are not read, and what to do; empty for other suffixes.

    >>> reason_not_read("a.JXL"), reason_not_read("a.png")
    ('JPEG XL: convert them to PNG or JPEG', '')
    """
    return _REASON_BY_SUFFIX.get(_suffix(name), "")


def list_images(folder: AnyPath) -> list[Path]:
    """Photographs of a folder, sorted by name; masks and hidden files (``._a.png``, ``.DS_Store``) are left out.

    Raises InputError if the folder cannot be listed.
    """
    return list(listing(folder).images)


def listing(folder: AnyPath) -> Listing:
    """Content of a folder of photographs; links are followed, no file is opened.

    A mask is a file that is named as another one in the folder: ``a.jpg.mask.png``, ``a_mask.png``, ``a-mask.png``,
    ``mask_a.png``, ``dynamic_mask_a.png`` as in instant-ngp, or ``a.jpg.png`` as in COLMAP.

    Raises InputError if the folder cannot be listed.
    """
    folder = Path(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{folder} cannot be listed ({reason}), expected a folder.") from None
    obstacles = {name: _obstacle(folder / name) for name in names}
    readable = [name for name in names if is_image_name(name) and not obstacles[name]]
    masks = _masks(readable)
    copies = _copies([name for name in readable if name not in masks])
    unread: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for name in names:
        if name in readable or name == ".DS_Store":
            continue
        if has_image_suffix(name) and not name.startswith(".") and obstacles[name] != "folders":
            unread.setdefault(obstacles[name] or reason_not_read(name), []).append(name)
        else:
            kind = obstacles[name] or ("hidden files" if name.startswith(".") else "not images by their suffix")
            others.setdefault(kind, []).append(name)
    photographs = tuple(folder / name for name in readable if name not in masks and name not in copies)
    unread_names, other_names = ({kind: tuple(found) for kind, found in part.items()} for part in (unread, others))
    return Listing(folder, photographs, tuple(sorted(masks)), tuple(sorted(copies)), unread_names, other_names)


def some(names: Iterable[str]) -> str:
    """Up to five of the names, and the number of others.

    >>> some("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _obstacle(path: Path) -> str:
    """Why a directory entry is no regular file; empty if it is one."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "links to nothing" if path.is_symlink() else "files that cannot be examined"
    if stat.S_ISDIR(mode):
        return "folders"
    return "" if stat.S_ISREG(mode) else "named pipes, devices or sockets"


def _masks(names: Sequence[str]) -> set[str]:
    """Names of masks: those made of another file's name or stem and a word for masks."""
    whole = {name.lower() for name in names}
    known = whole | {Path(name).stem.lower() for name in names}

    def is_mask(name: str) -> bool:
        stem = Path(name).stem.lower()
        bases = [stem.removesuffix(ending) for ending in _MASK_ENDINGS if stem.endswith(ending)]
        bases += [stem.removeprefix(word) for word in _MASK_BEGINNINGS if stem.startswith(word)]
        return stem in whole or any(base in known for base in bases)

    return {name for name in names if is_mask(name)}


def _copies(names: Sequence[str]) -> set[str]:
    """HEIC and AVIF files beside a file of an older format with the same stem."""
    classic = {Path(name).stem.lower() for name in names if _suffix(name) in _CLASSIC}
    return {name for name in names if _suffix(name) in _MODERN and Path(name).stem.lower() in classic}
