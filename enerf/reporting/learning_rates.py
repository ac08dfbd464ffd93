"""Comparisons at several learning rates: each method at its own best one."""

import math
from typing import Any

import numpy as np

BEST = "each method at its own best learning rate"


def at_best_rate(
    variants: dict[str, list[dict[str, Any]]], part: str = "mean", name: str = "psnr"
) -> dict[str, list[dict[str, Any]]]:
    """Return, for each method, the variant METHOD@LRATE with the highest mean test PSNR among those with all seeds.

    The rate is chosen by the figures that are then compared, for every method alike. ``part`` and ``name`` are of
    another figure of the metrics.

    >>> of = lambda psnr: [{"mean": {"psnr": psnr}}]
    >>> list(at_best_rate({"he@0.001": of(20.0), "he@0.002": of(21.0), "plain@0.001": of(19.0)}))
    ['he@0.002', 'plain@0.001']
    """
    rated = {variant: runs for variant, runs in variants.items() if "@" in variant}
    seeds = max(map(len, rated.values()), default=0)
    best: dict[str, tuple[float, str]] = {}
    for variant, runs in rated.items():
        score = float(np.mean([m[part][name] for m in runs]))
        if len(runs) == seeds and math.isfinite(score):
            best.setdefault(variant.split("@")[0], (score, variant))
            best[variant.split("@")[0]] = max(best[variant.split("@")[0]], (score, variant))
    return {variant: rated[variant] for _, variant in best.values()}
