"""What matters on a GPU, in one command and at most eight minutes; started by ``bash benchmarks/gpu_first.sh``.

    bash benchmarks/gpu_first.sh [--bundle FOLDER] [--out FOLDER] [--minutes 8] [--only PART ...] [--dry_run]

``FOLDER`` is made by ``gpu_bundle.py`` on a computer with a network; it may contain ``wheels`` of packages that are
missing here, ``llff/fern`` and ``nerf-pytorch``. Without a scene one is generated; without nerf-pytorch only our side
is measured. The parts are those of ``gpu_parts.py``, the most valuable first. Each gets what time is left, less what
those after it need at least; what does not fit is skipped. ``gpu.json`` in the output folder is rewritten after each
part, ``gpu.log`` has everything that was printed. A part that is done is not measured again, as long as the code, these
options, the scene and the peer are the same; ``--again`` measures it again. Runs and caches of compilers are in
``logs/gpu_first``.

Exit codes: 0 if all parts are done or skipped, 1 if one failed, 2 without a GPU, 130 if interrupted.
"""

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gpu_parts
from gpu_parts import Part, Setting

from enerf.cli import app
from enerf.core import io
from enerf.core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
GRACE = 5.0  # seconds between asking a part to end and ending it
KEPT = 20_000  # characters of a part's output in the results
DONE, FAILED, STOPPED, SKIPPED, RUNNING = "done", "failed", "stopped", "skipped", "running"
CACHES = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "ENERF_CACHE": "kernels"}
# Prints what the figures depend on.
PROBE = """
import json, platform, torch
found = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
try:
    import triton
    found["triton"] = triton.__version__
except ImportError:
    found["triton"] = None
gpu = torch.cuda.is_available()
found["gpu"] = torch.cuda.get_device_name() if gpu else None
found["gpu_gigabytes"] = round(torch.cuda.mem_get_info()[1] / 1e9, 1) if gpu else None
found["capability"] = ".".join(map(str, torch.cuda.get_device_capability())) if gpu else None
print(json.dumps(found))
"""


class Results:
    """Results of all parts in one JSON file, which is complete and valid at any time."""

    def __init__(self, out: Path, state: Path, content: dict[str, Any]) -> None:
        self.content, self._files, self._log = content, (out / "gpu.json", state), out / "gpu.log"
        self.parts: dict[str, dict[str, Any]] = content.setdefault("parts", {})

    def set(self, name: str, **values: Any) -> None:
        """Set values of a part, and write the files."""
        self.parts[name] = {**self.parts.get(name, {}), **values}
        self.write()

    def write(self) -> None:
        """Write the files, each atomically."""
        for path in self._files:
            io.write_json(path, self.content)

    def log(self, text: str) -> None:
        """Append to the log file."""
        with io.os_errors_as_input_errors(self._log), self._log.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def outputs(self) -> dict[str, str]:
        """What the parts that are done have printed."""
        return {name: part.get("output", "") for name, part in self.parts.items() if part.get("status") == DONE}


def seconds_for(part: Part, left: float, later: Sequence[Part]) -> float:
    """Seconds that a part gets of those that are left, 0 if it does not fit.

    Later parts that come first in importance keep their least, in their order, as long as it fits.

    >>> first, second = (Part("", "", least, 100, lambda *_: ()) for least in (10, 20))
    >>> [seconds_for(first, left, [second]) for left in (200, 90, 30, 25, 5)]
    [100, 70, 10, 25, 0]
    """
    if left < part.least:
        return 0
    kept: float = 0
    for each in later:
        if each.is_first and part.least + kept + each.least <= left:
            kept += each.least
    return min(part.most, left - kept)


def run_parts(
    parts: Sequence[Part], results: Results, budget: float, out: Path, environment: Mapping[str, str]
) -> None:
    """Run the parts that are not done, within ``budget`` seconds; every result is written at once."""
    began = time.monotonic()
    for i, part in enumerate(parts):
        if results.parts.get(part.name, {}).get("status") == DONE:
            _say(f"{part.name}: done before")
            continue
        later = [each for each in parts[i + 1 :] if results.parts.get(each.name, {}).get("status") != DONE]
        left = budget - (time.monotonic() - began)
        seconds = seconds_for(part, left, later)
        if not seconds:
            reason = f"it needs {part.least:.0f} s, and {max(0.0, left):.0f} s were left"
            results.set(part.name, what=part.what, status=SKIPPED, reason=reason)
            _say(f"{part.name}: skipped: {reason}")
            continue
        run_part(part, seconds, results, out, environment)


