"""Output heads, layers that are conditioned already, and mistakes in what is named."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from enerf.conditioning import (
    SCALES,
    condition,
    conditioned_layers,
    initialize_attention_,
    layer_report,
    select,
    selection,
    table,
)
from enerf.conditioning.selection import present


class Net(nn.Module):
    """A body, and a head of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 5))


def nested() -> nn.Sequential:
    return nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 5))


@pytest.mark.parametrize("heads", ["head.1", ["head.1"], {"head.1"}, ("head.1",), " head.1 ,"])
def test_a_head_is_named_in_a_list_or_by_itself(heads: object):
    assert condition(Net(), "row", heads=heads) == ["body", "head.0"]


def test_a_module_of_output_layers_is_a_head():
    assert select(Net(), "hidden", heads="head").names == ["body"]
    assert select(Net(), nn.Linear, heads="head").names == ["body"]
    assert select(Net(), "*", heads="head").names == ["body"]
    assert select(Net(), "all", heads="head").names == ["body", "head.0", "head.1"]


def test_layers_that_share_their_weight_with_a_head_are_left_out():
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    reason = {"0": "it shares its weight with the head 2"}
    assert select(net, "hidden", heads="2") == (["1"], reason)
    done = condition(net, "row", heads="2")
    assert (done, done.left_out) == (["1"], reason)
    done = condition(net, "column", ["2"], heads="2")  # the head by its name, and what is tied to it
    assert (done, done.left_out) == (["0", "2"], {})
    assert net[0].weight.norm(dim=1).allclose(torch.ones(5))


def test_a_full_name_of_a_head_is_that_layer_alone():
    assert condition(nested(), "row", heads=["2"]) == ["0.0", "0.2"]
    assert condition(nested(), "row", heads=["0.2", "2"]) == ["0.0"]


def test_a_head_that_the_model_lacks_is_an_error_and_present_tells_before():
    net = Net()
    with pytest.raises(ValueError, match=r"^heads: no layer is named 'haed'; the nearest known names are head"):
        condition(net, "row", heads=["haed"])
    assert conditioned_layers(net) == {}
    assert present(net, ("haed", "head", "1")) == ["head", "1"]


MISTAKES = """
import torch
from torch import nn
from enerf.conditioning import condition
from enerf.optim import matrix_optimizer, sparsity
net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 5))
for how in (
    lambda: condition(torch.ones(2), "row"),
    lambda: condition(net, "row", layers=3),
    lambda: condition(net, "row", layers=[3]),
    lambda: condition(net, "row", heads=4),
    lambda: condition(net, "row", heads=[3]),
    lambda: sparsity(net[0]),
    lambda: matrix_optimizer("muon", net[0], 1e-3),
):
    try:
        how()
    except TypeError as error:
        print(error)
"""


