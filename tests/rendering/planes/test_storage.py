"""A file of planes gives back what was written, or is refused in one sentence."""

import numpy as np
import pytest
import torch

from enerf.core.errors import InputError
from enerf.rendering.planes import stack as planes
from enerf.rendering.planes import storage
from tests.rendering.planes import stacks


def test_a_stack_is_read_back_as_it_was_written(tmp_path):
    made = stacks.random(5)
    storage.save(made, tmp_path / "planes.npz")
    found = storage.load(tmp_path / "planes.npz")
    assert found.camera == made.camera
    assert torch.equal(found.tiles, made.tiles)
    assert torch.equal(found.index, made.index)
    assert torch.equal(found.c2w, made.c2w)
    assert torch.equal(found.t_vals, made.t_vals)
    assert [path.name for path in tmp_path.iterdir()] == ["planes.npz"]


def test_a_stack_of_more_tiles_than_a_picture_has_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "ACROSS", 3)
    monkeypatch.setattr(storage, "DOWN", 2)
    made = stacks.random(7)
    storage.save(made, tmp_path / "planes.npz")
    assert torch.equal(storage.load(tmp_path / "planes.npz").tiles, made.tiles)


def test_a_stack_without_tiles_is_read_back(tmp_path):
    """What is baked of a field that is transparent everywhere."""
    made = stacks.random(5).only(torch.zeros(9, dtype=torch.bool))
    storage.save(made, tmp_path / "planes.npz")
    found = storage.load(tmp_path / "planes.npz")
    assert found.tiles.shape == (0, 32, 32, 4)
    assert found.index.shape == made.index.shape


def test_dense_textures_are_those_that_tiles_were_cut_from():
    generator = torch.Generator().manual_seed(1)
    textures = torch.randint(256, (2, 32, 63, 4), generator=generator, dtype=torch.uint8)
    tiles, index = planes.assemble(textures, torch.ones(2, 1, 2, dtype=torch.bool))
    made = planes.PlaneStack(stacks.POSE, stacks.CAMERA, torch.tensor([0.0, 1.0]).double(), tiles, index)
    assert torch.equal(made.dense(), textures)


@pytest.mark.parametrize("size", [0, 1, 100, 2000, -1])
def test_a_damaged_file_is_refused_in_one_sentence(tmp_path, size):
    path = tmp_path / "planes.npz"
    storage.save(stacks.random(), path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"planes\.npz: cannot be read as baked planes") as caught:
        storage.load(path)
    assert "\n" not in str(caught.value)


def _changed(path, **changes):
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **arrays | changes)


@pytest.mark.parametrize(
    "change",
    [
        {"version": np.int64(9)},
        {"t_vals": np.array([0.5, 0.2, 1.0])},
        {"t_vals": np.array([0.1, np.nan, 1.0])},
        {"index": np.full((3, 1, 2), 7, np.int32)},
        {"index": np.zeros((9, 9, 9), np.int32)},
        {"camera": np.array([63, 32, 0, 38, 30, 17.0])},
        {"c2w": np.full((3, 4), np.inf)},
        {"metadata": np.frombuffer(b"[1]", np.uint8)},
        {"rgb_0": np.frombuffer(b"RIFFnothing", np.uint8)},
        {"t_vals": np.array([None, None, None])},
    ],
)
def test_contradicting_content_is_refused_in_one_sentence(tmp_path, change):
    path = tmp_path / "planes.npz"
    storage.save(stacks.random(), path)
    _changed(path, **change)
    with pytest.raises(InputError, match="cannot be read as baked planes"):
        storage.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"planes\.npz: not found"):
        storage.load(tmp_path / "planes.npz")


def test_tiles_know_their_neighbors_and_the_sides_without_one():
    index = torch.tensor([[[0, 1, -1], [-1, 2, -1]]], dtype=torch.int32)
    across, down = planes.neighbors(index)
    assert (across.tolist(), down.tolist()) == ([[0, 1]], [[1, 2]])
    found = planes.open_borders(index, 3)
    assert found[0, -1].all()  # below the first is none
    assert not found[0, :-1].any()  # the border of the grid does not count
    assert found[1, :, -1].all()
    assert not found[1, 1:-1, :-1].any()
    assert found[2, :, 0].all()
    assert found[2, :, -1].all()
    assert not found[2, :, 1:-1].any()


def test_a_part_of_the_tiles_is_a_stack_without_empty_planes():
    made = stacks.random(3)
    found = made.only(torch.tensor([True, False, False, True, True]))
    assert found.index.tolist() == [[[0, -1]], [[1, 2]]]
    assert torch.equal(found.t_vals, made.t_vals[[0, 2]])
    assert torch.equal(found.tiles, made.tiles[[0, 3, 4]])
