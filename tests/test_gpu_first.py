"""The driver of the GPU measurements, with parts that succeed, fail, hang and are killed; and all parts on a CPU."""

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enerf.core.errors import InputError

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "benchmarks"
# The driver with parts of its own, each a piece of Python: name -> code, least and most seconds.
FAKE = """
import json, sys
from pathlib import Path
import gpu_first, gpu_parts
from enerf.cli import app
given = json.loads(sys.argv.pop(1))
gpu_first.machine = lambda environment: {"gpu": None, "torch": "none"}
gpu_first.scene_of = lambda *_: (Path("scene"), (1, 1))
gpu_first.GRACE = 1.0
gpu_parts.parts = lambda setting: [
    gpu_parts.Part(name, "what", least, most, lambda *_, code=code: ["-c", code])
    for name, (code, least, most) in given["parts"].items()
]
app.run(gpu_first.main)
"""
GOOD = ["print('ratio=2.50 noise=2.25..3')", 0.1, 60]
WAITS = ["import time; print('begun', flush=True); time.sleep(30)", 0.1, 60]


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        return {name: importlib.import_module(name) for name in ("gpu_first", "gpu_parts", "gpu_bundle")}
    finally:
        sys.path.remove(str(FOLDER))


def started(tmp_path: Path, parts: dict[str, list], *words: str, **settings: str) -> subprocess.Popen:
    """The driver with fake parts, started; results are in ``tmp_path / out``."""
    given = json.dumps({"parts": parts})
    options = ["--device", "cpu", "--bundle", str(tmp_path / "bundle"), "--work", str(tmp_path / "work"), *words]
    environment = {name: value for name, value in os.environ.items() if name != "OUT"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)]), "OUT": str(tmp_path / "out"), **settings}
    command = [sys.executable, "-c", FAKE, given, *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ran(tmp_path: Path, parts: dict[str, list], *words: str) -> tuple[int, str, dict]:
    """Exit code and output of the driver, and its results."""
    with started(tmp_path, parts, *words) as process:
        printed, errors = process.communicate(timeout=250)
    assert "Traceback" not in errors
    return process.returncode, printed + errors, results(tmp_path)


def results(tmp_path: Path) -> dict:
    return json.loads((tmp_path / "out" / "gpu.json").read_text(encoding="utf-8"))


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# Whole seconds: their sums are exact.
sizes = st.tuples(st.integers(1, 60), st.integers(0, 100), st.booleans())


@given(st.lists(sizes, min_size=1, max_size=8), st.integers(0, 600))
def test_time_is_never_exceeded_and_the_first_parts_keep_their_least(modules, drawn, budget):
    parts = [modules["gpu_parts"].Part("", "", a, a + b, lambda *_: (), is_first=first) for a, b, first in drawn]
    left, kept = budget, [part for part in parts if part.is_first]
    for i, part in enumerate(parts):
        seconds = modules["gpu_first"].seconds_for(part, left, parts[i + 1 :])
        assert seconds == 0 or part.least <= seconds <= min(part.most, left)
        assert (seconds == 0) == (left < part.least)
        if all(each.is_first for each in parts) and sum(each.least for each in kept) <= budget:
            assert seconds > 0
        left -= seconds
    assert left >= 0


def test_a_part_that_fails_or_hangs_does_not_stop_the_next(tmp_path):
    child = tmp_path / "child"
    hangs = (
        "import signal, subprocess, sys, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'])\n"
        f"pathlib.Path({str(child)!r}).write_text(str(other.pid)); print('begun', flush=True); time.sleep(100)"
    )
    parts = {
        "fails": ["print('before'); raise SystemExit(3)", 0.1, 60],
        "crashes": ["import os; print('said', flush=True); os.abort()", 0.1, 60],
        "hangs": [hangs, 0.1, 8],
        "good": GOOD,
        "long": ["", 1e6, 2e6],
    }
    code, printed, found = ran(tmp_path, parts)
    assert code == 1
    states = {name: part["status"] for name, part in found["parts"].items()}
    expected = {"fails": "failed", "crashes": "failed", "hangs": "stopped", "good": "done", "long": "skipped"}
    assert states == expected
    limits = {name: part.get("limit") for name, part in found["parts"].items()}
    assert limits == {"fails": 60, "crashes": 60, "hangs": 8, "good": 60, "long": None}
    assert found["parts"]["fails"]["exit"] == 3
    assert [found["parts"][name]["output"] for name in ("fails", "crashes", "hangs")] == [
        "before\n",
        "said\n",
        "begun\n",
    ]
    assert found["parts"]["good"]["ratio"] == {"value": 2.5, "low": 2.25, "high": 3.0}
    assert "were left" in found["parts"]["long"]["reason"]
    assert not is_running(int(child.read_text()))
    assert found["status"] == "finished"
    assert "begun" in (tmp_path / "out" / "gpu.log").read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["gpu.json", "gpu.log"]
    assert all(name in printed for name in parts)


def test_what_is_done_is_not_measured_again_unless_asked_for(tmp_path):
    mark = tmp_path / "mark"
    counts = [f"open({str(mark)!r}, 'a').write('x')", 0.1, 60]
    parts = {"counts": counts, "fails": ["raise SystemExit(1)", 0.1, 60]}
    ran(tmp_path, parts)
    (tmp_path / "out" / "gpu.json").unlink()  # the folder of the output may be new each time
    code, _, found = ran(tmp_path, {"counts": counts, "fails": GOOD})
    assert (code, mark.read_text()) == (0, "x")
    assert [part["status"] for part in found["parts"].values()] == ["done", "done"]
    ran(tmp_path, parts, "--again", "--only", "counts")
    assert mark.read_text() == "xx"
    ran(tmp_path, parts, "--cut")  # another measurement
    assert mark.read_text() == "xxx"
    (tmp_path / "bundle" / "nerf-pytorch").mkdir(parents=True)
    (tmp_path / "bundle" / "nerf-pytorch" / "run_nerf.py").write_text("")
    assert ran(tmp_path, parts, "--cut")[2]["nerf-pytorch"] is True  # with a peer, which was not there before
    assert mark.read_text() == "xxxx"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_valid_results(number, tmp_path):
    process = started(tmp_path, {"good": GOOD, "waits": WAITS, "never": GOOD})
    running = tmp_path / "out" / "running.txt"
    until = time.monotonic() + 120
    while not (running.is_file() and "begun" in running.read_text()) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    process.communicate(timeout=120)
    found = results(tmp_path)
    assert found["parts"]["good"]["status"] == "done"
    assert "never" not in found["parts"]
    if number == signal.SIGKILL:
        assert (found["status"], found["parts"]["waits"]["status"]) == ("running", "running")
        assert running.read_text() == "begun\n"
    else:
        assert process.returncode == 130
        assert (found["status"], found["parts"]["waits"]["status"]) == ("interrupted", "interrupted")
        assert found["parts"]["waits"]["output"] == "begun\n"


def driver(*words: str) -> subprocess.CompletedProcess:
    """The program as its users start it."""
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(FOLDER / "gpu_first.sh"), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)


