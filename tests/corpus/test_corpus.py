"""A sample of the corpus of hostile inputs without findings, and the judge finds what it looks for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enerf.core import io
from tests.corpus import runner
from tests.corpus.__main__ import chosen
from tests.corpus.all_cases import CASES
from tests.corpus.registry import Case, Command
from tests.corpus.runner import Result

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = 220


def test_cases_have_different_names_and_a_sample_depends_on_its_seed_alone():
    assert len({case.name for case in CASES}) == len(CASES) > 1700
    assert chosen("", 50, 1) == chosen("", 50, 1) != chosen("", 50, 2)
    assert len(chosen("^archive/", 9, 0)) == 9


@pytest.mark.parametrize(
    ("result", "marks"),
    [
        (Result(0, "results: out", 1.0, 9, ""), ["EXPECT"]),
        (Result(2, "error: a sentence", 1.0, 9, ""), []),
        (Result(5, "error: 1 of 2 runs failed; plain, seed 0: no memory", 1.0, 9, ""), []),
        (Result(5, "error: a sentence", 1.0, 9, ""), ["CODE5"]),
        (Result(1, "Traceback (most recent call last)\n", 1.0, 9, ""), ["TRACEBACK"]),
        (Result(-11, "", 1.0, 9, ""), ["CODE-11"]),
        (Result(-9, "", 61.0, 9, "HANG"), ["HANG"]),
        (Result(2, "error: a sentence", 1.0, 3 << 30, ""), ["MEMORY"]),
    ],
)
def test_what_counts_as_a_finding(result, marks):
    assert runner._marks_of_output(result, Case("a", "refuse", lambda folder: Command("", ()))) == marks


def test_files_tell_of_changed_inputs_escapes_leftovers_and_commands_that_ran(tmp_path):
    command, before = Command("train_nerf.py", ()), {"in/a": "1"}
    assert runner._marks_of_files(command, before, {"in/a": "1", "out/x": "2"}) == []
    assert runner._marks_of_files(command, before, {"in/a": "2"}) == ["CHANGED"]
    assert runner._marks_of_files(command, before, {**before, "escaped/x": "2"}) == ["ESCAPED"]
    assert "EXECUTED" in runner._marks_of_files(command, before, {**before, "out/enerf-executed": "2"})
    with io.atomic_path(tmp_path / "out" / "a.pt") as temporary:
        temporary.touch()
        name = str(temporary.relative_to(tmp_path))
    for left in (name, f"in/.images_8.{'0' * 32}/a.png"):
        assert "LEFT" in runner._marks_of_files(command, before, {**before, left: "2"})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sample_of_the_corpus_has_no_findings(tmp_path):
    command = [sys.executable, "-m", "tests.corpus", "--quiet", "--sample", str(SAMPLE), "--limit", "180"]
    words = [*command, "--work", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
