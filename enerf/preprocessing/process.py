"""Photographs or a video to a scene folder: ``transforms.json``, upright images, masks, points, and a COLMAP model."""

import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core import image_files, images, io
from enerf.core.errors import InputError
from enerf.datasets.scenes import colmap, point_bounds, splits, transforms_writer
from enerf.datasets.scenes.posed_images import PosedImages
from enerf.engine import writer_lock
from enerf.geometry import colored_points
from enerf.preprocessing import (
    brightness,
    camera_groups,
    cameras_picture,
    colmap_process,
    diagnosis,
    mask_files,
    pairs,
    photographs,
    scene_report,
    upright_copies,
    video_frames,
    work_folder,
)
from enerf.preprocessing.colmap_process import Job, Outcome
from enerf.preprocessing.diagnosis import Matches
from enerf.preprocessing.options import ProcessOptions
from enerf.preprocessing.photographs import Collection, Photograph
from enerf.preprocessing.work_folder import WORK

log = logging.getLogger("enerf")
_FRAMES, _MODEL = "frames.json", "model"
_PIXELS, _PER_SIDE = 2.0, 800.0  # error up to which a match counts: at least; longer side over this


def process(source: Path, options: ProcessOptions) -> dict[str, Any]:
    """Make a scene folder of photographs or a video; returns the content of its ``report.json``.

    What an earlier call with the same input and options has done is not done again; a finished scene is left as it is.

    Parameters
    ----------
    source
        Folder of photographs, or a video.
    options
        The options.

    Raises
    ------
    InputError
        If the input cannot be read, no cameras can be computed from it (the message says why), or the folder is not
        this command's.
    """
    began = time.perf_counter()
    scene, is_video = Path(options.out), _is_video(source)
    work_folder.require_writable(scene, source)
    version = colmap_process.version()
    found = Collection((), {}) if is_video else photographs.find(source, options.masks)
    key = _key(source, found, options, version)
    with writer_lock.writing(scene):
        if work_folder.begin(scene, key, overwrite=options.overwrite):
            _require_whole(scene)
            log.info("%s: is made of these photographs with these options already", scene)
            return io.read_object(scene / splits.REPORT)
        if is_video:
            found = _frames(scene, source, options)
        _copy(scene, found.photographs, options)
        job = _job(found.photographs, options, is_video)
        _link(scene, job, found.photographs)
        outcome = colmap_process.run(scene / WORK, job)
        return _finish(scene, source, found, outcome, options, began, key)


def _require_whole(scene: Path) -> None:
    """Check that the files which a finished scene names are there."""
    content = io.read_object(scene / work_folder.TRANSFORMS)
    names = [frame[key] for frame in content["frames"] for key in ("file_path", "mask_path") if key in frame]
    names += [content["ply_file_path"]] if "ply_file_path" in content else []
    missing = [name for name in dict.fromkeys(names) if not (scene / name).is_file()]
    if missing:
        raise InputError(
            f"{scene}: found a finished scene without {image_files.some(missing)}, expected all of its files: "
            "`enerf process` with --overwrite makes it anew"
        )


def _is_video(source: Path) -> bool:
    """Whether the input is a file, which must be a video."""
    if not os.path.lexists(source):
        raise InputError(f"{source}: not found, expected a folder of photographs or a video")
    if source.is_dir():
        return False
    if image_files.is_image_name(source.name):
        raise InputError(f"{source}: found one photograph, expected a folder of photographs or a video")
    video_frames.probe(source)
    return True


def _key(source: Path, found: Collection, options: ProcessOptions, version: str) -> dict[str, str]:
    """What the scene is made of."""
    if not found.photographs:
        masks = mask_files.files_of(Path(options.masks).absolute()) if options.masks else {}
        return work_folder.key(source.parent, [source.name, *sorted(map(str, masks.values()))], options, version)
    names = [str(photo.source.absolute()) for photo in found.photographs]
    names += [str(photo.mask.absolute()) for photo in found.photographs if photo.mask is not None]
    return work_folder.key(source, names, options, version)


def _frames(scene: Path, video: Path, options: ProcessOptions) -> Collection:
    """Frames of a video, written to the scene if an earlier call has not done so."""
    record, folder = scene / WORK / _FRAMES, scene / upright_copies.IMAGES
    if not record.is_file():
        possible = [f"{upright_copies.IMAGES}/frame_{i + 1:04d}.{options.frame_format}" for i in range(options.frames)]
        work_folder.record_files(scene, possible)
        names = video_frames.extract(video, folder, options.frames, options.frame_format)
        io.write_json(record, {"frames": names})
    names = io.read_object(record)["frames"]
    width, height, _ = images.size(folder / names[0])
    frames = [Photograph(folder / name, name, width, height) for name in names]
    masked = mask_files.attach(folder, frames, options.masks) if options.masks else frames
    return Collection(tuple(masked), {})


