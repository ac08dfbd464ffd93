"""Layers that cannot be conditioned: found before anything is changed, with a reason; and undoing where it was not."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from enerf.conditioning import baselines, layers, maps, register_parametrization, selection
from enerf.conditioning.interface import Parametrization
from enerf.conditioning.rollback import unchanged_on_error
from enerf.conditioning.selection import METHODS
from enerf.conditioning.weight_views import WeightView

HOOKS = {
    "L1Unstructured": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
    "PruningContainer": lambda layer: prune.random_unstructured(HOOKS["L1Unstructured"](layer), "weight", 0.1),
    "WeightNorm": nn.utils.weight_norm,
    "SpectralNorm": nn.utils.spectral_norm,
}
REMEDIES = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}


def three(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))


def everything(net: nn.Module) -> list[tuple[object, ...]]:
    """Types, order, identities and values of all there is."""
    tensors = [*net.named_parameters(), *net.named_buffers()]
    return [(name, type(module)) for name, module in net.named_modules()] + [
        (name, id(tensor), tensor.detach().flatten().tolist()) for name, tensor in tensors
    ]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("method", [method for method in METHODS if method != "spectral_shift"])  # of attention
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_computes_a_weight_is_named_and_nothing_changes(hook: str, method: str):
    net = three()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        HOOKS[hook](net[1])
    before = everything(net)
    remedy = REMEDIES.get(hook, "prune.remove")
    with pytest.raises(ValueError, match=rf"^1 cannot be conditioned: .* by the hook {hook}: .*{remedy}\)$"):
        layers.condition(net, method, ["0", "1"])
    assert everything(net) == before
    assert hook in layers.select(net, "all", method=method).skipped["1"]


def test_a_weight_that_code_of_its_own_computes_is_told_apart():
    net = three()
    half = net[1].weight.detach() / 2
    del net[1].weight
    net[1].stored = nn.Parameter(half)
    net[1].weight = net[1].stored * 2
    net[1].register_forward_pre_hook(lambda module, _: setattr(module, "weight", module.stored * 2))
    with pytest.raises(ValueError, match="by code of Linear: make it permanent first"):
        layers.condition(net, "row", ["0", "1"])
    assert layers.conditioned_layers(net) == {}


@pytest.mark.parametrize("method", ["weight_norm", "spectral_norm", "batch_norm", "row", "unit_row", "fourier"])
def test_an_error_half_way_is_undone_for_every_method(method: str, monkeypatch: pytest.MonkeyPatch):
    net = three()
    parametrize.register_parametrization(net[1], "bias", nn.Identity())  # its class has properties already
    before, calls = everything(net), []

    def third_fails(function: Callable) -> Callable:
        def failing(*args: object, **options: object) -> object:
            calls.append(args)
            if len(calls) == 3:
                raise KeyError("unforeseen")
            return function(*args, **options)

        return failing

    target = {
        "weight_norm": (layers.baselines.parametrizations, "weight_norm"),
        "spectral_norm": (parametrize, "register_parametrization"),
        "batch_norm": (layers.batch_norm, "precondition_"),
        "row": (parametrize, "register_parametrization"),
        "fourier": (parametrize, "register_parametrization"),
        "unit_row": (layers.baselines.maps, "row"),
    }[method]
    monkeypatch.setattr(*target, third_fails(getattr(*target)))
    names = ["0", "2"] if method == "batch_norm" else ["0", "1", "2"]
    if method == "batch_norm":
        calls.append(())
    with pytest.raises(KeyError, match="unforeseen"):
        layers.condition(net, method, names)
    assert everything(net) == before
    assert net(torch.ones(2, 4)).shape == (2, 4)
    monkeypatch.undo()
    assert layers.condition(net, method, names) == names


class _Doubled(Parametrization):
    """A parametrization whose raw weight has two columns for each of the layer's."""

    method = "doubled"

    def forward(self, raw: torch.Tensor) -> torch.Tensor:
        return raw[:, ::2] + raw[:, 1::2]

    def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.repeat_interleave(2, 1) / 2


