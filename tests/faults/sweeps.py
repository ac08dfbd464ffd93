"""Sweeps whose queue or whose runs get signals at random moments; started again until the end.

A *life* is a sweep of four runs on two processes. At random times the process of the queue or that of a run gets a
signal. A queue that has ended, however, leaves no process behind, and results that are whole or absent; a queue whose
run was killed repeats that run. The last start is not disturbed; then each run equals that of the undisturbed sweep bit
for bit, and so does the table.
"""

import os
import random
import re
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.faults import outcome, processes
from tests.faults.cases import BASEDIR, COMMON, NAME, TIMED
from tests.faults.findings import Findings
from tests.faults.outcome import Outcome
from tests.faults.processes import Child

CASE, STEPS = "nerf sweep", 40
SWEEP = (
    f"sweep nerf --datadir {{data}}/scene --factor 1 --no_pose_check {COMMON} --N_iters {STEPS} --N_rand 32 "
    "--N_samples 8 --N_importance 0 --netdepth 2 --netwidth 16 --multires 4 --eval_rays 64 --i_eval 10 --i_img 0 "
    "--i_video 0 --i_testset 0 --i_weights 10 --methods plain,equilibrate --seeds 0,1 --executor local --workers 2"
)
RUNS = ("plain_seed0", "plain_seed1", "equilibrate_seed0", "equilibrate_seed1")
SIGNALS = (*[signal.SIGKILL] * 4, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
MOST = 3  # signals of a life
ENDING = 60.0  # seconds in which runs without a queue save their state and end


def campaign(work: Path, data: Path, pattern: str, count: int, seed: int) -> Findings:
    """Send ``count`` signals; returns what was found."""
    found, chance = Findings("sweeps", "signals"), random.Random(seed)
    if not re.search(pattern, CASE):
        return found
    words = [*SWEEP.format(data=data).split(), *TIMED, "--basedir", BASEDIR, "--expname", NAME]
    ended = processes.run(words, _empty(work / "undisturbed"))
    if faults := ended.faults(0):
        found.fault("undisturbed", faults)
        return found
    expected, table = results(work / "undisturbed")
    lives = 0
    while found.total < count:
        live(work / "life", words, min(chance.randint(1, MOST), count - found.total), ended.seconds, chance, found)
        found.fault(f"life {lives}", differences(work / "life", expected, table))
        lives += 1
    found.figures["lives"] = lives
    return found


def live(work: Path, words: list[str], signals: int, seconds: float, chance: random.Random, found: Findings) -> None:
    """Start a sweep, disturb it so many times, and let it end; note what is wrong."""
    _empty(work)
    for _ in range(signals):
        number, delay = chance.choice(SIGNALS), seconds * chance.random()
        child = Child(words, work)
        child.is_running(delay)
        running = jobs(work)
        target = chance.choice(running) if running and chance.random() < 0.5 else child.pid
        with suppress(ProcessLookupError):
            os.kill(target, number)
        who = "queue" if target == child.pid else "run"
        told = f"{signal.Signals(number).name} to the {who}"
        ended = child.wait()
        found.count(told, CASE)
        codes = (0,) if who == "run" else (0, 130, -number)
        found.fault(f"{told} after {delay:.2f} s of {seconds:.2f}", ended.faults(*codes) + _after(work))
    found.fault("started again", processes.run(words, work).faults(0))


def _after(work: Path) -> list[str]:
    """What is wrong once a queue has ended: processes that are left, results that are not whole."""
    until = time.monotonic() + ENDING
    while (left := jobs(work)) and time.monotonic() < until:
        time.sleep(0.2)
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    faults = [f"{len(left)} runs go on without their queue"] if left else []
    for name in RUNS:
        folder = work / BASEDIR / NAME / name
        faults += [f"{name}: {each}" for each in outcome.broken(folder, outcome.files(folder))]
    return faults


def jobs(work: Path) -> list[int]:
    """Processes of runs whose files are below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            if "enerf.cli.job" in words and Path(os.readlink(entry / "cwd")) == work:
                found.append(int(entry.name))
    return found


def results(work: Path) -> tuple[dict[str, Outcome], str]:
    """The ends of the runs of a sweep, and its table."""
    folder = work / BASEDIR / NAME
    return {name: outcome.of_run(folder / name) for name in RUNS}, (folder / "sweep.md").read_text(encoding="utf-8")


def differences(work: Path, expected: dict[str, Outcome], table: str) -> list[str]:
    """What differs from the undisturbed sweep."""
    try:
        found, own = results(work)
    except OSError as error:
        return [str(error)]
    faults = [f"{name}: {each}" for name in RUNS for each in found[name].differences(expected[name])]
    return faults + (["the table differs"] if own != table else [])


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
