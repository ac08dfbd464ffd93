"""Test PSNR and SSIM of runs that differ only in ``--max_seconds`` and seed, and in some options of a control.

    python benchmarks/horizons.py --datadir SCENE --work DIR [--config fast/fern.txt] [--seconds 35 240 600]
        [--seeds 0 1 2] [--control "--shading sample --netdepth_fine 5"] [further options of train_nerf.py]

Each run is a process of its own, ``train_nerf.py``: the clock of ``--max_seconds`` starts before its first step, with
an untrained field. Whole test views are scored: means over views, then mean and range over seeds. ``--control`` names
options that its runs have besides those of all; both sides take turns. Runs of the same scene and options that are
finished in DIR are not repeated. Nothing else should compute meanwhile. The last line has the smallest horizon's mean
PSNR, less that of the control.
"""

import hashlib
import json
import shlex
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import sides

from enerf.core.errors import InputError
from enerf.reporting import tables


def measured(args: Any, name: str, seconds: float, seed: int, words: list[str]) -> dict[str, Any]:
    """Metrics of a run, trained now if it is not finished.

    Raises
    ------
    InputError
        If its process fails.
    """
    given = json.dumps([args.config, str(Path(args.datadir).resolve()), args.words, words])
    folder = args.work / f"{name}_{seconds:g}_{seed}_{hashlib.sha256(given.encode()).hexdigest()[:8]}"
    found = folder / "metrics.json"
    if not found.is_file():
        script = Path(__file__).resolve().parents[1] / "scripts/train_nerf.py"
        command = [sys.executable, str(script), "--config", args.config, "--datadir", args.datadir]
        command += ["--basedir", str(args.work), "--expname", folder.name, "--max_seconds", str(seconds)]
        command += ["--seed", str(seed), "--i_eval", "0", *args.words, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise InputError(f"{folder}: training failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    metrics: dict[str, Any] = json.loads(found.read_text(encoding="utf-8"))
    return metrics


def words_of(values: list[float], digits: int) -> str:
    """Mean of values, and their range if there are several."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    """Train and print the table."""
    reader = sides.parser(__doc__)
    reader.add_argument("--datadir", required=True, help="the scene")
    reader.add_argument("--work", type=Path, required=True, help="folder of the runs")
    reader.add_argument("--config", default="fast/fern.txt", help="configuration; default: fast/fern.txt")
    reader.add_argument("--seconds", type=float, nargs="+", default=[35.0, 240.0, 600.0], help="default: 35 240 600")
    reader.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="default: 0 1 2")
    reader.add_argument("--control", help="options of a second run of each horizon and seed")
    args, args.words = reader.parse_known_args()
    if min(args.seconds) <= 0:
        raise InputError(f"option --seconds: found {min(args.seconds):g}, expected seconds above 0")
    report = sides.Report(args.out)
    methods = {"run": []} | ({"control": shlex.split(args.control)} if args.control else {})
    rows, means = [["seconds", "", "steps", "PSNR [dB]", "SSIM"]], {}
    for seconds in sorted(args.seconds):
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in methods}
        for seed in args.seeds:
            for name, words in methods.items():
                found[name].append(measured(args, name, seconds, seed, words))
        for name, runs in found.items():
            psnr, ssim = ([run["mean"][key] for run in runs] for key in ("psnr", "ssim"))
            steps = statistics.fmean(run["steps"] for run in runs)
            rows.append([f"{seconds:g}", name, f"{steps:,.0f}", words_of(psnr, 2), words_of(ssim, 3)])
            means[seconds, name] = statistics.fmean(psnr)
        print(tables.as_text(rows), flush=True)
    report(tables.as_text(rows))
    first = min(args.seconds)
    less = f", {means[first, 'run'] - means[first, 'control']:+.2f} against the control" if args.control else ""
    report(f"{first:g} s: {means[first, 'run']:.2f} dB{less}")


if __name__ == "__main__":
    sides.enter(main)
