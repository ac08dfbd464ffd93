"""Structure from motion of a database of matches by pycolmap: mapping, choice of a model, and a robust refinement.

Runs in the process of ``colmap_worker``. The reprojection error up to which a match counts is 2 pixels for photographs
of up to 1,600 pixels, where COLMAP's 4 pixels, meant for larger ones, let the focal length drift by several percent.
The chosen model is refined by bundle adjustment with a Cauchy loss, which wrong matches do not move; the standard
deviations of focal lengths come from the covariance of that adjustment, for errors of the key points of 1 pixel.

Bundle adjustment runs on one thread: on several, sums are added in varying order, and repeated runs differ in the third
digit of a focal length. pycolmap is imported where it is used, never by importing this module.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FEWEST_IMAGES, FEWEST_POINTS = 3, 30  # of a model that counts
_ROUNDS, _ITERATIONS, _TOLERANCE = 2, 50, 1e-5
_SHIFTED = 0.03  # part by which the error falls if the principal point is not the center
_WEAK = 0.02  # relative deviation of a focal length, above which that of EXIF data is preferred
_ANGLE = 4.0  # degrees of triangulation of the first pair; COLMAP's 16 finds none in few forward-facing views
_REPORT = Callable[[dict[str, Any]], None]


def reconstruct(folder: Path, job: dict[str, Any], report: _REPORT, *, is_flat: bool = False) -> dict[str, Any]:
    """Build models, refine the best and write it to ``folder/model``; the result as JSON values.

    A model counts if it has three images and thirty points; the one with the most images is taken, of equal ones that
    with the most points. If photographs are left out, a second attempt with weaker conditions is made.

    Parameters
    ----------
    folder
        The work folder, with the database.
    job
        Content of ``job.json``.
    report
        Receives progress.
    is_flat
        Whether nearly all pairs follow a homography; weaker conditions would then make models of noise.
    """
    best: Any = None
    sizes: list[list[int]] = []
    for attempt in range(2):
        for model in _map(folder, job, report, relaxed=attempt > 0):
            size = [model.num_reg_images(), model.num_points3D()]
            sizes.append(size)
            counts = size[0] >= FEWEST_IMAGES and size[1] >= FEWEST_POINTS
            if counts and (best is None or size > [best.num_reg_images(), best.num_points3D()]):
                best = model
        if is_flat or job["mapper"] == "global" or (best is not None and best.num_reg_images() == len(job["names"])):
            break
    if best is None:
        return {"models": sizes, "registered": []}
    report({"event": "progress", "stage": "refine", "done": 0, "total": 1})
    _refine(best, job)
    best, is_shifted = _with_principal_point(best, job)
    job = {**job, "refines_principal_point": is_shifted}
    deviations = _deviations(best, job)
    is_fixed = _fix_focal_lengths(best, job, deviations)
    result = {"models": sizes, **_measures(best, job), "cameras": _cameras(best, job, deviations, is_fixed)}
    result |= {"principal_point_is_refined": is_shifted, "parallax": _parallax(best)}
    _write(folder / "model", best, job)
    return result


def _map(folder: Path, job: dict[str, Any], report: _REPORT, relaxed: bool) -> list[Any]:
    """Models by COLMAP's incremental or global mapper."""
    import pycolmap

    output = folder / "mapping"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    database, images, total = folder / "database.db", folder / "images", len(job["names"])
    try:
        if job["mapper"] == "global":
            report({"event": "progress", "stage": "global", "done": 0, "total": 1})
            return list(pycolmap.global_mapping(database, images, output, options=_global_options(job)).values())
        done = [0]

        def register(count: int) -> None:
            done[0] = min(total, count if count == 2 else done[0] + count)
            report({"event": "progress", "stage": "map", "done": done[0], "total": total})

        register(0)
        models = pycolmap.incremental_mapping(
            database,
            images,
            output,
            options=_incremental_options(job, relaxed),
            initial_image_pair_callback=lambda: register(2),
            next_image_callback=lambda: register(1),
        )
        return list(models.values())
    finally:
        shutil.rmtree(output, ignore_errors=True)