def run_part(part: Part, seconds: float, results: Results, out: Path, environment: Mapping[str, str]) -> None:
    """Run one part for at most ``seconds``; its output is in ``running.txt`` until it ends, then in the results."""
    words = [str(word) for word in part.words(seconds, results.outputs())]
    command = without_folders("python " + shlex.join(words))
    results.set(part.name, what=part.what, status=RUNNING, command=command, limit=round(seconds))
    _say(f"{part.name}: at most {seconds:.0f} s: {command}")
    if part.folder is not None:
        shutil.rmtree(part.folder, ignore_errors=True)
    began, printed = time.monotonic(), out / "running.txt"
    code: int | None = None
    status = "interrupted"
    try:
        code, ended = run_command(words, seconds, printed, environment)
        status = DONE if code == 0 else FAILED if ended else STOPPED
    finally:
        text = without_folders(printed.read_text(encoding="utf-8", errors="replace")) if printed.is_file() else ""
        printed.unlink(missing_ok=True)
        took = time.monotonic() - began
        results.log(f"== {part.name}: {command}\n{text}\n== {part.name}: {status} after {took:.1f} s\n")
        figures = {"ratio": ratio_of(text), "output": text[-KEPT:]}
        results.set(part.name, status=status, exit=code, seconds=round(took, 1), **figures)
    if part.folder is not None and part.picture:
        with suppress(OSError):
            shutil.copy(part.folder / part.picture, out / f"{part.name}.png")
    last = text.strip().rpartition("\n")[2][-200:]
    _say(f"{part.name}: {status} after {took:.0f} s: {last}")


def run_command(
    words: Sequence[str], seconds: float, printed: Path, environment: Mapping[str, str]
) -> tuple[int | None, bool]:
    """Run Python and write all that it prints to a file; returns its exit code, and whether it ended by itself.

    At the time limit, and if this process is interrupted, it is ended with all processes that it has started.
    """
    with printed.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(max(0.1, seconds - GRACE)), True
        except subprocess.TimeoutExpired:
            return _ended(process), False
        except KeyboardInterrupt:
            _ended(process)
            raise
        finally:
            with suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # what a part has left behind


