"""Folders of runs whose journal, metrics, configuration or checkpoints are damaged or replaced."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.corpus.inputs import copied_run, resumed, special_file
from tests.corpus.registry import Command, table, values

Edit = Callable[[Path], Any]


def _replaced(path: Path, kind: str) -> None:
    path.unlink()
    special_file(path, kind)


RUNS = {
    "jsonl_folder": lambda r: ((r / "train.jsonl").unlink(), (r / "train.jsonl").mkdir()),
    "jsonl_binary": lambda r: (r / "train.jsonl").write_bytes(os.urandom(5000)),
    "jsonl_cut": lambda r: (r / "train.jsonl").write_bytes((r / "train.jsonl").read_bytes()[:-20]),
    "jsonl_readonly_link": lambda r: ((r / "train.jsonl").unlink(), (r / "train.jsonl").symlink_to("/nonexistent/x")),
    "jsonl_big_ints": lambda r: (r / "train.jsonl").write_text('{"step": ' + "9" * 5000 + "}\n"),
    "jsonl_deep": lambda r: (r / "train.jsonl").write_text("[" * 100000 + "\n"),
    "jsonl_step_null": lambda r: (r / "train.jsonl").write_text('{"step": null}\n[]\n1\n"x"\n{"step": [1]}\n'),
    "tb_file": lambda r: (shutil.rmtree(r / "tensorboard"), (r / "tensorboard").write_text("x")),
    "config_folder": lambda r: ((r / "config.txt").unlink(), (r / "config.txt").mkdir()),
    "config_binary": lambda r: (r / "config.txt").write_bytes(b"\xff\xfe\x00"),
    "metrics_bad": lambda r: (r / "metrics.json").write_text("{"),
    "metrics_list": lambda r: (r / "metrics.json").write_text("[]"),
    "metrics_null": lambda r: (r / "metrics.json").write_text("null"),
    "metrics_deep": lambda r: (r / "metrics.json").write_text("[" * 100000),
    "metrics_folder": lambda r: ((r / "metrics.json").unlink(), (r / "metrics.json").mkdir()),
    "ck_file": lambda r: (shutil.rmtree(r / "checkpoints"), (r / "checkpoints").write_text("x")),
    "ck_folder_named": lambda r: (r / "checkpoints/000009.pt").mkdir(),
    "ck_link_loop": lambda r: (r / "checkpoints/000009.pt").symlink_to("000009.pt"),
    "ck_dangling": lambda r: (r / "checkpoints/000009.pt").symlink_to("nowhere"),
    "ck_fifo": lambda r: os.mkfifo(r / "checkpoints/000009.pt"),
    "ck_5000_digits": lambda r: (r / "checkpoints" / ("9" * 200 + ".pt")).write_bytes(b""),
    "ck_odd_names": lambda r: (
        (r / "checkpoints/latest.pt").write_bytes(b""),
        (r / "checkpoints/٣.pt").write_bytes(b""),
        (r / "checkpoints/-5.pt").write_bytes(b""),
    ),
    "ck_zero": lambda r: (r / "checkpoints/000009.pt").write_bytes(b""),
    "test_file": lambda r: (shutil.rmtree(r / "test"), (r / "test").write_text("x")),
    "final_png_folder": lambda r: [(p.unlink(), p.mkdir()) for p in list((r / "test/final").glob("*.png"))[:1]],
    "run_is_link": lambda r: (r.rename(r.with_name("real")), r.symlink_to("real")),
}
MORE_RUNS = {
    **{f"jsonl_{kind}": (lambda r, kind=kind: _replaced(r / "train.jsonl", kind)) for kind in ("fifo", "loop")},
    **{f"config_{kind}": (lambda r, kind=kind: _replaced(r / "config.txt", kind)) for kind in ("fifo", "devzero")},
    **{f"metrics_{kind}": (lambda r, kind=kind: _replaced(r / "metrics.json", kind)) for kind in ("fifo", "devzero")},
    "ck_devzero": lambda r: (r / "checkpoints/000009.pt").symlink_to("/dev/zero"),
    "ck_newest_cut": lambda r: (r / "checkpoints/000004.pt").write_bytes(
        (r / "checkpoints/000004.pt").read_bytes()[:5000]
    ),
    "ck_all_gone": lambda r: [path.unlink() for path in (r / "checkpoints").iterdir()],
    "ck_tmp_left": lambda r: (r / "checkpoints/.0123456789abcdef0123456789abcdef.pt").write_bytes(b"x"),
    "config_bom": lambda r: (r / "config.txt").write_bytes(b"\xef\xbb\xbf" + (r / "config.txt").read_bytes()),
    "metrics_bom": lambda r: (r / "metrics.json").write_bytes(b"\xef\xbb\xbf" + (r / "metrics.json").read_bytes()),
    "metrics_missing": lambda r: (r / "metrics.json").unlink(),
    "config_missing": lambda r: (r / "config.txt").unlink(),
}


@table("rerun", RUNS | MORE_RUNS)
def _(folder: Path, edit: Edit) -> Command:
    edit(copied_run(folder))
    return resumed(folder, 6)


_METRICS = ("metrics_bad", "metrics_list", "metrics_null", "metrics_deep", "metrics_folder")


@table("eval_stored", values(RUNS, *_METRICS) | values(MORE_RUNS, "metrics_fifo", "metrics_devzero"), "refuse")
def _(folder: Path, edit: Edit) -> Command:
    run = copied_run(folder)
    edit(run)
    return Command("eval_nerf.py", (run, "--stored"), changes_inputs=True, writes="")


@table("finished", values(RUNS, *_METRICS) | values(MORE_RUNS, "metrics_fifo", "config_fifo", "metrics_missing"))
def _(folder: Path, edit: Edit) -> Command:
    edit(copied_run(folder))
    return resumed(folder, 4)
