"""Tests of data sets: fixed subsets, exact statistics."""

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.datasets.labelled import dataset, load, synthetic
from enerf.datasets.labelled.dataset import InMemorySplit, Split


@pytest.fixture
def figures(tmp_path):
    return load.load(synthetic.write_cifar(tmp_path, 50, 20))


def test_subsets_are_the_same_for_all_and_smaller_ones_are_parts_of_larger_ones(figures):
    one, other, small = figures.fewer(30, 10), figures.fewer(30, 0), figures.fewer(12, 20)
    every = torch.arange(30)
    assert torch.equal(one.train.batch(every), other.train.batch(every))
    assert torch.equal(one.train.batch(every[:12]), small.train.batch(every[:12]))
    assert torch.equal(one.train.labels[:12], small.train.labels)
    assert [len(x) for x in (one.train, one.test, other.test, small.test)] == [30, 10, 20, 20]
    assert isinstance(one.train, Split)
    assert len({tuple(image.flatten().tolist()) for image in one.train.batch(every)}) == 30
    assert one.mean == figures.mean


def test_labels_stay_with_their_images(figures):
    some = figures.fewer(7, 7).train
    for image, label in zip(some.batch(torch.arange(7)), some.labels, strict=True):
        place = (figures.train.images == image).flatten(1).all(1).nonzero().item()
        assert figures.train.labels[place] == label


@pytest.mark.parametrize("asked", [(51, 0), (0, 21), (-1, 0)])
def test_more_than_there_are_is_one_sentence(figures, asked):
    with pytest.raises(InputError, match=r"--(train|test)_images is -?\d+, expected 0 \(all\) to \d+"):
        figures.fewer(*asked)


def test_mean_and_deviation_are_those_of_all_pixels_in_float64(figures):
    pixels = figures.train.images.numpy().astype(np.float64) / 255
    assert np.allclose(figures.mean, pixels.mean((0, 2, 3)), rtol=1e-13)
    assert np.allclose(figures.std, pixels.std((0, 2, 3)), rtol=1e-13)


def test_the_deviation_of_a_constant_channel_is_not_0():
    constant = InMemorySplit(torch.full((3, 1, 4, 4), 255, dtype=torch.uint8), torch.arange(3))
    assert dataset.statistics(constant) == ((1.0,), (dataset.STD_FLOOR,))
