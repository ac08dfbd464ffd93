"""Execution plan of the Triton kernel for dense networks: layout of buffers and weights, and list of steps.

See ``triton_dense`` for the vocabulary. Nothing here needs Triton or a GPU.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from enerf.fields.backends.dense import Network

MAX_TILE = 256  # columns of a tile of sums at most
STAGED_BYTES = 1 << 15  # most bytes of weights that a product from registers stages at once


class Term(NamedTuple):
    """One product: ``length`` columns of the buffer at column ``source``, times a matrix of packed weights.

    Element (k, j) of the matrix has the offset ``matrix + k * down + j * across``; ``fresh``: the buffer is still in
    registers.
    """

    source: int
    length: int
    matrix: int
    down: int
    across: int
    fresh: bool


class Step(NamedTuple):
    """Computation of one buffer; -1 means "none".

    The buffer begins at ``column`` of the workspace and has ``padded`` columns, ``width`` without padding, computed
    ``tile`` at a time: the tensor number ``read``, plus ``terms``, plus the bias at ``bias``; then ``relu``, or zeros
    where the buffer at column ``mask`` of the saved workspace is not positive. The result is stored to the tensor
    number ``write`` and (``keep``) to the workspace, and its sum over the block to column ``total`` of the sums.
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
Numbers = tuple[int, ...]


