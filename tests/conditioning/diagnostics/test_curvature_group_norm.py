"""Tests of group normalization as curvature sees it: the same function, with second derivatives."""

import copy

import pytest
import torch
from torch import nn

from enerf.conditioning.diagnostics import curvature
from enerf.conditioning.diagnostics.curvature import Objective


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 5), (3, 8, 4, 5)])
def test_written_out_it_is_the_same_function(affine, shape):
    norm = nn.GroupNorm(4, 8, affine=affine).double()
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    seen = copy.deepcopy(norm)
    curvature.make_differentiable_(seen)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(seen(x), norm(x))
    of = [torch.autograd.grad(layer(x).pow(3).sum(), x)[0] for layer in (seen, norm)]
    torch.testing.assert_close(*of)


def test_products_with_the_hessian_are_those_of_double_backward():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)).double()
    x, y = torch.randn(5, 1, 4, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    seen = copy.deepcopy(net)
    curvature.make_differentiable_(seen)
    pytest.importorskip("curvlinops", reason="needs the extra diagnostics")
    hessian = curvature.hessian(Objective(seen, nn.functional.mse_loss, x, y))
    direction = torch.randn(hessian.shape[0], dtype=torch.float64)
    parameters = list(net.parameters())
    gradient = torch.autograd.grad(nn.functional.mse_loss(net(x), y), parameters, create_graph=True)
    along = torch.cat([g.flatten() for g in gradient]) @ direction
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(along, parameters)])
    torch.testing.assert_close(torch.as_tensor(hessian @ direction), expected, rtol=1e-6, atol=1e-9)
