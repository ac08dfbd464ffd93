"""Streams of random numbers that depend on a seed and a number alone, so that resumed runs go on bit for bit."""

import torch


def generator_for(seed: int, number: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Random numbers of one step, pool or epoch: a stream of its own for each (seed, number).

    >>> drawn = [int(torch.randint(100, (1,), generator=generator_for(0, 3))) for _ in range(2)]
    >>> drawn[0] == drawn[1]
    True
    """
    return torch.Generator(device).manual_seed(mixed(seed, number))


def mixed(seed: int, number: int) -> int:
    """The seed of one such stream.

    Mixed as by the finaliser of SplitMix64 (Steele, Lea, Flood, 2014), so that neighbouring numbers do not start from
    neighbouring states.
    """
    state = (seed * 0x9E3779B97F4A7C15 + number * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & (2**64 - 1)
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    return (state ^ (state >> 31)) & (2**63 - 1)
