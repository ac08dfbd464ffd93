"""Image folders of an LLFF scene: ``images``, and ``images_F``, downsampled by F.

``find`` selects the files and writes nothing; ``read`` creates a missing ``images_F`` first. A folder with too few
images is an error; it is never used or deleted.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from enerf.core import image_files, images
from enerf.core.errors import InputError
from enerf.datasets.scenes import resized_files, storage
from enerf.datasets.scenes.resized_files import Photo
from enerf.datasets.scenes.storage import Limits, SceneImages

log = logging.getLogger("enerf")
Size = tuple[float | int, float | int]  # width, height


@dataclass(frozen=True)
class Photos:
    """Image files of one scene, in the order of its views.

    Attributes
    ----------
    files
        The files, sorted by name.
    width, height
        The common size to read them at, in pixels.
    rotate
        Whether to apply their EXIF orientation.
    output_folder
        Folder to create with images of this size before reading; None if the files have it already.
    by_alpha
        Whether colors are weighted by alpha when images are resized; not so in nerf-pytorch.
    """

    files: tuple[Path, ...]
    width: int
    height: int
    rotate: bool
    output_folder: Path | None = None
    by_alpha: bool = False

    def each(self) -> list[Photo]:
        """The images one by one, at their common size."""
        return [Photo(file, self.width, self.height, self.rotate) for file in self.files]


def find(scene: Path, factor: int, count: int, recorded: Size) -> Photos:
    """Image files of a scene for 1 / ``factor`` of the full size; nothing is decoded or written.

    Parameters
    ----------
    scene
        The folder that contains ``images`` and the downsampled ``images_F``.
    factor
        1 for ``images``, F for ``images_F``; if that is missing, it will be area-downsampled from ``images``, or
        else from an ``images_k`` with k dividing F.
    count
        Number of poses.
    recorded
        Width and height of the images that the poses were estimated from; they tell whether the poses belong to
        upright or to raw pixels.

    Raises
    ------
    InputError
        If images are missing, not as many as poses, or of several aspect ratios.
    """
    target = scene / name_of(factor)
    if target.is_dir():
        return _survey(_whole(target, scene / "images", count), recorded)
    divisor = _divisor(scene, factor, count)
    found = _survey(_whole(scene / name_of(divisor), scene / "images", count), recorded)
    width, height = (max(1, round(side * divisor / factor)) for side in (found.width, found.height))
    return replace(found, width=width, height=height, output_folder=target)


def read(
    photos: Photos, white: bool, keep_alpha: bool = False, limits: Limits = storage.UNBOUNDED
) -> tuple[SceneImages, tuple[str, ...]]:
    """Read colors, as bytes if lossless, else as floats in [0, 1], and file names.

    Transparent images keep their alpha channel if it is to be kept, are composited over white, or keep their stored
    colors. ``limits`` says where the colors may be, see ``storage``.

    Raises InputError if a file is damaged, or a folder cannot be written.
    """
    if photos.output_folder is not None:
        photos = write_resized(photos, photos.output_folder)
    flags = {"white": white, "keep_alpha": keep_alpha, "by_alpha": photos.by_alpha}
    found = resized_files.photographs(photos.each(), photos.files[0].parent, **flags)
    return storage.load(found, limits), tuple(file.name for file in photos.files)


def name_of(factor: int) -> str:
    """Return the name of the folder with images of 1 / ``factor`` of the full size.

    >>> name_of(1), name_of(8)
    ('images', 'images_8')
    """
    return "images" if factor == 1 else f"images_{factor}"


def _whole(folder: Path, originals: Path, count: int) -> tuple[Path, ...]:
    """Image files of a folder, as many as there are poses."""
    found = image_files.listing(folder)
    files = found.images
    if len(files) == count:
        if aside := found.set_aside():
            log.info("%s: not taken as photographs: %s", folder, aside)
        return files
    full = image_files.list_images(originals) if originals.is_dir() and originals != folder else []
    if len(full) == count:
        raise InputError(
            f"{folder} holds {len(files)} images{_missing(files, full)} while {originals} holds {count}, "
            f"expected as many: delete {folder.name} and it will be created again."
        )
    aside = found.set_aside(others=True)
    raise InputError(
        f"{folder} holds {len(files)} images ({image_files.some([f.name for f in files]) or 'none'}) while "
        f"{folder.parent / 'poses_bounds.npy'} has {count} rows, "
        "expected one image for each row (remove the photographs that COLMAP did not register)"
        f"{f'; not counted: {aside}' if aside else ''}."
    )


def _missing(files: Sequence[Path], full: list[Path]) -> str:
    """Message that lists the originals without a downsampled file, if the names determine them."""
    stems = {file.stem for file in files}
    absent = [file.stem for file in full if file.stem not in stems]
    determined = len(absent) == len(full) - len(files)
    return f" (missing {image_files.some(absent)})" if determined and absent else ""


def _divisor(scene: Path, factor: int, count: int) -> int:
    """Factor of the largest images that ``images_F`` can be downsampled from."""
    if (scene / "images").is_dir() and factor > 1:
        return 1
    names = sorted(path.name for path in scene.glob("images_*") if path.is_dir())
    for k in range(2, factor):
        if factor % k == 0 and name_of(k) in names and len(image_files.list_images(scene / name_of(k))) == count:
            return k
    wanted = f"images/ or images_k with k dividing {factor}" if factor > 1 else "images/ or another factor"
    found = image_files.some(names) or "no image folder"
    raise InputError(
        f"{scene / name_of(factor)} does not exist and cannot be created: found {found}, expected {wanted}."
    )


def _survey(files: tuple[Path, ...], recorded: Size) -> Photos:
    """Files with the size that most of them have; others of the same aspect ratio will be resized to it."""
    sizes = [images.size(file) for file in files]
    rotate = not any(swaps and _raw_poses(width, height, recorded) for width, height, swaps in sizes)
    upright = [(h, w) if swaps and rotate else (w, h) for w, h, swaps in sizes]
    (width, height), _ = Counter(upright).most_common(1)[0]
    folder = files[0].parent
    others = {file.name: size for file, size in zip(files, upright, strict=True) if size != (width, height)}
    odd = [f"{name} ({w}x{h})" for name, (w, h) in others.items() if not _same_shape((w, h), (width, height))]
    if odd:
        raise InputError(f"{folder} holds {image_files.some(odd)}, expected {width}x{height} as the other images.")
    if others:
        log.warning(
            "%s: %s differ from %dx%d and are resized to it", folder, image_files.some(list(others)), width, height
        )
    return Photos(files, width, height, rotate)


def _raw_poses(width: int, height: int, recorded: Size) -> bool:
    """Whether the poses belong to raw pixels, as usual with COLMAP, which ignores the EXIF orientation."""
    return _same_shape((width, height), recorded) and not _same_shape((height, width), recorded)


def _same_shape(a: Size, b: Size) -> bool:
    """Whether two sizes have the same aspect ratio, within 1 %."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= 0.01 * a[1] * b[0]


def write_resized(photos: Photos, target: Path) -> Photos:
    """Write resized images to a new folder, atomically; returns the new files, or the old if it cannot be created."""
    names = _png_names(photos.files)
    if not resized_files.write_folder(target, photos.each(), names, by_alpha=photos.by_alpha):
        return replace(photos, output_folder=None)
    return replace(photos, files=tuple(target / name for name in names), output_folder=None)


def _png_names(files: tuple[Path, ...]) -> list[str]:
    """File names of the PNG copies, in the same sorting order as the originals.

    >>> _png_names((Path("a.JPG"), Path("b.png"))), _png_names((Path("a.JPG"), Path("a.png")))
    (['a.png', 'b.png'], ['a.JPG.png', 'a.png.png'])
    """
    short = [f"{file.stem}.png" for file in files]
    orderly = short == sorted(set(short))
    return short if orderly else [f"{file.name}.png" for file in files]
