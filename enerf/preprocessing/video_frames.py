"""Frames of a video for structure from motion: sharp ones, spread evenly over the motion of the camera.

The video is decoded twice by ffmpeg, which applies its rotation: once in gray and small, to measure sharpness and
motion, and once at full size for the chosen frames. Sharpness is the variance of the Laplacian; motion is the median
length of the optical flow between successive candidates, as a part of the width. The path that the image has moved is
divided into as many equal parts as there shall be frames, and the sharpest candidate of each part is taken: a camera
that rests gives one frame.
"""

import logging
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO

import numpy as np
from jaxtyping import Float64, UInt8

from enerf.core import files, images
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.preprocessing import upright_copies

log = logging.getLogger("enerf")
SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
CANDIDATES = 10  # for each frame that is taken
STILL = 0.02  # of the width: a path of the image that is no motion
_SMALL, _SMALLER = 640, 160  # pixels of the longer side for sharpness and for motion
_LONGEST_SIDE = 1 << 15


@dataclass(frozen=True)
class Candidates:
    """Measurements of the candidates in their order.

    Attributes
    ----------
    sharpness
        Variance of the Laplacian.
    path
        Length that the image has moved since the first one, as a part of the width.
    """

    sharpness: Float64[np.ndarray, " n"]
    path: Float64[np.ndarray, " n"]


def extract(video: Path, folder: Path, count: int, suffix: str) -> list[str]:
    """Write the chosen frames as ``frame_0001.jpg`` ... to a folder; returns their names.

    Parameters
    ----------
    video
        The file.
    folder
        Where frames are written; created.
    count
        Number of frames, at most.
    suffix
        ``jpg`` (quality 97) or ``png``.

    Raises
    ------
    InputError
        If the file is no video, or shows no motion, or a frame cannot be written.
    """
    seconds, rate = probe(video)
    filters = [_SQUARE]
    total = round(seconds * rate) if seconds and rate else None
    if total and total > 1.5 * CANDIDATES * count:
        filters.insert(0, f"fps={CANDIDATES * count / seconds:.6f}")
        total = CANDIDATES * count
    found = measure(video, filters, total)
    chosen = choose(found, count)
    if len(chosen) < 3:
        raise InputError(
            f"{video}: found {len(found.path)} frames in which the image moves by {100 * found.path[-1]:.1f} % of its "
            "width, expected a video in which the camera moves sideways"
        )
    log.info("%s: %d of %d frames are taken", video, len(chosen), len(found.path))
    wanted = "+".join(f"eq(n\\,{i})" for i in chosen)
    names = [f"frame_{i + 1:04d}.{suffix}" for i in range(len(chosen))]
    pictures = _frames(video, [*filters, f"select={wanted}"], "ppm")
    written = 0
    for name, pixels in zip(names, progress_bar(len(names), "write frames", "frame", iterable=pictures), strict=False):
        if suffix == "png":
            images.write_png(folder / name, pixels)
        else:
            upright_copies.write_jpeg(folder / name, pixels)
        written += 1
    return names[:written]


_SQUARE = "scale=w='trunc(iw*sar/2+0.5)*2':h='trunc(ih/2+0.5)*2',setsar=1"  # pixels that are not square become so


def probe(video: Path) -> tuple[float, float]:
    """Length of a video in seconds and its frames per second, each 0 if unknown.

    Raises
    ------
    InputError
        If it has no video stream.
    """
    files.require_regular(video)
    done = subprocess.run(
        [_ffmpeg(), "-hide_banner", *_input(video)], stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE, check=False
    )
    text = done.stderr.decode(errors="replace")
    if not re.search(r"Stream #.*: Video:", text):
        last = text.strip().split("\n")[-1].split(": ")[-1][:200]
        raise InputError(f"{video}: found no video in the file ({last}), expected one of {', '.join(SUFFIXES)}")
    length = re.search(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)", text)
    rate = re.search(r"(\d+(?:\.\d+)?) fps", text)
    seconds = (
        sum(float(part) * unit for part, unit in zip(length.groups(), (3600, 60, 1), strict=True)) if length else 0
    )
    return float(seconds), float(rate[1]) if rate else 0.0


