"""The viewer of a shape in training: a mesh on a coarse grid, anew every few seconds while somebody looks."""

import logging
import time

import numpy as np
import torch

from enerf.core.errors import InputError
from enerf.engine.checkpoint import State
from enerf.engine.trainer import Hook
from enerf.tasks.shape import setup
from enerf.tasks.shape.picture import Picture
from enerf.tasks.shape.setup import ShapeRun
from enerf.viewer.mesh_window import MeshViewer, ShownMesh
from enerf.viewer.options import LiveOptions
from enerf.viewer.viser_server import Server

log = logging.getLogger("enerf")

CELLS = 64  # along a side of the box
SHARE = 0.25  # of the time, for meshes
LEAST_SECONDS = 2.0  # between two meshes


class LiveShapeViewer:
    """A viewer that the training of a shape starts and ends."""

    def __init__(self, chosen: LiveOptions) -> None:
        """Open the server; raises as ``Server``."""
        self._server = Server(chosen.viewer_host, chosen.viewer_port)
        log.info("viewer: %s", self._server.address)
        self._viewer: MeshViewer | None = None
        self._run: ShapeRun | None = None
        self._due = 0.0

    def watch(self, run: ShapeRun) -> Hook:
        """Show a run; the hook draws its mesh.

        Raises
        ------
        InputError
            If the run is fitted to an image.
        """
        if isinstance(run.target, Picture):
            raise InputError("option --viewer: found --image, expected a mesh, a cloud or a volume")
        box = run.target.normalization.to_file(np.array([[-1.0] * 3, [1.0] * 3]))  # of what a mesh may fill
        self._run, self._viewer = run, MeshViewer(self._server, [mesh_of(run)], box)
        return Hook(1, self._between_steps)

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def _between_steps(self, training: State) -> None:
        viewer = self._viewer
        if viewer is None or self._run is None or not viewer.is_watched or time.monotonic() < self._due:
            return
        began = time.monotonic()
        viewer.replace([mesh_of(self._run)])
        seconds = time.monotonic() - began
        self._due = time.monotonic() + max(LEAST_SECONDS, seconds * (1 - SHARE) / SHARE)


def mesh_of(run: ShapeRun, cells: int = CELLS) -> ShownMesh:
    """The surface of a field in training on a coarse grid, in the coordinates of the user's file; it may be empty."""
    import igl

    assert not isinstance(run.target, Picture)
    evaluate, side = setup.in_chunks(setup.frozen(run.field)), cells + 1
    along = torch.linspace(-1, 1, side)
    z, y, x = torch.meshgrid(along, along, along, indexing="ij")  # x varies fastest, as libigl has it
    points = torch.stack([x, y, z], -1).reshape(-1, 3).to(run.device)
    with torch.no_grad():
        values = evaluate(points).reshape(-1).double().cpu().numpy() - run.config.data.level
    inside = -values if run.config.data.target == "occupancy" else values
    vertices, faces, _ = igl.marching_cubes(inside, points.double().cpu().numpy(), side, side, side, 0.0)
    name = f"{run.config.folder.resolve().name}, step {run.state.step}"
    if not len(faces):
        vertices, faces = np.zeros((3, 3)), np.array([[0, 1, 2]])
    return ShownMesh(name, run.target.normalization.to_file(vertices), faces.astype(np.int64))
