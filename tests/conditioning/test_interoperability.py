"""Conditioned models in the company of the rest of torch: what works for a plain model works for them."""

import copy
import math
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from enerf.conditioning import layers, maps, state_dict
from enerf.conditioning.parametrization import MAPS, SCALES
from enerf.conditioning.weight_cache import computed_once
from tests.grids import latin

MAPPED = [m for m in MAPS if m not in ("jacobi", "spectral_shift")]


def cnn(dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            *(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 3, groups=2), nn.Tanh()),
            *(nn.Flatten(), nn.Linear(16, 5), nn.Softplus(), nn.Linear(5, 3)),
        )
    return net.to(dtype)


def mlp(seed: int = 0, method: str = "row", **how: object) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    layers.condition(net, method, "all", **how)
    return net


def images(dtype: torch.dtype = torch.float64, n: int = 6) -> Tensor:
    return torch.randn(n, 2, 4, 4, dtype=dtype, generator=torch.Generator().manual_seed(1))


def points(n: int = 7) -> Tensor:
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def conditioned(method: str = "row", dtype: torch.dtype = torch.float64, **how: object) -> nn.Sequential:
    net = cnn(dtype)
    layers.condition(net, method, "all", **how)
    return net


def gradients(net: nn.Module, call: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    net.zero_grad()
    call(x).square().sum().backward()
    return [p.grad.clone() for p in net.parameters() if p.grad is not None]


# derivatives


@pytest.mark.parametrize(("method", "scale"), latin(4, MAPPED, SCALES))
def test_derivatives_of_a_whole_model_agree_with_differences(method: str, scale: str):
    net = mlp(method=method, scale=scale)
    names = [name for name, _ in net.named_parameters()]
    start = tuple(p.detach().clone().requires_grad_() for p in net.parameters())

    def loss(*values: Tensor) -> Tensor:
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (points(),)).square().sum()

    assert torch.autograd.gradcheck(loss, start)
    assert torch.autograd.gradgradcheck(loss, start)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["row", "ruiz", "weight_standardisation"])
