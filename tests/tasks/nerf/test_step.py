"""Tests of the gradient of a batch: chunks add up to it, and it equals that of the plain loss."""

import dataclasses

import pytest
import torch

from enerf.conditioning import layers
from enerf.config.options import ConditioningOptions
from enerf.core.types import Rays, Space
from enerf.rendering import proposal, render
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.build import RadianceFields
from enerf.tasks.nerf.config import ModelOptions, TrainOptions
from enerf.tasks.nerf.step import StepReport

N = 11
MODEL = ModelOptions(
    netdepth=6, netwidth=8, netdepth_fine=3, netwidth_fine=10, multires=2, multires_views=1, use_viewdirs=True
)
PLAIN, EQUILIBRATED = ConditioningOptions(), ConditioningOptions(equilibrate="row")
WEIGHT_NORM = ConditioningOptions(weight_norm=True)
KINDS = pytest.mark.parametrize("conditioning", [PLAIN, EQUILIBRATED, WEIGHT_NORM], ids=["plain", "row", "weight_norm"])


def fields(conditioning: ConditioningOptions = PLAIN, with_fine: bool = True) -> RadianceFields:
    made = nerf_build.radiance_fields(MODEL, conditioning, with_fine, seed=3).double()
    with torch.no_grad():  # so that something is seen
        for part in (made.coarse, made.fine):
            if part is not None:
                part.density_head.bias += 1.0
    return made


def batch() -> tuple[Rays, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(N, 9, dtype=torch.float64, generator=generator)
    directions = drawn[:, 3:6] - torch.tensor([0.5, 0.5, 1.5], dtype=torch.float64)
    viewdirs = directions / directions.norm(dim=-1, keepdim=True)
    near = torch.full((N,), 0.5, dtype=torch.float64)
    return Rays(drawn[:, :3], directions, viewdirs, near, near + 2), drawn[:, 6:]


def gradient(model: RadianceFields, **options) -> tuple[torch.Tensor, StepReport]:
    model.zero_grad()
    passes = options.pop("passes", SamplingConfig(5, 4))
    generator = torch.Generator().manual_seed(7)
    report = nerf_step.accumulate_gradient(model, *batch(), passes, generator, **{"jitter": False, **options})
    return flat(model), report


def flat(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in model.parameters()])


def close(a: torch.Tensor, b: torch.Tensor, rel: float = 1e-12) -> bool:
    return bool((a - b).norm() <= rel * b.norm())


@KINDS
@pytest.mark.parametrize("rays_at_once", [1, 4, N - 1])
def test_parts_add_up_to_the_gradient_of_the_whole(conditioning, rays_at_once):
    model = fields(conditioning)
    whole, seen = gradient(model, rays_at_once=N)
    parts, seen_in_parts = gradient(model, rays_at_once=rays_at_once)
    assert float(whole.norm()) > 1e-3
    assert close(parts, whole)
    assert dataclasses.astuple(seen_in_parts) == pytest.approx(dataclasses.astuple(seen), rel=1e-12)


@KINDS
@pytest.mark.parametrize("with_fine", [True, False])
def test_the_gradient_is_autograds_of_the_plain_loss(conditioning, with_fine):
    model = fields(conditioning, with_fine)
    ours, report = gradient(model, rays_at_once=3)
    rays, target = batch()
    first, final = render.render_rays(model.coarse, model.fine, rays, SamplingConfig(5, 4))
    loss = ((final.rgb - target) ** 2).mean() + (((first.rgb - target) ** 2).mean() if with_fine else 0.0)
    independent = torch.autograd.grad(loss, list(model.parameters()))
    assert close(ours, torch.cat([g.flatten() for g in independent]))
    assert report.loss == pytest.approx(loss.item(), rel=1e-13)


@KINDS
def test_the_gradient_agrees_with_finite_differences(conditioning):
    model = fields(conditioning, with_fine=False)  # the fine samples carry no gradient, but they move
    ours, _ = gradient(model)
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(1)
    direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
    values = []
    for step in (1e-6, -2e-6, 1e-6):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(step * d)
        values.append(gradient(model)[1].loss)
    slope = (values[0] - values[1]) / 2e-6
    assert float(ours @ torch.cat([d.flatten() for d in direction])) == pytest.approx(slope, rel=1e-5)


