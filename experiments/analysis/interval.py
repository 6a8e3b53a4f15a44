"""How far a share that was measured on n samples, or a mean over a few runs, may be from the truth."""

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a binomial share (Wilson 1927): the p with |share - p| <= z sqrt(p (1 - p) / n).

    Unlike share +- z sqrt(share (1 - share) / n) it stays in [0, 1] and does not shrink to a point at 0 and 1.
    It covers the choice of the samples, not the randomness of training.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    half = z / shrink * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def overlap(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    """Whether two closed intervals share a point; False where one of them lacks."""
    return one is not None and other is not None and one[0] <= other[1] and other[0] <= one[1]


def bootstrap(values: Sequence[float], confidence: float = 0.95, resamples: int = 10_000) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean of values (Efron 1979); None for fewer than two of them.

    The resamples are the same at every call. It is too narrow for a few values: of five normal ones it holds the true
    mean in about 84 of 100 cases, not 95.
    """
    if len(values) < 2:
        return None
    sample = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(0).integers(0, len(sample), (resamples, len(sample)))
    low, high = np.quantile(sample[drawn].mean(axis=1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
