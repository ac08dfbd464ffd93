"""Sweeps and status: absurd options, damaged files of the queue, job files, run folders that lie."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.corpus.inputs import NERF, base, copied, copied_run, special_file
from tests.corpus.registry import Command, table
from tests.corpus.runs import MORE_RUNS, RUNS

Edit = Callable[[Path], Any]
ENERF, JOB = "enerf.cli.main", "enerf.cli.job"
SPECIAL = ("fifo", "folder", "loop", "devzero", "dangling", "empty")
NOWHERE = "nowhere"  # a command that writes nothing


def _status(*words: Any) -> Command:
    return Command(ENERF, ("status", *words), writes=NOWHERE)


@table("status_run", RUNS | MORE_RUNS)
def _(folder: Path, edit: Edit) -> Command:
    edit(copied_run(folder))
    return _status(folder / "run")


def _rows(*rows: Any) -> str:
    return json.dumps({"kind": "nerf", "executor": "local", "runs": list(rows)})


ROW = {"folder": "a", "scene": "", "variant": "plain", "seed": 0, "steps": 9, "state": "waiting", "attempts": 0}
STATES = {
    "good": ("accept", _rows(ROW)),
    "no_rows": ("refuse", _rows()),
    "rows_text": ("refuse", '{"runs": "abc"}'),
    "rows_null": ("refuse", '{"runs": null}'),
    "rows_mixed": ("accept", _rows(1, None, [], "x", {}, ROW)),
    "list": ("refuse", "[1, 2]"),
    "half": ("refuse", _rows(ROW)[:-9]),
    "deep": ("refuse", "[" * 100000),
    "digits": ("refuse", '{"runs": ' + "9" * 5000 + "}"),
    "folder_number": ("refuse", _rows({**ROW, "folder": 3})),
    "folder_nul": ("refuse", _rows({**ROW, "folder": "a\0b"})),
    "folder_long": ("refuse", _rows({**ROW, "folder": "x" * 5000})),
    "folder_up": ("accept", _rows({**ROW, "folder": "../" * 40 + "etc"})),
    "folder_surrogate": ("refuse", _rows({**ROW, "folder": "a\udcffb"})),
    "folder_escapes": ("accept", _rows({**ROW, "folder": "\x1b[2J\nerror: x"})),
    "folder_twice": ("accept", _rows(ROW, ROW)),
    "steps_text": ("accept", _rows({**ROW, "steps": "many"})),
    "steps_huge": ("accept", _rows({**ROW, "steps": 10**400})),
    "steps_nan": ("accept", _rows({**ROW, "steps": float("nan")})),
    "steps_-1": ("accept", _rows({**ROW, "steps": -1})),
    "state_unknown": ("accept", _rows({**ROW, "state": "sleeping"})),
    "state_list": ("accept", _rows({**ROW, "state": ["failed"]})),
    "reason_object": ("accept", _rows({**ROW, "state": "failed", "reason": {"a": 1}})),
    "reason_long": ("accept", _rows({**ROW, "state": "failed", "reason": "x" * 10**6})),
    "rows_many": ("accept", _rows(*({**ROW, "folder": f"r{i}"} for i in range(20000)))),
}


@table("status_sweep", STATES)
def _(folder: Path, text: str) -> Command:
    (folder / "logs").mkdir()
    (folder / "logs/sweep.json").write_text(text)
    return _status(folder / "logs")


@table("status_json", STATES)
def _(folder: Path, text: str) -> Command:
    (folder / "logs").mkdir()
    (folder / "logs/sweep.json").write_text(text)
    return _status(folder / "logs", "--json")


@table("status_place", {kind: kind for kind in SPECIAL}, "refuse")
def _(folder: Path, kind: str) -> Command:
    (folder / "logs").mkdir()
    special_file(folder / "logs/sweep.json", kind)
    return _status(folder / "logs")


STATUS = {
    "missing": ("refuse", ["/nonexistent"]),
    "file": ("refuse", ["{base}/mesh/m.ply"]),
    "proc": ("refuse", ["/proc/self/fdinfo"]),
    "long": ("refuse", ["x" * 300]),
    "tilde": ("refuse", ["~nobodyhere/x"]),
    "twice": ("accept", ["{base}/logs", "{base}/logs"]),
    "watch_0": ("refuse", ["{base}/logs", "--watch", "0"]),
    "watch_nan": ("refuse", ["{base}/logs", "--watch", "nan"]),
    "watch_inf": ("refuse", ["{base}/logs", "--watch", "inf"]),
    "watch_-1": ("refuse", ["{base}/logs", "--watch=-1"]),
    "watch_1e9": ("refuse", ["{base}/logs", "--watch", "1e9"]),
    "unknown": ("refuse", ["{base}/logs", "--follow"]),
}


@table("status_cmd", STATUS)
def _(folder: Path, words: list[str]) -> Command:
    return _status(*words)


GOOD = {"kind": "nerf", "backend": None, "begun": False}
JOBS = {
    "good": ("accept", {}),
    "begun": ("accept", {"begun": True}),
    "kind_unknown": {"kind": "rabbit"},
    "kind_list": {"kind": ["nerf"]},
    "backend_text": {"backend": "torch"},
    "cwd_gone": {"cwd": "/nonexistent"},
    "cwd_file": {"cwd": "{base}/mesh/m.ply"},
    "cwd_nul": {"cwd": "a\0b"},
    "cwd_number": {"cwd": 7},
    "begun_text": {"begun": "no"},
    "options_list": {"options": [1]},
    "options_empty": {"options": {}},
    "option_unknown": {"more": {"nosuch": 1}},
    "option_null": {"more": {"N_rand": None}},
    "option_object": {"more": {"N_rand": {"a": 1}}},
    "option_nan": {"more": {"lrate": float("nan")}},
    "option_huge": {"more": {"N_rand": 10**400}},
    "option_text": {"more": {"N_iters": "many"}},
    "datadir_gone": {"more": {"datadir": "/nonexistent"}},
    "expname_up": {"more": {"expname": "../../x"}},
    "help": {"more": {"help": True}},
    "config": {"more": {"config": "/etc/passwd"}},
}


def _job_options(folder: Path) -> dict[str, Any]:
    words = (*NERF, "--N_iters", "2", "--no_final_eval", "True")
    options = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    return options | {
        "datadir": str(base("llff")),
        "factor": 1,
        "basedir": str(folder / "out"),
        "expname": "x",
    }


@table("job", JOBS, "refuse")
def _(folder: Path, changes: dict[str, Any]) -> Command:
    options = _job_options(folder) | changes.get("more", {})
    content = {**GOOD, "cwd": str(folder), "options": options, **changes}
    text = json.dumps({name: value for name, value in content.items() if name != "more"})
    (folder / "job.json").write_text(text.replace("{base}", str(base())))
    return Command(JOB, (folder / "job.json",), changes_inputs=True, writes="out")


JOB_FILES = {
    "half": b'{"kind": "nerf", "opt',
    "list": b"[]",
    "null": b"null",
    "object": b"{}",
    "binary": bytes(range(256)),
    "deep": b"[" * 100000,
    "bom": b"\xef\xbb\xbf{}",
}


@table("job_file", JOB_FILES, "refuse")
def _(folder: Path, data: bytes) -> Command:
    (folder / "job.json").write_bytes(data)
    return Command(JOB, (folder / "job.json",), writes=NOWHERE)


@table("job_place", {kind: kind for kind in (*SPECIAL, "missing")}, "refuse")
def _(folder: Path, kind: str) -> Command:
    special_file(folder / "job.json", kind)
    return Command(JOB, (folder / "job.json",), writes=NOWHERE)


@table("job_words", {"none": [], "two": ["a.json", "b.json"], "empty": [""], "option": ["--help"]}, "refuse")
def _(folder: Path, words: list[str]) -> Command:
    return Command(JOB, tuple(words), writes=NOWHERE)


SWEEP = {
    "executor_unknown": ["--executor", "kubernetes"],
    "executor_empty": ["--executor", ""],
    "workers_-1": ["--workers=-1"],
    "workers_2e63": ["--workers", str(2**63)],
    "workers_text": ["--workers", "all"],
    "threads_-1": ["--threads_per_run=-1"],
    "threads_1e9": ["--threads_per_run", str(10**9)],
    "gpus_65": ["--executor", "slurm", "--gpus_per_run", "65"],
    "gpus_-2": ["--executor", "slurm", "--gpus_per_run=-2"],
    "minutes_0": ["--executor", "slurm", "--slurm_minutes", "0"],
    "minutes_nan": ["--executor", "slurm", "--slurm_minutes", "nan"],
    "slurm_options_text": ["--executor", "slurm", "--slurm_options", "account"],
    "slurm_partition_lines": ["--executor", "slurm", "--slurm_partition", "gpu\ntouch enerf-executed #"],
    "slurm_none": ["--executor", "slurm"],
    "scenes_missing": ["--scenes", "nosuch"],
    "scenes_twice": ["--scenes", "llff,llff"],
    "scenes_comma": ["--scenes", "llff,"],
    "scenes_file": ["--scenes", "{base}/mesh/m.ply"],
    "scenes_dot": ["--scenes", "."],
    "scenes_root": ["--scenes", "/"],
    "scenes_tilde": ["--scenes", "~nobodyhere/x"],
    "scenes_long": ["--scenes", "x" * 300],
    "scenes_nul": ["--scenes", "llff/\udcff"],
    "methods_unknown": ["--methods", "nosuch"],
    "methods_twice": ["--methods", "plain,plain"],
    "seeds_many_digits": ["--seeds", "9" * 5000],
    "seeds_-1": ["--seeds=-1"],
    "lrates_nan": ["--lrates", "nan"],
    "render_only": ["--render_only"],
    "expname_up": ["--expname", "../x"],
    "N_rand_1e9": ["--N_rand", "1000000000"],
}


def _sweep(folder: Path, *more: Any, scene: Path | None = None) -> Command:
    where = ("--datadir", scene or copied("llff", folder), "--factor", "1", "--basedir", folder / "out")
    words = (*where, "--expname", "x", *NERF, "--N_iters", "1", "--methods", "plain", "--i_weights", "0", *more)
    return Command(ENERF, ("sweep", "nerf", *words))


@table("sweep", SWEEP, "refuse")
def _(folder: Path, more: list[str]) -> Command:
    return _sweep(folder, *more)


@table("sweep_kind", {"none": [], "unknown": ["rabbit"], "option": ["--seeds", "0"]}, "refuse")
def _(folder: Path, words: list[str]) -> Command:
    return Command(ENERF, ("sweep", *words), writes=NOWHERE)


RUN = "plain_seed0"
# In the folder of a sweep that begins: its own files are written anew, what cannot be written is refused.
BEFORE = {
    "state_deep": ("accept", ("sweep.json", "[" * 100000)),
    "job_text": ("accept", (f"{RUN}/job.json", "{")),
    "metrics_text": ("refuse", (f"{RUN}/metrics.json", "{")),
    "config_text": ("accept", (f"{RUN}/config.txt", "N_iters = many\n")),
    "run_file": ("refuse", (RUN, "a file")),
}


@table("sweep_before", BEFORE)
def _(folder: Path, file: tuple[str, str]) -> Command:
    path = folder / "out/x" / file[0]
    path.parent.mkdir(parents=True)
    path.write_text(file[1])
    return replace(_sweep(folder, "--no_final_eval"), changes_inputs=True)


PLACES = {
    **{f"state_{kind}": ("accept", ("sweep.json", kind)) for kind in ("fifo", "loop")},
    "state_folder": ("refuse", ("sweep.json", "folder")),
    **{f"table_{kind}": ("refuse", ("sweep.md", kind)) for kind in ("folder",)},
    **{f"output_{kind}": ("refuse", (f"{RUN}/output.log", kind)) for kind in ("fifo", "folder", "loop", "devzero")},
    "output_dangling": ("accept", (f"{RUN}/output.log", "dangling")),
}


@table("sweep_place", PLACES)
def _(folder: Path, place: tuple[str, str]) -> Command:
    path = folder / "out/x" / place[0]
    path.parent.mkdir(parents=True)
    special_file(path, place[1])
    return replace(_sweep(folder, "--no_final_eval"), changes_inputs=True)


@table("sweep_scene", {kind: kind for kind in ("fifo", "loop", "devzero", "dangling", "empty")}, "refuse")
def _(folder: Path, kind: str) -> Command:
    os.makedirs(folder / "in")
    special_file(folder / "in/other", kind)
    return _sweep(folder, "--scenes", "other", scene=folder / "in/llff")
