"""Raw weights that change, or gradients that are turned on, inside ``computed_once``: noticed, or as outside."""

from collections.abc import Callable
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from enerf.conditioning import computed_once, condition, condition_tensor
from tests.grids import latin


def network(method: str = "row", scale: str = "kept") -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)).double()
        condition(net, method, scale=scale)
    return net


POINTS = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)


def loss(net: nn.Module) -> Tensor:
    return net(POINTS).square().sum()


# methods with maps of their own, with torch's, and with several originals
METHODS = [("row", "kept"), ("weight_norm", "fixed"), ("spectral_norm", "learned"), ("orthogonal", "learned")]


@pytest.mark.parametrize(("method", "scale"), METHODS)
@pytest.mark.parametrize("of", ["gradient", "other values"])
def test_other_weights_by_a_functional_call_are_refused(method: str, scale: str, of: str):
    net = network(method, scale).eval()
    parameters = dict(net.named_parameters())

    def called(given: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(net, given, (POINTS,)).square().sum()

    given = {name: 2 * parameter.detach() for name, parameter in parameters.items()}
    call = {"gradient": lambda: torch.func.grad(called)(parameters), "other values": lambda: called(given)}[of]
    with computed_once(net), pytest.raises(RuntimeError, match="replaced by another tensor"):
        call()
    assert net[0].weight is not net[0].weight


@pytest.mark.parametrize("kind", ["buffer", "constant gain"])
def test_buffers_that_a_functional_call_replaces_are_noticed_too(kind: str):
    if kind == "buffer":
        net = nn.Sequential(nn.Linear(3, 4)).double()
        raw = net[0].weight.detach().clone()
        del net[0].weight
        net[0].register_buffer("weight", raw)
        condition_tensor(net[0])
        name = "0.parametrizations.weight.original"
    else:
        net, name = network("row", "constant"), "0.parametrizations.weight.0.gain"
    given = {name: 2 * dict(net.named_buffers())[name]}
    with computed_once(net), pytest.raises(RuntimeError, match="replaced by another tensor"):
        torch.func.functional_call(net, given, (POINTS,))


class Sign(nn.Module):
    """A map without gradients, of others."""

    calls = 0

    def forward(self, weight: Tensor) -> Tensor:
        self.calls += 1
        return weight.detach().sign()


def test_a_map_without_gradients_is_computed_once_too():
    layer, sign = nn.Linear(3, 4), Sign()
    parametrize.register_parametrization(layer, "weight", sign)
    before = sign.calls
    with computed_once(layer):
        assert layer.weight is layer.weight
    assert sign.calls == before + 1


def test_in_inference_mode_weights_are_those_of_the_entry():
    net = network()
    with torch.inference_mode(), computed_once(net), torch.enable_grad():
        assert net[0].weight is net[0].weight
        net(POINTS)


def test_a_functional_call_with_the_weights_of_the_model_is_a_call():
    net, same = network(), network()
    loss(same).backward()
    with computed_once(net):
        torch.func.functional_call(net, dict(net.named_parameters()), (POINTS,)).square().sum().backward()
    for ours, exact in zip(net.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, exact.grad, rtol=1e-12, atol=0)


def by_data(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.data = parameter.data - 0.1


def by_vector(net: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(0.5 * vector, net.parameters())


@pytest.mark.parametrize("step", [by_data, by_vector])
@pytest.mark.parametrize("used", [True, False])
def test_steps_that_are_written_by_hand_are_an_error(step: Callable[[nn.Module], None], used: bool):
    net = network()

    def train() -> None:
        with computed_once(net):
            loss(net).backward()
            step(net)
            if used:
                _ = net[0].weight

    with pytest.raises(RuntimeError, match="a raw weight was changed inside"):
        train()
    assert net[0].weight is not net[0].weight


@pytest.mark.parametrize(("method", "scale"), METHODS)
def test_gradients_that_are_turned_on_inside_reach_raw_weights(method: str, scale: str):
    net, same = network(method, scale).eval(), network(method, scale).eval()
    loss(same).backward()
    with torch.no_grad(), computed_once(net):
        before = net[0].weight
        with torch.enable_grad():
            loss(net).backward()
        assert net[0].weight is before
    for ours, exact in zip(net.parameters(), same.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, exact.grad, rtol=1e-12, atol=0)


def test_a_frozen_model_is_computed_once_where_gradients_of_inputs_are_taken():
    net = network().requires_grad_(False)
    points = POINTS.clone().requires_grad_(True)
    with torch.no_grad(), computed_once(net):
        weight = net[0].weight
        with torch.enable_grad():
            net(points).square().sum().backward()
            assert net[0].weight is weight
    assert points.grad.abs().min() > 0


KINDS = {"conv2d": (nn.Conv2d, torch.channels_last), "conv3d": (nn.Conv3d, torch.channels_last_3d)}


def channels_last(kind: str) -> nn.Sequential:
    make, like = KINDS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(make(4, 6, 3)).to(memory_format=like)


@pytest.mark.parametrize(("kind", "inside"), latin(2, KINDS, [True, False]))
def test_weight_norm_applies_weights_in_the_memory_format_of_the_raw_ones(kind: str, inside: bool):
    net = channels_last(kind)
    expected = net[0].weight.detach().clone()
    condition(net, "weight_norm")
    with computed_once(net) if inside else nullcontext():
        weight = net[0].weight
    assert weight.is_contiguous(memory_format=KINDS[kind][1])
    torch.testing.assert_close(weight, expected)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no batching rule of its weight norm
def test_lengths_alone_may_be_a_batch_of_a_functional_transform():
    net = channels_last("conv2d")
    condition(net, "weight_norm")
    lengths, images = net[0].parametrizations.weight.original0.detach(), torch.ones(1, 4, 5, 5)

    def run(given: Tensor) -> Tensor:
        return torch.func.functional_call(net, {"0.parametrizations.weight.original0": given}, (images,))

    found = torch.func.vmap(run)(torch.stack([lengths, 2 * lengths]))
    torch.testing.assert_close(found[0], net(images))
    torch.testing.assert_close(found[1], run(2 * lengths))