def test_the_report_tells_what_the_final_rendering_shows():
    model = fields()
    _, report = gradient(model, rays_at_once=4)
    rays, target = batch()
    with torch.no_grad():
        _, final = render.render_rays(model.coarse, model.fine, rays, SamplingConfig(5, 4))
    assert report.mse == pytest.approx(float(((final.rgb - target) ** 2).mean()), rel=1e-13)
    assert report.opacity == pytest.approx(float(final.opacity.mean()), rel=1e-13)
    spread = final.rgb.numpy().std(axis=0).mean()
    assert report.rgb_std == pytest.approx(float(spread), rel=1e-12)
    assert report.target_std == pytest.approx(float(target.numpy().std(axis=0).mean()), rel=1e-12)


def test_gradients_are_added_to_those_that_are_there():
    model = fields()
    once, _ = gradient(model)
    rays, target = batch()
    nerf_step.accumulate_gradient(model, rays, target, SamplingConfig(5, 4), torch.Generator(), jitter=False)
    assert close(flat(model), 2 * once)


@pytest.mark.parametrize("options", [{"jitter": True}, {"noise_std": 1}])
def test_jitter_and_noise_come_from_the_generator_alone(options):
    model = fields()
    still, _ = gradient(model)
    first, _ = gradient(model, **options)
    torch.manual_seed(99)
    again, _ = gradient(model, **options)
    assert torch.equal(first, again)
    assert not close(first, still, 1e-3)


def test_without_noise_and_jitter_the_generator_is_not_touched():
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    nerf_step.accumulate_gradient(fields(), *batch(), SamplingConfig(5, 4), generator, jitter=False)
    assert torch.equal(generator.get_state(), before)


def test_conditioned_weights_are_computed_once_for_all_parts(monkeypatch):
    model = fields(EQUILIBRATED)
    weight = model.fine.trunk[0].parametrizations.weight[0]
    shapes = {m.weight.shape for m in map(model.get_submodule, layers.conditioned_layers(model))}
    calls = []
    original = type(weight).compute
    monkeypatch.setattr(type(weight), "compute", lambda self, *x: calls.append(self) or original(self, *x))
    gradient(model, rays_at_once=2)
    assert len(calls) == len(shapes)  # and all layers of one shape together


# proposals

PROPOSED = SamplingConfig(9, 6, proposal=True)
WEIGHTS = {"interlevel": 0.7, "distortion": 0.2}
SPACE = Space((-1.0, -1.0, -4.0), (2.0, 2.0, 1.0))


def proposing(conditioning: ConditioningOptions = PLAIN) -> RadianceFields:
    """A hash-encoded field under a proposal, both of which see something."""
    hashed = dataclasses.replace(
        MODEL, encoding="hash", density="softplus", hash_levels=2, hash_features=2, hash_log2_entries=8,
        hash_coarsest=3, hash_finest=9,
    )  # fmt: skip
    made = nerf_build.radiance_fields(hashed, conditioning, True, seed=3, proposal=True, space=SPACE).double()
    with torch.no_grad():
        for name, p in made.named_parameters():
            if name.endswith("table"):
                p.mul_(5e3)
    return made


@KINDS
@pytest.mark.parametrize("rays_at_once", [3, N - 1])
def test_parts_of_a_proposal_add_up_to_the_whole(conditioning, rays_at_once):
    model = proposing(conditioning)
    whole, seen = gradient(model, passes=PROPOSED, **WEIGHTS)
    parts, seen_in_parts = gradient(model, passes=PROPOSED, rays_at_once=rays_at_once, **WEIGHTS)
    assert all(p.grad.norm() > 0 for p in model.parameters())
    assert close(parts, whole)
    assert dataclasses.astuple(seen_in_parts) == pytest.approx(dataclasses.astuple(seen), rel=1e-12)


