"""Tests of augmentation: equal to slow loops over images, with random numbers from the generator only."""

import math

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.datasets.labelled import augmentation


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _images(n=9, c=3, size=12):
    return torch.randint(0, 256, (n, c, size, size), dtype=torch.uint8, generator=_generator(7))


def _shifted(image, row, column, padding):
    """What stands at a pixel, one at a time; black outside."""
    made = torch.zeros_like(image)
    size = image.shape[-1]
    for y in range(size):
        for x in range(size):
            v, u = y + row - padding, x + column - padding
            if 0 <= v < size and 0 <= u < size:
                made[:, y, x] = image[:, v, u]
    return made


@pytest.mark.parametrize("padding", [0, 1, 4])
def test_shift_flip_is_what_a_loop_over_pixels_says(padding):
    images = _images()
    random = _generator(3)
    places = torch.randint(2 * padding + 1, (2, len(images)), generator=random)
    flips = torch.randint(2, (len(images),), generator=random)
    moved = [_shifted(image, *places[:, i].tolist(), padding) for i, image in enumerate(images)]
    assert torch.equal(augmentation.shift(images, _generator(3), padding), torch.stack(moved))
    turned = [image.flip(-1) if flip else image for image, flip in zip(moved, flips, strict=True)]
    assert torch.equal(augmentation.shift_flip(images, _generator(3), padding), torch.stack(turned))
    assert 0 < flips.sum() < len(flips)


def test_every_shift_and_both_sides_come_up():
    marked = torch.zeros(4000, 1, 9, 9, dtype=torch.uint8)
    marked[:, 0, 4, 4] = 1
    marked[:, 0, 4, 3] = 2
    made = augmentation.shift_flip(marked, _generator(), padding=2)
    places = (made == 1).flatten(1).int().argmax(1)
    assert sorted(places.unique().tolist()) == sorted(9 * y + x for y in range(2, 7) for x in range(2, 7))
    left = ((made == 2).flatten(1).int().argmax(1) < places).float().mean()
    assert abs(left - 0.5) < 0.05


def test_none_gives_the_images_and_what_cannot_be_done_is_one_sentence():
    images = _images()
    assert augmentation.augmented(images, "none", None) is images
    for name, words in (("crop", "--image_size"), ("spin", "--augment is spin, expected one of none, shift")):
        with pytest.raises(InputError, match=words):
            augmentation.augmented(images, name, _generator())
    with pytest.raises(ValueError, match="generator"):
        augmentation.augmented(images, "shift", None)


@pytest.mark.parametrize("alpha", [0, 0.2, 1.0, 30.0])
def test_mixed_images_are_mixed_as_their_weights_which_sum_to_one(alpha):
    labels = torch.arange(8)
    images = torch.nn.functional.one_hot(labels, 8).float().reshape(8, 1, 2, 4)  # an image is its own class
    for seed in range(10):
        mixed, weights = augmentation.mixup(images, labels, 8, alpha, _generator(seed))
        assert torch.allclose(mixed.flatten(1), weights, atol=1e-6)
        assert torch.allclose(weights.sum(1), torch.ones(8), atol=1e-6)
        assert weights.min() >= 0
        again = augmentation.mixup(images, labels, 8, alpha, _generator(seed))
        assert torch.equal(mixed, again[0])
    assert (alpha > 0) == (not torch.equal(mixed, images))


def test_the_share_that_is_mixed_has_the_mean_and_variance_of_its_beta_distribution():
    images, labels = torch.eye(2).reshape(2, 1, 1, 2), torch.arange(2)
    random, shares = _generator(), []
    while len(shares) < 600:
        weights = augmentation.mixup(images, labels, 2, 0.5, random)[1]
        if not torch.equal(weights, torch.eye(2)):  # the two were exchanged
            shares.append(float(weights[0, 0]))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.var(shares) == pytest.approx(1 / 8, abs=0.02)  # 1 / (4 (2 α + 1))


def test_random_parts_lie_in_the_picture_with_the_area_and_aspect_that_are_asked_for():
    random = np.random.default_rng(0)
    shares = []
    for width, height in ((200, 200), (300, 120), (90, 400)):
        for _ in range(400):
            left, top, w, h = augmentation.crop_box(width, height, random.random((10, 4)))
            assert 0 <= left <= left + w <= width
            assert 0 <= top <= top + h <= height
            assert abs(math.log(w / h)) <= math.log(4 / 3) + 2 / min(w, h)
            if width == height:
                shares.append(w * h / width / height)
    assert 0.07 < min(shares) < 0.12
    assert max(shares) > 0.9
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)


def test_where_no_part_fits_the_largest_central_one_is_taken():
    never = np.full((10, 4), 1.0)
    assert augmentation.crop_box(1000, 100, never) == (433, 0, 133, 100)
    assert augmentation.crop_box(100, 1000, never) == (0, 433, 100, 133)
    assert augmentation.crop_box(1, 1, np.zeros((10, 4)))[2:] == (1, 1)
