"""Tests of the trunk, against a loop over neurons."""

import pytest
import torch

from enerf.fields.shape import SkipMLP

N_IN, WIDTH = 3, 4


def _trunk(depth: int, skip_at: int = 5) -> SkipMLP:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(depth)
        return SkipMLP(N_IN, WIDTH, depth, skip_at).double()


def _slow(trunk: SkipMLP, x: list[float], skip_at: int = 5) -> list[float]:
    h = x
    for i, layer in enumerate(trunk):
        sources = x + h if i == skip_at and i > 0 else h
        rows, biases = layer.weight.tolist(), layer.bias.tolist()
        h = [
            max(0.0, b + sum(w * v for w, v in zip(row, sources, strict=True)))
            for row, b in zip(rows, biases, strict=True)
        ]
    return h


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6, 8])
def test_every_depth_computes_what_the_loop_does(depth: int):
    trunk = _trunk(depth)
    x = torch.randn(2, 5, N_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = trunk(x)
    slow = [[_slow(trunk, point) for point in row] for row in x.tolist()]
    expected = torch.tensor(slow, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    assert found.abs().max() > 0
    assert len(trunk) == depth


@pytest.mark.parametrize("skip_at", [0, 1, 3, 7, 9])
def test_the_skip_is_where_it_is_requested(skip_at: int):
    trunk = _trunk(8, skip_at)
    x = torch.randn(5, N_IN, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.tensor([_slow(trunk, point, skip_at) for point in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(trunk(x), expected, rtol=0, atol=1e-13)
    joined = [i for i, layer in enumerate(trunk) if i > 0 and layer.in_features > WIDTH]
    assert joined == ([skip_at] if 0 < skip_at < 8 else [])


def test_layer_five_alone_sees_the_input_again():
    sees = [layer.in_features for layer in _trunk(8)]
    assert sees == [N_IN, *[WIDTH] * 4, N_IN + WIDTH, *[WIDTH] * 2]


def test_a_skip_carries_the_input_past_dead_layers():
    trunk = _trunk(6)
    with torch.no_grad():
        for layer in list(trunk)[:5]:
            layer.weight.zero_()
            layer.bias.zero_()
        trunk[5].weight.fill_(1.0)
        trunk[5].bias.zero_()
    x = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    assert trunk(x).tolist() == [1.5] * WIDTH


def test_without_a_sixth_layer_there_is_no_skip():
    assert [layer.in_features for layer in _trunk(5)] == [N_IN, *[WIDTH] * 4]
