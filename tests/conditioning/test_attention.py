"""Attention: each method against its formula, and what it leaves unchanged."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from enerf.conditioning import attention, layers, norms, state_dict, weight_views
from enerf.conditioning.attention import PreconditionedAttention
from enerf.conditioning.parametrization import Equilibrated
from enerf.conditioning.weight_cache import computed_once

WIDTH, HEADS = 12, 3
D = WIDTH // HEADS
# torch's alternative for attention in evaluation warns of its own prototype
pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")


def layer(kind: type[nn.MultiheadAttention] = nn.MultiheadAttention, seed: int = 0, **options: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = kind(WIDTH, HEADS, **{"batch_first": True, **options}).double()
        if made.in_proj_bias is not None:
            nn.init.normal_(made.in_proj_bias)
    return made


def tokens(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*(shape or (2, 5, WIDTH)), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def kappa(matrix: Tensor) -> float:
    values = torch.linalg.svdvals(matrix.detach())
    return float(values[0] / values[-1])


def sequence_output(x: Tensor, w: Tensor, bias: Tensor, head: int) -> Tensor:
    """The output of one head for one sequence, by the definition, with the papers' W = weightᵀ."""
    rows = slice(head * D, (head + 1) * D)
    q, k, v = (x @ m[rows].T + b[rows] for m, b in zip(w.chunk(3), bias.chunk(3), strict=True))
    return torch.softmax(q @ k.T / math.sqrt(D), -1) @ v


# spectral conditioning


@pytest.mark.parametrize("shift", [10.0, 0.5])
def test_queries_keys_and_values_are_projected_by_the_shifted_matrices(shift: float):
    plain, x = layer(), tokens()
    model = nn.ModuleList([copy.deepcopy(plain)])
    assert layers.condition(model, "spectral_shift", "all", shift=shift) == ["0"]
    identity = torch.eye(WIDTH, dtype=torch.float64)
    w = torch.cat([(m.T + shift * identity).T for m in plain.in_proj_weight.chunk(3)])
    for sequence, found in zip(x, model[0](x, x, x)[0], strict=True):
        heads = [sequence_output(sequence, w, plain.in_proj_bias, head) for head in range(HEADS)]
        torch.testing.assert_close(found, torch.cat(heads, -1) @ plain.out_proj.weight.T + plain.out_proj.bias)