def _incremental_options(job: dict[str, Any], relaxed: bool) -> Any:
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.mapper.num_threads = 1, job["threads"]
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = 0
    options.min_model_size = FEWEST_IMAGES
    options.ba_use_gpu = False
    options.mapper.init_min_tri_angle = _ANGLE
    options.mapper.filter_max_reproj_error = job["pixels"]
    options.triangulation.merge_max_reproj_error = options.triangulation.complete_max_reproj_error = job["pixels"]
    if relaxed:
        options.mapper.init_min_tri_angle, options.mapper.init_min_num_inliers = 1.5, 50
        options.mapper.abs_pose_min_num_inliers, options.mapper.abs_pose_min_inlier_ratio = 15, 0.15
    return options


def _global_options(job: dict[str, Any]) -> Any:
    import pycolmap

    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = options.mapper.num_threads = job["threads"]
    options.random_seed = options.mapper.random_seed = 0
    mapper = options.mapper
    mapper.rotation_averaging.random_seed = mapper.global_positioning.random_seed = (
        mapper.retriangulation.random_seed
    ) = 0
    mapper.global_positioning.use_gpu = mapper.bundle_adjustment.ceres.use_gpu = False
    mapper.bundle_adjustment.ceres.solver_options.num_threads = job["threads"]
    return options


def _refine(model: Any, job: dict[str, Any]) -> None:
    """Bundle adjustment with a Cauchy loss, observations with large errors removed between the rounds."""
    import pycolmap

    for remaining in reversed(range(_ROUNDS)):
        pycolmap.bundle_adjustment(model, _adjustment(job))
        if remaining:
            pycolmap.ObservationManager(model).filter_all_points3D(job["pixels"], 1.5)
    model.update_point_3d_errors()


def _with_principal_point(model: Any, job: dict[str, Any]) -> tuple[Any, bool]:
    """The model with refined principal points, if that is wanted or if the centers of the images fit clearly worse.

    Photographs that have been cropped have their principal point elsewhere. It is usually determined weakly, so that
    it stays in the center unless the mean reprojection error falls by a few percent without that.
    """
    import pycolmap

    if job["principal_point"] == "center":
        return model, False
    other = pycolmap.Reconstruction(model)
    pycolmap.bundle_adjustment(other, _adjustment({**job, "refines_principal_point": True}))
    other.update_point_3d_errors()
    before, after = model.compute_mean_reprojection_error(), other.compute_mean_reprojection_error()
    if job["principal_point"] == "free" or after < (1 - _SHIFTED) * before:
        return other, True
    return model, False


def _parallax(model: Any) -> float:
    """Root-mean-square distance of the cameras from their mean, divided by the median distance of the points."""
    centers = np.array([model.image(number).projection_center() for number in model.reg_image_ids()])
    points = np.array([point.xyz for point in model.points3D.values()])
    middle = centers.mean(axis=0)
    spread = np.sqrt(((centers - middle) ** 2).sum(axis=1).mean())
    return float(spread / max(np.median(np.linalg.norm(points - middle, axis=1)), 1e-300))


def _fix_focal_lengths(model: Any, job: dict[str, Any], deviations: dict[int, float]) -> bool:
    """Take focal lengths of EXIF data where photographs determine them weakly; returns whether that was done.

    It is done if the EXIF data give those of all cameras and all are weakly determined, since bundle adjustment keeps
    the focal lengths of all cameras or of none.
    """
    import pycolmap

    known = {job["names"][i]: each for each in job["cameras"] if each["has_prior"] for i in each["members"]}
    first = {}
    for number in model.reg_image_ids():
        image = model.image(number)
        first[image.camera_id] = known.get(image.name)
    weak = [deviations.get(number, math.inf) > _WEAK * model.camera(number).mean_focal_length() for number in first]
    given = {number: each for number, each in first.items() if each is not None}
    if not all(weak) or len(given) < len(first):
        return False
    for number, each in given.items():
        camera = model.camera(number)
        values = np.array(camera.params)
        values[list(camera.focal_length_idxs())] = each["parameters"][0]
        camera.params = values
    options = _adjustment(job)
    options.refine_focal_length = False
    pycolmap.bundle_adjustment(model, options)
    model.update_point_3d_errors()
    return True


