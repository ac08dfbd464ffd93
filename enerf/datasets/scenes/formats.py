"""The formats of scenes: how each is detected, read, and which files it consists of."""

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from enerf.core import image_files
from enerf.core.errors import InputError
from enerf.datasets.scenes import (
    assembly,
    blender,
    colmap,
    llff,
    other_programs,
    polycam,
    poses,
    record3d,
    transforms_file,
    view_checks,
)
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.datasets.scenes.scene import Scene
from enerf.datasets.scenes.settings import AUTOMATIC, SceneSettings

log = logging.getLogger("enerf")
LLFF_FACTOR = 8  # of LLFF scenes, if none is given


@dataclass(frozen=True)
class Format:
    """A format of scenes.

    Attributes
    ----------
    name
        Value of ``--dataset_type``.
    detect
        From a folder: what shows that it is a scene in this format, in words; empty if nothing does.
    load
        Reads a scene.
    input_files
        The files of a scene that a run depends on.
    posed
        Reads photographs, cameras and poses of a scene, with OpenGL axes.
    made_from
        Formats whose files often lie in the same folder because this format's were made from them.
    """

    name: str
    detect: Callable[[Path], str]
    load: Callable[[Path, SceneSettings], Scene]
    input_files: Callable[[Path, SceneSettings], list[Path]]
    posed: Callable[[Path, SceneSettings], PosedImages]
    made_from: tuple[str, ...] = ()


def detect(folder: Path) -> tuple[str, str]:
    """Name of a scene's format, and what shows it, in words.

    Raises
    ------
    InputError
        If the folder is none, is in no known format, or in several, none of which was made from the others.
    """
    if not os.path.isdir(folder):
        what, advice = other_programs.describe(folder)
        if what:
            raise InputError(f"{folder} is {what.split(', ', 1)[1]}, expected the folder of a scene: {advice}")
        raise InputError(f"{folder} is not a folder, expected a scene: {_EXPECTED}")
    found = {name: shown for name, each in FORMATS.items() if (shown := each.detect(folder))}
    sources = {source for name in found for source in FORMATS[name].made_from}
    last = [name for name in found if name not in sources]
    if not last:
        what, advice = other_programs.describe(folder)
        if what:
            raise InputError(f"{folder} has {what}, which is not read, expected a scene: {advice}")
        raise InputError(f"{folder} is no scene, expected {_EXPECTED}{_hint(folder)}")
    if len(last) > 1:
        shown = " and ".join(f"{found[name]} ({name})" for name in last)
        raise InputError(f"{folder} has {shown}, expected one format: give --dataset_type {' or '.join(last)}")
    return last[0], found[last[0]]


