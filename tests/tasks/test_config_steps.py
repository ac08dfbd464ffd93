"""Every configuration takes a training step: of full size on the device ``meta``, and on a GPU if there is one."""

import logging
import math
from pathlib import Path

import pytest
import torch

from tests.tasks import config_steps

FOLDER = config_steps.FOLDER
requires_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
NAMES = config_steps.distinct(sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.txt")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    config_steps.write_data(folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_a_step_without_values_meets_no_other_device_and_gives_every_parameter_a_gradient(name, data, tmp_path):
    with config_steps.on_meta():
        state, _ = config_steps.step(config_steps.options_of(name, data, tmp_path))
    assert state.step == 1
    for key, parameter in state.model.named_parameters():
        assert parameter.is_meta, key
        assert parameter.grad is not None, key
        assert parameter.grad.is_meta, key


@requires_gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_step_on_a_gpu_has_a_finite_loss_and_moves_the_weights(name, data, tmp_path, caplog):
    config = config_steps.options_of(name, data, tmp_path, "cuda")
    with caplog.at_level(logging.INFO, logger="enerf"):
        state, loss = config_steps.step(config)
    assert math.isfinite(loss)
    assert all(p.is_cuda and bool(p.isfinite().all()) for p in state.model.parameters())
    assert max(float(p.grad.abs().max()) for p in state.model.parameters() if p.grad is not None) > 0
    assert "is not recorded as a CUDA graph" not in caplog.text