def test_a_dry_run_prints_all_parts_and_their_seconds_within_the_budget(modules, tmp_path):
    done = driver("--dry_run", "--bundle", str(tmp_path))
    assert done.returncode == 0, done.stderr
    setting = modules["gpu_parts"].Setting("cuda", tmp_path, (4, 8), None, tmp_path)
    lines = done.stdout.splitlines()
    for part in modules["gpu_parts"].parts(setting):
        assert any(line.startswith(f"{part.name} ") for line in lines), part.name
    total, budget = map(float, re.search(r"together +(\d+) s of (\d+)", done.stdout).groups())
    assert total <= budget == 480
    first = [part for part in modules["gpu_parts"].parts(setting) if part.is_first]
    assert sum(part.least for part in first) < 300  # none is skipped, even if the machine is slow to prepare


def test_mistakes_are_one_sentence(tmp_path):
    done = driver("--only", "tests", "nothing", "--dry_run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: option --only: found 'nothing', expected some of tests, floor, ")
    wheels = tmp_path / "bundle" / "wheels"
    wheels.mkdir(parents=True)
    (wheels / "enerf_absent-1-py3-none-any.whl").write_bytes(b"no archive")
    with started(tmp_path, {"good": GOOD}) as process:
        _, errors = process.communicate(timeout=250)
    assert process.returncode == 2
    assert re.fullmatch(r"error: \S+wheels: its wheels cannot be installed: [^\n]+\n", errors)


