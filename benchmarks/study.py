"""The runs of docs/results/plan.md: a queue that uses all cores, survives interruption and continues where it stopped.

    python benchmarks/study.py STAGE [STAGE ...] [--data DIR] [--runs logs/study] [--workers 2] [--only REGEX] [--list]

A stage is a list of runs (``STAGES``): a script, a configuration, options, methods with their rates, seeds. Each run is
a process of one thread; ``--workers`` of them work at a time. A finished run adds one line to
``benchmarks/results/study/STAGE.jsonl`` and is not repeated; an interrupted one is resumed from its last checkpoint in
``--runs``. A run whose loss is not finite is recorded as failed. No run is limited by seconds, so that other work on
the machine changes nothing. Two queues must not work on one stage at the same time.
``study_report.py`` makes tables and plots of the lines.
"""

import concurrent.futures
import json
import math
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sides
import torch
from study_stages import STAGES, Stage, options_of_method

from enerf.config import parser
from enerf.core import device, io
from enerf.core.errors import InputError
from enerf.optim.muon import products_on
from enerf.tasks import registry

RESULTS = sides.ROOT / "benchmarks/results/study"
RANKS = ("kappa", "kappa_range", "stable_rank", "effective_rank", "kappa_raw", "stable_rank_raw", "effective_rank_raw")
LONGEST_SWEEP = 7  # rates of one method
THREADS = 1  # of a run
UNRECORDED = "bf16"  # precision of the first runs, and of their products of Muon: their lines do not say it
NOT_FINITE = re.compile(r"not finite|is nan", re.IGNORECASE)


