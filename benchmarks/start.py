"""Seconds from a command to its help, its error, and its first training step; and of loading large photographs.

    python benchmarks/start.py --datadir SCENE [--config fast/fern.txt] [--rounds 5] [--photographs 60]

Every time is that of a fresh process, from just before it is started. Help and errors: until it has ended; beside them
what Python and ``import torch`` take, which are the floor. First step: until the first call of ``trainer.one_step`` has
returned, on a **first start**, with an empty cache of compiled kernels (``ENERF_CACHE``), and on a **second** one. Both
train a new run on a scene whose downsampled images exist. Marks within show where the seconds go, and
``python -X importtime`` by which packages imports take them.

Loading: photographs of 4032 x 3024 pixels (generated JPEG files, of which several are equal) are read and downsampled
eight times into ``images_8`` of an LLFF scene, by a process that may use one core and by one that may use all, in
turns, without the check of poses; beside the seconds, its peak memory. The last line is the ratio of the seconds.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import sides

from enerf.core import parallel
from enerf.core.errors import InputError
from enerf.reporting import tables

COMMAND = ("-m", "enerf.cli.main", "train")
WIDTH, HEIGHT, DIFFERENT = 4032, 3024, 4  # of the photographs, and how many differ
# Prints the times of a training's marks, until the first step has been taken.
MARKS = """
import sys, time
marks = {"Python has started": time.monotonic()}
import enerf.cli.app
import torch
marks["torch is imported"] = time.monotonic()
from enerf.cli import train
from enerf.engine import trainer
from enerf.fields.backends import registry
from enerf.tasks.nerf import setup
from enerf.tasks.nerf import train as nerf_train
marks["enerf is imported"] = time.monotonic()
def marked(module, name, words):
    function = getattr(module, name)
    def call(*given, **options):
        result = function(*given, **options)
        marks.setdefault(words, time.monotonic())
        return result
    setattr(module, name, call)
