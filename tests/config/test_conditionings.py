"""Names of ``--conditioning``: what they stand for, and that a new one is one module and one line."""

import itertools
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from enerf import conditioning
from enerf.conditioning import maps, parametrization, selection, table
from enerf.config import conditionings, parser
from enerf.config.methods import SHAPES, split_ratio
from enerf.config.options import ConditioningOptions, FitOptions, RunConfig
from enerf.core.errors import InputError
from enerf.engine import optimizers
from enerf.fields import conditioning as fields_conditioning
from enerf.fields.normalization import NORMALIZATIONS
from enerf.fields.shape import SkipMLP
from enerf.optim import table as optim_table
from enerf.tasks.nerf.config import NerfConfig
from enerf.tasks.shape.config import ShapeConfig


def refused(*words: str) -> str:
    with pytest.raises(InputError) as caught:
        parser.parse(NerfConfig, words)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_name_is_one_of_the_libraries():
    for name, kind in conditionings.names().items():
        if kind == "weights":
            assert name in conditioning.METHODS
        elif kind == "normalization":
            assert name in NORMALIZATIONS
        else:
            assert name in optim_table.MATRIX_OPTIMIZERS


def test_two_names_are_joined_in_any_order_if_they_are_of_different_kinds():
    known = conditionings.names()
    for a, b in itertools.permutations(known, 2):
        if known[a] == known[b]:
            with pytest.raises(InputError, match="at most one of"):
                conditionings.parse(f"{a}+{b}")
        else:
            found = conditionings.parse(f"{a}+{b}")
            assert found == conditionings.parse(f"{b}+{a}")
            assert (getattr(found, known[a]), getattr(found, known[b])) == (a, b)


@pytest.mark.parametrize("text", ["rows", "", "row+", "row+row", "row,muon", "none+row", "ROW"])
def test_other_texts_are_one_sentence(text):
    assert "option --conditioning: found" in refused("--conditioning", text)


def test_a_method_of_comparisons_is_refused_with_the_options_that_it_stands_for():
    for text, sentence in (
        (
            "ws",
            "found 'ws', a method of comparisons, expected what it stands for: --conditioning weight_standardisation",
        ),
        ("equilibrate", "a method of comparisons, expected what it stands for: --conditioning row"),
        ("muon+ws", "found 'ws' in 'muon+ws', a method of comparisons, expected what it stands for: --conditioning"),
        ("muon*5", "expected what it stands for: --conditioning muon, and --lrate_matrices of 5 times --lrate"),
        ("he", "expected what it stands for: --init he"),
        ("rows", "found 'rows', expected none, or names joined by +, from row, "),
        ("weight_standardization", "; the nearest to 'weight_standardization' is weight_standardisation"),
        ("row+mouon", "; the nearest to 'mouon' is muon"),
        ("finer", "found 'finer', expected --activation finer, of shapes: no method of weights"),
    ):
        assert sentence in refused("--conditioning", text)
    for method in {*SHAPES.changes} - {*conditionings.names()}:
        message = refused("--conditioning", method)
        _, found, words = message.partition("expected what it stands for: ")
        assert found, method
        named = SHAPES.changes[method].get("conditioning")
        assert named is None or all(word in words for word in named.split("+")), method
        assert words.endswith(", for images alone") == (method == "iga"), method


@pytest.mark.parametrize("kind", [NerfConfig, ShapeConfig])
def test_the_option_of_classifiers_leads_to_that_of_fields(kind: type[RunConfig]):
    with pytest.raises(InputError, match="unknown option 'optimiser'; it is Adam, and with --conditioning muon or so"):
        parser.parse(kind, ["--optimiser", "muon"])


def test_a_method_is_named_once():
    sentence = "options --conditioning muon and --equilibrate are mutually exclusive"
    assert sentence in refused("--conditioning", "muon", "--equilibrate")
    assert "--conditioning row and --weight_norm" in refused("--conditioning", "row", "--weight_norm")


def test_old_names_and_new_ones_are_the_same_methods():
    for name in conditionings.MAPS:
        assert ConditioningOptions(equilibrate=name).methods == ConditioningOptions(conditioning=name).methods
    assert ConditioningOptions(weight_norm=True).methods == ConditioningOptions(conditioning="weight_norm").methods


