"""Tests of CUDA graphs of the gradient, and of the fallback where none can be recorded."""

import logging

import pytest
import torch

from enerf.core.types import Rays
from enerf.engine import cuda_graph


def _batch(device: str = "cpu") -> tuple[Rays, torch.Tensor]:
    three, one = torch.rand(4, 3, device=device), torch.rand(4, device=device)
    return Rays(three, three + 1, three, one, one + 1), torch.rand(4, 3, device=device)


def test_what_cannot_be_recorded_runs_as_it_is_with_one_line(monkeypatch, caplog):
    norm = torch.nn.BatchNorm1d(2)

    def refuse(*args):
        norm(torch.ones(3, 2))  # as the steps before a recording do
        raise RuntimeError("no capture today\nand more")

    monkeypatch.setattr(cuda_graph, "GraphedStep", refuse)
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    generator = torch.Generator().manual_seed(5)
    before = generator.get_state()
    work = lambda rays, target: target.sum()  # noqa: E731
    with caplog.at_level(logging.INFO, logger="enerf"):
        made = cuda_graph.record(work, *_batch(), generator, torch.optim.SGD([weight], lr=1.0), norm)
    assert made is work
    assert [r.getMessage() for r in caplog.records] == [
        "the step is not recorded as a CUDA graph (no capture today): it runs kernel by kernel"
    ]
    assert torch.equal(generator.get_state(), before)
    assert not weight.grad.any()
    assert not norm.running_mean.any()
    assert not norm.num_batches_tracked


class _Graph:
    """Stands for a CUDA graph: replaying repeats the work on the buffers it was recorded with."""

    def __init__(self) -> None:
        self.generators, self.replayed = [], 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.replayed += 1


def test_a_replay_sees_the_new_batch_in_the_buffers_of_the_recording(monkeypatch):
    class _Nothing:
        def __init__(self, *args) -> None: ...
        def __enter__(self): ...
        def __exit__(self, *args): ...
        def wait_stream(self, other) -> None: ...

    for name in ("Stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, _Nothing)
    monkeypatch.setattr(torch.cuda, "current_stream", _Nothing)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", _Graph)
    seen = []

    def work(rays: Rays, target: torch.Tensor) -> torch.Tensor:
        seen.append((rays, target))
        return target.sum()

    generator = torch.Generator()
    made = cuda_graph.GraphedStep(work, *_batch(), generator)
    assert len(seen) == cuda_graph.WARMUP_STEPS + 1
    assert made.graph.generators == [generator]
    rays, target = _batch()
    made(rays, target)
    assert made.graph.replayed == 1
    recorded_rays, recorded_target = seen[-1]
    assert torch.equal(recorded_target, target)
    assert all(torch.equal(a, b) for a, b in zip(vars(recorded_rays).values(), vars(rays).values(), strict=True))
    assert recorded_target.data_ptr() != target.data_ptr()


def test_on_a_gpu_a_recording_adds_the_gradient_that_the_work_adds():
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    weight = torch.rand(3, device="cuda", requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=1.0)
    generator = torch.Generator("cuda")

    def work(rays: Rays, target: torch.Tensor) -> torch.Tensor:
        noise = torch.rand(4, 3, generator=generator, device="cuda")
        loss = ((rays.origins * weight + noise - target) ** 2).mean()
        loss.backward()
        return loss.detach()

    made = cuda_graph.record(work, *_batch("cuda"), generator, optimizer, torch.nn.Module())
    assert isinstance(made, cuda_graph.GraphedStep)
    batch = _batch("cuda")
    results = []
    for run in (made, work, made):
        generator.manual_seed(11)
        optimizer.zero_grad(set_to_none=False)
        results.append((float(run(*batch)), weight.grad.clone()))
    assert results[0][0] == results[1][0] == results[2][0]
    assert torch.allclose(results[0][1], results[1][1])
