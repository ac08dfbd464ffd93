"""Pseudo-random permutations of large ranges, evaluated for some indices at a time without a list of all."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

ROUNDS = 4  # each replaces both digits of an index
_MASK = 0xFFFFFFFF


@dataclass(frozen=True)
class IndexPermutation:
    """A permutation of 0 … ``size`` − 1 that depends on ``size`` and ``key`` only.

    An index is written as two digits (a, b) with a < rows and b < columns, where rows · columns is slightly above
    ``size``; the rounds of a Feistel network alternately add to one digit a hash of the other, modulo its range, which
    can be undone and therefore is a permutation. An index that leaves the range is permuted again until it is inside.

    Sources: Luby, Rackoff, How to construct pseudorandom permutations, SIAM J. Comput. 17(2), 1988; Black, Rogaway,
    Ciphers with arbitrary finite domains, CT-RSA 2002 (repetition, and digits of any range).

    >>> sorted(IndexPermutation(5, key=1)(torch.arange(5)).tolist())
    [0, 1, 2, 3, 4]
    """

    size: int
    key: int

    def __post_init__(self) -> None:
        if not 0 < self.size < 1 << 62:
            raise ValueError(f"size is {self.size}; it must be at least 1 and below 2^62")

    def __call__(self, indices: Int64[Tensor, "*b"]) -> Int64[Tensor, "*b"]:
        """Return the images of indices in 0 … ``size`` − 1, on their device."""
        found = self._rounds(indices)
        outside = found >= self.size
        while bool(outside.any()):
            found = found.masked_scatter(outside, self._rounds(found[outside]))
            outside = found >= self.size
        return found

    def _rounds(self, indices: Int64[Tensor, "*b"]) -> Int64[Tensor, "*b"]:
        """Permute 0 … rows · columns − 1."""
        rows = math.isqrt(self.size - 1) + 1
        columns = -(-self.size // rows)
        a, b = torch.div(indices, columns, rounding_mode="floor"), indices % columns
        for i in range(ROUNDS):
            a = (a + hashed(b, self.key, 2 * i)) % rows
            b = (b + hashed(a, self.key, 2 * i + 1)) % columns
        return a * columns + b


def hashed(values: Int64[Tensor, "*b"], key: int, number: int) -> Int64[Tensor, "*b"]:
    """Hash integers below 2³² to integers below 2³², by the function of a key in [0, 2⁶³) with a number.

    The finalizer with multipliers 0x21f0aaad and 0x735a2d97 (C. Wellons, hash-prospector, 2018), whose products are
    below 2⁶³, after one half of the key was added: the lower one for even numbers.
    """
    part = key >> 32 if number % 2 else key
    return _mixed((values + (part + number * 0x9E3779B9 & _MASK)) & _MASK)


def _mixed(x: Int64[Tensor, "*b"]) -> Int64[Tensor, "*b"]:
    """Permute the integers below 2³²."""
    x = ((x ^ (x >> 16)) * 0x21F0AAAD) & _MASK
    x = ((x ^ (x >> 15)) * 0x735A2D97) & _MASK
    return x ^ (x >> 15)