def test_options_without_effect_are_refused():
    for words, sentence in (
        ("fourier --equilibrate_scale kept", "--equilibrate_scale: found kept with the method fourier, expected fixed"),
        ("spectral_norm --equilibrate_p 1", "--equilibrate_p: found 1.0 with the method spectral_norm, expected 2.0"),
        (
            "spectral_norm --equilibrate_scale kept",
            "found kept with the method spectral_norm, expected fixed or constant",
        ),
        ("orthogonal --equilibrate_p inf", "--equilibrate_p: found inf with the method orthogonal, expected 2"),
        (
            "row --lrate_matrices 0.1",
            "--lrate_matrices: found 0.1 with --conditioning row, expected muon or soap in it",
        ),
        ("none --equilibrate_layers trunk", "found trunk without a method of these layers, expected --equilibrate"),
        ("row+row", "found 'row+row', expected each method once: row is twice"),
        ("layer_norm --equilibrate_layers trunk", "--equilibrate_layers: found trunk with layer_norm, expected hidden"),
    ):
        assert sentence in refused("--conditioning", *words.split())
    made, _ = parser.parse(NerfConfig, ["--conditioning", "row+muon", "--lrate_matrices", "0.1"])
    assert made.conditioning.lrate_matrices == 0.1
    for words in ("--init he", "--equilibrate", "--weight_norm", "--conditioning muon"):
        parser.parse(NerfConfig, [*words.split(), "--equilibrate_layers", "trunk"])
    for words in ("--lrate_matrices 0.1", "--equilibrate_layers trunk"):  # for some runs of a comparison
        parser.parse(NerfConfig, words.split(), is_base=True)


def test_names_of_runs_tell_the_method():
    def name(**options: object) -> str:
        return fields_conditioning.method_name(ConditioningOptions(**options))

    assert name(conditioning="row") == name(equilibrate="row") == "e-nerf"
    assert name(conditioning="row+muon", equilibrate_scale="learned") == "e-nerf-learned-muon"
    assert name(conditioning="layer_norm") == "nerf-layer_norm"
    assert name(weight_norm=True) == name(conditioning="weight_norm") == "nerf-weight_norm"
    assert name(conditioning="row+muon", lrate_matrices=0.01) == "e-nerf-muon-matrices0.01"


def test_names_of_runs_tell_the_ratio_of_learning_rates_as_comparisons_do():
    for ratio in (0.25, 1.0, 5.0):
        options = ConditioningOptions(conditioning="muon", lrate_matrices=ratio * 2e-3, init="he")
        optimizer = "muon" if ratio == 1 else f"muon*{ratio:g}"
        assert fields_conditioning.method_name(options, "mlp", lrate=2e-3) == f"mlp-{optimizer}-he"
        assert split_ratio(optimizer) == ("muon", None if ratio == 1 else ratio)


def step_of(field: nn.ModuleDict, options: NerfConfig) -> None:
    """Condition a field by its options, as a run does, and take one step."""
    fields_conditioning.apply(field, options.conditioning, {"head"}, 0)
    matrices = fields_conditioning.matrices_of(field, options.conditioning, {"head"})
    optimizer = optimizers.of_field(FitOptions(lrate=1e-3), options.conditioning, field, matrices)
    field["head"](field["trunk"](torch.ones(2, 6))).square().mean().backward()
    optimizer.step()


