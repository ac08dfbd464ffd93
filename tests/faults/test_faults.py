"""A small sample of each part of the fault campaign; ``python -m tests.faults`` is the whole of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="processes are watched in /proc")]


@pytest.mark.timeout(1200)  # of busy machines; half a minute each on a core of its own
@pytest.mark.parametrize(
    ("part", "cases", "options"),
    [
        ("kills", "^nerf$|classifier mixup", ["--count", "10"]),
        ("disk", "shape sine", ["--count", "10"]),
        ("writers", "classifier mixup", ["--count", "6"]),
        ("damage", "^nerf$", ["--count", "12"]),
        ("sweeps", "", ["--count", "3"]),
        ("soak", "shape", ["--minutes", "0.2"]),
    ],
)
def test_nothing_is_lost(part, cases, options, tmp_path):
    command = [sys.executable, "-m", "tests.faults", part, "--only", cases, *options, "--seed", "5"]
    where = ["--json", str(tmp_path / "figures.json"), "--work", str(tmp_path / "work")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, *where], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=1100
    )
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    figures = json.loads((tmp_path / "figures.json").read_text())[part]
    assert figures["total"] > 0
    assert figures["wrong"] == []