@KINDS
def test_the_gradient_of_a_proposal_is_autograds_of_the_plain_loss(conditioning):
    model = proposing(conditioning)
    ours, report = gradient(model, passes=PROPOSED, rays_at_once=3, **WEIGHTS)
    rays, target = batch()
    first, final = render.render_rays(model.coarse, model.fine, rays, PROPOSED)
    loss = ((final.rgb - target) ** 2).mean()
    loss = loss + 0.7 * proposal.interlevel_loss(first.sample_edges, final.weights, first.edges, first.weights)
    along = (first.sample_edges - rays.near[:, None]) / (rays.far - rays.near)[:, None]
    loss = loss + 0.2 * proposal.distortion_loss(along, final.weights)
    independent = torch.autograd.grad(loss, list(model.parameters()))
    assert close(ours, torch.cat([g.flatten() for g in independent]))
    assert report.loss == pytest.approx(loss.item(), rel=1e-13)
    assert report.mse < report.loss


def test_the_weights_of_the_losses_reach_whom_they_concern():
    model = proposing()
    norms = {}
    for interlevel, distortion in ((0.0, 0.0), (1.0, 0.0), (2.0, 0.0), (0.0, 1.0)):
        model.zero_grad(set_to_none=False)
        gradient(model, passes=PROPOSED, interlevel=interlevel, distortion=distortion)
        grads = [[p.grad for p in part.parameters()] for part in (model.coarse, model.fine)]
        norms[interlevel, distortion] = [
            float(torch.cat([g.flatten() for g in part if g is not None] or [torch.zeros(1)]).norm()) for part in grads
        ]
    assert norms[0.0, 0.0][0] == 0
    assert norms[2.0, 0.0][0] == pytest.approx(2 * norms[1.0, 0.0][0], rel=1e-12)
    assert norms[1.0, 0.0][1] == pytest.approx(norms[0.0, 0.0][1], rel=1e-12)
    assert norms[0.0, 1.0][1] != pytest.approx(norms[0.0, 0.0][1], rel=1e-3)


def test_a_step_that_does_not_train_the_proposal_gives_the_field_the_same_gradient():
    model, grads = proposing(), {}
    for trained in (True, False):
        gradient(model, passes=PROPOSED, trains_proposal=trained, **WEIGHTS)
        grads[trained] = [[p.grad for p in part.parameters()] for part in (model.coarse, model.fine)]
        grads[trained] = [
            torch.cat([torch.zeros(1) if g is None else g.flatten().clone() for g in part]) for part in grads[trained]
        ]
    assert grads[True][0].norm() > 0
    assert grads[False][0].norm() == 0
    assert torch.equal(grads[True][1], grads[False][1])


def test_the_proposal_is_trained_in_all_first_steps_and_then_every_few():
    options = TrainOptions(proposal_every=4)
    trained = [step for step in range(300) if options.trains_proposal(step)]
    assert trained == [*range(256), *range(256, 300, 4)]
    assert all(TrainOptions().trains_proposal(step) for step in range(300))


def test_jitter_and_noise_of_a_proposal_come_from_the_generator_alone():
    model = proposing()
    still, _ = gradient(model, passes=PROPOSED)
    first, _ = gradient(model, passes=PROPOSED, jitter=True, noise_std=1)
    torch.manual_seed(99)
    again, _ = gradient(model, passes=PROPOSED, jitter=True, noise_std=1)
    assert torch.equal(first, again)
    assert not close(first, still, 1e-3)


@pytest.mark.parametrize(("make", "passes"), [(fields, SamplingConfig(5, 4)), (proposing, PROPOSED)])
def test_after_a_step_weights_are_free_again(make, passes):
    made = make(EQUILIBRATED)
    gradient(made, passes=passes)
    with torch.no_grad():
        before = made.fine(*points())
        for p in made.parameters():
            p.add_(0.1 * torch.ones_like(p).cumsum(0))
        after = made.fine(*points())
    assert not torch.equal(after.rgb, before.rgb)


def points() -> tuple[torch.Tensor, torch.Tensor]:
    rays, _ = batch()
    return rays.at(torch.stack([rays.near, rays.far], -1)), rays.viewdirs
