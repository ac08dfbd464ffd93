"""What tests ask of contents: whether they are the same to the last bit, what a run saved, what a refusal says."""

from pathlib import Path

import pytest
import torch

from enerf.core.errors import InputError
from enerf.engine import checkpoint


def same(a, b) -> bool:
    """Whether two nested contents are equal to the last bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def saved(folder: Path) -> dict:
    """What the last checkpoint of a run holds, less the clocks and the folder."""
    content = checkpoint.read(checkpoint.checkpoints(folder)[-1])
    curve = [[step, *figures] for step, _, *figures in content["curve"]]
    return {**{key: content[key] for key in ("step", "model", "optimiser")}, "curve": curve}


def refusal(call, *of, **named) -> str:
    """The one sentence with which a call refuses what the user gave."""
    with pytest.raises(InputError) as caught:
        call(*of, **named)
    words = str(caught.value)
    assert "\n" not in words
    assert not words.endswith(".")
    return words
