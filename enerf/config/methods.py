"""The methods that are compared: name -> the options that it changes. Arms share every other byte.

The scale-matched controls stand beside the maps, for much of a gain may be the start's scale. All arms start from plain
weights, whatever the configuration says of starts and maps.
"""

from typing import Any

from enerf.tasks.classifier.config import NORMALISATIONS

Methods = dict[str, dict[str, Any]]

OF_FIELDS: dict[str, Any] = {
    **{"init": "default", "weight_norm": False, "equilibrate": "none", "equilibrate_gradient": "through"},
    **{"equilibrate_scale": "fixed", "equilibrate_p": 2.0},
}
FIELDS: Methods = {
    "plain": {},
    "he": {"init": "he"},
    "glorot": {"init": "glorot"},
    "unit_row": {"init": "unit_row"},
    "weight_norm": {"weight_norm": True},
    "equilibrate": {"equilibrate": "row"},
    "detached": {"equilibrate": "row", "equilibrate_gradient": "detached"},
    "column": {"equilibrate": "column"},
    "row_column": {"equilibrate": "row_column"},
    "jacobi": {"equilibrate": "jacobi"},
    "ruiz": {"equilibrate": "ruiz"},
    "kept": {"equilibrate": "row", "equilibrate_scale": "kept", "init": "he"},
    "constant": {"equilibrate": "row", "equilibrate_scale": "constant", "init": "he"},
    "gain": {"equilibrate": "row", "equilibrate_scale": "learned", "init": "he"},
    # at the scale of the network's own start: sine layers have one that others do not
    "own_kept": {"equilibrate": "row", "equilibrate_scale": "kept"},
    "own_gain": {"equilibrate": "row", "equilibrate_scale": "learned"},
}

OF_CLASSIFIERS: dict[str, Any] = {
    **{"normalisation": "", "init": "default", "equilibrate": "row", "equilibrate_gradient": "through"},
    **{"equilibrate_scale": "fixed", "equilibrate_p": 2.0},
}
ENDS = "first_conv_and_last_linear"
# What an arm that is about its optimiser says of all that belongs to one; strengths are those of the name alone.
_ADAM: dict[str, Any] = {
    **{"optimiser": "adam", "lrate": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "l1": 0.0, "l2": 0.0},
    "shrinkage": "sign",
}
_INTRINSIC = {**_ADAM, "optimiser": "intrinsic_adam"}
CLASSIFIERS: Methods = {
    **{name: {"normalisation": name} for name in NORMALISATIONS},
    # controls: the start of the layers that +e maps, without a map
    **{f"{norm}_{init}": {"normalisation": norm, "init": init} for norm in ("bn", "ln") for init in ("he", "unit_row")},
    # at the size of the network's own start: kept at every step, or a learned gain from there
    **{f"{norm}+e_kept": {"normalisation": f"{norm}+e", "equilibrate_scale": "kept"} for norm in ("bn", "ln")},
    **{f"{norm}+e_gain": {"normalisation": f"{norm}+e", "equilibrate_scale": "learned"} for norm in ("bn", "ln")},
    # the first convolution and the last linear layer alone
    **{f"bn+{how}_ends": {"normalisation": f"bn+{how}", "layers": ENDS} for how in ("w", "ws", "e")},
    # regularisation in the parameter that an optimiser really descends in, beside that in the loss
    "adam": _ADAM,
    "adam_l2": {**_ADAM, "weight_decay": 1e-3},
    "adamw": {**_ADAM, "optimiser": "adamw", "weight_decay": 0.1},
    "adam_l1": {**_ADAM, "l1": 1e-5},
    "intrinsic_l2": {**_INTRINSIC, "l2": 0.1},
    "intrinsic_l1": {**_INTRINSIC, "l1": 1e-3},
    "intrinsic_l1_soft": {**_INTRINSIC, "l1": 1e-3, "shrinkage": "soft"},
}
