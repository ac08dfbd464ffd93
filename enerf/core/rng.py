"""Random number streams that depend only on (seed, number), so that a resumed run continues bit for bit."""

import torch


def generator_for(seed: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Generator for one step, pool or epoch: an independent stream for each (seed, number).

    >>> drawn = [int(torch.randint(100, (1,), generator=generator_for(0, 3))) for _ in range(2)]
    >>> drawn[0] == drawn[1]
    True
    """
    return torch.Generator(device).manual_seed(stream_seed(seed, number))


def stream_seed(seed: int, number: int) -> int:
    """The seed, in [0, 2⁶³), of the stream (seed, number).

    The two are hashed with the finalizer of SplitMix64 (Steele, Lea, Flood, 2014), so that adjacent numbers do not
    give adjacent generator states.
    """
    state = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (state ^ (state >> 31)) & (2**63 - 1)
