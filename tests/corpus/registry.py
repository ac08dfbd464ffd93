"""Registry of the corpus: named cases, each a command on an input made for it, with what is expected of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

# accept: exit code 0; refuse: another exit code and one sentence; any: either, but neither traceback, hang nor bomb.
Expect = Literal["accept", "refuse", "any"]


@dataclass(frozen=True)
class Command:
    """One call of a script.

    Attributes
    ----------
    script
        File in ``scripts/``, or a module: ``enerf.cli.main``.
    arguments
        Its arguments; made to text.
    changes_inputs
        Whether it may change files that were there before, as a resumed run does.
    writes
        The only folder, relative to the case's, in which it may make files; empty: anywhere.
    encoding
        Encoding of its terminal, as in ``PYTHONIOENCODING``.
    prepare
        Called in its process before it begins.
    """

    script: str
    arguments: tuple[Any, ...]
    changes_inputs: bool = False
    writes: str = "out"
    encoding: str = "utf-8"
    prepare: Callable[[], object] | None = None


@dataclass(frozen=True)
class Case:
    """A case: its name, what is expected, and a function from an empty folder to the command."""

    name: str
    expect: Expect
    build: Callable[[Path], Command]


CASES: list[Case] = []


def table(prefix: str, entries: Mapping[str, Any], expect: Expect = "any") -> Callable[[Any], None]:
    """Return a decorator that registers one case for each entry of a table.

    The decorated function makes the command from the case's folder and the entry's value. An entry is a value, or a
    pair of an expectation and a value.
    """

    def register(build: Callable[[Path, Any], Command]) -> None:
        for name, entry in entries.items():
            wanted, value = split(entry, expect)
            CASES.append(Case(f"{prefix}/{name}", wanted, lambda folder, value=value: build(folder, value)))

    return register


def split(entry: Any, expect: Expect = "any") -> tuple[Expect, Any]:
    """Return expectation and value of an entry of a table.

    >>> split(("refuse", b"")), split(b"", "accept")
    (('refuse', b''), ('accept', b''))
    """
    if isinstance(entry, tuple) and len(entry) == 2 and entry[0] in get_args(Expect):
        return entry[0], entry[1]
    return expect, entry


def values(entries: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return some values of a table without their expectations."""
    return {name: split(entries[name])[1] for name in names}
