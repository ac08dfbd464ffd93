"""Writing posed photographs as a scene in another format: photographs, cameras, poses, masks, depth maps and points.

The scene's folder appears as a whole or not at all, and nothing existing is changed. What a format has no place for is
refused, or left out with a warning; test views are then named in a file for ``--test_views``.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64

from enerf.core import image_files, images, io
from enerf.core.errors import InputError, shown
from enerf.core.types import Camera
from enerf.datasets.scenes import (
    camera_models,
    cameras,
    colmap,
    colmap_records,
    llff_writer,
    placed_files,
    point_bounds,
    transforms_writer,
)
from enerf.datasets.scenes.cameras import Cameras
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.transforms_writer import WritePoints

log = logging.getLogger("enerf")
TEST_VIEWS = "test_views.txt"
_IMAGE_FOLDER = re.compile(r"images(_[0-9]+)?")
_CHUNK = 1 << 18  # observations that are projected at once
# Parts of a scene, in words; a format has a place for some of them.
_PARTS = {
    "bounds": "the depth range of views",
    "masks": "masks",
    "radii": "the radius of fisheye pictures",
    "depths": "depth maps",
    "points": "points",
    "observations": "which views see which points",
    "test": "that no view is held out",  # names of test views are written beside
}

WriteFiles = Callable[[Path], None]  # files of cameras, to a folder


@dataclass(frozen=True)
class ConversionSettings:
    """How a scene is written.

    Attributes
    ----------
    target
        The format, one of ``TARGETS``.
    dialect
        For ``transforms``: the program that the file is for, one of ``transforms_writer.DIALECTS``.
    lossy
        Leave out what the format cannot express, with a warning, instead of refusing it.
    link
        Put symbolic links to the photographs, masks and depth maps in the place of copies.
    near, far
        For ``llff``: nearest and farthest depth of all views; 0: those of the scene, or of its points.
    write_points
        Writes points to a PLY file, for nerfstudio's ``transforms.json``.
    """

    target: str
    dialect: str = "nerfstudio"
    lossy: bool = False
    link: bool = False
    near: float | int = 0
    far: float | int = 0
    write_points: WritePoints | None = None


@dataclass(frozen=True)
class Target:
    """A format that is written.

    Attributes
    ----------
    in_words
        What a scene in it is called in messages.
    parts
        Keys of the parts of a scene that it has a place for.
    prepare
        From a scene with the paths that its files will have, and its future folder: a function that writes the files
        of cameras to a folder. Raises InputError for what is wrong, before anything is written.
    lost
        What it cannot express of the cameras, in words.
    is_flat
        Whether the views are the files of one folder in the order of their names.
    """

    in_words: str
    parts: tuple[str, ...]
    prepare: Callable[[PosedImages, Path, ConversionSettings], WriteFiles]
    lost: Callable[[PosedImages], list[str]] = lambda posed: []
    is_flat: bool = False


def convert(posed: PosedImages, out: Path, settings: ConversionSettings) -> None:
    """Write a scene in the format of the settings.

    Photographs are put in ``images`` under their own names, or for LLFF's format as ``a_b.png`` for ``a/b.png``; masks
    in ``masks/NAME.png``, or for instant-ngp beside them, depth maps in ``depths``, COLMAP's model in ``sparse/0``.

    Parameters
    ----------
    posed
        The scene, its poses with OpenGL axes.
    out
        The new folder; an empty one is replaced.

    Raises
    ------
    InputError
        If the format cannot express something and ``lossy`` is not set; if a photograph is missing, is no image or has
        not the shape of its camera's; if the folder is not empty or cannot be written.
    """
    target = _target(settings)
    _require_new(out)
    cameras.check_views(posed.cameras, posed.names, posed.source)
    renamed = with_inner_names(posed, target)
    _check_images(posed, target)
    _refuse_or_warn(posed, out, target, settings)
    inverse = settings.dialect == "instant-ngp"
    wanted = {part: part in target.parts for part in ("masks", "depths")}
    sources = placed_files.sources(renamed, **wanted, inverse_masks=inverse)
    placed = placed_files.placed(renamed, out, inverse_masks=inverse)
    write = target.prepare(placed, out, settings)
    if not settings.link:
        placed_files.require_space(out, (source.file for source in sources.values()))
    with io.os_errors_as_input_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with io.temporary_path(out) as temporary, io.os_errors_as_input_errors(out):
        temporary.mkdir()
        try:
            placed_files.place(sources, temporary, link=settings.link)
            write(temporary)
        except InputError as error:
            raise InputError(str(error).replace(str(temporary), str(out))) from None
        if placed.test and "test" not in target.parts:
            _write_test_views(placed, temporary, out)
        os.rename(temporary, out)


def _target(settings: ConversionSettings) -> Target:
    """The format that is written; an InputError names options that do not go with it."""
    if settings.target not in TARGETS:
        raise InputError(
            f"option --to: found {shown(settings.target) if settings.target else 'nothing'}, expected "
            f"{', '.join(TARGETS)}"
        )
    if (settings.near or settings.far) and settings.target != "llff":
        raise InputError(
            f"options --near and --far: found {settings.near:g} and {settings.far:g}, expected 0: of the formats that "
            "are written only llff has depths of views"
        )
    if settings.dialect not in transforms_writer.DIALECTS or (
        settings.target != "transforms" and settings.dialect != ConversionSettings.dialect
    ):
        expected = " or ".join(transforms_writer.DIALECTS)
        raise InputError(
            f"option --dialect: found {shown(settings.dialect)}, expected {expected}, with --to transforms"
        )
    target = TARGETS[settings.target]
    if settings.dialect == "instant-ngp":
        return replace(target, in_words=f"{target.in_words} of instant-ngp", parts=("masks", "depths"))
    return target


def _require_new(out: Path) -> None:
    """Raise InputError if the folder exists and is not empty."""
    if not os.path.lexists(out):
        return
    if out.is_symlink() or not out.is_dir():
        raise InputError(
            f"option --out: found {out}, which is a link or no folder, expected a new folder or an empty one"
        )
    with io.os_errors_as_input_errors(out):
        if any(out.iterdir()):
            raise InputError(f"option --out: found files in {out}, expected a new folder or an empty one")


def with_inner_names(posed: PosedImages, target: Target) -> PosedImages:
    """The scene with the names of its images relative to the new folder of images; sorted by them in a flat format.

    Raises
    ------
    InputError
        If a name leads out of its folder, or two are the same.
    """
    names = [colmap_records.image_name(str(posed.source), name) for name in posed.names]
    first = {name.partition("/")[0] if "/" in name else "" for name in names}
    if len(first) == 1 and _IMAGE_FOLDER.fullmatch(next(iter(first))):
        names = [name.partition("/")[2] for name in names]
    if target.is_flat:
        names = [name.replace("/", "_") for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{posed.source}: found several views of the image name {shown(twice[0])}, expected one image for each view"
        )
    order = sorted(range(len(names)), key=names.__getitem__) if target.is_flat else list(range(len(names)))
    return _reordered(replace(posed, names=tuple(names)), order)


def _reordered(posed: PosedImages, order: list[int]) -> PosedImages:
    """The scene with its views in another order."""
    place = np.argsort(order)
    points = posed.points
    return replace(
        posed,
        names=tuple(posed.names[i] for i in order),
        files=tuple(posed.files[i] for i in order),
        cameras=tuple(posed.cameras[i] for i in order),
        c2w=posed.c2w[order],
        bounds=None if posed.bounds is None else posed.bounds[order],
        masks=tuple(posed.masks[i] for i in order) if posed.masks else (),
        depths=tuple(posed.depths[i] for i in order) if posed.depths else (),
        radii=tuple(posed.radii[i] for i in order) if posed.radii else (),
        points=None if points is None else replace(points, view=place[points.view]),
        test=None if posed.test is None else tuple(sorted(int(place[i]) for i in posed.test)),
    )


def _check_images(posed: PosedImages, target: Target) -> None:
    """Raise InputError if an image is missing, or has not the shape of its camera's."""
    missing = [str(file) for file in posed.files if not os.path.lexists(file)]
    if missing:
        raise InputError(
            f"{posed.source} names {len(posed.names)} images, of which {len(missing)} do not exist, expected "
            f"{image_files.some(missing)}"
        )
    headers = [images.header(file) for file in posed.files]
    fits = [_fits(camera, *header) for camera, header in zip(posed.cameras, headers, strict=True)]
    # the reader of LLFF scenes applies orientations, unless some image has the shape of its camera's without only
    applies = target.is_flat and not any(raw and not upright for raw, upright in fits)
    for camera, file, header, (raw, upright) in zip(posed.cameras, posed.files, headers, fits, strict=True):
        is_upright = upright and (posed.are_upright or not raw)
        if not (is_upright or (raw and not posed.are_upright)):
            raise InputError(
                f"{file} has {header[0]}x{header[1]} pixels, expected the shape of its camera's "
                f"{camera.width}x{camera.height}"
            )
        if header[2] != 1 and is_upright != applies:
            raise InputError(
                f"{file} is turned by its EXIF orientation and its camera is that of the "
                f"{'turned' if is_upright else 'stored'} image, which {target.in_words} cannot express, expected an "
                "image that is stored upright"
            )


