"""Pictures and videos as data URIs."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from enerf.core.errors import InputError
from enerf.reporting import embedding


def test_a_picture_is_read_back_nearly_unchanged():
    ramp = np.linspace(0, 1, 32)
    image = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], 0.5), -1)
    kind, _, data = embedding.picture(image).partition(";base64,")
    found = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), dtype=float) / 255
    assert kind == "data:image/webp"
    assert np.abs(found - image).mean() < 0.01


def test_a_video_is_embedded_as_it_is_and_only_if_it_fits(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"abcd")
    assert embedding.video(tmp_path / "a.mp4", 4) == "data:video/mp4;base64," + base64.b64encode(b"abcd").decode()
    assert embedding.video(tmp_path / "a.mp4", 3) is None
    with pytest.raises(InputError, match=r"b\.mp4"):
        embedding.video(tmp_path / "b.mp4", 3)


def test_error_maps_brighten_with_the_error_and_gray_out_what_does_not_count():
    image = np.zeros((1, 4, 3))
    image[0, :, 0] = [0.0, 0.3, 0.6, 3.0]
    mask = np.array([[True, True, True, False]])
    found = embedding.error_map(image, np.zeros_like(image), mask)
    brightness = found.sum(-1)[0]
    assert brightness[0] < brightness[1] < brightness[2]
    assert found[0, 3].tolist() == [0.5, 0.5, 0.5]


def test_pictures_are_made_smaller_only():
    image = np.random.default_rng(0).random((20, 40, 3))
    assert embedding.fitted(image, 100) is image
    small = embedding.fitted(image, 20)
    assert small.shape == (10, 20, 3)
    np.testing.assert_allclose(small[0, 0], image[:2, :2].mean((0, 1)), atol=1e-6)
