"""Hallway: a finished run to a mesh in the user's coordinates, and pictures of it.

What a run is of is told by its checkpoint; a **subject** says what is to be known of it. The way: plan, march
(``shapes.marching``), map to the world, crop, drop, smooth, decimate, colour, write, look.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64, Int, UInt8

from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import coordinates
from enerf.experiments.options import BESIDE, ExtractOptions
from enerf.geometry import cleanup, topology, write
from enerf.geometry.isosurface import extract as isosurface_extract
from enerf.geometry.isosurface.cost import Plan
from enerf.geometry.isosurface.extract import ExtractionSettings, Surface
from enerf.geometry.isosurface.source import Box, MeshSource, MeshSourceSettings, Points
from enerf.geometry.preview import raycast, sphere_tracing, turntable
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene
from enerf.tasks import registry

log = logging.getLogger("enerf")

TRACED_STEPS = 384  # along a ray, where no slope is known
Faces = Int[np.ndarray, "m 3"]
Colors = UInt8[np.ndarray, "n 3"]


@dataclass(frozen=True)
class ExtractedMesh:
    """A mesh in the coordinates of the user's files.

    Attributes
    ----------
    vertices, faces, colors
        Float64 (n, 3), indices (m, 3), and colors (n, 3) as bytes or None.
    source
        The field that it was extracted from.
    surface
        The surface in the field's coordinates, before cropping and cleaning, with statistics of the extraction.
    """

    vertices: Points
    faces: Faces
    colors: Colors | None
    source: MeshSource
    surface: Surface


def mesh_of(folder: Path, chosen: ExtractOptions, box: Box | None = None) -> ExtractedMesh:
    """Extract the mesh of a run: plan, march, map to the files' coordinates, crop, clean, color.

    Parameters
    ----------
    folder
        Folder of the run.
    chosen
        Options of the command; those of output files are not used here, but for the precision that ``out`` can hold.
    box
        Where to search, two opposite corners in the coordinates of the user's files; None: everywhere.

    Raises
    ------
    InputError
        If the folder is no run, its task has no surface, an option has no meaning for it, the level is not crossed, or
        the work does not fit in memory; before the bulk of the work where that is known.
    """
    source = open_source(folder, chosen, box)
    if chosen.out:
        _check_precision(Path(chosen.out), source, chosen.resolution)
    log.info("%s: %s", source.name, source.description)
    surface = march(source, chosen, folder)
    vertices, faces = polished(source, surface, chosen)
    colors = None if chosen.no_colors else _colors(source, vertices, faces)
    return ExtractedMesh(vertices, faces, colors, source, surface)


def extract(folder: Path, chosen: ExtractOptions, box: Box | None = None) -> str:
    """Write the mesh of a run, and pictures if asked for; return a description of it and the files' names.

    Arguments as for ``mesh_of``.

    Raises
    ------
    InputError
        As ``mesh_of``, or if a file cannot be written.
    KeyboardInterrupt
        If interrupted; a mesh that was there before is kept.
    """
    began = time.perf_counter()
    folder = folder.expanduser()
    out = Path(chosen.out).expanduser() if chosen.out else folder / "mesh.ply"
    write.check_suffix(out)
    mesh = mesh_of(folder, replace(chosen, out=str(out)), box)
    write.write(out, mesh.vertices, mesh.faces, mesh.colors)
    lines = [described(mesh.surface, mesh.vertices, mesh.faces, time.perf_counter() - began)]
    if chosen.views:
        where = out.with_name(f"{out.stem}_views") if chosen.views == BESIDE else Path(chosen.views).expanduser()
        lines += map(str, look(mesh.source, mesh.vertices, mesh.faces, mesh.colors, chosen, where))
    return "\n".join([*lines, str(out)])


def open_source(folder: Path, chosen: ExtractOptions, box: Box | None = None) -> MeshSource:
    """Open the field of a run as a mesh source; ``box`` is in the coordinates of the user's files.

    Raises
    ------
    InputError
        If it is no run, or its task has no surface.
    """
    task, _ = registry.with_part("mesh_source", folder)
    settings = MeshSourceSettings(_level(chosen), box, chosen.device, chosen.precision, chosen.datadir)
    opened: MeshSource = task.load("mesh_source")(folder, settings)
    return opened


def march(subject: MeshSource, chosen: ExtractOptions, source: Path | str) -> Surface:
    """The surface in the field's coordinates, with progress; its plan is told first, what was missed afterwards.

    Raises
    ------
    InputError
        If the level is not crossed, the field is not finite, or memory will not do.
    """

    def announce(plan: Plan) -> None:
        log.info("%s", plan)

    settings = ExtractionSettings(
        chosen.resolution,
        subject.iso_value,
        inside=subject.inside,
        slope=subject.slope,
        closed=chosen.closed,
        coarsest=chosen.coarsest,
        check=chosen.check,
        points_at_once=subject.points_at_once,
        memory=int(chosen.memory * 2**30),
        progress=True,
    )
    try:
        found = isosurface_extract.extract(subject.field, subject.box, settings, announce=announce)
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    log.info("the field ranges over [%.4g, %.4g] where it was asked", *found.value_range)
    if found.check is not None:
        log.info("%s", found.check)
    return found


def polished(subject: MeshSource, found: Surface, chosen: ExtractOptions) -> tuple[Points, Faces]:
    """The mesh in the world: cropped, without small parts, smoothed, decimated, as far as asked for.

    Raises
    ------
    InputError
        If nothing is left.
    """
    made = found.mapped(subject.to_world)
    vertices, faces = made.vertices, made.faces
    kept = np.ones(len(vertices), dtype=bool)
    if subject.bounds is not None:
        slack = 1e-6 * np.ptp(subject.bounds, axis=0)
        kept &= ((vertices >= subject.bounds[0] - slack) & (vertices <= subject.bounds[1] + slack)).all(1)
    if chosen.crop and subject.camera_counts is None:
        raise InputError(f"option --crop: found {chosen.crop}, expected 0: a shape run has no cameras")
    if chosen.crop and subject.camera_counts is not None:
        kept &= subject.camera_counts(vertices) >= chosen.crop
    if not kept.all():
        vertices, faces = cleanup.keep(vertices, faces, kept)
    if not len(faces):
        raise InputError(f"options --box and --crop: nothing is left of {len(made.faces):,} faces, expected some")
    if chosen.largest or chosen.floaters:
        vertices, faces, left, parts = cleanup.largest(vertices, faces, chosen.largest, chosen.floaters)
        log.info("%d of %d parts are kept", left, parts)
    if chosen.smooth:
        vertices = cleanup.smooth(vertices, faces, chosen.smooth)
    if chosen.decimate:
        vertices, faces = cleanup.decimate(vertices, faces, chosen.decimate)
    return vertices, faces


def described(found: Surface, vertices: Points, faces: Faces, seconds: float) -> str:
    """What was made, and what it took."""
    edges = topology.edges(faces)
    whole = "watertight" if not edges.boundary.any() else f"open ({int(edges.boundary.sum()):,} edges with one face)"
    parts = topology.parts(faces)[0]
    return (
        f"{len(vertices):,} vertices, {len(faces):,} faces, {whole}, {parts:,} {'part' if parts == 1 else 'parts'}; "
        f"{seconds:.1f} s, {found.evaluations:,} field evaluations, of the dense grid's {found.plan.dense:,} "
        f"1 in {found.plan.dense / max(found.evaluations, 1):.1f}"
    )


def look(
    subject: MeshSource, vertices: Points, faces: Faces, colors: Colors | None, chosen: ExtractOptions, folder: Path
) -> list[Path]:
    """Write pictures of the mesh, and of the field by sphere tracing; what was written."""
    upright = coordinates.apply_transform(subject.frame, vertices)
    view = subject.view(upright, chosen.size)
    mesh = MeshScene(upright, faces, None if colors is None else colors / 255)
    written = turntable.write(folder, mesh, view, swing=subject.swing, frames=chosen.frames)
    if chosen.traced:
        written.append(folder / "traced.png")
        images.write_png(written[-1], traced(subject, upright, view))
    return written


def traced(subject: MeshSource, upright: Points, view: View) -> Float64[np.ndarray, "h w 3"]:
    """The field's level set as rays find it, within the box of the mesh: nothing of it cropped or polished."""
    back, outside = np.linalg.inv(subject.frame), subject.iso_value - (1 if subject.inside == "above" else -1)
    low, high = subject.box.double().cpu().numpy()

    def asked(points: torch.Tensor) -> torch.Tensor:
        with np.errstate(divide="ignore", invalid="ignore"):
            at = subject.from_world(coordinates.apply_transform(back, points.cpu().numpy()))
        within = torch.from_numpy(((at >= low) & (at <= high)).all(1))
        values = torch.full((len(at),), float(outside), dtype=torch.float64)
        some = torch.from_numpy(at[within.numpy()]).to(subject.box)
        parts = [subject.field(part).double().cpu() for part in some.split(subject.points_at_once)]
        values[within] = torch.cat([values[:0], *parts])
        return values

    box = torch.from_numpy(np.stack([upright.min(0), upright.max(0)]))
    box += torch.tensor([[-1e-3], [1e-3]]) * (box[1] - box[0])
    size = float((box[1] - box[0]).norm())
    slope = None if subject.slope is None else subject.slope * _stretch(subject)
    return sphere_tracing.picture(
        asked,
        view,
        box,
        subject.iso_value,
        inside=subject.inside,
        slope=slope,
        steps=TRACED_STEPS,
        difference_step=2e-3 * size,
    )