def test_a_registered_method_that_writes_in_place_is_undone(monkeypatch: pytest.MonkeyPatch):
    def apply(module: nn.Linear, view: WeightView) -> None:
        with torch.no_grad():
            module.weight.mul_(2)
            module.bias.zero_()
        if module is net[2]:
            raise KeyError("unforeseen")
        parametrize.register_parametrization(module, view.name, _Doubled())

    monkeypatch.setattr(maps, "ADDED", dict(maps.ADDED))
    monkeypatch.setattr(selection, "APPLIED", dict(selection.APPLIED))
    register_parametrization("doubled", apply)
    net = three()
    before, outputs = everything(net), net(torch.ones(2, 4))
    with pytest.raises(KeyError, match="unforeseen"):
        layers.condition(net, "doubled", ["0", "1", "2"])
    assert everything(net) == before
    assert torch.equal(net(torch.ones(2, 4)), outputs)
    assert layers.condition(net, "doubled", ["0"]) == ["0"]
    assert net[0].parametrizations.weight.original.shape == (4, 8)


def test_a_snapshot_gives_back_dictionaries_in_their_order():
    layer = nn.Linear(2, 2)
    keys = list(layer.state_dict())

    def fails() -> None:
        with unchanged_on_error([layer]):
            parametrizations.weight_norm(layer)
            layer.register_buffer("more", torch.ones(1))
            layer.extra = 3
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fails()
    assert list(layer.state_dict()) == keys
    assert not hasattr(layer, "extra")
    assert type(layer) is nn.Linear


def test_tensors_without_a_shape_or_memory_of_their_own_do_not_hide_the_error():
    module = nn.Module()
    module.lazy = nn.UninitializedParameter()
    module.register_buffer("sparse", torch.eye(3).to_sparse())

    def fails() -> None:
        with unchanged_on_error([module], values=True):
            del module.lazy
            raise KeyError("inside")

    with pytest.raises(KeyError, match="inside"):
        fails()
    assert list(dict(module.named_parameters())) == ["lazy"]


# rows of zeros


def with_zeros() -> nn.Sequential:
    """The second layer has a zero input, the third a zero output, the fourth is zero."""
    net = three()
    net.append(nn.Linear(4, 4))
    with torch.no_grad():
        net[1].weight[:, 2] = 0
        net[2].weight[1] = 0
        net[3].weight.zero_()
    return net


ZEROS = {
    "row": ["1", "3"],
    "column": ["2", "3"],
    "row_column": ["1", "2", "3"],
    "ruiz": ["1", "2", "3"],
    "weight_standardisation": ["2", "3"],
    "weight_norm": ["2", "3"],
    "spectral_norm": ["3"],
    "unit_row": [],
    "batch_norm": [],
}


@pytest.mark.parametrize("method", ZEROS)
def test_layers_with_zero_rows_are_left_out_with_a_reason(method: str):
    net = with_zeros()
    done = layers.condition(net, method, "all")
    assert list(done.left_out) == ZEROS[method]
    assert done == [name for name in "0123" if name not in ZEROS[method]]
    assert all("zero" in reason for reason in done.left_out.values())


@pytest.mark.parametrize("method", ["row", "column", "weight_norm"])
def test_naming_one_is_an_error_and_so_is_a_group_if_one_chooses(method: str):
    for how in ({"layers": ["0", "3"]}, {"layers": "all", "zero_rows": "refused"}):
        net = with_zeros()
        before = everything(net)
        with pytest.raises(ValueError, match=r"cannot be conditioned: . of its 4 (rows are|outputs have) zero"):
            layers.condition(net, method, **how)
        assert everything(net) == before


def test_one_can_insist_and_the_gradient_is_as_large_as_the_reason_says():
    net = with_zeros()
    assert "gradients multiplied by 1e+06" in layers.select(net, "all").skipped["1"]
    assert layers.condition(net, "row", "all", zero_rows="conditioned") == ["0", "1", "2", "3"]
    net[1].weight.sum().backward()
    raw = net[1].parametrizations.weight.original
    assert torch.equal(net[1].weight[:, 2], torch.zeros(4))
    torch.testing.assert_close(raw.grad[:, 2], torch.full((4,), 1e6))


def with_a_zero_on_the_diagonal() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        net[1].weight[2, 2] = 0
    return net


