"""Frames to a video: rendered once each, kept as PNG until all are there, then streamed to the encoder.

A video cut off half way goes on where it stopped, because a finished frame is a file and a file is whole.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from enerf import images
from enerf.evaluation import report

Frame = Callable[[int], np.ndarray]


def write(
    path: Path, frame: Frame, n_frames: int, fps: float, settings: dict[str, Any], keep_pngs: bool = False
) -> Path:
    """Render ``n_frames`` and write the mp4 at ``path``; returns the path.

    ``settings`` is whatever the frames depend on: frames left by a run with other settings are not used.
    Frames lie in ``<name>_frames/`` meanwhile, and stay there if ``keep_pngs``.

    Raises
    ------
    InputError
        If the folder cannot be written.
    """
    folder = path.with_name(f"{path.stem}_frames")
    described = folder / "settings.json"
    if not described.is_file() or report.read_json(described) != report.finite(settings):
        shutil.rmtree(folder, ignore_errors=True)
        report.write_json(described, settings)
    files = [folder / f"{i:04d}.png" for i in range(n_frames)]
    missing = [i for i, file in enumerate(files) if not file.is_file()]
    for i in tqdm(missing, desc=f"render {path.name}", initial=n_frames - len(missing), total=n_frames, unit="frame"):
        images.write_png(files[i], frame(i))
    images.write_mp4(path, _read_back(files), fps)
    if not keep_pngs:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def _read_back(files: list[Path]) -> Iterator[np.ndarray]:
    """The frames, one in memory at a time."""
    for file in files:
        yield images.to_uint8(images.read(file))


def colour_depth(
    depth: Float[np.ndarray, "h w"], near: float | None = None, far: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """Depth as colours, near bright and far dark (matplotlib's inferno), between two depths or the extremes seen."""
    import matplotlib

    low = float(depth.min()) if near is None else near
    high = float(depth.max()) if far is None else far
    shade = 1.0 - np.clip((depth - low) / max(high - low, 1e-9), 0.0, 1.0)
    return images.to_uint8(matplotlib.colormaps["inferno"](shade)[..., :3])