def _stretch(subject: MeshSource) -> float:
    """How many of the field's units one of the picture frame is; where a slope is known, maps are similarities."""
    ends = coordinates.apply_transform(subject.frame, subject.to_world(subject.box.double().cpu().numpy()))
    return float((subject.box[1] - subject.box[0]).double().norm()) / float(np.linalg.norm(ends[1] - ends[0]))


def _colors(subject: MeshSource, vertices: Points, faces: Faces) -> Colors | None:
    if subject.colors is None:
        return None
    return images.to_uint8(subject.colors(vertices, raycast.vertex_normals(vertices, faces)))


def _check_precision(out: Path, subject: MeshSource, resolution: int) -> None:
    """Refuse a format that could not tell the mesh's vertices apart."""
    low, high = subject.box.double().cpu().numpy()
    corners = subject.to_world(
        np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    )
    cell = float(np.ptp(corners, axis=0).max()) / resolution
    if write.too_coarse(out, corners.min(0), corners.max(0), cell):
        raise InputError(
            f"option --out: {out.name} would hold coordinates up to {np.abs(corners).max():.3g} in single precision, "
            f"which cannot tell cells of {cell:.3g} apart; expected .ply, .obj or .glb"
        )


def _level(chosen: ExtractOptions) -> float | None:
    """The level asked for, if one is."""
    if not chosen.level:
        return None
    try:
        level = float(chosen.level)
    except ValueError:
        level = float("nan")
    if not np.isfinite(level):
        raise InputError(f"option --level: found {chosen.level!r}, expected a finite number, or nothing for the rule")
    return level