def _fits(camera: Camera, width: int, height: int, orientation: int) -> tuple[bool, bool]:
    """Whether an image has the shape of its camera's before and after its EXIF orientation is applied."""
    wanted = camera.width, camera.height
    raw = camera_models.same_shape(wanted, (width, height))
    return raw, camera_models.same_shape(wanted, (height, width)) if orientation >= 5 else raw


def _refuse_or_warn(posed: PosedImages, out: Path, target: Target, settings: ConversionSettings) -> None:
    """Refuse what the format cannot express, or log that it is left out."""
    has = {
        "bounds": posed.bounds is not None,
        "masks": any(posed.masks),
        "radii": bool(posed.radii),
        "depths": any(posed.depths),
        "points": posed.points is not None,
        "observations": posed.points is not None and len(posed.points.point) > 0,
        "test": posed.test == (),
    }
    if posed.unread:
        log.warning("%s: keys of %s are left out: %s", out, posed.source, ", ".join(posed.unread))
    lost = target.lost(posed) + [text for part, text in _PARTS.items() if has[part] and part not in target.parts]
    if "points" in lost and _PARTS["observations"] in lost:
        lost.remove(_PARTS["observations"])
    if not lost:
        return
    what = ", ".join(lost)
    if not settings.lossy:
        raise InputError(
            f"{posed.source}: {target.in_words} cannot express {what}, expected a scene without, or --lossy to leave "
            "it out"
        )
    log.warning("%s: left out, since %s cannot express it: %s", out, target.in_words, what)
    if posed.bounds is not None and "bounds" not in target.parts:
        near, far = float(posed.bounds[:, 0].min()), float(posed.bounds[:, 1].max())
        log.warning("%s: depths of views are from %.6g to %.6g; give --near and --far in training", out, near, far)


