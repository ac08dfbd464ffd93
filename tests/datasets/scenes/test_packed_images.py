"""Images of several sizes in one tensor are indexed as a list of tensors is."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from enerf.datasets.scenes.packed_images import PackedImages

SIZES = st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5)
KINDS = st.sampled_from([torch.uint8, torch.float32, torch.bool])


def _images(sizes, channels, kind):
    generator = torch.Generator().manual_seed(len(sizes))
    return [(torch.rand(h, w, channels, generator=generator) * 255).to(kind) for h, w in sizes]


@given(sizes=SIZES, channels=st.integers(1, 4), kind=KINDS, seed=st.integers(0, 2**31))
def test_pixels_and_images_are_those_packed(sizes, channels, kind, seed):
    images = _images(sizes, channels, kind)
    packed = PackedImages.of(iter(images))
    assert (len(packed), packed.dtype, packed.channels) == (len(images), kind, channels)
    assert [packed.size(i) for i in range(len(sizes))] == sizes
    assert all(torch.equal(packed[i], image) for i, image in enumerate(images))
    assert torch.equal(packed[-1], images[-1])
    generator = torch.Generator().manual_seed(seed)
    view = torch.randint(len(images), (3, 4), generator=generator)
    share = torch.rand(2, 3, 4, generator=generator)
    y, x = (share * packed.sizes[view].movedim(-1, 0)).long()
    found = packed[view, y, x]
    assert found.shape == (3, 4, channels)
    for at in range(12):
        v, row, column = (int(index.flatten()[at]) for index in (view, y, x))
        assert torch.equal(found.reshape(12, -1)[at], images[v][row, column])


def test_images_of_one_size_are_indexed_as_a_tensor():
    images = torch.rand(3, 4, 5, 2)
    packed = PackedImages.of(images)
    view, y, x = (torch.randint(size, (50,)) for size in (3, 4, 5))
    assert torch.equal(packed[view, y, x], images[view, y, x])


def test_an_image_is_a_view_of_the_memory():
    packed = PackedImages.of([torch.zeros(2, 3, 1), torch.zeros(4, 1, 1)])
    packed[1][3] = 7
    assert packed.pixels.flatten().tolist() == [0] * 9 + [7]
    assert packed.to("cpu").pixels is packed.pixels


def test_pixels_must_be_as_many_as_the_sizes_say():
    with pytest.raises(ValueError, match="found 7 pixels, expected 8, as the sizes say"):
        PackedImages(torch.zeros(7, 3), torch.tensor([[2, 2], [4, 1]]))
