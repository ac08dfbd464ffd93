"""What a Triton program does with a block of points, as tables: slots, columns, weights' places and steps.

The words are those of ``triton_dense``. Nothing here needs Triton or a GPU.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from enerf.fields.backends.dense import Network

WIDEST = 256  # columns of a tile of sums
HELD = 1 << 15  # bytes of weights that a product from registers may stage at once


class Term(NamedTuple):
    """One product: ``length`` columns of a slot that begins at column ``source``, times a matrix of packed weights.

    Element (k, j) of the matrix lies at ``matrix + k * down + j * across``; ``fresh``: the slot is still in registers.
    """

    source: int
    length: int
    matrix: int
    down: int
    across: int
    fresh: bool


class Step(NamedTuple):
    """How one slot is made; -1 stands for "none".

    ``column`` and ``padded`` columns in the work buffer, of which ``width`` mean something, made ``tile`` at a time:
    what tensor ``read`` holds, plus ``terms``, plus the bias at ``bias``; then a ``relu``, or zeros where the slot at
    column ``mask`` of the saved buffer is not positive; then stored to tensor ``write``, to the work buffer (``keep``),
    and its sum over the block to column ``total``.
    """

    column: int
    padded: int
    width: int
    tile: int
    read: int = -1
    terms: tuple[Term, ...] = ()
    bias: int = -1
    relu: bool = False
    mask: int = -1
    write: int = -1
    keep: bool = True
    total: int = -1


Steps = tuple[Step, ...]


def padded(width: int) -> int:
    """Columns of a slot: a power of two from 16 to 256, then a multiple of 256.

    >>> [padded(width) for width in (1, 63, 64, 129, 300)]
    [16, 64, 64, 256, 512]
    """
    return max(16, 1 << (width - 1).bit_length()) if width <= WIDEST else -(-width // WIDEST) * WIDEST


@dataclass(frozen=True)
class Plan:
    """A network's tables for one precision of its factors."""

    network: Network
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """Points of a block."""
        return 128 if self.dtype == torch.bfloat16 else 32

    @property
    def deep(self) -> int:
        """Columns of a slice of a slot that is read back."""
        return 64 if self.dtype == torch.bfloat16 else 32

    @property
    def tile(self) -> int:
        """Rows and columns of a weight's gradient that one program adds up."""
        return 128 if self.dtype == torch.bfloat16 else 64

    @property
    def warps(self) -> int:
        """Groups of 32 threads that share a block."""
        return 4 if max(self.padded) <= 64 else 8

    @property
    def padded(self) -> tuple[int, ...]:
        """Columns of each slot."""
        return tuple(padded(width) for width in self.network.widths)

    @property
    def column(self) -> tuple[int, ...]:
        """Where each slot begins when all of them are kept; the last number is their end."""
        return (0, *itertools.accumulate(self.padded))

    @property
    def z_column(self) -> tuple[int, ...]:
        """The same for the slots' gradients: layers first, inputs take no place."""
        first = self.column[len(self.network.inputs)]
        return tuple(max(0, column - first) for column in self.column)

    @property
    def matrices(self) -> tuple[tuple[int, ...], ...]:
        """Where the packed weights of each layer begin, source by source."""
        places, at = [], 0
        for i, layer in enumerate(self.network.layers):
            starts = []
            for source in layer.sources:
                starts.append(at)
                at += self.padded[len(self.network.inputs) + i] * self.padded[source]
            places.append(tuple(starts))
        return tuple(places)

    def bias_at(self, layer: int) -> slice:
        """Where a layer's bias lies among the packed ones."""
        slot = len(self.network.inputs) + layer
        return slice(self.z_column[slot], self.z_column[slot] + self.network.widths[slot])

    def pack(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """All weights in the precision of the factors and all biases in fp32, padded with zeros, without gradients."""
        parts = []
        with torch.no_grad():
            for i, (layer, weight) in enumerate(zip(self.network.layers, weights, strict=True)):
                wide = self.padded[len(self.network.inputs) + i]
                pieces = weight.split([self.network.widths[s] for s in layer.sources], 1)
                for source, piece in zip(layer.sources, pieces, strict=True):
                    rest = (0, self.padded[source] - piece.shape[1], 0, wide - piece.shape[0])
                    parts.append(functional.pad(piece.to(self.dtype), rest).flatten())
            wides = self.padded[len(self.network.inputs) :]
            flat = [functional.pad(b, (0, wide - len(b))) for b, wide in zip(biases, wides, strict=True)]
            return torch.cat(parts), torch.cat(flat)

    def forward(self, train: bool) -> tuple[Steps, int]:
        """Steps of the values, and columns of their work buffer: every slot's, or if not ``train`` the few in use."""
        net, first = self.network, len(self.network.inputs)
        reads = [max([-1, *(i for i, layer in enumerate(net.layers) if s in layer.sources)]) for s in self._slots()]
        column, end = (self.column, self.column[-1]) if train else self._reused(reads)
        steps = [self._step(s, column[s], read=s, keep=train or reads[s] >= 0) for s in range(first)]
        for i, layer in enumerate(net.layers):
            slot = first + i
            terms = []
            for source, at in zip(layer.sources, self.matrices[i], strict=True):
                wide = self.padded[source]
                fresh = self._fits(source, slot) and source == slot - 1
                terms.append(Term(column[source], wide, at, 1, wide, fresh))
            write = net.outputs.index(slot) if slot in net.outputs else -1
            made = {"terms": tuple(terms), "bias": self.z_column[slot], "relu": layer.relu, "write": write}
            readers = [(j, net.layers[j]) for j in range(i + 1, len(net.layers)) if slot in net.layers[j].sources]
            keep = train or any(j > i + 1 or not self._fits(slot, first + j) for j, _ in readers)
            steps.append(self._step(slot, column[slot], keep=keep, **made))
        return tuple(steps), end

    def backward(self, needs_inputs: tuple[bool, ...]) -> tuple[Steps, int]:
        """Steps of the slots' gradients, last slot first, and the columns of their work buffer."""
        net, first = self.network, len(self.network.inputs)
        steps: list[Step] = []
        made = -1
        for slot in reversed(self._slots()):
            if slot < first and not needs_inputs[slot]:
                continue
            terms = []
            for i, layer in enumerate(net.layers):
                for source, at in zip(layer.sources, self.matrices[i], strict=True):
                    if source == slot:
                        reader = first + i
                        fresh = reader == made and self._fits(reader, slot)
                        wide = self.padded[reader]
                        terms.append(Term(self.z_column[reader], wide, at, self.padded[slot], 1, fresh))
            read = net.outputs.index(slot) if slot in net.outputs else -1
            more = {"terms": tuple(terms), "read": read}
            if slot < first:
                steps.append(self._step(slot, 0, keep=False, write=sum(needs_inputs[:slot]), **more))
            else:
                mask = self.column[slot] if net.layers[slot - first].relu else -1
                place = self.z_column[slot]
                steps.append(self._step(slot, place, mask=mask, total=place, **more))
            made = slot
        return tuple(steps), self.z_column[-1]

    def _slots(self) -> range:
        return range(len(self.network.widths))

    def _step(self, slot: int, column: int, **rest: Any) -> Step:
        wide = self.padded[slot]
        return Step(column, wide, self.network.widths[slot], min(wide, WIDEST))._replace(**rest)

    def _fits(self, source: int, target: int) -> bool:
        """Whether a slot that was just made can enter the product with a target from registers."""
        wide, tile = self.padded[source], min(self.padded[target], WIDEST)
        return wide <= WIDEST // 2 and self.padded[target] <= WIDEST and wide * tile * self.dtype.itemsize <= HELD

    def _reused(self, last_read: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Columns of the slots where a slot may take the place of one of its size that no later layer reads."""
        first, free, columns, end = len(self.network.inputs), dict[int, list[int]](), [], 0
        for slot in self._slots():
            wide = self.padded[slot]
            if places := free.get(wide):
                columns.append(places.pop())
            else:
                columns.append(end)
                end += wide
            for done in range(slot):  # its layer has run: what it was the last to read is free for the next one
                if slot >= first and last_read[done] == slot - first:
                    free.setdefault(self.padded[done], []).append(columns[done])
        return tuple(columns), end
