"""``enerf export-web``: the page of a run or of a mesh file."""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from enerf.core import files
from enerf.core.errors import InputError
from enerf.core.types import Camera, Rays
from enerf.datasets.scenes import coordinates
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.experiments import extract
from enerf.experiments.open_run import OpenedRun, open_run
from enerf.experiments.options import ExtractOptions
from enerf.export import mesh_page, page, planes_page
from enerf.export.mesh_page import NamedMesh
from enerf.export.options import WebOptions
from enerf.export.page import Page
from enerf.geometry import colored_points, read
from enerf.rendering.planes import bake, blocks, kernel, storage
from enerf.rendering.render import Picture
from enerf.tasks import registry
from enerf.tasks.registry import Task

log = logging.getLogger("enerf")

SHOWN = (1008, 756)  # pixels of the frame whose cost is printed


def export_web(source: Path, chosen: WebOptions) -> str:
    """Write the page of a run's folder or of a mesh file; returns what it costs to draw, its size, and its path.

    Raises
    ------
    InputError
        If it is neither, the run's scene is not forward-facing or its shape has no surface, or the page cannot be
        written.
    """
    source = source.expanduser()
    is_file = source.is_file()
    name = "web.html" if chosen.single else "web"
    beside = source.with_name(f"{source.stem}_{name}") if is_file else source / name
    out = Path(chosen.out).expanduser() if chosen.out else beside
    if not is_file:
        task, _ = registry.with_part("mesh_source", source)
    page.check_target(out, one_file=chosen.single)
    lines: list[str] = []
    if is_file:
        made = _of_mesh_file(source, chosen)
    elif task.has("planes"):
        made, lines = _of_scene(task, source, chosen)
    else:
        made = _of_shape(source, chosen)
    size = page.write(made, out, one_file=chosen.single)
    return "\n".join([*lines, f"{files.format_bytes(size)}", str(out if chosen.single else out / page.INDEX)])


def _of_scene(task: Task, folder: Path, chosen: WebOptions) -> tuple[Page, list[str]]:
    """The page of the planes of a NeRF run, and lines that say what it costs and shows."""
    run = open_run(folder, device=chosen.device, source=chosen.datadir)
    scene = run.scene
    if not scene.ndc:
        raise InputError(
            f"{folder}: found a scene that is not in normalized device coordinates, expected a forward-facing one, or "
            "the file of a mesh, such as enerf extract writes"
        )
    path = task.load("planes")(folder, 0, chosen.seconds, False, chosen.device, chosen.datadir, any_options=True)
    centers = float(run.options.get("pixel_centers", 0.5))
    scene = scene.to(torch.device("cpu"))
    baked = storage.load(path)
    thin = planes_page.thinned(baked, scene, chosen.layers, centers)
    if not len(thin.stack.tiles):
        raise InputError(f"{path}: found planes that are transparent everywhere, expected a field with a visible scene")
    encoded = planes_page.encode(thin, chosen.quality)
    shows = partial(planes_page.render, encoded.shown)
    lines = [cost(blocks.layers(thin.stack, thin.drawn, scene.camera))]
    caption = [_trained(run)]
    if scene.test and run.options.get("exposure", "off") == "off":
        before, after = (psnr(renders, scene, centers) for renders in (partial(kernel.render, baked), shows))
        if math.isfinite(after):
            caption.append(f"PSNR {after:.2f} dB on test views")
            lines.append(f"PSNR on test views: {after:.2f} dB, all planes before they were encoded {before:.2f} dB")
    title = chosen.title or scene.name
    poses = scene.c2w[list(scene.train)]
    return planes_page.page(encoded, _pinhole(scene.camera), poses, title, tuple(caption)), lines


def text_of_scene(folder: Path, source: str = "", device: str = "auto") -> str:
    """The text of a page of one file with the planes of a NeRF run; ``source`` is the new path of its scene, or empty.

    Raises
    ------
    InputError
        As ``export_web``.
    """
    task, _ = registry.with_part("planes", folder)
    return page.single(_of_scene(task, folder, WebOptions(datadir=source, device=device))[0])