marked(registry, "resolve_device_and_backend", "kernels are loaded and tested")
marked(setup, "load_scene", "the scene is read")
marked(nerf_train, "step_function", "fields and optimizer are made")
marked(trainer, "Journal", "the journal is open")
marked(trainer, "one_step", "the first step is taken")
train.main("nerf", sys.argv[1:])
import json
print(json.dumps(marks))
"""
LOAD = """
import json, sys, time
import cv2, torch
from enerf.core import device
from enerf.datasets.scenes import llff
device.keep_memory()
began = time.perf_counter()
scene = llff.load(sys.argv[1], 8, pose_check=False)
seconds = time.perf_counter() - began
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, peak / 1024, int(scene.images.long().sum())]))
"""


def python(*words: str, cores: int = 0, expected: int = 0, **environment: str) -> tuple[float, str]:
    """Seconds of a Python process and what it printed; on so many cores, 0: all."""
    allowed = sorted(os.sched_getaffinity(0))[: cores or None]
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=sides.ROOT,
        preexec_fn=lambda: os.sched_setaffinity(0, allowed),
    )
    if done.returncode != expected:
        raise InputError(f"python {' '.join(words)[:200]}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return time.monotonic() - began, done.stdout


def commands(rounds: int) -> list[list[str]]:
    """Table of the seconds of help and of errors, beside the floor."""
    timed = {
        "python -c pass": lambda: python("-c", "pass")[0],
        "python -c 'import torch'": lambda: python("-c", "import torch")[0],
        "train --help": lambda: python(*COMMAND, "--help")[0],
        "an unknown option": lambda: python(*COMMAND, "--N_rnd", "3", expected=2)[0],
        "a missing scene": lambda: python(*COMMAND, "--datadir", "no_such_folder", expected=2)[0],
        "eval of a missing run": lambda: python(*COMMAND[:-1], "eval", "no_such_folder", expected=2)[0],
    }
    found = sides.by_turns(timed, rounds)
    return [["", "seconds", "range"], *([name, *_summary(values)] for name, values in found.items())]


def _summary(values: list[float]) -> tuple[str, str]:
    return f"{statistics.median(values):.2f}", f"{min(values):.2f}..{max(values):.2f}"


def first_steps(config: str, datadir: Path, rounds: int) -> list[list[str]]:
    """Table of the seconds from the command to marks of its start, for a first and for a second start."""
    found: dict[str, dict[str, list[float]]] = {"first": {}, "second": {}}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            for kind, times in found.items():
                options = ["--config", config, "--datadir", str(datadir.resolve()), "--basedir", f"{folder}/{kind}"]
                options += ["--N_iters", "1", "--no_final_eval", "--device", "cpu"]
                began = time.monotonic()
                marks = json.loads(python("-c", MARKS, *options, ENERF_CACHE=f"{folder}/cache")[1].splitlines()[-1])
                for name, at in marks.items():
                    times.setdefault(name, []).append(at - began)
    rows = [["seconds until", "first start", "range", "second start", "range"]]
    return rows + [[name, *_summary(found["first"][name]), *_summary(found["second"][name])] for name in found["first"]]


def imports() -> list[list[str]]:
    """Table of the packages that an import of the training takes longest for: seconds of their own modules."""
    code = "import enerf.cli.app, enerf.cli.train, enerf.tasks.nerf.train, torch.utils.tensorboard"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, check=True, cwd=sides.ROOT
    )
    own: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        microseconds, _, name = line.removeprefix("import time:").split("|")
        if microseconds.strip().isdigit():
            own[name.strip().split(".")[0]] += int(microseconds)
    total, largest = sum(own.values()), own.most_common(8)
    rows = [[name, f"{each / 1e6:.2f}", f"{100 * each / total:.0f} %"] for name, each in largest]
    return [["package", "seconds", "share"], *rows, ["all", f"{total / 1e6:.2f}", "100 %"]]


def write_photographs(folder: Path, count: int) -> None:
    """An LLFF scene of large photographs."""
    import cv2

    from enerf.datasets.scenes import synthetic

    rng, images = np.random.default_rng(0), folder / "images"
    images.mkdir()
    for i in range(min(count, DIFFERENT)):
        coarse = rng.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
        fine = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.int16)
        fine += rng.integers(-9, 10, (HEIGHT, WIDTH, 1), dtype=np.int16)
        cv2.imwrite(str(images / f"{i:03d}.jpg"), fine.clip(0, 255).astype(np.uint8))
    for i in range(DIFFERENT, count):
        shutil.copy(images / f"{i % DIFFERENT:03d}.jpg", images / f"{i:03d}.jpg")
    c2w = synthetic.poses(count)
    axes = np.stack([-c2w[:, :, 1], c2w[:, :, 0], c2w[:, :, 2], c2w[:, :, 3]], -1)  # down, right, backwards
    size = np.broadcast_to(np.array([[HEIGHT], [WIDTH], [WIDTH]], dtype=float), (count, 3, 1))
    rows = np.concatenate([np.concatenate([axes, size], -1).reshape(count, 15), np.tile([1.3, 9.0], (count, 1))], -1)
    np.save(folder / "poses_bounds.npy", rows)


def loading(count: int, rounds: int) -> tuple[list[list[str]], list[float]]:
    """Table of seconds and memory of loading on one core and on all, and the ratios of the rounds."""
    memory: dict[str, list[float]] = {}
    sums = set()

    def load(folder: Path, name: str, cores: int) -> float:
        shutil.rmtree(folder / "images_8", ignore_errors=True)
        seconds, peak, total = json.loads(python("-c", LOAD, str(folder), cores=cores)[1])
        memory.setdefault(name, []).append(peak)
        sums.add(total)
        return float(seconds)

    names = {"one core": 1, f"{parallel.cores()} cores": 0}
    with tempfile.TemporaryDirectory() as text:
        write_photographs(folder := Path(text), count)
        timed = {name: lambda name=name, cores=cores: load(folder, name, cores) for name, cores in names.items()}
        found = sides.by_turns(timed, rounds)
    if len(sums) != 1:
        raise InputError(f"loading: found sums of pixels {sorted(sums)}, expected the same for any number of cores")
    rows = [["", "seconds", "range", "photographs a second", "peak MB"]]
    for name, values in found.items():
        speed = f"{count / statistics.median(values):.1f}"
        rows.append([name, *_summary(values), speed, f"{statistics.median(memory[name]):.0f}"])
    one, all_cores = found.values()
    return rows, sides.ratios(one, all_cores)


def main() -> None:
    parser = sides.parser(__doc__)
    parser.add_argument("--datadir", type=Path, help="the scene of --config; without it no first steps are measured")
    parser.add_argument("--config", default="fast/fern.txt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", type=int, default=2, help="rounds of loading")
    parser.add_argument("--photographs", type=int, default=60, help="0: loading is not measured")
    args = parser.parse_args()
    report = sides.Report(args.out)
    report(tables.as_text(commands(args.rounds)))
    report("\n" + tables.as_text(imports()))
    if args.datadir is not None:
        report("\n" + tables.as_text(first_steps(args.config, args.datadir, args.rounds)))
    if args.photographs:
        rows, ratios = loading(args.photographs, args.loads)
        report(
            f"\n{args.photographs} photographs of {WIDTH}x{HEIGHT}, read and downsampled by 8\n{tables.as_text(rows)}"
        )
        report("ratio: seconds on one core over those on all")
        report(sides.ratio_line(ratios))


if __name__ == "__main__":
    sides.enter(main)
