"""Which combinations of options are tried, where all of them would say the same thing many times."""

import itertools
from collections.abc import Iterable
from typing import Any


def once(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Every value of every axis at least once: as many cases as the longest axis has values.

    >>> once("abc", [1, 2])
    [('a', 1), ('b', 2), ('c', 1)]
    """
    listed = [list(axis) for axis in axes]
    return [tuple(axis[i % len(axis)] for axis in listed) for i in range(max(map(len, listed)))]


def latin(n: int, first: Iterable[Any], second: Iterable[Any]) -> list[tuple[Any, Any]]:
    """One in ``n`` of all pairs: each value of either axis with every ``n``-th of the other.

    >>> latin(2, "ab", [1, 2, 3])
    [('a', 1), ('a', 3), ('b', 2)]
    """
    return [(a, b) for i, a in enumerate(first) for j, b in enumerate(second) if (i + j) % n == 0]


def pairs(*axes: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Every two values of different axes together at least once, in about as few cases as that takes.

    >>> pairs("ab", "xy", [1, 2])
    [('a', 'x', 1), ('a', 'y', 2), ('b', 'x', 2), ('b', 'y', 1)]
    """
    listed = [list(axis) for axis in axes]
    columns = list(itertools.combinations(range(len(listed)), 2))
    places = list(itertools.product(*(range(len(axis)) for axis in listed)))
    missing = {(a, b, place[a], place[b]) for place in places for a, b in columns}
    chosen = []
    while missing:
        best = max(places, key=lambda place: sum((a, b, place[a], place[b]) in missing for a, b in columns))
        missing -= {(a, b, best[a], best[b]) for a, b in columns}
        chosen.append(best)
    return [tuple(axis[i] for axis, i in zip(listed, place, strict=True)) for place in sorted(chosen)]