def cost(layers: float, size: tuple[int, int] = SHOWN) -> str:
    """What a frame costs: fragments, and bytes of textures read and of the target read and written."""
    fragments = layers * size[0] * size[1]
    moved = fragments * (planes_page.BYTES_BLENDED + planes_page.BYTES_READ)
    return (
        f"{layers:.1f} layers a pixel; a frame of {size[0]} × {size[1]} pixels has {fragments / 1e6:.1f} million "
        f"fragments and moves {moved / 1e6:.0f} MB"
    )


def psnr(renders: Callable[[Rays], Picture], scene: Scene, pixel_centers: float | int = 0.5) -> float:
    """Mean over the test views of the PSNR of their images, as a renderer of planes shows them.

    Masked pixels and those without a ray have no part. Views without others are left out; NaN if that are all.
    """
    found = []
    for view in scene.test:
        through = bake.view_rays(scene, view, pixel_centers)[0]
        picture = renders(through).rgb.clamp(0, 1)
        error = (picture - scenes_pixels.view_image(scene, view).reshape(-1, 3)).square().mean(1)
        mask, has_ray = scenes_pixels.view_mask(scene, view), through.directions.isfinite().all(1)
        used = error[has_ray if mask is None else has_ray & mask.flatten()]
        if len(used):
            found.append(-10 * math.log10(max(float(used.mean()), 1e-10)))
    return float(np.mean(found)) if found else math.nan


def _pinhole(camera: Camera) -> Camera:
    return replace(camera, model="PINHOLE", coefficients=())


def _trained(run: OpenedRun) -> str:
    """Method, steps and seconds of a run in words."""
    try:
        method = str(run.metrics.get("method", ""))
    except InputError:
        method = ""
    return ", ".join(filter(None, [method or run.kind, f"{run.step:,} steps"]))


def _of_shape(folder: Path, chosen: WebOptions) -> Page:
    """The page of the mesh of a shape run beside the one that it was fitted to."""
    options = ExtractOptions(resolution=chosen.resolution, device=chosen.device, datadir=chosen.datadir)
    made = extract.mesh_of(folder, options)
    run, frame = open_run(folder), made.source.frame
    original = _original(chosen)
    if original is None:
        solid = None if made.source.solid is None else made.source.solid()
        if solid is not None:
            vertices = solid.mesh.normalization.to_file(solid.mesh.vertices)
            original = NamedMesh("original", vertices, solid.mesh.faces)
        else:
            log.info("%s: the mesh that it was fitted to is not found, the page has no comparison", folder)
    mesh = NamedMesh("fitted", made.vertices, made.faces, made.colors)
    mesh, original = _turned(mesh, frame), None if original is None else _turned(original, frame)
    return mesh_page.page(mesh, original, chosen.title or made.source.name, (_trained(run),), chosen.faces)


def _of_mesh_file(path: Path, chosen: WebOptions) -> Page:
    """The page of the mesh of a file."""
    mesh, original = _read(path, path.stem), _original(chosen)
    frame = np.eye(4)
    if chosen.up == "z":
        frame[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]
    mesh, original = _turned(mesh, frame), None if original is None else _turned(original, frame)
    return mesh_page.page(mesh, original, chosen.title or path.stem, (), chosen.faces)


def _original(chosen: WebOptions) -> NamedMesh | None:
    """The mesh of the option ``--original``."""
    return _read(Path(chosen.original).expanduser(), "original") if chosen.original else None


def _read(path: Path, name: str) -> NamedMesh:
    """A mesh file; the colors of a PLY file too."""
    vertices, faces = read.mesh(path)
    finite = np.isfinite(vertices.sum(1))
    colors = colored_points.read(path)[1] if path.suffix.lower() == ".ply" and finite.all() else None
    faces = faces[finite[faces].min(1)]
    if not len(faces):
        raise InputError(f"{path}: found no face with finite vertices, expected a mesh")
    return NamedMesh(name, np.where(finite[:, None], vertices, 0.0), faces, colors)


def _turned(mesh: NamedMesh, frame: np.ndarray) -> NamedMesh:
    return replace(mesh, vertices=coordinates.apply_transform(frame, mesh.vertices))
