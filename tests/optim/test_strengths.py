"""Strengths given as tensors or NumPy scalars, states exchanged with AdamW, and steps under ``torch.compile``."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from enerf.optim import shrinkage
from enerf.optim.intrinsic import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop

OURS = {"adam": IntrinsicAdam, "rmsprop": IntrinsicRMSprop, "adagrad": IntrinsicAdagrad}
NUMBERS: dict[str, Any] = {
    "tensor": torch.tensor(0.25),
    "tensor of one entry": torch.tensor([0.25], dtype=torch.float64),
    "parameter": nn.Parameter(torch.tensor(0.25)),
    "float32": np.float32(0.25),
    "float64": np.float64(0.25),
    "array without axes": np.array(0.25),
}


def parameters(n: int = 3) -> list[nn.Parameter]:
    return [
        nn.Parameter(torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))
        for seed in range(n)
    ]


def run(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], start: int = 0, stop: int = 6) -> None:
    for step in range(start, stop):
        for i, param in enumerate(params):
            generator = torch.Generator().manual_seed(10 * step + i)
            param.grad = param.detach() + torch.randn(4, 3, dtype=torch.float64, generator=generator)
        optimizer.step()


def equal(a: list[nn.Parameter], b: list[nn.Parameter]) -> bool:
    return all(map(torch.equal, a, b))


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("number", NUMBERS)
def test_a_strength_is_a_number_however_it_is_given(kind: str, number: str):
    value = NUMBERS[number]
    made = []
    for strength in (0.25, value):
        params = parameters()
        optimizer = OURS[kind](params[:1], lr=0.1, l1=strength, l2=strength)
        optimizer.add_param_group({"params": params[1:], "l1": strength})
        assert all(type(group[name]) is float for group in optimizer.param_groups for name in ("l1", "l2"))
        run(optimizer, params)
        made.append(params)
    assert equal(*made)


@pytest.mark.parametrize("value", [torch.tensor(-1.0), torch.ones(2), torch.tensor(float("nan")), torch.tensor(1j)])
def test_tensors_that_are_no_strength_are_refused(value: torch.Tensor):
    with pytest.raises(ValueError, match=r"l1 is tensor\(.*; it must be a number from 0 up"):
        IntrinsicAdam(parameters(), l1=value)


# AdamW


def test_adamw_continues_with_the_decay_of_a_state_of_ours():
    params, expected = parameters(), parameters()
    ours, own = IntrinsicAdam(params, lr=0.1, l2=0.3), torch.optim.AdamW(expected, lr=0.1, weight_decay=0.3)
    run(ours, params, stop=3)
    theirs = torch.optim.AdamW(params, lr=0.1)
    theirs.load_state_dict(ours.state_dict())
    assert theirs.param_groups[0]["weight_decay"] == 0.3
    run(theirs, params, start=3)
    run(own, expected)
    assert equal(params, expected)


def test_a_state_that_came_from_ours_goes_back_with_its_decay_once():
    params, expected = parameters(), parameters()
    first = IntrinsicAdam(params, lr=0.1, l1=0.05, l2=0.3)
    run(first, params, stop=2)
    theirs = torch.optim.AdamW(params, lr=0.1)
    theirs.load_state_dict(first.state_dict())
    second = IntrinsicAdam(params, lr=0.1)
    second.load_state_dict(theirs.state_dict())
    group = second.param_groups[0]
    assert (group["l1"], group["l2"], group["weight_decay"]) == (0.05, 0.3, 0)
    run(second, params, start=2)
    run(IntrinsicAdam(expected, lr=0.1, l1=0.05, l2=0.3), expected)
    assert equal(params, expected)


def test_a_state_with_two_different_decays_is_refused():
    optimizer = IntrinsicAdam(parameters(), l2=0.3)
    state = optimizer.state_dict()
    state["param_groups"][0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match=r"weight_decay 0\.1 and l2 0\.3; expected one of the two"):
        optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["l2"] == 0.3


# reading of step counters


def test_counters_of_all_parameters_are_read_at_once(monkeypatch: pytest.MonkeyPatch):
    params = parameters(5)
    optimizer = IntrinsicAdam(params, lr=0.1, l1=0.1, foreach=True)
    run(optimizer, params, stop=2)
    reads: list[tuple[int, ...]] = []
    read = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(tuple(self.shape)) or read(self))
    group, states = optimizer.param_groups[0], list(optimizer.state.values())
    assert shrinkage.steps_done(group, states) == [2.0] * 5
    assert reads == [(5,)]
    assert shrinkage.steps_done(group, [{}, states[0], {"step": 7}]) == [0, 2.0, 7]
    assert shrinkage.steps_done({**group, "capturable": True}, states) == [state["step"] for state in states]


TRACED = """
import torch
from enerf.optim import IntrinsicAdagrad, IntrinsicAdam, IntrinsicRMSprop
from torch._dynamo.utils import counters

def steps(make, compiled):
    params = [torch.nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(i))) for i in range(12)]
    optimizer = make(params)
    step = torch.compile(optimizer.step, backend="eager") if compiled else optimizer.step
    for n in range(4):
        for i, param in enumerate(params):
            param.grad = param.detach() + torch.randn(4, 3, generator=torch.Generator().manual_seed(100 * n + i))
        step()
    optimizer.step()  # a step that is not compiled may follow
    return params

for make in (torch.optim.AdamW, lambda p: IntrinsicAdam(p, lr=0.1, l1=0.1, l2=0.1),
             lambda p: IntrinsicAdam(p, lr=0.1, l1=0.1, shrinkage="soft", amsgrad=True, foreach=True),
             lambda p: IntrinsicAdagrad(p, l1=0.1, l2=0.1, lr_decay=0.1),
             lambda p: IntrinsicRMSprop(p, l1=0.1, l2=0.1, shrinkage="soft", momentum=0.5, centered=True)):
    torch._dynamo.reset()
    counters.clear()
    for a, b in zip(steps(make, True), steps(make, False), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    print(sum(counters["graph_break"].values()), counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
def test_a_compiled_step_is_one_graph_with_the_breaks_of_adamw():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", TRACED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    adamw, *found = done.stdout.splitlines()
    assert adamw.split()[1] == "1"
    assert found == [adamw] * 4
