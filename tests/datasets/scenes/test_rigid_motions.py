"""Rigid motions: exponentials of matrices, smooth gradients, moved poses."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from enerf.datasets.scenes import rigid_motions

light = settings(max_examples=25, deadline=None)


@given(st.integers(0, 1000), st.sampled_from([0.0, 1e-9, 1e-4, 0.1, 0.4999, 0.5001, 3.0]))
@light
def test_motions_are_exponentials_of_matrices(seed, size):
    generator = torch.Generator().manual_seed(seed)
    motion = torch.randn(6, generator=generator, dtype=torch.float64)
    axis, along = size * motion[:3] / motion[:3].norm(), motion[3:]
    matrix = torch.zeros(4, 4, dtype=torch.float64)
    matrix[[2, 0, 1], [1, 2, 0]], matrix[[1, 2, 0], [2, 0, 1]], matrix[:3, 3] = axis, -axis, along
    expected = torch.linalg.matrix_exp(matrix)
    for x in torch.eye(3, dtype=torch.float64):
        torch.testing.assert_close(rigid_motions.rotated(axis[None], x[None])[0], expected[:3, :3] @ x)
    torch.testing.assert_close(rigid_motions.shifted(axis[None], along[None])[0], expected[:3, 3])


@pytest.mark.parametrize("size", [0.0, 1e-5, 0.3, 2.0])
def test_gradients_of_motions_are_those_of_differences(size):
    generator = torch.Generator().manual_seed(0)
    axis, x = (torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    axis = (size * axis / axis.norm(dim=-1, keepdim=True)).requires_grad_()
    assert torch.autograd.gradcheck(rigid_motions.rotated, (axis, x.requires_grad_()))
    assert torch.autograd.gradcheck(rigid_motions.shifted, (axis, x))


def test_moved_poses_are_products_of_matrices():
    generator = torch.Generator().manual_seed(0)
    motions = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    rotation, shift = (
        torch.linalg.qr(torch.randn(4, 3, 3, generator=generator, dtype=torch.float64))[0],
        torch.ones(4, 3, 1),
    )
    c2w = torch.cat([rotation, shift.double()], 2)
    matrix = torch.zeros(4, 4, 4, dtype=torch.float64)
    axis = motions[:, :3]
    matrix[:, [2, 0, 1], [1, 2, 0]], matrix[:, [1, 2, 0], [2, 0, 1]], matrix[:, :3, 3] = axis, -axis, motions[:, 3:]
    square = torch.cat([c2w, torch.tensor([0.0, 0, 0, 1]).double().expand(4, 1, 4)], 1)
    torch.testing.assert_close(rigid_motions.applied(motions, c2w), (square @ torch.linalg.matrix_exp(matrix))[:, :3])