def test_zeros_on_the_diagonal_are_for_jacobi_what_rows_of_zeros_are_for_others():
    net = with_a_zero_on_the_diagonal()
    before, reason = everything(net), "jacobi divides by the diagonal, and 1 of its 4 entries are zero"
    for how in ({"layers": ["0", "1"]}, {"layers": "all", "zero_rows": "refused"}):
        with pytest.raises(ValueError, match=f"^1 cannot be conditioned: {reason}"):
            layers.condition(net, "jacobi", **how)
        assert everything(net) == before
    with pytest.raises(ValueError, match=f"^weight cannot be conditioned: {reason}"):
        layers.condition_tensor(net[1], "weight", "jacobi")
    assert layers.condition(with_a_zero_on_the_diagonal(), "row", "all") == ["0", "1"]
    done = layers.condition(net, "jacobi", "all")
    assert done == ["0"]
    assert list(done.left_out) == ["1"]
    assert done.left_out["1"].startswith(reason)


def test_one_can_insist_on_jacobi_too_and_the_zero_counts_as_the_floor():
    net = with_a_zero_on_the_diagonal()
    raw = net[1].weight.detach().clone()
    assert layers.condition(net, "jacobi", "all", zero_rows="conditioned") == ["0", "1"]
    torch.testing.assert_close(net[1].weight[:, 2].detach(), raw[:, 2] / maps.FLOOR)
    tensor = with_a_zero_on_the_diagonal()[1]
    layers.condition_tensor(tensor, "weight", "jacobi", zero_rows="conditioned")
    assert tensor.weight[2, 2] == 0


def test_zeros_that_training_made_do_not_change_what_is_selected():
    net = three()
    before = layers.condition(net, "row", "all")
    with torch.no_grad():
        net[1].parametrizations.weight.original[:, 2] = 0
    assert layers.select(net, "all").names == before


def test_on_the_meta_device_there_are_no_zeros_to_find():
    with torch.device("meta"):
        net = with_zeros()
    assert layers.condition(net, "row", "all") == ["0", "1", "2", "3"]


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match=r"zero_rows is 'skip'; it must be one of left_out, refused, conditioned"):
        layers.condition(three(), "row", "all", zero_rows="skip")


# tied


def test_weight_norm_of_tied_layers_is_refused_because_it_would_untie_them():
    net = three()
    net[2].weight = net[0].weight
    with pytest.raises(ValueError, match=r"0 cannot .* shares its weight with 2 .*weight_norm would give parameters"):
        layers.condition(net, "weight_norm", ["0"])
    assert layers.condition(net, "weight_norm", "all") == ["1"]
    assert net[2].weight is net[0].weight


def test_unknown_modules_are_told_beside_what_was_left_out():
    net = nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 4), nn.Embedding(9, 4), nn.LayerNorm((2, 4)), nn.Linear(4, 1))
    done = layers.condition(net, "row", "all")
    assert done == ["0"]
    assert list(done.left_out) == ["4"]
    assert list(done.unknown) == ["1"]
    assert done.unknown["1"].startswith("GRU has weight_ih_l0 of shape (12, 4)")
    assert selection.unknown_layers(net) == done.unknown