def test_a_map_is_one_module_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "my_map.py").write_text(
        textwrap.dedent(
            '''
            """Weights whose outputs have mean 0."""
            from enerf.conditioning.registry import register_map


            def centered(weight, gradient="through", p=2.0):
                return weight - weight.mean(-1, keepdim=True)


            register_map("centered", centered, orders=(2,))
            '''
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(table.MODULES, "centered", "my_map")
    monkeypatch.setattr(maps, "ADDED", dict(maps.ADDED))
    monkeypatch.setattr(parametrization, "MAPS", dict(parametrization.MAPS))
    assert "my_map" not in sys.modules
    net = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    with monkeypatch.context() as patched:
        patched.setattr("enerf.conditioning.layers.MAPS", parametrization.MAPS)
        conditioning.condition(net, "centered", ["0"], scale="kept")
    assert net[0].weight.mean(1).abs().max() < 1e-6
    assert "option --equilibrate_p: found 1" in refused("--conditioning", "centered", "--equilibrate_p", "1")
    options, _ = parser.parse(NerfConfig, ["--conditioning", "centered+muon", "--equilibrate_scale", "kept"])
    assert options.conditioning.methods == conditionings.Conditioning("centered", "none", "muon")
    field = nn.ModuleDict({"trunk": SkipMLP(6, 8, 3, 0), "head": nn.Linear(8, 3)})
    with monkeypatch.context() as patched:
        patched.setattr("enerf.conditioning.layers.MAPS", parametrization.MAPS)
        step_of(field, options)
    assert conditioning.conditioned_layers(field) == dict.fromkeys(("trunk.0", "trunk.1", "trunk.2"), "centered")
    assert field["trunk"][1].weight.mean(1).abs().max() < 1e-6


def test_a_parametrization_is_one_module_and_one_line_and_takes_no_options_of_maps(tmp_path, monkeypatch):
    (tmp_path / "my_parametrization.py").write_text(
        textwrap.dedent(
            '''
            """Weights that are tripled."""
            from torch.nn.utils import parametrize

            from enerf.conditioning.interface import Parametrization
            from enerf.conditioning.registry import register_parametrization


            class Tripled(Parametrization):
                method = "tripled"

                def forward(self, raw):
                    return 3 * raw


            def apply(module, view):
                parametrize.register_parametrization(module, view.name, Tripled())


            register_parametrization("tripled", apply)
            '''
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(table.MODULES, "tripled", "my_parametrization")
    monkeypatch.setattr(maps, "ADDED", dict(maps.ADDED))
    monkeypatch.setattr(selection, "APPLIED", dict(selection.APPLIED))
    for words in ("--equilibrate_scale learned", "--equilibrate_gradient detached", "--equilibrate_p 1"):
        message = refused("--conditioning", "tripled", *words.split())
        assert message.startswith(f"option {words.split()[0]}: found ")
        assert "with the method tripled, expected " in message
    options, _ = parser.parse(NerfConfig, ["--conditioning", "tripled+muon"])
    field = nn.ModuleDict({"trunk": SkipMLP(6, 8, 3, 0), "head": nn.Linear(8, 3)})
    step_of(field, options)
    assert conditioning.conditioned_layers(field) == dict.fromkeys(("trunk.0", "trunk.1", "trunk.2"), "tripled")


def test_options_of_maps_are_those_of_the_methods_that_are_maps():
    for name in table.MODULES:
        table.load(name)
        assert bool(conditionings.values_of(name)) == (name in parametrization.MAPS) == (name not in selection.APPLIED)
    for name in (*conditionings.MAPS, *conditionings.EUCLIDEAN):
        assert name in parametrization.MAPS
        orders = maps.ADDED[name].orders if name in maps.ADDED else None
        assert orders is None or conditionings.values_of(name)["equilibrate_p"] == orders


def test_known_methods_are_checked_without_torch():
    code = "import sys; from enerf.config.options import ConditioningOptions as Options; found = %r\n"
    code += "for name in found: Options(conditioning=name).check()\nprint('torch' in sys.modules)"
    words = [sys.executable, "-c", code % [*conditionings.names()]]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "False\n"


def test_an_optimizer_is_one_module_and_one_line(tmp_path, monkeypatch):
    (tmp_path / "my_optimizer.py").write_text(
        "import torch\n\ndef signed(matrices, lr):\n    return torch.optim.SGD(matrices, lr=lr)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(optim_table.MATRIX_OPTIMIZERS, "signed", "my_optimizer:signed")
    options, _ = parser.parse(NerfConfig, ["--conditioning", "signed+row", "--lrate_matrices", "0.5"])
    assert options.conditioning.methods.optimizer == "signed"
    field = nn.ModuleDict({"trunk": SkipMLP(6, 8, 3, 0), "head": nn.Linear(8, 3)})
    before = {name: value.clone() for name, value in field.state_dict().items()}
    step_of(field, options)
    raw = field["trunk"][1].parametrizations.weight.original
    torch.testing.assert_close(raw.detach(), before["trunk.1.weight"] - 0.5 * raw.grad)  # SGD's step, at the rate given
    first = field["trunk"][0].parametrizations.weight.original
    torch.testing.assert_close((first.detach() - before["trunk.0.weight"]).abs().max().item(), 1e-3)  # Adam's


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"conditioning": "muon", "equilibrate_layers": "nope"},
            "option --equilibrate_layers: no layer is named 'nope'",
        ),
        ({"equilibrate": "jacobi", "equilibrate_layers": "trunk.1"}, "option --equilibrate: trunk.1 cannot"),
        ({"init": "unit_row", "equilibrate_layers": "one"}, "option --equilibrate_layers: one cannot"),
    ],
)
def test_errors_of_layers_name_the_option(options: dict[str, str], sentence: str):
    net = nn.ModuleDict({"trunk": SkipMLP(8, 8, 3, 0), "one": nn.Linear(8, 1), "head": nn.Linear(8, 3)})
    nn.init.zeros_(net["trunk"][1].weight)
    with pytest.raises(InputError, match=f"^{sentence}"):
        fields_conditioning.apply(net, ConditioningOptions(**options), {"head"}, 0)


def test_matrices_are_those_between_the_first_layer_and_the_heads():
    net = nn.ModuleDict({"trunk": SkipMLP(6, 8, 4, 2), "head": nn.Linear(8, 3), "view": nn.Linear(8, 4)})
    for name in ("muon", "row+muon", "weight_norm+muon", "fourier+muon", "orthogonal+muon", "spectral_norm+soap"):
        options = ConditioningOptions(conditioning=name)
        fields_conditioning.apply(net_of := nn.ModuleDict(net), options, {"head"}, 0)
        found = fields_conditioning.matrices_of(net_of, options, {"head"})
        assert {key.split(".parametrizations")[0].removesuffix(".weight") for key in found} == {
            *("trunk.1", "trunk.2", "trunk.3", "view")
        }
        assert all(dict(net_of.named_parameters())[key].dim() == 2 for key in found)
        net = nn.ModuleDict({"trunk": SkipMLP(6, 8, 4, 2), "head": nn.Linear(8, 3), "view": nn.Linear(8, 4)})


def test_the_page_names_every_method_of_comparisons():
    page = (Path(__file__).resolve().parents[2] / "docs/conditioning.md").read_text(encoding="utf-8")
    section = page.partition("### Methods by name")[2].partition("## Options of classifiers")[0]
    assert not {name for name in SHAPES.changes if f"`{name}`" not in section}
    assert not {name for name in conditionings.names() if f"`{name}`" not in section}
