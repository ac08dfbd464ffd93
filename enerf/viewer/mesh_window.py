"""The viewer of shapes: the mesh of one run, or of two with a plane between them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from enerf.viewer.controls import plain, within
from enerf.viewer.viser_server import Server

COLORS = ((150, 180, 220), (230, 170, 110))
FOV = 0.8  # radians


@dataclass(frozen=True)
class ShownMesh:
    """A mesh with its name: vertices in the coordinates of the user's files, faces, and colors or None."""

    name: str
    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "m 3"]
    colors: UInt8[np.ndarray, "n 3"] | None = None


class MeshViewer:
    """A viewer of one or two meshes; the browser draws them, so that nothing is rendered here."""

    def __init__(
        self, server: Server, meshes: Sequence[ShownMesh], bounds: Float[np.ndarray, "k 3"] | None = None
    ) -> None:
        """Show meshes, of which there are one or two.

        ``bounds`` are points whose box contains them and all that ``replace`` will show; by default their own.
        """
        self._server, self._meshes = server, list(meshes)
        self._lock = threading.Lock()
        self._wanted = 0  # number of the last drawing that was asked for
        self._drawn: list[Any] = []
        corners = np.concatenate([each.vertices for each in self._meshes]) if bounds is None else bounds
        self._low, self._high = corners.min(0), corners.max(0)
        gui, scene = server.viser.gui, server.viser.scene
        self._look(scene)
        with gui.add_folder("Mesh"):
            self._wireframe = gui.add_checkbox("Wireframe", False)
            self._flat = gui.add_checkbox("Flat shading", False)
            self._clip = gui.add_slider("Clip along z", 0.0, 1.0, 0.01, 1.0)
            self._split = gui.add_slider("Split along x", 0.0, 1.0, 0.01, 0.5, visible=len(self._meshes) > 1)
            self._text = gui.add_markdown("")
        for handle in (self._wireframe, self._flat, self._clip, self._split):
            handle.on_update(lambda _: self._draw())
        self._draw()

    def replace(self, meshes: Sequence[ShownMesh]) -> None:
        """Show other meshes in the place of the present ones, of the same number."""
        self._meshes = list(meshes)
        self._draw()

    @property
    def is_watched(self) -> bool:
        """Whether any browser is connected."""
        return bool(self._server.viser.get_clients())

    def run(self) -> None:
        """Serve until interrupted."""
        try:
            threading.Event().wait()
        finally:
            self.close()

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def _look(self, scene: Any) -> None:
        """Set the start of new cameras: obliquely from the front."""
        middle, size = 0.5 * (self._low + self._high), float(np.linalg.norm(self._high - self._low)) or 1.0
        scene.set_up_direction("+y")
        initial = self._server.viser.initial_camera
        initial.position = tuple((middle + 1.2 * size * np.array([0.5, 0.4, 0.77])).tolist())
        initial.look_at, initial.up, initial.fov = tuple(middle.tolist()), (0.0, 1.0, 0.0), FOV
        initial.near, initial.far = 1e-3 * size, 100.0 * size

    def _draw(self) -> None:
        """Send the parts of the meshes that the sliders leave, unless that is asked for again meanwhile."""
        self._wanted = number = self._wanted + 1
        with self._lock:
            if number != self._wanted:
                return
            self._text.content = plain(", ".join(f"{each.name}: {len(each.faces)} faces" for each in self._meshes))
            split, clip = _share(self._split.value), _share(self._clip.value)
            at_x, at_z = (self._low + share * (self._high - self._low) for share in (split, clip))
            for handle in self._drawn:
                handle.remove()
            self._drawn = []
            for i, each in enumerate(self._meshes):
                middles = each.vertices[each.faces].mean(1)
                kept = (middles[:, 2] <= at_z[2]) | (clip >= 1)
                if len(self._meshes) > 1:
                    kept &= (middles[:, 0] < at_x[0]) == (i == 0)
                if kept.any():
                    self._drawn.append(self._add(i, each, each.faces[kept]))

    def _add(self, i: int, mesh: ShownMesh, faces: Int[np.ndarray, "k 3"]) -> Any:
        """Add a part of a mesh to the scene."""
        scene, name = self._server.viser.scene, f"/mesh/{i}"
        used, index = np.unique(faces, return_inverse=True)
        vertices, faces = mesh.vertices[used].astype(np.float32), index.reshape(-1, 3).astype(np.uint32)
        wireframe, flat = self._wireframe.value is True, self._flat.value is True
        if mesh.colors is None or wireframe or flat:
            look = {"wireframe": wireframe, "flat_shading": flat, "side": "double"}
            return scene.add_mesh_simple(name, vertices, faces, color=COLORS[i % len(COLORS)], **look)
        import trimesh

        made = trimesh.Trimesh(vertices, faces, vertex_colors=mesh.colors[used], process=False)
        return scene.add_mesh_trimesh(name, made)


def _share(value: Any) -> float:
    return float(within(value, 0.0, 1.0, 0.5))