def test_projections_of_other_widths_get_a_rectangular_identity_and_heads_one_each():
    model = nn.ModuleList([layer(kdim=7, vdim=20)])
    raw = {view.name: getattr(model[0], view.name).detach().clone() for view in weight_views.views(model[0])}
    layers.condition(model, "spectral_shift", "all", shift=3.0)
    for name, matrix in raw.items():
        added = getattr(model[0], name) - matrix
        torch.testing.assert_close(added, 3 * torch.eye(*matrix.shape, dtype=torch.float64), rtol=0, atol=1e-14)
    model = nn.ModuleList([layer()])
    weight = model[0].in_proj_weight.detach().clone()
    layers.condition(model, "spectral_shift", "all", packing="head", shift=3.0)
    for added in (model[0].in_proj_weight - weight).split(D):
        torch.testing.assert_close(added, 3 * torch.eye(D, WIDTH, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_the_papers_correction_has_kappa_at_most_two_and_the_identity_what_weyl_says(seed: int):
    w = tokens(WIDTH, WIDTH, seed=seed)
    u, s, vh = torch.linalg.svd(w)
    largest = float(s[0])
    assert kappa(w + u @ (largest * torch.eye(WIDTH, dtype=torch.float64)) @ vh) <= 2 + 1e-12
    for shift in (1.1 * largest, 2 * largest, 10 * largest):
        bound = (shift + largest) / (shift - largest)
        assert kappa(attention.shifted(w, shift=shift)) <= bound * (1 + 1e-12)


def test_below_sigma_max_the_identity_may_raise_kappa():
    w = torch.diag(torch.tensor([-2.0, 1.0], dtype=torch.float64))
    assert kappa(attention.shifted(w, shift=1.9)) > 10 * kappa(w)


def trained(model: nn.Module, decay: float) -> Tensor:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=decay)
    for step in range(5):
        optimizer.zero_grad()
        with computed_once(model):
            x = tokens(seed=step)
            (model[0](x, x, x)[0] - tokens(seed=9)).square().mean().backward()
        optimizer.step()
    return model[0].in_proj_weight.detach()


def test_the_shift_is_an_initialization_unless_weights_decay():
    """The constant has no gradient: what differs from a plain weight that starts at W + λI is where decay leads."""
    for decay, is_equal in ((0.0, True), (0.5, False)):
        shifted, control = nn.ModuleList([layer()]), nn.ModuleList([layer()])
        layers.condition(shifted, "spectral_shift", "all", shift=2.0)
        attention.initialize_attention_(control, ["0"], "shifted_attention", generator(), shift=2.0)
        torch.testing.assert_close(control[0].in_proj_weight, shifted[0].in_proj_weight)
        difference = (trained(shifted, decay) - trained(control, decay)).abs().max()
        assert (difference < 1e-10) == is_equal
        assert is_equal or difference > 0.01


def test_a_kept_scale_has_the_raw_norm_and_the_shifted_kappa():
    model = nn.ModuleList([layer(), layer(seed=1)])
    layers.condition(model, "spectral_shift", "all", scale="kept", shift=2.0)
    for module in model:
        raw = module.parametrizations.in_proj_weight.original.chunk(3)
        for matrix, before in zip(module.in_proj_weight.chunk(3), raw, strict=True):
            torch.testing.assert_close(matrix.norm(), before.norm())
            assert kappa(matrix) == pytest.approx(kappa(attention.shifted(before, shift=2.0)))


def test_baked_states_load_into_plain_models_and_come_back():
    model = nn.ModuleList([layer(), layer(seed=1)])
    model[1].in_proj_weight = model[0].in_proj_weight  # tied
    before = model[0].in_proj_weight.detach().clone()
    layers.condition(model, "spectral_shift", "all")
    assert torch.equal(model[1].parametrizations.in_proj_weight.original, before)
    state, plain, x = model.state_dict(), nn.ModuleList([layer(seed=2), layer(seed=3)]), tokens()
    assert not any("shift" in key for key in state)
    baked = state_dict.baked_state(model, state)
    plain.load_state_dict(baked)
    expected = model[0](x, x, x)[0]
    torch.testing.assert_close(plain[0](x, x, x)[0], expected)
    unbaked = state_dict.unbaked_state(model, baked)
    torch.testing.assert_close(unbaked["0.parametrizations.in_proj_weight.original"], before, rtol=0, atol=1e-14)
    assert torch.equal(layers.bake(model)[0](x, x, x)[0], expected)


def test_the_shift_is_for_attention_and_one_tensor_of_others():
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 8, batch_first=True)
    done = layers.condition(encoder, "spectral_shift", "all")
    assert done == ["self_attn"]
    assert set(done.left_out) == {"self_attn.out_proj", "linear1", "linear2"}
    assert "shift=10" in repr(encoder.self_attn.parametrizations.in_proj_weight[0])
    query = nn.Linear(4, 4)
    before = query.weight.detach().clone()
    with pytest.raises(ValueError, match="it has no projections of queries, keys and values"):
        layers.condition(nn.Sequential(query), "spectral_shift", "0")
    assert isinstance(layers.condition_tensor(query, "weight", "spectral_shift", shift=2.0), Equilibrated)
    torch.testing.assert_close(query.weight, before + 2 * torch.eye(4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"shift": 0.0}, "shift is 0.0; expected a finite number above 0"),
        ({"shift": math.inf}, "shift is inf; expected a finite number above 0"),
        ({"method": "row", "shift": 2.0}, "only spectral_shift has one, and the method is row"),
        ({"gradient": "detached", "every": 2}, "has no divisors that could be cached"),
    ],
    ids=str,
)
def test_shifts_without_effect_are_refused(options: dict[str, Any], sentence: str):
    model = nn.ModuleList([layer()])
    with pytest.raises(ValueError, match=sentence):
        layers.condition(model, **{"method": "spectral_shift", "layers": "all", **options})
    assert layers.conditioned_layers(model) == {}


# conditioned initialization


@pytest.mark.parametrize("options", [{}, {"kdim": 7, "vdim": 20}, {"kdim": 2, "vdim": 3}], ids=str)
def test_heads_start_from_semi_orthogonal_matrices_and_the_identity(options: dict[str, int]):
    model = nn.ModuleList([layer(**options)])
    kept = {name: p.clone() for name, p in model.named_parameters() if "proj_weight" not in name}
    attention.initialize_attention_(model, ["0"], "conditioned_attention", generator())
    matrices = [
        (letter, w)
        for view in weight_views.views(model[0], "head")
        for letter, w in attention._projections(view.name, view.to_matrices(getattr(model[0], view.name)))
    ]
    assert [letter for letter, _ in matrices] == ["q"] * HEADS + ["k"] * HEADS + ["v"] * HEADS
    for letter, matrix in matrices:
        small = min(matrix.shape)
        gram = matrix @ matrix.T if small == D else matrix.T @ matrix  # the papers' Wᵀ W is the former
        torch.testing.assert_close(gram, torch.eye(small, dtype=torch.float64), rtol=0, atol=1e-12)
        assert letter != "v" or torch.equal(matrix, torch.eye(*matrix.shape, dtype=torch.float64))
    random = [matrix for letter, matrix in matrices if letter != "v"]
    pairs = [(a, b) for i, a in enumerate(random) for b in random[:i] if a.shape == b.shape]
    assert all((a - b).abs().max() > 0.1 for a, b in pairs)
    assert all(torch.equal(model.get_parameter(name), before) for name, before in kept.items())