class Frozen(nn.Module):
    """A linear layer whose weight is a buffer, beside a mask that is no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(4, 4))
        self.register_buffer("mask", torch.ones(4, 4))


@pytest.mark.filterwarnings("ignore")  # of torch, about its own quantization
def test_weights_in_buffers_and_quantized_layers_are_told_as_unknown():
    net = nn.Sequential(
        nn.Linear(4, 4), Frozen(), nn.Linear(4, 4), nn.LSTM(4, 4), torch.ao.nn.quantized.Embedding(4, 4)
    )
    dynamic = torch.ao.quantization.default_dynamic_qconfig
    torch.ao.quantization.quantize_dynamic(net, {"2": dynamic, "3": dynamic}, inplace=True)
    assert layers.condition(net, "row").unknown == {
        "1": "Frozen has weight of shape (4, 4), and its type is not registered as a layer",
        "2": "Linear is quantized, and only weights in floating point can be conditioned",
        "3": "LSTM is quantized, and only weights in floating point can be conditioned",
    }


def doubled(module: nn.Module, view: WeightView) -> None:
    class Doubled(Parametrization):
        method = "doubled"

        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

        def right_inverse(self, weight: torch.Tensor) -> torch.Tensor:
            return weight / 2

    parametrize.register_parametrization(module, view.name, Doubled())


@pytest.mark.parametrize("method", ["fourier", "doubled", "weight_norm"])
def test_tied_layers_are_refused_by_methods_with_parameters_of_their_own(method: str):
    register_parametrization("doubled", doubled)
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    with pytest.raises(ValueError, match=f"{method} would give parameters of its own: untie them first"):
        layers.condition(net, method, ["0"])
    assert net[0].weight is net[1].weight
    assert not parametrize.is_parametrized(net[0])


def test_a_preconditioned_layer_is_not_conditioned_too_and_a_model_with_one_is_baked_whole_or_not():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    layers.condition(net, "batch_norm")
    with pytest.raises(ValueError, match="weight has preconditioned gradients already"):
        layers.condition_tensor(net[1], "weight")
    parametrize.register_parametrization(net[1], "bias", nn.Tanh())
    before = [type(module) for module in net]
    with pytest.raises(ValueError, match="only layers changed by precondition_ can be restored"):
        layers.bake(net)
    assert [type(module) for module in net] == before


@pytest.mark.parametrize("init", ["he", "glorot"])
@pytest.mark.parametrize("unsuitable", ["lazy", "integers"])
def test_an_initialization_that_cannot_draw_one_layer_draws_none(init: str, unsuitable: str):
    last = nn.LazyLinear(4) if unsuitable == "lazy" else nn.Linear(4, 4)
    if unsuitable == "integers":
        last.weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    net = nn.Sequential(nn.Linear(3, 4), last)
    before, generator = net[0].weight.detach().clone(), torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"^1 cannot be initialized: its"):
        layers.initialize_(net, ["0", "1"], init, generator)
    assert torch.equal(net[0].weight, before)
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())


def test_conditioning_another_tensor_of_a_copy_leaves_the_original_alone():
    cell = nn.GRU(3, 4)
    layers.condition_tensor(cell, "weight_hh_l0")
    copied = copy.deepcopy(cell)
    layers.condition_tensor(copied, "weight_ih_l0")
    assert isinstance(cell.weight_ih_l0, nn.Parameter)
    assert list(cell.parametrizations) == ["weight_hh_l0"]
    assert list(copied.parametrizations) == ["weight_hh_l0", "weight_ih_l0"]
    assert cell(torch.ones(2, 3))[0].shape == (2, 4)


def test_an_initialization_that_draws_nothing_takes_any_layer():
    net = nn.Sequential(nn.LazyLinear(4))
    layers.initialize_(net, ["0"], "default", torch.Generator())
    assert net(torch.ones(1, 3)).shape == (1, 4)


@pytest.mark.parametrize("normalize", [layers.weight_norm, baselines.spectral_norm])
def test_normalizing_a_copy_leaves_the_original_alone(normalize: Callable[..., object]):
    net = nn.Sequential(nn.Linear(3, 4))
    parametrize.register_parametrization(net[0], "bias", nn.Tanh())
    normalize(copy.deepcopy(net), ["0"])
    assert isinstance(net[0].weight, nn.Parameter)
    assert net(torch.ones(1, 3)).shape == (1, 4)


@pytest.mark.parametrize("method", ["row", "weight_norm", "spectral_norm", "fourier"])
def test_conditioning_a_copy_whose_bias_has_a_parametrization_of_others_leaves_the_original_alone(method: str):
    net = nn.Sequential(nn.Linear(3, 4))
    parametrize.register_parametrization(net[0], "bias", nn.Tanh())
    copied = copy.deepcopy(net)
    layers.condition(copied, method)
    assert isinstance(net[0].weight, nn.Parameter)
    torch.testing.assert_close(net(torch.ones(1, 3)), net[0].weight.sum(1)[None] + net[0].bias)
    assert layers.conditioned_layers(net) == {}
    assert layers.conditioned_layers(copied) == {"0": method}
