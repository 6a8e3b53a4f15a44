"""Soft thresholding: the L1 ball cut by the pixel range, for searches that project on it at every query."""

import torch
from torch import Tensor

_ROUNDS = 16  # of the root finder; what Square asks for is at rounding after 6 to 13


def shrink(perturbation: Tensor, clean: Tensor, radius: float) -> Tensor:
    """The nearest pixels in [0, 1] within an L1 radius of `clean` (Croce & Hein 2021, "Mind the box", prop. 2.1).

    Every coordinate loses the same amount t of its size, is cut to the pixel range, and comes home to exactly the clean
    value where nothing is left of it. Finding t takes a fixed number of passes over the pixels and no sorting, which on
    a CPU would cost as much as a small network. A perturbation a hundred times longer than the radius may come out
    shorter than the radius, never longer.

    Args:
        perturbation, clean: float (B, C, H, W), `clean` in [0, 1].
        radius: in units of the pixel range [0, 1].
    """
    size, scratch = perturbation.abs(), clean + perturbation
    reach = scratch.clamp_(0.0, 1.0).sub(clean).abs_()
    kept = _left(size, reach, _threshold(size, reach, radius, scratch), out=scratch)
    kept.mul_((radius / kept.sum((1, 2, 3), keepdim=True)).clamp_max_(1.0))  # what rounding leaves over
    return kept.copysign_(perturbation).add_(clean).clamp_(0.0, 1.0)


def _left(size: Tensor, reach: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    left = torch.sub(size, threshold, out=out).clamp_min_(0.0)
    return torch.minimum(left, reach, out=out)


def _threshold(size: Tensor, reach: Tensor, radius: float, scratch: Tensor) -> Tensor:
    """The t at which what is left sums to the radius, or 0 where it never exceeds it: (B, 1, 1, 1).

    The sum falls with t, in its tail about exponentially, so it is compared by logarithms. The root is bracketed and
    found by false position, where an end of the bracket that stays twice in a row counts half (the Illinois method:
    Dowell & Jarratt 1971).
    """

    def excess(threshold: Tensor) -> Tensor:
        left = _left(size, reach, threshold, out=scratch).sum((1, 2, 3), keepdim=True)
        return left.div_(radius).log_().clamp_min_(-1.0)

    high = size.amax((1, 2, 3), keepdim=True)
    low = torch.zeros_like(high)
    above, below = excess(low), torch.full_like(high, -1.0)
    fits, threshold, side = above <= 0, low, low
    for _ in range(_ROUNDS):
        threshold = ((low * below - high * above) / (below - above)).masked_fill(fits, 0.0)
        value = excess(threshold)
        positive = value > 0
        above, below = (
            torch.where(positive, value, torch.where(side < 0, above / 2, above)),
            torch.where(positive, torch.where(side > 0, below / 2, below), value),
        )
        low, high = torch.where(positive, threshold, low), torch.where(positive, high, threshold)
        side = positive.to(size.dtype) * 2 - 1
    return threshold
