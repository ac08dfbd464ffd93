"""Recognizes folders and files of photogrammetry programs that are no scene, and says which export is one.

Sources: nerfstudio's documentation, "Using custom data"; Agisoft's metashape-scripts; the help of RealityCapture,
"Customize Export Formats"; nerfstudio's ``realitycapture_utils.py``; the Bundler manual.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_HEAD = 4096  # bytes that are examined of a file
_METASHAPE = "export the cameras as Colmap (File > Export > Export Cameras, type Colmap), with the images"
_REALITYSCAN = "export the registration as Colmap, with undistorted images"
_UNPACK = "unpack it and give the folder"


@dataclass(frozen=True)
class _Kind:
    """A kind of file: endings of names, what the content begins with or contains, what it is, and what to do."""

    endings: tuple[str, ...]
    within: tuple[bytes, ...]
    what: str
    advice: str


_KINDS = (
    _Kind((".xml",), (b"<document", b"<chunk"), "a file of cameras of Metashape", _METASHAPE),
    _Kind((".psx", ".psz"), (), "a project of Metashape", _METASHAPE),
    _Kind((".csv",), (b"#name",), "a table of cameras of RealityScan (RealityCapture)", _REALITYSCAN),
    _Kind((".xmp",), (b"xcr",), "a camera of RealityScan (RealityCapture)", _REALITYSCAN),
    _Kind((".rcproj", ".rsproj"), (), "a project of RealityScan (RealityCapture)", _REALITYSCAN),
    _Kind(
        (".out",), (b"# Bundle file",), "a model of Bundler", "export COLMAP's format from the program that wrote it"
    ),
    _Kind((".r3d",), (), "a recording of Record3D", _UNPACK),
    _Kind((".zip",), (), "an archive", _UNPACK),
    _Kind(
        (".splat", ".spz", ".ksplat", ".usdz", ".glb"),
        (),
        "a finished model, as Luma, Scaniverse and Polycam export it",
        "give photographs or a video to enerf process",
    ),
)


def describe(path: Path) -> tuple[str, str]:
    """The first file of another program in a folder, or the file itself: what it is, and what to do, in words.

    Two empty strings if there is none.
    """
    names = [path.name] if os.path.isfile(path) else _listed(path)
    folder = path.parent if os.path.isfile(path) else path
    for kind in _KINDS:
        for name in names:
            if name.lower().endswith(kind.endings) and _contains(folder / name, kind.within):
                return f"{name}, {kind.what}", kind.advice
    return "", ""


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def _contains(path: Path, words: tuple[bytes, ...]) -> bool:
    """Whether the beginning of a regular file contains all of the words."""
    if not words or not os.path.isfile(path):
        return not words
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    return all(word in head for word in words)
