"""Tests of batches: each image once per epoch, and each step's batch independent of earlier ones."""

import threading

import pytest
import torch

from enerf.core.errors import InputError
from enerf.datasets.labelled import image_folders, load, synthetic
from enerf.datasets.labelled.dataset import InMemorySplit
from enerf.datasets.labelled.loader import Batches


def _numbered(n):
    """Images that hold their own number."""
    return InMemorySplit(
        torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 1, 8, 8).clone(), torch.arange(n)
    )


@pytest.fixture(params=["held", "on demand"])
def split(request, tmp_path, monkeypatch):
    folder = synthetic.write_folder(tmp_path, 23, 10, size=16)
    if request.param == "on demand":
        monkeypatch.setattr(image_folders, "MEMORY", 0)
    made = load.load(folder).train
    assert made.on_demand == (request.param == "on demand")
    return made


@pytest.mark.parametrize(("n", "steps"), [(1, 23), (5, 4), (23, 1), (100, 1)])
def test_an_epoch_sees_each_image_once_up_to_the_rest(n, steps):
    batches = Batches(_numbered(23), n, 0, "none")
    assert batches.steps_per_epoch == steps
    seen = [torch.cat([batches.at(epoch * steps + i)[1] for i in range(steps)]).tolist() for epoch in range(4)]
    for labels in seen:
        assert len(set(labels)) == len(labels) == steps * min(n, 23)
    assert len({tuple(labels) for labels in seen}) == 4  # in another order each time


def test_images_come_with_their_labels():
    images, labels = Batches(_numbered(50), 7, 1, "none").at(12)
    assert torch.equal(images[:, 0, 0, 0].long(), labels)


def test_a_step_is_the_same_in_any_order_with_and_without_a_background(split):
    alone = {step: Batches(split, 4, 3, "shift_flip").at(step) for step in range(12)}
    with Batches(split, 4, 3, "shift_flip") as batches:
        for step in (0, 1, 2, 9, 3, 3, 11, 0, 5, 6, 7, 8):
            for one, other in zip(batches.at(step), alone[step], strict=True):
                assert torch.equal(one, other)


def test_seeds_and_steps_differ_in_order_and_augmentation():
    held = _numbered(40)
    orders = {tuple(Batches(held, 40, seed, "none").at(step)[1].tolist()) for seed in range(3) for step in range(3)}
    assert len(orders) == 9
    marked = InMemorySplit(torch.ones(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40))
    made = [Batches(marked, 40, seed, "shift").at(step)[0] for seed in range(3) for step in range(3)]
    assert all(not torch.equal(a, b) for i, a in enumerate(made) for b in made[:i])


class _Slow:
    """Counts who asks for its batches."""

    def __init__(self, on_demand, error=None):
        self.split, self.on_demand, self.error, self.threads = _numbered(20), on_demand, error, []

    @property
    def labels(self):
        return self.split.labels

    def __len__(self):
        return 20

    def batch(self, numbers, augment="none", generator=None):
        self.threads.append(threading.current_thread().name)
        if self.error:
            raise self.error
        return self.split.batch(numbers, augment, generator)


def test_batches_are_made_ahead_only_where_they_are_decoded_on_demand():
    for on_demand in (True, False):
        slow = _Slow(on_demand)
        with Batches(slow, 5, 0, "none", ahead=2) as batches:
            for step in range(6):
                batches.at(step)
        assert len(slow.threads) in (range(6, 9) if on_demand else (6,))
        assert {name.startswith("batches") for name in slow.threads} == {on_demand}
        assert not any(thread.name.startswith("batches") for thread in threading.enumerate())
        assert len(batches.at(0)[1]) == 5  # afterwards too


def test_what_goes_wrong_in_the_background_is_told_to_who_asks():
    with Batches(_Slow(True, InputError("a.png cannot be read.")), 5, 0, "none") as batches:
        for _ in range(2):
            with pytest.raises(InputError, match=r"a\.png cannot be read"):
                batches.at(0)


@pytest.mark.parametrize("n", [0, -1])
def test_batches_of_nothing_are_one_sentence(n):
    with pytest.raises(InputError, match="expected 1 or more"):
        Batches(_numbered(3), n, 0, "none")
