"""The parts of ``gpu_first.py``: commands that test and measure on a GPU, in the order of their value.

Imports the standard library only, so that a part that cannot run does not stop the list.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

BACKENDS = ("torch", "compiled", "triton")
TESTS = (
    "tests/fields/backends/test_every_device.py",
    "tests/fields/backends/test_triton_dense.py",
    "tests/fields/backends/test_triton_hashgrid.py",
    "tests/tasks/test_config_steps.py",
    "tests/engine/test_cuda_graph.py",
    "tests/datasets/scenes/test_cameras.py",
    "tests/datasets/scenes/test_rays.py",
)
# Without the project's own options of pytest, which need plugins; the interpreter's tests say nothing of a GPU.
PYTEST = (
    "-m",
    "pytest",
    "-q",
    "-rfEs",
    "--tb=short",
    "-p",
    "no:cacheprovider",
    "-o",
    "addopts=--import-mode=importlib",
)
CHOSEN = ("-W", "default", "--disable-warnings", "-m", "not slow and not data", "-k", "not interpreter")
CUT_TESTS = ("tests/engine/test_cuda_graph.py",)
OUTSIDE = 12.0  # seconds of a command beside its training: start of Python, reading of the scene, evaluation

Outputs = Mapping[str, str]  # what earlier parts printed


@dataclass(frozen=True)
class Setting:
    """What the commands depend on.

    Attributes
    ----------
    device
        ``cuda``, or another to test the commands.
    scene
        Folder of an LLFF scene.
    factors
        Its downsampling in time to PSNR, and in the comparison: 4 and 8 as published, less for small scenes.
    peer
        Checkout of nerf-pytorch, or None.
    work
        Folder of runs.
    cut
        Whether sizes are so small that figures say nothing.
    """

    device: str
    scene: Path
    factors: tuple[int, int]
    peer: Path | None
    work: Path
    cut: bool = False


@dataclass(frozen=True)
class Part:
    """A command of Python, and its share of the time.

    Attributes
    ----------
    name, what
        Key of its result, and one line that says what it shows.
    least, most
        Seconds without which it is not started, and after which it is stopped.
    words
        Seconds that it has, and what earlier parts printed -> arguments of Python.
    is_first
        Whether it is among those for which time is kept while earlier ones run.
    folder
        Folder of its runs, which is emptied before it starts.
    picture
        A file in it that is kept beside the results.
    """

    name: str
    what: str
    least: float
    most: float
    words: Callable[[float, Outputs], Sequence[str]]
    is_first: bool = True
    folder: Path | None = None
    picture: str = ""


def parts(s: Setting) -> list[Part]:
    """All parts, the most valuable first."""
    return [*_first(s), *_further(s)]


def _first(s: Setting) -> list[Part]:
    """The parts that fit eight minutes."""
    workers = ("-n", "8", "--dist", "worksteal") if find_spec("xdist") and not s.cut else ()
    tests = (*PYTEST, *CHOSEN, *workers, *(CUT_TESTS if s.cut else TESTS))
    steps = _bench(s, "step", *_peer(s), "--pairs", "10", "--steps", "10", "--no_errors", "--backends", *BACKENDS)
    paper = (*steps, "--config", "paper/fern.txt", "--pairs", "6", "--steps", "4")
    equilibration = _bench(s, "equilibration", "--rounds", "20", "--steps", "10")
    preset, comparison = s.work / "preset", s.work / "comparison"
    return [
        Part("tests", "every backend against its reference, every configuration one step", 40, 150, _fixed(tests)),
        Part("floor", "speed of torch.mm and of copies", 10, 30, _fixed(_bench(s, "floor"))),
        Part("fern", "steps of fern.txt: our backends, nerf-pytorch, the floor", 40, 110, _fixed(_cut(s, steps))),
        Part("paper", "the same for paper/fern.txt", 25, 70, _fixed(_cut(s, paper))),
        Part("equilibration", "cost of equilibration, beside A/A", 20, 50, _fixed(_cut(s, equilibration))),
        Part("preset", "seconds of the fast preset to 25 dB", 35, 100, _preset(s), True, preset, "time_to_psnr.png"),
        Part(
            "comparison", "NeRF and E-NeRF of equal steps", 40, 600, _comparison(s), True, comparison, "fern/curves.png"
        ),
        Part("frames", "frames/s of the run of the preset", 20, 40, _fixed(_frames(s, preset / "enerf"))),
    ]


def _further(s: Setting) -> list[Part]:
    """Parts for a longer time."""
    fp32 = ("--precision", "fp32")
    steps = _bench(s, "step", *_peer(s), "--pairs", "10", "--steps", "5", "--backends", *BACKENDS, *fp32)
    fast = _bench(s, "step", "--config", "fast/fern.txt", "--pairs", "10", "--steps", "20", "--no_errors")
    fast = (*fast, "--backends", *BACKENDS)
    grid = _bench(s, "grid", "--points", "4096" if s.cut else str(1 << 21))
    cost = _bench(s, "equilibration", "--config", "fast/fern.txt", "--rounds", "20", "--steps", "20")
    paper = (*_frames(s, s.work / "comparison" / "fern" / "plain_seed0"), *_peer(s))
    scaling = s.work / "scaling"
    growth = _bench(s, "scaling", "--limit", "60", "--out", str(scaling), *(("--quick",) if s.cut else ()))
    return [
        Part("fern_fp32", "steps of fern.txt in fp32; errors against float64", 60, 240, _fixed(_cut(s, steps)), False),
        Part("fast", "steps of fast/fern.txt: our backends", 30, 120, _fixed(_cut(s, fast)), False),
        Part("grid", "points/s of the hash encoding", 20, 90, _fixed(grid), False),
        Part("equilibration_fast", "cost of equilibration in the fast preset", 20, 90, _fixed(_cut(s, cost)), False),
        Part("frames_paper", "frames/s of the paper's model, beside nerf-pytorch", 20, 90, _fixed(paper), False),
        *(_classifier(s, model) for model in ("densenet", "inception", "resnet18")),
        Part("scaling", "time and memory against sizes", 60, 540, _fixed(growth), False, scaling, "scaling.png"),
    ]


def _fixed(words: Sequence[str]) -> Callable[[float, Outputs], Sequence[str]]:
    return lambda seconds, outputs: words


def _bench(s: Setting, name: str, *words: str) -> tuple[str, ...]:
    return (f"benchmarks/{name}.py", "--device", s.device, *words)


def _peer(s: Setting) -> tuple[str, ...]:
    return ("--peer", str(s.peer)) if s.peer else ()


def _cut(s: Setting, words: Sequence[str]) -> tuple[str, ...]:
    """The command with sizes that a CPU manages, if they are to be cut."""
    if not s.cut:
        return tuple(words)
    times = ("--rounds", "2") if "benchmarks/equilibration.py" in words else ("--pairs", "2")
    return (*words, "--rays", "16", "--steps", "1", *times)


def _preset(s: Setting) -> Callable[[float, Outputs], Sequence[str]]:
    """The fast preset for a minute, or as long as there is time; all pixels of the test views."""
    words = _bench(s, "time_to_psnr", "--datadir", str(s.scene), "--factor", str(s.factors[0]), "--pixels", "0")
    words = (*words, "--slice", "60", "--goals", "24", "25", "--work", str(s.work / "preset"))
    at = ("3", "5", "7", "10", "14", "20", "28", "40")
    if s.cut:
        return _fixed((*words, "--minutes", "0.03", "--rays", "64", "--at", "1"))
    return lambda seconds, outputs: (*words, "--at", *at, "--minutes", f"{min(60.0, seconds - 2 * OUTSIDE) / 60:.2f}")


def _comparison(s: Setting) -> Callable[[float, Outputs], Sequence[str]]:
    """NeRF and E-NeRF of ``fern.txt``, of as many steps as fit the time by the measured cost of a step."""
    words = ("scripts/compare_nerf.py", "--config", "fern.txt", "--methods", "plain,equilibrate", "--device", s.device)
    words += ("--datadir", str(s.scene), "--factor", str(s.factors[1]), "--expname", "fern")
    words += ("--basedir", str(s.work / "comparison"), "--i_img", "0", "--i_video", "0", "--i_testset", "0")
    words += ("--i_spectrum", "0", "--i_weights", "100000", "--lrate_schedule", "cosine")
    if s.cut:
        return _fixed((*words, "--N_rand", "16", "--N_iters", "2", "--i_eval", "1", "--eval_rays", "16"))

    def sized(seconds: float, outputs: Outputs) -> Sequence[str]:
        each = max(5.0, (seconds - 2 * OUTSIDE) / 2)
        steps = steps_within(0.9 * each, outputs.get("equilibration", ""))
        return (*words, "--N_iters", str(steps), "--max_seconds", f"{each:.0f}", "--i_eval", str(max(1, steps // 8)))

    return sized


def steps_within(seconds: float, printed: str) -> int:
    """Number of equilibrated steps in a time, by the output of ``equilibration.py``; 10 ms a step without one.

    >>> steps_within(10, "equilibrated: 2.50 ms a step (2.40..2.60), 409600 rays/s")
    4000
    """
    found = re.search(r"^equilibrated: ([\d.]+) ms a step", printed, re.MULTILINE)
    milliseconds = float(found[1]) if found else 10.0
    return max(1, int(seconds * 1000 / max(milliseconds, 0.01)))


def _frames(s: Setting, run: Path) -> tuple[str, ...]:
    """All pixels of a test view of a run."""
    pixels = "64" if s.cut else "10000000"
    return _bench(s, "render", "--run", str(run), "--datadir", str(s.scene), "--pixels", pixels, "--pairs", "5")


def _classifier(s: Setting, model: str) -> Part:
    words = _bench(s, "classifiers", "--model", model, "--precision", "bf16", "--size", "32", "--channels", "3")
    full = ("--batch", "128", "--rounds", "10", "--depth", "0", "--width", "1")
    small = ("--batch", "8", "--rounds", "2", "--steps", "1", "--width", "0.1", "--methods", "bn,bn+e")
    words = (*words, *(small if s.cut else full))
    return Part(f"classifier_{model}", f"steps of {model} by normalization", 30, 180, _fixed(words), False)
