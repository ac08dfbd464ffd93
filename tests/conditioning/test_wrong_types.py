"""Arguments of another type than a function takes: each public function says in one sentence what it expects."""

import importlib
import inspect
import subprocess
import sys

import enerf.conditioning
import enerf.conditioning.diagnostics

# Function -> a call of it with something that is no module. Names are those of enerf.conditioning and diagnostics.
CALLS = {
    "Objective": "Objective({}, nn.functional.mse_loss, torch.ones(1), torch.ones(1))",
    "bake": "bake({})",
    "baked_state": "baked_state({}, state)",
    "computed_once": "computed_once({}).__enter__()",
    "condition": "condition({}, 'row')",
    "condition_tensor": "condition_tensor({})",
    "conditioned_layers": "conditioned_layers({})",
    "initialize_": "initialize_({}, ['0'], 'he', generator)",
    "initialize_attention_": "initialize_attention_({}, ['0'], 'gaussian_attention', generator)",
    "key_map": "key_map({})",
    "layer_report": "layer_report({})",
    "make_differentiable_": "make_differentiable_({})",
    "matrix_views": "matrix_views({})",
    "parameter_groups": "parameter_groups({})",
    "precondition_attention_": "precondition_attention_({})",
    "record_layer_inputs": "record_layer_inputs({}, ['0'], lambda: None)",
    "select": "select({}, 'all')",
    "spectral_norm": "spectral_norm({}, ['0'])",
    "unbaked_state": "unbaked_state({}, state)",
    "unit_row_": "unit_row_({}, ['0'])",
    "unknown_layers": "unknown_layers({})",
    "upgraded_state": "upgraded_state({}, state)",
    "weight_norm": "weight_norm({}, ['0'])",
}
WRONG = {"[net]": "list", "None": "NoneType", "state": "OrderedDict", "net.parameters()": "generator"}

# Call -> its sentence.
OTHERS = {
    "condition(net, ['row'])": "method is ['row']; expected one of row, column, ",
    "condition(net, None)": "method is None; expected one of row, column, ",
    "select(net, 'all', method=['row'])": "method is ['row']; expected one of row, column, ",
    "condition(net, 'row', gradient=None)": "gradient is None; expected one of through, detached",
    "condition(net, 'row', gradient='detached', every='2')": "every is '2'; expected a whole number from 1",
    "condition(net, 'row', gradient='detached', every=None)": "every is None; expected a whole number from 1",
    "condition(net, 'row', scale=['kept'])": "scale is ['kept']; expected one of fixed, kept, ",
    "condition(net, 'row', p='2')": "p is '2'; expected 1, 2 or inf",
    "condition(net, 'row', p=torch.ones(2))": "p is tensor([1., 1.]); expected 1, 2 or inf",
    "condition(net, 'row', packing=2)": "packing is 2; expected one of matrix, head",
    "condition(net, 'row', zero_rows=['refused'])": "zero_rows is ['refused']; expected one of left_out, ",
    "condition(net, 'spectral_shift', shift='a')": "shift is 'a'; expected a finite number above 0",
    "condition_tensor(net[0], view='head')": "view is 'head'; expected a WeightView",
    "condition_tensor(net[0], 3)": "name is 3; expected the name of a tensor",
    "condition_tensor(net[0], method={})": "method is {}; expected one of row, column, ",
    "condition_tensor(net[0], every='2')": "every is '2'; expected a whole number from 1",
    "condition_tensor(net[0], zero_rows=0)": "zero_rows is 0; expected one of left_out, refused, conditioned",
    "layer_report(net, 3)": "names is 3; expected names of layers, in a list",
    "layer_report(net, [net[0]])": "names holds Linear(",
    "unit_row_(net, None)": "names is None; expected names of layers, in a list",
    "weight_norm(net, [0])": "names holds 0; expected names of layers",
    "initialize_(net, ['0'], None, generator)": "init is None; expected one of default, glorot, he, unit_row",
    "initialize_attention_(net, ['0'], 'shifted_attention', generator, 'a')": "shift is 'a'; expected a number",
    "baked_state(net, [1])": "the state is a list; expected a state dict",
    "unbaked_state(net, None)": "the state is a NoneType; expected a state dict",
    "upgraded_state(net, net)": "the state is a Sequential; expected a state dict",
    "upgraded_optimizer_state(net, state)": "the optimizer is a Sequential; expected a torch.optim.Optimizer",
    "upgraded_optimizer_state(torch.optim.SGD(net.parameters()), [1])": "the state is a list; expected a state dict",
    "register_layer(Other, 3)": "the views of Other are 3; expected a function",
    "register_map(3, abs)": "name is 3; expected an identifier",
    "register_map('other', 3)": "the method other is 3; expected a function",
    "register_map('other', abs, orders=2)": "orders of the map other are 2; expected a tuple of 1, 2 and inf, or some "
    "of them",
    "register_map('other', abs, divisors=3)": "divisors of the method other is 3; expected a function",
    "register_parametrization('other', abs, unsuitable=3)": "unsuitable of the method other is 3; expected a function",
}

# Calls with numbers of another type that are compared all the same, and their sentences.
VALUES = {
    f"condition(net, 'row', gradient='detached', every=float('{value}'))": f"every is {value}; expected a whole number"
    for value in ("nan", "inf")
}

CODE = """
import sys
import torch
from torch import nn
from enerf.conditioning import *
from enerf.conditioning.diagnostics import *

class Other(nn.Module):
    pass

generator = torch.Generator()
net = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
state = net.state_dict()
for call in sys.argv[1:]:
    try:
        eval(call)
    except TypeError as error:
        print(str(error).replace(chr(10), " "))
    except ValueError as error:
        print("ValueError:", error)
    else:
        print("no error")
assert list(net.state_dict()) == list(state)
"""


def sentences(calls: list[str]) -> list[str]:
    """The messages of TypeErrors, in a process of its own, since tests check the types of arguments."""
    done = subprocess.run([sys.executable, "-c", CODE, *calls], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_public_function_of_a_model_says_what_is_no_module():
    expected = {
        call.format(wrong): f"the {'module' if name == 'condition_tensor' else 'model'} is a {kind}; expected a "
        "torch.nn.Module"
        for name, call in CALLS.items()
        for wrong, kind in WRONG.items()
    }
    assert dict(zip(expected, sentences([*expected]), strict=True)) == expected


def test_the_table_has_every_public_function_of_a_model():
    found = set()
    for package in (enerf.conditioning, enerf.conditioning.diagnostics):
        for name in package.__all__:
            value = getattr(importlib.import_module(package.__name__), name)
            if inspect.isfunction(value) and {"model", "module"} & set(inspect.signature(value).parameters):
                found.add(name)
    assert found | {"Objective"} == set(CALLS)


def test_every_other_mistake_of_type_is_one_sentence():
    expected = {**OTHERS, **{call: f"ValueError: {sentence}" for call, sentence in VALUES.items()}}
    found = dict(zip(expected, sentences([*expected]), strict=True))
    assert {call: found[call][: len(sentence)] for call, sentence in expected.items()} == expected
