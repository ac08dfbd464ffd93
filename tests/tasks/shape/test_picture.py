"""Tests of pictures as fields: where pixels lie, which are learned, what comes back."""

import math

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from enerf.core import rng
from enerf.core.errors import InputError
from enerf.tasks.nerf import image_metrics as nerf_image_metrics
from enerf.tasks.shape import picture as shape_picture


def _noise(height=6, width=10, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels)).astype(np.uint8)


def _written(path, pixels):
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return path


def _every(picture):
    return torch.arange(picture.colors[..., 0].numel())


def _memory(picture):
    """A field that knows the picture: nearest pixel of a point."""
    height, width = picture.colors.shape[:2]
    longest = max(height, width)

    def field(at):
        column = (at[:, 0] * longest / 2 + width / 2 - 0.5).round().long()
        row = (height / 2 - 0.5 - at[:, 1] * longest / 2).round().long()
        return picture.colors[row, column]

    return field


@pytest.mark.parametrize(("height", "width"), [(6, 10), (10, 6), (5, 5), (1, 3)])
def test_pixels_are_square_and_the_longest_side_spans_the_square(tmp_path, height, width):
    picture = shape_picture.load(_written(tmp_path / "a.png", _noise(height, width)))
    at = picture.points(_every(picture)).double().reshape(height, width, 2)
    pitch = 2 / max(height, width)
    assert at.abs().amax().item() == pytest.approx(1 - pitch / 2, abs=1e-6)
    assert at.mean((0, 1)).abs().max() < 1e-6
    assert torch.allclose(at[:, 1:, 0] - at[:, :-1, 0], torch.tensor(pitch, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(at[:-1, :, 1] - at[1:, :, 1], torch.tensor(pitch, dtype=torch.float64), atol=1e-6)


def test_the_first_pixel_is_at_the_top_left(tmp_path):
    pixels = _noise()
    picture = shape_picture.load(_written(tmp_path / "a.png", pixels))
    assert (picture.points(torch.tensor([0]))[0] * torch.tensor([-1, 1]) > 0).all()
    assert np.array_equal(picture.colors_at(torch.tensor([13]))[0].numpy(), pixels[1, 3].astype(np.float32) / 255)
    assert (picture.name, picture.source) == ("a", (tmp_path / "a.png").as_posix())


def test_a_field_that_knows_the_picture_gives_it_back(tmp_path):
    picture = shape_picture.load(_written(tmp_path / "a.png", _noise()), holdout=0.3)
    for at_once in (1, 7, 1000):
        assert torch.equal(shape_picture.render(_memory(picture), picture, at_once), picture.colors)
    found = shape_picture.measure(_memory(picture), picture)
    assert (found["psnr"], found["psnr_heldout"]) == (math.inf, math.inf)
    assert (found["pixels_learned"], found["pixels_heldout"], found["width"], found["height"]) == (42, 18, 10, 6)


def test_learned_and_held_out_pixels_are_all_pixels_once_and_fixed_by_the_seed(tmp_path):
    path = _written(tmp_path / "a.png", _noise(20, 20))
    first, again, other = (shape_picture.load(path, 0.25, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.cat([first.train_pixels, first.heldout_pixels]).sort().values, _every(first))
    assert len(first.heldout_pixels) == 100
    assert torch.equal(first.heldout_pixels, again.heldout_pixels)
    assert not torch.equal(first.heldout_pixels, other.heldout_pixels)
    assert len(shape_picture.load(path).heldout_pixels) == 0


def test_batches_are_learned_pixels_with_their_colors_the_same_for_a_step(tmp_path):
    picture = shape_picture.load(_written(tmp_path / "a.png", _noise(20, 20)), 0.5)
    drawn = [shape_picture.batch(picture, 300, rng.generator_for(0, step)) for step in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(drawn[0], drawn[1], strict=True))
    assert not torch.equal(drawn[0][0], drawn[2][0])
    at, colors = drawn[0]
    assert torch.equal(_memory(picture)(at), colors)
    known = {tuple(p) for p in picture.points(picture.train_pixels).tolist()}
    assert {tuple(p) for p in at.tolist()} <= known


def test_psnr_is_that_of_pictures_and_of_clipped_colors(tmp_path):
    picture = shape_picture.load(_written(tmp_path / "a.png", _noise()), 0.4)
    found = shape_picture.measure(lambda at: torch.full((len(at), 3), 1.7), picture)
    for name, index in (("psnr", picture.train_pixels), ("psnr_heldout", picture.heldout_pixels)):
        assert found[name] == pytest.approx(
            nerf_image_metrics.psnr(torch.ones(len(index), 3), picture.colors_at(index))
        )
    assert shape_picture.measure(_memory(picture), shape_picture.load(tmp_path / "a.png"))["psnr_heldout"] is None


def test_fields_are_evaluated_without_gradients_and_must_return_three_values(tmp_path):
    picture = shape_picture.load(_written(tmp_path / "a.png", _noise()))
    weight = torch.ones(2, 3, requires_grad=True)
    assert not shape_picture.render(lambda at: at @ weight, picture).requires_grad
    with pytest.raises(ValueError, match="found shape"):
        shape_picture.render(lambda at: at, picture)


def test_transparency_is_composited_over_white_or_black_and_logged(tmp_path, caplog):
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], dtype=np.uint8)
    path = _written(tmp_path / "a.png", pixels)
    with caplog.at_level("INFO", "enerf"):
        white, black = (shape_picture.load(path, white=white).colors[0].tolist() for white in (True, False))
    np.testing.assert_allclose(white, [[1, 0, 0], [1, 1, 1], [0.8, 0.8, 0.8]], atol=1e-6)
    np.testing.assert_allclose(black, [[1, 0, 0], [0, 0, 0], [0, 0, 0]], atol=1e-6)
    assert "over white" in caplog.text
    assert "over black" in caplog.text


def test_gray_and_16_bit_files_keep_what_they_have(tmp_path):
    grey = shape_picture.load(_written(tmp_path / "grey.png", _noise(channels=1))).colors
    assert torch.equal(grey[..., 0], grey[..., 2])
    deep = np.random.default_rng(0).integers(0, 1 << 16, (4, 5, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    assert np.array_equal(shape_picture.load(tmp_path / "deep.png").colors.numpy(), deep[..., ::-1] / np.float32(65535))


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 0.999, 0.001, math.nan])
def test_a_share_that_leaves_nothing_to_learn_or_to_test_is_one_sentence(tmp_path, holdout):
    path = _written(tmp_path / "a.png", _noise())
    with pytest.raises(InputError, match=r"a\.png.*held-out") as caught:
        shape_picture.load(path, holdout)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_pictures_are_one_sentence(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(_written(tmp_path / "c.png", _noise(64, 64)).read_bytes()[:400])
    cv2.imwrite(str(tmp_path / "d.tiff"), np.ones((4, 4), np.float32))
    for name in ("a.png", "b.png", "d.tiff", "missing.png"):
        with pytest.raises(InputError, match=name) as caught:
            shape_picture.load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_fixed_batch_has_different_training_pixels_which_splits_of_an_image_share():
    colors = np.random.default_rng(0).random((7, 9, 3), dtype=np.float32)
    one, other = (shape_picture.from_array(colors, "a.png", 0.25, seed) for seed in (0, 1))
    whole = shape_picture.from_array(colors, "a.png")
    points, found = shape_picture.fixed_batch(one, 20, seed=5)
    index = [int(i) for point in points for i in torch.where((whole.points(torch.arange(63)) == point).all(-1))[0]]
    assert len(set(index)) == 20
    assert set(index) <= set(one.train_pixels.tolist())
    assert torch.equal(found, whole.colors_at(torch.tensor(index)))
    shared = {tuple(p) for p in points.tolist()} & {
        tuple(p) for p in shape_picture.fixed_batch(other, 20, seed=5)[0].tolist()
    }
    assert len(shared) >= 10  # independent draws would share 7 of 20
    assert len(shape_picture.fixed_batch(one, 1000, seed=5)[0]) == len(one.train_pixels)