def test_only_packages_that_are_missing_are_installed_and_into_a_folder_of_their_own(modules, tmp_path):
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    for name in ("enerf_absent", "numpy"):
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "here = True\n")
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            wheel.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
    for _ in range(2):  # the second time it is there
        assert modules["gpu_first"].install(wheels, site) == ["enerf_absent-1.0-py3-none-any.whl"]
        assert (site / "enerf_absent" / "__init__.py").is_file()
        assert not (site / "numpy").exists()


def test_every_package_of_the_commands_is_collected_or_known_to_be_there(modules):
    bundle = modules["gpu_bundle"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.match(r"[\w-]+", text)[0] for text in project["optional-dependencies"]["app"]}
    known = {_plain(name) for name in (*bundle.names_of(every=True), *bundle.THERE)}
    for name in sorted(wanted - bundle.THERE):  # what is there has what it needs
        needed = {_plain(name)} | {
            _plain(re.match(r"[\w.-]+", text)[0])
            for text in metadata.requires(name) or ()
            if "extra ==" not in text and "platform" not in text and "python_version" not in text
        }
        assert needed <= known, f"{name} needs {sorted(needed - known)}"
    constraints = (ROOT / "scripts" / "constraints.txt").read_text(encoding="utf-8")
    assert all("==" in bundle.pinned(name, constraints) for name in bundle.names_of(every=True))


def test_a_scene_and_a_peer_are_copied_without_what_is_not_used(modules, tmp_path):
    scene, peer, to = tmp_path / "scene", tmp_path / "peer", tmp_path / "to"
    for folder in (scene / "images", scene / "images_4", scene / "images_8", peer / "configs", peer / "imgs"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
    with pytest.raises(InputError, match=r"has no poses_bounds\.npy"):
        modules["gpu_bundle"].copy_scene(scene, to)
    with pytest.raises(InputError, match=r"has no run_nerf\.py"):
        modules["gpu_bundle"].copy_peer(peer, to)
    to.mkdir()
    (scene / "poses_bounds.npy").write_text("poses")
    (peer / "run_nerf.py").write_text("code")
    modules["gpu_bundle"].copy_scene(scene, to)
    modules["gpu_bundle"].copy_peer(peer, to)
    assert {path.name for path in to.iterdir()} == {
        "poses_bounds.npy",
        "images_4",
        "images_8",
        "configs",
        "run_nerf.py",
    }
    assert modules["gpu_bundle"].bytes_of(to) == len("posescode") + 3 * len("content")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_parts_run_on_a_cpu_with_cut_sizes(tmp_path):
    out = tmp_path / "out"
    words = ["--device", "cpu", "--cut", "--minutes", "60", "--bundle", str(tmp_path), "--out", str(out)]
    words += ["--work", str(tmp_path / "work")]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", str(FOLDER / "gpu_first.sh"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1100, check=False)
    found = json.loads((out / "gpu.json").read_text(encoding="utf-8"))
    assert {name: part["status"] for name, part in found["parts"].items()} == dict.fromkeys(found["parts"], "done")
    assert done.returncode == 0, done.stderr
    assert len(list(out.iterdir())) <= 8  # as many files as may come back from a machine
