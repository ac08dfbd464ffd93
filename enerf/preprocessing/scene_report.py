"""``report.json`` of a processed scene, and its summary as text."""

import importlib.metadata
import platform
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from enerf.core.image_files import some
from enerf.datasets.scenes import camera_models
from enerf.datasets.scenes.splits import MADE_BY
from enerf.preprocessing.colmap_process import Outcome
from enerf.preprocessing.photographs import Photograph

WEAK, DIFFERENT = 0.02, 0.1  # relative deviation of a focal length that is weakly determined; from that of EXIF data
FEW_POINTS = 100  # of a photograph that others show too: with fewer its pose may be wrong
NARROWEST, WIDEST = 0.2, 10.0  # focal lengths, times the longer side, outside of which something is wrong


def build(
    source: Path,
    photographs: Sequence[Photograph],
    unreadable: dict[str, str],
    outcome: Outcome,
    left_out: dict[str, str],
    bounds: Float64[np.ndarray, "v 2"],
    seconds: float,
    options: dict[str, Any],
) -> dict[str, Any]:
    """Content of ``report.json``.

    Parameters
    ----------
    source
        The input.
    photographs
        All that were given to COLMAP.
    unreadable, left_out
        Photographs that are not in the scene, by name, with the reason.
    outcome
        Result of COLMAP.
    bounds
        Near and far of each registered photograph.
    seconds
        Time that this call took.
    options
        The options.
    """
    details = outcome.details
    registered = [photographs[i].name for i in outcome.registered]
    return {
        "made_by": MADE_BY,
        "input": source.absolute().as_posix(),
        "photographs": len(photographs),
        "registered": registered,
        "not_registered": left_out,
        "unreadable": unreadable,
        "cameras": [_camera(camera, photographs) for camera in details["cameras"]],
        "principal_point_is_refined": details["principal_point_is_refined"],
        "points": details["points"],
        "observations": details["observations"],
        "track_length": details["track_length"],
        "reprojection_error": details["reprojection_error"],
        "points_of": {photographs[int(i)].name: count for i, count in details["points_of"].items()},
        "key_points": {p.name: count for p, count in zip(photographs, outcome.features, strict=True)},
        "models": [{"photographs": size, "points": points} for size, points in outcome.models],
        "depths": {"near": float(bounds[:, 0].min()), "far": float(bounds[:, 1].max())},
        "seconds": round(seconds, 1),
        "options": options,
        "versions": _versions(),
    }


def _camera(camera: dict[str, Any], photographs: Sequence[Photograph]) -> dict[str, Any]:
    """One camera: parameters by name, its photographs, and what is known of its focal length."""
    members = [photographs[i] for i in camera["members"]]
    names = camera_models.MODELS[camera["model"]].parameters
    exif = [photo.focal for photo in members if photo.focal is not None]
    return {
        "model": camera["model"],
        "width": camera["width"],
        "height": camera["height"],
        "parameters": dict(zip(names, camera["parameters"], strict=True)),
        "focal_length": camera["focal"],
        "focal_length_deviation": camera["focal_deviation"],
        "focal_length_exif": float(np.median(exif)) if exif else None,
        "focal_length_is_fixed": camera["is_fixed"],
        "photographs": [photo.name for photo in members],
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("enerf", "pycolmap", "numpy", "pillow"):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def warnings(report: dict[str, Any]) -> list[str]:
    """Doubts about the cameras, one sentence each."""
    found = []
    if report["principal_point_is_refined"] and report["options"]["principal_point"] == "auto":
        found.append(
            "the principal point is not the center of the images, so that it was computed: the photographs seem to be "
            "cropped (--principal_point center keeps it there)"
        )
    if weak := [f"{name} ({count})" for name, count in report["points_of"].items() if count < FEW_POINTS]:
        found.append(
            f"{len(weak)} of {report['photographs']} photographs show fewer than {FEW_POINTS} points that others show "
            f"too, so that their poses may be wrong: {some(weak)}; photographs between them and the others help"
        )
    for camera in report["cameras"]:
        focal, deviation, exif = (camera[f"focal_length{part}"] for part in ("", "_deviation", "_exif"))
        who = some(camera["photographs"])
        if not NARROWEST <= focal / max(camera["width"], camera["height"]) <= WIDEST:
            found.append(
                f"a focal length of {focal:.0f} pixels for {camera['width']} pixels of width is implausible: look at "
                f"cameras.png before training ({who})"
            )
        elif deviation is not None and deviation > WEAK * focal and not camera["focal_length_is_fixed"]:
            found.append(
                f"the focal length is weakly determined, {focal:.0f} ± {deviation:.0f} pixels: photographs from more "
                f"places, or with EXIF data, determine it better ({who})"
            )
        if exif and abs(focal - exif) > DIFFERENT * exif:
            found.append(
                f"the focal length of {focal:.0f} pixels differs from that of the EXIF data, {exif:.0f} pixels; zoomed "
                f"or cropped photographs have such data ({who})"
            )
    return found


def summary(report: dict[str, Any], scene: Path) -> str:
    """The report in a few lines, and the next command."""
    registered, total = len(report["registered"]), report["photographs"]
    lines = [f"{registered} of {total} photographs registered in {report['seconds']:.0f} s"]
    if report["not_registered"]:
        lines.append(f"not registered: {some(report['not_registered'])}")
    lines += [_camera_line(camera) for camera in report["cameras"][:5]]
    more = len(report["cameras"]) - 5
    lines += [f"and {more} more cameras"] if more > 0 else []
    lines.append(
        f"{report['points']:,} points, each in {report['track_length']['mean']:.1f} photographs on average, with an "
        f"error of {report['reprojection_error']['mean']:.2f} pixels; depths from {report['depths']['near']:.3g} to "
        f"{report['depths']['far']:.3g}"
    )
    lines += [
        f"picture of cameras and points: {scene / 'cameras.png'}",
        f"next: enerf train --datadir {shlex.quote(str(scene))}",
    ]
    return "\n".join(lines)


def _camera_line(camera: dict[str, Any]) -> str:
    deviation = camera["focal_length_deviation"]
    exact = "" if deviation is None else f" ± {deviation:.2g}"
    exact = " (of the EXIF data)" if camera["focal_length_is_fixed"] else exact
    return (
        f"camera {camera['model']}, {camera['width']}x{camera['height']}, of {len(camera['photographs'])} photographs: "
        f"focal length {camera['focal_length']:.1f}{exact} pixels"
    )
