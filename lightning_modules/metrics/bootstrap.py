"""How far a detection figure would vary with other samples of the same kind."""

import torch
from torch import Tensor

PASSES = 2**24  # scores drawn at a time


def auroc_interval(
    positives: Tensor, negatives: Tensor, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the AUROC (Efron 1979): positives and negatives drawn again with replacement,
    each as many as there are.

    Args:
        positives, negatives: scores (P,) and (N,), neither empty; on the CPU, ties count half as in `auroc`.
        level: share of the resamples between the bounds.
        seed: of the drawing, which leaves the global generator alone.

    Returns:
        Lower and upper bound.
    """
    values, places = torch.unique(torch.cat([positives, negatives]).cpu(), return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    chunk = max(PASSES // max(len(places), len(values)), 1)
    found = []
    for start in range(0, resamples, chunk):
        times = min(chunk, resamples - start)
        above, below = (
            _counts(part, times, len(values), generator)
            for part in (places[: len(positives)], places[len(positives) :])
        )
        # Of each value: how many negatives are below it, and half of those that are equal.
        beaten = below.cumsum(dim=1) - below / 2
        found.append((above * beaten).sum(dim=1) / (len(positives) * len(negatives)))
    tail = (1 - level) / 2
    low, high = torch.cat(found).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _counts(places: Tensor, times: int, values: int, generator: torch.Generator) -> Tensor:
    """float64 (times, values): how often each value occurs in a resample of its places (S,)."""
    drawn = places[torch.randint(len(places), (times, len(places)), generator=generator)]
    flat = (drawn + values * torch.arange(times)[:, None]).flatten()
    return torch.bincount(flat, minlength=times * values).view(times, values).double()
