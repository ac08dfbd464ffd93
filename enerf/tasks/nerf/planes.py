"""Baked planes of a run: made, cached in the run's folder, rendered.

``planes.npz`` is the bake of the field, ``planes_tuned.npz`` the tuned one. Each records the step, the weights and the
cameras that it was made from, and the options; one that was made from others is stale and made again.
"""

import copy
import hashlib
import logging
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.conditioning import layers
from enerf.core.errors import InputError
from enerf.core.progress import progress_bar
from enerf.core.types import Camera, FeatureOutput, FieldOutput, ShadedField
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes import rays
from enerf.datasets.scenes.scene import Scene
from enerf.fields.backends import module
from enerf.rendering.planes import bake, kernel, storage, tune
from enerf.rendering.planes.bake import BakeSettings
from enerf.rendering.planes.stack import PlaneStack
from enerf.rendering.planes.tune import Targets, TuneSettings
from enerf.rendering.render import Picture
from enerf.tasks.nerf import setup
from enerf.tasks.nerf.exposure import Exposure
from enerf.tasks.nerf.setup import Run

log = logging.getLogger("enerf")

BAKED, TUNED = "planes.npz", "planes_tuned.npz"
MADE_FROM = "made_from"


class PlanesRenderer:
    """Renderer of a plane stack; its pictures are those of ``views.Renderer``."""

    def __init__(self, stack: PlaneStack, pixel_centers: float | int = 0.5) -> None:
        self.stack, self.pixel_centers = stack, pixel_centers

    def picture(self, scene: Scene, c2w: Float[Tensor, "3 4"], camera: Camera) -> Picture:
        """Render a camera at a pose, on the CPU: rgb (h, w, 3) in [0, 1], depth (t of NDC) and opacity (h, w)."""
        flat = kernel.render(self.stack, rays.of_image(camera, c2w.cpu(), 0, 1, self.pixel_centers))
        size = (camera.height, camera.width)
        return Picture(flat.rgb.reshape(*size, 3).clamp(0, 1), flat.depth.reshape(size), flat.opacity.reshape(size))


def bake_folder(
    folder: Path,
    planes: int = 0,
    seconds: float = 60.0,
    again: bool = False,
    device: str = "auto",
    source: str = "",
    *,
    any_options: bool = False,
) -> Path:
    """Bake the planes of a run, tune them for ``seconds`` if that is not 0, and return the path of the file.

    Files that are in the folder already are taken, if they were made from the run's last checkpoint with the same
    options; with ``again`` they are made anew, with ``any_options`` they are taken whatever their number is and however
    long they were tuned. ``planes`` is their number, 0: by parallax. ``source`` is the new path of the scene, if it has
    moved.

    Raises
    ------
    InputError
        If the folder is not a NeRF run of a forward-facing scene, or the scene is missing.
    """
    run = setup.open_run(folder, device, source)
    require_forward(run)
    if any_options:
        wanted, made = folder / (TUNED if seconds > 0 else BAKED), _made_from(run, None)
        if cached(wanted, made) is not None:
            return wanted
        found = cached(folder / BAKED, made)
        planes = planes if found is None else found.metadata[MADE_FROM].get("planes", planes)
    baked = stack_of(run, folder, planes, again=again)
    if seconds <= 0:
        return folder / BAKED
    path, made_from = folder / TUNED, {**_made_from(run, planes), "seconds": float(seconds)}
    if again or cached(path, made_from) is None:
        storage.save(tuned(run, baked, TuneSettings(seconds=seconds), made_from), path)
    return path


def stack_of(run: Run, folder: Path, planes: int = 0, *, again: bool = False) -> PlaneStack:
    """The bake of a run: the one in its folder, or a new one if that is stale; then it is saved there.

    Raises
    ------
    InputError
        If the scene is not forward-facing.
    """
    require_forward(run)
    path, made_from = folder / BAKED, _made_from(run, planes)
    found = None if again else cached(path, made_from)
    if found is None:
        found = baked(run, planes, made_from)
        storage.save(found, path)
    return found


def best_stack(run: Run, folder: Path) -> PlaneStack:
    """The planes in a run's folder that are those of its last checkpoint, tuned ones first; otherwise a new bake.

    Raises
    ------
    InputError
        If the scene is not forward-facing.
    """
    require_forward(run)
    found = stored_stack(run, folder)
    return stack_of(run, folder) if found is None else found


def stored_stack(run: Run, folder: Path) -> PlaneStack | None:
    """The planes in a run's folder that are those of its last checkpoint, tuned ones first; None if there are none."""
    made_from = _made_from(run, None)
    found = (cached(folder / name, made_from) for name in (TUNED, BAKED))
    return next((stack for stack in found if stack is not None), None)


