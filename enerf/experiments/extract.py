"""Mesh extraction from a finished run, in the coordinates of the user's files, and pictures of the mesh.

The task of a run is read from its checkpoint; it opens the run's field as a ``MeshSource``. Steps: plan, march
(``enerf.geometry.isosurface``), drop parts that the fitted shape does not have, map to the files' coordinates, crop,
drop small parts, smooth, decimate, color, write, render pictures.
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
from enerf.engine import distributed
from enerf.experiments.options import BESIDE, ExtractOptions
from enerf.geometry import cleanup, spurious, texture, topology, write
from enerf.geometry.isosurface import extract as isosurface_extract
from enerf.geometry.isosurface.cost import Plan
from enerf.geometry.isosurface.extract import ExtractionSettings, NotCrossedError, Surface
from enerf.geometry.isosurface.source import (
    Box,
    FusionSettings,
    MeshSource,
    MeshSourceSettings,
    Points,
    Support,
)
from enerf.geometry.preview import raycast, sphere_tracing, turntable
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene
from enerf.geometry.texture import TexturedMesh
from enerf.tasks import registry

log = logging.getLogger("enerf")

TRACED_STEPS = 384  # largest number of steps along a ray
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
    texture
        The same mesh with a texture in the place of vertex colors, if one was asked for; or None.
    """

    vertices: Points
    faces: Faces
    colors: Colors | None
    source: MeshSource
    surface: Surface
    texture: TexturedMesh | None = None


def mesh_of(folder: Path, chosen: ExtractOptions, box: Box | None = None) -> ExtractedMesh:
    """Extract the mesh of a run: plan, march, map to the files' coordinates, crop, clean, color.

    Parameters
    ----------
    folder
        Folder of the run.
    chosen
        Options of the command; of those for output files only the suffix of ``out`` is used, for its precision.
    box
        Region to search, as two opposite corners in the coordinates of the user's files; None: everywhere.

    Raises
    ------
    InputError
        If the folder is not a run, its task has no surface or does not support an option, the iso value is not crossed,
        or memory is too small; raised before the extraction if possible.
    """
    source = open_source(folder, chosen, box)
    if chosen.out:
        _check_precision(Path(chosen.out), source, chosen.resolution)
    return _mesh_of(source, chosen, folder)


def _mesh_of(source: MeshSource, chosen: ExtractOptions, folder: Path) -> ExtractedMesh:
    """Extract the mesh of an opened run."""
    if chosen.crop and source.camera_counts is None:
        raise InputError(f"option --crop: found {chosen.crop}, expected 0: this run has no cameras")
    log.info("%s: %s", source.name, source.description)
    surface = march(source, chosen, folder)
    vertices, faces = postprocess(source, surface, chosen)
    if not chosen.texture:
        colors = None if chosen.no_colors else _colors(source, vertices, faces)
        return ExtractedMesh(vertices, faces, colors, source, surface)
    assert source.colors is not None
    made = texture.textured(vertices, faces.astype(np.int64), source.colors, chosen.texture)
    return ExtractedMesh(vertices, faces, None, source, surface, made)


def _check_options(chosen: ExtractOptions) -> None:
    """Check what the options alone tell, before a run is opened.

    Raises
    ------
    InputError
        If one is given that the method does not have, meshes cannot have so few faces, or a texture cannot be made.
    """
    if chosen.method == "fusion":
        if chosen.level:
            raise InputError(f"option --level: found {chosen.level!r}, expected none with --method fusion")
    else:
        for name, default in (("fusion_rays", ExtractOptions.fusion_rays), ("between", 0), ("no_fill", False)):
            found = getattr(chosen, name)
            if found != default:
                raise InputError(f"option --{name}: found {found}, expected {default} without --method fusion")
    if 0 < chosen.decimate < cleanup.FEWEST_FACES:
        raise InputError(
            f"option --decimate: found {chosen.decimate}, expected 0 or at least {cleanup.FEWEST_FACES} faces"
        )
    if chosen.texture:
        if chosen.no_colors:
            raise InputError(f"option --texture: found {chosen.texture}, expected 0: --no_colors is given")
        texture.check(chosen.texture)