def measure(video: Path, filters: Sequence[str], total: int | None) -> Candidates:
    """Sharpness and motion of all frames of a video that pass some of ffmpeg's filters.

    Raises
    ------
    InputError
        If there are none.
    """
    import cv2

    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    small = f"scale={_SMALL}:{_SMALL}:force_original_aspect_ratio=decrease:flags=area"
    sharpness, steps, before = [], [], None
    pictures = _frames(video, [*filters, small], "pgm")
    for gray in progress_bar(total, "look through the video", "frame", iterable=pictures, leave=False):
        sharpness.append(float(cv2.Laplacian(gray, cv2.CV_64F).var()))
        shrink = max(1.0, max(gray.shape) / _SMALLER)
        size = (max(16, round(gray.shape[1] / shrink)), max(16, round(gray.shape[0] / shrink)))
        now = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA))
        if before is not None and before.shape == now.shape:
            moved = np.linalg.norm(flow.calc(before, now, None), axis=-1)  # type: ignore[call-overload]
            steps.append(float(np.median(moved)) / now.shape[1])
        else:
            steps.append(0.0)
        before = now
    if not sharpness:
        raise InputError(f"{video}: found no frame that can be decoded, expected a whole video")
    return Candidates(np.array(sharpness), np.cumsum(steps))


def choose(found: Candidates, count: int) -> list[int]:
    """Indices of the sharpest candidate in each of ``count`` equal parts of the path, in order.

    Only one is chosen if the path is no motion; parts that no candidate lies in have none.

    >>> choose(Candidates(np.array([1.0, 3, 2, 5, 4]), np.array([0.0, 0, 0, 0.5, 1])), 3)
    [1, 3, 4]
    """
    length = float(found.path[-1])
    if length < STILL:
        return [int(found.sharpness.argmax())]
    part = np.minimum((found.path / length * count).astype(np.int64), count - 1)
    order = np.lexsort((-found.sharpness, part))
    first = np.r_[True, np.diff(part[order]) > 0]
    return sorted(order[first].tolist())


def _frames(video: Path, filters: Sequence[str], kind: str) -> Iterator[np.ndarray]:
    """Decode frames: gray for ``pgm``, RGB for ``ppm``; a video that ends early gives those before."""
    command = [_ffmpeg(), "-hide_banner", "-loglevel", "error", "-nostdin", *_input(video), "-map", "0:V:0", "-an"]
    command += ["-vf", ",".join(filters), "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", kind]
    command += ["-pix_fmt", "gray" if kind == "pgm" else "rgb24", "-"]
    with subprocess.Popen(command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL) as process:
        assert process.stdout is not None
        try:
            while (pixels := _next(process.stdout, video)) is not None:
                yield pixels
        finally:
            process.kill()
            with suppress(OSError):
                process.stdout.close()


def _next(stream: IO[bytes], video: Path) -> UInt8[np.ndarray, "h w *c"] | None:
    """The next image of a stream of PGM or PPM images; None at its end."""
    words: list[bytes] = []
    while len(words) < 4:
        line = stream.readline(200)
        if not line:
            return None
        words += line.split()
    kind, width, height = words[0], int(words[1]), int(words[2])
    if not 0 < width <= _LONGEST_SIDE or not 0 < height <= _LONGEST_SIDE:
        raise InputError(f"{video}: found frames of {width}x{height} pixels, expected at most {_LONGEST_SIDE} a side")
    channels = 3 if kind == b"P6" else 1
    wanted = width * height * channels
    if wanted > 1 << 24:
        files.require_memory(4 * wanted, f"{video}: a frame of {width}x{height} pixels")
    data = stream.read(wanted)
    if len(data) < wanted:
        return None
    pixels = np.frombuffer(data, np.uint8)
    return pixels.reshape(height, width, 3) if channels == 3 else pixels.reshape(height, width)


def _ffmpeg() -> str:
    """Path of ffmpeg's program."""
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise InputError(f"ffmpeg cannot be run ({error}), expected imageio-ffmpeg's") from None


def _input(video: Path) -> list[str]:
    """Arguments that name the input, which is a file whatever its name looks like."""
    return ["-protocol_whitelist", "file", "-i", f"file:{video.absolute()}"]
