"""All GPU measurements, in parts; started by ``bash benchmarks/gpu.sh PART|all``.

    bash benchmarks/gpu.sh all [--data DIR] [--peer PATH_TO_NERF_PYTORCH] [--out FOLDER]

Each part takes at most nine minutes and runs other benchmarks of this folder; each writes a file of results to
``benchmarks/results/gpu_MACHINE``. Existing files are not measured again, so the same command continues an interrupted
part; the output of a failure is ``NAME.failed.txt``, and is tried again. ``DIR`` contains ``llff/fern`` (default:
``ENERF_DATA``); without it the parts ``render`` and ``preset`` are skipped, and without a peer the part ``peer``.
Checkpoints go to ``logs/``. Exits with 2 if there is no CUDA GPU, and with 1 if something failed.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import ours
import sides
import torch

from enerf.core.errors import InputError

MINUTES = 9.0  # time limit of a part
LEAST = 20.0  # seconds that must remain to start another command
BACKENDS = ("torch", "compiled", "triton", *(["tinycudann"] if find_spec("tinycudann") else []))
PRECISIONS = ("bf16", "fp32")
WORK = sides.ROOT / "logs"
_BACKEND_TESTS = ("triton_dense", "triton_hashgrid", "tinycudann", "registry")
TESTS = tuple(f"tests/fields/backends/test_{name}.py" for name in _BACKEND_TESTS)

Command = tuple[str, list[str]]  # name of the result, arguments of python


def parts(args: argparse.Namespace, device: str, out: Path) -> dict[str, list[Command]]:
    """The commands of each part."""
    found = {
        "tests": [("tests", ["-m", "pytest", "-q", "-p", "no:cacheprovider", *_tests()])],
        "fern": _steps("fern", "fern.txt", 10, device),
        "paper": _steps("paper", "paper/fern.txt", 3, device),
        "fast": [
            *_steps("fast", "fast/fern.txt", 20, device, ("bf16",)),
            ("grid", ["benchmarks/grid.py", "--device", device, "--points", str(1 << 21)]),
        ],
        "scaling": [("scaling", [*_bench("scaling", device), "--limit", "60", "--out", str(out / "scaling")])],
    }
    full = ["--precision", "bf16", "--size", "32", "--channels", "3", "--batch", "128", "--rounds", "10"]
    full += ["--depth", "0", "--width", "1"]
    found["classifiers"] = [
        (f"classifiers_{model}", [*_bench("classifiers", device), *full, "--model", model])
        for model in ("densenet", "inception", "resnet18")
    ]
    peer = ["--peer", str(args.peer.resolve())] if args.peer else []
    if peer:
        step = [*_bench("step", device), *peer, "--pairs", "10", "--steps", "10"]
        found["peer"] = [("peer_step_bf16", step), ("peer_step_fp32", [*step, "--precision", "fp32"])]
    if args.data:
        scene = ["--datadir", str(args.data.resolve() / "llff" / "fern")]
        trained = WORK / out.name / "fern_for_render"
        train = ["scripts/train_nerf.py", "--config", "fern.txt", *scene, "--device", device, "--max_seconds", "180"]
        train += ["--basedir", str(trained.parent), "--expname", trained.name, "--no_final_eval", "--i_video", "0"]
        render = [*_bench("render", device), "--run", str(trained), *scene, *peer, "--pixels", "65536", "--pairs", "5"]
        found["render"] = [("render_training", train), ("render", render)]
        found["preset"] = [command for variant in ("plain", "row") for command in _preset(variant, scene, device, out)]
    return found


def _bench(name: str, device: str) -> list[str]:
    return [f"benchmarks/{name}.py", "--device", device]


def _steps(name: str, config: str, steps: int, device: str, precisions: Sequence[str] = PRECISIONS) -> list[Command]:
    """Commands that measure a step and the cost of equilibration, for each backend."""
    found = []
    for precision in precisions:
        for backend in BACKENDS:
            words = [*_bench("equilibration", device), "--config", config, "--backend", backend]
            words += ["--precision", precision, "--rounds", "20", "--steps", str(steps)]
            found.append((f"{name}_{backend}_{precision}", words))
    return found


def _preset(variant: str, scene: list[str], device: str, out: Path) -> list[Command]:
    """Command that trains the fast preset on fern at factor 4 for a minute: seconds to 25 dB."""
    name = f"preset_fern_factor4_{variant}"
    words = [*_bench("time_to_psnr", device), *scene, "--factor", "4", "--minutes", "1", "--slice", "60"]
    words += ["--at", "5", "10", "15", "20", "25", "30", "45", "--goals", "24", "25", "--pixels", "0"]
    words += ["--work", str(WORK / out.name / name), "--out", str(out / "curves" / f"{name}.txt")]
    return [(name, words if variant == "plain" else [*words, "--equilibrate", variant])]


def _tests() -> list[str]:
    return [path for path in TESTS if (sides.ROOT / path).is_file()]


def run_part(commands: Sequence[Command], out: Path, device: torch.device, seconds: float) -> list[str]:
    """Run commands without results until the time limit; returns the names that are still missing."""
    until = time.monotonic() + seconds
    for name, words in commands:
        result = out / f"{name}.txt"
        left = until - time.monotonic()
        if result.is_file() or left < LEAST:
            continue
        print(f"{name}: python {' '.join(words)}", flush=True)
        code, printed, errors = _run(words, left)
        header = f"# {sides.machine_words(device)}, commit {sides.commit()}, torch {torch.__version__}\n"
        failed = result.with_suffix(".failed.txt")
        if code == 0:
            failed.unlink(missing_ok=True)
            result.write_text(_without_folders(header + printed), encoding="utf-8")
        else:
            why = f"# it took longer than {left:.0f} s" if code is None else f"# it ended with {code}"
            text = "\n".join([header + printed, why, *errors.splitlines()[-15:]])
            failed.write_text(_without_folders(text) + "\n", encoding="utf-8")
        print(_without_folders(printed or errors).strip().rpartition("\n")[2], flush=True)
    return [name for name, _ in commands if not (out / f"{name}.txt").is_file()]


def _run(words: Sequence[str], seconds: float) -> tuple[int | None, str, str]:
    """Exit code (None: stopped at the time limit), standard output and standard error of a command."""
    path = os.pathsep.join(filter(None, [str(sides.ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "ENERF_COMMIT": sides.commit()}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, *words], cwd=sides.ROOT, env=environment, start_new_session=True, **pipes
    ) as process:
        try:
            printed, errors = process.communicate(timeout=seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as stopped:
            os.killpg(process.pid, signal.SIGKILL)  # with its child processes
            printed, errors = process.communicate()
            if isinstance(stopped, KeyboardInterrupt):
                raise
            return None, printed, errors
        return process.returncode, printed, errors


def _without_folders(text: str) -> str:
    """The text without the names of local folders."""
    return re.sub(r"(?<![\w.:/])/(?:[\w.+-]+/)+", "", text.replace(f"{sides.ROOT}/", ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("part", help="all, tests, fern, paper, fast, scaling, peer, render or preset")
    parser.add_argument("--data", type=Path, default=os.environ.get("ENERF_DATA"), help="folder with llff/fern")
    parser.add_argument("--peer", type=Path, help="a checkout of yenchenlin/nerf-pytorch")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="most minutes of a part")
    parser.add_argument("--device", default="cuda", help="another device only to test this command")
    args = parser.parse_args()
    args.data = Path(args.data) if args.data else None
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError("no CUDA GPU was found here: GPU figures need one")
    device = ours.device_of(args.device)
    slug = re.sub(r"\W+", "_", sides.machine_words(device).lower()).strip("_")
    out = (args.out or sides.ROOT / "benchmarks" / "results" / f"gpu_{slug}").resolve()
    table = parts(args, args.device, out)
    if args.part != "all" and args.part not in table:
        raise InputError(f"part {args.part!r} is not one of all, {', '.join(table)} (render and preset need --data, "
                         "peer needs --peer)")  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    missing = []
    for name in table if args.part == "all" else (args.part,):
        missing += run_part(table[name], out, device, args.minutes * 60)
    print(f"missing: {', '.join(missing)}; the same command continues with them" if missing else "all there")
    return 1 if missing else 0


if __name__ == "__main__":
    sides.enter(main)