def extract(folder: Path, chosen: ExtractOptions, box: Box | None = None) -> str:
    """Write the mesh of a run, and pictures with ``views``; return a description of it and the names of the files.

    Arguments as for ``mesh_of``. Several processes evaluate the field together, and the first one does all else.

    Raises
    ------
    InputError
        As ``mesh_of``, or if a file cannot be written.
    KeyboardInterrupt
        If interrupted; an existing mesh file is kept.
    """
    began = time.perf_counter()
    folder = folder.expanduser()
    if not distributed.current().is_first:
        march(open_source(folder, chosen, box), chosen, folder)
        return ""
    if chosen.out:
        write.check_target(Path(chosen.out).expanduser())
        if chosen.texture:
            write.check_textured(Path(chosen.out))
    source = open_source(folder, chosen, box)
    name = Path(source.file_name).with_suffix(".glb") if chosen.texture else Path(source.file_name)
    out = Path(chosen.out).expanduser() if chosen.out else folder / name
    where = out.with_name(f"{out.stem}_views") if chosen.views == BESIDE else Path(chosen.views).expanduser()
    write.check_target(out)
    if chosen.views:
        write.check_writable(where)
    _check_precision(out, source, chosen.resolution)
    mesh = _mesh_of(source, chosen, folder)
    if mesh.texture is None:
        write.write(out, mesh.vertices, mesh.faces, mesh.colors)
    else:
        write.write_textured(out, mesh.texture)
    lines = [describe(mesh.surface, mesh.vertices, mesh.faces, time.perf_counter() - began)]
    if chosen.views:
        lines += map(str, write_pictures(mesh, chosen, where))
    return "\n".join([*lines, str(out)])


def open_source(folder: Path, chosen: ExtractOptions, box: Box | None = None) -> MeshSource:
    """Open the field of a run as a mesh source; ``box`` is in the coordinates of the user's files.

    Raises
    ------
    InputError
        If options contradict each other, the folder is not a run, or its task has no surface, or no colors for a
        texture.
    """
    _check_options(chosen)
    task, _ = registry.with_part("mesh_source", folder)
    fusion = None
    if chosen.method == "fusion":
        fusion = FusionSettings(chosen.resolution, chosen.fusion_rays, chosen.between, chosen.no_fill)
    settings = MeshSourceSettings(_iso_value(chosen), box, chosen.device, chosen.precision, chosen.datadir, fusion)
    opened: MeshSource = task.load("mesh_source")(folder, settings)
    if chosen.texture and opened.colors is None:
        raise InputError(f"option --texture: found {chosen.texture}, expected 0: {opened.name} has no colors")
    return opened


def march(source: MeshSource, chosen: ExtractOptions, label: Path | str) -> Surface:
    """Extract the surface in the field's coordinates; log the plan, progress, and the result of ``check``.

    Raises
    ------
    InputError
        If the iso value is not crossed, the field is not finite, or memory is too small.
    """

    def announce(plan: Plan) -> None:
        log.info("%s", plan)

    settings = ExtractionSettings(
        chosen.resolution,
        source.iso_value,
        inside=source.inside,
        slope=source.slope,
        closed=chosen.closed,
        coarsest=chosen.coarsest,
        check=chosen.check,
        points_at_once=source.points_at_once,
        memory=int(chosen.memory * 2**30),
        progress=True,
        surface_cells=None if source.signs is None else source.signs.surface_cells(),
        in_order=distributed.current().map,
    )
    try:
        found = isosurface_extract.extract(source.field, source.box, settings, announce=announce)
    except NotCrossedError as error:
        if source.support is None:
            raise InputError(f"{label}: {error}") from None
        raise InputError(
            f"{label}: found no surface of depth maps in the box, expected one; give another --box or a run that was "
            "trained for longer"
        ) from None
    except ValueError as error:
        raise InputError(f"{label}: {error}") from None
    log.info("the evaluated values of the field range over [%.4g, %.4g]", *found.value_range)
    if found.check is not None:
        log.info("%s", found.check)
    if source.support is not None:
        return _observed(source, source.support, found, label, chosen.all_parts)
    return found if chosen.all_parts else _without_spurious_parts(source, found, label)


