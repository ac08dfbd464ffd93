"""Frames to a video: rendered once each, kept as PNG until all are there, then streamed to the encoder.

A video cut off half way goes on where it stopped, because a finished frame is a file and a file is whole.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from enerf.core import images, io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar

Frame = Callable[[int], np.ndarray]
SETTINGS = "settings.json"


def write(
    path: Path, frame: Frame, n_frames: int, fps: float | int, settings: dict[str, Any], *, keep_pngs: bool = False
) -> Path:
    """The path of the mp4, once its ``n_frames`` frames are rendered and written.

    ``settings`` is whatever the frames depend on: frames left by a call with other settings are not used.
    Frames lie in ``<name>_frames/`` meanwhile, and stay there if ``keep_pngs``.

    Raises
    ------
    InputError
        If that folder holds anything else, or cannot be written.
    """
    folder = path.with_name(f"{path.stem}_frames")
    _claim(folder, settings)
    files = [folder / f"{i:04d}.png" for i in range(n_frames)]
    missing = [i for i, file in enumerate(files) if not file.is_file()]
    for i in progress_bar(n_frames, f"render {path.name}", "frame", iterable=missing, initial=n_frames - len(missing)):
        images.write_png(files[i], frame(i))
    images.write_mp4(path, _read_back(files), fps)
    if not keep_pngs:
        _empty(folder)
    return path


def _claim(folder: Path, settings: dict[str, Any]) -> None:
    """Make a folder ready for the frames of some settings; frames of these settings stay."""
    described = folder / SETTINGS
    if described.is_file() and _settings_of(described) == io.finite(settings):
        return
    if not described.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: found files that are not a half-rendered video's, expected an empty or no folder")
    _empty(folder)
    io.write_json(described, settings)


def _settings_of(described: Path) -> Any:
    """The settings that were noted, None if they cannot be read."""
    try:
        return io.read_json(described)
    except InputError:
        return None


def _empty(folder: Path) -> None:
    """Remove our files from a folder, the settings last, and the folder if nothing else is in it."""
    with suppress(OSError):
        for file in [*folder.glob("[0-9]*.png"), folder / SETTINGS]:
            file.unlink()
        folder.rmdir()


def _read_back(files: list[Path]) -> Iterator[np.ndarray]:
    """The frames, one in memory at a time."""
    for file in files:
        yield images.to_uint8(images.read(file))


def colour_depth(
    depth: Float[np.ndarray, "h w"], near: float | int | None = None, far: float | int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Depth as colours, near bright and far dark (matplotlib's inferno), between two depths or the extremes seen."""
    import matplotlib

    low = float(depth.min()) if near is None else near
    high = float(depth.max()) if far is None else far
    shade = 1.0 - np.clip((depth - low) / max(high - low, 1e-9), 0.0, 1.0)
    return images.to_uint8(matplotlib.colormaps["inferno"](shade)[..., :3])