def require_forward(run: Run) -> None:
    """Check that planes can show the scene of a run.

    Raises
    ------
    InputError
        If it is not forward-facing, that is, in normalized device coordinates.
    """
    if not run.scene.ndc:
        raise InputError(
            f"{run.config.folder}: found a scene that is not in normalized device coordinates, expected a "
            "forward-facing one: planes are parallel to the image of one camera, and are seen from the side by others"
        )


def cached(path: Path, made_from: dict[str, Any]) -> PlaneStack | None:
    """The planes of a file, if they were made from this; None if not, and if there is no such file or it is damaged."""
    if not path.is_file():
        return None
    try:
        found = storage.load(path)
    except InputError as error:
        log.warning("%s: the planes are made again", error)
        return None
    recorded = found.metadata.get(MADE_FROM)
    if not isinstance(recorded, dict) or any(recorded.get(key) != value for key, value in made_from.items()):
        log.info("%s: made from another checkpoint or scene, or with other options", path)
        return None
    return found


def baked(run: Run, planes: int, made_from: dict[str, Any]) -> PlaneStack:
    """A new bake of a run's field."""
    settings = BakeSettings(planes=planes, pixel_centers=run.config.data.pixel_centers)
    scene = run.present_scene.to(torch.device("cpu"))
    with progress_bar(1000, "bake planes", "‰") as bar:
        stack = bake.bake(_field(run), scene, settings, lambda share: bar.update(round(1000 * share) - bar.n))
    return _described(stack, run, made_from)


def tuned(run: Run, stack: PlaneStack, settings: TuneSettings, made_from: dict[str, Any]) -> PlaneStack:
    """A bake whose textures are tuned on a run's training photographs."""
    scene = run.present_scene.to(torch.device("cpu"))
    settings = TuneSettings(**{**vars(settings), "pixel_centers": run.config.data.pixel_centers})
    with progress_bar(1000, "tune planes", "‰") as bar:
        made = tune.tune(
            stack, scene, settings, _targets(run, scene), lambda share: bar.update(round(1000 * share) - bar.n)
        )
    return _described(made, run, made_from)


def _made_from(run: Run, planes: int | None) -> dict[str, Any]:
    """What planes of a run depend on, as JSON; without the number of planes if it is None."""
    options = {} if planes is None else {"planes": planes}
    scene = run.present_scene
    poses = scene.c2w.double().cpu().numpy().round(4).tolist()  # refined ones differ between devices by rounding
    cameras = hashlib.blake2b(repr((poses, scene.camera, scene.train)).encode(), digest_size=16)
    made = {"step": run.state.step, "weights": weights_hash(run.fields), "cameras": cameras.hexdigest()}
    return {**made, **options}


def weights_hash(fields: torch.nn.Module) -> str:
    """Hash of all weights of fields."""
    hashed = hashlib.blake2b(digest_size=16)
    for name, value in sorted(fields.state_dict().items()):
        hashed.update(name.encode())
        hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _described(stack: PlaneStack, run: Run, made_from: dict[str, Any]) -> PlaneStack:
    """The stack with its background, and with what it was made from as metadata."""
    metadata = {"scene": run.scene.name, MADE_FROM: made_from}
    return PlaneStack(**{**vars(stack), "white": run.config.data.is_white, "metadata": metadata})


def _field(run: Run) -> ShadedField:
    """The network of a run's final colors (fine, or the only one) as a function of tensors on the CPU."""
    fields = layers.bake(copy.deepcopy(run.fields)).eval()
    fields.requires_grad_(False)
    module.freeze(fields)
    field = fields.coarse if fields.fine is None else fields.fine

    def on_device(points: Float[Tensor, "*b s 3"], viewdirs: Float[Tensor, "*b 3"]) -> FieldOutput | FeatureOutput:
        found = field(points.to(run.device), viewdirs.to(run.device))
        if isinstance(found, FeatureOutput):
            decode = found.decode
            return FeatureOutput(
                found.density.cpu(),
                found.features.cpu(),
                lambda mean, seen: decode(mean.to(run.device), seen.to(run.device)).cpu(),
            )
        return FieldOutput(found.density.cpu(), found.rgb.cpu())

    return on_device


def _targets(run: Run, scene: Scene) -> Targets | None:
    """Photographs with the mean exposure of all, if the run has exposure maps; None: as they are."""
    if run.fields.exposure is None:
        return None
    exposure = copy.deepcopy(run.fields.exposure).cpu()
    found = {view: unexposed(exposure, scenes_pixels.view_image(scene, view), view) for view in scene.train}
    return found.__getitem__


@torch.no_grad()
def unexposed(exposure: Exposure, image: Float[Tensor, "h w 3"], view: int) -> Float[Tensor, "h w 3"]:
    """Colors that the map of a view brings to those of its photograph: the inverse of an affine map."""
    probes = torch.cat([torch.zeros(1, 3), torch.eye(3)])
    offset, *columns = exposure(probes, torch.full((4,), view))
    matrix = torch.stack([column - offset for column in columns])
    return (image - offset) @ torch.linalg.inv(matrix)
