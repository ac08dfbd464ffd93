"""The scripts in ``benchmarks/`` run: their ``--help``, and a step and a frame of the side that they share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enerf.rendering import cpu_rays

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))
# All in one process, since each would import torch again.
HELP = """
import contextlib, io, runpy, sys
for name in sys.argv[1:]:
    sys.argv = [name, "--help"]
    shown, code = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(shown):
            runpy.run_path(name, run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    except Exception as error:
        code = repr(error)
    print(name, code in (0, None) and shown.getvalue().startswith("usage:"), code)
"""
STEP = """
import argparse, accuracy, floor, ours, scaling
reader = argparse.ArgumentParser()
ours.add_options(reader)
options = ours.options_of(
    reader.parse_args(["--rays", "8", "--device", "cpu", "--backend", "torch", "--precision", "fp32"]),
    N_samples=4, N_importance=4, netdepth=2, netdepth_fine=2, netwidth=16, netwidth_fine=16, netskip=0,
)
run, _ = ours.prepared(options, ours.noise_scene(4, 16, 12))
print(len(accuracy.table(run.config, run.device)))
choose = accuracy.registry.choose
def without_bf16(backend, precision, device):
    if precision == "bf16":
        raise accuracy.InputError("no bf16 products")
    return choose(backend, precision, device)
accuracy.registry.choose = without_bf16
print(accuracy.table(run.config, run.device)[-1])
accuracy.registry.choose = choose
floor.has_bf16 = lambda device: False
print(*(floor.is_emulated(run.device, name) for name in ("bf16", "fp32")), floor.peak(run.device, "bf16", 1) > 0)
for kind in ("step", "frame"):
    print(getattr(scaling.Point(options, 2, 12), kind)()["seconds"] > 0)
"""
PRECISION = """
import json, pathlib, sys
import study
from study_stages import STAGES
from enerf.core.errors import InputError
study.RESULTS, has_bf16 = pathlib.Path(sys.argv[1]), [False]
study.device.has_bf16 = lambda device: has_bf16[0]
study.products_on = lambda device: "bf16" if has_bf16[0] else "fp32"
def refused(words=()):
    found = []
    for stage in STAGES.values():
        try:
            study.check_precision(stage, pathlib.Path("data"), [*words])
        except InputError as error:
            found.append(stage.name + ": " + str(error).partition(": ")[2][:44])
    return found
print(refused())
print(refused(["--precision", "fp32"]))
def record(stage, **more):
    row = json.dumps({"method": "muon*5", "lrate": 1.0, "seed": 0, **more})
    (study.RESULTS / f"{stage}.jsonl").write_text(row)
record("image", precision="fp32")
print(refused(["--precision", "fp32"]))
has_bf16[0] = True
print(refused())
record("image", precision="fp32", muon="fp32")
print(refused())
record("image", precision="fp32")
record("screen")
record("fast_screen")
print(refused(["--precision", "fp32"]))
"""
STUDY = """
import json, math, pathlib, sys
import study, study_report
from study_stages import STAGES, Stage, options_of_method
study.RESULTS = pathlib.Path(sys.argv[1])
print(options_of_method("muon*5", 0.002))
print([job.key for job in study.jobs_of(Stage(
    "s", "train_nerf.py", "c.txt", "", ("--datadir", "x"), ("plain", "he"), (0, 1), {"": (1.0, 2.0), "he": (3.0,)}
))])
for job in study.jobs_of(Stage(
    "s", "train_nerf.py", "c.txt", "", ("--datadir", "x"), ("plain", "ws"), (0,), {"": (1.0,)},
    steps={"plain": 300, "ws": 270},
)):
    print(job.command(pathlib.Path("data"), pathlib.Path("runs"), [])[-8:-4])
rows = [
    {
        **{"method": m, "lrate": r, "seed": s, "score": v, "steps": 100, "ranks": []},
        "curve": [[5, 1.0], [10, v and v / 2], [100, v]],
    }
    for m, r, s, v in (
        ("plain", 1.0, 0, 10.0), ("plain", 2.0, 0, 12.0), ("plain", 2.0, 1, 14.0), ("he", 1.0, 0, None),
        ("he", 2.0, 0, 13.0), ("he", 2.0, 1, 16.0),
    )
]
(study.RESULTS / "sweep.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
mesh = {"field": {"iou": 0.9, "iou_near": 0.7}, "curve": [[5, 1.5, 0.8, 0.6]]}
volume = {"field": {"iou": 0.9, "voxels": 8}, "curve": [[5, 1.5, 0.8]]}
image = {"picture": {"psnr": 30.0, "psnr_heldout": 28.0}, "curve": [[5, 1.5, 20.0, 19.0]]}
radiance = {"mean": {"psnr": 20.0, "ssim": 0.5}, "curve": [[5, 15.0]]}
for stage, metrics in (("shape_relu", mesh), ("volume_relu", volume), ("image", image), ("screen", radiance)):
    print(STAGES[stage].scores(metrics)["score"], STAGES[stage].curve(metrics))
print(study.best_rate(rows, "plain"), study.best_rate(rows, "he"), study.best_rate(rows, "ws"))
tries, scores = [], {4.0: 1.0, 2.0: 2.0, 1.0: None, 8.0: 3.0, 16.0: 2.0}
while rates := study.next_rates(tries, "plain", (4.0,)):
    tries += [{"method": "plain", "lrate": rate, "score": scores[rate]} for rate in rates]
print([row["lrate"] for row in tries])
best = study_report.chosen(["sweep"])
print(list(best), study_report.early(rows[1]))
middle, half = study_report.paired(best["he"].runs, best["plain"].pairs, lambda run: run["score"])
print(middle, round(half, 3))  # differences 1 and 2: deviation 0.7071, over the root of 2, times 12.706
print(study_report.table(["sweep"], "plain", 1)[1][:6])
print(study_report.table(["sweep"], "plain", 1, [10])[1][8:10])
row = {**rows[0], "lrate": 2.0, "seed": 2}
more = [row, {**row, "seed": 3, "score": 5.0, "collapsed": True}]
(study.RESULTS / "more.jsonl").write_text("".join(json.dumps(each) + chr(10) for each in more))
failing = {**row, "method": "gain"}
(study.RESULTS / "sweep.jsonl").write_text("".join(json.dumps(each) + chr(10) for each in [*rows, failing]))
more += [{**failing, "score": None}]
(study.RESULTS / "more.jsonl").write_text("".join(json.dumps(each) + chr(10) for each in more))
for line in study_report.table(["sweep", "more"], "plain", 1)[1:]:
    print(line[2:6] + [line[8]])
(study.RESULTS / "sweep.jsonl").write_text("".join(json.dumps(each) + chr(10) for each in rows))
more.pop()
(study.RESULTS / "more.jsonl").write_text("".join(json.dumps(each) + chr(10) for each in more))
for line in study_report.seeds_table(["sweep", "more"], "plain", 1):
    print(line)
print(study_report.rates_table("sweep", 1)[2])
print(all(len(study.jobs_of(stage)) for stage in STAGES.values() if not stage.best_of))
"""
SECONDS = """
import pathlib, sys
import study, study_report
from enerf.core.errors import InputError
from study_stages import STAGES
study.RESULTS = pathlib.Path(sys.argv[1])
refused = []
for name in STAGES:
    try:
        study_report.check_seconds([name])
    except InputError as error:
        refused.append(name)
print([name for name in STAGES if name not in refused])
for words in (
    ["screen", "image", "--plot", sys.argv[1] + "/curves.png", "--seconds"],
    ["screen", "--seconds"],
    ["screen", "--by_seed", "--at", "5"],
):
    sys.argv[1:] = words
    try:
        study_report.main()
    except InputError as error:
        print(error)
"""
PROFILE = """
import sys, ours, profile_step, sides
scene = ours.noise_scene
ours.noise_scene = lambda: scene(4, 16, 12)
sys.argv[1:] = ["--rays", "8", "--device", "cpu", "--rounds", "1", "--steps", "1", "--warm_up", "1"]
profile_step.main()
"""


def run(code: str, *words: str) -> list[str]:
    """Lines that Python code prints in the folder of the benchmarks."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER.parent), str(FOLDER)])}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_help_of_every_script_works():
    lines = run(HELP, *SCRIPTS)
    assert lines == [f"{name} True 0" for name in SCRIPTS]


def test_the_shared_side_takes_a_step_and_renders_a_frame_without_a_scene_on_disk():
    unused = str(("enerf, torch, bf16", *["cannot be used here"] * 3))
    assert run(STEP) == ["4", unused, "True False True", "True", "True"]


def test_the_study_takes_best_rates_and_pairs_seeds(tmp_path):
    assert run(STUDY, str(tmp_path)) == [
        "['--lrate_matrices', '0.01', '--init', 'default', '--conditioning', 'muon']",
        "[('plain', 1.0, 0), ('he', 3.0, 0), ('plain', 2.0, 0), ('plain', 1.0, 1), ('he', 3.0, 1), ('plain', 2.0, 1)]",
        *(f"['--seed', '0', '--N_iters', '{steps}']" for steps in (300, 270)),
        *("0.7 [[5, 0.6]]", "0.9 [[5, 0.8]]", "30.0 [[5, 20.0]]", "20.0 [[5, 15.0]]"),
        "(2.0,) (2.0,) ()",
        "[4.0, 2.0, 1.0]",
        "['he', 'plain'] 6.0",
        "1.5 6.353",
        "[\"He's initialization (`he`)\", '2 at an end', '14.5', '2.1', '0,1', '+1.5 ± 6.4']",
        "['7.2', '1']",
        "['14.5', '2.1', '0,1 (chose the rate)', '+1.5 ± 6.4', '1']",
        "['10.0', '', '2', '+0.0', 'seed 3']",
        "['', '', '', '', 'seed 2']",
        "['method', 'rate', 'seed 0', 'seed 1', 'seed 2', 'seed 3', 'minus plain, by seed', "
        "'early, minus plain, by seed', 'stable rank', 'other rates']",
        "[\"He's initialization (`he`)\", '2', '13.0', '16.0', '', '', '+1.0, +2.0', '+0.5, +1.0', '', 'fails at 1']",
        "['plain (`plain`)', '2', '12.0', '14.0', '10.0', 'fails', "
        "'+0.0, +0.0, +0.0', '+0.0, +0.0, +0.0', '', '10.0 at 1']",
        "['he', 'failed', '14.5']",
        "True",
    ]


def test_curves_over_seconds_are_those_of_the_model_whose_steps_were_measured(tmp_path):
    stages = ["screen", "screen_seed1", "final_fern", "final_flower"]
    assert run(SECONDS, str(tmp_path)) == [
        repr(stages),
        "option --seconds: found the stage image, expected stages of the paper's model, whose steps "
        f"benchmarks/results/method_cost.txt measures: {', '.join(stages)}",
        "option --seconds: found no --plot, expected one: it is the axis of a plot",
        "option --at: found --by_seed too, expected one of them: its table has no such columns",
    ]
    assert not any(tmp_path.iterdir())


def test_a_stage_is_not_continued_in_another_precision(tmp_path):
    papers, fast = ("screen", "screen_seed1", "final_fern", "final_flower"), ("fast_screen", "fast_fern", "fast_flower")
    images = ("image", "image_seeds")  # recorded in fp32, then with Muon's products in fp32; the others in bf16
    assert run(PRECISION, str(tmp_path)) == [
        repr([f"{name}: this processor has no bf16 instructions, and" for name in papers]),
        "[]",
        repr([f"{name}: Muon multiplies in fp32 on this processor, e" for name in images]),
        "[]",
        repr([f"{name}: Muon multiplies in bf16 on this processor, e" for name in images]),
        repr([f"{name}: this run would compute in fp32, expected bf1" for name in (*papers, *fast)]),
    ]


@pytest.mark.skipif(not cpu_rays.available(), reason="no C++ compiler made the kernel")
def test_parts_of_a_step_add_up_to_the_whole():
    lines = run(PROFILE)
    start = next(i for i, line in enumerate(lines) if line.startswith("---"))
    rows = [line.rsplit(maxsplit=2) for line in lines[start + 1 : -1]]
    found = {name: [float(ms) for ms in values] for name, *values in rows}
    whole, rest = found.pop("whole step"), found.pop("rest")
    assert min(*rest, *found["networks"], *found["encodings"]) > 0
    assert [sum(values) for values in zip(*found.values(), strict=True)] == pytest.approx(whole, abs=0.1)
