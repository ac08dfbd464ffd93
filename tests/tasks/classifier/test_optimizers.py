"""Tests of what follows a classifier's gradients: which weights are regularised, and how."""

import copy
import importlib.util
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from enerf.core.errors import InputError
from enerf.engine import optimizer_state
from enerf.engine.optimizers import set_learning_rate
from enerf.optim import muon
from enerf.optim.table import MATRIX_OPTIMIZERS, matrix_optimizer
from enerf.tasks.classifier import build as classifier_build
from enerf.tasks.classifier import optimizers as classifier_optimizers
from enerf.tasks.classifier.config import OPTIMIZERS, ClassifierTrainOptions
from tests.contents import same
from tests.grids import latin

TREATED: dict[str, dict[str, Any]] = {
    "plain": {"treatment": ""},
    "e": {"treatment": "e"},
    "learned gains": {"treatment": "e", "scale": "learned"},
    "w": {"treatment": "w"},
    "ws": {"treatment": "ws"},
    "bnp": {"treatment": "bnp"},
}
# what follows the name of a layer in the name of a weight that is regularised
ENDINGS = {"w": ".parametrizations.weight.original1", "plain": ".weight", "bnp": ".weight"}
every_treatment = pytest.mark.parametrize("treated", TREATED)


def small() -> nn.Module:
    """One layer of each kind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stem, inner = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3, stride=2)
        layers = {"stem": stem, "norm": nn.BatchNorm2d(4), "relu": nn.ReLU(), "inner": inner, "flat": nn.Flatten()}
        return nn.Sequential(OrderedDict({**layers, "middle": nn.Linear(24, 7), "head": nn.Linear(7, 5)}))


def network(treated: str = "plain") -> nn.Module:
    model = small()
    asked = dict(TREATED[treated])
    classifier_build.condition(model, asked.pop("treatment"), **asked)
    return model


def transformer() -> nn.Module:
    return classifier_build.network("vit_s", classes=5, channels=3, size=8, norm="ln", seed=0, width=0.1, depth=1)


def loss(model: nn.Module, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    of = next(model.parameters()).dtype
    images = torch.randn(6, 3, 8, 8, generator=generator).to(of)
    return functional.cross_entropy(model(images), torch.randint(5, (6,), generator=generator))


def trained(model: nn.Module, optimiser: torch.optim.Optimizer, steps: int = 3) -> dict[str, Tensor]:
    for step in range(steps):
        optimiser.zero_grad()
        loss(model, step).backward()
        optimiser.step()
    return model.state_dict()


def names_of(model: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    ids = {id(p) for p in parameters}
    return [name for name, p in model.named_parameters() if id(p) in ids]


# which


@every_treatment
def test_regularised_is_the_raw_weight_of_every_convolution_and_linear_layer_and_nothing_else(treated: str):
    plain = [name for name, m in small().named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    ending = ENDINGS.get(treated, ".parametrizations.weight.original")
    model = network(treated)
    assert sorted(names_of(model, classifier_optimizers.regularized_weights(model))) == sorted(
        name + ending for name in plain
    )


def test_of_a_transformer_tokens_positions_and_normalisers_are_left_alone():
    for treatment in ("", "e"):
        model = transformer()
        classifier_build.condition(model, treatment)
        left = set(dict(model.named_parameters())) - set(
            names_of(model, classifier_optimizers.regularized_weights(model))
        )
        assert {"token", "positions", "norm.weight", "norm.bias", "head.bias"} <= left
        assert all(name.endswith(("token", "positions", "bias", "norm.weight", "norm1.weight", "norm2.weight")) for name
                   in left)  # fmt: skip
        kinds = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)  # in attention: the packed projection and the last one
        layers = [m for m in model.modules() if isinstance(m, kinds)]
        assert len(classifier_optimizers.regularized_weights(model)) == len(layers)


@pytest.mark.parametrize(("name", "treated"), latin(3, OPTIMIZERS, TREATED))
def test_every_parameter_is_in_one_group_and_weights_come_first(name: str, treated: str):
    model = network(treated)
    groups = classifier_optimizers.make(ClassifierTrainOptions(optimiser=name), model).param_groups
    assert [id(p) for p in groups[0]["params"]] == [id(p) for p in classifier_optimizers.regularized_weights(model)]
    everything = [id(p) for group in groups for p in group["params"]]
    assert len(everything) == len(set(everything))
    assert set(everything) == {id(p) for p in model.parameters()}
    gains = [n for n in names_of(model, groups[1]["params"]) if n.endswith(("gain", "original0"))]
    assert bool(gains) == (treated in ("learned gains", "w"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_strengths_reach_the_weights_alone(name: str):
    own = {"l1": 0.01, "l2": 0.02, "shrinkage": "soft"} if name.startswith("intrinsic") else {"weight_decay": 0.03}
    weights, others = classifier_optimizers.make(ClassifierTrainOptions(optimiser=name, **own), network()).param_groups
    for option, value in own.items():
        assert weights[option] == value
        assert option == "shrinkage" or others[option] == 0


def test_a_network_of_weights_alone_has_one_group():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False))
    assert len(classifier_optimizers.make(ClassifierTrainOptions(), model).param_groups) == 1


# steps


@pytest.mark.parametrize(("name", "treated"), latin(3, OPTIMIZERS, TREATED))
def test_every_optimiser_makes_finite_steps_and_moves_every_weight(name: str, treated: str):
    strengths = {"l1": 1e-4, "l2": 1e-3} if name.startswith("intrinsic") else {"weight_decay": 1e-3}
    momentum = 0.9 if name.endswith(("sgd", "rmsprop")) else 0.0
    model = network(treated)
    before = [p.detach().clone() for p in classifier_optimizers.regularized_weights(model)]
    asked = ClassifierTrainOptions(optimiser=name, lrate=1e-3, momentum=momentum, **strengths)
    trained(model, classifier_optimizers.make(asked, model), 2)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any(
        torch.equal(p, was) for p, was in zip(classifier_optimizers.regularized_weights(model), before, strict=True)
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rates_and_constants_are_those_of_the_options(name: str):
    asked = ClassifierTrainOptions(optimiser=name, lrate=0.07, momentum=0.0, adam_beta2=0.98, adam_eps=1e-5)
    for group in classifier_optimizers.make(asked, network()).param_groups:
        assert group["lr"] == 0.07
        if "adam" in name:
            assert group["betas"] == (0.9, 0.98)
        if "rmsprop" in name:
            assert group["alpha"] == 0.98
        if "adam" in name or "rmsprop" in name:
            assert group["eps"] == 1e-5
    with_momentum = ClassifierTrainOptions(optimiser="sgd", momentum=0.9)
    assert [g["momentum"] for g in classifier_optimizers.make(with_momentum, network()).param_groups] == [0.9, 0.9]


@every_treatment
def test_intrinsic_l2_of_adam_is_decoupled_decay_bit_for_bit(treated: str):
    found = []
    for name, strength in (("intrinsic_adam", "l2"), ("adamw", "weight_decay")):
        model = network(treated)
        asked = ClassifierTrainOptions(optimiser=name, lrate=0.01, **{strength: 0.1})
        found.append(trained(model, classifier_optimizers.make(asked, model)))
    assert same(*map(dict, found))
    plain = network(treated)
    trained(plain, classifier_optimizers.make(ClassifierTrainOptions(optimiser="adam", lrate=0.01), plain))
    assert not same(dict(plain.state_dict()), dict(found[0]))


@every_treatment
def test_weight_decay_of_sgd_is_l2_of_the_weights_in_the_loss(treated: str):
    model = network(treated).double()
    twin = copy.deepcopy(model)
    decayed = classifier_optimizers.make(ClassifierTrainOptions(lrate=0.1, weight_decay=0.05), model)
    plain = classifier_optimizers.make(ClassifierTrainOptions(lrate=0.1), twin)
    for step in range(3):
        for optimiser, of, l2 in ((decayed, model, 0.0), (plain, twin, 0.05)):
            optimiser.zero_grad()
            penalty = torch.stack([p.square().sum() for p in classifier_optimizers.regularized_weights(of)]).sum()
            (loss(of, step) + l2 / 2 * penalty).backward()
            optimiser.step()
    for (name, a), b in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12, msg=name)


# from one run to another


def _saved(optimiser: str, momentum: float = 0.0) -> dict[str, Any]:
    model = small()
    made = classifier_optimizers.make(ClassifierTrainOptions(optimiser=optimiser, momentum=momentum), model)
    trained(model, made)
    return made.state_dict()


@pytest.mark.parametrize("there", OPTIMIZERS)
def test_the_state_of_another_kind_of_optimiser_is_refused_and_that_of_the_same_kind_goes_on(there: str):
    saved = _saved(there)
    for here in OPTIMIZERS:
        model = small()
        made = classifier_optimizers.make(ClassifierTrainOptions(optimiser=here), model)
        # AdamW is an Adam, and an intrinsic optimiser keeps what the plain one keeps
        if there.removeprefix("intrinsic_").rstrip("w") != here.removeprefix("intrinsic_").rstrip("w"):
            with pytest.raises(InputError, match="its state is of another optimizer"):
                optimizer_state.restore(made, saved, Path("a.pt"))
        else:
            optimizer_state.restore(made, copy.deepcopy(saved), Path("a.pt"))
            trained(model, made)


def test_rmsprop_does_not_go_on_with_a_momentum_that_was_not_kept():
    made = classifier_optimizers.make(ClassifierTrainOptions(optimiser="rmsprop", momentum=0.5), small())
    with pytest.raises(InputError, match="another momentum"):
        optimizer_state.restore(made, _saved("rmsprop"), Path("a.pt"))
    optimizer_state.restore(made, _saved("rmsprop", momentum=0.9), Path("a.pt"))


def test_a_decay_of_squares_that_was_changed_counts_when_a_run_goes_on():
    made = classifier_optimizers.make(ClassifierTrainOptions(optimiser="rmsprop", adam_beta2=0.5), small())
    optimizer_state.restore(made, _saved("rmsprop"), Path("a.pt"))
    assert [group["alpha"] for group in made.param_groups] == [0.5, 0.5]


# hidden weights by an optimizer of matrices


@every_treatment
def test_hidden_weights_are_all_but_those_of_the_first_layer_and_the_head(treated: str):
    model = network(treated)
    ending = ENDINGS.get(treated, ".parametrizations.weight.original")
    found = names_of(model, classifier_optimizers.hidden_weights(model))
    assert found == [name + ending for name in ("inner", "middle")]
    names = ("self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight")
    for channels, patch in ((3, 4), (1, 1)):  # the embedding of single values has a kernel of one axis
        vit = classifier_build.network(
            "vit_s", classes=5, channels=channels, size=8, norm="ln", seed=0, width=0.1, depth=1, patch=patch
        )
        hidden = names_of(vit, classifier_optimizers.hidden_weights(vit))
        assert hidden == [f"blocks.0.{name}" for name in names]


@every_treatment
def test_muon_updates_hidden_weights_and_adamw_all_others(treated: str):
    model = network(treated)
    asked = ClassifierTrainOptions(optimiser="muon", lrate=0.02, lrate_matrices=0.1, weight_decay=0.03, adam_eps=1e-5)
    made = classifier_optimizers.make(asked, model)
    adamw, of_matrices = made.parts
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.param_groups[0]["eps"] == 1e-5
    hidden = classifier_optimizers.hidden_weights(model)
    assert [p for group in of_matrices.param_groups for p in group["params"]] == hidden
    everything = [id(p) for group in made.param_groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in model.parameters())
    assert [group["weight_decay"] for group in made.param_groups] == [0.03, 0.0, 0.03]
    assert [group["lr"] for group in made.param_groups] == [0.02, 0.02, 0.1]
    set_learning_rate(made, 0.01)
    assert [group["lr"] for group in made.param_groups] == pytest.approx([0.01, 0.01, 0.05])
    before = copy.deepcopy(model.state_dict())
    after = trained(model, made)
    assert all(p.isfinite().all() for p in model.parameters())
    assert not any(torch.equal(after[name], before[name]) for name in names_of(model, hidden))


def test_queries_keys_and_values_are_orthogonalized_each_by_itself(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(muon, "products_on", lambda device: "fp32")  # the gradient has not full rank
    model = transformer()
    packed = model.get_parameter("blocks.0.self_attn.in_proj_weight")
    made = classifier_optimizers.make(ClassifierTrainOptions(optimiser="muon", lrate=0.01), model)
    loss(model).backward()
    apart = [nn.Parameter(each.clone()) for each in packed.detach().chunk(3)]
    for each, grad in zip(apart, packed.grad.chunk(3), strict=True):
        each.grad = grad.clone()
    before = packed.detach().clone()
    made.step()
    matrix_optimizer("muon", apart, 0.01).step()
    found, expected = packed.detach() - before, torch.cat([each.detach() for each in apart]) - before
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * expected.abs().max().item())
    assert all(0.6 < torch.linalg.matrix_norm(each, 2) / (0.01 * 0.2 * 36**0.5) < 1.3 for each in found.chunk(3))


def test_a_state_of_muon_is_that_of_muon_alone():
    model = small()
    made = classifier_optimizers.make(ClassifierTrainOptions(optimiser="muon", lrate=0.01), model)
    trained(model, made)
    saved = copy.deepcopy(made.state_dict())
    again = classifier_optimizers.make(
        ClassifierTrainOptions(optimiser="muon", lrate=0.01), copied := copy.deepcopy(model)
    )
    optimizer_state.restore(again, saved, Path("a.pt"))
    assert same(dict(trained(model, made)), dict(trained(copied, again)))
    others = [(name, small) for name in OPTIMIZERS]
    if importlib.util.find_spec("pytorch_optimizer"):
        others += [("soap", transformer)]
    for there, build in others:
        other = classifier_optimizers.make(ClassifierTrainOptions(optimiser=there), build())
        with pytest.raises(InputError, match=r"does not fit this model|its state is of another optimizer"):
            optimizer_state.restore(other, saved, Path("a.pt"))


def test_a_processor_with_other_products_is_told_and_goes_on_with_its_own(caplog: pytest.LogCaptureFixture):
    model = small()
    made = classifier_optimizers.make(ClassifierTrainOptions(optimiser="muon", lrate=0.01), model)
    trained(model, made)
    saved, own = copy.deepcopy(made.state_dict()), made.param_groups[-1]["products"]
    other = "fp32" if own == "bf16" else "bf16"
    saved["param_groups"][-1]["products"] = other
    optimizer_state.restore(made, saved, Path("a.pt"))
    assert made.param_groups[-1]["products"] == own
    assert f"Muon multiplies in {own}, before it was {other}" in caplog.text


def test_what_an_optimizer_of_matrices_cannot_update_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pytorch_optimizer", None)
        with pytest.raises(InputError, match=r"option --optimiser soap: SOAP needs the package pytorch-optimizer"):
            classifier_optimizers.make(ClassifierTrainOptions(optimiser="soap"), transformer())
    with pytest.raises(InputError, match=r"option --optimiser soap: a parameter has shape \(6, 4, 3, 3\)"):
        classifier_optimizers.make(ClassifierTrainOptions(optimiser="soap"), small())
    pytest.importorskip("pytorch_optimizer", reason="the extra soap is not installed")
    vit = transformer()
    after = trained(vit, classifier_optimizers.make(ClassifierTrainOptions(optimiser="soap"), vit))
    assert all(value.isfinite().all() for value in after.values())


def test_a_network_without_hidden_weights_is_refused():
    model = nn.Sequential(OrderedDict(flat=nn.Flatten(), stem=nn.Linear(192, 6), head=nn.Linear(6, 5)))
    for name in MATRIX_OPTIMIZERS:
        with pytest.raises(InputError, match=f"option --optimiser {name}: found no hidden matrix between"):
            classifier_optimizers.make(ClassifierTrainOptions(optimiser=name), model)
