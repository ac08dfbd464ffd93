"""Shared data classes: shape annotations are checked, and rays are indexed as a batch."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from jaxtyping import TypeCheckError

from enerf.core.types import Camera, FieldOutput, Rays, Rendering
from enerf.rendering import volume


def _rays(*shape: int) -> Rays:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, *shape, 3, generator=generator, dtype=torch.float64)
    return Rays(*vectors, near=torch.zeros(shape, dtype=torch.float64), far=vectors[0, ..., 0].abs())


def test_a_dataclass_refuses_parts_of_different_batches():
    FieldOutput(torch.zeros(2, 4), torch.zeros(2, 4, 3))
    with pytest.raises(TypeCheckError):
        FieldOutput(torch.zeros(2, 5), torch.zeros(2, 4, 3))


@pytest.mark.parametrize(
    ("density", "rgb"),
    [
        (torch.zeros(2, 4), torch.zeros(2, 4, 4)),  # four channels
        (torch.zeros(2, 4, 1), torch.zeros(2, 4, 3)),  # a trailing singleton axis
        (torch.zeros(2, 4, dtype=torch.int64), torch.zeros(2, 4, 3)),  # whole numbers
    ],
)
def test_a_dataclass_refuses_wrong_shapes_and_kinds(density: torch.Tensor, rgb: torch.Tensor):
    with pytest.raises(TypeCheckError):
        FieldOutput(density, rgb)


def test_a_rendering_refuses_as_many_weights_as_it_has_no_positions_for():
    rgb, flat, samples = torch.zeros(2, 3), torch.zeros(2), torch.zeros(2, 4)
    Rendering(rgb, flat, flat, samples, samples)
    with pytest.raises(TypeCheckError):
        Rendering(rgb, flat, flat, samples, samples[:, 1:])


def test_a_function_refuses_arguments_that_contradict_each_other():
    volume.weights(torch.ones(2, 4), torch.ones(2, 4))
    with pytest.raises(TypeCheckError):
        volume.weights(torch.ones(2, 4), torch.ones(2, 3))


def test_a_method_refuses_to_broadcast_positions():
    assert _rays(5).at(torch.zeros(5, 4, dtype=torch.float64)).shape == (5, 4, 3)
    with pytest.raises(TypeCheckError):
        _rays(5).at(torch.zeros(1, 4, dtype=torch.float64))


def test_whole_numbers_pass_for_numbers_but_not_the_other_way_round():
    assert Camera(4, 3, 5, 5, 2, 1).fx == 5
    with pytest.raises(TypeCheckError):
        Camera(4.0, 3, 5.0, 5.0, 2.0, 1.5)


def test_values_that_travel_are_frozen():
    with pytest.raises(FrozenInstanceError):
        _rays(2).near = torch.zeros(2)


def test_points_lie_at_t_directions_from_the_origin():
    rays, t_vals = _rays(2, 3), torch.rand(2, 3, 4, dtype=torch.float64, generator=torch.Generator())
    points = rays.at(t_vals)
    for i in range(2):
        for j in range(3):
            for k in range(4):
                expected = rays.origins[i, j] + t_vals[i, j, k] * rays.directions[i, j]
                assert torch.equal(points[i, j, k], expected)


@pytest.mark.parametrize("index", [slice(1, 4), slice(0, 0), torch.tensor([4, 0, 4])])
def test_a_part_of_rays_is_the_same_part_of_everything(index: slice | torch.Tensor):
    rays = _rays(5)
    part = rays[index]
    for name, values in vars(rays).items():
        assert torch.equal(getattr(part, name), values[index])
    assert len(part) == len(range(5)[index] if isinstance(index, slice) else index)