def _copy(scene: Path, found: Sequence[Photograph], options: ProcessOptions) -> None:
    """Upright copies of photographs and masks."""
    names = [f"{upright_copies.IMAGES}/{photo.name}" for photo in found]
    masked = [photo for photo in found if photo.mask is not None]
    names += [upright_copies.mask_path(scene, photo).relative_to(scene).as_posix() for photo in masked]
    work_folder.record_files(scene, names)
    upright_copies.write(scene, found, invert_masks=options.invert_masks)


def _job(found: Sequence[Photograph], options: ProcessOptions, is_video: bool) -> Job:
    strategy = options.pairs
    if strategy == "auto":
        few = len(found) <= pairs.MOST_EXHAUSTIVE and not is_video
        strategy = "exhaustive" if few else "sequential"
    longest = max(max(photo.width, photo.height) for photo in found)
    return Job(
        names=[f"{i + 1:06d}{Path(photo.name).suffix.lower()}" for i, photo in enumerate(found)],
        originals=[photo.name for photo in found],
        cameras=camera_groups.group(found, options.camera_per, options.camera),
        masks=any(photo.mask is not None for photo in found),
        features=options.features,
        max_size=options.max_size,
        pairs=strategy,
        mapper=options.mapper,
        pixels=max(_PIXELS, longest / _PER_SIDE),
        principal_point=options.principal_point,
        threads=options.threads or _cores(),
    )


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _link(scene: Path, job: Job, found: Sequence[Photograph]) -> None:
    """Links to images and masks in the work folder, by numbered names: COLMAP's lists of pairs know no spaces."""
    for name, photo in zip(job.names, found, strict=True):
        _link_file(scene / upright_copies.IMAGES / photo.name, scene / WORK / "images" / name)
        if not job.masks:
            continue
        target = scene / WORK / "masks" / f"{name}.png"
        if photo.mask is not None:
            _link_file(upright_copies.mask_path(scene, photo), target)
        elif not target.is_file():  # COLMAP drops photographs without a mask if there are masks
            images.write_png(target, np.full((photo.height, photo.width), 255, dtype=np.uint8))


def _link_file(source: Path, target: Path) -> None:
    """A relative link, or a copy where links are not possible."""
    if os.path.lexists(target):
        return
    with io.os_errors_as_input_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.symlink_to(os.path.relpath(source, target.parent))
        except OSError:
            shutil.copyfile(source, target)


def _finish(
    scene: Path,
    source: Path,
    found: Collection,
    outcome: Outcome,
    options: ProcessOptions,
    began: float,
    key: dict[str, str],
) -> dict[str, Any]:
    """Write the results, ``transforms.json`` last; an InputError says why there are none."""
    matches = Matches(
        names=[photo.name for photo in found.photographs],
        longest=[max(photo.width, photo.height) for photo in found.photographs],
        features=outcome.features,
        pairs=np.array(outcome.pairs, dtype=np.float64).reshape(-1, 5),
        are_masked=any(photo.mask is not None for photo in found.photographs),
    )
    at_one_point = bool(outcome.registered) and diagnosis.is_of_noise(matches, outcome.details)
    if at_one_point or not outcome.registered:
        raise InputError(diagnosis.failure(str(source), matches, outcome.models, is_at_one_point=at_one_point))
    if warning := diagnosis.warning(str(source), matches, outcome.registered):
        log.warning("%s", warning)
    posed = _posed(scene, found.photographs)
    bounds = point_bounds.depth_bounds(posed)
    left_out = diagnosis.left_out(matches, outcome.registered)
    seconds = time.perf_counter() - began
    report = scene_report.build(
        source, found.photographs, found.unreadable, outcome, left_out, bounds, seconds, vars(options)
    )
    report["key"] = key  # known as well if the folder of work has been deleted
    gains = brightness.log_gains(posed)
    report["log_gains"] = {name: gain.tolist() for name, gain in zip(posed.names, gains, strict=True)}
    for doubt in scene_report.warnings(report):
        log.warning("%s: %s", source, doubt)
    _write(scene, posed, bounds, report)
    return report


def _posed(scene: Path, found: Sequence[Photograph]) -> PosedImages:
    """The model, with the images and masks of the scene."""
    posed = colmap.read(scene / WORK / _MODEL, scene / upright_copies.IMAGES)
    by_name = {photo.name: photo for photo in found}
    masks = tuple(
        upright_copies.mask_path(scene, by_name[name]) if by_name[name].mask is not None else None
        for name in posed.names
    )
    return replace(posed, masks=masks if any(masks) else ())


def _write(scene: Path, posed: PosedImages, bounds: Float64[np.ndarray, "v 2"], report: dict[str, Any]) -> None:
    """Write picture, report, COLMAP model, points, and at last ``transforms.json``, which makes the folder a scene."""
    cameras_picture.draw(scene / work_folder.PICTURE, posed, float(np.median(bounds[:, 1])))
    io.write_json(scene / splits.REPORT, report)
    target = scene / work_folder.SPARSE / "0"
    with io.os_errors_as_input_errors(target):
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        os.rename(scene / WORK / _MODEL, target)
    transforms_writer.write(scene / work_folder.TRANSFORMS, posed, lossy=True, write_points=colored_points.write_scene)
