"""Tests of conditioned layers of every type: the applied matrices are the map of the raw ones, group by group."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import layers, maps, weight_views
from enerf.conditioning.parametrization import MAPS, SCALES
from enerf.conditioning.selection import METHODS
from tests.grids import latin, once

KINDS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(5, 4),
    "conv1d": lambda: nn.Conv1d(4, 6, 3, padding=1),
    "conv2d": lambda: nn.Conv2d(4, 6, (3, 2), stride=2),
    "grouped": lambda: nn.Conv2d(6, 4, 3, groups=2, bias=False),
    "multiplied": lambda: nn.Conv2d(3, 6, 3, groups=3),
    "conv3d": lambda: nn.Conv3d(2, 3, 2),
    "transposed1d": lambda: nn.ConvTranspose1d(4, 3, 3),
    "transposed2d": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2),
    "transposed3d": lambda: nn.ConvTranspose3d(2, 3, 2),
    "bilinear": lambda: nn.Bilinear(3, 4, 5),
    "attention": lambda: nn.MultiheadAttention(8, 2, batch_first=True),
    "attention of other widths": lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True),
}
GENERAL = [method for method in MAPS if method not in ("jacobi", "spectral_shift")]  # suit every kind
every_kind = pytest.mark.parametrize("kind", KINDS)
# torch's alternative for attention in evaluation warns of its own prototype
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def layer(kind: str, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return KINDS[kind]().double()


def inputs(module: nn.Module, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    if isinstance(module, nn.Linear):
        return (normal(7, module.in_features),)
    if isinstance(module, nn.Bilinear):
        return normal(7, module.in1_features), normal(7, module.in2_features)
    if isinstance(module, nn.MultiheadAttention):
        return normal(2, 5, module.embed_dim), normal(2, 6, module.kdim), normal(2, 6, module.vdim)
    axes = len(module.kernel_size)
    return (normal(3, module.in_channels, *[6] * axes),)


def output(module: nn.Module, seed: int = 0) -> Tensor:
    made = module(*inputs(module, seed))
    return made[0] if isinstance(made, tuple) else made


def suits(kind: str, method: str) -> bool:
    if method == "batch_norm":
        return kind.startswith(("linear", "conv", "grouped", "multiplied"))
    if method == "fourier":
        return kind.startswith("linear")
    if method == "spectral_shift":
        return kind.startswith("attention")
    return method != "jacobi" or kind == "attention"


# matrices


@every_kind
@pytest.mark.parametrize("packing", weight_views.PACKINGS)
def test_reading_as_matrices_is_undone_exactly(kind: str, packing: str):
    module = layer(kind)
    for view in weight_views.views(module, packing):
        weight = getattr(module, view.name)
        read = view.to_matrices(weight)
        assert read.shape == (*view.batch, view.n_out, view.n_in)
        assert torch.equal(view.from_matrices(read), weight)
        stack = torch.stack([weight, 2 * weight])
        assert torch.equal(view.to_matrices(stack)[1], 2 * read)
        assert torch.equal(view.from_matrices(view.to_matrices(stack)), stack)


def test_other_modules_have_no_matrices_and_unknown_packings_are_refused():
    assert weight_views.views(nn.ReLU()) == ()
    with pytest.raises(ValueError, match="packing is 'rows'; it must be one of matrix, head"):
        weight_views.views(nn.Linear(2, 2), "rows")


@settings(max_examples=20, deadline=None)
@given(groups=st.integers(1, 3), per_in=st.integers(1, 3), per_out=st.integers(1, 3), taps=st.integers(1, 3))
def test_a_convolution_multiplies_its_patches_by_its_matrices(groups: int, per_in: int, per_out: int, taps: int):
    module = nn.Conv2d(groups * per_in, groups * per_out, taps, groups=groups, bias=False).double()
    (images,) = inputs(module)
    (view,) = weight_views.views(module)
    patches = functional.unfold(images, taps).reshape(3, groups, view.n_in, -1)
    weight = view.to_matrices(module.weight).reshape(groups, view.n_out, view.n_in)
    made = torch.einsum("goi,bgip->bgop", weight, patches)
    torch.testing.assert_close(made.reshape(module(images).shape), module(images))


@settings(max_examples=20, deadline=None)
@given(groups=st.integers(1, 3), per_in=st.integers(1, 3), per_out=st.integers(1, 3), taps=st.integers(1, 3))
def test_a_transposed_convolution_spreads_its_inputs_by_its_matrices(groups: int, per_in: int, per_out: int, taps: int):
    module = nn.ConvTranspose2d(groups * per_in, groups * per_out, taps, groups=groups, bias=False).double()
    (images,) = inputs(module)
    (view,) = weight_views.views(module)
    weight = view.to_matrices(module.weight).reshape(groups, view.n_out, view.n_in)
    spread = torch.einsum("goi,bgip->bgop", weight, images.reshape(3, groups, per_in, -1))
    made = functional.fold(spread.reshape(3, groups * view.n_out, -1), (6 + taps - 1, 6 + taps - 1), taps)
    torch.testing.assert_close(made, module(images))


# what is applied


@pytest.mark.parametrize(
    ("kind", "method", "packing"),
    [
        *((kind, method, "matrix") for kind, method in latin(2, KINDS, GENERAL)),
        *(("attention", method, "head") for method in GENERAL),
        ("attention of other widths", "row", "head"),
        ("attention", "spectral_shift", "matrix"),
        ("attention of other widths", "spectral_shift", "head"),
    ],
)
def test_what_is_applied_is_the_map_of_each_matrix(kind: str, method: str, packing: str):
    plain = layer(kind)
    model = nn.Sequential(copy.deepcopy(plain))
    assert layers.condition(model, method, "0", packing=packing) == ["0"]
    for view in weight_views.views(plain, packing):
        raw = view.to_matrices(getattr(plain, view.name)).reshape(-1, view.n_out, view.n_in)
        applied = view.to_matrices(getattr(model[0], view.name)).reshape(raw.shape)
        for one, expected in zip(applied, raw, strict=True):
            torch.testing.assert_close(one, MAPS[method](expected, "through", 2.0), rtol=1e-12, atol=1e-14)
        assert torch.equal(
            view.to_matrices(model[0].get_parameter(f"parametrizations.{view.name}.original")).reshape(raw.shape), raw
        )


def test_a_row_conditioned_transposed_convolution_is_the_raw_one_with_scaled_inputs():
    plain = layer("transposed2d")
    model = nn.Sequential(copy.deepcopy(plain))
    layers.condition(model, "row", nn.ConvTranspose2d)
    norms = plain.weight.flatten(1).norm(dim=1)
    (images,) = inputs(plain)
    torch.testing.assert_close(model(images), plain(images / norms[None, :, None, None]))


def test_a_row_conditioned_convolution_is_the_raw_one_of_scaled_patches():
    plain = nn.Conv2d(3, 5, 2, bias=False).double()
    model = nn.Sequential(copy.deepcopy(plain))
    layers.condition(model, "row")
    (images,) = inputs(plain)
    patches = functional.unfold(images, 2) / plain.weight.flatten(1).norm(dim=0)[None, :, None]
    made = (plain.weight.flatten(1) @ patches).reshape(model(images).shape)
    torch.testing.assert_close(model(images), made)


def test_attention_is_conditioned_by_projection_or_by_head():
    for packing, n_out in (("matrix", 8), ("head", 4)):
        model = nn.ModuleList([layer("attention")])
        layers.condition(model, "row", "all", packing=packing)
        packed = model[0].in_proj_weight
        assert packed.shape == (24, 8)
        for start in range(0, 24, n_out):
            torch.testing.assert_close(packed[start : start + n_out].norm(dim=0), torch.ones(8, dtype=torch.float64))
        out = model[0].out_proj.weight
        torch.testing.assert_close(out.norm(dim=0), torch.ones(8, dtype=torch.float64))


def test_depthwise_convolutions_have_a_single_output_a_group():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1))
    with pytest.raises(ValueError, match="0 cannot be conditioned: it has a single output per group"):
        layers.condition(model, "row", "0")
    assert layers.select(model, "all").skipped.keys() == {"0"}
    assert layers.condition(model, "column", "0") == ["0"]


# baking


@pytest.mark.parametrize(
    ("kind", "method"), [*latin(3, KINDS, METHODS), ("attention", "jacobi"), ("attention", "spectral_shift")]
)
def test_baking_every_kind_keeps_every_bit(kind: str, method: str):
    model = nn.Sequential(layer(kind))
    if not suits(kind, method):
        with pytest.raises(ValueError, match=r"0 cannot be conditioned"):
            layers.condition(model, method, "0")
        return
    scale = "learned" if method in MAPS else "fixed"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers.condition(model, method, "0", scale=scale)
    if method != "unit_row":
        assert layers.conditioned_layers(model) == {"0": method}
    keys = set(nn.Sequential(layer(kind)).state_dict())
    model.eval()
    before = output(model[0])
    layers.bake(model)
    assert torch.equal(output(model[0]), before)
    assert set(model.state_dict()) == keys
    assert layers.conditioned_layers(model) == {}
    assert type(model[0]).__name__ == type(layer(kind)).__name__


@pytest.mark.parametrize("training", [True, False])
def test_baking_spectral_norm_takes_no_further_power_iteration(training: bool):
    model = nn.Sequential(layer("conv2d")).train(training)
    with torch.random.fork_rng():
        layers.condition(model, "spectral_norm", "all")
    copied = copy.deepcopy(model).eval()
    before = output(copied[0])
    assert torch.equal(output(layers.bake(model)[0]), before)


# the size


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["linear", "grouped", "attention", "transposed2d"])
def test_each_scale_sizes_its_matrices_as_it_says(kind: str, scale: str):
    model = nn.ModuleList([layer(kind)])
    layers.condition(model, "row", "0", scale=scale)
    (view,) = weight_views.views(model[0])
    raw = model[0].get_parameter(f"parametrizations.{view.name}.original")

    def size(tensor: Tensor) -> Tensor:
        return torch.linalg.matrix_norm(view.to_matrices(tensor.detach()))

    start = size(raw)
    fixed = torch.full_like(start, view.n_in**0.5)
    torch.testing.assert_close(size(getattr(model[0], view.name)), fixed if scale == "fixed" else start)
    with torch.no_grad():
        raw.mul_(3)
    expected = {"fixed": fixed, "kept": 3 * start}.get(scale, start)
    torch.testing.assert_close(size(getattr(model[0], view.name)), expected)
    names = [name for name, _ in model.named_parameters() if name.endswith("gain")]
    assert len(names) == (scale in ("learned", "learned_rows"))
    if scale == "learned":
        gain = model.get_parameter(names[0])
        assert gain.shape == (view.batch or (1,))  # with an axis, which sharding needs
        getattr(model[0], view.name).square().sum().backward()
        torch.testing.assert_close(gain.grad, 2 * view.n_in * gain.detach())


@pytest.mark.parametrize("scale", ["kept", "constant", "learned"])
@pytest.mark.parametrize("gradient", maps.GRADIENTS)
def test_kept_and_learned_scales_leave_a_raw_layer_that_the_map_fixes_as_it_is(scale: str, gradient: str):
    plain = layer("linear")
    with torch.no_grad():
        plain.weight.copy_(0.3 * maps.row(plain.weight))
    model = nn.Sequential(copy.deepcopy(plain))
    layers.condition(model, "row", "0", gradient, scale=scale)
    torch.testing.assert_close(model[0].weight, plain.weight)


# held divisors


def steps(model: nn.Module, n: int, seed: int = 0) -> list[Tensor]:
    """Train for n steps; the weights applied before each."""
    seen = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for i in range(n):
        optimizer.zero_grad()
        weight = model[0].weight
        seen.append(weight.detach().clone())
        (functional.linear(inputs(layer("linear"), seed + i)[0], weight).square().sum() / 7).backward()
        optimizer.step()
    return seen


def held(every: int, method: str = "row") -> nn.Module:
    model = nn.Sequential(layer("linear"))
    layers.condition(model, method, "0", "detached", every=every)
    return model


def test_divisors_are_computed_once_in_so_many_steps():
    model = held(3)
    seen = []
    for _ in range(7):
        original = model[0].parametrizations.weight.original
        before = original.detach().clone()
        made = model[0].weight
        seen.append(bool((made.norm(dim=0) - 1).abs().max() < 1e-12))
        made.sum().backward()
        with torch.no_grad():
            original.copy_(before * torch.linspace(1, 2, 5, dtype=torch.float64))
    assert seen == [True, False, False, True, False, False, True]


@pytest.mark.parametrize("method", ["row", "column", "row_column", "ruiz"])
def test_every_one_and_held_for_ever_are_the_detached_map_and_a_fixed_rescaling(method: str):
    always, once = held(1, method), held(10**9, method)
    first = always[0].weight
    torch.testing.assert_close(once[0].weight, first, rtol=1e-12, atol=0)
    raw = once[0].parametrizations.weight.original
    ratio = (first / raw).detach()
    with torch.no_grad():
        raw.add_(0.1)
    torch.testing.assert_close(once[0].weight, raw * ratio, rtol=1e-12, atol=0)


def test_evaluation_uses_the_divisors_that_training_holds_and_counts_nothing():
    model = held(2)
    steps(model, 2)
    step = model[0].parametrizations.weight[0]
    count = int(step.accesses)
    model.eval()
    first = model[0].weight
    with torch.no_grad():
        assert torch.equal(model[0].weight, first)
    assert int(step.accesses) == count
    baked = copy.deepcopy(model).train()
    assert torch.equal(layers.bake(baked)[0].weight, first)


def test_held_divisors_are_saved_so_that_a_resumed_run_goes_on_bit_for_bit():
    whole = held(3)
    expected = steps(whole, 5) + steps(whole, 5, seed=5)
    first = held(3)
    seen = steps(first, 5)
    second = held(3)
    second.load_state_dict(first.state_dict())
    seen += steps(second, 5, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


# tied


@pytest.mark.parametrize(("method", "seed"), once(["row", "row_column", "ruiz"], range(3)))
def test_tied_weights_are_conditioned_together_and_stay_tied(method: str, seed: int):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    n = sum(p.numel() for p in model.parameters())
    assert layers.condition(model, method, "0", scale="learned") == ["0", "2"]
    assert sum(p.numel() for p in model.parameters()) == n + 1
    assert torch.equal(model[0].weight, model[2].weight)
    before = model(torch.ones(2, 4))
    layers.bake(model)
    assert model[0].weight is model[2].weight
    assert torch.equal(model(torch.ones(2, 4)), before)


def test_tied_rows_are_started_once():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    expected = maps.row(model[0].weight)
    layers.condition(model, "unit_row", "all")
    assert torch.equal(model[0].weight, expected)
    assert model[1].weight is model[0].weight


def test_a_weight_that_something_else_holds_is_skipped_or_refused():
    model = nn.ModuleDict({"embed": nn.Embedding(6, 4), "mid": nn.Linear(4, 4), "head": nn.Linear(4, 6)})
    model["head"].weight = model["embed"].weight
    with pytest.raises(ValueError, match=r"head cannot .*: it shares its weight with embed \(Embedding.weight\)"):
        layers.condition(model, "row", "head")
    assert layers.condition(model, "row", "all") == ["mid"]
    turned = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Bilinear(2, 2, 4, bias=False)])
    turned[1].weight = nn.Parameter(turned[0].weight.detach().reshape(4, 2, 2))
    assert layers.condition(turned, "row", "all") == ["0", "1"]


def test_a_layer_in_two_places_is_conditioned_once():
    shared = nn.Linear(3, 3)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    assert layers.condition(model, "row", "all") == ["a"]
    with pytest.raises(ValueError, match="conditioned already"):
        layers.condition(model, "row", "all")


# the axis of torch's own parametrizations


@pytest.mark.parametrize("kind", ["conv2d", "transposed1d", "transposed3d", "linear"])
def test_lengths_of_weight_norm_are_those_of_output_channels(kind: str):
    model = nn.Sequential(layer(kind))
    (view,) = weight_views.views(model[0])
    layers.condition(model, "weight_norm", "all")
    lengths = model[0].parametrizations.weight.original0
    channels = model[0].weight.shape[view.output_axis]
    assert channels == (getattr(model[0], "out_channels", None) or model[0].out_features)
    assert lengths.numel() == channels
    with torch.no_grad():
        lengths.copy_(torch.arange(1.0, channels + 1).reshape(lengths.shape))
    norms = model[0].weight.movedim(view.output_axis, 0).flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.arange(1.0, channels + 1, dtype=norms.dtype))


@pytest.mark.parametrize("kind", ["conv2d", "transposed1d", "transposed3d"])
def test_spectral_norm_is_that_of_the_matrix_with_a_row_for_each_output_channel(kind: str):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(layer(kind))
        layers.condition(model, "spectral_norm", "all")
    (view,) = weight_views.views(model[0])
    for _ in range(300):
        weight = model[0].weight.detach()
    largest = [torch.linalg.matrix_norm(weight.movedim(axis, 0).flatten(1), 2).item() for axis in (0, 1)]
    assert largest[view.output_axis] == pytest.approx(1, rel=1e-4)
    assert largest[1 - view.output_axis] != pytest.approx(1, rel=1e-2)


def test_views_that_do_not_fit_their_tensor_are_refused():
    for arguments, sentence in (
        (("weight", (8, 3), (), 4, 3), r"weight of shape \(8, 3\) cannot be read as one matrix of 4 × 3"),
        (("weight", (8, 3, 3, 3), (), 4, 27), "cannot be read as one matrix of 4 × 27"),
        (("weight", (8, 3, 3, 3), (2,), 8, 27), r"cannot be read as \(2,\) matrices of 8 × 27"),
        (("weight", (3, 8), (), 8, 3), "is not a matrix of 8 × 3: is it, with transposed=True"),
        (("weight", (8, 3), (), 8, 3, True), "is not a matrix of 8 × 3: is it, without transposed=True"),
    ):
        with pytest.raises(ValueError, match=sentence):
            weight_views.WeightView(*arguments)
    assert weight_views.WeightView("weight", (3, 8), (), 8, 3, transposed=True)