def _observed(source: MeshSource, support: Support, found: Surface, label: Path | str, all_parts: bool) -> Surface:
    """Drop the vertices that no depth map sees, and unless ``all_parts`` the parts that too few see.

    Raises
    ------
    InputError
        If nothing is left.
    """
    points = torch.from_numpy(found.vertices).to(source.box).split(source.points_at_once)
    seen = torch.cat([support.views(part) for part in points]).cpu().numpy()
    vertices, faces = cleanup.keep(found.vertices, found.faces, seen > 0)
    if not all_parts and len(faces):
        count, part = topology.parts(faces)
        corners = np.zeros(len(found.vertices), bool)
        corners[found.faces[(seen > 0)[found.faces].all(1)]] = True
        near = seen[corners][faces].mean(1)
        means = np.bincount(part, near, count) / np.bincount(part, minlength=count)
        stays = means >= support.least
        log.info("%s: %d of %d parts are seen by %g depth maps or more", label, stays.sum(), count, support.least)
        vertices, faces = cleanup.used(vertices, faces[stays[part]])
    if not len(faces):
        least, advice = (1.0, "train for longer") if all_parts else (support.least, "try --all_parts")
        raise InputError(f"{label}: found no part that {least:g} depth maps see, expected one; {advice}")
    return replace(found, vertices=vertices, faces=faces)


def _without_spurious_parts(source: MeshSource, found: Surface, label: Path | str) -> Surface:
    """Drop the parts that the shape does not have; unchanged, and logged, where the run does not know them."""
    if source.signs is None:
        if source.camera_counts is None:
            log.info("%s: the run does not record where its shape is: parts of the mesh are not checked", label)
        return found
    vertices, faces, dropped = spurious.drop(found.vertices, found.faces, source.signs, source.solid)
    if dropped.spurious or dropped.none_left:
        log.warning("%s: %s; --all_parts keeps them", label, dropped)
    elif dropped.unchecked:
        log.info("%s: %d small parts are not checked: the file of the shape is needed", label, dropped.unchecked)
    return replace(found, vertices=vertices, faces=faces)


def postprocess(source: MeshSource, found: Surface, chosen: ExtractOptions) -> tuple[Points, Faces]:
    """Map the mesh to the files' coordinates, crop it, drop small parts, smooth and decimate it, as the options say.

    Raises
    ------
    InputError
        If no face is left.
    """
    mapped = found.mapped(source.to_world)
    vertices, faces = mapped.vertices, mapped.faces
    kept = np.ones(len(vertices), dtype=bool)
    if source.bounds is not None:
        slack = 1e-6 * np.ptp(source.bounds, axis=0)
        kept &= ((vertices >= source.bounds[0] - slack) & (vertices <= source.bounds[1] + slack)).all(1)
    if chosen.crop and source.camera_counts is not None:
        kept &= source.camera_counts(vertices) >= chosen.crop
    if not kept.all():
        vertices, faces = cleanup.keep(vertices, faces, kept)
    if not len(faces):
        raise InputError(f"options --box and --crop: nothing is left of {len(mapped.faces):,} faces, expected some")
    if chosen.largest or chosen.floaters:
        vertices, faces, left, parts = cleanup.largest(vertices, faces, chosen.largest, chosen.floaters)
        log.info("kept %d of %d parts", left, parts)
    if chosen.smooth:
        vertices = cleanup.smooth(vertices, faces, chosen.smooth)
    most = chosen.decimate or (texture.MOST_FACES if chosen.texture else 0)
    if chosen.texture and not chosen.decimate and len(faces) > most:
        log.info("decimated from %d to %d faces for the texture; --decimate says to how many", len(faces), most)
    if most:
        vertices, faces = cleanup.decimate(vertices, faces, most)
    if not len(faces):
        raise InputError(f"option --decimate: nothing is left of the mesh with {most:,} faces, expected some")
    return vertices, faces


