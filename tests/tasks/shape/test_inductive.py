"""Inductive gradient adjustment of images: batches, derivatives, the gradient."""

import numpy as np
import pytest
import torch

from enerf.config import parser
from enerf.core.errors import InputError
from enerf.fields.activations import Activation
from enerf.fields.encoders import Positional
from enerf.fields.shape import ShapeField
from enerf.optim.inductive import adjustment
from enerf.tasks.shape import inductive
from enerf.tasks.shape import picture as shape_picture
from enerf.tasks.shape.config import ShapeConfig


@pytest.fixture
def picture() -> shape_picture.Picture:
    return shape_picture.from_array(np.random.default_rng(0).random((20, 30, 3)), "noise.png", 0.2)


@pytest.fixture
def field() -> ShapeField:
    torch.manual_seed(0)
    return ShapeField(Positional(2, 2), 2, 6, 3, skip_at=0)


def test_blocks_are_a_grid_of_the_training_pixels(picture):
    blocks = inductive.blocks_of(picture, 4)
    assert torch.equal(torch.cat(blocks).sort().values, picture.train_pixels)
    for i, block in enumerate(blocks):
        assert set((block // 30 * 4 // 20).tolist()) == {i // 4}
        assert set((block % 30 * 4 // 30).tolist()) == {i % 4}


def test_each_row_of_a_batch_has_one_pixel_of_each_block(picture):
    blocks = inductive.blocks_of(picture, 4)
    points, colors = inductive.batch(picture, blocks, 50, torch.Generator().manual_seed(0))
    assert points.shape == (3, 16, 2)
    for row in range(3):
        for column, block in enumerate(blocks):
            near = (picture.points(block) - points[row, column]).norm(dim=1)
            assert near.min() == 0
            assert torch.equal(picture.colors_at(block)[near.argmin()], colors[row, column])


@pytest.mark.parametrize(("skip", "activation"), [(0, "sine"), (1, "sine"), (0, "finer"), (1, "relu")])
def test_the_kernel_is_that_of_the_derivatives_of_each_point_alone(picture, skip, activation):
    torch.manual_seed(0)
    field = ShapeField(Positional(2, 2), 3, 6, 3, activation=Activation(activation, omega=3.0), skip_at=skip).double()
    points, rows = picture.points(picture.train_pixels[:5]).double(), []
    for point in points:
        field.zero_grad()
        (field(point[None]).sum() / 3**0.5).backward()
        rows.append(torch.cat([p.grad.flatten() for p in field.parameters()]))
    jacobian = torch.stack(rows)
    torch.testing.assert_close(inductive.kernel(field, points), jacobian @ jacobian.T)


@pytest.mark.parametrize("lowered", [0, 5])
def test_the_gradient_is_that_of_adjusted_residuals_and_the_value_the_error(picture, field, lowered):
    blocks = inductive.blocks_of(picture, 4)
    points, colors = inductive.batch(picture, blocks, 50, torch.Generator().manual_seed(0))
    (term,) = inductive.terms(field, points, colors, lowered).values()
    assert term.item() == pytest.approx((field(points) - colors).square().mean().item(), rel=1e-6)
    found = torch.autograd.grad(term, list(field.parameters()))
    adjusting = adjustment(inductive.kernel(field, points[0]), lowered).float()
    values = field(points)
    residuals = (values - colors).detach()
    slow = torch.zeros_like(residuals)
    for p in range(3):
        for c in range(3):
            slow[p, :, c] = adjusting @ residuals[p, :, c]
    expected = torch.autograd.grad((values * slow).sum() * 2 / residuals.numel(), list(field.parameters()))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_small_pictures_and_other_targets_are_one_sentence(picture):
    with pytest.raises(InputError, match=r"option --iga: noise\.png has 20 × 30 pixels, expected training pixels in"):
        inductive.blocks_of(picture, 25)
    for words, found in (
        (["--mesh", "a.ply"], "without --image"),
        (["--image", "a.png", "--encoding", "hash"], "with --encoding hash"),
        (["--image", "a.png", "--encoding", "none", "--equilibrate"], "with conditioned weights"),
        (["--image", "a.png", "--encoding", "none", "--N_points", "300"], "with --N_points 300, not a multiple"),
    ):
        with pytest.raises(InputError, match=f"option --iga .method iga.: found 5 {found}"):
            parser.parse(ShapeConfig, [*words, "--iga", "5"])
