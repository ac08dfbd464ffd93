"""Table, summary and figures of one part of the campaign."""

import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Findings:
    """What was done, counted by row and column, and what was wrong.

    Attributes
    ----------
    part
        Name of the part: ``kills``, ``disk`` ...
    unit
        What is counted, in the plural.
    """

    part: str
    unit: str
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    @property
    def total(self) -> int:
        """Number of all that was counted."""
        return sum(self.counts.values())

    def count(self, row: str, column: str) -> None:
        """Count one."""
        self.counts[row, column] += 1

    def fault(self, where: str, what: list[str]) -> None:
        """Note what is wrong, and print it."""
        for each in what:
            self.wrong.append(f"{where}: {each}")
            print(f"WRONG {self.wrong[-1][:600]}", flush=True)

    def table(self) -> str:
        """The counts as a table in Markdown."""
        rows, columns = (list(dict.fromkeys(key[i] for key in sorted(self.counts))) for i in (0, 1))
        lines = [[self.part, *columns, "all"]]
        lines += [
            [row, *(str(self.counts[row, column] or "") for column in columns), str(self._sum(0, row))] for row in rows
        ]
        lines += [["all", *(str(self._sum(1, column)) for column in columns), str(self.total)]]
        lines.insert(1, ["---", *("---:" for _ in lines[0][1:])])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def summary(self) -> str:
        """One line."""
        told = "".join(f"; {name} {value}" for name, value in self.figures.items() if isinstance(value, str | int))
        seconds = time.monotonic() - self.began
        return f"{self.part}: {self.total} {self.unit}, {len(self.wrong)} wrong, {seconds:.0f} s{told}"

    def saved(self) -> dict[str, Any]:
        """The figures for the JSON file."""
        return {
            "total": self.total,
            "unit": self.unit,
            "wrong": self.wrong,
            "counts": {f"{row}: {column}": n for (row, column), n in sorted(self.counts.items())},
            "seconds": round(time.monotonic() - self.began, 1),
            **self.figures,
        }

    def _sum(self, axis: int, name: str) -> int:
        return sum(n for key, n in self.counts.items() if key[axis] == name)


def write(path: Path, found: list[Findings]) -> None:
    """Write the figures of several parts to a JSON file, beside those of other parts that it has."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    about = {
        "command": f"python -m tests.faults {shlex.join(sys.argv[1:])}",
        "commit": _commit(),
        "machine": _machine(),
    }
    content = {**before, **{each.part: {**about, **each.saved()} for each in found}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def _machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