def test_hessians_by_functional_transforms_are_those_of_double_backward(method: str):
    net, x = mlp(method=method), points()
    state = {name: p.detach() for name, p in net.named_parameters()}

    def loss(values: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(net, values, (x,)).square().mean()

    found = torch.func.hessian(loss)(state)
    sizes = list(state.values())

    def flat(vector: Tensor) -> Tensor:
        parts = vector.split([p.numel() for p in sizes])
        return loss({n: part.reshape(p.shape) for (n, p), part in zip(state.items(), parts, strict=True)})

    exact = torch.autograd.functional.hessian(flat, torch.cat([p.flatten() for p in sizes]))
    rows = [torch.cat([found[a][b].reshape(state[a].numel(), -1) for b in state], 1) for a in state]
    torch.testing.assert_close(torch.cat(rows), exact, rtol=1e-8, atol=1e-10)


def test_an_ensemble_maps_over_stacked_states():
    nets = [mlp(seed) for seed in range(3)]
    params, buffers = torch.func.stack_module_state(nets)
    x = points()

    def call(p: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(nets[0], (p, b), (x,))

    made = torch.func.vmap(call)(params, buffers)
    torch.testing.assert_close(made, torch.stack([net(x) for net in nets]))


# training tools


@pytest.mark.parametrize("method", ["row", "weight_standardisation", "spectral_norm"])
def test_state_dicts_and_copies_go_round(method: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, other = conditioned(method), conditioned(method)
    net(images())
    other.load_state_dict(net.state_dict())
    for copied in (other, copy.deepcopy(net)):
        assert torch.equal(copied.eval()(images()), net.eval()(images()))


def test_groups_of_an_optimizer_take_raw_weights_and_gains():
    net = mlp(scale="learned")
    gains = [p for name, p in net.named_parameters() if name.endswith("gain")]
    raw = [p for name, p in net.named_parameters() if name.endswith("original")]
    optimizer = torch.optim.SGD([{"params": raw, "lr": 0.0}, {"params": gains, "lr": 0.1}])
    before, sizes = [p.detach().clone() for p in raw], [g.item() for g in gains]
    net(points()).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(raw, before, strict=True))
    assert all(g.item() != size for g, size in zip(gains, sizes, strict=True))


def test_an_average_of_raw_weights_is_conditioned_itself():
    net = mlp()
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    first = net[0].parametrizations.weight.original.detach().clone()
    average.update_parameters(net)
    with torch.no_grad():
        net[0].parametrizations.weight.original.add_(1.0)
    average.update_parameters(net)
    torch.testing.assert_close(average.module[0].weight, maps.row(first + 0.5))


@pytest.mark.parametrize("scale", SCALES)
def test_weights_computed_once_give_the_same_gradients(scale: str):
    plain, stacked = (conditioned("row", scale=scale) for _ in range(2))
    expected = gradients(plain, plain, images())
    stacked.zero_grad()
    with computed_once(stacked):
        stacked(images()).square().sum().backward()
    for a, b in zip([p.grad for p in stacked.parameters()], expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("method", ["row", "row_column", "ruiz", "weight_standardisation"])
def test_under_autocast_maps_are_exact_and_only_products_are_rounded(method: str):
    net = conditioned(method, torch.float32).eval()
    with torch.autocast("cpu", torch.bfloat16):
        weight = net[0].weight
        made = net(images(torch.float32))
    assert weight.dtype == torch.float32
    assert torch.equal(weight, net[0].weight)
    assert (made.float() - net(images(torch.float32))).norm() <= 0.05 * net(images(torch.float32)).norm()


@pytest.mark.parametrize(("method", "dtype"), latin(2, MAPPED, [torch.bfloat16, torch.float16]))
def test_reduced_weights_are_conditioned_in_their_own_type(method: str, dtype: torch.dtype):
    net = nn.Sequential(nn.Linear(6, 5)).to(dtype)
    layers.condition(net, method, "all", scale="learned")
    assert net[0].weight.dtype == dtype
    exact = nn.Sequential(nn.Linear(6, 5)).double()
    exact.load_state_dict({k: v.double() for k, v in layers.bake(copy.deepcopy(net)).state_dict().items()})
    raw = net[0].parametrizations.weight.original.detach().double()
    expected = maps.keep_scale(MAPS[method](raw, "through", 2.0), raw)
    assert (exact[0].weight - expected).abs().max() <= 16 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.fixture
def one_process() -> Iterator[None]:
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("how", [{"scale": "learned"}, {"gradient": "detached", "every": 2}], ids=str)
def test_distributed_data_parallel_sees_raw_weights(one_process: None, how: dict[str, object]):
    plain, net = (conditioned("row", **how) for _ in range(2))
    parallel = nn.parallel.DistributedDataParallel(net)
    for a, b in zip(gradients(net, parallel, images()), gradients(plain, plain, images()), strict=True):
        torch.testing.assert_close(a, b)


# In a process of its own: the shapes that tests check at each call cannot be traced.
COMPILE = """
import copy, sys, torch
from torch import nn
from enerf.conditioning import layers
torch.manual_seed(0)
backend, *methods = sys.argv[1:]
x = torch.randn(6, 2, 4, 4)
for method in methods:
    for how in ({}, {"scale": "learned"}, {"gradient": "detached", "every": 2}):
        if method == "weight_standardisation" and "every" in how:
            continue
        net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5))
        layers.condition(net, method, "all", **how)
        copied = copy.deepcopy(net)
        torch._dynamo.reset()
        compiled = torch.compile(net, backend=backend)
        for _ in range(3):
            for a in (compiled, copied):
                a.zero_grad()
                a(x).square().sum().backward()
            torch.testing.assert_close(compiled(x), copied(x), rtol=1e-4, atol=1e-5)
            for a, b in zip(net.parameters(), copied.parameters(), strict=True):
                torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
print("the same")
"""


def assert_compiled_is_the_same(backend: str, *methods: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, backend, *methods]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr


def test_a_traced_model_computes_the_same_with_the_same_gradients():
    assert_compiled_is_the_same("aot_eager", "row", "row_column")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.timeout(900)
def test_a_compiled_model_computes_the_same_with_the_same_gradients():
    assert_compiled_is_the_same("inductor", "row", "ruiz")


# checkpoints


@pytest.mark.parametrize(("method", "scale"), latin(2, MAPPED, SCALES))
def test_a_baked_state_loads_into_the_plain_model_and_computes_the_same(method: str, scale: str):
    net, plain = conditioned(method, scale=scale).eval(), cnn(seed=5).eval()
    state = net.state_dict()
    plain.load_state_dict(state_dict.baked_state(net, state))
    assert torch.equal(plain(images()), net(images()))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), state.values(), strict=True))