def _ended(process: "subprocess.Popen[bytes]") -> int | None:
    """End a process and those that it has started: by termination, then by force; returns its exit code."""
    for number, wait in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
        with suppress(OSError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(wait)
    return None


def ratio_of(text: str) -> dict[str, float] | None:
    r"""The last ``ratio=X noise=LOW..HIGH`` of an output.

    >>> ratio_of("a\nratio=2.5 noise=2..3\n")
    {'value': 2.5, 'low': 2.0, 'high': 3.0}
    """
    number = r"([\d.]+(?:e[+-]?\d+)?)"
    found = re.findall(rf"^ratio={number} noise={number}\.\.{number}$", text, re.MULTILINE)
    return dict(zip(("value", "low", "high"), map(float, found[-1]), strict=True)) if found else None


def without_folders(text: str) -> str:
    """The text without the names of local folders."""
    return re.sub(r"(?<![\w.:/])/(?:[\w.+-]+/)+", "", text.replace(f"{ROOT}/", ""))


def install(wheels: Path, site: Path) -> list[str]:
    """Install the wheels of packages that are missing here into a folder of their own; returns their names.

    Nothing is downloaded, and nothing that is installed here is changed.

    Raises
    ------
    InputError
        If pip refuses a wheel.
    """
    missing = [path for path in sorted(wheels.glob("*.whl")) if not _is_installed(path.name.partition("-")[0])]
    names = [path.name for path in missing]
    stamp = site / "wheels.txt"
    if not missing or (stamp.is_file() and stamp.read_text(encoding="utf-8").split("\n") == names):
        return names
    shutil.rmtree(site, ignore_errors=True)
    options = ("-q", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check", "--target", str(site))
    words = ["-m", "pip", "install", *options, *map(str, missing)]
    _printed(words, os.environ, f"{wheels}: its wheels cannot be installed")
    stamp.write_text("\n".join(names), encoding="utf-8")
    return names


def _is_installed(name: str) -> bool:
    try:
        return bool(version(name.replace("_", "-")))
    except PackageNotFoundError:
        return False


def scene_of(bundle: Path, work: Path, cut: bool, environment: Mapping[str, str]) -> tuple[Path, tuple[int, int]]:
    """The scene of a bundle and its factors; without one a generated scene, of the size of fern at factor 4."""
    if not cut and (found := _scene_file(bundle)).is_file():
        return found.parent, (4, 8)
    folder = work / ("scene_small" if cut else "scene")
    size = ("64", "48") if cut else ("1008", "756")
    if not (folder / "poses_bounds.npy").is_file():
        words = ("-m", "enerf.cli.main", "generate", "scene", "--out", str(folder), "--views", "20")
        _printed([*words, "--width", size[0], "--height", size[1]], environment, "a scene cannot be generated")
    return folder, (1, 2)


def _scene_file(bundle: Path) -> Path:
    return bundle / "llff" / "fern" / "poses_bounds.npy"


def code_hash() -> str:
    """Hash of the files that decide the results; results of other code are not kept."""
    found = hashlib.sha256()
    for folder, pattern in (
        ("enerf", "**/*.py"),
        ("enerf", "**/*.cpp"),
        ("benchmarks", "*.py"),
        ("benchmarks", "*.cpp"),
        ("scripts", "*.py"),
        ("configs", "**/*.txt"),
        ("tests", "**/*.py"),
    ):
        for path in sorted((ROOT / folder).glob(pattern)):
            found.update(path.read_bytes())
    return found.hexdigest()[:12]


def _commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    with suppress(OSError):
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return os.environ.get("ENERF_COMMIT", "unknown")


def environment_of(work: Path) -> dict[str, str]:
    """The environment of all parts: our packages first, caches that a second run finds, no checks of shapes."""
    path = [str(ROOT), str(ROOT / "benchmarks"), str(work / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    made = {name: str(work / "cache" / folder) for name, folder in CACHES.items()}
    made |= {"PYTHONPATH": os.pathsep.join(path), "PYTHONUNBUFFERED": "1", "JAXTYPING_DISABLE": "1"}
    return {**os.environ, **made, "ENERF_COMMIT": _commit()}


def machine(environment: Mapping[str, str]) -> dict[str, Any]:
    """Versions, and the GPU's name, by a process of its own."""
    found: dict[str, Any] = json.loads(_printed(["-c", PROBE], environment, "torch cannot be used here"))
    return {**found, "cores": os.cpu_count()}


def _printed(words: Sequence[str], environment: Mapping[str, str], failure: str, seconds: float = 150.0) -> str:
    """What Python prints; raises ``InputError`` if it fails, or takes longer."""
    command = [sys.executable, *words]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, env=dict(environment), check=False
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{failure}: no answer within {seconds:.0f} s") from None
    if done.returncode != 0:
        reason = (done.stderr.strip() or "no message").rpartition("\n")[2]
        raise InputError(f"{failure}: {reason}")
    return done.stdout


def plan(parts: Sequence[Part], budget: float) -> str:
    """What would run and for how long at most, if every part took as long as it may."""
    lines, left = [], budget
    for i, part in enumerate(parts):
        seconds = seconds_for(part, left, parts[i + 1 :])
        words = "skipped" if not seconds else f"{seconds:4.0f} s"
        lines.append(f"{part.name:20} {words:>7}  {part.what}")
        if seconds:
            lines.append(" " * 30 + without_folders("python " + shlex.join(map(str, part.words(seconds, {})))))
        left -= seconds
    return "\n".join([*lines, f"{'together':20} {budget - left:4.0f} s of {budget:.0f}"])


def summary(results: Results) -> str:
    """The last lines of every part: what a reader sees first."""
    lines = []
    for name, part in results.parts.items():
        words = part.get("reason") or f"{part.get('seconds', 0)} s"
        lines.append(f"== {name}: {part['status']} ({words})")
        lines += [line[:300] for line in part.get("output", "").strip().split("\n")[-8:] if line]
    return "\n".join(lines)


def _say(text: str) -> None:
    print(text, flush=True)


def _arguments() -> argparse.Namespace:
    parser = app.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--bundle", type=app.path, default=ROOT / "data" / "gpu", help="made by gpu_bundle.py")
    parser.add_argument("--peer", type=app.path, help="a checkout of yenchenlin/nerf-pytorch; default: the bundle's")
    parser.add_argument(
        "--out", type=app.path, help="folder of gpu.json and gpu.log; default: $OUT, or results/gpu_NAME"
    )
    parser.add_argument("--work", type=app.path, default=ROOT / "logs" / "gpu_first", help="folder of runs and caches")
    parser.add_argument("--minutes", type=app.finite, default=8.0, help="most minutes of all parts together")
    parser.add_argument("--only", nargs="+", metavar="PART", help="these parts only")
    parser.add_argument("--again", action="store_true", help="also measure what is done")
    parser.add_argument("--dry_run", action="store_true", help="print what would run and how long at most")
    parser.add_argument("--device", default="cuda", help="another device only to test this command")
    parser.add_argument("--cut", action="store_true", help="tiny sizes, only to test this command")
    return parser.parse_args()


def _chosen(parts: Sequence[Part], names: Sequence[str] | None) -> list[Part]:
    known = [part.name for part in parts]
    if unknown := [name for name in names or () if name not in known]:
        raise InputError(f"option --only: found {unknown[0]!r}, expected some of {', '.join(known)}")
    return [part for part in parts if names is None or part.name in names]


def _opened(args: argparse.Namespace, found: dict[str, Any], given: dict[str, Any]) -> tuple[Results, Path]:
    """The results so far, if they are of this code, these options and this input, and the folder of the output."""
    slug = re.sub(r"\W+", "_", str(found["gpu"] or "cpu").lower()).strip("_")
    default = os.environ.get("OUT") or ROOT / "benchmarks" / "results" / f"gpu_{slug}"
    out = Path(args.out or default).resolve()
    state, key = args.work / "gpu.json", {"code": code_hash(), "device": args.device, "cut": args.cut, "machine": found}
    key |= given
    content: dict[str, Any] = {}
    for path in (out / "gpu.json", state):
        with suppress(OSError, ValueError):
            content = content or json.loads(path.read_text(encoding="utf-8"))
    if args.again or any(content.get(name) != value for name, value in key.items()):
        content = {}
    parts = {name: part for name, part in content.get("parts", {}).items() if part.get("status") == DONE}
    for folder in (out, args.work):
        with io.os_errors_as_input_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    return Results(out, state, {**key, "commit": _commit(), "status": RUNNING, "parts": parts}), out


def main() -> int:
    args, began = _arguments(), time.monotonic()
    args.work = args.work.resolve()
    peer = args.peer or args.bundle / "nerf-pytorch"
    peer = peer.resolve() if (peer / "run_nerf.py").is_file() else None
    if args.dry_run:
        wheels, has_scene = len(list((args.bundle / "wheels").glob("*.whl"))), _scene_file(args.bundle).is_file()
        _say(
            f"wheels: {wheels}; scene: {'fern' if has_scene else 'generated'}; nerf-pytorch: {'yes' if peer else 'no'}"
        )
        setting = Setting(args.device, args.bundle / "llff" / "fern", (4, 8), peer, args.work / "runs", args.cut)
        _say(plan(_chosen(gpu_parts.parts(setting), args.only), args.minutes * 60))
        return 0
    environment = environment_of(args.work)
    found = machine(environment)
    if args.device.startswith("cuda") and found["gpu"] is None:
        raise InputError("no CUDA GPU was found here: GPU figures need one")
    installed = install(args.bundle / "wheels", args.work / "site")
    scene, factors = scene_of(args.bundle, args.work, args.cut, environment)
    given = {"scene": scene.name, "factors": list(factors), "nerf-pytorch": peer is not None}
    results, out = _opened(args, found, given)
    results.content["installed"] = installed
    setting = Setting(args.device, scene, factors, peer, args.work / "runs", args.cut)
    parts = _chosen(gpu_parts.parts(setting), args.only)
    _say(f"{found['gpu'] or 'CPU'}, torch {found['torch']}, prepared in {time.monotonic() - began:.0f} s")
    ended = "interrupted"
    try:
        run_parts(parts, results, args.minutes * 60 - (time.monotonic() - began), out, environment)
        ended = "finished"
    finally:
        results.content |= {"status": ended, "seconds": round(time.monotonic() - began, 1)}
        results.write()
        _say(summary(results))
    return int(any(results.parts[part.name]["status"] in (FAILED, STOPPED) for part in parts))


if __name__ == "__main__":
    app.run(main)
