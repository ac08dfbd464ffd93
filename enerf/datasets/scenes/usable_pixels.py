"""The k-th pixel of a view that its mask does not exclude, found by counts of rows: memory grows with rows alone."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from enerf.datasets.scenes import storage
from enerf.datasets.scenes.on_demand_images import OnDemandImages

_CHUNK = 512  # rows of masks that are searched at a time


class UsableRows:
    """Counts of the usable pixels in each row of a region of some views.

    Parameters
    ----------
    masks
        Masks of all views.
    views
        Indices of the views.
    places
        First row, height, first column and width of the region of each.
    counts
        For each of the views, the number of usable pixels in each row of its region, as ``row_counts`` gives it.
    """

    def __init__(
        self,
        masks: storage.SceneImages,
        views: Int64[Tensor, " v"],
        places: Int64[Tensor, "v 4"],
        counts: Sequence[Tensor],
    ) -> None:
        self._masks, self._views, self._places = masks, views, places
        self._counts = torch.cat(list(counts)).to(views.device)
        self._ends = self._counts.long().cumsum(0)
        heights = places[:, 1]
        self._first_rows = heights.cumsum(0) - heights
        totals = torch.tensor([int(each.sum()) for each in counts], device=views.device)
        self._starts = totals.cumsum(0) - totals

    def at(self, row: Int[Tensor, " n"], rank: Int[Tensor, " n"]) -> Int64[Tensor, " n"]:
        """Index, among the pixels of its region row by row, of the ``rank``-th usable one of the ``row``-th view."""
        return torch.cat([self._at(*part) for part in zip(row.split(_CHUNK), rank.split(_CHUNK), strict=True)])

    def _at(self, row: Tensor, rank: Tensor) -> Tensor:
        target = self._starts[row] + rank
        line = torch.searchsorted(self._ends, target, right=True)
        within = target - (self._ends[line] - self._counts[line])
        y = line - self._first_rows[row]
        top, _, left, wide = self._places[row].unbind(-1)
        if torch.device(self._masks.device).type == "cpu" and not isinstance(self._masks, OnDemandImages):
            found = self._found(self._views[row], top + y, left, wide, within)
            return y * wide + found.to(row.device)
        column = torch.arange(int(wide.max()), device=row.device)
        x = torch.minimum(column[None], wide[:, None] - 1)
        view, line_of_view = self._views[row][:, None].expand_as(x), (top + y)[:, None].expand_as(x)
        usable = storage.gathered(self._masks, view, line_of_view, left[:, None] + x, row.device)
        usable = usable[..., 0] & (column < wide[:, None])
        passed = usable.cumsum(1, dtype=torch.int32) > within[:, None]
        return y * wide + passed.to(torch.uint8).argmax(1)

    def _found(self, *rows: Tensor) -> Int64[Tensor, " n"]:
        """Column of the ``within``-th usable pixel in a part of a row of a view; one after the other, on the CPU.

        Only that part of the mask is read, where gathering it by three indices for each of its pixels is slower.
        """
        found, order = np.empty(len(rows[0]), dtype=np.int64), rows[0].argsort().tolist()
        listed, view, mask = torch.stack(rows).T.tolist(), -1, np.empty((0, 0))
        for i in order:
            if listed[i][0] != view:  # to index a tensor takes longer than to search a row
                view, mask = listed[i][0], self._masks[listed[i][0]][..., 0].numpy()
            _, line, left, wide, within = listed[i]
            found[i] = mask[line, left : left + wide].nonzero()[0][within]
        return torch.from_numpy(found)


def row_counts(mask: Bool[Tensor, "h w 1"], place: Sequence[int]) -> Int[Tensor, " k"]:
    """Number of usable pixels in each row of a region of a mask: first row, height, first column, width."""
    top, tall, left, wide = place
    return mask[top : top + tall, left : left + wide, 0].sum(1, dtype=torch.int32).cpu()