def _hint(folder: Path) -> str:
    """What else the folder may be, in words."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        return f", in a folder that can be listed, which this one cannot ({error.strerror or error})"
    inside = [name for name in names if os.path.isdir(folder / name)]
    scenes = [name for name in inside if any(each.detect(folder / name) for each in FORMATS.values())]
    if scenes:
        return f"; {folder / scenes[0]} is one"
    if any(map(image_files.is_image_name, names)) or any(name.startswith("images") for name in inside):
        return "; of photographs alone, enerf process makes one"
    return ""


def load(name: str, folder: Path, settings: SceneSettings) -> Scene:
    """Read a scene in a format.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another, or an option does not fit.
    """
    try:
        return FORMATS[name].load(folder, settings)
    except InputError as error:
        others = [other for other, each in FORMATS.items() if other != name and each.detect(folder)]
        if FORMATS[name].detect(folder) or not others:
            raise
        shown = FORMATS[others[0]].detect(folder)
        raise InputError(
            f"{folder} has no scene in the format {name}, but {shown}: give --dataset_type {others[0]}, or auto"
        ) from error


def input_files(name: str, folder: Path, settings: SceneSettings) -> list[Path]:
    """Return the files of a scene that a run depends on; nothing is logged that ``load`` logs too.

    Raises
    ------
    InputError
        If a folder cannot be listed, or a file of poses cannot be read.
    """
    here = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(of_others)
    try:
        return FORMATS[name].input_files(folder, settings)
    finally:
        log.removeFilter(of_others)


def read_posed(name: str, folder: Path, settings: SceneSettings) -> PosedImages:
    """Read cameras, poses as in the files, and points of a scene in one of the formats of ``_READERS``."""
    return _READERS[name](folder, settings)


def posed(name: str, folder: Path, settings: SceneSettings) -> PosedImages:
    """Read photographs, cameras and poses, with OpenGL axes, of a scene in a format; of images at most headers.

    Raises
    ------
    InputError
        If a file is missing, damaged or inconsistent with another.
    """
    return FORMATS[name].posed(folder, settings)


def _shown(*names: str) -> Callable[[Path], str]:
    """Function that tells whether a folder has all of these files."""

    def detect_files(folder: Path) -> str:
        return " and ".join(names) if all(os.path.isfile(folder / name) for name in names) else ""

    return detect_files


def _detect_colmap(folder: Path) -> str:
    return "a COLMAP model" if colmap.detect(folder) else ""


def _load_llff(folder: Path, s: SceneSettings) -> Scene:
    if s.near or s.far:
        raise InputError(
            f"options --near and --far: found {s.near:g} and {s.far:g}, expected 0: LLFF scenes have their own bounds"
        )
    return llff.load(
        folder,
        factor=LLFF_FACTOR if s.factor == AUTOMATIC else s.factor,
        llffhold=s.llffhold,
        spherify=s.spherify,
        ndc=s.ndc,
        white_bkgd=s.white_bkgd,
        pose_axes=s.pose_axes or "llff",
        pose_check=s.pose_check,
        keep_alpha=s.keep_alpha,
        test_views=s.test_views,
        limits=s.limits,
    )


def _llff_files(folder: Path, s: SceneSettings) -> list[Path]:
    return llff.input_files(folder, LLFF_FACTOR if s.factor == AUTOMATIC else s.factor)


def _load_blender(folder: Path, s: SceneSettings) -> Scene:
    if s.test_views:
        raise InputError(
            f"option --test_views: found {s.test_views}, expected none: Blender scenes have transforms_test.json"
        )
    return blender.load(
        *(folder, s.half_res, s.testskip, s.white_bkgd),
        near=s.near,
        far=s.far,
        pose_axes=s.pose_axes or "opengl",
        pose_check=s.pose_check,
        keep_alpha=s.keep_alpha,
        limits=s.limits,
    )


def _blender_files(folder: Path, s: SceneSettings) -> list[Path]:
    return blender.input_files(folder, s.testskip)


def _llff_posed(folder: Path, s: SceneSettings) -> PosedImages:
    return llff.read_posed(folder, s.pose_axes or "llff")


def _blender_posed(folder: Path, s: SceneSettings) -> PosedImages:
    return blender.read_posed(folder, s.pose_axes or "opengl")


def _posed(name: str, axes: str) -> Callable[[Path, SceneSettings], PosedImages]:
    """Function that reads cameras, poses and points in a format whose matrices are in the convention ``axes``."""

    def read(folder: Path, settings: SceneSettings) -> PosedImages:
        found = read_posed(name, folder, settings)
        view_checks.require_rotations(found.source, found.c2w, found.names)
        matrices = poses.to_axes(found.c2w, axes)
        return replace(found, c2w=poses.orthonormalize(poses.from_axes(matrices, settings.pose_axes or axes)))

    return read


def _load_posed(name: str, axes: str) -> Callable[[Path, SceneSettings], Scene]:
    """Function that reads a scene in a format whose matrices are in the convention ``axes``."""

    def load_scene(folder: Path, settings: SceneSettings) -> Scene:
        return assembly.assemble(read_posed(name, folder, settings), settings, folder, axes)

    return load_scene


_READERS: dict[str, Callable[[Path, SceneSettings], PosedImages]] = {
    "colmap": lambda folder, _: colmap.read(folder),
    "transforms": lambda folder, settings: transforms_file.read(folder, read_points=settings.read_points),
    "polycam": lambda folder, _: polycam.read(folder),
    "record3d": lambda folder, _: record3d.read(folder),
}


def _polycam_files(folder: Path, s: SceneSettings) -> list[Path]:
    posed = polycam.read(folder, with_bounds=False)
    found = [*polycam.camera_files(folder), *filter(None, posed.depths), *assembly.image_files(posed, s, folder)]
    return list(dict.fromkeys(found))


def _record3d_files(folder: Path, s: SceneSettings) -> list[Path]:
    return [record3d.metadata_file(folder), *assembly.image_files(record3d.read(folder), s, folder)]


def _colmap_files(folder: Path, s: SceneSettings) -> list[Path]:
    return [*colmap.input_files(folder), *assembly.image_files(colmap.read(folder, with_points=False), s, folder)]


def _transforms_files(folder: Path, s: SceneSettings) -> list[Path]:
    named = transforms_file.input_files(folder, with_points=s.read_points is not None)
    return [*named, *assembly.image_files(transforms_file.read(folder), s, folder)]


FORMATS: dict[str, Format] = {
    each.name: each
    for each in (
        Format("llff", _shown("poses_bounds.npy"), _load_llff, _llff_files, _llff_posed, made_from=("colmap",)),
        Format(
            "blender",
            _shown("transforms_train.json", "transforms_test.json"),
            _load_blender,
            _blender_files,
            _blender_posed,
        ),
        Format(
            "transforms",
            _shown("transforms.json"),
            _load_posed("transforms", "opengl"),
            _transforms_files,
            _posed("transforms", "opengl"),
            made_from=("colmap", "polycam", "record3d"),
        ),
        Format(
            "polycam",
            lambda folder: "raw data of Polycam" if polycam.detect(folder) else "",
            _load_posed("polycam", "opengl"),
            _polycam_files,
            _posed("polycam", "opengl"),
        ),
        Format(
            "record3d",
            lambda folder: "a recording of Record3D" if record3d.detect(folder) else "",
            _load_posed("record3d", "opengl"),
            _record3d_files,
            _posed("record3d", "opengl"),
        ),
        Format(
            "colmap",
            _detect_colmap,
            _load_posed("colmap", "opencv_w2c"),
            _colmap_files,
            _posed("colmap", "opencv_w2c"),
        ),
    )
}
_EXPECTED = (
    "poses_bounds.npy (LLFF), transforms.json (nerfstudio, instant-ngp), transforms_train.json and "
    "transforms_test.json (Blender), raw data of Polycam or Record3D, or a COLMAP model in sparse/0"
)
