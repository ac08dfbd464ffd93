"""Marching cubes of other libraries on a dense array: the other side of ``extraction.py --peers``.

    PYTHON isosurface_peer.py NAME ARRAY.npy [--level 0] [--threads 2] [--rounds 1]

Prints a JSON line: the seconds of each round, vertices and faces; or why the library is ``missing``. The array lies in
memory, in the layout that the library takes, before the clock starts; what it returns is not converted. Only this file
imports the libraries, so that they may be installed apart from the project.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Extract = Callable[[], tuple[int, int]]  # extracts a mesh; returns the numbers of its vertices and faces


def scikit_image(values: np.ndarray, level: float, threads: int) -> Extract:
    from skimage import measure

    def run() -> tuple[int, int]:
        vertices, faces, *_ = measure.marching_cubes(values, level)
        return len(vertices), len(faces)

    return run


def pymcubes(values: np.ndarray, level: float, threads: int) -> Extract:
    import mcubes

    def run() -> tuple[int, int]:
        vertices, faces = mcubes.marching_cubes(values, level)
        return len(vertices), len(faces)

    return run


def vtk_flying_edges(values: np.ndarray, level: float, threads: int) -> Extract:
    import vtk
    from vtk.util import numpy_support

    vtk.vtkSMPTools.SetBackend("STDThread" if threads > 1 else "Sequential")
    vtk.vtkSMPTools.Initialize(threads)
    image = vtk.vtkImageData()
    image.SetDimensions(*values.shape[::-1])
    scalars = numpy_support.numpy_to_vtk(values.ravel(), deep=False)
    image.GetPointData().SetScalars(scalars)

    def run() -> tuple[int, int]:
        edges = vtk.vtkFlyingEdges3D()
        edges.SetInputData(image)
        edges.SetValue(0, level)
        for option in ("Normals", "Gradients", "Scalars"):
            getattr(edges, f"Compute{option}Off")()
        edges.Update()
        return edges.GetOutput().GetNumberOfPoints(), edges.GetOutput().GetNumberOfPolys()

    return run


def warp(values: np.ndarray, level: float, threads: int) -> Extract:
    import warp as wp

    wp.config.quiet = True
    wp.init()
    field = wp.array(values, dtype=wp.float32, device="cpu")
    geometry = getattr(wp, "geometry", None)  # since version 1.19; before, there was only wp.MarchingCubes
    marching: Any = getattr(geometry, "IsoSurfaceMarchingCubes", None) or wp.MarchingCubes

    def run() -> tuple[int, int]:
        with wp.ScopedDevice("cpu"):
            cubes = marching(*values.shape)
            cubes.surface(field, level)
        return len(cubes.verts), len(cubes.indices) // 3

    return run


PEERS = {"scikit-image": scikit_image, "PyMCubes": pymcubes, "VTK flying edges": vtk_flying_edges, "warp": warp}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("array", help="file of float32 values, x y z")
    parser.add_argument("--level", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    seconds = []
    try:
        run = PEERS[args.name](np.load(args.array), args.level, args.threads)
        for _ in range(args.rounds + 1):  # the first one compiles and maps memory
            began = time.perf_counter()
            vertices, faces = run()
            seconds.append(time.perf_counter() - began)
    except Exception as error:  # absent, or with another interface than this file knows
        print(json.dumps({"missing": f"{type(error).__name__}: {error}"}))
        return
    print(json.dumps({"seconds": seconds[1:], "vertices": vertices, "faces": faces}))


if __name__ == "__main__":
    main()