def numbers(steps: Steps) -> tuple[Numbers, Numbers]:
    """Steps and terms as the kernel reads them: 13 numbers a step and 6 a term, one after the other.

    The numbers of a step are its attributes in order, with the first of its terms and their count instead of
    ``terms``. Tuples within tuples would be easier to read; as constants of a kernel, Triton 3.6 does not index them.

    >>> numbers((Step(0, 16, 3, 16, terms=(Term(1, 2, 3, 4, 5, True),), relu=True),))
    ((0, 16, 3, 16, -1, 0, 1, -1, 1, -1, -1, 1, -1), (1, 2, 3, 4, 5, 1))
    """
    found: list[int] = []
    terms: list[int] = []
    for step in steps:
        before, own, after = step[:5], step.terms, step[6:]
        found += [*before, len(terms) // len(Term._fields), len(own), *map(int, after)]
        terms += [int(number) for term in own for number in term]
    return tuple(found), tuple(terms)


def padded(width: int) -> int:
    """Columns of a buffer with padding: a power of two from 16 to 256, then a multiple of 256.

    >>> [padded(width) for width in (1, 63, 64, 129, 300)]
    [16, 64, 64, 256, 512]
    """
    return max(16, 1 << (width - 1).bit_length()) if width <= MAX_TILE else -(-width // MAX_TILE) * MAX_TILE


@dataclass(frozen=True)
class Plan:
    """Layout and steps of a network for the dtype of its factors."""

    network: Network
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        """Points of a block."""
        return 128 if self.dtype == torch.bfloat16 else 32

    @property
    def deep(self) -> int:
        """Columns of a slice of a buffer that is read from the workspace."""
        return 64 if self.dtype == torch.bfloat16 else 32

    @property
    def tile(self) -> int:
        """Rows and columns of the tile of a weight gradient that one program computes."""
        return 128 if self.dtype == torch.bfloat16 else 64

    @property
    def warps(self) -> int:
        """Number of warps per program."""
        return 4 if max(self.padded) <= 64 else 8

    @property
    def padded(self) -> tuple[int, ...]:
        """Columns of each buffer, with padding."""
        return tuple(padded(width) for width in self.network.widths)

    @property
    def column(self) -> tuple[int, ...]:
        """First column of each buffer when all of them are kept; the last number is the total."""
        return (0, *itertools.accumulate(self.padded))

    @property
    def z_column(self) -> tuple[int, ...]:
        """First column of the gradient of each buffer; gradients of inputs are not stored."""
        first = self.column[len(self.network.inputs)]
        return tuple(max(0, column - first) for column in self.column)

    @property
    def matrices(self) -> tuple[tuple[int, ...], ...]:
        """Offset of the packed weights of each layer, for each source."""
        places, at = [], 0
        for i, layer in enumerate(self.network.layers):
            starts = []
            for source in layer.sources:
                starts.append(at)
                at += self.padded[len(self.network.inputs) + i] * self.padded[source]
            places.append(tuple(starts))
        return tuple(places)

    def bias_at(self, layer: int) -> slice:
        """Position of the bias of a layer in the packed biases."""
        buffer = len(self.network.inputs) + layer
        return slice(self.z_column[buffer], self.z_column[buffer] + self.network.widths[buffer])

    def pack(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Packed weights in the dtype of the factors, and packed biases in fp32, padded with zeros, detached."""
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
        """Steps of the forward pass, and columns of its workspace; buffers share columns unless ``train``."""
        net, first = self.network, len(self.network.inputs)
        reads = [max([-1, *(i for i, layer in enumerate(net.layers) if s in layer.sources)]) for s in self._buffers()]
        column, end = (self.column, self.column[-1]) if train else self._reused(reads)
        steps = [self._step(s, column[s], read=s, keep=train or reads[s] >= 0) for s in range(first)]
        for i, layer in enumerate(net.layers):
            buffer = first + i
            terms = []
            for source, at in zip(layer.sources, self.matrices[i], strict=True):
                wide = self.padded[source]
                fresh = self._fits(source, buffer) and source == buffer - 1
                terms.append(Term(column[source], wide, at, 1, wide, fresh))
            write = net.outputs.index(buffer) if buffer in net.outputs else -1
            made = {"terms": tuple(terms), "bias": self.z_column[buffer], "relu": layer.relu, "write": write}
            readers = [(j, net.layers[j]) for j in range(i + 1, len(net.layers)) if buffer in net.layers[j].sources]
            keep = train or any(j > i + 1 or not self._fits(buffer, first + j) for j, _ in readers)
            steps.append(self._step(buffer, column[buffer], keep=keep, **made))
        return tuple(steps), end

    def backward(self, needs_inputs: tuple[bool, ...]) -> tuple[Steps, int]:
        """Steps of the backward pass, last buffer first, and columns of its workspace."""
        net, first = self.network, len(self.network.inputs)
        steps: list[Step] = []
        made = -1
        for buffer in reversed(self._buffers()):
            if buffer < first and not needs_inputs[buffer]:
                continue
            terms = []
            for i, layer in enumerate(net.layers):
                for source, at in zip(layer.sources, self.matrices[i], strict=True):
                    if source == buffer:
                        reader = first + i
                        fresh = reader == made and self._fits(reader, buffer)
                        wide = self.padded[reader]
                        terms.append(Term(self.z_column[reader], wide, at, self.padded[buffer], 1, fresh))
            read = net.outputs.index(buffer) if buffer in net.outputs else -1
            more = {"terms": tuple(terms), "read": read}
            if buffer < first:
                steps.append(self._step(buffer, 0, keep=False, write=sum(needs_inputs[:buffer]), **more))
            else:
                mask = self.column[buffer] if net.layers[buffer - first].relu else -1
                place = self.z_column[buffer]
                steps.append(self._step(buffer, place, mask=mask, total=place, **more))
            made = buffer
        return tuple(steps), self.z_column[-1]

    def _buffers(self) -> range:
        return range(len(self.network.widths))

    def _step(self, buffer: int, column: int, **rest: Any) -> Step:
        wide = self.padded[buffer]
        return Step(column, wide, self.network.widths[buffer], min(wide, MAX_TILE))._replace(**rest)

    def _fits(self, source: int, target: int) -> bool:
        """Whether the product for ``target`` can read the buffer computed just before it from registers."""
        wide, tile = self.padded[source], min(self.padded[target], MAX_TILE)
        return (
            wide <= MAX_TILE // 2
            and self.padded[target] <= MAX_TILE
            and wide * tile * self.dtype.itemsize <= STAGED_BYTES
        )

    def _reused(self, last_read: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Columns of buffers that reuse those of equally wide buffers no later layer reads, and their total."""
        first, free, columns, end = len(self.network.inputs), dict[int, list[int]](), [], 0
        for buffer in self._buffers():
            wide = self.padded[buffer]
            if places := free.get(wide):
                columns.append(places.pop())
            else:
                columns.append(end)
                end += wide
            for done in range(buffer):  # its last reader has run: its columns are free
                if buffer >= first and last_read[done] == buffer - first:
                    free.setdefault(self.padded[done], []).append(columns[done])
        return tuple(columns), end
