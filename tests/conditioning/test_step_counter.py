"""Divisors that are cached for several steps: what counts as a step."""

import copy

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import layers, maps
from enerf.conditioning.step_counter import StepDetector


def cached(every: int = 2, method: str = "row") -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 4)).double()
    layers.condition(net, method, "all", "detached", every=every)
    return net


def is_current(net: nn.Sequential) -> bool:
    """Whether the divisors are those of the raw weight as it is."""
    raw = net[0].parametrizations.weight.original.detach()
    return torch.allclose(net[0].weight, maps.row(raw), rtol=1e-12)


class ByData(torch.optim.Optimizer):
    """An optimizer that writes through ``.data``, which leaves no trace in the version of the tensor."""

    def __init__(self, params: object) -> None:
        super().__init__(params, {})

    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                param.data.mul_(torch.linspace(1, 2, param.shape[-1], dtype=param.dtype))


def scale_columns(raw: Tensor) -> None:
    with torch.no_grad():
        raw.mul_(torch.linspace(1, 2, raw.shape[-1], dtype=raw.dtype))


@pytest.mark.parametrize("how", ["in place", "by .data"])
def test_divisors_are_recomputed_once_in_so_many_steps_however_the_weight_is_written(how: str):
    net = cached(3)
    raw = net[0].parametrizations.weight.original
    optimizer = ByData([raw])
    seen = []
    for _ in range(7):
        _ = net[0].weight
        seen.append(is_current(net))
        if how == "in place":
            scale_columns(raw)
        else:
            optimizer.step()
    assert seen == [True, False, False, True, False, False, True]


def test_accesses_without_a_step_and_steps_of_others_count_nothing():
    net = cached(2)
    raw = net[0].parametrizations.weight.original
    own, other = ByData([raw]), ByData([nn.Parameter(torch.ones(2, dtype=torch.float64))])
    _ = net[0].weight
    own.step()
    for _ in range(5):
        assert not is_current(net)
        other.step()
    own.step()
    assert is_current(net)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("called_before", [True, False])
def test_functional_calls_with_other_weights_are_no_steps_and_leave_divisors_alone(trained: bool, called_before: bool):
    net = cached(2)
    raw = net[0].parametrizations.weight.original
    if called_before:
        _ = net[0].weight
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    for factor in range(2, 6):
        given = {name: factor * parameter.detach() for name, parameter in net.named_parameters()}
        weights = {name: tensor.requires_grad_(trained) for name, tensor in given.items()}
        torch.func.functional_call(net, weights, (torch.ones(1, 5, dtype=torch.float64),))
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    for expected in [False, True] if called_before else [True, False, True]:
        scale_columns(raw)
        assert is_current(net) == expected  # the first access, and each second step after it, whatever was called


def test_a_conditioned_buffer_counts_its_changes_also_after_a_conversion_and_if_it_is_replaced():
    module = nn.Module()
    module.register_buffer("table", torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) + 1)
    layers.condition_tensor(module, "table", "row", "detached", every=2)
    for dtype in (torch.float32, torch.float64, None):
        if dtype is None:
            state = {name: value.clone() for name, value in module.state_dict().items()}
            module.load_state_dict(state, assign=True)
        else:
            module.to(dtype)
        current = []
        for _ in range(4):
            scale_columns(module.parametrizations.table.original)
            current.append(torch.allclose(module.table, maps.row(module.parametrizations.table.original)))
        assert current == [True, False, True, False]


def test_forward_passes_without_gradients_take_part_as_those_with():
    net = cached(2)
    raw = net[0].parametrizations.weight.original
    for expected in (True, False, True):
        with torch.no_grad():
            assert is_current(net) == expected
        assert is_current(net) == expected
        scale_columns(raw)


def test_a_deep_copy_counts_on_from_where_it_was_made():
    net = cached(2)
    _ = net[0].weight
    for made_after_the_step in (False, True):
        copied = copy.deepcopy(net)
        if made_after_the_step:
            scale_columns(copied[0].parametrizations.weight.original)
            copied = copy.deepcopy(copied)
        else:
            _ = copied[0].weight
            scale_columns(copied[0].parametrizations.weight.original)
        assert not is_current(copied)
        scale_columns(copied[0].parametrizations.weight.original)
        assert is_current(copied)


@pytest.mark.parametrize("method", ["row", "ruiz", "jacobi"])
def test_a_model_on_the_meta_device_is_conditioned_and_filled_later(method: str):
    with torch.device("meta"):
        net = nn.Sequential(nn.Linear(4, 4))
    layers.condition(net, method, "all", "detached", every=2)
    assert net(torch.ones(2, 4, device="meta")).shape == (2, 4)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.eye(4) + 0.1 if parameter.dim() == 2 else torch.zeros(4))
    raw = net[0].parametrizations.weight.original.detach()
    torch.testing.assert_close(net[0].weight, maps.METHODS[method](raw))


def test_a_detector_knows_the_tensor_it_has_seen():
    detector, weight = StepDetector(), torch.zeros(2)
    assert [detector.has_stepped(weight), detector.has_stepped(weight)] == [True, False]
    assert detector.has_stepped(torch.zeros(2))
    with torch.inference_mode():
        assert StepDetector().has_stepped(torch.zeros(2))
