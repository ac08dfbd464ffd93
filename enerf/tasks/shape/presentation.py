"""How shape runs are presented in a report: curves, figures, and pictures of the mesh beside its reference."""

from pathlib import Path
from typing import Any

import numpy as np

from enerf.config import parser
from enerf.core.errors import InputError
from enerf.geometry import read
from enerf.geometry.preview import cameras, turntable
from enerf.geometry.preview.cameras import View
from enerf.geometry.preview.raycast import MeshScene
from enerf.reporting.presentation import Curve, Figure, PictureOf, Presentation, value
from enerf.tasks.shape import picture, setup
from enerf.tasks.shape.config import ShapeConfig
from enerf.tasks.shape.evaluate import MESH
from enerf.tasks.shape.picture import Picture

SIZE = 384  # height and width of pictures of meshes


def pictures(
    folder: Path, saved: dict[str, Any], metrics: dict[str, Any] | None, source: str, n: int
) -> tuple[list[PictureOf], list[str]]:
    """Return pictures of the mesh of the last evaluation beside those of its reference, or the fitted image.

    A point cloud and a volume have no reference mesh: their mesh is shown alone.
    """
    config = parser.from_dict(ShapeConfig, saved)
    if config.data.image:
        return _fitted_image(folder, source)
    mesh = folder / MESH
    if not mesh.is_file():
        return [], [f"has no {MESH}: nothing was evaluated, or without a mesh"]
    is_old = metrics is not None and not (
        metrics.get("mesh") or value(metrics, ("cloud", "points")) or config.data.volume
    )
    notes = ["shows the mesh of an earlier evaluation: the last one had none"] if is_old else []
    try:
        fitted = MeshScene(*read.mesh(mesh))
        if not config.data.mesh:
            kind = "point cloud" if config.data.cloud else "volume"
            return _views(fitted, None, n), [*notes, f"is shown alone: a {kind} has no reference mesh"]
        path = Path(source or config.data.mesh).expanduser()
        try:
            reference = MeshScene(*read.mesh(path))
        except InputError as error:
            return _views(fitted, None, n), [*notes, f"is shown without its reference: {error}"]
        return _views(fitted, reference, n), notes
    except InputError as error:
        return [], [f"has no pictures: {error}"]


def _views(fitted: MeshScene, reference: MeshScene | None, n: int) -> list[PictureOf]:
    """Return pictures of a mesh and its reference from several sides, by the same cameras."""
    whole = reference or fitted
    square = View((0.0, 0.0, 0.0), 1.0, width=SIZE, height=SIZE)
    views = turntable.sides(cameras.around(whole.low, whole.high, view=square))
    return [
        PictureOf(
            name=f"mesh, {name}",
            picture=fitted.picture(view),
            reference=None if reference is None else reference.picture(view),
            reference_name="reference",
            caption="shaded by ray casting",
        )
        for name, view in list(views.items())[:n]
    ]


def _fitted_image(folder: Path, source: str) -> tuple[list[PictureOf], list[str]]:
    """Return the field of an image, rendered at the size of the image."""
    try:
        run = setup.open_run(folder, "cpu", source)
    except InputError as error:
        return [], [f"has no pictures: {error}"]
    assert isinstance(run.target, Picture)
    shown = picture.render(setup.in_chunks(setup.frozen(run.field)), run.target).clamp(0, 1).double().numpy()
    reference = np.clip(run.target.colors.double().numpy(), 0, 1)
    measured = -10 * np.log10(max(float(np.mean((shown - reference) ** 2)), 1e-12))
    caption = f"PSNR of all pixels {measured:.2f} dB"
    return [PictureOf(Path(run.target.source).name, shown, reference, "image", caption)], []


PRESENTATION = Presentation(
    figures=(
        Figure("IoU", ("field", "iou"), 4),
        Figure("PSNR [dB]", ("picture", "psnr"), 2),
        Figure("held out [dB]", ("picture", "psnr_heldout"), 2),
        Figure("near IoU", ("field", "iou_near"), 4),
        Figure("Chamfer L1 [%]", ("mesh", "chamfer_l1_percent"), 3),
        Figure("normal consistency", ("mesh", "normal_consistency"), 4),
        Figure("Hausdorff [%]", ("mesh", "hausdorff_percent"), 2),
        Figure("mean distance of the cloud", ("cloud", "mean_distance"), 5),
    ),
    curves=(
        Curve("iou", "IoU"),
        Curve("iou_near", "IoU near the surface"),
        Curve("psnr_heldout", "PSNR of held-out pixels [dB]"),
        Curve("psnr", "PSNR [dB]"),
        Curve("loss", "training loss", logarithmic=True),
        Curve("lrate", "learning rate", logarithmic=True, is_detail=True),
        Curve("points_per_second", "training speed [points/s]", is_detail=True),
    ),
    seconds_column=1,
    pictures=pictures,
    note="No published results of shapes are stored.",
)
