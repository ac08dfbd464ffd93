"""Tests of the command-line wrapper: exit codes, and one line on standard error."""

import argparse
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from enerf.cli import app, main
from enerf.core.errors import InputError, NotFinite, SomeFailed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _log():
    log = logging.getLogger("enerf")
    before = log.handlers[:], log.level
    yield
    log.handlers[:] = before[0]
    log.setLevel(before[1])


def left(main, capsys) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        app.run(main)
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a.txt: found x, expected y"), 2, "error: a.txt: found x, expected y\n"),
        (SomeFailed("1 of 2 runs failed", []), 5, "error: 1 of 2 runs failed\n"),
        (
            NotFinite("step 3: the loss is nan"),
            3,
            "error: training stopped: step 3: the loss is nan\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_each_end_has_its_code_and_its_line(error, code, line, capsys):
    assert left(raising(error), capsys) == (code, "", line)


def test_a_program_that_is_done_exits_with_what_it_returns(capsys):
    assert left(lambda: None, capsys) == (0, "", "")
    assert left(lambda: 7, capsys) == (7, "", "")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        app.run(raising(ZeroDivisionError()))


def test_log_lines_go_to_standard_error_and_warnings_say_so(capsys):
    def main() -> None:
        log = logging.getLogger("enerf")
        log.info("step %d", 3)
        log.warning("blank")
        log.debug("too much")
        print("the table")

    assert left(main, capsys) == (0, "the table\n", "step 3\nwarning: blank\n")


def test_running_twice_does_not_log_twice(capsys):
    left(lambda: None, capsys)
    assert left(lambda: logging.getLogger("enerf").info("once"), capsys)[2] == "once\n"


def test_a_closed_output_pipe_is_no_error():
    code = "from enerf.cli import app; app.run(lambda: [print('x' * 1000) for _ in range(1000)] and None)"
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with writer:
        writer.stdout.readline()
        writer.stdout.close()
        assert writer.stderr.read() == ""
    assert writer.returncode == 0


def test_train_nerf_reports_a_bad_option_in_one_line():
    words = [sys.executable, "scripts/train_nerf.py", "--N_rnad", "3"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown option 'N_rnad'; nearest known: N_rand, no_reload\n"


@pytest.mark.parametrize("words", [["train", ""], ["train", "", "--auto"], ["render", "run", "--path", ""]])
def test_an_empty_path_is_one_sentence(words):
    with pytest.raises(InputError, match="found an empty path, expected a file or a folder"):
        main.main(words)


def test_an_interrupt_reaches_the_command(capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background ignores it
    try:
        assert left(lambda: os.kill(os.getpid(), signal.SIGINT), capsys) == (130, "", "interrupted\n")
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_lost_reader_of_the_log_lines_does_not_end_the_work(tmp_path):
    code = (
        "import logging, pathlib, sys, time\nfrom enerf.cli import app\n"
        "def main():\n"
        "    for i in range(200): logging.getLogger('enerf').info('line %d', i); time.sleep(0.002)\n"
        f"    pathlib.Path({str(tmp_path / 'done')!r}).write_text('')\n"
        "app.run(main)\n"
    )
    command = f'{sys.executable} -c "$CODE" 2>&1 | head -1'
    subprocess.run(["bash", "-c", command], env={**os.environ, "CODE": code}, check=True, timeout=60, cwd=ROOT)
    assert (tmp_path / "done").is_file()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_the_characters_gets_escapes(encoding):
    code = (
        "import logging\nfrom enerf.cli import app\n"
        "def main():\n    print('κ 32×32 \\ud800')\n    logging.getLogger('enerf').info('ψ')\n"
        "app.run(main)\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "LANG": "C"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True, cwd=ROOT)
    assert done.stdout.decode(encoding).startswith("\\u03ba 32")
    assert done.stderr == b"\\u03c8\n"


@pytest.mark.parametrize("text", ["9" * 5000, "1e3", "", "nan", "101"])
def test_whole_numbers_of_arguments_are_bounded(text):
    read = app.whole(100)
    assert (read("-7"), read("100")) == (-7, 100)
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number of at most 100"):
        read(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "fast", ""])
def test_numbers_of_arguments_are_finite(text):
    assert app.finite("-1e3") == -1000.0
    with pytest.raises(argparse.ArgumentTypeError, match="expected a finite number"):
        app.finite(text)
