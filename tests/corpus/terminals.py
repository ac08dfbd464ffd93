"""Output on terminals that cannot show every character, and to files that cannot be written."""

from pathlib import Path

from tests.corpus.inputs import NERF, base, copied, copied_run
from tests.corpus.registry import Command, table

ENCODINGS = {"ascii": "ascii", "latin1": "latin-1", "ascii_strict": "ascii:strict"}


@table("terminal_train", ENCODINGS, "accept")
def _(folder: Path, encoding: str) -> Command:
    scene = copied("llff", folder)
    where = ("--datadir", scene, "--factor", "1", "--basedir", folder / "out", "--expname", "日本é")
    return Command("train_nerf.py", (*where, *NERF, "--N_iters", "2", "--equilibrate"), encoding=encoding)


@table("terminal_help", ENCODINGS, "accept")
def _(folder: Path, encoding: str) -> Command:
    return Command("train_classifier.py", ("--help",), encoding=encoding)


@table("terminal_eval", ENCODINGS, "accept")
def _(folder: Path, encoding: str) -> Command:
    return Command("eval_nerf.py", (copied_run(folder), "--stored"), writes="", encoding=encoding)


@table("terminal_error", ENCODINGS, "refuse")
def _(folder: Path, encoding: str) -> Command:
    words = ("--images", base("mesh"), "--basedir", folder / "out", "--expname", "é\u202e")
    return Command("train_classifier.py", words, encoding=encoding)