@dataclass(frozen=True)
class Job:
    """One run of a stage."""

    stage: Stage
    method: str
    lrate: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the run: stage, method, rate and seed."""
        return f"{self.stage.name}/{self.method.replace('*', 'x')}@{self.lrate:g}_seed{self.seed}"

    @property
    def key(self) -> tuple[str, float, int]:
        """What distinguishes the runs of a stage."""
        return self.method, self.lrate, self.seed

    def command(self, data: Path, runs: Path, words: list[str]) -> list[str]:
        """Command line of the run."""
        script = sides.ROOT / "scripts" / self.stage.script
        command = [
            sys.executable,
            str(script),
            "--config",
            self.stage.config,
            *self.stage.data(data),
            *self.stage.words,
        ]
        command += options_of_method(self.method, self.lrate)
        command += ["--lrate", repr(self.lrate), "--seed", str(self.seed)]
        command += ["--N_iters", str(self.stage.steps[self.method])] if self.stage.steps else []
        return [*command, "--basedir", str(runs), "--expname", self.name, *words]


def recorded(stage: str) -> list[dict[str, Any]]:
    """Rows of the finished runs of a stage."""
    path = RESULTS / f"{stage}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def jobs_of(stage: Stage) -> list[Job]:
    """All runs of a stage, in the order of the queue: by seed, then rate, so that early results compare all methods.

    Of a sweep, those that can be told from the results so far: one further rate of each method.

    Raises
    ------
    InputError
        If the rates are to be those of another stage that has no results.
    """
    rates = {method: stage.rates.get(method, stage.rates.get("", ())) for method in stage.methods}
    if stage.best_of:
        rates = {method: best_rate(recorded(stage.best_of), method) for method in stage.methods}
    if stage.sweep:
        rows = recorded(stage.name)
        rates = {method: next_rates(rows, method, rates[method]) for method in stage.methods}
        return [Job(stage, m, rate, seed) for seed in stage.seeds for m in stage.methods for rate in rates[m]]
    without = [method for method, found in rates.items() if not found]
    if without:
        raise InputError(f"stage {stage.name}: no rates for {', '.join(without)}; run {stage.best_of} first")
    longest = max(map(len, rates.values()))
    in_turns = [(m, rates[m][i]) for i in range(longest) for m in stage.methods if i < len(rates[m])]
    return [Job(stage, method, rate, seed) for seed in stage.seeds for method, rate in in_turns]


def best_rate(rows: list[dict[str, Any]], method: str) -> tuple[float, ...]:
    """The rate with the highest mean score of a method; empty if it has no runs."""
    scores: dict[float, list[float]] = {}
    for row in rows:
        if row["method"] == method:
            scores.setdefault(row["lrate"], []).append(-math.inf if row["score"] is None else row["score"])
    return tuple(sorted(scores, key=lambda rate: -statistics.fmean(scores[rate])))[:1]


def next_rates(rows: list[dict[str, Any]], method: str, first: tuple[float, ...]) -> tuple[float, ...]:
    """The next rates of the sweep of a method: ``first``, then half or twice the best one; none if both are there.

    ``rows`` may hold any number of rates; at most ``LONGEST_SWEEP`` are tried.
    """
    tried = {row["lrate"] for row in rows if row["method"] == method}
    if missing := tuple(rate for rate in first if rate not in tried):
        return missing
    (best,) = best_rate(rows, method)
    neighbors = [rate for rate in (best / 2, best * 2) if rate not in tried]
    return tuple(neighbors[:1]) if len(tried) < LONGEST_SWEEP else ()


def row_of(job: Job, folder: Path, seconds: float, failed: str) -> dict[str, Any]:
    """The line of a run for the results."""
    row: dict[str, Any] = {"method": job.method, "lrate": job.lrate, "seed": job.seed, "score": None}
    if failed:
        return {**row, "failed": failed, "wall": round(seconds)}
    metrics = io.read_object(folder / "metrics.json")
    row |= job.stage.scores(metrics)
    if row["score"] is not None and row["score"] < metrics.get("constant_psnr", -math.inf) + 1.0:
        row["collapsed"] = True
    row |= {"steps": metrics["steps"], "train_seconds": round(metrics["seconds"]["train"], 1)}
    row |= {"backend": metrics["backend"], "precision": metrics["precision"]}
    row |= {"muon": products_on(torch.device("cpu"))} if "muon" in job.method else {}
    row |= {"threads": THREADS, "curve": job.stage.curve(metrics)}
    return {**row, "ranks": ranks_of(folder / "train.jsonl")}


def ranks_of(journal: Path) -> list[dict[str, float]]:
    """Medians over the hidden layers of the trunk but the first, of κ and ranks, at each step with logs of them."""
    found = []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else []:
        entry = json.loads(line)
        layers = [v for name, v in entry.get("spectrum", {}).items() if re.search(r"trunk\.[1-9]$", name)]
        if layers:
            medians = {k: statistics.median(v[k] for v in layers) for k in RANKS if all(k in v for v in layers)}
            found.append({"step": entry["step"], **{k: float(f"{v:.4g}") for k, v in medians.items()}})
    return found


class Queue:
    """Runs jobs by a pool of workers and records what they gave."""

    def __init__(self, args: Any, total: int) -> None:
        self.args, self.total, self.done, self.began = args, total, 0, time.perf_counter()
        self.lock, self.running = threading.Lock(), set[Any]()

    def run(self, job: Job) -> None:
        """Train one run and append its line.

        Raises
        ------
        InputError
            If the process fails for another reason than a loss that is not finite.
        """
        began, folder = time.perf_counter(), self.args.runs / job.name
        threads = {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
        folder.mkdir(parents=True, exist_ok=True)
        command = job.command(self.args.data, self.args.runs, self.args.words)
        with (folder / "output.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **threads})
            self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        output, failed = (folder / "output.log").read_text(encoding="utf-8"), ""
        if code:
            failed = (output.strip() or "no message").splitlines()[-1]
            if not NOT_FINITE.search(failed):
                raise InputError(f"{job.name}: exit code {code}: {failed}")
        row = row_of(job, folder, time.perf_counter() - began, failed)
        with self.lock:
            self._record(job, row)

    def _record(self, job: Job, row: dict[str, Any]) -> None:
        rows = [each for each in recorded(job.stage.name) if key_of(each) != job.key] + [row]
        RESULTS.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in sorted(rows, key=key_of))
        io.write_atomic(RESULTS / f"{job.stage.name}.jsonl", text)
        self.done += 1
        left = (time.perf_counter() - self.began) / self.done * (self.total - self.done) / 60
        score = "failed" if row["score"] is None else f"{row['score']:.3f}"
        print(f"{self.done} of {self.total}: {job.name} {score}; {left:.0f} min left", flush=True)

    def stop(self) -> None:
        """Interrupt the runs, which save a checkpoint."""
        for process in list(self.running):
            process.terminate()


def key_of(row: dict[str, Any]) -> tuple[str, float, int]:
    """Key of a recorded run; see ``Job.key``."""
    return row["method"], row["lrate"], row["seed"]


def main() -> None:
    """Run the queue of the stages."""
    reader = sides.parser(__doc__)
    reader.add_argument("stages", nargs="+", choices=sorted(STAGES), metavar="STAGE", help=", ".join(STAGES))
    reader.add_argument("--data", type=Path, default=Path("data"), help="folder with llff/, images/, shapes/")
    reader.add_argument("--runs", type=Path, default=Path("logs/study"), help="folder of the runs")
    reader.add_argument("--workers", type=int, default=2, help="runs at a time")
    reader.add_argument("--only", default="", help="regular expression of the names of runs")
    reader.add_argument("--list", action="store_true", help="print what would run, and stop")
    args, args.words = reader.parse_known_args()
    for name in args.stages:
        if args.list:
            jobs, more = left_of(name, args.only), ", and what its sweep leads to" if STAGES[name].sweep else ""
            done = len(recorded(name))
            print("\n".join([*(job.name for job in jobs), f"{name}: {len(jobs)} runs left{more}; {done} done"]))
            continue
        if left_of(name, args.only):
            check_precision(STAGES[name], args.data, args.words)
        while jobs := left_of(name, args.only):
            work(Queue(args, len(jobs)), jobs, args.workers)


def check_precision(stage: Stage, data: Path, words: list[str]) -> None:
    """Check that a stage would be continued in the precision of its runs so far and of those that chose its rates.

    Precision is that of the networks' products, and apart from it that of Muon's.

    Raises
    ------
    InputError
        If not, or if this processor would compute in another precision than the one that is asked for.
    """
    options = ["--config", stage.config, *stage.data(data), *stage.words, *words]
    config, _ = parser.parse(registry.task(stage.kind).load("config"), options)
    cpu, rows = torch.device("cpu"), recorded(stage.name) + (recorded(stage.best_of) if stage.best_of else [])
    precisions = {row.get("precision", UNRECORDED) for row in rows}
    if config.train.precision != "fp32" and not device.has_bf16(cpu):
        raise InputError(
            f"stage {stage.name}: this processor has no bf16 instructions, and would compute in fp32; expected one "
            "that has: all runs of a stage have one precision"
        )
    precision = "fp32" if config.train.precision == "fp32" else "bf16"
    if others := precisions - {precision}:
        raise InputError(
            f"stage {stage.name}: this run would compute in {precision}, expected {others.pop()}, as in the runs that "
            "are recorded"
        )
    found = {row.get("muon", UNRECORDED) for row in rows if "muon" in row["method"]}
    if found - {products_on(cpu)}:
        raise InputError(
            f"stage {stage.name}: Muon multiplies in {products_on(cpu)} on this processor, expected {found.pop()}, as "
            "in the runs that are recorded"
        )


def left_of(name: str, only: str) -> list[Job]:
    """Unfinished runs of a stage whose names match, as far as they can be told now."""
    finished = {key_of(row) for row in recorded(name)}
    return [job for job in jobs_of(STAGES[name]) if job.key not in finished and re.search(only, job.name)]


def work(queue: Queue, jobs: list[Job], workers: int) -> None:
    """Run the jobs; on an interruption or an error, stop those that run and raise it."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(queue.run, job) for job in jobs]
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            queue.stop()
            raise


if __name__ == "__main__":
    sides.enter(main)
