"""Tests of volumes: the tight box, coordinates of voxels, the map to the file, and what is refused."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from enerf.geometry import occupancy_volume, volume_files
from tests.contents import refusal
from tests.geometry import volumes

BALL = volumes.ball()


def made(values: np.ndarray = BALL) -> occupancy_volume.Volume:
    return occupancy_volume.from_array(values, "it.npy")


def test_the_tight_box_holds_all_occupied_voxels_and_each_of_its_sides_touches_one():
    volume = made()
    x, y, z = volume.first
    a, b, c = volume.voxels.shape
    assert np.array_equal(volume.voxels.numpy() == 1, BALL[x : x + a, y : y + b, z : z + c])
    assert int(volume.voxels.sum()) == BALL.sum()
    for axis in range(3):
        assert volume.voxels.select(axis, 0).any()
        assert volume.voxels.select(axis, -1).any()


def test_coordinates_are_those_of_numpys_linspace_per_axis_and_lead_back_to_the_file():
    volume = made()
    index = torch.arange(volume.voxels.numel())
    axes = [np.linspace(-1, 1, side) for side in volume.voxels.shape]
    expected = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    points = volume.points(index)
    np.testing.assert_allclose(points.numpy(), expected, rtol=0, atol=6e-8)
    in_file = volume.normalization.to_file(expected)
    rows = np.stack(np.indices(volume.voxels.shape), -1).reshape(-1, 3) + volume.first
    np.testing.assert_allclose(in_file, rows, rtol=0, atol=1e-12)
    np.testing.assert_allclose(volume.normalization.to_box(in_file), expected, rtol=0, atol=1e-14)
    assert np.array_equal(volume.labels(index).numpy() == 1, BALL[tuple(rows.T)])


@pytest.mark.parametrize("name", volumes.VALUES)
def test_every_type_and_memory_order_is_the_same_volume(name):
    found = made(volumes.VALUES[name](BALL))
    assert torch.equal(found.voxels, made().voxels)
    assert found.voxels.is_contiguous()
    assert found.first == made().first


def test_values_between_are_occupied_above_half_of_the_largest_with_a_warning(caplog):
    gray = BALL * np.uint8(200)
    gray[0, 0, 0], gray[BALL.nonzero()[0][0], BALL.nonzero()[1][0], BALL.nonzero()[2][0]] = 99, 101
    assert torch.equal(made(gray).voxels, made().voxels)
    assert "2 voxels have values between 0 and 200" in caplog.text


def test_the_name_is_without_the_suffixes(tmp_path):
    for name in ("a.b.mat.zip", "a.b.npz", "a.b.npy"):
        path = volumes.write(tmp_path, name, volumes.mat(hypercube=BALL) if "mat" in name else volumes.npy(BALL))
        if name.endswith("zip"):
            path.write_bytes(volumes.zipped({"it.mat": path.read_bytes()}))
        assert occupancy_volume.load(path).name == "a.b"


NAN = BALL * 1.0
NAN[3, 3, 3] = np.nan
REFUSED = {
    "empty": (np.zeros((4, 4, 4), bool), "no occupied voxel"),
    "full": (np.ones((4, 4, 4), np.uint8), "64 occupied voxels in a tight box of 4×4×4"),
    "a full block": (np.pad(np.ones((2, 3, 4), bool), 2), "24 occupied voxels in a tight box of 2×3×4"),
    "a layer": (np.pad(np.eye(4, dtype=bool)[None], 1), "at least two layers"),
    "two axes": (np.eye(4), r"shape \(4, 4\), expected three axes"),
    "four axes": (BALL[None], "expected three axes"),
    "no voxels": (np.zeros((0, 4, 4)), "expected three axes"),
    "not a number": (NAN, "values from nan"),
    "infinite": (np.where(BALL, np.inf, 0.0), "found values"),
    "negative": (BALL * 2 - 1, "values from -1 to 1"),
    "large": (BALL * 1000, "values from 0 to 1000"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_volume_is_one_sentence(name):
    values, sentence = REFUSED[name]
    text = refusal(occupancy_volume.from_array, values, "it.npy")
    assert text.startswith("it.npy: found")
    assert re.search(sentence, text), text


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "first", "box", "occupied"),
    [("dragon", (76, 1, 142), (360, 510, 228), 7_419_895), ("thai_statue", (104, 0, 125), (304, 512, 262), 4_872_591)],
)
def test_volumes_of_the_papers(name, first, box, occupied):
    path = Path(os.environ.get("ENERF_DATA", "")) / "volumes" / f"{name}.mat.zip"
    if "ENERF_DATA" not in os.environ or not path.is_file():
        pytest.skip(f"ENERF_DATA names no folder with volumes/{name}.mat.zip")
    assert volume_files.announced_bytes(path) == 512**3 + 208
    found = occupancy_volume.load(path)
    assert (found.name, found.first, tuple(found.voxels.shape)) == (name, first, box)
    assert int(torch.count_nonzero(found.voxels)) == occupied
