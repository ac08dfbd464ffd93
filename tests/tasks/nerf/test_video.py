"""Frames of videos."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from enerf.rendering.render import Picture
from enerf.tasks.nerf import video
from enerf.tasks.nerf.setup import Run


@pytest.mark.parametrize("far", [1.0, 6.0])
def test_light_that_passes_through_the_scene_is_far_in_a_video_of_depth(far):
    """Depths are sums of weights times t, so that what is transparent would have depth 0, nearer than all else."""
    config = SimpleNamespace(render=SimpleNamespace(spacing="linear"))
    run = Mock(spec=Run, scene=SimpleNamespace(near=0.0, far=far), config=config)
    opacity = torch.tensor([[0.0, 0.5, 1.0, 1.0]])
    depth = opacity * torch.tensor([[0.0, 0.5 * far, 0.75 * far, far]])
    image = video.image_of(run, Picture(torch.zeros(1, 4, 3), depth, opacity), True)
    assert np.array_equal(image[0, 0], image[0, 3])
    assert np.array_equal(image[0, 1], image[0, 2])
