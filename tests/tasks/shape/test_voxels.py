"""Tests of batches of voxels and of the IoU over all voxels."""

import pytest
import torch

from enerf.geometry import occupancy_volume
from enerf.geometry.occupancy_volume import Volume
from enerf.tasks.shape import metrics, voxels
from tests.geometry import volumes


@pytest.fixture(scope="module")
def volume() -> Volume:
    return occupancy_volume.from_array(volumes.ball(), "ball.npy")


def test_every_voxel_occurs_once_in_an_epoch_with_its_label_in_an_order_of_its_own(volume):
    n, size = 1000, volume.voxels.numel()
    steps = voxels.steps_per_epoch(volume, n)
    every = volume.points(torch.arange(size))
    expected = torch.cat([every, volume.labels(torch.arange(size)).float()[:, None]], 1)
    epochs = []
    for epoch in range(2):
        parts = [voxels.batch(volume, n, epoch * steps + i, 3) for i in range(steps)]
        assert [len(labels) for _, labels in parts] == [n] * (steps - 1) + [size - n * (steps - 1)]
        rows = torch.cat([torch.cat([points, labels[:, None]], 1) for points, labels in parts])
        assert torch.equal(rows.unique(dim=0), expected.unique(dim=0))
        epochs.append(rows)
    assert not torch.equal(*epochs)
    assert not torch.equal(voxels.batch(volume, n, 0, 3)[0], voxels.batch(volume, n, 0, 4)[0])


def test_a_batch_larger_than_the_volume_is_the_volume(volume):
    points, labels = voxels.batch(volume, 10**6, 5, 0)
    assert voxels.steps_per_epoch(volume, 10**6) == 1
    assert len(points) == volume.voxels.numel()
    assert int(labels.sum()) == int(volume.voxels.sum())


def test_the_iou_is_that_of_all_voxels_at_once_whatever_the_chunks(volume):
    index = torch.arange(volume.voxels.numel())
    for radius in (0.5, 0.9, 1.1):
        inside = lambda points, r=radius: points.norm(dim=-1) < r  # noqa: E731
        expected = metrics.iou(inside(volume.points(index)), volume.labels(index).bool())
        for chunk in (999, 1 << 20):
            found = voxels.measure(inside, volume, chunk=chunk)
            assert found == {"iou": expected, "voxels": len(index), "occupied": int(volume.voxels.sum())}


def test_a_quick_iou_is_of_a_part_and_near_that_of_all(volume, monkeypatch):
    monkeypatch.setattr(voxels, "QUICK_VOXELS", 4000)
    inside = lambda points: points.norm(dim=-1) < 0.9  # noqa: E731
    quick, whole = voxels.measure(inside, volume, quick=True), voxels.measure(inside, volume)
    assert quick["voxels"] == 4000
    assert quick["iou"] == pytest.approx(whole["iou"], abs=0.03)
    assert quick == voxels.measure(inside, volume, quick=True, chunk=333)