def _adjustment(job: dict[str, Any]) -> Any:
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_principal_point = job.get("refines_principal_point", False)
    options.ceres.use_gpu = False
    options.ceres.loss_function_type, options.ceres.loss_function_scale = pycolmap.LossFunctionType.CAUCHY, 1.0
    solver = options.ceres.solver_options
    solver.num_threads, solver.max_num_iterations = 1, _ITERATIONS
    solver.function_tolerance = _TOLERANCE
    return options


def _measures(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Registered photographs, points, tracks and errors."""
    indices = {name: i for i, name in enumerate(job["names"])}
    images = [model.image(number) for number in model.reg_image_ids()]
    lengths = [point.track.length() for point in model.points3D.values()]
    errors = [point.error for point in model.points3D.values()]
    return {
        "registered": sorted(indices[image.name] for image in images),
        "points": len(lengths),
        "observations": int(sum(lengths)),
        "track_length": {
            "mean": float(np.mean(lengths)),
            "median": float(np.median(lengths)),
            "max": int(max(lengths)),
        },
        "reprojection_error": {"mean": float(np.mean(errors)), "median": float(np.median(errors))},
        "points_of": {str(indices[image.name]): int(image.num_points3D) for image in images},
    }


def _cameras(model: Any, job: dict[str, Any], deviations: dict[int, float], is_fixed: bool) -> list[dict[str, Any]]:
    """Cameras of registered photographs, with the standard deviation of the focal length before it was fixed."""
    indices = {name: i for i, name in enumerate(job["names"])}
    members: dict[int, list[int]] = {}
    for number in model.reg_image_ids():
        image = model.image(number)
        members.setdefault(image.camera_id, []).append(indices[image.name])
    return [
        {
            "model": camera.model.name,
            "width": camera.width,
            "height": camera.height,
            "parameters": [float(value) for value in camera.params],
            "focal": float(camera.mean_focal_length()),
            "focal_deviation": deviations.get(number),
            "is_fixed": is_fixed,
            "members": sorted(members[number]),
        }
        for number, camera in sorted(model.cameras.items())
        if number in members
    ]


def _deviations(model: Any, job: dict[str, Any]) -> dict[int, float]:
    """Standard deviation of each camera's first parameter, a focal length, in pixels; without those not determined.

    It is that for independent errors of 1 pixel of each coordinate of the key points, whatever the residuals are.
    """
    import pycolmap

    config = pycolmap.BundleAdjustmentConfig()
    for number in model.reg_image_ids():
        config.add_image(number)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(_adjustment(job), config, model)
    covariance = pycolmap.estimate_ba_covariance(pycolmap.BACovarianceOptions(), model, adjuster)
    found: dict[int, float] = {}
    for number, camera in model.cameras.items() if covariance is not None else ():
        values = covariance.get_other_params_cov(camera.params)
        if values is not None and values.size and math.isfinite(values[0, 0]) and values[0, 0] >= 0:
            found[number] = math.sqrt(float(values[0, 0]))
    return found


def _write(target: Path, model: Any, job: dict[str, Any]) -> None:
    """Write the model with the names of the photographs."""
    originals = dict(zip(job["names"], job["originals"], strict=True))
    for number in list(model.images):
        model.images[number].name = originals[model.images[number].name]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    model.write(target)
