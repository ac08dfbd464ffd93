"""Files that a phone would write of the capture in ``synthetic_phone``, and beside them the true cameras.

Photographs are JPEG files of quality 92 with EXIF data, stored as the sensor was held; ``masks/NAME.png`` (0: ignored)
covers the person of three of them. ``FOLDER_truth.json``, beside the folder, has the cameras and poses of the upright
images in the format of ``transforms.json``, for measuring; so has ``VIDEO_truth.json``, of each frame.

    enerf generate photographs --out data/phone
    enerf generate photographs --out data/phone.mp4 --video
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from enerf.core import images, io
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.core.types import Camera
from enerf.datasets.scenes import synthetic, synthetic_phone, transforms_writer
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.synthetic_phone import Shot

FPS = 30
QUALITY = 92
SECONDS = {False: (1, 60), True: (1, 100)}  # exposure time, by whether a photograph is dark
_VERSION = 1  # of the capture; increase it when the images change
_MARGIN = 4  # pixels by which masks are wider than what they cover, as JPEG blurs edges
T = TypeVar("T")
R = TypeVar("R")


def truth_path(target: Path) -> Path:
    """File of the true cameras of a folder of photographs or of a video.

    >>> truth_path(Path("data/phone.mp4")).as_posix()
    'data/phone_mp4_truth.json'
    """
    return target.with_name(f"{target.name.replace('.', '_')}_truth.json")


def write_photographs(
    folder: str | Path, views: int = 50, *, width: int = synthetic_phone.WIDTH, seed: int = 0, progress: bool = True
) -> Path:
    """Write photographs, masks and, beside the folder, the true cameras; returns the folder.

    The same settings give the same bytes. A folder that already contains this capture is left unchanged. The folder is
    created atomically.

    Parameters
    ----------
    folder
        The new folder.
    views
        Number of photographs.
    width
        Pixels of a row of the sensor; it has three quarters as many rows.
    seed
        Seed of the poses and of which photographs are dark, rotated, blurred or have a person.

    Raises
    ------
    InputError
        If a number is too small, or the folder contains anything else (nothing is overwritten) or cannot be written.
    """
    folder = Path(os.path.abspath(folder))
    settings = {"phone": _VERSION, "views": views, "width": width, "seed": seed}
    names = [f"IMG_{i + 1:04d}.jpg" for i in range(max(views, 0))]
    return synthetic.create(
        folder, settings, names, lambda path: _write(path, folder, names, settings, progress), truth_path(folder)
    )


def write_video(
    file: str | Path,
    frames: int = 300,
    *,
    width: int = synthetic_phone.VIDEO_WIDTH,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Write a video (H.264, 30 frames per second, 16:9) of a walk around the objects; returns the file.

    Raises
    ------
    InputError
        If a number is too small, or the file exists and is not this video, or cannot be written.
    """
    file = Path(os.path.abspath(file))
    settings = {"phone_video": _VERSION, "frames": frames, "width": width, "seed": seed}
    synthetic.check_settings(settings)
    if synthetic.is_written(file.parent, settings, [file.name], truth_path(file)):
        return file
    if os.path.lexists(file):
        raise InputError(f"{file}: found a file that is not this video, expected another name, or that it is removed")
    height = 2 * max(1, round(width * synthetic_phone.VIDEO_HEIGHT / synthetic_phone.VIDEO_WIDTH / 2))
    camera, poses = synthetic_phone.lens(width, height), synthetic_phone.walk(frames, seed)
    names = [f"{file.name}/{i + 1:04d}" for i in range(frames)]
    _write_truth(file, names, [camera] * frames, poses, settings)
    rendered = _in_threads(lambda c2w: images.to_uint8(synthetic_phone.render(camera, c2w)), poses)
    shown = progress_bar(frames, "rendering", "frame", iterable=rendered, enabled=progress)
    images.write_mp4(file, iter(shown), FPS)
    return file


def _write(path: Path, folder: Path, names: Sequence[str], settings: dict[str, int], progress: bool) -> None:
    """Render all photographs to a new folder ``path``, which will be ``folder``."""
    shots = synthetic_phone.shots(settings["views"], settings["seed"])
    width, height = settings["width"], max(1, round(0.75 * settings["width"]))
    cameras = [synthetic_phone.lens(width, height, shot.orientation) for shot in shots]
    c2w = np.stack([shot.c2w for shot in shots])
    path.mkdir(parents=True)
    write = partial(_write_photograph, path)
    done = _in_threads(lambda item: write(*item), zip(names, cameras, shots, strict=True))
    for _ in progress_bar(len(names), "rendering", "view", iterable=done, enabled=progress):
        pass
    _write_truth(folder, [f"{folder.name}/{name}" for name in names], cameras, c2w, settings)


def _write_photograph(folder: Path, name: str, camera: Camera, shot: Shot) -> None:
    import cv2

    image, kept = synthetic_phone.photograph(camera, shot)
    stored = np.rot90(images.to_uint8(image), {1: 0, 3: 2, 6: 1}[shot.orientation])
    exif = exif_of(shot, int(Path(name).stem.rsplit("_", 1)[-1]))
    Image.fromarray(np.ascontiguousarray(stored)).save(folder / name, format="JPEG", quality=QUALITY, exif=exif)
    if kept is not None:
        mask = cv2.erode(kept.astype(np.uint8) * 255, np.ones((2 * _MARGIN + 1,) * 2, np.uint8))
        images.write_png(folder / "masks" / f"{Path(name).stem}.png", np.asarray(mask))


def exif_of(shot: Shot, number: int) -> Image.Exif:
    """EXIF data of a photograph; it is taken ``number`` · 3 seconds after noon."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112] = "Apple", "iPhone 13", shot.orientation  # make, model, orientation
    exif[0x0131] = "enerf generate photographs"  # software
    inner = exif.get_ifd(0x8769)
    inner[0x829A] = IFDRational(*SECONDS[shot.is_dark])  # exposure time
    inner[0x829D], inner[0x8827] = IFDRational(8, 5), 64  # f-number, ISO
    inner[0x9003] = f"2026:05:01 12:{number // 20 % 60:02d}:{3 * number % 60:02d}"  # time
    inner[0x920A], inner[0xA405] = IFDRational(51, 10), synthetic_phone.FOCAL_35MM  # focal lengths in millimeters
    inner[0xA403] = int(shot.is_dark)  # white balance: automatic, manual
    return exif


def _write_truth(
    target: Path, names: Sequence[str], cameras: Sequence[Camera], c2w: np.ndarray, settings: dict[str, int]
) -> None:
    file = truth_path(target)
    files = tuple(target.parent / name for name in names)
    posed = PosedImages(file, tuple(names), files, tuple(cameras), c2w)
    content: dict[str, Any] = transforms_writer.content_of(file, posed, "nerfstudio", with_points=False)
    io.write_json(file, content | {synthetic.GENERATED: settings})


def _in_threads(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results in the order of the items; a few are computed at once, as many as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    left = iter(items)
    with ThreadPoolExecutor(min(cores, 8)) as pool:
        while batch := list(islice(left, 2 * cores)):
            yield from pool.map(function, batch)
