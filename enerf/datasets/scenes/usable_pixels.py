"""The k-th pixel of a view that its mask does not exclude, found by counts of segments of rows, without lists."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int, Int16, Int64
from torch import Tensor

from enerf.datasets.scenes import storage

MOST_BYTES = 1 << 28  # of counts of segments; a segment is as wide as that demands
_NARROWEST, _CHUNK = 64, 512  # pixels of a segment; rays whose segments are read at a time


def segment_width(n_pixels: int) -> int:
    """Pixels of the segments of so many pixels' masks, a power of two: the narrower, the fewer are read for a ray.

    >>> segment_width(27 * 12_000_000), segment_width(10_000 * 12_000_000)
    (64, 1024)
    """
    width = _NARROWEST
    while n_pixels * torch.int16.itemsize > MOST_BYTES * width:
        width *= 2
    return width


class Counts(NamedTuple):
    """Numbers of usable pixels of a region of a mask: in each segment of ``width`` columns of a row, and in each row.

    The last segment of a row may be narrower.
    """

    segments: Int16[Tensor, "k s"]
    rows: Int64[Tensor, " k"]
    width: int


def counted(mask: Bool[Tensor, "h w 1"], place: Sequence[int], width: int) -> Counts:
    """Counts of a region, on the CPU; ``place``: its first row, height, first column and width."""
    top, tall, left, wide = place
    region = mask[top : top + tall, left : left + wide, 0].cpu()
    whole = wide - wide % width
    inside = region[:, :whole].reshape(tall, whole // width, width).sum(-1, dtype=torch.int16)
    if wide % width:
        inside = torch.cat([inside, region[:, whole:].sum(-1, keepdim=True, dtype=torch.int16)], 1)
    return Counts(inside, inside.sum(1), width)


class UsablePixels:
    """Usable pixels of a region of some views.

    Parameters
    ----------
    masks
        Masks of all views.
    views
        Indices of the views.
    places
        First row, height, first column and width of the region of each.
    counts
        Of each of the views, of segments of the same width.
    """

    def __init__(
        self,
        masks: storage.SceneImages,
        views: Int64[Tensor, " v"],
        places: Int64[Tensor, "v 4"],
        counts: Sequence[Counts],
    ) -> None:
        self._masks, self._views, self._places, self._width = masks, views, places, counts[0].width
        self._segments = torch.cat([each.segments.flatten() for each in counts]).to(views.device)
        self._per_row = torch.tensor([each.segments.shape[1] for each in counts], device=views.device)
        sizes, heights = self._per_row * places[:, 1], places[:, 1]
        self._first_segments, self._first_rows = sizes.cumsum(0) - sizes, heights.cumsum(0) - heights
        of_rows = torch.cat([each.rows for each in counts]).to(views.device)
        self._before = torch.cat([of_rows.new_zeros(1), of_rows.cumsum(0)])  # usable pixels before each row of all

    def at(self, row: Int[Tensor, " n"], rank: Int[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Index, among the pixels of its region row by row, of the ``rank``-th usable one of the ``row``-th view."""
        return torch.cat([self._at(*part) for part in zip(row.split(_CHUNK), rank.split(_CHUNK), strict=True)])

    def _at(self, row: Tensor, rank: Tensor) -> Tensor:
        target = self._before[self._first_rows[row]] + rank
        line = torch.searchsorted(self._before, target, right=True) - 1  # of the rows of all views
        y, rank = line - self._first_rows[row], target - self._before[line]
        top, _, left, wide = self._places[row].unbind(-1)
        per_row, n = self._per_row[row], int(self._per_row.max())
        segment = torch.arange(n, device=row.device).expand(len(row), n)
        first = self._first_segments[row] + y * per_row
        counts = self._segments[first[:, None] + torch.minimum(segment, per_row[:, None] - 1)]
        found, rank = _passing(counts * (segment < per_row[:, None]), rank)
        column = found[:, None] * self._width + torch.arange(self._width, device=row.device)
        x = left[:, None] + torch.minimum(column, wide[:, None] - 1)
        view, line_of_view = self._views[row][:, None].expand_as(x), (top + y)[:, None].expand_as(x)
        usable = storage.gathered(self._masks, view, line_of_view, x, row.device)[..., 0]
        within, _ = _passing(usable & (column < wide[:, None]), rank)
        return y * wide + found * self._width + within


def _passing(counts: Tensor, rank: Int[Tensor, " n"]) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Where, in each row of counts (n, k), the ``rank``-th counted one is, and its rank there."""
    ends = counts.cumsum(1, dtype=torch.int32)
    found = (ends > rank[:, None]).to(torch.uint8).argmax(1)
    at = found[:, None]
    return found, rank - (ends.gather(1, at) - counts.gather(1, at).int())[:, 0]