@pytest.mark.parametrize("method", ["row", "column", "weight_norm", "weight_standardisation"])
def test_a_plain_state_that_was_baked_comes_back(method: str):
    net = conditioned(method).eval()
    before = net(images())
    net.load_state_dict(state_dict.unbaked_state(net, state_dict.baked_state(net, net.state_dict())))
    torch.testing.assert_close(net(images()), before)


def test_a_learned_gain_takes_over_the_size_of_baked_weights():
    net = mlp(scale="learned")
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("gain"):
                p.mul_(7)
    plain = state_dict.baked_state(net, net.state_dict())
    other = mlp(seed=3, scale="learned")
    other.load_state_dict(state_dict.unbaked_state(other, plain))
    torch.testing.assert_close(other(points()), net(points()))


def test_every_key_has_its_plain_weight():
    net = conditioned("row", scale="learned")
    layers.bake(net[6])
    found = state_dict.key_map(net)
    assert set(found.values()) == set(cnn().state_dict())
    assert found["3.parametrizations.weight.0.gain"] == "3.weight"
    assert found["6.weight"] == "6.weight"


def test_states_of_other_models_are_refused_by_the_first_key():
    net = mlp()
    state = state_dict.baked_state(net, net.state_dict())
    with pytest.raises(ValueError, match=r"lacks 0.weight and has 0.weigth \(expected 0.weight\?\)"):
        state_dict.unbaked_state(net, {("0.weigth" if k == "0.weight" else k): v for k, v in state.items()})
    with pytest.raises(ValueError, match=r"lacks 0.parametrizations.weight.original and has 0.weight"):
        state_dict.baked_state(net, state)


@pytest.mark.parametrize(
    ("layer", "like"), [(nn.Conv2d(4, 6, 3), torch.channels_last), (nn.Conv3d(4, 6, 3), torch.channels_last_3d)]
)
def test_a_conditioned_weight_keeps_channels_last(layer: nn.Module, like: torch.memory_format):
    net = nn.Sequential(layer.to(memory_format=like))
    before = copy.deepcopy(net)
    layers.condition(net, "row", "all")
    assert net[0].weight.is_contiguous(memory_format=like)
    layers.condition(before.to(memory_format=torch.contiguous_format), "row", "all")
    assert torch.equal(net[0].weight, before[0].weight)


# mistakes


