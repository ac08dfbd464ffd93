"""Checkpoints with wrong content, cut off or with flipped bits: as the start of a run, and when it goes on."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.corpus.damage import Evil, cut, flipped, zeroed, zipped
from tests.corpus.inputs import NERF, base, copied, copied_run, nerf, resumed, special_file
from tests.corpus.registry import Command, split, table

Make = Callable[[], bytes]
NEWEST = "checkpoints/000004.pt"


def _bytes() -> bytes:
    return base("logs", "nerf", NEWEST).read_bytes()


def _edited(edit: Callable[[dict[str, Any]], Any]) -> Make:
    """The checkpoint after an edit in place, or what the edit returns instead of it."""

    def make() -> bytes:
        content = torch.load(base("logs", "nerf", NEWEST), weights_only=False)
        made, stream = edit(content), io.BytesIO()
        torch.save(made if isinstance(made, dict | list | torch.Tensor) else content, stream)
        return stream.getvalue()

    return make


def _put(*path_and_value: Any) -> Make:
    *path, key, value = path_and_value

    def edit(content: Any) -> None:
        for part in path:
            content = content[part]
        content[key] = value() if callable(value) else value

    return _edited(edit)


def _without(*path: str) -> Make:
    def edit(content: Any) -> None:
        for part in path[:-1]:
            content = content[part]
        del content[path[-1]]

    return _edited(edit)


def _weight(change: Callable[[torch.Tensor], torch.Tensor]) -> Make:
    """The checkpoint with its first weight changed."""

    def edit(content: dict[str, Any]) -> None:
        name = next(iter(content["model"]))
        content["model"][name] = change(content["model"][name])

    return _edited(edit)


def _optimizer(name: str, value: Any) -> Make:
    """The checkpoint with a value of the optimizer's first state changed."""
    return _edited(lambda content: content["optimiser"]["state"][0].__setitem__(name, value))