def _write_test_views(placed: PosedImages, folder: Path, out: Path) -> None:
    """Write the names of test views to a file, since the format has no place for them."""
    lines = [placed.names[i] for i in placed.test or ()]
    (folder / TEST_VIEWS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    log.info("%s: the test views are named in %s; give --test_views %s", out, TEST_VIEWS, out / TEST_VIEWS)


def _prepare_llff(placed: PosedImages, out: Path, settings: ConversionSettings) -> WriteFiles:
    rows = llff_writer.rows(out / llff_writer.FILE, placed, _bounds(placed, settings))

    def write(folder: Path) -> None:
        listed = {path.name for path in image_files.list_images(folder / "images")}
        if left_out := [name for name in placed.names if name not in listed]:
            raise InputError(
                f"{placed.source}: found images that LLFF scenes do not count as photographs by their names, "
                f"{image_files.some(left_out)}, expected names such as a.png, and none of masks"
            )
        np.save(folder / llff_writer.FILE, rows)

    return write


def _bounds(posed: PosedImages, settings: ConversionSettings) -> Float64[np.ndarray, "n 2"]:
    """Nearest and farthest depth of each view: the options', the scene's, or those of its points."""
    given, found = [float(settings.near), float(settings.far)], posed.bounds
    if found is None and not all(given):
        if posed.points is None:
            raise InputError(
                f"{posed.source} has neither depths of views nor points, expected --near and --far: the depths at "
                "which the scene begins and ends, in units of the file"
            )
        found = point_bounds.depth_bounds(posed)
    return np.where(given, given, np.ones((len(posed.names), 2)) if found is None else found)


def _prepare_colmap(placed: PosedImages, out: Path, settings: ConversionSettings) -> WriteFiles:
    pixels = projections_of(placed)
    return lambda folder: colmap.write(folder / "sparse" / "0", placed, pixels=pixels)


def projections_of(posed: PosedImages) -> Float64[np.ndarray, "k 2"] | None:
    """Pixel of each observation by the camera of its view, with distortion; None if there are none.

    An observation of a point that its camera does not see is at (0, 0).
    """
    points = posed.points
    if points is None or not len(points.view):
        return None
    table, found = Cameras(posed.cameras), np.zeros((len(points.view), 2))
    for start in range(0, len(found), _CHUNK):
        view, point = (part[start : start + _CHUNK] for part in (points.view, points.point))
        local = np.einsum("kij,ki->kj", posed.c2w[view, :, :3], points.xyz[point] - posed.c2w[view, :, 3])
        pixels, valid = table.project(torch.from_numpy(view), torch.from_numpy(local))
        found[start : start + _CHUNK] = torch.where(valid[:, None], pixels, 0.0).numpy()
    return found


def _prepare_transforms(placed: PosedImages, out: Path, settings: ConversionSettings) -> WriteFiles:
    points, write_points = placed.points, settings.write_points
    content = transforms_writer.content_of(
        out / "transforms.json", placed, settings.dialect, with_points=write_points is not None
    )

    def write(folder: Path) -> None:
        if points is not None and write_points is not None and "ply_file_path" in content:
            inner = transforms_writer.in_original_units(points, content)
            write_points(folder / transforms_writer.POINTS, inner)
        transforms_writer.write_whole_masks(folder, content)
        io.write_json(folder / "transforms.json", content)

    return write


TARGETS = {
    "llff": Target("LLFF's format", ("bounds",), _prepare_llff, llff_writer.lost, is_flat=True),
    "colmap": Target("COLMAP's format", ("masks", "points", "observations"), _prepare_colmap),
    "transforms": Target(
        "transforms.json",
        ("masks", "radii", "depths", "points", "test"),
        _prepare_transforms,
        lambda posed: ["different radii of fisheye pictures"] if len(set(posed.radii)) > 1 else [],
    ),
}
