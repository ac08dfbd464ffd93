"""The checkpoints that a training leaves: the last one is kept, those by time are gone, however it ended before."""

import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from enerf.config import parser
from enerf.engine import checkpoint, optimizers, trainer
from enerf.engine.checkpoint import State
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.nerf.step import StepReport


def gradient(of: State) -> StepReport:
    for p in of.model.parameters():
        p.grad = torch.ones_like(p)
    return StepReport(loss=0.1, mse=0.01, opacity=0.5, rgb_std=0.2, target_std=0.2)


@pytest.mark.parametrize("also_kept", [False, True])
def test_a_run_killed_between_its_last_checkpoint_by_time_and_its_end_keeps_the_last_state(tmp_path, also_kept):
    config = parser.from_dict(NerfConfig, {"basedir": str(tmp_path), "expname": "a", "N_iters": 6, "i_spectrum": 0})
    model = nn.Linear(2, 1)
    of = State(model, optimizers.adam(model, 1e-3), 6)
    saved = {"kind": "nerf", **parser.to_dict(config)}
    checkpoint.save(of, config.folder, saved, recent=True)
    if also_kept:
        checkpoint.save(of, config.folder, saved)
    trainer.fit(config, of, gradient, lambda journal: [], unit="rays", per_step=1)
    left = [path.relative_to(config.folder) for path in config.folder.rglob("*.pt")]
    assert left == [Path("checkpoints/000006.pt")]
    assert not (config.folder / checkpoint.RECENT).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
@pytest.mark.parametrize("at_step", [3, 7])
def test_a_signal_ends_a_training_after_the_step_in_which_it_came_and_its_state_is_saved(tmp_path, number, at_step):
    config = parser.from_dict(NerfConfig, {"basedir": str(tmp_path), "expname": "a", "N_iters": 8, "i_spectrum": 0})
    model = nn.Linear(2, 1)
    of = State(model, optimizers.adam(model, 1e-3))

    def step(state: State) -> StepReport:
        if state.step == at_step:
            signal.raise_signal(number)
        return gradient(state)

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(config, of, step, lambda journal: [], unit="rays", per_step=1)
    assert of.step == at_step + 1
    assert checkpoint.checkpoints(config.folder) == [config.folder / f"checkpoints/{at_step + 1:06d}.pt"]
