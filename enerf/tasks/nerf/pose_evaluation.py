"""Evaluation of runs with refined poses: how far the poses moved, and test views with poses fitted to their images.

The given poses of test views do not fit a field whose training poses were refined. They are moved by the similarity
from the given to the refined training poses (the headline), and then also fitted to the test images with the frozen
field, as is usual for such methods; then they are no longer independent of the images that they are scored on.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from enerf.core import rng
from enerf.datasets.scenes import alignment
from enerf.datasets.scenes import pixels as scenes_pixels
from enerf.datasets.scenes.scene import Scene
from enerf.engine import distributed
from enerf.tasks.nerf import losses, refinement, views
from enerf.tasks.nerf.refinement import PoseRefinement
from enerf.tasks.nerf.setup import Run
from enerf.tasks.nerf.views import Renderer

RAYS = 1024  # per step of the fit
PROTOCOL = (
    "training poses were refined; test poses are moved by the similarity from the given to the refined training poses; "
    "psnr_refined: test poses are then fitted to the test images in {steps} steps with the field frozen"
)


def protocol(run: Run) -> str:
    """Return the protocol of test poses in words."""
    return PROTOCOL.format(steps=run.config.capture.pose_eval_iters)


def summary(run: Run, renderer: Renderer, aligned_psnr: float | None, n_pixels: int) -> dict[str, Any]:
    """Return both numbers of the test views, and how far the training poses moved.

    Parameters
    ----------
    run, renderer
        The run, and the renderer of its frozen field.
    aligned_psnr
        The headline.
    n_pixels
        Fixed pixels per test view that are scored; 0: all.
    """
    scene = run.present_scene
    given, found = (each.c2w[list(scene.train)].double().cpu().numpy() for each in (run.scene, scene))
    angles, distances = alignment.residuals(given, found)
    steps = run.config.capture.pose_eval_iters
    refined = None
    if steps:
        fitted = replace(scene, c2w=scene.c2w.clone())
        found_poses = distributed.current().map(partial(fitted_pose, run, renderer, scene), scene.test)
        for view, pose in zip(scene.test, found_poses, strict=True):
            fitted.c2w[view] = pose
        refined = views.psnr_of_pixels(renderer, fitted, scene.test, n_pixels)
    return {
        "psnr_aligned": aligned_psnr,
        "psnr_refined": refined,
        "moved_degrees": float(angles.mean()),
        "moved_share_of_spread": float(distances.mean()) / max(alignment.spread(found), 1e-30),
    }


def fitted_pose(run: Run, renderer: Renderer, scene: Scene, view: int) -> Float[Tensor, "3 4"]:
    """Return the pose of a view that is fitted to its image: Adam on the photometric error of random pixels.

    The learning rate falls to a tenth of ``lrate_poses``. Samples are not jittered; pixels are fixed by the view.
    """
    capture, device = run.config.capture, scene.c2w.device
    ndc, plain = (scene.camera, replace(scene, ndc=False)) if scene.ndc else (None, scene)
    motion = PoseRefinement(scene, [view]).to(device)
    optimizer = torch.optim.Adam([motion.values], lr=capture.lrate_poses)
    sampler, generator = scenes_pixels.PixelSampler(scene, [view]), rng.generator_for(0, view, device)
    for step in range(capture.pose_eval_iters):
        optimizer.param_groups[0]["lr"] = capture.lrate_poses * 0.1 ** (step / capture.pose_eval_iters)
        optimizer.zero_grad()
        pixels = sampler.draw(RAYS, generator)
        batch = scenes_pixels.rays_of(plain, pixels, renderer.pixel_centers)
        colors = scenes_pixels.colors_of(scene, pixels)
        for start in range(0, RAYS, renderer.rays_at_once):
            part = slice(start, min(start + renderer.rays_at_once, RAYS))
            moved = refinement.to_field(motion(batch[part], pixels.view[part]), ndc)
            loss = losses.mse(renderer.render(moved).rgb, colors[part]) * ((part.stop - part.start) / RAYS)
            loss.backward()
        optimizer.step()
    return motion.poses(scene.c2w)[view].to(scene.c2w)
