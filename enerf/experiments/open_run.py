"""Finished runs from Python: images, meshes and metrics of a run's folder."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import io
from enerf.core.errors import InputError
from enerf.core.types import Camera
from enerf.datasets.scenes.scene import Scene
from enerf.experiments import extract
from enerf.experiments.options import ExtractOptions
from enerf.geometry import write
from enerf.tasks import registry

if TYPE_CHECKING:
    import trimesh

    from enerf.rendering.render import Picture


def open_run(path: str | Path, *, device: str = "auto", source: str = "") -> "OpenedRun":
    """Open a finished run.

    Parameters
    ----------
    path
        Folder of the run, such as ``logs/fern``.
    device
        Device by the name of the option ``--device``.
    source
        New place of the scene, mesh or images that it was trained on, if they have moved.

    Raises
    ------
    InputError
        If the folder is no run.
    """
    return OpenedRun(Path(path).expanduser(), device, source)


class OpenedRun:
    """A finished run; the scene and the field are read when they are first needed.

    Attributes
    ----------
    folder
        Folder of the run.
    kind
        Task of the run: ``nerf``, ``shape`` or ``classifier``.
    step
        Training step of the checkpoint that is opened, the newest.
    options
        Options of the run, by name.
    """

    def __init__(self, folder: Path, device: str, source: str) -> None:
        task, content = registry.with_part("evaluate", folder)
        self.folder, self.kind, self.step = folder, task.kind, int(content["step"])
        self.options: dict[str, Any] = content["config"]
        self._task, self._device, self._source = task, device, source

    @property
    def metrics(self) -> dict[str, Any]:
        """Content of the run's ``metrics.json``.

        Raises
        ------
        InputError
            If the run has not been evaluated.
        """
        found: dict[str, Any] = io.read_object(self.folder / "metrics.json")
        return found

    @property
    def scene(self) -> Scene:
        """Scene of a NeRF run, a ``datasets.scenes.scene.Scene``: cameras, poses ``c2w``, images, train, test indices.

        Raises
        ------
        InputError
            If it is no NeRF run, or its scene is missing.
        """
        scene: Scene = self._views.scene
        return scene

    def render(
        self,
        pose: Float[Tensor, "_ 4"] | Float[np.ndarray, "_ 4"],
        camera: Camera | None = None,
        *,
        factor: float = 1.0,
    ) -> "Picture":
        """Render what a camera at a pose sees of a NeRF run.

        Parameters
        ----------
        pose
            Camera-to-scene matrix, 3×4 or 4×4, OpenGL axes (x right, y up, looking along −z), in the coordinates of
            ``scene.c2w``.
        camera
            Pinhole camera; None: that of the scene.
        factor
            Render at 1/factor of the camera's size; at least 1.

        Returns
        -------
        Picture
            On the CPU: ``rgb`` (h, w, 3) in [0, 1], ``depth`` and ``opacity`` (h, w).

        Raises
        ------
        InputError
            If it is no NeRF run, or the pose is no such matrix.
        """
        matrix = torch.as_tensor(pose, dtype=torch.float32)
        if matrix.shape not in ((3, 4), (4, 4)) or not bool(matrix.isfinite().all()):
            raise InputError(f"pose: found shape {tuple(matrix.shape)}, expected a finite 3×4 or 4×4 matrix")
        if not factor >= 1:
            raise InputError(f"factor: found {factor}, expected at least 1")
        picture: Picture = self._views.render(matrix[:3], camera, factor)
        return picture

    def mesh(self, resolution: int = 256, **options: Any) -> "trimesh.Trimesh":
        """Extract the mesh of a NeRF or shape run, in the coordinates of the user's files.

        Parameters
        ----------
        resolution
            Number of cells along the longest side of the searched box.
        options
            More options of ``enerf extract``, such as ``level="5.0"``, ``crop=1``, ``floaters=0.02``; for radiance
            fields ``method="fusion"`` (fused depth maps) and ``texture=2048`` (a texture of that size in the place of
            vertex colors); and ``box``, an array (2, 3) in the coordinates of the files.

        Raises
        ------
        InputError
            If the run has no surface, the level is not crossed, or nothing is left of the mesh.
        TypeError
            If there is no such option.
        """
        import trimesh

        box = options.pop("box", None)
        chosen = ExtractOptions(resolution=resolution, device=self._device, datadir=self._source, **options)
        made = extract.mesh_of(self.folder, chosen, None if box is None else np.asarray(box, dtype=np.float64))
        if made.texture is not None:
            return write.textured_trimesh(made.texture)
        return trimesh.Trimesh(made.vertices, made.faces, vertex_colors=made.colors, process=False)

    def __repr__(self) -> str:
        return f"OpenedRun({str(self.folder)!r}, kind={self.kind!r}, step={self.step})"

    @cached_property
    def _views(self) -> Any:
        """The run with its scene and fields, for rendering."""
        if not self._task.has("views"):
            raise InputError(f"{self.folder}: found a run of kind {self.kind!r}, expected one that renders views")
        return self._task.load("views")(self.folder, self._device, self._source)
