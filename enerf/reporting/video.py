"""Videos: each frame is rendered to a PNG file, then all are encoded.

An interrupted video resumes at the first missing frame, since frames are written atomically.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from enerf.core import images, io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar

SETTINGS = "settings.json"


def shown(path: Path, n_frames: int, missing: Sequence[int]) -> Iterable[int]:
    """Return the numbers of missing frames, with a progress bar."""
    bar: Iterable[int] = progress_bar(
        n_frames, f"render {path.name}", "frame", iterable=missing, initial=n_frames - len(missing)
    )
    return bar


def missing_frames(path: Path, n_frames: int, settings: dict[str, Any]) -> list[int]:
    """Prepare the folder of frames; return the numbers of those that are missing.

    ``settings`` is all that the frames depend on, as JSON values: those of other settings are deleted.

    Raises
    ------
    InputError
        If the folder contains other files, or cannot be written.
    """
    folder = _folder(path)
    io.remove_leftovers(folder)
    _prepare_folder(folder, settings)
    return [i for i in range(n_frames) if not _file(path, i).is_file()]


def write_frame(path: Path, i: int, frame: UInt8[np.ndarray, "h w 3"]) -> None:
    """Write one frame of a video."""
    images.write_png(_file(path, i), frame)


def encode(path: Path, n_frames: int, fps: float | int, *, keep_pngs: bool = False) -> Path:
    """Encode all frames of a video, and delete them unless ``keep_pngs``; returns its path."""
    images.write_mp4(path, _read_back([_file(path, i) for i in range(n_frames)]), fps)
    if not keep_pngs:
        _delete_frames(_folder(path))
    return path


def _folder(path: Path) -> Path:
    return path.with_name(f"{path.stem}_frames")


def _file(path: Path, i: int) -> Path:
    return _folder(path) / f"{i:04d}.png"


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
