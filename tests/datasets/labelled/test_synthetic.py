"""Tests of generated figures: reproducible, balanced classes, nothing is overwritten."""

import pytest
import torch

from enerf.core.errors import InputError
from enerf.datasets.labelled import load, synthetic


def test_figures_are_the_same_each_time_and_as_many_of_each_class():
    one, other = synthetic.figures(203, 32, 3, seed=4), synthetic.figures(203, 32, 3, seed=4)
    assert torch.equal(one.images, other.images)
    counts = one.labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    assert not torch.equal(one.images, synthetic.figures(203, 32, 3, seed=5).images)


def _accuracy(model, images, labels):
    with torch.no_grad():
        return float((model(images).argmax(1) == labels).float().mean())


def test_a_small_network_learns_them_and_a_linear_map_does_not():
    train, test = synthetic.figures(1500, 28, 1, 0), synthetic.figures(400, 28, 1, 1)
    x, held = (split.images.float() / 128 - 1 for split in (train, test))
    torch.manual_seed(0)
    nn = torch.nn
    layers = [nn.Conv2d(1, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1)]
    network = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    reached = []
    for model in (network, nn.Sequential(nn.Flatten(), nn.Linear(784, 10))):
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for step in range(120):
            batch = torch.arange(step * 64, step * 64 + 64) % len(x)
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[batch]), train.labels[batch]).backward()
            optimiser.step()
        reached.append(_accuracy(model, held, test.labels))
    assert reached[0] > 0.6
    assert reached[1] < 0.35


def test_folders_hold_what_was_made_and_writing_twice_changes_nothing(tmp_path):
    for _ in range(2):
        synthetic.write_folder(tmp_path, 30, 10, size=24)
    read, made = load.load(tmp_path), synthetic.figures(30, 24, 3, 0)
    assert read.classes == tuple(sorted(synthetic.CLASSES))
    for k, name in enumerate(read.classes):
        before = made.images[made.labels == synthetic.CLASSES.index(name)]
        assert torch.equal(read.train.images[read.train.labels == k], before)


def test_nothing_is_overwritten_and_too_few_are_one_sentence(tmp_path):
    synthetic.write_cifar(tmp_path, 10, 10)
    with pytest.raises(InputError, match="exists and holds something else"):
        synthetic.write_cifar(tmp_path, 10, 10, seed=1)
    for write, n_train, n_test in (
        (synthetic.write_cifar, 4, 1),
        (synthetic.write_idx, 9, 1),
        (synthetic.write_folder, 9, 1),
        (synthetic.write_folder, 10, 0),
    ):
        with pytest.raises(InputError, match="expected"):
            write(tmp_path / "few", n_train, n_test)
