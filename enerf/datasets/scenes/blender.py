"""Reader for scenes in the format of NeRF's synthetic data: renderings of an object, and their poses as JSON.

The poses are camera-to-world with OpenGL axes, so scene coordinates are those of the file. The object is around the
origin, between 2 and 6 units from every camera.

Source: Mildenhall et al., NeRF (2020); options and defaults as in nerf-pytorch.
"""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, UInt8

from enerf.core import image_files, images
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.core.types import Camera, Scene
from enerf.datasets.scenes import poses, transparency

_LAYOUT = "data/nerf_synthetic/<scene>/{transforms_train.json, transforms_test.json, train/, test/}"
_NEAR, _FAR = 2.0, 6.0


def load(
    folder: str | os.PathLike[str],
    half_res: bool = False,
    testskip: int = 8,
    white_bkgd: bool = False,
    *,
    keep_alpha: bool = False,
) -> Scene:
    """Read a scene: training frames, then test frames; validation frames are not read.

    Parameters
    ----------
    folder
        Contains ``transforms_train.json``, ``transforms_test.json`` and the image files that they name.
    half_res
        Downsample by 2, averaging squares of 2 × 2 pixels.
    testskip
        Use every n-th test frame, from the first; 0 means 1.
    white_bkgd
        Composite transparent images over white; otherwise alpha is dropped.
    keep_alpha
        Keep the alpha channel of transparent images, for ``Scene.images`` of four channels, and composite them when
        they are used.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another.
    """
    scene = Path(folder)
    if not scene.is_dir():
        raise InputError(f"{scene} is not a folder, expected a scene laid out as {_LAYOUT}.")
    if testskip < 0:
        raise InputError(f"option testskip: found {testskip}, expected 0 or more.")
    angle, train = _transforms(scene / "transforms_train.json")
    test_angle, test = _transforms(scene / "transforms_test.json")
    if not math.isclose(angle, test_angle, rel_tol=1e-6):
        file = scene / "transforms_test.json"
        raise InputError(f"{file} has camera_angle_x {test_angle}, expected {angle} as for training.")
    frames = train + test[:: testskip or 1]
    pixels = _read([scene / name for name, _ in frames], half_res, white_bkgd, keep_alpha)
    n, height, width, _ = pixels.shape
    focal = 0.5 * width / math.tan(0.5 * angle)
    return Scene(
        name=scene.resolve().name,
        images=torch.from_numpy(pixels),
        c2w=torch.from_numpy(poses.orthonormalize(np.stack([pose for _, pose in frames]))).float(),
        camera=Camera(width, height, focal, focal, width / 2, height / 2),
        bounds=torch.tensor([[_NEAR, _FAR]]).repeat(n, 1),
        image_names=tuple(name for name, _ in frames),
        train=tuple(range(len(train))),
        test=tuple(range(len(train), n)),
        near=_NEAR,
        far=_FAR,
        ndc=False,
        forward_facing=False,
        world_to_scene=torch.eye(4, dtype=torch.float64),
        background=float(white_bkgd),
    )


def _transforms(file: Path) -> tuple[float, list[tuple[str, Float64[np.ndarray, "3 4"]]]]:
    """Horizontal field of view in radians, and image file and pose of each frame."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file} does not exist, expected a scene laid out as {_LAYOUT}.") from None
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} is no JSON ({reason}), expected camera_angle_x and frames.") from None
    content = content if isinstance(content, dict) else {}
    angle, frames = content.get("camera_angle_x"), content.get("frames")
    if not isinstance(angle, int | float) or not 0 < angle < math.pi:
        raise InputError(f"{file} has camera_angle_x {angle}, expected an angle between 0 and pi in radians.")
    if not isinstance(frames, list) or not frames:
        raise InputError(f"{file} has no list of frames, expected at least one frame.")
    return float(angle), [_frame(file, i, frame) for i, frame in enumerate(frames)]


def _frame(file: Path, index: int, frame: Any) -> tuple[str, Float64[np.ndarray, "3 4"]]:
    """Image file (relative to the folder) and pose of a frame."""
    frame = frame if isinstance(frame, dict) else {}
    name, matrix = frame.get("file_path"), frame.get("transform_matrix")
    if not isinstance(name, str) or not name:
        raise InputError(f"{file} has no file_path in frame {index}, expected the name of a picture.")
    try:
        pose = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        pose = np.empty(0)
    if pose.shape not in ((4, 4), (3, 4)):
        raise InputError(f"{file} has no 4 x 4 transform_matrix in frame {index} ({name}), expected numbers.")
    if not np.isfinite(pose).all() or not poses.are_rotations(pose[None, :3])[0]:
        raise InputError(
            f"{file} has a transform_matrix in frame {index} ({name}) that is not finite or no rotation, "
            "expected right-handed orthonormal axes."
        )
    path = Path(name.replace("\\", "/"))
    return (path if image_files.has_image_suffix(path.name) else Path(f"{path}.png")).as_posix(), pose[:3]


def _read(
    files: list[Path], half_res: bool, white: bool, keep_alpha: bool
) -> UInt8[np.ndarray, "n h w c"] | Float32[np.ndarray, "n h w c"]:
    """Colors of files of one common size: bytes if lossless, else floats in [0, 1]."""
    raw = images.size(files[0])[:2]
    width, height = (side // 2 for side in raw) if half_res else raw

    def pictures() -> Iterator[Float32[np.ndarray, "h w c"]]:
        for file in progress_bar(None, "read", "image", iterable=files, delay=2, leave=False, enabled=None):
            picture = images.read(file, rotate=False)
            if picture.shape[:2] != raw[::-1]:
                found = f"{picture.shape[1]}x{picture.shape[0]}"
                raise InputError(f"{file} has {found} pixels, expected {raw[0]}x{raw[1]} as {files[0].name}.")
            yield images.downsample(picture, (width, height), by_alpha=keep_alpha)

    shape = (len(files), height, width)
    return transparency.stacked(pictures(), shape, files[0].parent, white=white, keep_alpha=keep_alpha)
