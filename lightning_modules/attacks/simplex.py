"""The L1 perturbation set: the points of the box [0, 1] within an L1 radius of the clean pixels. All in float32."""

import torch
from torch import Tensor

_ROUNDS = 16  # of the root finder; what the attacks ask for is at rounding after 6 to 13
_ROUNDING = 2e-7  # of the radius: what is nearer to the clean coordinate than this is there
_TINY = 1e-10  # as in AutoAttack's reference: a gradient of exactly 0 gives a step of 0


def project(perturbation: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
    """The nearest pixels of the set (Croce & Hein 2021, "Mind the box", prop. 2.1), up to rounding.

    Every coordinate loses the same amount t of its size, is cut to the pixel range, and where nothing is left of it
    comes home to exactly the clean value, since L1-APGD counts the coordinates that differ; AutoAttack's reference
    leaves rounding errors behind, and counts some of them.

    Finding t takes a fixed number of passes over the pixels and no sorting, which on a CPU would cost as much as a
    small network. A perturbation a million times longer than the radius may come out shorter than it, never longer.

    Args:
        perturbation, clean: float32 (B, C, H, W), `clean` in [0, 1].
        radius: float32 (B,), positive, of each sample; in units of the pixel range [0, 1].
    """
    radius = radius.view(-1, 1, 1, 1)
    size, scratch = perturbation.abs(), clean + perturbation
    reach = scratch.clamp_(0.0, 1.0).sub(clean).abs_()
    threshold = _threshold(size, reach, radius, scratch)
    kept = _left(size, reach, threshold, out=scratch)
    moves = (kept > 0) & (kept < reach) & (threshold > 0)
    missing = (radius - kept.sum((1, 2, 3), keepdim=True)) / moves.sum((1, 2, 3), keepdim=True).clamp_min(1)
    kept.add_(torch.mul(moves, missing, out=reach))  # a threshold is rounded more coarsely than what it leaves
    kept.masked_fill_(kept <= _ROUNDING * radius, 0.0)
    kept.mul_((radius / kept.sum((1, 2, 3), keepdim=True)).clamp_max_(1.0))
    return kept.copysign_(perturbation).add_(clean).clamp_(0.0, 1.0)


def direction(gradient: Tensor, share: Tensor) -> Tensor:
    """Sparse steepest ascent (sec. 3.1 there): the signs of the largest entries of the gradient, of L1 length 1.

    Args:
        gradient: float32 (B, C, H, W).
        share: float32 (B,), the share of entries that may be other than 0.
    """
    sizes = gradient.abs()
    count = sizes[0].numel()
    place = ((1.0 - share) * count).long().clamp(0, count - 1)
    least = sizes.flatten(1).sort(dim=1).values.gather(1, place[:, None])
    signs = gradient.sign() * (sizes >= least.view(-1, 1, 1, 1))
    return signs.div_(signs.abs().sum(dim=(1, 2, 3), keepdim=True) + _TINY)


def _left(size: Tensor, reach: Tensor, threshold: Tensor, out: Tensor) -> Tensor:
    left = torch.sub(size, threshold, out=out).clamp_min_(0.0)
    return torch.minimum(left, reach, out=out)


def _threshold(size: Tensor, reach: Tensor, radius: Tensor, scratch: Tensor) -> Tensor:
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
