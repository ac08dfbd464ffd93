"""Videos: each frame is rendered to a PNG file, then all are encoded.

An interrupted video resumes at the first missing frame, since frames are written atomically.
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
    """Render ``n_frames`` frames and encode them as an mp4; returns its path.

    ``settings`` is all that the frames depend on, as JSON values: frames left by a call with other settings are
    rendered again. Frames are stored in ``<name>_frames/``, which is deleted at the end unless ``keep_pngs``.

    Raises
    ------
    InputError
        If that folder contains other files, or cannot be written.
    """
    folder = path.with_name(f"{path.stem}_frames")
    io.remove_leftovers(folder)
    _prepare_folder(folder, settings)
    files = [folder / f"{i:04d}.png" for i in range(n_frames)]
    missing = [i for i, file in enumerate(files) if not file.is_file()]
    for i in progress_bar(n_frames, f"render {path.name}", "frame", iterable=missing, initial=n_frames - len(missing)):
        images.write_png(files[i], frame(i))
    images.write_mp4(path, _read_back(files), fps)
    if not keep_pngs:
        _delete_frames(folder)
    return path


def _prepare_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Delete the frames of other settings from a folder and record these settings in it."""
    recorded = folder / SETTINGS
    if recorded.is_file() and _read_settings(recorded) == io.nan_to_none(settings):
        return
    if not recorded.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: found files that are not a half-rendered video's, expected an empty or no folder")
    _delete_frames(folder)
    io.write_json(recorded, settings)


def _read_settings(file: Path) -> Any:
    """The recorded settings, None if they cannot be read."""
    try:
        return io.read_json(file)
    except InputError:
        return None


def _delete_frames(folder: Path) -> None:
    """Delete the frames, then the settings file, then the folder if it is empty."""
    with suppress(OSError):
        for file in [*folder.glob("[0-9]*.png"), folder / SETTINGS]:
            file.unlink()
        folder.rmdir()


def _read_back(files: list[Path]) -> Iterator[np.ndarray]:
    """Yield the frames as bytes, one in memory at a time."""
    for file in files:
        yield images.to_uint8(images.read(file))


def colorize_depth(
    depth: Float[np.ndarray, "h w"], near: float | int | None = None, far: float | int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Depth as colors, near bright and far dark (matplotlib's inferno); the range defaults to the image's own."""
    import matplotlib

    low = float(depth.min()) if near is None else near
    high = float(depth.max()) if far is None else far
    shade = 1.0 - np.clip((depth - low) / max(high - low, 1e-9), 0.0, 1.0)
    return images.to_uint8(matplotlib.colormaps["inferno"](shade)[..., :3])
