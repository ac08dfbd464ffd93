"""Runs share cores, memory and GPUs."""

import pytest

from enerf.core import files
from enerf.core.errors import InputError
from enerf.experiments import variants
from enerf.experiments.executors import resources
from enerf.experiments.options import CompareOptions, ExecutorOptions
from tests.experiments.sweeps import config


def runs(n, **changes):
    seeds = ",".join(map(str, range(n)))
    return variants.plan({"": config("none", "logs", **changes)}, CompareOptions(methods="plain", seeds=seeds))


@pytest.mark.parametrize(
    ("n", "options", "expected"),
    [
        (20, {}, (8, 1)),  # a run for each core
        (3, {}, (3, 2)),  # fewer runs share all cores
        (20, {"threads_per_run": 2}, (4, 2)),
        (20, {"workers": 2}, (2, 4)),
        (20, {"workers": 30, "threads_per_run": 1}, (20, 1)),
    ],
)
def test_a_pool_uses_all_cores_once(monkeypatch, n, options, expected):
    monkeypatch.setattr(files, "available_memory", lambda: 1 << 40)
    assert resources.shares(ExecutorOptions(**options), runs(n), 0, 8) == expected


def test_a_pool_is_smaller_where_memory_is_short_or_seconds_count(monkeypatch):
    monkeypatch.setattr(files, "available_memory", lambda: 5 << 30)
    assert resources.shares(ExecutorOptions(), runs(20), 0, 8) == (2, 4)
    assert resources.shares(ExecutorOptions(), runs(20, max_seconds=60.0), 0, 8) == (1, 8)
    assert resources.shares(ExecutorOptions(), runs(20, device="cuda:1"), 0, 8) == (1, 8)
    assert resources.shares(ExecutorOptions(), runs(20, device="cuda"), 4, 8) == (4, 2)
    with pytest.raises(InputError, match="option --threads_per_run: found 9, expected at most 8"):
        resources.shares(ExecutorOptions(threads_per_run=9), runs(2), 0, 8)


def test_gpus_keep_the_names_that_the_environment_gives(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resources.gpus(runs(2, device="auto")) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert resources.gpus(runs(2, device="cuda")) == ["5", "7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,99")  # there is no 99
    assert resources.gpus(runs(2, device="cuda")) == ["5", "7"]
    assert resources.gpus(runs(2, device="cuda:0")) == []
    assert resources.gpus_for(ExecutorOptions(), runs(1, device="auto")) == 1
    assert resources.gpus_for(ExecutorOptions(gpus_per_run=2), runs(1, device="cpu")) == 2
    assert resources.gpus_for(ExecutorOptions(), runs(1, device="cpu")) == 0
