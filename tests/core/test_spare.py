"""Large gradients are kept for the next step: the same memory, given away once, and never in the place of another."""

import gc
import weakref

import pytest
import torch

from enerf.core import spare
from enerf.engine import trainer
from enerf.fields.backends import cpu_hashgrid
from enerf.fields.backends.hashgrid import make_grid


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(spare, "LARGE", 1000)


def parameter(*shape: int) -> torch.nn.Parameter:
    made = torch.nn.Parameter(torch.ones(shape))
    made.grad = torch.full(shape, 3.0)
    return made


def test_a_gradient_that_was_kept_is_given_away_once():
    weight = parameter(30, 10)
    address = weight.grad.data_ptr()
    spare.keep([weight])
    assert weight.grad is None
    first, second = spare.empty_like(weight), spare.empty_like(weight)
    assert first.data_ptr() == address
    assert second.data_ptr() != address


def test_small_gradients_and_those_of_another_form_are_not_used():
    small, changed = parameter(3, 3), parameter(30, 10)
    spare.keep([small])
    assert small.grad is not None
    spare.keep([changed])
    changed.data = torch.ones(20, 20)
    assert spare.empty_like(changed).shape == (20, 20)


def test_nothing_is_kept_of_parameters_that_are_gone():
    weight = parameter(30, 10)
    grad = weakref.ref(weight.grad)
    spare.keep([weight])
    del weight
    gc.collect()
    assert grad() is None


@pytest.mark.skipif(not cpu_hashgrid.available(), reason="there is no C++ compiler")
def test_steps_with_kept_gradients_are_those_without(monkeypatch):
    grid, found = make_grid(3, 2, 8, 4, 16), []
    for large in (1000, 1 << 60):
        monkeypatch.setattr(spare, "LARGE", large)
        generator = torch.Generator().manual_seed(0)
        table = torch.nn.Parameter(torch.randn(grid.offsets[-1], 2, generator=generator))
        adam = torch.optim.Adam([table], lr=0.1)
        for _ in range(5):
            trainer._clear_gradients(adam)
            points = torch.rand(50, 3, generator=generator)
            for part in points.split(30):  # two gradients, which are added
                cpu_hashgrid.encode(part, table, grid).square().sum().backward()
            adam.step()
        found.append(table.detach().clone())
    assert torch.equal(*found)


@pytest.mark.skipif(not cpu_hashgrid.available(), reason="there is no C++ compiler")
def test_the_kept_memory_becomes_the_next_gradient_without_a_copy():
    grid = make_grid(3, 2, 8, 4, 16)
    table = torch.nn.Parameter(torch.randn(grid.offsets[-1], 2))
    adam, others = torch.optim.Adam([table], lr=0.1), []
    cpu_hashgrid.encode(torch.rand(50, 3), table, grid).sum().backward()
    address = table.grad.data_ptr()
    for _ in range(3):
        trainer._clear_gradients(adam)
        others.append(torch.empty_like(table))  # would get the memory if it were free
        cpu_hashgrid.encode(torch.rand(50, 3), table, grid).sum().backward()
        assert table.grad.data_ptr() == address
