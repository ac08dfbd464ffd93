"""Which runs a table may average: those that differ in their seed only."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

# Options that do not distinguish runs of one row: the seed, and where the data are, whose content does.
FREE = {"seed", "datadir", "mesh", "cloud", "image", "volume", "images", "ft_path"}


def distinctions(runs: Sequence[dict[str, Any]], same_row: Callable[[dict[str, Any]], Hashable]) -> list[str]:
    """Return a label for each run: how it differs from those that would be averaged with it in one row of a table.

    Labels name the options, the content of the data, as the beginning of its hash, and in any case that other data were
    evaluated than trained on, and that options or data changed during the training. Runs of earlier versions, without
    ``options``, are distinguished from none.

    Parameters
    ----------
    runs
        Contents of ``metrics.json``.
    same_row
        Function from a run to the row of the table that it would be averaged in, and to its data.

    >>> some = [{"options": {"lrate": rate, "seed": seed}} for rate, seed in ((0.1, 0), (0.1, 1), (0.2, 0))]
    >>> distinctions(some, lambda run: "plain"), distinctions(some[:2], lambda run: "plain")
    (['lrate 0.1', 'lrate 0.1', 'lrate 0.2'], ['', ''])
    """
    groups: dict[Hashable, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(same_row(run), []).append(run)
    differing = {row: _differing([run.get("options") or {} for run in some]) for row, some in groups.items()}
    several = {row: len({digest(run) for run in some} - {""}) > 1 for row, some in groups.items()}
    found = []
    for run in runs:
        row, options = same_row(run), run.get("options") or {}
        parts = [f"{name} {options[name]}" for name in differing[row] if name in options]
        parts += [f"data {digest(run)[:6]}"] * bool(several[row] and digest(run))
        parts += [f"changed at step {change.get('step')}" for change in run.get("history") or ()]
        parts += ["measured on other data"] * bool(run.get("eval_files"))
        found.append(", ".join(parts))
    return found


def seeds(runs: Sequence[dict[str, Any]]) -> int:
    """Return the number of different seeds of runs; those that do not tell theirs count as different.

    >>> seeds([{"seed": 0}, {"seed": 0}, {"seed": 1}, {}])
    3
    """
    known = [run["seed"] for run in runs if run.get("seed") is not None]
    return len(set(known)) + len(runs) - len(known)


def digest(run: dict[str, Any]) -> str:
    """Return the hash of the data of a run; empty if it is not known."""
    return str((run.get("inputs") or {}).get("digest") or "")


def _differing(options: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of options that have several values."""
    known = [each for each in options if each]
    names = {name for each in known for name in each if name not in FREE}
    return sorted(name for name in names if len({str(each[name]) for each in known if name in each}) > 1)
