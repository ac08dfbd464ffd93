"""Numbers to files: the journal of a run, ``metrics.json``, tables beside published figures."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from enerf import files
from enerf.evaluation.metrics import mean
from enerf.types import InputError

# Mean of per-image PSNR on LLFF, as published; each row with the protocol it was measured with.
LLFF_SCENES = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
PUBLISHED: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    (
        "NeRF paper (TensorFlow)",
        "factor 4, llffhold 8, 200k steps",
        (25.17, 27.40, 31.16, 27.45, 20.92, 20.36, 32.70, 26.80),
    ),
    ("JaxNeRF", "factor 4, llffhold 8, 1M steps", (24.83, 28.07, 31.76, 28.10, 21.23, 20.27, 33.04, 27.42)),
    ("NeRF-Factory NeRF", "factor 4, llffhold 8, 1M steps", (25.19, 27.94, 31.73, 28.03, 21.17, 20.29, 32.96, 27.52)),
    ("NeRF-Factory Plenoxels", "factor 4, llffhold 8", (24.91, 28.17, 31.36, 27.77, 21.19, 20.01, 31.33, 26.54)),
    ("TensoRF (paper)", "factor 4, llffhold 8", (25.27, 28.60, 31.36, 28.14, 21.30, 19.87, 32.35, 26.97)),
    (
        "NeRF in the weight-conditioning paper",
        "its own split: 3 unseen views",
        (27.51, 31.3, 33.16, 29.34, 23.10, 23.98, 39.15, 30.05),
    ),
    (
        "E-NeRF in the weight-conditioning paper",
        "its own split: 3 unseen views",
        (28.53, 31.8, 33.14, 29.62, 23.84, 24.14, 39.89, 30.67),
    ),
)


def write_atomic(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    with files.replacing(path) as temporary, files.blaming(path):
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON whole or not at all; numbers that are not finite become null.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    write_atomic(path, json.dumps(finite(content), indent=1, allow_nan=False) + "\n")


def finite(content: Any) -> Any:
    """The content with None in the place of every number that JSON cannot hold.

    >>> finite({"a": [1.0, float("inf")]})
    {'a': [1.0, None]}
    """
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises
    ------
    InputError
        If it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; expected the result of a finished run") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None


class Journal:
    """``train.jsonl`` and TensorBoard's event files of a run.

    Records past ``step`` belong to work that was lost when an earlier run was cut off; they are dropped. Every method
    raises ``InputError`` if the folder cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = folder / "train.jsonl"
        kept = [line for line in self._lines() if _step_of(line) <= step]
        write_atomic(self.path, "".join(f"{line}\n" for line in kept))
        with files.blaming(folder / "tensorboard"):
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def record(self, step: int, values: dict[str, Any]) -> None:
        """Append one line; its numbers also go to TensorBoard, nested ones as ``group/name``."""
        line = json.dumps(finite({"step": step, **values}), allow_nan=False)
        with files.blaming(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        with files.blaming(self.path.with_name("tensorboard")):
            for name, value in flat(values).items():
                if isinstance(value, int | float):
                    self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Float[Tensor, "h w 3"]) -> None:
        """Show a picture in [0, 1] in TensorBoard."""
        with files.blaming(self.path.with_name("tensorboard")):
            self.board.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Flush and close TensorBoard's file."""
        with files.blaming(self.path.with_name("tensorboard")):
            self.board.close()

    def _lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with files.blaming(self.path):
            return self.path.read_text(encoding="utf-8", errors="replace").splitlines()


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level, keys joined by slashes.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a/b': 1, 'c': 2}
    """
    joined: dict[str, Any] = {}
    for key, value in values.items():
        joined |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return joined


def _step_of(line: str) -> float:
    """The step of a journal line; infinite for a line cut short."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def results_table(runs: Sequence[dict[str, Any]], published: bool = True) -> list[list[str]]:
    """Rows of PSNRs as text: one per method and protocol, one column per scene, and the mean over the scenes shown.

    Runs that differ in their seed only are averaged. The mean is given only where all the scenes shown have a figure.
    Published rows follow if an LLFF scene is shown, each with the protocol it was measured with.
    """
    scenes = sorted({run["scene"] for run in runs})
    rows = [["method", "protocol", *scenes, "mean"]]
    groups: dict[tuple[str, str], dict[str, list[float | None]]] = {}
    for run in runs:
        cell = groups.setdefault((run["method"], protocol_words(run)), {}).setdefault(run["scene"], [])
        cell.append(run["mean"]["psnr"])
    for (method, protocol), found in sorted(groups.items()):
        values = [mean(found.get(s, [])) for s in scenes]
        rows.append([method, protocol, *map(_decibels, values), _decibels(mean(values))])
    shown = [s for s in scenes if s in LLFF_SCENES]
    if published and shown:
        for method, protocol, figures in PUBLISHED:
            values = [dict(zip(LLFF_SCENES, figures, strict=True)).get(s) for s in scenes]
            rows.append([f"published: {method}", protocol, *map(_decibels, values), _decibels(mean(values))])
    return rows


def protocol_words(run: dict[str, Any]) -> str:
    """How a figure was measured, in a few words; runs of scenes that differ in their number of views share them."""
    p = run["protocol"]
    split = f"llffhold {p['llffhold']}" if p.get("llffhold") is not None else "given split"
    length = f"{run['max_seconds']:g} s" if run.get("max_seconds") else f"{run['steps']} steps"
    model = f", {run['model']}" if run.get("model") else ""
    return f"{p['width']}×{p['height']} (factor {p['factor']}), {split}, {length}{model}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def as_text(rows: Sequence[Sequence[str]]) -> str:
    """A table in aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown.

    >>> print(as_markdown([["a", "b"], ["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    lines = [f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def as_csv(rows: Sequence[Sequence[str]]) -> str:
    """A table as comma-separated values."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().rstrip("\n")
