"""Tests of networks with frozen weights: read once, constant while frozen, then current; backends leave no trace."""

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from enerf.conditioning import layers
from enerf.fields.backends import dense, module
from enerf.fields.backends.dense import Bound, Layer, Network
from enerf.fields.backends.module import NetworkModule, frozen


class Tiny(NetworkModule):
    """Two layers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(3, 5).double(), nn.Linear(5, 2).double()
        self.network = Network((3,), (Layer((0,), 5, True), Layer((1,), 2, False)), (2,))

    def linears(self) -> list[nn.Linear]:
        return [self.first, self.last]

    def forward(self, x: Tensor) -> Tensor:
        (out,) = self.bound()([x])
        return out


class Counting:
    """A backend that copies weights when it is bound, as packed ones do, and counts."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Bound:
        self.times += 1
        return dense.bind(network, [w.clone() for w in weights], [b.clone() for b in biases])


POINTS = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)


def test_it_computes_what_its_layers_do():
    tiny = Tiny()
    assert torch.equal(tiny(POINTS), tiny.last(torch.relu(tiny.first(POINTS))))


def test_weights_that_are_not_frozen_are_read_at_every_call():
    tiny, backend = Tiny(), Counting()
    tiny.bind = backend
    before = tiny(POINTS)
    change(tiny)
    assert not torch.equal(tiny(POINTS), before)
    assert backend.times == 2


def test_frozen_weights_are_read_once_and_stay_as_they_were():
    model = nn.ModuleList([Tiny(0), nn.Sequential(Tiny(1), nn.Identity())])
    tinies, backends = [model[0], model[1][0]], [Counting(), Counting()]
    for tiny, backend in zip(tinies, backends, strict=True):
        tiny.bind = backend
    before = [tiny(POINTS) for tiny in tinies]
    with frozen(model):
        change(model)
        for _ in range(3):
            assert all(torch.equal(tiny(POINTS), b) for tiny, b in zip(tinies, before, strict=True))
    assert [backend.times for backend in backends] == [2, 2]  # once before, once to freeze
    assert not any(torch.equal(tiny(POINTS), b) for tiny, b in zip(tinies, before, strict=True))


def test_freezing_again_takes_the_weights_of_now():
    tiny = Tiny()
    tiny.bind = Counting()
    module.freeze(tiny)
    before = tiny(POINTS)
    change(tiny)
    assert torch.equal(tiny(POINTS), before)
    module.freeze(tiny)
    assert not torch.equal(tiny(POINTS), before)
    tiny.unfreeze()
    assert tiny.bind.times == 2


def test_gradients_reach_frozen_weights_through_every_call():
    tiny, reference = Tiny(), Tiny()
    layers.condition(tiny, "row", ["first"])
    layers.condition(reference, "row", ["first"])
    with frozen(tiny):
        (tiny(POINTS[:1]).sum() + tiny(POINTS[1:]).sum()).backward()
    reference(POINTS).sum().backward()
    for a, b in zip(tiny.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-12, atol=1e-14)


def test_an_error_inside_releases_all():
    model = nn.ModuleList([Tiny(0), Tiny(1)])
    before = [tiny(POINTS) for tiny in model]
    with pytest.raises(KeyError), frozen(model):
        raise KeyError
    change(model)
    assert not any(torch.equal(tiny(POINTS), b) for tiny, b in zip(model, before, strict=True))


def test_an_error_of_a_backend_while_freezing_unfreezes_all():
    model = nn.ModuleList([Tiny(0), Tiny(1)])

    def broken(network: Network, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Bound:
        raise RuntimeError("no kernel")

    model[0].bind = Counting()
    model[1].bind = broken
    with pytest.raises(RuntimeError, match="no kernel"), frozen(model):
        pass
    before = model[0](POINTS)
    change(model)
    assert not torch.equal(model[0](POINTS), before)


def test_a_copy_is_a_network_of_its_own():
    tiny = Tiny()
    layers.condition(tiny, "row", ["first"])
    reference = copy.deepcopy(tiny)
    assert torch.equal(reference(POINTS), tiny(POINTS))
    before = reference(POINTS)
    change(tiny)
    assert torch.equal(reference(POINTS), before)
    reference(POINTS).sum().backward()
    assert all(p.grad is not None for p in reference.parameters())
    assert all(p.grad is None for p in tiny.parameters())


def test_a_copy_of_a_frozen_network_is_not_bound_to_the_weights_of_the_other():
    # Fails: deepcopy hands on _frozen, a closure over the other module's weights, and nothing unfreezes the copy.
    tiny = Tiny()
    with frozen(tiny):
        reference = copy.deepcopy(tiny)
    change(reference)
    assert torch.equal(reference(POINTS), reference.last(torch.relu(reference.first(POINTS))))


def test_the_state_dict_does_not_depend_on_backends_nor_on_freezing():
    tiny, plain = Tiny(), Tiny()
    tiny.bind = Counting()
    with frozen(tiny):
        inside = tiny.state_dict()
    assert list(inside) == list(plain.state_dict()) == ["first.weight", "first.bias", "last.weight", "last.bias"]
    assert all(torch.equal(inside[name], value) for name, value in plain.state_dict().items())
    plain.load_state_dict(inside)


def test_a_module_without_linears_is_an_error():
    with pytest.raises(TypeError, match=r"abstract method .*linears"):
        NetworkModule()
