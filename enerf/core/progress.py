"""Progress bars: updated often on a terminal, rarely in a log file; of several processes the first one shows them."""

import sys
from collections.abc import Iterable
from typing import Any

from enerf.core import ranks

TERMINAL_SECONDS, LOG_SECONDS = 0.5, 30.0  # between two updates


def on_terminal() -> bool:
    """Whether standard error, where bars are shown, is a terminal."""
    return sys.stderr.isatty()


def progress_bar(
    total: int | None,
    description: str,
    unit: str,
    *,
    iterable: Iterable[Any] | None = None,
    enabled: bool | None = True,
    **options: Any,
) -> Any:
    """A ``tqdm`` bar on standard error, updated every 0.5 s on a terminal and every 30 s elsewhere.

    Parameters
    ----------
    total
        Number of steps; None if it is unknown or the length of ``iterable``.
    description, unit
        Label of the bar, and what a step is (``image``, ``point``).
    iterable
        Iterated over by the bar; without it, call ``update`` on the bar.
    enabled
        False hides the bar; None hides it unless standard error is a terminal.
    options
        Further arguments of ``tqdm``: ``initial``, ``delay``, ``leave``, ``unit_scale``, ``bar_format``.
    """
    from tqdm import tqdm

    return tqdm(
        iterable,
        total=total,
        desc=description,
        unit=unit,
        mininterval=TERMINAL_SECONDS if on_terminal() else LOG_SECONDS,
        disable=True if not ranks.is_first() else None if enabled is None else not enabled,
        **options,
    )
