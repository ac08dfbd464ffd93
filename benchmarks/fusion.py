"""Meshes of a radiance field by fusion of depth maps and by marching: open rays, depth errors, small parts, seconds.

    python benchmarks/fusion.py RUN [--resolution 384] [--datadir SCENE] [--lattices ndc,scene] [--between 0]

All meshes are of the same run at the same resolution, without cropping or dropping of small parts by options. Rays of
all pixels of the test views are cast into each mesh. Printed: the share that meets the surface; the median of the
relative difference between the depth on the mesh and the depth that the field renders (median of the weights), over
the rays that meet the mesh and whose rendered depth is within the scene's farthest bound; the PSNR of vertex colors
against the photographs, of the rays that meet the mesh; connected parts; those below 0.1 % of the area; CPU seconds
without those of colors. ``scene`` is fusion on a lattice that is even in scene coordinates, for scenes
that use NDC, with a truncation that grows with the distance from the camera. The last line is ``ratio=X
noise=LOW..HIGH``: depth errors of marching over those of fusion, and their range over the test views.
"""

import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ours
import sides
import torch

from enerf.datasets.scenes import coordinates, frusta, pixels, rays
from enerf.datasets.scenes.scene import Scene
from enerf.experiments import extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry import topology
from enerf.geometry.fusion import FusedDepths
from enerf.geometry.isosurface.source import MeshSource
from enerf.geometry.preview.raycast import MeshScene, vertex_normals
from enerf.rendering.render import in_chunks
from enerf.reporting import tables
from enerf.tasks.nerf import depth_maps, fused_mesh, setup, views

SMALL = 1e-3  # share of the area


def rendered(scene: Scene, renderer: Any, view: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Origins, directions, rendered depths (t) and photographed colors of all rays of a view, in scene coordinates."""
    all_rays = rays.of_image(scene.cameras.camera(view), scene.c2w[view], scene.near, scene.far, renderer.pixel_centers)
    field_rays = rays.to_ndc(all_rays, scene.camera) if scene.ndc else all_rays
    found = in_chunks(partial(depth_maps._with_median_depth, renderer), field_rays, renderer.rays_at_once)
    origins, directions = all_rays.origins.double().numpy(), all_rays.directions.double().numpy()
    t = found.depth.double().numpy()
    if scene.ndc:
        z = field_rays.at(found.depth[:, None])[:, 0, 2].double().numpy()
        t = (2 / np.minimum(z - 1, -1e-9) - origins[:, 2]) / directions[:, 2]
    return origins, directions, t, pixels.view_image(scene, view).reshape(-1, 3).numpy()


def scored(
    scene: Scene, views: list[Any], vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray
) -> dict[str, Any]:
    """Figures of a mesh in scene coordinates with vertex colors."""
    mesh, far = MeshScene(vertices, faces), float(scene.bounds[:, 1].max())
    met, errors, psnr = [], [], []
    for origins, directions, t, photograph in views:
        length = np.linalg.norm(directions, axis=1)
        distance, face, weights = mesh.hits(origins, directions / length[:, None])
        hit = face >= 0
        seen = (weights[hit][:, :, None] * colors[faces[face[hit]]]).sum(1)
        psnr.append(-10 * np.log10(np.square(seen - photograph[hit]).mean()))
        met.append(float(hit.mean()))
        known = hit & (t <= far)
        errors.append(float(np.median(np.abs(distance[known] / length[known] - t[known]) / t[known])))
    count, part = topology.parts(faces)
    areas = np.bincount(part, topology.areas(vertices, faces), count)
    small = int((areas < SMALL * areas.sum()).sum())
    found = {"met": statistics.fmean(met), "errors": errors, "psnr": statistics.fmean(psnr)}
    return {**found, "parts": count, "small": small, "faces": len(faces)}


def in_scene(scene: Scene, source: MeshSource, chosen: ExtractOptions) -> tuple[MeshSource, Scene]:
    """The source by fusion on a lattice in scene coordinates, of a scene that uses NDC, and the scene without NDC."""
    run = setup.open_run(Path(chosen.out), "cpu", chosen.datadir)
    plain, box = replace(scene, ndc=False), source.box
    box = torch.from_numpy(frusta.surface_box(plain)).to(box)
    maps = depth_maps.surface_maps(
        scene, views.renderer_of(run), depth_maps.viewpoints(scene, chosen.between), chosen.fusion_rays, ndc=False
    )
    truncation = fused_mesh.truncation_of(box, chosen.resolution, False)
    field = FusedDepths(maps, replace(truncation, share=0.04))
    assert source.support is not None
    return replace(source, field=field, box=box, support=replace(source.support, views=field.views_near)), plain


def main() -> None:
    """Print the figures."""
    reader = sides.parser(__doc__)
    reader.add_argument("run", help="the folder of a NeRF run")
    reader.add_argument("--resolution", type=int, default=384)
    reader.add_argument("--between", type=int, default=0, help="cameras between training views; default: 0")
    reader.add_argument("--lattices", default="ndc", help="of fusion: ndc,scene; default: ndc, the scene's own")
    reader.add_argument("--datadir", default="", help="new path of the scene, if it has moved")
    args = reader.parse_args()
    report = sides.Report(args.out, ours.device_of("cpu"))
    run = setup.open_run(Path(args.run), "cpu", args.datadir)
    scene, renderer = run.present_scene, views.renderer_of(run)
    seen = [rendered(scene, renderer, view) for view in scene.test]
    beyond = statistics.fmean(float((t > float(scene.bounds[:, 1].max())).mean()) for _, _, t, _ in seen)
    report(f"{scene.name}, step {run.state.step}, resolution {args.resolution}, {torch.get_num_threads()} threads")
    report(f"{beyond:.1%} of the rays of {len(scene.test)} test views render a depth beyond the farthest bound")
    rows, errors = [["", "rays that meet it", "median error", "colors, dB", "parts", "small", "faces", "CPU s"]], {}
    fusion = [f"fusion, {name}" for name in args.lattices.split(",")]
    for name in ["marching", *fusion, "fusion, all parts"]:
        chosen = ExtractOptions(
            method="march" if name == "marching" else "fusion", resolution=args.resolution, between=args.between,
            all_parts=name.endswith("all parts"), device="cpu", datadir=args.datadir,
        )  # fmt: skip
        began, where = time.process_time(), scene
        source = extract.open_source(Path(args.run), chosen)
        if name == "fusion, scene":
            began = time.process_time()
            source, where = in_scene(scene, source, replace(chosen, out=args.run))
        surface = extract.march(source, chosen, args.run)
        seconds = time.process_time() - began
        placed = surface.mapped(partial(coordinates.to_world, where))
        assert source.colors is not None
        colors = source.colors(placed.vertices, vertex_normals(placed.vertices, placed.faces))
        found = scored(scene, seen, coordinates.to_scene(where, surface.vertices), surface.faces, colors)
        errors[name] = found["errors"]
        row = [name, f"{found['met']:.2%}", f"{statistics.fmean(found['errors']):.2%}", f"{found['psnr']:.2f}"]
        rows.append([*row, *(f"{found[key]:,}" for key in ("parts", "small", "faces")), f"{seconds:.0f}"])
    report(tables.as_text(rows))
    report("small: parts below 0.1 % of the area. ratio: median depth errors of marching over those of fusion")
    report(sides.ratio_line(sides.ratios(errors["marching"], errors[fusion[0]])))


if __name__ == "__main__":
    sides.enter(main)
