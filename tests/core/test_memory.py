"""Memory checks: what fits passes, what does not names the options of the largest part."""

import torch

from enerf.core import files, memory
from tests.contents import refusal

CPU = torch.device("cpu")


def test_a_run_that_does_not_fit_names_its_largest_part(monkeypatch):
    monkeypatch.setattr(files, "available_memory", lambda: 3000)
    memory.require({"option --a": 1000, "option --b": 2000}, CPU)
    found = refusal(memory.require, {"option --a": 1001, "option --b": 2000}, CPU)
    assert found == (
        "option --b: found values that need 2.0 KiB of memory, and the whole run at least 2.9 KiB; expected at most "
        "the 2.9 KiB available on cpu"
    )


def test_models_without_values_count():
    with torch.device("meta"):
        assert memory.trained_bytes(torch.nn.Linear(1 << 20, 1 << 20, bias=False)) == 16 << 40
