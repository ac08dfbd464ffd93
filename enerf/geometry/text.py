"""Numbers of text files: lines, coordinates, lists."""

import warnings

import numpy as np
from jaxtyping import Float64


def coordinates(lines: list[str]) -> Float64[np.ndarray, "v 3"]:
    """The first three numbers of each line.

    Raises
    ------
    ValueError
        If a line has fewer, or words that are not numbers.
    """
    if not lines:
        return np.zeros((0, 3))
    try:
        found = np.loadtxt(lines, usecols=(0, 1, 2), comments=None, ndmin=2)
        if len(found) == len(lines):  # empty lines are skipped
            return found
        bad = lines.index("")
    except ValueError:
        bad = next((i for i, line in enumerate(lines) if not _is_point(line)), 0)
    raise ValueError(f"vertex {bad + 1} is {lines[bad][:40]!r}, and three numbers are needed")


def _is_point(line: str) -> bool:
    """Whether a line begins with three numbers."""
    try:
        np.array(line.split()[:3], np.float64).reshape(3)
    except ValueError:
        return False
    return True


def decoded(data: bytes) -> str:
    """Text without a byte order mark, with the line ends of Unix.

    Raises
    ------
    ValueError
        If it holds zero bytes, as binary files and UTF-16 do.
    """
    if b"\0" in data:
        raise ValueError("it is not text in ASCII or UTF-8")
    text = data.decode("latin-1").removeprefix("ï»¿")  # names may be in any encoding
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ")


def numbers(words: str | bytes, kind: type[np.float64] | type[np.int64] = np.float64) -> np.ndarray:
    r"""The numbers of a text, separated by white space.

    >>> numbers("1 2.5\n nan")
    array([1. , 2.5, nan])

    Raises
    ------
    ValueError
        If a word is not a number of that kind.
    """
    if not words.strip():
        return np.zeros(0, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # of NumPy before 2.3 where a word is not a number
            return np.fromstring(words, dtype=kind, sep=" ")
    except (ValueError, DeprecationWarning):
        what = "whole number" if kind is np.int64 else "number"
        raise ValueError(f"it has a word that is not a {what} where one is needed") from None
