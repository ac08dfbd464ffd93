"""Helpers of tests: exact equality of nested values, content of the last checkpoint, error messages."""

from pathlib import Path

import pytest
import torch

from enerf.core.errors import InputError
from enerf.engine import checkpoint


def same(a, b) -> bool:
    """Return whether two nested values are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return repr(a) == repr(b)


def saved(folder: Path) -> dict:
    """Return the content of a run's last checkpoint without times and folder."""
    content = checkpoint.read(checkpoint.checkpoints(folder)[-1])
    curve = [[step, *figures] for step, _, *figures in content["curve"]]
    return {**{key: content[key] for key in ("step", "model", "optimiser")}, "curve": curve}


def refusal(call, *of, **named) -> str:
    """Return the message of the ``InputError`` that a call raises, which must be one sentence."""
    with pytest.raises(InputError) as caught:
        call(*of, **named)
    words = str(caught.value)
    assert "\n" not in words
    assert not words.endswith(".")
    return words
