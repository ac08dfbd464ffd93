"""Inductive gradient adjustment: the matrix S."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from enerf.optim.inductive import adjustment


def drawn(n: int, m: int, seed: int = 0) -> Tensor:
    return torch.randn(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(n=st.integers(1, 8), m=st.integers(1, 12), seed=st.integers(0, 99), data=st.data())
def test_the_largest_eigenvalues_are_lowered_to_the_next(n, m, seed, data):
    lowered = data.draw(st.integers(0, n - 1))
    jacobian = drawn(n, m, seed)
    kernel = jacobian @ jacobian.T
    found = adjustment(kernel, lowered)
    values = torch.linalg.eigvalsh(kernel).flip(0).clamp(min=0)
    expected = values.clone()
    expected[:lowered] = values[lowered]
    torch.testing.assert_close(found, found.T)
    torch.testing.assert_close(
        torch.linalg.eigvalsh(kernel @ found).flip(0), expected, atol=1e-11 * values[0].item(), rtol=1e-7
    )


def test_without_lowered_eigenvalues_it_is_the_identity():
    assert torch.equal(adjustment(drawn(4, 4), 0), torch.eye(4, dtype=torch.float64))


def test_a_kernel_of_zeros_changes_nothing():
    assert torch.equal(adjustment(torch.zeros(4, 4), 2), torch.eye(4, dtype=torch.float64))


@pytest.mark.parametrize("lowered", [-1, 4])
def test_a_number_out_of_range_is_refused(lowered):
    with pytest.raises(ValueError, match="expected 0 to 3"):
        adjustment(drawn(4, 4), lowered)


def test_of_a_kernel_that_is_not_finite_it_is_not_a_number():
    kernel = torch.eye(3)
    kernel[0, 1] = float("nan")
    found = adjustment(kernel, 1)
    assert found.dtype == torch.float64
    assert found.isnan().all()
