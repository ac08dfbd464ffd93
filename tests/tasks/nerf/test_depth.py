"""Depth supervision: the loss is least at the known depth, its gradient is that of its parts, runs resume with it."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.config import parser
from enerf.core.types import Rays, Rendering
from enerf.datasets.scenes import pixels, synthetic, synthetic_around
from enerf.rendering import render, sampling
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import losses, setup, train, views
from enerf.tasks.nerf import step as nerf_step
from tests.contents import refusal, same, saved
from tests.tasks.nerf.test_step import batch, close, fields, flat, proposing

QUIET = "--i_print 0 --i_eval 0 --i_img 0 --i_video 0 --i_testset 0 --i_spectrum 0 --eval_rays 20 --device cpu"
SMALL = "--netdepth 2 --netwidth 16 --netdepth_fine 2 --netwidth_fine 16 --N_rand 32 --N_samples 8 --N_importance 8"
BASE = f"{SMALL} {QUIET} --backend torch --precision fp32 --N_iters 4 --no_final_eval".split()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "around"
    return synthetic_around.write_scene(folder, views=8, width=20, height=16, supersample=1, progress=False)


def ray(n: int = 1) -> Rays:
    origins, down = torch.zeros(n, 3, dtype=torch.float64), torch.tensor([[0.0, 0.0, -1.0]], dtype=torch.float64)
    near = torch.full((n,), 0.5, dtype=torch.float64)
    return Rays(origins, down.expand(n, 3), down.expand(n, 3), near, 100 * near)


def rendering(weights: torch.Tensor, t_vals: torch.Tensor) -> Rendering:
    return Rendering(torch.zeros(1, 3, dtype=torch.float64), t_vals[:, 0], weights.sum(-1), weights, t_vals)


@given(st.integers(0, 1000), st.sampled_from([(False, 0.0), (True, 0.0), (False, 2.0)]))
@settings(max_examples=30, deadline=None)
def test_nothing_is_better_than_an_opaque_sample_at_the_known_depth(seed, spacing):
    lindisp, knee = spacing
    generator = torch.Generator().manual_seed(seed)
    t_vals = sampling.stratified(ray().near, ray().far, 12, lindisp, generator, knee)
    weights = torch.rand(1, 12, generator=generator, dtype=torch.float64)
    weights = weights / weights.sum() * torch.rand(1, generator=generator, dtype=torch.float64)
    at = int(torch.randint(12, (1,), generator=generator))
    best = torch.zeros_like(weights)
    best[0, at] = 1
    known = t_vals[:, at]
    least = losses.depth(rendering(best, t_vals), ray(), known, lindisp, knee)
    assert float(least) == pytest.approx(0, abs=1e-12)
    assert losses.depth(rendering(weights, t_vals), ray(), known, lindisp, knee) > 0


def test_mass_moves_towards_the_known_depth():
    t_vals = torch.tensor([[1.0, 10.0, 20.0, 40.0]], dtype=torch.float64)
    weights = torch.full((1, 4), 0.2, dtype=torch.float64, requires_grad=True)
    losses.depth(rendering(weights, t_vals), ray(), torch.tensor([20.0], dtype=torch.float64)).backward()
    assert weights.grad[0].argmin() == 2
    assert weights.grad[0, 3] > weights.grad[0, 2]


@pytest.mark.parametrize(("make_fields", "config"), [(fields, SamplingConfig(5, 4)), (proposing, None)])
@pytest.mark.parametrize("rays_at_once", [1, 4, 100])
def test_the_gradient_is_that_of_both_losses_together(make_fields, config, rays_at_once):
    model, config = make_fields(), config or SamplingConfig(9, 6, proposal=True)
    rays, target = batch()
    depths = nerf_step.DepthTerms(rays[:5], torch.linspace(0.7, 2.0, 5, dtype=torch.float64), 0.3)
    generator = torch.Generator().manual_seed(0)
    options = {"jitter": False, "interlevel": 0.0, "rays_at_once": rays_at_once}
    plain = nerf_step.gradient(model, rays, target, config, generator, **options)
    before = flat_or_zero(model)
    model.zero_grad()
    both = nerf_step.gradient(model, rays, target, config, generator, **options, depths=depths)
    first, final = render.render_rays(model.coarse, model.fine, depths.rays, config)
    trained = [first, final] if isinstance(first, Rendering) else [final]
    loss = 0.3 * sum(losses.depth(each, depths.rays, depths.t) for each in trained)
    alone = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)
    assert close(flat_or_zero(model), before + torch.cat([g.flatten() for g in alone]), 1e-9)
    assert float(both[0]) == pytest.approx(float(plain[0] + loss.detach()), rel=1e-9)


def flat_or_zero(model: torch.nn.Module) -> torch.Tensor:
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return flat(model)


@pytest.mark.parametrize("words", [[], ["--exposure", "gain"]], ids=["alone", "with_exposure"])
def test_two_and_resume_and_two_steps_are_four_to_the_last_bit(words, make):
    whole, parts = (make(name, "--depth_weight", "0.1", *words) for name in ("whole", "parts"))
    train.train(whole)
    for n in (2, 4):
        train.train(parser.replace(parts, N_iters=n))
    assert same(saved(whole.folder), saved(parts.folder))
    train.train(make("off", *words))
    assert not same(saved(whole.folder)["model"], saved(make("off").folder)["model"])


def test_the_batch_is_that_of_a_run_without(make):
    found = {}
    for weight in ("0", "0.1"):
        run = setup.prepare(make(weight, "--depth_weight", weight))
        batches = train.Batches(run, torch.Generator())
        found[weight] = batches.batch(*batches.draw(3))
    assert torch.equal(found["0"].target, found["0.1"].target)
    assert torch.equal(found["0"].rays.directions, found["0.1"].rays.directions)
    assert found["0"].depths is None
    assert len(found["0.1"].depths.rays) == 8


def test_known_depths_bring_the_rendered_depths_nearer(make):
    hashed = "--encoding hash --hash_levels 4 --hash_log2_entries 12 --hash_finest 64 --density exp --sampler proposal"
    words = f"{hashed} --N_samples 32 --N_importance 16 --N_rand 128 --lrate 1e-2 --N_iters 60".split()
    errors = {}
    for weight in ("0", "1"):
        config = make(weight, *words, "--depth_weight", weight)
        train.train(config)
        run = setup.open_run(config.folder, "cpu")
        scene = setup.load_scene(parser.replace(run.config, depth_weight=1.0), pose_check=False)
        known = scene.depths.where(scene.depths.view == scene.test[0])
        renderer, knee = views.renderer_of(run), setup.sampling_config(run.config, scene).knee
        through, t = pixels.depth_rays(scene, known)
        with torch.no_grad():
            found = renderer.render(through).depth
        errors[weight] = float((sampling.complement(found, knee) - sampling.complement(t, knee)).abs().median())
    assert errors["1"] < 0.5 * errors["0"]


def test_scenes_without_known_depths_are_refused(tmp_path, make):
    folder = synthetic.write_scene(tmp_path / "llff", views=4, width=8, height=6, supersample=1, progress=False)
    words = refusal(train.train, make("run", "--datadir", str(folder), "--factor", "1", "--depth_weight", "1"))
    assert "--depth_weight: found no known depths" in words
    assert "--dataset_type colmap" in words