def test_what_is_of_another_type_is_one_sentence():
    """In a process of its own, since tests check the types of arguments."""
    done = subprocess.run([sys.executable, "-c", MISTAKES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "the model is a Tensor; expected a torch.nn.Module",
        "layers is 3; expected names of layers, in a list or separated by commas",
        "layers holds 3; expected names of layers, patterns, groups or layer types",
        "heads is 4; expected names of layers, in a list or separated by commas",
        "heads holds 3; expected names of output layers",
        "the source is a Linear; expected an optimizer, or parameters in a list",
        "matrices are a Linear; expected parameters with two axes, in a list",
    ]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (lambda: condition(Net(), "muon"), "'muon', which is an optimizer: see enerf.optim.matrix_optimizer"),
        (lambda: condition(Net(), "weight_norm", packing="head"), "weight_norm treats a weight as a whole"),
        (lambda: condition(nn.LSTM(4, 8), "row"), "the model itself: LSTM has weight_ih_l0 .* see condition_tensor"),
    ],
)
def test_what_belongs_elsewhere_says_where(how, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        how()


def test_groups_leave_out_what_is_conditioned_or_parametrized_already_and_names_are_an_error():
    net = Net()
    nn.utils.parametrizations.orthogonal(net.head[1])
    assert condition(net, "row", ["body"]) == ["body"]
    done = condition(net, "column")
    assert done == ["head.0"]
    assert done.left_out == {
        "body": "it is conditioned already",
        "head.1": "it is parametrized already, by _Orthogonal",
    }
    assert conditioned_layers(net) == {"body": "row", "head.0": "column"}
    for name in ("body", "head.1"):
        with pytest.raises(ValueError, match=f"^{name} is .* already.*; a layer is conditioned once"):
            condition(net, "row", [name])
    with pytest.raises(ValueError, match=r"no layer belongs to 'hidden'.*it is conditioned already"):
        condition(net, "row")
    assert select(net, "hidden").names == ["body", "head.0", "head.1"]  # of conditioned models too


def test_refusing_rows_of_zeros_is_not_refusing_what_is_conditioned_already():
    net = Net()
    condition(net, "row", ["body"])
    assert condition(net, "column", zero_rows="refused") == ["head.0", "head.1"]


def test_present_takes_a_single_name_too():
    assert present(Net(), "head") == ["head"]
    assert present(Net(), "body") == ["body"]


def test_float8_weights_are_left_out_with_a_reason():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[0].weight = nn.Parameter(net[0].weight.detach().to(torch.float8_e4m3fn), requires_grad=False)
    done = condition(net, "row")
    assert done == ["1"]
    assert "holds torch.float8_e4m3fn" in done.left_out["0"]


def test_a_single_name_is_a_list_of_one():
    net = nn.Sequential(nn.MultiheadAttention(8, 2))
    initialize_attention_(net, "0", "conditioned_attention", torch.Generator().manual_seed(0))
    values = net[0].in_proj_weight[16:]
    assert torch.equal(values[:4], values[4:])  # the values of both heads are the same channels
    assert list(layer_report(net, "0")) == ["0"]


def documented_options() -> list[tuple[str, dict[str, str]]]:
    """Method -> option -> what the table in ``docs/api.md`` says that it takes."""
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    head, *rows = text[text.index("| method | `gradient` |") :].split("\n\n")[0].splitlines()
    options = [cell.strip(" `") for cell in head.strip("|").split("|")[1:]]
    table = []
    for row in rows[1:]:
        methods, *cells = [cell.strip() for cell in row.strip("|").split("|")]
        names = re.findall(r"`(\w+)`", methods.split("(")[0].replace("one of `register_map`", ""))
        table += [(name, dict(zip(options, cells, strict=True))) for name in names]
    return table


@pytest.mark.parametrize(("method", "documented"), documented_options())
def test_the_documented_options_of_a_method_are_those_that_it_takes(method: str, documented: dict[str, str]):
    values = {
        "gradient": {"both": ["detached"], "through": []},
        "every": {"any": [3], "1": []},
        "scale": {"all": list(SCALES)},
        "p": {"all": [1, 2, math.inf], "2": [2]},
        "packing": {"both": ["matrix", "head"], "`matrix`": ["matrix"]},
    }
    every = {"gradient": ["detached"], "every": [3], "scale": list(SCALES), "p": [1, math.inf], "packing": ["head"]}
    for option, cell in documented.items():
        taken = values[option].get(cell.strip("`") if option == "gradient" else cell, re.findall(r"`(\w+)`", cell))
        for value in every[option]:
            torch.manual_seed(0)
            attention = option == "packing" or method == "spectral_shift"
            model = nn.ModuleList([nn.MultiheadAttention(8, 2) if attention else nn.Linear(8, 8)])
            how = {option: value, **({"gradient": "detached"} if option == "every" else {})}
            if value in taken:
                condition(model, method, "all", **how)
            else:
                with pytest.raises(ValueError, match=r"\w"):
                    condition(model, method, "all", **how)


def test_the_table_of_options_has_all_methods():
    assert {name for name, _ in documented_options()} == {*selection.METHODS, *table.MODULES}
