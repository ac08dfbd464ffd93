"""Methods that comparisons of classifiers train: normalizations, their controls, and optimizers. Imports no torch."""

from typing import Any

from enerf.config.methods import Methods
from enerf.tasks.classifier.config import ATTENTION_INITS, NORMALIZATIONS, SHIFT

_COMMON: dict[str, Any] = {
    **{"normalisation": "", "init": "default", "equilibrate": "row", "equilibrate_gradient": "through"},
    **{"equilibrate_scale": "fixed", "equilibrate_p": 2.0, "attention_shift": SHIFT},
}
ENDS = "first_conv_and_last_linear"
# All options of the optimizer, for the variants that differ in it; penalties are only those that the name says.
_ADAM: dict[str, Any] = {
    **{"optimiser": "adam", "lrate": 1e-3, "momentum": 0.0, "weight_decay": 0.0, "l1": 0.0, "l2": 0.0},
    **{"shrinkage": "sign", "lrate_matrices": 0.0},
}
_INTRINSIC = {**_ADAM, "optimiser": "intrinsic_adam"}
_MUON: dict[str, Any] = {"optimiser": "muon", "momentum": 0.0, "l1": 0.0, "l2": 0.0, "shrinkage": "sign"}
_CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"normalisation": name} for name in NORMALIZATIONS},
    # controls: initialization of the layers that +e conditions, without a map
    **{f"{norm}_{init}": {"normalisation": norm, "init": init} for norm in ("bn", "ln") for init in ("he", "unit_row")},
    # scale of the default initialization: fixed at every step, or a learned gain that starts there
    **{f"{norm}+e_kept": {"normalisation": f"{norm}+e", "equilibrate_scale": "kept"} for norm in ("bn", "ln")},
    **{f"{norm}+e_gain": {"normalisation": f"{norm}+e", "equilibrate_scale": "learned"} for norm in ("bn", "ln")},
    # attention: initializations and their controls; +sc at the scale of the raw weights, and with a small λ
    **{f"ln_{init}": {"normalisation": "ln", "init": init} for init in ATTENTION_INITS},
    "ln+sc_kept": {"normalisation": "ln+sc", "equilibrate_scale": "kept"},
    "ln+sc_1": {"normalisation": "ln+sc", "attention_shift": 1.0},
    # only the first convolution and the last linear layer
    **{f"bn+{how}_ends": {"normalisation": f"bn+{how}", "layers": ENDS} for how in ("w", "ws", "e")},
    # regularization of the intrinsic parameter, and in the loss
    "adam": _ADAM,
    "adam_l2": {**_ADAM, "weight_decay": 1e-3},
    "adamw": {**_ADAM, "optimiser": "adamw", "weight_decay": 0.1},
    "adam_l1": {**_ADAM, "l1": 1e-5},
    "intrinsic_l2": {**_INTRINSIC, "l2": 0.1},
    "intrinsic_l1": {**_INTRINSIC, "l1": 1e-3},
    "intrinsic_l1_soft": {**_INTRINSIC, "l1": 1e-3, "shrinkage": "soft"},
}

# Muon for the hidden weights; rates and weight decay are the configuration's
_WITH_MUON = [norm + how for norm in ("bn", "ln") for how in ("", "_unit_row", "+w", "+ws", "+e", "+e_gain")]
_CHANGES |= {f"{name}_muon": {**_CHANGES[name], **_MUON} for name in _WITH_MUON}

CLASSIFIERS = Methods(_CHANGES, _COMMON, "bn,bn+w,bn+ws,bn+e")