def test_for_all_heads_at_once_each_projection_is_orthogonal():
    model = nn.ModuleList([layer()])
    attention.initialize_attention_(model, ["0"], "conditioned_attention_matrix", generator())
    q, k, v = model[0].in_proj_weight.detach().chunk(3)
    identity = torch.eye(WIDTH, dtype=torch.float64)
    assert torch.equal(v, identity)
    for matrix in (q, k):
        torch.testing.assert_close(matrix @ matrix.T, identity, rtol=0, atol=1e-12)
    assert (q - k).abs().max() > 0.1


def test_the_control_has_the_same_scale_and_another_spectrum():
    with torch.random.fork_rng(devices=[]):
        models = {init: nn.ModuleList([nn.MultiheadAttention(256, 4)]) for init in attention.INITS[::2]}
    for init, model in models.items():
        attention.initialize_attention_(model, ["0"], init, generator())
    sizes, spectra = [], []
    for model in models.values():
        matrices = model[0].in_proj_weight.detach().reshape(12, 64, 256)
        sizes.append(float(torch.linalg.matrix_norm(matrices).square().mean()))
        spectra.append(max(map(kappa, matrices)))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
    assert spectra[0] < 1.001
    assert spectra[1] > 2


def test_initializations_draw_from_their_generator_alone():
    torch.rand(3)
    before = torch.get_rng_state()
    for init in attention.INITS:
        one, again, other = (nn.ModuleList([layer()]) for _ in range(3))
        for model, seed in ((one, 1), (again, 1), (other, 2)):
            attention.initialize_attention_(model, ["0"], init, generator(seed))
        assert torch.equal(one[0].in_proj_weight, again[0].in_proj_weight)
        assert torch.equal(one[0].in_proj_weight, other[0].in_proj_weight) == (init == "shifted_attention")
    assert torch.equal(torch.get_rng_state(), before)


def test_initializations_refuse_what_is_no_plain_attention():
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 8)
    with pytest.raises(ValueError, match="linear1 cannot be conditioned: it has no projections"):
        attention.initialize_attention_(encoder, ["self_attn", "linear1"], "conditioned_attention", generator())
    with pytest.raises(ValueError, match="init is 'he'; it must be one of conditioned_attention"):
        attention.initialize_attention_(encoder, ["self_attn"], "he", generator())
    layers.condition(encoder, "row", "self_attn")
    with pytest.raises(ValueError, match="self_attn is conditioned already"):
        attention.initialize_attention_(encoder, ["self_attn"], "conditioned_attention", generator())


# preconditioned attention


def test_each_head_is_multiplied_by_the_inverse_norms_of_its_rows():
    plain, x = layer(), tokens()
    model = nn.ModuleList([copy.deepcopy(plain)])
    assert attention.precondition_attention_(model) == ["0"]
    for sequence, found in zip(x, model[0](x, x, x, need_weights=False)[0], strict=True):
        heads = []
        for head in range(HEADS):
            a = sequence_output(sequence, plain.in_proj_weight, plain.in_proj_bias, head)
            heads.append(torch.diag(1 / a.norm(dim=1)) @ a)
        torch.testing.assert_close(found, torch.cat(heads, -1) @ plain.out_proj.weight.T + plain.out_proj.bias)


def test_the_preconditioner_is_rms_normalization_without_gains():
    a = tokens(2, 5, 4)
    torch.testing.assert_close(attention.preconditioned(a), functional.rms_norm(a, (4,), eps=0.0) / 2)