CKPT = {
    "evil_pickle": ("refuse", lambda: pickle.dumps(Evil())),
    "evil_in_zip": ("refuse", _edited(lambda c: {**c, "x": Evil()})),
    "evil_config": ("refuse", _edited(lambda c: {**c, "config": {**c["config"], "lrate": Evil()}})),
    "empty": ("refuse", lambda: b""),
    "text": ("refuse", lambda: b"hello\n" * 9),
    "zip_other": ("refuse", lambda: zipped({"a.txt": b"x"})),
    "list": ("refuse", _edited(lambda c: [1])),
    "tensor": ("refuse", _edited(lambda c: torch.zeros(3))),
    "format_2": ("refuse", _put("format", 2)),
    "no_model": ("refuse", _without("model")),
    "model_empty": ("refuse", _put("model", {})),
    "model_ints": ("refuse", _put("model", {"a": 1})),
    "model_list": ("refuse", _put("model", [1])),
    "no_blank_for": ("accept", _without("blank_for")),
    "blank_text": _put("blank_for", "x"),
    "step_-5": _put("step", -5),
    "step_1e12": _put("step", 10**12),
    "step_true": _put("step", True),
    "seconds_nan": _put("seconds", float("nan")),
    "seconds_-1": _put("seconds", -1.0),
    "curve_flat": ("any", _put("curve", [1, 2])),
    "curve_none": ("any", _put("curve", [None])),
    "curve_nan": _put("curve", [[1, float("nan")]]),
    "config_empty": ("any", _put("config", {})),
    "config_no_N_importance": ("any", _without("config", "N_importance")),
    "config_N_importance_text": ("any", _put("config", "N_importance", "x")),
    "config_kind_list": ("any", _put("config", "kind", [1])),
    "config_old": ("any", _without("config", "netskip")),
    "config_extra": ("accept", _put("config", "nosuch", 1)),
    "opt_empty": ("refuse", _put("optimiser", {})),
    "opt_no_state": ("refuse", _without("optimiser", "state")),
    "opt_groups_empty": ("refuse", _put("optimiser", "param_groups", [])),
    "opt_state_shape": ("refuse", _edited(lambda c: c["optimiser"]["state"][0].__setitem__("exp_avg", torch.zeros(3)))),
    "opt_state_missing": ("refuse", _edited(lambda c: c["optimiser"]["state"][0].pop("exp_avg"))),
    "opt_state_text": ("refuse", _edited(lambda c: c["optimiser"]["state"][0].__setitem__("exp_avg", "x"))),
    "opt_state_nan": _edited(lambda c: c["optimiser"]["state"][0]["exp_avg"].fill_(float("nan")) is None and None),
    "opt_step_nan": _edited(lambda c: c["optimiser"]["state"][0]["step"].fill_(float("nan")) is None and None),
    "opt_lr_text": ("any", _edited(lambda c: c["optimiser"]["param_groups"][0].__setitem__("lr", "x"))),
    "opt_betas": ("any", _edited(lambda c: c["optimiser"]["param_groups"][0].__setitem__("betas", 3))),
    "opt_amsgrad": ("any", _edited(lambda c: c["optimiser"]["param_groups"][0].__setitem__("amsgrad", True))),
    "opt_maximize": ("any", _edited(lambda c: c["optimiser"]["param_groups"][0].__setitem__("maximize", True))),
    "w_nan": _weight(lambda w: w * float("nan")),
    "w_inf": _weight(lambda w: w + float("inf")),
    "w_1e38": _weight(lambda w: w * 1e38),
    "w_shape": ("refuse", _weight(lambda w: w[:1])),
    "w_double": _weight(lambda w: w.double()),
    "w_int": _weight(lambda w: w.int()),
    "w_complex": ("refuse", _weight(lambda w: w + 1j)),
    "w_sparse": ("refuse", _weight(lambda w: w.to_sparse())),
    "w_bool": _weight(lambda w: w > 0),
    "w_meta": ("refuse", _weight(lambda w: w.to("meta"))),
    "w_expand": ("any", _weight(lambda w: torch.zeros(1).expand(w.shape))),
    "w_quant": ("refuse", _weight(lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8))),
    "w_extra": ("refuse", _put("model", "zzz", lambda: torch.zeros(1))),
    "w_extra_huge_view": ("refuse", _put("model", "zzz", lambda: torch.zeros(1).expand(10**6, 10**6))),
    "w_nested": ("refuse", _put("model", "zzz", lambda: {"a": 1})),
    **{f"cut{i}": ("refuse", lambda i=i: cut(_bytes(), i, 10)) for i in range(1, 10)},
    "cut_last": ("refuse", lambda: _bytes()[:-1]),
    "append": lambda: _bytes() + b"x" * 100,
    "twice": lambda: _bytes() * 2,
    **{f"flip{i}": (lambda i=i: flipped(_bytes(), i, 1)) for i in range(20)},
    **{f"zero{i}": (lambda i=i: zeroed(_bytes(), i)) for i in range(10)},
}
# A checksum finds every flipped bit that matters; those in the zip archive's padding do not.
MORE_CKPT = {
    "npz": ("refuse", lambda: zipped({"arr_0.npy": b"\x93NUMPY\1\0"})),
    "safetensors": ("refuse", lambda: (8).to_bytes(8, "little") + b"{}      "),
    "gzip": ("refuse", lambda: b"\x1f\x8b\x08" + bytes(500)),
    "zip_bomb": ("refuse", lambda: zipped({"archive/data.pkl": bytes(1 << 28)}, compression=8)),
    "step_text": ("refuse", _put("step", "4")),
    "step_none": ("refuse", _put("step", None)),
    "config_none": ("refuse", _put("config", None)),
    "config_list": ("refuse", _put("config", [1])),
    "model_none": ("refuse", _put("model", None)),
    "optimiser_none": ("refuse", _put("optimiser", None)),
    "exp_avg_half": _optimizer("exp_avg", torch.zeros(16, 15, dtype=torch.float16)),
    "netwidth_1e9": ("any", _put("config", "netwidth", 10**9)),
    "N_rand_1e12": ("any", _put("config", "N_rand", 10**12)),
    "expname_dotdot": ("any", _put("config", "expname", "../../x")),
    "rng_missing": ("any", _edited(lambda c: {k: v for k, v in c.items() if "rng" not in k})),
    **{f"bit{i}": (lambda i=i: flipped(_bytes(), 100 + i, 1)) for i in range(40)},
    **{f"sector{i}": (lambda i=i: zeroed(_bytes(), 100 + i, 4096)) for i in range(5)},
}


@table("ft_path", CKPT | MORE_CKPT)
def _(folder: Path, make: Make) -> Command:
    scene = copied("llff", folder)
    (folder / "x.pt").write_bytes(make())
    options = (*NERF, "--N_iters", "6", "--no_final_eval")
    return nerf(folder, scene, "--ft_path", folder / "x.pt", options=options)


_RESUMED = {name: split(entry)[1] for name, entry in CKPT.items() if not name.startswith(("flip", "zero", "cut"))}
_RESUMED |= {name: split(MORE_CKPT[name])[1] for name in ("bit0", "bit1", "sector0", "netwidth_1e9", "step_none")}


@table("resume", {**_RESUMED, "cut5": split(CKPT["cut5"])[1]})
def _(folder: Path, make: Make) -> Command:
    (copied_run(folder) / NEWEST).write_bytes(make())
    return resumed(folder, 6)


@table(
    "ft_file", {kind: kind for kind in ("fifo", "folder", "loop", "devzero", "dangling", "missing", "empty")}, "refuse"
)
def _(folder: Path, kind: str) -> Command:
    special_file(folder / "x.pt", kind)
    return nerf(folder, copied("llff", folder), "--ft_path", folder / "x.pt")
