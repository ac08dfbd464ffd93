"""Which runs a table may average: those that differ in their seed only."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

# Options that do not distinguish runs of one row: the seed, where the data are, and lengths, which tables show.
_FREE = {"seed", "datadir", "mesh", "cloud", "image", "images", "ft_path", "N_iters", "epochs", "max_seconds"}


def distinctions(runs: Sequence[dict[str, Any]], same_row: Callable[[dict[str, Any]], Hashable]) -> list[str]:
    """Return for each run the options that distinguish it from others that would share its row, as text.

    Runs of earlier versions, without ``options``, are distinguished from none.

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
        groups.setdefault(same_row(run), []).append(run.get("options") or {})
    differing = {row: _differing(options) for row, options in groups.items()}
    return [
        ", ".join(
            f"{name} {run['options'][name]}" for name in differing[same_row(run)] if name in run.get("options", {})
        )
        for run in runs
    ]


def _differing(options: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of options that have several values."""
    known = [each for each in options if each]
    names = {name for each in known for name in each if name not in _FREE}
    return sorted(name for name in names if len({str(each[name]) for each in known if name in each}) > 1)