def test_the_gradient_goes_through_the_preconditioner_and_is_bounded_at_zero():
    a = tokens(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(attention.preconditioned, a)
    assert torch.autograd.gradgradcheck(attention.preconditioned, a)
    (gradient,) = torch.autograd.grad((attention.preconditioned(a) * a.detach()).sum(), a)
    assert gradient.abs().max() < 1e-12  # of a function of the direction alone, along that direction
    zero = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    attention.preconditioned(zero).sum().backward()
    assert torch.equal(zero.grad, torch.full_like(zero, 1 / norms.FLOOR))


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "sequence first": {"options": {"batch_first": False}},
    "other widths": {"options": {"kdim": 7, "vdim": 20}, "inputs": [(2, 5, WIDTH), (2, 6, 7), (2, 6, 20)]},
    "without biases": {"options": {"bias": False}},
    "one sequence": {"inputs": [(5, WIDTH)] * 3},
    "padding": {"how": {"key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 5])}},
    "causal": {"how": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1), "is_causal": True}},
    "numbers added": {"how": {"attn_mask": tokens(2 * HEADS, 5, 5, seed=4), "average_attn_weights": False}},
    "both": {
        "how": {
            "attn_mask": tokens(5, 5, seed=4),
            "key_padding_mask": torch.tensor([[False] * 4 + [True], [False] * 5]).double() * -3,
        }
    },
}


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_but_for_the_preconditioner_the_layer_computes_what_torchs_does(case: str, need_weights: bool, monkeypatch):
    chosen = CASES[case]
    plain = layer(**chosen.get("options", {}))
    made = layer(PreconditionedAttention, **chosen.get("options", {}))
    x = tokens()
    given = [tokens(*shape, seed=i) for i, shape in enumerate(chosen["inputs"])] if "inputs" in chosen else [x] * 3
    how = {"need_weights": need_weights, **chosen.get("how", {})}
    with_it = made(*given, **how)[0]
    monkeypatch.setattr(attention, "preconditioned", lambda heads: heads)
    expected, found = plain(*given, **how), made(*given, **how)
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1])
    assert (with_it - found[0]).abs().max() > 0.01


@pytest.mark.parametrize("enclosing", ["layer", "encoder"])
def test_torchs_fused_block_does_not_skip_the_preconditioner(enclosing: str):
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = nn.TransformerEncoderLayer(8, 2, 8, 0.0, batch_first=True)
        if enclosing == "encoder":
            model = nn.TransformerEncoder(model, 2)
    x = tokens(2, 5, 8).float()
    with torch.no_grad():
        plain = model.eval()(x)
        attention.precondition_attention_(model)
        tested = copy.deepcopy(model)(x)
    torch.testing.assert_close(tested, model.train()(x).detach())
    assert (tested - plain).abs().max() > 0.01


def test_parameters_keys_and_random_numbers_stay_and_weights_are_conditioned_and_baked():
    model, x = nn.ModuleList([layer()]), tokens()
    before = {name: (id(p), p.clone()) for name, p in model.named_parameters()}
    attention.precondition_attention_(model, nn.MultiheadAttention)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(id(after[name]) == i and torch.equal(after[name], value) for name, (i, value) in before.items())
    preconditioned = model[0](x, x, x)[0]
    assert layers.condition(model, "row", "all") == ["0", "0.out_proj"]
    conditioned = copy.deepcopy(model)[0](x, x, x)[0]
    assert (conditioned - preconditioned).abs().max() > 0.01
    assert torch.equal(layers.bake(model)[0](x, x, x)[0], conditioned)
    assert type(model[0]).__name__ == "PreconditionedAttention"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_normalizes_in_single_precision(dtype: torch.dtype):
    made, x = layer(PreconditionedAttention).float(), tokens().float()
    with torch.autocast("cpu", dtype):
        out = made(x, x, x, need_weights=False)[0]
    out.float().square().sum().backward()
    assert out.dtype == dtype
    assert made.in_proj_weight.grad.isfinite().all()
    expected = layer(PreconditionedAttention)(tokens(), tokens(), tokens())[0]
    assert (out.double() - expected).abs().max() < 0.05


def test_what_cannot_be_preconditioned_is_refused_and_nothing_changes():
    model = nn.ModuleList([layer(), layer(add_zero_attn=True)])
    with pytest.raises(ValueError, match="does not support add_bias_kv and add_zero_attn"):
        attention.precondition_attention_(model)
    assert type(model[0]) is nn.MultiheadAttention
    with pytest.raises(ValueError, match="does not support add_bias_kv"):
        layer(PreconditionedAttention, add_bias_kv=True)
    layers.condition(model, "row", "0")
    with pytest.raises(ValueError, match="0 is a ParametrizedMultiheadAttention; expected a plain MultiheadAttention"):
        attention.precondition_attention_(model, "0")
    x = tokens()
    with pytest.raises(ValueError, match="is_causal without attn_mask"):
        layer(PreconditionedAttention)(x, x, x, is_causal=True)
