"""Tests of the loss that is differentiated twice: it is the training loss without its noise."""

import pytest
import torch

from enerf.conditioning import layers
from enerf.conditioning.diagnostics import curvature, eigenvalues
from enerf.config.options import ConditioningOptions
from enerf.core.types import Rays
from enerf.rendering.render import SamplingConfig
from enerf.tasks.nerf import build as nerf_build
from enerf.tasks.nerf import probe as nerf_probe
from enerf.tasks.nerf import step as nerf_step
from enerf.tasks.nerf.config import ModelOptions

SMALL = {"netdepth": 2, "netwidth": 6, "netdepth_fine": 2, "netwidth_fine": 6, "multires": 1, "multires_views": 1}
HASHED = {"encoding": "hash", "hash_levels": 2, "hash_features": 2, "hash_log2_entries": 5, "hash_finest": 32}


def fields(with_fine: bool = True, proposal: bool = False, **more) -> nerf_build.RadianceFields:
    model = ModelOptions(**{**SMALL, "use_viewdirs": True, "density": "softplus", **more})
    made = nerf_build.radiance_fields(model, ConditioningOptions(equilibrate="row"), with_fine, 0, proposal=proposal)
    return made.double()


def batch(n: int = 6) -> tuple[Rays, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    origins, directions, colors = (torch.randn(n, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    viewdirs = torch.nn.functional.normalize(directions, dim=-1)
    ends = torch.ones(n, dtype=torch.float64)
    return Rays(0.1 * origins, viewdirs, viewdirs, 0.1 * ends, ends), colors.sigmoid()


CASES = [
    (fields, SamplingConfig(4, 4)),
    (lambda: fields(with_fine=False), SamplingConfig(4)),
    (lambda: fields(proposal=True), SamplingConfig(4, 4, proposal=True)),
    (lambda: fields(**HASHED), SamplingConfig(4, 4)),
]


@pytest.mark.parametrize(("make", "passes"), CASES)
def test_its_value_and_gradient_are_those_of_a_training_step_without_noise(make, passes):
    model, (rays, colors) = make(), batch()
    loss = nerf_probe.photometric(model, passes, rays, colors)
    none = torch.Generator().manual_seed(0)
    seen = nerf_step.gradient(model, rays, colors, passes, none, jitter=False, interlevel=0.0)
    assert loss.value() == pytest.approx(seen[0].item(), rel=1e-12)
    parameters = loss.free_parameters()
    made = loss.loss(loss.model(loss.inputs), loss.targets)
    for found, parameter in zip(torch.autograd.grad(made, parameters), parameters, strict=True):
        torch.testing.assert_close(found, parameter.grad)


@pytest.mark.parametrize(("make", "passes"), CASES)
def test_its_hessian_is_the_derivative_of_that_gradient(make, passes):
    model, (rays, colors) = make(), batch()
    loss = nerf_probe.photometric(model, passes, rays, colors)
    parameters = loss.free_parameters()
    first = torch.autograd.grad(loss.loss(loss.model(loss.inputs), loss.targets), parameters, create_graph=True)
    signs = [
        torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(i))
        for i, p in enumerate(parameters)
    ]
    along = sum((a * b).sum() for a, b in zip(first, signs, strict=True))
    expected = torch.autograd.grad(along, parameters, allow_unused=True, materialize_grads=True)
    for a, b in zip(curvature.hessian(loss) @ signs, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_proposal_has_no_part_in_it():
    model, (rays, colors) = fields(proposal=True), batch()
    loss = nerf_probe.photometric(model, SamplingConfig(4, 4, proposal=True), rays, colors)
    assert [id(p) for p in loss.free_parameters()] == [id(p) for p in model.fine.parameters()]
    assert loss.targets.shape == (6, 1, 3)


def test_there_are_no_more_gauss_newton_eigenvalues_than_colors():
    model, (rays, colors) = fields(), batch()
    values = curvature.gauss_newton_spectrum(nerf_probe.photometric(model, SamplingConfig(4, 4), rays, colors))
    assert values.shape == (6 * 2 * 3,)
    operator = curvature.gauss_newton(nerf_probe.photometric(model, SamplingConfig(4, 4), rays, colors))
    start = torch.ones(operator.shape[0])
    assert values[0].item() == pytest.approx(eigenvalues.lanczos(operator, start, 15)[0].max().item(), rel=1e-6)


def test_some_parameters_can_be_named():
    model, (rays, colors) = fields(), batch()
    some = tuple(model.fine.trunk.parameters())
    assert nerf_probe.photometric(model, SamplingConfig(4, 4), rays, colors, some).free_parameters() == list(some)
    assert layers.conditioned_layers(model)["fine.trunk.0"] == "row"
