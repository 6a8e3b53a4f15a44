"""The L1 perturbation set: the points of the box [0, 1] within an L1 radius of the clean pixels. All in float32."""

import torch
from torch import Tensor

_ROUNDING = 2e-7  # of the radius: what is nearer to the clean coordinate than this is there
_SLACK = 1e-6  # of the radius
_TINY = 1e-10  # as in AutoAttack's reference: a gradient of exactly 0 gives a step of 0


def project(pixels: Tensor, clean: Tensor, radius: Tensor) -> Tensor:
    """The nearest point of the set (Croce & Hein 2021, "Mind the box", prop. 2.1), up to rounding.

    Each coordinate is pulled towards the clean one by a threshold that the whole sample shares, but at least back into
    the box, and at most home. There it equals the clean one exactly, since L1-APGD counts the coordinates that differ;
    AutoAttack's reference leaves rounding errors behind, and counts some of them.

    Args:
        pixels, clean: float32 (B, C, H, W), `clean` in [0, 1].
        radius: float32 (B,), positive, of each sample; in units of the pixel range [0, 1].
    """
    perturbation = pixels - clean
    distance, excess = perturbation.abs(), (pixels - pixels.clamp(0.0, 1.0)).abs()
    threshold = _threshold(excess.flatten(1), distance.flatten(1), radius[:, None])
    pull = torch.maximum(threshold.view(-1, 1, 1, 1), excess)
    radius = radius.view(-1, 1, 1, 1)
    left = distance.sub_(pull)
    left.masked_fill_(left <= _ROUNDING * radius, 0.0)
    left.mul_((radius / left.sum((1, 2, 3), keepdim=True)).clamp_max_(1.0))  # of points far away, rounding leaves more
    found = left.copysign(perturbation).add_(clean).clamp_(0.0, 1.0)
    # Adding rounds each coordinate up or down. Where all of them together leave the radius, those are taken back that
    # went too far.
    moved = (found - clean).abs_()
    outside = moved.sum((1, 2, 3), keepdim=True, dtype=torch.float64) > radius * (1.0 + _SLACK)
    return torch.where(outside & (moved > left), torch.nextafter(found, clean), found)


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


def _threshold(least: Tensor, most: Tensor, radius: Tensor) -> Tensor:
    """The t, (B, 1), with sum(most - t clamped to [least, most]) = radius; any t that clamps nothing where even that
    sum is smaller. `least` and `most` are (B, N).

    The sum falls with t, linearly between the entries of `least` and `most`, with a slope that counts the coordinates
    whose interval holds t. Running sums over the sorted entries find the piece, and an exact sum the t in it.
    """
    ends, order = torch.cat([least, most], dim=1).sort(dim=1)
    slopes = torch.where(order < least.shape[1], 1.0, -1.0).cumsum_(dim=1)
    lost = ends.diff(dim=1).mul_(slopes[:, :-1]).cumsum_(dim=1)
    over = (most - least).sum(dim=1, keepdim=True) - radius
    piece = (lost < over).sum(dim=1, keepdim=True)
    begin, slope = ends.gather(1, piece), slopes.gather(1, piece)
    remaining = (most - torch.minimum(torch.maximum(begin, least), most)).sum(dim=1, keepdim=True)
    return begin + (remaining - radius) / slope.clamp_min(1.0)
