"""Evaluation of a NeRF run: ``metrics.json``, with the protocol of its values."""

import logging
import time
from pathlib import Path
from typing import Any

from enerf.core import io
from enerf.datasets.scenes import splits
from enerf.engine import distributed, joint_start, results, resume
from enerf.fields import conditioning
from enerf.tasks.nerf import build, exposure, pose_evaluation, setup, views
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.views import Renderer

log = logging.getLogger("enerf")


def evaluate_folder(folder: Path, device: str = "auto", source: str = "") -> dict[str, Any]:
    """Open a finished run, evaluate it and return its metrics; ``source`` is the scene's new path, if it has moved.

    Raises
    ------
    InputError
        If the folder is not a NeRF run, or its scene is missing.
    """
    run = setup.open_run(folder, device, source)
    with joint_start.published(run.config.folder, run.state.step) as out:
        metrics = evaluate(run, out)
    log_further(metrics)
    return metrics


def evaluate(run: Run, out: Path | None = None) -> dict[str, Any]:
    """Render and evaluate the test views at full size; write ``metrics.json`` and the images; return the metrics.

    PSNR is the mean over test images of per-image PSNR, of float renderings clipped to [0, 1]; ``fit_psnr`` is that of
    fixed pixels of the training views. With ``final_pixels`` the test PSNR is computed on fixed pixels too. Results are
    written to ``out``, by default the run's folder.
    """
    began, renderer, scene = time.perf_counter(), views.renderer_of(run), run.present_scene
    if run.config.run.final_pixels:
        value = views.psnr_of_pixels(renderer, scene, scene.test, _final_rays(run))
        measured, mean = [], {"psnr": value, "ssim": None, "lpips": None}
    else:
        measured = views.measure(renderer, scene, scene.test, (out or run.config.folder) / "test" / "final")
        mean = views.means(measured)
    metadata = {**_metadata(run), **run.record.metrics(run.state.step, run.config.folder)}
    metrics = {**metadata, "mean": mean, "views": measured, "fit_psnr": _fit_psnr(run, renderer)}
    if run.fields.exposure is not None and measured:
        metrics["exposure"] = exposure.summary(measured)
    if run.fields.poses is not None:
        n_pixels = _final_rays(run) if run.config.run.final_pixels else 0
        metrics["poses"] = pose_evaluation.summary(run, renderer, mean["psnr"], n_pixels)
    seconds = time.perf_counter() - began
    metrics["seconds"] = {"train": run.state.seconds, "eval": seconds}
    metrics["curve"] = run.state.curve
    if distributed.current().is_first:
        io.write_json((out or run.config.folder) / results.METRICS, metrics)
    return metrics


def _final_rays(run: Run) -> int:
    """Return the number of fixed pixels of each test view in the final evaluation (0: all)."""
    return run.config.run.final_rays or run.config.run.eval_rays


def _fit_psnr(run: Run, renderer: Renderer) -> float:
    """Return the PSNR of training views, on as many fixed pixels in total as the test curve uses."""
    scene = run.present_scene
    train, test = views.sampled(scene, scene.train), views.sampled(scene, scene.test)
    pixels = max(1, (run.config.run.eval_rays or 2048) * max(1, len(test)) // len(train))
    return views.psnr_of_pixels(renderer, scene, train, pixels)


def _metadata(run: Run) -> dict[str, Any]:
    """Return the scene, method and steps of a run, and the protocol of its evaluation."""
    config, scene, r = run.config, run.scene, run.config.render
    is_llff, is_blender = (config.data.dataset_type == name for name in ("llff", "blender"))
    training, evaluation = setup.backgrounds(config)
    known: dict[str, Any] = {"background": {"training": training, "evaluation": evaluation}} if scene.has_alpha else {}
    if not is_blender and (not is_llff or config.data.test_views):
        known["split"] = scene.split_rule
    if scene.test and (cameras := splits.cameras_of(Path(config.data.datadir))):
        known["cameras"] = cameras
    if scene.masks is not None:
        known["masks"] = "masked pixels do not count; in LPIPS, a mean over whole images, they count as correct"
    if run.fields.exposure is not None:
        how = "half images are not scored with --final_pixels" if config.run.final_pixels else exposure.PROTOCOL
        known["exposure"] = f"{config.capture.exposure}: {how}"
    if run.fields.poses is not None:
        known["poses"] = pose_evaluation.protocol(run)
    if scene.is_large:
        known["views"] = f"curve, fit and constant image: of {views.MOST_VIEWS} views at most"
    final, curve = (
        f"mean per-image PSNR of {number or 'all'} fixed pixels a test view"
        for number in (_final_rays(run), config.run.eval_rays)
    )
    return {
        "scene": scene.name,
        "method": conditioning.method_name(config.conditioning, lrate=config.train.lrate),
        "steps": run.state.step,
        "seed": config.train.seed,
        "device": str(run.device),
        "precision": run.record.metrics(run.state.step, config.folder)["precision"],
        "model": build.model_description(config.model, r.N_samples, r.N_importance, r.sampler == "proposal"),
        "max_seconds": config.train.max_seconds if run.state.step < config.train.N_iters else 0.0,
        "collapsed": run.state.collapsed,
        "constant_psnr": views.constant_psnr(scene),
        "protocol": {
            "factor": config.data.factor if is_llff else 1 + config.data.half_res if is_blender else scene.factor,
            "llffhold": config.data.llffhold if is_llff else None,
            "test_views": [scene.image_names[v] for v in scene.test],
            "height": scene.camera.height,
            "width": scene.camera.width,
            "average": final if config.run.final_pixels else "mean over test images of per-image PSNR",
            "curve": curve,
            "fit": f"{'that of the curve' if config.run.final_rays else 'the same'} of training views, of as many "
            "pixels in all",
            **known,
        },
    }


def finished_metrics(run: Run) -> dict[str, Any] | None:
    """Return the stored metrics of a run if they are of its present step and protocol, else None."""
    if resume.matching_metrics(run.config.folder, {"steps": run.state.step}) is None:
        return None  # the protocol has a figure that takes all test views
    return resume.matching_metrics(run.config.folder, _metadata(run))


def log_further(metrics: dict[str, Any]) -> None:
    """Log the scores beside the headline: with color maps, with fitted poses; and how the cameras were computed."""
    for name, value in ((key, x) for key, x in (metrics.get("exposure") or {}).items() if x is not None):
        log.info("%s: %.2f dB %s", metrics["method"], value, exposure.DESCRIPTIONS[name])
    if (refined := (metrics.get("poses") or {}).get("psnr_refined")) is not None:
        log.info("%s: %.2f dB with the poses of the test views fitted to their images", metrics["method"], refined)
    if cameras := metrics["protocol"].get("cameras"):
        log.info("%s: the cameras were %s", metrics["scene"], cameras)