class Odd(nn.Linear):
    """A linear layer whose weight is what a test wants it to be."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(*weight.shape[::-1], bias=False)
        del self.weight
        self.weight = nn.Parameter(weight, requires_grad=False)


@pytest.mark.parametrize(
    ("net", "how", "sentence"),
    [
        (lambda: Odd(torch.ones(3, 3, dtype=torch.int8)), {}, r"it holds|its weight holds torch.int8"),
        (lambda: Odd(torch.ones(3, 3, dtype=torch.complex64)), {}, "only real floating point"),
        (lambda: Odd(torch.eye(3).to_sparse()), {}, "its weight is sparse"),
        (lambda: nn.LazyLinear(3), {}, "run the model once on an example"),
        (lambda: nn.Linear(3, 1), {}, "single output"),
        (lambda: nn.Linear(3, 4), {"method": "jacobi"}, "jacobi needs a square matrix, and this one is 4 × 3"),
        (lambda: Odd(torch.ones(2, 2).triu(1)), {"method": "jacobi"}, "2 of its 2 entries are zero"),
        (lambda: nn.Linear(3, 4), {"method": "colum"}, r"did you mean column\?"),
        (lambda: nn.Linear(3, 4), {"scale": "keep"}, "scale is 'keep'; it must be one of fixed, kept"),
        (lambda: nn.Linear(3, 4), {"p": 4}, "p is 4; the norms are 1, 2 and inf"),
        (lambda: nn.Linear(3, 4), {"every": 0, "gradient": "detached"}, "every is 0; expected a whole number from 1"),
        (lambda: nn.Linear(3, 4), {"every": 2}, 'every above 1 requires gradient="detached"'),
        (lambda: nn.Linear(3, 4), {"method": "weight_norm", "scale": "kept"}, "weight_norm is not a map"),
        (lambda: nn.Linear(3, 4), {"packing": "heads"}, "packing is 'heads'"),
        (lambda: nn.Linear(1, 4), {"method": "weight_standardisation"}, "a single weight minus its mean is zero"),
        (lambda: nn.ConvTranspose1d(3, 4, 2), {"method": "batch_norm"}, "it is a ConvTranspose1d"),
    ],
)
def test_a_mistake_is_one_sentence_and_touches_nothing(net: Callable[[], nn.Module], how: dict, sentence: str):
    model = nn.ModuleList([net(), nn.Linear(4, 4)])
    keys = list(model.state_dict())
    with pytest.raises(ValueError, match=sentence):
        layers.condition(model, **{"method": "row", "layers": ["1", "0"], **how})
    assert list(model.state_dict()) == keys
    assert layers.conditioned_layers(model) == {}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("convv2d", r"no layer is named 'convv2d'"),
        ("Conv3d", r"no layer belongs to 'Conv3d' \(the layers are 0, 3, 6, 8\)"),
        ("block*", r"no layer belongs to 'block\*'"),
        ("1", r"1 is a BatchNorm2d; the layers that can be conditioned are Linear"),
        ([], "no layers are named"),
        (nn.Bilinear, "no layer belongs to 'Bilinear'"),
    ],
)
def test_words_that_match_nothing_say_what_there_is(words: layers.Layers, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        layers.condition(cnn(), "row", words)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("all", ["0", "3", "6", "8"]),
        ("first_conv_and_last_linear", ["0", "8"]),
        (nn.Conv2d, ["0", "3"]),
        ("Linear", ["6", "8"]),
        ("[036]", ["0", "3", "6"]),
        (["Conv2d", nn.Linear], ["0", "3", "6", "8"]),
        ("6, 0", ["0", "6"]),
    ],
)
def test_words_groups_patterns_and_types_mean_layers(words: layers.Layers, names: list[str]):
    assert layers.select(cnn(), words).names == names


def _pruned(layer: nn.Module) -> nn.Module:
    return prune.l1_unstructured(layer, "weight", 0.5)


@pytest.mark.parametrize("method", ["row", "unit_row", "weight_norm", "batch_norm"])
@pytest.mark.parametrize("hook", [_pruned, nn.utils.spectral_norm])
def test_weights_that_hooks_compute_are_refused_and_no_other_layer_changes(method: str, hook: Callable):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), hook(nn.Linear(6, 5)))
    with pytest.raises(ValueError, match="1 cannot be conditioned: its weight is computed from other"):
        layers.condition(net, method, ["0", "1"])
    assert layers.conditioned_layers(net) == {}
    assert layers.select(net, "all", method=method).names == ["0"]
    with pytest.raises(ValueError, match="make it permanent first"):
        layers.initialize_(net, ["1"], "he", torch.Generator())
    if hook is _pruned:
        prune.remove(net[1], "weight")
        assert layers.condition(net, method, "all") == ["0", "1"]


def test_layers_without_weights_are_left_out_with_a_reason():
    with warnings.catch_warnings(action="ignore"):  # torch: initializing zero-element tensors is a no-op
        net = nn.Sequential(nn.Linear(0, 4), nn.Linear(4, 0), nn.Linear(4, 3))
    selection = layers.select(net, "all")
    assert selection.names == ["2"]
    assert selection.skipped["1"] == "it has no weights: its matrices are 0 × 4"


def test_an_unforeseen_error_undoes_the_layers_before_it(monkeypatch: pytest.MonkeyPatch):
    net, calls = cnn(), []
    state = {name: value.clone() for name, value in net.state_dict().items()}
    register = parametrize.register_parametrization

    def third_fails(*args: object) -> None:
        calls.append(args)
        if len(calls) == 3:
            raise KeyError("unforeseen")
        register(*args)

    monkeypatch.setattr(parametrize, "register_parametrization", third_fails)
    with pytest.raises(KeyError, match="unforeseen"):
        layers.condition(net, "row", "all", scale="learned")
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_quantized_layers_are_told_apart():
    class Linear(nn.Module):
        __module__ = "torch.ao.nn.quantized.modules.linear"

    with pytest.raises(ValueError, match="0 is quantized: condition the model before"):
        layers.condition(nn.Sequential(Linear()), "row", "0")


def test_infinite_norm_is_an_option_of_layers_too():
    net = mlp(p=math.inf)
    assert net[0].weight.abs().amax(0).min().item() == 1.0


def test_attentions_output_projection_is_skipped_where_its_forward_would_not_be_called():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8), 1, enable_nested_tensor=False)
    selection = layers.select(encoder, "all", method="batch_norm")
    assert selection.names == ["layers.0.linear1", "layers.0.linear2"]
    assert "layers.0.self_attn.out_proj" in selection.skipped
