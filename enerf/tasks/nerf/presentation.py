"""How NeRF runs are presented in a report: curves, figures, published protocol, test views."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enerf.config import parser
from enerf.core import images
from enerf.core.errors import InputError
from enerf.datasets.scenes import pixels
from enerf.datasets.scenes.scene import Scene
from enerf.reporting.presentation import Curve, Figure, PictureOf, Presentation, value
from enerf.tasks.nerf import setup, views
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.report import LLFF_SCENES

PAPER_STEPS = 200_000  # of the published protocol
PAPER_SIZE = (1008, 756)


def differences(run: dict[str, Any]) -> list[str]:
    """Return in what a run of an LLFF scene differs from the protocol of published results; else an empty list.

    That is factor 4 (1008×756), every eighth view for testing, and the mean over views of PSNR of whole views.

    Raises
    ------
    KeyError, TypeError
        If the metrics are incomplete.
    """
    if run["scene"] not in LLFF_SCENES:
        return []
    protocol, found = run["protocol"], []
    if protocol["factor"] != 4 or (protocol["width"], protocol["height"]) != PAPER_SIZE:
        size = f"{protocol['width']}×{protocol['height']} (factor {protocol['factor']})"
        found.append(f"images of {size} instead of {PAPER_SIZE[0]}×{PAPER_SIZE[1]} (factor 4)")
    if protocol.get("llffhold") != 8:
        split = protocol.get("split") or f"llffhold {protocol.get('llffhold')}"
        found.append(f"other test views ({split}) instead of every eighth")
    if "fixed pixels" in str(protocol.get("average")):
        found.append("PSNR of fixed pixels instead of whole views")
    if run["steps"] < PAPER_STEPS:
        found.append(f"{run['steps']:,} training steps; published ones have {PAPER_STEPS:,} or more, or other methods")
    found += ["measured on other data than trained on"] * bool(run.get("eval_files"))
    found.append("the scene is recognized by the name of its folder only")
    return found


def pictures(
    folder: Path, saved: dict[str, Any], metrics: dict[str, Any] | None, source: str, n: int
) -> tuple[list[PictureOf], list[str]]:
    """Return rendered test views beside their photographs, and sentences about what is missing.

    The views with the lowest, the median and the highest PSNR come first. Nothing is rendered: the files are those of
    the last evaluation or, if it had none or they are newer, of the last ``--i_testset``.
    """
    found = _newest_renderings(folder, metrics)
    if found is None:
        return [], ["has no rendered test views: nothing was evaluated, or on fixed pixels only"]
    rendered, note = found
    notes, measured = [note] if note else [], {} if note else _psnr_by_name(metrics)
    given = {**saved, **({"datadir": source} if source else {})}
    try:
        config = setup.with_format(parser.from_dict(NerfConfig, given), saved)
        scene = setup.load_scene(setup.with_background(config, saved), pose_check=False)
    except InputError as error:
        return _without_photographs(rendered, measured, n), [*notes, f"has no photographs in this report: {error}"]
    shown = []
    for view in chosen([(view, measured.get(scene.image_names[view])) for view in scene.test], n):
        path = rendered / views.picture_name(scene, view)
        if path.is_file():
            shown.append(_picture(scene, view, path, measured.get(scene.image_names[view])))
    return shown, notes if shown else [*notes, "has no rendered test views of this scene"]


def chosen(rated: Sequence[tuple[Any, float | None]], n: int) -> list[Any]:
    """Return at most ``n`` of some views: that with the lowest, the median and the highest PSNR, then the others.

    >>> chosen([("a", 20.0), ("b", 18.0), ("c", 25.0), ("d", 21.0)], 3)
    ['b', 'd', 'c']
    >>> chosen([("a", None), ("b", None)], 1)
    ['a']
    """
    if any(psnr is None for _, psnr in rated):
        return [view for view, _ in rated[:n]]
    order = sorted(range(len(rated)), key=lambda i: rated[i][1] or 0.0)
    first = [order[0], order[len(order) // 2], order[-1]] if order else []
    return [rated[i][0] for i in list(dict.fromkeys([*first, *order]))[:n]]


def _picture(scene: Scene, view: int, path: Path, psnr: float | None) -> PictureOf:
    """Return a rendered view beside its photograph."""
    mask = pixels.view_mask(scene, view)
    photograph = pixels.view_image(scene, view).cpu().double().numpy()
    rendering = images.read(path)[..., :3].astype(np.float64)
    return PictureOf(
        name=scene.image_names[view],
        picture=rendering,
        reference=photograph if photograph.shape == rendering.shape else None,
        reference_name="photograph",
        caption=_caption(psnr),
        mask=None if mask is None else mask.cpu().numpy(),
    )


def _without_photographs(rendered: Path, measured: dict[str, float], n: int) -> list[PictureOf]:
    """Return the renderings alone, by the names of their files, with PSNRs by name of the photograph."""
    measured = {Path(name).stem: psnr for name, psnr in measured.items()}
    found = sorted(path for path in rendered.rglob("*.png") if path.is_file())
    pictures = []
    for path in chosen([(path, measured.get(path.stem)) for path in found], n):
        rendering = images.read(path)[..., :3].astype(np.float64)
        pictures.append(PictureOf(path.name, rendering, None, "photograph", _caption(measured.get(path.stem))))
    return pictures


def _caption(psnr: float | None) -> str:
    return "PSNR not measured" if psnr is None else f"PSNR {psnr:.2f} dB"


def _newest_renderings(folder: Path, metrics: dict[str, Any] | None) -> tuple[Path, str] | None:
    """Return the folder of the last rendered test views, and a sentence if it is not that of the metrics; or None."""
    found = [path for path in (folder / "test").glob("*") if re.fullmatch(r"[0-9]{1,18}", path.name)]
    numbered = {int(path.name): path for path in found if any(path.rglob("*.png"))}
    last, final = max(numbered, default=-1), folder / "test" / "final"
    has_final, step = any(final.rglob("*.png")), (metrics or {}).get("steps")
    if has_final and _psnr_by_name(metrics) and isinstance(step, int) and step >= last:
        return final, ""
    if numbered:
        return numbered[last], f"shows test views of step {last}"
    return (final, "shows test views of an evaluation whose step and figures are not recorded") if has_final else None


def _psnr_by_name(metrics: dict[str, Any] | None) -> dict[str, float]:
    """Return PSNRs by name of the photograph."""
    listed = (metrics or {}).get("views")
    found = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    return {str(each.get("name")): psnr for each in found if (psnr := value(each, ["psnr"])) is not None}


PRESENTATION = Presentation(
    figures=(
        Figure("test PSNR [dB]", ("mean", "psnr"), 2),
        Figure("SSIM", ("mean", "ssim"), 3),
        Figure("LPIPS", ("mean", "lpips"), 3),
        Figure("training views [dB]", ("fit_psnr",), 2),
        Figure("constant color [dB]", ("constant_psnr",), 2),
    ),
    curves=(
        Curve("test_psnr", "test PSNR of fixed pixels [dB]"),
        Curve("psnr", "training PSNR [dB]"),
        Curve("loss", "training loss", logarithmic=True),
        Curve("testset/psnr", "test PSNR of whole views [dB]"),
        Curve("opacity", "mean opacity", is_detail=True),
        Curve("lrate", "learning rate", logarithmic=True, is_detail=True),
        Curve("rays_per_second", "training speed [rays/s]", is_detail=True),
    ),
    differences=differences,
    pictures=pictures,
)
