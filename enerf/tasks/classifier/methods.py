"""Methods that comparisons of classifiers train: normalizations, their controls, and optimizers. Imports no torch."""

from typing import Any

from enerf.config.methods import Methods
from enerf.tasks.classifier.config import NORMALISATIONS

_COMMON: dict[str, Any] = {
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
_CHANGES: dict[str, dict[str, Any]] = {
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

CLASSIFIERS = Methods(_CHANGES, _COMMON, "bn,bn+w,bn+ws,bn+e")