def describe(found: Surface, vertices: Points, faces: Faces, seconds: float) -> str:
    """Return a description of the mesh, the time and the number of field evaluations."""
    edges = topology.edges(faces)
    whole = "watertight" if not edges.boundary.any() else f"open ({int(edges.boundary.sum()):,} edges with one face)"
    parts = topology.parts(faces)[0]
    share = 100 * found.evaluations / found.plan.dense
    return (
        f"{len(vertices):,} vertices, {len(faces):,} faces, {whole}, {parts:,} {'part' if parts == 1 else 'parts'}; "
        f"{seconds:.1f} s, {found.evaluations:,} field evaluations: {share:.3g} % of the {found.plan.dense:,} of "
        "the dense grid"
    )


def write_pictures(made: ExtractedMesh, chosen: ExtractOptions, folder: Path) -> list[Path]:
    """Write pictures of the mesh, and with ``traced`` of the field by sphere tracing; return the files."""
    source = made.source
    upright = coordinates.apply_transform(source.frame, made.vertices)
    view = source.view(upright, chosen.size)
    colors = None if made.colors is None else made.colors / 255
    mesh = MeshScene(upright, made.faces, colors if made.texture is None else made.texture.colors_at)
    written = turntable.write(folder, mesh, view, swing=source.swing, frames=chosen.frames)
    if chosen.traced:
        written.append(folder / "traced.png")
        images.write_png(written[-1], trace_view(source, upright, view))
    return written


def trace_view(source: MeshSource, upright: Points, view: View) -> Float64[np.ndarray, "h w 3"]:
    """Render the field's level set by sphere tracing, within the bounding box of the mesh, without post-processing."""
    back, outside = np.linalg.inv(source.frame), source.iso_value - (1 if source.inside == "above" else -1)
    low, high = source.box.double().cpu().numpy()

    def values_at(points: torch.Tensor) -> torch.Tensor:
        with np.errstate(divide="ignore", invalid="ignore"):
            at = source.from_world(coordinates.apply_transform(back, points.cpu().numpy()))
        within = torch.from_numpy(((at >= low) & (at <= high)).all(1))
        values = torch.full((len(at),), float(outside), dtype=torch.float64)
        some = torch.from_numpy(at[within.numpy()]).to(source.box)
        parts = [source.field(part).double().cpu() for part in some.split(source.points_at_once)]
        values[within] = torch.cat([values[:0], *parts])
        return values

    box = torch.from_numpy(np.stack([upright.min(0), upright.max(0)]))
    box += torch.tensor([[-1e-3], [1e-3]]) * (box[1] - box[0])
    size = float((box[1] - box[0]).norm())
    slope = None if source.slope is None else source.slope * _stretch(source)
    return sphere_tracing.picture(
        values_at,
        view,
        box,
        source.iso_value,
        inside=source.inside,
        slope=slope,
        steps=TRACED_STEPS,
        difference_step=2e-3 * size,
    )


def _stretch(source: MeshSource) -> float:
    """Return the length of one unit of the picture frame in field units; requires that the maps are similarities."""
    ends = coordinates.apply_transform(source.frame, source.to_world(source.box.double().cpu().numpy()))
    return float((source.box[1] - source.box[0]).double().norm()) / float(np.linalg.norm(ends[1] - ends[0]))


def _colors(source: MeshSource, vertices: Points, faces: Faces) -> Colors | None:
    if source.colors is None:
        return None
    return images.to_uint8(source.colors(vertices, raycast.vertex_normals(vertices, faces)))


def _check_precision(out: Path, source: MeshSource, resolution: int) -> None:
    """Check that the file format has enough precision to distinguish neighboring vertices."""
    low, high = source.box.double().cpu().numpy()
    corners = source.to_world(
        np.array([[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])])
    )
    cell = float(np.ptp(corners, axis=0).max()) / resolution
    if write.too_coarse(out, corners.min(0), corners.max(0), cell):
        raise InputError(
            f"option --out: {out.name} would hold coordinates up to {np.abs(corners).max():.3g} in single precision, "
            f"which cannot tell cells of {cell:.3g} apart; expected .ply, .obj or .glb"
        )


def _iso_value(chosen: ExtractOptions) -> float | None:
    """Parse ``--level``; None if it is empty."""
    if not chosen.level:
        return None
    try:
        level = float(chosen.level)
    except ValueError:
        level = float("nan")
    if not np.isfinite(level):
        raise InputError(
            f"option --level: found {chosen.level!r}, expected a finite number, or nothing for the default rule"
        )
    return level
